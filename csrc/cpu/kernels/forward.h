// Forward: gives every unit of work to the schedules of its levels. Bits do not depend on the choice, except for sums
// over bins and over windows of more than 256 taps.
#pragma once

#include "cpu/kernels/channels.h"
#include "cpu/kernels/flat.h"
#include "cpu/kernels/rows.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
struct Forward {
  // A plane's levels follow each other, so that the plane is read from memory once.
  static void run(const Problem& p, int64_t begin, int64_t end) {
    const Units units = forward_units(p);
    const uint64_t seed = Reducer::uses_uniform ? p.seed_now() : 0;
    for (int64_t u = begin; u < end; ++u) {
      const Units::Unit unit = units.at(u);
      for (int32_t l = 0; l < p.level_count; ++l) {
        const Level& level = p.levels[l];
        const int64_t first = larger(unit.first_row - level.first_row, 0),
                      last = smaller(unit.last_row - level.first_row, level.grid.rows());
        if (first < last) run_level(p, level, seed, unit, first, last);
      }
    }
  }

  static void run_level(const Problem& p, const Level& level, uint64_t seed, const Units::Unit& unit, int64_t first, int64_t last) {
    if (level.forward == Schedule::direct) {
      for (int64_t i = 0; i < unit.channels; ++i) direct(p, level, unit.n, unit.c + i, first, last);
    } else if (p.lanes_are_channels) {
      if constexpr (!Reducer::uses_uniform)
        channels<Reducer, WindowsOf::both>(p, level, seed, unit, first, last);
      else if (level.large)
        channels<typename LargeWindows<Reducer>::type, WindowsOf::large>(p, level, seed, unit, first, last);
      else
        channels<Reducer, WindowsOf::small>(p, level, seed, unit, first, last);
    } else if (level.forward == Schedule::planes) {
      Planes<Reducer, S> planes(p, level, seed, Arena(Planes<Reducer, S>::scratch_bytes(level.grid)));
      for (int64_t i = 0; i < unit.channels; i += planes.L)
        planes.run(unit.n, unit.c + i, smaller(planes.L, unit.channels - i), first, last);
    } else if (level.forward == Schedule::flat) {
      for (int64_t i = 0; i < unit.channels; ++i) Flat<Reducer, S>(p, level).run(unit.n, unit.c + i, first, last);
    } else {
      Rows<Reducer, S> rows(p, level, seed, Arena(Rows<Reducer, S>::scratch_bytes(level.grid)));
      for (int64_t i = 0; i < unit.channels; ++i) rows.run(unit.n, unit.c + i, first, last);
    }
  }

  template <class R, WindowsOf windows>
  static void channels(const Problem& p, const Level& level, uint64_t seed, const Units::Unit& unit, int64_t first, int64_t last) {
    using Lanes = Channels<R, S, windows>;
    Arena arena(Lanes::scratch_bytes(level.grid, unit.channels));
    Lanes lanes(p, level, seed, unit.channels, arena);
    const S* x = static_cast<const S*>(p.x);
    const Lines<S> lines{x + p.input.at(unit.n, unit.c, 0), x + p.samples * p.channels * p.positions(), p.extent[1], p.extent[2],
                         p.input.position};
    const Axis* axis = level.grid.axis;
    for (int64_t row = first; row < last; ++row) {
      const Place at{unit.n, unit.c, {row / axis[1].out, row % axis[1].out, 0}};
      lanes.run(at, unit.channels, lines, axis[0].window(at.o[0]), axis[1].window(at.o[1]));
    }
  }

  static void direct(const Problem& p, const Level& level, int64_t n, int64_t c, int64_t first, int64_t last) {
    const Axis* axis = level.grid.axis;
    for (int64_t row = first; row < last; ++row)
      for (int64_t o = 0; o < axis[2].out; ++o) forward_exact<Reducer>(p, level, {n, c, {row / axis[1].out, row % axis[1].out, o}});
  }
};

template <class Reducer>
void forward(const Problem& p, int64_t begin, int64_t end) {
  with_storage(p.dtype, [&](auto s) { Forward<Reducer, decltype(s)>::run(p, begin, end); });
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
