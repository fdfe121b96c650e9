// Channels-last: windows of a few rows and columns, whose geometry the compiler knows. A thread has neighbouring outputs of a
// row, of as many channels as one access moves.
#pragma once

#include "cuda/rows.h"

namespace fastpool::cuda {

// Channels of one thread: 16 bytes, but of larger windows no more than their elements leave registers for.
template <class S, bool heavy, class W>
constexpr int kPixels = smaller(kItems<S, heavy, true>, W::kernel > 2 ? 4 : 8);

// Whether windows lie as W says, and their values side by side. They may not reach behind the padding.
template <class W>
bool lie_in_pixels(const Problem& p) {
  if (p.level_count != 1) return false;
  const Level& level = p.levels[0];
  const Axis* axis = level.grid.axis;
  const auto slides = [](const Axis& a) {
    const int64_t end = (a.out - 1) * W::stride + W::kernel - W::before;
    return a.kernel == W::kernel && a.stride == W::stride && a.dilation == 1 && a.before == W::before &&
           end <= a.in + (W::before > 0 ? a.after : 0);
  };
  const bool flat = axis[0].in == 1 && axis[0].kernel == 1 && axis[0].out == 1 && axis[0].before == 0;
  return flat && slides(axis[1]) && slides(axis[2]) && p.tap_bytes <= 1 && level.output.channel == 1 && p.saved.channel == 1;
}

template <class Reducer, class S, class W>
struct PixelsForward : Rows<W> {
  using Base = Rows<W>;
  using Base::levels;
  using Base::p;
  static constexpr bool heavy = Reducer::careful_passes > 0;
  // What one block of uniforms is for.
  static constexpr int across = Reducer::uses_uniform ? 4 : 2, items = kPixels<S, heavy, W>;
  static constexpr int blocks = kBlocks<S, true>, kernel = W::kernel, taps = kernel * kernel;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  explicit PixelsForward(const Problem& problem) : Base(problem, ceil_div(problem.levels[0].grid.axis[2].out, across)) {}
  static bool suits(const Problem& p) {
    return lie_in_pixels<W>(p) && (!Reducer::uses_uniform || p.levels[0].grid.axis[2].out % across == 0);
  }
  void finish(int64_t) {
    const Axis* axis = levels[0].grid.axis;
    this->units = Units(p.samples, p.channels / items, axis[1].out * ceil_div(axis[2].out, across), true);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = this->units.find(index);
    const int32_t width = this->out_width(), parts = (width + across - 1) / across, row = this->units_of_row.divide(unit.inside);
    const int32_t begin = (unit.inside - row * parts) * across, c = unit.group * items;
    Words words[items]{};
    if constexpr (Reducer::uses_uniform) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) words[i] = draws_of(p, p.seed_now(), unit.n, c + i, (row * width + begin) / across);
    }
    FASTPOOL_UNROLL
    for (int o = 0; o < across; ++o)
      if (begin + o < width) pool(unit.n, c, row, begin + o, words, o);
  }
  FASTPOOL_HD void pool(int64_t n, int32_t c, int32_t row, int32_t column, const Words (&words)[items], int word) const {
    const int32_t h = row * W::stride - W::before, w = column * W::stride - W::before, bin = row * this->out_width() + column;
    const S* plane = static_cast<const S*>(p.x) + n * p.input.sample + c;
    bool exists[taps];
    S values[taps][items];
    FASTPOOL_UNROLL
    for (int k = 0; k < taps; ++k) {
      const int32_t y = h + k / kernel, x = w + k % kernel;
      exists[k] = W::before == 0 || (uint32_t(y) < uint32_t(this->height()) && uint32_t(x) < uint32_t(this->width()));
      if (exists[k]) load<true>(values[k], plane + times(y * this->width() + x, p.input.position), 1, items);
    }
    const int32_t inside = this->inside(h, this->height()) * this->inside(w, this->width());
    const int32_t first = (h < 0 ? -h : 0) * kernel + (w < 0 ? -w : 0);
    Facts<T> facts[items];
    State states[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      const Units::Unit of_channel{n, c + i, 0};
      const T parameter = this->template parameter_of_plane<Reducer, T>(of_channel);
      facts[i] = this->template facts_inside<Reducer, T>(of_channel, bin, inside, parameter);
      if constexpr (Reducer::uses_uniform) facts[i].uniform = T(uniform(words[i].word[word]));
      states[i].start(Tap<T>(first), p);
    }
    run<0>(values, exists, facts, states);
    unsigned odd = 0;  // channels whose window the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      if (heavy && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    const int64_t out = n * levels[0].output.sample + c + times(bin, levels[0].output.position);
    store_results<Reducer, S, true>(*this, levels[0], out, 1, n * p.saved.sample + c + times(bin, p.saved.position), 1, items, states);
    if constexpr (heavy) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) lone_window<Reducer, S>(*this, n, c + i, 0, bin);
    }
  }
  template <int pass>
  FASTPOOL_HD void run(const S (&values)[taps][items], const bool (&exists)[taps], const Facts<T> (&facts)[items],
                  State (&states)[items]) const {
    if constexpr (pass < Reducer::passes) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) {
        if constexpr (pass > 0) states[i].template begin<pass>(facts[i], p);
        FASTPOOL_UNROLL
        for (int k = 0; k < taps; ++k)
          if (exists[k]) states[i].template add<pass>(widened(values[k][i]), Tap<T>(k));
      }
      run<pass + 1>(values, exists, facts, states);
    }
  }
};

// The gradients of two rows of neighbouring elements.
template <class Gradient, class S, class W>
struct PixelsBackward : Rows<W> {
  using Base = Rows<W>;
  using Base::levels;
  using Base::p;
  static constexpr bool heavy = Gradient::slots > 1 || Gradient::uses_input;
  static constexpr int items = kPixels<S, heavy, W>, blocks = kBlocks<S, true>;
  static constexpr int kernel = W::kernel, stride = W::stride, before = W::before, rows = 2, columns = kernel > stride ? 2 : 4;
  // The outputs that see them, counted from the one that begins with them.
  static constexpr int first = floor_div(before - kernel + stride, stride);
  static constexpr int last_row = floor_div(rows - 1 + before, stride), last_column = floor_div(columns - 1 + before, stride);
  using T = Accumulated<S>;

  explicit PixelsBackward(const Problem& problem) : Base(problem, ceil_div(problem.extent[2], columns)) {}
  static bool suits(const Problem& p) { return lie_in_pixels<W>(p); }
  void finish(int64_t) {
    this->units = Units(p.samples, p.channels / items, ceil_div(p.extent[1], rows) * ceil_div(p.extent[2], columns), true);
  }

  struct Tile {
    int64_t n;
    int32_t c, h, w;
    T x[rows][columns][items], sum[rows][columns][items];
  };

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = this->units.find(index);
    const int32_t tiles = (this->width() + columns - 1) / columns, row = this->units_of_row.divide(unit.inside);
    Tile tile;
    tile.n = unit.n;
    tile.c = unit.group * items;
    tile.h = row * rows;
    tile.w = (unit.inside - row * tiles) * columns;
    const int64_t element = unit.n * p.input.sample + tile.c + times(tile.h * this->width() + tile.w, p.input.position);
    const auto at = [&](int r, int k) { return element + times(r * this->width() + k, p.input.position); };
    const auto exists = [&](int r, int k) { return tile.h + r < this->height() && tile.w + k < this->width(); };
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; ++k) {
        S x[items]{};
        if (Gradient::uses_input && exists(r, k)) load<true>(x, static_cast<const S*>(p.x) + at(r, k), 1, items);
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) {
          tile.x[r][k][i] = widened(x[i]);
          tile.sum[r][k][i] = T(0);
        }
      }
    }
    add_outputs<first, first>(tile);
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; ++k) {
        S gx[items];
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) gx[i] = narrowed<S>(tile.sum[r][k][i]);
        if (exists(r, k)) store<true>(static_cast<S*>(p.gx) + at(r, k), gx, 1, items);
      }
    }
  }
  // Those of all outputs, in row-major order, from one that lies so far below and beside the first.
  template <int below, int beside>
  FASTPOOL_HD void add_outputs(Tile& tile) const {
    if constexpr (below <= last_row) {
      add_output<below, beside>(tile);
      add_outputs<below + (beside == last_column), beside == last_column ? first : beside + 1>(tile);
    }
  }
  template <int below, int beside>
  FASTPOOL_HD void add_output(Tile& tile) const {
    const int32_t row = tile.h / stride + below, column = tile.w / stride + beside;
    if (uint32_t(row) >= uint32_t(this->out_height()) || uint32_t(column) >= uint32_t(this->out_width())) return;
    const int32_t bin = row * this->out_width() + column;
    const int64_t out = tile.n * levels[0].output.sample + tile.c + times(bin, levels[0].output.position);
    const auto neighbours = [](auto& to, const auto* from) { load<true>(to, from, 1, items); };
    Outputs<Gradient, S, items> outputs;
    outputs.template read<false>(p, levels[0], out, tile.n * p.saved.sample + tile.c + times(bin, p.saved.position), neighbours,
                                 neighbours);
    const int32_t inside = this->inside(row * stride - before, this->height()) * this->inside(column * stride - before, this->width());
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      const Units::Unit of_channel{tile.n, tile.c + i, 0};
      const T parameter = this->template parameter_of_plane<Gradient, T>(of_channel);
      const Facts<T> facts = this->template facts_inside<Gradient, T>(of_channel, bin, inside, parameter);
      const Slot<T> slot = Gradient::prepare(outputs.facts(i), facts, p);
      FASTPOOL_UNROLL
      for (int k = 0; k < kernel * kernel; ++k) {
        const int r = below * stride - before + k / kernel, e = beside * stride - before + k % kernel;
        if (r < 0 || r >= rows || e < 0 || e >= columns) continue;
        tile.sum[r][e][i] += Gradient::term(tile.x[r][e][i], Tap<T>(k), slot, outputs.taps[i], p);
      }
    }
  }
};

}  // namespace fastpool::cuda
