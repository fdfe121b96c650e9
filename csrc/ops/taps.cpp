// What taps say: the elements they point at, their positions, and the gradient of every selection.
#include "ops/call.h"
#include "reducers/max.h"

namespace fastpool {

static Tensors select_backward(Tensor grad, Tensor taps, Ints sizes, int64_t rank, Ints layouts, Ints window, int64_t order) {
  const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order, {.selects = true});
  const Tensor dense = checked_taps(taps, call.geometry);
  return call.for_each_input([&](Problem& p, int64_t row, size_t) {
    give_taps(p, dense, row * call.geometry.channels * call.geometry.bins, int64_t(dense.element_size()));
    run_backward<SelectGradient>(p, call.grad);
  });
}

static Tensor select_taps(Tensors inputs, Tensor taps, Ints window, int64_t order) {
  const ForwardCall call(inputs, std::move(window), order, {});
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x), dense = checked_taps(taps, call.geometry);
  call.for_each_input(output, [&](Problem& p, int64_t row) {
    give_taps(p, dense, row * call.geometry.channels * call.geometry.bins, int64_t(dense.element_size()));
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
  give_taps(plan.p, dense, 0, int64_t(dense.element_size()));
  FASTPOOL_ON_DEVICE(taps, cpu::tap_indices(plan.p), emulated::tap_indices(plan.p, nullptr), cuda::tap_indices(plan.p, stream));
  return output;
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("select(Tensor[] inputs, Tensor taps, SymInt[] window, int order) -> Tensor");
  m.def("select_backward(Tensor grad, Tensor taps, SymInt[] sizes, int rank, int[] layouts, SymInt[] window, int order) -> Tensor[]");
  m.def("tap_indices(Tensor taps, SymInt[] size, SymInt[] window) -> Tensor");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("select", TORCH_BOX(&select_taps));
  m.impl("select_backward", TORCH_BOX(&select_backward));
  m.impl("tap_indices", TORCH_BOX(&tap_indices));
}

}  // namespace fastpool
