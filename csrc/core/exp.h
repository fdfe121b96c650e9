// exp of x <= 0 or NaN, with the same bits on every processor: no library call, no fused multiply-add.
#pragma once

#include "core/types.h"

namespace fastpool {

// exp(x) = 2^n * exp(r), |r| <= log(2)/2; the Taylor series of exp(r) ends below half a unit in the last place.
FASTPOOL_HD float exponential(float x) {
  const float shift = 12582912.0f;                  // 1.5 * 2^23: adding it rounds to the nearest integer
  const float bounded = x < -104.0f ? -104.0f : x;  // exp(-104) rounds to 0; NaN passes the comparison
  const float n = (bounded * 1.44269504f + shift) - shift;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float sum = 1.0f / 5040.0f;
  sum = sum * r + 1.0f / 720.0f;
  sum = sum * r + 1.0f / 120.0f;
  sum = sum * r + 1.0f / 24.0f;
  sum = sum * r + 1.0f / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * (r * r) + r + 1.0f;
  // Two factors, since 2^n alone may be subnormal.
  const int32_t half = int32_t(n) >> 1, rest = int32_t(n) - half;
  return sum * bit_cast<float>((half + 127) << 23) * bit_cast<float>((rest + 127) << 23);
}

FASTPOOL_HD double exponential(double x) {
  const double shift = 6755399441055744.0;  // 1.5 * 2^52
  const double bounded = x < -746.0 ? -746.0 : x;
  const double shifted = bounded * 1.4426950408889634 + shift;
  const double n = shifted - shift;
  const double r = (bounded - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * (r * r) + r + 1.0;
  // The integer stands in the low bits of the shifted sum: no conversion, which only AVX-512 vectorises.
  const int64_t power = bit_cast<int64_t>(shifted) - bit_cast<int64_t>(shift);
  const int64_t half = power / 2, rest = power - half;
  return sum * bit_cast<double>((half + 1023) << 52) * bit_cast<double>((rest + 1023) << 52);
}

}  // namespace fastpool
