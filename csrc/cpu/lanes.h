// What the schedules share: lane counts, facts of neighbouring outputs, storing results, the exact path.
#pragma once

#include "cpu/moves.h"

namespace fastpool::cpu {

// 128 bytes of lanes: two AVX-512 registers, so that two independent chains hide each other's latency.
template <class T>
constexpr int kLanes = 128 / int(sizeof(T));

// Channels of one unit of work, a few tiles of lanes: neighbouring tiles share cache lines and index arithmetic, but
// few rows need many units to occupy every thread.
constexpr int kMostTiles = 16;
template <class T>
FASTPOOL_HD int64_t channels_per_unit(const Problem& p, int64_t rows) {
  return kLanes<T> * (p.samples * rows >= 16 ? kMostTiles : 1);
}

// Bytes that channels-last walks ask for in advance: index arithmetic between loads keeps the processor from seeing
// far enough ahead by itself.
constexpr int64_t kAhead = 1024;

FASTPOOL_HD int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class T>
FASTPOOL_HD void fill_run(T* to, T value, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// Copies `count` values into or out of memory whose neighbours lie `stride` apart, converting them.
template <class To, class From>
FASTPOOL_HD void scatter(To* __restrict to, int64_t stride, const From* __restrict from, int64_t count) {
  if (stride == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] = To(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * stride] = To(from[i]);
  }
}

template <class To, class From>
FASTPOOL_HD void gather(To* __restrict to, const From* __restrict from, int64_t stride, int64_t count) {
  if (stride == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] = To(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = To(from[i * stride]);
  }
}

template <class T>
FASTPOOL_HD void narrow_taps(const Problem& p, int64_t at, int64_t stride, const Tap<T>* from, int64_t count) {
  if (p.tap_bytes == 1) scatter(static_cast<uint8_t*>(p.taps) + at, stride, from, count);
  if (p.tap_bytes == 4) scatter(static_cast<int32_t*>(p.taps) + at, stride, from, count);
}

template <class T>
FASTPOOL_HD void widen_taps(const Problem& p, int64_t at, int64_t stride, Tap<T>* to, int64_t count) {
  if (p.tap_bytes == 1)
    gather(to, static_cast<const uint8_t*>(p.taps) + at, stride, count);
  else
    gather(to, static_cast<const int32_t*>(p.taps) + at, stride, count);
}

template <class T, class State>
FASTPOOL_HD bool all_ordinary(const State& state, int count) {
  int odd = 0;
#pragma omp simd reduction(| : odd)
  for (int i = 0; i < kLanes<T>; ++i) odd |= (i < count) & !state.ordinary(i);
  return odd == 0;
}

// Scratch memory of the calling thread, kept between calls; its contents are undefined.
void* scratch(int64_t bytes);

// What a chunk of work looks up once.
struct Context {
  const Moves& moves;
  uint64_t seed;
};

// Facts of up to L neighbouring outputs, lane by lane; only what the reducer uses is filled.
template <class T, int L>
struct LaneFacts {
  T divisor[L], alpha[L], uniform[L];
  FASTPOOL_HD Facts<T> of(int lane) const { return {divisor[lane], alpha[lane], uniform[lane]}; }
};

// Writes what `count` lanes found; neighbouring lanes lie `step` apart in the output and `saved_step` in what is saved.
template <class Reducer, class T, class State>
FASTPOOL_HD void store_lanes(const Problem& p, const Moves& moves, const Level& level, const Place& at, int64_t step, int64_t saved_step,
                        int count, const State& state) {
  constexpr int L = kLanes<T>;
  const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin);
  const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin);
  T values[L];
#pragma omp simd
  for (int i = 0; i < L; ++i) values[i] = state.y(i);
  moves.narrow(moves.at(p.y, level.output_base + out), step, values, count);
  if constexpr (Reducer::has_second) {
#pragma omp simd
    for (int i = 0; i < L; ++i) values[i] = state.second(i);
    if (!Reducer::second_is_difference)
      moves.narrow(moves.at(p.second, level.second_base + out), step, values, count);
    else if (p.difference)
      scatter(static_cast<T*>(p.difference) + saved, saved_step, values, count);
  }
  if constexpr (Reducer::saves_taps) {
    if (p.tap_bytes) {
      Tap<T> taps[L] = {};
#pragma omp simd
      for (int i = 0; i < L; ++i) taps[i] = state.tap(i);
      narrow_taps<T>(p, saved, saved_step, taps, count);
    }
  }
  if constexpr (Reducer::saves_moments) {
    for (int which = 0; which < (p.moments ? 2 : 0); ++which) {
#pragma omp simd
      for (int i = 0; i < L; ++i) values[i] = state.moment(i, which);
      scatter(static_cast<T*>(p.moments) + which * p.moments_size + saved, saved_step, values, count);
    }
  }
}

// Calls f<0>, f<1>, … f<passes - 1>.
template <int pass, int passes, class Step>
FASTPOOL_HD void for_each_pass(Step& step) {
  if constexpr (pass < passes) {
    step.template run<pass>();
    for_each_pass<pass + 1, passes>(step);
  }
}

// The exact path, for what the fast paths leave out.
template <class Reducer, class T>
FASTPOOL_HD_NOINLINE void forward_exact(const Problem& p, const Level& level, Place at) {
  if constexpr (sizeof(T) == sizeof(double)) {
    forward_at<Reducer, double>(p, level, at);
  } else {
    if (p.dtype == Dtype::float32) return forward_at<Reducer, float>(p, level, at);
    if (p.dtype == Dtype::float16) return forward_at<Reducer, Half>(p, level, at);
    forward_at<Reducer, BFloat16>(p, level, at);
  }
}

template <class Gradient, class T>
FASTPOOL_HD_NOINLINE T backward_exact(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t i[3], T sum) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return backward_one<Gradient, double>(p, level, n, c, i, sum);
  } else {
    if (p.dtype == Dtype::float32) return backward_one<Gradient, float>(p, level, n, c, i, sum);
    if (p.dtype == Dtype::float16) return backward_one<Gradient, Half>(p, level, n, c, i, sum);
    return backward_one<Gradient, BFloat16>(p, level, n, c, i, sum);
  }
}

}  // namespace fastpool::cpu
