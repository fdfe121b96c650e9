// Forward schedule of contiguous input and large windows: 32 lanes share one window.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
class Flat {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kClasses;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  Flat(const Problem& p, const Level& level)
      : p(p), level(level), begin(static_cast<const S*>(p.x)), end(begin + p.samples * p.channels * p.positions()) {}

  // The rows of bins first_row … last_row - 1 of one plane.
  void run(int64_t n, int64_t c, int64_t first_row, int64_t last_row) const {
    const Axis* axis = level.grid.axis;
    for (int64_t row = first_row; row < last_row; ++row)
      for (int64_t o = 0; o < axis[2].out; ++o) pool({n, c, {row / axis[1].out, row % axis[1].out, o}});
  }

 private:
  const Problem& p;
  const Level& level;
  const S *begin, *end;

  void pool(const Place& at) const {
    const Facts<T> fact = facts_of<Reducer, T>(p, level, at.n, at.c, at.o);
    const Facts<V> facts{V(fact.divisor), V(fact.alpha), V(fact.uniform)};
    State state;
    state.start(Tap<V>(Tap<T>(0)), p);
    const Axis* axis = level.grid.axis;
    const Span spans[3] = {axis[0].window(at.o[0]), axis[1].window(at.o[1]), axis[2].window(at.o[2])};
    for_each_pass<0, Reducer::passes>(Passes{*this, begin + p.input.at(at.n, at.c, 0), spans, facts, state});
    state.finish(facts);
    if (!first_lane(state.ordinary())) return forward_exact<Reducer>(p, level, at);
    const int64_t bin = level.bin(at.o);
    store_lanes<Reducer, S>(p, level, level.output.at(at.n, at.c, bin), 1, p.saved.at(at.n, at.c, level.first_bin + bin), 1, 1, state);
  }

  struct Passes {
    const Flat& self;
    const S* plane;
    const Span* spans;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      const Span &d = spans[0], &h = spans[1], &w = spans[2];
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t row = ((d.start + i * d.step) * self.p.extent[1] + h.start + j * h.step) * self.p.extent[2] + w.start;
          self.template add_run<pass>(state, plane + row, w.step, w.count, ((d.first + i) * h.size + h.first + j) * w.size + w.first);
        }
      state.template share<pass>(Team<T>(), facts);
    }
  };

  // Elements of one row of the window. Draws need lane = tap mod 32; for others any lane will do.
  template <int pass>
  FASTPOOL_HD void add_run(State& state, const S* x, int64_t step, int64_t count, int64_t tap) const {
    int64_t k = Reducer::uses_uniform ? -(tap % L) : 0;
    if (k == 0 && step == 1)
      for (; k + L <= count; k += L) state.template add<pass>(load<T, L>(x + k), Tap<V>::iota(Tap<T>(tap + k)));
    for (; k < count; k += L) state.template add<pass>(load_inside(x, step, k, count), Tap<V>::iota(Tap<T>(tap + k)));
  }

  // Lanes k … k + 31 of a run, padded where they lie outside it.
  V load_inside(const S* x, int64_t step, int64_t k, int64_t count) const {
    const T padding = Reducer::template padding<T>();
    if (step == 1 && x + k >= begin && x + k + L <= end) {
      const Tap<V> lane = Tap<V>::iota(Tap<T>(k));
      const Mask<V> inside = (lane >= Tap<V>(Tap<T>(0))) & (lane < Tap<V>(Tap<T>(count)));
      return select(inside, load<T, L>(x + k), V(padding));
    }
    T found[L];
    for (int64_t l = 0; l < L; ++l) found[l] = k + l >= 0 && k + l < count ? T(widen(x[(k + l) * step])) : padding;
    return load<T, L>(found);
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
