#include "cuda/launch.cuh"

FASTPOOL_FORWARD(Expectation<ReluWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<ReluWeights>)
FASTPOOL_FORWARD(Expectation<SoftmaxWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<SoftmaxWeights>)
