// Backward of windows that do not overlap: an element hears from one output at most, which is read where it lies.
#pragma once

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Channels-last input.
template <class Gradient, class S>
class DisjointLanes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  DisjointLanes(const Problem& p, const Units& units, Arena arena)
      : p(p),
        level(p.levels[0]),
        divisors(p, level, Gradient::uses_divisor, arena),
        slots(arena, units.most_channels() + L),
        streams(exceeds_caches<S>(p)) {}

  void run(const Units::Unit& unit) {
    const Axis* axis = level.grid.axis;
    for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
      const int64_t i[2] = {row / p.extent[1], row % p.extent[1]}, first = p.input.at(unit.n, unit.c, row * p.extent[2]);
      const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
      int64_t done = 0;
      if (d.begin < d.end && h.begin < h.end) {
        const int64_t tap_d = axis[0].tap_of(d.begin, i[0]), tap_h = axis[1].tap_of(h.begin, i[1]);
        if (tap_d >= 0 && tap_h >= 0)
          done = run_row(unit, {unit.n, unit.c, {d.begin, h.begin, 0}}, tap_d * axis[1].taps(h.begin) + tap_h, first);
      }
      clear_columns<S>(p, first + done * p.input.position, p.extent[2] - done, unit.channels);
    }
  }

 private:
  using Slots = SlotArrays<Gradient, T>;
  const Problem& p;
  const Level& level;
  Divisors<T> divisors;
  Slots slots;  // of one window
  bool streams;

  // The columns of one row, the first at element `first`, which is row `row_tap` of its windows; returns how many it wrote.
  int64_t run_row(const Units::Unit& unit, Place at, int64_t row_tap, int64_t first) {
    const Axis& w = level.grid.axis[2];
    if constexpr (Gradient::uses_divisor) divisors.move_to(at.o);
    const int64_t first_bin = level.bin(at.o);
    int64_t done = 0;
    for (int64_t o = 0; o < w.out; ++o) {
      const Span span = w.window(o);
      FASTPOOL_ASSERT(span.start >= done && span.step == 1);
      clear_columns<S>(p, first + done * p.input.position, span.start - done, unit.channels);
      Facts<V> facts;
      if constexpr (Gradient::uses_divisor) divisors.give_one(facts, o);
      const int64_t tap = row_tap * span.size + span.first, from = first + span.start * p.input.position;
      if (unit.channels >= L)
        run_window<true>(unit.channels, at, first_bin + o, tap, from, span.count, facts);
      else
        run_window<false>(unit.channels, at, first_bin + o, tap, from, span.count, facts);
      done = span.start + span.count;
    }
    return done;
  }

  // All channels, L or more of them or fewer, of the elements of one row of a window: `count` from `first` on, which is
  // element `tap`.
  template <bool whole>
  void run_window(int64_t channels, const Place& at, int64_t bin, int64_t tap, int64_t first, int64_t count, Facts<V>& facts) const {
    const int64_t out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, bin), lanes = whole ? L : channels;
    for (int64_t tile = 0; tile < channels; tile += L) {
      const int64_t c = whole ? smaller(tile, channels - L) : 0;
      if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c + c, bin, true, lanes);
      slots.set(c, prepared<Gradient, S>(p, level, out + c, 1, saved + c, 1, lanes, facts), lanes);
    }
    const V zero(T(0));
    for (int64_t end = tap + count; tap < end; ++tap, first += p.input.position) {
      const S* x = input_of<Gradient, S>(p, first);
      S* gx = static_cast<S*>(p.gx) + first;
      for (int64_t tile = 0; tile < channels; tile += L) {
        const int64_t c = whole ? smaller(tile, channels - L) : 0;
        V here = zero;
        if constexpr (Gradient::uses_input) here = load_apart<T, L>(x + c, 1, lanes);
        const V sum = zero + slots.term(p, here, Tap<V>(Tap<T>(tap)), c);
        store_neighbours(gx + c, sum, lanes, streams);
      }
    }
  }
};

// Contiguous input: lanes are neighbouring outputs of a row, whose elements lie a stride apart.
template <class Gradient, class S>
class DisjointRows {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  DisjointRows(const Problem& p, const Units&, Arena arena)
      : p(p),
        level(p.levels[0]),
        w(level.grid.axis[2]),
        results(p.samples * p.channels * p.bins),
        divisors(p, level, Gradient::uses_divisor, arena) {
    const bool fits = has_squares(level) && 2 * w.out == p.extent[2] && !p.parameter_view.position;
    held_rows = fits ? rows_at_once<L>(w.out) : 0;
  }

  void run(const Units::Unit& unit) {
    for (int64_t c = unit.c; c < unit.c + unit.channels; ++c)
      if (w.stride == 2)
        run_plane<2>(unit, c);
      else
        run_plane<4>(unit, c);
  }

 private:
  const Problem& p;
  const Level& level;
  const Axis& w;
  int64_t results;
  Divisors<T> divisors;
  int held_rows;  // rows of outputs that run_squares takes at once, or 0

  template <int stride>
  void run_plane(const Units::Unit& unit, int64_t c) {
    const Axis &depth = level.grid.axis[0], &height = level.grid.axis[1];
    int64_t i = unit.first_row / p.extent[1], j = unit.first_row % p.extent[1];
    for (int64_t row = unit.first_row, count; row < unit.last_row; row += count) {
      // Rows that the same outputs see, or one that none does.
      const Range d = depth.covers(i), h = height.covers(j);
      const int64_t tap_d = d.begin < d.end ? depth.tap_of(d.begin, i) : -1, tap_h = h.begin < h.end ? height.tap_of(h.begin, j) : -1;
      S* gx = static_cast<S*>(p.gx) + p.input.at(unit.n, c, row * p.extent[2]);
      count = 1;
      if (tap_d < 0 || tap_h < 0) {
        memset(static_cast<void*>(gx), 0, size_t(p.extent[2]) * sizeof(S));
      } else {
        const Place at{unit.n, c, {d.begin, h.begin, 0}};
        const int64_t left = unit.last_row - row;
        const int64_t done = held_rows == 0 || tap_h > 0 ? 0
                             : held_rows == 4            ? run_squares<4>(at, row, left)
                             : held_rows == 2            ? run_squares<2>(at, row, left)
                                                         : run_squares<1>(at, row, left);
        if (done == 0 && height.dilation == 1) count = smaller(smaller(height.kernel - tap_h, p.extent[1] - j), left);
        if (done == 0) run_rows<stride>(at, tap_d * height.kernel + tap_h, row, count, left * p.extent[2]);
        if (done > 0) count = done;
      }
      j += count;
      if (j == p.extent[1]) j = 0, ++i;
    }
  }

  // Up to `most` rows of the input from `row` on, below rows of 2x2 windows of which the lanes hold `lines`, or a part of one.
  // Nothing is read beyond the outputs or written beyond those rows. Returns how many there were.
  template <int lines>
  int64_t run_squares(const Place& at, int64_t row, int64_t most) {
    constexpr int part = L / lines;
    const int64_t width = p.extent[2], bin = level.bin(at.o), reach = larger(w.out, part);
    int64_t out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, bin), element = p.input.at(at.n, at.c, row * width);
    // Outputs reach as far among theirs as elements do, two rows of which belong to each of theirs.
    const int64_t seen = smaller(most, 2 * (level.grid.axis[1].out - at.o[1]));
    const int64_t count = (seen * width - 2 * reach + width) / width / 2 / lines * lines;
    if (count <= 0) return 0;
    Facts<V> facts;
    if constexpr (Gradient::uses_divisor) divisors.move_to(at.o), divisors.give_halves(facts, 0, 0);
    if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c, bin, false, L);
    for (int64_t done = 0; done < count; done += lines, out += lines * w.out, saved += lines * w.out, element += lines * 2 * width) {
      // The last lanes of a row are computed a second time rather than left empty.
      for (int64_t lane0 = 0;; lane0 = smaller(lane0 + L, w.out - L)) {
        run_square_tile<lines>(out + lane0, saved + lane0, element + 2 * lane0, facts);
        if (lane0 + L >= w.out) break;
      }
    }
    return 2 * count;
  }
  // What is behind a row is replaced by the next one: they are stored in the order in which they lie.
  template <int lines>
  FASTPOOL_HD void run_square_tile(int64_t out, int64_t saved, int64_t element, const Facts<V>& facts) const {
    const int64_t width = p.extent[2];
    const Prepared<V> output = prepared_by<Gradient, S>(p, level, out, saved, facts, [&](auto type, const auto* from, bool) FASTPOOL_STEP {
      return load_rows<lines, decltype(type), L>(from, w.out);
    });
    V upper[2], lower[2];
    if constexpr (Gradient::uses_input) {
      const S* x = static_cast<const S*>(p.x) + element;
      load_rows_of_pairs<lines>(x, 2 * width, upper[0], upper[1]);
      load_rows_of_pairs<lines>(x + width, 2 * width, lower[0], lower[1]);
    }
    unrolled<4>([&](auto k) FASTPOOL_STEP {
      V& term = k < 2 ? upper[k % 2] : lower[k % 2];
      term = V(T(0)) + Gradient::term(Gradient::uses_input ? term : V(T(0)), Tap<V>(Tap<T>(k)), output.slot, output.tap, p);
    });
    join_phases(upper);
    join_phases(lower);
    S* gx = static_cast<S*>(p.gx) + element;
    const auto store_next = [&](const auto&... of_row) FASTPOOL_STEP {
      S* to = gx;
      ((store(to, of_row), to += sizeof(of_row) / sizeof(T)), ...);
      gx += width;
    };
    if constexpr (lines == 1) {
      store_next(upper[0], upper[1]);
      store_next(lower[0], lower[1]);
    } else {
      unrolled<2>([&](auto half) FASTPOOL_STEP {
        if constexpr (lines == 2) {
          store_next(upper[half]);
          store_next(lower[half]);
        } else {
          store_next(upper[half].lo);
          store_next(lower[half].lo);
          store_next(upper[half].hi);
          store_next(lower[half].hi);
        }
      });
    }
  }

  // `count` rows of the input from `row` on, the first of which is row `row_tap` of the windows. Each may be followed by
  // junk, which those after it replace: `room` elements from the first one may be written.
  template <int stride>
  void run_rows(const Place& at, int64_t row_tap, int64_t row, int64_t count, int64_t room) {
    FASTPOOL_ASSERT(count * p.extent[2] <= room);
    if constexpr (Gradient::uses_divisor) divisors.move_to(at.o);
    const int64_t bin = level.bin(at.o), width = p.extent[2];
    const Start rows{row_tap, p.input.at(at.n, at.c, row * width), level.output.at(at.n, at.c, bin), p.saved.at(at.n, at.c, bin)};
    const bool whole = w.out >= L && w.out * stride <= width, alone = w.out <= L;
    for (int64_t done = 0; done < w.out; done += L) {
      // The last lanes of a row are computed a second time rather than left empty.
      done = smaller(done, larger(w.out - L, 0));
      if (whole) {  // little besides loads and stores happens here
        const Prepared<V> output = outputs_at(at, rows, done, L);
        for (int64_t j = 0; j < count; ++j) run_tile<stride>(rows, j, done * stride, output, L * stride);
        continue;
      }
      const Prepared<V> output = outputs_at(at, rows, done, smaller(L, w.out - done));
      for (int64_t j = 0; j < count; ++j) {
        const int64_t left = width - done * stride, existing = alone ? room - j * width : left;
        run_tile<stride>(rows, j, done * stride, output, existing >= L * stride ? L * stride : larger(left, 0));
      }
    }
    // Columns that no window sees.
    const int64_t seen = smaller(w.out * stride, width);
    for (int64_t j = 0; j < count && seen < width; ++j)
      memset(static_cast<void*>(static_cast<S*>(p.gx) + rows.first + j * width + seen), 0, size_t(width - seen) * sizeof(S));
  }

  // Where some rows begin: in their windows, among the elements, and in the rows of outputs that they share.
  struct Start {
    int64_t row_tap, first, out, saved;
  };

  FASTPOOL_HD Prepared<V> outputs_at(const Place& at, const Start& rows, int64_t done, int64_t count) const {
    Facts<V> facts;
    if constexpr (Gradient::uses_divisor) divisors.give_halves(facts, done, L / 2);
    if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c, level.bin(at.o) + done, false, count);
    const int64_t saved = rows.saved + done;
    return prepared<Gradient, S>(p, level, rows.out + done, 1, saved, 1, saved + L <= results ? L : count, facts);
  }

  // Row `j` of a tile's elements, the first in column `begin`; `existing` of them are there.
  template <int stride>
  FASTPOOL_HD void run_tile(const Start& rows, int64_t j, int64_t begin, const Prepared<V>& output, int64_t existing) const {
    const int64_t element = rows.first + j * p.extent[2] + begin;
    V part[stride];
    if constexpr (Gradient::uses_input) load_phases(static_cast<const S*>(p.x) + element, part, existing);
    unrolled<stride>([&](auto k) FASTPOOL_STEP {
      const V here = Gradient::uses_input ? part[k] : V(T(0));
      const Tap<V> tap(Tap<T>((rows.row_tap + j) * w.kernel + k));
      part[k] = k < w.kernel ? V(T(0)) + Gradient::term(here, tap, output.slot, output.tap, p) : V(T(0));
    });
    store_phases(static_cast<S*>(p.gx) + element, part, existing);
  }
};

// Contiguous planes with one window each, which leaves nothing out.
template <class Gradient, class S>
class WholePlanes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  WholePlanes(const Problem& p, const Units&, Arena arena)
      : p(p), level(p.levels[0]), slots(arena, L), divisors(p, level, Gradient::uses_divisor, arena) {}

  void run(const Units::Unit& unit) {
    const Place first{0, 0, {0, 0, 0}};
    Facts<V> facts;
    if constexpr (Gradient::uses_divisor) divisors.move_to(first.o);
    if constexpr (Gradient::uses_divisor) divisors.give_one(facts, 0);
    for (int64_t c = unit.c; c < unit.c + unit.channels; c += L) {
      const int64_t count = smaller(L, unit.c + unit.channels - c);
      if constexpr (Gradient::uses_parameter) facts.parameter = parameter_lanes<T>(p, unit.n, c, 0, true, count);
      slots.set(0,
                prepared<Gradient, S>(p, level, level.output.at(unit.n, c, 0), level.output.channel, p.saved.at(unit.n, c, 0),
                                      p.saved.channel, count, facts),
                count);
      for (int64_t k = 0; k < count; ++k) run_plane(p.input.at(unit.n, c + k, 0), k, (count - k) * p.positions());
    }
  }

 private:
  using Slots = SlotArrays<Gradient, T>;
  const Problem& p;
  const Level& level;
  Slots slots;
  Divisors<T> divisors;

  // `room` elements from the first one may be written.
  void run_plane(int64_t first, int64_t slot, int64_t room) const {
    FASTPOOL_ASSERT(p.positions() <= room);
    const V zero(T(0));
    const Prepared<V> output = slots.spread(slot);
    const Span d = level.grid.axis[0].window(0), h = level.grid.axis[1].window(0), span = level.grid.axis[2].window(0);
    const int64_t first_tap = tap_of_row(d, h, span);
    const S* x = input_of<Gradient, S>(p, first);
    S* gx = static_cast<S*>(p.gx) + first;
    for (int64_t k = 0; k < span.count; k += L) {
      const int64_t count = smaller(L, span.count - k);
      V here = zero;
      if constexpr (Gradient::uses_input) here = load_apart<T, L>(x + k, 1, room - k >= L ? L : count);
      store_part(gx + k, 1, zero + Gradient::term(here, Tap<V>::iota(Tap<T>(first_tap + k)), output.slot, output.tap, p),
                 room - k >= L ? L : count);
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
