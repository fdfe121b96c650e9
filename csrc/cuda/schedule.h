// Which body computes what, by shape; the first that fits is taken.
//   forward    rows.h          windows of 2 x 2 and 3 x 3 over aligned rows
//              pixels.h        the same of channels-last input
//              planes.h        bins of planes of up to 256 elements
//              nested.h        pyramids whose levels divide each other
//              team_forward.h  large windows
//              forward.h       all others
//   backward   rows.h, pixels.h  the same windows as forward
//              whole.h         one window over the plane
//              bins.h          bins side by side
//              backward.h      all others
// Layouts and sizes that none of these takes go by schedules/exact.h, in 64-bit indices (lookup.h, ExactBackward).
#pragma once

#include "core/kernels.h"
#include "cuda/backward.h"
#include "cuda/bins.h"
#include "cuda/launch.h"
#include "cuda/lookup.h"
#include "cuda/nested.h"
#include "cuda/pixels.h"
#include "cuda/planes.h"
#include "cuda/rows.h"
#include "cuda/team_forward.h"
#include "cuda/whole.h"

namespace fastpool::cuda {

// A thread a window; or a warp, a warp by packs, a block by packs; or of channels-last input the threads of a block that share
// the windows of neighbouring channels, or of a warp or a block that have several channels each.
enum class Path { thread, warp, packs, block, columns, stripes, block_stripes };

// Whether `items` neighbouring channels can be moved by one access everywhere.
template <class S, int items>
bool side_by_side(const Problem& p) {
  constexpr int64_t wide = sizeof(Accumulated<S>);
  const int64_t bytes = items * int64_t(sizeof(S));
  return p.lanes_are_channels && p.channels % items == 0 && p.moments_size % items == 0 && aligned(p.x, bytes) && aligned(p.y, bytes) &&
         aligned(p.second, bytes) && aligned(p.g, bytes) && aligned(p.g_second, bytes) && aligned(p.gx, bytes) &&
         aligned(p.taps, items * p.tap_bytes + !p.tap_bytes) && aligned(p.slope, items * wide) && aligned(p.moments, items * wide);
}
// Channels of one thread of those: 16 bytes of the accumulation type, and fewer where a thread keeps much of each.
template <class Reducer, class S>
constexpr int kStripe = sizeof(S) == 8 || Reducer::careful_passes > 0 || Reducer::passes > 1 ? 2 : 4;

// How windows that may be split over threads are.
template <class Reducer, class S>
Path team_path(const Problem& p, int64_t mean_taps) {
  if (p.lanes_are_channels) {
    if (Reducer::uses_uniform || !side_by_side<S, kStripe<Reducer, S>>(p)) return Path::columns;
    return mean_taps < Policy::block_stripes_taps ? Path::stripes : Path::block_stripes;
  }
  for (int l = 0; l < p.level_count; ++l)
    if (!in_packs<Reducer, S>(p, p.levels[l])) return Path::warp;
  const bool few = p.samples * p.channels * p.bins < Policy::few_windows;
  return few && mean_taps >= Policy::block_taps && !Reducer::uses_uniform ? Path::block : Path::packs;
}

// All levels take one path, in one launch, except draws: up to 256 taps they sum in order, and beyond in classes.
template <class Reducer, class S>
Path choose(const Problem& p, const Level& level) {
  if (Reducer::uses_uniform) return level.grid.most_taps() <= kMostSequentialTaps ? Path::thread : team_path<Reducer, S>(p, 0);
  int64_t taps = 0, largest = 0;
  bool free_order = true, lines_shared = true;
  for (int l = 0; l < p.level_count; ++l) {
    const Level& other = p.levels[l];
    const int64_t most = other.grid.most_taps();
    taps += most * other.grid.bins();
    largest = larger(largest, most);
    // Sums over sliding windows of up to 256 taps run in row-major order.
    free_order &= other.free_order || most > kMostSequentialTaps;
    lines_shared &= !other.grid.axis[2].adaptive() && other.grid.axis[2].stride <= Policy::shared_stride;
  }
  if (!free_order) return Path::thread;
  const int64_t mean = taps / p.bins;
  if (largest <= kMostSequentialTaps && (mean < Policy::team_taps || lines_shared)) return Path::thread;
  return team_path<Reducer, S>(p, mean);
}

inline bool counts_fit(const Problem& p, int64_t limit) { return p.channels < limit / 2 && p.positions() < limit && p.bins < limit; }
inline bool fits(const Problem& p, int64_t limit) {
  bool all = counts_fit(p, limit);
  for (int l = 0; l < p.level_count; ++l) all &= FastLevel::fits(p.levels[l].grid);
  return all;
}

template <class Reducer, class S, class Body, class Launcher>
void launch_levels(Body body, const Launcher& launcher, Path path) {
  const Problem& p = body.p;
  for (int l = 0; l < p.level_count; ++l)
    if (choose<Reducer, S>(p, p.levels[l]) == path) body.take(p.levels[l]);
  if (body.level_count == 0) return;
  body.finish(launcher.limits.enough_threads);
  launcher(body);
}

template <class Body, class Launcher>
void launch_all(Body body, const Launcher& launcher) {
  for (int l = 0; l < body.p.level_count; ++l) body.take(body.p.levels[l]);
  if constexpr (requires { body.finish(launcher.limits.enough_threads); }) body.finish(launcher.limits.enough_threads);
  launcher(body);
}

// Whether launch(W{}) was called for windows W whose geometry the compiler knows. Few pool float64: of those pairs only.
// count: gradients that read their input take 85 KB of code for 3 x 3 windows at every element, more than a cache holds.
template <class S, bool neighbours, class Launch>
bool launch_rows(const Problem& p, const Launch& launch) {
  const auto suits = [&p](auto windows) { return Rows<decltype(windows)>::template suits<S>(p); };
  if (suits(Pairs{})) return launch(Pairs{}), true;
  if constexpr (sizeof(S) < 8) {
    if (suits(Halving{})) return launch(Halving{}), true;
    if constexpr (neighbours)
      if (suits(Neighbours{})) return launch(Neighbours{}), true;
  }
  return false;
}

// Likewise over pixels, for bodies made of such windows.
template <class S, bool neighbours, template <class> class Body, class Launcher>
bool launch_pixels(const Problem& p, const Launcher& launcher) {
  const auto launched = [&](auto windows) {
    using Of = Body<decltype(windows)>;
    const bool suits = side_by_side<S, Of::items>(p) && Of::suits(p);
    if (suits) launch_all(Of(p), launcher);
    return suits;
  };
  if (launched(Pairs{})) return true;
  if constexpr (sizeof(S) < 8) {
    if (launched(Halving{})) return true;
    if constexpr (neighbours) return launched(Neighbours{});
  }
  return false;
}

template <class Reducer, class S>
struct PixelsOf {
  template <class W>
  using Forward = PixelsForward<Reducer, S, W>;
  template <class W>
  using Backward = PixelsBackward<Reducer, S, W>;
};

template <class Reducer, class Launcher>
void forward(const Problem& p, const Launcher& launcher) {
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    constexpr bool draws = Reducer::uses_uniform;
    if (!fits(p, launcher.limits.sizes)) return launch_all(EachOutput<ExactForward<Reducer, S>>(p), launcher);
    if (launch_rows<S, true>(p, [&](auto windows) { launch_all(RowsForward<Reducer, S, decltype(windows)>(p), launcher); })) return;
    if (launch_pixels<S, true, PixelsOf<Reducer, S>::template Forward>(p, launcher)) return;
    if (PlanesForward<Reducer, S>::suits(p)) return launch_all(PlanesForward<Reducer, S>(p), launcher);
    if constexpr (Reducer::parts > 0) {
      if (NestedForward<Reducer, S, 16>::suits(p)) return launch_all(NestedForward<Reducer, S, 16>(p), launcher);
      if constexpr (sizeof(S) == 2)
        if (NestedForward<Reducer, S, 8>::suits(p)) return launch_all(NestedForward<Reducer, S, 8>(p), launcher);
    }
    const auto launch = [&](Path path, auto body) { launch_levels<Reducer, S>(body, launcher, path); };
    if (side_by_side<S, ThreadForward<Reducer, S, true>::items>(p))
      launch(Path::thread, ThreadForward<Reducer, S, true>(p));
    else
      launch(Path::thread, ThreadForward<Reducer, S, false>(p));
    launch(Path::warp, TeamForward<Reducer, S, Warp, Strides>(p));
    launch(Path::packs, TeamForward<Reducer, S, Warp, Packs>(p));
    if constexpr (sizeof(S) == 8)
      launch(Path::columns, TeamForward<Reducer, S, Columns8, Strides>(p));
    else
      launch(Path::columns, TeamForward<Reducer, S, Columns16, Strides>(p));
    if constexpr (!draws) {
      launch(Path::block, TeamForward<Reducer, S, Block, Packs>(p));
      constexpr int items = kStripe<Reducer, S>;
      using Of = StripesOf<larger(4, 32 / int(items * sizeof(S)))>;  // which fill the 32 bytes of a memory access
      launch(Path::stripes, TeamForward<Reducer, S, Of::template Warp, Strides, items>(p));
      launch(Path::block_stripes, TeamForward<Reducer, S, Of::template Block, Strides, items>(p));
    }
  });
}

template <class Gradient, class Launcher>
void backward(const Problem& p, const Launcher& launcher) {
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    if (!fits(p, launcher.limits.sizes)) return launch_all(ExactBackward<Gradient, S>(p), launcher);
    if (launch_rows<S, !Gradient::uses_input>(p,
                                              [&](auto windows) { launch_all(RowsBackward<Gradient, S, decltype(windows)>(p), launcher); }))
      return;
    if (launch_pixels<S, !Gradient::uses_input, PixelsOf<Gradient, S>::template Backward>(p, launcher)) return;
    if (WholePlanes<Gradient, S>::suits(p)) return launch_all(WholePlanes<Gradient, S>(p), launcher);
    if (side_by_side<S, WholeColumns<Gradient, S>::items>(p) && WholeColumns<Gradient, S>::suits(p))
      return launch_all(WholeColumns<Gradient, S>(p), launcher);
    if (BinsBackward<Gradient, S, false>::suits(p)) return launch_all(BinsBackward<Gradient, S, false>(p), launcher);
    if (side_by_side<S, BinsBackward<Gradient, S, true>::items>(p) && BinsBackward<Gradient, S, true>::suits(p))
      return launch_all(BinsBackward<Gradient, S, true>(p), launcher);
    if (side_by_side<S, TileBackward<Gradient, S, true>::items>(p)) return launch_all(TileBackward<Gradient, S, true>(p), launcher);
    launch_all(TileBackward<Gradient, S, false>(p), launcher);
  });
}

template <class Launcher>
void select(const Problem& p, const Launcher& launcher) {
  with_storage(p.dtype, [&](auto s) { launch_all(EachOutput<Select<decltype(s)>>(p), launcher); });
}

template <class Launcher>
void tap_indices(const Problem& p, const Launcher& launcher) {
  launch_all(EachOutput<Indices>(p), launcher);
}

template <class Launcher>
void parameter_gradient(const Problem& p, int64_t splits, double* partial, const Launcher& launcher) {
  const int64_t terms = (p.parameter_view.channel ? 1 : p.channels) * (p.parameter_view.position ? 1 : p.bins);
  if (!counts_fit(p, kMostIndex) || p.channels * p.bins / terms >= kMostIndex)
    throw std::runtime_error("fastpool: on CUDA the gradient of a parameter needs planes, and a parameter, of fewer than 2^30 elements");
  with_storage(p.dtype, [&](auto s) {
    using S = decltype(s);
    if (terms < Policy::warp_terms) return launcher(ParameterGradient<S, Alone>(p, splits, partial));
    if (terms < Policy::block_terms) return launcher(ParameterGradient<S, Warp>(p, splits, partial));
    launcher(ParameterGradient<S, Block>(p, splits, partial));
  });
}

}  // namespace fastpool::cuda
