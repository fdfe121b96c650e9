// The only place that knows of CPU features: one body, compiled for three of them, chosen when it is called.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace fastpool::cpu {

enum class Capability : int32_t { baseline, avx2, avx512 };

Capability best_capability();
Capability capability();
void set_capability(Capability capability);

using Chunk = void (*)(const Problem&, int64_t begin, int64_t end);

#if defined(__x86_64__)
#define FASTPOOL_AVX2 __attribute__((target("avx2")))
#if defined(__clang__)
#define FASTPOOL_WIDTH  // clang knows no such attribute
#else
#define FASTPOOL_WIDTH ",prefer-vector-width=512"
#endif
#define FASTPOOL_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd" FASTPOOL_WIDTH)))
#else
#define FASTPOOL_AVX2
#define FASTPOOL_AVX512
#endif

// Body::run is always inlined, so each wrapper compiles it for the features it names.
template <class Body>
struct Versions {
  static void baseline(const Problem& p, int64_t begin, int64_t end) { Body::run(p, begin, end); }
#if defined(__x86_64__)
  FASTPOOL_AVX2 static void avx2(const Problem& p, int64_t begin, int64_t end) { Body::run(p, begin, end); }
  FASTPOOL_AVX512 static void avx512(const Problem& p, int64_t begin, int64_t end) { Body::run(p, begin, end); }
#endif

  static Chunk choose() {
#if defined(__x86_64__)
    if (capability() == Capability::avx512) return avx512;
    if (capability() == Capability::avx2) return avx2;
#endif
    return baseline;
  }
};

}  // namespace fastpool::cpu
