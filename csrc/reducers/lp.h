// Power-average pooling as in torch: y = (K * mean of x^p)^(1/p) over the n elements of a window of K taps; the pooling's numbers
// are p, of either sign, and K. Powers are IEEE's: of negative x, x^p keeps the sign where p is odd and is NaN where p is no
// integer, and of a negative sum there is a root only where p is 1 or -1.
// Saved for backward: y.
#pragma once

#include "reducers/weights.h"

namespace fastpool {

// What x^p makes of the sign of x.
template <class T>
FASTPOOL_HD T sign_of_power(double p) {
  const double size = p < 0 ? -p : p, half = 0.5 * size, whole = 0x1p52;  // integers alone stay as they are beside it
  if (size >= whole) return T(1);
  if ((size + whole) - whole != size) return nan<T>();
  return (half + whole) - whole == half ? T(1) : T(-1);
}
template <class V>
FASTPOOL_HD V size_of(V x) {
  return larger_of(x, -x);
}

// Of p = 1 and 2, and 0 for any other: the largest of the powers is factored out, that of the largest |x|, or where p < 0 of the
// smallest.
template <int known>
struct Lp;

template <>
struct Lp<1> : Reducer {
  static constexpr int careful_passes = 1, parts = 1, long_sums = 1;
  static constexpr bool uses_divisor = true, saves_moments = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return T(0);
  }

  template <class V>
  struct State : StateDefaults<V> {
    V sum, taps;

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      sum = V(Scalar<V>(0));
      taps = V(Scalar<V>(p.numbers[1]));
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      sum = sum + x;
    }
    FASTPOOL_HD V part(int) const { return sum; }
    FASTPOOL_HD void hold(V x, V, Tap<V>) { sum = x; }
    FASTPOOL_HD void merge(V x, V, Tap<V> tap) { add<0>(x, tap); }
    template <int>
    FASTPOOL_HD V& long_sum() {
      return sum;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      sum = team.sum(sum);
    }
    FASTPOOL_HD Mask<V> ordinary() const { return (sum < infinity<V>()) & (sum > -infinity<V>()); }
    FASTPOOL_HD void finish(const Facts<V>& facts) { sum = mean(sum, facts) * taps; }
    FASTPOOL_HD V y() const { return sum; }
    FASTPOOL_HD V moment(int) const { return sum; }
  };

  // 2^-32: sums of up to 2^31 values of either sign stay finite.
  template <class T>
  struct Careful : State<T> {
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T>) {
      this->sum += x * T(0x1p-32);
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) {
      State<T>::finish(facts);
      this->sum *= T(0x1p32);
    }
  };
};

template <>
struct Lp<2> : Reducer {
  static constexpr int careful_passes = 2, parts = 2, long_sums = 1;
  static constexpr bool uses_divisor = true, saves_moments = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return T(0);
  }

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    V sum, seen, root;  // `seen` has all bits of all elements: it is 0 where they are
    T taps;

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      sum = seen = V(T(0));
      taps = T(p.numbers[1]);
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V> tap) {
      merge(x * x, x, tap);
    }
    FASTPOOL_HD V part(int which) const { return which ? seen : sum; }
    FASTPOOL_HD void hold(V squares, V bits, Tap<V>) {
      sum = squares;
      seen = bits;
    }
    FASTPOOL_HD void merge(V squares, V bits, Tap<V>) {
      sum = sum + squares;
      seen = from_bits(bits_of(seen) | bits_of(bits));
    }
    template <int>
    FASTPOOL_HD V& long_sum() {
      return sum;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      sum = team.sum(sum);
      seen = team.max(size_of(seen));
    }
    FASTPOOL_HD Mask<V> ordinary() const {
      return (sum < infinity<V>()) & ((sum > V(T(sizeof(T) == 4 ? 0x1p-90 : 0x1p-980))) | (seen == V(T(0))));
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) { root = square_root(mean(sum, facts) * V(taps)); }
    FASTPOOL_HD V y() const { return root; }
    FASTPOOL_HD V moment(int) const { return root; }
  };

  // Scales by a power of two beside the largest. Infinities and NaN are what remains of the others.
  template <class T>
  struct Careful : StateDefaults<T> {
    T largest, scale, sum, taps;

    FASTPOOL_HD void start(Tap<T>, const Problem& p) {
      largest = sum = T(0);
      taps = T(p.numbers[1]);
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>&, const Problem&) {
      scale = largest > T(1) ? T(sizeof(T) == 4 ? 0x1p-80 : 0x1p-600) : T(sizeof(T) == 4 ? 0x1p80 : 0x1p600);
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T>) {
      if (pass == 0)
        largest = max_with_nan(largest, size_of(x));
      else
        sum += (x * scale) * (x * scale);
    }
    template <int>
    FASTPOOL_HD T& long_sum() {
      return sum;
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) { sum = square_root(mean(sum, facts) * taps) / scale; }
    FASTPOOL_HD T y() const { return sum; }
    FASTPOOL_HD T moment(int) const { return sum; }
  };
};

template <>
struct Lp<0> : Reducer {
  static constexpr int passes = 2, careful_passes = 2, long_sums = 1;
  static constexpr bool uses_divisor = true, saves_moments = true;
  template <class T>
  static FASTPOOL_HD T padding() {
    return T(0);  // where p < 0 the exact path follows
  }

  template <class V>
  struct State : StateDefaults<V> {
    using T = Scalar<V>;
    Extremes<V> extremes;  // of |x|
    V rest, sum;
    T power, negative, taps;  // `negative` is what x^p makes of a negative sign

    // What the second pass has in place of the extremes: what is factored out, and the logarithm of that, with `rest`.
    FASTPOOL_HD V& factor() {
      return extremes.largest;
    }
    FASTPOOL_HD V& whole() { return extremes.negative; }

    FASTPOOL_HD void start(Tap<V>, const Problem& p) {
      extremes.start();
      power = T(p.numbers[0]);
      negative = sign_of_power<T>(p.numbers[0]);
      taps = T(p.numbers[1]);
      sum = V(T(0));
    }
    FASTPOOL_HD void turn() {
      factor() = extremes.of(V(power));
      const Log2<V> log = log2_of(factor());
      whole() = log.whole;
      rest = log.rest;
    }
    template <int pass>
    FASTPOOL_HD void begin(const Facts<V>&, const Problem&) {
      turn();
    }
    template <int pass>
    FASTPOOL_HD void add(V x, Tap<V>) {
      const V size = size_of(x), zero(T(0));
      if constexpr (pass == 0) {
        extremes.add(size);
      } else {
        const Log2<V> log = log2_of(size);
        const V w = power_of_two(((log.whole - whole()) + (log.rest - rest)) * V(power));
        sum = sum + select(x == zero, zero, select(x < zero, w * V(negative), w));
      }
    }
    template <int>
    FASTPOOL_HD V& long_sum() {
      return sum;
    }
    template <int pass, class Team>
    FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
      if constexpr (pass == 0) {
        extremes.share(team);
        turn();
      } else {
        sum = team.sum(sum);
      }
    }
    // What lies far below a factor near the smallest numbers has no logarithm here.
    FASTPOOL_HD Mask<V> ordinary() const {
      const V least(T(sizeof(T) == 4 ? 0x1p-60 : 0x1p-500)), zero(T(0)), factor = extremes.largest;
      return (sum < infinity<V>()) & ((factor > least) | ((factor == zero) & (V(power) > zero)));
    }
    FASTPOOL_HD void finish(const Facts<V>& facts) { rest = root(mean(sum, facts) * V(taps)); }
    FASTPOOL_HD V root(V x) const {
      const V zero(T(0)), log = log2_of(size_of(x)).all() / V(power), size = times_power_of_two(extremes.largest, log);
      const V of_negative(power == T(1) || power == T(-1) ? T(-1) : nan<T>());
      return select(x == zero, V(power > T(0) ? T(0) : Limits<T>::infinity()), select(x < zero, size * of_negative, size));
    }
    FASTPOOL_HD V y() const { return rest; }
    FASTPOOL_HD V moment(int) const { return rest; }
  };

  // Scales what is tiny, and knows NaN, infinities and powers of 0.
  template <class T>
  struct Careful : State<T> {
    using Base = State<T>;
    T scale = T(1), infinite = T(0);

    template <int pass>
    FASTPOOL_HD void begin(const Facts<T>& facts, const Problem& p) {
      const bool is_float = sizeof(T) == 4;
      if (this->extremes.of(this->power) < T(is_float ? 0x1p-60 : 0x1p-500)) scale = T(is_float ? 0x1p80 : 0x1p600);
      this->extremes.largest *= scale;
      this->extremes.negative *= scale;
      Base::template begin<pass>(facts, p);
    }
    template <int pass>
    FASTPOOL_HD void add(T x, Tap<T> tap) {
      const bool is_finite = x - x == T(0);
      if (x != x || (this->power > T(0) ? !is_finite : x == T(0))) {  // NaN, or of an infinite power
        const bool sign = bits_of(x) >> (8 * sizeof(T) - 1) && this->negative == T(-1);
        if (pass == 0) infinite += x != x ? x : sign ? -Limits<T>::infinity() : Limits<T>::infinity();
      } else if (is_finite) {
        if (pass == 0)
          Base::template add<pass>(x, tap);
        else if (size_of(x * scale) <= Limits<T>::largest())
          Base::template add<pass>(x * scale, tap);
      }
    }
    FASTPOOL_HD void finish(const Facts<T>& facts) {
      const T p = this->power;
      if (this->sum != this->sum) infinite = this->sum;  // a power of a negative number
      this->factor() /= scale;
      Base::finish(facts);
      if (infinite == T(0)) return;
      const T size = p > T(0) ? Limits<T>::infinity() : T(0);  // of a root of infinity
      this->rest = infinite != infinite ? infinite : infinite < T(0) && (p == T(1) || p == T(-1)) ? -size : size;
    }
  };
};

// g (K/n) (x/y)^(p - 1); 0 where y is.
template <int known>
struct LpGradient : Gradient {
  static constexpr int slots = known == 1 ? 1 : 2;
  static constexpr bool uses_divisor = true, uses_input = true;
  template <class V>
  static FASTPOOL_HD Slot<V> prepare(const OutputFacts<V>& out, const Facts<V>& facts, const Problem& p) {
    const V y = size_of(out.moment[0]), zero(Scalar<V>(0)), one(Scalar<V>(1));
    const Mask<V> is_zero = y == zero;
    const V all = mean(out.g, facts) * V(Scalar<V>(p.numbers[1]));
    Slot<V> slot;
    slot.a = select(is_zero, zero, known == 1 ? all : all + (y - y));  // NaN beside infinity
    slot.b = select(is_zero, one, y);
    return slot;
  }
  template <class V>
  static FASTPOOL_HD V term(V x, Tap<V>, const Slot<V>& slot, Tap<V>, const Problem& p) {
    using T = Scalar<V>;
    if constexpr (known == 1) return slot.a;
    if constexpr (known == 2) return slot.a * (x / slot.b);
    const V zero(T(0)), size = size_of(x), ratio = smaller_of(V(Limits<T>::largest()), size / slot.b);
    const V power = times_power_of_two(slot.a, log2_of(ratio).all() * V(T(p.numbers[0] - 1)));
    const V of_zero = p.numbers[0] > 1 ? zero : slot.a * infinity<V>();
    const V of_sign = select(x < zero, power * V(-sign_of_power<T>(p.numbers[0])), power);
    // Where y is finite beside an infinite x, p is negative.
    const V all = select(x == zero, of_zero, select(size < infinity<V>(), of_sign, slot.a * zero));
    return select(slot.a == zero, zero, all);
  }
};

template <int known>
struct LpPool : Pooling {
  using Forward = Lp<known>;
  using Gradient = LpGradient<known>;
  static constexpr size_t numbers = 2;  // p and the taps of a window
};

}  // namespace fastpool

FASTPOOL_FORWARD(Lp<0>)
FASTPOOL_FORWARD(Lp<1>)
FASTPOOL_FORWARD(Lp<2>)
FASTPOOL_BACKWARD(LpGradient<0>)
FASTPOOL_BACKWARD(LpGradient<1>)
FASTPOOL_BACKWARD(LpGradient<2>)
FASTPOOL_POOLING(lp_pool, LpPool<0>)
FASTPOOL_POOLING(lp1_pool, LpPool<1>)
FASTPOOL_POOLING(lp2_pool, LpPool<2>)
