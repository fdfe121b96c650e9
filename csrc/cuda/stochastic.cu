#include "cuda/launch.cuh"

namespace fastpool::cuda {
template void forward<Stochastic<ReluWeights, false>>(const Problem&, void*);
template void forward<Stochastic<SoftmaxWeights, false>>(const Problem&, void*);
}  // namespace fastpool::cuda
