// One thread per output, or per input gradient: the exact bodies of core/direct.h.
#pragma once

#include "core/direct.h"
#include "core/kernels.h"
#include "cuda/launch.cuh"

namespace fastpool::cuda {

template <class Reducer, class S>
struct Forward {
  DeviceProblem problem;

  __device__ void operator()(int64_t index) const {
    Place at;
    const Level& level = problem.locate(index, at.n, at.c, at.o);
    forward_at<Reducer, S>(problem.p, level, at);
  }
};

template <class Gradient, class S>
struct Backward {
  DeviceProblem problem;

  __device__ void operator()(int64_t index) const {
    const Problem& p = problem.p;
    const int64_t position = index % p.positions(), plane = index / p.positions();
    const int64_t n = plane / p.channels, c = plane % p.channels;
    const int64_t i[3] = {position / (p.extent[1] * p.extent[2]), position / p.extent[2] % p.extent[1], position % p.extent[2]};
    Accumulated<S> sum(0);
    for (int l = 0; l < p.level_count; ++l) sum = backward_one<Gradient, S>(p, problem.levels[l], n, c, i, sum);
    static_cast<S*>(p.gx)[p.input.at(n, c, position)] = Narrow<S>::from(sum);
  }
};

template <class Reducer>
void forward(const Problem& p, void* stream) {
  with_storage(p.dtype, [&](auto s) { launch(Forward<Reducer, decltype(s)>{DeviceProblem(p)}, p.samples * p.channels * p.bins, stream); });
}

template <class Gradient>
void backward(const Problem& p, void* stream) {
  with_storage(p.dtype,
               [&](auto s) { launch(Backward<Gradient, decltype(s)>{DeviceProblem(p)}, p.samples * p.channels * p.positions(), stream); });
}

}  // namespace fastpool::cuda
