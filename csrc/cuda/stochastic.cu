#include "cuda/launch.cuh"

FASTPOOL_FORWARD(Stochastic<ReluWeights, false>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights, false>)
