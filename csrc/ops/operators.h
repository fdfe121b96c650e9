// The operators of every pooling, forward and backward, in one body: a pooling says in its reducer file what it takes.
#pragma once

#include <string>

#include "ops/call.h"
#include "reducers/reducer.h"

namespace fastpool {

// What a forward call saves: bytes of a tap, and beside them
constexpr int64_t kTapBytes = 7, kSaveMoments = 8, kSaveSlope = 16;

template <class P>
constexpr bool kTwoResults = P::Forward::has_second && !P::mixes;
template <class P>
constexpr bool kHasParameter = P::Forward::uses_parameter && !kTwoResults<P>;

// A pooling's own arguments: numbers, of which its parameter's value is the last; integers; and a tensor that is its
// parameter or its seed.
template <class P>
class Own {
 public:
  Own(std::optional<Tensor> tensor, std::vector<double> numbers, Ints integers, const Tensor& like, const Geometry& geometry)
      : tensor(std::move(tensor)), numbers(std::move(numbers)), integers(std::move(integers)) {
    constexpr size_t values = P::numbers + kHasParameter<P>, counts = R::uses_uniform ? 3 : P::integers;
    // Where there are none, one may be given: packages of AOTInductor make None of an empty list of integers.
    const size_t given = this->integers.size() - (counts == 0 && this->integers.size() == 1);
    STD_TORCH_CHECK(this->numbers.size() == values && given == counts, "fastpool: this operator takes ", values, " numbers and ", counts,
                    " integers");
    if constexpr (kHasParameter<P>) {
      parameter.emplace(this->tensor, this->numbers[P::numbers], like, geometry);
    } else if constexpr (R::uses_uniform) {
      if (this->tensor)
        STD_TORCH_CHECK(this->tensor->numel() == 1 && this->tensor->scalar_type() == torch::headeronly::ScalarType::Long &&
                            this->tensor->is_cpu() == like.is_cpu(),
                        "fastpool: seed must be one int64 on the input's device");
    } else {
      STD_TORCH_CHECK(!this->tensor, "fastpool: this operator takes no tensor of its own");
    }
  }

  // Those of the input whose first sample is `row` of all.
  void give(Problem& p, int64_t row) const {
    for (size_t i = 0; i < P::numbers; ++i) p.numbers[i] = numbers[i];
    p.mixes = P::mixes;
    P::set(p, integers.data());
    if constexpr (kHasParameter<P>) parameter->give(p, row);
    if constexpr (R::uses_uniform) {
      p.seed = tensor ? static_cast<const int64_t*>(tensor->data_ptr()) : nullptr;
      p.seed_value = integers[0];
      p.offset_sample = integers[1] + row;
      p.offset_channel = integers[2];
    }
  }

 private:
  using R = typename P::Forward;
  std::optional<Tensor> tensor;
  std::vector<double> numbers;
  Ints integers;
  std::optional<Parameter> parameter;
};

template <bool has>
auto one_if(const Tensor& tensor) {
  if constexpr (has)
    return std::tuple(tensor);
  else
    return std::tuple<>();
}

template <class P>
struct Operator {
  using R = typename P::Forward;
  using G = typename P::Gradient;
  static constexpr bool two_results = kTwoResults<P>, has_slope = R::saves_slope && kHasParameter<P>;

  static auto forward(Tensors inputs, std::optional<Tensor> tensor, std::vector<double> numbers, Ints integers, Ints window, int64_t order,
                      int64_t saves) {
    const ForwardCall call(inputs, std::move(window), order, forward_traits<R, two_results>);
    const Tensor& x = call.inputs[0];
    const Geometry& geometry = call.geometry;
    const int64_t tap_bytes = saves & kTapBytes;
    const auto wide = accumulation_type(x);
    const int64_t size = geometry.rows * geometry.channels * geometry.bins;
    const Own<P> own(std::move(tensor), std::move(numbers), std::move(integers), x, geometry);
    Tensor output = geometry.output(x), second = output, taps = output, moments = output, slope = output;
    if constexpr (two_results) second = geometry.is_map() ? geometry.output(x) : nothing(x);
    if constexpr (R::saves_taps) taps = geometry.taps(x, tap_bytes);
    if constexpr (R::saves_moments) moments = saves & kSaveMoments ? new_result(x, {2, size}, false, wide) : nothing(x, wide);
    if constexpr (has_slope) slope = saves & kSaveSlope ? geometry.saved(x, wide) : nothing(x, wide);
    call.for_each_input(output, [&](Problem& p, int64_t row) {
      own.give(p, row);
      const int64_t first = row * geometry.channels * geometry.bins;
      if constexpr (two_results) p.second = geometry.is_map() ? second.mutable_data_ptr() : p.y;
      if constexpr (R::saves_taps) give_taps(p, taps, first, tap_bytes);
      if constexpr (R::saves_moments)
        if (saves & kSaveMoments) give_moments(p, moments, first);
      if constexpr (has_slope) p.slope = saves & kSaveSlope ? place_in(slope, first) : nullptr;
      run_forward<R>(p, x);
    });
    auto results = std::tuple_cat(std::tuple(output), one_if<two_results>(second), one_if<R::saves_taps>(taps),
                                  one_if<R::saves_moments>(moments), one_if<has_slope>(slope));
    if constexpr (std::tuple_size_v<decltype(results)> == 1)
      return output;
    else
      return results;
  }

  // `saved`: the taps; or of a gradient that reads its input the output, the moments and all inputs. Without moments they and
  // the output are found again.
  static Tensors backward(Tensor grad, std::optional<Tensor> grad_second, Tensors saved, std::optional<Tensor> tensor,
                          std::vector<double> numbers, Ints integers, Ints sizes, int64_t rank, Ints layouts, Ints window, int64_t order) {
    const size_t kept = G::uses_input ? 2 + layouts.size() : size_t(G::uses_taps);
    STD_TORCH_CHECK(saved.size() == kept, "fastpool: saved must hold ", kept, " tensors, got ", saved.size());
    bool again = false;
    if constexpr (kPoolsAgain<G>) again = saved[1].numel() == 0 && grad.is_cpu();
    const BackwardCall call(grad, std::move(sizes), rank, std::move(layouts), std::move(window), order,
                            {.shares = kShares<G>, .is_alike = kShares<G> && !G::uses_taps, .two_results = two_results, .again = again});
    const Geometry& geometry = call.geometry;
    const Own<P> own(std::move(tensor), std::move(numbers), std::move(integers), call.grad, geometry);
    Tensor second = call.grad, taps = call.grad;
    if constexpr (two_results) {
      STD_TORCH_CHECK(geometry.is_map() == grad_second.has_value(), "fastpool: the gradient of a second result goes with maps");
      second = grad_second ? checked(*grad_second, call.grad.numel(), call.grad.scalar_type(), geometry.channels_last) : call.grad;
    }
    if constexpr (G::uses_taps) taps = checked_taps(saved[0], geometry);
    if constexpr (G::uses_input) {
      const int64_t size = geometry.rows * geometry.channels * geometry.bins;
      if (!again) {
        saved[0] = checked(saved[0], call.grad.numel(), call.grad.scalar_type(), geometry.channels_last);
        saved[1] = checked(saved[1], 2 * size, accumulation_type(call.grad), false);
      }
      for (size_t i = 0; i < call.layouts.size(); ++i)
        saved[2 + i] = checked(saved[2 + i], call.results[i].numel(), call.grad.scalar_type(), call.layouts[i] != 0);
    }
    return call.for_each_input([&](Problem& p, int64_t row, size_t input) {
      own.give(p, row);
      const int64_t first = row * geometry.channels * geometry.bins;
      if constexpr (two_results) p.g_second = geometry.is_map() ? second.data_ptr() : p.g;
      if constexpr (G::uses_taps) give_taps(p, taps, first, int64_t(taps.element_size()));
      if constexpr (G::uses_input) {
        p.x = saved[2 + input].data_ptr();
        if (again) return cpu::backward<G>(p);
        p.y = place_in(saved[0], row * geometry.result_channels * geometry.bins);
        give_moments(p, saved[1], first);
      }
      run_backward<G>(p, call.grad);
    });
  }
};

template <class P>
void define(torch::stable::detail::StableLibrary& m, const std::string& name) {
  using O = Operator<P>;
  using R = typename O::R;
  std::string results = "Tensor output";
  if (O::two_results) results += ", Tensor second";
  if (R::saves_taps) results += ", Tensor taps";
  if (R::saves_moments) results += ", Tensor moments";
  if (O::has_slope) results += ", Tensor slope";
  m.def(
      (name + "(Tensor[] inputs, Tensor? own, float[] numbers, int[] integers, SymInt[] window, int order, int saves) -> (" + results + ")")
          .c_str());
  if constexpr (!std::is_void_v<typename P::Gradient>)
    m.def((name +
           "_backward(Tensor grad, Tensor? grad_second, Tensor[] saved, Tensor? own, float[] numbers, int[] integers, SymInt[] sizes, "
           "int rank, int[] layouts, SymInt[] window, int order) -> Tensor[]")
              .c_str());
}

template <class P>
void implement(torch::stable::detail::StableLibrary& m, const std::string& name) {
  m.impl(name.c_str(), TORCH_BOX(&Operator<P>::forward));
  if constexpr (!std::is_void_v<typename P::Gradient>) m.impl((name + "_backward").c_str(), TORCH_BOX(&Operator<P>::backward));
}

}  // namespace fastpool

#ifdef USE_CUDA
#define FASTPOOL_POOLING_ON_CUDA(name, Pooling) \
  STABLE_TORCH_LIBRARY_IMPL(fastpool, CUDA, m) { implement<Pooling>(m, #name); }
#else
#define FASTPOOL_POOLING_ON_CUDA(name, Pooling)
#endif
#undef FASTPOOL_POOLING
#define FASTPOOL_POOLING(name, Pooling)                                         \
  namespace fastpool {                                                          \
  STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) { define<Pooling>(m, #name); }     \
  STABLE_TORCH_LIBRARY_IMPL(fastpool, CPU, m) { implement<Pooling>(m, #name); } \
  FASTPOOL_POOLING_ON_CUDA(name, Pooling)                                       \
  }
