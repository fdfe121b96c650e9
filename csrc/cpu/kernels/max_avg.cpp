#include "cpu/kernels/instantiate.h"

#include "reducers/max_avg.h"

FASTPOOL_FORWARD(MaxAverage)
FASTPOOL_BACKWARD(MaxAverageGradient)
FASTPOOL_FORWARD(MaxAverageValue)
