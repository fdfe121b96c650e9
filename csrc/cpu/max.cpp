#include "cpu/run.h"

namespace fastpool::cpu {
template void forward<Max>(const Problem&);
template void backward<SelectGradient>(const Problem&);
}  // namespace fastpool::cpu
