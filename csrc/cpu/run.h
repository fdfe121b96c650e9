// From a problem to threads: the kernels of the processor at hand, over the units of work.
#pragma once

#include "core/kernels.h"
#include "cpu/capability.h"
#include "cpu/work.h"

namespace fastpool::cpu {

using Chunk = void (*)(const Problem&, int64_t begin, int64_t end);

// Defined in csrc/cpu/kernels, which is compiled once for each capability.
#define FASTPOOL_KERNELS(capability)                           \
  namespace capability {                                       \
  template <class Reducer>                                     \
  void forward(const Problem& p, int64_t begin, int64_t end);  \
  template <class Gradient>                                    \
  void backward(const Problem& p, int64_t begin, int64_t end); \
  }
FASTPOOL_KERNELS(baseline)
#if defined(__x86_64__)
FASTPOOL_KERNELS(avx2)
FASTPOOL_KERNELS(avx512)
#endif
#undef FASTPOOL_KERNELS

// Runs chunk(p, begin, end) over [0, units) on the threads of the host framework.
void parallel(const Problem& p, int64_t units, int64_t grain, Chunk chunk);

// Work below this many elements is not worth waking a thread for.
constexpr int64_t kGrainElements = 32768;

inline void divide(const Problem& p, int64_t units, Chunk chunk) {
  if (units == 0) return;
  const int64_t per_unit = ceil_div(p.samples * p.channels * p.positions(), units);
  parallel(p, units, larger(kGrainElements / larger(per_unit, 1), 1), chunk);
}

template <class Reducer>
void forward(const Problem& p) {
  Chunk chunk = baseline::forward<Reducer>;
#if defined(__x86_64__)
  if (capability() == Capability::avx2) chunk = avx2::forward<Reducer>;
  if (capability() == Capability::avx512) chunk = avx512::forward<Reducer>;
#endif
  divide(p, forward_units(p).count(), chunk);
}

template <class Gradient>
void backward(const Problem& p) {
  Chunk chunk = baseline::backward<Gradient>;
#if defined(__x86_64__)
  if (capability() == Capability::avx2) chunk = avx2::backward<Gradient>;
  if (capability() == Capability::avx512) chunk = avx512::backward<Gradient>;
#endif
  divide(p, backward_units(p).count(), chunk);
}

}  // namespace fastpool::cpu
