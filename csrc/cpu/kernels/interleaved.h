// Schedules of channels-last input with fewer channels than lanes, and of windows that slide: lanes are the channels of
// neighbouring positions, which lie side by side. What they read lies a stride apart and is picked out of plain loads.
#pragma once

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// A row of positions and their channels, in steps of L lanes: those of as many whole positions as fit, or of a part of one.
template <int L>
class Steps {
 public:
  int64_t position = 0, first = 0;  // of the step at hand

  FASTPOOL_HD Steps(int64_t channels, int64_t positions)
      : channels(channels), at_once(channels < L ? L / channels : 1), advance(at_once * channels), size(positions * channels) {}
  FASTPOOL_HD int64_t total() const { return advance > L ? size / advance * ceil_div(channels, L) : ceil_div(size, advance); }
  FASTPOOL_HD bool any() const { return first < size; }
  FASTPOOL_HD int64_t count() const { return smaller(smaller(advance, L), size - first); }
  FASTPOOL_HD void next() {
    const int64_t end = (position + at_once) * channels;
    if (first + L < end && advance > L) {
      first = smaller(first + L, end - L);
    } else {
      position += at_once;
      first = end;
    }
  }

 private:
  int64_t channels, at_once, advance, size;
};

// The facts of a row of outputs, as those lie.
template <class T>
class FlatFacts {
 public:
  FlatFacts(const Problem& p, const Level& level, bool used_divisor, bool used_parameter, Arena& arena)
      : p(p), level(level), size(level.grid.axis[2].out * p.channels) {
    if (used_divisor) columns = arena.take<T>(size + kLanes<T>);
    if (used_parameter && p.parameter) parameters = arena.take<T>(size + kLanes<T>);
    const Axis& w = level.grid.axis[2];
    for (int64_t o = 0; columns && o < w.out; ++o)
      fill_run(columns + o * p.channels, p.divisor_override ? T(p.divisor_override) : T(w.divisor(o, p.include_pad)), p.channels);
    if (columns) fill_run(columns + size, T(1), kLanes<T>);
  }
  void move_to(const Place& at) {
    const Axis* axis = level.grid.axis;
    if (columns && !p.divisor_override) rows = T(axis[0].divisor(at.o[0], p.include_pad) * axis[1].divisor(at.o[1], p.include_pad));
    if (!parameters) return;
    const T* from = static_cast<const T*>(p.parameter) + p.parameter_view.at(at.n, at.c, level.first_bin + level.bin(at.o));
    for (int64_t i = 0, o = 0; o < axis[2].out; ++o)
      for (int64_t c = 0; c < p.channels; ++c, ++i) parameters[i] = from[o * p.parameter_view.position + c * p.parameter_view.channel];
  }
  template <int L>
  FASTPOOL_HD void give(Facts<Lanes<T, L>>& facts, int64_t first) const {
    if (columns) facts.divisor = load<T, L>(columns + first) * Lanes<T, L>(rows);
    facts.parameter = parameters ? load<T, L>(parameters + first) : Lanes<T, L>(T(p.parameter_value));
  }

 private:
  const Problem& p;
  const Level& level;
  int64_t size;
  T *columns = nullptr, *parameters = nullptr, rows = T(1);
};

template <class Reducer, class S>
class Interleaved {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T> / 2;  // one register, which begins with a position
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  Interleaved(const Problem& p, const Level& level, uint64_t seed, Arena arena)
      : p(p),
        level(level),
        w(level.grid.axis[2]),
        seed(seed),
        length(((w.out - 1) * w.stride + w.extent()) * p.channels + w.stride * L),
        at_once(p.channels < L ? L / p.channels : 1),
        whole(w.whole()),
        plain(w.stride == 1 || at_once == 1),
        stacks(Reducer::is_sum && Stack::pays(level.grid)),
        rows(arena.take<const S*>(most_rows())),
        taps(arena.take<int64_t>(most_rows())),
        copies(arena.take<S>(most_rows() * length)),
        word_step(round_up(p.channels, kBlocks)),
        drawn(arena.take<T>(Reducer::uses_uniform ? w.out * p.channels + kLanes<T> : 0)),
        drawn_some(arena.take<T>(Reducer::uses_uniform ? larger(w.out, 4 * word_step) + 4 * kBlocks : 0)),
        facts_of_row(p, level, Reducer::uses_divisor, Reducer::uses_parameter, arena) {
    Tap<T> place[kMostStride][L], columns[L];
    for (int64_t i = 0; i < L; ++i) {
      const int64_t position = i / p.channels, element = position * w.stride * p.channels + i % p.channels;
      columns[i] = Tap<T>(position * w.stride);
      // Of registers side by side, the one that has the element is picked from; what is there already stays.
      for (int64_t r = 1; r < kMostStride; ++r)
        place[r - 1][i] = Tap<T>(r == 1 ? smaller(element, 2 * L - 1) : element / L == r ? L + element % L : i);
    }
    column = load<Tap<T>, L>(columns);
    for (int r = 0; r + 1 < kMostStride; ++r) picks[r] = load<Tap<T>, L>(place[r]);
  }

  // Rows of bins begin … end - 1 of a sample.
  void run(const Units::Unit& unit, int64_t begin, int64_t end) {
    FASTPOOL_ASSERT(unit.channels == p.channels && w.stride <= kMostStride);
    const int64_t height = level.grid.axis[1].out;
    for (int64_t row = begin; row < end; ++row) {
      const Place at{unit.n, 0, {row / height, row % height, 0}};
      if constexpr (Reducer::is_sum)
        if (stacks && row + Stack::count <= end && at.o[1] + Stack::count <= height) {
          const Stack stack(level.grid.axis[1], at.o[1]);
          find_rows(at.n, level.grid.axis[0].window(at.o[0]), stack.rows);
          const int64_t room = (end - row) * w.out * p.channels;
          plain ? run_stack<1>(at, room, stack) : run_stack<2>(at, room, stack);
          row += Stack::count - 1;
          continue;
        }
      find_rows(at.n, level.grid.axis[0].window(at.o[0]), level.grid.axis[1].window(at.o[1]));
      facts_of_row.move_to(at);
      if constexpr (Reducer::uses_uniform) draw(at);
      run_row(at, (end - row) * w.out * p.channels);
    }
  }

 private:
  static constexpr int kMostStride = kMostInterleavedStride;
  const Problem& p;
  const Level& level;
  const Axis& w;
  uint64_t seed;
  int64_t length;   // elements of a row that are read, used or not
  int64_t at_once;  // positions of one step
  Range whole;      // outputs whose windows lose nothing to the padding
  bool plain;       // what neighbours read lies side by side
  bool stacks;      // rows of outputs are computed several at a time
  // For each row of a window: what the first lane reads first, be it padding, and that element's tap.
  const S** rows;
  int64_t *taps, row_count = 0;
  S* copies;
  int64_t word_step;
  T *drawn, *drawn_some;
  FlatFacts<T> facts_of_row;
  Tap<V> column, picks[kMostStride - 1];

  int64_t most_rows() const {
    const Axis& h = level.grid.axis[1];
    return level.grid.axis[0].kernel * (stacks ? Stack::most_rows(h) : h.kernel);
  }

  // Rows at either end of the tensor, beyond which lanes would read, are copied.
  void find_rows(int64_t n, const Span& d, const Span& h) {
    const S* x = static_cast<const S*>(p.x);
    const int64_t plane = p.input.at(n, 0, 0), size = p.samples * p.channels * p.positions(), line = p.extent[2] * p.channels;
    const int64_t before = w.before * p.channels, count = smaller(length - before, line);
    row_count = 0;
    for (int64_t i = 0; i < d.count; ++i)
      for (int64_t j = 0; j < h.count; ++j) {
        const int64_t first = plane + row_of_input(d, h, i, j, p.extent[1]) * line;
        taps[row_count] = row_of_window(d, h, i, j) * w.kernel;
        rows[row_count] = x + (first - before);
        if (first < before || first - before + length > size) {
          S* copy = copies + row_count * length;
          memcpy(static_cast<void*>(copy + before), x + first, size_t(count) * sizeof(S));
          rows[row_count] = copy;
        }
        ++row_count;
      }
  }
  // Of each channel a row of uniforms, or where lanes of channels would be half full a few outputs of all of them.
  void draw(const Place& at) {
    const int64_t first = level.first_bin + level.bin(at.o);
    int64_t block = -1;
    for (int64_t o = 0; p.channels >= kBlocks / 2 && o < w.out; ++o) {
      const int64_t bin = first + o;
      if (bin / 4 != block) draw_channels(p, seed, at.n, 0, block = bin / 4, p.channels, word_step, drawn_some);
      store(drawn + o * p.channels, load<T, kLanes<T>>(drawn_some + bin % 4 * word_step));
    }
    for (int64_t c = 0; p.channels < kBlocks / 2 && c < p.channels; ++c) {
      draw_row(p, seed, at.n, c, first, w.out, drawn_some);
      for (int64_t o = 0; o < w.out; ++o) drawn[o * p.channels + c] = drawn_some[o];
    }
  }

  // One step of a row of outputs, the first of whose lanes reads from column `origin` on.
  template <int stride>
  struct Step {
    const Interleaved& self;
    int64_t offset, origin;
    bool clipped;  // some lane reads beside the input
    const Facts<V>& facts;
    State& state;

    FASTPOOL_HD V load_lanes(const S* from) const {
      V x = load<T, L>(from);
      if constexpr (stride == 2) return V::picked(x, load<T, L>(from + L), self.picks[0]);
      for (int64_t r = 1; stride == 0 && r < self.w.stride; ++r) x = V::picked(x, load<T, L>(from + r * L), self.picks[r - 1]);
      return x;
    }
    FASTPOOL_HD Mask<V> inside(int64_t first) const {
      const auto edge = [&](int64_t at) FASTPOOL_STEP { return Tap<V>(Tap<T>(smaller(larger(at - first, 0), L * kMostStride))); };
      return (self.column >= edge(0)) & (self.column < edge(self.w.in));
    }
    // Adds a row to sums that see it.
    template <int begin, int end>
    FASTPOOL_HD void add(const S* row, V (&sums)[Stack::count]) const {
      const int64_t step = self.w.dilation * self.p.channels;
      const S* from = row + offset;
      for (int64_t k = 0; k < self.w.kernel; ++k, from += step) {
        V x = load_lanes(from);
        if (clipped) x = select(inside(origin + k * self.w.dilation), x, V(T(0)));
        unrolled<end - begin>([&](auto line) FASTPOOL_STEP { sums[begin + line] = sums[begin + line] + x; });
      }
    }
    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0) state.template begin<pass>(facts, self.p);
      const int64_t step = self.w.dilation * self.p.channels;
      for (int64_t r = 0; r < self.row_count; ++r) {
        const S* from = self.rows[r] + offset;
        for (int64_t k = 0; k < self.w.kernel; ++k, from += step)
          add_masked<Reducer, pass>(state, load_lanes(from), Tap<V>(Tap<T>(self.taps[r] + k)), !clipped,
                                    [&]() FASTPOOL_STEP { return inside(origin + k * self.w.dilation); });
      }
    }
  };

  FASTPOOL_HD bool is_clipped(int64_t position) const { return position < whole.begin || position + at_once > whole.end; }

  // Sums of the rows of a stack, which have been found.
  template <int stride>
  __attribute__((noinline)) void run_stack(const Place& at, int64_t room, const Stack& stack) {
    const int64_t size = w.out * p.channels;
    Facts<V> facts;
    State state;
    for (Steps<L> step(p.channels, w.out); step.any(); step.next()) {
      const int64_t offset = step.first + step.position * (w.stride - 1) * p.channels;
      const Step<stride> one{*this, offset, w.origin(step.position), is_clipped(step.position), facts, state};
      V sums[Stack::count];
      unrolled<Stack::count>([&](auto line) FASTPOOL_STEP { sums[line] = V(T(0)); });
      for (int64_t r = 0; r < row_count; ++r)
        stack.seeing(r % stack.rows.count, [&](auto begin, auto end) FASTPOOL_STEP { one.template add<begin, end>(rows[r], sums); });
      V pooled[Stack::count];  // what outlives a call lies in memory all along
      unrolled<Stack::count>([&](auto line) FASTPOOL_STEP { pooled[line] = sums[line]; });
      Place place = at;
      for (int line = 0; line < Stack::count; ++line, ++place.o[1]) {
        facts_of_row.move_to(place);
        facts_of_row.give(facts, step.first);
        state.start(Tap<V>(Tap<T>(0)), p);
        state.template add<0>(pooled[line], Tap<V>(Tap<T>(0)));
        state.finish(facts);
        // The next row has begun already.
        const int64_t left = (line + 1 < Stack::count ? size : room - line * size) - step.first;
        store_lanes<Reducer, S>(p, level, level.output.at(at.n, 0, level.bin(place.o)) + step.first, 1, 0, 1, left >= L ? L : step.count(),
                                state);
      }
    }
  }

  // Steps may be followed by junk as far as later ones will replace it, for which there is `room`.
  void run_row(const Place& at, int64_t room) {
    if (plain) return run_steps<1>(at, room);
    if (Reducer::passes == 1 && w.stride == 2) return run_steps<(Reducer::passes == 1 ? 2 : 0)>(at, room);
    run_steps<0>(at, room);
  }
  template <int stride>
  __attribute__((noinline)) void run_steps(const Place& at, int64_t room) {
    const int64_t bin = level.bin(at.o), out = level.output.at(at.n, 0, bin), saved = p.saved.at(at.n, 0, level.first_bin + bin);
    for (Steps<L> step(p.channels, w.out); step.any(); step.next()) {
      const int64_t first = step.first, count = step.count(), origin = w.origin(step.position);
      const bool clipped = is_clipped(step.position);
      Facts<V> facts;
      if constexpr (Reducer::uses_divisor || Reducer::uses_parameter) facts_of_row.give(facts, first);
      if constexpr (Reducer::uses_uniform) facts.uniform = load<T, L>(drawn + first);
      State state;
      state.start(Tap<V>(Tap<T>(0)), p);
      for_each_pass<0, Reducer::passes>(
          Step<stride>{*this, first + step.position * (w.stride - 1) * p.channels, origin, clipped, facts, state});
      state.finish(facts);
      const auto odd = odd_lanes(state, count);
      store_lanes<Reducer, S>(p, level, out + first, 1, saved + first, 1, room - first >= L ? L : count, state);
      repair(odd, count, [&](int64_t i) {
        forward_exact<Reducer>(p, level, {at.n, (first + i) % p.channels, {at.o[0], at.o[1], (first + i) / p.channels}});
      });
    }
  }
};

// Every element of a row sums what it hears from the outputs that see it, in their order.
template <class Gradient, class S>
class InterleavedBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T> / 2;
  using V = Lanes<T, L>;

  InterleavedBackward(const Problem& p, const Units&, Arena arena)
      : p(p),
        level(p.levels[0]),
        w(level.grid.axis[2]),
        rows(level.grid),
        covers(w.most_covers()),
        row_size(w.out * p.channels + 2 * kLanes<T>),
        entries(covers * Steps<L>(p.channels, p.extent[2]).total()),
        slots(arena, rows.count() * row_size),
        ids(arena.take<int64_t>(rows.count())),
        over(arena.take<OutputRow>(rows.count())),
        from(arena.take<int64_t>(entries)),
        place(arena.take<Tap<T>>(entries * L)),
        tap(arena.take<Tap<T>>(entries * L)),
        facts_of_row(p, level, Gradient::uses_divisor, Gradient::uses_parameter, arena),
        streams(exceeds_caches<S>(p) && L % p.channels == 0) {
    int64_t entry = 0;
    for (Steps<L> step(p.channels, p.extent[2]); step.any(); step.next())
      for (int64_t j = 0; j < covers; ++j) list(step, j, entry++);
    FASTPOOL_ASSERT(entry == entries);
  }

  void run(const Units::Unit& unit) {
    FASTPOOL_ASSERT(unit.channels == p.channels);
    for (int64_t r = 0; r < rows.count(); ++r) ids[r] = -1;
    for (int64_t row = unit.first_row; row < unit.last_row; ++row) {
      const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
      const int64_t count = list_rows(level.grid, i, over, [&](int64_t d, int64_t h) { return prepare({unit.n, 0, {d, h, 0}}); });
      const int64_t first = p.input.at(unit.n, 0, row * p.extent[2]), room = (unit.last_row - row) * p.extent[2] * p.channels;
      if (2 * p.channels > L)
        sum_row<true>(first, count, room);
      else
        sum_row<false>(first, count, room);
    }
  }

 private:
  const Problem& p;
  const Level& level;
  const Axis& w;
  OutputRows rows;
  int64_t covers, row_size, entries;
  SlotArrays<Gradient, T> slots;
  int64_t* ids;  // of the row of outputs that each slot has
  OutputRow* over;
  // For every step and each of the outputs that see an element: where a register of outputs begins, and of every lane its
  // place there and the column of its tap, or less than 0.
  int64_t* from;
  Tap<T>*place, *tap;
  FlatFacts<T> facts_of_row;
  bool streams;  // gradients that no step writes twice go past the caches

  void list(const Steps<L>& step, int64_t j, int64_t entry) {
    int64_t at[L], least = INT64_MAX;
    for (int64_t i = 0; i < L; ++i) {
      const int64_t position = (step.first + i) / p.channels, c = (step.first + i) % p.channels;
      at[i] = tap[entry * L + i] = -1;
      if (i >= step.count()) continue;
      const Range outs = w.covers(position);
      const int64_t o = outs.begin + j, here = o < outs.end ? w.tap_of(o, position) : -1;
      if (here < 0) continue;
      at[i] = o * p.channels + c;
      tap[entry * L + i] = Tap<T>(here);
      least = smaller(least, at[i]);
    }
    from[entry] = least == INT64_MAX ? -1 : least;
    for (int64_t i = 0; i < L; ++i) {
      FASTPOOL_ASSERT(at[i] < 0 || at[i] - least < L);
      place[entry * L + i] = Tap<T>(at[i] < 0 ? 0 : at[i] - least);
    }
  }

  int64_t prepare(Place at) {
    const int64_t slot = rows.slot(at.o[0], at.o[1]), bin = level.bin(at.o), to = slot * row_size, size = w.out * p.channels;
    if (ids[slot] == bin) return to;
    ids[slot] = bin;
    facts_of_row.move_to(at);
    const int64_t out = level.output.at(at.n, 0, bin), saved = p.saved.at(at.n, 0, level.first_bin + bin);
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      const int64_t count = smaller(kLanes<T>, size - i);
      Facts<Lanes<T, kLanes<T>>> facts;
      facts_of_row.give(facts, i);
      slots.set(to + i, prepared<Gradient, S>(p, level, out + i, 1, saved + i, 1, count, facts), kLanes<T>);
    }
    return to;
  }

  // As above, steps may be followed by junk.
  template <bool plain>
  __attribute__((noinline)) void sum_row(int64_t first, int64_t count, int64_t room) const {
    const S* x = input_of<Gradient, S>(p, first);
    S* gx = static_cast<S*>(p.gx) + first;
    int64_t entry = 0;
    const V zero(T(0));
    for (Steps<L> step(p.channels, p.extent[2]); step.any(); step.next(), entry += covers) {
      const int64_t i = step.first, lanes = step.count();
      V here = zero, sum = zero;
      if constexpr (Gradient::uses_input) here = load_apart<T, L>(x + i, 1, lanes);
      for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j < covers; ++j) {
          const int64_t begin = from[entry + j];
          if (begin < 0) continue;
          const Tap<V> row_tap(Tap<T>(over[r].tap * w.kernel));
          if constexpr (plain) {
            const Tap<T> column = tap[(entry + j) * L];
            sum =
                sum + slots.template term<L>(p, here, row_tap + Tap<V>(column), over[r].at + begin, [](auto x) FASTPOOL_STEP { return x; });
          } else {
            const Tap<V> at = load<Tap<T>, L>(place + (entry + j) * L), column = load<Tap<T>, L>(tap + (entry + j) * L);
            const V term =
                slots.template term<L>(p, here, row_tap + column, over[r].at + begin, [&](auto x) FASTPOOL_STEP { return x.picked(at); });
            sum = sum + select(column < Tap<V>(Tap<T>(0)), zero, term);
          }
        }
      store_neighbours(gx + i, sum, room - i >= L ? L : lanes, streams);
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
