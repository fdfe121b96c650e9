// Pyramids whose levels divide each other: a block pools the finest bins of a plane, a warp each, and merges them to the
// coarser ones, so that the plane is walked once.
#pragma once

#include "cuda/team_forward.h"

namespace fastpool::cuda {

template <class Reducer, class S, int bytes>
struct NestedForward : Job {
  static constexpr bool heavy = Reducer::careful_passes > 0;
  static constexpr int threads = Policy::block_threads, most_bins = threads, slots = 3 * most_bins, blocks = kBlocks < S,
                       heavy || Reducer::has_second > ;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  int32_t finest = 0;

  explicit NestedForward(const Problem& problem) : Job(problem) {}

  static bool suits(const Problem& p) {
    if (Reducer::parts == 0 || Reducer::passes > 1 || p.level_count < 2 || p.samples * p.channels < Policy::multiprocessors) return false;
    const Level& fine = p.levels[finest_of(p)];
    bool nested = fine.grid.bins() <= most_bins && in_packs<Reducer, S, bytes>(p, fine);
    for (int l = 0; l < p.level_count; ++l)
      for (int a = 0; a < 3; ++a) {
        const Axis& axis = p.levels[l].grid.axis[a];
        nested &= p.levels[l].free_order && axis.kernel * axis.out == axis.in && axis.stride == axis.kernel && axis.before == 0 &&
                  axis.dilation == 1 && fine.grid.axis[a].out % axis.out == 0;
      }
    return nested;
  }
  static int finest_of(const Problem& p) {
    int finest = 0;
    for (int l = 1; l < p.level_count; ++l)
      if (p.levels[l].grid.bins() > p.levels[finest].grid.bins()) finest = l;
    return finest;
  }
  void finish(int64_t) {
    finest = finest_of(p);
    units = Units(p.samples, p.channels, 1, false);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const auto parts = thread.template slots<T>();
    const auto positions = thread.template slots<int32_t>();
    thread.barrier();  // the slots may still be read
    const S* plane = static_cast<const S*>(p.x) + unit.n * p.input.sample + times(unit.group, p.input.channel);
    const int32_t fine_bins = int32_t(levels[finest].grid.bins());
    for (int32_t bin = thread.index / kWarp; bin < fine_bins; bin += threads / kWarp) {
      const Warp<Thread> members{thread};
      const Window window(*this, unit.n, unit.group, finest, bin);
      const Facts<T> facts = facts_of_window<Reducer, T>(*this, window, window.c);
      State states[1], &state = states[0];
      state.start(0, p);
      PacksOf<Reducer, S, State, 1, bytes> elements(*this, window, plane, members.member(), states);
      elements.template visit<0, kWarp>();
      state.template share<0>(Team<Warp<Thread>>{members}, facts);
      if (members.member() != 0) continue;
      for (int which = 0; which < Reducer::parts; ++which) parts[which * most_bins + bin] = state.part(which);
      if constexpr (Reducer::saves_taps) positions[(sizeof(T) / 4) * 2 * most_bins + bin] = position_of(window, int32_t(state.tap()));
      store(window, facts, state);
    }
    thread.barrier();
    for (int32_t i = thread.index; i < bins; i += threads) {
      const int l = level_of(i);
      if (l == finest) continue;
      const Window window(*this, unit.n, unit.group, l, i - fast[l].first);
      const Facts<T> facts = facts_of_window<Reducer, T>(*this, window, window.c);
      State state;
      state.start(0, p);
      merge(window, parts, positions, state);
      store(window, facts, state);
    }
  }

  // Where a tap of a window lies in the plane, and the reverse.
  FASTPOOL_HD int32_t position_of(const Window& window, int32_t tap) const {
    const FastAxis* axis = fast[window.l].axis;
    const int32_t row = tap / window.w.size, d = row / window.h.size, h = row - d * window.h.size, w = tap - row * window.w.size;
    return ((window.d.start + d) * axis[1].in + window.h.start + h) * axis[2].in + window.w.start + w;
  }
  FASTPOOL_HD int32_t tap_of(const Window& window, int32_t position) const {
    const FastAxis* axis = fast[window.l].axis;
    const int32_t row = position / axis[2].in, d = row / axis[1].in, h = row - d * axis[1].in, w = position - row * axis[2].in;
    return ((d - window.d.start) * window.h.size + h - window.h.start) * window.w.size + w - window.w.start;
  }

  // The finest bins inside a window.
  template <class Parts, class Positions>
  FASTPOOL_HD void merge(const Window& window, const Parts& parts, const Positions& positions, State& state) const {
    const FastAxis* axis = fast[finest].axis;
    const FastSpan* spans[3] = {&window.d, &window.h, &window.w};
    int32_t first[3], count[3];
    FASTPOOL_UNROLL
    for (int a = 0; a < 3; ++a) {
      first[a] = axis[a].covers_.divide(spans[a]->start);
      count[a] = axis[a].covers_.divide(spans[a]->count);
    }
    for (int32_t d = first[0]; d < first[0] + count[0]; ++d)
      for (int32_t h = first[1]; h < first[1] + count[1]; ++h)
        for (int32_t w = first[2]; w < first[2] + count[2]; ++w) {
          const int32_t bin = (d * axis[1].out + h) * axis[2].out + w;
          const T one = T(parts[bin]), two = Reducer::parts > 1 ? T(parts[most_bins + bin]) : T(0);
          Tap<T> tap(0);
          if constexpr (Reducer::saves_taps) tap = tap_of(window, int32_t(positions[(sizeof(T) / 4) * 2 * most_bins + bin]));
          state.merge(one, two, tap);
        }
  }

  FASTPOOL_HD void store(const Window& window, const Facts<T>& facts, const State& pooled) const {
    if (heavy && !pooled.ordinary()) return lone_window<Reducer, S>(*this, window.n, window.c, window.l, window.bin);
    State state[1] = {pooled};
    state[0].finish(facts);
    store_window<Reducer, S, false>(*this, window, 1, state);
  }
};

}  // namespace fastpool::cuda
