// Backward whose lanes are channels: of channels-last input, and of contiguous planes that are transposed.
#pragma once

#include <new>

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// An output that sees the element at hand: where the slots of its first channel are, and the element's tap.
template <class Gradient, class T>
struct Source {
  const SlotArrays<Gradient, T>* slots;
  int64_t at;
  Tap<T> tap;
};

// Rows of outputs of one level, as far as they see some columns, for all channels of a unit.
template <class Gradient, class T>
class LaneTerms {
 public:
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  static FASTPOOL_HD int64_t most_sources(const Grid& grid) { return OutputRows(grid).count() * grid.axis[2].most_covers(); }

  // Lists the outputs that see column i of the row at hand, and returns where the list ends.
  Source<Gradient, T>* list(int64_t i, Source<Gradient, T>* to) const {
    const Axis& w = level.grid.axis[2];
    const Range outs = covers[i - columns.begin];
    for (int64_t r = 0; r < count; ++r)
      for (int64_t o = outs.begin; o < outs.end; ++o) {
        const int64_t tap = w.dense() ? i - w.origin(o) : w.tap_of(o, i);
        if (tap >= 0) *to++ = {&slots, over[r].at + (o - seen.begin) * stride, Tap<T>(over[r].tap * w.taps(o) + tap)};
      }
    return to;
  }
  // Windows of outputs that see column i and those behind it, where neighbours share most and get the same from each.
  static constexpr bool kAlike = kShares<Gradient> && !Gradient::uses_taps;
  bool has_neighbours() const { return kAlike && level.grid.axis[2].stride == 1 && Neighbours<T>::share(level.grid.axis[2]); }
  Neighbours<T> neighbours(int64_t i) const { return Neighbours<T>(seen_from_input(level.grid).axis[2], i); }
  FASTPOOL_HD void add(V (&sums)[Neighbours<T>::count], const Neighbours<T>& windows, int64_t c) const {
    for (int64_t r = 0; r < count; ++r) windows.add(sums, slots.values[0] + over[r].at - seen.begin * stride + c, stride);
  }

 protected:
  OutputRow* over;
  int64_t count;
  const Problem& p;
  const Level& level;
  OutputRows rows;
  int64_t stride, row_size;
  SlotArrays<Gradient, T> slots;
  Columns columns{};
  Range seen{}, *covers;  // outputs that see those, and each of them

  LaneTerms(const Problem& p, const Level& level, int64_t channels, int64_t most_columns, Arena& arena)
      : p(p),
        level(level),
        rows(level.grid),
        stride(round_up(channels, L)),
        row_size(level.grid.axis[2].most_covers(most_columns) * stride),
        slots(arena, rows.count() * row_size),
        covers(arena.take<Range>(most_columns)) {
    over = arena.take<OutputRow>(rows.count());
  }
  void move_to(Columns now) {
    const Axis& w = level.grid.axis[2];
    if (now.begin != columns.begin || now.end != columns.end)
      for (int64_t i = now.begin; i < now.end; ++i) covers[i - now.begin] = w.covers(i);
    columns = now;
    seen = w.covers(now);
    FASTPOOL_ASSERT((seen.end - seen.begin) * stride <= row_size);
  }
};

// The same, prepared as they are needed.
template <class Gradient, class S>
class PreparedLanes : public LaneTerms<Gradient, Accumulated<S>> {
 public:
  using T = Accumulated<S>;
  using Terms = LaneTerms<Gradient, T>;
  using Terms::L, Terms::over, Terms::count, Terms::p, Terms::level, Terms::rows, Terms::stride, Terms::row_size, Terms::slots, Terms::seen;
  using typename Terms::V;

  PreparedLanes(const Problem& p, const Level& level, int64_t most_channels, int64_t most_columns, Arena& arena)
      : Terms(p, level, most_channels, most_columns, arena),
        ids(arena.take<int64_t>(rows.count())),
        divisors(p, level, Gradient::uses_divisor, arena) {}

  void begin(const Units::Unit& now, Columns columns) {
    unit = now;
    Terms::move_to(columns);
    for (int64_t r = 0; r < rows.count(); ++r) ids[r] = -1;
  }

  int64_t row(int64_t d, int64_t h) {
    const int64_t slot = rows.slot(d, h), id = d * level.grid.axis[1].out + h, at = slot * row_size;
    if (ids[slot] != id) prepare(at, {unit.n, unit.c, {d, h, 0}});
    ids[slot] = id;
    return at;
  }

  void move_to(const int64_t i[2]) {
    count = list_rows(level.grid, i, over, [&](int64_t d, int64_t h) { return row(d, h); });
  }

 private:
  Units::Unit unit{};
  int64_t* ids;  // of the row of outputs that each slot has
  Divisors<T> divisors;

  void prepare(int64_t to, Place at) {
    if (Gradient::uses_divisor) divisors.move_to(at.o);
    for (at.o[2] = seen.begin; at.o[2] < seen.end; ++at.o[2]) {
      const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
      Facts<V> facts;
      if constexpr (Gradient::uses_divisor) divisors.give_one(facts, at.o[2]);
      for (int64_t tile = 0; tile < unit.channels; tile += L) {
        const int64_t c = smaller(tile, larger(unit.channels - L, 0)), count = smaller(L, unit.channels - c);
        if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c + c, level.first_bin + bin, true, count);
        slots.set(to + (at.o[2] - seen.begin) * stride + c,
                  prepared<Gradient, S>(p, level, out + c * level.output.channel, level.output.channel, saved + c * p.saved.channel,
                                        p.saved.channel, count, facts),
                  count);
      }
    }
  }
};

// Columns of one row of input gradients, which lie `step` apart: neighbours at a time.
template <class Gradient, class T, class S>
void sum_neighbours(const LaneTerms<Gradient, T>& level, Columns columns, S* gx, int64_t step, int64_t channels, bool streams) {
  constexpr int L = kLanes<T>, together = Neighbours<T>::count;
  for (int64_t i = columns.begin; i < columns.end; i += together) {
    i = smaller(i, columns.end - together);  // the last are computed a second time rather than one by one
    const Neighbours<T> windows = level.neighbours(i);
    for (int64_t tile = 0; tile < channels; tile += L) {
      const int64_t c = smaller(tile, larger(channels - L, 0)), count = smaller(L, channels - c);
      Lanes<T, L> sums[together];
      unrolled<together>([&](auto k) FASTPOOL_STEP { sums[k] = Lanes<T, L>(T(0)); });
      level.add(sums, windows, c);
      Lanes<T, L> results[together];  // what outlives a call lies in memory all along
      unrolled<together>([&](auto k) FASTPOOL_STEP { results[k] = sums[k]; });
      S* const to = gx + (i - columns.begin) * step + c;
      for (int k = 0; k < together; ++k) store_neighbours(to + k * step, results[k], count, streams);
    }
  }
}

// Some columns of one row.
template <class Gradient, class T, class S>
void sum_row(const Problem& p, const LaneTerms<Gradient, T>* const* levels, Source<Gradient, T>* sources, Columns columns, const S* x,
             S* gx, int64_t step, int64_t channels, bool streams) {
  constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  FASTPOOL_ASSERT(channels <= step);
  if constexpr (LaneTerms<Gradient, T>::kAlike)
    if (p.level_count == 1 && levels[0]->has_neighbours() && columns.end - columns.begin >= Neighbours<T>::count)
      return sum_neighbours(*levels[0], columns, gx, step, channels, streams);
  for (int64_t k = 0; k < columns.end - columns.begin; ++k) {
    const Source<Gradient, T>* end = sources;
    for (int32_t l = 0; l < p.level_count; ++l) end = levels[l]->list(columns.begin + k, sources + (end - sources));
    for (int64_t tile = 0; tile < channels; tile += L) {
      const int64_t c = smaller(tile, larger(channels - L, 0)), count = smaller(L, channels - c);
      V here(T(0)), sum(T(0));
      if constexpr (Gradient::uses_input) here = load_apart<T, L>(x + k * step + c, 1, count);
      for (const Source<Gradient, T>* source = sources; source != end; ++source)
        sum = sum + source->slots->term(p, here, Tap<V>(source->tap), source->at + c);
      store_neighbours(gx + k * step + c, sum, count, streams);
    }
  }
}

template <class Gradient, class S>
class LanesBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using Prepared = PreparedLanes<Gradient, S>;

  LanesBackward(const Problem& p, const Units& units, Arena arena)
      : p(p),
        repeated(p, kShares<Gradient> && !Gradient::uses_taps, arena),
        streams(p.lanes_are_channels && !repeated.prevail() && exceeds_caches<S>(p)),
        stride(round_up(units.most_channels(), L)),
        most_columns(columns_of(p, stride)),
        levels(arena.take<Prepared>(p.level_count)),
        terms(arena.take<const LaneTerms<Gradient, T>*>(p.level_count)) {
    int64_t most = 0;
    for (int32_t l = 0; l < p.level_count; ++l) {
      terms[l] = new (levels + l) Prepared(p, p.levels[l], stride, most_columns, arena);
      most += Prepared::most_sources(p.levels[l].grid);
    }
    sources = arena.take<Source<Gradient, T>>(most);
    if (p.lanes_are_channels) return;
    turned = arena.take<S>(rows_at_once() * most_columns * stride);
    turned_x = arena.take<S>(Gradient::uses_input ? rows_at_once() * most_columns * stride : 0);
  }

  // Row by row of the input gradient, for the channels of one unit.
  void run(const Units::Unit& unit) {
    for (int64_t begin = 0; begin < p.extent[2]; begin += most_columns) {
      columns = {begin, smaller(begin + most_columns, p.extent[2])};
      for (int32_t l = 0; l < p.level_count; ++l) levels[l].begin(unit, columns);
      if (!p.lanes_are_channels) {
        run_planes(unit);
        continue;
      }
      for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
        const int64_t element = p.input.at(unit.n, unit.c, row * p.extent[2] + begin);
        run_row(row, row == unit.first_row, input_of<Gradient, S>(p, element), static_cast<S*>(p.gx) + element, p.input.position,
                p.extent[2] * p.input.position, unit.channels);
      }
    }
  }

 private:
  const Problem& p;
  RepeatedRows repeated;
  bool streams;  // gradients that are not read again go past the caches
  int64_t stride, most_columns;
  Prepared* levels;
  const LaneTerms<Gradient, T>** terms;
  Source<Gradient, T>* sources;
  S *turned = nullptr, *turned_x = nullptr;
  Columns columns{};

  // Columns that are computed before those beside them: outputs that see them stay in the second-level cache.
  static int64_t columns_of(const Problem& p, int64_t stride) {
    const int64_t columns = p.lanes_are_channels ? p.extent[2] : smaller(p.extent[2], kSmallPlane);
    return columns_within<Gradient, T>(p, columns, stride, sizeof(Range), 512 << 10);
  }
  // Rows of transposed planes that scratch has at once.
  int64_t rows_at_once() const { return most_columns < p.extent[2] ? 1 : larger(kSmallPlane / p.extent[2], 1); }

  // The columns at hand of one row, at x and gx; its rows lie `line` apart.
  void run_row(int64_t row, bool is_first, const S* x, S* gx, int64_t step, int64_t line, int64_t channels) {
    const int64_t count = columns.end - columns.begin;
    if (!is_first && repeated.holds(row)) {
      const int64_t run = channels == step ? count * step : channels;
      for (int64_t at = 0; at < count * step; at += larger(run, step))
        memcpy(static_cast<void*>(gx + at), gx + at - line, size_t(run) * sizeof(S));
      return;
    }
    const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
    for (int32_t l = 0; l < p.level_count; ++l) levels[l].move_to(i);
    sum_row(p, terms, sources, columns, x, gx, step, channels, streams);
  }

  // The same in scratch, for planes that are transposed on the way.
  void run_planes(const Units::Unit& unit) {
    const int64_t count = columns.end - columns.begin;
    for (int64_t first = unit.first_row; first < unit.last_row; first += rows_at_once()) {
      const int64_t rows = smaller(rows_at_once(), unit.last_row - first), positions = rows * count;
      const int64_t element = p.input.at(unit.n, unit.c, first * p.extent[2] + columns.begin);
      if constexpr (Gradient::uses_input)
        transpose(turned_x, stride, static_cast<const S*>(p.x) + element, p.input.channel, unit.channels, positions);
      for (int64_t r = 0; r < rows; ++r)
        run_row(first + r, r == 0, turned_x + r * count * stride, turned + r * count * stride, stride, count * stride, stride);
      transpose(static_cast<S*>(p.gx) + element, p.input.channel, turned, stride, positions, unit.channels);
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
