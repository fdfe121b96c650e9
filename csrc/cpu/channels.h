// Forward schedules whose lanes are channels: of channels-last input, and of planes that are transposed first.
#pragma once

#include "cpu/lanes.h"

namespace fastpool::cpu {

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

}  // namespace fastpool::cpu
