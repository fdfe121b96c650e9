// The exact path of every reducer, which setup.py includes after this.
#pragma once

#include "core/kernels.h"
#include "cpu/work.h"
#include "schedules/exact.h"

namespace fastpool::cpu {

template <class Reducer>
void exact_forward(const Problem& p, const Level& level, const Place& at) {
  with_storage(p.dtype, [&](auto s) { forward_at<Reducer, decltype(s)>(p, level, at); });
}

template <class Gradient>
double backward_exact(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t i[3], double sum) {
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (kPoolsAgain<Gradient>)
      if (!p.moments) return void(sum = backward_one<Gradient, S, true>(p, level, n, c, i, Accumulated<S>(sum)));
    sum = backward_one<Gradient, S>(p, level, n, c, i, Accumulated<S>(sum));
  });
  return sum;
}

}  // namespace fastpool::cpu

#undef FASTPOOL_FORWARD
#undef FASTPOOL_BACKWARD
#define FASTPOOL_FORWARD(...)                                                           \
  namespace fastpool::cpu {                                                             \
  static_assert(IsReducer<__VA_ARGS__>);                                                \
  template void exact_forward<__VA_ARGS__>(const Problem&, const Level&, const Place&); \
  }
#define FASTPOOL_BACKWARD(...)                                                                                           \
  namespace fastpool::cpu {                                                                                              \
  static_assert(IsGradient<__VA_ARGS__>);                                                                                \
  template double backward_exact<__VA_ARGS__>(const Problem&, const Level&, int64_t, int64_t, const int64_t[3], double); \
  }
