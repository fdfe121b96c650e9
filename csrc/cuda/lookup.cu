#include "cuda/launch.cuh"

namespace fastpool::cuda {

void select(const Problem& p, void* stream) { select(p, Launcher{stream}); }

void tap_indices(const Problem& p, void* stream) { tap_indices(p, Launcher{stream}); }

void alpha_gradient(const Problem& p, int64_t splits, double* partial, void* stream) {
  alpha_gradient(p, splits, partial, Launcher{stream});
}

}  // namespace fastpool::cuda
