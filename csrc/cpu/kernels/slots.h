// Backward: what is known of an output, prepared once and then read for every element that it sees. Every input
// gradient is gathered from the outputs that see it, in their row-major order, and written once.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class V>
struct Prepared {
  Slot<V> slot;
  Tap<V> tap;
};

// Prepares L outputs, which load(type, from, whether it was saved) finds.
template <class Gradient, class S>
FASTPOOL_HD auto prepared_by(const Problem& p, const Level& level, int64_t out, int64_t saved,
                        const Facts<Lanes<Accumulated<S>, kLanes<Accumulated<S>>>>& facts, const auto& load) {
  using T = Accumulated<S>;
  using V = Lanes<T, kLanes<T>>;
  OutputFacts<V> output;
  output.g = load(T(), static_cast<const S*>(p.g) + level.output_base + out, false);
  if (Gradient::uses_second && !p.mixes) output.g_second = load(T(), static_cast<const S*>(p.g_second) + level.second_base + out, false);
  Tap<V> tap(Tap<T>(0));
  if constexpr (Gradient::uses_taps)
    tap = p.tap_bytes == 1 ? load(Tap<T>(), static_cast<const uint8_t*>(p.taps) + saved, true)
                           : load(Tap<T>(), static_cast<const int32_t*>(p.taps) + saved, true);
  if constexpr (Gradient::uses_input) {
    output.y = load(T(), static_cast<const S*>(p.y) + level.output_base + out, false);
    for (int which = 0; which < 2; ++which)
      output.moment[which] = load(T(), static_cast<const T*>(p.moments) + which * p.moments_size + saved, true);
  }
  return Prepared<V>{Gradient::prepare(output, facts, p), tap};
}
// `count` <= L of them, neighbours of which lie `step` apart: channels of one bin, or bins of one row.
template <class Gradient, class S>
FASTPOOL_HD auto prepared(const Problem& p, const Level& level, int64_t out, int64_t step, int64_t saved, int64_t saved_step, int64_t count,
                     const Facts<Lanes<Accumulated<S>, kLanes<Accumulated<S>>>>& facts) {
  return prepared_by<Gradient, S>(p, level, out, saved, facts, [&](auto type, const auto* from, bool is_saved) FASTPOOL_STEP {
    return load_apart<decltype(type), kLanes<decltype(type)>>(from, is_saved ? saved_step : step, count);
  });
}

// Element `at` of the input, where the gradient reads any.
template <class Gradient, class S>
FASTPOOL_HD const S* input_of(const Problem& p, int64_t at) {
  return Gradient::uses_input ? static_cast<const S*>(p.x) + at : nullptr;
}

// Columns of the input whose gradients are computed before those beside them.
using Columns = Range;

// Columns below which a tile has the same outputs all over again, or lanes without work.
template <class T>
int64_t least_columns(const Problem& p) {
  int64_t least = 1;
  for (int32_t l = 0; l < p.level_count; ++l) {
    const Axis& w = p.levels[l].grid.axis[2];
    const bool apart = w.adaptive() || w.stride >= w.extent();
    least = larger(least, apart ? smaller(ceil_div(w.in, w.out), kLanes<T>) : larger(w.extent(), w.stride * kLanes<T>));
  }
  return least;
}

// Slots and taps of many outputs, one array each.
template <class Gradient, class T>
struct SlotArrays {
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  static constexpr bool marks = Gradient::uses_taps || Gradient::uses_input;                        // taps, or 0 where there is an output
  static constexpr int64_t bytes = Gradient::slots * int64_t(sizeof(T)) + int64_t(sizeof(Tap<T>));  // of one output
  T* values[Gradient::slots];
  Tap<T>* taps;

  FASTPOOL_HD SlotArrays(Arena& arena, int64_t count) {
    for (T*& value : values) value = arena.take<T>(count);
    taps = arena.take<Tap<T>>(count);
  }
  // Outputs that do not exist: they give nothing to anyone.
  FASTPOOL_HD void clear(int64_t from, int64_t count) const {
    for (T* value : values) fill_run(value + from, T(0), count);
    fill_run(taps + from, Tap<T>(-1), count);
  }
  FASTPOOL_HD void set(int64_t at, const Prepared<V>& output, int64_t count) const {
    store_part(values[0] + at, 1, output.slot.a, count);
    if constexpr (Gradient::slots > 1) store_part(values[1] + at, 1, output.slot.b, count);
    if constexpr (Gradient::slots > 2) store_part(values[2] + at, 1, output.slot.c, count);
    if constexpr (marks) store_part(taps + at, 1, output.tap, count);
  }
  // One output for all lanes.
  FASTPOOL_HD Prepared<V> spread(int64_t at) const {
    return {{V(values[0][at]), V(values[Gradient::slots > 1 ? 1 : 0][at]), V(values[Gradient::slots > 2 ? 2 : 0][at])},
            Tap<V>(marks ? taps[at] : Tap<T>(0))};
  }
  // The terms of outputs that exist, picked from those of `lanes` from `at` on.
  template <int lanes>
  FASTPOOL_HD auto term(const Problem& p, Lanes<T, lanes> x, Tap<Lanes<T, lanes>> here, int64_t at, const auto& pick) const {
    using V = Lanes<T, lanes>;
    const V zero(T(0));
    Slot<V> slot{pick(load<T, lanes>(values[0] + at)), zero, zero};
    if constexpr (Gradient::slots > 1) slot.b = pick(load<T, lanes>(values[1] + at));
    if constexpr (Gradient::slots > 2) slot.c = pick(load<T, lanes>(values[2] + at));
    Tap<V> tap(Tap<T>(0));
    if constexpr (Gradient::uses_taps) tap = pick(load<Tap<T>, lanes>(taps + at));
    return Gradient::term(x, here, slot, tap, p);
  }
  // The term of an element that was selected or shares.
  FASTPOOL_HD T one_term(const Problem& p, Tap<T> here, int64_t at) const {
    return Gradient::term(T(0), here, Slot<T>{values[0][at], values[Gradient::slots > 1 ? 1 : 0][at], T(0)}, taps[at], p);
  }
  FASTPOOL_HD V term(const Problem& p, V x, Tap<V> here, int64_t at) const {
    const V zero(T(0));
    Slot<V> slot{load<T, L>(values[0] + at), zero, zero};
    if constexpr (Gradient::slots > 1) slot.b = load<T, L>(values[1] + at);
    if constexpr (Gradient::slots > 2) slot.c = load<T, L>(values[2] + at);
    Tap<V> tap(Tap<T>(0));
    if constexpr (marks) tap = load<Tap<T>, L>(taps + at);
    const V term = Gradient::term(x, here, slot, tap, p);
    if constexpr (Gradient::uses_input) return select(tap < Tap<V>(Tap<T>(0)), zero, term);
    return term;
  }
};

// Consecutive rows of outputs are found again by their index modulo `count`.
struct OutputRows {
  int64_t depth, height;

  FASTPOOL_HD explicit OutputRows(const Grid& grid) : depth(grid.axis[0].most_covers()), height(grid.axis[1].most_covers()) {}
  FASTPOOL_HD int64_t count() const { return depth * height; }
  // Division of 32 bits takes a fraction of the time.
  static FASTPOOL_HD int64_t index(int64_t row, int64_t size) {
    if (size == 1) return 0;
    return row <= int64_t(UINT32_MAX) ? uint32_t(row) % uint32_t(size) : row % size;
  }
  FASTPOOL_HD int64_t slot(int64_t d, int64_t h) const { return index(d, depth) * height + index(h, height); }
};

// As many of `columns`, halved, as let the slots of all outputs that see them, of `channels` each, and `column_bytes` for
// each column fit `most` bytes.
template <class Gradient, class T>
int64_t columns_within(const Problem& p, int64_t columns, int64_t channels, int64_t column_bytes, int64_t most) {
  const auto bytes = [&] {
    int64_t outputs = 0;
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Grid& grid = p.levels[l].grid;
      outputs += OutputRows(grid).count() * grid.axis[2].most_covers(columns);
    }
    return outputs * channels * SlotArrays<Gradient, T>::bytes + columns * column_bytes;
  };
  while (columns > least_columns<T>(p) && bytes() > most) columns = ceil_div(columns, 2);
  return columns;
}

// A row of outputs that sees the row of the input at hand: where its slots are, and which row of taps that is for it.
struct OutputRow {
  int64_t at, tap;
};
// Lists those that see row i, whose slots are at row(d, h); returns how many there are.
template <class Row>
int64_t list_rows(const Grid& grid, const int64_t i[2], OutputRow* to, const Row& row) {
  const Axis* axis = grid.axis;
  const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
  int64_t count = 0;
  for (int64_t o = d.begin; o < d.end; ++o)
    for (int64_t q = h.begin; q < h.end; ++q) {
      const int64_t tap_d = axis[0].tap_of(o, i[0]), tap_h = axis[1].tap_of(q, i[1]);
      FASTPOOL_ASSERT(count < OutputRows(grid).count());
      if (tap_d >= 0 && tap_h >= 0) to[count++] = {row(o, q), tap_d * axis[1].taps(q) + tap_h};
    }
  return count;
}

// Which rows of the input are seen by the same outputs as the row before them.
class RepeatedRows {
 public:
  // None, if they do not `matter`.
  RepeatedRows(const Problem& p, bool matter, Arena& arena)
      : p(p), matter(matter), listed(matter ? smaller(p.extent[1], kMostListed) : 0), list(arena.take<bool>(listed)) {
    for (int64_t j = 0; j < listed; ++j) list[j] = repeats(j);
  }
  bool holds(int64_t row) const {
    if (!matter) return false;
    const int64_t j = row % p.extent[1];
    return j < listed ? list[j] : repeats(j);
  }
  // Whether most rows are.
  bool prevail() const {
    bool all = matter;
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Axis& axis = p.levels[l].grid.axis[1];
      all &= 2 * axis.out <= axis.in && (axis.adaptive() || axis.dilation == 1);
    }
    return all;
  }

 private:
  static constexpr int64_t kMostListed = 4096;
  const Problem& p;
  bool matter;
  int64_t listed;
  bool* list;

  bool repeats(int64_t j) const {
    bool same = j > 0;
    for (int32_t l = 0; l < p.level_count && same; ++l) {
      const Axis& axis = p.levels[l].grid.axis[1];
      const Range now = axis.covers(j), before = axis.covers(j - 1);
      same = (axis.adaptive() || axis.dilation == 1) && now.begin == before.begin && now.end == before.end;
    }
    return same;
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
