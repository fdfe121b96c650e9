// The gradient of a pooling's parameter: the sum of g * slope over the outputs that share an element of it.
#include "cuda/policy.h"
#include "ops/call.h"

namespace fastpool {

using torch::headeronly::ScalarType;

// Sums of parts of one sample first, then over parts and samples, in an order that only shapes decide.
static Tensor parameter_backward(Tensor grad, Tensor slope, Tensor parameter, Ints window, Ints sizes, int64_t rank, int64_t order) {
  const size_t inputs = rank >= 1 && rank <= 3 ? sizes.size() / size_t(rank + 2) : 0;
  const int64_t rows = rows_of(sizes, rank, inputs);
  const bool channels_last = is_channels_last(slope);
  const Windows windows(std::move(window), int64_t(inputs), rank, order);
  const Geometry geometry(windows, rows, sizes[1], channels_last, false);
  const Tensor g = in_layout(grad, geometry.channels_last), saved = in_layout(slope, geometry.channels_last);
  STD_TORCH_CHECK(
      g.numel() == rows * geometry.channels * geometry.bins && saved.numel() == g.numel() && saved.scalar_type() == accumulation_type(g),
      "fastpool: grad and slope must have the result's shape");
  const Parameter spread(parameter, 0, g, geometry);
  const View view = spread.view;
  const int64_t elements = (view.channel ? geometry.channels : 1) * (view.position ? geometry.bins : 1);
  const int64_t splits =
      g.is_cpu() && !emulates_cuda() ? 1 : cuda::parameter_splits(rows * elements, geometry.channels * geometry.bins / elements);
  Tensor partial = new_result(g, {rows, splits, elements}, false, ScalarType::Double);
  int64_t row = 0;
  for (size_t i = 0; i < inputs; ++i) {
    const Shape shape = shape_of(&sizes[i * size_t(rank + 2)], rank);
    if (shape.samples == 0) continue;
    Plan plan(windows, int64_t(i), shape, dtype_of(g), geometry.channels_last, {});
    const int64_t first = row * geometry.channels * geometry.bins;
    plan.p.g = place_in(g, first);
    plan.p.slope = place_in(saved, first);
    plan.p.parameter_view = view;
    double* to = data<double>(partial) + row * splits * elements;
    FASTPOOL_ON_DEVICE(g, cpu::parameter_gradient(plan.p, to), emulated::parameter_gradient(plan.p, splits, to, nullptr),
                       cuda::parameter_gradient(plan.p, splits, to, stream));
    row += shape.samples;
  }
  // What is left are sums over whole axes: samples, their parts, and spatial axes along which parameter was spread out.
  Tensor result = partial;
  Ints shape{rows, splits, view.channel ? geometry.channels : 1};
  for (size_t a = 2; a < geometry.map.size(); ++a) shape.push_back(view.position ? geometry.map[a] : 1);
  if (!geometry.is_map()) shape.push_back(1);
  result = torch::stable::view(result, {shape.data(), shape.size()});
  Ints summed;
  for (size_t a = 0; a < shape.size(); ++a) {
    const int64_t axis = a == 0 ? 0 : int64_t(a) - 1;  // of parameter
    const bool kept = a != 1 && (parameter.dim() <= 1 ? axis == 1 : parameter.size(axis) == shape[a] && shape[a] != 1);
    if (!kept) summed.push_back(int64_t(a));
  }
  if (!summed.empty()) result = torch::stable::sum(result, torch::headeronly::IntHeaderOnlyArrayRef(summed.data(), summed.size()), true);
  result = torch::stable::to(result, parameter.scalar_type());
  return torch::stable::view(result, parameter.sizes());
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("parameter_backward(Tensor grad, Tensor slope, Tensor parameter, SymInt[] window, SymInt[] sizes, int rank, int order) -> Tensor");
}

FASTPOOL_IMPLEMENT(m) { m.impl("parameter_backward", TORCH_BOX(&parameter_backward)); }

}  // namespace fastpool
