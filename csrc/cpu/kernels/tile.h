// What the forward schedules share: a chunk of work, the facts of neighbouring outputs, and where results go.
#pragma once

#include "core/direct.h"
#include "cpu/kernels/draw.h"
#include "cpu/work.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

FASTPOOL_HD int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Planes of up to so many positions are transposed whole: 128 KB of scratch for 32 of them.
constexpr int64_t kSmallPlane = 1024;

// Bytes to ask for in advance where a walk jumps between rows, which hardware prefetchers follow badly.
constexpr int64_t kAhead = 4096;

// Scratch memory of one chunk, handed out piece by piece.
class Arena {
 public:
  template <class T>
  FASTPOOL_HD T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += round_up(count * int64_t(sizeof(T)), 64);
    return piece;
  }
  FASTPOOL_HD explicit Arena(int64_t bytes) : next_(static_cast<char*>(scratch(bytes))) {}

 private:
  char* next_;
};
constexpr int64_t kSlack = 4096;  // bytes that the roundings of an arena's pieces may add

// What averages divide by, for the outputs of one row after another: the product of the axes' counts.
template <class T>
class Divisors {
 public:
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  FASTPOOL_HD Divisors(const Problem& p, const Level& level, Arena& arena) : p(p), axis(level.grid.axis) {
    const Axis& w = axis[2];
    columns = arena.take<T>(w.out + L);
    int64_t every = p.divisor_override;  // what all outputs divide by, or 0
    if (!every && !level.clipped && !(axis[0].adaptive() || axis[1].adaptive() || w.adaptive()))
      every = axis[0].kernel * axis[1].kernel * w.kernel;
    constant = every != 0;
    inverse = every > 0 && (every & (every - 1)) == 0;
    fill_run(columns, inverse ? T(1) / T(every) : constant ? T(every) : T(1), w.out + L);
    for (int64_t o = 0; !constant && o < w.out; ++o) columns[o] = T(w.divisor(o, p.include_pad));
  }
  FASTPOOL_HD void move_to(const int64_t o[3]) {
    if (!constant) rows = T(axis[0].divisor(o[0], p.include_pad) * axis[1].divisor(o[1], p.include_pad));
  }
  // Those of two halves of the lanes, `second` outputs apart, or of one output.
  FASTPOOL_HD void give_halves(Facts<V>& facts, int64_t o, int64_t second) const {
    give(facts, V(load<T, L / 2>(columns + o), load<T, L / 2>(columns + o + second)));
  }
  FASTPOOL_HD void give_one(Facts<V>& facts, int64_t o) const { give(facts, V(columns[o])); }

 private:
  const Problem& p;
  const Axis* axis;
  T *columns, rows = T(1);
  bool constant, inverse;

  FASTPOOL_HD void give(Facts<V>& facts, V column) const {
    facts.divisor = column * V(rows);
    facts.inverse = inverse;
  }
};

// alpha of `count` neighbours from (n, c, bin) on: channels of one bin, or bins of one row.
template <class T>
Lanes<T, kLanes<T>> alpha_lanes(const Problem& p, int64_t n, int64_t c, int64_t bin, bool channels, int64_t count) {
  constexpr int L = kLanes<T>;
  if (!p.alpha) return Lanes<T, L>(T(p.alpha_value));
  return load_apart<T, L>(static_cast<const T*>(p.alpha) + p.alpha_view.at(n, c, bin),
                          channels ? p.alpha_view.channel : p.alpha_view.position, count);
}

// Lanes whose results lie `step` apart in the output and `saved_step` in what is saved.
template <class Reducer, class S, class State>
FASTPOOL_HD void store_lanes(const Problem& p, const Level& level, int64_t out, int64_t step, int64_t saved, int64_t saved_step, int64_t count,
                        const State& state) {
  using T = Accumulated<S>;
  store_part(static_cast<S*>(p.y) + level.output_base + out, step, state.y(), count);
  if constexpr (Reducer::has_second) {
    if (!Reducer::second_is_difference)
      store_part(static_cast<S*>(p.second) + level.second_base + out, step, state.second(), count);
    else if (p.difference)
      store_part(static_cast<T*>(p.difference) + saved, saved_step, state.second(), count);
  }
  if constexpr (Reducer::saves_taps) {
    if (p.tap_bytes == 1) store_part(static_cast<uint8_t*>(p.taps) + saved, saved_step, state.tap(), count);
    if (p.tap_bytes == 4) store_part(static_cast<int32_t*>(p.taps) + saved, saved_step, state.tap(), count);
  }
  if constexpr (Reducer::saves_moments)
    for (int which = 0; which < (p.moments ? 2 : 0); ++which)
      store_part(static_cast<T*>(p.moments) + which * p.moments_size + saved, saved_step, state.moment(which), count);
}

// Adds an element for the lanes where `inside` or `always` holds.
template <class Reducer, int pass, class State, class V>
FASTPOOL_HD void add_masked(State& state, V x, Tap<V> tap, bool always, const auto& inside) {
  if constexpr (requires { state.template add_inside<pass>(x, tap, inside()); }) {
    if (always) return state.template add<pass>(x, tap);
    state.template add_inside<pass>(x, tap, inside());
  } else {
    if (!always) x = select(inside(), x, V(Reducer::template padding<Scalar<V>>()));
    state.template add<pass>(x, tap);
  }
}

// Calls again(i) for the lanes i < count where the fast arithmetic does not hold.
template <class State, class Again>
FASTPOOL_HD void repair(const State& state, int64_t count, const Again& again) {
  if constexpr (!std::is_same_v<decltype(state.ordinary()), Always>) {
    using M = decltype(state.ordinary());
    const M odd = (!state.ordinary()) & (M::iota() < M(Scalar<M>(count)));
    if (!any(odd)) return;
    Scalar<M> lanes[sizeof(M) / sizeof(Scalar<M>)];
    store(lanes, odd);
    for (int64_t i = 0; i < count; ++i)
      if (lanes[i]) again(i);
  }
}

// A whole window of `taps` elements in registers, so that what its passes have in common is computed once.
template <class V, class State, int taps>
struct Held {
  const Problem& p;
  const Facts<V>& facts;
  State& state;
  const V (&x)[taps];

  template <int pass>
  FASTPOOL_HD void run() const {
    if constexpr (pass > 0) state.template begin<pass>(facts, p);
    FASTPOOL_UNROLL
    for (int k = 0; k < taps; ++k) state.template add<pass>(x[k], Tap<V>(Scalar<Tap<V>>(k)));
  }
};

template <int pass, int passes, class Step>
FASTPOOL_HD void for_each_pass(const Step& step) {
  if constexpr (pass < passes) {
    step.template run<pass>();
    for_each_pass<pass + 1, passes>(step);
  }
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
