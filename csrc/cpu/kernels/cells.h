// Small contiguous planes whose bins see many rows. Rows and columns are cut where bins of any level begin or end, which makes
// cells; every element is reduced into its cell once for all levels, the rows of a cell where lanes are columns and its
// columns where lanes are planes, which are transposed in between.
#pragma once

#include "cpu/kernels/channels.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Where the windows of some levels cut an axis.
class Cuts {
 public:
  Cuts(const Problem& p, int axis, Arena& arena)
      : count(0), size(p.extent[axis]), at(arena.take<int32_t>(size + 1)), part(arena.take<int32_t>(size + 1)) {
    for (int64_t i = 0; i < size; ++i) {
      if (is_cut(p, axis, i)) at[count++] = int32_t(i);
      part[i] = int32_t(count - 1);
    }
    at[count] = int32_t(size), part[size] = int32_t(count);
  }
  int64_t parts() const { return count; }
  int64_t begin(int64_t part) const { return at[part]; }
  // The parts that a window is.
  Range of(const Span& window) const { return {part[window.start], part[window.start + window.count]}; }

 private:
  int64_t count, size;
  int32_t *at, *part;

  // No part is so long that its sum has to be added up in blocks.
  bool is_cut(const Problem& p, int axis, int64_t i) const {
    bool cut = i == 0 || i - at[count - 1] == 2 * kBlockSum;
    for (int32_t l = 0; l < p.level_count && !cut; ++l) {
      const Range now = p.levels[l].grid.axis[axis].covers(i), before = p.levels[l].grid.axis[axis].covers(i - 1);
      cut = now.begin != before.begin || now.end != before.end;
    }
    return cut;
  }
};

template <class Reducer, class S>
class Cells {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  template <class U>
  using State = typename Reducer::template State<U>;

  static bool is_for(const Problem& p) {
    bool planes = has_cells(p, Reducer::parts, Reducer::any_order);
    for (int32_t l = 0; l < p.level_count; ++l) planes &= p.levels[l].forward == ForwardSchedule::planes;
    return planes;
  }
  Cells(const Problem& p, Arena& arena)
      : p(p), rows(p, 1, arena), columns(p, 2, arena), planes(p.extent[2] <= L / 2 ? 2 : 1), pitch(larger(p.extent[2], L / planes)) {
    const int64_t size = rows.parts() * pitch;
    // What stands before the first plane is written, too.
    for (T*& value : folded) value = arena.take<T>((L + planes) * size) + planes * size;
    for (T*& value : values) value = arena.take<T>(L * size);
    if constexpr (Reducer::saves_taps) {
      folded_taps = arena.take<Tap<T>>((L + planes) * size) + planes * size;
      taps = arena.take<Tap<T>>(L * size);
    }
  }

  // Those of the planes c … c + count - 1.
  void find(int64_t n, int64_t c, int64_t count) const {
    const S* x = static_cast<const S*>(p.x);
    const int64_t positions = p.positions(), size = rows.parts() * pitch, behind = larger(pitch - p.extent[2], 0);
    const S *plane = x + p.input.at(n, c, 0), *end = x + p.samples * p.channels * positions;
    for (int64_t i = 0; i < count; i += planes, plane += planes * positions) {
      ask_for_next(plane, planes * positions * int64_t(sizeof(S)));
      // Lanes beside a row have what follows it, or at the end of the tensor what comes before.
      const int64_t back = plane + planes * positions > end ? planes - 1 : 0;
      const int64_t left = plane + planes * positions + behind > end ? behind : 0;
      const S* from = plane - back * positions - left;
      planes == 2 ? fold_rows<2>(from, (i - back) * size - left) : fold_rows<1>(from, (i - back) * size - left);
    }
    for (int i = 0; i < Reducer::parts; ++i) transpose(values[i], L, folded[i], size, count, size);
    if constexpr (Reducer::saves_taps) transpose(taps, L, folded_taps, size, count, size);
    fold_columns();
  }

  // What a window comes to, the lanes of all planes.
  FASTPOOL_HD State<V> pool(const Span& d, const Span& h, const Span& w) const {
    const Range lines = rows.of(h), cells = columns.of(w);
    State<V> state;
    state.start(Tap<V>(Tap<T>(0)), p);
    for (int64_t row = lines.begin; row < lines.end; ++row) {
      Block<Reducer, V> block;
      block.begin(state, true);
      for (int64_t at = (row * pitch + cells.begin) * L, end = (row * pitch + cells.end) * L; at < end; at += L) merge(state, at, 0);
      block.end(state, true);
    }
    if constexpr (Reducer::saves_taps) {
      const Tap<V> row = (state.tap() >> kRowShift) + Tap<V>(Tap<T>(row_of_window(d, h, 0, 0) - h.start));
      const Tap<V> column = (state.tap() & Tap<V>(kColumns)) + Tap<V>(Tap<T>(w.first - w.start));
      state.hold(state.part(0), state.part(Reducer::parts - 1), row * Tap<V>(Tap<T>(w.size)) + column);
    }
    return state;
  }

 private:
  // A place in a plane, in which places are ordered as taps are.
  static constexpr int kRowShift = 16;
  static constexpr Tap<T> kColumns = (1 << kRowShift) - 1;

  const Problem& p;
  Cuts rows, columns;
  int planes;     // that share the lanes
  int64_t pitch;  // of the columns of a row of cells
  // Of one plane after another the columns of all rows of cells; the same transposed, and then cells instead of columns.
  std::array<T*, Reducer::parts> folded{}, values{};
  Tap<T>*folded_taps = nullptr, *taps = nullptr;

  template <int planes>
  void fold_rows(const S* from, int64_t to) const {
    const int64_t width = p.extent[2], positions = p.positions(), size = rows.parts() * pitch;
    for (int64_t column = 0; column < pitch; column += L) {
      const int64_t at = planes > 1 ? 0 : smaller(column, pitch - L);
      const S* row = from + at;
      for (int64_t part = 0, j = 0; part < rows.parts(); ++part) {
        State<V> state;
        state.start(Tap<V>(Tap<T>(0)), p);
        for (const int64_t end = rows.begin(part + 1); j < end; ++j, row += width)
          state.template add<0>(load_rows<planes, T, L>(row, positions), Tap<V>(Tap<T>(j << kRowShift)));
        const int64_t put_at = to + at + part * pitch;
        for (int i = 0; i < Reducer::parts; ++i) put<planes>(folded[i] + put_at, size, state.part(i));
        if constexpr (Reducer::saves_taps) put<planes>(folded_taps + put_at, size, state.tap());
      }
    }
  }
  template <int planes>
  static FASTPOOL_HD void put(auto* to, int64_t step, auto lanes) {
    if constexpr (planes == 2)
      store_rows<2>(to, step, lanes);
    else
      store(to, lanes);
  }

  FASTPOOL_HD void merge(State<V>& state, int64_t at, int64_t column) const {
    Tap<V> tap(Tap<T>(0));
    if constexpr (Reducer::saves_taps) tap = load<Tap<T>, L>(taps + at) + Tap<V>(Tap<T>(column));
    state.merge(load<T, L>(values[0] + at), load<T, L>(values[Reducer::parts - 1] + at), tap);
  }
  void fold_columns() const {
    for (int64_t row = 0; row < rows.parts(); ++row)
      for (int64_t part = 0; part < columns.parts(); ++part) {
        State<V> state;
        state.start(Tap<V>(Tap<T>(0)), p);
        for (int64_t column = columns.begin(part); column < columns.begin(part + 1); ++column)
          merge(state, (row * pitch + column) * L, column);
        const int64_t to = (row * pitch + part) * L;
        for (int i = 0; i < Reducer::parts; ++i) store(values[i] + to, state.part(i));
        if constexpr (Reducer::saves_taps) store(taps + to, state.tap());
      }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
