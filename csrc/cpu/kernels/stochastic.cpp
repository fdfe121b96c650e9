#include "cpu/kernels/instantiate.h"

FASTPOOL_FORWARD(Stochastic<ReluWeights, false>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights, false>)
