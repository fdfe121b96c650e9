// Forward schedule of contiguous input with bins of uneven size or short rows: lanes are neighbouring planes. They are
// transposed into scratch, small planes whole and others as far as some bins of a row see them, then pooled like
// channels-last input, and the results are transposed back. Bins side by side first fold the rows that they see into one,
// where lanes are columns.
#pragma once

#include <new>

#include "cpu/kernels/cells.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// One level.
template <class Reducer, class S>
class Planes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  static bool folds_rows(const Level& level) { return cpu::folds_rows(level, Reducer::parts, Reducer::any_order); }
  // `whole` has small planes, transposed; or `cells` what they see.
  Planes(const Problem& p, const Level& level, uint64_t seed, const S* whole, const Cells<Reducer, S>* cells, Arena& arena)
      : p(p),
        level(level),
        folds(!cells && folds_rows(level)),
        whole(whole),
        cells(cells),
        tile(tile_of(level, folds)),
        values(arena.take<S>(folds || whole || cells ? 0 : tile.window_rows * tile.seen * L)),
        turned(p),
        turned_level(level),
        lanes(turned, turned_level, seed, L, arena) {
    const int64_t results = tile.rows * tile.columns * L;
    y = arena.take<S>(results);
    second = arena.take<S>(Reducer::has_second ? results : 0);
    taps = arena.take<int32_t>(Reducer::saves_taps ? results : 0);
    slope = arena.take<T>(Reducer::saves_slope ? results : 0);
    moments = arena.take<T>(Reducer::saves_moments ? 2 * results : 0);
    turned.moments_size = results;
    windows = arena.take<Windows>(tile.rows);
    if (folds) {
      for (T*& part : folded) part = arena.take<T>(tile.rows * tile.seen * L);
      for (T*& part : turned_parts) part = arena.take<T>(tile.seen * L);
      folded_taps = arena.take<Tap<T>>(Reducer::saves_taps ? tile.rows * tile.seen * L : 0);
      turned_taps = arena.take<Tap<T>>(Reducer::saves_taps ? tile.seen * L : 0);
    }
    if (p.tap_bytes) turned.tap_bytes = 4;
    turned.saved = turned_level.output = {0, 1, L};
    turned_level.output_base = turned_level.second_base = 0;
  }

  // Turns to the bins of one round; returns whether there are any.
  bool begin(const Units::Unit& unit, int64_t round) {
    const Axis* axis = level.grid.axis;
    const Range all = rows_of(level, unit);
    const int64_t across = ceil_div(axis[2].out, tile.columns), first = all.begin + round / across * tile.rows;
    rows = {smaller(first, all.end), smaller(first + tile.rows, all.end)};
    bins = {round % across * tile.columns, smaller((round % across + 1) * tile.columns, axis[2].out)};
    seen = axis[2].seen_by(bins);
    if (folds) seen.begin = smaller(seen.begin, larger(seen.end - L, 0)), seen.end = larger(seen.end, seen.begin + L);
    FASTPOOL_ASSERT(bins.end - bins.begin <= tile.columns && seen.end - seen.begin <= tile.seen);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      windows[row - rows.begin] = {axis[0].window(row / axis[1].out), axis[1].window(row % axis[1].out)};
    return rows.begin < rows.end;
  }

  // Prepares them for plane (n, c), the one at `lane`.
  void fold_rows(int64_t n, int64_t c, int64_t lane) {
    if constexpr (Reducer::parts > 0) {
      if (!folds) return;
      for (int64_t row = 0; row < rows.end - rows.begin; ++row)
        fold(static_cast<const S*>(p.x) + p.input.at(n, c, 0), windows[row].d, windows[row].h, (row * L + lane) * tile.seen);
    }
  }

  // Pools them for the planes c … c + count - 1.
  void run_rows(int64_t n, int64_t c, int64_t count) {
    const Grid& grid = level.grid;
    const int64_t columns = bins.end - bins.begin;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const Place at{n, c, {row / grid.axis[1].out, row % grid.axis[1].out, 0}};
      const Span &d = windows[row - rows.begin].d, &h = windows[row - rows.begin].h;
      FASTPOOL_ASSERT(row - rows.begin < tile.rows && (whole || cells || d.count * h.count <= tile.window_rows || folds));
      // The kernel finds channel c of the row's first bin where scratch has room for it.
      const int64_t before = row * grid.axis[2].out + bins.begin - (row - rows.begin) * columns;
      const int64_t out = c + before * L, saved = c + (level.first_bin + before) * L;
      turned.y = y - out;
      turned.second = second - out;
      turned.taps = taps - saved;
      turned.slope = p.slope ? slope - saved : nullptr;
      turned.moments = p.moments ? moments - saved : nullptr;
      if constexpr (Reducer::parts == 1)
        if (cells) {
          lanes.run_cells(at, count, *cells, h, bins);
          continue;
        }
      if constexpr (Reducer::parts > 0)
        if (folds) {
          run_folded(at, count, row - rows.begin);
          continue;
        }
      if (whole) {
        lanes.run(at, count, Lines<S>{whole, p.extent[1], p.extent[2], L}, d, h, bins);
        continue;
      }
      const int64_t width = seen.end - seen.begin;
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t from = row_of_input(d, h, i, j, p.extent[1]) * p.extent[2] + seen.begin;
          transpose(values + (i * h.count + j) * width * L, L, static_cast<const S*>(p.x) + p.input.at(n, c, from), p.input.channel, count,
                    width);
        }
      // The rows in scratch follow each other without steps.
      const Span slices{0, d.count, 1, d.first, d.size}, lines_of_slice{0, h.count, 1, h.first, h.size};
      lanes.run(at, count, Lines<S>{values - seen.begin * L, h.count, width, L}, slices, lines_of_slice, bins);
    }
    turn_back(n, c, count);
  }

 private:
  using Turned = Channels<Reducer, S, Reducer::uses_uniform ? WindowsOf::small : WindowsOf::both>;

  struct Windows {
    Span d, h;
  };
  // What is pooled in one round: rows of bins, as many bins of each, and the most that they see of a row of the input and
  // of its rows.
  struct Tile {
    int64_t rows, columns, seen, window_rows;
  };

  const Problem& p;
  const Level& level;
  bool folds;
  Range rows{}, bins{}, seen{};  // rows of bins, the bins of each, and the columns that these see
  Windows* windows;
  const S* whole;
  const Cells<Reducer, S>* cells;
  Tile tile;
  S* values;
  Problem turned;  // results go to scratch
  Level turned_level;
  Turned lanes;
  S *y, *second;
  int32_t* taps;
  T *slope, *moments;
  // Rows of bins, each of one plane after another; and one row, transposed.
  std::array<T*, Reducer::parts> folded{}, turned_parts{};
  Tap<T>*folded_taps = nullptr, *turned_taps = nullptr;

  // The most columns of the input that `columns` bins side by side see.
  static int64_t most_seen(const Axis& w, int64_t columns) { return smaller(larger(w.most_seen(columns), L), w.in); }
  static Tile tile_of(const Level& level, bool folds) {
    constexpr int64_t most = 128 << 10;
    const Grid& grid = level.grid;
    Tile tile{1, smaller(grid.axis[2].out, kSmallPlane), 0, grid.axis[0].most_taps() * grid.axis[1].most_taps()};
    const auto bytes = [&] {
      return most_seen(grid.axis[2], tile.columns) * L * int64_t(folds ? sizeof(T) : sizeof(S) * tile.window_rows);
    };
    // Half as many bins see hardly less where they mostly see the same.
    const auto divides = [&] {
      return tile.columns > 1 && 2 * most_seen(grid.axis[2], tile.columns / 2) <= 3 * most_seen(grid.axis[2], tile.columns) / 2;
    };
    while (divides() && bytes() > (folds ? most : 4 * most)) tile.columns = ceil_div(tile.columns, 2);
    if (tile.columns == grid.axis[2].out) {
      tile.rows = kSmallPlane / grid.axis[2].out;
      if (folds) tile.rows = smaller(tile.rows, most / bytes());
      tile.rows = larger(smaller(tile.rows, grid.rows()), 1);
    }
    tile.seen = most_seen(grid.axis[2], tile.columns);
    return tile;
  }

  // One row of bins.
  void run_folded(const Place& at, int64_t count, int64_t row) {
    const int64_t from = row * tile.seen * L, width = seen.end - seen.begin;
    for (int i = 0; i < Reducer::parts; ++i) transpose(turned_parts[i], L, folded[i] + from, tile.seen, count, width);
    if constexpr (Reducer::saves_taps) transpose(turned_taps, L, folded_taps + from, tile.seen, count, width);
    lanes.move_to(at);
    lanes.run_folded(at, count, turned_parts, turned_taps, seen.begin, bins);
  }
  void turn_back(int64_t n, int64_t c, int64_t count) const {
    const int64_t columns = bins.end - bins.begin, across = level.grid.axis[2].out;
    const bool together = columns == across;  // rows follow each other
    for (int64_t row = rows.begin; row < (together ? rows.begin + 1 : rows.end); ++row) {
      const int64_t first_bin = row * across + bins.begin, done = (row - rows.begin) * columns * L;
      const int64_t to = level.output.at(n, c, first_bin), to_saved = p.saved.at(n, c, level.first_bin + first_bin);
      const auto turn = [&](auto* to, int64_t channel, const auto* from) {
        transpose(to, channel, from + done, L, together ? (rows.end - rows.begin) * columns : columns, count);
      };
      turn(static_cast<S*>(p.y) + level.output_base + to, level.output.channel, y);
      if constexpr (Reducer::has_second) {
        if (!p.mixes) turn(static_cast<S*>(p.second) + level.second_base + to, level.output.channel, second);
      }
      if constexpr (Reducer::saves_slope)
        if (p.slope) turn(static_cast<T*>(p.slope) + to_saved, p.saved.channel, slope);
      if constexpr (Reducer::saves_taps) {
        if (p.tap_bytes == 1) turn(static_cast<uint8_t*>(p.taps) + to_saved, p.saved.channel, taps);
        if (p.tap_bytes == 4) turn(static_cast<int32_t*>(p.taps) + to_saved, p.saved.channel, taps);
      }
      if constexpr (Reducer::saves_moments)
        for (int which = 0; p.moments && which < 2; ++which)
          turn(static_cast<T*>(p.moments) + which * p.moments_size + to_saved, p.saved.channel, moments + which * turned.moments_size);
    }
  }

  // What every column of the rows of one plane comes to, at `to` and following.
  void fold(const S* plane, const Span& d, const Span& h, int64_t to) const {
    constexpr int most = kSpecialises ? kRegisterBytes / 16 : 1;  // as many tiles as registers hold
    for (int64_t column = seen.begin, left; (left = seen.end - column) > 0;) {
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
    using V = typename Turned::V;
    typename Reducer::template State<V> state[tiles];
    Totals<Reducer, V> totals[tiles];
    int64_t at[tiles], blocks = 0;
    const bool is_long = Reducer::long_sums > 0 && d.count * h.count > 2 * kBlockSum;
    const bool is_longer = is_long && d.count * ceil_div(h.count, kBlockSum) > 2 * kBlockSum;
    unrolled<tiles>([&](auto t) FASTPOOL_STEP {
      state[t].start(Tap<V>(Tap<T>(0)), p);
      if (is_longer) totals[t].start(state[t]);
      at[t] = smaller(column + t * L, seen.end - L);
    });
    for (int64_t i = 0; i < d.count; ++i) {
      const S* from = plane + row_of_input(d, h, i, 0, p.extent[1]) * p.extent[2];
      const int64_t first = row_of_window(d, h, i, 0);
      for (int64_t j = 0; j < h.count;) {
        Block<Reducer, V> block[tiles];
        unrolled<tiles>([&](auto t) FASTPOOL_STEP { block[t].begin(state[t], is_long); });
        for (const int64_t end = is_long ? smaller(h.count, j + kBlockSum) : h.count; j < end; ++j, from += h.step * p.extent[2])
          unrolled<tiles>([&](auto t)
                              FASTPOOL_STEP { state[t].template add<0>(load_stream<T, L>(from + at[t]), Tap<V>(Tap<T>(first + j))); });
        unrolled<tiles>([&](auto t) FASTPOOL_STEP { block[t].end(state[t], is_long); });
        if (is_longer && ++blocks % kBlockSum == 0) unrolled<tiles>([&](auto t) FASTPOOL_STEP { totals[t].take(state[t]); });
      }
    }
    unrolled<tiles>([&](auto t) FASTPOOL_STEP {
      if (is_longer) totals[t].give(state[t]);
      for (int i = 0; i < Reducer::parts; ++i) store(folded[i] + to + at[t] - seen.begin, state[t].part(i));
      if constexpr (Reducer::saves_taps) store(folded_taps + to + at[t] - seen.begin, state[t].tap());
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
      : p(p),
        cells(cells_of(p, arena)),
        whole(!cells && turns_whole(p) ? arena.take<S>(p.positions() * L) : nullptr),
        levels(arena.take<OneLevel>(p.level_count)) {
    for (int32_t l = 0; l < p.level_count; ++l)
      if (p.levels[l].forward == ForwardSchedule::planes) new (levels + count++) OneLevel(p, p.levels[l], seed, whole, cells, arena);
  }

  void run(const Units::Unit& unit) {
    for (int64_t c = unit.c, end = unit.c + unit.channels; c < end; c += L) run_block(unit, c, smaller(L, end - c));
  }

 private:
  const Problem& p;
  const Cells<Reducer, S>* cells;
  S* whole;
  OneLevel* levels;
  int32_t count = 0;

  static const Cells<Reducer, S>* cells_of(const Problem& p, Arena& arena) {
    if (!Cells<Reducer, S>::is_for(p)) return nullptr;
    return new (arena.take<Cells<Reducer, S>>(1)) Cells<Reducer, S>(p, arena);
  }
  static bool turns_whole(const Problem& p) {
    bool turns = false;
    for (int32_t l = 0; l < p.level_count; ++l)
      turns |= p.levels[l].forward == ForwardSchedule::planes && !OneLevel::folds_rows(p.levels[l]);
    return turns && p.positions() <= kSmallPlane;
  }

  void run_block(const Units::Unit& unit, int64_t c, int64_t planes) {
    if constexpr (Reducer::parts == 1)
      if (cells) cells->find(unit.n, c, planes);
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
