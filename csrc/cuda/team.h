// How threads that share a window talk to each other (see reducers/reducer.h). Written over three primitives of a
// thread: shuffle inside its warp, a barrier of its block and the block's shared slots.
#pragma once

#include "core/types.h"
#include "cuda/policy.h"

namespace fastpool::cuda {

constexpr int kWarp = 32;

struct Sum {
  template <class X>
  FASTPOOL_HD X operator()(X a, X b) const {
    return a + b;
  }
};
struct LargestOrNaN {
  template <class X>
  FASTPOOL_HD X operator()(X a, X b) const {
    return (b > a) | (b != b) ? b : a;
  }
};
struct Smaller {
  template <class X>
  FASTPOOL_HD X operator()(X a, X b) const {
    return b < a ? b : a;
  }
};
struct Larger {
  template <class X>
  FASTPOOL_HD X operator()(X a, X b) const {
    return b > a ? b : a;
  }
};

template <class Thread>
struct Alone {
  static constexpr int members = 1;
  const Thread& thread;

  FASTPOOL_HD int member() const { return 0; }
  template <class X, class Combine>
  FASTPOOL_HD X reduce(X x, Combine) const {
    return x;
  }
};

// One warp, one window. A butterfly gives every lane the bits of the halving tree, since a + b = b + a.
template <class Thread>
struct Warp {
  static constexpr int members = kWarp, columns = 1;
  const Thread& thread;

  FASTPOOL_HD int member() const { return thread.index % kWarp; }
  FASTPOOL_HD int column() const { return 0; }
  template <class X, class Combine>
  FASTPOOL_HD X reduce(X x, Combine combine) const {
    FASTPOOL_UNROLL
    for (int step = kWarp / 2; step > 0; step /= 2) x = combine(x, thread.shuffle(x, member() ^ step));
    return x;
  }
  template <class X>
  FASTPOOL_HD X of(X x, int from) const {
    return thread.shuffle(x, from);
  }
};

// One block of eight warps, one window.
template <class Thread>
struct Block {
  static constexpr int members = Policy::block_threads, columns = 1;
  const Thread& thread;

  FASTPOOL_HD int member() const { return thread.index; }
  FASTPOOL_HD int column() const { return 0; }
  template <class X, class Combine>
  FASTPOOL_HD X reduce(X x, Combine combine) const {
    x = Warp<Thread>{thread}.reduce(x, combine);
    const auto slots = thread.template slots<X>();
    thread.barrier();  // the slots may still be read
    if (member() % kWarp == 0) slots[member() / kWarp] = x;
    thread.barrier();
    x = slots[0];
    for (int warp = 1; warp < members / kWarp; ++warp) x = combine(x, X(slots[warp]));
    return x;
  }
  template <class X>
  FASTPOOL_HD X of(X x, int from) const {
    const auto slots = thread.template slots<X>();
    thread.barrier();
    if (member() == from) slots[0] = x;
    thread.barrier();
    return slots[0];
  }
};

// Channels-last: 32 threads share the window of each of some neighbouring channels.
template <class Thread, int neighbours>
struct Columns {
  static constexpr int members = 32, columns = neighbours;
  const Thread& thread;

  FASTPOOL_HD int member() const { return thread.index / columns; }
  FASTPOOL_HD int column() const { return thread.index % columns; }
  template <class X, class Combine>
  FASTPOOL_HD X reduce(X x, Combine combine) const {
    const auto slots = thread.template slots<X>();
    thread.barrier();
    slots[thread.index] = x;
    for (int step = members / 2; step > 0; step /= 2) {
      thread.barrier();
      if (member() < step) slots[thread.index] = combine(X(slots[thread.index]), X(slots[thread.index + step * columns]));
    }
    thread.barrier();
    return slots[column()];
  }
  template <class X>
  FASTPOOL_HD X of(X x, int from) const {
    const auto slots = thread.template slots<X>();
    thread.barrier();
    slots[thread.index] = x;
    thread.barrier();
    return slots[from * columns + column()];
  }
};

// Channels-last: the threads of some warps share the windows of channels of which each has a few side by side. Threads of a warp
// need no barrier.
template <class Thread, int warps, int neighbours>
struct Stripes {
  static constexpr int columns = neighbours, members = kWarp / columns * warps;
  const Thread& thread;

  FASTPOOL_HD int member() const { return thread.index % (kWarp * warps) / columns; }
  FASTPOOL_HD int column() const { return thread.index % columns; }
  template <class X, class Combine>
  FASTPOOL_HD X reduce(X x, Combine combine) const {
    const int lane = thread.index % kWarp;
    FASTPOOL_UNROLL
    for (int step = kWarp / 2; step >= columns; step /= 2) x = combine(x, thread.shuffle(x, lane ^ step));
    if constexpr (warps > 1) {
      const auto slots = thread.template slots<X>();
      thread.barrier();  // may be read still
      if (lane < columns) slots[thread.index / kWarp * columns + lane] = x;
      thread.barrier();
      x = slots[column()];
      for (int warp = 1; warp < warps; ++warp) x = combine(x, X(slots[warp * columns + column()]));
    }
    return x;
  }
  template <class X>
  FASTPOOL_HD X of(X x, int from) const {
    if constexpr (warps == 1) return thread.shuffle(x, from * columns + column());
    const auto slots = thread.template slots<X>();
    thread.barrier();
    if (member() == from) slots[column()] = x;
    thread.barrier();
    return slots[column()];
  }
};
template <int neighbours>
struct StripesOf {
  template <class Thread>
  using Warp = Stripes<Thread, 1, neighbours>;
  template <class Thread>
  using Block = Stripes<Thread, Policy::block_threads / kWarp, neighbours>;
};

// Draws of large windows are by 32 classes of taps, a thread each.
// 16 channels fill the 32 bytes of a memory access even in half types; 8 leave a thread all the registers there are.
template <class Thread>
using Columns16 = Columns<Thread, 16>;
template <class Thread>
using Columns8 = Columns<Thread, 8>;

// What reducers ask of a team.
template <class Members>
struct Team {
  Members members;

  template <class X>
  struct Spread {
    const Members& members;
    X x;
    FASTPOOL_HD X operator[](int from) const { return members.of(x, from); }
  };

  FASTPOOL_HD int lane() const { return members.member(); }
  template <class X>
  FASTPOOL_HD X sum(X x) const {
    return members.reduce(x, Sum{});
  }
  template <class X>
  FASTPOOL_HD X max(X x) const {
    return members.reduce(x, LargestOrNaN{});
  }
  template <class X>
  FASTPOOL_HD X first(X tap) const {
    return members.reduce(tap, Smaller{});
  }
  template <class X>
  FASTPOOL_HD X last(X tap) const {
    return members.reduce(tap, Larger{});
  }
  template <class X>
  FASTPOOL_HD X from(bool mask, X x) const {
    return members.of(x, members.reduce(mask ? lane() : -1, Larger{}));
  }
  template <class X>
  FASTPOOL_HD Spread<X> spread(X x) const {
    return {members, x};
  }
};

}  // namespace fastpool::cuda
