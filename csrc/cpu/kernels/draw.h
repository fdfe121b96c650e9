// The uniforms of many outputs at once: Philox in lanes.
#pragma once

#include "cpu/kernels/memory.h"

namespace fastpool::cpu::FASTPOOL_CAPABILITY {

constexpr int kBlocks = 16;  // Philox blocks side by side, in lanes of 64 bits whose upper half may hold anything
using Wide = Lanes<uint64_t, kBlocks>;

// The full product of the lower halves.
template <int L>
FASTPOOL_HD Lanes<uint64_t, L> multiply(Lanes<uint64_t, L> a, Lanes<uint64_t, L> b) {
  if constexpr (L * 8 > kRegisterBytes) {
    return Lanes<uint64_t, L>(multiply(a.lo, b.lo), multiply(a.hi, b.hi));
  } else {
    using Raw = typename Lanes<uint64_t, L>::Raw;
#if FASTPOOL_VECTOR_BYTES == 64
    return Lanes<uint64_t, L>::of((Raw)_mm512_mul_epu32((__m512i)a.v, (__m512i)b.v));
#elif FASTPOOL_VECTOR_BYTES == 32
    return Lanes<uint64_t, L>::of((Raw)_mm256_mul_epu32((__m256i)a.v, (__m256i)b.v));
#else
    constexpr uint64_t low = 0xffffffffu;
    return Lanes<uint64_t, L>::of((Raw)((a.v & low) * (b.v & low)));
#endif
  }
}

struct WideWords {
  Wide word[4];
};

inline WideWords philox_lanes(uint64_t seed, Wide c0, Wide c1, Wide c2, Wide c3) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  FASTPOOL_UNROLL
  for (int round = 0; round < 10; ++round) {
    const Wide p0 = multiply(c0, Wide(0xD2511F53u)), p1 = multiply(c2, Wide(0xCD9E8D57u));
    c0 = (p1 >> 32) ^ c1 ^ Wide(k0);
    c2 = (p0 >> 32) ^ c3 ^ Wide(k1);
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

template <class T>
FASTPOOL_HD void to_uniforms(T* to, const uint32_t* words, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = T(uniform(words[i]));
}

// Uniforms of the bins first … first + count - 1 of one plane; `to` has room for 4 * kBlocks more.
template <class T>
void draw_row(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t first, int64_t count, T* to) {
  const uint64_t sample = uint64_t(p.offset_sample + n), channel = uint32_t(p.offset_channel + c);
  uint32_t words[4 * kBlocks];
  const int64_t skip = first % 4;
  for (int64_t done = -skip; done < count; done += 4 * kBlocks) {
    const WideWords drawn =
        philox_lanes(seed, Wide::iota(uint64_t((first + done) / 4)), Wide(channel), Wide(uint32_t(sample)), Wide(sample >> 32));
    const Wide low(0xffffffffu);
    const Wide even = (drawn.word[0] & low) | (drawn.word[1] << 32), odd = (drawn.word[2] & low) | (drawn.word[3] << 32);
    Wide lo, hi;
    Wide::zip(even, odd, lo, hi);
    memcpy(words, &lo, sizeof(lo));
    memcpy(words + 2 * kBlocks, &hi, sizeof(hi));
    const int64_t from = done < 0 ? skip : 0;
    to_uniforms(to + done + from, words + from, 4 * kBlocks - from);
  }
}

// Uniforms of one block of four bins for `count` neighbouring channels: to[word * step + channel], where `step` is a
// multiple of kBlocks.
template <class T>
void draw_channels(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t block, int64_t count, int64_t step, T* to) {
  FASTPOOL_ASSERT(step % kBlocks == 0 && count <= step);
  const uint64_t sample = uint64_t(p.offset_sample + n), channel = uint64_t(p.offset_channel + c);
  for (int64_t done = 0; done < count; done += kBlocks) {
    const WideWords drawn =
        philox_lanes(seed, Wide(uint64_t(block)), Wide::iota(channel + uint64_t(done)), Wide(uint32_t(sample)), Wide(sample >> 32));
    for (int w = 0; w < 4; ++w) {
      uint64_t wide[kBlocks];
      uint32_t words[kBlocks];
      memcpy(wide, &drawn.word[w], sizeof(wide));
#pragma omp simd
      for (int i = 0; i < kBlocks; ++i) words[i] = uint32_t(wide[i]);
      to_uniforms(to + w * step + done, words, kBlocks);
    }
  }
}

}  // namespace fastpool::cpu::FASTPOOL_CAPABILITY
