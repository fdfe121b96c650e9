// Backward of averages of bins over small contiguous planes: all rows of a cell (cells.h) have the same gradients. Every row of
// bins is spread over the columns that they see, where lanes are columns; then rows of the planes add those up that see them.
#pragma once

#include "cpu/kernels/cells.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

template <class Gradient, class S>
class CellsBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kRegisterBytes / int(sizeof(T));
  using V = Lanes<T, L>;

  CellsBackward(const Problem& p, const Units& units, Arena arena)
      : p(p),
        rows(p, 1, arena),
        tiles(ceil_div(p.extent[2], L)),
        g_end(static_cast<const S*>(p.g) + p.samples * p.channels * p.bins),
        slots(arena.take<T>(units.most_channels() * (p.bins + L))),
        divisors(arena.take<T>(p.bins + L)),
        picks(arena.take<Pick>(p.level_count * tiles * kMostSeen)),
        spread(arena.take<T>(p.bin_rows * tiles * L)),
        sources(arena.take<const T*>(rows.parts() * p.level_count * kMostSeen)),
        ends(arena.take<int32_t>(rows.parts())) {
    fill_run(divisors, T(1), p.bins + L);
    int32_t listed = 0;
    for (int64_t part = 0; part < rows.parts(); ++part) {
      for (int32_t l = 0; l < p.level_count; ++l) {
        const Range h = p.levels[l].grid.axis[1].covers(rows.begin(part));
        for (int64_t o = h.begin; o < h.end; ++o) sources[listed++] = spread + (p.levels[l].first_row + o) * tiles * L;
      }
      ends[part] = listed;
    }
    for (int32_t l = 0; l < p.level_count; ++l) {
      const Level& level = p.levels[l];
      for (int64_t bin = 0; bin < level.grid.bins(); ++bin) {
        const int64_t across = level.grid.axis[2].out, o[3] = {0, bin / across, bin % across};
        divisors[level.first_bin + bin] = divisor_of<T>(p, level.grid, o);
      }
      for (int64_t tile = 0; tile < tiles; ++tile)
        for (int which = 0; which < kMostSeen; ++which) picks[(l * tiles + tile) * kMostSeen + which] = pick_of(level, tile, which);
    }
  }

  void run(const Units::Unit& unit) const {
    FASTPOOL_ASSERT(unit.last_row - unit.first_row == p.extent[1]);
    // All of them first: what has just been stored in other pieces than those that are read is late.
    for (int64_t c = 0; c < unit.channels; ++c)
      for (int32_t l = 0; l < p.level_count; ++l) prepare(p.levels[l], unit.n, unit.c + c, slots + c * (p.bins + L));
    S* gx = static_cast<S*>(p.gx) + p.input.at(unit.n, unit.c, 0);
    for (int64_t c = 0; c < unit.channels; ++c, gx += p.positions()) {
      for (int32_t l = 0; l < p.level_count; ++l) spread_rows(p.levels[l], slots + c * (p.bins + L), picks + l * tiles * kMostSeen);
      const bool all = (c + 1 < unit.channels ? p.positions() : 0) + p.extent[2] >= L;
      for (int64_t tile = 0; tile < tiles; ++tile) all ? store_columns<true>(gx, tile) : store_columns<false>(gx, tile);
    }
  }

 private:
  // Bins at least two elements wide, of which as many see an element.
  static constexpr int kMostSeen = 2;
  // Which of neighbouring outputs each lane of a tile gets, from `first` of a row on; some get none.
  struct Pick {
    Tap<T> lane[L], exists[L];
    int64_t first;
    bool any;
  };

  const Problem& p;
  Cuts rows;
  int64_t tiles;
  const S* g_end;
  // Of all bins, and a few that do not exist; the former of one plane after another.
  T *slots, *divisors;
  Pick* picks;
  T* spread;          // the columns of every row of bins
  const T** sources;  // of every part of the rows the rows of bins that see it
  int32_t* ends;

  int64_t column_of(int64_t tile) const { return smaller(tile * L, larger(p.extent[2] - L, 0)); }

  Pick pick_of(const Level& level, int64_t tile, int which) const {
    const Axis& w = level.grid.axis[2];
    const int64_t column = column_of(tile);
    Pick pick;
    pick.first = w.covers(column).begin;
    pick.any = false;
    for (int64_t i = 0; i < L; ++i) {
      const Range seen = w.covers(smaller(column + i, w.in - 1));
      const bool exists = seen.begin + which < seen.end;
      FASTPOOL_ASSERT(seen.end - seen.begin <= kMostSeen && (!exists || seen.begin + which - pick.first < L));
      pick.lane[i] = exists ? Tap<T>(seen.begin + which - pick.first) : 0;
      pick.exists[i] = exists ? -1 : 0;
      pick.any |= exists;
    }
    return pick;
  }

  // What the bins of a level give to each of their elements. Those behind them are replaced by the next level's.
  void prepare(const Level& level, int64_t n, int64_t c, T* slots) const {
    const S* g = static_cast<const S*>(p.g) + level.output_base + level.output.at(n, c, 0);
    FASTPOOL_ASSERT(level.output.position == 1);
    for (int64_t bin = 0, bins = level.grid.bins(); bin < bins; bin += L) {
      OutputFacts<V> output;
      output.g = g + bin + L <= g_end ? load<T, L>(g + bin) : load_part<T, L>(g + bin, bins - bin);
      Facts<V> facts;
      facts.divisor = load<T, L>(divisors + level.first_bin + bin);
      store(slots + level.first_bin + bin, Gradient::share(Gradient::prepare(output, facts, p)));
    }
  }
  void spread_rows(const Level& level, const T* slots, const Pick* pick) const {
    const int64_t across = level.grid.axis[2].out;
    for (int64_t tile = 0; tile < tiles; ++tile, pick += kMostSeen) {
      const T* from = slots + level.first_bin + pick->first;
      T* to = spread + (level.first_row * tiles + tile) * L;
      for (int64_t row = 0; row < level.grid.rows(); ++row, from += across, to += tiles * L) {
        const V outputs = load<T, L>(from);
        V sum = picked(outputs, pick[0]);
        if (pick[1].any) sum = sum + picked(outputs, pick[1]);
        store(to, sum);
      }
    }
  }
  static FASTPOOL_HD V picked(V outputs, const Pick& pick) {
    const Tap<V> lanes = load<Tap<T>, L>(pick.lane), exists = load<Tap<T>, L>(pick.exists);
    return from_bits(bits_of(outputs.picked(lanes)) & exists.template as<typename V::Unsigned>());
  }

  // The columns of a tile, of all rows of a plane, and what is behind them, which the next row or plane replaces; or no more.
  template <bool all>
  void store_columns(S* gx, int64_t tile) const {
    const int64_t width = p.extent[2], column = column_of(tile);
    const T* const* source = sources;
    for (int64_t part = 0, row = 0; part < rows.parts(); ++part) {
      V sum(T(0));
      for (const T* const* last = sources + ends[part]; source < last; ++source) sum = sum + load<T, L>(*source + tile * L);
      const int64_t end = rows.begin(part + 1);
      S* to = gx + row * width + column;
      for (; row < end; ++row, to += width) {
        if constexpr (all)
          store(to, sum);
        else
          store_part(to, 1, sum, width - column);
      }
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
