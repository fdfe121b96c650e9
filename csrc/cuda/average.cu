#include "cuda/launch.cuh"

FASTPOOL_FORWARD(Average)
FASTPOOL_BACKWARD(AverageGradient)
