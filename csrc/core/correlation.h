// Learned filters over windows: what their kernels are told, and the arithmetic of one value or of many lanes alike.
#pragma once

#include <type_traits>

#include "core/exp.h"
#include "core/problem.h"

namespace fastpool {

// Products of filters with windows, in which padding counts as zeros. Input x and its gradient gx are in the storage type, all
// else in the accumulation type: y and g have a map for each filter and sample, filters first, laid out as `saved` tells.
struct Correlation : Problem {
  int64_t filters = 1, taps = 1;
  bool shared = false;            // by all channels
  bool bias = false;              // what a filter has after its taps, for an element that is always 1
  const void* weights = nullptr;  // (filters, 1 or channels, taps + bias)
  double* partial = nullptr;      // sums of the filters' gradient: (blocks, splits, filters, taps + bias), or a block's channels;
                                  // on CUDA (splits, filters, 1 or channels, taps + bias)

  // Work is divided by shape alone: blocks of channels, parts of rows, and splits of the samples' parts that one block has.
  static constexpr int64_t kChannels = 16, kWanted = 64;
  FASTPOOL_HD int64_t width() const { return taps + bias; }
  FASTPOOL_HD int64_t blocks() const { return ceil_div(channels, kChannels); }
  FASTPOOL_HD int64_t parts(int64_t rows) const { return smaller(rows, ceil_div(kWanted, larger(samples * blocks(), 1))); }
  FASTPOOL_HD int64_t splits(int64_t rows) const { return smaller(samples * parts(rows), ceil_div(kWanted, blocks())); }

  // On CUDA a block has a few filters, and a few taps of the filters' gradient, of neighbouring channels in channels-last: so
  // many blocks, if each sums up all its terms.
  static constexpr int64_t kFew = 4, kColumns = 8;
  FASTPOOL_HD int64_t sums() const {
    const int64_t groups = shared ? 1 : lanes_are_channels ? ceil_div(channels, kColumns) : channels;
    return ceil_div(filters, kFew) * ceil_div(width(), kFew) * groups;
  }
  FASTPOOL_HD int64_t terms() const { return samples * bins * (shared ? channels : 1); }
};

// Calls f(first, count) with constants of up to four, which have a register each.
template <class F>
FASTPOOL_HD void each_few(int64_t filters, const F& f) {
  for (int64_t i = 0; i < filters; i += 4) switch (filters - i) {
      case 1:
        f(i, std::integral_constant<int, 1>());
        break;
      case 2:
        f(i, std::integral_constant<int, 2>());
        break;
      case 3:
        f(i, std::integral_constant<int, 3>());
        break;
      default:
        f(i, std::integral_constant<int, 4>());
    }
}

// 1/(1 + e^-x), by e^-|x|, which never overflows. What the exponent loses of a long x is taken off again.
template <class V>
FASTPOOL_HD V sigmoid(V x) {
  using T = Scalar<V>;
  constexpr bool is_float = sizeof(T) == 4;
  const V far = larger_of(x, -x), log2e(T(1.44269504088896340736)), t = -far * log2e;
  const V shift(T(is_float ? 0x1.8p23 : 0x1.8p52)), n = (t + shift) - shift;
  // log(2) in two parts, of which the first has so few bits that n times it is exact.
  const V high(T(is_float ? 0x1.62ep-1 : 0x1.62e42fee00000p-1)), low(T(is_float ? 0x1.0bfbe8p-15 : 0x1.a39ef35793c76p-33));
  const V rest = ((-far - n * high) - n * low) * log2e;
  const V lowest(T(is_float ? -126 : -1022));
  // Where nothing is left, or x is infinite, `rest` may be anything.
  const V e = select(t < lowest, V(T(0)), power_of_fraction(rest) * power_of_two(larger_of(lowest, n)));
  return select(x < V(T(0)), e, V(T(1))) / (V(T(1)) + e);
}

#define FASTPOOL_ON_STREAM(backend, linkage)                                          \
  namespace backend {                                                                 \
  linkage void correlate(const Correlation& p, void* stream);                         \
  linkage void correlate_input(const Correlation& p, void* stream);                   \
  linkage void correlate_filters(const Correlation& p, int64_t splits, void* stream); \
  linkage void logistic(const Problem& p, void* stream);                              \
  }
#ifdef USE_CUDA
FASTPOOL_ON_STREAM(cuda, )
#endif
FASTPOOL_ON_STREAM(emulated, __attribute__((weak, visibility("default"))))  // as in core/kernels.h
#undef FASTPOOL_ON_STREAM

}  // namespace fastpool
