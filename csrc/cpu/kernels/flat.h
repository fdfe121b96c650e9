// Forward schedule of contiguous input and large windows: 32 lanes share one window.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Reducer, class S>
class Flat {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kClasses;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  static int64_t scratch_bytes() { return Reducer::uses_uniform ? (kPacked + L) * int64_t(sizeof(T)) + kSlack : 0; }
  Flat(const Problem& p, const Level& level, Arena arena)
      : p(p),
        level(level),
        begin(static_cast<const S*>(p.x)),
        end(begin + p.samples * p.channels * p.positions()),
        packed(arena.take<T>(Reducer::uses_uniform ? kPacked + L : 0)) {}

  // The rows of bins first_row … last_row - 1 of some planes.
  void run(int64_t n, int64_t c, int64_t count, int64_t first_row, int64_t last_row) const {
    const Axis* axis = level.grid.axis;
    for (int64_t row = first_row; row < last_row; ++row)
      for (int64_t o = 0; o < axis[2].out; ++o) {
        Place at{n, c, {row / axis[1].out, row % axis[1].out, o}};
        const Span spans[3] = {axis[0].window(at.o[0]), axis[1].window(at.o[1]), axis[2].window(at.o[2])};
        Facts<T> facts = facts_of<Reducer, T>(p, level, n, c, at.o);
        if constexpr (Reducer::is_sum)
          if (spans[0].count * spans[1].count == 1 && spans[2].step == 1) at.c += sum_planes(at, count, spans, facts);
        for (; at.c < c + count; ++at.c) {
          if constexpr (Reducer::uses_alpha || Reducer::uses_uniform)
            if (at.c > c) facts = facts_of<Reducer, T>(p, level, n, at.c, at.o);
          pool(at, spans, facts);
        }
      }
  }

 private:
  const Problem& p;
  const Level& level;
  const S *begin, *end;
  static constexpr int64_t kPacked = 4096;
  T* packed;  // taps of a window, one after another

  FASTPOOL_HD void pool(const Place& at, const Span* spans, const Facts<T>& fact) const {
    const Facts<V> facts{V(fact.divisor), V(fact.alpha), V(fact.uniform), false};
    State state;
    state.start(Tap<V>(Tap<T>(0)), p);
    for_each_pass<0, Reducer::passes>(Passes{*this, begin + p.input.at(at.n, at.c, 0), spans, facts, state});
    state.finish(facts);
    if (!first_lane(state.ordinary())) return forward_exact<Reducer>(p, level, at);
    store_one<Reducer, S>(p, level, at, FirstLane{state});
  }

  struct FirstLane {
    const State& state;
    FASTPOOL_HD T y() const { return first_lane(state.y()); }
    FASTPOOL_HD T second() const { return first_lane(state.second()); }
    FASTPOOL_HD T moment(int which) const { return first_lane(state.moment(which)); }
    FASTPOOL_HD Tap<T> tap() const { return first_lane(state.tap()); }
  };

  // Windows that are one run, of neighbouring planes, as far as they fill a register: its lanes are added up for all of
  // them together. Returns how many there were.
  int64_t sum_planes(const Place& at, int64_t count, const Span* spans, const Facts<T>& facts) const {
    constexpr int n = kRegisterBytes / int(sizeof(T));
    using Sums = Lanes<T, n>;
    const int64_t positions = p.positions(), length = spans[2].count, bin = level.bin(at.o);
    const Mask<Sums> tail = Tap<Sums>::iota() < Tap<Sums>(Tap<T>(length % n));
    int64_t done = 0;
    for (; done + n <= count; done += n) {
      const S* x = begin + p.input.at(at.n, at.c + done, (spans[0].start * p.extent[1] + spans[1].start) * p.extent[2] + spans[2].start);
      if (x + (n - 1) * positions + round_up(length, n) > end) break;
      Sums sum[n];
      unrolled<n>([&](auto plane) FASTPOOL_STEP {
        const S* from = x + plane * positions;
        Lanes<T, 2 * n> both(T(0));
        int64_t k = 0;
        for (; k + 2 * n <= length; k += 2 * n) both = both + load_stream<T, 2 * n>(from + k);
        Sums mine = both.lo + both.hi;
        if (k + n <= length) mine = mine + load<T, n>(from + k), k += n;
        if (k < length) mine = mine + select(tail, load<T, n>(from + k), Sums(T(0)));
        sum[plane] = mine;
      });
      // Halves the vectors and doubles the planes in each, until lane i is the sum of plane i.
      FASTPOOL_UNROLL
      for (int half = n / 2; half > 0; half /= 2) {
        FASTPOOL_UNROLL
        for (int i = 0; i < half; ++i) {
          Sums low, high;
          Sums::zip(sum[i], sum[i + half], low, high);
          sum[i] = low + high;
        }
      }
      store_part(static_cast<S*>(p.y) + level.output_base + level.output.at(at.n, at.c + done, bin), level.output.channel,
                 sum[0] / Sums(facts.divisor), n);
    }
    return done;
  }

  struct Passes {
    const Flat& self;
    const S* plane;
    const Span* spans;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      const Span &d = spans[0], &h = spans[1], &w = spans[2];
      if constexpr (Reducer::uses_uniform)
        if ((d.size * h.size > 1 && w.size % L) || w.first % L) {  // rows whose taps do not begin in the first lane
          const int64_t taps = d.size * h.size * w.size;
          for (int64_t tap = 0; tap < taps; tap += kPacked) {
            const int64_t count = smaller(kPacked, taps - tap);
            if (pass == 0 || taps > kPacked) self.pack(plane, spans, tap, count);
            for (int64_t k = 0; k < count; k += L) state.template add<pass>(load<T, L>(self.packed + k), Tap<V>::iota(Tap<T>(tap + k)));
          }
          return state.template share<pass>(Team<T>(), facts);
        }
      const Mask<V> tail = Tap<V>::iota() < Tap<V>(Tap<T>(w.count % L));
      for (int64_t i = 0; i < d.count; ++i)
        for (int64_t j = 0; j < h.count; ++j) {
          const int64_t row = ((d.start + i * d.step) * self.p.extent[1] + h.start + j * h.step) * self.p.extent[2] + w.start;
          const int64_t tap = ((d.first + i) * h.size + h.first + j) * w.size + w.first;
          if (w.step == 1 && plane + row + round_up(w.count, L) <= self.end)
            add_run<pass>(state, plane + row, w.count, tap, tail, d.count * h.count > 1);
          else
            self.template add_pieces<pass>(state, plane + row, w.step, w.count, tap);
        }
      state.template share<pass>(Team<T>(), facts);
    }
  };

  // The taps first_tap … first_tap + count - 1 of a window, and padding where they are none.
  void pack(const S* plane, const Span* spans, int64_t first_tap, int64_t count) const {
    const Span &d = spans[0], &h = spans[1], &w = spans[2];
    const T padding = Reducer::template padding<T>();
    const bool gaps = d.count < d.size || h.count < h.size || w.count < w.size;
    if (gaps) fill_run(packed, padding, count);
    for (int64_t i = 0; i < d.count; ++i)
      for (int64_t j = 0; j < h.count; ++j) {
        const int64_t tap = ((d.first + i) * h.size + h.first + j) * w.size + w.first - first_tap;
        const int64_t skipped = larger(-tap, 0), length = smaller(count - tap, w.count) - skipped;
        const S* row = plane + ((d.start + i * d.step) * p.extent[1] + h.start + j * h.step) * p.extent[2] + w.start + skipped * w.step;
        for (int64_t k = 0; k < length; k += L) {
          const int64_t some = smaller(L, length - k);
          const V lanes = w.step == 1 && row + k + L <= end ? load<T, L>(row + k) : load_apart<T, L>(row + k * w.step, w.step, some);
          // The next row replaces what is too much.
          if (gaps)
            store_part(packed + tap + skipped + k, 1, lanes, some);
          else
            store(packed + tap + skipped + k, lanes);
        }
      }
    fill_run(packed + count, padding, round_up(count, L) - count);
  }

  static constexpr int64_t kShortRun = 1024;  // others the hardware prefetches better alone

  // `count` neighbours, from the first lane on; `tail` holds for the lanes of the last step.
  template <int pass>
  static FASTPOOL_HD void add_run(State& state, const S* x, int64_t count, int64_t tap, Mask<V> tail, bool jumps) {
    if (pass == 0 && jumps && count < kShortRun)
      for (int64_t byte = 0; byte < count * int64_t(sizeof(S)); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(x) + kAhead + byte);
    for (int64_t k = 0; k < count; k += L)
      add_masked<Reducer, pass>(state, load_stream<T, L>(x + k), Tap<V>::iota(Tap<T>(tap + k)), count - k >= L, [&] { return tail; });
  }

  // Any run.
  template <int pass>
  FASTPOOL_HD void add_pieces(State& state, const S* x, int64_t step, int64_t count, int64_t tap) const {
    for (int64_t k = 0; k < count; k += L) {
      const Tap<V> lane = Tap<V>::iota(Tap<T>(k));
      V found;
      if (step == 1 && x + k + L <= end) {
        found = load<T, L>(x + k);
      } else {
        T values[L];
        for (int64_t l = 0; l < L; ++l) values[l] = k + l < count ? T(widen(x[(k + l) * step])) : T(0);
        found = load<T, L>(values);
      }
      add_masked<Reducer, pass>(state, found, Tap<V>::iota(Tap<T>(tap + k)), false, [&] { return lane < Tap<V>(Tap<T>(count)); });
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
