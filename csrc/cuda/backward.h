// Backward bodies: a thread gathers the gradient of a tile of 2 x 2 neighbouring elements of a few channels. Every
// output that sees the tile is read and prepared once, which for 2 x 2 windows and for large ones is a single output.
#pragma once

#include "cuda/forward.h"

namespace fastpool::cuda {

// What a gradient reads of `count` outputs; arrays that it does not use are not read.
template <class Gradient, class S, int count>
struct Outputs {
  using T = Accumulated<S>;
  S g[count], second[count]{}, y[count];
  T moment[2][count];
  Tap<T> taps[count]{};

  // load(to, from) for what lies as the outputs do, load_saved(to, from) for what lies as taps do. `wide`: taps may have
  // four bytes.
  template <bool wide = true, class Load, class LoadSaved>
  FASTPOOL_HD void read(const Problem& p, const Level& level, int64_t out, int64_t saved, const Load& load, const LoadSaved& load_saved) {
    load(g, static_cast<const S*>(p.g) + level.output_base + out);
    if (Gradient::uses_second && !p.mixes) load(second, static_cast<const S*>(p.g_second) + level.second_base + out);
    if constexpr (Gradient::uses_input) {
      load(y, static_cast<const S*>(p.y) + level.output_base + out);
      for (int which = 0; which < 2; ++which) load_saved(moment[which], static_cast<const T*>(p.moments) + which * p.moments_size + saved);
    }
    if constexpr (Gradient::uses_taps) {
      if (!wide || p.tap_bytes == 1)
        read_taps<uint8_t>(p, saved, load_saved);
      else
        read_taps<int32_t>(p, saved, load_saved);
    }
  }
  template <class Code, class LoadSaved>
  FASTPOOL_HD void read_taps(const Problem& p, int64_t saved, const LoadSaved& load_saved) {
    Code codes[count];
    load_saved(codes, static_cast<const Code*>(p.taps) + saved);
    FASTPOOL_UNROLL
    for (int i = 0; i < count; ++i) taps[i] = codes[i];
  }

  FASTPOOL_HD OutputFacts<T> facts(int i) const {
    OutputFacts<T> output{widened(g[i]), T(0), T(0), {T(0), T(0)}};
    if constexpr (Gradient::uses_second) output.g_second = widened(second[i]);
    if constexpr (Gradient::uses_input) {
      output.y = widened(y[i]);
      output.moment[0] = moment[0][i];
      output.moment[1] = moment[1][i];
    }
    return output;
  }
};

// Outputs of a pyramid lie far apart even where the input's channels are neighbours.
template <bool side_by_side, class X, int items>
FASTPOOL_HD void load_if(X (&to)[items], const X* from, int32_t step, int count) {
  if (side_by_side && step == 1)
    load<side_by_side>(to, from, step, count);
  else
    load<false>(to, from, step, count);
}

template <class Gradient, class S, bool side_by_side>
struct TileBackward : Job {
  static constexpr bool heavy = Gradient::slots > 1 || Gradient::uses_input;
  static constexpr int threads = 1, items = kItems<S, heavy, side_by_side>, rows = 2, columns = 2;
  static constexpr int blocks = side_by_side ? 2 - (Gradient::uses_input && sizeof(S) == 8) : kBlocks<S, heavy>;
  using T = Accumulated<S>;

  Divisor tile_rows, tile_columns;
  int32_t extent[3];
  bool pairs;  // two neighbours of a row can be written by one access

  explicit TileBackward(const Problem& problem) : Job(problem) {
    for (int a = 0; a < 3; ++a) extent[a] = int32_t(p.extent[a]);
    tile_rows = Divisor(ceil_div(p.extent[1], rows));
    tile_columns = Divisor(ceil_div(p.extent[2], columns));
    pairs = p.input.position == 1 && p.extent[2] % columns == 0 && aligned(p.gx, columns * int64_t(sizeof(S)));
  }
  void finish(int64_t enough_threads) {
    const int64_t tiles = p.extent[0] * ceil_div(p.extent[1], rows) * ceil_div(p.extent[2], columns);
    share_channels(items, tiles, enough_threads);
  }

  struct Tile {
    int64_t n;
    int32_t c, at[3], height, width, count;  // rows, columns and channels that exist
    T x[rows][columns][items], sum[rows][columns][items];
  };

  FASTPOOL_HD int64_t element(const Tile& tile, int r, int e) const {
    return tile.n * p.input.sample + times(tile.c, p.input.channel) +
           times((tile.at[0] * extent[1] + tile.at[1] + r) * extent[2] + tile.at[2] + e, p.input.position);
  }

  // The slots of output o of every channel, and their taps.
  FASTPOOL_HD void prepare(const Tile& tile, int l, const int32_t o[3], Slot<T> (&slots)[items], Tap<T> (&taps)[items]) const {
    const Level& level = levels[l];
    const int32_t bin = (o[0] * fast[l].axis[1].out + o[1]) * fast[l].axis[2].out + o[2];
    const int64_t out = tile.n * level.output.sample + times(tile.c, level.output.channel) + times(bin, level.output.position);
    const int64_t saved =
        tile.n * p.saved.sample + times(tile.c, p.saved.channel) + times(int32_t(level.first_bin) + bin, p.saved.position);
    const int32_t step = int32_t(level.output.channel), saved_step = int32_t(p.saved.channel);
    const int32_t divisor = Gradient::uses_divisor ? fast[l].divisor(o, p.include_pad) : 1;
    Outputs<Gradient, S, items> outputs;
    outputs.read(
        p, level, out, saved, [&](auto& to, const auto* from) { load_if<side_by_side>(to, from, step, tile.count); },
        [&](auto& to, const auto* from) { load_if<side_by_side>(to, from, saved_step, tile.count); });
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      const int32_t c = tile.c + (i < tile.count ? i : 0);
      slots[i] = Gradient::prepare(outputs.facts(i), facts_at<Gradient, T>(*this, l, tile.n, c, bin, divisor), p);
      taps[i] = outputs.taps[i];
    }
  }
  FASTPOOL_HD void add_level(Tile& tile, int l) const {
    const FastAxis* axis = fast[l].axis;
    const FastRange d = axis[0].covers(tile.at[0], tile.at[0]), h = axis[1].covers(tile.at[1], tile.at[1] + tile.height - 1);
    const FastRange w = axis[2].covers(tile.at[2], tile.at[2] + tile.width - 1);
    int32_t o[3];
    for (o[0] = d.begin; o[0] < d.end; ++o[0]) {
      const int32_t tap_d = axis[0].tap_of(o[0], tile.at[0]);
      for (o[1] = h.begin; o[1] < h.end; ++o[1]) {
        const int32_t tap_h[rows] = {axis[1].tap_of(o[1], tile.at[1]), axis[1].tap_of(o[1], tile.at[1] + 1)};
        const int32_t height = axis[1].size(o[1]);
        for (o[2] = w.begin; o[2] < w.end; ++o[2]) {
          const int32_t tap_w[columns] = {axis[2].tap_of(o[2], tile.at[2]), axis[2].tap_of(o[2], tile.at[2] + 1)};
          const int32_t width = axis[2].size(o[2]);
          Slot<T> slots[items];
          Tap<T> taps[items];
          prepare(tile, l, o, slots, taps);
          FASTPOOL_UNROLL
          for (int r = 0; r < rows; ++r) {
            FASTPOOL_UNROLL
            for (int e = 0; e < columns; ++e) {
              if ((tap_d | tap_h[r] | tap_w[e]) < 0) continue;
              const Tap<T> here = (tap_d * height + tap_h[r]) * width + tap_w[e];
              FASTPOOL_UNROLL
              for (int i = 0; i < items; ++i) tile.sum[r][e][i] += Gradient::term(tile.x[r][e][i], here, slots[i], taps[i], p);
            }
          }
        }
      }
    }
  }

  FASTPOOL_HD void store_row(const Tile& tile, int r) const {
    S* to = static_cast<S*>(p.gx) + element(tile, r, 0);
    S values[columns][items];
    FASTPOOL_UNROLL
    for (int e = 0; e < columns; ++e) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) values[e][i] = narrowed<S>(tile.sum[r][e][i]);
    }
    if (!side_by_side && pairs) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) {
        if (i >= tile.count) continue;
        write(reinterpret_cast<Pack<S, columns>*>(to + times(i, p.input.channel)), Pack<S, columns>{{values[0][i], values[1][i]}});
      }
    } else {
      FASTPOOL_UNROLL
      for (int e = 0; e < columns; ++e)
        if (e < tile.width) store<side_by_side>(to + times(e, p.input.position), values[e], int32_t(p.input.channel), tile.count);
    }
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int32_t row = tile_columns.divide(unit.inside), height = (extent[1] + rows - 1) / rows,
                  width = (extent[2] + columns - 1) / columns;
    Tile tile;
    tile.n = unit.n;
    tile.c = unit.group * items;
    tile.at[0] = tile_rows.divide(row);
    tile.at[1] = (row - tile.at[0] * height) * rows;
    tile.at[2] = (unit.inside - row * width) * columns;
    tile.height = least(rows, extent[1] - tile.at[1]);
    tile.width = least(columns, extent[2] - tile.at[2]);
    const int32_t channels = int32_t(p.channels), step = units.groups * items;
    for (; tile.c < channels; tile.c += step) {
      tile.count = least(items, channels - tile.c);
      one_round(tile);
    }
  }
  FASTPOOL_HD void one_round(Tile& tile) const {
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      FASTPOOL_UNROLL
      for (int e = 0; e < columns; ++e) {
        S x[items] = {};
        if constexpr (Gradient::uses_input) {
          if (r < tile.height && e < tile.width)
            load<side_by_side>(x, static_cast<const S*>(p.x) + element(tile, r, e), int32_t(p.input.channel), tile.count);
        }
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) {
          tile.x[r][e][i] = widened(x[i]);
          tile.sum[r][e][i] = T(0);
        }
      }
    }
    for (int l = 0; l < level_count; ++l) add_level(tile, l);
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r)
      if (r < tile.height) store_row(tile, r);
  }
};

// 64-bit indices, for what is too large for tiles.
template <class Gradient, class S>
struct ExactBackward : Job {
  static constexpr int threads = 1, blocks = 1;
  int64_t begin = 0;

  using Job::Job;
  int64_t total() const { return p.samples * p.channels * p.positions(); }
  int64_t step() const { return 1; }
  void begin_at(int64_t unit) { begin = unit; }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t unit) const {
    const int64_t index = begin + unit, position = index % p.positions(), plane = index / p.positions();
    const int64_t n = plane / p.channels, c = plane % p.channels;
    const int64_t i[3] = {position / (p.extent[1] * p.extent[2]), position / p.extent[2] % p.extent[1], position % p.extent[2]};
    Accumulated<S> sum(0);
    for (int l = 0; l < p.level_count; ++l) sum = backward_one<Gradient, S>(p, levels[l], n, c, i, sum);
    static_cast<S*>(p.gx)[p.input.at(n, c, position)] = Narrow<S>::from(sum);
  }
};

}  // namespace fastpool::cuda
