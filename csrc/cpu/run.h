// From a problem to threads: the kernels of the processor at hand, over the units of work.
#pragma once

#include "core/kernels.h"
#include "cpu/capability.h"
#include "cpu/work.h"

namespace fastpool::cpu {

using Chunk = void (*)(const Problem&, int64_t begin, int64_t end);

// Defined in csrc/cpu/kernels, which is compiled once for each capability.
#define FASTPOOL_KERNELS(capability)                                    \
  namespace capability {                                                \
  template <class Reducer>                                              \
  void forward(const Problem& p, int64_t begin, int64_t end);           \
  template <class Gradient>                                             \
  void backward(const Problem& p, int64_t begin, int64_t end);          \
  void correlate(const Problem& p, int64_t begin, int64_t end);         \
  void correlate_input(const Problem& p, int64_t begin, int64_t end);   \
  void correlate_filters(const Problem& p, int64_t begin, int64_t end); \
  void logistic(const Problem& p, int64_t begin, int64_t end);          \
  }
FASTPOOL_KERNELS(baseline)
#if defined(__x86_64__)
FASTPOOL_KERNELS(avx2)
FASTPOOL_KERNELS(avx512)
#define FASTPOOL_BEST(kernel)                                         \
  (cpu::capability() == cpu::Capability::avx512 ? cpu::avx512::kernel \
   : cpu::capability() == cpu::Capability::avx2 ? cpu::avx2::kernel   \
                                                : cpu::baseline::kernel)
#else
#define FASTPOOL_BEST(kernel) cpu::baseline::kernel
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

// Calls run with one tall plane instead of the planes, where they are one and nothing is known of each.
template <class Run>
void with_tall(const Problem& p, bool draws, const Run& run) {
  if (draws || (p.parameter && (p.parameter_view.sample || p.parameter_view.channel || p.parameter_view.position)) || !is_tall(p))
    return run(p);
  const int64_t planes = p.samples * p.channels * p.extent[0];
  Problem tall = p;
  Level level = p.levels[0];
  tall.levels = &level;
  level.grid.axis[0] = Axis{};
  level.grid.axis[1].in *= planes, level.grid.axis[1].out *= planes;
  tall.samples = tall.channels = tall.extent[0] = 1;
  tall.extent[1] *= planes;
  tall.bins = level.grid.bins(), tall.bin_rows = level.grid.rows();
  run(tall);
}

template <class Reducer>
void forward(const Problem& p) {
  const auto run = [](const Problem& p) { divide(p, forward_units(p).count(), FASTPOOL_BEST(forward<Reducer>)); };
  if (p.levels[0].forward == ForwardSchedule::rows) return with_tall(p, Reducer::uses_uniform, run);
  run(p);
}

template <class Gradient>
void backward(const Problem& p) {
  const auto run = [](const Problem& p) { divide(p, backward_units(p).count(), FASTPOOL_BEST(backward<Gradient>)); };
  if (p.backward == BackwardSchedule::disjoint_rows) return with_tall(p, Gradient::uses_uniform, run);
  run(p);
}

}  // namespace fastpool::cpu
