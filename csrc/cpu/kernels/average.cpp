#include "cpu/kernels/instantiate.h"

#include "reducers/average.h"

FASTPOOL_FORWARD(Average)
FASTPOOL_BACKWARD(AverageGradient)
