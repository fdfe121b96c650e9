#include "cuda/launch.cuh"

namespace fastpool::cuda {
template void forward<MaxAverage>(const Problem&, void*);
template void backward<MaxAverageGradient>(const Problem&, void*);
template void forward<Mixed>(const Problem&, void*);
template void backward<MixedGradient>(const Problem&, void*);
}  // namespace fastpool::cuda
