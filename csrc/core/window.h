// The one place that knows which input elements an output sees, in either direction.
#pragma once

#include "core/types.h"

namespace fastpool {

// The elements of one axis that one output sees: start, start + step, …, `count` of them.
struct Span {
  int64_t start, count, step;
  int64_t first;  // index of `start` inside the unclipped window
  int64_t size;   // elements of the unclipped window
};

// Row j of slice i, of those rows and slices that the spans of a window hold: which row of the window that is, which row of
// an input with so many rows a slice, and the tap of its first element.
FASTPOOL_HD int64_t row_of_window(const Span& d, const Span& h, int64_t i, int64_t j) {
  return (d.first + i) * h.size + h.first + j;
}
FASTPOOL_HD int64_t row_of_input(const Span& d, const Span& h, int64_t i, int64_t j, int64_t height) {
  return (d.start + i * d.step) * height + h.start + j * h.step;
}
FASTPOOL_HD int64_t tap_of_row(const Span& d, const Span& h, const Span& w, int64_t i = 0, int64_t j = 0) {
  return row_of_window(d, h, i, j) * w.size + w.first;
}

struct Range {
  int64_t begin, end;
};

FASTPOOL_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTPOOL_HD constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
FASTPOOL_HD constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// One spatial axis of a windowing. kernel == 0 marks adaptive bins [floor(i*in/out), ceil((i+1)*in/out)).
struct Axis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, before = 0, after = 0, dilation = 1;

  FASTPOOL_HD bool adaptive() const { return kernel == 0; }
  FASTPOOL_HD int64_t extent() const { return dilation * (kernel - 1) + 1; }
  // Whether windows slide and leave nothing out.
  FASTPOOL_HD bool dense() const {
    return !adaptive() && dilation == 1;
  }
  // Whether some window loses elements to the padding.
  FASTPOOL_HD bool clips() const {
    return !adaptive() && (before > 0 || (out - 1) * stride - before + extent() > in);
  }
  // The same of outputs of a sliding axis.
  FASTPOOL_HD bool clips(Range outputs) const {
    return origin(outputs.begin) < 0 || origin(outputs.end - 1) + extent() > in;
  }

  FASTPOOL_HD_SCALAR Span window(int64_t o) const {
    FASTPOOL_ASSERT(o >= 0 && o < out);
    if (adaptive()) {
      const int64_t begin = o * in / out, end = ceil_div((o + 1) * in, out);
      return {begin, end - begin, 1, 0, end - begin};
    }
    const int64_t origin = o * stride - before;
    if (dilation == 1) {  // the common case, without its divisions
      const int64_t clipped = larger(-origin, 0);
      return {origin + clipped, larger(smaller(kernel, in - origin) - clipped, 0), 1, clipped, kernel};
    }
    const int64_t first = origin < 0 ? ceil_div(-origin, dilation) : 0;
    const int64_t fits = origin >= in ? 0 : ceil_div(in - origin, dilation);
    return {origin + first * dilation, larger(smaller(kernel, fits) - first, 0), dilation, first, kernel};
  }

  // The outputs of a sliding axis whose windows lose nothing to the padding.
  FASTPOOL_HD_SCALAR Range whole() const {
    const int64_t begin = smaller(ceil_div(before, stride), out), last = in + before - extent();
    return {begin, last < 0 ? begin : larger(begin, smaller(out, last / stride + 1))};
  }

  // The fewest and the most elements of an unclipped window. Where bins do not divide an axis, each has one more than would
  // fit, and some that begin late another one.
  FASTPOOL_HD int64_t least_taps() const {
    return adaptive() ? in / out + (in % out > 0) : kernel;
  }
  FASTPOOL_HD int64_t most_taps() const {
    if (!adaptive()) return kernel;
    const int64_t whole = in / out, rest = in % out;
    return rest == 0 ? whole : out % rest == 0 ? whole + 1 : whole + 2;
  }
  // Elements of the unclipped window of output o.
  FASTPOOL_HD int64_t taps(int64_t o) const {
    return adaptive() ? ceil_div((o + 1) * in, out) - o * in / out : kernel;
  }

  // What an average divides by on this axis: the valid elements, or with padding those before in + after.
  FASTPOOL_HD_SCALAR int64_t divisor(int64_t o, bool include_pad) const {
    if (!include_pad || adaptive()) return window(o).count;
    return smaller(kernel, ceil_div(in + after - (o * stride - before), dilation));
  }

  // The outputs whose window may hold input element i; with dilation some of them skip over it (tap_of < 0).
  FASTPOOL_HD_SCALAR Range covers(int64_t i) const {
    FASTPOOL_ASSERT(i >= 0 && i < in);
    if (adaptive()) {
      const int64_t begin = i * out / in;
      int64_t end = ceil_div((i + 1) * out, in);
      return {begin, end};
    }
    const int64_t padded = i + before;
    const int64_t begin = padded < extent() ? 0 : over_stride(padded - extent()) + 1;
    return {begin, smaller(out, over_stride(padded) + 1)};
  }
  // Those of some elements, and the most that so many have.
  FASTPOOL_HD Range covers(Range elements) const {
    return {covers(elements.begin).begin, covers(elements.end - 1).end};
  }
  FASTPOOL_HD int64_t most_covers(int64_t elements = 1) const {
    return smaller(out, adaptive() ? ceil_div(elements * out, in) + 1 : ceil_div(elements - 1 + extent(), stride));
  }
  // Where windows slide without an end: the last that begins at element i or before it, and how many before that one may still
  // hold the element.
  FASTPOOL_HD int64_t last_begun(int64_t i) const {
    return (i + before) / stride;
  }
  FASTPOOL_HD int64_t reach() const { return (extent() - 1) / stride; }

  // The elements that some outputs see, and the most that so many do. Windows that step over each other may begin, and end, in
  // any order: what the first and the last would see without an end of the input holds them all.
  FASTPOOL_HD Range seen_by(Range outputs) const {
    const int64_t last = outputs.end - 1, end = origin(last) + (adaptive() ? taps(last) : extent());
    return {larger(origin(outputs.begin), 0), smaller(end, in)};
  }
  FASTPOOL_HD int64_t most_seen(int64_t outputs) const {
    return smaller(in, adaptive() ? ceil_div(outputs * in, out) + 1 : (outputs - 1) * stride + extent());
  }

  // a / stride. The usual strides are worth a branch: in that time a division would take, ten elements are pooled.
  FASTPOOL_HD int64_t over_stride(int64_t a) const {
    return stride == 1 ? a : stride == 2 ? a >> 1 : a / stride;
  }

  // The index of input element i inside the window of output o, one of those that covers(i) has, or -1.
  FASTPOOL_HD_SCALAR int64_t tap_of(int64_t o, int64_t i) const {
    FASTPOOL_ASSERT(o < out && i >= origin(o));
    if (adaptive()) return i - o * in / out;
    const int64_t distance = i + before - o * stride;
    if (dilation == 1) return distance < kernel ? distance : -1;
    return distance % dilation == 0 && distance / dilation < kernel ? distance / dilation : -1;
  }

  // The first element of a window, which may be padding, and the one at a tap.
  FASTPOOL_HD int64_t origin(int64_t o) const {
    return adaptive() ? o * in / out : o * stride - before;
  }
  FASTPOOL_HD int64_t position(int64_t o, int64_t tap) const { return adaptive() ? o * in / out + tap : o * stride - before + tap * dilation; }
};

// A rank-3 grid of windows; lower ranks have unit axes in front.
struct Grid {
  Axis axis[3];

  FASTPOOL_HD int64_t bins() const { return axis[0].out * axis[1].out * axis[2].out; }
  FASTPOOL_HD int64_t taps(const int64_t o[3]) const { return axis[0].taps(o[0]) * axis[1].taps(o[1]) * axis[2].taps(o[2]); }
  FASTPOOL_HD int64_t least_taps() const { return axis[0].least_taps() * axis[1].least_taps() * axis[2].least_taps(); }
  FASTPOOL_HD int64_t most_taps() const { return axis[0].most_taps() * axis[1].most_taps() * axis[2].most_taps(); }
  FASTPOOL_HD int64_t rows() const { return axis[0].out * axis[1].out; }
  // Whether windows are alike, a stride apart.
  FASTPOOL_HD bool slides() const {
    return !(axis[0].adaptive() || axis[1].adaptive() || axis[2].adaptive());
  }

  FASTPOOL_HD_SCALAR int64_t position(const int64_t o[3], int64_t tap) const {
    const int64_t height = axis[1].taps(o[1]), width = axis[2].taps(o[2]);
    const int64_t d = axis[0].position(o[0], tap / (height * width));
    const int64_t h = axis[1].position(o[1], tap / width % height);
    return (d * axis[1].in + h) * axis[2].in + axis[2].position(o[2], tap % width);
  }

  // The row-major position of a window's first element, which may be padding.
  FASTPOOL_HD int64_t origin(const int64_t o[3]) const {
    return (axis[0].origin(o[0]) * axis[1].in + axis[1].origin(o[1])) * axis[2].in + axis[2].origin(o[2]);
  }
  // Calls f(what a tap adds to that) for one tap after another.
  template <class F>
  void each_offset(const int64_t o[3], const F& f) const {
    const int64_t depth = axis[0].taps(o[0]), height = axis[1].taps(o[1]), width = axis[2].taps(o[2]);
    for (const Axis& a : axis) FASTPOOL_ASSERT(!a.adaptive() || a.dilation == 1);
    for (int64_t i = 0; i < depth; ++i)
      for (int64_t j = 0; j < height; ++j)
        for (int64_t k = 0; k < width; ++k)
          f((i * axis[0].dilation * axis[1].in + j * axis[1].dilation) * axis[2].in + k * axis[2].dilation);
  }

  // The row-major position of the first element of a window that is none.
  FASTPOOL_HD_SCALAR int64_t first_position(const int64_t o[3]) const {
    return (axis[0].window(o[0]).start * axis[1].in + axis[1].window(o[1]).start) * axis[2].in + axis[2].window(o[2]).start;
  }
};

}  // namespace fastpool
