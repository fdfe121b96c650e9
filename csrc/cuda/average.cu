#include "cuda/launch.cuh"
#include "reducers/average.h"

FASTPOOL_FORWARD(Average)
FASTPOOL_BACKWARD(AverageGradient)
