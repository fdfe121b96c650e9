#include "schedules/lookup.h"

#include <algorithm>
#include <vector>

#include "cpu/run.h"

namespace fastpool::cpu {

// What taps are looked up for: plane positions, or the values there.
struct Indices {
  int64_t* y;

  Indices(const Problem& p, int64_t out, const Place&, bool) : y(static_cast<int64_t*>(p.y) + out) {}
  FASTPOOL_HD void put(int64_t out, int64_t, int64_t position) const { y[out] = position; }
  static void one(const Problem& p, const Level& level, const Place& at) { index_one(p, level, at); }
};
template <class S>
struct Values {
  S* y;
  const S* x;
  int64_t position_step, channel_step;

  Values(const Problem& p, int64_t out, const Place& at, bool channels)
      : y(static_cast<S*>(p.y) + out),
        x(static_cast<const S*>(p.x) + p.input.at(at.n, at.c, 0)),
        position_step(p.input.position),
        channel_step(channels ? p.input.channel : 0) {}
  FASTPOOL_HD void put(int64_t out, int64_t i, int64_t position) const { y[out] = x[i * channel_step + position * position_step]; }
  static void one(const Problem& p, const Level& level, const Place& at) { select_one<S>(p, level, at); }
};

// Outputs whose windows have the same offsets: of one row, or of one window in several channels.
template <class Lookup, class Tap>
struct Run {
  const Lookup lookup;
  const Tap* taps;
  int64_t first, first_step, tap_step, out_step;
  uint64_t positions;

  Run(const Problem& p, const Level& level, const Place& at, bool channels)
      : lookup(p, level.output_base + level.output.at(at.n, at.c, level.bin(at.o)), at, channels),
        taps(static_cast<const Tap*>(p.taps) + p.saved.at(at.n, at.c, level.first_bin + level.bin(at.o))),
        first(level.grid.origin(at.o)),
        first_step(channels ? 0 : level.grid.axis[2].stride),
        tap_step(channels ? p.saved.channel : p.saved.position),
        out_step(channels ? level.output.channel : level.output.position),
        positions(uint64_t(p.positions())) {}

  // From output i on until one where nothing was selected or offsets were not found, which is returned.
  __attribute__((noinline)) int64_t go_on(int64_t i, int64_t end, const std::vector<int64_t>& offsets) const {
    const Run run = *this;  // in registers: what is stored might be these members
    const int64_t* table = offsets.data();
    const uint64_t size = offsets.size();
    for (; i < end; ++i) {
      // What is below zero is too large as an unsigned number.
      const uint64_t tap = uint64_t(int64_t(run.taps[i * run.tap_step]));
      if (tap >= size) break;
      const uint64_t position = uint64_t(run.first + i * run.first_step + table[tap]);
      if (position >= run.positions) break;
      run.lookup.put(i * run.out_step, i, int64_t(position));
    }
    return i;
  }
};

// Outputs begin … end - 1 of a run.
template <class Lookup, class Tap>
static void look_up_run(const Problem& p, const Level& level, const Place& at, int64_t begin, int64_t end, bool channels,
                        const std::vector<int64_t>& offsets) {
  const Run<Lookup, Tap> run(p, level, at, channels);
  for (int64_t i = begin; (i = run.go_on(i, end, offsets)) < end; ++i) {
    Place one = at;
    (channels ? one.c : one.o[2]) += i;
    Lookup::one(p, level, one);
  }
}

// The outputs of a run whose windows lose nothing to the padding.
static Range whole_windows(const Level& level, const Place& at, int64_t count, bool channels) {
  if (!level.clipped) return {0, count};
  for (int a = 0; a < (channels ? 3 : 2); ++a) {
    const Span span = level.grid.axis[a].window(at.o[a]);
    if (span.count < span.size) return {0, 0};
  }
  if (channels) return {0, count};
  return level.grid.axis[2].whole();
}

// The positions that one-byte taps of such windows stand for. Every code has an entry, so that nothing is asked of an output.
class Codes {
 public:
  static constexpr int64_t kCount = 256;

  void set(const std::vector<int64_t>& offsets) {
    std::fill(std::copy(offsets.begin(), offsets.end(), offset_), offset_ + kCount, 0);  // none: a window's first element
  }
  void look_up(const Problem& p, const Level& level, const Place& at, Range outputs, bool channels) const {
    const Run<Indices, uint8_t> run(p, level, at, channels);
    int64_t* y = run.lookup.y + outputs.begin * run.out_step;
    const uint8_t* taps = run.taps + outputs.begin * run.tap_step;
    int64_t first = run.first + outputs.begin * run.first_step;
    for (int64_t i = outputs.begin; i < outputs.end; ++i, first += run.first_step, y += run.out_step, taps += run.tap_step)
      *y = first + offset_[*taps];
  }

 private:
  int64_t offset_[kCount];
};

// Runs go over channels where those are neighbours, and in bins, which have offsets of their own.
static bool runs_over_channels(const Problem& p) {
  const Grid& grid = p.levels->grid;
  return p.lanes_are_channels || grid.bins() == 1 || !grid.slides();
}

// A unit is a row of outputs, of all channels that runs go over.
template <class Lookup>
static void look_up_rows(const Problem& p, int64_t begin, int64_t end) {
  const Level& level = *p.levels;
  const Grid& grid = level.grid;
  const bool channels = runs_over_channels(p), slides = grid.slides();
  const int64_t planes = channels ? 1 : p.channels, height = grid.axis[1].out, width = grid.axis[2].out;
  const int64_t runs = channels ? width : 1, count = channels ? p.channels : width, first[3] = {0, 0, 0};
  const bool pays = grid.taps(first) <= count * (slides ? runs * (end - begin) : 1);  // to find offsets for so many
  const bool codes_pay = std::is_same_v<Lookup, Indices> && p.tap_bytes == 1 && pays && (slides || count >= Codes::kCount);
  bool coded = false;
  std::vector<int64_t> offsets;
  Codes codes;
  const auto find = [&](const int64_t o[3]) {
    offsets.clear();
    grid.each_offset(o, [&](int64_t offset) { offsets.push_back(offset); });
    coded = codes_pay && int64_t(offsets.size()) <= Codes::kCount;
    if (coded) codes.set(offsets);
  };
  if (pays && slides) find(first);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = unit % grid.rows(), plane = unit / grid.rows();
    for (int64_t r = 0; r < runs; ++r) {
      const Place at{plane / planes, plane % planes, {row / height, row % height, r}};
      if (pays && !slides) find(at.o);
      const Range whole = coded ? whole_windows(level, at, count, channels) : Range{0, 0};
      if (whole.begin < whole.end) codes.look_up(p, level, at, whole, channels);
      for (const Range part : {Range{0, whole.begin}, Range{whole.end, count}}) {
        if (part.begin == part.end) continue;
        p.tap_bytes == 1 ? look_up_run<Lookup, uint8_t>(p, level, at, part.begin, part.end, channels, offsets)
                         : look_up_run<Lookup, int32_t>(p, level, at, part.begin, part.end, channels, offsets);
      }
    }
  }
}

template <class Lookup>
static void look_up(Problem p) {
  const Level* end = p.levels + p.level_count;
  for (p.level_count = 1; p.levels < end; ++p.levels)
    divide(p, p.samples * (runs_over_channels(p) ? 1 : p.channels) * p.levels->grid.rows(), look_up_rows<Lookup>);
}

void select(const Problem& p) {
  with_storage(p.dtype, [&](auto s) { look_up<Values<decltype(s)>>(p); });
}

void tap_indices(const Problem& p) { look_up<Indices>(p); }

template <class S>
static void parameter_chunk(const Problem& p, int64_t begin, int64_t end) {
  const int64_t channels = p.parameter_view.channel ? p.channels : 1, bins = p.parameter_view.position ? p.bins : 1;
  for (int64_t unit = begin; unit < end; ++unit)
    static_cast<double*>(p.y)[unit] = parameter_gradient_one<S>(p, unit / (channels * bins), unit % (channels * bins), channels, bins);
}

void parameter_gradient(const Problem& p, double* partial) {
  Problem with_result = p;
  with_result.y = partial;
  const int64_t elements = (p.parameter_view.channel ? p.channels : 1) * (p.parameter_view.position ? p.bins : 1);
  with_storage(p.dtype, [&](auto s) { divide(with_result, p.samples * elements, parameter_chunk<decltype(s)>); });
}

}  // namespace fastpool::cpu
