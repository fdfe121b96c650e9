// How the sources of this folder launch: kernels on a device, the only place that does, or for the tests, with
// FASTPOOL_EMULATED, their emulation on the CPU.
#pragma once

#if defined(FASTPOOL_EMULATED)
#include "cuda/emulate.h"
#define FASTPOOL_BACKEND emulated
#else
#define FASTPOOL_BACKEND cuda

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/schedule.h"

namespace fastpool::cuda {

struct DeviceThread {
  uint64_t* memory;
  uint32_t block, blocks;
  int index;

  template <class X>
  __device__ X shuffle(X x, int from) const {
    return __shfl_sync(0xffffffffu, x, from);
  }
  __device__ void barrier() const { __syncthreads(); }
  template <class X>
  __device__ X* slots() const {
    return reinterpret_cast<X*>(memory);
  }
};

// __grid_constant__: levels are indexed where they lie, instead of in a copy of every thread.
template <class Body>
__global__ void __launch_bounds__(kBlockThreads<Body>, Body::blocks) kernel(const __grid_constant__ Body body, uint32_t count) {
  __shared__ __align__(16) uint64_t slots[kSlots<Body>];
  each_unit(body, DeviceThread{slots, blockIdx.x, gridDim.x, int(threadIdx.x)}, count);
}

struct Launcher {
  void* stream;
  Limits limits{};

  template <class Body>
  void operator()(const Body& body) const {
    for_each_launch(body, limits, [&](const Body& part, uint32_t count, uint32_t blocks) {
      kernel<<<blocks, kBlockThreads<Body>, 0, static_cast<cudaStream_t>(stream)>>>(part, count);
      const cudaError_t error = cudaGetLastError();
      if (error != cudaSuccess) throw std::runtime_error(std::string("fastpool: CUDA launch failed: ") + cudaGetErrorString(error));
    });
  }
};

}  // namespace fastpool::cuda
#endif

namespace fastpool::FASTPOOL_BACKEND {

template <class Reducer>
void forward(const Problem& p, void* stream) {
  cuda::forward<Reducer>(p, Launcher{stream});
}
template <class Gradient>
void backward(const Problem& p, void* stream) {
  cuda::backward<Gradient>(p, Launcher{stream});
}

}  // namespace fastpool::FASTPOOL_BACKEND

#undef FASTPOOL_FORWARD
#undef FASTPOOL_BACKWARD
#define FASTPOOL_FORWARD(...)                                         \
  namespace fastpool::FASTPOOL_BACKEND {                              \
  template void forward<__VA_ARGS__>(const Problem& p, void* stream); \
  }
#define FASTPOOL_BACKWARD(...)                                         \
  namespace fastpool::FASTPOOL_BACKEND {                               \
  template void backward<__VA_ARGS__>(const Problem& p, void* stream); \
  }
