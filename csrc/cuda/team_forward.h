// The forward body for large windows: a team of threads for each, or for those of neighbouring channels.
#pragma once

#include "cuda/forward.h"
#include "cuda/team.h"

namespace fastpool::cuda {

// Steps through a window in mixed radix.
FASTPOOL_HD void split(int32_t (&at)[3], const int32_t (&size)[3]) {
  const int32_t row = at[2] / size[2];
  at[2] -= row * size[2];
  at[0] = row / size[1];
  at[1] = row - at[0] * size[1];
}
FASTPOOL_HD void advance(int32_t (&at)[3], const int32_t (&step)[3], const int32_t (&size)[3]) {
  at[2] += step[2];
  const int32_t carry = at[2] >= size[2];
  at[2] -= carry ? size[2] : 0;
  at[1] += step[1] + carry;
  const int32_t next = at[1] >= size[1];
  at[1] -= next ? size[1] : 0;
  at[0] += step[0] + next;
}

// The elements `member`, `member` + members, … of a window, in mixed-radix steps: no division on the way. Those of several
// channels lie side by side.
template <class Reducer, class S, class State, int items>
struct Strides {
  using T = Accumulated<S>;
  const Job& job;
  const FastAxis* axis;
  const S* x;
  int32_t origin[3], size[3], member;
  State (&states)[items];

  FASTPOOL_HD Strides(const Job& job, const Window& window, const S* plane, int member, State (&states)[items])
      : job(job),
        axis(job.fast[window.l].axis),
        x(plane),
        origin{axis[0].origin(window.o[0]), axis[1].origin(window.o[1]), axis[2].origin(window.o[2])},
        size{window.d.size, window.h.size, window.w.size},
        member(member),
        states(states) {}

  template <int pass, int members>
  FASTPOOL_HD void visit() {
    constexpr int in_flight = sizeof(S) == 8 ? 4 : 8;  // loads of each thread: few warps must cover the memory's latency
    const int32_t taps = size[0] * size[1] * size[2], rows = size[0] * size[1];
    int32_t at[3] = {0, 0, member}, step[3] = {0, 0, members};
    if (rows > 1) {
      split(at, size);
      split(step, size);
    }
    const bool blocks = kSumsIn<Reducer, pass> && taps > members * in_flight;
    Totals<Reducer, T> totals[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) totals[i].start(states[i]);
    for (int32_t tap = member; tap < taps;) {
      S values[in_flight][items];
      unsigned inside = 0;
      FASTPOOL_UNROLL
      for (int k = 0; k < in_flight; ++k) {
        const int32_t d = origin[0] + at[0] * axis[0].dilation, h = origin[1] + at[1] * axis[1].dilation;
        const int32_t w = origin[2] + at[2] * axis[2].dilation;
        if (tap + k * members < taps && uint32_t(d) < uint32_t(axis[0].in) && uint32_t(h) < uint32_t(axis[1].in) &&
            uint32_t(w) < uint32_t(axis[2].in)) {
          inside |= 1u << k;
          load<true>(values[k], x + times((d * axis[1].in + h) * axis[2].in + w, job.p.input.position), 1, items);
        }
        advance(at, step, size);
      }
      FASTPOOL_UNROLL
      for (int k = 0; k < in_flight; ++k, tap += members) {
        if (!(inside >> k & 1)) continue;
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) states[i].template add<pass>(widened(values[k][i]), Tap<T>(tap));
      }
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i)
        if (blocks) totals[i].take(states[i]);
    }
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i)
      if (blocks) totals[i].give(states[i]);
  }
};

// The elements of a window without padding by packs, of 16 bytes or less: of a run of memory, or of rows that begin and end with
// packs. Threads that draw are the classes of taps, and take one element after another.
template <class Reducer, class S, class State, int items, int bytes>
struct PacksOf {
  using T = Accumulated<S>;
  static constexpr int count = Reducer::uses_uniform ? 1 : bytes / int(sizeof(S)), in_flight = 4 * 16 / bytes;
  const FastAxis* axis;
  const S* x;
  int32_t size[3], member;
  State& state;

  FASTPOOL_HD PacksOf(const Job& job, const Window& window, const S* plane, int member, State (&states)[items])
      : axis(job.fast[window.l].axis),
        x(plane + (window.d.start * axis[1].in + window.h.start) * axis[2].in + window.w.start),
        size{window.d.size, window.h.size, window.w.size},
        member(member),
        state(states[0]) {
    static_assert(items == 1);
    if ((size[1] == 1 || size[2] == axis[2].in) && (size[0] == 1 || (size[1] == axis[1].in && size[2] == axis[2].in))) {
      size[2] *= size[0] * size[1];
      size[0] = size[1] = 1;
    }
  }

  template <int pass>
  FASTPOOL_HD void add(const S& x, int32_t tap) {
    state.template add<pass>(widened(x), Tap<T>(tap));
  }
  template <int pass, int members>
  FASTPOOL_HD void visit() {
    const int32_t rows = size[0] * size[1], taps = rows * size[2];
    const int32_t before_pack = int32_t(-int64_t(reinterpret_cast<uintptr_t>(x) / sizeof(S)) & (count - 1));
    const int32_t head = rows > 1 ? 0 : least(before_pack, taps), of_row[3] = {size[0], size[1], (size[2] - head) / count};
    const int32_t packs = rows * of_row[2], tail = head + packs * count;
    if (member < head) add<pass>(read(x + member), member);
    int32_t at[3] = {0, 0, member}, step[3] = {0, 0, members};
    if (rows > 1) {
      split(at, of_row);
      split(step, of_row);
    }
    const bool blocks = kSumsIn<Reducer, pass> && taps > members * kBlockSum;
    Totals<Reducer, T> totals;
    totals.start(state);
    for (int32_t pack = member; pack < packs;) {
      Pack<S, count> values[in_flight];
      FASTPOOL_UNROLL
      for (int k = 0; k < in_flight; ++k) {
        const S* from = x + head + times((at[0] * axis[1].in + at[1]) * axis[2].in + at[2] * count, 1);
        if (pack + k * members < packs) values[k] = read(reinterpret_cast<const Pack<S, count>*>(from));
        if (rows > 1)
          advance(at, step, of_row);
        else
          at[2] += members;
      }
      FASTPOOL_UNROLL
      for (int k = 0; k < in_flight; ++k, pack += members) {
        if (pack >= packs) continue;
        FASTPOOL_UNROLL
        for (int i = 0; i < count; ++i) add<pass>(values[k].value[i], head + pack * count + i);
        if (blocks && ((k + 1) * count % kBlockSum == 0 || k == in_flight - 1)) totals.take(state);
      }
    }
    if (blocks) totals.give(state);
    if (tail + member < taps) add<pass>(read(x + tail + member), tail + member);
  }
};

template <class Reducer, class S, class State, int items>
using Packs = PacksOf<Reducer, S, State, items, 16>;

// Whether every window of a level is what packs read.
template <class Reducer, class S, int bytes = 16>
bool in_packs(const Problem& p, const Level& level) {
  const Axis* axis = level.grid.axis;
  if (p.input.position != 1 || level.clipped) return false;
  for (int a = 0; a < 3; ++a)
    if (axis[a].dilation != 1 && axis[a].kernel != 1) return false;
  const auto whole = [](const Axis& a) { return a.out == 1 && a.kernel == a.in; };
  const auto one = [](const Axis& a) { return a.kernel == 1; };
  const bool runs = (one(axis[1]) || whole(axis[2])) && (one(axis[0]) || (whole(axis[1]) && whole(axis[2])));
  constexpr int64_t count = PacksOf<Reducer, S, void*, 1, bytes>::count;
  const auto in_steps = [](int64_t number) { return number % count == 0; };
  const bool rows = in_steps(axis[2].kernel) && in_steps(axis[2].stride) && in_steps(axis[2].in) && in_steps(p.input.channel) &&
                    !axis[2].adaptive() && axis[2].before == 0 && aligned(p.x, count * int64_t(sizeof(S)));
  return count == 1 || runs || rows;
}

template <class Reducer, class S, template <class> class Members, template <class, class, class, int> class Elements, int items = 1>
struct TeamForward : Job {
  static constexpr int threads = Members<int>::members * Members<int>::columns, channels_of_team = Members<int>::columns * items;
  static constexpr bool heavy = Reducer::careful_passes > 0;
  // 64 registers per thread; 128 for much state or float64, 255 for both.
  static constexpr int blocks =
      (1024 >> ((heavy || items > 1) + (sizeof(S) == 8 || (kTight && Reducer::has_second)))) / (threads > 256 ? threads : 256);
  using T = Accumulated<S>;
  using State = typename SharedWindows<Reducer>::type::template State<T>;

  using Job::Job;
  // The bins of a plane follow each other, so that the levels of a pyramid find the plane in the cache; or those of a sample, of
  // which teams of several channels share sectors.
  void finish(int64_t) { units = Units(p.samples, ceil_div(p.channels, channels_of_team), bins, items > 1); }

  template <int pass, class Visit, class Team>
  static FASTPOOL_HD void run(Visit& elements, State (&states)[items], const Team& team, const Facts<T> (&facts)[items]) {
    if constexpr (pass < Reducer::passes) {
      elements.template visit<pass, Members<int>::members>();
      FASTPOOL_UNROLL
      for (int i = 0; i < items; ++i) states[i].template share<pass>(team, facts[i]);
      run<pass + 1>(elements, states, team, facts);
    }
  }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread& thread, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int l = level_of(unit.inside);
    const Members<Thread> members{thread};
    const int32_t channels = int32_t(p.channels), c = unit.group * channels_of_team + members.column() * items;
    const bool writes = members.member() == 0 && c < channels;
    const Window window(*this, unit.n, least(c, channels - items), l, unit.inside - fast[l].first);
    if (Reducer::uses_uniform && window.taps() <= kMostSequentialTaps) {
      // Bins of both kinds: small ones are summed in order.
      if (writes) lone_window<Reducer, S>(*this, window.n, c, l, window.bin);
      return;
    }
    Facts<T> facts[items];
    State states[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      facts[i] = facts_of_window<Reducer, T>(*this, window, window.c + i);
      states[i].start(window.first_tap(), p);
    }
    const S* plane = static_cast<const S*>(p.x) + window.n * p.input.sample + times(window.c, p.input.channel);
    Elements<Reducer, S, State, items> elements(*this, window, plane, members.member(), states);
    run<0>(elements, states, Team<Members<Thread>>{members}, facts);
    if (!writes) return;
    unsigned odd = 0;  // channels whose window the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      if (heavy && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    store_window<Reducer, S, (items > 1)>(*this, window, items, states);
    if constexpr (heavy) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) lone_window<typename LargeWindows<Reducer>::type, S>(*this, window.n, c + i, l, window.bin);
    }
  }
};

}  // namespace fastpool::cuda
