// Coroutines for the threads of an emulated block: each runs up to a meeting, then another goes on.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cuda/record.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastpool::emulated {

// The call that a thread waits in, and in which pass of its loop over the grid.
struct Call {
  const void* address = nullptr;
  uint32_t pass = 0;

  bool operator==(const Call&) const = default;
};

// Where all threads of a warp, or of the block, wait for each other, in the same call.
struct Meeting {
  int warp = -1, size = 0, arrived = 0;  // warp: none for the block
  unsigned round = 0;
  Call call;
};

// Whom each thread of a block hands over to, in the block and in its warp: cycles in a random order.
struct Order {
  std::vector<int> in_block, in_warp;

  explicit Order(int count);
  void shuffle();
};

class Fibers {
 public:
  using Work = void (*)(const void* context, Fibers& fibers, int thread);

  explicit Fibers(int count)
      : fibers_(size_t(count)), stacks_(new char[size_t(count) * kStack]), ended_(size_t(count / 32)), order_(count) {}

  // Calls work(context, *this, thread) for every thread; all of them are under way at once.
  void run(Work work, const void* context) {
    work_ = work;
    context_ = context;
    running_ = int(fibers_.size());
    for (Fiber& fiber : fibers_) fiber.started = fiber.ended = false;
    for (int& ended : ended_) ended = 0;
    order_.shuffle();
    idle_ = 0;
    current_ = 0;
    if (_setjmp(home_) == 0) next(order_.in_block);
    unguard(static_cast<char*>(__builtin_frame_address(0)) - kLeft, kLeft);
  }

  void meet(Meeting& meeting, Call call) {
    const unsigned round = meeting.round;
    if (meeting.arrived == 0) meeting.call = call;
    if (meeting.call != call) fail("of a warp meet in different shuffles, or those of a block at different barriers");
    idle_ = 0;
    if (++meeting.arrived == meeting.size) {
      meeting.arrived = 0;
      ++meeting.round;
    }
    while (meeting.round == round) {
      const int ended = meeting.warp < 0 ? int(fibers_.size()) - running_ : ended_[size_t(meeting.warp)];
      if (ended > 0) fail("wait for one that has ended");
      // Everyone waits and nobody comes: on a device this would hang.
      if (++idle_ > 4 * int(fibers_.size())) fail("wait for one that does not come");
      // A warp runs ahead of the others as far as it can: where a barrier is missing, something breaks.
      if (_setjmp(fibers_[size_t(current_)].at) == 0) next(meeting.warp < 0 ? order_.in_block : order_.in_warp);
      unguard(static_cast<char*>(__builtin_frame_address(0)) - kLeft, kLeft);
    }
  }

 private:
  static constexpr size_t kStack = 32 << 10, kLeft = 8 << 10;  // what the frame of `next` takes, and more

  struct Fiber {
    jmp_buf at;
    bool started, ended;
  };

  // Frames that were left by a jump would guard their locals for ever.
  static void unguard([[maybe_unused]] char* begin, [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(begin, size);
#endif
  }

  [[noreturn]] void next(const std::vector<int>& following) {
    if (running_ == 0) _longjmp(home_, 1);
    do current_ = following[size_t(current_)];
    while (fibers_[size_t(current_)].ended);
    Fiber& fiber = fibers_[size_t(current_)];
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    unguard(stacks_.get() + size_t(current_) * kStack, kStack);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks_.get() + size_t(current_) * kStack;
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    const uintptr_t self = reinterpret_cast<uintptr_t>(this);
    makecontext(&context, reinterpret_cast<void (*)()>(enter), 2, unsigned(self >> 32), unsigned(self));
    setcontext(&context);
    std::abort();
  }
  static void enter(unsigned high, unsigned low) {
    Fibers& self = *reinterpret_cast<Fibers*>((uintptr_t(high) << 32) | low);
    self.work_(self.context_, self, self.current_);
    self.fibers_[size_t(self.current_)].ended = true;
    ++self.ended_[size_t(self.current_ / 32)];
    --self.running_;
    self.idle_ = 0;
    self.next(self.order_.in_block);
  }

  std::vector<Fiber> fibers_;
  std::unique_ptr<char[]> stacks_;
  std::vector<int> ended_;  // of each warp
  Order order_;
  jmp_buf home_;
  Work work_ = nullptr;
  const void* context_ = nullptr;
  int current_ = 0, running_ = 0, idle_ = 0;
};

}  // namespace fastpool::emulated
