// Runs of values between tensors and lane arrays. Kernels are compiled for accumulation types only; what depends on
// how elements are stored is behind these few functions.
#pragma once

#include "core/direct.h"

namespace fastpool::cpu {

struct Moves {
  void (*widen)(void* to, const void* from, int64_t stride, int64_t count);
  void (*narrow)(void* to, int64_t stride, const void* from, int64_t count);
  int64_t bytes;  // of one stored element
  bool same;  // stored as it is accumulated: full runs can be read in place

  FASTPOOL_HD const char* at(const void* base, int64_t element) const { return static_cast<const char*>(base) + element * bytes; }
  FASTPOOL_HD char* at(void* base, int64_t element) const { return static_cast<char*>(base) + element * bytes; }

  // Values of `count` of the L lanes at `from`: in place where that is possible, else widened into `buffer`.
  template <int L, class T>
  FASTPOOL_HD const T* lanes(const void* from, int64_t stride, int count, T* buffer) const {
    if (same && stride == 1 && count == L) return static_cast<const T*>(from);
    widen(buffer, from, stride, count);
    return buffer;
  }
};

const Moves& moves_of(Dtype dtype);

// Uniforms of `count` <= 64 consecutive bins of one plane, a Philox block for every four of them.
using FillRow = void (*)(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t bin, int64_t count, float* to);
// The four uniforms of one block of bins for `count` <= 64 neighbouring channels: to[word * 64 + channel].
using FillChannels = void (*)(const Problem& p, uint64_t seed, int64_t n, int64_t c, int64_t block, int64_t count, float* to);
constexpr int kMostUniforms = 64;

struct Uniforms {
  FillRow row;
  FillChannels channels;
};
const Uniforms& uniforms();

}  // namespace fastpool::cpu
