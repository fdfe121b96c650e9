// Lanes to and from memory, converted on the way; and what lanes that share one window ask of each other.
#pragma once

#include "core/problem.h"
#include "cpu/kernels/lanes.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// One register of integers of type T from narrower ones, and back: compilers spell out most of these conversions element
// by element.
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_integers(const S* from) {
  using Raw [[maybe_unused]] = typename Lanes<T, L>::Raw;
#if FASTPOOL_VECTOR_BYTES == 64
  if constexpr (sizeof(S) == 1 && sizeof(T) == 4)
    return Lanes<T, L>::of((Raw)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  else if constexpr (sizeof(S) == 1 && sizeof(T) == 8)
    return Lanes<T, L>::of((Raw)_mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  else if constexpr (sizeof(S) == 2 && sizeof(T) == 4)
    return Lanes<T, L>::of((Raw)_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
  else
#elif FASTPOOL_VECTOR_BYTES == 32
  if constexpr (sizeof(S) == 1 && sizeof(T) == 4)
    return Lanes<T, L>::of((Raw)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  else if constexpr (sizeof(S) == 2 && sizeof(T) == 4)
    return Lanes<T, L>::of((Raw)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  else
#endif
  {
    typename Register<S, L>::type stored;
    memcpy(&stored, from, sizeof(stored));
    return Lanes<T, L>::of(__builtin_convertvector(stored, typename Register<T, L>::type));
  }
}
template <class S, class T, int L>
FASTPOOL_HD void store_integers(S* to, Lanes<T, L> lanes) {
#if FASTPOOL_VECTOR_BYTES == 64
  if constexpr (sizeof(S) == 2 && sizeof(T) == 4)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16((__m512i)lanes.v));
  else
#elif FASTPOOL_VECTOR_BYTES == 32
  const auto low = [](__m256i x) { return _mm256_castsi256_si128(x); };
  if constexpr (sizeof(S) == 2 && sizeof(T) == 4) {
    const __m256i packed = _mm256_packus_epi32((__m256i)lanes.v, (__m256i)lanes.v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), low(_mm256_permute4x64_epi64(packed, 0x08)));
  } else if constexpr (sizeof(S) == 1 && sizeof(T) == 4) {
    const __m256i bytes = _mm256_shuffle_epi8((__m256i)lanes.v, _mm256_set1_epi32(0x0c080400));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_unpacklo_epi32(low(bytes), _mm256_extracti128_si256(bytes, 1)));
  } else
#endif
  {
    const auto stored = __builtin_convertvector(lanes.v, typename Register<S, L>::type);
    memcpy(to, &stored, sizeof(stored));
  }
}

template <class S>
FASTPOOL_HD Accumulated<S> widen_one(S x) {
#if FASTPOOL_VECTOR_BYTES > 16
  if constexpr (std::is_same_v<S, Half>) return _cvtsh_ss(x.bits);
#endif
  return widen(x);
}

// Where the processor has no instruction for it. Out of line: it is long, and everywhere.
template <int L, class T, class S>
__attribute__((noinline)) void widen_all(T* to, const S* from) {
  for (int i = 0; i < L; ++i) to[i] = widen(from[i]);
}
template <int L, class T, class S>
__attribute__((noinline)) void narrow_all(S* to, const T* from) {
  for (int i = 0; i < L; ++i) to[i] = Narrow<S>::from(from[i]);
}

// L elements of storage type S as lanes of T.
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load(const S* from) {
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    return Lanes<T, L>{load<T, L / 2>(from), load<T, L / 2>(from + L / 2)};  // braces: in this order
  } else if constexpr (std::is_same_v<S, T>) {
    Lanes<T, L> lanes;
    memcpy(&lanes.v, from, sizeof(lanes.v));
    return lanes;
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    return from_bits(load_integers<uint32_t, L>(&from->bits) << 16);
  } else if constexpr (std::is_same_v<S, Half>) {
#if FASTPOOL_VECTOR_BYTES == 64
    return Lanes<T, L>::of((typename Lanes<T, L>::Raw)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif FASTPOOL_VECTOR_BYTES == 32
    return Lanes<T, L>::of((typename Lanes<T, L>::Raw)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
    T values[L];
    widen_all<L>(values, from);
    return load<T, L>(values);
#endif
  } else {  // taps
    return load_integers<T, L>(from);
  }
}

// The same, for what streams from memory: prefetchers of Zen 4 start sooner where every cache line is loaded in two halves.
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_stream(const S* from) {
#if FASTPOOL_VECTOR_BYTES == 64
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    return Lanes<T, L>{load_stream<T, L / 2>(from), load_stream<T, L / 2>(from + L / 2)};
  } else if constexpr (std::is_same_v<S, T>) {
    const auto* halves = reinterpret_cast<const __m256i_u*>(from);
    const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256(halves));
    return Lanes<T, L>::of((typename Lanes<T, L>::Raw)_mm512_inserti64x4(low, _mm256_loadu_si256(halves + 1), 1));
  } else
#endif
    return load<T, L>(from);
}

template <class V>
FASTPOOL_HD Bits<V> bfloat16_bits(V lanes) {
  const auto bits = bits_of(lanes);
  return select(lanes != lanes, bits | 0x400000u, bits + (((bits >> 16) & 1u) + 0x7fffu)) >> 16;
}

template <class S, class T, int L>
FASTPOOL_HD void store(S* to, Lanes<T, L> lanes) {
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    store(to, lanes.lo);
    store(to + L / 2, lanes.hi);
  } else if constexpr (std::is_same_v<S, T>) {
    memcpy(to, &lanes.v, sizeof(lanes.v));
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    store_integers(&to->bits, bfloat16_bits(lanes));
  } else if constexpr (std::is_same_v<S, Half>) {
#if FASTPOOL_VECTOR_BYTES == 64
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)lanes.v, _MM_FROUND_TO_NEAREST_INT));
#elif FASTPOOL_VECTOR_BYTES == 32
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)lanes.v, _MM_FROUND_TO_NEAREST_INT));
#else
    T values[L];
    memcpy(values, &lanes.v, sizeof(values));
    narrow_all<L>(to, values);
#endif
  } else {  // taps
    store_integers(to, lanes);
  }
}

#if FASTPOOL_VECTOR_BYTES > 16
// A register of `bytes`, which was stored at `from` a moment ago and never gets there.
template <int bytes>
FASTPOOL_HD void stream(void* to, const void* from) {
  FASTPOOL_ASSERT(reinterpret_cast<uintptr_t>(to) % bytes == 0);
  if constexpr (bytes == 16)
    _mm_stream_si128(static_cast<__m128i*>(to), _mm_loadu_si128(static_cast<const __m128i*>(from)));
  else if constexpr (bytes == 32)
    _mm256_stream_si256(static_cast<__m256i*>(to), _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#if FASTPOOL_VECTOR_BYTES == 64
  else
    _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#endif
}
#endif

// The same past the caches, where the address allows it. Ends with end_stores_past().
template <class S, class T, int L>
FASTPOOL_HD void store_past(S* to, Lanes<T, L> lanes) {
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    store_past(to, lanes.lo);
    store_past(to + L / 2, lanes.hi);
  } else {
#if FASTPOOL_VECTOR_BYTES > 16
    if (reinterpret_cast<uintptr_t>(to) % (L * sizeof(S)) == 0) {
      S narrow[L];
      store(narrow, lanes);
      return stream<sizeof(narrow)>(to, narrow);
    }
#endif
    store(to, lanes);
  }
}
FASTPOOL_HD void end_stores_past() {
#if FASTPOOL_VECTOR_BYTES > 16
  _mm_sfence();
#endif
}

// The first 0 <= count < 2 * pieces of some elements, in copies of halving length.
template <int pieces, class S>
FASTPOOL_HD void copy_part(S* to, const S* from, int64_t count) {
  if constexpr (pieces > 0) {
    const int64_t here = count & pieces;
    if (here) memcpy(to, from, pieces * sizeof(S));
    copy_part<pieces / 2>(to + here, from + here, count);
  }
}

// The first `count` lanes; the others are 0. Out of line, as below: the compiler would prepare it on the common path.
template <int L, class S>
__attribute__((noinline)) void take_part(S* values, const S* from, int64_t count) {
  FASTPOOL_ASSERT(count <= L);
  memset(values, 0, L * sizeof(S));
  copy_part<L>(values, from, larger(count, 0));
}
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_part(const S* from, int64_t count) {
  S values[L];
  take_part<L>(values, from, count);
  return load<T, L>(values);
}

// The first `count` of lanes that lie `step` apart; the others are 0.
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_apart(const S* from, int64_t step, int64_t count) {
  if constexpr (!std::is_integral_v<S>)
    if (step == 0) return Lanes<T, L>(T(widen(*from)));
  if (step == 1) return count == L ? load<T, L>(from) : load_part<T, L>(from, count);
  T values[L];
  for (int64_t i = 0; i < L; ++i) {
    if constexpr (std::is_integral_v<S>)
      values[i] = i < count ? T(from[i * step]) : T(0);
    else
      values[i] = i < count ? T(widen(from[i * step])) : T(0);
  }
  return load<T, L>(values);
}

// Neighbouring lanes go `step` apart.
template <int L, class S>
__attribute__((noinline)) void put_part(S* to, int64_t step, const S* values, int64_t count) {
  FASTPOOL_ASSERT(count <= L);
  if (step == 1) return copy_part<L>(to, values, larger(count, 0));
  for (int64_t i = 0; i < count; ++i) to[i * step] = values[i];
}
template <class S, class T, int L>
FASTPOOL_HD void store_part(S* to, int64_t step, Lanes<T, L> lanes, int64_t count) {
  if (step == 1 && count == L) return store(to, lanes);
  S values[L];
  store(values, lanes);
  put_part<L>(to, step, values, count);
}
// The first `count` of neighbours; all of them past the caches, if so asked.
template <class S, class T, int L>
FASTPOOL_HD void store_neighbours(S* to, Lanes<T, L> lanes, int64_t count, bool past) {
  if (past && count == L)
    store_past(to, lanes);
  else
    store_part(to, 1, lanes, count);
}

template <class T, int L>
FASTPOOL_HD bool any(Lanes<T, L> mask) {
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    return any(mask.lo | mask.hi);
  } else {
#if FASTPOOL_VECTOR_BYTES == 64
    return _mm512_test_epi64_mask((__m512i)mask.v, (__m512i)mask.v) != 0;
#elif FASTPOOL_VECTOR_BYTES == 32
    return !_mm256_testz_si256((__m256i)mask.v, (__m256i)mask.v);
#else
    uint64_t words[2];
    memcpy(words, &mask.v, sizeof(words));
    return (words[0] | words[1]) != 0;
#endif
  }
}

template <class T>
FASTPOOL_HD void fill_run(T* to, T value, int64_t count) {
  constexpr int L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(to + i, Lanes<T, L>(value));
  for (; i < count; ++i) to[i] = value;
}

// to[c * to_step + r] = from[r * from_step + c], a square of registers at a time where there is room for one.
template <class T, int n>
FASTPOOL_HD void transpose_square(Lanes<T, n> (&x)[n]) {
  // A perfect shuffle of all elements, log2(n) times.
  FASTPOOL_UNROLL
  for (int stage = 1; stage < n; stage *= 2) {
    Lanes<T, n> y[n];
    FASTPOOL_UNROLL
    for (int i = 0; i < n / 2; ++i) Lanes<T, n>::zip(x[i], x[i + n / 2], y[2 * i], y[2 * i + 1]);
    FASTPOOL_UNROLL
    for (int i = 0; i < n; ++i) x[i] = y[i];
  }
}

// Numbers of 16 bits are moved as integers.
template <class X>
using Moved = std::conditional_t<sizeof(X) == 2, uint16_t, X>;

template <class To, class From>
void transpose(To* to, int64_t to_step, const From* from, int64_t from_step, int64_t rows, int64_t columns) {
  using T = std::conditional_t<sizeof(From) == 2, uint32_t, From>;
  constexpr int n = kRegisterBytes / int(sizeof(T));
  FASTPOOL_ASSERT(rows <= to_step || columns <= 1);
  FASTPOOL_ASSERT(columns <= from_step || rows <= 1);
  if (rows < n || columns < n) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) to[c * to_step + r] = To(from[r * from_step + c]);
    return;
  }
  // The last squares overlap those before them.
  for (int64_t r = 0;; r += n) {
    r = smaller(r, rows - n);
    for (int64_t c = 0;; c += n) {
      c = smaller(c, columns - n);
      Lanes<T, n> x[n];
      FASTPOOL_UNROLL
      for (int i = 0; i < n; ++i) x[i] = load<T, n>(reinterpret_cast<const Moved<From>*>(from + (r + i) * from_step + c));
      transpose_square<T, n>(x);
      FASTPOOL_UNROLL
      for (int i = 0; i < n; ++i) store(reinterpret_cast<Moved<To>*>(to + (c + i) * to_step + r), x[i]);
      if (c == columns - n) break;
    }
    if (r == rows - n) break;
  }
}

#if FASTPOOL_VECTOR_BYTES == 32
// AVX2 shuffles within halves of registers: loaded in this order, these need no other. The second half of what is loaded
// lies `second` behind the first.
template <int L>
FASTPOOL_HD void unzip_from(const float* from, int64_t second, Lanes<float, L>& even, Lanes<float, L>& odd) {
  const auto halves = [](const float* low, const float* high)
                          FASTPOOL_STEP { return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1); };
  const __m256 a = halves(from, from + second), b = halves(from + 4, from + second + 4);
  even.v = (decltype(even.v))_mm256_shuffle_ps(a, b, 0x88);
  odd.v = (decltype(odd.v))_mm256_shuffle_ps(a, b, 0xdd);
}
#endif

// Neighbours at even and at odd places, L from `from` on and L that lie `second` behind. A word of memory holds two
// bfloat16, each the upper half of its float32.
template <class T, int L, class S>
FASTPOOL_HD void load_pairs(const S* from, int64_t second, Lanes<T, L>& even, Lanes<T, L>& odd) {
#if FASTPOOL_VECTOR_BYTES == 32
  if constexpr (std::is_same_v<S, float>) {
    unzip_from(from, L / 2, even.lo, odd.lo);
    unzip_from(from + second, L / 2, even.hi, odd.hi);
  } else
#endif
      if constexpr (std::is_same_v<S, BFloat16>) {
    const auto words = [&](int64_t at) FASTPOOL_STEP { return load<uint32_t, L / 2>(reinterpret_cast<const uint32_t*>(from + at)); };
    const auto low = words(0), high = words(second);
    even = {from_bits(low << 16), from_bits(high << 16)};
    odd = {from_bits(low & 0xffff0000u), from_bits(high & 0xffff0000u)};
  } else {
    Lanes<T, L>::unzip(load<T, L>(from), load<T, L>(from + second), even, odd);
  }
}
template <class S, class T, int L>
FASTPOOL_HD void store_pairs(S* to, Lanes<T, L> even, Lanes<T, L> odd) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    store(reinterpret_cast<uint32_t*>(to), bfloat16_bits(even) | (bfloat16_bits(odd) << 16));
  } else {
    Lanes<T, L> low, high;
    Lanes<T, L>::zip(even, odd, low, high);
    store(to, low);
    store(to + L, high);
  }
}

// The same where the lanes are one row, or two or four, `step` apart.
template <int rows, class T, int L, class S>
FASTPOOL_HD void load_rows_of_pairs(const S* from, int64_t step, Lanes<T, L>& even, Lanes<T, L>& odd) {
  using Half [[maybe_unused]] = Lanes<T, L / 2>;
  if constexpr (rows <= 2) {
    load_pairs(from, rows == 1 ? L : step, even, odd);
#if FASTPOOL_VECTOR_BYTES == 32
  } else if constexpr (std::is_same_v<S, float>) {
    unzip_from(from, step, even.lo, odd.lo);
    unzip_from(from + 2 * step, step, even.hi, odd.hi);
#endif
  } else {
    static_assert(rows == 4);
    Half::unzip(load<T, L / 2>(from), load<T, L / 2>(from + step), even.lo, odd.lo);
    Half::unzip(load<T, L / 2>(from + 2 * step), load<T, L / 2>(from + 3 * step), even.hi, odd.hi);
  }
}

// One register of two halves, the second of which lies `step` behind the first.
template <class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_halves(const S* from, int64_t step) {
  constexpr int bytes = L / 2 * int(sizeof(S));
  S both[L];
#if FASTPOOL_VECTOR_BYTES > 16
  [[maybe_unused]] const auto* low = reinterpret_cast<const __m128i_u*>(from);
  [[maybe_unused]] const auto* high = reinterpret_cast<const __m128i_u*>(from + step);
#endif
#if FASTPOOL_VECTOR_BYTES == 64
  if constexpr (bytes == 32) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(low));
    const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(high));
    _mm512_storeu_si512(both, _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
  } else
#endif
#if FASTPOOL_VECTOR_BYTES > 16
      if constexpr (bytes == 16) {
    const __m256i joined = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(both), joined);
  } else if constexpr (bytes == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(both), _mm_unpacklo_epi64(_mm_loadl_epi64(low), _mm_loadl_epi64(high)));
  } else
#endif
  {
    memcpy(both, from, bytes);
    memcpy(both + L / 2, from + step, bytes);
  }
  return load<T, L>(both);
}

// Lanes that are one row, or two or four, `step` apart. What is stored behind a row is replaced by the next one.
template <int rows, class T, int L, class S>
FASTPOOL_HD Lanes<T, L> load_rows(const S* from, int64_t step) {
  if constexpr (rows == 1) return load<T, L>(from);
  if constexpr (rows == 2) return {load<T, L / 2>(from), load<T, L / 2>(from + step)};
  if constexpr (rows == 4) return {load_halves<T, L / 2>(from, step), load_halves<T, L / 2>(from + 2 * step, step)};
}
template <int rows, class S, class T, int L>
FASTPOOL_HD void store_rows(S* to, int64_t step, Lanes<T, L> lanes) {
  static_assert(rows == 2 || rows == 4);
  if constexpr (rows == 2) {
    store(to, lanes.lo);
    store(to + step, lanes.hi);
  } else {
    const auto store_halves = [&](S* to, Lanes<T, L / 2> half) FASTPOOL_STEP {
      S narrow[L / 2];
      store(narrow, half);
      memcpy(to, narrow, sizeof(narrow) / 2);
      memcpy(to + step, narrow + L / 4, sizeof(narrow) / 2);
    };
    store_halves(to, lanes.lo);
    store_halves(to + 2 * step, lanes.hi);
  }
}

// n * L neighbours into n vectors of elements n apart, and back.
template <class V, int n>
FASTPOOL_HD void split_phases(V (&x)[n]) {
  static_assert(n == 1 || n == 2 || n == 4, "zips halve");
  if constexpr (n == 2) V::unzip(x[0], x[1], x[0], x[1]);
  if constexpr (n == 4) {
    V even[2], odd[2];
    V::unzip(x[0], x[1], even[0], odd[0]);
    V::unzip(x[2], x[3], even[1], odd[1]);
    V::unzip(even[0], even[1], x[0], x[2]);
    V::unzip(odd[0], odd[1], x[1], x[3]);
  }
}
template <class V, int n>
FASTPOOL_HD void join_phases(V (&x)[n]) {
  static_assert(n == 1 || n == 2 || n == 4, "zips double");
  if constexpr (n == 2) V::zip(x[0], x[1], x[0], x[1]);
  if constexpr (n == 4) {
    V even[2], odd[2];
    V::zip(x[0], x[2], even[0], even[1]);
    V::zip(x[1], x[3], odd[0], odd[1]);
    V::zip(even[0], odd[0], x[0], x[1]);
    V::zip(even[1], odd[1], x[2], x[3]);
  }
}

// n * L neighbours, of which the first `count` exist, as n vectors of elements n apart, and back.
template <class S, class T, int L, int n>
FASTPOOL_HD void load_phases(const S* from, Lanes<T, L> (&x)[n], int64_t count) {
  if constexpr (n == 2)
    if (count >= n * L) return load_pairs(from, L, x[0], x[1]);
  if (count >= n * L)
    unrolled<n>([&](auto k) FASTPOOL_STEP { x[k] = load<T, L>(from + k * L); });
  else
    unrolled<n>([&](auto k) FASTPOOL_STEP { x[k] = load_part<T, L>(from + k * L, smaller(L, count - k * L)); });
  split_phases(x);
}
template <class S, class T, int L, int n>
FASTPOOL_HD void store_phases(S* to, Lanes<T, L> (&x)[n], int64_t count) {
  if constexpr (n == 2)
    if (count >= n * L) return store_pairs(to, x[0], x[1]);
  join_phases(x);
  if (count >= n * L)
    unrolled<n>([&](auto k) FASTPOOL_STEP { store(to + k * L, x[k]); });
  else
    unrolled<n>([&](auto k) FASTPOOL_STEP { store_part(to + k * L, 1, x[k], smaller(L, count - k * L)); });
}

// All lanes combined as x[i] op x[i + half], down to one; every lane gets the result.
template <class T, int L, class Op>
FASTPOOL_HD Lanes<T, L> combine(Lanes<T, L> x, const Op& op) {
  if constexpr (L * int(sizeof(T)) > kRegisterBytes) {
    const Lanes<T, L / 2> half = combine(op(x.lo, x.hi), op);
    return Lanes<T, L>(half, half);
  } else {
    if constexpr (L >= 16) x = op(x, x.template rotated<8>());
    if constexpr (L >= 8) x = op(x, x.template rotated<4>());
    if constexpr (L >= 4) x = op(x, x.template rotated<2>());
    return op(x, x.template rotated<1>());
  }
}

template <class T>
struct Team {
  using V = Lanes<T, kClasses>;
  using TapV = Tap<V>;
  struct Spread {
    T lane[kClasses];
    FASTPOOL_HD T operator[](int r) const { return lane[r]; }
  };

  FASTPOOL_HD V sum(V x) const {
    return combine(x, [](auto a, auto b) FASTPOOL_STEP { return a + b; });
  }
  FASTPOOL_HD V max(V x) const {
    return combine(x, [](auto a, auto b) FASTPOOL_STEP { return select((b > a) | (b != b), b, a); });
  }
  FASTPOOL_HD TapV first(TapV tap) const {
    return combine(tap, [](auto a, auto b) FASTPOOL_STEP { return select(b < a, b, a); });
  }
  FASTPOOL_HD TapV last(TapV tap) const {
    return combine(tap, [](auto a, auto b) FASTPOOL_STEP { return select(b > a, b, a); });
  }
  // Where several lanes hold, they agree.
  FASTPOOL_HD V from(Mask<V> mask, V x) const {
    const Bits<V> mine = bits_of(x) & mask.template as<typename V::Unsigned>();
    return from_bits(combine(mine, [](auto a, auto b) FASTPOOL_STEP { return a | b; }));
  }
  FASTPOOL_HD TapV lane() const { return TapV::iota(); }
  FASTPOOL_HD Spread spread(V x) const {
    Spread all;
    store(all.lane, x);
    return all;
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
