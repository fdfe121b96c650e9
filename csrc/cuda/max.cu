#include "cuda/launch.cuh"

namespace fastpool::cuda {
template void forward<Max>(const Problem&, void*);
template void backward<SelectGradient>(const Problem&, void*);
}  // namespace fastpool::cuda
