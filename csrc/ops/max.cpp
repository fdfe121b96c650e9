#include "reducers/max.h"
#include "ops/call.h"

namespace fastpool {

static std::tuple<Tensor, Tensor> max_pool(Tensors inputs, Ints window, int64_t order, int64_t tap_bytes) {
  const ForwardCall call(inputs, std::move(window), order, forward_traits<Max>);
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x), taps = call.geometry.taps(x, tap_bytes);
  call.for_each_input(output, taps, tap_bytes,
                      [&](Problem& p, int64_t) { tap_bytes ? run_forward<Max>(p, x) : run_forward<Max, MaxValue>(p, x); });
  return {output, taps};
}

static Tensors select_backward(Tensor grad, Tensor taps, Ints sizes, int64_t rank, Ints layouts, Ints window, int64_t order) {
  const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order, {.selects = true});
  return call.for_each_input(call.dense_taps(taps), [&](Problem& p, int64_t) { run_backward<SelectGradient>(p, call.grad); });
}

static Tensor select_taps(Tensors inputs, Tensor taps, Ints window, int64_t order) {
  const ForwardCall call(inputs, std::move(window), order, {});
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x), dense_taps = checked_taps(taps, call.geometry);
  call.for_each_input(output, dense_taps, int64_t(taps.element_size()), [&](Problem& p, int64_t) {
    FASTPOOL_ON_DEVICE(x, cpu::select(p), emulated::select(p, nullptr), cuda::select(p, stream));
  });
  return output;
}

static Tensor tap_indices(Tensor taps, Ints size, Ints window) {
  const int64_t rank = int64_t(size.size());
  STD_TORCH_CHECK(taps.dim() == rank + 2, "fastpool: taps must have the axes of the result");
  Ints shape{taps.size(0), taps.size(1)};
  shape.insert(shape.end(), size.begin(), size.end());
  const Windows windows(std::move(window), 1, rank, int64_t(Order::map));
  const bool channels_last = is_channels_last(taps);
  const Geometry geometry(windows, rows_of(shape, rank, 1), shape[1], channels_last, false);
  for (int64_t a = 0; a < rank; ++a)
    STD_TORCH_CHECK(taps.size(a + 2) == geometry.map[size_t(a) + 2], "fastpool: taps have the wrong shape");
  const Tensor dense = checked_taps(taps, geometry);
  Tensor output = new_result(taps, geometry.map, channels_last, torch::headeronly::ScalarType::Long);
  if (shape[0] == 0) return output;
  Plan plan(windows, 0, shape_of(shape.data(), rank), Dtype::float32, channels_last, {});
  plan.p.y = output.mutable_data_ptr();
  plan.p.taps = dense.mutable_data_ptr();
  plan.p.tap_bytes = int32_t(taps.element_size());
  FASTPOOL_ON_DEVICE(taps, cpu::tap_indices(plan.p), emulated::tap_indices(plan.p, nullptr), cuda::tap_indices(plan.p, stream));
  return output;
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("max_pool(Tensor[] inputs, SymInt[] window, int order, int tap_bytes) -> (Tensor output, Tensor taps)");
  m.def("select(Tensor[] inputs, Tensor taps, SymInt[] window, int order) -> Tensor");
  m.def("select_backward(Tensor grad, Tensor taps, SymInt[] sizes, int rank, int[] layouts, SymInt[] window, int order) -> Tensor[]");
  m.def("tap_indices(Tensor taps, SymInt[] size, SymInt[] window) -> Tensor");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("max_pool", TORCH_BOX(&max_pool));
  m.impl("select", TORCH_BOX(&select_taps));
  m.impl("select_backward", TORCH_BOX(&select_backward));
  m.impl("tap_indices", TORCH_BOX(&tap_indices));
}

}  // namespace fastpool
