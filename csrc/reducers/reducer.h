// What every pooling provides. A reducer names what it uses and saves, and has a State of L independent lanes:
//
//   start(lane, first_tap, p)        before the first element
//   begin<pass>(lane, facts, p)      before each further pass over the window
//   add<pass>(lane, x, tap)          one element; taps arrive in increasing order
//   fold<pass>(facts, p)             only where lanes share one window: lane = tap mod L; combine what pass gathered
//   ordinary(lane)                   whether the fast arithmetic holds; otherwise Careful recomputes the output
//   finish(lane, facts, p)           then y(lane), second(lane), tap(lane), moment(lane, 0 or 1)
//
// `padding()` is the value that stands outside the input and changes no result.
#pragma once

#include "core/exp.h"
#include "core/problem.h"

namespace fastpool {

struct Reducer {
  static constexpr int passes = 1, careful_passes = 0;  // 0: State is exact by itself, one window at a time
  static constexpr bool saves_taps = false, saves_moments = false;
  static constexpr bool has_second = false, second_is_difference = false;
  static constexpr bool uses_divisor = false, uses_alpha = false, uses_uniform = false;
};

// The reducer that windows of more than 256 taps take: itself, unless it says otherwise.
template <class R>
struct LargeWindows {
  using type = R;
};

// State members that most reducers leave as they are.
template <class T>
struct LaneDefaults {
  template <int pass>
  FASTPOOL_HD void begin(int, const Facts<T>&, const Problem&) {}
  template <int pass>
  FASTPOOL_HD void fold(const Facts<T>&, const Problem&) {}
  FASTPOOL_HD bool ordinary(int) const { return true; }
  FASTPOOL_HD T second(int) const { return T(0); }
  FASTPOOL_HD Tap<T> tap(int) const { return 0; }
  FASTPOOL_HD T moment(int, int) const { return T(0); }
};

// The gradient side: one term for every pair of an input element and an output that sees it.
// `prepare` turns what is known of an output into a Slot once; `term` is evaluated for each element.
struct Gradient {
  static constexpr bool uses_taps = false, uses_second = false, uses_input = false;
  static constexpr bool uses_divisor = false, uses_alpha = false, uses_uniform = false;
};

template <class T>
struct Slot {
  T a, b, c;
};

template <class T>
struct OutputFacts {
  T g, g_second, y, moment[2];
};

}  // namespace fastpool
