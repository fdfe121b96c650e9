// Bodies that read what taps point at, and the gradient of a parameter.
#pragma once

#include "cuda/job.h"
#include "cuda/team.h"
#include "schedules/lookup.h"

namespace fastpool::cuda {

// Calls Lookup::one(p, level, place) for every output. Rare operations: 64-bit indices throughout.
template <class Lookup>
struct EachOutput : Job {
  static constexpr int threads = 1, blocks = 1;
  int64_t begin = 0;

  using Job::Job;
  int64_t total() const { return p.samples * p.channels * p.bins; }
  int64_t step() const { return 1; }
  void begin_at(int64_t unit) { begin = unit; }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t unit) const {
    const int64_t index = begin + unit, bin = index % p.bins, plane = index / p.bins;
    int l = 0;
    while (l + 1 < p.level_count && bin >= levels[l + 1].first_bin) ++l;
    const int64_t inside = bin - levels[l].first_bin, height = levels[l].grid.axis[1].out, width = levels[l].grid.axis[2].out;
    Lookup::one(p, levels[l],
                Place{plane / p.channels, plane % p.channels, {inside / (height * width), inside / width % height, inside % width}});
  }
};

template <class Reducer, class S>
struct ExactForward {
  static FASTPOOL_HD void one(const Problem& p, const Level& level, const Place& at) { forward_at<Reducer, S>(p, level, at); }
};

template <class S>
struct Select {
  static FASTPOOL_HD void one(const Problem& p, const Level& level, const Place& at) { select_one<S>(p, level, at); }
};

struct Indices {
  static FASTPOOL_HD void one(const Problem& p, const Level& level, const Place& at) { index_one(p, level, at); }
};

// The sum of g * slope: a team sums a part of what one sample adds to one element of the parameter, in an order that only
// shapes decide. partial: (samples, splits, elements of the parameter).
template <class S, template <class> class Members>
struct ParameterGradient : Job {
  static constexpr int threads = Members<int>::members, blocks = 4;
  using T = Accumulated<S>;
  int64_t channels, bins_of_part, splits;  // what one element of the parameter is shared by
  double* partial;

  ParameterGradient(const Problem& problem, int64_t splits, double* partial)
      : Job(problem),
        channels(p.parameter_view.channel ? 1 : p.channels),
        bins_of_part(p.parameter_view.position ? 1 : p.bins),
        splits(splits),
        partial(partial) {
    for (int l = 0; l < p.level_count; ++l) take(p.levels[l]);
    units = Units(p.samples, splits, (p.parameter_view.channel ? p.channels : 1) * (p.parameter_view.position ? p.bins : 1), false);
  }

  FASTPOOL_HD double term(int64_t n, int64_t c, int64_t bin) const {
    const Level& level = levels[level_of(int32_t(bin))];
    const S g = static_cast<const S*>(p.g)[level.output_base + level.output.at(n, c, bin - level.first_bin)];
    return double(widened(g)) * double(static_cast<const T*>(p.slope)[p.saved.at(n, c, bin)]);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const Members<Thread> members{thread};
    const int64_t count = channels * bins_of_part, part = ceil_div(count, splits);
    const int64_t first_bin = p.parameter_view.position ? (p.parameter_view.channel ? unit.inside % p.bins : unit.inside) : 0;
    const int64_t first_channel = !p.parameter_view.channel ? 0 : p.parameter_view.position ? unit.inside / p.bins : unit.inside;
    const int64_t begin = unit.group * part, end = smaller(begin + part, count);
    const int64_t step_channel = threads / bins_of_part, step_bin = threads % bins_of_part;
    int64_t c = (begin + members.member()) / bins_of_part, bin = (begin + members.member()) % bins_of_part;
    double sum = 0;
    for (int64_t i = begin + members.member(); i < end; i += threads) {
      sum += term(unit.n, first_channel + c, first_bin + bin);
      bin += step_bin;
      const bool carry = bin >= bins_of_part;
      bin -= carry ? bins_of_part : 0;
      c += step_channel + carry;
    }
    sum = members.reduce(sum, Sum{});
    if (members.member() == 0) partial[(unit.n * splits + unit.group) * units.inside + unit.inside] = sum;
  }
};

}  // namespace fastpool::cuda
