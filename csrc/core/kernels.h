// What csrc/ops may call: one forward per reducer, one backward per gradient, on either backend.
#pragma once

#include "core/problem.h"

namespace fastpool {

namespace cpu {
template <class Reducer>
void forward(const Problem& p);
template <class Gradient>
void backward(const Problem& p);
void select(const Problem& p);
void tap_indices(const Problem& p);
void parameter_gradient(const Problem& p, double* partial);
}  // namespace cpu

#define FASTPOOL_ON_STREAM(backend, linkage)                                                        \
  namespace backend {                                                                               \
  template <class Reducer>                                                                          \
  linkage void forward(const Problem& p, void* stream);                                             \
  template <class Gradient>                                                                         \
  linkage void backward(const Problem& p, void* stream);                                            \
  linkage void select(const Problem& p, void* stream);                                              \
  linkage void tap_indices(const Problem& p, void* stream);                                         \
  linkage void parameter_gradient(const Problem& p, int64_t splits, double* partial, void* stream); \
  }
#ifdef USE_CUDA
FASTPOOL_ON_STREAM(cuda, )
#endif
// The CUDA schedules run on the CPU, for tests. Weak: other builds leave them out.
#define FASTPOOL_OPTIONAL __attribute__((weak, visibility("default")))
FASTPOOL_ON_STREAM(emulated, FASTPOOL_OPTIONAL)
#undef FASTPOOL_ON_STREAM

namespace emulated {
// Limits that tests exceed: bodies then stride over the grid in several launches, or take indices of 64 bits.
// `large` tensors: a thread goes on for all the rounds it may.
enum class Emulated : int32_t { as_launched, small_grid, wide_indices, large };
FASTPOOL_OPTIONAL void set_limits(Emulated emulated);
}  // namespace emulated
#undef FASTPOOL_OPTIONAL

// Calls f(S{}) with the storage type of a dtype.
template <class F>
void with_storage(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float16:
      return f(Half{});
    case Dtype::bfloat16:
      return f(BFloat16{});
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
  }
}

}  // namespace fastpool
