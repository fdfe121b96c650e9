// Stochastic pooling in evaluation (Zeiler and Fergus 2013), with w_i = max(x_i, 0): y = sum w_i x_i / sum w_i. With softmax
// weights it is soft_pool.
// Saved for backward: two factors of sum w.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

struct Expectation : Reducer {
  static constexpr int careful_passes = 2, parts = 2, long_sums = 2;
  static constexpr bool saves_moments = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    V weights, weighted, result;

    FASTPOOL_HD void start(Tap<V>, const Problem&) { weights = weighted = V(T(0)); }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      add_weighted(weight(x), x);
    }
    FASTPOOL_HD V weight(V x) { return larger_of(V(T(0)), x); }  // NaN stays NaN
    FASTPOOL_HD void add_weighted(V w, V) {
      weights = weights + w;
      weighted = weighted + w * w;
    }
    FASTPOOL_HD V part(int which) const { return which ? weighted : weights; }
    template <int which>
    FASTPOOL_HD V& long_sum() {
      if constexpr (which)
        return weighted;
      else
        return weights;
    }
    FASTPOOL_HD void hold(V w, V wx, Tap<V>) {
      weights = w;
      weighted = wx;
    }
    FASTPOOL_HD void merge(V w, V wx, Tap<V>) {
      weights = weights + w;
      weighted = weighted + wx;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      weights = team.sum(weights);
      weighted = team.sum(weighted);
    }
    // Squares of tiny weights lose bits long before the result does.
    FASTPOOL_HD Mask<V> ordinary() const {
      return ((weighted < infinity<V>()) & (weighted > V(sizeof(T) == 4 ? T(1e-28) : T(1e-280)))) | (weights == V(T(0)));
    }
    FASTPOOL_HD void finish(const Facts<V>&) { result = select(weights == V(T(0)), V(T(0)), weighted / weights); }
    FASTPOOL_HD V y() const { return result; }
    FASTPOOL_HD V moment(int which) const { return which ? weights : V(T(1)); }
  };

  // Follows the infinities, and scales by the largest element where a sum or a square would overflow or underflow.
  template <class T>
  struct Careful : StateDefaults<T> {
    T largest, weights, weighted, result;

    FASTPOOL_HD void start(Tap<T>, const Problem&) {
      largest = -Limits<T>::infinity();
      weights = weighted = T(0);
    }
    template <int which>
    FASTPOOL_HD T& long_sum() {
      if constexpr (which)
        return weighted;
      else
        return weights;
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T>) {
      if constexpr (pass == 0) {
        largest = max_with_nan(largest, x);
      } else {
        const T w = larger_of(T(0), x) / largest;
        weights += w;
        weighted += w == T(0) ? T(0) : w * (x / largest);
      }
    }
    FASTPOOL_HD void finish(const Facts<T>&) {
      result = weighted / weights * largest;
      if (largest == Limits<T>::infinity()) result = largest;
      if (largest <= T(0)) result = T(0);
    }
    FASTPOOL_HD T y() const { return result; }
    FASTPOOL_HD T moment(int which) const { return which ? weights : largest; }
  };
};

// g (2 x - y) / sum w of positive elements.
struct ExpectationGradient : Gradient {
  using Forward = Expectation;
  static constexpr int slots = 3;
  static constexpr bool uses_input = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>&, const Problem&) {
    return {out.g / out.moment[1], out.y, out.moment[0]};
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem&) {
    using T = Scalar<V>;
    const V zero(T(0)), slope = slot.a * (V(T(2)) * ((x - V(T(0.5)) * slot.b) / slot.c));  // x + x could overflow
    return select(x <= zero, zero, slope);                                                 // NaN passes
  }
  template <class V>
  static FASTPOOL_HD V again(V x, V, V g, const Forward::State<V>& state) {
    const V zero(Scalar<V>(0));
    return select(x <= zero, zero, g / state.weights * (x + x - state.y()));
  }
};

struct ExpectationPool : Pooling {
  using Forward = Expectation;
  using Gradient = ExpectationGradient;
};

}  // namespace fastpool

FASTPOOL_FORWARD(Expectation)
FASTPOOL_BACKWARD(ExpectationGradient)
FASTPOOL_POOLING(expectation_relu_pool, ExpectationPool)
