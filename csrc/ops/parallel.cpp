#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <memory>

#include "cpu/run.h"

namespace fastpool::cpu {

// torch's own thread pool: torch.set_num_threads holds, and no second OpenMP runtime is loaded. Large work is cut into more
// shares than there are threads, and each thread takes the next one when it is done: processors are seldom equally fast.
void parallel(const Problem& p, int64_t units, int64_t grain, Chunk chunk) {
  constexpr int64_t shares_per_thread = 32, grains_per_share = 4;
  const int64_t threads = torch::stable::get_num_threads(), grains = ceil_div(units, grain);
  int64_t shares = smaller(grains, threads);
  if (threads > 1) shares = larger(shares, smaller(grains / grains_per_share, threads * shares_per_thread));
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, smaller(shares, threads), 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next++) < shares;) chunk(p, units * i / shares, units * (i + 1) / shares);
  });
}

void* scratch(int64_t bytes) {
  constexpr size_t line = 64;
  static thread_local std::unique_ptr<char[]> memory;
  static thread_local size_t size = 0;
  const size_t needed = size_t(bytes) + line;
  if (needed > size) {
    size = 0;
    memory.reset();
    memory.reset(new char[needed]);
    size = needed;
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory.get());
  return memory.get() + (line - address % line) % line;
}

}  // namespace fastpool::cpu
