#include "cpu/kernels/instantiate.h"

FASTPOOL_FORWARD(Average)
FASTPOOL_BACKWARD(AverageGradient)
