#include "cuda/launch.cuh"

namespace fastpool::cuda {
template void forward<Expectation<ReluWeights>>(const Problem&, void*);
template void backward<ExpectationGradient<ReluWeights>>(const Problem&, void*);
template void forward<Expectation<SoftmaxWeights>>(const Problem&, void*);
template void backward<ExpectationGradient<SoftmaxWeights>>(const Problem&, void*);
}  // namespace fastpool::cuda
