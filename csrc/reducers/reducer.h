// What every pooling provides. A reducer names what it uses and saves, and has a State<V>, where V is one value or a
// vector of lanes with a window each:
//
//   start(first_tap, p)            before the first element
//   begin<pass>(facts, p)          before each further pass over the window
//   add<pass>(x, tap)              one element; taps arrive in increasing order
//   add_inside<pass>(x, tap, mask) the same for some lanes; only needed where no padding is neutral
//   part(0 or 1) with tap(), where `parts`: what a part of the window comes to; hold(a, b, tap) begins with one, after
//                                  start, and merge(a, b, tap) adds another; parts come in any order
//   share<pass>(team, facts)       after each pass, instead of begin, where lanes share one window, lane = tap mod 32
//   long_sum<i>()                  a reference to one of `long_sums` that grow with the window in the last pass: schedules add up
//                                  long ones in blocks (core/sums.h)
//   ordinary()                     where the fast arithmetic holds; elsewhere Careful recomputes the output
//   finish(facts)                  then y(), second(), or with p.mixes mixture(), slope(); tap(), moment(0 or 1)
//
// `padding()` is the value that stands outside the input and changes no result that is `ordinary`.
//
// A team is what lanes that share a window ask of each other: sum(x), max(x) (NaN wins), first(tap), last(tap),
// from(mask, x) (x of a lane where mask holds), lane() and spread(x)[r] (x of lane r).
#pragma once

#include <concepts>

#include "core/exp.h"
#include "core/problem.h"
#include "core/sums.h"

namespace fastpool {

struct Reducer {
  static constexpr int passes = 1, careful_passes = 0;  // 0: State is exact by itself, one window at a time
  static constexpr bool saves_taps = false, saves_moments = false;
  static constexpr bool saves_slope = false;  // the derivative of the result by the parameter
  static constexpr bool has_second = false;
  static constexpr bool uses_divisor = false, uses_parameter = false, uses_uniform = false;
  static constexpr int long_sums = 0;       // sums that grow with the window
  static constexpr bool is_sum = false;     // the sum of the window over its divisor, and nothing else
  static constexpr int parts = 0;           // values besides the tap that a part of the window comes to; 0: it cannot be reduced first
  static constexpr bool any_order = false;  // with the same bits, whatever the order
  // Along one axis after another: selects the largest `ascending(x)`, the first of ties or the last NaN; or it is a sum of them.
  static constexpr bool separable = false;
};

// The reducer that windows of more than 256 taps take: itself, unless it says otherwise.
template <class R>
struct LargeWindows {
  using type = R;
};

// Likewise those that lanes share.
template <class R>
struct SharedWindows {
  using type = R;
};

// Likewise by which the exact path computes what R does, and what a CPU computes where no tap and no slope is saved.
template <class R>
struct ExactBy {
  using type = R;
};
template <class R>
struct Plain {
  using type = R;
};

template <class V>
FASTPOOL_HD V mean(V sum, const Facts<V>& facts) {
  return facts.inverse ? sum * facts.divisor : sum / facts.divisor;
}

// Whether the sums of a reducer grow in a pass.
template <class R, int pass>
constexpr bool kSumsIn = R::long_sums > 0 && pass + 1 == R::passes;

// What ordinary() returns where the fast arithmetic holds for all values.
struct Always {
  FASTPOOL_HD constexpr operator bool() const { return true; }
};

// State members that most reducers leave as they are.
template <class V>
struct StateDefaults {
  template <int pass>
  FASTPOOL_HD void begin(const Facts<V>&, const Problem&) {}
  FASTPOOL_HD Always ordinary() const { return {}; }
  FASTPOOL_HD Tap<V> tap() const { return Tap<V>(0); }
  FASTPOOL_HD V moment(int) const { return V(Scalar<V>(0)); }
};

// The gradient side: one term for every pair of an input element and an output that sees it.
// `prepare` turns what is known of an output into a Slot once; `term` is evaluated for each element. Where those of a window
// get the same but for the one at its tap, `share` is what they get.
//
// Where less is to be computed than kept and read, of small windows, `again` is the term of an element of weight `weight(x)`
// in a State of `Forward` that has just pooled the window.
struct Gradient {
  static constexpr int slots = 1;         // members of Slot that are used
  static constexpr bool selects = false;  // an output's gradient goes to the element at its tap, and to no other
  static constexpr bool uses_taps = false, uses_second = false, uses_input = false;
  static constexpr bool uses_divisor = false, uses_parameter = false, uses_uniform = false;
};

// Members beyond Gradient::slots are left undefined: to fill them would keep the others out of registers.
template <class V>
struct Slot {
  V a, b, c;
};

template <class V>
struct OutputFacts {
  V g, g_second, y, moment[2];
};

template <class G>
constexpr bool kPoolsAgain = requires { typename G::Forward; };

// Whether the elements of a window get the same, but for one that was selected.
template <class G>
constexpr bool kShares = requires(Slot<float> slot) { G::share(slot); };

// The contract once more, for the compiler: of one value, whose lanes are like it. What a reducer says that it uses or saves,
// it must provide.
template <class T>
struct AnyTeam {
  T sum(T) const;
  T max(T) const;
  Tap<T> first(Tap<T>) const;
  Tap<T> last(Tap<T>) const;
  T from(bool, T) const;
  Tap<T> lane() const;
  const T* spread(T) const;
};

template <class R, class T, class State>
concept HasState =
    requires(State state, const Problem& p, const Facts<T>& facts, const AnyTeam<T>& team, T x, Tap<T> tap) {
      state.start(tap, p);
      state.template begin<R::passes - 1>(facts, p);
      state.template add<0>(x, tap);
      bool(state.ordinary());
      state.finish(facts);
      { state.y() } -> std::convertible_to<T>;
      { state.tap() } -> std::convertible_to<Tap<T>>;
      { state.moment(0) } -> std::convertible_to<T>;
    } && (!R::has_second || requires(State state) {
      { state.second() } -> std::convertible_to<T>;
    }) && (!R::saves_slope || requires(State state) {
      { state.slope() } -> std::convertible_to<T>;
    }) && (R::long_sums < 1 || requires(State state) { state.template long_sum<0>(); }) && (R::long_sums < 2 || requires(State state) {
      state.template long_sum<1>();
    }) && (R::parts == 0 || requires(State state, T x, Tap<T> tap) {
      state.part(0);
      state.merge(x, x, tap);
    });

template <class R>
concept IsReducer =
    requires {
      { R::template padding<float>() } -> std::convertible_to<float>;
    } && HasState<R, float, typename R::template State<float>> && HasState<R, double, typename R::template State<double>> &&
    requires(typename SharedWindows<R>::type::template State<float> state, const AnyTeam<float>& team, const Facts<float>& facts) {
      state.template share<0>(team, facts);
    } && (R::careful_passes == 0 || requires(typename R::template Careful<float> state, const Facts<float>& facts) {
      state.template add<0>(0.0f, Tap<float>(0));
      state.finish(facts);
      state.y();
    });

template <class G>
concept IsGradient = requires(const OutputFacts<float>& output, const Facts<float>& facts, const Problem& p, const Slot<float>& slot) {
  { G::prepare(output, facts, p) } -> std::same_as<Slot<float>>;
  { G::term(0.0f, Tap<float>(0), slot, Tap<float>(0), p) } -> std::same_as<float>;
} && (!G::selects || G::uses_taps) && G::slots >= 1 && G::slots <= 3;

// An operator: which reducer and gradient it runs, and what it takes besides windows. Its name stands at the end of the
// reducer's file, where every backend and csrc/ops/operators.h find it:
//
//   FASTPOOL_FORWARD(reducer)  FASTPOOL_BACKWARD(gradient)  FASTPOOL_POOLING(name, pooling)
struct Pooling {
  using Gradient = void;                              // none of its own: selections have `select_backward`
  static constexpr bool mixes = false;                // two results into one, by the parameter
  static constexpr size_t numbers = 0, integers = 0;  // its own
  static void set(Problem&, const int64_t*) {}        // gives the problem the integers, and what the pooling is told by
};

}  // namespace fastpool

#if !defined(FASTPOOL_FORWARD)
#define FASTPOOL_FORWARD(...)
#define FASTPOOL_BACKWARD(...)
#define FASTPOOL_POOLING(...)
#endif
