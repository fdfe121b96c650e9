// Forward schedule of contiguous input with bins of uneven size or short rows: lanes are neighbouring planes. They are
// transposed into scratch, small planes whole and others as far as one row of bins sees them, then pooled like
// channels-last input, and the results are transposed back. Bins side by side first fold the rows that they see into one,
// where lanes are columns.
#pragma once

#include "cpu/kernels/channels.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
class Planes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  static int64_t scratch_bytes(const Level& level) {
    const Grid& grid = level.grid;
    return (held_positions(level) + (kResultBytes + sizeof(T) - 1) / sizeof(T) * held_bins(grid)) * L * int64_t(sizeof(T)) +
           Lanes::scratch_bytes(grid, L) + (Reducer::folds ? 3 * grid.axis[2].in * L * int64_t(sizeof(T)) : 0) + kSlack;
  }
  Planes(const Problem& p, const Level& level, uint64_t seed, Arena arena)
      : p(p),
        level(level),
        folds(folds_rows(level)),
        values(arena.take<T>(held_positions(level) * L)),
        turned(p),
        turned_level(level),
        lanes(turned, turned_level, seed, L, arena) {
    const int64_t results = held_bins(level.grid) * L;
    y = arena.take<S>(results);
    second = arena.take<S>(Reducer::has_second ? results : 0);
    taps = arena.take<int32_t>(Reducer::saves_taps ? results : 0);
    difference = arena.take<T>(Reducer::second_is_difference ? results : 0);
    moments = arena.take<T>(Reducer::saves_moments ? 2 * results : 0);
    turned.moments_size = results;
    if constexpr (Reducer::folds) {
      folded = arena.take<T>(level.grid.axis[2].in * L);
      folded_taps = arena.take<Tap<T>>(level.grid.axis[2].in * L);
      turned_taps = arena.take<Tap<T>>(level.grid.axis[2].in * L);
    }
    if (p.tap_bytes) turned.tap_bytes = 4;
    turned.saved = turned_level.output = {0, 1, L};
    turned_level.output_base = turned_level.second_base = 0;
  }

  // The rows of bins first_row … last_row - 1 of the planes c … c + count - 1.
  void run(int64_t n, int64_t c, int64_t count, int64_t first_row, int64_t last_row) {
    const Grid& grid = level.grid;
    if (is_small(grid) && !folds) turn(0, n, c, count, 0, p.positions());
    const int64_t rows = held_bins(grid) / grid.axis[2].out;
    for (int64_t row = first_row; row < last_row; row += rows) run_rows(n, c, count, row, smaller(row + rows, last_row));
  }

 private:
  using Lanes = Channels<Reducer, T, std::is_same_v<S, T> && !Reducer::uses_uniform ? WindowsOf::both : WindowsOf::small, S>;

  const Problem& p;
  const Level& level;
  bool folds;
  T* values;
  Problem turned;  // results go to scratch
  Level turned_level;
  Lanes lanes;
  S *y, *second;
  int32_t* taps;
  T *difference, *moments;
  // Of every plane's columns, and transposed.
  T* folded = nullptr;
  Tap<T>*folded_taps = nullptr, *turned_taps = nullptr;

  static constexpr int64_t kResultBytes = (1 + Reducer::has_second) * sizeof(S) + Reducer::saves_taps * 4 +
                                          (Reducer::second_is_difference + 2 * Reducer::saves_moments) * sizeof(T);
  static bool is_small(const Grid& grid) { return grid.axis[0].in * grid.axis[1].in * grid.axis[2].in <= kSmallPlane; }
  static bool folds_rows(const Level& level) { return Reducer::folds && (level.free_order || !Reducer::is_sum) && level.grid.folds(); }
  static int64_t held_positions(const Level& level) {
    const Grid& grid = level.grid;
    if (folds_rows(level)) return grid.axis[2].in;
    if (is_small(grid)) return grid.axis[0].in * grid.axis[1].in * grid.axis[2].in;
    int64_t rows = 1;
    for (int a = 0; a < 2; ++a) rows *= grid.axis[a].adaptive() ? grid.axis[a].in / grid.axis[a].out + 2 : grid.axis[a].kernel;
    return rows * grid.axis[2].in;
  }
  static int64_t held_bins(const Grid& grid) { return larger(smaller(kSmallPlane / grid.axis[2].out, grid.rows()), 1) * grid.axis[2].out; }

  // `length` positions of the planes, from `from` on, to scratch position `to` and following.
  void turn(int64_t to, int64_t n, int64_t c, int64_t count, int64_t from, int64_t length) const {
    transpose(values + to * L, L, static_cast<const S*>(p.x) + p.input.at(n, c, from), p.input.channel, count, length);
  }

  // One row of bins.
  void run_folded(const Place& at, int64_t count, const Span& d, const Span& h) {
    const int64_t width = p.extent[2];
    Tap<T> odd[L] = {};
    for (int64_t i = 0; i < count; ++i)
      odd[i] = -Tap<T>(fold(static_cast<const S*>(p.x) + p.input.at(at.n, at.c + i, 0), d, h, folded + i * width, folded_taps + i * width));
    transpose(values, L, folded, width, count, width);
    if constexpr (Reducer::saves_taps) transpose(turned_taps, L, folded_taps, width, count, width);
    lanes.move_to(at);
    lanes.run_folded(at, count, values, turned_taps, load<Tap<T>, L>(odd));
  }
  // Every column's part of the rows of one plane; whether the fast arithmetic does not hold for some.
  bool fold(const S* plane, const Span& d, const Span& h, T* x, Tap<T>* taps) const {
    using V = typename Lanes::V;
    Mask<V> ordinary(true);
    for (int64_t column = 0;; column += L) {
      column = smaller(column, p.extent[2] - L);
      typename Reducer::template State<V> state;
      state.start(Tap<V>(Tap<T>(0)), p);
      for (int64_t i = 0; i < d.count; ++i) {
        const S* from = plane + ((d.start + i * d.step) * p.extent[1] + h.start) * p.extent[2] + column;
        const int64_t first = (d.first + i) * h.size + h.first;
        for (int64_t j = 0; j < h.count; ++j, from += h.step * p.extent[2]) {
          for (int64_t byte = 0; byte < L * int64_t(sizeof(S)); byte += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead + byte);
          state.template add<0>(load<T, L>(from), Tap<V>(Tap<T>(first + j)));
        }
      }
      if constexpr (!std::is_same_v<decltype(state.ordinary()), Always>) ordinary = ordinary & state.ordinary();
      store(x + column, state.y());
      if constexpr (Reducer::saves_taps) store(taps + column, state.tap());
      if (column + L == p.extent[2]) return any(!ordinary);
    }
  }

  void run_rows(int64_t n, int64_t c, int64_t count, int64_t first_row, int64_t last_row) {
    const Grid& grid = level.grid;
    const int64_t first_bin = first_row * grid.axis[2].out, bins = (last_row - first_row) * grid.axis[2].out;
    // The kernel finds channel c of the first bin at the beginning of scratch.
    const int64_t out = c + first_bin * L, saved = c + (level.first_bin + first_bin) * L;
    turned.y = y - out;
    turned.second = second - out;
    turned.taps = taps - saved;
    turned.difference = p.difference ? difference - saved : nullptr;
    turned.moments = p.moments ? moments - saved : nullptr;
    for (int64_t row = first_row; row < last_row; ++row) {
      const Place at{n, c, {row / grid.axis[1].out, row % grid.axis[1].out, 0}};
      const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]);
      if constexpr (Reducer::folds)
        if (folds) {
          run_folded(at, count, d, h);
          continue;
        }
      if (is_small(grid)) {
        lanes.run(at, count, Lines<T>{values, p.extent[1], p.extent[2], L}, d, h);
        continue;
      }
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j)
          turn((i * h.count + j) * p.extent[2], n, c, count, ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2],
               p.extent[2]);
      // The rows in scratch follow each other without steps.
      const Span slices{0, d.count, 1, d.first, d.size}, lines_of_slice{0, h.count, 1, h.first, h.size};
      lanes.run(at, count, Lines<T>{values, h.count, p.extent[2], L}, slices, lines_of_slice);
    }
    const auto turn_back = [&](auto* to, int64_t channel, const auto* from) { transpose(to, channel, from, L, bins, count); };
    const int64_t to = level.output.at(n, c, first_bin), to_saved = p.saved.at(n, c, level.first_bin + first_bin);
    turn_back(static_cast<S*>(p.y) + level.output_base + to, level.output.channel, y);
    if constexpr (Reducer::second_is_difference) {
      if (p.difference) turn_back(static_cast<T*>(p.difference) + to_saved, p.saved.channel, difference);
    } else if constexpr (Reducer::has_second) {
      turn_back(static_cast<S*>(p.second) + level.second_base + to, level.output.channel, second);
    }
    if constexpr (Reducer::saves_taps) {
      if (p.tap_bytes == 1) turn_back(static_cast<uint8_t*>(p.taps) + to_saved, p.saved.channel, taps);
      if (p.tap_bytes == 4) turn_back(static_cast<int32_t*>(p.taps) + to_saved, p.saved.channel, taps);
    }
    if constexpr (Reducer::saves_moments)
      for (int which = 0; p.moments && which < 2; ++which)
        turn_back(static_cast<T*>(p.moments) + which * p.moments_size + to_saved, p.saved.channel, moments + which * turned.moments_size);
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
