// Forward schedule of contiguous input and large windows: 32 lanes share one window, and where it is one run, neighbouring
// planes share their last steps.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
class Flat {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kClasses;
  using V = Lanes<T, L>;
  using Shared = typename SharedWindows<Reducer>::type;
  using State = typename Shared::template State<V>;

  Flat(const Problem& p, const Level& level)
      : p(p), level(level), begin(static_cast<const S*>(p.x)), end(begin + p.samples * p.channels * p.positions()) {}

  // The rows of bins first_row … last_row - 1 of some planes.
  void run(int64_t n, int64_t c, int64_t count, int64_t first_row, int64_t last_row) const {
    const Axis* axis = level.grid.axis;
    for (int64_t row = first_row; row < last_row; ++row)
      for (int64_t o = 0; o < axis[2].out; ++o) {
        Place at{n, c, {row / axis[1].out, row % axis[1].out, o}};
        const Span spans[3] = {axis[0].window(at.o[0]), axis[1].window(at.o[1]), axis[2].window(at.o[2])};
        Facts<T> facts = facts_of<Reducer, T>(p, level, n, c, at.o);
        if (spans[0].count * spans[1].count == 1 && spans[2].step == 1) {
          if constexpr (Reducer::is_sum)
            at.c += spans[2].count > kBlockSum * L ? sum_planes<true>(at, count, spans[2].count, facts)
                                                   : sum_planes<false>(at, count, spans[2].count, facts);
          else if constexpr (Reducer::parts > 0)
            at.c += sums_are_long(spans) ? pool_planes<true>(at, count, spans, facts) : pool_planes<false>(at, count, spans, facts);
        }
        for (; at.c < c + count; ++at.c) {
          if constexpr (Reducer::uses_parameter || Reducer::uses_uniform)
            if (at.c > c) facts = facts_of<Reducer, T>(p, level, n, at.c, at.o);
          if constexpr (Reducer::long_sums > 0)
            if (sums_are_long(spans)) {
              pool_in_blocks(at, spans, facts);
              continue;
            }
          pool<false>(at, spans, facts);
        }
      }
  }

 private:
  const Problem& p;
  const Level& level;
  const S *begin, *end;

  // Out of line, so that the other state stays in registers.
  __attribute__((noinline)) void pool_in_blocks(const Place& at, const Span* spans, const Facts<T>& facts) const {
    pool<true>(at, spans, facts);
  }
  template <bool in_blocks>
  FASTPOOL_HD void pool(const Place& at, const Span* spans, const Facts<T>& fact) const {
    const Facts<V> facts{V(fact.divisor), V(fact.parameter), V(fact.uniform), false};
    State state;
    state.start(Tap<V>(Tap<T>(0)), p);
    for_each_pass<0, Reducer::passes>(Passes<in_blocks>{*this, begin + p.input.at(at.n, at.c, 0), spans, facts, state});
    state.finish(facts);
    if (!first_lane(state.ordinary())) return forward_exact<Reducer>(p, level, at);
    store_one<Reducer, S>(p, level, at, FirstLane{state});
  }

  struct FirstLane {
    const State& state;
    FASTPOOL_HD T y() const { return first_lane(state.y()); }
    FASTPOOL_HD T second() const { return first_lane(state.second()); }
    FASTPOOL_HD T mixture() const { return first_lane(state.mixture()); }
    FASTPOOL_HD T slope() const { return first_lane(state.slope()); }
    FASTPOOL_HD T moment(int which) const { return first_lane(state.moment(which)); }
    FASTPOOL_HD Tap<T> tap() const { return first_lane(state.tap()); }
  };

  // Windows that are one run, of neighbouring planes, as far as they fill a register: its lanes are added up for all of
  // them together. Returns how many there were.
  template <bool is_long>
  int64_t sum_planes(const Place& at, int64_t count, int64_t length, const Facts<T>& facts) const {
    constexpr int n = kRegisterBytes / int(sizeof(T));
    using One = Lanes<T, n>;
    const int64_t positions = p.positions(), first = level.grid.first_position(at.o), bin = level.bin(at.o);
    const Mask<One> tail = Tap<One>::iota() < Tap<One>(Tap<T>(length % n));
    const int64_t first_block = is_long ? smaller(length, kBlockSum * 8 * n) : length;
    int64_t done = 0;
    for (; done + n <= count; done += n) {
      const S* x = begin + p.input.at(at.n, at.c + done, first);
      if (x + (n - 1) * positions + round_up(length, n) > end) break;
      FASTPOOL_ASSERT(at.c + done + n <= p.channels);
      One sum[n];
      unrolled<n>([&](auto plane) FASTPOOL_STEP {
        const S* from = x + plane * positions;
        Lanes<T, 2 * n> both(T(0));
        int64_t k = 0;
        if (length >= 8 * n) {
          Lanes<T, 8 * n> all(T(0));
          for (; k + 8 * n <= first_block; k += 8 * n) all = all + load_stream<T, 8 * n>(from + k);
          both = (all.lo.lo + all.lo.hi) + (all.hi.lo + all.hi.hi);
        }
        if constexpr (is_long) {
          both.lo = both.lo + sum_blocks(from + k, length - k);
          k = length / (8 * n) * (8 * n);
        }
        for (; k + 2 * n <= length; k += 2 * n) both = both + load_stream<T, 2 * n>(from + k);
        One mine = both.lo + both.hi;
        if (k + n <= length) mine = mine + load<T, n>(from + k), k += n;
        if (k < length) mine = mine + select(tail, load<T, n>(from + k), One(T(0)));
        sum[plane] = mine;
      });
      // Halves the vectors and doubles the planes in each, until lane i is the sum of plane i.
      FASTPOOL_UNROLL
      for (int half = n / 2; half > 0; half /= 2) {
        FASTPOOL_UNROLL
        for (int i = 0; i < half; ++i) {
          One low, high;
          One::zip(sum[i], sum[i + half], low, high);
          sum[i] = low + high;
        }
      }
      store_part(static_cast<S*>(p.y) + level.output_base + level.output.at(at.n, at.c + done, bin), level.output.channel,
                 sum[0] / One(facts.divisor), n);
    }
    return done;
  }

  // A run in blocks, as far as it fills eight registers.
  static __attribute__((noinline)) Lanes<T, kRegisterBytes / int(sizeof(T))> sum_blocks(const S* from, int64_t length) {
    constexpr int n = kRegisterBytes / int(sizeof(T));
    Lanes<T, n> sum(T(0));
    Total<Lanes<T, n>> total;
    total.start();
    int64_t k = 0;
    for (int blocks = 1; k + 8 * n <= length; ++blocks) {
      Lanes<T, 8 * n> all(T(0));
      for (const int64_t last = smaller(length, k + kBlockSum * 8 * n) - 8 * n; k <= last; k += 8 * n)
        all = all + load_stream<T, 8 * n>(from + k);
      const Lanes<T, 2 * n> both = (all.lo.lo + all.lo.hi) + (all.hi.lo + all.hi.hi);
      sum = sum + (both.lo + both.hi);
      if (blocks % kBlockSum == 0) total.take(sum);
    }
    total.take(sum);
    return total.all();
  }

  // What lanes come to, as far as it can be merged.
  template <class U>
  struct Part {
    U value[2];
    Tap<U> tap;

    Part() = default;
    FASTPOOL_HD explicit Part(const auto& state) : value{state.part(0), state.part(1)}, tap(state.tap()) {}
    FASTPOOL_HD Part(U first, U second, Tap<U> tap) : value{first, second}, tap(tap) {}
  };
  template <class U>
  FASTPOOL_HD auto merged(const Part<U>& a, const Part<U>& b) const {
    typename Reducer::template State<U> state;
    state.start(Tap<U>(Tap<T>(0)), p);
    state.hold(a.value[0], a.value[1], a.tap);
    state.merge(b.value[0], b.value[1], b.tap);
    return state;
  }

  template <class U>
  FASTPOOL_HD auto halved(const Part<U>& x) const {
    using Half = Part<decltype(U::lo)>;
    return merged(Half(x.value[0].lo, x.value[1].lo, x.tap.lo), Half(x.value[0].hi, x.value[1].hi, x.tap.hi));
  }

  // The first `whole` elements of a run, whose sums are long.
  template <class Pooled>
  __attribute__((noinline)) Pooled pooled_blocks(const S* x, int64_t whole, int64_t tap) const {
    using Four = decltype(Pooled().y());
    constexpr int64_t step = sizeof(Four) / sizeof(T);
    Pooled pooled;
    pooled.start(Tap<Four>(Tap<T>(0)), p);
    Totals<Reducer, Four> totals;
    totals.start(pooled);
    for (int64_t k = 0, blocks = 1; k < whole; ++blocks) {
      Block<Reducer, Four> block;
      block.begin(pooled, true);
      for (const int64_t end = smaller(whole, k + kBlockSum * step); k < end; k += step)
        pooled.template add<0>(load_stream<T, step>(x + k), Tap<Four>::iota(Tap<T>(tap + k)));
      block.end(pooled, true);
      if (blocks % kBlockSum == 0) totals.take(pooled);
    }
    totals.give(pooled);
    return pooled;
  }

  // The same of what is no mere sum: it takes memory instead of registers.
  template <bool is_long>
  int64_t pool_planes(const Place& at, int64_t count, const Span* spans, const Facts<T>& fact) const {
    constexpr int n = kRegisterBytes / int(sizeof(T));
    using One = Lanes<T, n>;
    using Two = Lanes<T, 2 * n>;
    using Four = Lanes<T, 4 * n>;
    using State4 = typename Reducer::template State<Four>;
    const Span &d = spans[0], &h = spans[1], &w = spans[2];
    const int64_t length = w.count, whole = length / (4 * n) * (4 * n), tap = tap_of_row(d, h, w);
    const int64_t positions = p.positions(), first = level.grid.first_position(at.o), bin = level.bin(at.o);
    const Mask<Four> rest = Tap<Four>::iota() < Tap<Four>(Tap<T>(length - whole));
    int64_t done = 0;
    for (; done + n <= count; done += n) {
      const S* x = begin + p.input.at(at.n, at.c + done, first);
      if (x + (n - 1) * positions + round_up(length, 4 * n) > end) break;
      typename Reducer::template State<One> state;
      Part<One> parts[n];
      for (int plane = 0; plane < n; ++plane, x += positions) {
        State4 lanes;
        lanes.start(Tap<Four>(Tap<T>(0)), p);
        if constexpr (is_long)
          lanes = pooled_blocks<State4>(x, whole, tap);
        else
          for (int64_t k = 0; k < whole; k += 4 * n) lanes.template add<0>(load_stream<T, 4 * n>(x + k), Tap<Four>::iota(Tap<T>(tap + k)));
        if (whole < length)
          add_masked<Reducer, 0>(lanes, load<T, 4 * n>(x + whole), Tap<Four>::iota(Tap<T>(tap + whole)), false, [&] { return rest; });
        state = halved(Part<Two>(halved(Part<Four>(lanes))));
        parts[plane] = Part<One>(state);
      }
      // Halves the vectors and doubles the planes in each, until lane i is plane i.
      for (int half = n / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) {
          Part<One> low, high;
          for (int which = 0; which < Reducer::parts; ++which)
            One::zip(parts[i].value[which], parts[i + half].value[which], low.value[which], high.value[which]);
          if constexpr (Reducer::saves_taps) Tap<One>::zip(parts[i].tap, parts[i + half].tap, low.tap, high.tap);
          state = merged(low, high);
          parts[i] = Part<One>(state);
        }
      Facts<One> facts{One(fact.divisor), One(T(0)), One(T(0)), false};
      if constexpr (Reducer::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c + done, level.first_bin + bin, true, n).lo;
      state.finish(facts);
      const auto odd = odd_lanes(state, n);
      store_some<Reducer, S>(p, level, level.output.at(at.n, at.c + done, bin), level.output.channel,
                             p.saved.at(at.n, at.c + done, level.first_bin + bin), p.saved.channel, n, Results<Reducer, One>(p, state));
      repair(odd, n, [&](int64_t i) { forward_exact<Reducer>(p, level, {at.n, at.c + done + i, {at.o[0], at.o[1], at.o[2]}}); });
    }
    return done;
  }

  // Whether a lane adds so many elements that it does so in blocks.
  static bool sums_are_long(const Span* spans) {
    return Reducer::long_sums > 0 && spans[0].count * spans[1].count * ceil_div(spans[2].count, L) > 2 * kBlockSum;
  }
  // The sums of a state, to which terms are added that may be many.
  template <bool are_long>
  struct Sums {
    State& state;
    Totals<Reducer, V> totals;
    int terms = 0;

    FASTPOOL_HD explicit Sums(State& state) : state(state) {
      if constexpr (are_long) totals.start(state);
    }
    FASTPOOL_HD void count_term() {
      if constexpr (are_long)
        if (++terms % kBlockSum == 0) totals.take(state);
    }
    FASTPOOL_HD void end() {
      if constexpr (are_long) totals.give(state);
    }
  };

  template <bool in_blocks>
  struct Passes {
    const Flat& self;
    const S* plane;
    const Span* spans;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      const Span &d = spans[0], &h = spans[1], &w = spans[2];
      if constexpr (Reducer::uses_uniform && pass + 1 == Reducer::passes)
        if (self.walk_class(state, plane, spans)) return;
      Sums<in_blocks && pass + 1 == Reducer::passes> sums(state);
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const S* x = plane + row_of_input(d, h, i, j, self.p.extent[1]) * self.p.extent[2] + w.start;
          const int64_t tap = tap_of_row(d, h, w, i, j);
          // Where lanes are classes of taps, rows begin in any of them.
          const int64_t lead = Reducer::uses_uniform ? tap % L : 0;
          if (w.step == 1 && x - lead >= self.begin && x - lead + round_up(lead + w.count, L) <= self.end)
            add_run<pass>(state, sums, x - lead, lead, lead + w.count, tap - lead, d.count * h.count > 1);
          else
            self.template add_pieces<pass>(state, sums, x, w.step, lead, lead + w.count, tap - lead);
        }
      sums.end();
      state.template share<pass>(Team<T>(), facts);
    }
  };

  // The last pass of a draw, over the taps of the chosen class alone, which are a 32nd of them. Not where rounding left no
  // class.
  __attribute__((noinline)) bool walk_class(State& state, const S* plane, const Span* spans) const {
    const Span &d = spans[0], &h = spans[1], &w = spans[2];
    const int64_t chosen = first_lane(state.chosen);
    if (chosen < 0) return false;
    T before[L];
    store(before, state.before);
    typename Shared::template State<T> one;
    one.start(Tap<T>(0), p);
    one.largest = first_lane(state.largest);
    one.threshold = first_lane(state.threshold);
    one.before = before[chosen];
    int64_t row = 0, k = chosen;
    while (!(one.reached() > one.threshold)) {
      for (; k >= w.size; k -= w.size) ++row;
      const int64_t i = row / h.size - d.first, j = row % h.size - h.first;
      if (i >= d.size - d.first) break;
      if (i < 0 || i >= d.count || j < 0 || j >= h.count) {
        k += round_up(w.size - k, L);
        continue;
      }
      const S* x = plane + row_of_input(d, h, i, j, p.extent[1]) * p.extent[2] + w.start - w.first * w.step;
      for (; k < w.size && !(one.reached() > one.threshold); k += L)
        if (k >= w.first && k < w.first + w.count)
          one.template add<Reducer::walk_pass>(T(widen_one(x[k * w.step])), Tap<T>(row * w.size + k));
    }
    state.value = V(one.value);
    state.at = Tap<V>(one.at);
    return true;
  }

  static constexpr int64_t kShortRun = 1024;  // others the hardware prefetches better alone

  static FASTPOOL_HD Mask<V> lanes_between(int64_t begin, int64_t end) {
    return (Tap<V>::iota() >= Tap<V>(Tap<T>(begin))) & (Tap<V>::iota() < Tap<V>(Tap<T>(end)));
  }

  // Neighbours from x on, of which the elements lead … stop - 1 count; x is tap `tap`.
  template <int pass, bool are_long>
  static FASTPOOL_HD void add_run(State& state, Sums<are_long>& sums, const S* x, int64_t lead, int64_t stop, int64_t tap, bool jumps) {
    if (pass == 0 && jumps && stop - lead < kShortRun) ask_for(x, stop * int64_t(sizeof(S)));
    for (int64_t k = 0; k < stop; k += L) {
      // A loop of its own, without the masks of its ends, fits the registers.
      while (k >= lead && stop - k >= L) {
        Block<Reducer, V> block;
        block.begin(state, are_long);
        for (const int64_t end = are_long ? smaller(stop, k + kBlockSum * L) : stop; end - k >= L; k += L)
          state.template add<pass>(load_stream<T, L>(x + k), Tap<V>::iota(Tap<T>(tap + k)));
        block.end(state, are_long);
        sums.count_term();
      }
      if (k >= stop) continue;
      add_masked<Reducer, pass>(state, load<T, L>(x + k), Tap<V>::iota(Tap<T>(tap + k)), false,
                                [&] { return lanes_between(lead - k, stop - k); });
      sums.count_term();
    }
  }

  // Any run; x is its element `lead`.
  template <int pass, bool are_long>
  FASTPOOL_HD void add_pieces(State& state, Sums<are_long>& sums, const S* x, int64_t step, int64_t lead, int64_t stop, int64_t tap) const {
    for (int64_t k = 0; k < stop; k += L) {
      const S* from = x + (k - lead) * step;
      V found;
      if (step == 1 && k >= lead && from + L <= end) {
        found = load<T, L>(from);
      } else {
        T values[L];
        for (int64_t l = 0; l < L; ++l) values[l] = k + l >= lead && k + l < stop ? T(widen(from[l * step])) : T(0);
        found = load<T, L>(values);
      }
      add_masked<Reducer, pass>(state, found, Tap<V>::iota(Tap<T>(tap + k)), false, [&] { return lanes_between(lead - k, stop - k); });
      sums.count_term();
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
