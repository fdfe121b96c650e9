#include "cuda/launch.cuh"
#include "reducers/max_avg.h"

FASTPOOL_FORWARD(MaxAverage)
FASTPOOL_BACKWARD(MaxAverageGradient)
