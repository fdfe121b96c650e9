#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>

#include "cpu/run.h"

namespace fastpool::cpu {

// torch's own thread pool: torch.set_num_threads holds, and no second OpenMP runtime is loaded.
void parallel(const Problem& p, int64_t units, int64_t grain, Chunk chunk) {
  torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) { chunk(p, begin, end); });
}

void* scratch(int64_t bytes) {
  constexpr size_t line = 64;
  static thread_local std::unique_ptr<char[]> memory;
  static thread_local size_t size = 0;
  const size_t needed = size_t(bytes) + line;
  if (needed > size) {
    memory.reset();
    memory.reset(new char[needed]);
    size = needed;
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory.get());
  return memory.get() + (line - address % line) % line;
}

}  // namespace fastpool::cpu
