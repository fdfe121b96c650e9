#include "cuda/launch.cuh"

FASTPOOL_FORWARD(Max)
FASTPOOL_BACKWARD(SelectGradient)
