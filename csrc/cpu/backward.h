// Backward schedules: every input gradient is gathered from the outputs that see it, in their row-major order, and
// written once.
#pragma once

#include "cpu/capability.h"
#include "cpu/lanes.h"

namespace fastpool::cpu {

constexpr int64_t kColumns = 2048;  // input columns of one tile: its buffers stay in the first-level cache

// The slots of up to `count` outputs, prepared once and then read for every element they see.
template <class T>
struct Slots {
  T *a, *b, *c;
  Tap<T>* tap;
};

// Slots of the outputs o[2] … o[2] + count - 1 of one row.
template <class Gradient, class T>
FASTPOOL_HD void prepare_row(const Problem& p, const Moves& moves, const Level& level, Place at, int64_t count, const Slots<T>& slots) {
  const int64_t bin = level.bin(at.o), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
  const int64_t out = level.output.at(at.n, at.c, bin), step = level.output.position;
  const bool one_divisor = !level.clipped && !level.grid.axis[2].adaptive();
  const T shared = Gradient::uses_divisor ? divisor_of<T>(p, level.grid, at.o) : T(1);
  moves.widen(slots.a, moves.at(p.g, level.output_base + out), step, count);
  if (Gradient::uses_second) moves.widen(slots.b, moves.at(p.g_second, level.second_base + out), step, count);
  if (Gradient::uses_input) moves.widen(slots.b, moves.at(p.y, level.output_base + out), step, count);
  if (Gradient::uses_taps) widen_taps<T>(p, saved, p.saved.position, slots.tap, count);
  const T* moments = static_cast<const T*>(p.moments) + saved;
  if (Gradient::uses_divisor && !one_divisor) {
    Place here = at;
    for (int64_t i = 0; i < count; ++i, ++here.o[2]) slots.c[i] = divisor_of<T>(p, level.grid, here.o);
  }
  if (Gradient::uses_alpha && p.alpha) {
    for (int64_t i = 0; i < count; ++i) slots.b[i] = alpha_of<T>(p, at.n, at.c, level.first_bin + bin + i);
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    OutputFacts<T> output{slots.a[i], T(0), T(0), {T(0), T(0)}};
    if (Gradient::uses_second) output.g_second = slots.b[i];
    if (Gradient::uses_input) {
      output.y = slots.b[i];
      output.moment[0] = moments[i * p.saved.position];
      output.moment[1] = moments[p.moments_size + i * p.saved.position];
    }
    const T divisor = Gradient::uses_divisor && !one_divisor ? slots.c[i] : shared;
    const T alpha = Gradient::uses_alpha ? (p.alpha ? slots.b[i] : T(p.alpha_value)) : T(0);
    const Slot<T> slot = Gradient::prepare(output, Facts<T>{divisor, alpha, T(0)}, p);
    slots.a[i] = slot.a;
    slots.b[i] = slot.b;
    slots.c[i] = slot.c;
  }
}

// Contiguous gradient: a row of input gradients is summed in scratch, then narrowed into place.
template <class Gradient, class T>
struct RowsBackward {
  // Sliding windows: lanes are the outputs of a row. Their elements lie a stride apart, so sums and inputs are split
  // by position modulo the stride, in coordinates that start at the first covering output's padded window.
  static FASTPOOL_HD void sliding(const Problem& p, const Moves& moves, const Level& level, const Place& place, const int64_t i[3],
                            int64_t columns, T* sums, T* buffer) {
    const Axis* axis = level.grid.axis;
    const Axis& w = axis[2];
    const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
    const int64_t first = w.covers(i[2]).begin, outputs = w.covers(i[2] + columns - 1).end - first;
    if (outputs <= 0) return;
    const int64_t length = outputs + (w.extent() - 1) / w.stride, phases = smaller(w.stride, w.extent());
    const int64_t origin = first * w.stride - w.before;  // the input column of element 0 of phase 0
    T *phase_sums = buffer, *phase_x = phase_sums + phases * length;
    T* next = phase_x + (Gradient::uses_input ? phases * length : 0);
    const Slots<T> slots{next, next + outputs, next + 2 * outputs, reinterpret_cast<Tap<T>*>(next + 3 * outputs)};
    fill_run(phase_sums, T(0), phases * length);
    const int64_t row = (i[0] * p.extent[1] + i[1]) * p.extent[2];
    if (Gradient::uses_input)
      for (int64_t phase = 0; phase < phases; ++phase)
        load_phase(moves, w, moves.at(p.x, p.input.at(place.n, place.c, row)), origin + phase, length, phase_x + phase * length);

    Place at = place;
    at.o[2] = first;
    for (at.o[0] = d.begin; at.o[0] < d.end; ++at.o[0])
      for (at.o[1] = h.begin; at.o[1] < h.end; ++at.o[1]) {
        const int64_t tap_d = axis[0].tap_of(at.o[0], i[0]), tap_h = axis[1].tap_of(at.o[1], i[1]);
        if (tap_d < 0 || tap_h < 0) continue;
        prepare_row<Gradient, T>(p, moves, level, at, outputs, slots);
        // From the last tap to the first: an element's terms then arrive in the order of their outputs.
        for (int64_t k = w.kernel - 1; k >= 0; --k) {
          const int64_t at_element = k * w.dilation % w.stride * length + k * w.dilation / w.stride;
          add_terms(p, Tap<T>((tap_d * axis[1].kernel + tap_h) * w.kernel + k), outputs, slots, phase_x + at_element,
                    phase_sums + at_element);
        }
      }
    gather_phases(sums, phase_sums, i[2] - origin, columns, w.stride, phases, length);
  }

  static FASTPOOL_HD void add_terms(const Problem& p, Tap<T> here, int64_t count, const Slots<T>& slots, const T* __restrict x,
                              T* __restrict sums) {
    const T* __restrict a = slots.a, * __restrict b = slots.b, * __restrict c = slots.c;
    const Tap<T>* __restrict tap = slots.tap;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) sums[j] += Gradient::term(Gradient::uses_input ? x[j] : T(0), here, a[j], b[j], c[j], tap[j], p);
  }

  static FASTPOOL_HD void load_phase(const Moves& moves, const Axis& w, const char* row, int64_t origin, int64_t count, T* to) {
    const int64_t begin = smaller(origin < 0 ? ceil_div(-origin, w.stride) : 0, count);
    const int64_t end = larger(smaller(origin < w.in ? ceil_div(w.in - origin, w.stride) : 0, count), begin);
    fill_run(to, T(0), begin);
    moves.widen(to + begin, moves.at(row, origin + begin * w.stride), w.stride, end - begin);
    fill_run(to + end, T(0), count - end);
  }

  // sums[j] += element `offset + j` of the sums that are split by phase.
  static FASTPOOL_HD void gather_phases(T* __restrict sums, const T* __restrict phase_sums, int64_t offset, int64_t columns, int64_t stride,
                                  int64_t phases, int64_t length) {
    if (stride == 1) {
      const int64_t count = smaller(columns, length - offset);
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) sums[j] += phase_sums[offset + j];
    } else if (stride == 2 && phases == 2) {
      // Written out for the commonest stride: a loop over one phase would store every other element.
      if (offset % 2) {
        if (offset / 2 < length) sums[0] += phase_sums[length + offset / 2];
        return gather_pairs(sums + 1, phase_sums, offset + 1, columns - 1, length);
      }
      gather_pairs(sums, phase_sums, offset, columns, length);
    } else {
      for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t begin = larger(ceil_div(offset - phase, stride), 0);
        const int64_t end = smaller(ceil_div(offset + columns - phase, stride), length);
        for (int64_t j = begin; j < end; ++j) sums[j * stride + phase - offset] += phase_sums[phase * length + j];
      }
    }
  }

  static FASTPOOL_HD void gather_pairs(T* __restrict sums, const T* __restrict phase_sums, int64_t offset, int64_t columns, int64_t length) {
    const T *even = phase_sums + offset / 2, *odd = even + length;
    const int64_t pairs = smaller(columns / 2, length - offset / 2);
#pragma omp simd
    for (int64_t j = 0; j < pairs; ++j) {
      sums[2 * j] += even[j];
      sums[2 * j + 1] += odd[j];
    }
    if (columns % 2 && columns / 2 < length - offset / 2) sums[columns - 1] += even[columns / 2];
  }

  // Bins and wide windows: one output at a time, lanes are the elements of the row that it sees.
  static FASTPOOL_HD void wide(const Problem& p, const Moves& moves, const Level& level, const Place& place, const int64_t i[3], int64_t columns,
                         T* sums, T* buffer) {
    const Axis* axis = level.grid.axis;
    const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
    const int64_t first = axis[2].covers(i[2]).begin, end = axis[2].covers(i[2] + columns - 1).end;
    if (end <= first) return;
    const int64_t outputs = end - first;
    const Slots<T> slots{buffer, buffer + outputs, buffer + 2 * outputs, reinterpret_cast<Tap<T>*>(buffer + 3 * outputs)};
    T* x = buffer + 4 * outputs;
    const int64_t row = (i[0] * p.extent[1] + i[1]) * p.extent[2] + i[2];
    if (Gradient::uses_input) moves.widen(x, moves.at(p.x, p.input.at(place.n, place.c, row)), 1, columns);
    Place at = place;
    for (at.o[0] = d.begin; at.o[0] < d.end; ++at.o[0])
      for (at.o[1] = h.begin; at.o[1] < h.end; ++at.o[1]) {
        const int64_t tap_d = axis[0].tap_of(at.o[0], i[0]), tap_h = axis[1].tap_of(at.o[1], i[1]);
        if (tap_d < 0 || tap_h < 0) continue;
        const int64_t row_tap = tap_d * axis[1].taps(at.o[1]) + tap_h;
        at.o[2] = first;
        prepare_row<Gradient, T>(p, moves, level, at, outputs, slots);
        for (int64_t o = 0; o < outputs; ++o) {
          const Span span = axis[2].window(first + o);
          const int64_t begin = larger(span.start, i[2]), stop = smaller(span.start + span.count, i[2] + columns);
          const Tap<T> tap = slots.tap[o], here = Tap<T>(row_tap * span.size + span.first + begin - span.start);
          const T a = slots.a[o], b = slots.b[o], c = slots.c[o];
          T* __restrict to = sums + begin - i[2];
          const T* __restrict from = x + begin - i[2];
#pragma omp simd
          for (int64_t j = 0; j < stop - begin; ++j)
            to[j] += Gradient::term(Gradient::uses_input ? from[j] : T(0), Tap<T>(here + j), a, b, c, tap, p);
        }
      }
  }

  static FASTPOOL_HD int64_t scratch_values(const Problem& p) {
    int64_t most = 0;
    const int64_t columns = smaller(p.extent[2], kColumns);
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Axis& w = p.levels[l].grid.axis[2];
      const int64_t reach = w.adaptive() ? 0 : (w.extent() - 1) / w.stride;
      const int64_t outputs = smaller(w.out, w.adaptive() ? columns * w.out / w.in + 3 : columns / w.stride + reach + 2);
      const int64_t phases = w.adaptive() ? 0 : smaller(w.stride, w.extent());
      most = larger(most, 2 * phases * (outputs + reach) + 4 * outputs + columns);
    }
    return most + columns;
  }

  static FASTPOOL_HD void run(const Problem& p, const Moves& moves, Place place, const int64_t at[3], T* buffer) {
    int64_t i[3] = {at[0], at[1], 0};
    for (; i[2] < p.extent[2]; i[2] += kColumns) {
      const int64_t columns = smaller(kColumns, p.extent[2] - i[2]);
      T* sums = buffer;
      fill_run(sums, T(0), columns);
      for (int32_t l = 0; l < p.level_count; ++l) {
        const Level& level = p.levels[l];
        if (level.backward == Schedule::rows) {
          sliding(p, moves, level, place, i, columns, sums, buffer + columns);
        } else if (level.backward == Schedule::flat) {
          wide(p, moves, level, place, i, columns, sums, buffer + columns);
        } else {
#pragma omp simd
          for (int64_t j = 0; j < columns; ++j) {
            const int64_t here[3] = {i[0], i[1], i[2] + j};
            sums[j] = backward_exact<Gradient, T>(p, level, place.n, place.c, here, sums[j]);
          }
        }
      }
      const int64_t row = (i[0] * p.extent[1] + i[1]) * p.extent[2] + i[2];
      moves.narrow(moves.at(p.gx, p.input.at(place.n, place.c, row)), 1, sums, columns);
    }
  }
};

// Channels-last gradient: lanes are neighbouring channels.
template <class Gradient, class T>
struct ChannelsBackward {
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD void add_output(const Problem& p, const Moves& moves, const Level& level, const Place& at, Tap<T> here, T divisor, int count,
                               const T* x, T* sums) {
    const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), step = level.output.channel;
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    T g_buffer[L], second_buffer[L], y_buffer[L], moment[2][L], alpha[L];
    Tap<T> tap[L] = {};
    const T* g = moves.lanes<L>(moves.at(p.g, level.output_base + out), step, count, g_buffer);
    const T *second = nullptr, *y = nullptr;
    if constexpr (Gradient::uses_second) second = moves.lanes<L>(moves.at(p.g_second, level.second_base + out), step, count, second_buffer);
    if constexpr (Gradient::uses_taps) widen_taps<T>(p, saved, p.saved.channel, tap, count);
    if constexpr (Gradient::uses_input) {
      y = moves.lanes<L>(moves.at(p.y, level.output_base + out), step, count, y_buffer);
      for (int which = 0; which < 2; ++which)
        gather(moment[which], static_cast<const T*>(p.moments) + which * p.moments_size + saved, p.saved.channel, count);
    }
    if constexpr (Gradient::uses_alpha)
      for (int l = 0; l < L; ++l) alpha[l] = l < count ? alpha_of<T>(p, at.n, at.c + l, level.first_bin + bin) : T(0);
    __builtin_prefetch(static_cast<const char*>(moves.at(p.g, level.output_base + out)) + kAhead);
#pragma omp simd
    for (int l = 0; l < L; ++l) {
      OutputFacts<T> output{g[l], T(0), T(0), {T(0), T(0)}};
      if (Gradient::uses_second) output.g_second = second[l];
      if (Gradient::uses_input) {
        output.y = y[l];
        output.moment[0] = moment[0][l];
        output.moment[1] = moment[1][l];
      }
      const Slot<T> slot = Gradient::prepare(output, Facts<T>{divisor, Gradient::uses_alpha ? alpha[l] : T(0), T(0)}, p);
      sums[l] +=
          Gradient::term(Gradient::uses_input ? x[l] : T(0), here, slot.a, slot.b, slot.c, Gradient::uses_taps ? tap[l] : Tap<T>(0), p);
    }
  }

  // One level's terms for `positions` elements from i on and `channels` channels from place.c on.
  static FASTPOOL_HD void add_level(const Problem& p, const Moves& moves, const Level& level, const Place& place, const int64_t at[3],
                              int64_t positions, int64_t channels, const T* x, T* sums) {
    const Axis* axis = level.grid.axis;
    const Range d = axis[0].covers(at[0]), h = axis[1].covers(at[1]);
    const bool even = !level.clipped && !axis[0].adaptive() && !axis[1].adaptive() && !axis[2].adaptive();
    Place out{place.n, place.c, {d.begin, h.begin, 0}};
    T divisor = Gradient::uses_divisor && even ? divisor_of<T>(p, level.grid, out.o) : T(1);
    const int64_t stride = round_up(channels, L);
    for (int64_t i = 0; i < positions; ++i, x += stride, sums += stride) {
      const Range w = axis[2].covers(at[2] + i);
      for (out.o[0] = d.begin; out.o[0] < d.end; ++out.o[0])
        for (out.o[1] = h.begin; out.o[1] < h.end; ++out.o[1]) {
          const int64_t tap_d = axis[0].tap_of(out.o[0], at[0]), tap_h = axis[1].tap_of(out.o[1], at[1]);
          if (tap_d < 0 || tap_h < 0) continue;
          const int64_t row_tap = tap_d * axis[1].taps(out.o[1]) + tap_h;
          for (out.o[2] = w.begin; out.o[2] < w.end; ++out.o[2]) {
            const int64_t tap_w = axis[2].tap_of(out.o[2], at[2] + i);
            if (tap_w < 0) continue;
            if (Gradient::uses_divisor && !even) divisor = divisor_of<T>(p, level.grid, out.o);
            const Tap<T> here = Tap<T>(row_tap * axis[2].taps(out.o[2]) + tap_w);
            for (int64_t c = 0; c < channels; c += L) {
              out.c = place.c + c;
              add_output(p, moves, level, out, here, divisor, int(smaller(L, channels - c)), x + c, sums + c);
            }
          }
        }
    }
  }

  static FASTPOOL_HD void add_level_exactly(const Problem& p, const Level& level, const Place& place, const int64_t at[3], int64_t positions,
                                      int64_t channels, T* sums) {
    for (int64_t k = 0; k < positions; ++k, sums += round_up(channels, L)) {
      const int64_t i[3] = {at[0], at[1], at[2] + k};
      for (int64_t c = 0; c < channels; ++c) sums[c] = backward_exact<Gradient, T>(p, level, place.n, place.c + c, i, sums[c]);
    }
  }

  // One row of input gradients for `channels` channels from place.c on, a few positions at a time.
  static constexpr int kPositions = 16;

  static FASTPOOL_HD void run(const Problem& p, const Moves& moves, const Place& place, const int64_t at[3], int64_t channels) {
    const int64_t stride = round_up(channels, L);  // whole tiles: lanes beyond the last channel are written too
    T sums[kPositions * kMostTiles * L], x[Gradient::uses_input ? kPositions * kMostTiles * L : 1];
    for (int64_t first = 0; first < p.extent[2]; first += kPositions) {
      const int64_t i[3] = {at[0], at[1], first}, positions = smaller(kPositions, p.extent[2] - first);
      const int64_t element = p.input.at(place.n, place.c, (i[0] * p.extent[1] + i[1]) * p.extent[2] + i[2]);
      fill_run(sums, T(0), positions * stride);
      if (Gradient::uses_input)
        for (int64_t k = 0; k < positions; ++k) moves.widen(x + k * stride, moves.at(p.x, element + k * p.input.position), 1, channels);
      for (int32_t l = 0; l < p.level_count; ++l) {
        if (p.levels[l].backward == Schedule::direct)
          add_level_exactly(p, p.levels[l], place, i, positions, channels, sums);
        else
          add_level(p, moves, p.levels[l], place, i, positions, channels, x, sums);
      }
      for (int64_t k = 0; k < positions; ++k) moves.narrow(moves.at(p.gx, element + k * p.input.position), 1, sums + k * stride, channels);
    }
  }
};

// A unit of work is one row of input gradients: of a plane, or of a tile of channels.
template <class Gradient, class T>
struct Backward {
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD int64_t tiles(const Problem& p) {
    return p.lanes_are_channels ? ceil_div(p.channels, channels_per_unit<T>(p, p.extent[0] * p.extent[1])) : p.channels;
  }
  static int64_t units(const Problem& p) { return p.samples * p.extent[0] * p.extent[1] * tiles(p); }

  static FASTPOOL_HD void run(const Problem& p, int64_t begin, int64_t end) {
    const Moves& moves = moves_of(p.dtype);
    const int64_t values = p.lanes_are_channels ? 0 : RowsBackward<Gradient, T>::scratch_values(p);
    T* buffer = static_cast<T*>(scratch(values * int64_t(sizeof(T))));
    const int64_t tile_count = tiles(p), row_count = p.extent[0] * p.extent[1];
    const int64_t most_channels = channels_per_unit<T>(p, row_count);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t tile = p.lanes_are_channels ? unit % tile_count : unit / row_count % tile_count;
      const int64_t row = p.lanes_are_channels ? unit / tile_count % row_count : unit % row_count;
      const int64_t at[3] = {row / p.extent[1], row % p.extent[1], 0};
      const int64_t n = unit / (row_count * tile_count);
      if (p.lanes_are_channels)
        ChannelsBackward<Gradient, T>::run(p, moves, {n, tile * most_channels, {0, 0, 0}}, at,
                                           smaller(most_channels, p.channels - tile * most_channels));
      else
        RowsBackward<Gradient, T>::run(p, moves, {n, tile, {0, 0, 0}}, at, buffer);
    }
  }
};

}  // namespace fastpool::cpu
