// The two distributions of stochastic pooling: w = max(x, 0) (Zeiler and Fergus 2013) and w = exp((x - max)/T).
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

struct ReluWeights {
  static constexpr bool needs_max = false;
  template <class T>
  static FASTPOOL_HD T weight(T x, T, T) {
    return x < T(0) ? T(0) : x;  // NaN stays NaN
  }
  template <class T>
  static FASTPOOL_HD T nothing() {
    return T(0);  // what a window without any weight pools to
  }
};

struct SoftmaxWeights {
  static constexpr bool needs_max = true;
  template <class T>
  static FASTPOOL_HD T weight(T x, T largest, T temperature) {
    return exponential((x - largest) / temperature);
  }
  template <class T>
  static FASTPOOL_HD T nothing() {
    return -Limits<T>::infinity();
  }
};

// A running maximum that NaN enters and never leaves.
template <class T>
FASTPOOL_HD T max_with_nan(T a, T b) {
  return ((b > a) | (b != b)) ? b : a;
}

// Gives every lane the largest value of all lanes.
template <class T, int L>
FASTPOOL_HD void share_max(T (&largest)[L]) {
  T all = largest[0];
  for (int i = 1; i < L; ++i) all = max_with_nan(all, largest[i]);
  for (int i = 0; i < L; ++i) largest[i] = all;
}

}  // namespace fastpool
