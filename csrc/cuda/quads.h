// Windows of 2 x 2 that tile the planes of contiguous input: a thread takes four neighbouring outputs of a row. Their
// eight columns of two rows move in accesses of 16 bytes, indices are computed once, and so is the block of uniforms.
// Predicted, not measured: 42 instructions for each maximum, 36 for its gradient, 89 for a draw, where an H200 at its
// full bandwidth has time for 128 in float32 and 68 in float16.
#pragma once

#include "cuda/backward.h"

namespace fastpool::cuda {

struct Quads : Job {
  static constexpr int threads = 1, outputs = 4, columns = 8;
  Divisor quads_of_row;

  explicit Quads(const Problem& problem) : Job(problem), quads_of_row(p.levels[0].grid.axis[2].out / outputs) {}
  void finish(int64_t) { units = Units(p.samples, p.channels, p.bins / outputs, false); }

  // `aligned` tells whether a pointer is a multiple of so many bytes.
  template <class S, class Aligned>
  static bool suit(const Problem& p, const Aligned& aligned) {
    if (p.level_count != 1 || p.lanes_are_channels) return false;
    const Axis* axis = p.levels[0].grid.axis;
    const auto pairs = [](const Axis& a) {
      return a.kernel == 2 && a.stride == 2 && a.dilation == 1 && a.before == 0 && a.in == 2 * a.out;
    };
    const bool flat = axis[0].kernel == 1 && axis[0].stride == 1 && axis[0].in == axis[0].out;
    constexpr int64_t narrow = outputs * sizeof(S), wide = outputs * sizeof(Accumulated<S>);
    return flat && pairs(axis[1]) && pairs(axis[2]) && axis[2].out % outputs == 0 && p.tap_bytes <= 1 && p.levels[0].output.position == 1 &&
           p.saved.position == 1 && p.moments_size % outputs == 0 && aligned(p.x, 16) && aligned(p.gx, 16) && aligned(p.y, narrow) &&
           aligned(p.second, narrow) && aligned(p.g, narrow) && aligned(p.g_second, narrow) && aligned(p.taps, outputs) &&
           aligned(p.difference, wide) && aligned(p.moments, wide);
  }

  // One thread's outputs: sample, channel and first bin, and where input, output and what is saved begin.
  struct Quad {
    int64_t n;
    int32_t c, bin;
    int64_t in, out, saved;
  };
  FASTPOOL_HD Quad find(uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int32_t row = quads_of_row.divide(unit.inside), width = fast[0].axis[2].in;
    const int32_t bin = unit.inside * outputs, position = 2 * row * width + (bin - row * fast[0].axis[2].out) * 2;
    return {unit.n,
            unit.group,
            bin,
            unit.n * p.input.sample + times(unit.group, p.input.channel) + position,
            unit.n * levels[0].output.sample + times(unit.group, levels[0].output.channel) + bin,
            unit.n * p.saved.sample + times(unit.group, p.saved.channel) + bin};
  }

  template <class T, class S>
  FASTPOOL_HD void load_rows(T (&to)[2][columns], const S* from) const {
    constexpr int count = 16 / int(sizeof(S));
    FASTPOOL_UNROLL
    for (int r = 0; r < 2; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; k += count) {
        const Pack<S, count> pack = read(reinterpret_cast<const Pack<S, count>*>(from + r * fast[0].axis[2].in + k));
        FASTPOOL_UNROLL
        for (int i = 0; i < count; ++i) to[r][k + i] = widened(pack.value[i]);
      }
    }
  }
  template <class S>
  FASTPOOL_HD void store_rows(S* to, const S (&from)[2][columns]) const {
    constexpr int count = 16 / int(sizeof(S));
    FASTPOOL_UNROLL
    for (int r = 0; r < 2; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; k += count) {
        Pack<S, count> pack;
        FASTPOOL_UNROLL
        for (int i = 0; i < count; ++i) pack.value[i] = from[r][k + i];
        write(reinterpret_cast<Pack<S, count>*>(to + r * fast[0].axis[2].in + k), pack);
      }
    }
  }

  template <class Pooling, class T>
  FASTPOOL_HD void facts_of_quad(Facts<T> (&facts)[outputs], const Quad& quad) const {
    Words words{};
    if constexpr (Pooling::uses_uniform) words = draws_of(p, p.seed_now(), quad.n, quad.c, quad.bin / outputs);
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) {
      facts[i] = {p.divisor_override ? T(p.divisor_override) : T(0.25), T(0), T(0), p.divisor_override == 0};
      if constexpr (Pooling::uses_alpha) facts[i].alpha = alpha_of<T>(p, quad.n, quad.c, quad.bin + i);
      if constexpr (Pooling::uses_uniform) facts[i].uniform = T(uniform(words.word[i]));
    }
  }
};

template <class Reducer, class S>
struct QuadForward : Quads {
  static constexpr int blocks = kBlocks<S, (Reducer::careful_passes > 0)>;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  using Quads::Quads;

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Quad quad = find(index);
    T x[2][columns];
    load_rows(x, static_cast<const S*>(p.x) + quad.in);
    Facts<T> facts[outputs];
    facts_of_quad<Reducer>(facts, quad);
    State states[outputs];
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) states[i].start(Tap<T>(0), p);
    run<0>(x, facts, states);
    unsigned odd = 0;  // outputs that the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) {
      if (Reducer::careful_passes > 0 && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    store_results<Reducer, S, true>(*this, levels[0], quad.out, 1, quad.saved, 1, outputs, states);
    if constexpr (Reducer::careful_passes > 0) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) lone_window<Reducer, S>(*this, quad.n, quad.c, 0, quad.bin + i);
    }
  }
  template <int pass>
  FASTPOOL_HD void run(const T (&x)[2][columns], const Facts<T> (&facts)[outputs], State (&states)[outputs]) const {
    if constexpr (pass < Reducer::passes) {
      FASTPOOL_UNROLL
      for (int i = 0; i < outputs; ++i) {
        if constexpr (pass > 0) states[i].template begin<pass>(facts[i], p);
        FASTPOOL_UNROLL
        for (int k = 0; k < 4; ++k) states[i].template add<pass>(x[k / 2][2 * i + k % 2], Tap<T>(k));
      }
      run<pass + 1>(x, facts, states);
    }
  }
};

template <class Gradient, class S>
struct QuadBackward : Quads {
  static constexpr int blocks = kBlocks<S, Gradient::uses_input>;
  using T = Accumulated<S>;

  using Quads::Quads;

  template <class X>
  static FASTPOOL_HD void load_quad(X (&to)[outputs], const void* from, int64_t at) {
    load<true>(to, static_cast<const X*>(from) + at, 1, outputs);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Quad quad = find(index);
    S g[outputs], second[outputs]{}, y[outputs];
    T moment[2][outputs], x[2][columns];
    uint8_t taps[outputs];
    load_quad(g, p.g, levels[0].output_base + quad.out);
    if (Gradient::uses_second && !p.mixes) load_quad(second, p.g_second, levels[0].second_base + quad.out);
    if constexpr (Gradient::uses_taps) load_quad(taps, p.taps, quad.saved);
    if constexpr (Gradient::uses_input) {
      load_rows(x, static_cast<const S*>(p.x) + quad.in);
      load_quad(y, p.y, levels[0].output_base + quad.out);
      for (int which = 0; which < 2; ++which) load_quad(moment[which], p.moments, which * p.moments_size + quad.saved);
    }
    Facts<T> facts[outputs];
    facts_of_quad<Gradient>(facts, quad);
    S gx[2][columns];
    FASTPOOL_UNROLL
    for (int i = 0; i < outputs; ++i) {
      const OutputFacts<T> output = facts_of_output<Gradient>(g, second, y, moment, i);
      const Slot<T> slot = Gradient::prepare(output, facts[i], p);
      Tap<T> tap(0);
      if constexpr (Gradient::uses_taps) tap = taps[i];
      FASTPOOL_UNROLL
      for (int k = 0; k < 4; ++k) {
        T here(0);
        if constexpr (Gradient::uses_input) here = x[k / 2][2 * i + k % 2];
        gx[k / 2][2 * i + k % 2] = narrowed<S>(T(0) + Gradient::term(here, Tap<T>(k), slot, tap, p));
      }
    }
    store_rows(static_cast<S*>(p.gx) + quad.in, gx);
  }
};

}  // namespace fastpool::cuda
