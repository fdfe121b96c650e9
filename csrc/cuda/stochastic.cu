#include "cuda/launch.cuh"
#include "reducers/stochastic.h"

FASTPOOL_FORWARD(Stochastic<ReluWeights>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights>)
