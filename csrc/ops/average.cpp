#include "reducers/average.h"
#include "ops/call.h"

namespace fastpool {

static void set_divisor(Problem& p, bool count_include_pad, int64_t divisor_override) {
  p.include_pad = count_include_pad;
  p.divisor_override = divisor_override;
}

static Tensor avg_pool(Tensors inputs, Ints window, int64_t order, bool count_include_pad, int64_t divisor_override) {
  const ForwardCall call(inputs, std::move(window), order, forward_traits<Average>);
  const Tensor& x = call.inputs[0];
  Tensor output = call.geometry.output(x);
  call.for_each_input(output, output, 0, [&](Problem& p, int64_t) {
    set_divisor(p, count_include_pad, divisor_override);
    run_forward<Average>(p, x);
  });
  return output;
}

static Tensors avg_pool_backward(Tensor grad, Ints sizes, int64_t rank, Ints layouts, Ints window, int64_t order, bool count_include_pad,
                                 int64_t divisor_override) {
  const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order, {.shares = true});
  return call.for_each_input(std::nullopt, [&](Problem& p, int64_t) {
    set_divisor(p, count_include_pad, divisor_override);
    run_backward<AverageGradient>(p, call.grad);
  });
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("avg_pool(Tensor[] inputs, SymInt[] window, int order, bool count_include_pad, int divisor_override) -> Tensor");
  m.def(
      "avg_pool_backward(Tensor grad, SymInt[] sizes, int rank, int[] layouts, SymInt[] window, int order, bool count_include_pad, "
      "int divisor_override) -> Tensor[]");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("avg_pool", TORCH_BOX(&avg_pool));
  m.impl("avg_pool_backward", TORCH_BOX(&avg_pool_backward));
}

}  // namespace fastpool
