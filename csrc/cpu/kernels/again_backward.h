// Backward of 2x2 windows side by side whose results were not kept: they are found again from the elements, which the
// gradient takes anyway.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Gradient, class S>
class PooledAgain {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  PooledAgain(const Problem& p, const Units&, Arena)
      : p(p), level(p.levels[0]), h(level.grid.axis[1]), w(level.grid.axis[2]), streams(exceeds_caches<S>(p)) {}

  // A window's rows belong to the unit that has the first of them.
  void run(const Units::Unit& unit) const {
    const int64_t height = p.extent[1], pooled = 2 * h.out, block = p.lanes_are_channels ? unit.channels : 1;
    for (int64_t c = unit.c; c < unit.c + unit.channels; c += block)
      for (int64_t row = unit.first_row, rows; row < unit.last_row; row += rows) {
        const int64_t line = row % height;
        const Place at{unit.n, c, {row / height, line / 2, 0}};
        rows = 1;
        if (line >= pooled)
          clear_columns<S>(p, p.input.at(unit.n, c, row * p.extent[2]), p.extent[2], block);
        else if (line % 2)
          continue;
        else if (!p.lanes_are_channels)
          rows = 2 * run_rows(at, smaller(pooled - line, unit.last_row - row) / 2 - 1, (unit.last_row - row) * p.extent[2]);
        else if (block >= L)
          run_channels<true>(at, block);
        else
          run_channels<false>(at, block);
      }
  }

 private:
  using Forward = typename Gradient::Forward;
  using State = typename Forward::template State<V>;
  const Problem& p;
  const Level& level;
  const Axis &h, &w;
  bool streams;

  int64_t first_of(const Place& at) const { return p.input.at(at.n, at.c, (at.o[0] * p.extent[1] + 2 * at.o[1]) * p.extent[2]); }

  // The gradients of x, of windows one in each lane; stores them, and again(i) those of lanes beyond the fast arithmetic.
  FASTPOOL_HD void run_windows(const V (&x)[4], V g, const Facts<V>& facts, int64_t count, const auto& store_all, const auto& again) const {
    constexpr int last = Forward::passes - 1;
    State state;
    V weights[4], gx[4];
    state.start(Tap<V>(Tap<T>(0)), p);
    for_each_pass<0, last>(Held<V, State, 4>{p, facts, state, x});
    if constexpr (last > 0) state.template begin<last>(facts, p);
    unrolled<4>([&](auto k) FASTPOOL_STEP {
      weights[k] = state.weight(x[k]);
      state.add_weighted(weights[k], x[k]);
    });
    const auto odd = odd_lanes(state, count);
    state.finish(facts);
    unrolled<4>([&](auto k) FASTPOOL_STEP { gx[k] = V(T(0)) + Gradient::again(x[k], weights[k], g, state); });
    store_all(gx);
    repair(odd, count, again);
  }
  // Of one window.
  void run_exact(const Place& at) const {
    for (int64_t tap = 0; tap < 4; ++tap) {
      const int64_t i[3] = {at.o[0], 2 * at.o[1] + tap / 2, 2 * at.o[2] + tap % 2};
      const int64_t element = p.input.at(at.n, at.c, (i[0] * p.extent[1] + i[1]) * p.extent[2] + i[2]);
      static_cast<S*>(p.gx)[element] = Narrow<S>::from(T(backward_exact<Gradient>(p, level, at.n, at.c, i, 0)));
    }
  }

  // One row of outputs, or two if they are short and `more` of them follow; returns how many. Rows of the input may be
  // followed by junk, which later ones replace: `room` elements may be written.
  int64_t run_rows(const Place& at, int64_t more, int64_t room) const {
    const int64_t width = p.extent[2], out = level.output.at(at.n, at.c, level.bin(at.o)), first = first_of(at);
    const int64_t results = p.samples * p.channels * p.bins - out, elements = p.samples * p.channels * p.positions() - first;
    const auto fits = [&](int64_t inputs, int64_t outputs) { return inputs <= elements && inputs <= room && outputs <= results; };
    const bool paired = w.out <= L / 2 && more > 0 && !p.parameter_view.position && fits(3 * width + L, w.out + L / 2);
    for (int64_t done = 0; done < w.out; done += L) {
      done = smaller(done, larger(w.out - L, 0));
      const Place from{at.n, at.c, {at.o[0], at.o[1], done}};
      if (paired)
        run_outputs<Run::pair>(from, first, out);
      else if (fits(width + 2 * (done + L), done + L))
        run_outputs<Run::whole>(from, first + 2 * done, out + done);
      else
        run_outputs<Run::part>(from, first + 2 * done, out + done);
    }
    const int64_t lines = paired ? 2 : 1;
    for (int row = 0; row < 2 * lines; ++row) clear_columns<S>(p, first + row * width + 2 * w.out, width - 2 * w.out, 1);
    return lines;
  }
  // L neighbours; those that exist, where no more may be read or written; or two rows of up to L / 2.
  enum class Run { whole, part, pair };
  template <Run run>
  void run_outputs(const Place& at, int64_t first, int64_t out) const {
    constexpr bool paired = run == Run::pair;
    const int64_t width = p.extent[2], outputs = smaller(L, w.out - at.o[2]), elements = smaller(2 * L, width - 2 * at.o[2]);
    const S *x = static_cast<const S*>(p.x) + first, *g = static_cast<const S*>(p.g) + level.output_base + out;
    S* gx = static_cast<S*>(p.gx) + first;
    V window[4];
    unrolled<2>([&](auto row) FASTPOOL_STEP {
      const S* from = x + row * width;
      if constexpr (run == Run::part) {
        V pair[2];
        load_phases(from, pair, elements);
        window[2 * row] = pair[0], window[2 * row + 1] = pair[1];
      } else {
        load_pairs(from, paired ? 2 * width : L, window[2 * row], window[2 * row + 1]);
      }
    });
    const V grad = paired ? V(load<T, L / 2>(g), load<T, L / 2>(g + w.out)) : load_apart<T, L>(g, 1, run == Run::part ? outputs : L);
    Facts<V> facts;
    if constexpr (Forward::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c, level.bin(at.o), false, outputs);
    run_windows(
        window, grad, facts, paired ? L : outputs,
        [&](V* all) FASTPOOL_STEP {
          if constexpr (paired) {
            unrolled<2>([&](auto row) FASTPOOL_STEP { store_pairs(gx + row * width, all[2 * row].lo, all[2 * row + 1].lo); });
            unrolled<2>([&](auto row) FASTPOOL_STEP { store_pairs(gx + (2 + row) * width, all[2 * row].hi, all[2 * row + 1].hi); });
          } else {
            unrolled<2>([&](auto row) FASTPOOL_STEP {
              V pair[2] = {all[2 * row], all[2 * row + 1]};
              store_phases(gx + row * width, pair, run == Run::part ? elements : 2 * L);
            });
          }
        },
        [&](int64_t i) {
          const int64_t line = paired ? i / (L / 2) : 0, o = paired ? i % (L / 2) : at.o[2] + i;
          if (o < w.out) run_exact({at.n, at.c, {at.o[0], at.o[1] + line, o}});
        });
  }

  // The same of channels-last input, L channels at a time or fewer.
  template <bool whole>
  void run_channels(Place at, int64_t channels) const {
    const int64_t first = first_of(at), out = level.output.at(at.n, at.c, level.bin(at.o)), row = p.extent[2] * p.input.position;
    const int64_t count = whole ? L : channels;
    for (at.o[2] = 0; at.o[2] < w.out; ++at.o[2]) {
      const int64_t o = at.o[2];
      const S* x = static_cast<const S*>(p.x) + first + 2 * o * p.input.position;
      const S* g = static_cast<const S*>(p.g) + level.output_base + out + o * level.output.position;
      S* gx = static_cast<S*>(p.gx) + first + 2 * o * p.input.position;
      for (int64_t tile = 0; tile < channels; tile += L) {
        const int64_t c = whole ? smaller(tile, channels - L) : 0;
        const auto at_tap = [&](auto k) FASTPOOL_STEP { return c + (k / 2) * row + (k % 2) * p.input.position; };
        V window[4];
        unrolled<4>([&](auto k) FASTPOOL_STEP { window[k] = load_apart<T, L>(x + at_tap(k), 1, count); });
        Facts<V> facts;
        if constexpr (Forward::uses_parameter) facts.parameter = parameter_lanes<T>(p, at.n, at.c + c, level.bin(at.o), true, count);
        run_windows(
            window, load_apart<T, L>(g + c, 1, count), facts, count,
            [&](V* all)
                FASTPOOL_STEP { unrolled<4>([&](auto k) FASTPOOL_STEP { store_neighbours(gx + at_tap(k), all[k], count, streams); }); },
            [&](int64_t i) { run_exact({at.n, at.c + c + i, {at.o[0], at.o[1], o}}); });
      }
    }
    for (int line = 0; line < 2; ++line)
      clear_columns<S>(p, first + line * row + 2 * w.out * p.input.position, p.extent[2] - 2 * w.out, channels);
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
