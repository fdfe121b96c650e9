// Stochastic pooling in training (Zeiler and Fergus 2013): one element drawn with probability w_i / sum w. The drawn
// tap is the first whose running sum exceeds u * sum w; where rounding leaves none, the last tap with positive weight.
// Windows of more than 256 taps sum in 32 classes (tap mod 32): first the class is found, then the tap within it, by the
// running sum of the class, which is added to the sum of those before it.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

// In the order of the taps; in classes, of which a state has all; or in classes, of which each lane of a team has one.
enum class Sums { ordered, classes, lanes };

template <class Weights, Sums kind = Sums::ordered>
struct Stochastic : Reducer {
  static constexpr int total_pass = Weights::needs_max ? 1 : 0, walk_pass = total_pass + 1, passes = walk_pass + 1;
  static constexpr int careful_passes = passes;
  static constexpr bool has_classes = kind == Sums::classes;
  static constexpr int sums = has_classes ? kClasses : 1;
  static constexpr bool saves_taps = true, uses_uniform = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return -Limits<T>::infinity();
  }

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    T sharp;
    V largest, sum[sums], total, threshold, before, running, value;
    Tap<V> at, chosen;

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      sharp = sharpness<T>(p);
      largest = -infinity<V>();
      for (int r = 0; r < sums; ++r) sum[r] = V(T(0));
      running = V(T(0));
      value = Weights::template nothing<V>();
      at = Tap<V>(-1);
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V> tap) {
      if constexpr (pass < total_pass) {
        largest = larger_of(largest, x);  // NaN makes the total NaN
      } else if constexpr (pass == total_pass) {
        V& mine = sum[has_classes ? int(first_lane(tap) % sums) : 0];
        mine = mine + weight(x);
      } else {
        const V w = weight(x);
        Mask<V> take = (w > V(T(0))) & !(reached() > threshold);
        if constexpr (has_classes) {
          const Mask<V> mine = (chosen < Tap<V>(0)) | (chosen == Tap<V>(first_lane(tap) % sums));
          take = take & mine;
          running = running + select(mine, w, V(T(0)));
        } else {
          running = running + w;
        }
        value = select(take, x, value);
        at = select(take, tap, at);
      }
    }
    FASTPOOL_HD V weight(V x) const { return Weights::weight(x, largest, sharp); }
    FASTPOOL_HD V reached() const {
      if constexpr (kind == Sums::ordered) return running;
      return before + running;
    }

    template <int pass>
    FASTPOOL_HD void begin(const Facts<V>& facts, const Problem&) {
      if constexpr (pass == walk_pass) {
        total = sum[0];
        for (int r = 1; r < sums; ++r) total = total + sum[r];
        threshold = facts.uniform * total;
        if constexpr (has_classes) {
          chosen = Tap<V>(-1);
          before = V(T(0));
          V passed = before;
          for (int r = 0; r < sums; ++r) {
            const V after = passed + sum[r];
            const Mask<V> take = (chosen < Tap<V>(0)) & (after > threshold);
            chosen = select(take, Tap<V>(r), chosen);
            before = select(take, passed, before);
            passed = after;
          }
          // No class exceeds the threshold: every tap with weight is passed, so the last one stays.
          threshold = select(chosen < Tap<V>(0), infinity<V>(), threshold);
        }
      }
    }

    // Lanes that share one window are its classes.
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>& facts) {
      if constexpr (pass < total_pass) largest = team.max(largest);
      if constexpr (pass == total_pass) {
        const auto sums_of = team.spread(sum[0]);
        T all(0), passed(0), before_found(0);
        FASTPOOL_ROLL
        for (int r = 0; r < kClasses; ++r) all += sums_of[r];
        const T limit = first_lane(facts.uniform) * all;
        int found = -1;
        FASTPOOL_ROLL
        for (int r = 0; r < kClasses; ++r) {
          const T after = passed + sums_of[r];
          if (found < 0 && after > limit) {
            found = r;
            before_found = passed;
          }
          passed = after;
        }
        total = V(all);
        threshold = V(found < 0 ? Limits<T>::infinity() : limit);
        chosen = Tap<V>(found);
        // Any lane but the chosen one starts above the threshold and so takes nothing.
        before = select(team.lane() == Tap<V>(found), V(before_found), infinity<V>());
      }
      if constexpr (pass == walk_pass) {
        const Tap<V> last = team.last(at);
        value = team.from(at == last, value);
        at = last;
      }
    }
    FASTPOOL_HD Mask<V> ordinary() const { return total < infinity<V>(); }
    FASTPOOL_HD void finish(const Facts<V>&) {}
    FASTPOOL_HD V y() const { return value; }
    FASTPOOL_HD Tap<V> tap() const { return at; }
  };

  // NaN is chosen as in max pooling, otherwise the first +inf; a softmax over -inf alone gives its first element.
  template <class T>
  struct Careful : State<T> {
    using Draw = State<T>;
    T odd;
    Tap<T> odd_at, first;

    FASTPOOL_HD void start(Tap<T> first_tap, const Problem& p) {
      Draw::start(first_tap, p);
      first = first_tap;
      odd = T(0);
      odd_at = -1;
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T> tap) {
      Draw::template add<pass>(x, tap);
      if (pass == 0 && (x != x || (x == Limits<T>::infinity() && odd_at < 0))) {
        odd = x;
        odd_at = tap;
      }
    }
    FASTPOOL_HD T y() const { return odd_at >= 0 ? odd : Draw::y(); }
    FASTPOOL_HD Tap<T> tap() const {
      if (odd_at >= 0) return odd_at;
      return Weights::needs_max && Draw::tap() < 0 ? first : Draw::tap();
    }
  };
};

template <class Weights>
struct LargeWindows<Stochastic<Weights>> {
  using type = Stochastic<Weights, Sums::classes>;
};
template <class Weights>
struct SharedWindows<Stochastic<Weights>> {
  using type = Stochastic<Weights, Sums::lanes>;
};

template <class Weights>
struct ExactBy<Stochastic<Weights, Sums::classes>> {
  using type = Stochastic<Weights>;
};

struct StochasticReluPool : Pooling {
  using Forward = Stochastic<ReluWeights>;
};
struct StochasticSoftmaxPool : Pooling {
  using Forward = Stochastic<SoftmaxWeights>;
  static constexpr size_t numbers = 1;  // the temperature
};

}  // namespace fastpool

FASTPOOL_FORWARD(Stochastic<ReluWeights>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights>)
FASTPOOL_POOLING(stochastic_relu_pool, StochasticReluPool)
FASTPOOL_POOLING(stochastic_softmax_pool, StochasticSoftmaxPool)
