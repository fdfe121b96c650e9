// Backward of contiguous input: the gradients of some columns of a row are summed level by level.
#pragma once

#include <new>

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Prepared rows of outputs of one level: outputs first … end - 1, with room for more on both sides.
template <class Gradient, class S>
class PreparedRows {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  PreparedRows(const Problem& p, const Level& level, int64_t room, Arena& arena)
      : p(p),
        level(level),
        rows(level.grid),
        pitch(pitch_of(room)),
        slots(arena, rows.count() * pitch),
        ids(arena.take<int64_t>(rows.count())),
        divisors(p, level, Gradient::uses_divisor, arena) {}

  // From now on element j of a row is output `origin + j`; those outside first … end - 1 do not exist.
  void move_to(int64_t n_, int64_t c_, int64_t origin_, int64_t first_, int64_t end_) {
    if (origin_ != origin || first_ != first || end_ != end) slots.clear(0, rows.count() * pitch);
    n = n_, c = c_, origin = origin_, first = first_, end = end_;
    FASTPOOL_ASSERT(first >= origin && end - origin <= pitch);
    for (int64_t r = 0; r < rows.count(); ++r) ids[r] = -1;
  }

  // Where the slots of element 0 of a row of outputs are.
  int64_t row(int64_t d, int64_t h) {
    const int64_t slot = rows.slot(d, h), id = d * level.grid.axis[1].out + h;
    if (ids[slot] != id) prepare(slot * pitch, {n, c, {d, h, 0}});
    ids[slot] = id;
    return slot * pitch;
  }
  const SlotArrays<Gradient, T>& arrays() const { return slots; }

 private:
  const Problem& p;
  const Level& level;
  OutputRows rows;
  int64_t pitch, n = 0, c = 0, origin = 0, first = 0, end = -1;
  SlotArrays<Gradient, T> slots;
  int64_t* ids;  // of the row of outputs that each slot has
  Divisors<T> divisors;

  static FASTPOOL_HD int64_t pitch_of(int64_t room) { return round_up(room, L) + L; }

  void prepare(int64_t to, const Place& at) {
    using V = Lanes<T, L>;
    if (Gradient::uses_divisor) divisors.move_to(at.o);
    const int64_t bin = level.bin(at.o), out = level.output.at(n, c, bin), saved = p.saved.at(n, c, level.first_bin + bin);
    for (int64_t o = first; o < end; o += L) {
      o = smaller(o, larger(end - L, first));
      const int64_t count = smaller(L, end - o);
      Facts<V> facts;
      if constexpr (Gradient::uses_divisor) divisors.give_halves(facts, o, L / 2);
      if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, n, c, level.first_bin + bin + o, false, count);
      slots.set(to + o - origin, prepared<Gradient, S>(p, level, out + o, 1, saved + o, 1, count, facts), count);
    }
  }
};

// The columns of one tile: its sums stay in the first-level cache, and the prepared outputs of all levels that see it in
// the second-level one.
template <class Gradient, class S>
int64_t columns_of_tile(const Problem& p) {
  return columns_within<Gradient, Accumulated<S>>(p, smaller(p.extent[2], 2048), 1, 0, 256 << 10);
}

// Calls tile(c, columns) for the channels of a unit.
template <class Tile>
void each_tile(const Problem& p, const Units::Unit& unit, int64_t columns, const Tile& tile) {
  for (int64_t c = unit.c; c < unit.c + unit.channels; ++c)
    for (int64_t begin = 0; begin < p.extent[2]; begin += columns) tile(c, Columns{begin, smaller(begin + columns, p.extent[2])});
}

// Sliding windows: lanes are elements a stride apart, so that every tap is seen by neighbouring outputs.
template <class Gradient, class S>
class SlidingBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  SlidingBackward(const Problem& p, const Units&, Arena arena)
      : p(p),
        level(p.levels[0]),
        w(level.grid.axis[2]),
        most_columns(columns_of_tile<Gradient, S>(p)),
        outputs(p, level, most_columns / w.stride + 2 + w.reach(), arena),
        over(arena.take<OutputRow>(OutputRows(level.grid).count())) {}

  void run(const Units::Unit& unit) {
    each_tile(p, unit, most_columns, [&](int64_t c, Columns tile) {
      move_to(unit.n, c, tile);
      for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
        // Whole rows may be followed by junk as far as later rows will replace it.
        const int64_t room = tile.end - tile.begin == p.extent[2] ? (unit.last_row - row) * p.extent[2] : 0;
        run_row(unit.n, c, row, room);
      }
    });
  }

 private:
  const Problem& p;
  const Level& level;
  const Axis& w;
  int64_t most_columns;
  PreparedRows<Gradient, S> outputs;
  OutputRow* over;
  Columns columns{};
  int64_t origin = 0, count = 0;

  void move_to(int64_t n, int64_t c, Columns tile) {
    columns = tile;
    origin = w.last_begun(tile.begin) - w.reach();
    const int64_t first = larger(origin, 0);
    outputs.move_to(n, c, origin, first, larger(w.covers(tile).end, first));
  }

  // The gradients of one row's columns; `room` elements from the first one may be written.
  void run_row(int64_t n, int64_t c, int64_t row, int64_t room) {
    const int64_t i[2] = {row / p.extent[1], row % p.extent[1]}, element = p.input.at(n, c, row * p.extent[2]) + columns.begin;
    count = list_rows(level.grid, i, over, [&](int64_t d, int64_t h) { return outputs.row(d, h); });
    for (int64_t r = 0; r < count; ++r) over[r].tap *= w.kernel;  // the first tap of the row
    const S* x = input_of<Gradient, S>(p, element);
    S* to = static_cast<S*>(p.gx) + element;
    if constexpr (kSpecialises) {
      if (w.stride == 1 && w.dilation == 1) return blocks<1>(x, to, room);
      if (w.stride == 2 && w.dilation == 1) return blocks<2>(x, to, room);
    }
    blocks<0>(x, to, room);
  }

  // The gradients of L elements a stride apart, the first at `position` of the padded row. Taps run from the last to
  // the first, so that terms arrive in the order of the outputs.
  template <int fixed_stride>
  FASTPOOL_HD V sum(V x, int64_t position) const {
    const int64_t stride = fixed_stride ? fixed_stride : w.stride, f = position % stride, q = position / stride - origin;
    V total(T(0));
    if (fixed_stride || w.dilation == 1) {
      const int64_t steps = f < w.kernel ? (w.kernel - 1 - f) / stride : -1;
      for (int64_t r = 0; r < count; ++r)
        for (int64_t step = steps; step >= 0; --step)
          total = total + outputs.arrays().term(p, x, Tap<V>(Tap<T>(over[r].tap + f + step * stride)), over[r].at + q - step);
    } else {
      for (int64_t r = 0; r < count; ++r)
        for (int64_t k = w.kernel - 1; k >= 0; --k)
          if (k * w.dilation % stride == f)
            total = total + outputs.arrays().term(p, x, Tap<V>(Tap<T>(over[r].tap + k)), over[r].at + q - k * w.dilation / stride);
    }
    return total;
  }

  template <int fixed_stride>
  void blocks(const S* x, S* to, int64_t room) const {
    FASTPOOL_ASSERT(room == 0 || room >= columns.end - columns.begin);
    const int64_t stride = fixed_stride ? fixed_stride : w.stride, width = L * stride, length = columns.end - columns.begin;
    for (int64_t done = 0; done < length; done += width) {
      // The last block is computed a second time rather than left empty.
      done = smaller(done, larger(length - width, 0));
      const int64_t position = columns.begin + w.before + done, left = length - done;
      if constexpr (fixed_stride > 0) {
        V part[fixed_stride];
        const int64_t count = room - done >= width ? width : left;
        if constexpr (Gradient::uses_input) load_phases(x + done, part, count);
        unrolled<fixed_stride>([&](auto a)
                                   FASTPOOL_STEP { part[a] = sum<fixed_stride>(Gradient::uses_input ? part[a] : V(T(0)), position + a); });
        store_phases(to + done, part, count);
      } else {
        for (int64_t a = 0; a < smaller(stride, left); ++a) {
          const int64_t lanes = smaller(L, ceil_div(left - a, stride));
          V here(T(0));
          if constexpr (Gradient::uses_input) here = load_apart<T, L>(x + done + a, stride, lanes);
          store_part(to + done + a, stride, sum<0>(here, position + a), lanes);
        }
      }
    }
  }
};

// Bins and wide windows: one output at a time, lanes are the elements of the row that it sees.
template <class Gradient, class S>
class WideBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  WideBackward(const Problem& p, const Level& level, int64_t most_columns, Arena& arena)
      : p(p),
        level(level),
        outputs(p, level, level.grid.axis[2].most_covers(most_columns), arena),
        spans(arena.take<Span>(level.grid.axis[2].most_covers(most_columns))),
        over(arena.take<OutputRow>(OutputRows(level.grid).count())) {}

  void move_to(int64_t n, int64_t c, Columns tile) {
    columns = tile;
    const Range outs = level.grid.axis[2].covers(tile);
    for (int64_t o = outs.begin; (outs.begin != seen.begin || outs.end != seen.end) && o < outs.end; ++o)
      spans[o - outs.begin] = level.grid.axis[2].window(o);
    seen = outs;
    FASTPOOL_ASSERT(tile.end - tile.begin > 0 && seen.end - seen.begin <= level.grid.axis[2].most_covers(tile.end - tile.begin));
    outputs.move_to(n, c, seen.begin, seen.begin, seen.end);
  }

  // Turns to row i.
  void find_outputs(const int64_t i[2]) {
    count = list_rows(level.grid, i, over, [&](int64_t d, int64_t h) { return outputs.row(d, h); });
  }

  // Adds to the sums of its columns; L more than those may be touched. Where elements share, all get their share.
  void run(int64_t n, int64_t c, const int64_t i[2], T* sums) const {
    const SlotArrays<Gradient, T>& slots = outputs.arrays();
    const S* x = input_of<Gradient, S>(p, p.input.at(n, c, (i[0] * p.extent[1] + i[1]) * p.extent[2]));
    const S* last = input_of<Gradient, S>(p, p.samples * p.channels * p.positions() - L);  // where all lanes may read
    for (int64_t r = 0; r < count; ++r)
      for (int64_t out = 0; out < seen.end - seen.begin; ++out) {
        const Span& span = spans[out];
        const int64_t begin = larger(span.start, columns.begin), end = smaller(span.start + span.count, columns.end);
        const Prepared<V> output = slots.spread(over[r].at + out);
        const Tap<T> here = Tap<T>(over[r].tap * span.size + span.first - span.start);
        for (int64_t j = begin; j < end; j += L) {
          V term;
          if constexpr (kShares<Gradient>) {
            term = Gradient::share(output.slot);
          } else {
            V element(T(0));
            if constexpr (Gradient::uses_input) element = x + j <= last ? load<T, L>(x + j) : load_part<T, L>(x + j, end - j);
            term = Gradient::term(element, Tap<V>::iota(Tap<T>(j)) + Tap<V>(here), output.slot, output.tap, p);
          }
          T* sum = sums + j - columns.begin;
          const Mask<V> inside = Tap<V>::iota() < Tap<V>(Tap<T>(smaller(end - j, L)));
          store(sum, load<T, L>(sum) + select(inside, term, V(T(0))));
        }
      }
  }

  // Calls again(row, j) for the columns that outputs selected in the row at hand or the next ones, `rows` in all.
  template <class Again>
  void each_selected(int64_t rows, const Again& again) const {
    for (int64_t r = 0; r < count; ++r)
      for (int64_t out = 0; out < seen.end - seen.begin; ++out) {
        const Span& span = spans[out];
        const int64_t tap = int64_t(outputs.arrays().taps[over[r].at + out]) - over[r].tap * span.size;
        if (tap < 0 || tap >= rows * span.size) continue;
        const int64_t row = uint32_t(tap) / uint32_t(span.size), j = span.start + tap - row * span.size - span.first;
        if (j >= larger(span.start, columns.begin) && j < smaller(span.start + span.count, columns.end)) again(row, j);
      }
  }
  // Adds the terms of column j of one of those rows to a sum.
  T add_terms(int64_t row, int64_t j, T sum) const {
    const Range outs = level.grid.axis[2].covers(j);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t out = outs.begin - seen.begin; out < outs.end - seen.begin; ++out) {
        const Span& span = spans[out];
        sum = sum + outputs.arrays().one_term(p, Tap<T>((over[r].tap + row) * span.size + span.first + j - span.start), over[r].at + out);
      }
    return sum;
  }

 private:
  const Problem& p;
  const Level& level;
  PreparedRows<Gradient, S> outputs;
  Columns columns{};
  Range seen{};  // outputs of a row that see those
  Span* spans;   // of their windows
  // Rows of outputs that see the row at hand.
  OutputRow* over;
  int64_t count = 0;
};

// All levels add to the sums of one row after another.
template <class Gradient, class S>
class LevelsBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  LevelsBackward(const Problem& p, const Units&, Arena arena)
      : p(p),
        repeated(p, kShares<Gradient>, arena),
        most_columns(columns_of_tile<Gradient, S>(p)),
        sums(arena.take<T>(most_columns + L)),
        levels(arena.take<Wide>(p.level_count)) {
    for (int32_t l = 0; l < p.level_count; ++l) new (levels + l) Wide(p, p.levels[l], most_columns, arena);
  }

  void run(const Units::Unit& unit) {
    each_tile(p, unit, most_columns, [&](int64_t c, Columns tile) {
      const int64_t count = tile.end - tile.begin;
      for (int32_t l = 0; l < p.level_count; ++l) levels[l].move_to(unit.n, c, tile);
      for (int64_t row = unit.first_row, rows; row < unit.last_row; row += rows) {
        const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
        S* to = static_cast<S*>(p.gx) + p.input.at(unit.n, c, row * p.extent[2]) + tile.begin;
        fill_run(sums, T(0), count + L);
        for (int32_t l = 0; l < p.level_count; ++l) {
          levels[l].find_outputs(i);
          levels[l].run(unit.n, c, i, sums);
        }
        for (rows = 0; rows == 0 || (row + rows < unit.last_row && repeated.holds(row + rows)); ++rows)
          for (int64_t j = 0; j < count; j += L) store_part(to + rows * p.extent[2] + j, 1, load<T, L>(sums + j), smaller(L, count - j));
        if constexpr (kShares<Gradient> && Gradient::uses_taps)
          for (int32_t l = 0; l < p.level_count; ++l)
            levels[l].each_selected(rows, [&](int64_t r, int64_t j) {
              T sum(0);
              for (int32_t m = 0; m < p.level_count; ++m) sum = levels[m].add_terms(r, j, sum);
              to[r * p.extent[2] + j - tile.begin] = Narrow<S>::from(sum);
            });
      }
    });
  }

 private:
  using Wide = WideBackward<Gradient, S>;
  const Problem& p;
  RepeatedRows repeated;
  int64_t most_columns;
  T* sums;
  Wide* levels;
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
