// Maxima of maxima beside their input: each is written where the result has it, and read there for the next.
#include "ops/call.h"
#include "reducers/max.h"

namespace fastpool {

static Tensor sppf(Tensor input, Ints window, int64_t repeats) {
  const ForwardCall call({input}, std::move(window), int64_t(Order::map), forward_traits<Max, false>);
  const Tensor& x = call.inputs[0];
  const Geometry& geometry = call.geometry;
  const bool last = geometry.channels_last;
  const int64_t channels = geometry.channels;
  STD_TORCH_CHECK(x.is_cpu() && repeats > 0 && geometry.map == Ints(x.sizes().begin(), x.sizes().end()),
                  "fastpool: maxima of maxima keep the size, of an input on the CPU");
  Ints sizes = geometry.map;
  sizes[1] = elements_of({repeats + 1, channels}, "the result's channels");
  elements_of({sizes[0], sizes[1], geometry.bins}, "the result");
  Tensor output = new_result(x, sizes, last);
  const auto put = [&](int64_t map, const Tensor& from) {
    Tensor part = torch::stable::narrow(output, 1, map * channels, channels);
    torch::stable::copy_(part, from);
  };
  put(0, x);
  Tensor dense = x;
  for (int64_t map = 1; map <= repeats; ++map) {
    call.for_each_input(dense, [&](Problem& p, int64_t) {
      Level level = p.levels[0];
      if (level.forward != cpu::ForwardSchedule::separable || emulates_cuda()) {
        Tensor y = new_result(x, geometry.map, last);
        p.x = dense.data_ptr();
        p.y = y.mutable_data_ptr();
        run_forward<Max>(p, x);
        put(map, y);
        dense = y;
        return;
      }
      // The only schedule that reads channels-last elements of which others lie between.
      const int64_t step = channels * (last ? 1 : geometry.bins);
      p.x = place_in(output, (map - 1) * step);
      p.y = place_in(output, map * step);
      for (View* view : {&p.input, &level.output}) {
        view->sample *= repeats + 1;
        if (last) view->position *= repeats + 1;
      }
      p.levels = &level;
      cpu::forward<Max>(p);
    });
  }
  return output;
}

STABLE_TORCH_LIBRARY_FRAGMENT(fastpool, m) { m.def("sppf(Tensor input, SymInt[] window, int repeats) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(fastpool, CPU, m) { m.impl("sppf", TORCH_BOX(&sppf)); }

}  // namespace fastpool
