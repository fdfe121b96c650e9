// Index arithmetic of CUDA schedules: 32 bits wide, division by multiplication. core/window.h says the same with 64.
#pragma once

#include "core/problem.h"

namespace fastpool::cuda {

// Sizes below this keep every sum of two of them inside what Divisor can divide.
constexpr int64_t kMostIndex = int64_t(1) << 30;

// n / d for n < 2^31 (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t magic = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t d) {
    while ((int64_t(1) << shift) < d) ++shift;
    magic = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - uint64_t(d))) / uint64_t(d) + 1);
  }
  FASTPOOL_HD int32_t divide(int32_t n) const { return int32_t((uint32_t((uint64_t(uint32_t(n)) * magic) >> 32) + uint32_t(n)) >> shift); }
};

FASTPOOL_HD int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
FASTPOOL_HD int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

struct FastSpan {
  int32_t start, count;  // elements inside the input; neighbours lie `dilation` apart
  int32_t first, size;   // as in Span
};

struct FastRange {
  int32_t begin, end;
};

struct FastAxis {
  int32_t in, out, kernel, stride, before, after, dilation;
  Divisor windows;  // by dilation; of adaptive bins by `out`
  Divisor covers_;  // by stride; of adaptive bins by `in`

  FastAxis() = default;
  explicit FastAxis(const Axis& a)
      : in(int32_t(a.in)),
        out(int32_t(a.out)),
        kernel(int32_t(a.kernel)),
        stride(int32_t(a.stride)),
        before(int32_t(a.before)),
        after(int32_t(a.after)),
        dilation(int32_t(a.adaptive() ? 1 : a.dilation)),
        windows(a.adaptive() ? a.out : a.dilation),
        covers_(a.adaptive() ? a.in : a.stride) {}

  static bool fits(const Axis& a) {
    if (a.in >= kMostIndex || a.out >= kMostIndex) return false;
    if (a.adaptive()) return (a.in + 1) * (a.out + 1) < 2 * kMostIndex;
    return a.stride < kMostIndex && a.kernel < kMostIndex && a.dilation < kMostIndex && a.extent() < kMostIndex / 2 &&
           a.in + a.extent() < kMostIndex;
  }

  FASTPOOL_HD bool adaptive() const { return kernel == 0; }

  FASTPOOL_HD FastSpan window(int32_t o) const {
    if (adaptive()) {
      const int32_t begin = windows.divide(o * in), size = windows.divide((o + 1) * in + out - 1) - begin;
      return {begin, size, 0, size};
    }
    const int32_t origin = o * stride - before;
    const int32_t first = origin < 0 ? windows.divide(dilation - 1 - origin) : 0;
    const int32_t fits = origin >= in ? 0 : windows.divide(in - origin + dilation - 1);
    return {origin + first * dilation, most(least(kernel, fits) - first, 0), first, kernel};
  }

  // The first element of a window, which may lie in the padding.
  FASTPOOL_HD int32_t origin(int32_t o) const {
    return adaptive() ? windows.divide(o * in) : o * stride - before;
  }
  FASTPOOL_HD int32_t size(int32_t o) const { return adaptive() ? window(o).size : kernel; }

  FASTPOOL_HD int32_t divisor(int32_t o, bool include_pad) const {
    if (!include_pad || adaptive()) return window(o).count;
    return least(kernel, windows.divide(in + after - (o * stride - before) + dilation - 1));
  }

  // The outputs that may see one of the elements first … last.
  FASTPOOL_HD FastRange covers(int32_t first, int32_t last) const {
    if (adaptive()) return {covers_.divide(first * out), covers_.divide((last + 1) * out + in - 1)};
    const int32_t extent = dilation * (kernel - 1) + 1, padded = first + before;
    return {padded < extent ? 0 : covers_.divide(padded - extent) + 1, least(out, covers_.divide(last + before) + 1)};
  }

  // The index of element i inside the window of output o, or a negative number.
  FASTPOOL_HD int32_t tap_of(int32_t o, int32_t i) const {
    if (adaptive()) {
      const FastSpan span = window(o);
      return i - span.start < span.count ? i - span.start : -1;
    }
    const int32_t distance = i + before - o * stride;
    if (distance < 0) return -1;
    const int32_t tap = windows.divide(distance);
    return tap < kernel && tap * dilation == distance ? tap : -1;
  }
};

struct FastLevel {
  FastAxis axis[3];
  Divisor height, width;  // by the outputs of these axes
  int32_t first = 0;      // unit of the level's first bin

  FastLevel() = default;
  explicit FastLevel(const Grid& grid)
      : axis{FastAxis(grid.axis[0]), FastAxis(grid.axis[1]), FastAxis(grid.axis[2])}, height(grid.axis[1].out), width(grid.axis[2].out) {}

  static bool fits(const Grid& grid) {
    return FastAxis::fits(grid.axis[0]) && FastAxis::fits(grid.axis[1]) && FastAxis::fits(grid.axis[2]) && grid.bins() < kMostIndex;
  }

  FASTPOOL_HD void place(int32_t bin, int32_t o[3]) const {
    const int32_t row = width.divide(bin);
    o[0] = height.divide(row);
    o[1] = row - o[0] * axis[1].out;
    o[2] = bin - row * axis[2].out;
  }
  FASTPOOL_HD int32_t divisor(const int32_t o[3], bool include_pad) const {
    return axis[0].divisor(o[0], include_pad) * axis[1].divisor(o[1], include_pad) * axis[2].divisor(o[2], include_pad);
  }
};

// Units of work are counted over samples, groups of channels and what lies inside a plane (bins or tiles), of which
// either changes fastest. A launch covers fewer than 2^30 of them: larger work takes several.
struct Units {
  int32_t groups = 1, inside = 1;
  bool groups_inside = false;  // groups change fastest
  Divisor inner, middle;
  int64_t total = 0, first_sample = 0;
  int32_t first_middle = 0;

  struct Unit {
    int64_t n;
    int32_t group, inside;
  };

  Units() = default;
  Units(int64_t samples, int64_t group_count, int64_t inside_count, bool groups_inside)
      : groups(int32_t(group_count)),
        inside(int32_t(inside_count)),
        groups_inside(groups_inside),
        inner(inner_count()),
        middle(middle_count()),
        total(samples * group_count * inside_count) {}

  FASTPOOL_HD int32_t inner_count() const { return groups_inside ? groups : inside; }
  FASTPOOL_HD int32_t middle_count() const { return groups_inside ? inside : groups; }

  void begin_at(int64_t unit) {  // a multiple of inner_count()
    const int64_t row = unit / inner_count();
    first_sample = row / middle_count();
    first_middle = int32_t(row % middle_count());
  }
  FASTPOOL_HD Unit find(uint32_t index) const {
    const int32_t unit = int32_t(index), row = inner.divide(unit), in = unit - row * inner_count();
    const int32_t sample = middle.divide(row + first_middle), mid = row + first_middle - sample * middle_count();
    return groups_inside ? Unit{first_sample + sample, in, mid} : Unit{first_sample + sample, mid, in};
  }
};

}  // namespace fastpool::cuda
