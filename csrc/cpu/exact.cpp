#include "core/direct.h"
#include "core/kernels.h"
#include "cpu/work.h"
#include "reducers/average.h"
#include "reducers/expectation.h"
#include "reducers/max.h"
#include "reducers/max_avg.h"
#include "reducers/stochastic.h"

namespace fastpool::cpu {

template <class Reducer>
void forward_exact(const Problem& p, const Level& level, const Place& at) {
  with_storage(p.dtype, [&](auto s) { forward_at<Reducer, decltype(s)>(p, level, at); });
}

template <class Gradient>
double backward_exact(const Problem& p, const Level& level, int64_t n, int64_t c, const int64_t i[3], double sum) {
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    sum = backward_one<Gradient, S>(p, level, n, c, i, Accumulated<S>(sum));
  });
  return sum;
}

template <class Gradient>
void backward_again_exact(const Problem& whole, const Level& level, const Place& at) {
  with_storage(whole.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Accumulated<S>;
    // A problem of which this output is the only one.
    S y;
    T moments[2];
    Problem p = whole;
    Level one = level;
    p.g = static_cast<const S*>(p.g) + level.output_base + level.output.at(at.n, at.c, level.bin(at.o));
    p.y = &y;
    p.moments = moments;
    p.moments_size = 1;
    p.saved = one.output = View{0, 0, 0};
    one.output_base = 0;
    forward_at<typename Gradient::Forward, S>(p, one, at);
    for (int64_t tap = 0; tap < 4; ++tap) {
      const int64_t i[3] = {at.o[0], 2 * at.o[1] + tap / 2, 2 * at.o[2] + tap % 2};
      static_cast<S*>(p.gx)[p.input.at(at.n, at.c, level.grid.position(at.o, tap))] =
          Narrow<S>::from(backward_one<Gradient, S>(p, one, at.n, at.c, i, T(0)));
    }
  });
}

#define FASTPOOL_FORWARD(...) template void forward_exact<__VA_ARGS__>(const Problem&, const Level&, const Place&);
#define FASTPOOL_BACKWARD(...) \
  template double backward_exact<__VA_ARGS__>(const Problem&, const Level&, int64_t, int64_t, const int64_t[3], double);
FASTPOOL_FORWARD(Max)
FASTPOOL_FORWARD(MaxValue)
FASTPOOL_FORWARD(Average)
FASTPOOL_FORWARD(MaxAverage)
FASTPOOL_FORWARD(MaxAverageValue)
FASTPOOL_FORWARD(Stochastic<ReluWeights>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights>)
FASTPOOL_FORWARD(Stochastic<ReluWeights, Sums::classes>)
FASTPOOL_FORWARD(Stochastic<SoftmaxWeights, Sums::classes>)
FASTPOOL_FORWARD(Expectation<ReluWeights>)
FASTPOOL_FORWARD(Expectation<SoftmaxWeights>)
FASTPOOL_BACKWARD(SelectGradient)
FASTPOOL_BACKWARD(AverageGradient)
FASTPOOL_BACKWARD(MaxAverageGradient)
FASTPOOL_BACKWARD(ExpectationGradient<ReluWeights>)
FASTPOOL_BACKWARD(ExpectationGradient<SoftmaxWeights>)
template void backward_again_exact<ExpectationGradient<ReluWeights>>(const Problem&, const Level&, const Place&);
template void backward_again_exact<ExpectationGradient<SoftmaxWeights>>(const Problem&, const Level&, const Place&);

}  // namespace fastpool::cpu
