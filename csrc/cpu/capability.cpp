#include "cpu/capability.h"

#include <atomic>

namespace fastpool::cpu {

Capability best_capability() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    return Capability::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return Capability::avx2;
#endif
  return Capability::baseline;
}

static std::atomic<Capability> current{best_capability()};

Capability capability() { return current.load(std::memory_order_relaxed); }
void set_capability(Capability capability) { current.store(capability, std::memory_order_relaxed); }

}  // namespace fastpool::cpu
