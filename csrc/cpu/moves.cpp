#include "cpu/moves.h"

#include "cpu/capability.h"

namespace fastpool::cpu {

template <int stride, class T, class S>
static FASTPOOL_HD void widen_every(T* __restrict to, const S* __restrict from, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = T(widen(from[i * stride]));
}

// Strides that compilers turn into shuffles are compile-time constants; the others gather.
struct Widen {
  template <class S>
  static FASTPOOL_HD void run(void* to, const void* from, int64_t stride, int64_t count) {
    using T = Accumulated<S>;
    T* values = static_cast<T*>(to);
    const S* stored = static_cast<const S*>(from);
    if (stride == 1) return widen_every<1>(values, stored, count);
    if (stride == 2) return widen_every<2>(values, stored, count);
    if (stride == 3) return widen_every<3>(values, stored, count);
    for (int64_t i = 0; i < count; ++i) values[i] = T(widen(stored[i * stride]));
  }
};

template <class S, class T>
static FASTPOOL_HD void narrow_dense(S* __restrict to, const T* __restrict from, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = Narrow<S>::from(from[i]);
}

struct NarrowRun {
  template <class S>
  static FASTPOOL_HD void run(void* to, int64_t stride, const void* from, int64_t count) {
    const Accumulated<S>* values = static_cast<const Accumulated<S>*>(from);
    S* stored = static_cast<S*>(to);
    if (stride == 1) return narrow_dense(stored, values, count);
    for (int64_t i = 0; i < count; ++i) stored[i * stride] = Narrow<S>::from(values[i]);
  }
};

struct UniformRow {
  static FASTPOOL_HD void run(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t bin, int64_t count, float* to) {
    constexpr int most_blocks = kMostUniforms / 4 + 1;
    float words[4][most_blocks];
    const int64_t first = bin / 4, blocks = (bin + count - 1) / 4 - first + 1;
#pragma omp simd
    for (int64_t b = 0; b < blocks; ++b) {
      const Words block = draws_of(p, seed, n, c, first + b);
      words[0][b] = uniform(block.word[0]);
      words[1][b] = uniform(block.word[1]);
      words[2][b] = uniform(block.word[2]);
      words[3][b] = uniform(block.word[3]);
    }
    for (int64_t i = 0; i < count; ++i) to[i] = words[(bin + i) % 4][(bin + i) / 4 - first];
  }
};

struct UniformChannels {
  static FASTPOOL_HD void run(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t block, int64_t count, float* __restrict to) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const Words drawn = draws_of(p, seed, n, c + i, block);
      to[i] = uniform(drawn.word[0]);
      to[kMostUniforms + i] = uniform(drawn.word[1]);
      to[2 * kMostUniforms + i] = uniform(drawn.word[2]);
      to[3 * kMostUniforms + i] = uniform(drawn.word[3]);
    }
  }
};

// One wrapper per capability around the bodies above; a template cannot carry the attribute as a parameter.
#define FASTPOOL_WRAPPERS(name, target)                                                                                        \
  template <class S>                                                                                                           \
  target static void widen_##name(void* to, const void* from, int64_t stride, int64_t count) {                                 \
    Widen::run<S>(to, from, stride, count);                                                                                    \
  }                                                                                                                            \
  template <class S>                                                                                                           \
  target static void narrow_##name(void* to, int64_t stride, const void* from, int64_t count) {                                \
    NarrowRun::run<S>(to, stride, from, count);                                                                                \
  }                                                                                                                            \
  target static void row_##name(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t bin, int64_t k, float* to) {    \
    UniformRow::run(p, seed, n, c, bin, k, to);                                                                                \
  }                                                                                                                            \
  target static void channels_##name(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t b, int64_t k, float* to) { \
    UniformChannels::run(p, seed, n, c, b, k, to);                                                                             \
  }                                                                                                                            \
  static const Moves moves_##name[] = {                                                                                        \
      {widen_##name<Half>, narrow_##name<Half>, 2, false},                                                                     \
      {widen_##name<BFloat16>, narrow_##name<BFloat16>, 2, false},                                                             \
      {widen_##name<float>, narrow_##name<float>, 4, true},                                                                    \
      {widen_##name<double>, narrow_##name<double>, 8, true},                                                                  \
  };                                                                                                                           \
  static const Uniforms uniforms_##name{row_##name, channels_##name};

#define FASTPOOL_NO_TARGET
FASTPOOL_WRAPPERS(baseline, FASTPOOL_NO_TARGET)
#if defined(__x86_64__)
FASTPOOL_WRAPPERS(avx2, FASTPOOL_AVX2)
FASTPOOL_WRAPPERS(avx512, FASTPOOL_AVX512)
#endif

const Moves& moves_of(Dtype dtype) {
#if defined(__x86_64__)
  if (capability() == Capability::avx512) return moves_avx512[int(dtype)];
  if (capability() == Capability::avx2) return moves_avx2[int(dtype)];
#endif
  return moves_baseline[int(dtype)];
}

const Uniforms& uniforms() {
#if defined(__x86_64__)
  if (capability() == Capability::avx512) return uniforms_avx512;
  if (capability() == Capability::avx2) return uniforms_avx2;
#endif
  return uniforms_baseline;
}

}  // namespace fastpool::cpu
