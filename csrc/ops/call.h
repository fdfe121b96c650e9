// What every operation does around its kernels: results for the inputs of one call, and one launch for each input.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "cpu/run.h"
#include "ops/plan.h"

#ifdef USE_CUDA
// Weak: the same binary also loads under a torch that was built without CUDA.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream) __attribute__((weak));
#endif

// Registers the implementations that follow for every device there is a kernel for.
#ifdef USE_CUDA
#define FASTPOOL_IMPLEMENT(m)                                                \
  static void implement(torch::stable::detail::StableLibrary&);              \
  STABLE_TORCH_LIBRARY_IMPL(fastpool, CPU, library) { implement(library); }  \
  STABLE_TORCH_LIBRARY_IMPL(fastpool, CUDA, library) { implement(library); } \
  static void implement(torch::stable::detail::StableLibrary& m)
#else
#define FASTPOOL_IMPLEMENT(m)                                               \
  static void implement(torch::stable::detail::StableLibrary&);             \
  STABLE_TORCH_LIBRARY_IMPL(fastpool, CPU, library) { implement(library); } \
  static void implement(torch::stable::detail::StableLibrary& m)
#endif

namespace fastpool {

using Tensors = std::vector<Tensor>;
using Ints = std::vector<int64_t>;

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Runs on the tensor's device: on_cpu(), on_cuda(stream), or where tests ask for it on_emulated().
template <class OnCpu, class OnEmulated, class OnCuda>
void on_device(const Tensor& tensor, const OnCpu& on_cpu, const OnEmulated& on_emulated, const OnCuda& on_cuda) {
  if (tensor.is_cpu()) return emulates_cuda() ? on_emulated() : on_cpu();
#ifdef USE_CUDA
  STD_TORCH_CHECK(tensor.is_cuda(), "fastpool: tensors must be on the CPU or a CUDA device");
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream,
                  "fastpool: this build does not reach torch's CUDA library; build it again with FASTPOOL_CUDA=1 and this torch");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  on_cuda(stream);
#else
  (void)on_cuda;
  STD_TORCH_CHECK(false, "fastpool was built without CUDA kernels; build it with FASTPOOL_CUDA=1 or move the tensor to the CPU");
#endif
}

#ifdef USE_CUDA
#define FASTPOOL_ON_DEVICE(tensor, call_cpu, call_emulated, call_cuda) \
  on_device(tensor, [&] { call_cpu; }, [&] { call_emulated; }, [&](void* stream) { call_cuda; })
#else
#define FASTPOOL_ON_DEVICE(tensor, call_cpu, call_emulated, call_cuda) \
  on_device(tensor, [&] { call_cpu; }, [&] { call_emulated; }, [&](void*) {})
#endif

template <class Reducer>
void run_forward(const Problem& p, const Tensor& x) {
  FASTPOOL_ON_DEVICE(x, cpu::forward<Reducer>(p), emulated::forward<Reducer>(p, nullptr), cuda::forward<Reducer>(p, stream));
}

template <class Gradient>
void run_backward(const Problem& p, const Tensor& g) {
  FASTPOOL_ON_DEVICE(g, cpu::backward<Gradient>(p), emulated::backward<Gradient>(p, nullptr), cuda::backward<Gradient>(p, stream));
}

// Shapes and layout of what a call returns.
struct Geometry {
  int64_t rows, channels, bins, result_channels;
  bool channels_last;
  Ints map;  // (N, C, *output) for a map, empty for pyramids

  Geometry(const Windows& windows, int64_t rows, int64_t channels, bool channels_last, bool two_results);
  bool is_map() const { return !map.empty(); }
  Tensor output(const Tensor& like) const;
  Tensor saved(const Tensor& like, torch::headeronly::ScalarType dtype) const;  // taps and slopes
  Tensor taps(const Tensor& like, int64_t tap_bytes) const;
};

// Taps in the layout that kernels read; wrong ones would send a kernel outside its input.
Tensor checked_taps(const Tensor& taps, const Geometry& geometry);

// A tensor of so many elements as kernels read it.
Tensor checked(const Tensor& tensor, int64_t elements, torch::headeronly::ScalarType dtype, bool channels_last);

inline char* place_in(const Tensor& tensor, int64_t element) { return data<char>(tensor) + element * int64_t(tensor.element_size()); }
inline void give_taps(Problem& p, const Tensor& taps, int64_t first, int64_t bytes) {
  p.tap_bytes = int32_t(bytes);
  if (bytes) p.taps = place_in(taps, first);
}
inline void give_moments(Problem& p, const Tensor& moments, int64_t first) {
  p.moments_size = moments.numel() / 2;
  p.moments = place_in(moments, first);
}

Tensor nothing(const Tensor& like, std::optional<torch::headeronly::ScalarType> dtype = std::nullopt);

template <class Reducer, bool two_results>
constexpr ReducerTraits forward_traits = {.draws = Reducer::uses_uniform,
                                          .parts = Reducer::parts,
                                          .several_passes = Reducer::passes > 1,
                                          .any_order = Reducer::any_order,
                                          .two_results = two_results,
                                          .separable = Reducer::separable};

// A forward call: its inputs in a layout that kernels read, and a plan for each.
struct ForwardCall {
  Tensors inputs;
  Windows windows;
  Geometry geometry;
  ReducerTraits traits;

  ForwardCall(const Tensors& given, Ints window, int64_t order, ReducerTraits traits);

  // Calls each(problem, first row) for every input that has a sample, with pointers to it and to its output.
  template <class Each>
  void for_each_input(const Tensor& output, const Each& each) const {
    int64_t row = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Shape shape = shape_of(inputs[i].sizes().data(), windows.rank);
      if (shape.samples == 0) continue;
      Plan plan(windows, int64_t(i), shape, dtype_of(inputs[i]), is_channels_last(inputs[i]), traits);
      plan.p.x = inputs[i].data_ptr();
      plan.p.y = place_in(output, row * geometry.result_channels * geometry.bins);
      each(plan.p, row);
      row += shape.samples;
    }
  }
};

// Samples of all inputs; `sizes` are their shapes, one after another.
int64_t rows_of(const Ints& sizes, int64_t rank, size_t inputs);

// A backward call: the incoming gradient in the result's layout, and a fresh gradient for each input.
struct BackwardCall {
  Ints sizes, layouts;
  Windows windows;
  Geometry geometry;
  ReducerTraits traits;
  Tensor grad;
  Tensors results;

  BackwardCall(const Tensor& grad, Ints sizes, int64_t rank, Ints layouts, Ints window, int64_t order, ReducerTraits traits);

  // Calls each(problem, first row, input).
  template <class Each>
  Tensors for_each_input(const Each& each) const {
    int64_t row = 0;
    for (size_t i = 0; i < results.size(); ++i) {
      const Shape shape = shape_of(&sizes[i * size_t(windows.rank + 2)], windows.rank);
      if (shape.samples == 0) continue;
      Plan plan(windows, int64_t(i), shape, dtype_of(grad), layouts[i] != 0, traits);
      plan.p.g = place_in(grad, row * geometry.result_channels * geometry.bins);
      plan.p.gx = results[i].mutable_data_ptr();
      each(plan.p, row, i);
      row += shape.samples;
    }
    return results;
  }
};

// A pooling's parameter in the accumulation type, with the strides that spread it over (sample, channel, bin).
struct Parameter {
  std::optional<Tensor> values;
  View view{0, 0, 0};
  double value;

  Parameter(const std::optional<Tensor>& parameter, double value, const Tensor& like, const Geometry& geometry);
  void give(Problem& p, int64_t row) const;
};

}  // namespace fastpool
