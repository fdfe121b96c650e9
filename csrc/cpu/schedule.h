// Which schedules there are, what each can compute (fits), and which of those that can is the one to choose. They have the
// names of their classes in csrc/cpu/kernels. `make bench-schedules` measures whether a choice is the best one.
#pragma once

#include <iterator>

#include "core/problem.h"
#include "cpu/capability.h"

namespace fastpool {

// What decides the schedule besides the shape.
struct ReducerTraits {
  bool draws = false;           // running sums in row-major order, or in classes
  int parts = 0;                // values that a part of a window comes to, where it may be reduced first
  bool several_passes = false;  // over a window
  bool any_order = false;       // with the same bits, whatever the order
  bool selects = false;         // a gradient of selections
  bool shares = false;          // a gradient that elements of a window share, but for a selected one
  bool is_alike = false;        // a gradient that is the same for all elements of a window
  bool two_results = false;     // a second value per bin; in a pyramid it fills a second set of channels
  bool again = false;           // a gradient whose results were not kept
  bool separable = false;       // the best of a window is that of its rows' bests, or so is a sum
};

}  // namespace fastpool

namespace fastpool::cpu {

// Of each level.
enum class ForwardSchedule : int8_t {
  exact,        // one output at a time, of any windows
  channels,     // channels-last input: lanes are channels
  planes,       // lanes are planes, which are transposed
  flat,         // lanes share one window
  rows,         // lanes are neighbouring outputs of a row
  separable,    // selections, and averages, over windows that overlap much: one axis after another
  interleaved,  // channels-last input of few channels: lanes are channels of neighbouring outputs
};
constexpr const char* kForwardSchedules[] = {"exact", "channels", "planes", "flat", "rows", "separable", "interleaved"};
static_assert(std::size(kForwardSchedules) == size_t(ForwardSchedule::interleaved) + 1);

// Of all levels.
enum class BackwardSchedule : int8_t {
  exact,           // one element at a time
  pooled_again,    // 2x2 windows side by side whose results were not kept
  disjoint_lanes,  // windows that do not overlap, of channels-last input
  disjoint_rows,   // the same of contiguous input
  scatter,         // selections, from outputs to the input
  whole_planes,    // planes that are one window each
  lanes,           // lanes are channels, or planes that are transposed
  sliding,         // lanes are elements of a row a stride apart
  levels,          // bins and wide windows: lanes are the elements of a row that an output sees
  interleaved,     // channels-last input of few channels: lanes are channels of neighbouring elements
  cells,           // averages of bins over small planes: rows of cells, whose elements have the same gradients
  separable,       // averages over large windows a step apart: one axis after another
};
constexpr const char* kBackwardSchedules[] = {"exact", "pooled_again", "disjoint_lanes", "disjoint_rows", "scatter", "whole_planes",
                                              "lanes", "sliding",      "levels",         "interleaved",   "cells",   "separable"};
static_assert(std::size(kBackwardSchedules) == size_t(BackwardSchedule::separable) + 1);

// Whether kernels know common geometries, and half types, in vectors (kSpecialises, kHasLanes).
inline bool specialises() {
#if defined(__x86_64__)
  return capability() != Capability::baseline;
#else
  return true;
#endif
}
// As kLanes has them.
inline int64_t kernel_lanes(Dtype dtype) {
  const int64_t bytes = capability() == Capability::avx512 ? 64 : capability() == Capability::avx2 ? 32 : 16;
  return 2 * bytes / (dtype == Dtype::float64 ? 8 : 4);
}
inline bool has_lanes(Dtype dtype) { return specialises() || dtype == Dtype::float32 || dtype == Dtype::float64; }

// Lanes over one window pay where the planes fill few lanes, and for runs of one row, which are reduced in parts. Milliseconds
// for 1.6 MB of float32 on one thread of AVX-512, in lanes of its own, transposed and as rows: soft, bins 32 wide of one
// channel 0.8, 6.3 and 2.8, 8x8 of 3 channels 2.6, 4.1 and 5.2, of 8 channels 2.6, 1.7 and 5.0; transposed where there are
// many planes: soft, 16x16 of 32 channels 0.8 and 0.3, averages 24 wide 0.09 and 0.15, of whole 3x3 planes 0.14 and 0.43,
// maxima 64 wide 0.11 and 0.10, of whole 6x6 planes 0.22 and 0.16.
constexpr int64_t kFewTaps = 32;
inline bool fills_lanes(const Problem& p, const Grid& grid, int parts, bool any_order) {
  const bool one = grid.bins() == 1;
  if (4 * p.channels < kernel_lanes(p.dtype)) return one || grid.least_taps() >= kFewTaps;
  // Several planes share their last steps.
  const bool sums = parts == 1 && !any_order;
  return parts > 0 && grid.axis[2].least_taps() >= (sums ? (one && p.level_count == 1 ? 8 : 24) : (one ? 48 : 80));
}

// Transposing planes pays when they fill half of the lanes, and rows are short. Milliseconds for (8, 512, W, W) float32 on one
// thread of AVX-512, as rows and transposed: 2x2 stride 2, 8 outputs a row 0.44 and 0.27, 10 outputs 0.53 and 0.46, 12 outputs
// 0.56 and 1.0; 3x3 stride 2, 12 outputs 1.35 and 1.2, 14 outputs 1.55 and 1.65; 3x3 stride 1, 20 outputs 2.7 and 1.9, 24
// outputs 3.2 and 3.0, 28 outputs 3.95 both, 32 outputs 4.3 and 5.0; of less than 2 MB, 28 outputs 0.53 and 0.40. Registers of
// AVX2 draw the same lines.
constexpr int64_t kNarrowBin = 16;
inline bool are_few(const Problem& p) { return 2 * p.channels < kernel_lanes(p.dtype); }
inline bool is_narrow(const Axis& w) { return w.out < (w.stride == 1 ? 29 : w.stride < w.extent() ? 13 : 11); }

// Whether planes follow each other like the rows of one tall plane: windows divide the rows of each among themselves.
inline bool is_tall(const Problem& p) {
  const Level& level = p.levels[0];
  const Axis &d = level.grid.axis[0], &h = level.grid.axis[1];
  const int64_t bins = level.grid.bins();
  const bool divides = !h.adaptive() && h.before == 0 && h.extent() <= h.stride && h.out * h.stride == h.in;
  return p.level_count == 1 && !p.lanes_are_channels && divides && d.kernel == 1 && d.out == d.in && d.stride == 1 && d.before == 0 &&
         level.output.channel == bins && level.output.sample == p.channels * bins;
}
// 2x2 windows side by side, of which none loses an element. Several short rows of them share the lanes: of planes that are one
// tall plane, or of one plane that has some. Milliseconds for 13 MB of float32 on one thread of AVX-512, transposed and as
// rows: maxima of 4x4 planes 2.2 and 1.5, 8x8 2.2 and 0.75, 14x14 2.3 and 0.7; 9x9, which are not tall, 2.5 and 2.2, 11x11 2.4
// and 1.8, 13x13 2.2 and 1.3. Gradients of maxima, scattered and as rows, 2x2 1.4 and 2.0, 4x4 6.0 and 1.0, 8x8 2.3 and 0.7,
// 14x14 1.5 and 0.65; of averages, transposed and as rows, 8x8 3.4 and 0.8.
constexpr int64_t kSomeRows = 5;
inline bool has_squares(const Level& level) {
  const auto is = [](const Axis& a, int64_t size) { return a.kernel == size && a.stride == size && a.dilation == 1; };
  const Axis* axis = level.grid.axis;
  return is(axis[0], 1) && is(axis[1], 2) && is(axis[2], 2) && !level.clipped;
}
inline bool has_tall_squares(const Problem& p) {
  const Axis& w = p.levels[0].grid.axis[2];
  return is_tall(p) && has_squares(p.levels[0]) && w.in == 2 * w.out && w.out > 1;
}

// So do wider rows where lanes are gathered one by one, or read again for every pass, as long as a cache keeps what is
// transposed. Milliseconds for (32, 64, 112, 112) float32 on two threads of AVX-512, as rows and transposed: averages 3x3
// stride 3 12.6 and 5.2, 5x5 stride 3 32 and 7, 8x8 stride 8 15.8 and 5.0, but 4x4 stride 4 2.4 and 5.8; draws 4x4 stride 4
// 20.6 and 8.6, 5x5 stride 2 29.6 and 20.2, but 3x3 stride 2 9.9 and 13.4; draws by soft-max 4x4 stride 4 40 and 14, but 3x3
// stride 2 20 and 32. Averages of rows of 8000 and 100000, 3 wide stride 3, 28 and 19, 4.6 and 10.5.
constexpr int64_t kMostTransposed = 8192;
inline bool gathers(const Axis& w) { return w.stride == 3 || w.stride > 4; }
inline bool walks_badly(const Grid& grid, bool several_passes) {
  const Axis& w = grid.axis[2];
  return (gathers(w) || (several_passes && (w.stride > 2 || w.kernel > 3))) &&
         grid.axis[0].kernel * grid.axis[1].kernel * w.in <= kMostTransposed;
}

// Whether windows hardly overlap and have so many rows that it pays to reduce each column first, to one value or to two: then
// any order has to be right.
inline bool has_tall_windows(const Level& level, int parts, bool any_order) {
  const Axis* axis = level.grid.axis;
  int64_t rows = 1;
  bool apart = true;
  for (int a = 0; a < 3; ++a) {
    apart &= axis[a].adaptive() ? axis[a].in >= 3 * axis[a].out || axis[a].in == axis[a].out : axis[a].stride >= axis[a].extent();
    if (a < 2) rows *= axis[a].adaptive() ? axis[a].in / axis[a].out : axis[a].kernel;
  }
  return (level.free_order || any_order) && apart && parts > 0 && rows >= (parts == 1 ? 3 : 10);
}
// And rows are long enough for lanes to be columns.
inline bool folds_rows(const Level& level, int parts, bool any_order) {
  return level.grid.axis[2].in >= 32 && has_tall_windows(level, parts, any_order);
}

// Planes of up to so many positions are transposed whole: 128 KB of scratch for 32 of them.
constexpr int64_t kSmallPlane = 1024;
// Where levels see every row of small planes so often, it pays to reduce rows for all of them at once, cell by cell.
// Milliseconds of float32 on one thread of AVX-512, transposed and in cells: pyramids (4, 2, 1) of (64, 512, 14, 14) of maxima 4.8
// and 3.5, of averages 4.7 and 2.6; of (32, 256, 28, 28) 3.3 and 1.5, 3.1 and 1.2; but maxima 3x3 stride 3 of (64, 128, 24, 24) 1.5
// and 1.8.
constexpr int64_t kSeenOften = 5;
inline bool has_cells(const Problem& p, int parts, bool any_order) {
  bool has = !p.lanes_are_channels && !are_few(p) && p.extent[0] == 1 && p.positions() <= kSmallPlane && parts == 1;
  int64_t cells = 1;  // of a column, or more than those
  for (int32_t l = 0; l < p.level_count; ++l) {
    const Axis &h = p.levels[l].grid.axis[1], &w = p.levels[l].grid.axis[2];
    has &= has_tall_windows(p.levels[l], parts, any_order) && h.dilation == 1 && w.dilation == 1;
    cells += (h.out - 1) * (h.in % h.out > 0 ? 2 : 1);
  }
  return has && p.level_count * p.extent[1] >= kSeenOften * cells;
}

// Rows, and transposed planes, read what lies between windows and between their elements too.
constexpr int64_t kMostApart = 1024, kMostGaps = 8;
inline bool reaches_far(const Axis& w) { return w.extent() > w.in + kMostApart; }
inline bool is_sparse(const Axis& w) { return w.stride > kMostApart || w.stride > kMostGaps * w.extent() || reaches_far(w); }
// Rows at the ends of a tensor are copied for all lanes, of which there are 32 at most.
constexpr int64_t kMostCopied = 128 << 10;
inline bool copies_much(const Grid& grid) {
  return grid.axis[0].kernel * grid.axis[1].kernel * (32 * grid.axis[2].stride + grid.axis[2].extent()) > kMostCopied;
}

// Selections compare along one axis after another where an element is in so many windows, and where scratch holds as many
// rows as a window has. Milliseconds for float32 on one thread of AVX-512 with taps, without and with it: (8, 128, 40, 40) 4x4
// stride 1 7.6 and 4.7, channels-last 5.3 and 4.5; 7x7 stride 2 5.2 and 3.1, channels-last 2.5 and 1.6. Contiguous 3x3x3 of (2,
// 32, 8, 56, 56) 8.0 and 4.4, but channels-last 6.5 and 6.1, of (2, 64, 8, 14, 14) 0.7 and 0.9; and of (64, 64, 7, 7), whose rows
// are short, 5x5 0.8 and 1.3. 3x3 stride 1 of (8, 64, 112, 112) 12.4 and 7.7, without taps 7.4 and 4.9, but of (32, 192, 28, 28)
// 6.0 and 8.7. Channels-last of few channels, interleaved and separable: 3x3 stride 1 of (8, 3, 112, 112) 0.37 and 0.15, 7x7
// stride 3 0.34 and 0.2, but 5x5 stride 2 of (1, 3, 1024, 1024) 2.1 and 3.2. Averages of 17x17 of (2, 64, 112, 112), as lanes
// of one window and separable: stride 6 2.8 and 1.2, stride 12 0.7 and 1.0; channels-last stride 2 4.4 and 1.4, stride 6 0.5
// and 0.9, of 3 channels stride 6 2.5 and 0.6, stride 12 0.65 and 0.4.
constexpr int64_t kOverlappingFew = 4, kOverlapping = 9, kOverlappingMuch = 32, kFewColumns = 10, kManyColumns = 40;
constexpr int64_t kMostSeparateRows = 256, kMostSeparateColumns = 4096;
constexpr int64_t kMostSeparate = 1 << 18, kMostSeparateOfChannels = 1 << 14;  // a megabyte or two of scratch
inline bool can_separate(const Problem& p, const Grid& grid) {
  int64_t codes = 0;
  for (const Axis& axis : grid.axis) {
    const int64_t padded = (axis.out - 1) * axis.stride + axis.kernel;
    if (axis.adaptive() || axis.dilation != 1 || padded > 4 * axis.in || axis.kernel > kMostSeparateColumns) return false;
    codes = codes * axis.kernel + padded;
    if (codes > INT32_MAX) return false;
  }
  return p.level_count == 1 && grid.axis[0].kernel * grid.axis[1].kernel <= kMostSeparateRows &&
         grid.most_taps() <= (p.lanes_are_channels ? kMostSeparateOfChannels : kMostSeparate);
}
// Of windows a step apart, the windows of outputs that see an element each.
inline Grid seen_from_input(const Grid& grid) {
  Grid seen;
  for (int a = 0; a < 3; ++a) {
    const Axis& axis = grid.axis[a];
    seen.axis[a] = {.in = axis.out, .out = axis.in, .kernel = axis.kernel, .before = axis.kernel - 1 - axis.before};
  }
  return seen;
}
inline bool overlaps_much(const Problem& p, const Grid& grid, bool any_order) {
  int64_t windows = 1;
  for (const Axis& axis : grid.axis) windows *= axis.most_covers();
  const bool last = p.lanes_are_channels, few = p.channels < kernel_lanes(p.dtype);
  if (!any_order) return windows >= (last ? (few ? kOverlappingFew : kOverlappingMuch) : kOverlapping);
  const Axis& w = grid.axis[2];
  if (last ? grid.axis[0].kernel > 1 && !few : w.out < kFewColumns) return windows >= kOverlappingMuch;
  const bool gathers_anyway = last ? few && w.stride != 2 : w.out >= kManyColumns;
  return windows >= (gathers_anyway ? kOverlapping : kOverlapping + 1);
}

// Where all channels are fewer than lanes, most of these would be empty, and every window costs the same. Milliseconds on one
// thread of AVX-512, as channels and interleaved, without and with the gradient's: averages 2x2 stride 2 of (8, 8, 64, 64) 0.20
// and 0.07, 0.77 and 0.20, of 24 channels 0.21 and 0.17, 0.93 and 0.49; 3x3 stride 2 of (8, 3, 224, 224) 3.1 and 0.45, 19.6 and
// 1.2; maxima 2x2 stride 2 of 8 channels 0.36 and 0.08, 4x4 stride 4 0.13 and 0.075, but 8x8 stride 4 0.20 and 0.18.
constexpr int64_t kMostInterleavedStride = 4, kMostListedSources = 1 << 16;
inline bool has_few_channels(const Problem& p, const Level& level) {
  const bool neighbours = p.lanes_are_channels && level.output.channel == 1 && level.output.position == p.channels;
  return specialises() && neighbours && p.level_count == 1 && p.channels < kernel_lanes(p.dtype) && level.grid.slides() &&
         level.grid.axis[2].out > 1;
}
inline bool can_interleave(const Problem& p, const Level& level) {
  const Axis* axis = level.grid.axis;
  const int64_t padded = (axis[2].out - 1) * axis[2].stride + axis[2].extent();
  return has_few_channels(p, level) && level.grid.most_taps() <= kMostSequentialTaps && axis[2].stride <= kMostInterleavedStride &&
         axis[0].kernel * axis[1].kernel * padded * p.channels <= kMostCopied;
}

inline bool fits(ForwardSchedule schedule, const Problem& p, const Level& level, const ReducerTraits& traits) {
  using enum ForwardSchedule;
  const Grid& grid = level.grid;
  if (schedule == exact) return true;
  // A draw sums small windows in order and large ones in classes; a level of both kinds is neither.
  if (!has_lanes(p.dtype) || (traits.draws && !level.large && grid.most_taps() > kMostSequentialTaps)) return false;
  if (schedule == separable)
    return traits.separable && (traits.any_order || level.large) && can_separate(p, grid) &&
           (!p.lanes_are_channels || level.output.channel == 1);
  if (schedule == interleaved) return can_interleave(p, level);
  if (p.lanes_are_channels || schedule == channels) return p.lanes_are_channels && schedule == channels;
  if (schedule == flat) return level.large || (level.free_order && !traits.draws);
  const bool in_parts = folds_rows(level, traits.parts, traits.any_order) || has_cells(p, traits.parts, traits.any_order);
  if (schedule == planes && in_parts) return true;
  if (grid.slides() && (is_sparse(grid.axis[2]) || copies_much(grid))) return false;
  return schedule == rows ? grid.slides() && !level.large : grid.most_taps() <= kMostSequentialTaps;
}

// Rows of few planes are gathered, too, unless they have few outputs; selections do it once for each axis, sums of wide bins
// fold their rows first. Milliseconds for (8, 3, 160, 160) and for 3 MB of bins of as many channels, as rows, transposed and
// separable: maxima 5x5 stride 3 0.29, 0.54 and 0.12, 8x8 stride 8 0.20, 0.10 and 0.10; averages of 8x8 bins 2.1 and 0.22.
// Lanes that rows sort out of plain loads need no fold: maxima with taps, as rows and folded, 2x2x2 of (1, 32, 96, 96, 96) 10
// and 21, of (8, 16, 24, 24, 40) 1.2 and 1.9, 4x4 stride 4 of (8, 64, 112, 112) 1.7 and 3.9, but of (8, 64, 64, 64) 0.9 and 0.7.
constexpr int64_t kWideBin = 6, kColumnsToFold = 24, kManySorted = 20;
inline ForwardSchedule choose_forward(const Problem& p, const Level& level, const ReducerTraits& traits) {
  using enum ForwardSchedule;
  const auto can = [&](ForwardSchedule schedule) { return fits(schedule, p, level, traits); };
  const Grid& grid = level.grid;
  const Axis& w = grid.axis[2];
  const int64_t width = w.least_taps();
  const bool few = are_few(p);
  const bool fills_folds =
      !few || (width >= kWideBin && width <= kMostTransposed && (!traits.any_order || width * p.channels >= kColumnsToFold));
  const bool sorts = grid.slides() && (w.stride == 2 || w.stride == 4) && w.out >= kManySorted;
  const bool folds = folds_rows(level, traits.parts, traits.any_order) && fills_folds && !sorts;
  const bool squares = specialises() && !traits.draws && has_squares(level) && (is_tall(p) || grid.axis[1].out >= kSomeRows);
  if (can(separable) && (overlaps_much(p, grid, traits.any_order) || (few && !p.lanes_are_channels && gathers(w) && w.out > 1 && !folds)))
    return separable;
  if (can(interleaved)) return interleaved;
  if (can(channels)) return channels;
  if (can(planes) && (folds || has_cells(p, traits.parts, traits.any_order))) return planes;
  if (can(flat) && (level.large || fills_lanes(p, grid, traits.parts, traits.any_order) || !can(planes))) return flat;
  const bool badly = walks_badly(grid, traits.several_passes);
  const bool fills_rows = few ? w.out >= (badly ? 4 * p.channels : 2) : !(badly || is_narrow(w));
  if (can(rows) && (squares || fills_rows)) return rows;
  return can(planes) ? planes : exact;
}

// Gradients of selections. Comparing taps is sooner than scattering for windows of a few elements that do not overlap:
// milliseconds for (8, 64, W, W) float32 of 2x2 windows, compared and scattered: contiguous 28x28 1.9 and 1.05 (512
// channels; not where squares fill a tall plane), 56x56 0.57 and 0.62 (draws 0.56 and 0.9), 112x112 1.7 and 2.4; channels-last
// 56x56 0.5 and 0.65. Channels-last 7x7 of one window 0.09 and 0.19 (2048 channels), 10x10 of (2, 2048, 60, 60) 2.1 and 6.5, but
// windows of 24 channels 0.18 and 0.12, 3x3 of 32 channels 0.13 and 0.10, 12x12 of 64 channels 0.27 and 0.23.
constexpr int64_t kManyChannels = 64, kVeryManyChannels = 256;
inline bool compares_taps(const Problem& p, const Grid& grid) {
  const Axis& w = grid.axis[2];
  for (const Axis& axis : grid.axis)
    if (axis.adaptive() || axis.stride < axis.extent()) return false;
  if (p.lanes_are_channels)
    return p.channels >= kernel_lanes(p.dtype) && grid.most_taps() <= (p.channels >= kVeryManyChannels ? 256
                                                                       : p.channels >= kManyChannels   ? 64
                                                                                                       : 8);
  return grid.most_taps() <= 8 && (w.out >= 24 || has_tall_squares(p));
}

// Per element of 12.8 MB of float32 on one thread, as rows and transposed: 2x2 stride 2, 56 columns 0.33 and 0.75 ns, 28
// columns 0.6 and 1.0, 20 columns 0.9 and 1.35, 14 columns 1.35 and 1.25; 3x3 stride 2, 56 columns 1.0 and 1.45, 28 columns
// 2.0 and 1.4; 3x3 stride 1, 28 columns of less than 2 MB 1.4 and 1.0 ms, 20 columns 4.5 and 4.0 ns. Where elements do not
// share, 8x8 stride 8 of 64 channels, 112 columns, 11.6 and 5.1 ms, and 8.8 as levels, but of 8 channels 14.5, 29 and 10.7.
// Averages of bins repeat rows, whose copies need not be transposed.
constexpr int64_t kNarrowPlane = 1024;
inline bool has_narrow_gradient(const Grid& grid, bool alone, bool shares) {
  const Axis& w = grid.axis[2];
  if (!grid.slides() && w.least_taps() < kNarrowBin) return true;
  if (grid.bins() == 1 && (alone || !shares)) return w.in <= kNarrowPlane;
  if (w.adaptive() || (w.stride != 1 && w.stride != 2 && (w.stride != 4 || w.stride < w.extent())))
    return w.in < (shares ? 32 : w.stride < 8 ? 64 : 256);
  return w.out < (w.stride >= w.extent() ? 8 : w.stride == 1 ? 29 : 24);
}

// Whether an output gives to many neighbours at once.
inline bool has_wide_gradient(const Grid& grid, bool shares) {
  const Axis& w = grid.axis[2];
  const bool repeats = w.stride >= w.kernel && w.stride > (shares ? 4 : 7);
  return !grid.slides() || (w.dilation == 1 && (repeats || w.kernel > 2 * w.out));
}

inline bool is_disjoint(const Problem& p) {
  const Axis* axis = p.levels[0].grid.axis;
  return p.level_count == 1 && axis[0].most_covers() * axis[1].most_covers() * axis[2].most_covers() == 1 && axis[2].dilation == 1;
}
// Rows of windows side by side that begin with the input, in vectors of two or four elements.
inline bool has_phases(const Axis& w) { return w.before == 0 && w.kernel <= w.stride && (w.stride == 2 || w.stride == 4); }

inline bool is_whole_plane(const Problem& p, const Grid& grid) {
  const Axis& w = grid.axis[2];
  return p.level_count == 1 && grid.bins() == 1 && w.in == p.positions() && w.window(0).count == w.in && w.window(0).step == 1;
}

// Averages of bins that are at least two columns wide, where rows fill half of a register. Milliseconds as above, transposed and in
// cells: 5.9 and 2.6, 3.4 and 1.7; bins of two columns and rows of (64, 512, 14, 14) that overlap 6.7 and 2.2; levels (2, 1) of (32,
// 1024, 7, 7), whose rows do not, 1.2 and 1.5, and in registers of AVX2 1.3 and 1.1.
inline bool spreads_cells(const Problem& p) {
  bool has = specialises() && !p.lanes_are_channels && p.extent[0] == 1 && p.positions() <= kSmallPlane;
  has &= 4 * p.extent[2] > kernel_lanes(p.dtype);
  for (int32_t l = 0; l < p.level_count; ++l) {
    const Level& level = p.levels[l];
    const Axis &h = level.grid.axis[1], &w = level.grid.axis[2];
    has &= level.free_order && h.most_covers() <= 2 && w.most_covers() <= 2 && 2 * w.out <= w.in && h.dilation == 1 && w.dilation == 1;
    has &= level.grid.axis[0].out == 1;
  }
  return has;
}

inline bool fits(BackwardSchedule schedule, const Problem& p, const ReducerTraits& traits) {
  using enum BackwardSchedule;
  const Level& level = p.levels[0];
  const Axis& w = level.grid.axis[2];
  const bool last = p.lanes_are_channels, alone = p.level_count == 1;
  if (schedule == exact) return true;
  if (!has_lanes(p.dtype)) return false;
  if (traits.again || schedule == pooled_again)
    return traits.again && schedule == pooled_again && specialises() && alone && has_squares(level);
  if (schedule == disjoint_lanes) return specialises() && is_disjoint(p) && last && level.output.channel == 1;
  if (schedule == disjoint_rows) return specialises() && is_disjoint(p) && !last && has_phases(w);
  if (traits.selects || schedule == scatter) return traits.selects && schedule == scatter;
  if (schedule == separable) {
    bool steps = traits.is_alike && level.large && (!last || level.output.channel == 1);
    for (const Axis& axis : level.grid.axis) steps &= axis.stride == 1 && axis.extent() == axis.kernel;
    return steps && can_separate(p, seen_from_input(level.grid));
  }
  if (schedule == interleaved) return has_few_channels(p, level) && w.most_covers() * w.in * p.channels <= kMostListedSources;
  if (last || schedule == lanes) return schedule == lanes;
  if (schedule == whole_planes) return is_whole_plane(p, level.grid);
  if (schedule == cells) return traits.is_alike && spreads_cells(p);
  if (schedule == sliding) return alone && level.grid.slides() && !reaches_far(w);
  bool plain = true;
  for (int32_t l = 0; l < p.level_count; ++l) plain &= p.levels[l].grid.axis[2].dilation == 1;
  return plain;
}

inline BackwardSchedule choose_backward(const Problem& p, const ReducerTraits& traits) {
  using enum BackwardSchedule;
  const auto can = [&](BackwardSchedule schedule) { return fits(schedule, p, traits); };
  const Grid& grid = p.levels[0].grid;
  const bool alone = p.level_count == 1, few = are_few(p);
  const auto narrow = [&](const Grid& of) { return !few && has_narrow_gradient(of, alone, traits.shares); };
  const auto wide = [&](const Grid& of) { return !alone || has_wide_gradient(of, traits.shares); };
  if (can(pooled_again)) return pooled_again;
  if (can(separable)) return separable;
  if (can(interleaved)) return interleaved;
  const bool compares = !traits.selects || compares_taps(p, grid);
  if (can(disjoint_lanes) && compares) return disjoint_lanes;
  const bool fills_rows = traits.selects || has_tall_squares(p) || !(narrow(grid) || wide(grid));
  if (can(disjoint_rows) && compares && fills_rows) return disjoint_rows;
  if (can(scatter)) return scatter;
  if (can(whole_planes)) return whole_planes;
  if (can(cells)) return cells;
  if (!can(lanes)) return exact;
  if (p.lanes_are_channels) return lanes;
  bool any_narrow = false;
  for (int32_t l = 0; l < p.level_count; ++l) {
    const Grid& of = p.levels[l].grid;
    if (narrow(of))
      any_narrow = true;
    else if (wide(of) ? of.axis[2].dilation != 1 : reaches_far(of.axis[2]))
      return exact;
  }
  if (any_narrow) return lanes;
  return wide(grid) ? levels : sliding;
}

}  // namespace fastpool::cpu
