// Backward of a selection: a gradient of zeros, to which every output adds its own at the element it selected. Outputs
// are visited level by level in row-major order, so that the sums have the bits that gathering them would have.
#include <type_traits>
#include <vector>

#include "core/direct.h"
#include "cpu/run.h"

namespace fastpool::cpu {

namespace {

// Whole planes, or whole samples of a block of channels.
Units scatter_units(const Problem& p) {
  if (p.lanes_are_channels) return Units(p, 1, 128, false);
  return Units(p, 1, lanes_of(p.dtype), false);
}

}  // namespace

// Not where it has no accumulation type to sum in, or would leave threads idle, or where comparing taps is sooner:
// windows of a few elements that do not overlap, milliseconds for (8, 64, W, W) float32 of 2x2 windows, compared and
// scattered: contiguous 28x28 1.9 and 1.05 (512 channels), 56x56 0.57 and 0.62 (draws 0.56 and 0.9), 112x112 1.7 and 2.4;
// channels-last 56x56 0.5 and 0.65.
bool scatters(const Problem& p) {
  bool direct = false, overlaps = p.level_count > 1;
  for (int32_t l = 0; l < p.level_count; ++l) {
    direct |= p.levels[l].backward == Schedule::direct;
    for (const Axis& axis : p.levels[l].grid.axis) overlaps |= axis.adaptive() ? axis.in % axis.out != 0 : axis.stride < axis.extent();
  }
  if (direct || (overlaps && (p.dtype == Dtype::float16 || p.dtype == Dtype::bfloat16))) return false;
  if (scatter_units(p).count() < 4 && p.samples * p.channels * p.positions() > 4 * kGrainElements) return false;
  const Grid& grid = p.levels[0].grid;
  const int64_t first[3] = {0, 0, 0};
  const bool wide_rows = p.lanes_are_channels || (p.levels[0].backward == Schedule::rows && grid.axis[2].out >= 24);
  return overlaps || grid.taps(first) > 8 || !wide_rows;
}

namespace {

// Where the windows of one level and their elements lie.
class Windows {
 public:
  Windows(const Problem& p, const Level& level) : level(level), axis(level.grid.axis), p(p) {
    for (int a = 0; a < 3; ++a)
      for (int64_t o = 0; axis[a].adaptive() && axis[a].out <= kFewBins && o < axis[a].out; ++o) bins[a].push_back(compute(a, o));
    alike = !(axis[0].adaptive() || axis[1].adaptive() || axis[2].adaptive());
    int64_t o[3] = {0, 0, 0}, elements = 0;
    if (p.tap_bytes != 1 || (!alike && p.positions() > kSmallPlane)) return;
    for (; o[0] < (alike ? 1 : axis[0].out); ++o[0])
      for (o[1] = 0; o[1] < (alike ? 1 : axis[1].out); ++o[1])
        for (o[2] = 0; o[2] < (alike ? 1 : axis[2].out); ++o[2], elements = int64_t(table.size())) {
          begins.push_back(elements);
          for (int64_t tap = 0; tap < level.grid.taps(o); ++tap) table.push_back(element(o, uint32_t(tap)) - origin(o));
        }
    begins.push_back(elements);
  }

  const Level& level;
  bool alike;  // all of one size

  // An element of a window.
  int64_t element(const int64_t o[3], uint32_t tap) const {
    const uint32_t columns = window(2, o).size, lines = window(1, o).size;
    const uint32_t line = tap / columns, slice = line / lines;
    const int64_t row = slice * axis[0].dilation * p.extent[1] + (line - slice * lines) * axis[1].dilation;
    return first(o) + (row * p.extent[2] + (tap - line * columns) * axis[2].dilation) * p.input.position;
  }
  // How many elements it has. Other taps stand for none: a draw may find nothing to select.
  uint32_t count(const int64_t o[3]) const { return window(0, o).size * window(1, o).size * window(2, o).size; }
  // The elements of a window, from its origin, or null where no table says so.
  const int64_t* elements(int64_t bin) const { return table.empty() ? nullptr : table.data() + begins[alike ? 0 : size_t(bin)]; }
  int64_t origin(const int64_t o[3]) const { return alike ? first(o) : 0; }

 private:
  static constexpr int64_t kSmallPlane = 4096, kFewBins = 256;
  struct Window {
    int64_t start;
    uint32_t size;
  };
  const Axis* axis;
  const Problem& p;
  std::vector<Window> bins[3];  // of few bins, which take divisions to find
  std::vector<int64_t> table, begins;

  Window compute(int a, int64_t o) const { return {axis[a].position(o, 0), uint32_t(axis[a].taps(o))}; }
  Window window(int a, const int64_t o[3]) const { return bins[a].empty() ? compute(a, o[a]) : bins[a][size_t(o[a])]; }

  // Element 0 of a window, be it padding.
  int64_t first(const int64_t o[3]) const {
    return ((window(0, o).start * p.extent[1] + window(1, o).start) * p.extent[2] + window(2, o).start) * p.input.position;
  }
};

template <class S>
class Scatter {
 public:
  explicit Scatter(const Problem& p) : p(p) {
    for (int32_t l = 0; l < p.level_count; ++l) levels.emplace_back(p, p.levels[l]);
  }

  void run(const Units::Unit& unit) const {
    if (p.lanes_are_channels) return run_channels(unit);
    S* gx = gradient(unit.n, unit.c);
    memset(static_cast<void*>(gx), 0, size_t(unit.channels * p.positions()) * sizeof(S));
    for (int64_t c = unit.c; c < unit.c + unit.channels; ++c, gx += p.positions())
      for (const Windows& windows : levels) run_plane(windows, unit.n, c, gx);
  }

 private:
  const Problem& p;
  std::vector<Windows> levels;

  S* gradient(int64_t n, int64_t c) const { return static_cast<S*>(p.gx) + p.input.at(n, c, 0); }
  const S* incoming(const Level& level, int64_t n, int64_t c, int64_t bin) const {
    return static_cast<const S*>(p.g) + level.output_base + level.output.at(n, c, bin);
  }
  uint32_t tap(int64_t at) const { return uint32_t(saved_tap<Accumulated<S>>(p, at)); }

  static void add(S& to, S gradient) {
    if constexpr (std::is_same_v<S, Accumulated<S>>)
      to += gradient;
    else if (gradient.bits & 0x7fff)  // 0 + -0 is 0
      to = gradient;
  }
  // `outputs` of windows of `count` elements, `step` apart. By itself, so that all of it stays in registers.
  __attribute__((noinline)) static void add_all(S* gx, int64_t step, const int64_t* elements, uint32_t count, const uint8_t* taps,
                                                const S* g, int64_t outputs) {
    for (int64_t i = 0; i < outputs; ++i, gx += step)
      if (taps[i] < count) add(gx[elements[taps[i]]], g[i]);
  }

  void run_plane(const Windows& windows, int64_t n, int64_t c, S* gx) const {
    const Level& level = windows.level;
    const Axis* axis = level.grid.axis;
    const S* g = incoming(level, n, c, 0);
    const int64_t saved = p.saved.at(n, c, level.first_bin);
    const int64_t* elements = windows.elements(0);
    const uint8_t* taps = static_cast<const uint8_t*>(p.taps) + saved;
    int64_t o[3] = {0, 0, 0}, bin = 0;
    if (elements && windows.alike) {
      const uint32_t count = windows.count(o);
      for (; o[0] < axis[0].out; ++o[0]) {
        S* first = gx + windows.origin(o);
        for (int64_t h = 0; h < axis[1].out; ++h, bin += axis[2].out, first += axis[1].stride * p.extent[2])
          add_all(first, axis[2].stride, elements, count, taps + bin, g + bin, axis[2].out);
      }
      return;
    }
    if (elements) {
      for (; bin < level.grid.bins(); ++bin, elements = windows.elements(bin))
        if (taps[bin] < windows.elements(bin + 1) - elements) add(gx[elements[taps[bin]]], g[bin]);
      return;
    }
    for (; o[0] < axis[0].out; ++o[0])
      for (o[1] = 0; o[1] < axis[1].out; ++o[1])
        for (o[2] = 0; o[2] < axis[2].out; ++o[2], ++bin) {
          const uint32_t chosen = tap(saved + bin);
          if (chosen < windows.count(o)) add(gx[windows.element(o, chosen)], g[bin]);
        }
  }

  // Rows are cleared just before the first output that sees them, so that they are still in the cache for it.
  void run_channels(const Units::Unit& unit) const {
    int64_t cleared = 0;
    for (const Windows& windows : levels) {
      const Axis* axis = windows.level.grid.axis;
      int64_t o[3];
      for (o[0] = 0; o[0] < axis[0].out; ++o[0])
        for (o[1] = 0; o[1] < axis[1].out; ++o[1]) {
          const Span d = axis[0].window(o[0]), h = axis[1].window(o[1]);
          cleared = clear(unit, cleared, (d.start + (d.count - 1) * d.step) * p.extent[1] + h.start + (h.count - 1) * h.step + 1);
          for (o[2] = 0; o[2] < axis[2].out; ++o[2]) run_output(windows, unit, o);
        }
    }
    clear(unit, cleared, p.extent[0] * p.extent[1]);
  }

  // Rows begin … end - 1; returns the first that is not yet cleared.
  int64_t clear(const Units::Unit& unit, int64_t begin, int64_t end) const {
    if (end <= begin) return begin;
    const int64_t positions = (end - begin) * p.extent[2], step = p.input.position;
    const bool all = unit.channels == step;
    S* gx = gradient(unit.n, unit.c) + begin * p.extent[2] * step;
    for (int64_t i = 0; i < (all ? 1 : positions); ++i)
      memset(static_cast<void*>(gx + i * step), 0, size_t(all ? positions * step : unit.channels) * sizeof(S));
    return end;
  }

  // All channels of one output.
  void run_output(const Windows& windows, const Units::Unit& unit, const int64_t o[3]) const {
    const Level& level = windows.level;
    const int64_t bin = level.bin(o), saved = p.saved.at(unit.n, unit.c, level.first_bin + bin);
    const S* g = incoming(level, unit.n, unit.c, bin);
    S* gx = gradient(unit.n, unit.c);
    const int64_t* elements = windows.elements(bin);
    const uint32_t count = windows.count(o);
    const int64_t tap_step = p.saved.channel, g_step = level.output.channel;
    if (elements) gx += windows.origin(o);
    if (elements && tap_step == 1 && g_step == 1)
      return add_all(gx, 1, elements, count, static_cast<const uint8_t*>(p.taps) + saved, g, unit.channels);
    for (int64_t c = 0; c < unit.channels; ++c) {
      const uint32_t chosen = tap(saved + c * tap_step);
      if (chosen < count) add(gx[c + (elements ? elements[chosen] : windows.element(o, chosen))], g[c * g_step]);
    }
  }
};

void scatter_chunk(const Problem& p, int64_t begin, int64_t end) {
  const Units units = scatter_units(p);
  with_storage(p.dtype, [&](auto s) {
    const Scatter<decltype(s)> kernel(p);
    for (int64_t u = begin; u < end; ++u) kernel.run(units.at(u));
  });
}

}  // namespace

void scatter(const Problem& p) { divide(p, scatter_units(p).count(), scatter_chunk); }

}  // namespace fastpool::cpu
