// Max and average of every window from one read of the input, and their mixture (Lee, Gallagher and Tu 2016):
// y = alpha * max + (1 - alpha) * avg.
#pragma once

#include "reducers/average.h"
#include "reducers/max.h"

namespace fastpool {

struct MaxAverage : Reducer {
  static constexpr bool saves_taps = true, has_second = true, uses_divisor = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return Max::padding<T>();
  }

  template <class T, int L>
  struct State : LaneDefaults<T> {
    Max::State<T, L> largest;
    Average::State<T, L> mean;

    FASTPOOL_HD void start(int i, Tap<T> first, const Problem& p) {
      largest.start(i, first, p);
      mean.start(i, first, p);
    }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T> tap) {
      largest.template add<pass>(i, x, tap);
      mean.template add<pass>(i, x, tap);
    }
    template <int pass>
    FASTPOOL_HD void fold(const Facts<T>& facts, const Problem& p) {
      largest.template fold<pass>(facts, p);
      mean.template fold<pass>(facts, p);
    }
    // Padding of -inf is invisible to the maximum but spoils the sum: such windows take the exact path.
    FASTPOOL_HD bool ordinary(int i) const {
      return mean.sum[i] > -Limits<T>::infinity();
    }
    FASTPOOL_HD void finish(int i, const Facts<T>& facts, const Problem& p) { mean.finish(i, facts, p); }
    FASTPOOL_HD T y(int i) const { return largest.y(i); }
    FASTPOOL_HD T second(int i) const { return mean.y(i); }
    FASTPOOL_HD Tap<T> tap(int i) const { return largest.tap(i); }
  };
};

struct Mixed : MaxAverage {
  static constexpr bool second_is_difference = true, uses_alpha = true;

  template <class T, int L>
  struct State : MaxAverage::State<T, L> {
    using Both = MaxAverage::State<T, L>;
    T mixture[L];

    FASTPOOL_HD void finish(int i, const Facts<T>& facts, const Problem& p) {
      Both::finish(i, facts, p);
      mixture[i] = facts.alpha * Both::y(i) + (T(1) - facts.alpha) * Both::second(i);
    }
    FASTPOOL_HD T y(int i) const { return mixture[i]; }
    FASTPOOL_HD T second(int i) const { return Both::y(i) - Both::second(i); }
  };
};

struct MaxAverageGradient : SelectGradient {
  static constexpr bool uses_second = true, uses_divisor = true;
  template <class T>
  static FASTPOOL_HD Slot<T> prepare(const OutputFacts<T>& out, const Facts<T>& facts, const Problem&) {
    const T share = out.g_second / facts.divisor;
    return {out.g + share, share, T(0)};
  }
  template <class T>
  static FASTPOOL_HD T term(T, Tap<T> here, T a, T b, T, Tap<T> tap, const Problem&) {
    return tap == here ? a : b;
  }
};

struct MixedGradient : MaxAverageGradient {
  static constexpr bool uses_second = false, uses_alpha = true;
  template <class T>
  static FASTPOOL_HD Slot<T> prepare(const OutputFacts<T>& out, const Facts<T>& facts, const Problem&) {
    const T share = (T(1) - facts.alpha) * out.g / facts.divisor;
    return {facts.alpha * out.g + share, share, T(0)};
  }
};

}  // namespace fastpool
