// Sums of many elements: in blocks, whose sums are added up in turn, and these in a total that keeps what rounding takes from
// it (Knuth 1969, two-sum). So the error does not grow with the number of elements.
#pragma once

#include <type_traits>

#include "core/values.h"

namespace fastpool {

// Terms that are added one after another: elements of a block, or blocks before a total takes them. torch.mean has as many
// where it has fewest.
constexpr int kBlockSum = 16;

// What there is one of for each long sum of a reducer. No array: its loops would be unrolled too late to keep it in registers.
template <class X, int count>
struct ForSums {
  // Of types that differ, so that neither takes room.
  struct NoFirst {};
  struct NoSecond {};
  [[no_unique_address]] std::conditional_t<(count > 0), X, NoFirst> first;
  [[no_unique_address]] std::conditional_t<(count > 1), X, NoSecond> second;

  // Calls f(member of this, sum of the state) for each of them.
  template <class State, class F>
  FASTPOOL_HD void each(State& state, const F& f) {
    if constexpr (count > 0) f(first, state.template long_sum<0>());
    if constexpr (count > 1) f(second, state.template long_sum<1>());
  }
};

// Sets the long sums of a state aside while a block is summed. Of sums that are not long, there is but one block.
template <class Reducer, class V>
class Block {
 public:
  template <class State>
  FASTPOOL_HD void begin(State& state, bool is_long) {
    if (is_long) before.each(state, Begin());
  }
  template <class State>
  FASTPOOL_HD void end(State& state, bool is_long) {
    if (is_long) before.each(state, End());
  }

 private:
  ForSums<V, Reducer::long_sums> before;

  struct Begin {
    FASTPOOL_HD void operator()(V& before, V& sum) const {
      before = sum;
      sum = V(Scalar<V>(0));
    }
  };
  struct End {
    FASTPOOL_HD void operator()(V& before, V& sum) const { sum = before + sum; }
  };
};

template <class V>
struct Total {
  V sum, lost;

  FASTPOOL_HD void start() { sum = lost = V(Scalar<V>(0)); }
  // Takes a sum, which begins anew.
  FASTPOOL_HD void take(V& part) {
    const V next = sum + part, taken = next - sum;
    lost = lost + ((sum - (next - taken)) + (part - taken));
    sum = next;
    part = V(Scalar<V>(0));
  }
  // Beside an infinity what was lost is NaN, and nothing else was.
  FASTPOOL_HD V all() const {
    return select(lost == lost, sum + lost, sum);
  }
};

// The totals of a state's long sums.
template <class Reducer, class V>
class Totals {
 public:
  template <class State>
  FASTPOOL_HD void start(State& state) {
    totals.each(state, Start());
  }
  template <class State>
  FASTPOOL_HD void take(State& state) {
    totals.each(state, Take());
  }
  // Gives the state the sums of everything.
  template <class State>
  FASTPOOL_HD void give(State& state) {
    totals.each(state, Give());
  }

 private:
  [[no_unique_address]] ForSums<Total<V>, Reducer::long_sums> totals;

  struct Start {
    FASTPOOL_HD void operator()(Total<V>& total, V&) const { total.start(); }
  };
  struct Take {
    FASTPOOL_HD void operator()(Total<V>& total, V& sum) const { total.take(sum); }
  };
  struct Give {
    FASTPOOL_HD void operator()(Total<V>& total, V& sum) const {
      total.take(sum);
      sum = total.all();
    }
  };
};

}  // namespace fastpool
