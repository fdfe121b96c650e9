#include "cuda/launch.cuh"

namespace fastpool::cuda {
template void forward<Average>(const Problem&, void*);
template void backward<AverageGradient>(const Problem&, void*);
}  // namespace fastpool::cuda
