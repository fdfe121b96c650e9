// Average pooling: the sum of the window over its divisor.
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

struct Average : Reducer {
  static constexpr bool uses_divisor = true, is_sum = true, separable = true;
  static constexpr int parts = 1, long_sums = 1;
  template <class T>
  static FASTPOOL_HD T padding() {
    return T(0);
  }
  template <class T>
  static FASTPOOL_HD T ascending(T x) {
    return x;
  }

  template <class V>
  struct State : StateDefaults<V> {
    V sum;

    FASTPOOL_HD void start(Tap<V>, const Problem&) { sum = V(Scalar<V>(0)); }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      sum = sum + x;
    }
    FASTPOOL_HD V part(int) const { return sum; }
    template <int>
    FASTPOOL_HD V& long_sum() {
      return sum;
    }
    FASTPOOL_HD void merge(V x, V, Tap<V> tap) { add<0>(x, tap); }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      sum = team.sum(sum);
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) { sum = mean(sum, facts); }
    FASTPOOL_HD V y() const { return sum; }
  };
};

struct AverageGradient : Gradient {
  static constexpr bool uses_divisor = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem&) {
    Slot<V> slot;
    slot.a = mean(out.g, facts);
    return slot;
  }
  template <class V>
  static FASTPOOL_HD V term(V, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem&) {
    return share(slot);
  }
  template <class V>
  static FASTPOOL_HD V share(const Slot<V>& slot) {
    return slot.a;
  }
};

struct AvgPool : Pooling {
  using Forward = Average;
  using Gradient = AverageGradient;
  static constexpr size_t integers = 2;
  static void set(Problem& p, const int64_t* integers) {
    p.include_pad = integers[0] != 0;
    p.divisor_override = integers[1];
  }
};

}  // namespace fastpool

FASTPOOL_FORWARD(Average)
FASTPOOL_BACKWARD(AverageGradient)
FASTPOOL_POOLING(avg_pool, AvgPool)
