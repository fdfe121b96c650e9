#include "cuda/emulate.h"

namespace fastpool::emulated {

cuda::Limits limits;

void set_limits(Emulated emulated) {
  limits = {};
  if (emulated == Emulated::small_grid) limits = {200, 3, cuda::kMostIndex, 1};
  if (emulated == Emulated::wide_indices) limits.sizes = 0;
}

}  // namespace fastpool::emulated
