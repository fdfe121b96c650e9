#include "cpu/kernels/instantiate.h"

#include "reducers/expectation.h"

FASTPOOL_FORWARD(Expectation<ReluWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<ReluWeights>)
FASTPOOL_FORWARD(Expectation<SoftmaxWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<SoftmaxWeights>)
