#include "cuda/launch.cuh"
#include "reducers/max.h"

FASTPOOL_FORWARD(Max)
FASTPOOL_BACKWARD(SelectGradient)
