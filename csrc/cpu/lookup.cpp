#include "core/lookup.h"

#include <vector>

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

// Sliding windows are all alike: the position of a tap is that of the window's first element plus an offset.
template <class Taps>
static void index_row(const Problem& p, const Level& level, Place at, const int64_t* offsets, const Taps* taps) {
  const Axis* axis = level.grid.axis;
  const int64_t kernel = level.grid.taps(at.o), positions = p.positions();
  int64_t* indices = static_cast<int64_t*>(p.y) + level.output_base;
  int64_t origin = level.grid.position(at.o, 0);
  const int64_t channels = p.lanes_are_channels ? p.channels : 1;
  for (; at.o[2] < axis[2].out; ++at.o[2], origin += axis[2].stride) {
    const int64_t out = level.output.at(at.n, at.c, level.bin(at.o)), saved = p.saved.at(at.n, at.c, level.bin(at.o));
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t tap = taps[saved + c], position = tap >= 0 && tap < kernel ? origin + offsets[tap] : -1;
      indices[out + c] = position;
      if (position < 0 || position >= positions) index_one(p, level, {at.n, at.c + c, {at.o[0], at.o[1], at.o[2]}});
    }
  }
}

// A unit is one row of windows, of all channels where they are neighbours.
static int64_t index_units(const Problem& p) { return p.samples * (p.lanes_are_channels ? 1 : p.channels) * p.bin_rows; }

static void index_chunk(const Problem& p, int64_t begin, int64_t end) {
  const Level& level = p.levels[0];
  const Axis* axis = level.grid.axis;
  const int64_t first[3] = {0, 0, 0};
  std::vector<int64_t> offsets;
  for (int64_t tap = 0; level.grid.slides() && tap < level.grid.taps(first); ++tap)
    offsets.push_back(level.grid.position(first, tap) - level.grid.position(first, 0));
  const int64_t planes = p.lanes_are_channels ? 1 : p.channels;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = unit % p.bin_rows, plane = unit / p.bin_rows;
    Place at{plane / planes, plane % planes, {row / axis[1].out, row % axis[1].out, 0}};
    if (!level.grid.slides()) {
      for (; at.o[2] < axis[2].out; ++at.o[2])
        for (int64_t c = 0; c < (p.lanes_are_channels ? p.channels : 1); ++c)
          index_one(p, level, {at.n, at.c + c, {at.o[0], at.o[1], at.o[2]}});
    } else if (p.tap_bytes == 1) {
      index_row(p, level, at, offsets.data(), static_cast<const uint8_t*>(p.taps));
    } else {
      index_row(p, level, at, offsets.data(), static_cast<const int32_t*>(p.taps));
    }
  }
}

void select(const Problem& p) {
  with_storage(p.dtype, [&](auto s) { divide(p, p.samples * p.channels * p.bins, select_chunk<decltype(s)>); });
}

void tap_indices(const Problem& p) { divide(p, index_units(p), index_chunk); }

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
