// Forward: which schedule gives the outputs of a pooling to lanes. Bits do not depend on the choice, except for sums
// over bins and over windows of more than 256 taps.
#pragma once

#include "cpu/capability.h"
#include "cpu/channels.h"
#include "cpu/flat.h"
#include "cpu/rows.h"

namespace fastpool::cpu {

// A unit of work is one row of bins: of a plane, or of a tile of channels. A plane's levels follow each other, so
// that the plane is read from memory once.
template <class Reducer, class T>
struct Forward {
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD int64_t tiles(const Problem& p) {
    return p.lanes_are_channels ? ceil_div(p.channels, channels_per_unit<T>(p, p.bin_rows)) : p.channels;
  }
  static int64_t units(const Problem& p) { return p.samples * p.bin_rows * tiles(p); }

  static FASTPOOL_HD const Level& level_of(const Problem& p, int64_t row) {
    int32_t l = 0;
    while (l + 1 < p.level_count && row >= p.levels[l + 1].first_row) ++l;
    return p.levels[l];
  }

  static FASTPOOL_HD void run(const Problem& p, int64_t begin, int64_t end) {
    int64_t values = 0;
    for (int32_t l = 0; l < (p.lanes_are_channels ? 0 : p.level_count); ++l) {
      const Level& level = p.levels[l];
      if (level.forward == Schedule::rows) values = larger(values, Rows<Reducer, T>::scratch_values(level.grid));
      if (level.forward == Schedule::planes) values = larger(values, Planes<Reducer, T>::scratch_values(level.grid));
    }
    T* rows = static_cast<T*>(scratch(values * int64_t(sizeof(T))));
    const Context context{moves_of(p.dtype), Reducer::uses_uniform ? p.seed_now() : 0};
    const int64_t tile_count = tiles(p);
    for (int64_t unit = begin; unit < end; ++unit) {
      // Channel tiles change fastest where they share cache lines, rows of bins where a plane is one run of memory.
      const int64_t tile = p.lanes_are_channels ? unit % tile_count : unit / p.bin_rows % tile_count;
      const int64_t row = p.lanes_are_channels ? unit / tile_count % p.bin_rows : unit % p.bin_rows;
      const Level& level = level_of(p, row);
      const int64_t height = level.grid.axis[1].out;
      Place at{unit / (p.bin_rows * tile_count), tile, {(row - level.first_row) / height, (row - level.first_row) % height, 0}};
      if (p.lanes_are_channels) {
        const int64_t most = channels_per_unit<T>(p, p.bin_rows);
        at.c = tile * most;
        const int64_t count = smaller(most, p.channels - at.c);
        if (level.forward == Schedule::direct)
          for (int64_t i = 0; i < count; ++i) direct(p, level, {at.n, at.c + i, {at.o[0], at.o[1], 0}});
        else if (level.large)
          Channels<typename LargeWindows<Reducer>::type, T>::run(p, context, level, at, count);
        else
          Channels<Reducer, T>::run(p, context, level, at, count);
      } else if (level.forward == Schedule::rows) {
        Rows<Reducer, T>::run(p, context, level, at, rows);
      } else if (level.forward == Schedule::flat) {
        Flat<Reducer, T>::run(p, context, level, at);
      } else if (level.forward == Schedule::planes) {
        // The first plane of every L does the work of all of them.
        if (at.c % L == 0) Planes<Reducer, T>::run(p, context, level, at, int(smaller(L, p.channels - at.c)), rows);
      } else {
        direct(p, level, at);
      }
    }
  }
  static FASTPOOL_HD void direct(const Problem& p, const Level& level, Place at) {
    for (at.o[2] = 0; at.o[2] < level.grid.axis[2].out; ++at.o[2]) forward_exact<Reducer, T>(p, level, at);
  }
};

}  // namespace fastpool::cpu
