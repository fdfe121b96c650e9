#include "reducers/max_avg.h"
#include "cuda/policy.h"
#include "ops/call.h"

namespace fastpool {

using torch::headeronly::ScalarType;

static void run(const Problem& p, const Tensor& x) {
  p.tap_bytes ? run_forward<MaxAverage>(p, x) : run_forward<MaxAverage, MaxAverageValue>(p, x);
}

static std::tuple<Tensor, Tensor, Tensor> max_avg_pool(Tensors inputs, Ints window, int64_t order, int64_t tap_bytes) {
  const ForwardCall call(inputs, std::move(window), order, forward_traits<MaxAverage>);
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x), taps = call.geometry.taps(x, tap_bytes);
  Tensor average = call.geometry.is_map() ? call.geometry.output(x) : nothing(x);
  call.for_each_input(output, taps, tap_bytes, [&](Problem& p, int64_t) {
    p.second = call.geometry.is_map() ? average.mutable_data_ptr() : p.y;
    run(p, x);
  });
  return {output, average, taps};
}

static Tensors max_avg_pool_backward(Tensor grad, std::optional<Tensor> grad_average, Tensor taps, Ints sizes, int64_t rank, Ints layouts,
                                     Ints window, int64_t order) {
  const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order,
                          {.shares = true, .two_results = true});
  STD_TORCH_CHECK(call.geometry.is_map() == grad_average.has_value(), "fastpool: grad_average goes with maps");
  std::optional<Tensor> average;
  if (grad_average) {
    STD_TORCH_CHECK(grad_average->numel() == call.grad.numel() && grad_average->scalar_type() == call.grad.scalar_type(),
                    "fastpool: grad_average has the wrong shape");
    average = in_layout(*grad_average, call.geometry.channels_last);
  }
  return call.for_each_input(call.dense_taps(taps), [&](Problem& p, int64_t) {
    p.g_second = average ? average->data_ptr() : p.g;
    run_backward<MaxAverageGradient>(p, call.grad);
  });
}

static std::tuple<Tensor, Tensor, Tensor> mixed_pool(Tensors inputs, std::optional<Tensor> alpha, double alpha_value, Ints window,
                                                     int64_t order, int64_t tap_bytes, bool save_difference) {
  ReducerTraits traits = forward_traits<MaxAverage>;
  traits.two_results = false;
  const ForwardCall call(inputs, std::move(window), order, traits);
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x), taps = call.geometry.taps(x, tap_bytes);
  const ScalarType type = accumulation_type(x);
  Tensor difference = save_difference ? call.geometry.saved(x, type) : nothing(x, type);
  const Alpha mixture(alpha, alpha_value, x, call.geometry);
  call.for_each_input(output, taps, tap_bytes, [&](Problem& p, int64_t row) {
    p.mixes = true;
    mixture.give(p, row);
    if (save_difference)
      p.difference = data<char>(difference) + row * call.geometry.channels * call.geometry.bins * int64_t(difference.element_size());
    run(p, x);
  });
  return {output, taps, difference};
}

static Tensors mixed_pool_backward(Tensor grad, Tensor taps, std::optional<Tensor> alpha, double alpha_value, Ints sizes, int64_t rank,
                                   Ints layouts, Ints window, int64_t order) {
  const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order, {.shares = true});
  const Alpha mixture(alpha, alpha_value, call.grad, call.geometry);
  return call.for_each_input(call.dense_taps(taps), [&](Problem& p, int64_t row) {
    p.mixes = true;
    mixture.give(p, row);
    run_backward<MaxAverageGradient>(p, call.grad);
  });
}

// Sums of parts of one sample first, then over parts and samples, in an order that only shapes decide.
static Tensor mixed_alpha_backward(Tensor grad, Tensor difference, Tensor alpha, Ints window, Ints sizes, int64_t rank, int64_t order) {
  const size_t inputs = rank >= 1 && rank <= 3 ? sizes.size() / size_t(rank + 2) : 0;
  const int64_t rows = rows_of(sizes, rank, inputs);
  const bool channels_last = is_channels_last(difference);
  const Windows windows(std::move(window), int64_t(inputs), rank, order);
  const Geometry geometry(windows, rows, sizes[1], channels_last, false);
  const Tensor g = in_layout(grad, geometry.channels_last), saved = in_layout(difference, geometry.channels_last);
  STD_TORCH_CHECK(
      g.numel() == rows * geometry.channels * geometry.bins && saved.numel() == g.numel() && saved.scalar_type() == accumulation_type(g),
      "fastpool: grad and difference must have the result's shape");
  const Alpha mixture(alpha, 0, g, geometry);
  const View view = mixture.view;
  const int64_t elements = (view.channel ? geometry.channels : 1) * (view.position ? geometry.bins : 1);
  const int64_t splits =
      g.is_cpu() && !emulates_cuda() ? 1 : cuda::alpha_splits(rows * elements, geometry.channels * geometry.bins / elements);
  Tensor partial = new_result(g, {rows, splits, elements}, false, ScalarType::Double);
  int64_t row = 0;
  for (size_t i = 0; i < inputs; ++i) {
    const Shape shape = shape_of(&sizes[i * size_t(rank + 2)], rank);
    if (shape.samples == 0) continue;
    Plan plan(windows, int64_t(i), shape, dtype_of(g), geometry.channels_last, {});
    const int64_t first = row * geometry.channels * geometry.bins;
    plan.p.g = data<char>(g) + first * int64_t(g.element_size());
    plan.p.difference = data<char>(saved) + first * int64_t(saved.element_size());
    plan.p.alpha_view = view;
    double* to = data<double>(partial) + row * splits * elements;
    FASTPOOL_ON_DEVICE(g, cpu::alpha_gradient(plan.p, to), emulated::alpha_gradient(plan.p, splits, to, nullptr),
                       cuda::alpha_gradient(plan.p, splits, to, stream));
    row += shape.samples;
  }
  // What is left are sums over whole axes: samples, their parts, and spatial axes along which alpha was spread out.
  Tensor result = partial;
  Ints shape{rows, splits, view.channel ? geometry.channels : 1};
  for (size_t a = 2; a < geometry.map.size(); ++a) shape.push_back(view.position ? geometry.map[a] : 1);
  if (!geometry.is_map()) shape.push_back(1);
  result = torch::stable::view(result, {shape.data(), shape.size()});
  Ints summed;
  for (size_t a = 0; a < shape.size(); ++a) {
    const int64_t axis = a == 0 ? 0 : int64_t(a) - 1;  // of alpha
    const bool kept = a != 1 && (alpha.dim() <= 1 ? axis == 1 : alpha.size(axis) == shape[a] && shape[a] != 1);
    if (!kept) summed.push_back(int64_t(a));
  }
  if (!summed.empty()) result = torch::stable::sum(result, torch::headeronly::IntHeaderOnlyArrayRef(summed.data(), summed.size()), true);
  result = torch::stable::to(result, alpha.scalar_type());
  return torch::stable::view(result, alpha.sizes());
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("max_avg_pool(Tensor[] inputs, SymInt[] window, int order, int tap_bytes) -> (Tensor output, Tensor average, Tensor taps)");
  m.def(
      "max_avg_pool_backward(Tensor grad, Tensor? grad_average, Tensor taps, SymInt[] sizes, int rank, int[] layouts, SymInt[] window, "
      "int order) -> Tensor[]");
  m.def(
      "mixed_pool(Tensor[] inputs, Tensor? alpha, float alpha_value, SymInt[] window, int order, int tap_bytes, bool save_difference) "
      "-> (Tensor output, Tensor taps, Tensor difference)");
  m.def(
      "mixed_pool_backward(Tensor grad, Tensor taps, Tensor? alpha, float alpha_value, SymInt[] sizes, int rank, int[] layouts, "
      "SymInt[] window, int order) -> Tensor[]");
  m.def(
      "mixed_alpha_backward(Tensor grad, Tensor difference, Tensor alpha, SymInt[] window, SymInt[] sizes, int rank, int order) -> Tensor");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("max_avg_pool", TORCH_BOX(&max_avg_pool));
  m.impl("max_avg_pool_backward", TORCH_BOX(&max_avg_pool_backward));
  m.impl("mixed_pool", TORCH_BOX(&mixed_pool));
  m.impl("mixed_pool_backward", TORCH_BOX(&mixed_pool_backward));
  m.impl("mixed_alpha_backward", TORCH_BOX(&mixed_alpha_backward));
}

}  // namespace fastpool
