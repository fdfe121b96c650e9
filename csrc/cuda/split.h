// How the sum of one gradient of alpha is divided over blocks.
#pragma once

#include "core/window.h"

namespace fastpool::cuda {

// `sums` of `terms` terms each: enough parts to give every multiprocessor of an H200 sixteen blocks, if each of a
// block's 256 threads then still has sixteen terms.
inline int64_t alpha_splits(int64_t sums, int64_t terms) {
  constexpr int64_t blocks = 132 * 16, terms_per_part = 256 * 16;
  return larger(smaller(ceil_div(terms, terms_per_part), ceil_div(blocks, larger(sums, 1))), 1);
}

}  // namespace fastpool::cuda
