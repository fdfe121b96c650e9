#include "ops/call.h"

namespace fastpool {

using torch::headeronly::ScalarType;

Geometry::Geometry(const Windows& windows, int64_t rows, int64_t channels, bool last, bool two_results)
    : rows(rows), channels(channels), bins(windows.bins()), result_channels(channels), channels_last(last && windows.order == Order::map) {
  if (windows.order == Order::map) {
    map = {rows, channels};
    for (int64_t a = 0; a < windows.rank; ++a) map.push_back(windows.of(0, 0)[a * 6]);
  } else if (two_results) {
    result_channels = 2 * channels;
  }
  elements_of({rows, result_channels, bins}, "the result");
}

Tensor Geometry::output(const Tensor& like) const {
  return new_result(like, is_map() ? map : Ints{rows, result_channels * bins}, channels_last);
}

Tensor Geometry::saved(const Tensor& like, ScalarType dtype) const {
  return new_result(like, is_map() ? map : Ints{rows, channels, bins}, channels_last, dtype);
}

Tensor Geometry::taps(const Tensor& like, int64_t tap_bytes) const {
  STD_TORCH_CHECK(tap_bytes == 0 || tap_bytes == 1 || tap_bytes == 4, "fastpool: tap_bytes must be 0, 1 or 4, got ", tap_bytes);
  return tap_bytes == 0 ? nothing(like, ScalarType::Byte) : saved(like, tap_bytes == 1 ? ScalarType::Byte : ScalarType::Int);
}

Tensor nothing(const Tensor& like, std::optional<ScalarType> dtype) { return new_result(like, {0}, false, dtype); }

Tensor checked_taps(const Tensor& taps, const Geometry& geometry) {
  STD_TORCH_CHECK(taps.scalar_type() == ScalarType::Byte || taps.scalar_type() == ScalarType::Int, "fastpool: taps must be uint8 or int32");
  STD_TORCH_CHECK(taps.numel() == geometry.rows * geometry.channels * geometry.bins, "fastpool: taps have the wrong shape");
  return in_layout(taps, geometry.channels_last);
}

Tensor checked(const Tensor& tensor, int64_t elements, ScalarType dtype, bool channels_last) {
  STD_TORCH_CHECK(tensor.numel() == elements && tensor.scalar_type() == dtype, "fastpool: what was saved must be the forward call's");
  return in_layout(tensor, channels_last);
}

static int64_t checked_rank(const Tensors& inputs) {
  STD_TORCH_CHECK(!inputs.empty(), "fastpool: inputs is empty");
  for (const Tensor& x : inputs) {
    STD_TORCH_CHECK(x.dim() == inputs[0].dim() && x.dim() >= 3 && x.dim() <= 5, "fastpool: inputs must be (N, C, *spatial) of one rank");
    STD_TORCH_CHECK(x.size(1) == inputs[0].size(1) && x.scalar_type() == inputs[0].scalar_type() && x.is_cpu() == inputs[0].is_cpu() &&
                        x.get_device_index() == inputs[0].get_device_index(),
                    "fastpool: inputs must share their channels, dtype and device");
    STD_TORCH_CHECK(x.size(1) > 0, "fastpool: inputs must have channels");
    for (int64_t a = 2; a < x.dim(); ++a) STD_TORCH_CHECK(x.size(a) > 0, "fastpool: a spatial axis is empty");
  }
  return inputs[0].dim() - 2;
}

static int64_t count_rows(const Tensors& inputs) {
  int64_t rows = 0;
  for (const Tensor& x : inputs) rows += x.size(0);
  return rows;
}

static Tensors readable(const Tensors& given) {
  Tensors inputs;
  for (const Tensor& x : given) inputs.push_back(in_layout(x, is_channels_last(x)));
  return inputs;
}

ForwardCall::ForwardCall(const Tensors& given, Ints window, int64_t order, ReducerTraits traits)
    : inputs(readable(given)),
      windows(std::move(window), int64_t(inputs.size()), checked_rank(inputs), order),
      geometry(windows, count_rows(inputs), inputs[0].size(1), is_channels_last(inputs[0]), traits.two_results),
      traits(traits) {}

int64_t rows_of(const Ints& sizes, int64_t rank, size_t inputs) {
  STD_TORCH_CHECK(rank >= 1 && rank <= 3 && sizes.size() == inputs * size_t(rank + 2) && inputs > 0,
                  "fastpool: sizes must hold every input's shape");
  int64_t rows = 0;
  for (size_t i = 0; i < sizes.size(); i += size_t(rank + 2)) {
    STD_TORCH_CHECK(sizes[i] >= 0 && sizes[i + 1] == sizes[1], "fastpool: inputs must share their channels");
    for (int64_t a = 1; a < rank + 2; ++a) STD_TORCH_CHECK(sizes[i + size_t(a)] > 0, "fastpool: an axis of an input is empty");
    const Shape shape = shape_of(&sizes[i], rank);
    elements_of({shape.samples, shape.channels, shape.extent[0], shape.extent[1], shape.extent[2]}, "an input");
    rows = elements_of({rows + sizes[i]}, "a batch");
  }
  return rows;
}

BackwardCall::BackwardCall(const Tensor& given, Ints all_sizes, int64_t rank, Ints all_layouts, Ints window, int64_t order,
                           ReducerTraits traits)
    : sizes(std::move(all_sizes)),
      layouts(std::move(all_layouts)),
      windows(std::move(window), int64_t(layouts.size()), rank, order),
      geometry(windows, rows_of(sizes, rank, layouts.size()), sizes.size() > 1 ? sizes[1] : 0, layouts[0] != 0, traits.two_results),
      traits(traits),
      grad(in_layout(given, geometry.channels_last)) {
  STD_TORCH_CHECK(grad.numel() == geometry.rows * geometry.result_channels * geometry.bins, "fastpool: grad has the wrong shape");
  for (size_t i = 0; i < layouts.size(); ++i) {
    const auto begin = sizes.begin() + int64_t(i) * (rank + 2);
    results.push_back(new_result(grad, Ints(begin, begin + rank + 2), layouts[i] != 0));
  }
}

Parameter::Parameter(const std::optional<Tensor>& parameter, double value, const Tensor& like, const Geometry& geometry) : value(value) {
  if (!parameter) return;
  const int64_t rank = int64_t(geometry.map.size());
  values = torch::stable::to(*parameter, accumulation_type(like));
  if (parameter->dim() <= 1) {
    values = in_layout(*values, false);
    view.channel = parameter->dim() == 1;
    STD_TORCH_CHECK(parameter->dim() == 0 || parameter->size(0) == geometry.channels,
                    "fastpool: a parameter must have one value per channel");
    return;
  }
  STD_TORCH_CHECK(geometry.is_map() && parameter->dim() == rank, "fastpool: a parameter must have the output's axes");
  // Spatial axes are spread out unless all are 1: a bin then finds its value by one stride.
  Ints sizes{parameter->size(0), parameter->size(1)};
  int64_t regions = 1;
  for (int64_t a = 0; a < rank; ++a)
    STD_TORCH_CHECK(parameter->size(a) == 1 || parameter->size(a) == geometry.map[size_t(a)],
                    "fastpool: a parameter must broadcast to the output");
  for (int64_t a = 2; a < rank; ++a) regions *= parameter->size(a);
  for (int64_t a = 2; a < rank; ++a) sizes.push_back(regions == 1 ? 1 : geometry.map[size_t(a)]);
  Tensor spread = torch::stable::new_empty(*values, {sizes.data(), sizes.size()});
  // copy_ broadcasts.
  torch::stable::copy_(spread, *values);
  values = spread;
  const int64_t bins = regions == 1 ? 1 : geometry.bins;
  view = {parameter->size(0) == 1 ? 0 : parameter->size(1) * bins, parameter->size(1) == 1 ? 0 : bins, regions == 1 ? 0 : 1};
}

void Parameter::give(Problem& p, int64_t row) const {
  p.parameter_value = value;
  p.parameter_view = view;
  if (values) p.parameter = static_cast<const char*>(values->data_ptr()) + row * view.sample * int64_t(values->element_size());
}

}  // namespace fastpool
