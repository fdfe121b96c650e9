// Forward schedule whose lanes are channels: of channels-last input, and of contiguous planes that are transposed.
#pragma once

#include <new>

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Where lanes lie: `height` x `width` positions a slice, `step` elements apart.
template <class S>
struct Lines {
  const S* x;
  int64_t height, width, step;
};

// Which windows a schedule is compiled for: those that stay in the first-level cache while each tile of channels walks
// them, larger ones, or both.
enum class WindowsOf { small, large, both };

// One unit's channels at.c … at.c + count - 1; every window is walked once for a tile of L of them.
template <class Reducer, class S, WindowsOf windows_of>
class Channels {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  Channels(const Problem& p, const Level& level, uint64_t seed, int64_t channels, Arena& arena)
      : p(p),
        level(level),
        seed(seed),
        word_step(words_of(channels)),
        drawn(arena.take<T>(4 * word_step + L)),
        divisors(p, level, Reducer::uses_divisor, arena),
        together(Neighbours<T>::share(level.grid.axis[2]) && level.grid.most_taps() <= kMostSequentialTaps),
        whole_end(level.grid.axis[2].adaptive() ? 0 : level.grid.axis[2].whole().end),
        far_away(p.lanes_are_channels && is_far_away<S>(p)),
        streams(p.lanes_are_channels && exceeds_caches<S>(p)) {
    if (!p.lanes_are_channels || p.channels >= L) return;
    const int64_t size = p.samples * p.channels * p.positions(), some = smaller(L, size);
    tail = arena.take<S>(2 * L);
    last = static_cast<const S*>(p.x) + size - L;
    memcpy(tail + L - some, last + L - some, size_t(some) * sizeof(S));
    memset(static_cast<void*>(tail + L), 0, L * sizeof(S));
  }

  // Some columns of one row of bins. Spans of depth and height are in the coordinates of `lines`.
  void run(Place at, int64_t channels, const Lines<S>& lines, const Span& d, const Span& h, Range bins) {
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
    int64_t block = -1;
    const int64_t first_bin = level.bin(at.o), out = level.output.at(at.n, at.c, first_bin);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + first_bin);
    const Axis& columns = level.grid.axis[2];
    const bool side_by_side = level.output.channel == 1 && p.saved.channel == 1;  // results of neighbouring channels
    for (int64_t o = bins.begin, windows = 1; o < bins.end; o += windows) {
      if constexpr (Reducer::is_sum)
        if (together && channels >= L && bins.end - bins.begin >= Neighbours<T>::count) {
          // The last of a row are computed a second time rather than one by one.
          at.o[2] = o = smaller(o, bins.end - Neighbours<T>::count);
          windows = Neighbours<T>::count;
          pool_together(at, channels, lines, d, h);
          continue;
        }
      at.o[2] = o;
      windows = 1;
      const Span w = columns.window(o);
      const int64_t bin = level.first_bin + first_bin + o;
      if constexpr (Reducer::uses_uniform)
        if (bin / 4 != block) {
          block = bin / 4;
          draw_channels(p, seed, at.n, at.c, block, channels, word_step, drawn);
        }
      Window window(d, h, w, out + o * level.output.position, saved + o * p.saved.position);
      const int64_t taps = d.count * h.count * w.count, bytes = taps * channels * int64_t(sizeof(S));
      if (windows_of == WindowsOf::large || (windows_of == WindowsOf::both && taps > kFewTaps && bytes > kSmallWindow && channels > L)) {
        pool_large(at, channels, lines, window, bin);
      } else if (kSpecialises && side_by_side && channels >= L && (window.is_whole(2, 2) || (kHoldsNine && window.is_whole(3, 3)))) {
        windows = larger(smaller(whole_end, bins.end) - o, 1);
        if constexpr (Reducer::uses_uniform) windows = smaller(windows, 4 - bin % 4);
        if constexpr (kSpecialises)
          if (w.count == 2) pool_held<2, 2>(at, channels, lines, window, bin, windows);
        if constexpr (kHoldsNine)
          if (w.count == 3) pool_held<3, 3>(at, channels, lines, window, bin, windows);
      } else if (window.sums_are_long) {
        pool_small<(Reducer::long_sums > 0)>(at, channels, lines, window, bin);
      } else {
        pool_small<false>(at, channels, lines, window, bin);
      }
    }
  }

  // Large windows of one pass are swept where the input comes from memory: its rows are added one after another, as they
  // lie there, to all bins that see them. Every bin sums its elements in the order of its taps all the same.
  static bool sweeps(const Problem& p, const Level& level, int64_t channels) {
    const int64_t first[3] = {0, 0, 0}, position = channels * int64_t(sizeof(S));
    const bool large = level.grid.taps(first) * position > kSmallWindow && level.grid.axis[2].taps(0) >= kWideWindow;
    return Reducer::passes == 1 && p.lanes_are_channels && p.extent[0] == 1 && large && is_far_away<S>(p) &&
           sweep_bytes(level, channels) <= kMostStates;
  }
  static int64_t sweep_bytes(const Level& level, int64_t channels) {
    const int64_t columns = level.grid.axis[2].out;
    return columns * (OutputRows(level.grid).count() * ceil_div(channels, L) * int64_t(sizeof(Tile)) + int64_t(sizeof(Span)));
  }
  void prepare_sweep(int64_t channels, Arena& arena) {
    const Axis& w = level.grid.axis[2];
    swept = arena.take<Tile>(OutputRows(level.grid).count() * w.out * ceil_div(channels, L));
    swept_columns = arena.take<Span>(w.out);
    for (int64_t o = 0; o < w.out; ++o) swept_columns[o] = w.window(o);
  }
  // Turns to the rows of bins of a unit; returns the rows of the input that they see.
  Range begin_sweep(const Units::Unit& unit) {
    const Axis* axis = level.grid.axis;
    swept_unit = unit;
    swept_rows = rows_of(level, unit);
    Range seen{p.extent[0] * p.extent[1], 0};
    for (int64_t row = swept_rows.begin; row < swept_rows.end; ++row) {
      const Span d = axis[0].window(row / axis[1].out), h = axis[1].window(row % axis[1].out);
      const int64_t last = row_of_input(d, h, d.count - 1, h.count - 1, p.extent[1]);
      seen = {smaller(seen.begin, row_of_input(d, h, 0, 0, p.extent[1])), larger(seen.end, last + 1)};
    }
    return seen;
  }
  // Row (i, j) of the input.
  void sweep(const Lines<S>& lines, int64_t i, int64_t j) {
    FASTPOOL_ASSERT(swept && swept_unit.n < p.samples);
    const Axis* axis = level.grid.axis;
    const Range d = axis[0].covers(i), h = axis[1].covers(j);
    for (int64_t a = d.begin; a < d.end; ++a)
      for (int64_t b = h.begin; b < h.end; ++b) {
        const int64_t row = a * axis[1].out + b, slice = axis[0].tap_of(a, i), line = axis[1].tap_of(b, j);
        if (row >= swept_rows.begin && row < swept_rows.end && slice >= 0 && line >= 0)
          sweep_row({swept_unit.n, swept_unit.c, {a, b, 0}}, lines, axis[0].window(a), axis[1].window(b), slice, line);
      }
  }

  // The same where the rows of the input that they see are folded into one: what every column from `first` on comes to.
  void run_folded(Place at, int64_t channels, const std::array<T*, Reducer::parts>& values, const Tap<T>* taps, int64_t first,
                  Range bins) const {
    const Part part{0, channels};
    const int64_t first_bin = level.bin(at.o), out = level.output.at(at.n, at.c, first_bin);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + first_bin);
    const Span none{0, 1, 1, 0, 1};
    for (at.o[2] = bins.begin; at.o[2] < bins.end; ++at.o[2]) {
      const int64_t o = at.o[2];
      const Span w = level.grid.axis[2].window(o);
      const Facts<V> facts = facts_at(at, part, level.first_bin + first_bin + o);
      State state;
      state.start(Tap<V>(Tap<T>(0)), p);
      Totals<Reducer, V> totals;
      totals.start(state);
      for (int64_t k = 0; k < w.count;) {
        Block<Reducer, V> block;
        block.begin(state, true);
        for (const int64_t end = Reducer::long_sums ? smaller(w.count, k + kBlockSum) : w.count; k < end; ++k) {
          const int64_t column = w.start + k * w.step - first;
          Tap<V> tap(Tap<T>(w.first + k));
          if constexpr (Reducer::saves_taps) tap = tap + load<Tap<T>, L>(taps + column * L) * Tap<V>(Tap<T>(w.size));
          state.merge(load<T, L>(values[0] + column * L), load<T, L>(values[Reducer::parts - 1] + column * L), tap);
        }
        block.end(state, true);
        if (k % (kBlockSum * kBlockSum) == 0) totals.take(state);
      }
      if (w.count >= kBlockSum * kBlockSum) totals.give(state);
      finish(at, part, Window(none, none, w, out + o * level.output.position, saved + o * p.saved.position), facts, state);
    }
  }
  // The same of cells (cells.h).
  void run_cells(Place at, int64_t channels, const auto& cells, const Span& h, Range bins) {
    const Part part{0, channels};
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
    const int64_t first_bin = level.bin(at.o), out = level.output.at(at.n, at.c, first_bin);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + first_bin);
    for (at.o[2] = bins.begin; at.o[2] < bins.end; ++at.o[2]) {
      const int64_t o = at.o[2];
      const Span w = level.grid.axis[2].window(o);
      const State pooled = cells.pool(level.grid.axis[0].window(at.o[0]), h, w);
      State state = pooled;  // what is passed on lies in memory all along
      finish(at, part, Window(h, h, w, out + o * level.output.position, saved + o * p.saved.position),
             facts_at(at, part, level.first_bin + first_bin + o), state);
    }
  }
  FASTPOOL_HD void move_to(const Place& at) {
    if constexpr (Reducer::uses_divisor) divisors.move_to(at.o);
  }

 private:
  static constexpr int64_t kFewTaps = 25, kSmallWindow = 16 << 10;
  // Within the caches, states that go to memory and back after a few elements take longer than the walk from window to window.
  static constexpr int64_t kWideWindow = 8, kMostStates = 128 << 10;
  // Several passes over nine registers are slow to compile and no faster.
  static constexpr bool kHoldsNine = kSpecialises && Reducer::passes == 1 && sizeof(T) == 4;
  // The first tile asks for a whole position where that is short, so that the others find it.
  static FASTPOOL_HD int64_t ahead_of(int64_t tile, int64_t channels) {
    if (channels > 4 * L) return L * int64_t(sizeof(S));
    return tile == 0 ? channels * int64_t(sizeof(S)) : 0;
  }
  static constexpr int64_t kMostTiles = 8;

  struct Window {
    const Span &d, &h, &w;
    int64_t out, saved;
    // What makes a block or a total of long sums depends on the window alone: it has the same bits however it is walked.
    bool sums_are_long;
    uint32_t rows_of_total = 1;

    FASTPOOL_HD Window(const Span& d, const Span& h, const Span& w, int64_t out, int64_t saved)
        : d(d),
          h(h),
          w(w),
          out(out),
          saved(saved),
          sums_are_long(Reducer::long_sums > 0 && d.count * h.count * w.count > kMostSequentialTaps) {
      if (sums_are_long && w.count < kTotal) rows_of_total = kBlockSum / uint32_t(larger(w.count / kBlockSum, 1));
    }
    // The last block takes what is left of a row.
    static FASTPOOL_HD int64_t end_of_block(int64_t k, int64_t end) { return end - k >= 2 * kBlockSum ? k + kBlockSum : end; }
    // Where a step of some `most` elements from k on ends: in long sums with a block.
    FASTPOOL_HD int64_t end_of_step(int64_t k, int64_t most) const {
      if (!sums_are_long) return smaller(k + most, w.count);
      const int64_t end = smaller(k + round_up(most, kBlockSum), (k / kTotal + 1) * kTotal);
      return w.count - end < kBlockSum ? w.count : end;
    }
    // Whether their totals take what they come to before element `end` of row `row`.
    FASTPOOL_HD bool ends_total(int64_t row, int64_t end) const {
      if (!sums_are_long) return false;
      return end == w.count ? uint32_t(row + 1) % rows_of_total == 0 : end % kTotal == 0;
    }
    static constexpr int64_t kTotal = kBlockSum * kBlockSum;

    // Loses nothing to the padding.
    FASTPOOL_HD bool is_whole(int64_t height, int64_t width) const {
      return d.size == 1 && h.count == height && h.size == height && w.count == width && w.size == width;
    }
  };

  // What a tile of channels comes to while a large window is walked.
  struct Tile {
    State state;
    [[no_unique_address]] Totals<Reducer, V> totals;
  };

  // The channels of one tile.
  struct Part {
    int64_t c, count;
  };
  static FASTPOOL_HD Part part_at(int64_t tile, int64_t channels) {
    const int64_t c = smaller(tile, larger(channels - L, 0));
    return {c, smaller(L, channels)};
  }

  static FASTPOOL_HD int64_t words_of(int64_t channels) { return round_up(channels, larger(L, kBlocks)); }

  const Problem& p;
  const Level& level;
  uint64_t seed;
  int64_t word_step;
  T* drawn;
  Divisors<T> divisors;
  bool together;      // whether neighbours' windows share columns, and sums are not long
  int64_t whole_end;  // of a row's windows that slide, the last that lose nothing to the padding end here
  // Fewer channels than lanes are followed by those of the next position. Beyond `last` that would leave the tensor: what
  // lies there is also in `tail`, and zeros behind it.
  const S* last = reinterpret_cast<const S*>(UINTPTR_MAX);
  S* tail = nullptr;
  bool far_away;  // no second-level cache has the input
  bool streams;   // results go past the caches
  // Of a sweep: rows of bins, each with a state for every bin and tile.
  Units::Unit swept_unit{};
  Range swept_rows{};
  Span* swept_columns = nullptr;
  Tile* swept = nullptr;

  FASTPOOL_HD Facts<V> facts_at(const Place& at, Part part, int64_t bin) const {
    Facts<V> facts;
    if constexpr (Reducer::uses_divisor) divisors.give_one(facts, at.o[2]);
    if constexpr (Reducer::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c + part.c, bin, true, part.count);
    if constexpr (Reducer::uses_uniform) facts.uniform = load<T, L>(drawn + bin % 4 * word_step + part.c);
    return facts;
  }

  // Elements begin … end - 1 of row `j` of the window in its slice `i`, for tiles side by side; of what lies `far` bytes
  // ahead, `ahead` bytes are asked for.
  template <int pass, int tiles, bool sweeping>
  FASTPOOL_HD void walk_row(Tile* walked, const Part* parts, const Lines<S>& lines, const Window& window, int64_t i, int64_t j, int64_t begin,
                       int64_t end, int64_t ahead, int64_t far) const {
    const Span &d = window.d, &h = window.h, &w = window.w;
    const int64_t row = row_of_input(d, h, i, j, lines.height) * lines.width + w.start;
    const int64_t tap = tap_of_row(d, h, w, i, j);
    const int64_t step = w.step * lines.step;
    const S* from = lines.x + row * lines.step + begin * step;
    const bool is_long = Reducer::long_sums > 0 && pass + 1 == Reducer::passes && window.sums_are_long;
    const auto walk = [&](const auto& state_of) FASTPOOL_STEP {
      for (int64_t k = begin; k < end;) {
        const int64_t stop = is_long ? Window::end_of_block(k, end) : end;
        Block<Reducer, V> blocks[tiles];
        unrolled<tiles>([&](auto t) FASTPOOL_STEP { blocks[t].begin(state_of(t), is_long); });
        for (; k < stop; ++k, from += step) {
          if constexpr (pass == 0) ask_for(from + parts[0].c, ahead, far);
          unrolled<tiles>([&](auto t) FASTPOOL_STEP {
            const S* x = from + parts[t].c;
            FASTPOOL_ASSERT(x <= last || (tiles == 1 && x - last <= L));
            if (tiles == 1 && x > last) x = tail + (x - last);
            state_of(t).template add<pass>(sweeping ? load_stream<T, L>(x) : load<T, L>(x), Tap<V>(Tap<T>(tap + k)));
          });
        }
        unrolled<tiles>([&](auto t) FASTPOOL_STEP { blocks[t].end(state_of(t), is_long); });
      }
    };
    if constexpr (!kInRegisters) return walk([&](int t) FASTPOOL_STEP -> State& { return walked[t].state; });
    State held[tiles];
    unrolled<tiles>([&](auto t) FASTPOOL_STEP { held[t] = walked[t].state; });
    walk([&](int t) FASTPOOL_STEP -> State& { return held[t]; });
    unrolled<tiles>([&](auto t) FASTPOOL_STEP { walked[t].state = held[t]; });
  }
  // Whether a walk is worth a copy of the state, which the compiler sees that registers can hold.
  static constexpr bool kInRegisters = sizeof(State) <= 6 * sizeof(V);

  // The same for `count` tiles from channel `first` on, two at a time; `ahead` bytes for each.
  template <int pass, bool sweeping>
  __attribute__((noinline)) void walk_tiles(Tile* walked, int64_t count, int64_t first, int64_t channels, const Lines<S>& lines,
                                            const Window& window, int64_t i, int64_t j, int64_t begin, int64_t end, int64_t ahead,
                                            int64_t far) const {
    for (int64_t t = 0; t < count; t += 2) {
      const Part parts[2] = {part_at(first + t * L, channels), part_at(first + (t + 1) * L, channels)};
      if (t + 1 < count)
        walk_row<pass, 2, sweeping>(walked + t, parts, lines, window, i, j, begin, end, 2 * ahead, far);
      else
        walk_row<pass, 1, sweeping>(walked + t, parts, lines, window, i, j, begin, end, ahead, far);
    }
  }

  // Of one tile; where its sums `are_long`, in blocks.
  template <bool are_long>
  struct Passes {
    const Channels& self;
    const Lines<S>& lines;
    const Window& window;
    const Part& part;
    int64_t ahead;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0) state.template begin<pass>(facts, self.p);
      if constexpr (!kInRegisters) return walk<pass>(state);
      State held = state;
      walk<pass>(held);
      state = held;
    }
    template <int pass>
    FASTPOOL_HD void walk(State& held) const {
      constexpr bool in_blocks = are_long && pass + 1 == Reducer::passes;
      Totals<Reducer, V> totals;
      if constexpr (in_blocks) totals.start(held);
      const Span &d = window.d, &h = window.h, &w = window.w;
      const int64_t position = lines.step, step = w.step * position, line = h.step * lines.width * position;
      const S* slice = lines.x + (row_of_input(d, h, 0, 0, lines.height) * lines.width + w.start) * position + part.c;
      int64_t first_tap = tap_of_row(d, h, w);
      for (int64_t i = 0; i < d.count; ++i, slice += d.step * lines.height * lines.width * position, first_tap += h.size * w.size) {
        const S* row = slice;
        int64_t tap = first_tap;
        for (int64_t j = 0; j < h.count; ++j, row += line, tap += w.size) {
          const S* from = row;
          for (int64_t k = 0; k < w.count;) {
            const int64_t end = in_blocks ? window.end_of_block(k, w.count) : w.count;
            Block<Reducer, V> block;
            block.begin(held, in_blocks);
            for (; k < end; ++k, from += step) {
              if constexpr (pass == 0) ask_for(from, ahead);
              FASTPOOL_ASSERT(from <= self.last || from - self.last <= L);
              const S* x = from > self.last ? self.tail + (from - self.last) : from;
              held.template add<pass>(load<T, L>(x), Tap<V>(Tap<T>(tap + k)));
            }
            block.end(held, in_blocks);
            if (in_blocks && window.ends_total(i * h.count + j, end)) totals.take(held);
          }
        }
      }
      if constexpr (in_blocks) totals.give(held);
    }
  };

  FASTPOOL_HD void start(State& state, const Window& window) const { state.start(Tap<V>(Tap<T>(tap_of_row(window.d, window.h, window.w))), p); }

  void finish(const Place& at, Part part, const Window& window, const Facts<V>& facts, State& state) const {
    state.finish(facts);
    const auto odd = odd_lanes(state, part.count);
    store_lanes<Reducer, S>(p, level, window.out + part.c * level.output.channel, level.output.channel,
                            window.saved + part.c * p.saved.channel, p.saved.channel, part.count, state);
    repair_tile(at, part, odd);
  }
  FASTPOOL_HD void repair_tile(const Place& at, Part part, const auto& odd) const {
    repair(odd, part.count, [&](int64_t i) { forward_exact<Reducer>(p, level, {at.n, at.c + part.c + i, {at.o[0], at.o[1], at.o[2]}}); });
  }

  // Sums of neighbours.
  void pool_together(Place at, int64_t channels, const Lines<S>& lines, const Span& d, const Span& h) const {
    const Neighbours<T> windows(level.grid.axis[2], at.o[2]);
    for (int64_t tile = 0; tile < channels; tile += L) {
      const Part part = part_at(tile, channels);
      V sums[Neighbours<T>::count];
      unrolled<Neighbours<T>::count>([&](auto i) FASTPOOL_STEP { sums[i] = V(T(0)); });
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j)
          windows.add(sums, lines.x + row_of_input(d, h, i, j, lines.height) * lines.width * lines.step + part.c, lines.step);
      V pooled[Neighbours<T>::count];  // what outlives a call lies in memory all along
      unrolled<Neighbours<T>::count>([&](auto i) FASTPOOL_STEP { pooled[i] = sums[i]; });
      Place place = at;
      for (const V& sum : pooled) {
        const int64_t bin = level.bin(place.o);
        const Window window(d, h, h, level.output.at(at.n, at.c, bin), p.saved.at(at.n, at.c, level.first_bin + bin));
        State state;
        state.start(Tap<V>(Tap<T>(0)), p);
        state.template add<0>(sum, Tap<V>(Tap<T>(0)));
        finish(place, part, window, facts_at(place, part, level.first_bin + bin), state);
        ++place.o[2];
      }
    }
  }

  template <bool are_long>
  void pool_small(const Place& at, int64_t channels, const Lines<S>& lines, const Window& window, int64_t bin) const {
    for (int64_t tile = 0; tile < channels; tile += L) {
      const Part part = part_at(tile, channels);
      const Facts<V> facts = facts_at(at, part, bin);
      State state;
      start(state, window);
      for_each_pass<0, Reducer::passes>(
          Passes<are_long>{*this, lines, window, part, far_away ? ahead_of(tile, channels) : 0, facts, state});
      finish(at, part, window, facts, state);
    }
  }

  // Windows one after another, each small enough to stay in registers. Little besides loads and stores happens here, so
  // that the processor has many of them under way. Moves `at` and `window` past them: copies cost as much as a window.
  template <int height, int width>
  void pool_held(Place& at, int64_t channels, const Lines<S>& lines, Window& window, int64_t bin, int64_t windows) const {
    const int64_t row_step = window.h.step * lines.width * lines.step, step = window.w.step * lines.step;
    const S* first = lines.x + (row_of_input(window.d, window.h, 0, 0, lines.height) * lines.width + window.w.start) * lines.step;
    // Prefetchers lose track of positions side by side, so what the next window sees first is asked for.
    const auto is_new = [](int k) FASTPOOL_STEP { return height * width <= 4 || (k / width > 0 && k % width > 0); };
    const int64_t far = level.grid.axis[2].stride * lines.step * int64_t(sizeof(S));
    const bool asks = channels > 2 * L && far_away;
    for (int64_t end = at.o[2] + windows; at.o[2] < end; ++at.o[2], ++bin) {
      Facts<V> facts = facts_at(at, {0, L}, bin);
      for (int64_t tile = 0; tile < channels; tile += L) {
        const int64_t c = smaller(tile, channels - L);
        if (Reducer::uses_uniform || (Reducer::uses_parameter && p.parameter)) facts = facts_at(at, {c, L}, bin);
        const S* from = first + c;
        V x[height * width];
        if (asks)
          unrolled<height * width>([&](auto k) FASTPOOL_STEP {
            if (is_new(k)) ask_for<L* int(sizeof(S))>(from + k / width * row_step + k % width * step, far);
          });
        unrolled<height * width>([&](auto k) FASTPOOL_STEP {
          const S* element = from + k / width * row_step + k % width * step;
          x[k] = height * width > 4 ? load<T, L>(element) : load_stream<T, L>(element);  // more of them come from the cache
        });
        State state;
        state.start(Tap<V>(Tap<T>(0)), p);
        for_each_pass<0, Reducer::passes>(Held<V, State, height * width>{p, facts, state, x});
        state.finish(facts);
        const auto odd = odd_lanes(state, L);
        if (streams)
          store_results<Reducer, S>(p, level, window.out + c, window.saved + c, state,
                                    [](auto* to, bool is_saved, auto lanes) FASTPOOL_STEP {
                                      if (is_saved)
                                        store(to, lanes);
                                      else
                                        store_past(to, lanes);
                                    });
        else
          store_lanes<Reducer, S>(p, level, window.out + c, 1, window.saved + c, 1, L, state);
        repair_tile(at, {c, L}, odd);
      }
      first += level.grid.axis[2].stride * lines.step;
      window.out += level.output.position, window.saved += p.saved.position;
    }
  }

  // One row of the input, which is row (slice, line) of the windows of a row of bins.
  void sweep_row(Place at, const Lines<S>& lines, const Span& d, const Span& h, int64_t slice, int64_t line) {
    const Axis* axis = level.grid.axis;
    const int64_t channels = swept_unit.channels, tiles = ceil_div(channels, L);
    const int64_t first_bin = level.bin(at.o), bin = level.first_bin + first_bin;
    const int64_t out = level.output.at(at.n, at.c, first_bin), saved = p.saved.at(at.n, at.c, bin);
    const bool begins = slice == d.first && line == h.first;
    const bool ends = slice == d.first + d.count - 1 && line == h.first + h.count - 1;
    if (Reducer::uses_divisor && ends) divisors.move_to(at.o);
    // A copy of the states takes as long as a few positions.
    const int64_t positions = larger(4 * kSmallWindow / (channels * int64_t(sizeof(S))), 1);
    Tile* tile = swept + OutputRows(level.grid).slot(at.o[0], at.o[1]) * axis[2].out * tiles;
    for (at.o[2] = 0; at.o[2] < axis[2].out; ++at.o[2], tile += tiles) {
      const int64_t o = at.o[2];
      const Window window(d, h, swept_columns[o], out + o * level.output.position, saved + o * p.saved.position);
      for (int64_t t = 0; begins && t < tiles; ++t) start(tile[t], window);
      const int64_t i = slice - d.first, j = line - h.first;
      for (int64_t k = 0, end; k < window.w.count; k = end) {
        end = window.end_of_step(k, positions);
        walk_tiles<0, true>(tile, tiles, 0, channels, lines, window, i, j, k, end, 0, 0);
        end_step(tile, tiles, window, i, j, end);
      }
      for (int64_t t = 0; ends && t < tiles; ++t) {
        const Part part = part_at(t * L, channels);
        if (window.sums_are_long) tile[t].totals.give(tile[t].state);
        finish(at, part, window, facts_at(at, part, bin + o), tile[t].state);
      }
    }
  }

  FASTPOOL_HD void start(Tile& tile, const Window& window) const {
    start(tile.state, window);
    if (window.sums_are_long) tile.totals.start(tile.state);
  }
  // After what lies before element `end` of row `j` of slice `i`.
  FASTPOOL_HD void end_step(Tile* tile, int64_t tiles, const Window& window, int64_t i, int64_t j, int64_t end) const {
    if (window.ends_total(i * window.h.count + j, end))
      for (int64_t t = 0; t < tiles; ++t) tile[t].totals.take(tile[t].state);
  }

  // A large window goes through the cache once: a few positions at a time for several tiles of channels.
  struct LargePasses {
    const Channels& self;
    const Place& at;
    const Lines<S>& lines;
    const Window& window;
    int64_t channels, bin, first, tiles;  // of which `tiles` from channel `first` on
    Tile* tile;

    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0)
        for (int64_t t = 0; t < tiles; ++t)
          tile[t].state.template begin<pass>(self.facts_at(at, part_at(first + t * L, channels), bin), self.p);
      const int64_t positions = larger(kSmallWindow / (smaller(channels, kMostTiles * L) * int64_t(sizeof(S))), 1);
      // What the tile asks for in advance: its part of the window's next row, or of the next positions.
      const int64_t next = window.h.count > 1 ? window.h.step * lines.width : positions * window.w.step;
      const int64_t far = larger(next * lines.step * int64_t(sizeof(S)), kAhead);
      for (int64_t i = 0; i < window.d.count; ++i)
        for (int64_t j = 0; j < window.h.count; ++j)
          for (int64_t k = 0, end; k < window.w.count; k = end) {
            end = window.end_of_step(k, positions);
            self.template walk_tiles<pass, false>(tile, tiles, first, channels, lines, window, i, j, k, end,
                                                  self.far_away && channels > 2 * L ? L * int64_t(sizeof(S)) : 0, far);
            if constexpr (kSumsIn<Reducer, pass>) self.end_step(tile, tiles, window, i, j, end);
          }
      for (int64_t t = 0; kSumsIn<Reducer, pass> && window.sums_are_long && t < tiles; ++t) tile[t].totals.give(tile[t].state);
    }
  };

  void pool_large(const Place& at, int64_t channels, const Lines<S>& lines, const Window& window, int64_t bin) const {
    Tile tile[kMostTiles];
    for (int64_t first = 0; first < channels; first += kMostTiles * L) {
      const int64_t tiles = smaller(kMostTiles, ceil_div(channels - first, L));
      for (int64_t t = 0; t < tiles; ++t) start(tile[t], window);
      for_each_pass<0, Reducer::passes>(LargePasses{*this, at, lines, window, channels, bin, first, tiles, tile});
      for (int64_t t = 0; t < tiles; ++t) {
        const Part part = part_at(first + t * L, channels);
        finish(at, part, window, facts_at(at, part, bin), tile[t].state);
      }
    }
  }
};

// All levels that are swept: the input is read from memory once.
template <class Reducer, class S>
class ChannelLevels {
 public:
  using OneLevel = Channels<Reducer, S, WindowsOf::both>;

  ChannelLevels(const Problem& p, uint64_t seed, int64_t channels, Arena arena) : p(p), levels(arena.take<OneLevel>(p.level_count)) {
    for (int32_t l = 0; l < p.level_count; ++l)
      if (OneLevel::sweeps(p, p.levels[l], channels)) {
        new (levels + count) OneLevel(p, p.levels[l], seed, channels, arena);
        levels[count++].prepare_sweep(channels, arena);
      }
  }

  void run(const Units::Unit& unit) const {
    const Lines<S> lines{static_cast<const S*>(p.x) + p.input.at(unit.n, unit.c, 0), p.extent[1], p.extent[2], p.input.position};
    Range seen{p.extent[0] * p.extent[1], 0};
    for (int32_t l = 0; l < count; ++l) {
      const Range rows = levels[l].begin_sweep(unit);
      seen = {smaller(seen.begin, rows.begin), larger(seen.end, rows.end)};
    }
    for (int64_t row = seen.begin; row < seen.end; ++row)
      for (int32_t l = 0; l < count; ++l) levels[l].sweep(lines, row / p.extent[1], row % p.extent[1]);
  }

 private:
  const Problem& p;
  OneLevel* levels;
  int32_t count = 0;
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
