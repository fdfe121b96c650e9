// Min pooling: the smallest element; the first of ties; NaN wins, the last of several. Its negative is the largest of the negatives.
#pragma once

#include "reducers/largest.h"

namespace fastpool {

template <class State>
struct Negated : State {
  template <int pass, class V>
  FASTPOOL_HD void add(V x, Tap<V> tap) {
    State::template add<pass>(-x, tap);
  }
  FASTPOOL_HD auto y() const { return -State::y(); }
};

struct Min : Reducer {
  static constexpr bool saves_taps = true, any_order = true, separable = true;
  static constexpr int parts = 1;
  template <class V>
  static FASTPOOL_HD V ascending(V x) {
    return -x;
  }
  template <class T>
  static FASTPOOL_HD T padding() {
    return Limits<T>::infinity();
  }

  template <class V>
  using State = Negated<Largest<V>>;
};

// The same where nobody asks which element it was.
struct MinValue : Min {
  static constexpr bool saves_taps = false;
  static constexpr int careful_passes = 1;
  template <class V>
  using Careful = Negated<Largest<V>>;
  template <class V>
  using State = Negated<LargestNumber<V>>;
};

template <>
struct ExactBy<MinValue> {
  using type = Min;
};
template <>
struct Plain<Min> {
  using type = MinValue;
};

struct MinPool : Pooling {
  using Forward = Min;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Min)
FASTPOOL_POOLING(min_pool, MinPool)
