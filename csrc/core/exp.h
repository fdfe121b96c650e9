// Powers of two and their logarithms, with the same bits on every processor: no library call, no fused multiply-add.
#pragma once

#include <cmath>

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

// 2^r of |r| <= 1/2: 1 + r * (c + r * q(r)), where c + r * q(r) meets (2^r - 1)/r at Chebyshev's nodes. It is off by 1e-8, in
// double by 2e-17.
template <class T>
constexpr T kRiseOfPower = T(sizeof(T) == 4 ? 0.693147188026228781f : 0.693147180559945309);
template <class V>
FASTPOOL_HD V curve_of_power(V r) {
  if constexpr (sizeof(Scalar<V>) == 4)
    return polynomial(r, 0.240226507605681269f, 0.0555035711421907782f, 0.00961808255727785149f, 0.00133908633646712344f,
                      0.000154531629451206902f);
  else
    return polynomial(r, 0.240226506959100982, 0.0555041086648215943, 0.00961812910760688853, 0.00133335581464169353,
                      0.000154035304417360502, 0.0000152527338298361184, 1.32154425879216897e-6, 1.01780624458457735e-7,
                      7.0725859492692237e-9, 4.45496059818651839e-10);
}
template <class V>
FASTPOOL_HD V power_of_fraction(V r) {
  using T = Scalar<V>;
  return (curve_of_power(r) * r + V(kRiseOfPower<T>)) * r + V(T(1));
}

// 2^x of x <= 0, or < 127 (1023): 2^n * 2^r, where n is the integer next to x. What is below the smallest normal number is 0. NaN passes.
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

// 2^x = power * (1 + rise), likewise, and rise - kRiseOfPower * r: where x is near 0 none of them loses what the others do.
template <class V>
struct SplitPower {
  V power, rise, curve;
};
template <class V>
FASTPOOL_HD SplitPower<V> split_power_of_two(V x) {
  using T = Scalar<V>;
  using Word = decltype(bits_of(T(0)));
  constexpr bool is_float = sizeof(T) == 4;
  constexpr T lowest = is_float ? -126 : -1022;
  const V shift(T(is_float ? 0x1.8p23 : 0x1.8p52)), shifted = x + shift, r = x - (shifted - shift), bent = curve_of_power(r) * r;
  const V power = from_bits((bits_of(shifted) + Bits<V>(Word(1 - lowest))) << (is_float ? 23 : 52));
  return {select(x < V(lowest), V(T(0)), power), (bent + V(kRiseOfPower<T>)) * r, bent * r};
}

// The root of a value, or of every lane, which all processors round alike.
template <class V>
FASTPOOL_HD V square_root(V x) {
  using T = Scalar<V>;
  T lanes[sizeof(V) / sizeof(T)];
  memcpy(lanes, &x, sizeof(V));
#pragma omp simd
  for (int i = 0; i < int(sizeof(V) / sizeof(T)); ++i) lanes[i] = std::sqrt(lanes[i]);
  memcpy(&x, lanes, sizeof(V));
  return x;
}

// The smaller of both; b where either is NaN.
template <class V>
FASTPOOL_HD V smaller_of(V a, V b) {
  return -larger_of(-a, -b);
}

// y * 2^x for any x: in two steps, so that nothing overflows, or loses bits, before the product does.
template <class V>
FASTPOOL_HD V times_power_of_two(V y, V x) {
  using T = Scalar<V>;
  using Word = decltype(bits_of(T(0)));
  constexpr bool is_float = sizeof(T) == 4;
  constexpr int mantissa = is_float ? 23 : 52;
  constexpr T bias = is_float ? 127 : 1023;
  const V shift(T(is_float ? 0x1.8p23 : 0x1.8p52)), limit(2 * bias - 2);
  x = larger_of(-limit, smaller_of(limit, x));
  const V n = (x + shift) - shift, shifted = n * V(T(0.5)) + shift, half = shifted - shift;
  const auto power = [](V shifted, T more) { return from_bits((bits_of(shifted) + Bits<V>(Word(bias + more))) << mantissa); };
  return y * power(shifted, 0) * (V(T(0.5)) * power_of_fraction(x - n)) * power((n - half) + shift, 1);
}

// log2(1 + u) of -0.3 < u < 0.42: in s = u/(2 + u) it is s * (2/log(2) + s^2 * q(s^2)), which meets it at Chebyshev's nodes and
// is off by 7e-10 of it, in double by 1e-18.
template <class V>
FASTPOOL_HD V curve_of_log2(V square) {
  if constexpr (sizeof(Scalar<V>) == 4)
    return polynomial(square, 0.961798838802110003672f, 0.576715186019023426812f, 0.431717697458873853473f);
  else
    return polynomial(square, 0.961796693925989728773, 0.577078016345520229497, 0.412198585840900534481, 0.32059853491395986095,
                      0.262334352504183019096, 0.220913084231176794745, 0.213658956943192709318);
}
template <class V>
FASTPOOL_HD V log2_of_one_and(V u) {
  using T = Scalar<V>;
  const V s = u / (V(T(2)) + u), square = s * s;
  return s * (curve_of_log2(square) * square + V(T(sizeof(T) == 4 ? 2.88539007980333632958f : 2.88539008177792681147)));
}

// log2(x), as the integer next to it and the rest, |rest| <= 1/2: differences of logarithms lose nothing.
template <class V>
struct Log2 {
  V whole, rest;

  FASTPOOL_HD V all() const { return whole + rest; }
};
// Of x > 0. Numbers without all their bits, and 0, count as about the smallest that has them; infinity and NaN give NaN.
template <class V>
FASTPOOL_HD Log2<V> log2_of(V x) {
  using T = Scalar<V>;
  using Word = decltype(bits_of(T(0)));
  constexpr bool is_float = sizeof(T) == 4;
  constexpr int mantissa = is_float ? 23 : 52;
  const Word one = bits_of(T(1)), lowest = bits_of(T(0.70710678118654752));  // factors lie in [lowest, 2 * lowest)
  const Bits<V> bits = bits_of(x) + Bits<V>(one - lowest);
  const V factor = from_bits((bits & Bits<V>((Word(1) << mantissa) - 1)) + Bits<V>(lowest));
  // An integer below 2^mantissa stands in the low bits of itself + 2^mantissa.
  const T base = is_float ? 0x1p23 : 0x1p52, bias = is_float ? 127 : 1023;
  const V whole = from_bits((bits >> mantissa) | Bits<V>(bits_of(base))) - V(base + bias);
  return {whole, log2_of_one_and(factor - V(T(1))) + (x - x)};
}

}  // namespace fastpool
