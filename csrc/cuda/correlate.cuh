// What is launched for learned filters.
#pragma once

#include "cuda/correlate.h"
#include "cuda/launch.cuh"

namespace fastpool::FASTPOOL_BACKEND {

void correlate(const Correlation& p, void* stream) { cuda::correlate(p, Launcher{stream}); }

void correlate_input(const Correlation& p, void* stream) { cuda::correlate_input(p, Launcher{stream}); }

void correlate_filters(const Correlation& p, int64_t splits, void* stream) { cuda::correlate_filters(p, splits, Launcher{stream}); }

void logistic(const Problem& p, void* stream) { cuda::logistic(p, Launcher{stream}); }

}  // namespace fastpool::FASTPOOL_BACKEND
