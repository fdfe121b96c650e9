// The processor features that kernels are compiled for, chosen when they are called.
#pragma once

#include <cstdint>

namespace fastpool::cpu {

enum class Capability : int32_t { baseline, avx2, avx512 };

Capability best_capability();
Capability capability();
void set_capability(Capability capability);

}  // namespace fastpool::cpu
