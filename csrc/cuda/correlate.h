// Learned filters over windows: products, both gradients, and shares. No sum's order depends on the grid, and of products and of
// the input's gradient it is the CPU's.
#pragma once

#include <numeric>

#include "core/correlation.h"
#include "cuda/job.h"
#include "cuda/launch.h"
#include "cuda/team.h"

namespace fastpool::cuda {

// As Divisor, in 64 bits.
struct WideDivisor {
  int64_t d;

  explicit WideDivisor(int64_t d) : d(d) {}
  FASTPOOL_HD int64_t divide(int64_t n) const { return n / d; }
};
template <class Index>
using DivisorOf = std::conditional_t<sizeof(Index) == 4, Divisor, WideDivisor>;

// Places in planes of some channels, counted as they lie in memory.
template <class Index>
struct Places {
  Index channels, plane, height, width;
  bool channels_last;
  DivisorOf<Index> by_channels, by_plane, by_height, by_width;

  struct At {
    Index n, c, inside, o[3];
  };

  Places(int64_t channels, int64_t depth, int64_t height, int64_t width, bool channels_last)
      : channels(Index(channels)),
        plane(Index(depth * height * width)),
        height(Index(height)),
        width(Index(width)),
        channels_last(channels_last),
        by_channels(channels),
        by_plane(depth * height * width),
        by_height(height),
        by_width(width) {}

  FASTPOOL_HD At find(Index i) const {
    const Index outer = channels_last ? by_channels.divide(i) : by_plane.divide(i);
    const Index first = i - outer * (channels_last ? channels : plane);
    const Index n = channels_last ? by_plane.divide(outer) : by_channels.divide(outer);
    const Index second = outer - n * (channels_last ? plane : channels);
    const Index inside = channels_last ? second : first, row = by_width.divide(inside), d = by_height.divide(row);
    return {n, channels_last ? first : second, inside, {d, row - d * height, inside - row * width}};
  }
};

// An axis of windows, as Axis has it.
template <class Index>
struct Slide {
  Index in, out, kernel, stride, before, dilation;
  Index tap_step, output_step;  // from a window that holds an element to the next one before it that does
  DivisorOf<Index> by_stride, by_dilation;

  explicit Slide(const Axis& a)
      : in(Index(a.in)),
        out(Index(a.out)),
        kernel(Index(a.kernel)),
        stride(Index(a.stride)),
        before(Index(a.before)),
        dilation(Index(a.dilation)),
        tap_step(Index(a.stride / std::gcd(a.stride, a.dilation))),
        output_step(Index(a.dilation / std::gcd(a.stride, a.dilation))),
        by_stride(a.stride),
        by_dilation(a.dilation) {}

  FASTPOOL_HD bool has(Index i) const { return i >= 0 && i < in; }

  // Calls f(tap, output) for each window that holds element i, in increasing order of the tap that it is there.
  template <class F>
  FASTPOOL_HD void each_window(Index i, const F& f) const {
    const Index padded = i + before, last = (out - 1) * stride;
    Index tap = padded > last ? by_dilation.divide(padded - last + dilation - 1) : 0;
    // Of so many taps one lies a multiple of the stride from the element, or none does.
    const Index end = tap + tap_step < kernel ? tap + tap_step : kernel;
    Index o = -1;
    for (; tap < end && padded >= tap * dilation; ++tap) {
      const Index distance = padded - tap * dilation;
      o = by_stride.divide(distance);
      if (o * stride == distance) break;
      o = -1;
    }
    for (; tap < kernel && o >= 0; tap += tap_step, o -= output_step) f(tap, o);
  }
};

// What all bodies carry.
template <class S, class Index>
struct Filtering {
  using T = Accumulated<S>;
  Correlation p;
  Slide<Index> d, h, w;
  Places<Index> places;
  int64_t of_filter, of_map;  // from one filter's weights, and map, to the next one's
  int64_t count, begin = 0;

  Filtering(const Correlation& problem, const Places<Index>& places, int64_t count)
      : p(problem),
        d(p.levels->grid.axis[0]),
        h(p.levels->grid.axis[1]),
        w(p.levels->grid.axis[2]),
        places(places),
        of_filter((p.shared ? 1 : p.channels) * p.width()),
        of_map(p.samples * p.saved.sample),
        count(count) {}
  static Places<Index> outputs(const Correlation& p, int64_t channels) {
    const Grid& grid = p.levels->grid;
    return {channels, grid.axis[0].out, grid.axis[1].out, grid.axis[2].out, p.lanes_are_channels};
  }

  int64_t total() const { return count; }
  int64_t step() const { return 1; }
  void begin_at(int64_t unit) { begin = unit; }

  FASTPOOL_HD const T* weights_of(int64_t c) const { return static_cast<const T*>(p.weights) + (p.shared ? 0 : c * p.width()); }
};

// A thread has an output of all filters. Padding is zeros that are multiplied as all else is, as on the CPU.
template <class S, class Index>
struct Correlate : Filtering<S, Index> {
  using Base = Filtering<S, Index>;
  using typename Base::T;
  static constexpr int threads = 1, blocks = 4;

  explicit Correlate(const Correlation& p) : Base(p, Base::outputs(p, p.channels), p.samples * p.channels * p.bins) {}

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t unit) const {
    const Correlation& p = this->p;
    const auto &d = this->d, &h = this->h, &w = this->w;
    const auto at = this->places.find(Index(this->begin + unit));
    const S* x = static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0);
    T* y = static_cast<T*>(p.y) + p.saved.at(at.n, at.c, at.inside);
    const T* weights = this->weights_of(at.c);
    const int64_t of_filter = this->of_filter, of_map = this->of_map;
    const Index step = Index(p.input.position);
    const Index first_d = at.o[0] * d.stride - d.before, first_h = at.o[1] * h.stride - h.before, first_w = at.o[2] * w.stride - w.before;
    each_few(p.filters, [&](int64_t f, auto many) {
      constexpr int few = decltype(many)::value;
      const T* weight = weights + f * of_filter;
      T sum[few];
      FASTPOOL_UNROLL
      for (int i = 0; i < few; ++i) sum[i] = p.bias ? read(weight + i * of_filter + p.taps) : T(0);
      for (Index i = 0; i < d.kernel; ++i)
        for (Index j = 0; j < h.kernel; ++j) {
          const Index slice = first_d + i * d.dilation, row = first_h + j * h.dilation;
          const bool exists = d.has(slice) && h.has(row);
          const Index start = exists ? (slice * h.in + row) * w.in : 0;
          for (Index k = 0; k < w.kernel; ++k, ++weight) {
            const Index column = first_w + k * w.dilation;
            const T value = exists && w.has(column) ? widened(read(x + (start + column) * step)) : T(0);
            FASTPOOL_UNROLL
            for (int i = 0; i < few; ++i) sum[i] = sum[i] + read(weight + i * of_filter) * value;
          }
        }
      FASTPOOL_UNROLL
      for (int i = 0; i < few; ++i) write(y + (f + i) * of_map, sum[i]);
    });
  }
};

// A thread has an element of the input, and gathers what all windows that hold it send.
template <class S, class Index>
struct CorrelateInput : Filtering<S, Index> {
  using Base = Filtering<S, Index>;
  using typename Base::T;
  static constexpr int threads = 1, blocks = 4;

  explicit CorrelateInput(const Correlation& p)
      : Base(p, {p.channels, p.extent[0], p.extent[1], p.extent[2], p.lanes_are_channels}, p.samples * p.channels * p.positions()) {}

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t unit) const {
    const Correlation& p = this->p;
    const auto &d = this->d, &h = this->h, &w = this->w;
    const auto at = this->places.find(Index(this->begin + unit));
    const T *g = static_cast<const T*>(p.g) + p.saved.at(at.n, at.c, 0), *weights = this->weights_of(at.c);
    const int64_t of_filter = this->of_filter, of_map = this->of_map;
    const Index step = Index(p.saved.position);
    T sum(0);
    d.each_window(at.o[0], [&](Index i, Index slice) {
      h.each_window(at.o[1], [&](Index j, Index row) {
        w.each_window(at.o[2], [&](Index k, Index column) {
          const T* weight = weights + (int64_t(i) * h.kernel + j) * w.kernel + k;
          const T* from = g + ((slice * h.out + row) * w.out + column) * step;
          for (int64_t f = 0; f < p.filters; ++f, weight += of_filter, from += of_map) sum = sum + read(weight) * read(from);
        });
      });
    });
    write(static_cast<S*>(p.gx) + p.input.at(at.n, at.c, at.inside), narrowed<S>(sum));
  }
};

// A block sums a part of what some filters' weights at some taps get, in double. Of filters that each channel has for itself it
// has one channel, or neighbours beside each other.
template <class S, class Index, template <class> class Members>
struct CorrelateFilters : Filtering<S, Index> {
  using Base = Filtering<S, Index>;
  using typename Base::T;
  static constexpr int members = Members<int>::members, columns = Members<int>::columns, threads = members * columns;
  static constexpr int blocks = sizeof(Index) == 4 ? 2 : 1;
  static constexpr int few_taps = int(Correlation::kFew);
  int64_t splits, terms;

  CorrelateFilters(const Correlation& p, int64_t splits)
      : Base(p, Base::outputs(p, p.shared ? p.channels : 1), p.sums() * splits), splits(splits), terms(p.terms()) {}

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const Correlation& p = this->p;
    const auto &d = this->d, &h = this->h, &w = this->w;
    const Members<Thread> team{thread};
    // Blocks that run together read the same.
    const int64_t unit = this->begin + index, tap_groups = ceil_div(p.width(), p.kFew), filter_groups = ceil_div(p.filters, p.kFew);
    const int64_t first_tap = unit % tap_groups * p.kFew, first_filter = unit / tap_groups % filter_groups * p.kFew;
    const int64_t rest = unit / tap_groups / filter_groups, split = rest % splits;
    const int64_t channels = p.shared ? 1 : p.channels, own = rest / splits * columns + team.column();
    const int64_t part = ceil_div(terms, splits), first = split * part, end = own < channels ? smaller(first + part, terms) : first;
    const int64_t of_map = this->of_map;
    const Index step = Index(p.input.position);
    Index slice_of[few_taps], row_of[few_taps], column_of[few_taps];
    FASTPOOL_UNROLL
    for (int m = 0; m < few_taps; ++m) {
      const Index tap = Index(smaller(first_tap + m, p.taps - 1)), row = tap / w.kernel, slice = row / h.kernel;
      slice_of[m] = slice * d.dilation - d.before;
      row_of[m] = (row - slice * h.kernel) * h.dilation - h.before;
      column_of[m] = (tap - row * w.kernel) * w.dilation - w.before;
    }
    each_few(smaller(p.filters - first_filter, p.kFew), [&](int64_t, auto many) {
      constexpr int few = decltype(many)::value;
      double sum[few][few_taps] = {};
      for (int64_t i = first + team.member(); i < end; i += members) {
        const auto at = this->places.find(Index(i));
        const int64_t c = p.shared ? int64_t(at.c) : own;
        const S* x = static_cast<const S*>(p.x) + p.input.at(at.n, c, 0);
        const T* g = static_cast<const T*>(p.g) + p.saved.at(at.n, c, at.inside) + first_filter * of_map;
        double from[few];
        FASTPOOL_UNROLL
        for (int f = 0; f < few; ++f) from[f] = double(read(g + f * of_map));
        FASTPOOL_UNROLL
        for (int m = 0; m < few_taps; ++m) {
          const Index slice = at.o[0] * d.stride + slice_of[m], row = at.o[1] * h.stride + row_of[m];
          const Index column = at.o[2] * w.stride + column_of[m];
          T value(1);  // what the bias is multiplied with
          if (first_tap + m < p.taps)
            value = d.has(slice) && h.has(row) && w.has(column) ? widened(read(x + ((slice * h.in + row) * w.in + column) * step)) : T(0);
          FASTPOOL_UNROLL
          for (int f = 0; f < few; ++f) sum[f][m] += from[f] * double(value);
        }
      }
      FASTPOOL_UNROLL
      for (int f = 0; f < few; ++f) {
        FASTPOOL_UNROLL
        for (int m = 0; m < few_taps; ++m) {
          const double all = team.reduce(sum[f][m], Sum{});
          if (team.member() == 0 && own < channels && first_tap + m < p.width())
            write(p.partial + ((split * p.filters + first_filter + f) * channels + own) * p.width() + first_tap + m, all);
        }
      }
    });
  }
};

template <class T>
struct Logistic {
  static constexpr int threads = 1, blocks = 1;
  const T* x;
  T* y;
  int64_t count, begin = 0;

  explicit Logistic(const Problem& p) : x(static_cast<const T*>(p.x)), y(static_cast<T*>(p.y)), count(p.samples) {}
  int64_t total() const { return count; }
  int64_t step() const { return 1; }
  void begin_at(int64_t unit) { begin = unit; }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t unit) const {
    write(y + begin + unit, sigmoid(read(x + begin + unit)));
  }
};

// Calls launch(S{}, Index{}) with indices of 32 bits where all that is indexed has less than 2^30 elements.
template <class Launch>
void with_index(const Correlation& p, int64_t limit, const Launch& launch) {
  const bool fits = FastLevel::fits(p.levels->grid) && p.samples * p.channels * larger(p.bins, p.positions()) < limit && p.taps < limit;
  with_storage(p.dtype, [&](auto s) { fits ? launch(s, int32_t()) : launch(s, int64_t()); });
}

template <class Launcher>
void correlate(const Correlation& p, const Launcher& launcher) {
  with_index(p, launcher.limits.sizes, [&](auto s, auto index) { launcher(Correlate<decltype(s), decltype(index)>(p)); });
}

template <class Launcher>
void correlate_input(const Correlation& p, const Launcher& launcher) {
  with_index(p, launcher.limits.sizes, [&](auto s, auto index) { launcher(CorrelateInput<decltype(s), decltype(index)>(p)); });
}

template <class Launcher>
void correlate_filters(const Correlation& p, int64_t splits, const Launcher& launcher) {
  static_assert(Columns8<int>::columns == Correlation::kColumns);
  with_index(p, launcher.limits.sizes, [&](auto s, auto index) {
    using S = decltype(s);
    using Index = decltype(index);
    p.shared || !p.lanes_are_channels ? launcher(CorrelateFilters<S, Index, Block>(p, splits))
                                      : launcher(CorrelateFilters<S, Index, Columns8>(p, splits));
  });
}

template <class Launcher>
void logistic(const Problem& p, const Launcher& launcher) {
  p.dtype == Dtype::float64 ? launcher(Logistic<double>(p)) : launcher(Logistic<float>(p));
}

}  // namespace fastpool::cuda
