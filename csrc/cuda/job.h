// What every kernel carries in its parameters, and how values enter and leave it.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/index.h"
#include "cuda/policy.h"
#include "schedules/exact.h"
#if defined(FASTPOOL_EMULATED)
#include "cuda/record.h"
#endif

// Out of line: what few windows need shall not cost the others registers.
#if defined(__CUDACC__)
#define FASTPOOL_RARE __host__ __device__ __noinline__
#else
#define FASTPOOL_RARE __attribute__((noinline))
#endif

namespace fastpool::cuda {

// Levels travel with the problem in the kernel's parameters: eight stay below the 4 KB that every driver takes.
constexpr int kMostLevels = 8;

struct Job {
  Problem p;
  Level levels[kMostLevels];
  FastLevel fast[kMostLevels];
  int32_t level_count = 0, bins = 0;
  Units units;

  explicit Job(const Problem& problem) : p(problem) {
    if (p.level_count > kMostLevels)
      throw std::runtime_error("fastpool: levels has " + std::to_string(p.level_count) + " entries; on CUDA at most " +
                               std::to_string(kMostLevels) + " are allowed");
  }
  void take(const Level& level) {
    levels[level_count] = level;
    if (FastLevel::fits(level.grid)) fast[level_count] = FastLevel(level.grid);
    fast[level_count++].first = bins;
    bins += int32_t(level.grid.bins());
  }
  // Units of a thread each, which stays with its windows for several groups of channels where enough threads are left. In
  // every round neighbouring threads have neighbouring groups: whole sectors together.
  void share_channels(int64_t items, int64_t inside, int64_t enough_threads) {
    const int64_t most = p.lanes_are_channels ? smaller(p.channels / Policy::sector_channels, Policy::most_rounds) : Policy::most_rounds;
    const int64_t groups = ceil_div(p.channels, items), threads = p.samples * groups * inside;
    const int64_t wanted = larger(smaller(threads / enough_threads, most), 1);
    units = Units(p.samples, ceil_div(groups, wanted), inside, p.lanes_are_channels);
  }

  int64_t total() const { return units.total; }
  int64_t step() const { return units.inner_count(); }  // a launch begins at a multiple of it
  void begin_at(int64_t unit) { units.begin_at(unit); }

  FASTPOOL_HD int level_of(int32_t bin) const {
    int l = 0;
    while (l + 1 < level_count && bin >= fast[l + 1].first) ++l;
    return l;
  }
};

// Every access of a body to a tensor.
template <class X>
FASTPOOL_HD X read(const X* from) {
#if defined(FASTPOOL_EMULATED)
  emulated::touch(from, false);
#endif
  return *from;
}
template <class X>
FASTPOOL_HD void write(X* to, const X& value) {
#if defined(FASTPOOL_EMULATED)
  emulated::touch(to, true);
#endif
  *to = value;
}

// The processor's own conversions give the same values as core/types.h in one instruction; NaNs lose their payload.
template <class S>
FASTPOOL_HD Accumulated<S> widened(S x) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(S) == 2 && std::is_same<S, Half>::value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
  }
#endif
  return widen(x);
}

template <class S>
FASTPOOL_HD S narrowed(Accumulated<S> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same<S, Half>::value) {
    S result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same<S, BFloat16>::value) {
    S result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
  }
#endif
#endif
  return Narrow<S>::from(x);
}

// Values of neighbouring channels that one access moves.
template <class X, int count>
struct alignas(sizeof(X) * count) Pack {
  X value[count];
};

inline bool aligned(const void* pointer, int64_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % uintptr_t(bytes) == 0; }

// The widest access, in elements.
template <class S>
constexpr int kPack = 16 / int(sizeof(S));

// The same element of `count` channels: one access where they lie side by side, else one for each. Three strides of
// less than 2^30 fit 32 bits, which takes half the registers.
template <bool side_by_side, class X, int items>
FASTPOOL_HD void load(X (&to)[items], const X* from, int32_t channel, int count) {
  if constexpr (side_by_side) {
    const Pack<X, items> pack = read(reinterpret_cast<const Pack<X, items>*>(from));
    FASTPOOL_UNROLL
    for (int k = 0; k < items; ++k) to[k] = pack.value[k];
  } else {
    // A channel past the last reads the last one again, which spares every use of it a branch.
    FASTPOOL_UNROLL
    for (int k = 0; k < items; ++k) to[k] = read(from + uint32_t(k < count ? k : count - 1) * uint32_t(channel));
  }
}

template <bool side_by_side, class X, int items>
FASTPOOL_HD void store(X* to, const X (&from)[items], int32_t channel, int count) {
  if (side_by_side && channel == 1) {
    Pack<X, items> pack;
    FASTPOOL_UNROLL
    for (int k = 0; k < items; ++k) pack.value[k] = from[k];
    write(reinterpret_cast<Pack<X, items>*>(to), pack);
  } else {
    FASTPOOL_UNROLL
    for (int k = 0; k < items; ++k)
      if (k < count) write(to + uint32_t(k) * uint32_t(channel), from[k]);
  }
}

// Inside a sample strides are shorter than 2^30 and nothing is negative: one multiplication instead of four.
FASTPOOL_HD int64_t times(int32_t count, int64_t stride) {
  return int64_t(uint64_t(uint32_t(count)) * uint32_t(stride));
}

}  // namespace fastpool::cuda
