#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/run.h"

namespace fastpool::cpu {

static void give_back_scratch();

// torch's own thread pool: torch.set_num_threads holds, and no second OpenMP runtime is loaded. Large work is cut into more
// shares than there are threads. Each thread takes those of its own part one after another and, when it is done, those that
// others have left: processors are seldom equally fast. Taking turns from the start, two threads would meet in the huge
// pages of fresh results, which both of them clear: filling 103 MB took 8.7 ms instead of 7.3.
void parallel(const Problem& p, int64_t units, int64_t grain, Chunk chunk) {
  constexpr int64_t shares_per_thread = 32, grains_per_share = 4;
  const int64_t threads = torch::stable::get_num_threads(), grains = ceil_div(units, grain);
  int64_t shares = smaller(grains, threads);
  if (threads > 1) shares = larger(shares, smaller(grains / grains_per_share, threads * shares_per_thread));
  const int64_t parts = smaller(shares, threads);
  std::vector<std::atomic<int64_t>> taken(static_cast<size_t>(parts));
  // torch would wrap what another thread throws in a text of its own.
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
  torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    try {
      for (int64_t own = first; own < last; ++own)
        for (int64_t k = 0; k < parts; ++k) {
          const int64_t part = (own + k) % parts, begin = shares * part / parts, end = shares * (part + 1) / parts;
          for (int64_t i; (i = begin + taken[size_t(part)]++) < end;) chunk(p, units * i / shares, units * (i + 1) / shares);
        }
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
    give_back_scratch();
  });
  if (failure) std::rethrow_exception(failure);
}

constexpr std::align_val_t kLine{64};
struct Delete {
  void operator()(char* memory) const { ::operator delete(memory, kLine); }
};
static std::atomic<int64_t> most_scratch{std::numeric_limits<int64_t>::max()};
int64_t limit_scratch(int64_t bytes) { return most_scratch.exchange(bytes); }

struct Block {
  int64_t size, used = 0;
  std::unique_ptr<char, Delete> memory;

  // Registers may be filled from beyond the last element.
  explicit Block(int64_t size) : size(size) {
    if (scratch_size() + size <= most_scratch) memory.reset(static_cast<char*>(::operator new(size_t(size) + 4096, kLine, std::nothrow)));
    if (!memory) throw std::runtime_error("fastpool: no memory left for " + std::to_string(size) + " bytes of a thread's scratch");
  }
};
static thread_local std::vector<Block> blocks;

int64_t scratch_size() {
  int64_t size = 0;
  for (const Block& block : blocks) size += block.size;
  return size;
}

// A thread keeps what its next call is likely to need.
static void give_back_scratch() {
  constexpr int64_t most = 1 << 20;
  if (scratch_size() > most) blocks.clear();
}

// What one call needed several blocks for, the next finds in one.
void restart_scratch() {
  if (blocks.size() > 1) {
    const int64_t size = scratch_size();
    blocks.clear();
    blocks.emplace_back(size);
  }
  if (!blocks.empty()) blocks[0].used = 0;
}

void* take_scratch(int64_t bytes) {
  constexpr int64_t line = int64_t(kLine), least = 64 << 10;
  bytes = ceil_div(bytes, line) * line;
  if (blocks.empty() || blocks.back().size - blocks.back().used < bytes) blocks.emplace_back(larger(bytes, least));
  Block& block = blocks.back();
  block.used += bytes;
  return block.memory.get() + block.used - bytes;
}

}  // namespace fastpool::cpu
