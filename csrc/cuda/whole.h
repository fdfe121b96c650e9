// Gradients of one window over the whole plane: what an output sends is prepared once for many elements, which are written
// by accesses of 16 bytes.
#pragma once

#include "cuda/backward.h"

namespace fastpool::cuda {

template <class Gradient, class S>
struct Whole : Job {
  using T = Accumulated<S>;
  static constexpr int threads = 1;

  explicit Whole(const Problem& problem) : Job(problem) {}
  static bool suits(const Problem& p) {
    if (p.level_count != 1 || p.levels[0].clipped) return false;
    bool whole = true;
    for (const Axis& axis : p.levels[0].grid.axis) whole &= axis.out == 1 && axis.kernel == axis.in && axis.dilation == 1;
    return whole;
  }

  // What `items` neighbouring channels send, and to which taps.
  template <int items>
  FASTPOOL_HD void prepare(int64_t n, int32_t c, Slot<T> (&slots)[items], Tap<T> (&taps)[items]) const {
    const Level& level = levels[0];
    const int64_t out = n * level.output.sample + times(c, level.output.channel), saved = n * p.saved.sample + times(c, p.saved.channel);
    Outputs<Gradient, S, items> outputs;
    const auto neighbours = [](auto& to, const auto* from) { load<(items > 1)>(to, from, 1, items); };
    outputs.read(p, level, out, saved, neighbours, neighbours);
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      const Facts<T> facts = facts_at<Gradient, T>(*this, 0, n, c + i, 0, int32_t(p.positions()));
      slots[i] = Gradient::prepare(outputs.facts(i), facts, p);
      taps[i] = outputs.taps[i];
    }
  }
  // Elements whose gradients lie side by side: slot(i), tap of the output and tap of the element.
  template <int items, class SlotOf, class TapOf, class Here>
  FASTPOOL_HD void give(int64_t at, const SlotOf& slot, const TapOf& tap, const Here& here) const {
    S x[items]{}, gx[items];
    if constexpr (Gradient::uses_input) load<true>(x, static_cast<const S*>(p.x) + at, 1, items);
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) gx[i] = narrowed<S>(T(0) + Gradient::term(widened(x[i]), here(i), slot(i), tap(i), p));
    store<true>(static_cast<S*>(p.gx) + at, gx, 1, items);
  }
};

// Packs of a sample's elements, which may belong to two neighbouring planes.
template <class Gradient, class S>
struct WholePlanes : Whole<Gradient, S> {
  using Base = Whole<Gradient, S>;
  using Base::p;
  using typename Base::T;
  static constexpr int blocks = kBlocks<S, Gradient::uses_input>, items = kPack<S>, rounds = Policy::whole_planes_rounds;
  Divisor by_plane;
  int32_t plane = 0, planes = 1, packs = 0, stretch = 0;  // elements of a plane; planes after which a plane begins a pack again

  explicit WholePlanes(const Problem& problem) : Base(problem) {}
  static bool suits(const Problem& p) {
    const int64_t plane = p.positions();
    return Base::suits(p) && p.input.position == 1 && plane >= items && plane < kMostIndex / items && p.channels * plane % items == 0 &&
           aligned(p.gx, 16) && aligned(p.x, 16);
  }
  void finish(int64_t) {
    plane = int32_t(p.positions());
    while (int64_t(planes) * plane % items != 0) ++planes;
    by_plane = Divisor(plane);
    packs = planes * plane / items;
    stretch = int32_t(ceil_div(packs, rounds));
    this->units = Units(p.samples, ceil_div(p.channels, planes), stretch, false);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = this->units.find(index);
    for (int32_t pack = unit.inside; pack < packs; pack += stretch) {
      const int32_t passed = by_plane.divide(pack * items), c = unit.group * planes + passed, tap = pack * items - passed * plane;
      if (c >= int32_t(p.channels)) return;
      const int64_t at = unit.n * p.input.sample + times(unit.group * planes, p.input.channel) + pack * items;
      Slot<T> slot[1], next[1];
      Tap<T> chosen[1], next_chosen[1];
      this->prepare(unit.n, c, slot, chosen);
      if (tap + items <= plane) {
        this->template give<items>(
            at, [&](int) { return slot[0]; }, [&](int) { return chosen[0]; }, [&](int i) { return Tap<T>(tap + i); });
        continue;
      }
      this->prepare(unit.n, c + 1, next, next_chosen);
      const auto is_next = [&](int i) { return tap + i >= plane; };
      this->template give<items>(
          at, [&](int i) { return is_next(i) ? next[0] : slot[0]; }, [&](int i) { return is_next(i) ? next_chosen[0] : chosen[0]; },
          [&](int i) { return Tap<T>(tap + i - (is_next(i) ? plane : 0)); });
    }
  }
};

// Channels-last: a few channels at some positions.
template <class Gradient, class S>
struct WholeColumns : Whole<Gradient, S> {
  using Base = Whole<Gradient, S>;
  using Base::p;
  using typename Base::T;
  static constexpr bool heavy = Gradient::slots > 1;
  static constexpr int blocks = kBlocks<S, heavy>, items = kItems<S, heavy, true>, rounds = Policy::whole_columns_rounds;
  int32_t positions = 0, stretch = 0;

  explicit WholeColumns(const Problem& problem) : Base(problem) {}
  static bool suits(const Problem& p) {
    return Base::suits(p) && p.levels[0].output.channel == 1 && p.saved.channel == 1 && p.positions() < kMostIndex;
  }
  void finish(int64_t) {
    positions = int32_t(p.positions());
    stretch = int32_t(ceil_div(positions, rounds));
    this->units = Units(p.samples, p.channels / items, stretch, true);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = this->units.find(index);
    Slot<T> slots[items];
    Tap<T> taps[items];
    this->prepare(unit.n, unit.group * items, slots, taps);
    const int64_t first = unit.n * p.input.sample + unit.group * items;
    for (int32_t here = unit.inside; here < positions; here += stretch)
      this->template give<items>(
          first + times(here, p.input.position), [&](int i) { return slots[i]; }, [&](int i) { return taps[i]; },
          [&](int) { return Tap<T>(here); });
  }
};

}  // namespace fastpool::cuda
