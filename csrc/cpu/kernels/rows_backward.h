// Backward of contiguous input: the gradients of one row are summed level by level.
#pragma once

#include "cpu/kernels/slots.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Prepared rows of outputs of one level: outputs first … first + count - 1, with room for more on both sides.
template <class Gradient, class S>
class PreparedRows {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;

  static FASTPOOL_HD int64_t scratch_bytes(const Grid& grid, int64_t room) {
    const int64_t rows = OutputRows(grid).count();
    return SlotArrays<Gradient, T>::bytes(rows * pitch_of(room)) + rows * 8 + grid.axis[2].out * int64_t(sizeof(T)) + kSlack;
  }
  PreparedRows(const Problem& p, const Level& level, int64_t room, Arena& arena)
      : p(p),
        level(level),
        rows(level.grid),
        pitch(pitch_of(room)),
        slots(arena, rows.count() * pitch),
        held(arena.take<int64_t>(rows.count())) {
    divisors.columns = arena.take<T>(level.grid.axis[2].out);
    if (Gradient::uses_divisor) divisors.prepare(p, level);
  }

  // From now on element j of a row is output `origin + j`; those outside first … end - 1 do not exist.
  void move_to(int64_t n_, int64_t c_, int64_t origin_, int64_t first_, int64_t end_) {
    if (origin_ != origin || first_ != first || end_ != end) slots.clear(0, rows.count() * pitch);
    n = n_, c = c_, origin = origin_, first = first_, end = end_;
    for (int64_t r = 0; r < rows.count(); ++r) held[r] = -1;
  }

  // Where the slots of element 0 of a row of outputs are.
  int64_t row(int64_t d, int64_t h) {
    const int64_t slot = rows.slot(d, h), id = d * level.grid.axis[1].out + h;
    if (held[slot] != id) prepare(slot * pitch, {n, c, {d, h, 0}});
    held[slot] = id;
    return slot * pitch;
  }
  const SlotArrays<Gradient, T>& arrays() const { return slots; }

 private:
  const Problem& p;
  const Level& level;
  OutputRows rows;
  int64_t pitch, n = 0, c = 0, origin = 0, first = 0, end = -1;
  SlotArrays<Gradient, T> slots;
  int64_t* held;
  Divisors<T> divisors;

  static FASTPOOL_HD int64_t pitch_of(int64_t room) { return round_up(room, L) + L; }

  void prepare(int64_t to, const Place& at) {
    using V = Lanes<T, L>;
    if (Gradient::uses_divisor) divisors.set_row(p, level, at.o);
    const int64_t bin = level.bin(at.o), out = level.output.at(n, c, bin), saved = p.saved.at(n, c, level.first_bin + bin);
    for (int64_t o = first; o < end; o += L) {
      o = smaller(o, larger(end - L, first));
      const int64_t count = smaller(L, end - o);
      V divisor(T(1));
      if (Gradient::uses_divisor) {
        const T* column = divisors.columns + o;
        divisor = (count == L ? load<T, L>(column) : load_part<T, L>(column, count, T(1))) * V(divisors.rows);
      }
      Preparation<Gradient, S>{p, level}.run(
          slots, to + o - origin, out + o, 1, saved + o, 1, count, divisor,
          Gradient::uses_alpha ? alpha_lanes<T>(p, n, c, level.first_bin + bin + o, false, count) : V(T(0)));
    }
  }
};

// The columns of one tile of one row, in the input and as sums.
struct Columns {
  int64_t begin, end;
};

// Adds the terms of the outputs of one row, `row` being where element -reach of it is, to `length` sums of each phase.
// From the last tap to the first, so that they arrive in the order of the outputs. Nothing here depends on how
// elements are stored.
template <class Gradient, class T>
void add_row(const Problem& p, const Phases<T>& phases, const SlotArrays<Gradient, T>& slots, int64_t row, int64_t tap, int64_t length,
             bool more, const T* x, T* sums) {
  constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  const Axis& w = phases.w;
  const int64_t reach = (w.extent() - 1) / w.stride;
  for (int64_t f = 0; f < phases.count; ++f, x += phases.pitch, sums += phases.pitch)
    for (int64_t j = 0; j < length; j += L) {
      V total(T(0)), element(T(0));
      if (more) total = load<T, L>(sums + j);
      if (Gradient::uses_input) element = load<T, L>(x + j);
      int64_t k = w.dilation == 1 ? f + (w.kernel - 1 - f) / w.stride * w.stride : w.kernel - 1;
      int64_t at = row + j + reach - (k - f) / w.stride;
      for (; k >= 0; k -= w.dilation == 1 ? w.stride : 1, ++at) {
        if (w.dilation != 1) {
          if (k * w.dilation % w.stride != f) continue;
          at = row + j + reach - k * w.dilation / w.stride;
        }
        total = total + slots.term(p, element, Tap<V>(Tap<T>(tap + k)), at);
      }
      store(sums + j, total);
    }
}

// Sliding windows: lanes are elements a stride apart, so sums are split by position modulo the stride.
template <class Gradient, class S>
class SlidingBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  static FASTPOOL_HD int64_t quotients(const Axis& w, int64_t columns) { return columns / w.stride + 2; }
  static FASTPOOL_HD int64_t reach(const Axis& w) { return (w.extent() - 1) / w.stride; }
  static FASTPOOL_HD int64_t scratch_bytes(const Grid& grid, int64_t columns) {
    const Axis& w = grid.axis[2];
    const int64_t length = quotients(w, columns), phases = smaller(w.stride, w.extent());
    return PreparedRows<Gradient, S>::scratch_bytes(grid, length + reach(w)) + 2 * phases * (round_up(length, L) + L) * int64_t(sizeof(T)) +
           kSlack;
  }
  SlidingBackward(const Problem& p, const Level& level, int64_t columns, Arena& arena)
      : p(p), level(level), outputs(p, level, quotients(level.grid.axis[2], columns) + reach(level.grid.axis[2]), arena) {
    const Phases<T> most(level.grid.axis[2], 0, quotients(level.grid.axis[2], columns));
    sums = arena.take<T>(most.count * most.pitch);
    x = arena.take<T>(most.count * most.pitch);
    if (Gradient::uses_input) fill_run(x, T(0), most.count * most.pitch);
  }

  void move_to(int64_t n, int64_t c, Columns tile) {
    const Axis& w = level.grid.axis[2];
    columns = tile;
    first = (tile.begin + w.before) / w.stride;
    length = (tile.end - 1 + w.before) / w.stride + 1 - first;
    const int64_t origin = first - reach(w);
    outputs.move_to(n, c, origin, larger(origin, 0), larger(smaller(first + length, w.out), larger(origin, 0)));
  }

  // Gradients of the columns of row i, written or added to `to`.
  template <bool add, class To>
  void run(int64_t n, int64_t c, const int64_t i[2], To* to) {
    const Axis* axis = level.grid.axis;
    const Axis& w = axis[2];
    const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
    const Phases<T> phases(w, first, length);
    if (Gradient::uses_input)
      Splitter<S>(phases).split(static_cast<const S*>(p.x) + p.input.at(n, c, (i[0] * p.extent[1] + i[1]) * p.extent[2]), x);
    bool any = false;
    for (int64_t o = d.begin; o < d.end; ++o)
      for (int64_t q = h.begin; q < h.end; ++q) {
        const int64_t tap_d = axis[0].tap_of(o, i[0]), tap_h = axis[1].tap_of(q, i[1]);
        if (tap_d < 0 || tap_h < 0) continue;
        add_row(p, phases, outputs.arrays(), outputs.row(o, q), (tap_d * axis[1].kernel + tap_h) * w.kernel, length, any, x, sums);
        any = true;
      }
    if (!any) fill_run(sums, T(0), phases.count * phases.pitch);
    join<add>(phases, to);
  }

 private:
  const Problem& p;
  const Level& level;
  PreparedRows<Gradient, S> outputs;
  Columns columns{};
  int64_t first = 0, length = 0;
  T *sums, *x;

  template <bool add, class To>
  static FASTPOOL_HD void put(To* to, V value) {
    if constexpr (add) value = load<T, L>(to) + value;
    store(to, value);
  }
  template <bool add, class To>
  static FASTPOOL_HD void put_one(To* to, T value) {
    if constexpr (add)
      *to += value;
    else
      *to = Narrow<To>::from(value);
  }

  // Sums that are split by phase, side by side again. What is added to must not be added twice.
  template <bool add, class To>
  void join(const Phases<T>& phases, To* to) const {
    const Axis& w = level.grid.axis[2];
    const int64_t base = first * w.stride - w.before - columns.begin, count = columns.end - columns.begin;
    int64_t done = 0;  // columns
    if (w.stride == 1) {
      for (; done + L <= count; done += L) put<add>(to + done, load<T, L>(sums + done - base));
    } else if (w.stride == 2 && phases.count == 2) {
      if (base % 2 != 0) put_one<add>(to, sums[phases.pitch + (-base) / 2]), ++done;
      for (; done + 2 * L <= count; done += 2 * L) {
        const T* even = sums + (done - base) / 2;
        V lo, hi;
        V::zip(load<T, L>(even), load<T, L>(even + phases.pitch), lo, hi);
        put<add>(to + done, lo);
        put<add>(to + done + L, hi);
      }
    }
    int64_t f = (done - base) % w.stride, j = (done - base) / w.stride;
    for (; done < count; ++done) {
      put_one<add>(to + done, f < phases.count ? sums[f * phases.pitch + j] : T(0));
      if (++f == w.stride) f = 0, ++j;
    }
  }
};

// Bins and wide windows: one output at a time, lanes are the elements of the row that it sees.
template <class Gradient, class S>
class WideBackward {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  static FASTPOOL_HD int64_t scratch_bytes(const Grid& grid) { return PreparedRows<Gradient, S>::scratch_bytes(grid, grid.axis[2].out); }
  WideBackward(const Problem& p, const Level& level, Arena& arena) : p(p), level(level), outputs(p, level, level.grid.axis[2].out, arena) {}

  void move_to(int64_t n, int64_t c, Columns tile) {
    columns = tile;
    outputs.move_to(n, c, 0, level.grid.axis[2].covers(tile.begin).begin, level.grid.axis[2].covers(tile.end - 1).end);
  }

  // Adds to the sums of the columns of row i; L more than those may be touched.
  void run(int64_t n, int64_t c, const int64_t i[2], T* sums) {
    const Axis* axis = level.grid.axis;
    const Range d = axis[0].covers(i[0]), h = axis[1].covers(i[1]);
    const Range outs{axis[2].covers(columns.begin).begin, axis[2].covers(columns.end - 1).end};
    const SlotArrays<Gradient, T>& slots = outputs.arrays();
    const S* x = static_cast<const S*>(p.x) + p.input.at(n, c, (i[0] * p.extent[1] + i[1]) * p.extent[2]);
    for (int64_t o = d.begin; o < d.end; ++o)
      for (int64_t q = h.begin; q < h.end; ++q) {
        const int64_t row_tap = axis[0].tap_of(o, i[0]) * axis[1].taps(q) + axis[1].tap_of(q, i[1]), row = outputs.row(o, q);
        if (axis[0].tap_of(o, i[0]) < 0 || axis[1].tap_of(q, i[1]) < 0) continue;
        for (int64_t out = outs.begin; out < outs.end; ++out) {
          const Span span = axis[2].window(out);
          const int64_t begin = larger(span.start, columns.begin), end = smaller(span.start + span.count, columns.end);
          const Slot<V> slot{V(slots.values[0][row + out]), V(slots.values[Gradient::slots > 1 ? 1 : 0][row + out]),
                             V(slots.values[Gradient::slots > 2 ? 2 : 0][row + out])};
          const Tap<V> tap(slots.taps[row + out]);
          const Tap<T> here = Tap<T>(row_tap * span.size + span.first - span.start);
          for (int64_t j = begin; j < end; j += L) {
            const Tap<V> lane = Tap<V>::iota(Tap<T>(j));
            V element(T(0));
            if (Gradient::uses_input) element = end - j >= L ? load<T, L>(x + j) : load_part<T, L>(x + j, end - j);
            const V term = Gradient::term(element, lane + Tap<V>(here), slot, tap, p);
            T* sum = sums + j - columns.begin;
            store(sum, load<T, L>(sum) + select(lane < Tap<V>(Tap<T>(end)), term, V(T(0))));
          }
        }
      }
  }

 private:
  const Problem& p;
  const Level& level;
  PreparedRows<Gradient, S> outputs;
  Columns columns{};
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
