// Mean and standard deviation of every window: sqrt(sum (x - mean)^2/(n - correction)), where the correction is the pooling's
// number. The second pass sums distances to the mean of the first and their squares; what the mean was off by leaves both.
// Saved for backward: the two.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

struct MeanStd : Reducer {
  static constexpr int passes = 2, careful_passes = 3;
  static constexpr bool has_second = true, uses_divisor = true, saves_moments = true;
  static constexpr int long_sums = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return nan<T>();  // the exact path follows
  }

  // The sums of the last pass, and what they come to.
  template <class V>
  struct Sums {
    using T = Scalar<V>;
    V mean, distances, squares;

    FASTPOOL_HD void start(V first_mean) {
      mean = first_mean;
      distances = squares = V(T(0));
    }
    FASTPOOL_HD void add(V distance) {
      distances = distances + distance;
      squares = squares + distance * distance;
    }
    // The mean, and the deviation in place of the distances.
    FASTPOOL_HD void finish(const Facts<V>& facts, T correction) {
      const V zero(T(0)), rest = fastpool::mean(distances, facts);
      const V n = facts.inverse ? V(T(1)) / facts.divisor : facts.divisor, free = n - V(correction);
      const V all = squares - rest * distances;  // below 0 by rounding alone
      mean = mean + rest;
      distances = select(free <= zero, zero, square_root(select(all < zero, zero, all) / free));
    }
  };

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    Extremes<V> extremes;
    Sums<V> sums;
    T correction;

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      extremes.start();
      sums.start(V(T(0)));
      correction = T(p.numbers[0]);
    }
    // Elements that are all equal have that mean: without the extremes it could be off by rounding.
    FASTPOOL_HD void turn(const Facts<V>& facts) {
      sums.start(larger_of(-extremes.negative, smaller_of(extremes.largest, mean(sums.mean, facts))));
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<V>& facts, const Problem&) {
      turn(facts);
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      if constexpr (pass == 0) {
        extremes.add(x);
        sums.mean = sums.mean + x;
      } else {
        sums.add(x - sums.mean);
      }
    }
    template <int pass>
    FASTPOOL_HD void add_inside(V x, Tap<V>, Mask<V> inside) {
      if constexpr (pass == 0) {
        extremes.add_inside(x, inside);
        sums.mean = sums.mean + select(inside, x, V(T(0)));
      } else {
        sums.add(select(inside, x - sums.mean, V(T(0))));
      }
    }
    template <int which>
    FASTPOOL_HD V& long_sum() {
      if constexpr (which)
        return sums.squares;
      else
        return sums.distances;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>& facts) {
      if constexpr (pass == 0) {
        extremes.share(team);
        sums.mean = team.sum(sums.mean);
        turn(facts);
      } else {
        sums.distances = team.sum(sums.distances);
        sums.squares = team.sum(sums.squares);
      }
    }
    // Squares that are tiny lose bits; none at all tell of equal elements only where the extremes are.
    FASTPOOL_HD Mask<V> ordinary() const {
      const V least(T(sizeof(T) == 4 ? 0x1p-90 : 0x1p-980));
      return (sums.squares < infinity<V>()) & ((sums.squares > least) | (extremes.largest == -extremes.negative));
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) { sums.finish(facts, correction); }
    FASTPOOL_HD V y() const { return sums.mean; }
    FASTPOOL_HD V second() const { return sums.distances; }
    FASTPOOL_HD V mixture() const { return y(); }  // never asked for, but compiled
    FASTPOOL_HD V moment(int which) const { return which ? second() : y(); }
  };

  // Scales by a power of two, so that the largest is near 1. Infinities and NaN remain what they are.
  template <class T>
  struct Careful : StateDefaults<T> {
    Extremes<T> extremes;
    Sums<T> sums;
    T correction, scale;

    FASTPOOL_HD void start(Tap<T>, const Problem& p) {
      extremes.start();
      sums.start(T(0));
      correction = T(p.numbers[0]);
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>& facts, const Problem&) {
      if constexpr (pass == 1) {
        const T size = larger_of(extremes.largest, extremes.negative);
        const auto inverse = bits_of(T(1)) + bits_of(T(1)) - (bits_of(size) & bits_of(Limits<T>::infinity()));
        scale = larger_of(Limits<T>::smallest(), size > T(0) && size <= Limits<T>::largest() ? from_bits(inverse) : T(1));
      } else {
        const T top = scale * extremes.largest, bottom = -(scale * extremes.negative);
        sums.start(larger_of(bottom, smaller_of(top, mean(sums.mean, facts))));
      }
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T>) {
      if constexpr (pass == 0)
        extremes.add(x);
      else if constexpr (pass == 1)
        sums.mean += x * scale;
      else
        sums.add(x * scale - sums.mean);
    }
    template <int which>
    FASTPOOL_HD T& long_sum() {
      if constexpr (which)
        return sums.squares;
      else
        return sums.distances;
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) {
      const T first_mean = sums.mean;
      sums.finish(facts, correction);
      if (first_mean - first_mean != T(0)) sums.mean = first_mean;
    }
    FASTPOOL_HD T y() const { return sums.mean / scale; }
    FASTPOOL_HD T second() const { return sums.distances / scale; }
    FASTPOOL_HD T mixture() const { return y(); }
    FASTPOOL_HD T moment(int which) const { return which ? second() : y(); }
  };
};

// g/n + g_second (x - mean)/((n - correction) std). Half the difference does not overflow.
struct MeanStdGradient : Gradient {
  static constexpr int slots = 3;
  static constexpr bool uses_input = true, uses_second = true, uses_divisor = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem& p) {
    using T = Scalar<V>;
    const V zero(T(0)), largest(Limits<T>::largest()), two(T(2)), std = out.moment[1];
    const V n = facts.inverse ? V(T(1)) / facts.divisor : facts.divisor, free = n - V(T(p.numbers[0]));
    const V steep = two * (out.g_second / free / std);
    Slot<V> slot;
    slot.a = mean(out.g, facts);
    slot.b = select((free <= zero) | (std == zero), zero, larger_of(-largest, smaller_of(largest, steep)));
    slot.c = V(T(0.5)) * out.moment[0];
    return slot;
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem&) {
    return slot.a + slot.b * (V(Scalar<V>(0.5)) * x - slot.c);
  }
};

struct MeanStdPool : Pooling {
  using Forward = MeanStd;
  using Gradient = MeanStdGradient;
  static constexpr size_t numbers = 1;  // the correction
};

}  // namespace fastpool

FASTPOOL_FORWARD(MeanStd)
FASTPOOL_BACKWARD(MeanStdGradient)
FASTPOOL_POOLING(mean_std_pool, MeanStdPool)
