// Bins of small contiguous planes: a block copies neighbouring planes to its shared memory by accesses of 16 bytes, and each
// of its threads pools bins of them. So memory is read once and by whole sectors, however the planes lie in it.
#pragma once

#include "cuda/forward.h"

namespace fastpool::cuda {

template <class Reducer, class S>
struct PlanesForward : Job {
  static constexpr bool heavy = Reducer::careful_passes > 0;
  static constexpr int threads = Policy::block_threads, slots = Policy::planes_bytes / 8, blocks = heavy ? 2 : 4;
  static constexpr int multiple = larger(8, kPack<S>);  // planes of which any size fills whole packs
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  int32_t plane = 0, planes = 0, total_planes = 0;  // elements of a plane; planes of a block, and of all blocks
  Divisor by_bins, by_channels;

  explicit PlanesForward(const Problem& problem) : Job(problem) {}

  // Larger windows are summed in blocks, or in classes.
  static bool suits(const Problem& p) {
    bool bins = p.input.position == 1 && p.input.channel == p.positions() && p.input.sample == p.channels * p.positions();
    for (int l = 0; l < p.level_count; ++l) bins &= p.levels[l].free_order;
    return bins && p.positions() <= kMostSequentialTaps && p.samples * p.channels * larger(p.bins, p.positions()) < kMostIndex &&
           aligned(p.x, 16);
  }
  // As few planes as give every multiprocessor blocks, as many as shared memory holds.
  void finish(int64_t enough_threads) {
    plane = int32_t(p.positions());
    total_planes = int32_t(p.samples * p.channels);
    const int64_t most = Policy::planes_bytes / (plane * int64_t(sizeof(S))), wanted = total_planes * int64_t(threads) / enough_threads;
    planes = int32_t(smaller(larger(wanted, 1) + multiple - 1, larger(most, multiple)) / multiple * multiple);
    by_bins = Divisor(bins);
    by_channels = Divisor(p.channels);
    units = Units(ceil_div(total_planes, planes), 1, 1, false);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const int32_t first = int32_t(units.find(index).n) * planes, count = least(planes, total_planes - first);
    const int32_t elements = count * plane, packs = elements / kPack<S>;
    const S* from = static_cast<const S*>(p.x) + int64_t(first) * plane;
    const auto shared_packs = thread.template slots<Pack<S, kPack<S>>>();
    const auto shared = thread.template slots<S>();
    thread.barrier();  // the slots may still be read
    for (int32_t i = thread.index; i < packs; i += threads) shared_packs[i] = read(reinterpret_cast<const Pack<S, kPack<S>>*>(from) + i);
    for (int32_t i = packs * kPack<S> + thread.index; i < elements; i += threads) shared[i] = read(from + i);
    thread.barrier();
    for (int32_t i = thread.index; i < count * bins; i += threads) {
      const int32_t of_block = by_bins.divide(i), bin = i - of_block * bins, n = by_channels.divide(first + of_block);
      const int l = level_of(bin);
      const Window window(*this, n, first + of_block - n * int32_t(p.channels), l, bin - fast[l].first);
      const Facts<T> facts = facts_of_window<Reducer, T>(*this, window, window.c);
      State state[1];
      state[0].start(window.first_tap(), p);
      run<0>(shared, of_block * plane, window, facts, state[0]);
      if (heavy && !state[0].ordinary()) {
        lone_window<Reducer, S>(*this, n, window.c, l, window.bin);
        continue;
      }
      state[0].finish(facts);
      store_window<Reducer, S, false>(*this, window, 1, state);
    }
  }
  template <int pass, class Slots>
  FASTPOOL_HD void run(const Slots& shared, int32_t at, const Window& window, const Facts<T>& facts, State& state) const {
    if constexpr (pass < Reducer::passes) {
      if constexpr (pass > 0) state.template begin<pass>(facts, p);
      const FastAxis* axis = fast[window.l].axis;
      int32_t tap = 0;
      Totals<Reducer, T> totals;
      totals.start(state);
      for (int32_t d = window.d.start; d < window.d.start + window.d.count; ++d)
        for (int32_t h = window.h.start; h < window.h.start + window.h.count; ++h) {
          const int32_t row = at + (d * axis[1].in + h) * axis[2].in + window.w.start;
          for (int32_t begin = 0; begin < window.w.count; begin += kBlockSum) {
            const int32_t end = least(begin + kBlockSum, window.w.count);
            for (int32_t w = begin; w < end; ++w) state.template add<pass>(widened(S(shared[row + w])), Tap<T>(tap++));
            if constexpr (kSumsIn<Reducer, pass>) totals.take(state);
          }
        }
      if constexpr (kSumsIn<Reducer, pass>) totals.give(state);
      run<pass + 1>(shared, at, window, facts, state);
    }
  }
};

}  // namespace fastpool::cuda
