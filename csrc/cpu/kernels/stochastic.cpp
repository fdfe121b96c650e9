#include "cpu/kernels/instantiate.h"

#include "reducers/stochastic.h"

FASTPOOL_FORWARD(Stochastic<ReluWeights>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights>)
