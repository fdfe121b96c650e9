// Forward schedule of contiguous input and small sliding windows: lanes are neighbouring outputs of a row. Input rows
// go through scratch, converted, padded and split by position modulo the stride, so that every tap is a plain load;
// rows that several output rows share stay there.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// A run of columns of one axis, split by position modulo the stride: element j of phase f is column
// (first + j) * stride + f - before. Columns outside the input stay as they were filled.
template <class T>
struct Phases {
  const Axis& w;
  int64_t first, length, count, pitch;

  FASTPOOL_HD Phases(const Axis& w, int64_t first, int64_t length)
      : w(w), first(first), length(length), count(smaller(w.stride, w.extent())), pitch(round_up(length, kLanes<T>) + kLanes<T>) {}

  FASTPOOL_HD int64_t of_tap(int64_t k) const { return k * w.dilation % w.stride * pitch + k * w.dilation / w.stride; }
  FASTPOOL_HD int64_t begin(int64_t f) const {
    const int64_t origin = first * w.stride + f - w.before;
    return smaller(origin < 0 ? ceil_div(-origin, w.stride) : 0, length);
  }
  FASTPOOL_HD int64_t end(int64_t f) const {
    const int64_t origin = first * w.stride + f - w.before;
    return larger(smaller(origin < w.in ? ceil_div(w.in - origin, w.stride) : 0, length), begin(f));
  }
};

// Fills the phases of one row after another, with the bounds of the commonest strides at hand.
template <class S>
struct Splitter {
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  Phases<T> phases;
  int64_t begin[4], end[4], all_begin = 0, all_end = 0;  // of each phase, and what all have

  FASTPOOL_HD explicit Splitter(const Phases<T>& phases) : phases(phases) {
    if (phases.count != phases.w.stride || phases.count > 4) return;
    all_end = phases.length;
    for (int64_t f = 0; f < phases.count; ++f) {
      begin[f] = phases.begin(f);
      end[f] = phases.end(f);
      all_begin = larger(all_begin, begin[f]);
      all_end = smaller(all_end, end[f]);
    }
  }

  void split(const S* row, T* to) const {
    const int64_t stride = phases.w.stride, origin = phases.first * stride - phases.w.before;
    if (all_end - all_begin >= L) {
      if (stride == 1) return in_lanes<1>(row + origin, to);
      if (stride == 2) return in_lanes<2>(row + origin, to);
      if (stride == 4) return in_lanes<4>(row + origin, to);
    }
    for (int64_t f = 0; f < phases.count; ++f) {
      const int64_t stop = phases.end(f);
      for (int64_t j = phases.begin(f); j < stop; ++j) to[f * phases.pitch + j] = T(widen(row[origin + j * stride + f]));
    }
  }

 private:
  template <int stride>
  FASTPOOL_HD void in_lanes(const S* row, T* to) const {
    for (int64_t j = all_begin;; j += L) {
      j = smaller(j, all_end - L);
      const S* from = row + stride * j;
      for (int64_t byte = 0; byte < stride * L * int64_t(sizeof(S)); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead + byte);
      Lanes<T, L> x[stride];
      FASTPOOL_UNROLL
      for (int k = 0; k < stride; ++k) x[k] = load<T, L>(from + k * L);
      split_phases(x);
      FASTPOOL_UNROLL
      for (int f = 0; f < stride; ++f) store(to + f * phases.pitch + j, x[f]);
      if (j == all_end - L) break;
    }
    for (int f = 0; f < stride; ++f) {  // one more at either end
      if (begin[f] < all_begin) to[f * phases.pitch + begin[f]] = widen(row[stride * begin[f] + f]);
      if (end[f] > all_end) to[f * phases.pitch + all_end] = widen(row[stride * all_end + f]);
    }
  }
};

template <class Reducer, class S>
class Rows {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;
  using State = typename Reducer::template State<V>;

  static constexpr int64_t kScratchBytes = 96 << 10;  // input rows of one tile stay in the second-level cache

  // Output columns of one tile.
  static FASTPOOL_HD int64_t columns_of(const Grid& grid) {
    const Axis& w = grid.axis[2];
    const int64_t phases = smaller(w.stride, w.extent()), slack = (w.extent() - 1) / w.stride + 2 * L;
    const int64_t affordable = kScratchBytes / int64_t(sizeof(T)) / (slots_of(grid) * phases) - slack;
    return smaller(w.out, larger(affordable, 4 * L));
  }
  // Rows in scratch: those of one window. The next window finds its own among them by their index modulo the kernel.
  static FASTPOOL_HD int64_t slots_of(const Grid& grid) { return grid.axis[0].kernel * grid.axis[1].kernel; }
  static FASTPOOL_HD int64_t scratch_bytes(const Grid& grid) {
    const Axis& w = grid.axis[2];
    const Phases<T> phases(w, 0, columns_of(grid) + (w.extent() - 1) / w.stride);
    const int64_t values = slots_of(grid) * phases.count * phases.pitch + w.out + columns_of(grid) + 16 * kBlocks + 2 * L;
    return values * int64_t(sizeof(T)) + slots_of(grid) * 24 + kMostSequentialTaps * 8 + kSlack;
  }

  Rows(const Problem& p, const Level& level, uint64_t seed, Arena arena)
      : p(p), level(level), seed(seed), columns(columns_of(level.grid)), slots(slots_of(level.grid)) {
    for (int a = 0; a < 2; ++a) shares |= level.grid.axis[a].stride < level.grid.axis[a].extent();
    const Axis& w = level.grid.axis[2];
    const Phases<T> phases(w, 0, columns + (w.extent() - 1) / w.stride);
    slot_values = phases.count * phases.pitch;
    values = arena.take<T>(slots * slot_values);
    held = arena.take<int64_t>(slots);
    rows = arena.take<const T*>(slots);
    row_taps = arena.take<int64_t>(slots);
    offsets = arena.take<int64_t>(w.kernel);
    for (int64_t k = 0; k < w.kernel; ++k) offsets[k] = phases.of_tap(k);
    divisors.columns = arena.take<T>(w.out);
    if (Reducer::uses_divisor) divisors.prepare(p, level);
    drawn = arena.take<T>(columns + 8 * kBlocks + L);
  }

  // The rows of bins begin … end - 1 of one plane.
  void run(int64_t n, int64_t c, int64_t begin, int64_t end) {
    const Axis& w = level.grid.axis[2];
    for (int64_t first = 0; first < w.out; first += columns) {
      const int64_t outputs = smaller(columns, w.out - first);
      const Splitter<S> splitter(Phases<T>(w, first, columns + (w.extent() - 1) / w.stride));
      const bool padded = w.clips() || outputs < L;  // otherwise no lane reads beside the input
      if (padded && (first == 0 ? !filled : true)) {
        fill_run(values, Reducer::template padding<T>(), slots * slot_values);
        filled = columns == w.out;
      }
      for (int64_t s = 0; s < slots; ++s) held[s] = -1;
      Place at{n, c, {begin / level.grid.axis[1].out, begin % level.grid.axis[1].out, first}};
      for (int64_t row = begin; row < end; ++row) {
        run_row(at, splitter, outputs);
        if (++at.o[1] == level.grid.axis[1].out) at.o[1] = 0, ++at.o[0];
      }
    }
  }

 private:
  const Problem& p;
  const Level& level;
  uint64_t seed;
  int64_t columns, slots, slot_values, row_count = 0;
  T *values, *drawn;
  int64_t *held, *offsets, *row_taps;
  const T** rows;
  Divisors<T> divisors;
  bool filled = false, shares = false;

  void gather_rows(const Place& at, const Splitter<S>& splitter) {
    const Axis* axis = level.grid.axis;
    const Span d = axis[0].window(at.o[0]), h = axis[1].window(at.o[1]);
    const S* plane = static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0);
    row_count = 0;
    for (int64_t i = 0; i < d.count; ++i)
      for (int64_t j = 0; j < h.count; ++j) {
        const int64_t depth = d.start + i * d.step, line = h.start + j * h.step, row = depth * p.extent[1] + line;
        const int64_t slot = shares ? uint32_t(depth) / uint32_t(d.step) % uint32_t(axis[0].kernel) * axis[1].kernel +
                                          uint32_t(line) / uint32_t(h.step) % uint32_t(axis[1].kernel)
                                    : row_count;
        T* to = values + slot * slot_values;
        if (!shares || held[slot] != row) splitter.split(plane + row * p.extent[2], to);
        held[slot] = row;
        rows[row_count] = to;
        row_taps[row_count++] = ((d.first + i) * h.size + h.first + j) * axis[2].kernel;
      }
  }

  template <int height, int width>
  FASTPOOL_HD void hold(int64_t lane0, const Facts<V>& facts, State& state) const {
    V x[height * width];
    FASTPOOL_UNROLL
    for (int k = 0; k < height * width; ++k) x[k] = load<T, L>(rows[k / width] + lane0 + offsets[k % width]);
    for_each_pass<0, Reducer::passes>(Held<V, State, height * width>{p, facts, state, x});
  }

  struct Passes {
    const Rows& self;
    int64_t lane0;
    const Facts<V>& facts;
    State& state;

    template <int pass>
    FASTPOOL_HD void run() const {
      if constexpr (pass > 0) state.template begin<pass>(facts, self.p);
      const int64_t kernel = self.level.grid.axis[2].kernel;
      for (int64_t r = 0; r < self.row_count; ++r) {
        const T* row = self.rows[r] + lane0;
        for (int64_t k = 0; k < kernel; ++k)
          state.template add<pass>(load<T, L>(row + self.offsets[k]), Tap<V>(Tap<T>(self.row_taps[r] + k)));
      }
    }
  };

  FASTPOOL_HD Facts<V> facts_at(const Place& at, int64_t lane0, int64_t count) {
    Facts<V> facts;
    if constexpr (Reducer::uses_divisor) {
      const T* column = divisors.columns + at.o[2] + lane0;
      const V counts = count == L ? load<T, L>(column) : load_part<T, L>(column, count, T(1));
      facts.divisor = counts * V(divisors.rows);
    }
    if constexpr (Reducer::uses_alpha) facts.alpha = alpha_lanes<T>(p, at.n, at.c, level.first_bin + level.bin(at.o) + lane0, false, count);
    if constexpr (Reducer::uses_uniform) facts.uniform = load<T, L>(drawn + lane0);
    return facts;
  }

  void run_row(const Place& at, const Splitter<S>& splitter, int64_t outputs) {
    gather_rows(at, splitter);
    if constexpr (Reducer::uses_divisor) divisors.set_row(p, level, at.o);
    const int64_t bin = level.bin(at.o);
    if constexpr (Reducer::uses_uniform) draw_row(p, seed, at.n, at.c, level.first_bin + bin, outputs, drawn);
    const int64_t out = level.output.at(at.n, at.c, bin), saved = p.saved.at(at.n, at.c, level.first_bin + bin);
    const bool whole = row_count == slots;
    const int64_t kernel = level.grid.axis[2].kernel;
    // The last lanes of a row are computed a second time rather than left empty.
    for (int64_t lane0 = 0;; lane0 += L) {
      lane0 = smaller(lane0, larger(outputs - L, 0));
      const int64_t count = smaller(L, outputs - lane0);
      const Facts<V> facts = facts_at(at, lane0, count);
      State state;
      state.start(Tap<V>(Tap<T>(0)), p);
      if (whole && kernel == 2 && slots == 2)
        hold<2, 2>(lane0, facts, state);
      else if (whole && kernel == 3 && slots == 3)
        hold<3, 3>(lane0, facts, state);
      else
        for_each_pass<0, Reducer::passes>(Passes{*this, lane0, facts, state});
      state.finish(facts);
      store_lanes<Reducer, S>(p, level, out + lane0, 1, saved + lane0, 1, count, state);
      repair(state, count, [&](int64_t i) { forward_exact<Reducer>(p, level, {at.n, at.c, {at.o[0], at.o[1], at.o[2] + lane0 + i}}); });
      if (lane0 + count == outputs) break;
    }
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
