// Element types, and the accumulation type each is summed in. No torch here.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "core/assert.h"

// A short loop inside a vectorised one has to be unrolled first.
#if defined(__CUDACC__)
#define FASTPOOL_UNROLL _Pragma("unroll")
#define FASTPOOL_ROLL _Pragma("unroll 1")  // a long loop, unrolled, would not fit the registers
#else
#define FASTPOOL_UNROLL _Pragma("GCC unroll 16")
#define FASTPOOL_ROLL
#endif

#if defined(__CUDACC__)
#define FASTPOOL_HD __host__ __device__ __forceinline__
#define FASTPOOL_HD_SCALAR __host__ __device__ __forceinline__
#else
// Kernel bodies must end up inside the wrapper that carries the CPU's target attribute.
#define FASTPOOL_HD inline __attribute__((always_inline))
// Index arithmetic gains nothing from wide registers; out of line it keeps the wrappers small.
#define FASTPOOL_HD_SCALAR __attribute__((noinline)) inline
#endif

namespace fastpool {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
FASTPOOL_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <class Storage>
struct AccumulateIn {
  using type = float;
};
template <>
struct AccumulateIn<double> {
  using type = double;
};
template <class Storage>
using Accumulated = typename AccumulateIn<Storage>::type;

template <class T>
struct Limits {
  static FASTPOOL_HD T infinity() { return bit_cast<T>(0x7f800000u); }
  static FASTPOOL_HD T largest() { return bit_cast<T>(0x7f7fffffu); }
  static FASTPOOL_HD T smallest() { return bit_cast<T>(0x00800000u); }  // of those with all their bits
};
template <>
struct Limits<double> {
  static FASTPOOL_HD double infinity() { return bit_cast<double>(0x7ff0000000000000ull); }
  static FASTPOOL_HD double largest() { return bit_cast<double>(0x7fefffffffffffffull); }
  static FASTPOOL_HD double smallest() { return bit_cast<double>(0x0010000000000000ull); }
};
FASTPOOL_HD float widen(float x) { return x; }
FASTPOOL_HD double widen(double x) { return x; }
FASTPOOL_HD float widen(BFloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }

FASTPOOL_HD float widen(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  const uint32_t normal = magnitude + (112u << 23);
  // A subnormal half is a sum without its hidden bit: add the bit, then subtract it as a float.
  const float subnormal = bit_cast<float>(magnitude + (113u << 23)) - bit_cast<float>(113u << 23);
  uint32_t bits = magnitude < (1u << 23) ? bit_cast<uint32_t>(subnormal) : normal;
  bits = magnitude >= (31u << 23) ? magnitude + (224u << 23) : bits;
  return bit_cast<float>(bits | sign);
}

template <class Storage>
struct Narrow;

template <>
struct Narrow<float> {
  static FASTPOOL_HD float from(float x) { return x; }
};
template <>
struct Narrow<double> {
  static FASTPOOL_HD double from(double x) { return x; }
};
template <>
struct Narrow<BFloat16> {
  static FASTPOOL_HD BFloat16 from(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t nan = (bits >> 16) | 0x40u;
    return {uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded)};
  }
};
template <>
struct Narrow<Half> {
  static FASTPOOL_HD Half from(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Adding 0.5 shifts a subnormal result to the low bits, rounded to nearest even by the addition itself.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
    half = magnitude >= (143u << 23) ? 0x7c00u : half;
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    return {uint16_t(half | sign)};
  }
};

}  // namespace fastpool
