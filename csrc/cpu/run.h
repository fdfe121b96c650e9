// From a problem to threads: the only place where work is divided.
#pragma once

#include "core/kernels.h"
#include "cpu/backward.h"
#include "cpu/forward.h"

namespace fastpool::cpu {

// Runs chunk(p, begin, end) over [0, units) on the threads of the host framework.
void parallel(const Problem& p, int64_t units, int64_t grain, Chunk chunk);

// Work below this many elements is not worth waking a thread for.
constexpr int64_t kGrainElements = 32768;

inline void divide(const Problem& p, int64_t units, Chunk chunk) {
  if (units == 0) return;
  const int64_t per_unit = ceil_div(p.samples * p.channels * p.positions(), units);
  parallel(p, units, larger(kGrainElements / larger(per_unit, 1), 1), chunk);
}

// Half types are accumulated in float, and so share its kernels.
template <template <class, class> class Body, class Pooling>
void run(const Problem& p) {
  if (p.dtype == Dtype::float64)
    divide(p, Body<Pooling, double>::units(p), Versions<Body<Pooling, double>>::choose());
  else
    divide(p, Body<Pooling, float>::units(p), Versions<Body<Pooling, float>>::choose());
}

template <class Reducer>
void forward(const Problem& p) {
  run<Forward, Reducer>(p);
}

template <class Gradient>
void backward(const Problem& p) {
  run<Backward, Gradient>(p);
}

}  // namespace fastpool::cpu
