// The vocabulary of code that computes on one value or on many lanes of them alike.
#pragma once

#include "core/types.h"

namespace fastpool {

// A kernel's V is one value, or on the CPU a vector of lanes that each have a window of their own. What a scalar and
// its lanes have in common:
template <class V>
struct Lane;
template <>
struct Lane<float> {
  using Scalar = float;
  using Tap = int32_t;  // as wide as the value beside it: a comparison of one selects the other
  using Bits = uint32_t;
  using Mask = bool;
};
template <>
struct Lane<double> {
  using Scalar = double;
  using Tap = int64_t;
  using Bits = uint64_t;
  using Mask = bool;
};
template <class V>
using Scalar = typename Lane<V>::Scalar;
template <class V>
using Tap = typename Lane<V>::Tap;
template <class V>
using Bits = typename Lane<V>::Bits;
template <class V>
using Mask = typename Lane<V>::Mask;

template <class V>
FASTPOOL_HD V select(bool mask, V a, V b) {
  return mask ? a : b;
}
// a where it is above b; b elsewhere, and so where either is NaN. Lanes have one instruction for it.
template <class V>
FASTPOOL_HD V larger_of(V a, V b) {
  return select(a > b, a, b);
}
template <class V>
FASTPOOL_HD V first_lane(V x) {
  return x;
}
FASTPOOL_HD uint32_t bits_of(float x) { return bit_cast<uint32_t>(x); }
FASTPOOL_HD uint64_t bits_of(double x) { return bit_cast<uint64_t>(x); }
FASTPOOL_HD float from_bits(uint32_t x) { return bit_cast<float>(x); }
FASTPOOL_HD double from_bits(uint64_t x) { return bit_cast<double>(x); }

template <class V>
FASTPOOL_HD V infinity() {
  return V(Limits<Scalar<V>>::infinity());
}
template <class V>
FASTPOOL_HD V nan() {
  return V(Limits<Scalar<V>>::infinity() - Limits<Scalar<V>>::infinity());
}

}  // namespace fastpool
