// Max and average of every window from one read of the input, and their mixture (Lee, Gallagher and Tu 2016):
// y = alpha * max + (1 - alpha) * avg.
#pragma once

#include <type_traits>

#include "reducers/largest.h"

namespace fastpool {

struct MaxAverage : Reducer {
  static constexpr bool saves_taps = true, has_second = true, uses_divisor = true;
  static constexpr int parts = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  struct State : StateDefaults<V> {
    Largest<V> largest;
    V sum;  // in the end the average

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
      if constexpr (std::is_same_v<V, Scalar<V>>)
        largest.template add<pass>(x, tap);
      else
        largest.take(x > largest.best, x, tap);
    }
    FASTPOOL_HD V part(int which) const { return which ? sum : largest.best; }
    FASTPOOL_HD void hold(V x, V part_sum, Tap<V> tap) {
      largest.hold(x, x, tap);
      sum = part_sum;
    }
    FASTPOOL_HD void merge(V x, V part_sum, Tap<V> tap) {
      largest.take((x > largest.best) | ((x == largest.best) & (tap < largest.at)), x, tap);
      sum = sum + part_sum;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>& facts) {
      largest.template share<pass>(team, facts);
      sum = team.sum(sum);
    }
    // NaN spoils the sum, and so does an element of -inf, or padding that a schedule adds like one: such windows take
    // the exact path.
    FASTPOOL_HD Mask<V> ordinary() const {
      return sum > -infinity<V>();
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) { sum = mean(sum, facts); }
    FASTPOOL_HD V y() const { return largest.y(); }
    FASTPOOL_HD V second() const { return sum; }
    FASTPOOL_HD Tap<V> tap() const { return largest.tap(); }
  };
};

struct Mixed : MaxAverage {
  static constexpr bool second_is_difference = true, uses_alpha = true;

  template <class V>
  struct State : MaxAverage::State<V> {
    using Both = MaxAverage::State<V>;
    V mixture;

    FASTPOOL_HD void finish(const Facts<V>& facts) {
      Both::finish(facts);
      mixture = facts.alpha * Both::y() + (V(Scalar<V>(1)) - facts.alpha) * Both::second();
    }
    FASTPOOL_HD V y() const { return mixture; }
    FASTPOOL_HD V second() const { return Both::y() - Both::second(); }
  };
};

// Of both results, or of their mixture.
struct MaxAverageGradient : Gradient {
  static constexpr int slots = 2;
  static constexpr bool uses_taps = true, uses_second = true, uses_divisor = true, uses_alpha = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem& p) {
    const V share = mean(p.g_second ? out.g_second : (V(Scalar<V>(1)) - facts.alpha) * out.g, facts);
    return {(p.g_second ? out.g : facts.alpha * out.g) + share, share, share};
  }
  template <class V>
  static FASTPOOL_HD V term(V, Tap<V> here, const Slot<V>& slot, Tap<V> tap, const Problem&) {
    return select(tap == here, slot.a, slot.b);
  }
};

}  // namespace fastpool
