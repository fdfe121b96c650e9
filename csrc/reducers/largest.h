// The largest element of a window and where it was: the first of ties; NaN wins, the last of several.
#pragma once

#include "reducers/reducer.h"

namespace fastpool {

template <class V>
struct Largest : StateDefaults<V> {
  V best;
  Tap<V> at;

  FASTPOOL_HD void start(Tap<V> first, const Problem&) {
    best = -infinity<V>();
    at = first;
  }
  template <int pass>
  FASTPOOL_HD void add(V x, Tap<V> tap) {
    take((x > best) | (x != x), x, tap);
  }
  FASTPOOL_HD void take(Mask<V> where, V x, Tap<V> tap) {
    best = select(where, x, best);
    at = select(where, tap, at);
  }
  FASTPOOL_HD V part(int) const { return best; }
  FASTPOOL_HD void hold(V x, V, Tap<V> tap) {
    best = x;
    at = tap;
  }
  FASTPOOL_HD void merge(V x, V, Tap<V> tap) {
    const Mask<V> earlier = (x == best) & (tap < at), later = (x != x) & ((best == best) | (tap > at));
    take((x > best) | earlier | later, x, tap);
  }
  template <int pass, class Team>
  FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
    take_largest(team);
  }
  // Takes the largest of the team; as elsewhere, no lane disputes which is the first.
  template <class Team>
  FASTPOOL_HD bool take_largest(const Team& team) {
    const V largest = team.max(best);
    const Mask<V> mine = (best == largest) | (best != best);
    const Tap<V> first = team.first(select(mine, at, Tap<V>(0x7fffffff))), last = team.last(select(mine, at, Tap<V>(-1)));
    const Tap<V> chosen = select(largest != largest, last, first);
    best = team.from(mine & (at == chosen), best);
    at = chosen;
    return false;
  }
  // With nothing above -inf the answer is the window's first element, which only the exact path knows.
  FASTPOOL_HD Mask<V> ordinary() const {
    return !(best == -infinity<V>());
  }
  FASTPOOL_HD void finish(const Facts<V>&) {}
  FASTPOOL_HD V y() const { return best; }
  FASTPOOL_HD Tap<V> tap() const { return at; }
  FASTPOOL_HD bool is_disputed_by(V) const { return false; }
};

// Where nobody asks where it was, half the work. Of NaN it knows nothing.
template <class V>
struct LargestValue : StateDefaults<V> {
  V best;

  FASTPOOL_HD void start(Tap<V>, const Problem&) { best = -infinity<V>(); }
  template <int pass>
  FASTPOOL_HD void add(V x, Tap<V>) {
    best = larger_of(x, best);
  }
  FASTPOOL_HD void hold(V x, V, Tap<V>) { best = x; }
  FASTPOOL_HD void merge(V x, V, Tap<V> tap) { add<0>(x, tap); }
  // Whether both are zero, of two signs: the first of them is the answer, which parts of a window do not tell.
  FASTPOOL_HD Mask<V> is_disputed_by(V x) const {
    return (x == best) & (bits_of(x) != bits_of(best));
  }
  // Takes the largest of the team, and tells which lanes dispute it.
  template <class Team>
  FASTPOOL_HD Mask<V> take_largest(const Team& team) {
    const V mine = best;
    best = team.from(mine == team.max(mine), mine);
    return is_disputed_by(mine);
  }
};

// The same beside a sum: that it is not NaN tells that no element was.
template <class V>
struct LargestNumber : StateDefaults<V> {
  LargestValue<V> largest;
  V sum;

  FASTPOOL_HD void start(Tap<V> first, const Problem& p) {
    largest.start(first, p);
    sum = V(Scalar<V>(0));
  }
  template <int pass>
  FASTPOOL_HD void add(V x, Tap<V> tap) {
    largest.template add<pass>(x, tap);
    sum = sum + x;
  }
  FASTPOOL_HD V part(int) const { return select(ordinary(), largest.best, sum); }
  FASTPOOL_HD void hold(V x, V, Tap<V> tap) {
    largest.hold(x, x, tap);
    sum = x;
  }
  FASTPOOL_HD void merge(V x, V, Tap<V> tap) {
    sum = select(largest.is_disputed_by(x), nan<V>(), sum + x);
    largest.merge(x, x, tap);
  }
  template <int pass, class Team>
  FASTPOOL_HD void share(const Team& team, const Facts<V>&) {
    sum = team.sum(select(largest.take_largest(team), nan<V>(), sum));
  }
  FASTPOOL_HD Mask<V> ordinary() const { return sum == sum; }
  FASTPOOL_HD void finish(const Facts<V>&) {}
  FASTPOOL_HD V y() const { return largest.best; }
};

}  // namespace fastpool
