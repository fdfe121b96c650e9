// Average pooling: the sum of the window over its divisor.
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

struct Average : Reducer {
  static constexpr bool uses_divisor = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return T(0);
  }

  template <class T, int L>
  struct State : LaneDefaults<T> {
    T sum[L];

    FASTPOOL_HD void start(int i, Tap<T>, const Problem&) { sum[i] = T(0); }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T>) {
      sum[i] += x;
    }
    template <int pass>
    FASTPOOL_HD void fold(const Facts<T>&, const Problem&) {
      for (int half = L / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
    }
    FASTPOOL_HD void finish(int i, const Facts<T>& facts, const Problem&) { sum[i] /= facts.divisor; }
    FASTPOOL_HD T y(int i) const { return sum[i]; }
  };
};

struct AverageGradient : Gradient {
  static constexpr bool uses_divisor = true;
  template <class T>
  static FASTPOOL_HD Slot<T> prepare(const OutputFacts<T>& out, const Facts<T>& facts, const Problem&) {
    return {out.g / facts.divisor, T(0), T(0)};
  }
  template <class T>
  static FASTPOOL_HD T term(T, Tap<T>, T a, T, T, Tap<T>, const Problem&) {
    return a;
  }
};

}  // namespace fastpool
