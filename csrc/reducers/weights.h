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
  static FASTPOOL_HD V nothing() {
    return -infinity<V>();
  }
};

// The same of a parameter of any sign. Infinite it would make NaN of a difference of 0.
template <class V>
FASTPOOL_HD V sharpness_of(V parameter) {
  const V largest(Limits<Scalar<V>>::largest());
  return larger_of(-largest, smaller_of(largest, parameter * V(Scalar<V>(1.4426950408889634))));
}
// Whether no square of a difference that it makes count overflows, or it is 0.
template <class V>
FASTPOOL_HD Mask<V> is_sharp(V sharpness) {
  const V least(sizeof(Scalar<V>) == 4 ? Scalar<V>(0x1p-40) : Scalar<V>(0x1p-400)), zero(Scalar<V>(0));
  return (sharpness > least) | (sharpness < -least) | (sharpness == zero);
}

// The largest element of a window and the smallest, of which a parameter's sign will choose. Of NaN they know nothing.
template <class V>
struct Extremes {
  V largest, negative;  // the latter is minus the smallest

  FASTPOOL_HD void start() { largest = negative = -infinity<V>(); }
  FASTPOOL_HD void add(V x) {
    largest = larger_of(largest, x);
    negative = larger_of(negative, -x);
  }
  FASTPOOL_HD void add_inside(V x, Mask<V> inside) {
    largest = larger_of(largest, select(inside, x, -infinity<V>()));
    negative = larger_of(negative, select(inside, -x, -infinity<V>()));
  }
  template <class Team>
  FASTPOOL_HD void share(const Team& team) {
    largest = team.max(largest);
    negative = team.max(negative);
  }
  FASTPOOL_HD V of(V sign) const { return select(sign < V(Scalar<V>(0)), -negative, largest); }
};

// A running maximum that NaN enters and never leaves.
template <class V>
FASTPOOL_HD V max_with_nan(V a, V b) {
  return select((b > a) | (b != b), b, a);
}

}  // namespace fastpool
