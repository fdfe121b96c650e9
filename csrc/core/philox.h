// Philox-4x32-10 (Salmon et al. 2011), the generator whose draws are part of the library's contract.
#pragma once

#include "core/types.h"

namespace fastpool {

struct Words {
  uint32_t word[4];
};

FASTPOOL_HD Words philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  FASTPOOL_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Four consecutive outputs of one plane share a block: output s reads word s mod 4 of block s / 4.
FASTPOOL_HD Words draw_block(uint64_t seed, uint64_t sample, uint32_t channel, int64_t block) {
  return philox(seed, uint32_t(block), channel, uint32_t(sample), uint32_t(sample >> 32));
}

FASTPOOL_HD float uniform(uint32_t word) { return float(int32_t(word >> 8)) * 0x1p-24f; }

}  // namespace fastpool
