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
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class T, int L>
  struct State : LaneDefaults<T> {
    T temperature, largest[L], weights[L], weighted[L], result[L];

    FASTPOOL_HD void start(int i, Tap<T>, const Problem& p) {
      temperature = T(p.temperature);
      largest[i] = -Limits<T>::infinity();
      weights[i] = weighted[i] = T(0);
    }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T>) {
      if constexpr (pass + 1 < passes) {
        largest[i] = max_with_nan(largest[i], x);
      } else {
        const T w = Weights::weight(x, largest[i], temperature);
        weights[i] += w;
        weighted[i] += w == T(0) ? T(0) : w * x;  // 0 * -inf contributes nothing
      }
    }
    template <int pass>
    FASTPOOL_HD void fold(const Facts<T>&, const Problem&) {
      if constexpr (pass + 1 < passes) share_max(largest);
      if constexpr (pass + 1 == passes)
        for (int half = L / 2; half > 0; half /= 2)
          for (int i = 0; i < half; ++i) {
            weights[i] += weights[i + half];
            weighted[i] += weighted[i + half];
          }
    }
    // Squares of tiny relu weights lose bits long before the result does.
    FASTPOOL_HD bool ordinary(int i) const {
      const T size = weighted[i] < T(0) ? -weighted[i] : weighted[i];
      const bool finite = size < Limits<T>::infinity();
      return Weights::needs_max ? finite : (finite & (size > smallest())) | (weights[i] == T(0));
    }
    static FASTPOOL_HD T smallest() { return sizeof(T) == 4 ? T(1e-28) : T(1e-280); }
    FASTPOOL_HD void finish(int i, const Facts<T>&, const Problem&) {
      result[i] = weights[i] == T(0) ? Weights::template nothing<T>() : weighted[i] / weights[i];
    }
    FASTPOOL_HD T y(int i) const { return result[i]; }
    FASTPOOL_HD T moment(int i, int which) const { return which ? weights[i] : Weights::needs_max ? largest[i] : T(1); }
  };

  // Follows the infinities, and scales where a sum or a square would overflow or underflow.
  template <class T>
  struct Careful : LaneDefaults<T> {
    T temperature, largest, weights, weighted, result;

    FASTPOOL_HD void start(int, Tap<T>, const Problem& p) {
      temperature = T(p.temperature);
      largest = -Limits<T>::infinity();
      weights = weighted = T(0);
    }
    // 2^-32: sums of up to 2^31 values of either sign stay finite. Relu values are scaled by the largest instead.
    FASTPOOL_HD T down(T x) const {
      return Weights::needs_max ? x * T(0x1p-32) : x / largest;
    }
    FASTPOOL_HD T up(T x) const { return Weights::needs_max ? x * T(0x1p32) : x * largest; }

    template <int pass>
    FASTPOOL_HD void add(int, T x, Tap<T>) {
      if constexpr (pass == 0) {
        largest = max_with_nan(largest, x);
      } else {
        const T weight = Weights::weight(x, largest, temperature);
        const T w = Weights::needs_max ? weight : weight / largest;
        weights += w;
        weighted += w == T(0) ? T(0) : w * down(x);
      }
    }
    FASTPOOL_HD void finish(int, const Facts<T>&, const Problem&) {
      const T empty = Weights::template nothing<T>();
      result = up(weighted / weights);
      if (largest == Limits<T>::infinity()) result = largest;
      if (largest <= empty) result = empty;
    }
    FASTPOOL_HD T y(int) const { return result; }
    FASTPOOL_HD T moment(int, int which) const { return which ? weights : largest; }
  };
};

template <class Weights>
struct ExpectationGradient : Gradient {
  static constexpr bool uses_input = true;
  template <class T>
  static FASTPOOL_HD Slot<T> prepare(const OutputFacts<T>& out, const Facts<T>&, const Problem&) {
    return {out.g / out.moment[1], out.y, out.moment[0]};
  }
  template <class T>
  static FASTPOOL_HD T term(T x, Tap<T>, T a, T y, T m, Tap<T>, const Problem& p) {
    if constexpr (Weights::needs_max) {
      const T w = exponential((x - m) / T(p.temperature));
      return w == T(0) ? T(0) : a * w * (T(1) + (x - y) / T(p.temperature));
    } else {
      const T slope = a * (T(2) * ((x - T(0.5) * y) / m));  // x + x could overflow
      return x <= T(0) ? T(0) : slope;                      // NaN passes
    }
  }
};

}  // namespace fastpool
