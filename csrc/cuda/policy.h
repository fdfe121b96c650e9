// The constants by which CUDA schedules are chosen and sized, and what each rests on: `count`, instructions counted in the
// machine code of sm_90 (make cuda-report); `sheet`, a data sheet; `layout`, the sizes of sectors and types. None has been
// tuned on a card.
#pragma once

#include "core/window.h"

namespace fastpool::cuda {

struct Policy {
  // sheet: an H200, the card with most to fill.
  static constexpr int64_t multiprocessors = 132, warps = 64;
  // count: enough warps to hide latency at 64 to 128 registers a thread.
  static constexpr int block_threads = 256;

  // Who pools a window, by how many taps windows have on average.
  //   a thread   below 32. count: a warp pays 150 instructions a window for merging and indexing, a thread 10 a tap and some
  //              latency. Sliding windows of up to 256 taps always where their stride is 4 or less: neighbours share lines.
  //   a block    from 2048 on, if there are fewer windows than warps fit the card (sheet) and they are read by packs.
  //   a warp     else
  static constexpr int64_t team_taps = 32, shared_stride = 4, block_taps = 2048, few_windows = multiprocessors * warps;
  // Of channels-last input, from how many taps on a block shares them: eight for each thread.
  static constexpr int64_t block_stripes_taps = 512;

  // Groups of channels that a thread pools one after the other. count: finding windows takes 250 instructions, computing four
  // small ones 130. No longer where that would leave fewer than three times the threads that fit the card at 80 registers.
  static constexpr int64_t most_rounds = 8, enough_threads = 3 * multiprocessors * 768;
  // layout: channels whose taps, bytes, are a sector.
  static constexpr int64_t sector_channels = 32;

  // Bytes of shared memory for planes. sheet: seven blocks fit 128 KB beside the L1 cache, as many as their threads do.
  static constexpr int64_t planes_bytes = 16 << 10;

  // Accesses of 16 bytes of a thread that writes the gradient of a whole plane. count: finding the first takes 50
  // instructions, each of the others 60.
  static constexpr int whole_planes_rounds = 4, whole_columns_rounds = 8;

  // A parameter's gradient: from how many terms on merging pays for a warp, or a block (count).
  static constexpr int64_t warp_terms = 8, block_terms = 1024;
};

// How the sum of one gradient of a parameter is divided over blocks: `sums` of `terms` terms each. Enough parts to give every
// multiprocessor sixteen blocks, if each of a block's threads then still has sixteen terms.
inline int64_t parameter_splits(int64_t sums, int64_t terms) {
  constexpr int64_t blocks = Policy::multiprocessors * 16, terms_per_part = Policy::block_threads * 16;
  return larger(smaller(ceil_div(terms, terms_per_part), ceil_div(blocks, larger(sums, 1))), 1);
}

}  // namespace fastpool::cuda
