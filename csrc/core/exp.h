// exp of x <= 0 or NaN, with the same bits on every processor: no library call, no fused multiply-add.
#pragma once

#include "core/values.h"

namespace fastpool {

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float lowest = -104.0f, shift = 12582912.0f, log2e = 1.44269504f, ln2 = 0.693359375f, ln2_rest = -2.12194440e-4f;
  static constexpr uint32_t bias = 127, mantissa = 23;
};
template <>
struct ExpConstants<double> {
  static constexpr double lowest = -746.0, shift = 6755399441055744.0, log2e = 1.4426950408889634;
  static constexpr double ln2 = 0.693147180369123816490, ln2_rest = 1.90821492927058770002e-10;
  static constexpr uint64_t bias = 1023, mantissa = 52;
};

// exp(x) = 2^n * exp(r), |r| <= log(2)/2; the Taylor series of exp(r) ends below half a unit in the last place.
template <class V>
FASTPOOL_HD V exponential(V x) {
  using T = Scalar<V>;
  using C = ExpConstants<T>;
  // Below it exp rounds to 0, which is set in the end: processors take long to arrive there. NaN passes.
  const Mask<V> vanishes = x < V(C::lowest);
  const V bounded = select(vanishes, V(T(0)), x);
  const V shifted = bounded * V(C::log2e) + V(C::shift);  // 1.5 * 2^mantissa: adding it rounds to an integer
  const V n = shifted - V(C::shift);
  const V r = (bounded - n * V(C::ln2)) - n * V(C::ln2_rest);
  V sum(T(1) / T(5040));
  if constexpr (sizeof(T) == 8) {
    sum = V(T(1) / T(6227020800.0));
    sum = sum * r + V(T(1) / T(479001600));
    sum = sum * r + V(T(1) / T(39916800));
    sum = sum * r + V(T(1) / T(3628800));
    sum = sum * r + V(T(1) / T(362880));
    sum = sum * r + V(T(1) / T(40320));
    sum = sum * r + V(T(1) / T(5040));
  }
  sum = sum * r + V(T(1) / T(720));
  sum = sum * r + V(T(1) / T(120));
  sum = sum * r + V(T(1) / T(24));
  sum = sum * r + V(T(1) / T(6));
  sum = sum * r + V(T(0.5));
  sum = sum * (r * r) + r + V(T(1));
  // n stands in the low bits of the shifted sum. Two factors, since 2^n alone may be subnormal.
  using B = Bits<V>;
  using Word = decltype(bits_of(T(0)));
  constexpr Word even = 2048;  // keeps the shift unsigned
  const B power = bits_of(shifted) - B(bits_of(T(C::shift))) + B(even);
  const B half = power >> 1, rest = power - half;
  const B to_exponent(Word(C::bias - even / 2));
  const V result = sum * from_bits((half + to_exponent) << int(C::mantissa)) * from_bits((rest + to_exponent) << int(C::mantissa));
  return select(vanishes, V(T(0)), result);
}

}  // namespace fastpool
