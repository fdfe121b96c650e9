// What is launched for taps and parameters.
#pragma once

#include "cuda/launch.cuh"

namespace fastpool::FASTPOOL_BACKEND {

void select(const Problem& p, void* stream) { cuda::select(p, Launcher{stream}); }

void tap_indices(const Problem& p, void* stream) { cuda::tap_indices(p, Launcher{stream}); }

void parameter_gradient(const Problem& p, int64_t splits, double* partial, void* stream) {
  cuda::parameter_gradient(p, splits, partial, Launcher{stream});
}

}  // namespace fastpool::FASTPOOL_BACKEND
