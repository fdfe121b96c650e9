// Backward: gives every unit of work to a schedule.
#pragma once

#include "cpu/kernels/again_backward.h"
#include "cpu/kernels/cells_backward.h"
#include "cpu/kernels/disjoint_backward.h"
#include "cpu/kernels/interleaved.h"
#include "cpu/kernels/lanes_backward.h"
#include "cpu/kernels/rows_backward.h"
#include "cpu/kernels/scatter.h"
#include "cpu/kernels/separable.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Gradient, class S>
struct Backward {
  const Problem& p;
  Units units;

  explicit Backward(const Problem& p) : p(p), units(backward_units(p)) {}

  void run(int64_t begin, int64_t end) const {
    if constexpr (kHasLanes<S>) {
      using enum BackwardSchedule;
      switch (p.backward) {
        case pooled_again:
          if constexpr (kSpecialises && kPoolsAgain<Gradient>) return run_units<PooledAgain<Gradient, S>>(begin, end);
          break;
        case disjoint_lanes:
          if constexpr (kSpecialises) return run_units<DisjointLanes<Gradient, S>>(begin, end);
          break;
        case disjoint_rows:
          if constexpr (kSpecialises) return run_units<DisjointRows<Gradient, S>>(begin, end);
          break;
        case interleaved:
          if constexpr (kSpecialises) return run_units<InterleavedBackward<Gradient, S>>(begin, end);
          break;
        case scatter:
          if constexpr (Gradient::selects)
            return overlaps(p) ? run_units<Scatter<S, Accumulated<S>>>(begin, end) : run_units<Scatter<S, S>>(begin, end);
          break;
        case whole_planes:
          if constexpr (!Gradient::selects) return run_units<WholePlanes<Gradient, S>>(begin, end);
          break;
        case lanes:
          if constexpr (!Gradient::selects) return run_units<LanesBackward<Gradient, S>>(begin, end);
          break;
        case cells:
          if constexpr (kSpecialises && kShares<Gradient> && !Gradient::uses_taps) return run_units<CellsBackward<Gradient, S>>(begin, end);
          break;
        case sliding:
          if constexpr (!Gradient::selects) return run_units<SlidingBackward<Gradient, S>>(begin, end);
          break;
        case levels:
          if constexpr (!Gradient::selects) return run_units<LevelsBackward<Gradient, S>>(begin, end);
          break;
        case separable:
          if constexpr (kShares<Gradient> && !Gradient::uses_taps) return run_units<SeparableBackward<S>>(begin, end);
          break;
        case exact:
          break;
      }
    }
    FASTPOOL_ASSERT(p.backward == BackwardSchedule::exact);
    for (int64_t u = begin; u < end; ++u) run_exact(units.at(u));
  }

 private:
  template <class Kernel>
  void run_units(int64_t begin, int64_t end) const {
    Kernel kernel(p, units, Arena());
    for (int64_t u = begin; u < end; ++u) kernel.run(units.at(u));
    end_stores_past();
  }

  void run_exact(const Units::Unit& unit) const {
    for (int64_t c = unit.c; c < unit.c + unit.channels; ++c)
      for (int64_t row = unit.first_row; row < unit.last_row; ++row)
        for (int64_t k = 0; k < p.extent[2]; ++k) {
          const int64_t i[3] = {row / p.extent[1], row % p.extent[1], k};
          double sum = 0;
          for (int32_t l = 0; l < p.level_count; ++l) sum = backward_exact<Gradient>(p, p.levels[l], unit.n, c, i, sum);
          static_cast<S*>(p.gx)[p.input.at(unit.n, c, row * p.extent[2] + k)] = Narrow<S>::from(Accumulated<S>(sum));
        }
  }
};

template <class Gradient>
void backward(const Problem& p, int64_t begin, int64_t end) {
  with_storage(p.dtype, [&](auto s) { Backward<Gradient, decltype(s)>(p).run(begin, end); });
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
