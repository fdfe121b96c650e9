#include "cpu/kernels/instantiate.h"

FASTPOOL_FORWARD(Max)
FASTPOOL_BACKWARD(SelectGradient)
