#include "core/lookup.h"

#include "cpu/run.h"

namespace fastpool::cpu {

// Calls one(p, level, place) for the outputs begin … end - 1 of all samples, channels and bins.
template <class One>
static void each_output(const Problem& p, int64_t begin, int64_t end, const One& one) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t bin = unit % p.bins, plane = unit / p.bins;
    int32_t l = 0;
    while (l + 1 < p.level_count && bin >= p.levels[l + 1].first_bin) ++l;
    const Level& level = p.levels[l];
    const int64_t inside = bin - level.first_bin, height = level.grid.axis[1].out, width = level.grid.axis[2].out;
    one(level, Place{plane / p.channels, plane % p.channels, {inside / (height * width), inside / width % height, inside % width}});
  }
}

template <class S>
static void select_chunk(const Problem& p, int64_t begin, int64_t end) {
  each_output(p, begin, end, [&](const Level& level, const Place& at) { select_one<S>(p, level, at); });
}

static void index_chunk(const Problem& p, int64_t begin, int64_t end) {
  each_output(p, begin, end, [&](const Level& level, const Place& at) { index_one(p, level, at); });
}

void select(const Problem& p) {
  with_storage(p.dtype, [&](auto s) { divide(p, p.samples * p.channels * p.bins, select_chunk<decltype(s)>); });
}

void tap_indices(const Problem& p) { divide(p, p.samples * p.channels * p.bins, index_chunk); }

template <class S>
static void alpha_chunk(const Problem& p, int64_t begin, int64_t end) {
  const int64_t channels = p.alpha_view.channel ? p.channels : 1, bins = p.alpha_view.position ? p.bins : 1;
  for (int64_t unit = begin; unit < end; ++unit)
    static_cast<double*>(p.y)[unit] = alpha_gradient_one<S>(p, unit / (channels * bins), unit % (channels * bins), channels, bins);
}

void alpha_gradient(const Problem& p, double* partial) {
  Problem with_result = p;
  with_result.y = partial;
  const int64_t elements = (p.alpha_view.channel ? p.channels : 1) * (p.alpha_view.position ? p.bins : 1);
  with_storage(p.dtype, [&](auto s) { divide(with_result, p.samples * elements, alpha_chunk<decltype(s)>); });
}

}  // namespace fastpool::cpu
