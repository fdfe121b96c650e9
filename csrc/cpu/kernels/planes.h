// Forward schedule of contiguous input with bins of uneven size or short rows: lanes are neighbouring planes. They are
// transposed into scratch, small planes whole and others as far as one row of bins sees them, then pooled like
// channels-last input, and the results are transposed back. Bins side by side first fold the rows that they see into one,
// where lanes are columns.
#pragma once

#include <new>

#include "cpu/kernels/channels.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

inline bool is_small(const Grid& grid) { return grid.axis[0].in * grid.axis[1].in * grid.axis[2].in <= kSmallPlane; }

// One level.
template <class Reducer, class S>
class Planes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  static bool folds_rows(const Level& level) { return (level.free_order || Reducer::any_order) && level.grid.folds(Reducer::parts); }
  // `whole` has small planes, transposed.
  Planes(const Problem& p, const Level& level, uint64_t seed, const S* whole, Arena& arena)
      : p(p),
        level(level),
        folds(folds_rows(level)),
        whole(whole),
        values(arena.take<S>(held_positions(level) * L)),
        turned(p),
        turned_level(level),
        lanes(turned, turned_level, seed, L, arena) {
    const int64_t results = held_rows(level) * level.grid.axis[2].out * L;
    y = arena.take<S>(results);
    second = arena.take<S>(Reducer::has_second ? results : 0);
    taps = arena.take<int32_t>(Reducer::saves_taps ? results : 0);
    difference = arena.take<T>(Reducer::has_second ? results : 0);
    moments = arena.take<T>(Reducer::saves_moments ? 2 * results : 0);
    turned.moments_size = results;
    windows = arena.take<Windows>(held_rows(level));
    if (folds) {
      const int64_t width = level.grid.axis[2].in;
      for (T*& part : folded) part = arena.take<T>(held_rows(level) * width * L);
      for (T*& part : turned_parts) part = arena.take<T>(width * L);
      folded_taps = arena.take<Tap<T>>(Reducer::saves_taps ? held_rows(level) * width * L : 0);
      turned_taps = arena.take<Tap<T>>(Reducer::saves_taps ? width * L : 0);
    }
    if (p.tap_bytes) turned.tap_bytes = 4;
    turned.saved = turned_level.output = {0, 1, L};
    turned_level.output_base = turned_level.second_base = 0;
  }

  // Turns to the rows of bins of one round; returns whether there are any.
  bool begin(const Units::Unit& unit, int64_t round) {
    const Axis* axis = level.grid.axis;
    const Range all = share(level, unit);
    const int64_t held = held_rows(level);
    rows = {smaller(all.begin + round * held, all.end), smaller(all.begin + (round + 1) * held, all.end)};
    for (int64_t row = rows.begin; row < rows.end; ++row)
      windows[row - rows.begin] = {axis[0].window(row / axis[1].out), axis[1].window(row % axis[1].out)};
    return rows.begin < rows.end;
  }

  // Prepares them for plane (n, c), the one at `lane`.
  void fold_rows(int64_t n, int64_t c, int64_t lane) {
    if constexpr (Reducer::parts > 0) {
      if (!folds) return;
      for (int64_t row = 0; row < rows.end - rows.begin; ++row)
        fold(static_cast<const S*>(p.x) + p.input.at(n, c, 0), windows[row].d, windows[row].h, (row * L + lane) * p.extent[2]);
    }
  }

  // Pools them for the planes c … c + count - 1.
  void run_rows(int64_t n, int64_t c, int64_t count) {
    const Grid& grid = level.grid;
    const int64_t first_bin = rows.begin * grid.axis[2].out, bins = (rows.end - rows.begin) * grid.axis[2].out;
    // The kernel finds channel c of the first bin at the beginning of scratch.
    const int64_t out = c + first_bin * L, saved = c + (level.first_bin + first_bin) * L;
    turned.y = y - out;
    turned.second = second - out;
    turned.taps = taps - saved;
    turned.difference = p.difference ? difference - saved : nullptr;
    turned.moments = p.moments ? moments - saved : nullptr;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const Place at{n, c, {row / grid.axis[1].out, row % grid.axis[1].out, 0}};
      const Span &d = windows[row - rows.begin].d, &h = windows[row - rows.begin].h;
      if constexpr (Reducer::parts > 0)
        if (folds) {
          run_folded(at, count, row - rows.begin);
          continue;
        }
      if (whole) {
        lanes.run(at, count, Lines<S>{whole, p.extent[1], p.extent[2], L}, d, h);
        continue;
      }
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t from = ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2];
          transpose(values + (i * h.count + j) * p.extent[2] * L, L, static_cast<const S*>(p.x) + p.input.at(n, c, from), p.input.channel,
                    count, p.extent[2]);
        }
      // The rows in scratch follow each other without steps.
      const Span slices{0, d.count, 1, d.first, d.size}, lines_of_slice{0, h.count, 1, h.first, h.size};
      lanes.run(at, count, Lines<S>{values, h.count, p.extent[2], L}, slices, lines_of_slice);
    }
    turn_back(n, c, count, first_bin, bins);
  }

 private:
  using Lanes = Channels<Reducer, S, Reducer::uses_uniform ? WindowsOf::small : WindowsOf::both>;

  struct Windows {
    Span d, h;
  };

  const Problem& p;
  const Level& level;
  bool folds;
  Range rows{};
  Windows* windows;
  const S* whole;
  S* values;
  Problem turned;  // results go to scratch
  Level turned_level;
  Lanes lanes;
  S *y, *second;
  int32_t* taps;
  T *difference, *moments;
  // Rows of bins, each of one plane after another; and one row, transposed.
  std::array<T*, Reducer::parts> folded{}, turned_parts{};
  Tap<T>*folded_taps = nullptr, *turned_taps = nullptr;

  static constexpr int64_t kFoldedBytes = 128 << 10;
  // Rows of bins that are pooled in one round.
  static int64_t held_rows(const Level& level) {
    const Grid& grid = level.grid;
    int64_t rows = kSmallPlane / grid.axis[2].out;
    if (folds_rows(level)) rows = smaller(rows, kFoldedBytes / (grid.axis[2].in * L * int64_t(sizeof(T))));
    return larger(smaller(rows, grid.rows()), 1);
  }
  static int64_t held_positions(const Level& level) {
    const Grid& grid = level.grid;
    if (folds_rows(level) || is_small(grid)) return 0;
    int64_t rows = 1;
    for (int a = 0; a < 2; ++a) rows *= grid.axis[a].adaptive() ? grid.axis[a].in / grid.axis[a].out + 2 : grid.axis[a].kernel;
    return rows * grid.axis[2].in;
  }

  // One row of bins.
  void run_folded(const Place& at, int64_t count, int64_t row) {
    const int64_t width = p.extent[2];
    for (int i = 0; i < Reducer::parts; ++i) transpose(turned_parts[i], L, folded[i] + row * width * L, width, count, width);
    if constexpr (Reducer::saves_taps) transpose(turned_taps, L, folded_taps + row * width * L, width, count, width);
    lanes.move_to(at);
    lanes.run_folded(at, count, turned_parts, turned_taps);
  }
  void turn_back(int64_t n, int64_t c, int64_t count, int64_t first_bin, int64_t bins) const {
    const auto turn = [&](auto* to, int64_t channel, const auto* from) { transpose(to, channel, from, L, bins, count); };
    const int64_t to = level.output.at(n, c, first_bin), to_saved = p.saved.at(n, c, level.first_bin + first_bin);
    turn(static_cast<S*>(p.y) + level.output_base + to, level.output.channel, y);
    if constexpr (Reducer::has_second) {
      if (!p.mixes) turn(static_cast<S*>(p.second) + level.second_base + to, level.output.channel, second);
      if (p.difference) turn(static_cast<T*>(p.difference) + to_saved, p.saved.channel, difference);
    }
    if constexpr (Reducer::saves_taps) {
      if (p.tap_bytes == 1) turn(static_cast<uint8_t*>(p.taps) + to_saved, p.saved.channel, taps);
      if (p.tap_bytes == 4) turn(static_cast<int32_t*>(p.taps) + to_saved, p.saved.channel, taps);
    }
    if constexpr (Reducer::saves_moments)
      for (int which = 0; p.moments && which < 2; ++which)
        turn(static_cast<T*>(p.moments) + which * p.moments_size + to_saved, p.saved.channel, moments + which * turned.moments_size);
  }

  // What every column of the rows of one plane comes to, at `to` and following.
  void fold(const S* plane, const Span& d, const Span& h, int64_t to) const {
    constexpr int most = kSpecialises ? kRegisterBytes / 16 : 1;  // as many tiles as registers hold
    for (int64_t column = 0, left; (left = p.extent[2] - column) > 0;) {
      if (most > 2 && left > 2 * L) {
        fold_columns<most>(plane, d, h, column, to);
        column += most * L;
      } else if (most > 1 && left > L) {
        fold_columns<(most > 1 ? 2 : 1)>(plane, d, h, column, to);
        column += 2 * L;
      } else {
        fold_columns<1>(plane, d, h, column, to);
        column += L;
      }
    }
  }
  // Tiles of columns side by side, so that memory is read in its order; the last ones overlap others.
  template <int tiles>
  void fold_columns(const S* plane, const Span& d, const Span& h, int64_t column, int64_t to) const {
    using V = typename Lanes::V;
    typename Reducer::template State<V> state[tiles];
    int64_t at[tiles];
    unrolled<tiles>([&](auto t) FASTPOOL_STEP {
      state[t].start(Tap<V>(Tap<T>(0)), p);
      at[t] = smaller(column + t * L, p.extent[2] - L);
    });
    for (int64_t i = 0; i < d.count; ++i) {
      const S* from = plane + ((d.start + i * d.step) * p.extent[1] + h.start) * p.extent[2];
      const int64_t first = (d.first + i) * h.size + h.first;
      for (int64_t j = 0; j < h.count; ++j, from += h.step * p.extent[2])
        unrolled<tiles>([&](auto t)
                            FASTPOOL_STEP { state[t].template add<0>(load_stream<T, L>(from + at[t]), Tap<V>(Tap<T>(first + j))); });
    }
    unrolled<tiles>([&](auto t) FASTPOOL_STEP {
      for (int i = 0; i < Reducer::parts; ++i) store(folded[i] + to + at[t], state[t].part(i));
      if constexpr (Reducer::saves_taps) store(folded_taps + to + at[t], state[t].tap());
    });
  }
};

// All levels that are pooled so: a plane is read from memory once.
template <class Reducer, class S>
class PlaneLevels {
 public:
  using T = Accumulated<S>;
  using OneLevel = Planes<Reducer, S>;
  static constexpr int L = kLanes<T>;

  PlaneLevels(const Problem& p, uint64_t seed, Arena arena)
      : p(p), whole(turns_whole(p) ? arena.take<S>(p.positions() * L) : nullptr), levels(arena.take<OneLevel>(p.level_count)) {
    for (int32_t l = 0; l < p.level_count; ++l)
      if (p.levels[l].forward == Schedule::planes) new (levels + count++) OneLevel(p, p.levels[l], seed, whole, arena);
  }

  void run(const Units::Unit& unit) {
    for (int64_t c = unit.c, end = unit.c + unit.channels; c < end; c += L) run_block(unit, c, smaller(L, end - c));
  }

 private:
  const Problem& p;
  S* whole;
  OneLevel* levels;
  int32_t count = 0;

  static bool turns_whole(const Problem& p) {
    bool turns = false;
    for (int32_t l = 0; l < p.level_count; ++l) turns |= p.levels[l].forward == Schedule::planes && !OneLevel::folds_rows(p.levels[l]);
    return turns && is_small(p.levels[0].grid);
  }

  void run_block(const Units::Unit& unit, int64_t c, int64_t planes) {
    if (whole) transpose(whole, L, static_cast<const S*>(p.x) + p.input.at(unit.n, c, 0), p.input.channel, planes, p.positions());
    for (int64_t round = 0;; ++round) {
      bool any = false;
      for (int32_t l = 0; l < count; ++l) any |= levels[l].begin(unit, round);
      if (!any) return;
      for (int64_t i = 0; i < planes; ++i)
        for (int32_t l = 0; l < count; ++l) levels[l].fold_rows(unit.n, c + i, i);
      for (int32_t l = 0; l < count; ++l) levels[l].run_rows(unit.n, c, planes);
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
