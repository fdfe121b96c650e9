// Gradients of bins that lie side by side and fill the plane, of one level or a pyramid's. A thread has a run of accesses that see
// the same bins, so that what these send is prepared once: accesses below each other, of neighbours of a row; or of channels-last
// input beside each other, of neighbouring channels.
#pragma once

#include <numeric>

#include "cuda/backward.h"

namespace fastpool::cuda {

template <class Gradient, class S, bool last>
struct BinsBackward : Job {
  static constexpr bool heavy = Gradient::slots > 1 || Gradient::uses_input;
  static constexpr int threads = 1, items = last ? kItems<S, heavy, true> : sizeof(S) == 8 ? 2 : 4;
  static constexpr int most_run = heavy || items > 4 ? 4 : 8;  // what 128 registers hold the sums of
  static constexpr int senders = last ? items : 1, blocks = kBlocks<S, true>;
  using T = Accumulated<S>;

  Divisor by_across, by_lines;
  int32_t run = 1, across = 1, lines = 1;  // accesses of a thread; threads beside each other, and below each other in a slice

  using Job::Job;
  // What a run goes along.
  static constexpr int kAlong = last ? 2 : 1;
  static bool suits(const Problem& p) {
    bool bins = last || (p.input.position == 1 && p.extent[2] % items == 0 && p.input.channel % items == 0 && p.input.sample % items == 0 &&
                         aligned(p.gx, items * int64_t(sizeof(S))) && aligned(p.x, items * int64_t(sizeof(S))));
    for (int l = 0; l < p.level_count; ++l)
      for (int a = 0; a < 3; ++a) {
        const Axis& axis = p.levels[l].grid.axis[a];
        bins &= axis.kernel * axis.out == axis.in && axis.stride == axis.kernel && axis.before == 0 && axis.dilation == 1 &&
                (last || a < 2 || axis.kernel % items == 0);
      }
    return bins && shared_by_bins(p) > 1;
  }
  // Elements in a row, or in a column, that see the same bins.
  static int64_t shared_by_bins(const Problem& p) {
    int64_t shared = 0;
    for (int l = 0; l < p.level_count; ++l) shared = std::gcd(shared, p.levels[l].grid.axis[kAlong].kernel);
    return shared;
  }
  void finish(int64_t) {
    const int64_t shared = shared_by_bins(p);
    for (int32_t n = 2; n <= most_run; ++n)
      if (shared % n == 0) run = n;
    across = int32_t(p.extent[2]) / (last ? run : items);
    lines = int32_t(p.extent[1]) / (last ? 1 : run);
    by_across = Divisor(across);
    by_lines = Divisor(lines);
    units = Units(p.samples, p.channels / (last ? items : 1), p.extent[0] * lines * across, last);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int32_t line = by_across.divide(unit.inside), slice = by_lines.divide(line), c = unit.group * (last ? items : 1);
    const int32_t place = unit.inside - line * across, of_slice = line - slice * lines;
    const int32_t at[3] = {slice, last ? of_slice : of_slice * run, place * (last ? run : items)};
    const int32_t position = (at[0] * int32_t(p.extent[1]) + at[1]) * int32_t(p.extent[2]) + at[2];
    const int64_t first = unit.n * p.input.sample + times(c, p.input.channel) + times(position, p.input.position);
    const int64_t step = last ? p.input.position : p.extent[2];
    T sum[most_run][items]{}, x[most_run][items]{};
    FASTPOOL_UNROLL
    for (int r = 0; r < most_run; ++r) {
      if (!Gradient::uses_input || r >= run) continue;
      S values[items];
      load<true>(values, static_cast<const S*>(p.x) + first + times(r, step), 1, items);
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) x[r][i] = widened(values[i]);
    }
    for (int l = 0; l < level_count; ++l) add_level(unit.n, c, l, at, x, sum);
    FASTPOOL_UNROLL
    for (int r = 0; r < most_run; ++r) {
      if (r >= run) continue;
      S gx[items];
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) gx[i] = narrowed<S>(sum[r][i]);
      store<true>(static_cast<S*>(p.gx) + first + times(r, step), gx, 1, items);
    }
  }
  FASTPOOL_HD void add_level(int64_t n, int32_t c, int l, const int32_t (&at)[3], const T (&x)[most_run][items],
                        T (&sum)[most_run][items]) const {
    const Level& level = levels[l];
    const FastAxis* axis = fast[l].axis;
    const int32_t o[3] = {axis[0].covers_.divide(at[0]), axis[1].covers_.divide(at[1]), axis[2].covers_.divide(at[2])};
    const int32_t bin = (o[0] * axis[1].out + o[1]) * axis[2].out + o[2];
    const int32_t row = (at[0] - o[0] * axis[0].kernel) * axis[1].kernel + at[1] - o[1] * axis[1].kernel;
    const int32_t tap = row * axis[2].kernel + at[2] - o[2] * axis[2].kernel, along = last ? 1 : axis[2].kernel;
    const int64_t out = n * level.output.sample + times(c, level.output.channel) + times(bin, level.output.position);
    const int64_t saved = n * p.saved.sample + times(c, p.saved.channel) + times(int32_t(level.first_bin) + bin, p.saved.position);
    Outputs<Gradient, S, senders> outputs;
    outputs.read(
        p, level, out, saved, [&](auto& to, const auto* from) { load_if<last>(to, from, int32_t(level.output.channel), senders); },
        [&](auto& to, const auto* from) { load_if<last>(to, from, int32_t(p.saved.channel), senders); });
    Slot<T> slots[senders];
    FASTPOOL_UNROLL
    for (int i = 0; i < senders; ++i) {
      const int32_t taps = axis[0].kernel * axis[1].kernel * axis[2].kernel;
      slots[i] = Gradient::prepare(outputs.facts(i), facts_at<Gradient, T>(*this, l, n, c + i, bin, taps), p);
    }
    FASTPOOL_UNROLL
    for (int r = 0; r < most_run; ++r) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) {
        const int s = last ? i : 0;
        sum[r][i] += Gradient::term(x[r][i], Tap<T>(tap + r * along + (last ? 0 : i)), slots[s], outputs.taps[s], p);
      }
    }
  }
};

}  // namespace fastpool::cuda
