// Learned filters over windows: the forward pass and both gradients. Lanes are outputs, or elements, of a row in either layout:
// blocks of planes are brought to rows, where what is a stride apart lies side by side and padding is zeros. No sum's order
// depends on the layout, the registers or the threads.
#pragma once

#include "core/correlation.h"
#include "core/kernels.h"
#include "cpu/kernels/memory.h"
#include "cpu/work.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// As wide on every processor: a filter's gradient has one sum for each lane.
template <class T>
constexpr int kRowLanes = 64 / int(sizeof(T));
// What a block's rows may take of a cache, as wide as they are at most; the most outputs that a lane adds up are few.
constexpr int64_t kBlockBytes = 128 << 10, kBlockColumns = 256, kBlockOutputs = 4096;

template <class T>
T* take(int64_t count) {
  return static_cast<T*>(take_scratch(count * int64_t(sizeof(T))));
}

template <class V>
FASTPOOL_HD auto first_lanes(int64_t count) {
  return Tap<V>::iota() < Tap<V>(typename V::Signed(smaller(larger(count, 0), kRowLanes<Scalar<V>>)));
}

// One row of `planes`: elements that lie `step` positions apart, from position `first` on, to neighbours, and back.
template <class S>
class PlaneRows {
 public:
  using T = Accumulated<S>;

  PlaneRows(View view, bool turned, int64_t n, int64_t c, int64_t planes, S* scratch)
      : view_(view), turned_(turned), at_(view.at(n, c, 0)), planes_(planes), scratch_(scratch) {}

  void read(T* to, int64_t pitch, const S* all, int64_t first, int64_t step, int64_t count) const {
    const S* from = all + at_ + first * view_.position;
    if (!turned_) {
      for (int64_t b = 0; b < planes_; ++b) read_row(to + b * pitch, from + b * view_.channel, step, count);
    } else if constexpr (std::is_same_v<S, T>) {
      transpose(to, pitch, from, step * view_.position, count, planes_);
    } else {
      transpose(scratch_, count, from, step * view_.position, count, planes_);
      for (int64_t b = 0; b < planes_; ++b) read_row(to + b * pitch, scratch_ + b * count, 1, count);
    }
  }
  void write(const T* from, int64_t pitch, S* all, int64_t first, int64_t step, int64_t count) const {
    S* to = all + at_ + first * view_.position;
    if (!turned_) {
      for (int64_t b = 0; b < planes_; ++b) write_row(to + b * view_.channel, from + b * pitch, step, count);
    } else if constexpr (std::is_same_v<S, T>) {
      transpose(to, step * view_.position, from, pitch, planes_, count);
    } else {
      for (int64_t b = 0; b < planes_; ++b) write_row(scratch_ + b * count, from + b * pitch, 1, count);
      transpose(to, step * view_.position, scratch_, count, planes_, count);
    }
  }
  // `count` neighbours of one plane, where rows are not turned.
  void write_one(const T* from, S* all, int64_t b, int64_t first, int64_t count) const {
    write_row(all + at_ + b * view_.channel + first, from, 1, count);
  }

 private:
  static constexpr int kRegister = kRegisterBytes / int(sizeof(T));

  static void read_row(T* to, const S* from, int64_t step, int64_t count) {
    constexpr int L = kRegister;
    int64_t i = 0;
    if (step == 1) {
      for (; i + L <= count; i += L) store(to + i, load<T, L>(from + i));
    } else if (step == 2) {
      Lanes<T, L> even, odd;
      for (; i + L < count; i += L) {
        Lanes<T, L>::unzip(load<T, L>(from + 2 * i), load<T, L>(from + 2 * i + L), even, odd);
        store(to + i, even);
      }
      if (count > L) {  // the last, which overlap: read from one before them, since there may be none behind
        i = count - L;
        Lanes<T, L>::unzip(load<T, L>(from + 2 * i - 1), load<T, L>(from + 2 * i - 1 + L), even, odd);
        store(to + i, odd);
        return;
      }
    }
    for (; i < count; ++i) to[i] = widen_one(from[i * step]);
  }
  static void write_row(S* to, const T* from, int64_t step, int64_t count) {
    constexpr int L = kRegister;
    int64_t i = 0;
    if (step == 1)
      for (; i + L <= count; i += L) store(to + i, load<T, L>(from + i));
    for (; i < count; ++i) to[i * step] = Narrow<S>::from(from[i]);
  }

  View view_;
  bool turned_;
  int64_t at_, planes_;
  S* scratch_;
};

// The last axis as rows have it: of each tap its place in a stride, its phase, and how many strides on it lies. Taps that lie so
// far apart that a row would be mostly gaps have a row each.
struct Phases {
  int64_t reach, *phase, *stride;
  bool apart;

  explicit Phases(const Axis& w) : reach((w.extent() - 1) / w.stride), phase(take<int64_t>(w.kernel)), stride(take<int64_t>(w.kernel)) {
    apart = reach > w.kernel * kBlockColumns;
    if (apart) reach = 0;
    for (int64_t k = 0; k < w.kernel; ++k) {
      phase[k] = k * w.dilation % w.stride;
      stride[k] = k * w.dilation / w.stride;
    }
  }
};

// A unit of work: rows of a block of channels of one sample.
struct Part {
  int64_t n, c, planes, begin, end;

  Part(const Correlation& p, int64_t unit, int64_t rows)
      : Part(p, unit / p.parts(rows) / p.blocks(), unit / p.parts(rows) % p.blocks(), unit % p.parts(rows), rows) {}
  Part(const Correlation& p, int64_t n, int64_t block, int64_t part, int64_t rows) : n(n), c(block * p.kChannels) {
    const int64_t parts = p.parts(rows);
    planes = smaller(p.kChannels, p.channels - c);
    begin = rows * part / parts;
    end = rows * (part + 1) / parts;
  }
};
// Calls f(slice, first row, end) for pieces of rows begin … end - 1 that lie in one slice, and have `most` rows.
template <class F>
void each_piece(int64_t begin, int64_t end, int64_t height, int64_t most, const F& f) {
  for (int64_t row = begin; row < end;) {
    const int64_t first = row % height, last = smaller(smaller(height, first + end - row), first + most);
    f(row / height, first, last);
    row += last - first;
  }
}
template <class F>
void each_run(int64_t begin, int64_t end, int64_t most, const F& f) {
  for (; begin < end; begin += most) f(begin, smaller(begin + most, end));
}

// What outputs see, as planes of slices of rows of phases.
template <class S>
class Seen {
 public:
  using T = Accumulated<S>;
  int64_t most_rows, most_columns, pitch;  // outputs at a time, and elements of a phase

  explicit Seen(const Correlation& p)
      : p_(p),
        d_(p.levels->grid.axis[0]),
        h_(p.levels->grid.axis[1]),
        w_(p.levels->grid.axis[2]),
        columns_(w_),
        phase_(take<int64_t>(w_.kernel)),
        offset_(take<int64_t>(p.taps)) {
    int64_t* slot = take<int64_t>(w_.kernel);  // phases that some tap has
    for (int64_t k = 0; k < w_.kernel; ++k) {
      const int64_t phase = columns_.apart ? k * w_.dilation : columns_.phase[k];
      slot[k] = 0;
      while (slot[k] < phases_ && phase_[slot[k]] != phase) ++slot[k];
      if (slot[k] == phases_) phase_[phases_++] = phase;
    }
    most_columns = smaller(w_.out, kBlockColumns);
    pitch = most_columns + columns_.reach;
    const int64_t planes = smaller(p.channels, p.kChannels), budget = kBlockBytes / int64_t(sizeof(T)) / planes;
    const int64_t lines = budget / (d_.kernel * phases_ * pitch);
    const int64_t fit = h_.dense() ? (lines - h_.kernel) / h_.stride + 1 : lines / h_.kernel;
    most_rows = larger(smaller(smaller(h_.out, fit), kBlockOutputs / most_columns), 1);
    // Neighbouring windows share lines, unless these are dilated: then each row of a window has its own.
    row_step_ = h_.dense() ? h_.stride : 1;
    tap_step_ = h_.dense() ? 1 : most_rows;
    rows_ = (most_rows - 1) * row_step_ + (h_.kernel - 1) * tap_step_ + 1;
    plane_ = d_.kernel * rows_ * phases_ * pitch;
    elements_ = take<T>(planes * plane_ + kRowLanes<T>);
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      const int64_t k = tap % w_.kernel, kh = tap / w_.kernel % h_.kernel, kd = tap / w_.kernel / h_.kernel;
      offset_[tap] = ((kd * rows_ + kh * tap_step_) * phases_ + slot[k]) * pitch + (columns_.apart ? 0 : columns_.stride[k]);
    }
  }

  const int64_t* offsets() const { return offset_; }
  const T* row(int64_t b, int64_t row) const { return elements_ + b * plane_ + row * row_step_ * phases_ * pitch; }

  void read(const PlaneRows<S>& planes, int64_t count, int64_t od, int64_t h_begin, int64_t h_end, int64_t w_begin, int64_t w_end) {
    const int64_t outputs = h_end - h_begin, wide = w_end - w_begin + columns_.reach;
    const int64_t seen = (outputs - 1) * row_step_ + (h_.kernel - 1) * tap_step_ + 1;
    for (int64_t kd = 0; kd < d_.kernel; ++kd) {
      const int64_t d = d_.position(od, kd);
      for (int64_t r = 0; r < seen; ++r) {
        if (!h_.dense() && r % most_rows >= outputs) continue;
        const int64_t h = h_.dense() ? h_.origin(h_begin) + r : h_.position(h_begin + r % most_rows, r / most_rows);
        const bool exists = d >= 0 && d < d_.in && h >= 0 && h < h_.in;
        for (int64_t i = 0; i < phases_; ++i) {
          T* to = elements_ + ((kd * rows_ + r) * phases_ + i) * pitch;
          const int64_t first = w_.origin(w_begin) + phase_[i];  // padding, or an element
          const int64_t begin = exists ? smaller(first < 0 ? ceil_div(-first, w_.stride) : 0, wide) : wide;
          const int64_t end = first < w_.in ? larger(smaller(ceil_div(w_.in - first, w_.stride), wide), begin) : begin;
          if (begin < end) {
            const int64_t position = (d * h_.in + h) * w_.in + first + begin * w_.stride;
            planes.read(to + begin, plane_, static_cast<const S*>(p_.x), position, w_.stride, end - begin);
          }
          if (begin == 0 && end == wide) continue;
          for (int64_t b = 0; b < count; ++b) {
            fill_run(to + b * plane_, T(0), begin);
            fill_run(to + b * plane_ + end, T(0), wide - end);
          }
        }
      }
    }
  }

 private:
  const Correlation& p_;
  const Axis &d_, &h_, &w_;
  Phases columns_;
  int64_t *phase_, *offset_;
  int64_t phases_ = 0, row_step_, tap_step_, rows_, plane_;
  T* elements_;
};

template <class S>
void correlate_of(const Correlation& p, int64_t unit_begin, int64_t unit_end) {
  using T = Accumulated<S>;
  constexpr int L = kRowLanes<T>;
  using V = Lanes<T, L>;
  restart_scratch();
  const Grid& grid = p.levels->grid;
  const int64_t width = p.width(), of_filter = (p.shared ? 1 : p.channels) * width, height = grid.axis[1].out;
  Seen<S> seen(p);
  S* turned = take<S>(p.kChannels * seen.pitch);
  const int64_t most = seen.most_columns + L;
  T* result = take<T>(4 * p.kChannels * most);
  T* y = static_cast<T*>(p.y);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const Part part(p, unit, grid.rows());
    const PlaneRows<S> planes(p.input, p.lanes_are_channels, part.n, part.c, part.planes, turned);
    const T* weights = static_cast<const T*>(p.weights) + (p.shared ? 0 : part.c * width);
    each_piece(part.begin, part.end, height, seen.most_rows, [&](int64_t d, int64_t h_begin, int64_t h_end) {
      each_run(0, grid.axis[2].out, seen.most_columns, [&](int64_t w_begin, int64_t w_end) {
        seen.read(planes, part.planes, d, h_begin, h_end, w_begin, w_end);
        const int64_t count = w_end - w_begin;
        for (int64_t h = h_begin; h < h_end; ++h) {
          const int64_t position = (d * height + h) * grid.axis[2].out + w_begin;
          each_few(p.filters, [&](int64_t f, auto few) FASTPOOL_STEP {
            T* to[few];
            int64_t pitch = p.saved.channel;
            unrolled<few>([&](auto i) FASTPOOL_STEP { to[i] = y + p.saved.at((f + i) * p.samples + part.n, part.c, position); });
            if (p.lanes_are_channels) {
              pitch = most;
              unrolled<few>([&](auto i) FASTPOOL_STEP { to[i] = result + i * p.kChannels * most; });
            }
            for (int64_t b = 0; b < part.planes; ++b) {
              const T *from = seen.row(b, h - h_begin), *w = weights + (p.shared ? 0 : b * width) + f * of_filter;
              for (int64_t v = 0; v < count; v += L) {
                V sum[few];
                unrolled<few>([&](auto i) FASTPOOL_STEP { sum[i] = V(p.bias ? w[i * of_filter + p.taps] : T(0)); });
                for (int64_t k = 0; k < p.taps; ++k) {
                  const V x = load<T, L>(from + v + seen.offsets()[k]);
                  unrolled<few>([&](auto i) FASTPOOL_STEP { sum[i] = sum[i] + V(w[i * of_filter + k]) * x; });
                }
                unrolled<few>([&](auto i) FASTPOOL_STEP { store_part(to[i] + b * pitch + v, 1, sum[i], smaller(L, count - v)); });
              }
            }
            if (p.lanes_are_channels)
              for (int i = 0; i < few; ++i)
                transpose(y + p.saved.at((f + i) * p.samples + part.n, part.c, position), p.saved.position, to[i], pitch, part.planes,
                          count);
          });
        }
      });
    });
  }
}

// The rows of g whose windows hold the elements of a row, with zeros beside them, which weights that are infinite or NaN must not
// meet; per plane, filter, slice and row.
template <class S>
void correlate_input_of(const Correlation& p, int64_t unit_begin, int64_t unit_end) {
  using T = Accumulated<S>;
  constexpr int L = kRowLanes<T>;
  using V = Lanes<T, L>;
  restart_scratch();
  const Axis &d_axis = p.levels->grid.axis[0], &h_axis = p.levels->grid.axis[1], &w_axis = p.levels->grid.axis[2];
  const int64_t width = p.width(), of_filter = (p.shared ? 1 : p.channels) * width, stride = w_axis.stride;
  const Phases columns(w_axis);
  // A row's elements are strides, of one element in each phase; the first stride may begin in the padding.
  const int64_t first_stride = w_axis.before / stride, last_stride = (w_axis.before + w_axis.in - 1) / stride + 1;
  const int64_t most_strides = smaller(last_stride - first_stride, larger(2 * kBlockColumns / stride, 1));
  const int64_t most_planes = smaller(p.channels, p.kChannels), pitch = most_strides + columns.reach;
  const int64_t copies = columns.apart ? w_axis.kernel : 1, line = copies * pitch;
  const int64_t fit = kBlockBytes / int64_t(sizeof(T)) / (most_planes * p.filters * d_axis.kernel * line);
  const int64_t most_rows = larger(smaller(h_axis.in, fit * h_axis.stride - h_axis.extent() + 1), 1);
  const int64_t most_outputs = h_axis.most_covers(most_rows), slice = most_outputs * line, of_g = d_axis.kernel * slice;
  const int64_t plane = p.filters * of_g;
  T* g = take<T>(most_planes * plane + L);
  const int64_t row_pitch = most_strides + L, phase_pitch = most_planes * row_pitch;
  T *result = take<T>(2 * phase_pitch), *joined = take<T>(2 * row_pitch);
  const bool joins = stride == 2 && !p.lanes_are_channels;
  S* turned = take<S>(most_planes * most_strides);
  // Of each term: where its g lie, its weight, and the lane that output 0 has.
  const int64_t terms = p.filters * p.taps;
  int64_t *from = take<int64_t>(terms), *weight = take<int64_t>(terms), *origin = take<int64_t>(terms);
  int64_t* slices = take<int64_t>(d_axis.kernel);
  S* gx = static_cast<S*>(p.gx);
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const Part part(p, unit, d_axis.in * h_axis.in);
    const PlaneRows<S> planes(p.input, p.lanes_are_channels, part.n, part.c, part.planes, turned);
    const T* weights = static_cast<const T*>(p.weights) + (p.shared ? 0 : part.c * width);
    bool finite = true;
    for (int64_t f = 0; f < p.filters; ++f)
      for (int64_t i = 0; i < (p.shared ? 1 : part.planes) * width; ++i)
        finite &= std::abs(weights[f * of_filter + i]) <= Limits<T>::largest();
    each_piece(part.begin, part.end, h_axis.in, most_rows, [&](int64_t d, int64_t h_begin, int64_t h_end) {
      each_run(first_stride, last_stride, most_strides, [&](int64_t begin, int64_t end) {
        const Range seen = h_axis.covers(Range{h_begin, h_end});
        const int64_t wide = end - begin + columns.reach;
        int64_t depth = 0;
        for (int64_t kd = 0; kd < d_axis.kernel; ++kd) {
          const int64_t q = d + d_axis.before - kd * d_axis.dilation;
          if (q < 0 || q % d_axis.stride || q / d_axis.stride >= d_axis.out) continue;
          const int64_t od = q / d_axis.stride;
          for (int64_t f = 0; f < p.filters; ++f) {
            const PlaneRows<T> of_filter_planes(p.saved, p.lanes_are_channels, f * p.samples + part.n, part.c, part.planes, nullptr);
            for (int64_t o = seen.begin; o < seen.end; ++o) {
              for (int64_t copy = 0; copy < copies; ++copy) {
                // Output 0 lies so many elements behind the row's first.
                const int64_t left = (columns.apart ? columns.stride[copy] : columns.reach) - begin;
                const int64_t low = smaller(larger(left, 0), wide), high = larger(smaller(left + w_axis.out, wide), low);
                const int64_t position = (od * h_axis.out + o) * w_axis.out + low - left;
                T* to = g + f * of_g + depth * slice + (o - seen.begin) * line + copy * pitch;
                if (low < high) of_filter_planes.read(to + low, plane, static_cast<const T*>(p.g), position, 1, high - low);
                for (int64_t b = 0; b < part.planes; ++b) {
                  fill_run(to + b * plane, T(0), low);
                  fill_run(to + b * plane + high, T(0), wide - high);
                }
              }
            }
          }
          slices[depth++] = kd;
        }
        for (int64_t h = h_begin; h < h_end; ++h) {
          const int64_t row = (d * h_axis.in + h) * w_axis.in;
          for (int64_t phase = 0; phase < stride; ++phase) {
            int64_t count = 0;
            for (int64_t i = 0; i < depth; ++i)
              for (int64_t kh = 0; kh < h_axis.kernel; ++kh) {
                const int64_t q = h + h_axis.before - kh * h_axis.dilation;
                if (q < 0 || q % h_axis.stride || q / h_axis.stride >= h_axis.out) continue;
                const int64_t outputs = i * slice + (q / h_axis.stride - seen.begin) * line;
                for (int64_t k = 0; k < w_axis.kernel; ++k) {
                  if (columns.phase[k] != phase) continue;
                  for (int64_t f = 0; f < p.filters; ++f, ++count) {
                    from[count] = f * of_g + outputs + (columns.apart ? k * pitch : columns.reach - columns.stride[k]);
                    weight[count] = f * of_filter + (slices[i] * h_axis.kernel + kh) * w_axis.kernel + k;
                    origin[count] = columns.stride[k] - begin;
                  }
                }
              }
            for (int64_t b = 0; b < part.planes; ++b) {
              const T *values = g + b * plane, *w = weights + (p.shared ? 0 : b * width);
              T* to = result + (joins ? phase : 0) * phase_pitch + b * row_pitch;
              for (int64_t v = 0; v < end - begin; v += L) {
                V sum(T(0));
                if (finite) {
                  for (int64_t i = 0; i < count; ++i) sum = sum + V(w[weight[i]]) * load<T, L>(values + from[i] + v);
                } else {
                  for (int64_t i = 0; i < count; ++i) {
                    const auto before = first_lanes<V>(origin[i] - v), within = first_lanes<V>(origin[i] + w_axis.out - v);
                    const V zero(T(0)), term = V(w[weight[i]]) * load<T, L>(values + from[i] + v);
                    sum = sum + select(before, zero, select(within, term, zero));
                  }
                }
                store(to + v, sum);
              }
            }
            if (joins) continue;
            const int64_t first = begin * stride + phase - w_axis.before;
            const int64_t here = smaller(first < 0 ? ceil_div(-first, stride) : 0, end - begin);
            const int64_t last = first < w_axis.in ? smaller(ceil_div(w_axis.in - first, stride), end - begin) : 0;
            if (here < last) planes.write(result + here, row_pitch, gx, row + first + here * stride, stride, last - here);
          }
          if (!joins) continue;
          const int64_t first = 2 * begin - w_axis.before, here = larger(-first, 0), count = smaller(2 * (end - begin), w_axis.in - first);
          for (int64_t b = 0; b < part.planes; ++b) {
            const T* phases = result + b * row_pitch;
            for (int64_t v = 0; v < end - begin; v += L) {
              V low_half, high_half;
              V::zip(load<T, L>(phases + v), load<T, L>(phases + phase_pitch + v), low_half, high_half);
              store(joined + 2 * v, low_half);
              store(joined + 2 * v + L, high_half);
            }
            planes.write_one(joined + here, gx, b, row + first + here, count - here);
          }
        }
      });
    });
  }
}

// Sums of lanes over a block of outputs in the accumulation type, and of blocks in double.
template <class S>
void correlate_filters_of(const Correlation& p, int64_t unit_begin, int64_t unit_end) {
  using T = Accumulated<S>;
  constexpr int L = kRowLanes<T>;
  using V = Lanes<T, L>;
  restart_scratch();
  const Grid& grid = p.levels->grid;
  const int64_t height = grid.axis[1].out, rows = grid.rows(), width = p.width(), of_channel = p.filters * width;
  Seen<S> seen(p);
  const int64_t pitch = ceil_div(seen.most_columns, L) * L, planes_at_once = smaller(p.channels, p.kChannels);
  const int64_t most_rows = larger(smaller(seen.most_rows, kBlockBytes / int64_t(sizeof(T)) / (4 * planes_at_once * pitch)), 1);
  const int64_t plane = most_rows * pitch, of_filter = planes_at_once * plane;
  T* g = take<T>(4 * of_filter);
  S* turned = take<S>(p.kChannels * seen.pitch);
  const int64_t splits = p.splits(rows), parts = p.parts(rows), all = p.samples * parts;
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t split = unit / p.blocks(), block = unit % p.blocks(), first_channel = block * p.kChannels;
    const int64_t channels = p.shared ? 1 : smaller(p.kChannels, p.channels - first_channel);
    double* partial = p.partial + (p.shared ? unit : split * p.channels + first_channel) * of_channel;
    for (int64_t i = 0; i < channels * of_channel; ++i) partial[i] = 0;
    for (int64_t i = all * split / splits; i < all * (split + 1) / splits; ++i) {
      const Part part(p, i / parts, block, i % parts, rows);
      const PlaneRows<S> planes(p.input, p.lanes_are_channels, part.n, part.c, part.planes, turned);
      each_piece(part.begin, part.end, height, most_rows, [&](int64_t d, int64_t h_begin, int64_t h_end) {
        each_run(0, grid.axis[2].out, seen.most_columns, [&](int64_t w_begin, int64_t w_end) {
          seen.read(planes, part.planes, d, h_begin, h_end, w_begin, w_end);
          const int64_t count = w_end - w_begin, whole = count / L * L;
          // What a row's last lanes see may lie outside their windows, and be no number.
          const auto exists = first_lanes<V>(count - whole);
          each_few(p.filters, [&](int64_t f, auto few) FASTPOOL_STEP {
            for (int j = 0; j < few; ++j) {
              const PlaneRows<T> of_g(p.saved, p.lanes_are_channels, (f + j) * p.samples + part.n, part.c, part.planes, nullptr);
              for (int64_t h = h_begin; h < h_end; ++h) {
                T* to = g + j * of_filter + (h - h_begin) * pitch;
                of_g.read(to, plane, static_cast<const T*>(p.g), (d * height + h) * grid.axis[2].out + w_begin, 1, count);
                for (int64_t b = 0; b < part.planes; ++b) fill_run(to + b * plane + count, T(0), pitch - count);
              }
            }
            for (int64_t b = 0; b < part.planes; ++b)
              for (int64_t k = 0; k < width; ++k) {
                V sum[few];
                unrolled<few>([&](auto j) FASTPOOL_STEP { sum[j] = V(T(0)); });
                for (int64_t h = 0; h < h_end - h_begin; ++h) {
                  const T* with = g + b * plane + h * pitch;
                  const auto add = [&](int64_t v, V x) FASTPOOL_STEP {
                    unrolled<few>([&](auto j) FASTPOOL_STEP { sum[j] = sum[j] + load<T, L>(with + j * of_filter + v) * x; });
                  };
                  if (k == p.taps) {
                    for (int64_t v = 0; v < count; v += L) add(v, V(T(1)));
                    continue;
                  }
                  const T* from = seen.row(b, h) + seen.offsets()[k];
                  for (int64_t v = 0; v < whole; v += L) add(v, load<T, L>(from + v));
                  if (whole < count) add(whole, select(exists, load<T, L>(from + whole), V(T(0))));
                }
                double* to = partial + (p.shared ? 0 : b * of_channel) + f * width + k;
                unrolled<few>([&](auto j) FASTPOOL_STEP {
                  const V all = combine(sum[j], [](auto x, auto y) FASTPOOL_STEP { return x + y; });
                  to[j * width] += double(first_lane(all));
                });
              }
          });
        });
      });
    }
  }
}

// Units are elements.
template <class T>
void logistic_of(const Problem& p, int64_t begin, int64_t end) {
  constexpr int L = kRowLanes<T>;
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  int64_t i = begin;
  for (; i + L <= end; i += L) store(y + i, sigmoid(load<T, L>(x + i)));
  if (i < end) store_part(y + i, 1, sigmoid(load_part<T, L>(x + i, end - i)), end - i);
}

#define FASTPOOL_BY_STORAGE(name)                                                                                   \
  void name(const Problem& p, int64_t begin, int64_t end) {                                                         \
    with_storage(p.dtype, [&](auto s) { name##_of<decltype(s)>(static_cast<const Correlation&>(p), begin, end); }); \
  }
FASTPOOL_BY_STORAGE(correlate)
FASTPOOL_BY_STORAGE(correlate_input)
FASTPOOL_BY_STORAGE(correlate_filters)
#undef FASTPOOL_BY_STORAGE
void logistic(const Problem& p, int64_t begin, int64_t end) {
  p.dtype == Dtype::float64 ? logistic_of<double>(p, begin, end) : logistic_of<float>(p, begin, end);
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
