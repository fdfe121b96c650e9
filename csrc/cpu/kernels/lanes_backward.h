// Backward whose lanes are channels: of channels-last input, and of contiguous planes that are transposed.
#pragma once

#include <new>

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// An output that sees the element at hand: where the slots of its first channel are, and the element's tap.
template <class Gradient, class T>
struct Source {
  const SlotArrays<Gradient, T>* slots;
  int64_t at;
  Tap<T> tap;
};

// Rows of outputs of one level for all channels of a unit.
template <class Gradient, class T>
class LaneTerms {
 public:
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  static FASTPOOL_HD int64_t most_sources(const Grid& grid) { return OutputRows(grid).count() * OutputRows::covering(grid.axis[2]); }

  // Lists the outputs that see column i of the row at hand, and returns where the list ends.
  Source<Gradient, T>* list(int64_t i, Source<Gradient, T>* to) const {
    const Axis& w = level.grid.axis[2];
    for (int64_t r = 0; r < count; ++r)
      for (int64_t o = covers[i].begin; o < covers[i].end; ++o) {
        int64_t tap = i + w.before - o * w.stride, size = w.kernel;
        if (w.adaptive() || w.dilation != 1) {
          tap = w.tap_of(o, i);
          if (tap < 0) continue;
          size = w.taps(o);
        }
        *to++ = {&slots, over[r].at + o * stride, Tap<T>(over[r].tap * size + tap)};
      }
    return to;
  }

 protected:
  OutputRow* over;
  int64_t count;
  const Problem& p;
  const Level& level;
  OutputRows rows;
  int64_t stride;
  SlotArrays<Gradient, T> slots;
  Range* covers;

  LaneTerms(const Problem& p, const Level& level, int64_t channels, Arena& arena)
      : p(p), level(level), rows(level.grid), stride(round_up(channels, L)), slots(arena, rows.count() * level.grid.axis[2].out * stride) {
    const Axis& w = level.grid.axis[2];
    over = arena.take<OutputRow>(rows.count());
    covers = arena.take<Range>(w.in);
    for (int64_t i = 0; i < w.in; ++i) covers[i] = w.covers(i);
  }
};

// The same, prepared as they are needed.
template <class Gradient, class S>
class PreparedLanes : public LaneTerms<Gradient, Accumulated<S>> {
 public:
  using T = Accumulated<S>;
  using Terms = LaneTerms<Gradient, T>;
  using Terms::L, Terms::over, Terms::count, Terms::p, Terms::level, Terms::rows, Terms::stride, Terms::slots;
  using typename Terms::V;

  PreparedLanes(const Problem& p, const Level& level, int64_t most_channels, Arena& arena)
      : Terms(p, level, most_channels, arena), held(arena.take<int64_t>(rows.count())), divisors(p, level, Gradient::uses_divisor, arena) {}

  void begin(const Units::Unit& now) {
    unit = now;
    for (int64_t r = 0; r < rows.count(); ++r) held[r] = -1;
  }

  int64_t row(int64_t d, int64_t h) {
    const int64_t slot = rows.slot(d, h), id = d * level.grid.axis[1].out + h, at = slot * level.grid.axis[2].out * stride;
    if (held[slot] != id) prepare(at, {unit.n, unit.c, {d, h, 0}});
    held[slot] = id;
    return at;
  }

  void move_to(const int64_t i[2]) {
    count = list_rows(level.grid, i, over, [&](int64_t d, int64_t h) { return row(d, h); });
  }

 private:
  Units::Unit unit{};
  int64_t* held;
  Divisors<T> divisors;

  void prepare(int64_t to, Place at) {
    if (Gradient::uses_divisor) divisors.move_to(at.o);
    for (at.o[2] = 0; at.o[2] < level.grid.axis[2].out; ++at.o[2]) {
      const int64_t bin = level.bin(at.o), out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
      Facts<V> facts;
      if constexpr (Gradient::uses_divisor) divisors.give_one(facts, at.o[2]);
      for (int64_t tile = 0; tile < unit.channels; tile += L) {
        const int64_t c = smaller(tile, larger(unit.channels - L, 0)), count = smaller(L, unit.channels - c);
        if constexpr (Gradient::uses_alpha) facts.alpha = alpha_lanes<T>(p, at.n, at.c + c, level.first_bin + bin, true, count);
        slots.set(to + at.o[2] * stride + c,
                  prepared<Gradient, S>(p, level, out + c * level.output.channel, level.output.channel, saved + c * p.saved.channel,
                                        p.saved.channel, count, facts),
                  count);
      }
    }
  }
};

// One row of input gradients; its columns lie `step` apart.
template <class Gradient, class T, class S>
void sum_row(const Problem& p, const LaneTerms<Gradient, T>* const* levels, Source<Gradient, T>* sources, int64_t columns, const S* x,
             S* gx, int64_t step, int64_t channels, bool streams) {
  constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  for (int64_t k = 0; k < columns; ++k) {
    const Source<Gradient, T>* end = sources;
    for (int32_t l = 0; l < p.level_count; ++l) end = levels[l]->list(k, sources + (end - sources));
    for (int64_t tile = 0; tile < channels; tile += L) {
      const int64_t c = smaller(tile, larger(channels - L, 0)), count = smaller(L, channels - c);
      V here(T(0)), sum(T(0));
      if (Gradient::uses_input) here = load_apart<T, L>(x + k * step + c, 1, count);
      for (const Source<Gradient, T>* source = sources; source != end; ++source)
        sum = sum + source->slots->term(p, here, Tap<V>(source->tap), source->at + c);
      store_neighbours(gx + k * step + c, sum, count, streams);
    }
  }
}

template <class Gradient, class S>
class LanesBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using Prepared = PreparedLanes<Gradient, S>;

  // Rows of transposed planes that are held at once.
  static int64_t held_rows(const Problem& p) { return larger(kSmallPlane / p.extent[2], 1); }

  LanesBackward(const Problem& p, const Units& units, Arena arena)
      : p(p),
        repeated(p, kShares<Gradient> && !Gradient::uses_taps, arena),
        streams(p.lanes_are_channels && !repeated.any() && exceeds_caches<S>(p)) {
    const int64_t most_channels = units.most_channels();
    stride = round_up(most_channels, L);
    levels = arena.take<Prepared>(p.level_count);
    terms = arena.take<const LaneTerms<Gradient, T>*>(p.level_count);
    int64_t most = 0;
    for (int32_t l = 0; l < p.level_count; ++l) {
      terms[l] = new (levels + l) Prepared(p, p.levels[l], most_channels, arena);
      most += Prepared::most_sources(p.levels[l].grid);
    }
    sources = arena.take<Source<Gradient, T>>(most);
    if (p.lanes_are_channels) return;
    turned = arena.take<S>(held_rows(p) * p.extent[2] * stride);
    turned_x = arena.take<S>(held_rows(p) * p.extent[2] * stride);
  }

  // Row by row of the input gradient, for the channels of one unit.
  void run(const Units::Unit& unit) {
    for (int32_t l = 0; l < p.level_count; ++l) levels[l].begin(unit);
    if (!p.lanes_are_channels) return run_planes(unit);
    const int64_t element = p.input.at(unit.n, unit.c, 0);
    for (int64_t row = unit.first_row; row < unit.last_row; ++row)
      run_row(row, row == unit.first_row, static_cast<const S*>(p.x) + element + row * p.extent[2] * p.input.position,
              static_cast<S*>(p.gx) + element + row * p.extent[2] * p.input.position, p.input.position, unit.channels);
  }

 private:
  const Problem& p;
  RepeatedRows repeated;
  bool streams;  // gradients that are not read again go past the caches
  int64_t stride;
  Prepared* levels;
  const LaneTerms<Gradient, T>** terms;
  Source<Gradient, T>* sources;
  S *turned = nullptr, *turned_x = nullptr;

  void run_row(int64_t row, bool is_first, const S* x, S* gx, int64_t step, int64_t channels) {
    if (!is_first && repeated.holds(row)) {
      const S* before = gx - p.extent[2] * step;
      const int64_t run = channels == step ? p.extent[2] * step : channels;
      for (int64_t at = 0; at < p.extent[2] * step; at += larger(run, step))
        memcpy(static_cast<void*>(gx + at), before + at, size_t(run) * sizeof(S));
      return;
    }
    const int64_t i[2] = {row / p.extent[1], row % p.extent[1]};
    for (int32_t l = 0; l < p.level_count; ++l) levels[l].move_to(i);
    sum_row(p, terms, sources, p.extent[2], x, gx, step, channels, streams);
  }

  // The same in scratch, for planes that are transposed on the way.
  void run_planes(const Units::Unit& unit) {
    for (int64_t first = unit.first_row; first < unit.last_row; first += held_rows(p)) {
      const int64_t rows = smaller(held_rows(p), unit.last_row - first), positions = rows * p.extent[2];
      const int64_t element = p.input.at(unit.n, unit.c, first * p.extent[2]);
      if (Gradient::uses_input)
        transpose(turned_x, stride, static_cast<const S*>(p.x) + element, p.input.channel, unit.channels, positions);
      for (int64_t r = 0; r < rows; ++r)
        run_row(first + r, r == 0, turned_x + r * p.extent[2] * stride, turned + r * p.extent[2] * stride, stride, stride);
      transpose(static_cast<S*>(p.gx) + element, p.input.channel, turned, stride, positions, unit.channels);
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
