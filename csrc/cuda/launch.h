// From a body to blocks and threads, on the device and in its emulation alike: the only grid-stride loop.
#pragma once

#include "core/window.h"
#include "cuda/index.h"
#include "cuda/policy.h"

namespace fastpool::cuda {

template <class Body>
constexpr int kBlockThreads = Body::threads > Policy::block_threads ? Body::threads : Policy::block_threads;
template <class Body>
constexpr int kUnitsPerBlock = kBlockThreads<Body> / Body::threads;
// Of 8 bytes, shared by a block: as many as it says, or one for each thread that may need one.
template <class Body>
constexpr int slots_of() {
  if constexpr (requires { Body::slots; })
    return Body::slots;
  else
    return Body::threads > 32 ? kBlockThreads<Body> : 1;
}
template <class Body>
constexpr int kSlots = slots_of<Body>();

// Of one launch, and of the sizes that 32-bit indices are used for; tests lower them.
struct Limits {
  int64_t units = kMostIndex, blocks = int64_t(1) << 20, sizes = kMostIndex;
  int64_t enough_threads = Policy::enough_threads;
};

// What every architecture gives a launch.
constexpr int64_t kMostThreads = 1024, kMostShared = 48 << 10, kMostParameters = 4096, kMostBlocks = 0x7fffffff;

// Calls run(body, units, blocks) as often as the work needs launches: once, below 2^30 units.
template <class Body, class Run>
void for_each_launch(Body body, const Limits& limits, const Run& run) {
  static_assert(kBlockThreads<Body> % 32 == 0 && kBlockThreads<Body> <= kMostThreads);
  static_assert(kSlots<Body> * sizeof(uint64_t) <= kMostShared);
  static_assert(sizeof(Body) + sizeof(uint32_t) <= kMostParameters);
  const int64_t total = body.total(), step = body.step(), most = larger(limits.units / step * step, step);
  for (int64_t first = 0; first < total; first += most) {
    body.begin_at(first);
    const int64_t count = smaller(most, total - first);
    run(body, uint32_t(count), uint32_t(smaller(ceil_div(count, kUnitsPerBlock<Body>), limits.blocks)));
  }
}

template <class Body, class Thread>
FASTPOOL_HD void each_unit(const Body& body, const Thread& thread, uint32_t count) {
  const uint32_t stride = thread.blocks * kUnitsPerBlock<Body>;
  for (uint32_t unit = thread.block * kUnitsPerBlock<Body> + thread.index / Body::threads; unit < count; unit += stride) body(thread, unit);
}

}  // namespace fastpool::cuda
