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

static std::atomic<Chosen> chosen{};

ScheduleChoice set_schedule_choice(ScheduleChoice choice) {
  const ScheduleChoice previous = schedule_choice.exchange(choice);
  if (emulates_cuda()) emulated::set_limits(emulated::Emulated(int(choice) - int(ScheduleChoice::cuda)));
  return previous;
}
Chosen last_chosen() { return chosen; }

bool can_emulate_cuda() { return emulated::set_limits != nullptr; }
bool emulates_cuda() { return schedule_choice >= ScheduleChoice::cuda && schedule_choice < ScheduleChoice::forward; }

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

// What the windows of a level are like.
static void classify(Level& level) {
  int64_t largest = 1;
  for (const Axis& axis : level.grid.axis) {
    largest = elements_of({largest, axis.most_taps()}, "a window");
    level.clipped |= axis.clips();
  }
  STD_TORCH_CHECK(largest < int64_t(1) << 31, "fastpool: a window must hold fewer than 2^31 elements");
  level.large = level.grid.least_taps() > kMostSequentialTaps;
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
    classify(level);
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
  if (schedule_choice != ScheduleChoice::exact) choose(traits);
  Chosen all{0, p.backward};
  for (const Level& level : levels) all.forward |= 1u << int(level.forward);
  chosen.store(all, std::memory_order_relaxed);
}

void Plan::choose(const ReducerTraits& traits) {
  for (Level& level : levels) level.forward = cpu::choose_forward(p, level, traits);
  p.backward = cpu::choose_backward(p, traits);
  const ScheduleChoice choice = schedule_choice;
  if (choice >= ScheduleChoice::backward) {
    const auto wanted = cpu::BackwardSchedule(int(choice) - int(ScheduleChoice::backward));
    if (cpu::fits(wanted, p, traits)) p.backward = wanted;
  } else if (choice >= ScheduleChoice::forward) {
    const auto wanted = cpu::ForwardSchedule(int(choice) - int(ScheduleChoice::forward));
    bool fits = true;
    for (const Level& level : levels) fits &= cpu::fits(wanted, p, level, traits);
    for (Level& level : levels) level.forward = fits ? wanted : level.forward;
  }
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

// As torch asks of the strides of slices, and dense even where an axis of length 1 has another. Not where a dense tensor would
// be contiguous as well.
bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) return false;
  if (dense_channels_last(tensor)) return true;
  const int64_t rank = tensor.dim();
  if (rank != 4 && rank != 5) return false;
  if (tensor.size(1) == 1 || tensor.numel() == tensor.size(0) * tensor.size(1) || tensor.stride(1) == 0) return false;
  int64_t least = 0;
  for (int64_t step = 0; step < rank; ++step) {
    const int64_t axis = step == 0 ? 1 : step == rank - 1 ? 0 : rank - step;
    if (tensor.stride(axis) < least) return false;
    least = tensor.stride(axis) * tensor.size(axis);
  }
  return true;
}

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
