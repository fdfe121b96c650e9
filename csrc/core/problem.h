// Everything that crosses from torch to a kernel: plain pointers, extents and the numbers a pooling takes.
#pragma once

#include "core/philox.h"
#include "core/window.h"

namespace fastpool {

// Element strides of a tensor seen as (sample, channel, position); positions are dense and row-major.
struct View {
  int64_t sample, channel, position;

  FASTPOOL_HD int64_t at(int64_t n, int64_t c, int64_t pos) const { return n * sample + c * channel + pos * position; }
};

// An output: its sample, channel and index on each axis.
struct Place {
  int64_t n, c, o[3];
};

// The CPU schedules, which csrc/cpu/schedule.h knows and chooses.
namespace cpu {
enum class ForwardSchedule : int8_t;
enum class BackwardSchedule : int8_t;
}  // namespace cpu

struct Level {
  Grid grid;
  int64_t first_bin = 0;    // position of the level's first bin among all bins of a channel
  int64_t first_row = 0;    // likewise for rows of bins
  View output{};            // where the level's bins lie in the output …
  int64_t output_base = 0;  // … from here,
  int64_t second_base = 0;  // and in a second output of the same strides from here
  bool clipped = false;     // some window loses elements to the padding
  bool large = false;       // every window has more than 256 taps
  bool free_order = false;  // bins: their sums may run in any order
  cpu::ForwardSchedule forward{};

  FASTPOOL_HD int64_t bin(const int64_t o[3]) const { return (o[0] * grid.axis[1].out + o[1]) * grid.axis[2].out + o[2]; }
};

constexpr int kClasses = 32, kMostSequentialTaps = 256;

enum class Dtype : int32_t { float16, bfloat16, float32, float64 };

struct Problem {
  int64_t samples = 0, channels = 0;
  int64_t extent[3] = {1, 1, 1};
  View input{};
  View saved{};  // taps, slopes and moments
  const Level* levels = nullptr;
  int32_t level_count = 0;
  int64_t bins = 0, bin_rows = 0;
  cpu::BackwardSchedule backward{};
  bool lanes_are_channels = false;
  Dtype dtype = Dtype::float32;

  const void* x = nullptr;
  void* y = nullptr;  // the output; in backward it is read
  void* second = nullptr;
  void* taps = nullptr;
  int32_t tap_bytes = 0;
  void* slope = nullptr;    // the derivative of the output by the parameter
  void* moments = nullptr;  // two planes of moments_size values
  int64_t moments_size = 0;
  const void* g = nullptr;
  const void* g_second = nullptr;
  void* gx = nullptr;

  bool include_pad = false;
  int64_t divisor_override = 0;
  bool mixes = false;               // two results into one
  double numbers[2] = {};           // a pooling's own
  const void* parameter = nullptr;  // what may be learned; in the accumulation type, or null for parameter_value
  View parameter_view{};
  double parameter_value = 0;
  const int64_t* seed = nullptr;
  int64_t seed_value = 0;
  int64_t offset_sample = 0, offset_channel = 0;

  FASTPOOL_HD int64_t positions() const { return extent[0] * extent[1] * extent[2]; }
  FASTPOOL_HD uint64_t seed_now() const { return uint64_t(seed ? *seed : seed_value); }
};

// What a reducer may need to know of one output besides its window.
template <class T>
struct Facts {
  T divisor, parameter, uniform;
  bool inverse = false;  // `divisor` is one over a power of two: a product has the bits of the quotient, sooner
};

template <class T>
FASTPOOL_HD_SCALAR T divisor_of(const Problem& p, const Grid& grid, const int64_t o[3]) {
  if (p.divisor_override) return T(p.divisor_override);
  return T(grid.axis[0].divisor(o[0], p.include_pad) * grid.axis[1].divisor(o[1], p.include_pad) *
           grid.axis[2].divisor(o[2], p.include_pad));
}

template <class T>
FASTPOOL_HD_SCALAR T parameter_of(const Problem& p, int64_t n, int64_t c, int64_t bin) {
  return p.parameter ? static_cast<const T*>(p.parameter)[p.parameter_view.at(n, c, bin)] : T(p.parameter_value);
}

// The four uniforms of a block of outputs.
FASTPOOL_HD Words draws_of(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t block) {
  return draw_block(seed, uint64_t(p.offset_sample + n), uint32_t(p.offset_channel + c), block);
}

template <class T>
FASTPOOL_HD_SCALAR T uniform_of(const Problem& p, int64_t n, int64_t c, int64_t bin) {
  return T(uniform(draws_of(p, p.seed_now(), n, c, bin / 4).word[bin % 4]));
}

template <class Reducer, class T>
FASTPOOL_HD_SCALAR Facts<T> facts_of(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t o[3]) {
  Facts<T> facts{T(1), T(0), T(0)};
  const int64_t bin = level.first_bin + level.bin(o);
  if (Reducer::uses_divisor) facts.divisor = divisor_of<T>(p, level.grid, o);
  if (Reducer::uses_parameter) facts.parameter = parameter_of<T>(p, n, c, bin);
  if (Reducer::uses_uniform) facts.uniform = uniform_of<T>(p, n, c, bin);
  return facts;
}

}  // namespace fastpool
