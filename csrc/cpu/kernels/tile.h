// What schedules share: a chunk of work, the facts of neighbouring outputs, and where results go.
#pragma once

#include <array>

#include "cpu/kernels/draw.h"
#include "cpu/work.h"
#include "schedules/exact.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// A level's rows of bins in a unit of work.
inline Range rows_of(const Level& level, const Units::Unit& unit) {
  return {larger(unit.first_row - level.first_row, 0), smaller(unit.last_row - level.first_row, level.grid.rows())};
}

template <class Reducer>
void forward_exact(const Problem& p, const Level& level, const Place& at) {
  exact_forward<typename ExactBy<Reducer>::type>(p, level, at);
}

FASTPOOL_HD int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Rows of so many outputs that the lanes hold, each in a part of them.
template <int L>
int rows_at_once(int64_t outputs) {
  return outputs <= L / 4 ? 4 : outputs <= L / 2 ? 2 : 1;
}

// Bytes to ask for in advance where a walk jumps between rows, which hardware prefetchers follow badly.
constexpr int64_t kAhead = 4096;
FASTPOOL_HD void ask_for(const void* from, int64_t bytes, int64_t ahead = kAhead) {
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(static_cast<const char*>(from) + ahead + byte);
}

// Of planes one after another as many bytes as lie there, for a second-level cache. Milliseconds for pyramids of (64, 512, 14, 14)
// float32 on one thread of AVX-512, without and with it: 4.8 and 3.3; from that cache they take 3.3, too.
FASTPOOL_HD void ask_for_next(const void* from, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(static_cast<const char*>(from) + 2 * kAhead + byte, 0, 2);
}

// The same of few bytes, in a loop that has no time for another.
template <int bytes>
FASTPOOL_HD void ask_for(const void* from, int64_t ahead) {
  unrolled<(bytes + 63) / 64>([&](auto line) FASTPOOL_STEP { __builtin_prefetch(static_cast<const char*>(from) + ahead + line * 64); });
}

// Whether no second-level cache has the input.
constexpr int64_t kCached = 8 << 20;
template <class S>
bool is_far_away(const Problem& p) {
  return p.samples * p.channels * p.positions() * int64_t(sizeof(S)) > kCached;
}

// So much data that no cache keeps what a call writes until it is read: it goes past them.
constexpr int64_t kStreamed = 30 << 20;
template <class S>
bool exceeds_caches(const Problem& p) {
  return p.samples * p.channels * (p.positions() + p.bins) * int64_t(sizeof(S)) >= kStreamed;
}

// The gradients of columns that no window sees.
template <class S>
void clear_columns(const Problem& p, int64_t first, int64_t columns, int64_t channels) {
  for (int64_t i = 0; i < columns; ++i)
    memset(static_cast<void*>(static_cast<S*>(p.gx) + first + i * p.input.position), 0, size_t(channels) * sizeof(S));
}

// Scratch memory of one chunk, handed out piece by piece. A new one takes back all that the thread has.
class Arena {
 public:
  Arena() { restart_scratch(); }
  template <class T>
  T* take(int64_t count) {
    FASTPOOL_ASSERT(count >= 0);
    return static_cast<T*>(take_scratch(count * int64_t(sizeof(T))));
  }
};

// What averages divide by, for the outputs of one row after another: the product of the axes' counts.
template <class T>
class Divisors {
 public:
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  // Nothing where they are not `used`.
  __attribute__((noinline)) Divisors(const Problem& p, const Level& level, bool used, Arena& arena) : p(p), axis(level.grid.axis) {
    if (!used) return;
    const Axis& w = axis[2];
    int64_t every = p.divisor_override;  // what all outputs divide by, or 0
    if (!every && !level.clipped && level.grid.slides()) every = axis[0].kernel * axis[1].kernel * w.kernel;
    constant = every != 0;
    inverse = every > 0 && (every & (every - 1)) == 0;
    listed = constant ? 0 : smaller(w.out, kMostListed);
    columns = arena.take<T>(listed + L);
    fill_run(columns, inverse ? T(1) / T(every) : constant ? T(every) : T(1), listed + L);
    if (!constant) find(0);
  }
  FASTPOOL_HD void move_to(const int64_t o[3]) {
    if (!constant) rows = T(axis[0].divisor(o[0], p.include_pad) * axis[1].divisor(o[1], p.include_pad));
  }
  // Those of two halves of the lanes, `second` outputs apart, or of one output.
  FASTPOOL_HD void give_halves(Facts<V>& facts, int64_t o, int64_t second) const {
    const T* from = at(o);
    give(facts, V(load<T, L / 2>(from), load<T, L / 2>(from + (constant ? 0 : second))));
  }
  FASTPOOL_HD void give_one(Facts<V>& facts, int64_t o) const { give(facts, V(*at(o))); }

 private:
  static constexpr int64_t kMostListed = 4096;  // of a long row as many as stay in the first-level cache
  const Problem& p;
  const Axis* axis;
  T *columns = nullptr, rows = T(1);  // of the outputs from `first` on, and a few that do not exist
  mutable int64_t first = 0;
  int64_t listed = 0;
  bool constant = true, inverse = false;

  // Those of output o and the lanes behind it.
  FASTPOOL_HD const T* at(int64_t o) const {
    if (constant) return columns;
    if (o < first || smaller(o + L, axis[2].out) > first + listed) find(o);
    return columns + (o - first);
  }
  __attribute__((noinline)) void find(int64_t from) const {
    const Axis& w = axis[2];
    FASTPOOL_ASSERT(from >= 0 && from < w.out);
    const int64_t end = smaller(from + listed, w.out);
    const Range whole = w.adaptive() ? Range{from, from} : w.whole();
    const int64_t begin = smaller(larger(whole.begin, from), end), stop = larger(smaller(whole.end, end), begin);
    first = from;
    for (int64_t o = from; o < begin; ++o) columns[o - from] = T(w.divisor(o, p.include_pad));
    fill_run(columns + (begin - from), T(w.kernel), stop - begin);
    for (int64_t o = stop; o < end; ++o) columns[o - from] = T(w.divisor(o, p.include_pad));
  }

  FASTPOOL_HD void give(Facts<V>& facts, V column) const {
    facts.divisor = column * V(rows);
    facts.inverse = inverse;
  }
};

// Out of line: parameters rarely lie apart.
template <class T>
__attribute__((noinline)) Lanes<T, kLanes<T>> parameters_apart(const T* parameter, int64_t step, int64_t count) {
  return load_apart<T, kLanes<T>>(parameter, step, count);
}
// The parameter of `count` neighbours from (n, c, bin) on: channels of one bin, or bins of one row.
template <class T>
FASTPOOL_HD Lanes<T, kLanes<T>> parameter_lanes(const Problem& p, int64_t n, int64_t c, int64_t bin, bool channels, int64_t count) {
  if (!p.parameter) return Lanes<T, kLanes<T>>(T(p.parameter_value));
  const T* parameter = static_cast<const T*>(p.parameter) + p.parameter_view.at(n, c, bin);
  const int64_t step = channels ? p.parameter_view.channel : p.parameter_view.position;
  if (step == 0) return Lanes<T, kLanes<T>>(*parameter);
  return step == 1 && count == kLanes<T> ? load<T, kLanes<T>>(parameter) : parameters_apart(parameter, step, count);
}

template <class Reducer, class S>
FASTPOOL_HD void store_results(const Problem& p, const Level& level, int64_t out, int64_t saved, const auto& state, const auto& store) {
  using T = Accumulated<S>;
  S* y = static_cast<S*>(p.y) + level.output_base + out;
  if constexpr (!Reducer::has_second) {
    store(y, false, state.y());
  } else if (p.mixes) {
    store(y, false, state.mixture());
  } else {
    store(y, false, state.y());
    store(static_cast<S*>(p.second) + level.second_base + out, false, state.second());
  }
  if constexpr (Reducer::saves_slope)
    if (p.slope) store(static_cast<T*>(p.slope) + saved, true, state.slope());
  if constexpr (Reducer::saves_taps) {
    if (p.tap_bytes == 1) store(static_cast<uint8_t*>(p.taps) + saved, true, state.tap());
    if (p.tap_bytes == 4) store(static_cast<int32_t*>(p.taps) + saved, true, state.tap());
  }
  if constexpr (Reducer::saves_moments)
    for (int which = 0; which < (p.moments ? 2 : 0); ++which)
      store(static_cast<T*>(p.moments) + which * p.moments_size + saved, true, state.moment(which));
}

// What is left of a state for a call out of line. A state that is passed to one lies in memory all along.
template <class Reducer, class V>
struct Results {
  static constexpr int one_more = Reducer::has_second || Reducer::saves_slope;  // the slope is that of a single result
  std::array<V, 1 + one_more + 2 * Reducer::saves_moments> values;
  std::array<Tap<V>, Reducer::saves_taps> taps;

  FASTPOOL_HD Results(const Problem& p, const auto& state) {
    values[0] = state.y();
    if constexpr (Reducer::has_second) values[1] = state.second();
    if constexpr (Reducer::has_second && Reducer::saves_slope)
      if (p.mixes) values[0] = state.mixture(), values[1] = state.slope();
    if constexpr (!Reducer::has_second && Reducer::saves_slope)
      if (p.slope) values[1] = state.slope();
    if constexpr (Reducer::saves_moments) values[1 + one_more] = state.moment(0), values[2 + one_more] = state.moment(1);
    if constexpr (Reducer::saves_taps) taps[0] = state.tap();
  }
  FASTPOOL_HD V y() const { return values[0]; }
  FASTPOOL_HD V second() const { return values[1]; }
  FASTPOOL_HD V mixture() const { return y(); }
  FASTPOOL_HD V slope() const { return second(); }
  FASTPOOL_HD V moment(int which) const { return values[1 + one_more + which]; }
  FASTPOOL_HD Tap<V> tap() const { return taps[0]; }
};
template <class Reducer, class S, class V>
__attribute__((noinline)) void store_some(const Problem& p, const Level& level, int64_t out, int64_t step, int64_t saved,
                                          int64_t saved_step, int64_t count, const Results<Reducer, V>& results) {
  store_results<Reducer, S>(p, level, out, saved, results,
                            [&](auto* to, bool is_saved, auto lanes) { store_part(to, is_saved ? saved_step : step, lanes, count); });
}

// Lanes whose results lie `step` apart in the output and `saved_step` in what is saved.
template <class Reducer, class S, class State>
FASTPOOL_HD void store_lanes(const Problem& p, const Level& level, int64_t out, int64_t step, int64_t saved, int64_t saved_step, int64_t count,
                        const State& state) {
  using V = decltype(state.y());
  if (step == 1 && saved_step == 1 && count == int64_t(sizeof(V) / sizeof(Scalar<V>)))
    store_results<Reducer, S>(p, level, out, saved, state, [](auto* to, bool, auto lanes) FASTPOOL_STEP { store(to, lanes); });
  else
    store_some<Reducer, S>(p, level, out, step, saved, saved_step, count, Results<Reducer, V>(p, state));
}

// Whether a state takes elements of some lanes only.
template <class State, class V>
constexpr bool kMasks = requires(State state, V x, Tap<V> tap, Mask<V> inside) { state.template add_inside<0>(x, tap, inside); };

// Adds an element for the lanes where `inside` or `always` holds.
template <class Reducer, int pass, class State, class V>
FASTPOOL_HD void add_masked(State& state, V x, Tap<V> tap, bool always, const auto& inside) {
  if constexpr (kMasks<State, V>) {
    if (always) return state.template add<pass>(x, tap);
    state.template add_inside<pass>(x, tap, inside());
  } else {
    if (!always) x = select(inside(), x, V(Reducer::template padding<Scalar<V>>()));
    state.template add<pass>(x, tap);
  }
}

// The lanes i < count where the fast arithmetic does not hold. Asked before results are stored, so that no state outlives
// a call: those that do lie in memory all along. Masks are written down only where there is something to mend.
template <class M>
struct OddLanes {
  bool some;
  Scalar<M> lanes[sizeof(M) / sizeof(Scalar<M>)];
};
template <class State>
FASTPOOL_HD auto odd_lanes(const State& state, int64_t count) {
  using M = decltype(state.ordinary());
  if constexpr (std::is_same_v<M, Always>) {
    return Always();
  } else {
    OddLanes<M> odd;
    const M all = !state.ordinary();
    odd.some = any(all);
    if (odd.some) store(odd.lanes, all & (M::iota() < M(Scalar<M>(count))));
    return odd;
  }
}
// Calls again(i) for them.
template <class Odd, class Again>
FASTPOOL_HD void repair(const Odd& odd, int64_t count, const Again& again) {
  if constexpr (!std::is_same_v<Odd, Always>) {
    if (!odd.some) return;
    for (int64_t i = 0; i < count; ++i)
      if (odd.lanes[i]) again(i);
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

// The same where columns are inside the input for some lanes only.
template <class V, class State, int taps, int width>
struct HeldInside {
  const Held<V, State, taps>& window;
  const Mask<V> (&inside)[width];

  template <int pass>
  FASTPOOL_HD void run() const {
    if constexpr (pass > 0) window.state.template begin<pass>(window.facts, window.p);
    FASTPOOL_UNROLL
    for (int k = 0; k < taps; ++k) window.state.template add_inside<pass>(window.x[k], Tap<V>(Scalar<Tap<V>>(k)), inside[k % width]);
  }
};

// Sums over windows of columns that neighbours share most of: every column is loaded once for all of them, each of which takes
// its columns in order. Milliseconds for averages of (8, 64, 112, 112) float32 on one thread of AVX-512, one by one and so:
// channels-last 5x5 11.4 and 7.3, 15x15 71 and 26.
template <class T>
class Neighbours {
 public:
  static constexpr int count = 4, L = kLanes<T>;
  using V = Lanes<T, L>;

  static bool share(const Axis& w) { return w.dense() && w.kernel >= count * w.stride; }
  // Windows `first` and those behind it.
  Neighbours(const Axis& w, int64_t first) : origin(w.origin(first)) {
    for (int part = 0; part <= kParts; ++part) {
      const int64_t end = part < count ? part * w.stride : w.kernel + (part - count) * w.stride;
      ends[part] = larger(smaller(end, w.in - origin), -origin);
    }
  }
  // Adds one row, whose column 0 is at `from`.
  template <class S>
  FASTPOOL_HD void add(V (&sums)[count], const S* from, int64_t step) const {
    unrolled<kParts>([&](auto part) FASTPOOL_STEP {
      constexpr int first = part < count ? 0 : part - count + 1, end = part < count ? part + 1 : count;
      for (int64_t k = ends[part]; k < ends[part + 1]; ++k) {
        const V x = load<T, L>(from + (origin + k) * step);
        unrolled<end - first>([&](auto i) FASTPOOL_STEP { sums[first + i] = sums[first + i] + x; });
      }
    });
  }

 private:
  // The first columns are the first window's alone, the next those of two, and so on.
  static constexpr int kParts = 2 * count - 1;
  int64_t origin, ends[kParts + 1];
};

// Rows of outputs that share most rows of the input: every row is loaded once for all of them, each of which takes its rows in
// order. Milliseconds as above of contiguous averages, one by one and so: 5x5 17.8 and 8.9, 15x15 125 and 38.
class Stack {
 public:
  static constexpr int count = 4;
  static int64_t most_rows(const Axis& h) { return h.kernel + (count - 1) * h.stride; }
  static bool pays(const Grid& grid) {
    const Axis &h = grid.axis[1], &w = grid.axis[2];
    return grid.slides() && h.dilation == 1 && w.dilation == 1 && h.kernel > h.stride && w.stride <= 2 && w.kernel > 1 + 2 * w.stride;
  }

  Span rows;  // of the input
  Stack(const Axis& h, int64_t first) : h(h), origin(h.origin(first)) {
    const int64_t begin = larger(origin, 0), end = smaller(h.origin(first + count - 1) + h.kernel, h.in);
    rows = {begin, end - begin, 1, 0, end - begin};
  }
  // Calls f(begin, end) with constants: of the rows of outputs, those that see one of `rows`.
  template <class F>
  FASTPOOL_HD void seeing(int64_t row, const F& f) const {
    const int64_t down = rows.start + row - origin;
    const int64_t begin = down < h.kernel ? 0 : h.over_stride(down - h.kernel) + 1, end = smaller(h.over_stride(down) + 1, count);
    unrolled<count>([&](auto first) FASTPOOL_STEP {
      unrolled<count - first>([&](auto more) FASTPOOL_STEP {
        if (begin == first && end == first + more + 1) f(first, std::integral_constant<int, first + more + 1>());
      });
    });
  }

 private:
  const Axis& h;
  int64_t origin;
};

template <int pass, int passes, class Step>
FASTPOOL_HD void for_each_pass(const Step& step) {
  if constexpr (pass < passes) {
    step.template run<pass>();
    for_each_pass<pass + 1, passes>(step);
  }
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
