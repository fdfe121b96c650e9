#include "cpu/run.h"

namespace fastpool::cpu {
template void forward<Expectation<ReluWeights>>(const Problem&);
template void backward<ExpectationGradient<ReluWeights>>(const Problem&);
template void forward<Expectation<SoftmaxWeights>>(const Problem&);
template void backward<ExpectationGradient<SoftmaxWeights>>(const Problem&);
}  // namespace fastpool::cpu
