// Learned filters over windows: their products, both gradients of these, and the function that makes shares of them.
#include "core/correlation.h"

#include "cuda/policy.h"
#include "ops/call.h"

namespace fastpool {

static void check_device(const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index(),
                  "fastpool: input, filters and grad must be on one device");
}

// One call's filters over the windows of an input, or of what has its shape.
struct Filters {
  Tensor weights;
  Windows windows;
  Geometry geometry;
  Plan plan;
  Correlation p;

  Filters(const Tensor& like, const Tensor& filters, Ints window, bool channels_last)
      : weights(in_layout(filters, false)),
        windows(std::move(window), 1, like.dim() - 2, int64_t(Order::map)),
        geometry(windows, rows_of(Ints(like.sizes().begin(), like.sizes().end()), like.dim() - 2, 1), like.size(1), channels_last, false),
        plan(windows, 0, shape_of(like.sizes().data(), windows.rank), dtype_of(like), channels_last, {}) {
    static_cast<Problem&>(p) = plan.p;
    for (size_t i = 1; i < windows.numbers.size(); i += 6) {
      STD_TORCH_CHECK(windows.numbers[i] > 0, "fastpool: filters need sliding windows");
      p.taps *= windows.numbers[i];
    }
    STD_TORCH_CHECK(weights.dim() == 3 && weights.scalar_type() == accumulation_type(like) && weights.size(0) > 0 &&
                        (weights.size(1) == 1 || weights.size(1) == p.channels) &&
                        (weights.size(2) == p.taps || weights.size(2) == p.taps + 1),
                    "fastpool: filters must be (filters, 1 or channels, taps) or have one number more, in the accumulation type");
    check_device(weights, like);
    p.filters = weights.size(0);
    p.shared = weights.size(1) == 1;
    p.bias = weights.size(2) > p.taps;
    p.weights = weights.data_ptr();
  }

  // A map for each filter and sample, as kernels take it.
  Ints maps() const {
    Ints shape = geometry.map;
    shape[0] = elements_of({p.filters, shape[0]}, "the products' batch");
    elements_of({shape[0], p.channels, geometry.bins}, "the products");
    return shape;
  }
  Tensor checked_maps(const Tensor& grad) const {
    check_device(grad, weights);
    return checked(grad, p.filters * geometry.rows * geometry.channels * geometry.bins, weights.scalar_type(), geometry.channels_last);
  }
  int64_t outputs() const { return plan.levels[0].grid.rows(); }
  int64_t units(int64_t rows) const { return p.blocks() * p.samples * p.parts(rows); }
};

static void check_dim(const Tensor& x) { STD_TORCH_CHECK(x.dim() >= 3 && x.dim() <= 5, "fastpool: input must be (N, C, *spatial)"); }

static Tensor correlate(Tensor input, Tensor filters, Ints window) {
  check_dim(input);
  const bool channels_last = is_channels_last(input);
  const Tensor x = in_layout(input, channels_last);
  Filters call(x, filters, std::move(window), channels_last);
  Tensor output = new_result(x, call.maps(), channels_last, call.weights.scalar_type());
  call.p.x = x.data_ptr();
  call.p.y = output.mutable_data_ptr();
  FASTPOOL_ON_DEVICE(x, cpu::divide(call.p, call.units(call.outputs()), FASTPOOL_BEST(correlate)), emulated::correlate(call.p, nullptr),
                     cuda::correlate(call.p, stream));
  return output;
}

static Tensor correlate_input(Tensor grad, Tensor filters, Tensor input, Ints window) {
  check_dim(input);
  const bool channels_last = is_channels_last(input);
  Filters call(input, filters, std::move(window), channels_last);
  const Tensor g = call.checked_maps(grad);
  Tensor result = new_result(input, Ints(input.sizes().begin(), input.sizes().end()), channels_last);
  call.p.g = g.data_ptr();
  call.p.gx = result.mutable_data_ptr();
  FASTPOOL_ON_DEVICE(input, cpu::divide(call.p, call.units(call.p.extent[0] * call.p.extent[1]), FASTPOOL_BEST(correlate_input)),
                     emulated::correlate_input(call.p, nullptr), cuda::correlate_input(call.p, stream));
  return result;
}

// Sums of parts first, then over these, in an order that only shapes decide.
static Tensor correlate_filters(Tensor grad, Tensor input, Tensor filters, Ints window) {
  check_dim(input);
  const bool channels_last = is_channels_last(input);
  const Tensor x = in_layout(input, channels_last);
  Filters call(x, filters, std::move(window), channels_last);
  Correlation& p = call.p;
  const Tensor g = call.checked_maps(grad);
  p.x = x.data_ptr();
  p.g = g.data_ptr();
  const int64_t channels = p.shared ? 1 : p.channels;
  const auto sums_of = [&](const Ints& sizes) { return new_result(x, sizes, false, torch::headeronly::ScalarType::Double); };
  if (!x.is_cpu() || emulates_cuda()) {
    const int64_t splits = cuda::parameter_splits(p.sums(), p.terms());
    const Tensor partial = sums_of({splits, p.filters, channels, p.width()});
    p.partial = data<double>(partial);
    FASTPOOL_ON_DEVICE(x, {}, emulated::correlate_filters(p, splits, nullptr), cuda::correlate_filters(p, splits, stream));
    const int64_t first_axis = 0;
    return torch::stable::to(torch::stable::sum(partial, torch::headeronly::IntHeaderOnlyArrayRef(&first_axis, 1)),
                             call.weights.scalar_type());
  }
  const int64_t splits = p.splits(call.outputs()), sums = p.shared ? p.blocks() * splits : splits;
  const Tensor partial = sums_of({sums, channels, p.filters, p.width()}), result = sums_of({p.filters, channels, p.width()});
  p.partial = data<double>(partial);
  cpu::divide(p, p.blocks() * splits, FASTPOOL_BEST(correlate_filters));
  for (int64_t f = 0; f < p.filters; ++f)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < p.width(); ++k) {
        double sum = 0;
        for (int64_t i = 0; i < sums; ++i) sum += p.partial[((i * channels + c) * p.filters + f) * p.width() + k];
        data<double>(result)[(f * channels + c) * p.width() + k] = sum;
      }
  return torch::stable::to(result, call.weights.scalar_type());
}

// torch's own computes the ends of what a thread takes in another way than the rest.
static Tensor logistic(Tensor input) {
  const bool channels_last = is_channels_last(input);
  const Tensor x = in_layout(input, channels_last);
  STD_TORCH_CHECK(x.scalar_type() == accumulation_type(x), "fastpool: input must be float32 or float64");
  Tensor output = new_result(x, Ints(x.sizes().begin(), x.sizes().end()), channels_last);
  Problem p;
  p.samples = x.numel();
  p.channels = 1;
  p.dtype = dtype_of(x);
  p.x = x.data_ptr();
  p.y = output.mutable_data_ptr();
  FASTPOOL_ON_DEVICE(x, cpu::divide(p, p.samples, FASTPOOL_BEST(logistic)), emulated::logistic(p, nullptr), cuda::logistic(p, stream));
  return output;
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) {
  m.def("correlate(Tensor input, Tensor filters, SymInt[] window) -> Tensor");
  m.def("correlate_input(Tensor grad, Tensor filters, Tensor input, SymInt[] window) -> Tensor");
  m.def("correlate_filters(Tensor grad, Tensor input, Tensor filters, SymInt[] window) -> Tensor");
  m.def("logistic(Tensor input) -> Tensor");
}

FASTPOOL_IMPLEMENT(m) {
  m.impl("correlate", TORCH_BOX(&correlate));
  m.impl("correlate_input", TORCH_BOX(&correlate_input));
  m.impl("correlate_filters", TORCH_BOX(&correlate_filters));
  m.impl("logistic", TORCH_BOX(&logistic));
}

}  // namespace fastpool
