// Stochastic pooling in training (Zeiler and Fergus 2013): one element drawn with probability w_i / sum w. The drawn
// tap is the first whose running sum exceeds u * sum w; where rounding leaves none, the last tap with positive weight.
// Windows of more than 256 taps sum in 32 classes (tap mod 32): first the class is found, then the tap within it.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

template <class Weights, bool classes>
struct Stochastic : Reducer {
  static constexpr int total_pass = Weights::needs_max ? 1 : 0, walk_pass = total_pass + 1, passes = walk_pass + 1;
  static constexpr int careful_passes = passes;
  static constexpr int sums = classes ? kClasses : 1;
  static constexpr bool saves_taps = true, uses_uniform = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class T, int L>
  struct State : LaneDefaults<T> {
    T temperature, largest[L], sum[sums][L], total[L], threshold[L], running[L], value[L];
    Tap<T> at[L], chosen[L];

    FASTPOOL_HD void start(int i, Tap<T>, const Problem& p) {
      temperature = T(p.temperature);
      largest[i] = -Limits<T>::infinity();
      for (int r = 0; r < sums; ++r) sum[r][i] = T(0);
      running[i] = T(0);
      value[i] = Weights::template nothing<T>();
      at[i] = -1;
    }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T> tap) {
      if constexpr (pass < total_pass) {
        largest[i] = max_with_nan(largest[i], x);
      } else if constexpr (pass == total_pass) {
        sum[tap % sums][i] += weight(i, x);
      } else {
        const bool mine = classes ? (chosen[i] < 0) | (chosen[i] == tap % sums) : true;
        const T w = weight(i, x);
        const bool take = mine & (w > T(0)) & !(running[i] > threshold[i]);
        value[i] = take ? x : value[i];
        at[i] = take ? tap : at[i];
        running[i] += mine ? w : T(0);
      }
    }
    FASTPOOL_HD T weight(int i, T x) const { return Weights::weight(x, largest[i], temperature); }

    template <int pass>
    FASTPOOL_HD void begin(int i, const Facts<T>& facts, const Problem&) {
      if constexpr (pass == walk_pass) {
        total[i] = sum[0][i];
        for (int r = 1; r < sums; ++r) total[i] += sum[r][i];
        threshold[i] = facts.uniform * total[i];
        chosen[i] = -1;
        T before = T(0);
        for (int r = 0; r < (classes ? sums : 0); ++r) {
          const T after = before + sum[r][i];
          const bool take = (chosen[i] < 0) & (after > threshold[i]);
          chosen[i] = take ? r : chosen[i];
          running[i] = take ? before : running[i];
          before = after;
        }
        // No class exceeds the threshold: every tap with weight is passed, so the last one stays.
        if (classes) threshold[i] = chosen[i] < 0 ? Limits<T>::infinity() : threshold[i];
      }
    }

    // Lanes that share one window are its classes.
    template <int pass>
    FASTPOOL_HD void fold(const Facts<T>& facts, const Problem&) {
      if constexpr (pass < total_pass) share_max(largest);
      if constexpr (pass == total_pass) {
        T all = T(0), before = T(0);
        for (int r = 0; r < L; ++r) all += sum[0][r];
        int found = -1;
        for (int r = 0; r < L; ++r) {
          const T after = before + sum[0][r];
          if (found < 0 && after > facts.uniform * all) found = r;
          // Any lane but the chosen one starts above the threshold and so takes nothing.
          running[r] = found == r ? before : Limits<T>::infinity();
          threshold[r] = facts.uniform * all;
          before = after;
        }
        for (int r = 0; r < L; ++r) {
          total[r] = all;
          if (found < 0) threshold[r] = Limits<T>::infinity();
        }
      }
      if constexpr (pass == walk_pass)
        for (int r = 1; r < L; ++r)
          if (at[r] > at[0]) {
            at[0] = at[r];
            value[0] = value[r];
          }
    }
    FASTPOOL_HD bool ordinary(int i) const { return total[i] < Limits<T>::infinity(); }
    FASTPOOL_HD void finish(int, const Facts<T>&, const Problem&) {}
    FASTPOOL_HD T y(int i) const { return value[i]; }
    FASTPOOL_HD Tap<T> tap(int i) const { return at[i]; }
  };

  // NaN is chosen as in max pooling, otherwise the first +inf; a softmax over -inf alone gives its first element.
  template <class T>
  struct Careful : State<T, 1> {
    using Draw = State<T, 1>;
    T odd;
    Tap<T> odd_at, first;

    FASTPOOL_HD void start(int i, Tap<T> first_tap, const Problem& p) {
      Draw::start(i, first_tap, p);
      first = first_tap;
      odd = T(0);
      odd_at = -1;
    }
    template <int pass>
    FASTPOOL_HD void add(int i, T x, Tap<T> tap) {
      Draw::template add<pass>(i, x, tap);
      if (pass == 0 && (x != x || (x == Limits<T>::infinity() && odd_at < 0))) {
        odd = x;
        odd_at = tap;
      }
    }
    FASTPOOL_HD T y(int i) const { return odd_at >= 0 ? odd : Draw::y(i); }
    FASTPOOL_HD Tap<T> tap(int i) const {
      if (odd_at >= 0) return odd_at;
      return Weights::needs_max && Draw::tap(i) < 0 ? first : Draw::tap(i);
    }
  };
};

template <class Weights>
struct LargeWindows<Stochastic<Weights, false>> {
  using type = Stochastic<Weights, true>;
};

}  // namespace fastpool
