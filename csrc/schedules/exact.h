// One output, or one input gradient, at a time: the exact path that every schedule is tested against, the fallback
// for what the fast paths leave out, and the body of the exact CUDA kernels.
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

// Calls state.add<pass>(x, tap) for every element of one window.
template <int pass, bool is_last, class Reducer, class S, class State>
FASTPOOL_HD void visit(const Problem& p, const Grid& grid, const Place& at, State& state) {
  using T = Accumulated<S>;
  const bool blocks = is_last && Reducer::long_sums > 0 && grid.taps(at.o) > kMostSequentialTaps;
  Totals<Reducer, T> totals;
  totals.start(state);
  int added = 0;
  const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]), w = grid.axis[2].window(at.o[2]);
  const S* x = static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0);
  for (int64_t i = 0; i < d.count; ++i)
    for (int64_t j = 0; j < h.count; ++j) {
      const int64_t row = row_of_input(d, h, i, j, p.extent[1]) * p.extent[2];
      const int64_t tap = tap_of_row(d, h, w, i, j);
      for (int64_t k = 0; k < w.count; ++k) {
        state.template add<pass>(T(widen(x[(row + w.start + k * w.step) * p.input.position])), Tap<T>(tap + k));
        if (blocks && ++added % kBlockSum == 0) totals.take(state);
      }
    }
  if (blocks) totals.give(state);
}

template <int pass, int passes, class Reducer, class S, class State>
FASTPOOL_HD void visit_passes(const Problem& p, const Grid& grid, const Place& at, const Facts<Accumulated<S>>& facts, State& state) {
  if constexpr (pass < passes) {
    if (pass > 0) state.template begin<pass>(facts, p);
    visit<pass, pass + 1 == passes, Reducer, S>(p, grid, at, state);
    visit_passes<pass + 1, passes, Reducer, S>(p, grid, at, facts, state);
  }
}

// What backward will need of one output.
template <class Reducer, class State>
FASTPOOL_HD void store_saved(const Problem& p, int64_t saved, const State& state) {
  using T = decltype(state.y());
  if constexpr (Reducer::saves_slope)
    if (p.slope) static_cast<T*>(p.slope)[saved] = state.slope();
  if (Reducer::saves_taps && p.tap_bytes == 1) static_cast<uint8_t*>(p.taps)[saved] = uint8_t(state.tap());
  if (Reducer::saves_taps && p.tap_bytes == 4) static_cast<int32_t*>(p.taps)[saved] = int32_t(state.tap());
  if (Reducer::saves_moments && p.moments)
    for (int which = 0; which < 2; ++which) static_cast<T*>(p.moments)[which * p.moments_size + saved] = state.moment(which);
}

template <class Reducer, class S, class State>
FASTPOOL_HD void store_one(const Problem& p, const Level& level, const Place& at, const State& state) {
  const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin);
  const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin);
  S* y = static_cast<S*>(p.y) + level.output_base + out;
  if constexpr (Reducer::has_second) {
    *y = Narrow<S>::from(p.mixes ? state.mixture() : state.y());
    if (!p.mixes) static_cast<S*>(p.second)[level.second_base + out] = Narrow<S>::from(state.second());
  } else {
    *y = Narrow<S>::from(state.y());
  }
  store_saved<Reducer>(p, saved, state);
}

// Calls done(state) with what a window comes to.
template <class Reducer, class S, class Done>
FASTPOOL_HD void pool_one(const Problem& p, const Level& level, const Place& at, const Done& done) {
  using T = Accumulated<S>;
  const Grid& grid = level.grid;
  const Facts<T> facts = facts_of<Reducer, T>(p, level, at.n, at.c, at.o);
  const Span d = grid.axis[0].window(at.o[0]), h = grid.axis[1].window(at.o[1]), w = grid.axis[2].window(at.o[2]);
  const Tap<T> first = Tap<T>(tap_of_row(d, h, w));
  typename Reducer::template State<T> state;
  state.start(first, p);
  visit_passes<0, Reducer::passes, Reducer, S>(p, grid, at, facts, state);
  if constexpr (Reducer::careful_passes > 0) {
    if (!state.ordinary()) {
      typename Reducer::template Careful<T> careful;
      careful.start(first, p);
      visit_passes<0, Reducer::careful_passes, Reducer, S>(p, grid, at, facts, careful);
      careful.finish(facts);
      return done(careful);
    }
  }
  state.finish(facts);
  done(state);
}

template <class Reducer, class S, class Done>
FASTPOOL_HD void pool_at(const Problem& p, const Level& level, const Place& at, const Done& done) {
  FASTPOOL_ASSERT(at.n < p.samples && at.c < p.channels && level.bin(at.o) < level.grid.bins());
  // A level of adaptive bins may hold both kinds.
  if (level.grid.taps(at.o) > kMostSequentialTaps)
    pool_one<typename LargeWindows<Reducer>::type, S>(p, level, at, done);
  else
    pool_one<Reducer, S>(p, level, at, done);
}

template <class Reducer, class S>
FASTPOOL_HD void forward_at(const Problem& p, const Level& level, const Place& at) {
  pool_at<Reducer, S>(p, level, at, [&](const auto& state) { store_one<Reducer, S>(p, level, at, state); });
}

template <class T>
FASTPOOL_HD Tap<T> saved_tap(const Problem& p, int64_t at) {
  FASTPOOL_ASSERT(p.taps && (p.tap_bytes == 1 || p.tap_bytes == 4));
  return p.tap_bytes == 1 ? Tap<T>(static_cast<const uint8_t*>(p.taps)[at]) : Tap<T>(static_cast<const int32_t*>(p.taps)[at]);
}

// What backward knows of one output, of which results were kept, or is found `again`.
template <class Gradient, class S, bool again>
FASTPOOL_HD OutputFacts<Accumulated<S>> output_facts(const Problem& p, const Level& level, const Place& at) {
  using T = Accumulated<S>;
  const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin);
  OutputFacts<T> facts{};
  facts.g = widen(static_cast<const S*>(p.g)[level.output_base + out]);
  if (Gradient::uses_second && !p.mixes) facts.g_second = widen(static_cast<const S*>(p.g_second)[level.second_base + out]);
  if constexpr (again) {
    pool_at<typename Gradient::Forward, S>(p, level, at, [&](const auto& state) {
      facts.y = widen(Narrow<S>::from(state.y()));
      for (int which = 0; which < 2; ++which) facts.moment[which] = state.moment(which);
    });
  } else if (Gradient::uses_input) {
    facts.y = widen(static_cast<const S*>(p.y)[level.output_base + out]);
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    for (int which = 0; which < 2; ++which) facts.moment[which] = static_cast<const T*>(p.moments)[which * p.moments_size + saved];
  }
  return facts;
}

// One level's share of the gradient of the input element `i`: the terms of the outputs that see it, row-major.
template <class Gradient, class S, bool again = false>
FASTPOOL_HD Accumulated<S> backward_one(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t i[3], Accumulated<S> sum) {
  using T = Accumulated<S>;
  const Axis* axis = level.grid.axis;
  const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]), w = axis[2].covers(i[2]);
  const int64_t position = (i[0] * p.extent[1] + i[1]) * p.extent[2] + i[2];
  const T x = Gradient::uses_input ? T(widen(static_cast<const S*>(p.x)[p.input.at(n, c, position)])) : T(0);
  Place at{n, c, {0, 0, 0}};
  for (at.o[0] = d.begin; at.o[0] < d.end; ++at.o[0]) {
    const int64_t tap_d = axis[0].tap_of(at.o[0], i[0]);
    for (at.o[1] = h.begin; at.o[1] < h.end; ++at.o[1]) {
      const int64_t tap_h = axis[1].tap_of(at.o[1], i[1]), height = axis[1].taps(at.o[1]);
      for (at.o[2] = w.begin; at.o[2] < w.end; ++at.o[2]) {
        const int64_t tap_w = axis[2].tap_of(at.o[2], i[2]), width = axis[2].taps(at.o[2]);
        if (tap_d < 0 || tap_h < 0 || tap_w < 0) continue;
        const Facts<T> facts = facts_of<Gradient, T>(p, level, n, c, at.o);
        const Slot<T> slot = Gradient::prepare(output_facts<Gradient, S, again>(p, level, at), facts, p);
        const int64_t saved = p.saved.at(n, c, level.first_bin + level.bin(at.o));
        const Tap<T> tap = Gradient::uses_taps ? saved_tap<T>(p, saved) : Tap<T>(0);
        sum += Gradient::term(x, Tap<T>((tap_d * height + tap_h) * width + tap_w), slot, tap, p);
      }
    }
  }
  return sum;
}

}  // namespace fastpool
