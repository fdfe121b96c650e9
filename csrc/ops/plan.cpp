#include "ops/plan.h"

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <exception>
#include <string>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastpool {

using torch::headeronly::ScalarType;

static std::atomic<ScheduleChoice> schedule_choice{ScheduleChoice::tiled};

ScheduleChoice set_schedule_choice(ScheduleChoice choice) {
  if (choice >= ScheduleChoice::cuda) emulated::set_limits(emulated::Emulated(int(choice) - int(ScheduleChoice::cuda)));
  return schedule_choice.exchange(choice);
}

bool can_emulate_cuda() { return emulated::set_limits != nullptr; }
bool emulates_cuda() { return schedule_choice >= ScheduleChoice::cuda; }

Windows::Windows(std::vector<int64_t> all, int64_t inputs, int64_t rank, int64_t order)
    : numbers(std::move(all)), inputs(inputs), rank(rank), levels(0), order(Order(order)) {
  STD_TORCH_CHECK(inputs >= 1 && rank >= 1 && rank <= 3, "fastpool: inputs must have 1 to 3 spatial axes");
  STD_TORCH_CHECK(order >= -1 && order <= 1, "fastpool: order must be -1, 0 or 1, got ", order);
  const int64_t per_level = inputs * rank * 6, count = int64_t(numbers.size());
  STD_TORCH_CHECK(count > 0 && count % per_level == 0, "fastpool: window has ", count, " numbers for ", inputs, " inputs of rank ", rank);
  levels = count / per_level;
  STD_TORCH_CHECK(this->order != Order::map || (levels == 1 && inputs == 1), "fastpool: a map has one level and one input");
  for (int64_t i = 0; i < count; i += 6)
    STD_TORCH_CHECK(numbers[i] >= 1 && numbers[i + 1] >= 0 && numbers[i + 2] >= 1 && numbers[i + 3] >= 0 && numbers[i + 5] >= 1,
                    "fastpool: window needs output, stride, dilation >= 1 and kernel, padding >= 0");
}

// What kernels rely on: numbers whose products do not overflow, and an element of the input in every window.
static void check_axis(const Axis& axis) {
  constexpr int64_t most = int64_t(1) << 40;
  const auto small = [](int64_t number) { return number <= most; };
  bool fits = small(axis.out) && small(axis.kernel) && small(axis.before) && small(axis.after);
  if (axis.adaptive()) {
    fits = fits && axis.stride == 1 && axis.before == 0 && axis.after == 0 && axis.dilation == 1;
  } else {
    fits = fits && axis.kernel - 1 <= most / axis.dilation && axis.before < axis.extent() &&
           axis.out - 1 <= (axis.in + axis.before - 1) / axis.stride;
    // Only windows that start in the padding can step over a short axis. Of more than `in` starts that differ modulo the
    // dilation one does.
    const int64_t starts = axis.dilation > axis.in ? smaller(smaller(axis.out, ceil_div(axis.before, axis.stride)), axis.in + 1) : 0;
    for (int64_t o = 0; fits && o < starts; ++o) fits = axis.window(o).count > 0;
  }
  STD_TORCH_CHECK(fits, "fastpool: window does not fit an axis of length ", axis.in);
}

static Axis axis_of(int64_t in, const int64_t* numbers) {
  Axis axis{in, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]};
  check_axis(axis);
  if (axis.adaptive() && in % axis.out == 0) axis.kernel = axis.stride = in / axis.out;      // even bins slide
  if (axis.out == 1 && !axis.adaptive()) axis.stride = smaller(axis.stride, axis.extent());  // it steps nowhere
  return axis;
}

int64_t elements_of(std::initializer_list<int64_t> counts, const char* what) {
  constexpr int64_t most = int64_t(1) << 60;
  int64_t product = 1;
  bool none = false;
  for (const int64_t count : counts) {
    none |= count == 0;
    STD_TORCH_CHECK(count <= most / product, "fastpool: ", what, " would have more than 2^60 elements");
    product *= larger(count, 1);
  }
  return none ? 0 : product;
}

int64_t Windows::bins() const {
  int64_t bins = 0;
  for (int64_t l = 0; l < levels; ++l) {
    const int64_t* numbers = of(0, l);
    bins += elements_of({numbers[0], rank > 1 ? numbers[6] : 1, rank > 2 ? numbers[12] : 1}, "a level");
    elements_of({bins}, "a channel's result");
  }
  return bins;
}

Shape shape_of(const int64_t* sizes, int64_t rank) {
  Shape shape{sizes[0], sizes[1], {1, 1, 1}};
  for (int64_t a = 0; a < rank; ++a) shape.extent[3 - rank + a] = sizes[2 + a];
  return shape;
}

struct WindowSizes {
  int64_t smallest, largest;
};

static WindowSizes window_sizes(const Axis& axis) {
  if (!axis.adaptive()) return {axis.kernel, axis.kernel};
  const int64_t whole = axis.in / axis.out, rest = axis.in % axis.out;
  if (rest == 0) return {whole, whole};
  return {whole + 1, axis.out % rest == 0 ? whole + 1 : whole + 2};
}

// Lanes over one window pay from about two steps of all lanes on, and rows of half a step: an element of a maximum costs, in
// ns, transposed and in lanes of its own, 6x6 0.28 and 0.47, 7x7 0.29 and 0.33; bins 10 wide 0.9 and 1.75, 16 wide 0.95 and 0.9.
constexpr int64_t kFlatTaps = 64, kFlatWidth = 16;
// Transposing planes pays when there are a few, and rows are short. Milliseconds for (8, 512, W, W) float32 on one thread
// of AVX-512, as rows and transposed: 2x2 stride 2, 8 outputs a row 0.44 and 0.27, 10 outputs 0.53 and 0.46, 12 outputs
// 0.56 and 1.0; 3x3 stride 2, 12 outputs 1.35 and 1.2, 14 outputs 1.55 and 1.65; 3x3 stride 1, 20 outputs 2.7 and 1.9, 24
// outputs 3.2 and 3.0, 28 outputs 3.95 both, 32 outputs 4.3 and 5.0.
constexpr int64_t kFewPlanes = 8, kNarrowBin = 16;
// Rows, and transposed planes, read what lies between windows and between their elements too.
constexpr int64_t kMostApart = 1024, kMostGaps = 8;
// Rows at the ends of a tensor are copied for all lanes, of which there are 32 at most.
constexpr int64_t kMostCopied = 128 << 10;
static bool copies_much(const Grid& grid) {
  return grid.axis[0].kernel * grid.axis[1].kernel * (32 * grid.axis[2].stride + grid.axis[2].extent()) > kMostCopied;
}
static bool reaches_far(const Axis& w) { return w.extent() > w.in + kMostApart; }
static bool is_sparse(const Axis& w) { return w.stride > kMostApart || w.stride > kMostGaps * w.extent() || reaches_far(w); }
static bool is_narrow(const Axis& w) { return w.out < (w.stride == 1 ? 24 : w.stride < w.extent() ? 13 : 11); }

// So do wider rows where lanes are gathered one by one, or read again for every pass, as long as a cache keeps what is
// transposed. Milliseconds for (32, 64, 112, 112) float32 on two threads of AVX-512, as rows and transposed: averages 3x3
// stride 3 12.6 and 5.2, 5x5 stride 3 32 and 7, 8x8 stride 8 15.8 and 5.0, but 4x4 stride 4 2.4 and 5.8; draws 4x4 stride 4
// 20.6 and 8.6, 5x5 stride 2 29.6 and 20.2, but 3x3 stride 2 9.9 and 13.4; draws by soft-max 4x4 stride 4 40 and 14, but 3x3
// stride 2 20 and 32. Averages of rows of 8000 and 100000, 3 wide stride 3, 28 and 19, 4.6 and 10.5.
constexpr int64_t kMostTransposed = 8192;
static bool walks_badly(const Grid& grid, bool several_passes) {
  const Axis& w = grid.axis[2];
  const bool gathers = w.stride == 3 || w.stride > 4, repeats = several_passes && (w.stride > 2 || w.kernel > 3);
  return (gathers || repeats) && grid.axis[0].kernel * grid.axis[1].kernel * w.in <= kMostTransposed;
}

// Backward. Per element of 12.8 MB of float32 on one thread, as rows and transposed: 2x2 stride 2, 56 columns 0.33 and 0.75
// ns, 28 columns 0.6 and 1.0, 20 columns 0.9 and 1.35, 14 columns 1.35 and 1.25; 3x3 stride 2, 56 columns 1.0 and 1.45, 28
// columns 2.0 and 1.4; 3x3 stride 1, 28 columns 3.1 and 3.7, 20 columns 4.5 and 4.0.
// Averages of bins repeat rows, whose copies need not be transposed.
static bool has_narrow_gradient(const Grid& grid, bool alone, bool repeats) {
  const Axis& w = grid.axis[2];
  if (grid.bins() == 1 && (alone || !repeats)) return w.in <= 1024;
  if (w.adaptive() || (w.stride != 1 && w.stride != 2 && (w.stride != 4 || w.stride < w.extent()))) return w.in < (repeats ? 32 : 64);
  return w.out < (w.stride >= w.extent() ? 8 : 24);
}

// Gradients of selections. Comparing taps is sooner than scattering for windows of a few elements that do not overlap:
// milliseconds for (8, 64, W, W) float32 of 2x2 windows, compared and scattered: contiguous 28x28 1.9 and 1.05 (512
// channels), 56x56 0.57 and 0.62 (draws 0.56 and 0.9), 112x112 1.7 and 2.4; channels-last 56x56 0.5 and 0.65. Channels-last
// 7x7 of one window 0.09 and 0.19 (2048 channels), but windows of 24 channels 0.18 and 0.12.
constexpr int64_t kManyChannels = 32;
static bool compares_taps(const Grid& grid, bool channels_last, int64_t channels) {
  const Axis& w = grid.axis[2];
  int64_t taps = 1;
  for (const Axis& axis : grid.axis) {
    if (axis.adaptive() || axis.stride < axis.extent()) return false;
    taps *= axis.kernel;
  }
  return taps <= (channels_last && channels >= kManyChannels ? 64 : 8) && w.dilation == 1 &&
         (channels_last || (w.out >= 24 && w.before == 0 && (w.stride == 2 || w.stride == 4)));
}

static void choose_schedules(Level& level, bool bins, bool alone, bool channels_last, int64_t channels, ReducerTraits traits) {
  const Axis* axis = level.grid.axis;
  int64_t smallest = 1, largest = 1;
  const bool sliding = level.grid.slides();
  const int64_t smallest_width = window_sizes(axis[2]).smallest;
  for (int a = 0; a < 3; ++a) {
    const WindowSizes sizes = window_sizes(axis[a]);
    smallest *= sizes.smallest;
    largest = elements_of({largest, sizes.largest}, "a window");
    level.clipped |= axis[a].clips();
  }
  STD_TORCH_CHECK(largest < int64_t(1) << 31, "fastpool: a window must hold fewer than 2^31 elements");
  level.large = smallest > kMostSequentialTaps;
  level.forward = level.backward = Schedule::direct;
  if (schedule_choice == ScheduleChoice::direct) return;
  const bool planes = channels >= kFewPlanes;
  // A draw sums small windows in order and large ones in classes; bins of both kinds take the exact path.
  const bool one_order = !traits.draws || level.large || largest <= kMostSequentialTaps;
  const bool free_order = bins && !traits.draws;
  const int64_t flat_taps = traits.parts > 0 && level.grid.bins() == 1 ? kFlatWidth : kFlatTaps;  // several planes share their last steps
  if (!one_order)
    level.forward = Schedule::direct;
  else if (channels_last)
    level.forward = Schedule::rows;
  else if (planes && (free_order || traits.any_order) && level.grid.folds(traits.parts))
    level.forward = Schedule::planes;
  else if (level.large || (free_order && smallest >= flat_taps && smallest_width >= kFlatWidth))
    level.forward = Schedule::flat;
  else if (sliding && (is_sparse(axis[2]) || copies_much(level.grid)))
    level.forward = Schedule::direct;
  else if (sliding && !(planes && (is_narrow(axis[2]) || walks_badly(level.grid, traits.several_passes))))
    level.forward = Schedule::rows;
  else if (largest <= kMostSequentialTaps)
    level.forward = Schedule::planes;
  const bool repeats = traits.shares && axis[2].stride > 4 && axis[2].stride >= axis[2].kernel;
  const bool wide = axis[2].adaptive() || (axis[2].dilation == 1 && (repeats || axis[2].kernel > 2 * axis[2].out));
  if (traits.selects)
    level.backward = alone && compares_taps(level.grid, channels_last, channels) ? Schedule::rows : Schedule::scatter;
  else if (channels_last)
    level.backward = Schedule::rows;
  else if (planes && (has_narrow_gradient(level.grid, alone, traits.shares) || (!sliding && smallest_width < kNarrowBin)))
    level.backward = Schedule::planes;
  else if (wide || !sliding || !alone)
    level.backward = axis[2].adaptive() || axis[2].dilation == 1 ? Schedule::flat : Schedule::direct;
  else
    level.backward = reaches_far(axis[2]) ? Schedule::direct : Schedule::rows;
}

Plan::Plan(const Windows& windows, int64_t input, const Shape& shape, Dtype dtype, bool channels_last, ReducerTraits traits) {
  const int64_t bins_of_channel = windows.bins(), results = traits.two_results && windows.order != Order::map ? 2 : 1;
  p.samples = shape.samples;
  p.channels = shape.channels;
  p.dtype = dtype;
  const int64_t positions = shape.positions();
  bool global = windows.levels == 1;
  for (int64_t l = 0; l < windows.levels; ++l) {
    Level level;
    const int64_t* numbers = windows.of(input, l);
    bool bins = windows.order != Order::map;
    for (int64_t a = 0; a < windows.rank; ++a, numbers += 6) {
      const bool adaptive = numbers[1] == 0;
      level.grid.axis[3 - windows.rank + a] = axis_of(shape.extent[3 - windows.rank + a], numbers);
      bins |= adaptive;
      global &= adaptive && numbers[0] == 1;
    }
    if (global) level.grid = Grid{{Axis{}, Axis{}, Axis{positions, 1, positions, positions, 0, 0, 1}}};
    level.free_order = bins;
    choose_schedules(level, bins, windows.levels == 1, channels_last, shape.channels, traits);
    level.first_bin = p.bins;
    level.first_row = p.bin_rows;
    const int64_t level_bins = level.grid.bins();
    const int64_t row = results * shape.channels * bins_of_channel;  // one sample's results
    switch (windows.order) {
      case Order::map:
        level.output = channels_last ? View{row, 1, shape.channels} : View{row, level_bins, 1};
        break;
      case Order::level:
        level.output = {row, level_bins, 1};
        level.output_base = results * shape.channels * level.first_bin;
        level.second_base = level.output_base + shape.channels * level_bins;
        break;
      case Order::channel:
        level.output = {row, bins_of_channel, 1};
        level.output_base = level.first_bin;
        level.second_base = level.first_bin + shape.channels * bins_of_channel;
        break;
    }
    p.bins += level_bins;
    p.bin_rows += level.grid.rows();
    levels.push_back(level);
  }
  STD_TORCH_CHECK(p.bins == bins_of_channel, "fastpool: every input must have the same number of bins");
  for (int a = 0; a < 3; ++a) p.extent[a] = global ? (a == 2 ? positions : 1) : shape.extent[a];
  p.lanes_are_channels = channels_last;
  p.input = channels_last ? View{positions * p.channels, 1, p.channels} : View{positions * p.channels, positions, 1};
  const bool saved_last = channels_last && windows.order == Order::map;
  p.saved = saved_last ? View{p.bins * p.channels, 1, p.channels} : View{p.bins * p.channels, p.bins, 1};
  p.levels = levels.data();
  p.level_count = int32_t(levels.size());
}

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half:
      return Dtype::float16;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Double:
      return Dtype::float64;
    default:
      STD_TORCH_CHECK(false, "fastpool: input must be float16, bfloat16, float32 or float64");
  }
}

ScalarType accumulation_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Axes of length 1 have no say in how a tensor is laid out.
static bool dense_channels_last(const Tensor& tensor) {
  const int64_t rank = tensor.dim();
  if (rank != 4 && rank != 5) return false;
  int64_t expected = 1;
  for (int64_t step = 0; step < rank; ++step) {
    const int64_t axis = step == 0 ? 1 : step == rank - 1 ? 0 : rank - step;
    if (tensor.size(axis) != 1 && tensor.stride(axis) != expected) return false;
    expected *= tensor.size(axis);
  }
  return true;
}

bool is_channels_last(const Tensor& tensor) { return !tensor.is_contiguous() && dense_channels_last(tensor); }

static torch::headeronly::MemoryFormat format(int64_t rank, bool channels_last) {
  using torch::headeronly::MemoryFormat;
  return !channels_last ? MemoryFormat::Contiguous : rank == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
}

Tensor in_layout(const Tensor& tensor, bool channels_last) {
  if (channels_last ? dense_channels_last(tensor) : tensor.is_contiguous()) return tensor;
  return torch::stable::contiguous(tensor, format(tensor.dim(), channels_last));
}

// Page faults of a large fresh buffer cost more than the pooling that fills it; huge pages make them few.
static void ask_for_huge_pages(const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t bytes = uintptr_t(tensor.numel()) * tensor.element_size();
  if (bytes < 2 * page || !tensor.is_cpu()) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)tensor;
#endif
}

Tensor new_result(const Tensor& like, const std::vector<int64_t>& sizes, bool channels_last, std::optional<ScalarType> dtype) {
  const auto allocate = [&]() -> Tensor {
    return torch::stable::empty({sizes.data(), sizes.size()}, dtype ? *dtype : like.scalar_type(), std::nullopt, like.device(),
                                std::nullopt, format(int64_t(sizes.size()), channels_last));
  };
  if (!like.is_cpu()) return allocate();
  try {
    Tensor result = allocate();
    ask_for_huge_pages(result);
    return result;
  } catch (const std::exception&) {  // what torch says ends at its own call
    std::string shape;
    for (const int64_t size : sizes) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    STD_TORCH_CHECK(false, "fastpool: no memory left for a result of shape (", shape, ")");
  }
}

}  // namespace fastpool
