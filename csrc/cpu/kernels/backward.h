// Backward: gives every unit of work to a schedule.
#pragma once

#include <new>

#include "cpu/kernels/lanes_backward.h"
#include "cpu/kernels/rows_backward.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Gradient, class S>
struct Backward {
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  static constexpr int64_t kColumns = 2048;  // of one tile: its buffers stay in the first-level cache

  static void run(const Problem& p, int64_t begin, int64_t end) {
    const Units units = backward_units(p);
    for (int64_t u = begin; u < end; ++u) {
      const Units::Unit unit = units.at(u);
      if (has(p, Schedule::direct))
        exact(p, unit);
      else if (p.lanes_are_channels || has(p, Schedule::planes))
        LanesBackward<Gradient, S>::run(p, unit);
      else if (has(p, Schedule::rows))
        sliding(p, unit);
      else
        levels(p, unit);
    }
  }

  static bool has(const Problem& p, Schedule schedule) {
    for (int32_t l = 0; l < p.level_count; ++l)
      if (p.levels[l].backward == schedule) return true;
    return false;
  }

  template <class Row>
  static void each_tile(const Problem& p, const Units::Unit& unit, const Row& row) {
    for (int64_t c = unit.c; c < unit.c + unit.channels; ++c)
      for (int64_t begin = 0; begin < p.extent[2]; begin += kColumns) row(c, Columns{begin, smaller(begin + kColumns, p.extent[2])});
  }

  static S* gradient_row(const Problem& p, int64_t n, int64_t c, int64_t row) {
    return static_cast<S*>(p.gx) + p.input.at(n, c, row * p.extent[2]);
  }

  static void sliding(const Problem& p, const Units::Unit& unit) {
    const int64_t columns = smaller(kColumns, p.extent[2]);
    Arena arena(SlidingBackward<Gradient, S>::scratch_bytes(p.levels[0].grid, columns));
    SlidingBackward<Gradient, S> level(p, p.levels[0], columns, arena);
    each_tile(p, unit, [&](int64_t c, Columns tile) {
      level.move_to(unit.n, c, tile);
      for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
        const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
        // Whole rows may be followed by junk as far as later rows will replace it.
        const int64_t room = tile.end - tile.begin == p.extent[2] ? (unit.last_row - row) * p.extent[2] : 0;
        level.run(unit.n, c, i, gradient_row(p, unit.n, c, row) + tile.begin, room);
      }
    });
  }

  // Levels add to the sums of one row after another.
  static void levels(const Problem& p, const Units::Unit& unit) {
    using Wide = WideBackward<Gradient, S>;
    const int64_t columns = smaller(kColumns, p.extent[2]);
    int64_t bytes = (columns + L) * int64_t(sizeof(T)) + kSlack;
    for (int32_t l = 0; l < p.level_count; ++l) bytes += int64_t(sizeof(Wide)) + 64 + Wide::scratch_bytes(p.levels[l].grid);
    Arena arena(bytes);
    T* sums = arena.take<T>(columns + L);
    Wide* levels = arena.take<Wide>(p.level_count);
    for (int32_t l = 0; l < p.level_count; ++l) new (levels + l) Wide(p, p.levels[l], arena);
    each_tile(p, unit, [&](int64_t c, Columns tile) {
      for (int32_t l = 0; l < p.level_count; ++l) levels[l].move_to(unit.n, c, tile);
      for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
        const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
        fill_run(sums, T(0), columns + L);
        for (int32_t l = 0; l < p.level_count; ++l) levels[l].run(unit.n, c, i, sums);
        S* to = gradient_row(p, unit.n, c, row) + tile.begin;
        const int64_t count = tile.end - tile.begin;
        for (int64_t j = 0; j < count; j += L) store_part(to + j, 1, load<T, L>(sums + j), smaller(L, count - j));
      }
    });
  }

  static void exact(const Problem& p, const Units::Unit& unit) {
    for (int64_t c = unit.c; c < unit.c + unit.channels; ++c)
      for (int64_t row = unit.first_row; row < unit.last_row; ++row)
        for (int64_t k = 0; k < p.extent[2]; ++k) {
          const int64_t i[3] = {row / p.extent[1], row % p.extent[1], k};
          double sum = 0;
          for (int32_t l = 0; l < p.level_count; ++l) sum = backward_exact<Gradient>(p, p.levels[l], unit.n, c, i, sum);
          static_cast<S*>(p.gx)[p.input.at(unit.n, c, row * p.extent[2] + k)] = Narrow<S>::from(T(sum));
        }
  }
};

template <class Gradient>
void backward(const Problem& p, int64_t begin, int64_t end) {
  with_storage(p.dtype, [&](auto s) { Backward<Gradient, decltype(s)>::run(p, begin, end); });
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
