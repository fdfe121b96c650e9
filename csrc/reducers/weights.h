// The two distributions of stochastic pooling: w = max(x, 0) (Zeiler and Fergus 2013) and w = exp((x - max)/T).
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

// A factor of differences, neither infinite nor 0: a difference of 0 stays 0 however low the temperature, and an infinite
// one infinite however high.
template <class T>
FASTPOOL_HD T finite(double factor) {
  return factor < Limits<T>::smallest() ? Limits<T>::smallest() : factor < Limits<T>::largest() ? T(factor) : Limits<T>::largest();
}
// What differences are multiplied by before 2 is raised to them: exp(x/temperature) = 2^(x * sharpness). The temperature is the
// pooling's number.
template <class T>
FASTPOOL_HD T sharpness(const Problem& p) {
  return finite<T>(1.4426950408889634 * (1 / p.numbers[0]));
}

struct ReluWeights {
  static constexpr bool needs_max = false;
  template <class V>
  static FASTPOOL_HD V weight(V x, V, Scalar<V>) {
    return larger_of(V(Scalar<V>(0)), x);  // NaN stays NaN
  }
  // weight * x.
  template <class V>
  static FASTPOOL_HD V weighted(V weight, V) {
    return weight * weight;
  }
  template <class V>
  static FASTPOOL_HD V nothing() {
    return V(Scalar<V>(0));  // what a window without any weight pools to
  }
};

struct SoftmaxWeights {
  static constexpr bool needs_max = true;
  template <class V>
  static FASTPOOL_HD V weight(V x, V largest, Scalar<V> sharpness) {
    return power_of_two((x - largest) * V(sharpness));
  }
  template <class V>
  static FASTPOOL_HD V weighted(V weight, V x) {
    return weight * larger_of(V(-Limits<Scalar<V>>::largest()), x);  // -inf contributes nothing
  }
  template <class V>
  static FASTPOOL_HD V nothing() {
    return -infinity<V>();
  }
};

// A running maximum that NaN enters and never leaves.
template <class V>
FASTPOOL_HD V max_with_nan(V a, V b) {
  return select((b > a) | (b != b), b, a);
}

}  // namespace fastpool
