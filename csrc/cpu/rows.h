// Forward schedule of contiguous input and small sliding windows.
#pragma once

#include "cpu/lanes.h"

namespace fastpool::cpu {

constexpr int64_t kRowBytes = 128 << 10;  // input rows of one tile stay in the second-level cache

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
  static FASTPOOL_HD int64_t scratch_values(const Grid& grid) { return tile_of(grid).row_length * grid.axis[0].kernel * grid.axis[1].kernel; }

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

}  // namespace fastpool::cpu
