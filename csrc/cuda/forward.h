// Forward bodies: one thread for the same bin of a few channels, or a team of threads for one large window.
#pragma once

#include "cuda/job.h"
#include "cuda/team.h"

namespace fastpool::cuda {

// Channels of one thread. They share the geometry of their windows, and their loads are in flight together: 16 bytes
// of neighbouring channels, or of half types 8, since state for eight channels would take too many registers.
template <class S>
constexpr int kItems = sizeof(S) == 8 ? 2 : 4;

template <class Reducer, class S>
FASTPOOL_HD Facts<Accumulated<S>> facts_at(const Job& job, int l, const Place& at, int32_t divisor) {
  using T = Accumulated<S>;
  Facts<T> facts{T(1), T(0), T(0)};
  const int64_t bin = job.levels[l].first_bin + job.levels[l].bin(at.o);
  if constexpr (Reducer::uses_divisor) facts.divisor = job.p.divisor_override ? T(job.p.divisor_override) : T(divisor);
  if constexpr (Reducer::uses_alpha) facts.alpha = alpha_of<T>(job.p, at.n, at.c, bin);
  if constexpr (Reducer::uses_uniform) facts.uniform = uniform_of<T>(job.p, at.n, at.c, bin);
  return facts;
}

template <class Reducer, class S, bool side_by_side>
struct ThreadForward : Job {
  static constexpr int threads = 1, items = kItems<S>;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  using Job::Job;
  void finish() { units = Units(p.samples, ceil_div(p.channels, items), bins, p.lanes_are_channels); }

  struct Walk {
    const Job& job;
    const FastLevel& fast;
    const S* x;
    int count;
    FastSpan d, h, w;
    State (&states)[items];

    // Up to `width` elements of a row, all loaded before the first is used.
    template <int pass, int width>
    FASTPOOL_HD void add(int64_t position, int32_t elements, int32_t tap) {
      const Problem& p = job.p;
      S values[width][items];
      FASTPOOL_UNROLL
      for (int k = 0; k < width; ++k)
        if (k < elements)
          load<side_by_side>(values[k], x + (position + k * fast.axis[2].dilation) * p.input.position, p.input.channel, count);
      FASTPOOL_UNROLL
      for (int k = 0; k < width; ++k) {
        if (k >= elements) continue;
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) states[i].template add<pass>(widened(values[k][i]), Tap<T>(tap + k));
      }
    }
    template <int pass>
    FASTPOOL_HD void visit() {
      const FastAxis* axis = fast.axis;
      for (int32_t i = 0; i < d.count; ++i)
        for (int32_t j = 0; j < h.count; ++j) {
          const int32_t row = (d.start + i * axis[0].dilation) * axis[1].in + h.start + j * axis[1].dilation;
          const int32_t tap = ((d.first + i) * h.size + h.first + j) * w.size + w.first, position = row * axis[2].in + w.start;
          // Windows of 2 and 3 columns are most of those there are.
          if (axis[2].kernel == 2) {
            add<pass, 2>(position, w.count, tap);
          } else if (axis[2].kernel == 3) {
            add<pass, 3>(position, w.count, tap);
          } else {
            for (int32_t k = 0; k < w.count; k += 4) add<pass, 4>(position + k * axis[2].dilation, w.count - k, tap + k);
          }
        }
    }
    template <int pass>
    FASTPOOL_HD void passes(const Facts<T> (&facts)[items]) {
      if constexpr (pass < Reducer::passes) {
        if constexpr (pass > 0) {
          FASTPOOL_UNROLL
          for (int i = 0; i < items; ++i) states[i].template begin<pass>(facts[i], job.p);
        }
        visit<pass>();
        passes<pass + 1>(facts);
      }
    }
  };

  FASTPOOL_HD void store_all(const Level& level, const Place& at, const State (&states)[items], int count) const {
    const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), step = level.output.channel;
    const int64_t saved = p.saved.at(at.n, at.c, level.first_bin + bin), saved_step = p.saved.channel;
    S y[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) y[i] = narrowed<S>(states[i].y());
    store<side_by_side>(static_cast<S*>(p.y) + level.output_base + out, y, step, count);
    if constexpr (Reducer::has_second && !Reducer::second_is_difference) {
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) y[i] = narrowed<S>(states[i].second());
      store<side_by_side>(static_cast<S*>(p.second) + level.second_base + out, y, step, count);
    }
    if constexpr (Reducer::second_is_difference) {
      if (p.difference) {
        T values[items];
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) values[i] = states[i].second();
        store<side_by_side>(static_cast<T*>(p.difference) + saved, values, saved_step, count);
      }
    }
    if constexpr (Reducer::saves_taps) {
      if (p.tap_bytes == 1) store_taps<uint8_t>(saved, states, saved_step, count);
      if (p.tap_bytes == 4) store_taps<int32_t>(saved, states, saved_step, count);
    }
    if constexpr (Reducer::saves_moments) {
      for (int which = 0; which < (p.moments ? 2 : 0); ++which) {
        T values[items];
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) values[i] = states[i].moment(which);
        store<side_by_side>(static_cast<T*>(p.moments) + which * p.moments_size + saved, values, saved_step, count);
      }
    }
  }
  template <class Code>
  FASTPOOL_HD void store_taps(int64_t saved, const State (&states)[items], int64_t step, int count) const {
    Code taps[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) taps[i] = Code(states[i].tap());
    store<side_by_side>(static_cast<Code*>(p.taps) + saved, taps, step, count);
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int l = level_of(unit.inside);
    const FastLevel& level = fast[l];
    int32_t o[3];
    level.place(unit.inside - level.first, o);
    const Place at = wide(unit.n, int64_t(unit.group) * items, o);
    const int count = least(items, int32_t(p.channels - at.c));
    const FastSpan d = level.axis[0].window(o[0]), h = level.axis[1].window(o[1]), w = level.axis[2].window(o[2]);
    const int32_t divisor = !Reducer::uses_divisor ? 1 : p.include_pad ? level.divisor(o, true) : d.count * h.count * w.count;
    const Tap<T> first = (d.first * h.size + h.first) * w.size + w.first;
    State states[items];
    Facts<T> facts[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      facts[i] = facts_at<Reducer, S>(*this, l, {at.n, at.c + (i < count ? i : 0), {o[0], o[1], o[2]}}, divisor);
      states[i].start(first, p);
    }
    Walk walk{*this, level, static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0), count, d, h, w, states};
    walk.template passes<0>(facts);
    unsigned odd = 0;  // channels whose window the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      if (Reducer::careful_passes > 0 && i < count && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    store_all(levels[l], at, states, count);
    if constexpr (Reducer::careful_passes > 0) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) forward_exact<Reducer, S>(p, levels[l], {at.n, at.c + i, {o[0], o[1], o[2]}});
    }
  }
};

template <class Reducer, class S, template <class> class Members>
struct TeamForward : Job {
  static constexpr int threads = Members<int>::members * Members<int>::columns;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  using Job::Job;
  // The bins of a plane follow each other, so that the levels of a pyramid find the plane in the cache.
  void finish() { units = Units(p.samples, ceil_div(p.channels, Members<int>::columns), bins, false); }

  // The elements `member`, `member` + members, … of a window, in mixed-radix steps: no division on the way.
  struct Walk {
    const Job& job;
    const FastAxis* axis;
    const S* x;
    int32_t origin[3], size[3], member;
    State& state;

    template <int pass, int members>
    FASTPOOL_HD void visit() {
      constexpr int in_flight = 8;  // loads of each thread: a warp or two must cover the memory's latency
      const int32_t taps = size[0] * size[1] * size[2], rows = size[0] * size[1];
      int32_t at[3] = {0, 0, member}, step[3] = {0, 0, members};
      if (rows > 1) {
        for (int32_t* radix : {at, step}) {
          const int32_t row = radix[2] / size[2];
          radix[2] -= row * size[2];
          radix[0] = row / size[1];
          radix[1] = row - radix[0] * size[1];
        }
      }
      for (int32_t tap = member; tap < taps;) {
        S values[in_flight];
        bool inside[in_flight];
        FASTPOOL_UNROLL
        for (int k = 0; k < in_flight; ++k) {
          const int32_t d = origin[0] + at[0] * axis[0].dilation, h = origin[1] + at[1] * axis[1].dilation;
          const int32_t w = origin[2] + at[2] * axis[2].dilation;
          inside[k] = tap + k * members < taps && uint32_t(d) < uint32_t(axis[0].in) && uint32_t(h) < uint32_t(axis[1].in) &&
                      uint32_t(w) < uint32_t(axis[2].in);
          if (inside[k]) values[k] = x[int64_t((d * axis[1].in + h) * axis[2].in + w) * job.p.input.position];
          at[2] += step[2];
          const int32_t carry = at[2] >= size[2];
          at[2] -= carry ? size[2] : 0;
          at[1] += step[1] + carry;
          const int32_t next = at[1] >= size[1];
          at[1] -= next ? size[1] : 0;
          at[0] += step[0] + next;
        }
        FASTPOOL_UNROLL
        for (int k = 0; k < in_flight; ++k, tap += members)
          if (inside[k]) state.template add<pass>(widened(values[k]), Tap<T>(tap));
      }
    }
    template <int pass, class Team>
    FASTPOOL_HD void passes(const Team& team, const Facts<T>& facts) {
      if constexpr (pass < Reducer::passes) {
        visit<pass, Members<int>::members>();
        state.template share<pass>(team, facts);
        passes<pass + 1>(team, facts);
      }
    }
  };

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int l = level_of(unit.inside);
    const FastLevel& level = fast[l];
    const Members<Thread> members{thread};
    int32_t o[3];
    level.place(unit.inside - level.first, o);
    Place at = wide(unit.n, int64_t(unit.group) * Members<int>::columns + members.column(), o);
    const bool writes = members.member() == 0 && at.c < p.channels;
    at.c = smaller(at.c, p.channels - 1);
    const FastSpan d = level.axis[0].window(o[0]), h = level.axis[1].window(o[1]), w = level.axis[2].window(o[2]);
    if (Reducer::uses_uniform && d.size * h.size * w.size <= kMostSequentialTaps) {
      // Bins of both kinds: small ones are summed in order.
      if (writes) forward_exact<Reducer, S>(p, levels[l], at);
      return;
    }
    const int32_t divisor = !Reducer::uses_divisor ? 1 : p.include_pad ? level.divisor(o, true) : d.count * h.count * w.count;
    const Facts<T> facts = facts_at<Reducer, S>(*this, l, at, divisor);
    State state;
    state.start((d.first * h.size + h.first) * w.size + w.first, p);
    Walk walk{*this,
              level.axis,
              static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0),
              {level.axis[0].origin(o[0]), level.axis[1].origin(o[1]), level.axis[2].origin(o[2])},
              {d.size, h.size, w.size},
              members.member(),
              state};
    walk.template passes<0>(Team<Members<Thread>>{members}, facts);
    if (!writes) return;
    if (Reducer::careful_passes > 0 && !state.ordinary()) return forward_exact<Reducer, S>(p, levels[l], at);
    state.finish(facts);
    store_one<Reducer, S>(p, levels[l], at, state);
  }
};

}  // namespace fastpool::cuda
