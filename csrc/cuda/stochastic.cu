#include "cuda/launch.cuh"
#include "reducers/stochastic.h"

FASTPOOL_FORWARD(Stochastic<ReluWeights, false>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights, false>)
