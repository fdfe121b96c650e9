// Forward schedule of contiguous input and small sliding windows: lanes are neighbouring outputs of a row, or halves or
// quarters of the lanes are rows that are short. What they read lies a stride apart and is sorted out of plain loads; lanes
// that would read beside the input are masked.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
class Rows {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  Rows(const Problem& p, const Level& level, uint64_t seed, Arena arena)
      : p(p),
        level(level),
        w(level.grid.axis[2]),
        seed(seed),
        columns(columns_of(level.grid)),
        rows(arena.take<const S*>(most_rows(level.grid))),
        taps(arena.take<int64_t>(most_rows(level.grid))),
        copies(arena.take<S>(most_rows(level.grid) * pitch(level.grid))),
        drawn(arena.take<T>(columns + 8 * kBlocks + L)),
        divisors(p, level, Reducer::uses_divisor, arena),
        whole(level.grid.axis[1].whole()),
        pairs(w.out <= L / 2 && w.stride <= 2 && !p.parameter_view.position),
        far_away(is_far_away<S>(p)),
        held(held_width(level.grid)),
        stacks(Reducer::is_sum && Stack::pays(level.grid)),
        short_rows(has_squares(level) && !Reducer::uses_uniform && !p.parameter_view.position ? rows_at_once<L>(w.out) : 1) {}

  // The rows of bins begin … end - 1 of one plane.
  void run(int64_t n, int64_t c, int64_t, int64_t begin, int64_t end) {
    for (int64_t first = 0; first < w.out; first += columns) {
      const int64_t outputs = smaller(columns, w.out - first);
      Place at{n, c, {begin / level.grid.axis[1].out, begin % level.grid.axis[1].out, first}};
      found_line = -1;
      for (int64_t row = begin, done; row < end; row += done) {
        // Whole rows may be followed by junk as far as later rows will replace it.
        const int64_t room = outputs == w.out ? (end - row) * w.out : outputs;
        done = 0;
        if constexpr (kSpecialises)
          done = short_rows == 4 ? run_short<4>(at, end - row) : short_rows == 2 ? run_short<2>(at, end - row) : 0;
        if constexpr (Reducer::is_sum)
          if (stacks && done == 0) done = run_stack(at, outputs, end - row);
        if constexpr (kHolds)
          if (done == 0) done = held == 2 ? run_held<2>(at, outputs, end - row) : held == 3 ? run_held<3>(at, outputs, end - row) : 0;
        if (done == 0) {
          done = row + 1 < end && find_pair(at) ? 2 : 1;
          if (done == 1) find_row(at, outputs);
          run_row(at, outputs, room, done == 2);
        }
        at.o[1] += done;
        if (at.o[1] == level.grid.axis[1].out) at.o[1] = 0, ++at.o[0], found_line = -1;
      }
    }
  }

 private:
  const Problem& p;
  const Level& level;
  const Axis& w;
  uint64_t seed;
  int64_t columns;
  // For each row of a window: what the first lane reads first, be it padding, and that element's tap.
  const S** rows;
  int64_t *taps, row_count = 0;
  int64_t found_line = -1;  // the row of outputs whose rows these are, if none of them is padding or copied
  S* copies;
  T* drawn;
  Divisors<T> divisors;
  Range whole;  // lines of outputs that see no line of padding
  bool pairs, far_away;
  int held;        // the width of windows that run_held takes, or 0
  bool stacks;     // rows of outputs are computed several at a time
  int short_rows;  // rows that run_short takes at once, or 1
  static constexpr bool kHolds = kSpecialises && sizeof(T) == 4;
  static constexpr int64_t kShortRow = 512;

  // Outputs of one tile: the rows that it reads stay in the second-level cache.
  static FASTPOOL_HD int64_t columns_of(const Grid& grid) {
    constexpr int64_t most = 4096, bytes = 256 << 10;
    const Axis& w = grid.axis[2];
    const int64_t some = (bytes / (most_rows(grid) * int64_t(sizeof(S))) - w.extent()) / w.stride;
    return smaller(w.out, larger(smaller(some, most), L));
  }
  static FASTPOOL_HD int64_t most_rows(const Grid& grid) { return grid.axis[0].kernel * grid.axis[1].kernel; }
  // Elements of a row that the lanes of `outputs` outputs read, used or not.
  static FASTPOOL_HD int64_t reach(const Grid& grid, int64_t outputs) { return larger(outputs, L) * grid.axis[2].stride + grid.axis[2].extent(); }
  static FASTPOOL_HD int64_t pitch(const Grid& grid) { return reach(grid, columns_of(grid)); }

  static int held_width(const Grid& grid) {
    const Axis& w = grid.axis[2];
    if (w.dilation != 1) return 0;
    const int64_t lines = most_rows(grid);
    if (w.kernel == 2 && w.stride == 2 && lines == 2 && !w.clips()) return 2;
    return w.kernel == 3 && w.stride <= 2 && (Reducer::passes == 1 || lines == 3) ? 3 : 0;
  }

  // Finds the rows of a window; whether lanes may read `length` elements of each.
  bool find_rows(const Place& at, int64_t length) {
    const S* x = static_cast<const S*>(p.x);
    if (is_whole(at.o[1]) && found_line >= 0) {
      const int64_t distance = (at.o[1] - found_line) * line_step();
      for (int64_t r = 0; r < row_count; ++r) rows[r] += distance;
    } else {
      const Span d = level.grid.axis[0].window(at.o[0]), h = level.grid.axis[1].window(at.o[1]);
      const int64_t plane = p.input.at(at.n, at.c, 0), column = w.origin(at.o[2]);
      row_count = 0;
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          rows[row_count] = x + (plane + row_of_input(d, h, i, j, p.extent[1]) * p.extent[2] + column);
          taps[row_count++] = row_of_window(d, h, i, j) * w.kernel;
        }
    }
    found_line = is_whole(at.o[1]) ? at.o[1] : -1;
    return rows[0] >= x && rows[row_count - 1] + length <= x + p.samples * p.channels * p.positions();
  }
  // One row of outputs. Rows at either end of the tensor, beyond which lanes would read, are copied.
  void find_row(const Place& at, int64_t outputs) {
    const int64_t length = reach(level.grid, outputs), column = w.origin(at.o[2]);
    if (find_rows(at, length)) return;
    const int64_t begin = larger(-column, 0), count = smaller(length, p.extent[2] - column) - begin;
    for (int64_t r = 0; r < row_count; ++r) {
      S* copy = copies + r * length;
      memcpy(copy + begin, rows[r] + begin, size_t(count) * sizeof(S));
      rows[r] = copy;
    }
    found_line = -1;
  }
  // Two rows of outputs at once, if they are short and see as many rows of the input.
  bool find_pair(const Place& at) {
    return pairs && at.o[1] + 1 < level.grid.axis[1].out && is_whole(at.o[1]) && is_whole(at.o[1] + 1) &&
           find_rows(at, line_step() + reach(level.grid, 0));
  }
  FASTPOOL_HD bool is_whole(int64_t line) const { return line >= whole.begin && line < whole.end; }
  FASTPOOL_HD int64_t line_step() const { return level.grid.axis[1].stride * p.extent[2]; }

  // The lanes of one tile: outputs lane0 and following of the row at hand.
  struct Tile {
    const Rows& self;
    int64_t lane0;
    int64_t second;      // where the second half of the lanes reads, from where the first does
    bool paired;         // the halves are two rows
    bool clipped;        // some lane reads beside the input
    int64_t begin, end;  // the input's columns, counted from the first that lane 0 reads
    int64_t span;        // columns between the first output's window and the last's
    const Facts<V>& facts;
    State& state;

    // Elements a stride apart, from `from` on and from each of the next `stride` - 1; or where `stride` is 0, just the
    // former, for any stride.
    template <int stride>
    FASTPOOL_HD void load_phases(const S* from, V (&x)[stride ? stride : 1]) const {
      if constexpr (stride == 1) {
        x[0] = load_halves(from);
      } else if constexpr (stride == 2) {
        load_pairs(from, second, x[0], x[1]);
      } else if constexpr (stride > 0) {
        FASTPOOL_UNROLL
        for (int k = 0; k < stride; ++k) x[k] = load<T, L>(from + k * L);
        split_phases(x);
      } else if (self.w.stride == 1) {
        x[0] = load_halves(from);
      } else if (self.w.stride == 2) {
        V rest;
        load_pairs(from, second, x[0], rest);
      } else {
        x[0] = load_apart<T, L>(from, self.w.stride, L);
      }
    }
    FASTPOOL_HD V load_halves(const S* from) const { return V(load<T, L / 2>(from), load<T, L / 2>(from + second)); }
    FASTPOOL_HD Mask<V> inside(int64_t column) const {
      using Half = Lanes<Scalar<Tap<V>>, L / 2>;
      const Tap<V> lane = (paired ? Tap<V>(Half::iota(), Half::iota()) : Tap<V>::iota()) * Tap<V>(Tap<T>(self.w.stride));
      const auto edge = [&](int64_t at) FASTPOOL_STEP { return Tap<V>(Tap<T>(smaller(larger(at - column, 0), L * self.w.stride))); };
      return (lane >= edge(begin)) & (lane < edge(end));
    }

    // Windows of 2x2 that lose nothing, or 3 wide, whose rows start `offset` behind those that were found. Several passes
    // find all elements in registers.
    template <int width>
    FASTPOOL_HD void hold(int64_t offset) const {
      constexpr int held = width == 2 || Reducer::passes > 1 ? width : 1;
      V x[held * width];
      Mask<V> within[width];
      if (width == 3 && clipped) unrolled<width>([&](auto k) FASTPOOL_STEP { within[k] = inside(k); });
      for (int64_t r = 0; r < (held > 1 ? held : self.row_count); r += held) {
        unrolled<held>([&](auto line)
                           FASTPOOL_STEP { load_taps<width>(self.rows[r + line] + offset + lane0 * self.w.stride, x + line * width); });
        if constexpr (held == 1) {
          unrolled<width>([&](auto k) FASTPOOL_STEP {
            add_masked<Reducer, 0>(state, x[k], Tap<V>(Tap<T>(self.taps[r] + k)), !clipped, [&]() FASTPOOL_STEP { return within[k]; });
          });
        } else {
          const Held<V, State, held * width> window{self.p, facts, state, x};
          if constexpr (kMasks<State, V> && width == 3) {
            if (clipped) {
              for_each_pass<0, Reducer::passes>(HeldInside<V, State, held * width, width>{window, within});
              continue;
            }
          } else if (width == 3 && clipped) {
            unrolled<held * width>([&](auto k)
                                       FASTPOOL_STEP { x[k] = select(within[k % width], x[k], V(Reducer::template padding<T>())); });
          }
          for_each_pass<0, Reducer::passes>(window);
        }
      }
    }
    // One row of them.
    template <int width>
    FASTPOOL_HD void load_taps(const S* from, V* x) const {
      V rest;
      if constexpr (width == 2) {
        load_pairs(from, second, x[0], x[1]);
      } else if (self.w.stride == 1) {
        unrolled<width>([&](auto k) FASTPOOL_STEP { x[k] = load_halves(from + k); });
      } else {
        load_pairs(from, second, x[0], x[1]);
        load_pairs(from + 2, second, x[2], rest);
      }
    }

    // Adds a row to sums that see it.
    template <int stride, int first, int last>
    FASTPOOL_HD void add_row(const S* row, V (&sums)[Stack::count]) const {
      const int64_t kernel = self.w.kernel;
      for (int64_t k = 0; k < kernel; k += stride) {
        V x[stride];
        load_phases<stride>(row + k, x);
        unrolled<stride>([&](auto f) FASTPOOL_STEP {
          if (k + f >= kernel) return;
          V one = x[f];
          if (clipped && (k + f < begin || k + f + span >= end)) one = select(inside(k + f), one, V(T(0)));
          unrolled<last - first>([&](auto line) FASTPOOL_STEP { sums[first + line] = sums[first + line] + one; });
        });
      }
    }

    template <int pass, int stride>
    FASTPOOL_HD void walk() const {
      const int64_t kernel = self.w.kernel, dilation = self.w.dilation;
      const int64_t phases = stride > 1 && dilation == 1 ? stride : 1;  // taps that one load serves
      for (int64_t r = 0; r < self.row_count; ++r) {
        const S* row = self.rows[r] + lane0 * self.w.stride;
        if (pass == 0 && r + 1 == self.row_count) ask_for(row, L * stride * int64_t(sizeof(S)));
        for (int64_t k = 0; k < kernel; k += phases) {
          V x[stride ? stride : 1];
          load_phases<stride>(row + k * dilation, x);
          FASTPOOL_UNROLL
          for (int f = 0; f < (stride ? stride : 1); ++f) {
            if (f >= phases || k + f >= kernel) continue;
            const Tap<V> tap(Tap<T>(self.taps[r] + k + f));
            const int64_t column = k * dilation + f;
            add_masked<Reducer, pass>(state, x[f], tap, !clipped || (column >= begin && column + span < end),
                                      [&]() FASTPOOL_STEP { return inside(column); });
          }
        }
      }
    }
    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0) state.template begin<pass>(facts, self.p);
      // Several passes are slow to compile, and arithmetic is what they take time for.
      constexpr bool fixed = kSpecialises && Reducer::passes == 1;
      if (fixed && self.w.stride == 2)
        walk<pass, fixed ? 2 : 0>();
      else if (fixed && self.w.stride == 4)
        walk<pass, fixed ? 4 : 0>();
      else
        walk<pass, 0>();
    }
  };

  FASTPOOL_HD Facts<V> facts_at(const Place& at, int64_t lane0, int64_t count, bool paired) {
    Facts<V> facts;
    if constexpr (Reducer::uses_divisor) divisors.give_halves(facts, at.o[2] + lane0, paired ? 0 : L / 2);
    if constexpr (Reducer::uses_parameter)
      facts.parameter = parameter_lanes<T>(p, at.n, at.c, level.first_bin + level.bin(at.o) + lane0, false, count);
    if constexpr (Reducer::uses_uniform)
      facts.uniform = V(load<T, L / 2>(drawn + lane0), load<T, L / 2>(drawn + lane0 + (paired ? w.out : L / 2)));
    return facts;
  }

  // Up to `most` rows of `outputs`, of which no row of a window is padding and no lane reads beyond the tensor: windows 2
  // wide a stride of 2 apart, or 3 wide. Returns how many there were. Little besides loads and stores happens here.
  template <int width>
  int64_t run_held(Place at, int64_t outputs, int64_t most) {
    const Axis& h = level.grid.axis[1];
    const int64_t length = reach(level.grid, outputs), size = p.samples * p.channels * p.positions();
    if (!is_whole(at.o[1]) || !find_rows(at, length) || ((width == 2 || Reducer::passes > 1) && row_count != width)) return 0;
    const int64_t readable = (static_cast<const S*>(p.x) + size - rows[row_count - 1] - length) / line_step() + 1;
    const int64_t count = smaller(smaller(most, whole.end - at.o[1]), readable);
    FASTPOOL_ASSERT(count > 0);
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
    int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    int64_t room = outputs == w.out ? most * w.out : outputs;
    // Prefetchers lose track of rows that are read side by side; in the order in which they lie is best.
    const bool loses_track = far_away || p.extent[2] * int64_t(sizeof(S)) > kShortRow;
    // Windows that are all whole have the same facts, unless those are of one output each. Where rows are pairs, a row
    // that is left over needs those of half the lanes.
    const bool differ = width > 2 || Reducer::uses_uniform || (Reducer::uses_parameter && p.parameter);
    Facts<V> facts = facts_at(at, 0, smaller(L, outputs), pairs);
    for (int64_t row = 0, lines; row < count; row += lines) {
      const bool paired = pairs && row + 1 < count;
      lines = paired ? 2 : 1;
      if constexpr (Reducer::uses_uniform) draw_row(p, seed, at.n, at.c, level.first_bin + bin, lines * outputs, drawn);
      const int64_t second = paired ? line_step() : L / 2 * w.stride;
      if (loses_track)
        for (int64_t line = 0; line < h.stride; ++line)
          ask_for(rows[0] + row * line_step() + line * p.extent[2], smaller(length, p.extent[2]) * int64_t(sizeof(S)));
      for (int64_t lane0 = 0;; lane0 += L) {
        lane0 = smaller(lane0, larger(outputs - L, 0));
        const int64_t lanes = smaller(L, outputs - lane0), column = w.origin(at.o[2] + lane0);
        const bool clipped = w.clips({at.o[2] + lane0, at.o[2] + lane0 + lanes});
        if (differ) facts = facts_at(at, lane0, lanes, paired);
        State state;
        state.start(Tap<V>(Tap<T>(0)), p);
        const Tile tile{*this, lane0, second, paired, clipped, -column, w.in - column, (lanes - 1) * w.stride, facts, state};
        tile.template hold<width>(row * line_step());
        state.finish(facts);
        if (paired) {
          store_pair(at, out, saved, room, state);
          break;
        }
        finish_row(at, lane0, lanes, out, saved, room, state);
        if (lane0 + lanes == outputs) break;
      }
      at.o[1] += lines, bin += lines * w.out, out += lines * w.out, saved += lines * w.out;
      if (outputs == w.out) room -= lines * w.out;
    }
    return count;
  }

  // Sums of the rows of a stack; returns how many they are, or 0 where lanes would read beyond the tensor or there are fewer.
  int64_t run_stack(const Place& at, int64_t outputs, int64_t most) {
    if (smaller(most, level.grid.axis[1].out - at.o[1]) < Stack::count) return 0;
    const Stack stack(level.grid.axis[1], at.o[1]);
    const Span d = level.grid.axis[0].window(at.o[0]), &h = stack.rows;
    const S *x = static_cast<const S*>(p.x), *plane = x + p.input.at(at.n, at.c, 0) + w.origin(at.o[2]);
    const auto row = [&](int64_t i, int64_t j) { return plane + row_of_input(d, h, i, j, p.extent[1]) * p.extent[2]; };
    if (row(0, 0) < x || row(d.count - 1, h.count - 1) + reach(level.grid, outputs) > x + p.samples * p.channels * p.positions()) return 0;
    for (int64_t lane0 = 0;; lane0 += L) {
      lane0 = smaller(lane0, larger(outputs - L, 0));
      const int64_t count = smaller(L, outputs - lane0), column = w.origin(at.o[2] + lane0);
      const bool clipped = w.clips({at.o[2] + lane0, at.o[2] + lane0 + count});
      Facts<V> facts;
      State state;
      const Tile tile{*this, lane0, L / 2 * w.stride, false, clipped, -column, w.in - column, (count - 1) * w.stride, facts, state};
      V sums[Stack::count];
      unrolled<Stack::count>([&](auto line) FASTPOOL_STEP { sums[line] = V(T(0)); });
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const S* from = row(i, j) + lane0 * w.stride;
          stack.seeing(j, [&](auto begin, auto end) FASTPOOL_STEP {
            w.stride == 1 ? tile.template add_row<1, begin, end>(from, sums) : tile.template add_row<2, begin, end>(from, sums);
          });
        }
      V pooled[Stack::count];  // what outlives a call lies in memory all along
      unrolled<Stack::count>([&](auto line) FASTPOOL_STEP { pooled[line] = sums[line]; });
      Place place = at;
      for (int line = 0; line < Stack::count; ++line, ++place.o[1]) {
        divisors.move_to(place.o);
        facts = facts_at(place, lane0, count, false);
        state.start(Tap<V>(Tap<T>(0)), p);
        state.template add<0>(pooled[line], Tap<V>(Tap<T>(0)));
        state.finish(facts);
        const int64_t bin = level.bin(place.o);
        finish_row(place, lane0, count, level.output.at(at.n, at.c, bin), p.saved.at(at.n, at.c, level.first_bin + bin), outputs, state);
      }
      if (lane0 + count == outputs) return Stack::count;
    }
  }

  // Up to `most` short rows of 2x2 windows, `lines` at a time in as many parts of the lanes, as far as nothing is read beyond
  // the tensor. Returns how many there were. Little besides loads and stores happens here.
  template <int lines>
  int64_t run_short(const Place& at, int64_t most) {
    constexpr int part = L / lines;
    const int64_t step = line_step(), size = p.samples * p.channels * p.positions();
    int64_t count = smaller(level.grid.axis[1].out - at.o[1], most);
    if (count < lines || !find_rows(at, 2 * part)) return 0;
    const S *upper = rows[0], *lower = rows[1], *last = static_cast<const S*>(p.x) + size - 2 * part;
    while (lower + (count - 1) * step > last) --count;
    if (count < lines) return 0;
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
    const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    const Facts<V> facts = facts_at(at, 0, L, true);
    // The last rows are computed a second time rather than left empty.
    for (int64_t row = 0;; row = smaller(row + lines, count - lines)) {
      V x[4];
      load_rows_of_pairs<lines>(upper + row * step, step, x[0], x[1]);
      load_rows_of_pairs<lines>(lower + row * step, step, x[2], x[3]);
      State state;
      state.start(Tap<V>(Tap<T>(0)), p);
      for_each_pass<0, Reducer::passes>(Held<V, State, 4>{p, facts, state, x});
      state.finish(facts);
      const auto odd = odd_lanes(state, L);
      const bool ends = (row + lines - 1) * w.out + part > most * w.out;
      if (ends)
        store_last<lines>(out + row * w.out, saved + row * w.out, Results<Reducer, V>(p, state));
      else
        store_results<Reducer, S>(p, level, out + row * w.out, saved + row * w.out, state,
                                  [&](auto* to, bool, auto lanes) FASTPOOL_STEP { store_rows<lines>(to, w.out, lanes); });
      repair(odd, L, [&](int64_t i) {
        if (i % part < w.out) forward_exact<Reducer>(p, level, {at.n, at.c, {at.o[0], at.o[1] + row + i / part, i % part}});
      });
      if (row + lines == count) return count;
    }
  }
  // Rows of which the last may not be followed by junk.
  template <int lines>
  __attribute__((noinline)) void store_last(int64_t out, int64_t saved, const Results<Reducer, V>& results) const {
    store_results<Reducer, S>(p, level, out, saved, results, [&](auto* to, bool, auto all) {
      std::remove_pointer_t<decltype(to)> narrow[L];
      store(narrow, all);
      for (int line = 0; line < lines; ++line) memcpy(to + line * w.out, narrow + line * (L / lines), size_t(w.out) * sizeof(*to));
    });
  }

  FASTPOOL_HD void finish_row(const Place& at, int64_t lane0, int64_t count, int64_t out, int64_t saved, int64_t room,
                         const State& state) const {
    const auto odd = odd_lanes(state, count);
    store_lanes<Reducer, S>(p, level, out + lane0, 1, saved + lane0, 1, lane0 + L <= room ? L : count, state);
    repair(odd, count, [&](int64_t i) { forward_exact<Reducer>(p, level, {at.n, at.c, {at.o[0], at.o[1], at.o[2] + lane0 + i}}); });
  }

  // One row of `outputs`, or two; as many as `room` may be written.
  void run_row(const Place& at, int64_t outputs, int64_t room, bool paired) {
    FASTPOOL_ASSERT((paired ? 2 : 1) * outputs <= room && row_count <= most_rows(level.grid));
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
    const int64_t bin = level.bin(at.o);
    if constexpr (Reducer::uses_uniform) draw_row(p, seed, at.n, at.c, level.first_bin + bin, paired ? 2 * outputs : outputs, drawn);
    const int64_t out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    // The last lanes of a row are computed a second time rather than left empty.
    for (int64_t lane0 = 0;; lane0 += L) {
      lane0 = smaller(lane0, larger(outputs - L, 0));
      const int64_t count = smaller(L, outputs - lane0), column = w.origin(at.o[2] + lane0);
      const bool clipped = w.clips({at.o[2] + lane0, at.o[2] + lane0 + count});
      const Facts<V> facts = facts_at(at, lane0, count, paired);
      State state;
      state.start(Tap<V>(Tap<T>(0)), p);
      const Tile tile{
          *this, lane0, paired ? line_step() : L / 2 * w.stride, paired, clipped, -column, w.in - column, (count - 1) * w.stride,
          facts, state};
      for_each_pass<0, Reducer::passes>(tile);
      state.finish(facts);
      if (paired) return store_pair(at, out, saved, room, state);
      finish_row(at, lane0, count, out, saved, room, state);
      if (lane0 + count == outputs) break;
    }
  }

  // One half of the lanes.
  template <bool high>
  struct HalfState {
    const State& state;

    template <class X>
    static FASTPOOL_HD auto half(const X& x) {
      if constexpr (high)
        return x.hi;
      else
        return x.lo;
    }
    FASTPOOL_HD auto y() const { return half(state.y()); }
    FASTPOOL_HD auto second() const { return half(state.second()); }
    FASTPOOL_HD auto mixture() const { return half(state.mixture()); }
    FASTPOOL_HD auto slope() const { return half(state.slope()); }
    FASTPOOL_HD auto tap() const { return half(state.tap()); }
    FASTPOOL_HD auto moment(int which) const { return half(state.moment(which)); }
  };

  FASTPOOL_HD void store_pair(const Place& at, int64_t out, int64_t saved, int64_t room, const State& state) const {
    const auto odd = odd_lanes(state, L);
    store_lanes<Reducer, S>(p, level, out, 1, saved, 1, L / 2 <= room ? L / 2 : w.out, HalfState<false>{state});
    store_lanes<Reducer, S>(p, level, out + w.out, 1, saved + w.out, 1, w.out + L / 2 <= room ? L / 2 : w.out, HalfState<true>{state});
    repair(odd, L, [&](int64_t i) {
      if (i % (L / 2) < w.out) forward_exact<Reducer>(p, level, {at.n, at.c, {at.o[0], at.o[1] + i / (L / 2), i % (L / 2)}});
    });
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
