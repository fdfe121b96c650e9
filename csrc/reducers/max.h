// Max pooling: the largest element; the first of ties; NaN wins, the last of several.
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

struct Max : Reducer {
  static constexpr bool saves_taps = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class T, int L>
  struct State : LaneDefaults<T> {
    T best[L];
    Tap<T> at[L];

    FASTPOOL_HD void start(int i, Tap<T> first, const Problem&) {
      best[i] = -Limits<T>::infinity();
      at[i] = first;
    }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T> tap) {
      const bool take = (x > best[i]) | (x != x);
      best[i] = take ? x : best[i];
      at[i] = take ? tap : at[i];
    }
    FASTPOOL_HD void merge(int i, int j) {
      const bool nan_i = best[i] != best[i], nan_j = best[j] != best[j];
      const bool later = at[j] > at[i];
      const bool wins = (best[j] > best[i]) | ((best[j] == best[i]) & (at[j] < at[i]));
      const bool take = nan_j ? (!nan_i) | later : (!nan_i) & wins;
      best[i] = take ? best[j] : best[i];
      at[i] = take ? at[j] : at[i];
    }
    template <int pass>
    FASTPOOL_HD void fold(const Facts<T>&, const Problem&) {
      for (int half = L / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) merge(i, i + half);
    }
    // With nothing above -inf the answer is the window's first element, which only the exact path knows.
    FASTPOOL_HD bool ordinary(int i) const {
      return !(best[i] == -Limits<T>::infinity());
    }
    FASTPOOL_HD void finish(int, const Facts<T>&, const Problem&) {}
    FASTPOOL_HD T y(int i) const { return best[i]; }
    FASTPOOL_HD Tap<T> tap(int i) const { return at[i]; }
  };
};

// The gradient of every selection: g to the element that was selected.
struct SelectGradient : Gradient {
  static constexpr bool uses_taps = true;
  template <class T>
  static FASTPOOL_HD Slot<T> prepare(const OutputFacts<T>& out, const Facts<T>&, const Problem&) {
    return {out.g, T(0), T(0)};
  }
  template <class T>
  static FASTPOOL_HD T term(T, Tap<T> here, T a, T, T, Tap<T> tap, const Problem&) {
    return tap == here ? a : T(0);
  }
};

}  // namespace fastpool
