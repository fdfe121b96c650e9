#include "cpu/run.h"

namespace fastpool::cpu {
template void forward<Stochastic<ReluWeights, false>>(const Problem&);
template void forward<Stochastic<SoftmaxWeights, false>>(const Problem&);
}  // namespace fastpool::cpu
