// Schedule of windows that overlap much: selections, and averages whose sums may run in any order. The best, or the sum, of
// every row of a window, then of its rows, then of its slices, so that an element is seen a few times for each axis, whatever
// the window. Lanes are neighbours in memory: columns of one plane or of several that are put side by side, or channels of
// columns.
#pragma once

#include "cpu/kernels/tile.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

// Of an average, what its windows get is shared out before it is summed up.
struct Shares : Reducer {
  static constexpr bool is_sum = true;
  template <class V>
  static FASTPOOL_HD V ascending(V x) {
    return x;
  }
};

template <class Reducer, class S>
class Separable {
 public:
  using T = Accumulated<S>;
  static constexpr int L = kLanes<T>;
  using V = Lanes<T, L>;

  // What averages divide by belongs to the windows of `divided`: those of the level, or of which the input is the gradient.
  Separable(const Problem& p, const Level& level, const Grid& divided, int64_t most_channels, Arena arena)
      : p(p),
        divided(divided),
        d(level.grid.axis[0]),
        h(level.grid.axis[1]),
        w(level.grid.axis[2]),
        level(level),
        last(p.lanes_are_channels),
        most(most_elements(d, h, last)),
        half(half_of(w.kernel)) {
    const int64_t step = last ? most_channels : 1;
    most_outputs = w.out;
    if (columns_of(w.out) * step > larger(most, 2 * w.kernel * step)) {
      const int64_t least = larger(ceil_div(last ? w.kernel : 2 * w.kernel, 4 * w.stride), last ? 4 : L);
      const int64_t some = larger((most / step - w.kernel) / w.stride + 1, least);
      most_outputs = ceil_div(w.out, ceil_div(w.out, some));
    }
    most_pieces = last || most_outputs < w.out ? 1 : larger(smaller(most / pitch_of(columns_of(w.out)), most_channels), 1);
    const int64_t columns = columns_of(most_outputs), length = ((most_pieces - 1) * pitch_of(columns) + columns) * step;
    const int64_t results = ((most_pieces - 1) * (pitch_of(columns) / w.stride) + most_outputs) * step;
    x = arena.take<T>(length + 2 * L);
    column = arena.take<Tap<T>>(keeps ? length + 2 * L : 0);
    first = arena.take<Tap<T>>(keeps ? most_outputs * step + 2 * L : 0);
    counts = arena.take<T>(sums ? columns * step + 2 * L : 0);
    line = take_line(arena, length + 2 * L);
    result = take_line(arena, results + L);
    rows = Stream(h.kernel, round_up(results, L), arena);
    if (d.kernel > 1) {
      band = smaller(h.out, larger(kMostBytes / (d.kernel * rows.length * kBytes), 4));
      slices = Stream(d.kernel, band * rows.length, arena);
    }
  }

  // Rows of bins begin … end - 1 of a unit.
  void run(const Units::Unit& unit, int64_t begin, int64_t end) {
    const int64_t groups = last ? 1 : ceil_div(unit.channels, most_pieces);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = unit.channels * g / groups, count = unit.channels * (g + 1) / groups - c;
      for (int64_t o = 0; o < w.out; o += most_outputs) {
        turn_to(unit.n, unit.c + c, count, {o, smaller(o + most_outputs, w.out)});
        for (int64_t row = begin, done; row < end; row += done) {
          const int64_t from = row % h.out, slice = row / h.out;
          const bool whole = from == 0 && end - row >= h.out;
          const Range depth{slice, whole ? end / h.out : slice + 1}, height{from, whole ? h.out : smaller(h.out, from + end - row)};
          done = (depth.end - depth.begin) * (height.end - height.begin);
          run_block(depth, height, end);
        }
      }
    }
  }

 private:
  static constexpr bool keeps = Reducer::saves_taps, sums = Reducer::is_sum, shares = std::is_same_v<Reducer, Shares>;
  static constexpr int64_t kBytes = int64_t(sizeof(T) + (keeps ? sizeof(Tap<T>) : 0));
  // Of the rows of a window. A row of columns stays in the first-level cache; one of channels should hold many columns.
  static constexpr int64_t kMostBytes = 192 << 10, kMostLine = 2048, kMostChannelsLine = 4096;

  // Elements, and which they are: their row, counted from some row, times the kernel's width, and their column.
  struct Best {
    V value;
    Tap<V> code;
  };
  // The best of two, of which b lies behind a, or their sum.
  static FASTPOOL_HD Best better(const Best& a, const Best& b) {
    Best best;
    if constexpr (sums) {
      best.value = a.value + b.value;
    } else if constexpr (keeps) {
      const Mask<V> later = (b.value > a.value) | (b.value != b.value);
      best.value = select(later, b.value, a.value);
      best.code = select(later, b.code, a.code);
    } else {
      best.value = select(b.value != b.value, b.value, larger_of(b.value, a.value));
    }
    return best;
  }

  // What stands for padding.
  static FASTPOOL_HD V nothing() { return V(sums ? T(0) : -Limits<T>::infinity()); }

  struct Line {
    T* values;
    Tap<T>* codes;

    FASTPOOL_HD Best at(int64_t i) const {
      Best best;
      best.value = load<T, L>(values + i);
      if constexpr (keeps) best.code = load<Tap<T>, L>(codes + i);
      return best;
    }
    FASTPOOL_HD void set(int64_t i, const Best& best) const {
      store(values + i, best.value);
      if constexpr (keeps) store(codes + i, best.code);
    }
    FASTPOOL_HD Line from(int64_t i) const { return {values + i, keeps ? codes + i : nullptr}; }
  };
  static Line take_line(Arena& arena, int64_t count) {
    T* values = arena.take<T>(count);
    return {values, keeps ? arena.take<Tap<T>>(count) : nullptr};
  }

  // The best of every `kernel` of a stream of lines: of those up to the end of a block of so many, and of those behind it (van
  // Herk 1992, Gil and Werman 1993).
  struct Stream {
    int64_t kernel = 1, length = 0;
    Line lines{}, front{};

    Stream() = default;
    Stream(int64_t kernel, int64_t length, Arena& arena)
        : kernel(kernel), length(length), lines(take_line(arena, kernel * length + L)), front(take_line(arena, length + L)) {}
    Line slot(int64_t k) const { return lines.from(k % kernel * length); }
    // Lines before the first of a part: blocks are those of the whole axis, so that a sum has the same bits in any part.
    int64_t phase(const Axis& axis, int64_t begin) const { return begin * axis.stride % kernel; }

    // Adds to line k, from `offset` on, `count` elements that are each the better of two, `shift` apart; out gets the best of
    // the last `kernel`, if it is wanted.
    void add(int64_t k, bool is_first, int64_t offset, int64_t count, Line line, int64_t shift, bool wanted, Line out) const {
      const int64_t j = k % kernel;
      const bool begins = j == 0 || is_first, ends = j + 1 == kernel;
      const Line own = slot(k).from(offset), before = slot(k + 1).from(offset), head = front.from(offset);
      FASTPOOL_ASSERT(offset + count <= length && (!wanted || k + 1 >= kernel));
      for (int64_t i = 0; i < count; i += L) {
        Best best = line.at(i);
        if (shift) best = better(best, line.at(i + shift));
        if (j > 0) own.set(i, best);
        if (!begins) best = better(head.at(i), best);
        if (!ends) head.set(i, best);
        if (wanted) out.set(i, ends ? best : better(before.at(i), best));
      }
    }
    // After a line: prepares a block that it ends.
    void end(int64_t k, int64_t count) const {
      if (k % kernel + 1 < kernel) return;
      for (int64_t i = 0; i < count; i += L) {
        Best best = lines.from((kernel - 1) * length).at(i);
        for (int64_t j = kernel - 2; j > 0; --j) {
          const Line at = lines.from(j * length);
          best = better(at.at(i), best);
          at.set(i, best);
        }
      }
    }
  };

  const Problem& p;
  const Grid& divided;
  const Axis &d, &h, &w;
  const Level& level;
  bool last;
  int64_t most, half, most_outputs = 0, most_pieces = 1, band = 0;
  T* x = nullptr;  // one row, with padding
  // Which column an element of a row is, and of an output which is the first of its window that is no padding.
  Tap<T>*column = nullptr, *first = nullptr;
  T* counts = nullptr;  // elements of this axis that an average divides by, of each element of a row of windows
  Line line{}, result{};
  Stream rows, slices;

  // What is computed at once: outputs of a row, of some planes side by side or of some channels.
  int64_t n = 0, c = 0, pieces = 0, step = 0, pitch = 0, length = 0, results = 0, clipped = 0;
  Range outputs{0, 0}, inside{0, 0}, counted{0, 0};

  static int64_t most_elements(const Axis& d, const Axis& h, bool last) {
    return larger(smaller(last ? kMostChannelsLine : kMostLine, kMostBytes / (d.kernel * h.kernel * kBytes)), 2 * L);
  }
  // A window is two, from either end, of the largest power of two below its width; of 1 itself.
  static int64_t half_of(int64_t kernel) {
    int64_t half = 1;
    while (2 * half < kernel) half *= 2;
    return half;
  }
  int64_t columns_of(int64_t outputs) const { return (outputs - 1) * w.stride + w.kernel; }
  // From one of several planes to the next, which begins with the padding that ends the first.
  int64_t pitch_of(int64_t columns) const { return round_up(larger(smaller(w.before + w.in, columns), columns - w.before), w.stride); }

  void turn_to(int64_t sample, int64_t channel, int64_t channels, Range of) {
    const int64_t steps = last ? channels : 1, columns = columns_of(of.end - of.begin), origin = w.origin(of.begin);
    bool same = steps == step;
    n = sample, c = channel, step = steps, outputs = of, pieces = last ? 1 : channels;
    pitch = pitch_of(columns);
    length = ((pieces - 1) * pitch + columns) * step;
    results = ((pieces - 1) * (pitch / w.stride) + of.end - of.begin) * step;
    inside = {larger(-origin, 0), smaller(columns, w.in - origin)};
    FASTPOOL_ASSERT(round_up(results, L) <= rows.length && inside.begin < inside.end);
    if constexpr (keeps) {
      if (!same)
        for (int64_t i = 0; i < columns_of(most_outputs) + (most_pieces - 1) * pitch; ++i) fill_run(column + i * step, Tap<T>(i), step);
      const int64_t clips = smaller(ceil_div(larger(-origin, 0), w.stride), of.end - of.begin);
      if (!same || clipped != clips) fill_run(first, Tap<T>(0), (of.end - of.begin) * step);
      for (int64_t o = 0; o < clips; ++o) fill_run(first + o * step, Tap<T>(w.window(of.begin + o).first), step);
      clipped = clips;
    }
    if constexpr (sums) {
      const Range windows = shares ? Range{origin + inside.begin, origin + inside.end} : outputs;
      same &= windows.begin == counted.begin && windows.end == counted.end;
      const Axis& axis = divided.axis[2];
      for (int64_t o = windows.begin; o < windows.end && !same; ++o)
        fill_run(counts + (o - windows.begin) * step, p.divisor_override ? T(1) : T(axis.divisor(o, p.include_pad)), step);
      counted = windows;
    }
  }
  // What windows of a row divide by, but for their columns.
  T rows_of_divisor(int64_t slice, int64_t row) const {
    if (p.divisor_override) return T(p.divisor_override);
    return T(divided.axis[0].divisor(slice, p.include_pad) * divided.axis[1].divisor(row, p.include_pad));
  }

  // All outputs of some slices and some rows; of the latter, several at a time where slices are kept. `end` is where the rows
  // that may still be written end.
  void run_block(Range depth, Range height, int64_t end) {
    if (d.kernel == 1) {
      for (int64_t o = depth.begin; o < depth.end; ++o) run_slice(0, o * d.stride, height, o, o, end);
      return;
    }
    for (int64_t begin = height.begin; begin < height.end; begin += band) {
      const Range part{begin, smaller(begin + band, height.end)};
      const int64_t count = (depth.end - depth.begin - 1) * d.stride + d.kernel;
      for (int64_t k = 0; k < count; ++k) {
        const int64_t from = k + 1 - d.kernel;
        const bool wanted = from >= 0 && from % d.stride == 0;
        run_slice(k, d.origin(depth.begin) + k, part, wanted ? depth.begin + from / d.stride : -1, depth.begin, 0);
        slices.end(k + slices.phase(d, depth.begin), (part.end - part.begin) * rows.length);
      }
    }
  }

  // Slice k of some, which is slice z of the input or of padding: adds it to the slices, if they are several. Results are those
  // of outputs `out`, if there are any; slices were counted from the first that outputs `begin` see.
  void run_slice(int64_t k, int64_t z, Range height, int64_t out, int64_t begin, int64_t end) {
    const int64_t count = (height.end - height.begin - 1) * h.stride + h.kernel, origin = h.origin(height.begin);
    const int64_t phase = rows.phase(h, height.begin);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t from = r + 1 - h.kernel, y = origin + r, o = larger(from, 0) / h.stride;
      const bool wanted = from >= 0 && from % h.stride == 0, exists = z >= 0 && z < d.in && y >= 0 && y < h.in;
      const Found found = exists ? find_row(z, y, (k * h.kernel + r) * w.kernel) : find_padding();
      const Line here = d.kernel > 1 ? slices.slot(k + slices.phase(d, begin)).from(o * rows.length) : result;
      rows.add(r + phase, r == 0, 0, results, found.line, found.shift, wanted, here);
      rows.end(r + phase, results);
      if (!wanted) continue;
      if (d.kernel > 1) slices.add(k + slices.phase(d, begin), k == 0, o * rows.length, results, here, 0, out >= 0, result);
      if (out >= 0) finish({out, height.begin + o}, ((out - begin) * d.stride * h.kernel + from) * w.kernel, end);
    }
  }

  // The best of every part of a row that windows see, or the better of two so far apart.
  struct Found {
    Line line;
    int64_t shift = 0;
  };
  Found find_padding() const {
    for (int64_t i = 0; i < results; i += L) {
      Best best;
      best.value = nothing();
      best.code = Tap<V>(Tap<T>(0));
      line.set(i, best);
    }
    return {line};
  }
  Found find_row(int64_t z, int64_t y, int64_t code) const {
    load_row(z, y);
    if constexpr (sums) return add_row();
    half == 1 ? begin_row<1>(code) : half == 2 ? begin_row<2>(code) : begin_row<4>(code);
    for (int64_t n = 4; n < half; n *= 2) join(n * step, length - (2 * n - 1) * step);
    const int64_t shift = (w.kernel - half) * step;
    if (w.stride == 1) return {line, shift};
    if (shift) join(shift, length - (w.kernel - 1) * step);
    return pick(line);
  }
  // Of sums nothing may be seen twice: those of runs as long as the bits of the width, one behind the other.
  Found add_row() const {
    const int64_t rest = w.kernel % 4;
    if (w.kernel > 3) begin_row<4>(0);
    for (int64_t i = 0; i < length - (rest - 1) * step && rest > 1; i += L) {
      const V two = load<T, L>(x + i) + load<T, L>(x + i + step);
      store(x + i, rest == 2 ? two : two + load<T, L>(x + i + 2 * step));
    }
    for (int64_t n = 4, seen = rest; n <= w.kernel; n *= 2) {
      if (n > 4) join(n / 2 * step, length - (n - 1) * step);
      if (!(w.kernel & n)) continue;
      for (int64_t i = 0; i < length - (seen + n - 1) * step; i += L) {
        const V run = load<T, L>(line.values + i + seen * step);
        store(x + i, seen ? load<T, L>(x + i) + run : run);
      }
      seen += n;
    }
    return w.stride == 1 ? Found{{x, nullptr}} : pick({x, nullptr});
  }
  void load_row(int64_t z, int64_t y) const {
    const int64_t first = (z * h.in + y) * w.in + w.origin(outputs.begin) + inside.begin;
    const S* from = static_cast<const S*>(p.x) + p.input.at(n, c, first);
    const T rows = shares ? rows_of_divisor(z, y) : T(1);
    const S* end = static_cast<const S*>(p.x) + p.input.at(p.samples - 1, p.channels - 1, p.positions() - 1) + 1;
    // What is written past an end is replaced by what follows.
    fill(x, inside.begin * step);
    for (int64_t piece = 0; piece < pieces; ++piece, from += p.input.channel) {
      T* to = x + (piece * pitch + inside.begin) * step;
      const int64_t runs = step == p.input.position ? 1 : inside.end - inside.begin;
      const int64_t count = (inside.end - inside.begin) * step / runs;
      for (int64_t run = 0; run < runs; ++run)
        copy(to + run * count, from + run * p.input.position, count, end, counts + run * count, rows);
      T* const done = to + runs * count;
      fill(done, smaller((pitch - inside.end + inside.begin) * step, x + length - done));
    }
  }
  static FASTPOOL_HD void fill(T* to, int64_t count) {
    for (int64_t i = 0; i < count; i += L) store(to + i, nothing());
  }
  static FASTPOOL_HD void copy(T* to, const S* from, int64_t count, const S* end, const T* counts, T rows) {
    for (int64_t i = 0; i < count; i += L) {
      const S* at = from + i;
      V element = Reducer::ascending(end - at >= L ? load<T, L>(at) : load_part<T, L>(at, end - at));
      if constexpr (shares) element = element / (load<T, L>(counts + i) * V(rows));
      store(to + i, element);
    }
  }
  template <int taps>
  void begin_row(int64_t code) const {
    const Tap<V> base{Tap<T>(code)};
    for (int64_t i = 0; i < length - (taps - 1) * step; i += L) {
      Best best;
      best.value = load<T, L>(x + i);
      if constexpr (keeps) best.code = load<Tap<T>, L>(column + i) + base;
      Best next;
      if constexpr (keeps) next.code = best.code;
      unrolled<taps - 1>([&](auto k) FASTPOOL_STEP {
        next.value = load<T, L>(x + i + (k + 1) * step);
        if constexpr (keeps) next.code = next.code + Tap<V>(Tap<T>(1));
        best = better(best, next);
      });
      line.set(i, best);
    }
  }
  void join(int64_t shift, int64_t count) const {
    for (int64_t i = 0; i < count; i += L) line.set(i, better(line.at(i), line.at(i + shift)));
  }
  // Of every `stride` columns the first.
  Found pick(const Line& line) const {
    const int64_t count = results / step, apart = w.stride * step;
    for (int64_t o = 1; o < count; ++o) {
      if (step == 1) {
        line.values[o] = line.values[o * apart];
        if constexpr (keeps) line.codes[o] = line.codes[o * apart];
      } else {
        memcpy(line.values + o * step, line.values + o * apart, size_t(step) * sizeof(T));
        if constexpr (keeps) memcpy(line.codes + o * step, line.codes + o * apart, size_t(step) * sizeof(Tap<T>));
      }
    }
    return {line};
  }

  // One row of results, whose windows begin at an element of this code.
  void finish(Range row, int64_t code, int64_t end) const {
    const int64_t bin = (row.begin * h.out + row.end) * w.out + outputs.begin, count = outputs.end - outputs.begin;
    const bool together = !last || step == level.output.position;  // outputs lie side by side
    const int64_t runs = together ? 1 : count, size = count * step / runs;
    const bool alone = together && count == w.out;
    const int64_t room = alone ? larger(end - row.begin * h.out - row.end, 1) * size : size;
    const int64_t padded = (d.window(row.begin).first * h.kernel + h.window(row.end).first) * w.kernel;
    const T divisor = sums && !shares ? rows_of_divisor(row.begin, row.end) : T(1);
    for (int64_t piece = 0; piece < pieces; ++piece)
      for (int64_t run = 0; run < runs; ++run) {
        const int64_t out = level.output_base + level.output.at(n, c + piece, bin + run), saved = p.saved.at(n, c + piece, bin + run);
        put(out, saved, (piece * (pitch / w.stride) + run) * step, run, size, room, code + piece * pitch, padded, divisor);
      }
  }
  void put(int64_t out, int64_t saved, int64_t at, int64_t run, int64_t count, int64_t room, int64_t code, int64_t padded, T rows) const {
    S* y = static_cast<S*>(p.y) + out;
    const Line from = result.from(at);
    for (int64_t i = 0; i < count; i += L) {
      Best best = from.at(i);
      const int64_t lanes = i + L <= room ? L : count - i;
      if constexpr (sums && !shares) best.value = best.value / (load<T, L>(counts + run * step + i) * V(rows));
      store_part(y + i, 1, Reducer::ascending(best.value), lanes);
      if constexpr (keeps) {
        // Where nothing is above -inf, the first element is the answer.
        const Tap<V> origin = load<Tap<T>, L>(column + run * step + i) * Tap<V>(Tap<T>(w.stride)) + Tap<V>(Tap<T>(code));
        const Tap<V> none = load<Tap<T>, L>(first + run * step + i) + Tap<V>(Tap<T>(padded));
        const Tap<V> tap = select(best.value == V(-Limits<T>::infinity()), none, best.code - origin);
        if (p.tap_bytes == 1) store_part(static_cast<uint8_t*>(p.taps) + saved + i, 1, tap, lanes);
        if (p.tap_bytes == 4) store_part(static_cast<int32_t*>(p.taps) + saved + i, 1, tap, lanes);
      }
    }
  }
};

// Backward of averages: an element gets the sum of a window of outputs.
template <class S>
class SeparableBackward {
 public:
  SeparableBackward(const Problem& problem, const Units& units, Arena arena)
      : p(problem), level(turned(p)), sums(p, level, problem.levels[0].grid, units.most_channels(), arena) {
    p.x = static_cast<const S*>(problem.g) + problem.levels[0].output_base;
    p.y = problem.gx;
    p.input = problem.levels[0].output;
    for (int a = 0; a < 3; ++a) p.extent[a] = level.grid.axis[a].in;
  }
  void run(const Units::Unit& unit) { sums.run(unit, unit.first_row, unit.last_row); }

 private:
  Problem p;
  Level level;
  Separable<Shares, S> sums;

  static Level turned(const Problem& p) {
    Level level;
    level.grid = seen_from_input(p.levels[0].grid);
    level.output = p.input;
    return level;
  }
};

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
