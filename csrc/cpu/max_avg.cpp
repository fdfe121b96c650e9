#include "cpu/run.h"

namespace fastpool::cpu {
template void forward<MaxAverage>(const Problem&);
template void backward<MaxAverageGradient>(const Problem&);
template void forward<Mixed>(const Problem&);
template void backward<MixedGradient>(const Problem&);
}  // namespace fastpool::cpu
