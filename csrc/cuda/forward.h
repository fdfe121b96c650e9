// The forward body for windows of any kind: a thread for the same bin of a few channels.
#pragma once

#include "cuda/job.h"

namespace fastpool::cuda {

// Channels of one thread. They share the geometry of their windows, and their loads are in flight together: 16 bytes
// where they are neighbours. More, or as many of a reducer with much state, take more than 128 registers.
template <class S, bool heavy, bool side_by_side>
constexpr int kItems = sizeof(S) == 8 || heavy          ? 2
                       : side_by_side && sizeof(S) == 2 ? 8
                                                        : 4;
// Blocks of 256 threads that shall fit a multiprocessor together: 80 registers per thread, 128 or 255.
template <class S, bool heavy>
constexpr int kBlocks = 3 - (sizeof(S) == 8) - heavy;

// Where code takes a few registers more.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ <= 800 || __CUDA_ARCH__ >= 1200)
constexpr bool kTight = true;
#else
constexpr bool kTight = false;
#endif

// Where a window lies: its sample, first channel, level and place in it.
struct Window {
  int64_t n;
  int32_t c, l, o[3], bin;
  FastSpan d, h, w;

  FASTPOOL_HD Window(const Job& job, int64_t n, int32_t c, int32_t l, int32_t bin) : n(n), c(c), l(l), bin(bin) {
    const FastLevel& level = job.fast[l];
    level.place(bin, o);
    d = level.axis[0].window(o[0]);
    h = level.axis[1].window(o[1]);
    w = level.axis[2].window(o[2]);
  }
  FASTPOOL_HD int32_t taps() const { return d.size * h.size * w.size; }
  FASTPOOL_HD int32_t first_tap() const { return (d.first * h.size + h.first) * w.size + w.first; }
};

template <class Pooling, class T>
FASTPOOL_HD Facts<T> facts_at(const Job& job, int l, int64_t n, int32_t c, int32_t bin, int32_t divisor) {
  Facts<T> facts{T(1), T(0), T(0)};
  const int64_t position = job.levels[l].first_bin + bin;
  if constexpr (Pooling::uses_divisor) facts.divisor = job.p.divisor_override ? T(job.p.divisor_override) : T(divisor);
  if constexpr (Pooling::uses_parameter) facts.parameter = parameter_of<T>(job.p, n, c, position);
  if constexpr (Pooling::uses_uniform) {
    // As uniform_of, without an array that is indexed at run time.
    const Words words = draws_of(job.p, job.p.seed_now(), n, c, position / 4);
    const uint32_t low = position % 2 ? words.word[1] : words.word[0], high = position % 2 ? words.word[3] : words.word[2];
    facts.uniform = T(uniform(position % 4 < 2 ? low : high));
  }
  return facts;
}

template <class Reducer, class T>
FASTPOOL_HD Facts<T> facts_of_window(const Job& job, const Window& window, int32_t c) {
  int32_t divisor = 1;
  if constexpr (Reducer::uses_divisor)
    divisor = job.p.include_pad ? job.fast[window.l].divisor(window.o, true) : window.d.count * window.h.count * window.w.count;
  return facts_at<Reducer, T>(job, window.l, window.n, c, window.bin, divisor);
}

// Visits one window of `items` channels, row by row, up to `width` columns at a time.
template <class Reducer, class State, class S, int items, bool side_by_side, int width = 3>
struct Walk {
  using T = Accumulated<S>;
  const Job& job;
  const Window& window;
  State (&states)[items];
  const char* x[items];  // the channels' planes, and bytes between elements: one multiplication gives an address
  uint32_t stride;

  FASTPOOL_HD Walk(const Job& job, const Window& window, int count, State (&states)[items])
      : job(job), window(window), states(states), stride(uint32_t(job.p.input.position) * uint32_t(sizeof(S))) {
    const S* first = static_cast<const S*>(job.p.x) + window.n * job.p.input.sample + times(window.c, job.p.input.channel);
    // A channel past the last reads the last one again, which spares every use of it a branch.
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) x[i] = reinterpret_cast<const char*>(first + times(i < count ? i : count - 1, job.p.input.channel));
  }
  FASTPOOL_HD const S* at(int i, int32_t position) const { return reinterpret_cast<const S*>(x[i] + uint64_t(uint32_t(position)) * stride); }

  // Up to `columns` elements of `rows` rows, all loaded before the first is used.
  template <int pass, int rows, int columns>
  FASTPOOL_HD void add(int32_t position, int32_t elements, int32_t tap) {
    const FastAxis* axis = job.fast[window.l].axis;
    const int32_t below = axis[1].dilation * axis[2].in;
    S values[rows][columns][items];
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; ++k) {
        if (k >= elements) continue;
        const int32_t here = position + r * below + k * axis[2].dilation;
        if constexpr (side_by_side) {
          load<true>(values[r][k], at(0, here), 1, items);
        } else {
          FASTPOOL_UNROLL
          for (int i = 0; i < items; ++i) values[r][k][i] = read(at(i, here));
        }
      }
    }
    FASTPOOL_UNROLL
    for (int r = 0; r < rows; ++r) {
      FASTPOOL_UNROLL
      for (int k = 0; k < columns; ++k) {
        if (k >= elements) continue;
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) states[i].template add<pass>(widened(values[r][k][i]), Tap<T>(tap + r * window.w.size + k));
      }
    }
  }
  template <int pass, bool is_last>
  FASTPOOL_HD void visit() {
    const FastAxis* axis = job.fast[window.l].axis;
    const FastSpan &d = window.d, &h = window.h, &w = window.w;
    // A window that a lone thread walks again may be of any size.
    const bool blocks = items == 1 && width == 1 && is_last && Reducer::long_sums > 0 && window.taps() > kMostSequentialTaps;
    Totals<Reducer, T> totals;
    totals.start(states[0]);
    for (int32_t i = 0; i < d.count; ++i)
      for (int32_t j = 0; j < h.count; ++j) {
        const int32_t row = (d.start + i * axis[0].dilation) * axis[1].in + h.start + j * axis[1].dilation;
        const int32_t tap = ((d.first + i) * h.size + h.first + j) * w.size + w.first, position = row * axis[2].in + w.start;
        // Windows of 2 x 2, or of three columns at most, are most of those there are.
        if (side_by_side && Reducer::careful_passes == 0 && w.size == 2 && j + 1 < h.count) {
          add<pass, 2, 2>(position, w.count, tap);
          ++j;
        } else if (w.size == width) {
          add<pass, 1, width>(position, w.count, tap);
        } else {
          constexpr int step = width < 2 ? width : 2;
          for (int32_t k = 0; k < w.count; k += step) {
            add<pass, 1, step>(position + k * axis[2].dilation, w.count - k, tap + k);
            if (blocks && (k + 1) % kBlockSum == 0) totals.take(states[0]);
          }
        }
        if (blocks) totals.take(states[0]);
      }
    if (blocks) totals.give(states[0]);
  }
  template <int pass, int passes>
  FASTPOOL_HD void run(const Facts<T> (&facts)[items]) {
    if constexpr (pass < passes) {
      if constexpr (pass > 0) {
        FASTPOOL_UNROLL
        for (int i = 0; i < items; ++i) states[i].template begin<pass>(facts[i], job.p);
      }
      visit<pass, pass + 1 == passes>();
      run<pass + 1, passes>(facts);
    }
  }
};

// Values of `items` channels from member functions of their states.
template <class To, int items, class State, class Value>
FASTPOOL_HD void gather(To (&to)[items], const State (&states)[items], Value value) {
  FASTPOOL_UNROLL
  for (int i = 0; i < items; ++i) to[i] = value(states[i]);
}

// The results of `count` outputs that lie `step` apart, and `saved_step` in what is saved.
template <class Reducer, class S, bool side_by_side, int items, class State>
FASTPOOL_HD void store_results(const Job& job, const Level& level, int64_t out, int32_t step, int64_t saved, int32_t saved_step, int count,
                          const State (&states)[items]) {
  using T = Accumulated<S>;
  const Problem& p = job.p;
  S y[items];
  T values[items];
  gather(y, states, [](const State& state) { return narrowed<S>(state.y()); });
  if constexpr (Reducer::has_second)
    if (p.mixes) gather(y, states, [](const State& state) { return narrowed<S>(state.mixture()); });
  store<side_by_side>(static_cast<S*>(p.y) + level.output_base + out, y, step, count);
  if constexpr (Reducer::has_second) {
    if (!p.mixes) {
      gather(y, states, [](const State& state) { return narrowed<S>(state.second()); });
      store<side_by_side>(static_cast<S*>(p.second) + level.second_base + out, y, step, count);
    }
  }
  if constexpr (Reducer::saves_slope) {
    if (p.slope) {
      gather(values, states, [](const State& state) { return state.slope(); });
      store<side_by_side>(static_cast<T*>(p.slope) + saved, values, saved_step, count);
    }
  }
  if constexpr (Reducer::saves_moments) {
    for (int which = 0; which < (p.moments ? 2 : 0); ++which) {
      gather(values, states, [which](const State& state) { return state.moment(which); });
      store<side_by_side>(static_cast<T*>(p.moments) + which * p.moments_size + saved, values, saved_step, count);
    }
  }
  if constexpr (Reducer::saves_taps) {
    if (p.tap_bytes == 1) {
      uint8_t taps[items];
      gather(taps, states, [](const State& state) { return uint8_t(state.tap()); });
      store<side_by_side>(static_cast<uint8_t*>(p.taps) + saved, taps, saved_step, count);
    } else if (p.tap_bytes == 4) {
      int32_t taps[items];
      gather(taps, states, [](const State& state) { return int32_t(state.tap()); });
      store<side_by_side>(static_cast<int32_t*>(p.taps) + saved, taps, saved_step, count);
    }
  }
}

template <class Reducer, class S, bool side_by_side, int items, class State>
FASTPOOL_HD void store_window(const Job& job, const Window& window, int count, const State (&states)[items]) {
  const Problem& p = job.p;
  const Level& level = job.levels[window.l];
  const int64_t out = window.n * level.output.sample + times(window.c, level.output.channel) + times(window.bin, level.output.position);
  const int64_t saved =
      window.n * p.saved.sample + times(window.c, p.saved.channel) + times(int32_t(level.first_bin) + window.bin, p.saved.position);
  store_results<Reducer, S, side_by_side>(job, level, out, int32_t(level.output.channel), saved, int32_t(p.saved.channel), count, states);
}

// One window by one thread, and where the fast arithmetic does not hold, again by Careful.
template <class Reducer, class S>
FASTPOOL_RARE void lone_window(const Job& job, int64_t n, int32_t c, int32_t l, int32_t bin) {
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;
  const Window window(job, n, c, l, bin);
  const Facts<T> facts[1] = {facts_of_window<Reducer, T>(job, window, c)};
  State state[1];
  state[0].start(window.first_tap(), job.p);
  Walk<Reducer, State, S, 1, false, 1>(job, window, 1, state).template run<0, Reducer::passes>(facts);
  if constexpr (Reducer::careful_passes > 0) {
    if (!state[0].ordinary()) {
      using Careful = typename Reducer::template Careful<T>;
      Careful careful[1];
      careful[0].start(window.first_tap(), job.p);
      Walk<Reducer, Careful, S, 1, false, 1>(job, window, 1, careful).template run<0, Reducer::careful_passes>(facts);
      careful[0].finish(facts[0]);
      return store_window<Reducer, S, false>(job, window, 1, careful);
    }
  }
  state[0].finish(facts[0]);
  store_window<Reducer, S, false>(job, window, 1, state);
}

template <class Reducer, class S, bool side_by_side>
struct ThreadForward : Job {
  static constexpr bool heavy = Reducer::careful_passes > 0;
  static constexpr bool roomy =
      heavy || (kTight && (Reducer::has_second || side_by_side)) || (side_by_side && (Reducer::has_second || sizeof(S) == 2));
  static constexpr int threads = 1, items = kItems<S, heavy, side_by_side>, blocks = kBlocks<S, roomy>;
  static constexpr int width = kTight && heavy ? 2 : 3;
  using T = Accumulated<S>;
  using State = typename Reducer::template State<T>;

  using Job::Job;
  void finish(int64_t enough_threads) { share_channels(items, bins, enough_threads); }

  template <class Thread>
  FASTPOOL_HD void operator()(const Thread&, uint32_t index) const {
    const Units::Unit unit = units.find(index);
    const int l = level_of(unit.inside);
    Window window(*this, unit.n, unit.group * items, l, unit.inside - fast[l].first);
    const int32_t channels = int32_t(p.channels), step = units.groups * items;
    for (; window.c < channels; window.c += step) one_round(window, least(items, channels - window.c));
  }
  FASTPOOL_HD void one_round(const Window& window, int count) const {
    State states[items];
    Facts<T> facts[items];
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      facts[i] = facts_of_window<Reducer, T>(*this, window, window.c + (i < count ? i : 0));
      states[i].start(window.first_tap(), p);
    }
    Walk<Reducer, State, S, items, side_by_side, width>(*this, window, count, states).template run<0, Reducer::passes>(facts);
    unsigned odd = 0;  // channels whose window the fast arithmetic does not hold for
    FASTPOOL_UNROLL
    for (int i = 0; i < items; ++i) {
      if (Reducer::careful_passes > 0 && i < count && !states[i].ordinary()) odd |= 1u << i;
      states[i].finish(facts[i]);
    }
    store_window<Reducer, S, side_by_side>(*this, window, count, states);
    if constexpr (Reducer::careful_passes > 0) {
      for (int i = 0; odd >> i; ++i)
        if (odd >> i & 1) lone_window<Reducer, S>(*this, window.n, window.c + i, window.l, window.bin);
    }
  }
};

}  // namespace fastpool::cuda
