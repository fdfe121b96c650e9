// First include of the sources that setup.py writes, one for every reducer and capability, with FASTPOOL_CAPABILITY and
// FASTPOOL_VECTOR_BYTES set. Functions that the linker may share between those objects are
// included first: they must run on every processor.
#pragma once

#include <new>
#include <utility>

#include "core/problem.h"
#include "cpu/work.h"

#if FASTPOOL_VECTOR_BYTES > 16
#define FASTPOOL_TARGET
#endif
#if defined(__clang__) && FASTPOOL_VECTOR_BYTES == 64
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,f16c"))), apply_to = function)
#elif defined(__clang__) && FASTPOOL_VECTOR_BYTES == 32
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#elif FASTPOOL_VECTOR_BYTES == 64
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,f16c")
#elif FASTPOOL_VECTOR_BYTES == 32
#pragma GCC target("avx2,f16c")
#endif
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the compiler's own vector headers
#endif

#include "core/kernels.h"
#include "cpu/kernels/backward.h"
#include "cpu/kernels/forward.h"

#undef FASTPOOL_FORWARD
#undef FASTPOOL_BACKWARD
#define FASTPOOL_FORWARD(...)                                                       \
  namespace fastpool::cpu::FASTPOOL_CAPABILITY {                                    \
  template void forward<__VA_ARGS__>(const Problem& p, int64_t begin, int64_t end); \
  }
#define FASTPOOL_BACKWARD(...)                                                       \
  namespace fastpool::cpu::FASTPOOL_CAPABILITY {                                     \
  template void backward<__VA_ARGS__>(const Problem& p, int64_t begin, int64_t end); \
  }
