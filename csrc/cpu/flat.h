// Forward schedule of contiguous input and large windows.
#pragma once

#include "cpu/lanes.h"

namespace fastpool::cpu {

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

}  // namespace fastpool::cpu
