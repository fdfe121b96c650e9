// Max pooling: the largest element; the first of ties; NaN wins, the last of several.
#pragma once

#include "reducers/largest.h"

namespace fastpool {

struct Max : Reducer {
  static constexpr bool saves_taps = true, any_order = true, separable = true;
  static constexpr int parts = 1;
  template <class V>
  static FASTPOOL_HD V ascending(V x) {
    return x;
  }
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  using State = Largest<V>;
};

// The same where nobody asks which element it was.
struct MaxValue : Max {
  static constexpr bool saves_taps = false;
  static constexpr int careful_passes = 1;
  template <class V>
  using Careful = Largest<V>;

  template <class V>
  using State = LargestNumber<V>;
};

// The gradient of every selection: g to the element that was selected.
struct SelectGradient : Gradient {
  static constexpr bool uses_taps = true, selects = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>&, const Problem&) {
    Slot<V> slot;
    slot.a = out.g;
    return slot;
  }
  template <class V>
  static FASTPOOL_HD V term(V, Tap<V> here, const Slot<V>& slot, Tap<V> tap, const Problem&) {
    return select(tap == here, slot.a, V(Scalar<V>(0)));
  }
};

template <>
struct ExactBy<MaxValue> {
  using type = Max;
};
template <>
struct Plain<Max> {
  using type = MaxValue;
};

struct MaxPool : Pooling {
  using Forward = Max;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Max)
FASTPOOL_BACKWARD(SelectGradient)
FASTPOOL_POOLING(max_pool, MaxPool)
