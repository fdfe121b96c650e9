// Max and average of every window from one read of the input: both, or with p.mixes their mixture (Lee, Gallagher and
// Tu 2016), alpha * max + (1 - alpha) * avg, and their difference, which the gradient of alpha needs.
#pragma once

#include <type_traits>

#include "reducers/largest.h"

namespace fastpool {

struct MaxAverage : Reducer {
  static constexpr bool saves_taps = true, saves_slope = true, has_second = true, uses_divisor = true, uses_parameter = true;
  static constexpr int parts = 2, long_sums = 1;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V, bool keeps_tap>
  struct States : StateDefaults<V> {
    std::conditional_t<keeps_tap, Largest<V>, LargestValue<V>> largest;
    V sum;  // in the end the average
    V alpha;

    FASTPOOL_HD void start(Tap<V> first, const Problem& p) {
      largest.start(first, p);
      sum = V(Scalar<V>(0));
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V> tap) {
      add_to_largest<pass>(x, tap);
      sum = sum + x;
    }
    template <int pass>
    FASTPOOL_HD void add_inside(V x, Tap<V> tap, Mask<V> inside) {
      add_to_largest<pass>(select(inside, x, -infinity<V>()), tap);
      sum = sum + select(inside, x, V(Scalar<V>(0)));
    }
    // Lanes leave NaN to the exact path, to which the sum sends them.
    template <int pass>
    FASTPOOL_HD void add_to_largest(V x, Tap<V> tap) {
      if constexpr (keeps_tap && !std::is_same_v<V, Scalar<V>>)
        largest.take(x > largest.best, x, tap);
      else
        largest.template add<pass>(x, tap);
    }
    FASTPOOL_HD V part(int which) const { return which ? sum : largest.best; }
    template <int>
    FASTPOOL_HD V& long_sum() {
      return sum;
    }
    FASTPOOL_HD void hold(V x, V part_sum, Tap<V> tap) {
      largest.hold(x, x, tap);
      sum = part_sum;
    }
    FASTPOOL_HD void merge(V x, V part_sum, Tap<V> tap) {
      sum = select(largest.is_disputed_by(x), nan<V>(), sum + part_sum);
      largest.merge(x, x, tap);
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      sum = team.sum(select(largest.take_largest(team), nan<V>(), sum));
    }
    // NaN spoils the sum, as a disputed zero does, and so does an element of -inf, or padding that a schedule adds like
    // one: such windows take the exact path.
    FASTPOOL_HD Mask<V> ordinary() const {
      return sum > -infinity<V>();
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) {
      sum = mean(sum, facts);
      alpha = facts.parameter;
    }
    FASTPOOL_HD V y() const { return largest.best; }
    FASTPOOL_HD V second() const { return sum; }
    FASTPOOL_HD V mixture() const { return alpha * largest.best + (V(Scalar<V>(1)) - alpha) * sum; }
    FASTPOOL_HD V slope() const { return largest.best - sum; }
    FASTPOOL_HD Tap<V> tap() const { return largest.tap(); }
  };

  template <class V>
  using State = States<V, true>;
};

// The same where nobody asks which element was the largest.
struct MaxAverageValue : MaxAverage {
  static constexpr bool saves_taps = false;
  static constexpr int careful_passes = 1;
  template <class V>
  using State = States<V, false>;
  template <class V>
  using Careful = States<V, true>;
};

// Of both results, or of their mixture.
struct MaxAverageGradient : Gradient {
  static constexpr int slots = 2;
  static constexpr bool uses_taps = true, uses_second = true, uses_divisor = true, uses_parameter = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem& p) {
    const V share = mean(p.mixes ? (V(Scalar<V>(1)) - facts.parameter) * out.g : out.g_second, facts);
    Slot<V> slot;
    slot.a = (p.mixes ? facts.parameter * out.g : out.g) + share;
    slot.b = share;
    return slot;
  }
  template <class V>
  static FASTPOOL_HD V term(V, Tap<V> here, const Slot<V>& slot, Tap<V> tap, const Problem&) {
    return select(tap == here, slot.a, share(slot));
  }
  template <class V>
  static FASTPOOL_HD V share(const Slot<V>& slot) {
    return slot.b;
  }
};

template <>
struct ExactBy<MaxAverageValue> {
  using type = MaxAverage;
};
template <>
struct Plain<MaxAverage> {
  using type = MaxAverageValue;
};

struct MaxAvgPool : Pooling {
  using Forward = MaxAverage;
  using Gradient = MaxAverageGradient;
};
struct MixedPool : MaxAvgPool {
  static constexpr bool mixes = true;
};

}  // namespace fastpool

FASTPOOL_FORWARD(MaxAverage)
FASTPOOL_BACKWARD(MaxAverageGradient)
FASTPOOL_POOLING(max_avg_pool, MaxAvgPool)
FASTPOOL_POOLING(mixed_pool, MixedPool)
