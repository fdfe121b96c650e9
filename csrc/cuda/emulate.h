// Runs the CUDA schedules on the CPU, grids and blocks included, so that their tests need no device.
#pragma once

#if defined(__linux__)
#include "cuda/fibers.h"
#endif

#include "cuda/record.h"
#include "cuda/schedule.h"

namespace fastpool::emulated {

using cuda::kBlockThreads;
using cuda::kSlots;
using cuda::kWarp;

extern cuda::Limits limits;

// A thread that needs no other.
struct LoneThread {
  uint32_t block, blocks;
  int index;

  void enter(uint32_t pass) const {
    if (recording) note_thread(index, pass);
  }
};

// A body whose threads tell which pass of their loop over the grid they are in.
template <class Body>
struct Told {
  static constexpr int threads = Body::threads;
  const Body& body;

  template <class Thread>
  void operator()(const Thread& thread, uint32_t unit) const {
    thread.enter(unit / (thread.blocks * cuda::kUnitsPerBlock<Body>));
    body(thread, unit);
  }
};

#if defined(__linux__)
// Who touched two bytes of a block's shared memory, and before which barrier.
struct Touch {
  unsigned written = 0, read = 0;
  int writer = 0, reader = 0;  // a reader below 0: several
};

template <int count, int slot_count>
struct SharedBlock {
  uint64_t exchanged[count];
  alignas(16) uint64_t slots[slot_count];
  Touch touches[4 * slot_count];
  uint32_t passes[count];
  Meeting all, warps[count / kWarp];
};

// Shared memory where two threads may not touch the same bytes between two barriers if one of them writes: what a device leaves
// to chance stops the tests.
template <class X, class Shared>
struct Slots {
  Shared* shared;
  int thread;

  struct Slot {
    const Slots& of;
    int index;

    operator X() const {
      of.touch(index, false);
      X x;
      memcpy(&x, reinterpret_cast<const char*>(of.shared->slots) + index * sizeof(X), sizeof(X));
      return x;
    }
    void operator=(X x) const {
      of.touch(index, true);
      memcpy(reinterpret_cast<char*>(of.shared->slots) + index * sizeof(X), &x, sizeof(X));
    }
  };
  Slot operator[](int index) const { return {*this, index}; }

  void touch(int index, bool writes) const {
    if (index < 0 || (index + 1) * sizeof(X) > sizeof(shared->slots)) fail("reach beyond their block's shared memory");
    const unsigned now = shared->all.round + 1;
    constexpr int parts = sizeof(X) / 2;
    for (int part = index * parts; part < (index + 1) * parts; ++part) {
      Touch& touch = shared->touches[part];
      if ((touch.written == now && touch.writer != thread) || (writes && touch.read == now && touch.reader != thread)) {
        fail("race for shared memory: a barrier is missing");
      }
      if (writes) {
        touch.written = now;
        touch.writer = thread;
      } else {
        touch.reader = touch.read == now && touch.reader != thread ? -1 : thread;
        touch.read = now;
      }
    }
  }
};

template <class Shared>
struct FiberThread {
  Shared* shared;
  Fibers* fibers;
  uint32_t block, blocks;
  int index;

  // Out of line: which call of them a thread is in tells the address that it returns to.
  template <class X>
  __attribute__((noinline)) X shuffle(X x, int from) const {
    if (from < 0 || from >= kWarp) fail("shuffle from a lane outside 0 to 31");
    Meeting& warp = shared->warps[index / kWarp];
    memcpy(&shared->exchanged[index], &x, sizeof(X));
    meet(warp, __builtin_return_address(0));
    memcpy(&x, &shared->exchanged[index / kWarp * kWarp + from], sizeof(X));
    meet(warp, __builtin_return_address(0));
    return x;
  }
  __attribute__((noinline)) void barrier() const { meet(shared->all, __builtin_return_address(0)); }
  void enter(uint32_t pass) const {
    shared->passes[index] = pass;
    if (recording) note_thread(index, pass);
  }
  void meet(Meeting& meeting, const void* call) const {
    fibers->meet(meeting, {call, shared->passes[index]});
    if (recording) note_same_thread(index);
  }
  template <class X>
  Slots<X, Shared> slots() const {
    return {shared, index};
  }
};

template <class Body>
struct BlockOf {
  const Body& body;
  uint32_t units, block, blocks;
  using Shared = SharedBlock<kBlockThreads<Body>, kSlots<Body>>;
  Shared shared;

  static void run(const void* self, Fibers& fibers, int thread) {
    BlockOf& block = *static_cast<BlockOf*>(const_cast<void*>(self));
    cuda::each_unit(Told<Body>{block.body}, FiberThread<Shared>{&block.shared, &fibers, block.block, block.blocks, thread}, block.units);
  }
};
#endif

struct Launcher {
  void* stream;  // there is none
  cuda::Limits limits = emulated::limits;

  template <class Body>
  void operator()(const Body& body) const {
    for_each_launch(body, limits, [&](const Body& part, uint32_t units, uint32_t blocks) {
      // The last thread's last step, behind the units, has to fit its index.
      const int64_t stride = int64_t(blocks) * cuda::kUnitsPerBlock<Body>;
      if (units == 0 || blocks == 0 || blocks > cuda::kMostBlocks || units + stride > int64_t(UINT32_MAX))
        fail("get a grid that no device takes");
      for (uint32_t block = 0; block < blocks; ++block) run(part, units, block, blocks);
    });
  }
  template <class Body>
  static void run(const Body& body, uint32_t units, uint32_t block, uint32_t blocks) {
    constexpr int count = kBlockThreads<Body>;
    if constexpr (Body::threads == 1) {
      for (int thread = 0; thread < count; ++thread) cuda::each_unit(Told<Body>{body}, LoneThread{block, blocks, thread}, units);
    } else {
#if defined(__linux__)
      static thread_local Fibers fibers(count);
      BlockOf<Body> all{body, units, block, blocks, {}};
      all.shared.all.size = count;
      for (int warp = 0; warp < count / kWarp; ++warp) {
        all.shared.warps[warp].warp = warp;
        all.shared.warps[warp].size = kWarp;
      }
      fibers.run(&BlockOf<Body>::run, &all);
#else
      throw std::runtime_error("fastpool: threads that share a window are emulated on Linux only");
#endif
    }
    if (recording) note_end_of_block(typeid(Body));
  }
};

}  // namespace fastpool::emulated
