#include "reducers/stochastic.h"
#include "ops/call.h"
#include "reducers/expectation.h"

namespace fastpool {

enum class Distribution : int64_t { relu = 0, softmax = 1 };

static Distribution checked(int64_t distribution) {
  STD_TORCH_CHECK(distribution == 0 || distribution == 1, "fastpool: distribution must be 0 (relu) or 1 (softmax), got ", distribution);
  return Distribution(distribution);
}

static std::tuple<Tensor, Tensor> stochastic_pool(Tensors inputs, std::optional<Tensor> seed, int64_t seed_value, Ints offset,
                                                  int64_t distribution, double temperature, Ints window, int64_t order, int64_t tap_bytes) {
  const ForwardCall call(inputs, std::move(window), order, forward_traits<Stochastic<ReluWeights>>);
  const Tensor& x = call.inputs[0];
  STD_TORCH_CHECK(offset.size() == 2, "fastpool: offset must be (sample, channel)");
  if (seed)
    STD_TORCH_CHECK(seed->numel() == 1 && seed->scalar_type() == torch::headeronly::ScalarType::Long && seed->is_cpu() == x.is_cpu(),
                    "fastpool: seed must be one int64 on the input's device");
  Tensor output = call.geometry.output(x), taps = call.geometry.taps(x, tap_bytes);
  const Distribution weights = checked(distribution);
  call.for_each_input(output, taps, tap_bytes, [&](Problem& p, int64_t row) {
    p.seed = seed ? static_cast<const int64_t*>(seed->data_ptr()) : nullptr;
    p.seed_value = seed_value;
    p.offset_sample = offset[0] + row;
    p.offset_channel = offset[1];
    p.inverse_temperature = 1 / temperature;
    if (weights == Distribution::relu)
      run_forward<Stochastic<ReluWeights>>(p, x);
    else
      run_forward<Stochastic<SoftmaxWeights>>(p, x);
  });
  return {output, taps};
}

static char* moments_of(const Tensor& moments, const Geometry& geometry, int64_t row) {
  return data<char>(moments) + row * geometry.channels * geometry.bins * int64_t(moments.element_size());
}

static ReducerTraits expectation_traits(Distribution weights) {
  return weights == Distribution::relu ? forward_traits<Expectation<ReluWeights>> : forward_traits<Expectation<SoftmaxWeights>>;
}

static std::tuple<Tensor, Tensor> expectation_pool(Tensors inputs, int64_t distribution, double temperature, Ints window, int64_t order,
                                                   bool save_moments) {
  const Distribution weights = checked(distribution);
  const ForwardCall call(inputs, std::move(window), order, expectation_traits(weights));
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x);
  const int64_t size = call.geometry.rows * call.geometry.channels * call.geometry.bins;
  Tensor moments = save_moments ? new_result(x, {2, size}, false, accumulation_type(x)) : nothing(x, accumulation_type(x));
  call.for_each_input(output, output, 0, [&](Problem& p, int64_t row) {
    p.inverse_temperature = 1 / temperature;
    p.moments_size = size;
    if (save_moments) p.moments = moments_of(moments, call.geometry, row);
    if (weights == Distribution::relu)
      run_forward<Expectation<ReluWeights>>(p, x);
    else
      run_forward<Expectation<SoftmaxWeights>>(p, x);
  });
  return {output, moments};
}

// Whether a kernel finds again what was not kept of the results.
static bool pools_again(const ForwardCall& call) {
  const Tensor& x = call.inputs[0];
  if (!call.geometry.is_map() || x.size(0) == 0) return false;
  const Plan plan(call.windows, 0, shape_of(x.sizes().data(), call.windows.rank), dtype_of(x), is_channels_last(x), call.traits);
  return x.is_cpu() && !emulates_cuda() && plan.levels[0].backward != Schedule::direct && cpu::pools_again(plan.p);
}

// Without moments, everything is pooled again; `output` is then not read.
static Tensors expectation_pool_backward(Tensor grad, Tensors inputs, Tensor output, Tensor moments, int64_t distribution,
                                         double temperature, Ints window, int64_t order) {
  const Distribution weights = checked(distribution);
  const ForwardCall forward(inputs, Ints(window), order, expectation_traits(weights));
  Ints sizes, layouts;
  for (const Tensor& x : forward.inputs) {
    for (int64_t a = 0; a < x.dim(); ++a) sizes.push_back(x.size(a));
    layouts.push_back(is_channels_last(x));
  }
  const BackwardCall call(grad, std::move(sizes), forward.windows.rank, std::move(layouts), std::move(window), order, forward.traits);
  STD_TORCH_CHECK(forward.inputs[0].scalar_type() == call.grad.scalar_type(), "fastpool: inputs must be those of the forward call");
  const bool again = moments.numel() == 0 && pools_again(forward);
  if (!again) {
    if (moments.numel() == 0)
      std::tie(output, moments) = expectation_pool(inputs, distribution, temperature, forward.windows.numbers, order, true);
    output = in_layout(output, call.geometry.channels_last);
    moments = in_layout(moments, false);
    STD_TORCH_CHECK(output.numel() == call.grad.numel() && moments.numel() == 2 * output.numel() &&
                        moments.scalar_type() == accumulation_type(output) && output.scalar_type() == call.grad.scalar_type(),
                    "fastpool: output and moments must be those of the forward call");
  }
  size_t item = 0;
  return call.for_each_input(std::nullopt, [&](Problem& p, int64_t row) {
    p.inverse_temperature = 1 / temperature;
    p.x = forward.inputs[item++].data_ptr();
    if (!again) {
      p.y = data<char>(output) + row * call.geometry.result_channels * call.geometry.bins * int64_t(output.element_size());
      p.moments_size = moments.numel() / 2;
      p.moments = moments_of(moments, call.geometry, row);
    }
    if (weights == Distribution::relu)
      run_backward<ExpectationGradient<ReluWeights>>(p, call.grad);
    else
      run_backward<ExpectationGradient<SoftmaxWeights>>(p, call.grad);
  });
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def(
      "stochastic_pool(Tensor[] inputs, Tensor? seed, int seed_value, int[] offset, int distribution, float temperature, SymInt[] window, "
      "int order, int tap_bytes) -> (Tensor output, Tensor taps)");
  m.def(
      "expectation_pool(Tensor[] inputs, int distribution, float temperature, SymInt[] window, int order, bool save_moments) "
      "-> (Tensor output, Tensor moments)");
  m.def(
      "expectation_pool_backward(Tensor grad, Tensor[] inputs, Tensor output, Tensor moments, int distribution, float temperature, "
      "SymInt[] window, int order) -> Tensor[]");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("stochastic_pool", TORCH_BOX(&stochastic_pool));
  m.impl("expectation_pool", TORCH_BOX(&expectation_pool));
  m.impl("expectation_pool_backward", TORCH_BOX(&expectation_pool_backward));
}

}  // namespace fastpool
