// Generalised mean (Radenović, Tolias and Chum 2018): y = (mean of max(x, eps)^p)^(1/p); p = 0 gives 1. The largest of the powers is
// factored out: that of the largest element, or where p < 0 of the smallest.
// Saved for backward: y.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

// The pooling's number: a normal one, as those are that have a logarithm here.
template <class T>
FASTPOOL_HD T gem_eps(const Problem& p) {
  return finite<T>(p.numbers[0]);
}

// And if it is asked for the derivative by p: y (sum w log(w)/sum w - log(mean of w))/p^2, where w are the powers over the largest.
struct Gem : Reducer {
  static constexpr int passes = 2, careful_passes = 2;
  static constexpr bool uses_parameter = true, uses_divisor = true, saves_moments = true, saves_slope = true;
  static constexpr int long_sums = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return nan<T>();  // the exact path follows
  }

  template <class V, bool has_slope>
  struct States : StateDefaults<V> {
    using T = Scalar<V>;
    Extremes<V> extremes;  // of what is at least eps
    V rest, power, sum, products;
    T eps;

    // What the second pass has in place of the extremes: what is factored out, and the logarithm of that, with `rest`.
    FASTPOOL_HD V& factor() {
      return extremes.largest;
    }
    FASTPOOL_HD V& whole() { return extremes.negative; }

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      extremes.start();
      eps = gem_eps<T>(p);
      sum = V(T(0));
      products = V(T(0));
    }
    FASTPOOL_HD void turn(V p) {
      power = p;
      factor() = extremes.of(p);
      const Log2<V> log = log2_of(factor());
      whole() = log.whole;
      rest = log.rest;
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<V>& facts, const Problem&) {
      turn(facts.parameter);
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      if constexpr (pass == 0)
        extremes.add(larger_of(V(eps), x));
      else
        add_power(x, [](V term) __attribute__((always_inline)) { return term; });
    }
    template <int pass>
    FASTPOOL_HD void add_inside(V x, Tap<V>, Mask<V> inside) {
      if constexpr (pass == 0)
        extremes.add_inside(larger_of(V(eps), x), inside);
      else
        add_power(x, [=](V term) __attribute__((always_inline)) { return select(inside, term, V(T(0))); });
    }
    FASTPOOL_HD void add_power(V x, const auto& masked) {
      const Log2<V> log = log2_of(larger_of(V(eps), x));
      const V exponent = ((log.whole - whole()) + (log.rest - rest)) * power, w = power_of_two(exponent);
      sum = sum + masked(w);
      if constexpr (has_slope) products = products + masked(w * exponent);
    }
    template <int which>
    FASTPOOL_HD V& long_sum() {
      if constexpr (which)
        return products;
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
        if constexpr (has_slope) products = team.sum(products);
      }
    }
    FASTPOOL_HD Mask<V> ordinary() const { return sum < infinity<V>(); }
    FASTPOOL_HD void finish(const Facts<V>& facts) {
      const V log = log2_of(mean(sum, facts)).all();
      factor() = select(power == V(T(0)), V(T(1)), times_power_of_two(factor(), log / power));
      if constexpr (has_slope) products = factor() * V(T(0.69314718055994531)) * ((products / sum - log) / power / power);
    }
    FASTPOOL_HD V y() const { return extremes.largest; }
    FASTPOOL_HD V slope() const { return products; }
    FASTPOOL_HD V moment(int) const { return y(); }
  };
  template <class V>
  using State = States<V, true>;

  // Knows NaN and infinity.
  template <class T>
  struct Careful : State<T> {
    using Base = State<T>;
    T largest = T(0), infinite;

    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>& facts, const Problem& p) {
      infinite = facts.parameter < T(0) ? -this->extremes.negative : this->extremes.largest;
      Base::template begin<pass>(facts, p);
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T> tap) {
      if (pass == 0) largest = max_with_nan(largest, x);
      if (pass == 0 || x != Limits<T>::infinity()) Base::template add<pass>(x, tap);  // its power is 0, or decides
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) {
      Base::finish(facts);
      if (largest != largest || this->power != this->power)
        this->factor() = largest + this->power;
      else if (infinite == Limits<T>::infinity() && this->power != T(0))
        this->factor() = infinite;
    }
  };
};

// The same where nobody asks for the slope.
struct GemValue : Gem {
  static constexpr bool saves_slope = false;
  static constexpr int long_sums = 1;
  template <class V>
  using State = States<V, false>;
};

// g (x/y)^(p - 1)/n.
struct GemGradient : Gradient {
  static constexpr int slots = 3;
  static constexpr bool uses_input = true, uses_parameter = true, uses_divisor = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem&) {
    const V y = out.moment[0];
    return {mean(out.g, facts) + (y - y), y, facts.parameter - V(Scalar<V>(1))};  // NaN beside infinity
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem& p) {
    using T = Scalar<V>;
    const V ratio = smaller_of(V(Limits<T>::largest()), x / slot.b);
    return select(x < V(gem_eps<T>(p)), V(T(0)), times_power_of_two(slot.a, log2_of(ratio).all() * slot.c));
  }
};

template <>
struct ExactBy<GemValue> {
  using type = Gem;
};
template <>
struct Plain<Gem> {
  using type = GemValue;
};

struct GemPool : Pooling {
  using Forward = Gem;
  using Gradient = GemGradient;
  static constexpr size_t numbers = 1;  // eps
};

}  // namespace fastpool

FASTPOOL_FORWARD(Gem)
FASTPOOL_BACKWARD(GemGradient)
FASTPOOL_POOLING(gem_pool, GemPool)
