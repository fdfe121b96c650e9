// Max pooling: the largest element; the first of ties; NaN wins, the last of several.
#pragma once

#include "reducers/largest.h"

namespace fastpool {

struct Max : Reducer {
  static constexpr bool saves_taps = true, any_order = true;
  static constexpr int parts = 1;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  using State = Largest<V>;
};

// The same where nobody asks which element it was. A sum that is not NaN tells that no element was.
struct MaxValue : Max {
  static constexpr bool saves_taps = false;
  static constexpr int careful_passes = 1;
  template <class V>
  using Careful = Largest<V>;

  template <class V>
  struct State : StateDefaults<V> {
    LargestValue<V> largest;
    V sum;

    FASTPOOL_HD void start(Tap<V> first, const Problem& p) {
      largest.start(first, p);
      sum = V(Scalar<V>(0));
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V> tap) {
      largest.template add<pass>(x, tap);
      sum = sum + x;
    }
    FASTPOOL_HD V part(int) const { return select(ordinary(), largest.best, sum); }
    FASTPOOL_HD void hold(V x, V, Tap<V> tap) {
      largest.hold(x, x, tap);
      sum = x;
    }
    FASTPOOL_HD void merge(V x, V, Tap<V> tap) {
      sum = select(largest.is_disputed_by(x), nan<V>(), sum + x);
      largest.merge(x, x, tap);
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      sum = team.sum(select(largest.take_largest(team), nan<V>(), sum));
    }
    FASTPOOL_HD Mask<V> ordinary() const { return sum == sum; }
    FASTPOOL_HD void finish(const Facts<V>&) {}
    FASTPOOL_HD V y() const { return largest.best; }
  };
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
struct WithoutTap<Max> {
  using type = MaxValue;
};

struct MaxPool : Pooling {
  using Forward = Max;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Max)
FASTPOOL_BACKWARD(SelectGradient)
FASTPOOL_POOLING(max_pool, MaxPool)
