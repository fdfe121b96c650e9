// Forward: gives every unit of work to the schedules of its levels. Bits do not depend on the choice, except for sums
// over bins and over windows of more than 256 taps.
#pragma once

#include "cpu/kernels/channels.h"
#include "cpu/kernels/flat.h"
#include "cpu/kernels/interleaved.h"
#include "cpu/kernels/planes.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/separable.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
struct Forward {
  using Swept = ChannelLevels<Reducer, S>;
  const Problem& p;
  Units units;
  uint64_t seed;

  FASTPOOL_HD explicit Forward(const Problem& p) : p(p), units(forward_units(p)), seed(Reducer::uses_uniform ? p.seed_now() : 0) {}

  void run(int64_t begin, int64_t end) const {
    if constexpr (kHasLanes<S>)
      run_lanes(begin, end);
    else
      for (int32_t l = 0; l < p.level_count; ++l) run_exact(p.levels[l], begin, end);
  }

 private:
  // Levels are computed together as far as that can be, and otherwise one after another for each unit, so that its input
  // is read from memory once.
  void run_lanes(int64_t begin, int64_t end) const {
    int32_t together = 0;
    for (int32_t l = 0; l < p.level_count; ++l) together += is_joint(p.levels[l]);
    if (together == p.level_count) return run_joint(begin, end);
    if (p.level_count == 1) return run_level(p.levels[0], begin, end);
    for (int64_t u = begin; u < end; ++u) {
      if (together) run_joint(u, u + 1);
      for (int32_t l = 0; l < p.level_count; ++l)
        if (!is_joint(p.levels[l])) run_level(p.levels[l], u, u + 1);
    }
  }

  bool is_joint(const Level& level) const {
    if (level.forward == ForwardSchedule::channels) return Swept::OneLevel::sweeps(p, level, units.most_channels());
    return level.forward == ForwardSchedule::planes;
  }
  void run_joint(int64_t begin, int64_t end) const {
    if constexpr (Reducer::passes == 1)
      if (p.lanes_are_channels) {
        const int64_t channels = units.most_channels();
        const Swept levels(p, seed, channels, Arena());
        for (int64_t u = begin; u < end; ++u) levels.run(units.at(u));
        return;
      }
    PlaneLevels<Reducer, S> levels(p, seed, Arena());
    for (int64_t u = begin; u < end; ++u) levels.run(units.at(u));
  }

  void run_level(const Level& level, int64_t begin, int64_t end) const {
    switch (level.forward) {
      case ForwardSchedule::channels:
        if constexpr (!Reducer::uses_uniform)
          return channels<Reducer, WindowsOf::both>(level, begin, end);
        else if (level.large)
          return channels<typename LargeWindows<Reducer>::type, WindowsOf::large>(level, begin, end);
        else
          return channels<Reducer, WindowsOf::small>(level, begin, end);
      case ForwardSchedule::interleaved:
        if constexpr (kSpecialises) {
          Interleaved<Reducer, S> interleaved(p, level, seed, Arena());
          return each_unit(level, begin, end, [&](auto&&... part) { interleaved.run(part...); });
        }
        break;
      case ForwardSchedule::flat: {
        const Flat<Reducer, S> flat(p, level);
        return each_channel(level, begin, end, p.channels, [&](auto&&... part) { flat.run(part...); });
      }
      case ForwardSchedule::rows: {
        Rows<Reducer, S> rows(p, level, seed, Arena());
        return each_channel(level, begin, end, 1, [&](auto&&... part) { rows.run(part...); });
      }
      case ForwardSchedule::separable:
        if constexpr (Reducer::separable) {
          Separable<Reducer, S> separable(p, level, level.grid, units.most_channels(), Arena());
          return each_unit(level, begin, end, [&](auto&&... part) { separable.run(part...); });
        }
        [[fallthrough]];
      case ForwardSchedule::planes:  // is joint
      case ForwardSchedule::exact:
        FASTPOOL_ASSERT(level.forward == ForwardSchedule::exact);
        return run_exact(level, begin, end);
    }
  }

  // Calls run(unit, first_row, last_row) with a level's share of each unit.
  template <class Run>
  void each_unit(const Level& level, int64_t begin, int64_t end, const Run& run) const {
    for (int64_t u = begin; u < end; ++u) {
      const Units::Unit unit = units.at(u);
      const Range rows = rows_of(level, unit);
      if (rows.begin < rows.end) run(unit, rows.begin, rows.end);
    }
  }
  // Calls run(n, c, count, first_row, last_row) for up to `most` channels at a time.
  template <class Run>
  void each_channel(const Level& level, int64_t begin, int64_t end, int64_t most, const Run& run) const {
    each_unit(level, begin, end, [&](const Units::Unit& unit, int64_t first, int64_t last) {
      for (int64_t i = 0; i < unit.channels; i += most) run(unit.n, unit.c + i, smaller(most, unit.channels - i), first, last);
    });
  }

  template <class R, WindowsOf windows>
  void channels(const Level& level, int64_t begin, int64_t end) const {
    Arena arena;
    Channels<R, S, windows> lanes(p, level, seed, units.most_channels(), arena);
    const S* x = static_cast<const S*>(p.x);
    const Axis* axis = level.grid.axis;
    each_unit(level, begin, end, [&](const Units::Unit& unit, int64_t first, int64_t last) {
      const Lines<S> lines{x + p.input.at(unit.n, unit.c, 0), p.extent[1], p.extent[2], p.input.position};
      for (int64_t row = first; row < last; ++row) {
        const Place at{unit.n, unit.c, {row / axis[1].out, row % axis[1].out, 0}};
        lanes.run(at, unit.channels, lines, axis[0].window(at.o[0]), axis[1].window(at.o[1]), {0, axis[2].out});
      }
    });
    end_stores_past();
  }

  void run_exact(const Level& level, int64_t begin, int64_t end) const {
    const Axis* axis = level.grid.axis;
    each_channel(level, begin, end, 1, [&](int64_t n, int64_t c, int64_t, int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        for (int64_t o = 0; o < axis[2].out; ++o) forward_exact<Reducer>(p, level, {n, c, {row / axis[1].out, row % axis[1].out, o}});
    });
  }
};

template <class Reducer>
void forward(const Problem& p, int64_t begin, int64_t end) {
  using Plain = typename Plain<Reducer>::type;
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (!std::is_same_v<Plain, Reducer>)
      if (p.tap_bytes == 0 && !p.slope) return Forward<Plain, S>(p).run(begin, end);
    Forward<Reducer, S>(p).run(begin, end);
  });
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
