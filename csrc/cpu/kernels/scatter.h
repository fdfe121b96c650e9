// Backward of a selection: a gradient of zeros, to which every output adds its own at the element it selected. Outputs
// are visited level by level in row-major order, so that the sums have the bits that gathering them would have.
#pragma once

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Whether an element may hear from several outputs.
inline bool overlaps(const Problem& p) {
  const Grid& grid = p.levels[0].grid;
  return p.level_count > 1 || OutputRows(grid).count() * grid.axis[2].most_covers() > 1;
}

// Sums are of type Sum: the gradient itself, or where they have to be narrowed in the end, scratch.
template <class S, class Sum>
class Scatter {
 public:
  using T = Accumulated<S>;

  Scatter(const Problem& p, const Units& units, Arena arena)
      : p(p),
        step(!p.lanes_are_channels ? 1
             : narrows             ? units.most_channels()
                                   : p.input.position),
        sources(arena.take<Source>(p.level_count)) {
    for (int32_t l = 0; l < p.level_count; ++l) {
      sources[l] = source_of(p.levels[l], arena);
      all_listed &= sources[l].elements != nullptr;
    }
    if (narrows) sums = arena.take<Sum>(most_rows() * most_columns() * step + 1);
  }

  void run(const Units::Unit& unit) const {
    if (p.lanes_are_channels) return run_rows(unit);
    if (!narrows && all_listed && unit.last_row - unit.first_row == p.extent[0] * p.extent[1]) return run_planes(unit);
    for (int64_t c = 0; c < unit.channels; ++c) run_rows({unit.n, unit.c + c, 1, unit.first_row, unit.last_row});
  }

 private:
  static constexpr bool narrows = !std::is_same_v<S, Sum>;  // some rows of the input at a time
  static constexpr int64_t kMostSums = 128 << 10, kMostListed = 4096, kFewSums = 2048;
  static constexpr int L = kLanes<T>;
  static constexpr uint32_t kFewTaps = 64;

  // One level. `elements` lists where the elements of windows lie, if there are few: of windows of one size for all of
  // them, counted from where a window lies, and of others for each, from where `begins` says and counted from the plane.
  struct Source {
    const Level* level;
    const int64_t *elements, *begins;
    uint32_t count;  // elements of windows of one size
    bool alike;
  };
  // The sums of some elements of the input; what lies elsewhere is left to others.
  struct Target {
    Sum* first;
    int64_t begin, size;
  };
  // The rows of the input that those are of, from `first` to before `last`, and the columns of these.
  struct Part {
    int64_t first, last;
    Columns columns;
  };

  const Problem& p;
  int64_t step;  // between the sums of neighbouring positions
  Source* sources;
  bool all_listed = true;
  Sum* sums = nullptr;

  // Columns and rows whose sums there is room for at once.
  int64_t most_columns() const { return smaller(larger(kMostSums / step, 1), p.extent[2]); }
  int64_t most_rows() const { return smaller(larger(kMostSums / (p.extent[2] * step), 1), p.extent[0] * p.extent[1]); }
  static int64_t list_size(const Problem& p, const Grid& grid) {
    const bool alike = grid.slides();
    if (!alike && (p.positions() > kMostListed || grid.bins() > kMostListed)) return 0;
    int64_t size = 1;
    for (const Axis& axis : grid.axis) {
      int64_t taps = 0;
      for (int64_t o = 0; o < (alike ? 1 : axis.out); ++o) taps += axis.taps(o);
      size *= taps;
      if (alike && size > kMostListed) return 0;
    }
    return size;
  }

  Source source_of(const Level& level, Arena& arena) const {
    const Axis* axis = level.grid.axis;
    const bool alike = level.grid.slides();
    const int64_t size = list_size(p, level.grid);
    if (size == 0) return {&level, nullptr, nullptr, 0, alike};
    int64_t *elements = arena.take<int64_t>(size), *begins = arena.take<int64_t>(alike ? 2 : level.grid.bins() + 1);
    int64_t bin = 0, listed = 0, o[3];
    for (o[0] = 0; o[0] < (alike ? 1 : axis[0].out); ++o[0])
      for (o[1] = 0; o[1] < (alike ? 1 : axis[1].out); ++o[1])
        for (o[2] = 0; o[2] < (alike ? 1 : axis[2].out); ++o[2]) {
          begins[bin++] = listed;
          int64_t* to = elements + listed;
          listed += level.grid.taps(o);
          const int64_t from = alike ? 0 : level.grid.origin(o);
          level.grid.each_offset(o, [&](int64_t offset) { *to++ = (from + offset) * step; });
        }
    begins[bin] = listed;
    FASTPOOL_ASSERT(listed == size);
    return {&level, elements, begins, uint32_t(begins[1]), alike};
  }

  // Calls with the saved taps from `at` on, which are bytes, or more where windows are large.
  template <class Body>
  void with_taps(int64_t at, const Body& body) const {
    if (p.tap_bytes == 1)
      body(static_cast<const uint8_t*>(p.taps) + at);
    else
      body(static_cast<const int32_t*>(p.taps) + at);
  }

  // Whole planes, a few at a time, so that they are still in the cache.
  void run_planes(const Units::Unit& unit) const {
    const int64_t step = p.bins == 1 ? unit.channels : larger(kFewSums / p.positions(), 1);
    for (int64_t c = 0; c < unit.channels; c += step) add_planes({unit.n, unit.c + c, smaller(step, unit.channels - c), 0, 0});
  }
  void add_planes(const Units::Unit& unit) const {
    const Target target{reinterpret_cast<Sum*>(static_cast<S*>(p.gx) + p.input.at(unit.n, unit.c, 0)), 0, unit.channels * p.positions()};
    fill_zeros(target.first, target.size);
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Source& source = sources[l];
      const Level& level = *source.level;
      const S* g = static_cast<const S*>(p.g) + level.output_base + level.output.at(unit.n, unit.c, 0);
      with_taps(p.saved.at(unit.n, unit.c, level.first_bin), [&](const auto* taps) FASTPOOL_STEP {
        if (p.bins == 1) {
          const int64_t first[3] = {0, 0, 0}, origin = source.alike ? level.grid.origin(first) : 0;
          add_outputs(target, origin, p.positions(), source.elements, source.count, taps, g, unit.channels);
        } else if (source.alike) {
          add_alike_planes(p, target, source, taps, g, unit.channels);
        } else {
          add_bins_of_planes(p, target, source, taps, g, unit.channels);
        }
      });
    }
  }
  template <class Code>
  static __attribute__((noinline)) void add_alike_planes(const Problem& p, const Target& target, const Source& source, const Code* taps,
                                                         const S* g, int64_t planes) {
    const Axis* axis = source.level->grid.axis;
    const int64_t across = axis[2].out, between = axis[1].stride * p.extent[2], step = source.level->output.channel;
    for (int64_t plane = 0; plane < planes; ++plane, taps += p.saved.channel, g += step) {
      const Target own{target.first + plane * p.positions(), 0, p.positions()};
      int64_t done = 0;
      for (int64_t o[3] = {0, 0, 0}; o[0] < axis[0].out; ++o[0]) {
        int64_t origin = source.level->grid.origin(o);
        for (int64_t line = 0; line < axis[1].out; ++line, origin += between, done += across)
          add_outputs(own, origin, axis[2].stride, source.elements, source.count, taps + done, g + done, across);
      }
    }
  }
  template <class Code>
  static __attribute__((noinline)) void add_bins_of_planes(const Problem& p, const Target& target, const Source& source, const Code* taps,
                                                           const S* g, int64_t planes) {
    const int64_t bins = source.level->grid.bins(), step = source.level->output.channel;
    for (int64_t plane = 0; plane < planes; ++plane, taps += p.saved.channel, g += step)
      add_bins({target.first + plane * p.positions(), 0, p.positions()}, source.elements, source.begins, taps, g, bins);
  }

  void run_rows(const Units::Unit& unit) const {
    if constexpr (!narrows) {
      S* gx = static_cast<S*>(p.gx) + p.input.at(unit.n, unit.c, unit.first_row * p.extent[2]);
      const int64_t positions = (unit.last_row - unit.first_row) * p.extent[2];
      add_levels(unit, {unit.first_row, unit.last_row, {0, p.extent[2]}}, {gx, unit.first_row * p.extent[2] * step, positions * step});
      return;
    }
    // Columns of several rows follow each other where they are all there are.
    const int64_t columns = most_columns();
    for (int64_t row = unit.first_row, rows; row < unit.last_row; row += rows) {
      rows = columns < p.extent[2] ? 1 : smaller(most_rows(), unit.last_row - row);
      for (int64_t column = 0; column < p.extent[2]; column += columns) {
        const int64_t begin = row * p.extent[2] + column, end = smaller(column + columns, p.extent[2]), positions = rows * (end - column);
        S* gx = static_cast<S*>(p.gx) + p.input.at(unit.n, unit.c, begin);
        FASTPOOL_ASSERT(positions <= most_rows() * most_columns() && (unit.channels <= step || !p.lanes_are_channels));
        add_levels(unit, {row, row + rows, {column, end}}, {sums, begin * step, positions * step});
        if (!p.lanes_are_channels) narrow(gx, sums, positions);
        for (int64_t i = 0; i < positions && p.lanes_are_channels; ++i) narrow(gx + i * p.input.position, sums + i * step, unit.channels);
      }
    }
  }
  static void narrow(S* to, const Sum* from, int64_t count) {
    for (int64_t i = 0; i < count; i += L) store_part(to + i, 1, load<T, L>(from + i), smaller(L, count - i));
  }

  // Sums of rows first … last - 1 of the input, of which those of some columns are here. Those of channels-last input are
  // cleared just before the first output that sees them, so that they are still in the cache for it.
  void add_levels(const Units::Unit& unit, const Part& part, const Target& target) const {
    const int64_t width = part.columns.end - part.columns.begin, rows = part.last - part.first;
    int64_t cleared = 0;
    const auto clear_to = [&](int64_t row) {
      const int64_t count = smaller(row - part.first, rows);
      if (cleared < count) clear(unit, target, cleared * width, count * width);
      cleared = larger(cleared, count);
    };
    if (!p.lanes_are_channels) clear_to(part.last);
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Source& source = sources[l];
      const Axis* axis = source.level->grid.axis;
      const int64_t height = p.extent[1];
      Range slices{0, axis[0].out}, lines{0, axis[1].out}, outputs{0, axis[2].out};
      if (rows < p.extent[0] * height) {
        const int64_t slice = part.first / height, last_slice = (part.last - 1) / height;
        slices = axis[0].covers({slice, last_slice + 1});
        if (slice == last_slice) lines = axis[1].covers({part.first % height, (part.last - 1) % height + 1});
      }
      if (width < p.extent[2]) outputs = axis[2].covers(part.columns);
      for (int64_t d = slices.begin; d < slices.end; ++d) {
        if (!p.lanes_are_channels) add_plane(unit, target, source, d, lines, outputs);
        for (int64_t h = lines.begin; h < lines.end && p.lanes_are_channels; ++h) {
          const Span deep = axis[0].window(d), high = axis[1].window(h);
          clear_to(row_of_input(deep, high, deep.count - 1, high.count - 1, height) + 1);
          add_row(unit, target, source, d, h, outputs);
        }
      }
    }
    clear_to(part.last);
  }
  // Positions begin … end - 1 of those that are here.
  void clear(const Units::Unit& unit, const Target& target, int64_t begin, int64_t end) const {
    Sum* to = target.first + begin * step;
    if (narrows || unit.channels == step) return fill_zeros(to, (end - begin) * step);
    for (int64_t i = 0; i < end - begin; ++i) fill_zeros(to + i * step, unit.channels);
  }
  static void fill_zeros(Sum* to, int64_t count) { memset(static_cast<void*>(to), 0, size_t(count) * sizeof(Sum)); }

  // Some outputs of some lines of slice `d` of one plane.
  void add_plane(const Units::Unit& unit, const Target& target, const Source& source, int64_t d, Range lines, Range outputs) const {
    const Level& level = *source.level;
    const Axis* axis = level.grid.axis;
    int64_t o[3] = {d, lines.begin, outputs.begin};
    const int64_t first = level.bin(o), count = outputs.end - outputs.begin, saved = p.saved.at(unit.n, unit.c, level.first_bin + first);
    const S* g = static_cast<const S*>(p.g) + level.output_base + level.output.at(unit.n, unit.c, first);
    if (source.elements && source.alike) {
      const int64_t origin = level.grid.origin(o) - target.begin, between = axis[1].stride * p.extent[2];
      return with_taps(saved, [&](const auto* taps)
                                  FASTPOOL_STEP { add_alike(target, source, origin, between, lines.end - lines.begin, count, taps, g); });
    }
    for (int64_t line = 0; o[1] < lines.end; ++o[1], line += axis[2].out) {
      if (source.elements) {
        with_taps(saved + line, [&](const auto* taps) FASTPOOL_STEP {
          add_bins(target, source.elements, source.begins + first + line, taps, g + line, count);
        });
        continue;
      }
      for (int64_t i = 0; i < count; ++i) {
        o[2] = outputs.begin + i;
        const uint32_t tap = uint32_t(saved_tap<T>(p, saved + line + i));
        if (tap < uint32_t(level.grid.taps(o))) add(target, level.grid.position(o, tap) - target.begin, g[line + i]);
      }
    }
  }
  // These by themselves, so that all of it stays in registers: `lines` of `outputs`, the first of which lies at `origin`.
  template <class Code>
  static __attribute__((noinline)) void add_alike(const Target& target, const Source& source, int64_t origin, int64_t between,
                                                  int64_t lines, int64_t outputs, const Code* taps, const S* g) {
    const int64_t across = source.level->grid.axis[2].out, stride = source.level->grid.axis[2].stride, *elements = source.elements;
    const uint32_t count = source.count;
    for (; lines > 0; --lines, origin += between, taps += across, g += across)
      add_outputs(target, origin, stride, elements, count, taps, g, outputs);
  }
  template <class Code>
  static FASTPOOL_HD void add_bins(const Target& target, const int64_t* elements, const int64_t* begins, const Code* taps, const S* g,
                             int64_t bins) {
    for (int64_t i = 0; i < bins; ++i)
      if (uint32_t(taps[i]) < uint32_t(begins[i + 1] - begins[i])) add(target, elements[begins[i] + taps[i]] - target.begin, g[i]);
  }
  // Some outputs of line `h` of slice `d`, of all channels.
  void add_row(const Units::Unit& unit, const Target& target, const Source& source, int64_t d, int64_t h, Range outputs) const {
    const Level& level = *source.level;
    const Axis* axis = level.grid.axis;
    int64_t o[3] = {d, h, outputs.begin}, bin = level.bin(o), origin = (source.alike ? level.grid.origin(o) * step : 0) - target.begin;
    int64_t saved = p.saved.at(unit.n, unit.c, level.first_bin + bin);
    const S* g = static_cast<const S*>(p.g) + level.output_base + level.output.at(unit.n, unit.c, bin);
    for (; o[2] < outputs.end; ++o[2], ++bin, saved += p.saved.position, g += level.output.position) {
      const uint32_t count = uint32_t(level.grid.taps(o));
      const int64_t* elements = source.elements ? source.elements + (source.alike ? 0 : source.begins[bin]) : nullptr;
      if (elements && p.saved.channel == 1 && level.output.channel == 1)
        with_taps(saved, [&](const auto* taps) FASTPOOL_STEP { add_channels(target, origin, elements, count, taps, g, unit.channels); });
      else
        for (int64_t c = 0; c < unit.channels; ++c) {
          const uint32_t tap = uint32_t(saved_tap<T>(p, saved + c * p.saved.channel));
          if (tap >= count) continue;
          const int64_t at = elements ? origin + elements[tap] : level.grid.position(o, tap) * step - target.begin;
          add(target, at + c, g[c * level.output.channel]);
        }
      if (source.alike) origin += axis[2].stride * step;
    }
  }
  template <class Code>
  static __attribute__((noinline)) void add_channels(const Target& target, int64_t origin, const int64_t* elements, uint32_t count,
                                                     const Code* taps, const S* g, int64_t channels) {
    int64_t c = 0;
    if constexpr (std::is_same_v<Sum, T> && sizeof(Code) == 1)
      if (count <= kFewTaps)
        for (; c + L <= channels; c += L) add_lanes(target, origin + c, elements, count, taps + c, g + c);
    add_outputs(target, origin + c, 1, elements, count, taps + c, g + c, channels - c);
  }
  // One window in each lane: its gradient goes to the element it selected, and nothing to the others.
  static FASTPOOL_HD void add_lanes(const Target& target, int64_t origin, const int64_t* elements, uint32_t count, const uint8_t* taps,
                              const S* g) {
    using V = Lanes<T, L>;
    const V gradient = load<T, L>(g);
    const Tap<V> tap = load<Tap<T>, L>(taps);
    for (uint32_t k = 0; k < count; ++k) {
      const int64_t at = origin + elements[k];
      if (uint64_t(at) >= uint64_t(target.size)) continue;
      store(target.first + at, load<T, L>(target.first + at) + select(tap == Tap<V>(Tap<T>(k)), gradient, V(T(0))));
    }
  }
  // `outputs` of windows of `count` elements, `between` apart.
  template <class Code>
  static FASTPOOL_HD void add_outputs(const Target& target, int64_t origin, int64_t between, const int64_t* elements, uint32_t count,
                                const Code* taps, const S* g, int64_t outputs) {
    const Target mine = target;
    for (int64_t i = 0; i < outputs; ++i, origin += between)
      if (uint32_t(taps[i]) < count) add(mine, origin + elements[taps[i]], g[i]);
  }
  // Taps that no window has stand for no element: a draw may find none to select.
  static FASTPOOL_HD void add(const Target& target, int64_t at, S g) {
    if constexpr (narrows)  // an element behind the others takes what lies elsewhere: a jump would be hard to predict
      target.first[uint64_t(at) < uint64_t(target.size) ? at : target.size] += widen_one(g);
    else if (uint64_t(at) < uint64_t(target.size)) {
      if constexpr (std::is_same_v<S, T>)
        target.first[at] += g;
      else if (g.bits & 0x7fff)  // 0 + -0 is 0
        target.first[at] = g;
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
