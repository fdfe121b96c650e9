// The only launch, and the only grid-stride loop: a kernel is a body that is called with an index.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/problem.h"

namespace fastpool::cuda {

// 256 threads: enough warps to hide latency at the register counts of these bodies; not yet measured.
constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t(1) << 20;

template <class Body>
__global__ void __launch_bounds__(kThreads) each_index(const Body body, int64_t count) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) body(i);
}

template <class Body>
void launch(const Body& body, int64_t count, void* stream) {
  if (count == 0) return;
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  const unsigned grid = unsigned(blocks < kMostBlocks ? blocks : kMostBlocks);
  each_index<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(body, count);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string("fastpool: CUDA launch failed: ") + cudaGetErrorString(error));
}

// A problem whose levels travel with it in the kernel's parameters.
constexpr int kMostLevels = 8;

struct DeviceProblem {
  Problem p;
  Level levels[kMostLevels];

  explicit DeviceProblem(const Problem& problem) : p(problem) {
    if (p.level_count > kMostLevels)
      throw std::runtime_error("fastpool: levels has " + std::to_string(p.level_count) + " entries; on CUDA at most " +
                               std::to_string(kMostLevels) + " are allowed");
    for (int i = 0; i < p.level_count; ++i) levels[i] = problem.levels[i];
  }
  __device__ Problem here() const {
    Problem problem = p;
    problem.levels = levels;
    return problem;
  }
  // The level and place of output `index`, counted over samples, channels and bins.
  __device__ const Level& locate(int64_t index, int64_t& n, int64_t& c, int64_t o[3]) const {
    const int64_t bin = index % p.bins, plane = index / p.bins;
    int l = 0;
    while (l + 1 < p.level_count && bin >= levels[l + 1].first_bin) ++l;
    const Level& level = levels[l];
    const int64_t inside = bin - level.first_bin, height = level.grid.axis[1].out, width = level.grid.axis[2].out;
    n = plane / p.channels;
    c = plane % p.channels;
    o[0] = inside / (height * width);
    o[1] = inside / width % height;
    o[2] = inside % width;
    return level;
  }
};

}  // namespace fastpool::cuda
