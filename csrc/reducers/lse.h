// Log-sum-exp pooling (Pinheiro and Collobert 2015): y = log(mean of exp(r x))/r over the n elements. The largest w = exp(r x) is
// factored out: that of the largest element, or where r < 0 of the smallest. Where all w are near 1, as with small r, their
// distances to 1 are summed: the mean of w would lose what is divided by r.
// Saved for backward: the element that is factored out, and sum w, or NaN where y is infinite. (A y that only the storage type
// cannot hold has a gradient.)
#pragma once

#include "reducers/weights.h"

namespace fastpool {

// And if it is asked for the derivative by r: (sum w r (x - y))/(sum w)/r^2, a divergence of the weights w/sum w from 1/n.
struct Lse : Reducer {
  static constexpr int passes = 2, careful_passes = 2;
  static constexpr bool uses_parameter = true, uses_divisor = true, saves_moments = true, saves_slope = true;
  static constexpr int long_sums = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();  // the exact path follows
  }

  // 2 r log2(e), to be multiplied by half the difference, which does not overflow.
  template <class V>
  static FASTPOOL_HD V doubled(V sharpness) {
    const V half(Scalar<V>(0.5) * Limits<Scalar<V>>::largest()), sharp = larger_of(-half, smaller_of(half, sharpness));
    return sharp + sharp;
  }

  template <class V, bool is_careful, bool has_slope>
  struct States : StateDefaults<V> {
    using T = Scalar<V>;
    Extremes<V> extremes;
    V sharp, less, sum, curve;

    // What the second pass has in place of the extremes: half of what is factored out, and the sum of (w - less) log2(w).
    FASTPOOL_HD V& half_extreme() {
      return extremes.largest;
    }
    FASTPOOL_HD V& products() { return extremes.negative; }

    FASTPOOL_HD void start(Tap<V>, const Problem&) {
      extremes.start();
      sum = V(T(0));
    }
    FASTPOOL_HD void turn(V r) {
      const V half(T(0.5)), half_range = half * extremes.largest + half * extremes.negative;
      sharp = doubled(sharpness_of(r));
      // So small an r gives the average, within rounding: it need not be smaller.
      const V least = smaller_of(V(Limits<T>::largest()), V(T(sizeof(T) == 4 ? 0x1p-30 : 0x1p-60)) / half_range);
      const V above_0(T(sizeof(T) == 4 ? 0x1p-149 : 0x1p-1074));  // which the quotient may vanish to
      const V steep = larger_of(larger_of(above_0, least), larger_of(sharp, -sharp));
      half_extreme() = half * extremes.of(sharp);
      less = select(half_range * steep <= half, V(T(1)), V(T(0)));
      sharp = select(sharp < V(T(0)), -steep, steep);
      // Beside padding, or -inf, it is not known whether all w are near 1.
      if constexpr (!is_careful) sharp = select(half_range == infinity<V>(), nan<V>(), sharp);
      products() = curve = V(T(0));
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<V>& facts, const Problem&) {
      turn(facts.parameter);
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      if constexpr (pass == 0)
        extremes.add(x);
      else
        add_power(x, [](V term) __attribute__((always_inline)) { return term; });
    }
    template <int pass>
    FASTPOOL_HD void add_inside(V x, Tap<V>, Mask<V> inside) {
      if constexpr (pass == 0)
        extremes.add_inside(x, inside);
      else
        add_power(x, [=](V term) __attribute__((always_inline)) { return select(inside, term, V(T(0))); });
    }
    FASTPOOL_HD void add_power(V x, const auto& masked) {
      const V exponent = larger_of(V(T(-4096)), (V(T(0.5)) * x - half_extreme()) * sharp);  // of -inf too is of no weight
      const SplitPower<V> w = split_power_of_two(exponent);
      const V excess = masked(w.power * w.rise + (w.power - less));
      sum = sum + excess;
      if constexpr (has_slope) products() = products() + masked(excess * exponent);
      if constexpr (has_slope) curve = curve + masked(w.curve);
    }
    template <int which>
    FASTPOOL_HD V& long_sum() {
      if constexpr (which)
        return products();
      else
        return sum;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>& facts) {
      if constexpr (pass == 0) {
        extremes.share(team);
        turn(facts.parameter);
      } else {
        sum = team.sum(sum);
        if constexpr (has_slope) products() = team.sum(products());
        if constexpr (has_slope) curve = team.sum(curve);
      }
    }
    FASTPOOL_HD Mask<V> ordinary() const { return sum < infinity<V>(); }
    FASTPOOL_HD void finish(const Facts<V>& facts) {
      const V one(T(1)), two(T(2)), average = mean(sum, facts);
      const Mask<V> near = less > V(T(0));
      const V log = select(near, log2_of_one_and(average), log2_of(select(near, one, average)).all());
      const V y = two * (extremes.largest + log / sharp);
      if constexpr (has_slope) find_slope(facts, average, log, near);
      sum = select(near, facts_count(facts) + sum, sum);
      less = y;
    }
    FASTPOOL_HD void find_slope(const Facts<V>& facts, V average, V log, Mask<V> near) {
      const V one(T(1)), two(T(2));
      // Near 1, with u the mean of w - 1, is (1 + u) log(1 + u) - u = s (2 s + (1 + s) (log(1 + u) - 2 s)/s)/(1 - s), and cancels
      // in none of its terms.
      const V s = average / (two + average), square = s * s, log_2(T(0.69314718055994531));
      const V bent = (two * square + (one + s) * (s * square) * curve_of_log2(square) * log_2) / (one - s);
      const V product = mean(products(), facts) * V(kRiseOfPower<T>);
      const V divergence = select(near, (product - mean(curve, facts) - bent) / (one + average), product / average - log * log_2);
      const V r = sharp * V(T(0.5)) * log_2;
      curve = divergence / r / r;
    }
    static FASTPOOL_HD V facts_count(const Facts<V>& facts) { return facts.inverse ? V(T(1)) / facts.divisor : facts.divisor; }
    FASTPOOL_HD V y() const { return less; }
    FASTPOOL_HD V slope() const { return curve; }
    FASTPOOL_HD V moment(int which) const { return which ? sum : V(T(2)) * extremes.largest; }
  };
  template <class V>
  using State = States<V, false, true>;

  // Knows NaN and the infinities.
  template <class T>
  struct Careful : States<T, true, true> {
    using Base = States<T, true, true>;
    T largest = -Limits<T>::infinity(), extreme;

    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T> tap) {
      if (pass == 0) largest = max_with_nan(largest, x);
      Base::template add<pass>(x, tap);
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>& facts, const Problem& p) {
      const T top = this->extremes.largest, bottom = -this->extremes.negative, infinite = Limits<T>::infinity();
      extreme = facts.parameter < T(0) ? bottom : facts.parameter == T(0) && bottom == -infinite ? top + bottom : top;
      Base::template begin<pass>(facts, p);
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) {
      Base::finish(facts);
      if (largest != largest || facts.parameter != facts.parameter) {
        this->less = largest + facts.parameter;
      } else if (!(extreme - extreme == T(0))) {
        this->less = extreme;
        this->sum = this->curve = nan<T>();
      }
    }
  };
};

// The same where nobody asks for the slope.
struct LseValue : Lse {
  static constexpr bool saves_slope = false;
  static constexpr int long_sums = 1;
  template <class V>
  using State = States<V, false, false>;
};

// g w / sum w.
struct LseGradient : Gradient {
  static constexpr int slots = 3;
  static constexpr bool uses_input = true, uses_parameter = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem&) {
    return {out.g / out.moment[1], V(Scalar<V>(0.5)) * out.moment[0], Lse::doubled(sharpness_of(facts.parameter))};
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem&) {
    return slot.a * power_of_two((V(Scalar<V>(0.5)) * x - slot.b) * slot.c);
  }
};

template <>
struct ExactBy<LseValue> {
  using type = Lse;
};
template <>
struct Plain<Lse> {
  using type = LseValue;
};

struct LsePool : Pooling {
  using Forward = Lse;
  using Gradient = LseGradient;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Lse)
FASTPOOL_BACKWARD(LseGradient)
FASTPOOL_POOLING(lse_pool, LsePool)
