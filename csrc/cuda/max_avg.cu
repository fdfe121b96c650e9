#include "cuda/launch.cuh"

FASTPOOL_FORWARD(MaxAverage)
FASTPOOL_BACKWARD(MaxAverageGradient)
FASTPOOL_FORWARD(Mixed)
FASTPOOL_BACKWARD(MixedGradient)
