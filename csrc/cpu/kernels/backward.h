// Backward: gives every unit of work to a schedule.
#pragma once

#include "cpu/kernels/disjoint_backward.h"
#include "cpu/kernels/lanes_backward.h"
#include "cpu/kernels/rows_backward.h"
#include "cpu/kernels/scatter.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Gradient, class S>
struct Backward {
  const Problem& p;
  Units units;

  explicit Backward(const Problem& p) : p(p), units(backward_units(p)) {}

  void run(int64_t begin, int64_t end) const {
    if constexpr (kHasLanes<S>)
      if (!has(Schedule::direct)) return run_lanes(begin, end);
    for (int64_t u = begin; u < end; ++u) run_exact(units.at(u));
  }

 private:
  void run_lanes(int64_t begin, int64_t end) const {
    if constexpr (kSpecialises) {
      if (DisjointLanes<Gradient, S>::fits(p)) return run_units<DisjointLanes<Gradient, S>>(begin, end);
      if (DisjointRows<Gradient, S>::fits(p)) return run_units<DisjointRows<Gradient, S>>(begin, end);
    }
    if constexpr (Gradient::selects)
      overlaps(p) ? run_units<Scatter<S, Accumulated<S>>>(begin, end) : run_units<Scatter<S, S>>(begin, end);
    else
      gather(begin, end);
  }

  void gather(int64_t begin, int64_t end) const {
    if (WholePlanes<Gradient, S>::fits(p))
      run_units<WholePlanes<Gradient, S>>(begin, end);
    else if (p.lanes_are_channels || has(Schedule::planes))
      run_units<LanesBackward<Gradient, S>>(begin, end);
    else if (has(Schedule::rows))
      run_units<SlidingBackward<Gradient, S>>(begin, end);
    else
      run_units<LevelsBackward<Gradient, S>>(begin, end);
  }

  template <class Kernel>
  void run_units(int64_t begin, int64_t end) const {
    Kernel kernel(p, units, Arena());
    for (int64_t u = begin; u < end; ++u) kernel.run(units.at(u));
    end_stores_past();
  }

  bool has(Schedule schedule) const {
    for (int32_t l = 0; l < p.level_count; ++l)
      if (p.levels[l].backward == schedule) return true;
    return false;
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
