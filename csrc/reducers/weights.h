// The two distributions of stochastic pooling: w = max(x, 0) (Zeiler and Fergus 2013) and w = exp((x - max)/T).
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

// x / temperature. The usual 1 is worth a branch: a division takes as long as an exponential.
template <class V>
FASTPOOL_HD V over(V x, Scalar<V> temperature) {
  if (temperature != Scalar<V>(1)) x = x / V(temperature);
  return x;
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
  static FASTPOOL_HD V weight(V x, V largest, Scalar<V> temperature) {
    return exponential(over(x - largest, temperature));
  }
  template <class V>
  static FASTPOOL_HD V weighted(V weight, V x) {
    const V zero(Scalar<V>(0));
    return select(weight == zero, zero, weight * x);  // 0 * -inf contributes nothing
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
