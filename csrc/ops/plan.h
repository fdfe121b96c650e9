// From tensors and window numbers to a Problem: layouts, levels, schedules and the memory of results.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <iterator>
#include <optional>
#include <vector>

#include "core/kernels.h"
#include "cpu/schedule.h"

namespace fastpool {

using torch::stable::Tensor;

// Where a pyramid's bins lie in its result; `map` is the ordinary result of one level, laid out like the input.
enum class Order : int64_t { map = -1, level = 0, channel = 1 };

// From `cuda` on the CUDA schedules are emulated; from `forward` on one of the CPU's is taken wherever it fits.
enum class ScheduleChoice : int32_t {
  tiled,
  exact,
  cuda,
  cuda_small_grid,
  cuda_wide_indices,
  cuda_large,
  forward,
  backward = forward + int32_t(std::size(cpu::kForwardSchedules)),
};
// Hooks of tests and benchmarks. The first returns the previous choice.
ScheduleChoice set_schedule_choice(ScheduleChoice choice);
struct Chosen {
  uint32_t forward;  // of all levels, a bit for each schedule
  cpu::BackwardSchedule backward;
};
Chosen last_chosen();     // for the last call of any thread
bool can_emulate_cuda();  // a build for tests
bool emulates_cuda();

// The product of counts, none of which is negative: of elements that `what` has, and whose bytes a number can tell.
int64_t elements_of(std::initializer_list<int64_t> counts, const char* what);

// The windows of all inputs of one call, and the results' extents that follow from them.
struct Windows {
  std::vector<int64_t> numbers;  // output, kernel, stride, before, after, dilation for each input, level and axis
  int64_t inputs, rank, levels;
  Order order;

  Windows(std::vector<int64_t> numbers, int64_t inputs, int64_t rank, int64_t order);
  const int64_t* of(int64_t input, int64_t level) const { return &numbers[size_t((input * levels + level) * rank * 6)]; }
  int64_t bins() const;  // of one channel of the first input; the same for all
};

struct Shape {
  int64_t samples, channels, extent[3];
  int64_t positions() const { return extent[0] * extent[1] * extent[2]; }
};
Shape shape_of(const int64_t* sizes, int64_t rank);

// One input's problem. `levels` belongs to it, so a Plan is moved, never copied.
struct Plan {
  Problem p;
  std::vector<Level> levels;
  Plan(const Windows& windows, int64_t input, const Shape& shape, Dtype dtype, bool channels_last, ReducerTraits traits);
  Plan(Plan&&) = default;

 private:
  void choose(const ReducerTraits& traits);
};

Dtype dtype_of(const Tensor& tensor);
bool is_channels_last(const Tensor& tensor);  // dense or a slice of such, and not contiguous
Tensor in_layout(const Tensor& tensor, bool channels_last);
Tensor new_result(const Tensor& like, const std::vector<int64_t>& sizes, bool channels_last,
                  std::optional<torch::headeronly::ScalarType> dtype = std::nullopt);
torch::headeronly::ScalarType accumulation_type(const Tensor& tensor);

}  // namespace fastpool
