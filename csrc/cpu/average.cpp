#include "cpu/run.h"

namespace fastpool::cpu {
template void forward<Average>(const Problem&);
template void backward<AverageGradient>(const Problem&);
}  // namespace fastpool::cpu
