// What kernels and the code around them have in common: scratch memory, the exact path, how work is divided.
#pragma once

#include "cpu/schedule.h"

namespace fastpool::cpu {

// Scratch memory of the calling thread, undefined and aligned to cache lines; all of it is free again after a restart.
void restart_scratch();
void* take_scratch(int64_t bytes);
// Test hooks: the most that a thread may have, which returns the previous one, and what the calling thread has.
int64_t limit_scratch(int64_t bytes);
int64_t scratch_size();

// The exact path, for what the schedules leave out.
template <class Reducer>
void exact_forward(const Problem& p, const Level& level, const Place& at);
template <class Gradient>
double backward_exact(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t i[3], double sum);
// One call's units of work: every sample is cut into blocks of channels, and each block's rows into parts.
struct Units {
  int64_t samples, channels, rows, block, blocks, parts;

  // Enough units to occupy many threads, as long as a block keeps its lanes and a part is worth its preparations.
  // Channels are divided last: a narrow block reads a part of every cache line that lies next to another's.
  static constexpr int64_t kWanted = 256, kFew = 16, kPartElements = 8192;
  // Channels whose prepared outputs of a row stay in the second-level cache.
  static constexpr int64_t kMostChannels = 512;
  Units(const Problem& p, int64_t rows, int64_t lanes, bool planes) : samples(p.samples), channels(p.channels), rows(rows) {
    block = planes ? lanes : larger(smaller(kPartElements / larger(p.positions(), 1), lanes), 1);
    if (p.lanes_are_channels) {
      const int64_t wanted = larger(smaller(channels / lanes, ceil_div(kFew, samples * rows)), 1);
      block = channels / larger(wanted, channels / kMostChannels);
    }
    // The last channels-last block takes the rest, so that it is never narrower than its lanes.
    blocks = p.lanes_are_channels ? channels / block : ceil_div(channels, block);
    const int64_t worth = larger(block * p.positions() / kPartElements, 1);
    parts = smaller(smaller(rows, worth), ceil_div(kWanted, samples * blocks));
  }
  int64_t count() const { return samples * blocks * parts; }
  int64_t most_channels() const { return larger(channels - (blocks - 1) * block, block); }

  struct Unit {
    int64_t n, c, channels, first_row, last_row;
  };
  Unit at(int64_t unit) const {
    FASTPOOL_ASSERT(unit >= 0 && unit < count());
    const int64_t part = unit % parts, tile = unit / parts % blocks;
    const int64_t c = tile * block, last = tile + 1 == blocks ? channels : c + block;
    return {unit / (parts * blocks), c, last - c, rows * part / parts, rows * (part + 1) / parts};
  }
};

// The most lanes of one tile. Work is divided alike on every processor.
inline int64_t lanes_of(Dtype dtype) { return dtype == Dtype::float64 ? 16 : 32; }

// Scratch holds as many rows of all columns as a window has, and a part begins with those, or slices, that its first window
// shares with others before it.
inline void share_scratch(Units& units, const Problem& p, const Grid& grid) {
  if (p.lanes_are_channels) {
    units.block = units.channels / larger(units.channels / (2 * lanes_of(p.dtype)), 1);
    units.blocks = units.channels / units.block;
  }
  const Axis &d = grid.axis[0], &h = grid.axis[1];
  const int64_t worth = 4 * (d.kernel > 1 ? d.kernel * h.out : h.kernel), few = d.kernel > 1 ? Units::kFew / 2 : Units::kFew;
  units.parts = smaller(units.parts, larger(units.rows / worth, ceil_div(few, units.samples * units.blocks)));
}

inline Units forward_units(const Problem& p) {
  bool planes = false;
  for (int32_t l = 0; l < p.level_count; ++l) planes |= p.levels[l].forward == ForwardSchedule::planes;
  Units units(p, p.bin_rows, lanes_of(p.dtype), planes);
  // The input is best read as it lies, and once for several levels.
  if (planes || p.level_count > 1) units.parts = smaller(units.parts, ceil_div(Units::kWanted / 4, units.samples * units.blocks));
  // Planes that are one window each are read one after another without a pause.
  if (p.level_count == 1 && p.levels[0].forward == ForwardSchedule::flat && p.bins == 1) {
    units.block = larger(units.block, smaller(lanes_of(p.dtype), p.samples * p.channels / (Units::kWanted / 4)));
    units.blocks = ceil_div(p.channels, units.block);
  }
  if (p.level_count == 1 && p.levels[0].forward == ForwardSchedule::separable) share_scratch(units, p, p.levels[0].grid);
  return units;
}
inline Units backward_units(const Problem& p) {
  const int64_t rows = p.extent[0] * p.extent[1], lanes = lanes_of(p.dtype);
  if (p.backward == BackwardSchedule::scatter) {
    // Outputs that two parts see are visited for each, and lanes are none.
    const bool half = p.dtype == Dtype::float16 || p.dtype == Dtype::bfloat16;
    Units whole(p, 1, p.lanes_are_channels && !half ? 4 * lanes : lanes, false);
    whole.rows = rows;
    if (whole.count() >= 4) return whole;
    Units few(p, rows, lanes, false);
    few.parts = smaller(few.parts, ceil_div(Units::kFew, few.samples * few.blocks));
    return few;
  }
  const bool small = p.backward == BackwardSchedule::whole_planes && p.positions() <= kNarrowPlane;
  Units units(p, rows, lanes, small || p.backward == BackwardSchedule::lanes);
  if (p.backward == BackwardSchedule::separable) share_scratch(units, p, seen_from_input(p.levels[0].grid));
  return units;
}

}  // namespace fastpool::cpu
