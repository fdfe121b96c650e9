#include "cpu/kernels/instantiate.h"

#include "reducers/max.h"

FASTPOOL_FORWARD(Max)
FASTPOOL_FORWARD(MaxValue)
FASTPOOL_BACKWARD(SelectGradient)
