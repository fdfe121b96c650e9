// SoftPool (Stergiou, Poppe and Kalliatakis 2021): y = sum w_i x_i / sum w_i, w_i = exp(beta x_i). The largest w is factored
// out: that of the largest element, or where beta < 0 of the smallest.
// Saved for backward: y, and sum w_i / exp(beta y). Since no mean of exponents is further from the largest than the logarithm of
// their number, that neither overflows nor vanishes.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

// And the derivative by beta, the variance of x under the weights, if it is asked for. It is summed from the squares of
// distances to the extreme element: that has the largest weight, so little cancels.
struct Soft : Reducer {
  static constexpr int passes = 2, careful_passes = 2;
  static constexpr bool uses_parameter = true, saves_moments = true, saves_slope = true;
  static constexpr int long_sums = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();  // without weight; where beta <= 0 the exact path follows
  }

  template <class V, bool has_slope>
  struct States : StateDefaults<V> {
    using T = Scalar<V>;
    Extremes<V> extremes;
    V sharp, weights, squares;

    // What the second pass has in place of the extremes: the one that is factored out, and the weighted distances to it.
    FASTPOOL_HD V& extreme() {
      return extremes.largest;
    }
    FASTPOOL_HD V& distances() { return extremes.negative; }

    FASTPOOL_HD void start(Tap<V>, const Problem&) {
      extremes.start();
      weights = V(T(0));
    }
    FASTPOOL_HD void turn(V beta) {
      sharp = sharpness_of(beta);
      extreme() = extremes.of(sharp);
      distances() = squares = V(T(0));
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
        add_weighted(weight(x), x);
    }
    template <int pass>
    FASTPOOL_HD void add_inside(V x, Tap<V>, Mask<V> inside) {
      if constexpr (pass == 0) {
        extremes.add_inside(x, inside);
      } else {
        x = select(inside, x, extreme());
        add_weighted(select(inside, weight(x), V(T(0))), x);
      }
    }
    FASTPOOL_HD V weight(V x) { return power_of_two((x - extreme()) * sharp); }
    // -inf contributes nothing. Distances keep the digits of elements that are alike and far from 0.
    FASTPOOL_HD void add_weighted(V w, V x) {
      const V distance = larger_of(V(-Limits<T>::largest()), x - extreme()), share = w * distance;
      weights = weights + w;
      distances() = distances() + share;
      if constexpr (has_slope) squares = squares + share * distance;
    }
    template <int which>
    FASTPOOL_HD V& long_sum() {
      if constexpr (which)
        return distances();
      else
        return weights;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>& facts) {
      if constexpr (pass == 0) {
        extremes.share(team);
        turn(facts.parameter);
      } else {
        weights = team.sum(weights);
        distances() = team.sum(distances());
        if constexpr (has_slope) squares = team.sum(squares);
      }
    }
    // Whether no square would overflow, either: distances have one sign, and where exponents grow with them, weights make up for it.
    FASTPOOL_HD Mask<V> ordinary() const {
      const V most(sizeof(T) == 4 ? T(0x1p60) : T(0x1p500)), sum = extremes.negative;
      return (sum < most) & (sum > -most) & (extremes.largest < infinity<V>()) & is_sharp(sharp);
    }
    FASTPOOL_HD void finish(const Facts<V>&) {
      distances() = distances() / weights;
      if constexpr (has_slope) squares = squares / weights - distances() * distances();
    }
    FASTPOOL_HD V y() const { return extremes.largest + extremes.negative; }
    FASTPOOL_HD V slope() const { return squares; }
    FASTPOOL_HD V moment(int which) const { return soft_moment(which, y(), weights, extremes.largest, -extremes.negative * sharp); }
  };

  template <class V>
  using State = States<V, true>;

  // Beyond that rounding of y alone counts: it is the extreme.
  template <class V>
  static FASTPOOL_HD V soft_moment(int which, V y, V weights, V extreme, V distance) {
    using T = Scalar<V>;
    const Mask<V> near = (distance < V(T(64))) & (distance > V(T(-64)));
    if (which == 0) return select(near, y, extreme);
    return weights * power_of_two(select(near, distance, V(T(0))));
  }

  // Follows the infinities, and scales where a difference, a sum or a square would overflow.
  template <class T>
  struct Careful : StateDefaults<T> {
    T largest, smallest, extreme, beta, sharp, scale, weights, weighted, distances, squares, result;

    FASTPOOL_HD void start(Tap<T>, const Problem&) {
      largest = -Limits<T>::infinity();
      smallest = Limits<T>::infinity();
      weights = weighted = distances = squares = T(0);
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>& facts, const Problem&) {
      beta = facts.parameter;
      sharp = sharpness_of(beta);
      extreme = beta < T(0) ? smallest : largest;
      scale = larger_of(largest, -smallest) > T(0x1p64) ? T(0x1p-32) : T(1);  // so that 2^31 values of either sign stay finite
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T>) {
      if constexpr (pass == 0) {
        largest = max_with_nan(largest, x);
        smallest = -max_with_nan(-smallest, -x);
      } else {
        const T w = power_of_two(T(2) * (half(x) * sharp));
        weights += w;
        if (w == T(0)) return;
        const T distance = half(x) * scale, share = w * distance;
        weighted += w * (x * scale);
        distances += share;
        squares += share * distance;
      }
    }
    FASTPOOL_HD T half(T x) const { return T(0.5) * x - T(0.5) * extreme; }  // of the distance, which may overflow
    template <int which>
    FASTPOOL_HD T& long_sum() {
      if constexpr (which)
        return weighted;
      else
        return weights;
    }
    FASTPOOL_HD void finish(const Facts<T>&) {
      const T infinite = Limits<T>::infinity();
      result = weighted / weights / scale;
      if (extreme == infinite || extreme == -infinite) result = extreme;
      if (beta == T(0) && (largest == infinite || smallest == -infinite)) result = largest + smallest;
      if (largest != largest || beta != beta) result = largest + beta;
    }
    FASTPOOL_HD T y() const { return result; }
    FASTPOOL_HD T slope() const {
      const T mean = distances / weights;
      return T(4) * (squares / weights - mean * mean) / scale / scale;
    }
    FASTPOOL_HD T moment(int which) const { return soft_moment(which, result, weights, extreme, T(-2) * (half(result) * sharp)); }
  };
};

// The same where nobody asks for the slope.
struct SoftValue : Soft {
  static constexpr bool saves_slope = false;
  template <class V>
  using State = States<V, false>;
};

// g w (1 + beta (x - y)) / sum w, with w = exp(beta (x - y)). Half the difference does not overflow.
struct SoftGradient : Gradient {
  using Forward = SoftValue;
  static constexpr int slots = 3;
  static constexpr bool uses_input = true, uses_parameter = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem&) {
    using T = Scalar<V>;
    const V half(T(0.5)), sharp = larger_of(-half_largest<V>(), smaller_of(half_largest<V>(), sharpness_of(facts.parameter)));
    return {out.g / out.moment[1], half * out.moment[0], sharp + sharp};
  }
  template <class V>
  static FASTPOOL_HD V half_largest() {
    return V(Scalar<V>(0.5) * Limits<Scalar<V>>::largest());
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem&) {
    using T = Scalar<V>;
    const V exponent = (V(T(0.5)) * x - slot.b) * slot.c, w = power_of_two(exponent), zero(T(0));
    return select(w == zero, zero, slot.a * w * (V(T(1)) + exponent * V(T(0.69314718055994531))));
  }
  template <class V>
  static FASTPOOL_HD V again(V x, V w, V g, const Forward::State<V>& state) {
    using T = Scalar<V>;
    const V exponent = ((x - state.extremes.largest) - state.extremes.negative) * state.sharp, zero(T(0));
    return select(w == zero, zero, g / state.weights * w * (V(T(1)) + exponent * V(T(0.69314718055994531))));
  }
};

template <>
struct ExactBy<SoftValue> {
  using type = Soft;
};
template <>
struct Plain<Soft> {
  using type = SoftValue;
};

struct SoftPool : Pooling {
  using Forward = Soft;
  using Gradient = SoftGradient;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Soft)
FASTPOOL_BACKWARD(SoftGradient)
FASTPOOL_POOLING(soft_pool, SoftPool)
