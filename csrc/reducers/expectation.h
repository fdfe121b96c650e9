// Stochastic pooling in evaluation (Zeiler and Fergus 2013): y = sum w_i x_i / sum w_i. With softmax weights this is
// SoftPool (Stergiou, Poppe and Kalliatakis 2021) with beta = 1/temperature.
// Saved for backward: relu, two factors of sum w; softmax, the window's maximum and sum w.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

template <class Weights>
struct Expectation : Reducer {
  static constexpr int passes = Weights::needs_max ? 2 : 1, careful_passes = 2;
  static constexpr bool saves_moments = true;
  static constexpr int parts = passes == 1 ? 2 : 0, long_sums = 2;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    T sharp;
    V largest, weights, weighted, result;

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      sharp = sharpness<T>(p);
      largest = -infinity<V>();
      weights = weighted = V(T(0));
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      if constexpr (pass + 1 < passes) {
        largest = larger_of(largest, x);  // NaN makes the sums NaN
      } else {
        add_weighted(weight(x), x);
      }
    }
    FASTPOOL_HD V weight(V x) const { return Weights::weight(x, largest, sharp); }
    FASTPOOL_HD void add_weighted(V w, V x) {
      weights = weights + w;
      weighted = weighted + Weights::weighted(w, x);
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
      if constexpr (pass + 1 < passes) {
        largest = team.max(largest);
      } else {
        weights = team.sum(weights);
        weighted = team.sum(weighted);
      }
    }
    // Squares of tiny relu weights lose bits long before the result does.
    FASTPOOL_HD Mask<V> ordinary() const {
      if constexpr (Weights::needs_max) return (weighted < infinity<V>()) & (weighted > -infinity<V>());
      return ((weighted < infinity<V>()) & (weighted > V(sizeof(T) == 4 ? T(1e-28) : T(1e-280)))) | (weights == V(T(0)));
    }
    FASTPOOL_HD void finish(const Facts<V>&) { result = select(weights == V(T(0)), Weights::template nothing<V>(), weighted / weights); }
    FASTPOOL_HD V y() const { return result; }
    FASTPOOL_HD V moment(int which) const { return which ? weights : Weights::needs_max ? largest : V(T(1)); }
  };

  // Follows the infinities, and scales where a sum or a square would overflow or underflow.
  template <class T>
  struct Careful : StateDefaults<T> {
    T sharp, largest, weights, weighted, result;

    FASTPOOL_HD void start(Tap<T>, const Problem& p) {
      sharp = sharpness<T>(p);
      largest = -Limits<T>::infinity();
      weights = weighted = T(0);
    }
    // 2^-32: sums of up to 2^31 values of either sign stay finite. Relu values are scaled by the largest instead.
    FASTPOOL_HD T down(T x) const {
      return Weights::needs_max ? x * T(0x1p-32) : x / largest;
    }
    FASTPOOL_HD T up(T x) const { return Weights::needs_max ? x * T(0x1p32) : x * largest; }
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
        const T weight = Weights::weight(x, largest, sharp);
        const T w = Weights::needs_max ? weight : weight / largest;
        weights += w;
        weighted += w == T(0) ? T(0) : w * down(x);
      }
    }
    FASTPOOL_HD void finish(const Facts<T>&) {
      const T empty = Weights::template nothing<T>();
      result = up(weighted / weights);
      if (largest == Limits<T>::infinity()) result = largest;
      if (largest <= empty) result = empty;
    }
    FASTPOOL_HD T y() const { return result; }
    FASTPOOL_HD T moment(int which) const { return which ? weights : largest; }
  };
};

template <class Weights>
struct ExpectationGradient : Gradient {
  using Forward = Expectation<Weights>;
  static constexpr int slots = 3;
  static constexpr bool uses_input = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>&, const Problem&) {
    return {out.g / out.moment[1], out.y, out.moment[0]};
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem& p) {
    return weighted_term(x, Weights::needs_max ? Weights::weight(x, slot.c, sharpness<Scalar<V>>(p)) : x, slot, p);
  }
  // The same where the weight of x is known; relu asks x itself.
  template <class V>
  static FASTPOOL_HD V weighted_term(V x, V w, const Slot<V>& slot, const Problem& p) {
    using T = Scalar<V>;
    const V zero(T(0));
    if constexpr (Weights::needs_max) {
      return select(w == zero, zero, slot.a * w * (V(T(1)) + (x - slot.b) * V(finite<T>(1 / p.numbers[0]))));
    } else {
      const V slope = slot.a * (V(T(2)) * ((x - V(T(0.5)) * slot.b) / slot.c));  // x + x could overflow
      return select(x <= zero, zero, slope);                                     // NaN passes
    }
  }
};

struct ExpectationReluPool : Pooling {
  using Forward = Expectation<ReluWeights>;
  using Gradient = ExpectationGradient<ReluWeights>;
};
struct ExpectationSoftmaxPool : Pooling {
  using Forward = Expectation<SoftmaxWeights>;
  using Gradient = ExpectationGradient<SoftmaxWeights>;
  static constexpr size_t numbers = 1;  // the temperature
};

}  // namespace fastpool

FASTPOOL_FORWARD(Expectation<ReluWeights>)
FASTPOOL_FORWARD(Expectation<SoftmaxWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<ReluWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<SoftmaxWeights>)
FASTPOOL_POOLING(expectation_relu_pool, ExpectationReluPool)
FASTPOOL_POOLING(expectation_softmax_pool, ExpectationSoftmaxPool)
