// Reading what taps point at: input values (the adjoint of a selection's backward) and plane positions.
#pragma once

#include "schedules/exact.h"

namespace fastpool {

// The plane position of a saved tap, or -1 where nothing was selected.
FASTPOOL_HD int64_t position_of(const Problem& p, const Level& level, const Place& at) {
  const int64_t tap = saved_tap<double>(p, p.saved.at(at.n, at.c, level.first_bin + level.bin(at.o)));
  if (tap < 0 || tap >= level.grid.taps(at.o)) return -1;
  const int64_t position = level.grid.position(at.o, tap);
  return position >= 0 && position < p.positions() ? position : -1;
}

template <class S>
FASTPOOL_HD void select_one(const Problem& p, const Level& level, const Place& at) {
  const int64_t position = position_of(p, level, at);
  const int64_t out = level.output_base + level.output.at(at.n, at.c, level.bin(at.o));
  static_cast<S*>(p.y)[out] = position < 0 ? S{} : static_cast<const S*>(p.x)[p.input.at(at.n, at.c, position)];
}

FASTPOOL_HD void index_one(const Problem& p, const Level& level, const Place& at) {
  const int64_t position = position_of(p, level, at);
  const int64_t out = level.output_base + level.output.at(at.n, at.c, level.bin(at.o));
  static_cast<int64_t*>(p.y)[out] = position < 0 ? level.grid.first_position(at.o) : position;
}

// The sum of g * slope over the outputs of sample n that share element k of the parameter.
template <class S>
FASTPOOL_HD double parameter_gradient_one(const Problem& p, int64_t n, int64_t k, int64_t channel_axis, int64_t bin_axis) {
  using T = Accumulated<S>;
  constexpr int lanes = 8;  // independent sums: one would wait for itself
  double sum[lanes] = {};
  const int64_t c_begin = channel_axis > 1 ? k / bin_axis : 0, c_end = channel_axis > 1 ? c_begin + 1 : p.channels;
  for (int64_t c = c_begin; c < c_end; ++c)
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Level& level = p.levels[l];
      const int64_t begin = bin_axis > 1 ? k % bin_axis : 0, end = bin_axis > 1 ? begin + 1 : level.grid.bins();
      const S* g = static_cast<const S*>(p.g) + level.output_base + level.output.at(n, c, 0);
      const T* slope = static_cast<const T*>(p.slope) + p.saved.at(n, c, level.first_bin);
      for (int64_t b = begin; b < end; ++b)
        sum[b % lanes] += double(widen(g[b * level.output.position])) * double(slope[b * p.saved.position]);
    }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

}  // namespace fastpool
