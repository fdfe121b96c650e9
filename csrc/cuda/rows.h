// Windows of a few rows and columns over aligned rows of contiguous planes. The compiler knows their geometry: elements move
// in accesses of 16 bytes, each is read once for all the windows of a thread, and no index is computed for a tap.
#pragma once

#include "cuda/backward.h"

namespace fastpool::cuda {

// `before` elements of padding on either side; rows are `stride` times as long as those of outputs.
template <int kernel_, int stride_, int before_>
struct Windows {
  static constexpr int kernel = kernel_, stride = stride_, before = before_;
  static constexpr int after = kernel - stride - before;  // columns of a row's last window beyond its end
};
using Pairs = Windows<2, 2, 0>;
using Halving = Windows<3, 2, 1>;
using Neighbours = Windows<3, 1, 1>;

constexpr int floor_div(int a, int b) { return a < 0 ? -((b - 1 - a) / b) : a / b; }

template <class W>
struct Rows : Job {
  static constexpr int threads = 1, outputs = 4;  // what one block of uniforms is for

  Divisor units_of_row;

  Rows(const Problem& problem, int64_t units_of_row) : Job(problem), units_of_row(units_of_row) {}

  template <class S>
  static bool suits(const Problem& p) {
    if (p.level_count != 1 || p.lanes_are_channels) return false;
    const Axis* axis = p.levels[0].grid.axis;
    const auto slides = [](const Axis& a) {
      return a.kernel == W::kernel && a.stride == W::stride && a.dilation == 1 && a.before == W::before && a.in == W::stride * a.out;
    };
    // Slices follow each other like rows, where no window loses elements at their ends.
    const bool flat = axis[0].kernel == 1 && axis[0].stride == 1 && axis[0].in == axis[0].out && (W::before == 0 || axis[0].in == 1);
    constexpr int64_t most = larger(outputs, kPack<S> / W::stride);  // outputs that one access moves
    constexpr int64_t narrow = most * sizeof(S), wide = most * sizeof(Accumulated<S>);
    return flat && slides(axis[1]) && slides(axis[2]) && axis[1].after == axis[1].before && axis[2].after == axis[2].before &&
           axis[2].out % outputs == 0 && axis[2].out % most == 0 && p.tap_bytes <= 1 && p.levels[0].output.position == 1 &&
           p.saved.position == 1 && p.moments_size % most == 0 && aligned(p.x, 16) && aligned(p.gx, 16) && aligned(p.y, narrow) &&
           aligned(p.second, narrow) && aligned(p.g, narrow) && aligned(p.g_second, narrow) && aligned(p.taps, most) &&
           aligned(p.slope, wide) && aligned(p.moments, wide);
  }

  FASTPOOL_HD int32_t height() const { return fast[0].axis[1].in; }
  FASTPOOL_HD int32_t width() const { return fast[0].axis[2].in; }
  FASTPOOL_HD int32_t out_height() const { return fast[0].axis[1].out; }
  FASTPOOL_HD int32_t out_width() const { return fast[0].axis[2].out; }

  FASTPOOL_HD int64_t input_at(const Units::Unit& unit) const { return unit.n * p.input.sample + times(unit.group, p.input.channel); }
  FASTPOOL_HD int64_t output_at(const Units::Unit& unit) const {
    return unit.n * levels[0].output.sample + times(unit.group, levels[0].output.channel);
  }
  FASTPOOL_HD int64_t saved_at(const Units::Unit& unit) const { return unit.n * p.saved.sample + times(unit.group, p.saved.channel); }

  // Taps of a window that lie inside, on one axis.
  static FASTPOOL_HD int32_t inside(int32_t origin, int32_t in) { return least(origin + W::kernel, in) - most(origin, 0); }
  template <class Pooling, class T>
  FASTPOOL_HD T parameter_of_plane(const Units::Unit& unit) const {
    return Pooling::uses_parameter ? parameter_of<T>(p, unit.n, unit.group, 0) : T(0);
  }
  // `taps`: how many of the window lie inside; `parameter`: that of the plane, which few calls have by region.
  template <class Pooling, class T>
  FASTPOOL_HD Facts<T> facts_inside(const Units::Unit& unit, int32_t bin, int32_t taps, T parameter) const {
    Facts<T> facts{T(0), T(0), T(0)};
    constexpr int all = W::kernel * W::kernel;
    if constexpr (Pooling::uses_divisor) {
      facts.inverse = (all & (all - 1)) == 0 && p.divisor_override == 0 && W::before == 0;
      facts.divisor = p.divisor_override ? T(p.divisor_override) : facts.inverse ? T(1) / T(all) : T(p.include_pad ? all : taps);
    }
    if constexpr (Pooling::uses_parameter)
      facts.parameter = p.parameter_view.position ? parameter_of<T>(p, unit.n, unit.group, bin) : parameter;
    return facts;
  }
};

// Four neighbouring outputs of a row.
template <class Reducer, class S, class W>
struct RowsForward : Rows<W> {
  using Base = Rows<W>;
  using Base::levels;
  using Base::outputs;
  using Base::p;
  static constexpr bool heavy = Reducer::careful_passes > 0;
  static constexpr int blocks = kBlocks<S, heavy>, kernel = W::kernel, stride = W::stride;
  static constexpr int middle = outputs * stride, columns = W::before + middle + larger(W::after, 0);
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  explicit RowsForward(const Problem& problem) : Base(problem, problem.levels[0].grid.axis[2].out / outputs) {}
  void finish(int64_t) { this->units = Units(p.samples, p.channels, p.bins / outputs, false); }

  // The elements that a thread's windows see, and which of them exist.
  struct Elements {
    T x[kernel][columns];
    bool row[kernel], first, last;

    FASTPOOL_HD bool exists(int r, int c) const {
      return (W::before == 0 || row[r]) && (c >= W::before || !first) && (c < W::before + middle || !last);
    }
  };

  FASTPOOL_HD Elements load_elements(const S* plane, int32_t row, int32_t quad, int32_t quads) const {
    constexpr int pack = middle < kPack<S> ? middle : kPack<S>;
    const T padding = Reducer::template padding<T>();
    Elements e;
    e.first = quad == 0;
    e.last = quad == quads - 1;
    FASTPOOL_UNROLL
    for (int r = 0; r < kernel; ++r) {
      const int32_t h = row * stride - W::before + r;
      e.row[r] = uint32_t(h) < uint32_t(this->height());
      const S* from = plane + times(W::before == 0 || e.row[r] ? h : 0, this->width()) + quad * middle;
      FASTPOOL_UNROLL
      for (int k = 0; k < middle; k += pack) {
        const Pack<S, pack> values = read(reinterpret_cast<const Pack<S, pack>*>(from + k));
        FASTPOOL_UNROLL
        for (int i = 0; i < pack; ++i) e.x[r][W::before + k + i] = widened(values.value[i]);
      }
      FASTPOOL_UNROLL
      for (int c = 0; c < columns; ++c) {
        if (c < W::before || c >= W::before + middle) e.x[r][c] = e.exists(r, c) ? widened(read(from + (c - W::before))) : padding;
        if (!e.exists(r, c)) e.x[r][c] = padding;
      }
    }
    return e;
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = this->units.find(index);
    const int32_t row = this->units_of_row.divide(unit.inside), quads = this->out_width() / outputs, quad = unit.inside - row * quads;
    const int32_t bin = unit.inside * outputs;
    const Elements e = load_elements(static_cast<const S*>(p.x) + this->input_at(unit), row, quad, quads);
    Words words{};
    if constexpr (Reducer::uses_uniform) words = draws_of(p, p.seed_now(), unit.n, unit.group, bin / outputs);
    const int32_t rows_inside = this->inside(row * stride - W::before, this->height());
    const T parameter = this->template parameter_of_plane<Reducer, T>(unit);
    Facts<T> facts[outputs];
    State states[outputs];
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) {
      int32_t inside = kernel;
      if (i == 0 && e.first) inside -= W::before;
      if (i == outputs - 1 && e.last) inside -= larger(W::after, 0);
      facts[i] = this->template facts_inside<Reducer, T>(unit, bin + i, rows_inside * inside, parameter);
      if constexpr (Reducer::uses_uniform) facts[i].uniform = T(uniform(words.word[i]));
      const int32_t skipped_rows = row == 0 ? W::before : 0, skipped_columns = i == 0 && e.first ? W::before : 0;
      states[i].start(Tap<T>(skipped_rows * kernel + skipped_columns), p);
    }
    run<0>(e, facts, states);
    unsigned odd = 0;  // outputs that the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) {
      if (heavy && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    store_results<Reducer, S, true>(*this, levels[0], this->output_at(unit) + bin, 1, this->saved_at(unit) + bin, 1, outputs, states);
    if constexpr (heavy) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) lone_window<Reducer, S>(*this, unit.n, unit.group, 0, bin + i);
    }
  }
  template <int pass>
  FASTPOOL_HD void run(const Elements& e, const Facts<T> (&facts)[outputs], State (&states)[outputs]) const {
    if constexpr (pass < Reducer::passes) {
      FASTPOOL_UNROLL
      for (int i = 0; i < outputs; ++i) {
        if constexpr (pass > 0) states[i].template begin<pass>(facts[i], p);
        FASTPOOL_UNROLL
        for (int k = 0; k < kernel * kernel; ++k) {
          const int r = k / kernel, c = i * stride + k % kernel;
          if constexpr (W::before > 0 && requires { states[i].template add_inside<pass>(T(0), Tap<T>(0), true); })
            states[i].template add_inside<pass>(e.x[r][c], Tap<T>(k), e.exists(r, c));
          else
            states[i].template add<pass>(e.x[r][c], Tap<T>(k));
        }
      }
      run<pass + 1>(e, facts, states);
    }
  }
};

// The gradients of a tile of two rows by one access.
template <class Gradient, class S, class W>
struct RowsBackward : Rows<W> {
  using Base = Rows<W>;
  using Base::levels;
  using Base::p;
  static constexpr int blocks = kBlocks<S, Gradient::uses_input>, rows = 2, columns = kPack<S>;
  static constexpr int kernel = W::kernel, stride = W::stride, before = W::before;
  // The outputs that see the tile, counted from the one that begins with it.
  static constexpr int first = floor_div(before - kernel + stride, stride);
  static constexpr int last_row = floor_div(rows - 1 + before, stride), last_column = floor_div(columns - 1 + before, stride);
  static constexpr int middle = columns / stride, count = last_column - first + 1;
  using T = Accumulated<S>;

  explicit RowsBackward(const Problem& problem) : Base(problem, problem.extent[2] / columns) {}
  void finish(int64_t) {
    this->units = Units(p.samples, p.channels, ceil_div(p.extent[0] * p.extent[1], rows) * (p.extent[2] / columns), false);
  }

  // `count` outputs from `first` on: those that begin inside the tile's columns by one access.
  template <class X>
  FASTPOOL_HD void load_outputs(X (&to)[count], const X* values, bool is_first, bool is_last) const {
    X inner[middle];
    load<true>(inner, values, 1, middle);
    FASTPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      const int o = i + first;
      if (o >= 0 && o < middle)
        to[i] = inner[o];
      else
        to[i] = (o < 0 ? is_first : is_last) ? X{} : read(values + o);
    }
  }

  struct Tile {
    Units::Unit unit;
    int32_t row, column;  // first output
    bool first, last;
    T parameter, x[rows][columns], sum[rows][columns];
  };

  // What the outputs of one row, `from_top` rows below the tile's first, send to the tile.
  template <int from_top>
  FASTPOOL_HD void add_row(Tile& tile) const {
    const int32_t o = tile.row + from_top;
    if ((first < 0 || last_row * stride >= rows) && uint32_t(o) >= uint32_t(this->out_height())) return;
    const int32_t bin = o * this->out_width() + tile.column;
    const int64_t out = this->output_at(tile.unit) + bin, saved = this->saved_at(tile.unit) + bin;
    const auto neighbours = [&](auto& to, const auto* from) { load_outputs(to, from, tile.first, tile.last); };
    Outputs<Gradient, S, count> outputs;
    outputs.template read<false>(p, levels[0], out, saved, neighbours, neighbours);
    const int32_t rows_inside = this->inside(o * stride - before, this->height());
    FASTPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      const int at = i + first;  // the output's place among those of the tile
      if (at < 0 ? tile.first : at >= middle && tile.last) continue;
      int32_t inside = kernel;
      if constexpr (Gradient::uses_divisor && before > 0) inside = this->inside((tile.column + at) * stride - before, this->width());
      const Facts<T> facts = this->template facts_inside<Gradient, T>(tile.unit, bin + at, rows_inside * inside, tile.parameter);
      const Slot<T> slot = Gradient::prepare(outputs.facts(i), facts, p);
      FASTPOOL_UNROLL
      for (int k = 0; k < kernel * kernel; ++k) {
        const int r = from_top * stride - before + k / kernel, c = at * stride - before + k % kernel;
        if (r < 0 || r >= rows || c < 0 || c >= columns) continue;
        tile.sum[r][c] += Gradient::term(tile.x[r][c], Tap<T>(k), slot, outputs.taps[i], p);
      }
    }
  }
  template <int from_top>
  FASTPOOL_HD void add_rows(Tile& tile) const {
    if constexpr (from_top <= last_row) {
      add_row<from_top>(tile);
      add_rows<from_top + 1>(tile);
    }
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    Tile tile;
    tile.unit = this->units.find(index);
    tile.parameter = this->template parameter_of_plane<Gradient, T>(tile.unit);
    const int32_t tile_row = this->units_of_row.divide(tile.unit.inside), tiles = this->width() / columns;
    const int32_t at = tile.unit.inside - tile_row * tiles, h = tile_row * rows;
    tile.row = h / stride;
    tile.column = at * middle;
    tile.first = at == 0;
    tile.last = at == tiles - 1;
    const int64_t element = this->input_at(tile.unit) + times(h, this->width()) + at * columns;
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      S x[columns]{};
      if constexpr (Gradient::uses_input)
        if (stride == rows || h + r < this->height()) load<true>(x, static_cast<const S*>(p.x) + element + r * this->width(), 1, columns);
      FASTPOOL_UNROLL
      for (int c = 0; c < columns; ++c) {
        tile.x[r][c] = widened(x[c]);
        tile.sum[r][c] = T(0);
      }
    }
    add_rows<first>(tile);
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      if (stride != rows && h + r >= this->height()) continue;
      S gx[columns];
      FASTPOOL_UNROLL
      for (int c = 0; c < columns; ++c) gx[c] = narrowed<S>(tile.sum[r][c]);
      store<true>(static_cast<S*>(p.gx) + element + r * this->width(), gx, 1, columns);
    }
  }
};

}  // namespace fastpool::cuda
