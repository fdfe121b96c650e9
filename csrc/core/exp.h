// 2^x of x <= 0 or NaN, with the same bits on every processor: no library call, no fused multiply-add.
#pragma once

#include "core/values.h"

namespace fastpool {

// c + rest[0] * x + rest[1] * x^2 + …
template <class V>
FASTPOOL_HD V polynomial(V, Scalar<V> c) {
  return V(c);
}
template <class V, class... Rest>
FASTPOOL_HD V polynomial(V x, Scalar<V> c, Rest... rest) {
  return polynomial(x, rest...) * x + V(c);
}

// 2^r of |r| <= 1/2: 1 + r * p(r), where p meets (2^r - 1)/r at Chebyshev's nodes. It is off by 1e-8, in double by 2e-17.
template <class V>
FASTPOOL_HD V power_of_fraction(V r) {
  if constexpr (sizeof(Scalar<V>) == 4)
    return polynomial(r, 1.0f, 0.693147188026228781f, 0.240226507605681269f, 0.0555035711421907782f, 0.00961808255727785149f,
                      0.00133908633646712344f, 0.000154531629451206902f);
  else
    return polynomial(r, 1.0, 0.693147180559945309, 0.240226506959100982, 0.0555041086648215943, 0.00961812910760688853,
                      0.00133335581464169353, 0.000154035304417360502, 0.0000152527338298361184, 1.32154425879216897e-6,
                      1.01780624458457735e-7, 7.0725859492692237e-9, 4.45496059818651839e-10);
}

// 2^x = 2^n * 2^r, where n is the integer next to x. What is below the smallest normal number is 0. NaN passes.
template <class V>
FASTPOOL_HD V power_of_two(V x) {
  using T = Scalar<V>;
  using Word = decltype(bits_of(T(0)));
  constexpr bool is_float = sizeof(T) == 4;
  constexpr int mantissa = is_float ? 23 : 52;
  constexpr T lowest = is_float ? -126 : -1022, bias = 1 - lowest;
  const V shift(T(is_float ? 0x1.8p23 : 0x1.8p52));  // adding it rounds to an integer, which stands in the low bits
  const V shifted = x + shift;
  const V power = from_bits((bits_of(shifted) + Bits<V>(Word(bias))) << mantissa);
  return select(x < V(lowest), V(T(0)), power_of_fraction(x - (shifted - shift)) * power);
}

}  // namespace fastpool
