// Coroutines for the threads of an emulated block: each runs up to a meeting, then its neighbour goes on.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastpool::emulated {

// Where the threads begin … begin + size - 1 wait for each other.
struct Meeting {
  int begin = 0, size = 0, arrived = 0;
  unsigned round = 0;
};

class Fibers {
 public:
  using Work = void (*)(const void* context, Fibers& fibers, int thread);

  explicit Fibers(int count) : fibers_(size_t(count)), stacks_(new char[size_t(count) * kStack]) {}

  // Calls work(context, *this, thread) for every thread; all of them are under way at once.
  void run(Work work, const void* context) {
    work_ = work;
    context_ = context;
    running_ = int(fibers_.size());
    for (size_t i = 0; i < fibers_.size(); ++i) {
      fibers_[i].started = fibers_[i].ended = false;
    }
    current_ = -1;
    if (_setjmp(home_) == 0) next(0, running_);
  }

  void meet(Meeting& meeting) {
    const unsigned round = meeting.round;
    if (++meeting.arrived == meeting.size) {
      meeting.arrived = 0;
      ++meeting.round;
      idle_ = 0;
    }
    while (meeting.round == round) {
      // Everyone waits and nobody comes: on a device this would hang.
      if (++idle_ > 4 * int(fibers_.size())) {
        std::fprintf(stderr, "fastpool: emulated threads wait for one that does not come\n");
        std::abort();
      }
      // A warp runs ahead of the others as far as it can: where a barrier is missing, something breaks.
      if (_setjmp(fibers_[size_t(current_)].at) == 0) next(meeting.begin, meeting.size);
    }
  }

 private:
  static constexpr size_t kStack = 32 << 10;

  struct Fiber {
    jmp_buf at;
    bool started, ended;
  };

  // Goes on with the next of the threads begin … begin + count - 1.
  [[noreturn]] void next(int begin, int count) {
    if (running_ == 0) _longjmp(home_, 1);
    do current_ = begin + (current_ + 1 - begin) % count;
    while (fibers_[size_t(current_)].ended);
    Fiber& fiber = fibers_[size_t(current_)];
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
#if defined(__SANITIZE_ADDRESS__)
    // Frames that were left by a jump still guard their locals.
    __asan_unpoison_memory_region(stacks_.get() + size_t(current_) * kStack, kStack);
#endif
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
    --self.running_;
    self.idle_ = 0;
    self.next(0, int(self.fibers_.size()));
  }

  std::vector<Fiber> fibers_;
  std::unique_ptr<char[]> stacks_;
  jmp_buf home_;
  Work work_ = nullptr;
  const void* context_ = nullptr;
  int current_ = 0, running_ = 0, idle_ = 0;
};

}  // namespace fastpool::emulated
