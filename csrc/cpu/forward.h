// Forward schedules: how the outputs of a pooling are given to lanes. Bits do not depend on the choice, except for
// sums over bins and over windows of more than 256 taps.
#pragma once

#include "cpu/capability.h"
#include "cpu/lanes.h"

namespace fastpool::cpu {

constexpr int64_t kRowBytes = 128 << 10;  // input rows of one tile stay in the second-level cache

// Calls f<0>, f<1>, … f<passes - 1>.
template <int pass, int passes, class Step>
FASTPOOL_HD void for_each_pass(Step& step) {
  if constexpr (pass < passes) {
    step.template run<pass>();
    for_each_pass<pass + 1, passes>(step);
  }
}

// Contiguous input, sliding windows: lanes are neighbouring outputs. Input rows are widened into scratch, split by
// their position modulo the stride and padded, so that every tap is a plain load.
template <class Reducer, class T>
struct Rows {
  static constexpr int L = kLanes<T>;
  using State = typename Reducer::template State<T, L>;

  struct Tile {
    int64_t outputs;  // outputs in one tile
    int64_t phases, phase_length, row_length;
  };

  static FASTPOOL_HD Tile tile_of(const Grid& grid) {
    const Axis& w = grid.axis[2];
    const int64_t phases = smaller(w.stride, w.extent()), slack = (w.extent() - 1) / w.stride;
    const int64_t rows = grid.axis[0].kernel * grid.axis[1].kernel;
    const int64_t affordable = kRowBytes / int64_t(sizeof(T)) / (rows * phases) - slack;
    const int64_t outputs = round_up(larger(smaller(w.out, affordable), L), L);
    return {outputs, phases, outputs + slack, phases * (outputs + slack)};
  }
  static FASTPOOL_HD int64_t scratch_values(const Grid& grid) {
    return tile_of(grid).row_length * grid.axis[0].kernel * grid.axis[1].kernel;
  }

  // Elements (j * stride + phase) of the padded row for j from `first`, `count` of them.
  static FASTPOOL_HD void load_phase(const Moves& moves, const Axis& w, const char* row, int64_t first, int64_t phase, int64_t count, T* to) {
    const int64_t origin = first * w.stride + phase - w.before;
    const int64_t begin = smaller(origin < 0 ? ceil_div(-origin, w.stride) : 0, count);
    const int64_t end = larger(smaller(origin < w.in ? ceil_div(w.in - origin, w.stride) : 0, count), begin);
    fill_run(to, Reducer::template padding<T>(), begin);
    moves.widen(to + begin, moves.at(row, origin + begin * w.stride), w.stride, end - begin);
    fill_run(to + end, Reducer::template padding<T>(), count - end);
  }

  struct Passes {
    const Problem& p;
    const Grid& grid;
    const Span &d, &h;
    const Tile& tile;
    const T* rows;
    int64_t lane0;
    const LaneFacts<T, L>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() {
      const Axis& w = grid.axis[2];
      if (pass > 0)
#pragma omp simd
        for (int i = 0; i < L; ++i) state.template begin<pass>(i, facts.of(i), p);
      const T* row = rows + lane0;
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j, row += tile.row_length) {
          const Tap<T> tap = Tap<T>(((d.first + i) * h.size + h.first + j) * w.kernel);
          int64_t phase = 0, shift = 0;
          for (int64_t k = 0; k < w.kernel; ++k) {
            const T* x = row + phase * tile.phase_length + shift;
#pragma omp simd
            for (int l = 0; l < L; ++l) state.template add<pass>(l, x[l], Tap<T>(tap + k));
            phase += w.dilation;
            while (phase >= w.stride) {
              phase -= w.stride;
              ++shift;
            }
          }
        }
    }
  };

  // Facts of the outputs o[2], o[2] + 1, … of one row.
  static FASTPOOL_HD void find_facts(const Problem& p, const Context& context, const Level& level, Place at, int count, LaneFacts<T, L>& facts) {
    const int64_t bin = level.first_bin + level.bin(at.o);
    if constexpr (Reducer::uses_divisor) {
      if (level.clipped) {
        fill_run(facts.divisor, T(1), L);
        Place here = at;
        for (int i = 0; i < count; ++i, ++here.o[2]) facts.divisor[i] = divisor_of<T>(p, level.grid, here.o);
      } else {
        fill_run(facts.divisor, divisor_of<T>(p, level.grid, at.o), L);
      }
    }
    if constexpr (Reducer::uses_alpha)
      for (int i = 0; i < L; ++i) facts.alpha[i] = i < count ? alpha_of<T>(p, at.n, at.c, bin + i) : T(0);
    if constexpr (Reducer::uses_uniform) {
      float drawn[L];
      fill_run(drawn, 0.0f, L);
      uniforms().row(p, context.seed, at.n, at.c, bin, count, drawn);
#pragma omp simd
      for (int i = 0; i < L; ++i) facts.uniform[i] = T(drawn[i]);
    }
  }

  static FASTPOOL_HD void run(const Problem& p, const Context& context, const Level& level, Place at, T* rows) {
    const Grid& grid = level.grid;
    const Axis& w = grid.axis[2];
    const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]);
    const Tile tile = tile_of(grid);
    const int64_t plane = p.input.at(at.n, at.c, 0);
    for (int64_t first = 0; first < w.out; first += tile.outputs) {
      const int64_t outputs = smaller(tile.outputs, w.out - first);
      const int64_t length = round_up(outputs, L) + tile.phase_length - tile.outputs;
      T* to = rows;
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j, to += tile.row_length) {
          const char* row = context.moves.at(p.x, plane + ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2]);
          for (int64_t phase = 0; phase < tile.phases; ++phase)
            load_phase(context.moves, w, row, first, phase, length, to + phase * tile.phase_length);
        }
      for (int64_t lane0 = 0; lane0 < outputs; lane0 += L) {
        const int count = int(smaller(L, outputs - lane0));
        at.o[2] = first + lane0;
        LaneFacts<T, L> facts;
        find_facts(p, context, level, at, count, facts);
        State state;
#pragma omp simd
        for (int i = 0; i < L; ++i) state.start(i, 0, p);
        Passes passes{p, grid, d, h, tile, rows, lane0, facts, state};
        for_each_pass<0, Reducer::passes>(passes);
        const bool ordinary = all_ordinary<T>(state, count);
#pragma omp simd
        for (int i = 0; i < L; ++i) state.finish(i, facts.of(i), p);
        store_lanes<Reducer, T>(p, context.moves, level, at, level.output.position, p.saved.position, count, state);
        if (!ordinary)
          for (int i = 0; i < count; ++i)
            if (!state.ordinary(i)) forward_exact<Reducer, T>(p, level, {at.n, at.c, {at.o[0], at.o[1], at.o[2] + i}});
      }
    }
  }
};

// Contiguous input, large windows: 32 lanes share one window, lane = tap mod 32.
template <class Reducer, class T>
struct Flat {
  static constexpr int L = kClasses, kChunk = 1024;
  using State = typename Reducer::template State<T, L>;

  struct Passes {
    const Problem& p;
    const Moves& moves;
    const Grid& grid;
    const Place& at;
    const Facts<T>& facts;
    State& state;
    T* chunk;

    template <int pass>
    FASTPOOL_HD void add(const T* x, int64_t taps, int64_t first_tap) {
      for (int64_t t = 0; t < taps; t += L) {
#pragma omp simd
        for (int l = 0; l < L; ++l) state.template add<pass>(l, x[t + l], Tap<T>(first_tap + t + l));
      }
    }

    template <int pass>
    FASTPOOL_HD void run() {
      const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]), w = grid.axis[2].window(at.o[2]);
      const T pad = Reducer::template padding<T>();
      const int64_t plane = p.input.at(at.n, at.c, 0);
      int64_t filled = 0, tap = (d.first * h.size + h.first) * w.size;  // of the first value in the chunk
      const int64_t lead = tap % L;
      fill_run(chunk, pad, lead);
      filled = lead;
      tap -= lead;
      for (int64_t i = 0; i < d.count; ++i) {
        const int64_t skipped = i == 0 ? 0 : (h.size - h.count) * w.size;
        for (int64_t k = 0; k < skipped; ++k) push<pass>(pad, filled, tap);
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t row = plane + ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2] + w.start;
          for (int64_t k = 0; k < w.first; ++k) push<pass>(pad, filled, tap);
          for (int64_t k = 0; k < w.count;) {
            if (moves.same && w.step == 1 && filled == 0 && w.count - k >= L) {
              // Whole steps of all lanes are read where they lie.
              const int64_t run = (w.count - k) / L * L;
              add<pass>(static_cast<const T*>(p.x) + row + k, run, tap);
              tap += run;
              k += run;
              continue;
            }
            const int64_t run = smaller(kChunk - filled, w.count - k);
            moves.widen(chunk + filled, moves.at(p.x, row + k * w.step), w.step, run);
            k += run;
            filled += run;
            if (filled == kChunk) flush<pass>(filled, tap);
          }
          for (int64_t k = w.first + w.count; k < w.size; ++k) push<pass>(pad, filled, tap);
        }
      }
      const int64_t rest = round_up(filled, L);
      fill_run(chunk + filled, pad, rest - filled);
      add<pass>(chunk, rest, tap);
      state.template fold<pass>(facts, p);
    }
    template <int pass>
    FASTPOOL_HD void push(T value, int64_t& filled, int64_t& tap) {
      chunk[filled++] = value;
      if (filled == kChunk) flush<pass>(filled, tap);
    }
    template <int pass>
    FASTPOOL_HD void flush(int64_t& filled, int64_t& tap) {
      add<pass>(chunk, kChunk, tap);
      tap += kChunk;
      filled = 0;
    }
  };

  // Lane 0 holds what the window gave.
  static FASTPOOL_HD void store_found(const Problem& p, const Moves& moves, const Level& level, const Place& at, const State& state) {
    const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    const T y = state.y(0), second = state.second(0);
    moves.narrow(moves.at(p.y, level.output_base + out), 1, &y, 1);
    if (Reducer::has_second && !Reducer::second_is_difference) moves.narrow(moves.at(p.second, level.second_base + out), 1, &second, 1);
    store_saved<Reducer>(p, saved, state);
  }

  static FASTPOOL_HD void run(const Problem& p, const Context& context, const Level& level, Place at) {
    T chunk[kChunk];
    for (at.o[2] = 0; at.o[2] < level.grid.axis[2].out; ++at.o[2]) {
      const Facts<T> facts = facts_of<Reducer, T>(p, level, at.n, at.c, at.o);
      State state;
#pragma omp simd
      for (int i = 0; i < L; ++i) state.start(i, 0, p);
      Passes passes{p, context.moves, level.grid, at, facts, state, chunk};
      for_each_pass<0, Reducer::passes>(passes);
      if (state.ordinary(0)) {
        state.finish(0, facts, p);
        store_found(p, context.moves, level, at, state);
      } else {
        forward_exact<Reducer, T>(p, level, at);
      }
    }
  }
};

// Where the lanes of an input element lie: `height` x `width` positions a slice, `step` elements apart.
struct Lines {
  const Moves& moves;
  const void* x;
  int64_t origin, height, width, step;
};

// Channels-last input: lanes are neighbouring channels, and every window is walked once for all of them.
template <class Reducer, class T>
struct Channels {
  static constexpr int L = kLanes<T>;
  using State = typename Reducer::template State<T, L>;

  struct Passes {
    const Problem& p;
    const Lines& lines;
    const Span &d, &h, &w;
    int count;
    const LaneFacts<T, L>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() {
      if (pass > 0)
#pragma omp simd
        for (int i = 0; i < L; ++i) state.template begin<pass>(i, facts.of(i), p);
      T buffer[L];
      fill_run(buffer, T(0), L);
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t row = ((d.start + i * d.step) * lines.height + h.start + j * h.step) * lines.width;
          const Tap<T> tap = Tap<T>(((d.first + i) * h.size + h.first + j) * w.size + w.first);
          for (int64_t k = 0; k < w.count; ++k) {
            const void* from = lines.moves.at(lines.x, lines.origin + (row + w.start + k * w.step) * lines.step);
            if (pass == 0) {
              __builtin_prefetch(static_cast<const char*>(from) + kAhead);
              __builtin_prefetch(static_cast<const char*>(from) + kAhead + 64);
            }
            const T* lanes = lines.moves.lanes<L>(from, 1, count, buffer);
#pragma omp simd
            for (int l = 0; l < L; ++l) state.template add<pass>(l, lanes[l], Tap<T>(tap + k));
          }
        }
    }
  };

  // One window of `count` lanes.
  static FASTPOOL_HD void pool(const Problem& p, const Moves& moves, const Lines& lines, const Level& level, const Place& at, const Span& d,
                               const Span& h, const Span& w, int count, const LaneFacts<T, L>& facts) {
    const Tap<T> first = Tap<T>((d.first * h.size + h.first) * w.size + w.first);
            State state;
#pragma omp simd
            for (int i = 0; i < L; ++i) state.start(i, first, p);
            Passes passes{p, lines, d, h, w, count, facts, state};
            for_each_pass<0, Reducer::passes>(passes);
            const bool ordinary = all_ordinary<T>(state, count);
#pragma omp simd
            for (int i = 0; i < L; ++i) state.finish(i, facts.of(i), p);
            store_lanes<Reducer, T>(p, moves, level, at, level.output.channel, p.saved.channel, count, state);
            if (!ordinary)
              for (int i = 0; i < count; ++i)
                if (!state.ordinary(i)) forward_exact<Reducer, T>(p, level, {at.n, at.c + i, {at.o[0], at.o[1], at.o[2]}});
  }

  // One row of bins for `channels` channels from at.c on.
  static FASTPOOL_HD void run(const Problem& p, const Context& context, const Level& level, Place at, int64_t channels) {
    const Grid& grid = level.grid;
    const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]);
    const int64_t first_channel = at.c;
    LaneFacts<T, L> facts;
    float words[Reducer::uses_uniform ? kMostTiles : 1][4 * kMostUniforms] = {};
    int64_t block = -1;
    for (at.o[2] = 0; at.o[2] < grid.axis[2].out; ++at.o[2]) {
      const Span w = grid.axis[2].window(at.o[2]);
      const int64_t bin = level.first_bin + level.bin(at.o);
      if constexpr (Reducer::uses_divisor)
        if (level.clipped || grid.axis[2].adaptive() || at.o[2] == 0) fill_run(facts.divisor, divisor_of<T>(p, grid, at.o), L);
      // One Philox block serves four neighbouring outputs of a channel.
      const bool new_block = bin / 4 != block;
      block = bin / 4;
      for (int64_t tile = 0; tile * L < channels; ++tile) {
        at.c = first_channel + tile * L;
        const int count = int(smaller(L, channels - tile * L));
        if constexpr (Reducer::uses_alpha)
          for (int i = 0; i < L; ++i) facts.alpha[i] = i < count ? alpha_of<T>(p, at.n, at.c + i, bin) : T(0);
        if constexpr (Reducer::uses_uniform) {
          if (new_block) uniforms().channels(p, context.seed, at.n, at.c, block, count, words[tile]);
#pragma omp simd
          for (int i = 0; i < L; ++i) facts.uniform[i] = T(words[tile][bin % 4 * kMostUniforms + i]);
        }
        const Lines lines{context.moves, p.x, p.input.at(at.n, at.c, 0), p.extent[1], p.extent[2], p.input.position};
        pool(p, context.moves, lines, level, at, d, h, w, count, facts);
      }
    }
  }
};

// Contiguous input, bins of uneven size: lanes are neighbouring planes, whose rows under one row of bins are
// transposed into scratch and then walked like channels.
template <class Reducer, class T>
struct Planes {
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD int64_t scratch_values(const Grid& grid) {
    int64_t rows = 1;
    for (int a = 0; a < 2; ++a) rows *= grid.axis[a].adaptive() ? grid.axis[a].in / grid.axis[a].out + 2 : grid.axis[a].kernel;
    return (rows * L + 1) * grid.axis[2].in;
  }

  // One row of bins for the planes at.c … at.c + count - 1.
  static FASTPOOL_HD void run(const Problem& p, const Context& context, const Level& level, Place at, int count, T* values) {
    const Grid& grid = level.grid;
    const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]);
    const int64_t width = p.extent[2], first_plane = at.c;
    T* row = values + d.count * h.count * width * L;
    for (int64_t i = 0; i < d.count; ++i)
      for (int64_t j = 0; j < h.count; ++j)
        for (int l = 0; l < count; ++l) {
          const int64_t from = ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * width;
          context.moves.widen(row, context.moves.at(p.x, p.input.at(at.n, at.c + l, from)), 1, width);
          T* to = values + (i * h.count + j) * width * L + l;
          for (int64_t k = 0; k < width; ++k) to[k * L] = row[k];
        }
    // The rows in scratch follow each other without steps.
    const Span slices{0, d.count, 1, d.first, d.size}, lines_of_slice{0, h.count, 1, h.first, h.size};
    const Lines lines{moves_of(sizeof(T) == 8 ? Dtype::float64 : Dtype::float32), values, 0, h.count, width, L};
    LaneFacts<T, L> facts;
    for (at.o[2] = 0; at.o[2] < grid.axis[2].out; ++at.o[2]) {
      for (int l = 0; l < L; ++l) {
        const Facts<T> fact = facts_of<Reducer, T>(p, level, at.n, first_plane + (l < count ? l : 0), at.o);
        facts.divisor[l] = fact.divisor;
        facts.alpha[l] = fact.alpha;
        facts.uniform[l] = fact.uniform;
      }
      Channels<Reducer, T>::pool(p, context.moves, lines, level, at, slices, lines_of_slice, grid.axis[2].window(at.o[2]), count, facts);
    }
  }
};

// A unit of work is one row of bins: of a plane, or of a tile of channels. A plane's levels follow each other, so
// that the plane is read from memory once.
template <class Reducer, class T>
struct Forward {
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD int64_t tiles(const Problem& p) {
    return p.lanes_are_channels ? ceil_div(p.channels, channels_per_unit<T>(p, p.bin_rows)) : p.channels;
  }
  static int64_t units(const Problem& p) { return p.samples * p.bin_rows * tiles(p); }

  static FASTPOOL_HD const Level& level_of(const Problem& p, int64_t row) {
    int32_t l = 0;
    while (l + 1 < p.level_count && row >= p.levels[l + 1].first_row) ++l;
    return p.levels[l];
  }

  static FASTPOOL_HD void run(const Problem& p, int64_t begin, int64_t end) {
    int64_t values = 0;
    for (int32_t l = 0; l < (p.lanes_are_channels ? 0 : p.level_count); ++l) {
      const Level& level = p.levels[l];
      if (level.forward == Schedule::rows) values = larger(values, Rows<Reducer, T>::scratch_values(level.grid));
      if (level.forward == Schedule::planes) values = larger(values, Planes<Reducer, T>::scratch_values(level.grid));
    }
    T* rows = static_cast<T*>(scratch(values * int64_t(sizeof(T))));
    const Context context{moves_of(p.dtype), Reducer::uses_uniform ? p.seed_now() : 0};
    const int64_t tile_count = tiles(p);
    for (int64_t unit = begin; unit < end; ++unit) {
      // Channel tiles change fastest where they share cache lines, rows of bins where a plane is one run of memory.
      const int64_t tile = p.lanes_are_channels ? unit % tile_count : unit / p.bin_rows % tile_count;
      const int64_t row = p.lanes_are_channels ? unit / tile_count % p.bin_rows : unit % p.bin_rows;
      const Level& level = level_of(p, row);
      const int64_t height = level.grid.axis[1].out;
      Place at{unit / (p.bin_rows * tile_count), tile, {(row - level.first_row) / height, (row - level.first_row) % height, 0}};
      if (p.lanes_are_channels) {
        const int64_t most = channels_per_unit<T>(p, p.bin_rows);
        at.c = tile * most;
        const int64_t count = smaller(most, p.channels - at.c);
        if (level.forward == Schedule::direct)
          for (int64_t i = 0; i < count; ++i) direct(p, level, {at.n, at.c + i, {at.o[0], at.o[1], 0}});
        else if (level.large)
          Channels<typename LargeWindows<Reducer>::type, T>::run(p, context, level, at, count);
        else
          Channels<Reducer, T>::run(p, context, level, at, count);
      } else if (level.forward == Schedule::rows) {
        Rows<Reducer, T>::run(p, context, level, at, rows);
      } else if (level.forward == Schedule::flat) {
        Flat<Reducer, T>::run(p, context, level, at);
      } else if (level.forward == Schedule::planes) {
        // The first plane of every L does the work of all of them.
        if (at.c % L == 0) Planes<Reducer, T>::run(p, context, level, at, int(smaller(L, p.channels - at.c)), rows);
      } else {
        direct(p, level, at);
      }
    }
  }
  static FASTPOOL_HD void direct(const Problem& p, const Level& level, Place at) {
    for (at.o[2] = 0; at.o[2] < level.grid.axis[2].out; ++at.o[2]) forward_exact<Reducer, T>(p, level, at);
  }
};

}  // namespace fastpool::cpu
