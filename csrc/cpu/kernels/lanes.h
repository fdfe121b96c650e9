// A vector of lanes with the operators of its elements: what a reducer calls V on the CPU. As many registers as it
// takes, written out at compile time. Kernels are compiled once for each register width, in a namespace of their own.
#pragma once

#include <utility>

#include "core/exp.h"
#if defined(__x86_64__) && FASTPOOL_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

constexpr int kRegisterBytes = FASTPOOL_VECTOR_BYTES;

// Whether common geometries have code of their own. x86 processors without AVX2 are too few to compile it for.
#if defined(__x86_64__)
constexpr bool kSpecialises = kRegisterBytes > 16;
#else
constexpr bool kSpecialises = true;
#endif
// Nor have those processors half types in vectors, which they would convert by integers: the exact path computes them.
template <class S>
constexpr bool kHasLanes = kSpecialises || sizeof(S) >= 4;

template <class T>
struct Integer {
  using Signed = int32_t;
  using Unsigned = uint32_t;
};
template <>
struct Integer<double> {
  using Signed = int64_t;
  using Unsigned = uint64_t;
};
template <>
struct Integer<int64_t> : Integer<double> {};
template <>
struct Integer<uint64_t> : Integer<double> {};

// f(0), …, f(count - 1) as constants. An array that they index stays in registers, which a loop may be unrolled too late for.
template <int count, class F>
FASTPOOL_HD void unrolled(const F& f) {
  [&]<int... i>(std::integer_sequence<int, i...>)
      __attribute__((always_inline)) { (f(std::integral_constant<int, i>()), ...); }(std::make_integer_sequence<int, count>());
}
#define FASTPOOL_STEP __attribute__((always_inline))

template <class T, int count>
struct Register {
  typedef T type __attribute__((vector_size(count * sizeof(T))));
};

#if defined(__clang__)
#define FASTPOOL_SHUFFLE(Indices, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FASTPOOL_SHUFFLE(Indices, a, b, ...) __builtin_shuffle(a, b, Indices{__VA_ARGS__})
#endif

template <class T, int L, bool fits = (L * int(sizeof(T)) <= kRegisterBytes)>
struct Lanes;

// Lanes of one register.
template <class T, int L>
struct Lanes<T, L, true> {
  using Signed = typename Integer<T>::Signed;
  using Unsigned = typename Integer<T>::Unsigned;
  using Raw = typename Register<T, L>::type;
  using Other = Lanes<Signed, L>;
  Raw v;

  Lanes() = default;
  FASTPOOL_HD Lanes(T x) : v(x - Raw{}) {}
  template <class B, class = std::enable_if_t<std::is_same_v<B, bool>>>
  explicit FASTPOOL_HD Lanes(B all) : v(T(all ? -1 : 0) - Raw{}) {}
  static FASTPOOL_HD Lanes of(Raw v) {
    Lanes lanes;
    lanes.v = v;
    return lanes;
  }

#define FASTPOOL_OPERATOR(op) \
  friend FASTPOOL_HD Lanes operator op(Lanes a, Lanes b) { return of(a.v op b.v); }
#define FASTPOOL_COMPARISON(op) \
  friend FASTPOOL_HD Other operator op(Lanes a, Lanes b) { return Other::of(a.v op b.v); }
  FASTPOOL_OPERATOR(+)
  FASTPOOL_OPERATOR(-)
  FASTPOOL_OPERATOR(*)
  FASTPOOL_OPERATOR(/)
  FASTPOOL_OPERATOR(|)
  FASTPOOL_OPERATOR(&)
  FASTPOOL_OPERATOR(^)
  FASTPOOL_COMPARISON(>)
  FASTPOOL_COMPARISON(<)
  FASTPOOL_COMPARISON(>=)
  FASTPOOL_COMPARISON(<=)
  FASTPOOL_COMPARISON(==)
  FASTPOOL_COMPARISON(!=)
#undef FASTPOOL_OPERATOR
#undef FASTPOOL_COMPARISON
  friend FASTPOOL_HD Lanes operator>>(Lanes a, int bits) { return of(a.v >> bits); }
  friend FASTPOOL_HD Lanes operator<<(Lanes a, int bits) { return of(a.v << bits); }
  FASTPOOL_HD Lanes operator-() const { return of(-v); }
  FASTPOOL_HD Lanes operator!() const { return of(~v); }

  FASTPOOL_HD T first() const { return v[0]; }
  template <class To>
  FASTPOOL_HD Lanes<To, L> as() const {  // the same bits
    return Lanes<To, L>::of((typename Lanes<To, L>::Raw)v);
  }
  static FASTPOOL_HD Lanes iota(T from = 0) { return iota_of(from, std::make_integer_sequence<int, L>()); }
  // Lane i gets lane (i + by) mod L.
  template <int by>
  FASTPOOL_HD Lanes rotated() const {
    return rotated_by<by>(std::make_integer_sequence<int, L>());
  }
  // Lane i gets lane index[i], of two vectors in a row.
  FASTPOOL_HD Lanes picked(Other index) const {
#if defined(__clang__)
    return picked(*this, *this, index);
#else
    return of(__builtin_shuffle(v, index.v));
#endif
  }
  static FASTPOOL_HD Lanes picked(Lanes a, Lanes b, Other index) {
#if defined(__clang__)  // knows shuffles by constants only
    Lanes result;
    for (int i = 0; i < L; ++i) result.v[i] = index.v[i] < L ? a.v[index.v[i]] : b.v[index.v[i] - L];
    return result;
#else
    return of(__builtin_shuffle(a.v, b.v, index.v));
#endif
  }
  // a0 b0 a1 b1 … and its inverse.
  static FASTPOOL_HD void zip(Lanes a, Lanes b, Lanes& lo, Lanes& hi) { zip_by(a, b, lo, hi, std::make_integer_sequence<int, L>()); }
  static FASTPOOL_HD void unzip(Lanes lo, Lanes hi, Lanes& a, Lanes& b) { unzip_by(lo, hi, a, b, std::make_integer_sequence<int, L>()); }

 private:
  using Index = typename Register<Signed, L>::type;
  template <int... i>
  static FASTPOOL_HD Lanes iota_of(T from, std::integer_sequence<int, i...>) {
    return of(Raw{T(i)...} + from);
  }
  template <int by, int... i>
  FASTPOOL_HD Lanes rotated_by(std::integer_sequence<int, i...>) const {
    return of(FASTPOOL_SHUFFLE(Index, v, v, ((i + by) % L)...));
  }
  template <int... i>
  static FASTPOOL_HD void zip_by(Lanes a, Lanes b, Lanes& lo, Lanes& hi, std::integer_sequence<int, i...>) {
    lo.v = FASTPOOL_SHUFFLE(Index, a.v, b.v, (i / 2 + i % 2 * L)...);
    hi.v = FASTPOOL_SHUFFLE(Index, a.v, b.v, ((i + L) / 2 + i % 2 * L)...);
  }
  template <int... i>
  static FASTPOOL_HD void unzip_by(Lanes lo, Lanes hi, Lanes& a, Lanes& b, std::integer_sequence<int, i...>) {
#if FASTPOOL_VECTOR_BYTES == 32
    if constexpr (L == 8) {  // compilers take three instructions for each half of a result
      const auto ordered = [](__m256 x) FASTPOOL_STEP { return (Raw)_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8); };
      const __m256 first = (__m256)lo.v, second = (__m256)hi.v;
      a.v = ordered(_mm256_shuffle_ps(first, second, 0x88));
      b.v = ordered(_mm256_shuffle_ps(first, second, 0xdd));
      return;
    }
#endif
    a.v = FASTPOOL_SHUFFLE(Index, lo.v, hi.v, (2 * i)...);
    b.v = FASTPOOL_SHUFFLE(Index, lo.v, hi.v, (2 * i + 1)...);
  }
};

// More lanes than a register holds: two halves. Braces compute the lower one first: memory is best read upwards.
template <class T, int L>
struct Lanes<T, L, false> {
  using Signed = typename Integer<T>::Signed;
  using Unsigned = typename Integer<T>::Unsigned;
  using Half = Lanes<T, L / 2>;
  using Other = Lanes<Signed, L>;
  Half lo, hi;

  Lanes() = default;
  FASTPOOL_HD Lanes(T x) : lo(x), hi(x) {}
  template <class B, class = std::enable_if_t<std::is_same_v<B, bool>>>
  explicit FASTPOOL_HD Lanes(B all) : lo(all), hi(all) {}
  FASTPOOL_HD Lanes(Half lo, Half hi) : lo(lo), hi(hi) {}

#define FASTPOOL_OPERATOR(op) \
  friend FASTPOOL_HD Lanes operator op(Lanes a, Lanes b) { return Lanes{a.lo op b.lo, a.hi op b.hi}; }
#define FASTPOOL_COMPARISON(op) \
  friend FASTPOOL_HD Other operator op(Lanes a, Lanes b) { return Other{a.lo op b.lo, a.hi op b.hi}; }
  FASTPOOL_OPERATOR(+)
  FASTPOOL_OPERATOR(-)
  FASTPOOL_OPERATOR(*)
  FASTPOOL_OPERATOR(/)
  FASTPOOL_OPERATOR(|)
  FASTPOOL_OPERATOR(&)
  FASTPOOL_OPERATOR(^)
  FASTPOOL_COMPARISON(>)
  FASTPOOL_COMPARISON(<)
  FASTPOOL_COMPARISON(>=)
  FASTPOOL_COMPARISON(<=)
  FASTPOOL_COMPARISON(==)
  FASTPOOL_COMPARISON(!=)
#undef FASTPOOL_OPERATOR
#undef FASTPOOL_COMPARISON
  friend FASTPOOL_HD Lanes operator>>(Lanes a, int bits) { return Lanes(a.lo >> bits, a.hi >> bits); }
  friend FASTPOOL_HD Lanes operator<<(Lanes a, int bits) { return Lanes(a.lo << bits, a.hi << bits); }
  FASTPOOL_HD Lanes operator-() const { return Lanes(-lo, -hi); }
  FASTPOOL_HD Lanes operator!() const { return Lanes(!lo, !hi); }

  FASTPOOL_HD T first() const { return lo.first(); }
  template <class To>
  FASTPOOL_HD Lanes<To, L> as() const {
    return Lanes<To, L>(lo.template as<To>(), hi.template as<To>());
  }
  static FASTPOOL_HD Lanes iota(T from = 0) { return Lanes(Half::iota(from), Half::iota(from + L / 2)); }
  static FASTPOOL_HD void zip(Lanes a, Lanes b, Lanes& lo, Lanes& hi) {
    Half::zip(a.lo, b.lo, lo.lo, lo.hi);
    Half::zip(a.hi, b.hi, hi.lo, hi.hi);
  }
  static FASTPOOL_HD void unzip(Lanes lo, Lanes hi, Lanes& a, Lanes& b) {
    Half::unzip(lo.lo, lo.hi, a.lo, b.lo);
    Half::unzip(hi.lo, hi.hi, a.hi, b.hi);
  }
};

template <class M, class T, int L>
FASTPOOL_HD Lanes<T, L, true> select(Lanes<M, L, true> mask, Lanes<T, L, true> a, Lanes<T, L, true> b) {
  return Lanes<T, L, true>::of(mask.v ? a.v : b.v);
}
template <class M, class T, int L>
FASTPOOL_HD Lanes<T, L, false> select(Lanes<M, L, false> mask, Lanes<T, L, false> a, Lanes<T, L, false> b) {
  return Lanes<T, L, false>{select(mask.lo, a.lo, b.lo), select(mask.hi, a.hi, b.hi)};
}
template <class T, int L>
FASTPOOL_HD Lanes<T, L, true> larger_of(Lanes<T, L, true> a, Lanes<T, L, true> b) {
#if FASTPOOL_VECTOR_BYTES == 64
  if constexpr (sizeof(a) == 64 && std::is_same_v<T, float>) return Lanes<T, L>::of(_mm512_max_ps(a.v, b.v));
  if constexpr (sizeof(a) == 64 && std::is_same_v<T, double>) return Lanes<T, L>::of(_mm512_max_pd(a.v, b.v));
#elif FASTPOOL_VECTOR_BYTES == 32
  if constexpr (sizeof(a) == 32 && std::is_same_v<T, float>) return Lanes<T, L>::of(_mm256_max_ps(a.v, b.v));
  if constexpr (sizeof(a) == 32 && std::is_same_v<T, double>) return Lanes<T, L>::of(_mm256_max_pd(a.v, b.v));
#endif
  return select(a > b, a, b);
}
template <class T, int L>
FASTPOOL_HD Lanes<T, L, false> larger_of(Lanes<T, L, false> a, Lanes<T, L, false> b) {
  return Lanes<T, L, false>{larger_of(a.lo, b.lo), larger_of(a.hi, b.hi)};
}
template <class T, int L>
FASTPOOL_HD T first_lane(Lanes<T, L> x) {
  return x.first();
}
template <int L>
FASTPOOL_HD Lanes<uint32_t, L> bits_of(Lanes<float, L> x) {
  return x.template as<uint32_t>();
}
template <int L>
FASTPOOL_HD Lanes<uint64_t, L> bits_of(Lanes<double, L> x) {
  return x.template as<uint64_t>();
}
template <int L>
FASTPOOL_HD Lanes<float, L> from_bits(Lanes<uint32_t, L> x) {
  return x.template as<float>();
}
template <int L>
FASTPOOL_HD Lanes<double, L> from_bits(Lanes<uint64_t, L> x) {
  return x.template as<double>();
}

// Of many registers a few at a time and out of line: it is long.
template <class V>
__attribute__((noinline)) void replace_by_power_of_two(V& x) {
  x = fastpool::power_of_two(x);
}
template <class T, int L>
FASTPOOL_HD Lanes<T, L, false> power_of_two(Lanes<T, L, false> x) {
  constexpr int registers = L * int(sizeof(T)) / kRegisterBytes;
  if constexpr (registers <= 4) return fastpool::power_of_two(x);
  if constexpr (registers > 8) return Lanes<T, L>(power_of_two(x.lo), power_of_two(x.hi));
  replace_by_power_of_two(x.lo);
  replace_by_power_of_two(x.hi);
  return x;
}

// Two registers, so that two independent chains hide each other's latency.
template <class T>
constexpr int kLanes = 2 * kRegisterBytes / int(sizeof(T));

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY

namespace fastpool {
template <class T, int L, bool fits>
struct Lane<cpu::FASTPOOL_CAPABILITY::Lanes<T, L, fits>> {
  using Scalar = T;
  using Tap = cpu::FASTPOOL_CAPABILITY::Lanes<typename cpu::FASTPOOL_CAPABILITY::Integer<T>::Signed, L>;
  using Bits = cpu::FASTPOOL_CAPABILITY::Lanes<typename cpu::FASTPOOL_CAPABILITY::Integer<T>::Unsigned, L>;
  using Mask = Tap;
};
}  // namespace fastpool
