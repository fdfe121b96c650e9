#include "core/lookup.h"

#include "cuda/direct.cuh"

namespace fastpool::cuda {

template <class S>
struct Select {
  DeviceProblem problem;
  __device__ void operator()(int64_t index) const {
    Place at;
    const Level& level = problem.locate(index, at.n, at.c, at.o);
    select_one<S>(problem.p, level, at);
  }
};

struct Indices {
  DeviceProblem problem;
  __device__ void operator()(int64_t index) const {
    Place at;
    const Level& level = problem.locate(index, at.n, at.c, at.o);
    index_one(problem.p, level, at);
  }
};

template <class S>
struct AlphaGradient {
  DeviceProblem problem;
  double* partial;
  __device__ void operator()(int64_t index) const {
    const Problem p = problem.here();
    const int64_t channels = p.alpha_view.channel ? p.channels : 1, bins = p.alpha_view.position ? p.bins : 1;
    partial[index] = alpha_gradient_one<S>(p, index / (channels * bins), index % (channels * bins), channels, bins);
  }
};

void select(const Problem& p, void* stream) {
  with_storage(p.dtype, [&](auto s) { launch(Select<decltype(s)>{DeviceProblem(p)}, p.samples * p.channels * p.bins, stream); });
}

void tap_indices(const Problem& p, void* stream) { launch(Indices{DeviceProblem(p)}, p.samples * p.channels * p.bins, stream); }

void alpha_gradient(const Problem& p, double* partial, void* stream) {
  const int64_t elements = (p.alpha_view.channel ? p.channels : 1) * (p.alpha_view.position ? p.bins : 1);
  with_storage(p.dtype, [&](auto s) { launch(AlphaGradient<decltype(s)>{DeviceProblem(p), partial}, p.samples * elements, stream); });
}

}  // namespace fastpool::cuda
