// Forward schedules whose lanes are channels: of channels-last input, and of contiguous planes that are transposed.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Where lanes lie: `height` x `width` positions a slice, `step` elements apart, of which none is read beyond `end`.
template <class S>
struct Lines {
  const S *x, *end;
  int64_t height, width, step;
};

// Which windows a schedule is compiled for: those that stay in the first-level cache while each tile of channels walks
// them, larger ones, or both.
enum class WindowsOf { small, large, both };

// One unit's channels at.c … at.c + count - 1; every window is walked once for a tile of L of them.
template <class Reducer, class S, WindowsOf windows, class Result = S>
class Channels {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  static FASTPOOL_HD int64_t scratch_bytes(const Grid& grid, int64_t channels) {
    return (grid.axis[2].out + 4 * words_of(channels) + L) * int64_t(sizeof(T)) + kSlack;
  }
  Channels(const Problem& p, const Level& level, uint64_t seed, int64_t channels, Arena& arena)
      : p(p), level(level), seed(seed), word_step(words_of(channels)) {
    divisors.columns = arena.take<T>(level.grid.axis[2].out);
    if (Reducer::uses_divisor) divisors.prepare(p, level);
    drawn = arena.take<T>(4 * word_step + L);
  }

  // One row of bins. Spans of depth and height are in the coordinates of `lines`.
  void run(Place at, int64_t channels, const Lines<S>& lines, const Span& d, const Span& h) {
    if constexpr (Reducer::uses_divisor) divisors.set_row(p, level, at.o);
    int64_t block = -1;
    const int64_t first_bin = level.bin(at.o), out = level.output.at(at.n, at.c, first_bin);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + first_bin);
    for (int64_t o = 0; o < level.grid.axis[2].out; ++o) {
      at.o[2] = o;
      const Span w = level.grid.axis[2].window(o);
      const int64_t bin = level.first_bin + first_bin + o;
      if constexpr (Reducer::uses_uniform)
        if (bin / 4 != block) {
          block = bin / 4;
          draw_channels(p, seed, at.n, at.c, block, channels, word_step, drawn);
        }
      const Window window{d, h, w, out + o * level.output.position, saved + o * p.saved.position};
      const int64_t bytes = d.count * h.count * w.count * channels * int64_t(sizeof(S));
      if (windows == WindowsOf::large || (windows == WindowsOf::both && bytes > kSmallWindow && channels > L))
        pool_large(at, channels, lines, window, bin);
      else
        pool_small(at, channels, lines, window, bin);
    }
  }

 private:
  static constexpr int64_t kSmallWindow = 16 << 10;
  // Bytes to ask for in advance: the walk jumps between rows, which hardware prefetchers follow badly.
  static constexpr int64_t kAhead = 4096;
  // The first tile asks for a whole position where that is short, so that the others find it.
  static FASTPOOL_HD int64_t ahead_of(int64_t tile, int64_t channels) {
    if (channels > 4 * L) return L * int64_t(sizeof(S));
    return tile == 0 ? channels * int64_t(sizeof(S)) : 0;
  }
  static constexpr int kMostTiles = 8;

  struct Window {
    const Span &d, &h, &w;
    int64_t out, saved;
  };

  static FASTPOOL_HD int64_t words_of(int64_t channels) { return round_up(channels, larger(L, kBlocks)); }

  const Problem& p;
  const Level& level;
  uint64_t seed;
  int64_t word_step;
  T* drawn;
  Divisors<T> divisors;

  FASTPOOL_HD Facts<V> facts_at(const Place& at, int64_t c, int64_t count, int64_t bin) const {
    Facts<V> facts;
    if constexpr (Reducer::uses_divisor) facts.divisor = V(divisors.rows * divisors.columns[at.o[2]]);
    if constexpr (Reducer::uses_alpha) facts.alpha = alpha_lanes<T>(p, at.n, at.c + c, bin, true, count);
    if constexpr (Reducer::uses_uniform) facts.uniform = load<T, L>(drawn + bin % 4 * word_step + c);
    return facts;
  }

  static FASTPOOL_HD V load_lanes(const S* from, const Lines<S>& lines, int64_t count) {
    return from + L <= lines.end ? load<T, L>(from) : load_part<T, L>(from, count);
  }

  // Elements begin … end - 1 of row `j` of the window in its slice `i`.
  template <int pass>
  static FASTPOOL_HD void walk_row(State& state, const Lines<S>& lines, const Window& window, int64_t i, int64_t j, int64_t begin, int64_t end,
                             int64_t c, int64_t count, int64_t ahead) {
    const Span &d = window.d, &h = window.h, &w = window.w;
    const int64_t row = ((d.start + i * d.step) * lines.height + h.start + j * h.step) * lines.width + w.start;
    const int64_t tap = ((d.first + i) * h.size + h.first + j) * w.size + w.first;
    const S* from = lines.x + (row + begin * w.step) * lines.step + c;
    for (int64_t k = begin; k < end; ++k, from += w.step * lines.step) {
      if constexpr (pass == 0)
        for (int64_t byte = 0; byte < ahead; byte += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead + byte);
      state.template add<pass>(load_lanes(from, lines, count), Tap<V>(Tap<T>(tap + k)));
    }
  }

  struct Passes {
    const Problem& p;
    const Lines<S>& lines;
    const Window& window;
    int64_t c, count, ahead;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0) state.template begin<pass>(facts, p);
      for (int64_t i = 0; i < window.d.count; ++i)
        for (int64_t j = 0; j < window.h.count; ++j) walk_row<pass>(state, lines, window, i, j, 0, window.w.count, c, count, ahead);
    }
  };

  FASTPOOL_HD void start(State& state, const Window& window) const {
    state.start(Tap<V>(Tap<T>((window.d.first * window.h.size + window.h.first) * window.w.size + window.w.first)), p);
  }

  void finish(const Place& at, int64_t c, int64_t count, const Window& window, const Facts<V>& facts, State& state) const {
    state.finish(facts);
    store_lanes<Reducer, Result>(p, level, window.out + c * level.output.channel, level.output.channel, window.saved + c * p.saved.channel,
                                 p.saved.channel, count, state);
    if (all_ordinary(state, count, V())) return;
    typename V::Signed ordinary[L];
    store(ordinary, state.ordinary());
    for (int64_t i = 0; i < count; ++i)
      if (!ordinary[i]) forward_exact<Reducer>(p, level, {at.n, at.c + c + i, {at.o[0], at.o[1], at.o[2]}});
  }

  void pool_small(const Place& at, int64_t channels, const Lines<S>& lines, const Window& window, int64_t bin) const {
    for (int64_t tile = 0; tile < channels; tile += L) {
      const int64_t c = smaller(tile, larger(channels - L, 0)), count = smaller(L, channels - c);
      const Facts<V> facts = facts_at(at, c, count, bin);
      State state;
      start(state, window);
      for_each_pass<0, Reducer::passes>(Passes{p, lines, window, c, count, ahead_of(tile, channels), facts, state});
      finish(at, c, count, window, facts, state);
    }
  }

  struct LargePasses {
    const Channels& self;
    const Place& at;
    const Lines<S>& lines;
    const Window& window;
    int64_t first, channels, bin;
    State* states;

    template <int pass>
    FASTPOOL_HD void run() const {
      const int64_t positions = larger(kSmallWindow / (channels * int64_t(sizeof(S))), 1);
      for (int64_t i = 0; i < window.d.count; ++i)
        for (int64_t j = 0; j < window.h.count; ++j)
          for (int64_t k = 0; k < window.w.count; k += positions)
            for (int64_t tile = 0; tile < kMostTiles && first + tile * L < channels; ++tile) {
              const int64_t c = smaller(first + tile * L, larger(channels - L, 0)), count = smaller(L, channels - c);
              State state = states[tile];
              if (pass > 0 && i == 0 && j == 0 && k == 0) state.template begin<pass>(self.facts_at(at, c, count, bin), self.p);
              walk_row<pass>(state, lines, window, i, j, k, smaller(k + positions, window.w.count), c, count, ahead_of(tile * L, channels));
              states[tile] = state;
            }
    }
  };

  // A large window goes through the cache once: a few positions at a time for several tiles of channels.
  void pool_large(const Place& at, int64_t channels, const Lines<S>& lines, const Window& window, int64_t bin) const {
    State states[kMostTiles];
    for (int64_t first = 0; first < channels; first += kMostTiles * L) {
      for (State& state : states) start(state, window);
      for_each_pass<0, Reducer::passes>(LargePasses{*this, at, lines, window, first, channels, bin, states});
      for (int64_t tile = 0; tile < kMostTiles && first + tile * L < channels; ++tile) {
        const int64_t c = smaller(first + tile * L, larger(channels - L, 0)), count = smaller(L, channels - c);
        finish(at, c, count, window, facts_at(at, c, count, bin), states[tile]);
      }
    }
  }
};

// Contiguous input, bins of uneven size or short rows: lanes are neighbouring planes. They are transposed into scratch
// and then walked like channels: small planes whole, others as far as one row of bins sees them.
template <class Reducer, class S>
class Planes {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  static int64_t scratch_bytes(const Grid& grid) {
    return held_positions(grid) * L * int64_t(sizeof(T)) + Lanes::scratch_bytes(grid, L) + kSlack;
  }
  Planes(const Problem& p, const Level& level, uint64_t seed, Arena arena)
      : p(p),
        level(level),
        values(arena.take<T>(held_positions(level.grid) * L)),
        end(values + held_positions(level.grid) * L),
        lanes(p, level, seed, L, arena) {}

  // The rows of bins first_row … last_row - 1 of the planes c … c + count - 1.
  void run(int64_t n, int64_t c, int64_t count, int64_t first_row, int64_t last_row) {
    const Grid& grid = level.grid;
    const bool whole = is_small(grid);
    if (whole) turn(0, n, c, count, 0, p.positions());
    for (int64_t row = first_row; row < last_row; ++row) {
      const Place at{n, c, {row / grid.axis[1].out, row % grid.axis[1].out, 0}};
      const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]);
      if (whole) {
        lanes.run(at, count, Lines<T>{values, end, p.extent[1], p.extent[2], L}, d, h);
        continue;
      }
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j)
          turn((i * h.count + j) * p.extent[2], n, c, count, ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2],
               p.extent[2]);
      // The rows in scratch follow each other without steps.
      const Span slices{0, d.count, 1, d.first, d.size}, lines_of_slice{0, h.count, 1, h.first, h.size};
      lanes.run(at, count, Lines<T>{values, end, h.count, p.extent[2], L}, slices, lines_of_slice);
    }
  }

 private:
  using Lanes = Channels<Reducer, T, WindowsOf::small, S>;

  const Problem& p;
  const Level& level;
  T *values, *end;
  Lanes lanes;

  static bool is_small(const Grid& grid) { return grid.axis[0].in * grid.axis[1].in * grid.axis[2].in <= kSmallPlane; }
  static int64_t held_positions(const Grid& grid) {
    if (is_small(grid)) return grid.axis[0].in * grid.axis[1].in * grid.axis[2].in;
    int64_t rows = 1;
    for (int a = 0; a < 2; ++a) rows *= grid.axis[a].adaptive() ? grid.axis[a].in / grid.axis[a].out + 2 : grid.axis[a].kernel;
    return rows * grid.axis[2].in;
  }
  // `length` positions of the planes, from `from` on, to scratch position `to` and following.
  void turn(int64_t to, int64_t n, int64_t c, int64_t count, int64_t from, int64_t length) const {
    transpose(values + to * L, L, static_cast<const S*>(p.x) + p.input.at(n, c, from), p.input.channel, count, length);
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
