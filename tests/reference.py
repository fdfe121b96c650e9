"""What fastpool computes, in NumPy, written from the formulas and sharing no code with the library.

Poolings take x of shape (N, C, *spatial) and a list of windows and give (N, C, P), P windows in row-major order.
Sliding, adaptive, floor and global pooling differ only in that list; a pyramid is the concatenation of its levels'.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

MANY_TAPS = 256
CLASSES = 32


@dataclass(frozen=True, eq=False)
class Grid:
    """The windows of one level in a table: row p is the p-th window, column t its tap t."""

    elements: np.ndarray  # (P, K) row-major positions in the input plane; 0 for a tap that is no element
    exist: np.ndarray  # (P, K) whether the tap is an element of the input
    sizes: np.ndarray  # (P,) number of taps, clipped ones included
    padded_counts: np.ndarray  # (P,) the divisors of count_include_pad
    first: int = 0  # the number of the grid's first window among all windows

    @property
    def numbers(self):
        return slice(self.first, self.first + len(self.sizes))


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of all levels; poolings without levels have one."""

    grids: tuple

    def __len__(self):
        return sum(len(grid.sizes) for grid in self.grids)

    @property
    def sizes(self):
        return np.concatenate([grid.sizes for grid in self.grids])

    def elements(self, p):
        """The input elements that output p sees, in row-major order."""
        grid = next(grid for grid in reversed(self.grids) if grid.first <= p)
        return grid.elements[p - grid.first][grid.exist[p - grid.first]]


def per_axis(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def output_length(length, kernel, stride, before, after, dilation, ceil_mode):
    span = length + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= length + before else out  # no window starts in the right padding


def same_padding(length, kernel, stride, dilation):
    effective = dilation * (kernel - 1) + 1
    total = max((-(-length // stride) - 1) * stride + effective - length, 0)
    return total // 2, total - total // 2


def product_of_axes(size, axes):
    """axes: for each axis its windows as arrays: positions of taps, whether they exist, extents, padded counts"""
    elements, exist, taps = np.zeros((1, 1), int), np.ones((1, 1), bool), np.zeros((1, 1), int)
    sizes, padded_counts = np.ones(1, int), np.ones(1, int)

    def joined(operation, table, of_axis):
        return operation(table[:, None, :, None], of_axis[None, :, None, :]).reshape(len(table) * len(of_axis), -1)

    for n, (positions, inside, extents, counts) in zip(size, axes, strict=True):
        elements = joined(np.add, elements * n, np.where(inside, positions, 0))
        exist = joined(np.logical_and, exist, inside)
        within = extents[None, :, None, None]
        taps = (taps[:, None, :, None] * within + np.arange(positions.shape[1])).reshape(exist.shape)
        sizes, padded_counts = np.outer(sizes, extents).ravel(), np.outer(padded_counts, counts).ravel()
    shape = tuple(len(extents) for _, _, extents, _ in axes)
    # Bins differ in width, so that a column of the product need not be a tap yet.
    rows, columns = np.nonzero(exist)
    at = rows, taps[rows, columns]
    by_tap = np.zeros((len(sizes), sizes.max(initial=0)), int), np.zeros((len(sizes), sizes.max(initial=0)), bool)
    by_tap[0][at], by_tap[1][at] = elements[rows, columns], True
    return shape, Windows((Grid(*by_tap, sizes, padded_counts),))


@lru_cache
def sliding_windows(size, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """-> (output size, windows); None where a window would hold no element or no window fits."""
    rank = len(size)
    kernel, dilation = per_axis(kernel_size, rank), per_axis(dilation, rank)
    stride = kernel if stride is None else per_axis(stride, rank)
    if padding == "same":
        pads = [same_padding(*axis) for axis in zip(size, kernel, stride, dilation, strict=True)]
    else:
        pads = [(p, p) if isinstance(p, int) else p for p in per_axis(padding, rank)]
    axes = []
    for n, k, s, (before, after), d in zip(size, kernel, stride, pads, dilation, strict=True):
        out = output_length(n, k, s, before, after, d, ceil_mode)
        positions = np.arange(out)[:, None] * s - before + np.arange(k) * d
        inside = (positions >= 0) & (positions < n)
        if out < 1 or not inside.any(axis=1).all():
            return None
        axes.append((positions, inside, np.full(out, k), (positions < n + after).sum(axis=1)))
    return product_of_axes(size, axes)


@lru_cache
def bin_windows(size, output_size, bins="adaptive"):
    axes = []
    for n, bins_here in zip(size, per_axis(output_size, len(size)), strict=True):
        count = n if bins_here is None else bins_here
        i = np.arange(count)
        if bins == "adaptive":
            start, stop = i * n // count, -(-(i + 1) * n // count)
        else:
            start, stop = i * (n // count), (i + 1) * (n // count)
        extents = stop - start
        taps = np.arange(extents.max())
        axes.append((start[:, None] + taps, taps < extents[:, None], extents, extents))
    return product_of_axes(size, axes)


@lru_cache
def pyramid_windows(size, levels, bins="adaptive"):
    """-> (number of bins of each level, the windows of all levels)"""
    grids = [bin_windows(size, level, bins)[1].grids[0] for level in levels]
    counts = [len(grid.sizes) for grid in grids]
    return counts, Windows(tuple(replace(grid, first=sum(counts[:i])) for i, grid in enumerate(grids)))


def flatten_pyramid(y, counts, flatten):
    """y: (N, C, B) -> what flatten="level", "channel" or None returns"""
    if flatten is None:
        return y
    levels = [y] if flatten == "channel" else np.split(y, np.cumsum(counts)[:-1], axis=2)
    return np.concatenate([level.reshape(len(y), math.prod(level.shape[1:])) for level in levels], axis=1)


def planes(x):
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def each_window(x, windows, formula):
    """formula: (values of taps (N, C, P, K), -inf where they are no elements, grid) -> (N, C, P) arrays"""
    x, results = planes(x), []
    for grid in windows.grids:
        values = np.where(grid.exist, x.take(grid.elements, axis=2), -np.inf)
        with np.errstate(all="ignore"):
            results.append(formula(values, grid))
    return tuple(np.concatenate(columns, axis=2) for columns in zip(*results, strict=True))


def pick(values, position):
    return np.take_along_axis(values, position[..., None], axis=-1)[..., 0]


def pick_element(grid, position):
    return grid.elements[np.arange(len(grid.sizes)), position]


def max_position(values, grid):
    """First of equal maxima; NaN wins, of several NaNs the last."""
    nan = np.isnan(values)
    last_nan = values.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)
    largest = np.maximum(np.argmax(values, axis=-1), np.argmax(grid.exist, axis=-1))  # all -inf: the first element
    return np.where(nan.any(-1), last_nan, largest)


def max_pool(x, windows):
    """-> values, indices"""

    def formula(values, grid):
        position = max_position(values, grid)
        return pick(values, position), pick_element(grid, position)

    return each_window(x, windows, formula)


def min_pool(x, windows):
    """-> values, indices"""
    values, indices = max_pool(-x, windows)
    return -values, indices


def row_major_sum(values, accumulate=np.float64):
    return np.cumsum(values, axis=-1, dtype=accumulate)[..., -1] + accumulate(0)  # a sum starts at +0.0


def divisors_of(grid, count_include_pad=False, divisor_override=None):
    """-> (P,)"""
    if divisor_override is not None:
        return np.full(len(grid.sizes), divisor_override)
    return grid.padded_counts if count_include_pad else grid.exist.sum(axis=1)


def avg_pool(x, windows, accumulate=np.float64, **divisor):
    def formula(values, grid):
        total = row_major_sum(np.where(grid.exist, values, 0), accumulate)
        return (total / divisors_of(grid, **divisor).astype(accumulate),)

    return each_window(x, windows, formula)[0]


def mixed_pool(x, windows, alpha):
    """alpha: broadcasts against (N, C, P)"""
    with np.errstate(all="ignore"):
        return alpha * max_pool(x, windows)[0] + (1 - alpha) * avg_pool(x, windows)


def weights_of(values, distribution, temperature):
    if distribution == "relu":
        return np.maximum(values, 0)
    largest = values.max(-1, keepdims=True)
    return np.exp((values - largest) / values.dtype.type(temperature))


def expectation_pool(x, windows, distribution, temperature=1.0):
    def formula(values, grid):
        weights = weights_of(values, distribution, temperature)
        weights = weights / weights.max(-1, keepdims=True)  # a common factor cancels; huge sums do not overflow
        weights = weights / weights.sum(-1, keepdims=True)
        values_there = np.where(weights > 0, values, 0)
        size = np.abs(values_there).max(-1, keepdims=True)
        size = np.where(size > 0, size, 1)  # so that products of tiny values are not rounded to fewer bits
        y = size[..., 0] * (weights * (values_there / size)).sum(-1)
        nothing = values.max(-1) <= 0 if distribution == "relu" else values.max(-1) == -np.inf
        y = np.where(nothing, 0.0 if distribution == "relu" else -np.inf, y)
        y = np.where((values == np.inf).any(-1), np.inf, y)
        return (np.where(np.isnan(values).any(-1), np.nan, y),)

    return each_window(x, windows, formula)[0]


def own(parameter, grid):
    """A number, or an array that broadcasts to (N, C, P), beside taps."""
    parameter = np.asarray(parameter, np.float64)
    return (parameter[..., grid.numbers] if parameter.ndim and parameter.shape[-1] > 1 else parameter)[..., None]


def softmax_of(values, exist, factor):
    """exp(factor * value) over the largest of them, which is finite where that element is -> weights, that element"""
    smallest = np.where(exist, values, np.inf).min(-1, keepdims=True)
    extreme = np.where(factor < 0, smallest, np.where(exist, values, -np.inf).max(-1, keepdims=True))
    weights = np.exp(2 * factor * (values / 2 - extreme / 2))  # the difference could overflow
    return np.where(exist, weights, 0.0), extreme[..., 0]


def follow_infinities(y, values, exist, factor, extreme):
    """y of finite elements, or what takes its place beside others"""
    average = np.where(exist, values, 0).sum(-1)  # infinite, or NaN, as the average is
    y = np.where(np.isinf(extreme), extreme, y)
    y = np.where((factor[..., 0] == 0) & ~np.isfinite(values).all(-1, where=exist), average, y)
    return np.where(np.isnan(values).any(-1, where=exist) | np.isnan(factor[..., 0]), np.nan, y)


def soft_pool(x, windows, beta=1.0):
    def formula(values, grid):
        factor = own(beta, grid)
        weights, extreme = softmax_of(values, grid.exist, factor)
        weights = weights / weights.sum(-1, keepdims=True)
        values_there = np.where(weights > 0, values, 0)
        size = np.abs(values_there).max(-1, keepdims=True)
        size = np.where(size > 0, size, 1)  # so that products of tiny values are not rounded to fewer bits
        y = size[..., 0] * (weights * (values_there / size)).sum(-1)
        return (follow_infinities(y, values, grid.exist, factor, extreme),)

    return each_window(x, windows, formula)[0]


def lse_pool(x, windows, r=1.0):
    def formula(values, grid):
        factor = own(r, grid)
        weights, extreme = softmax_of(values, grid.exist, factor)
        near = np.expm1(2 * factor * (values / 2 - extreme[..., None] / 2))  # of means near 1, 1 would take the digits
        below = np.where(grid.exist, near, 0.0).sum(-1) / grid.exist.sum(-1)
        log = np.where(below > -0.5, np.log1p(below), np.log(weights.sum(-1) / grid.exist.sum(-1)))
        y = 2 * (extreme / 2 + log / 2 / factor[..., 0])
        finite = np.where(grid.exist & np.isfinite(values), values, 0.0)
        size = np.maximum(np.abs(finite).max(-1, keepdims=True), np.finfo(float).tiny)
        average = size[..., 0] * ((finite / size).sum(-1) / grid.exist.sum(-1))
        spread = np.abs(factor) * np.where(grid.exist, np.abs(values / 2 - extreme[..., None] / 2), 0.0)
        y = np.where(spread.max(-1) < 1e-20, average, y)  # its logarithm could be 0
        return (follow_infinities(y, values, grid.exist, factor, extreme),)

    return each_window(x, windows, formula)[0]


def gem_pool(x, windows, p=3.0, eps=1e-6):
    def formula(values, grid):
        power = own(p, grid)
        values = np.where(grid.exist, np.where(values < eps, eps, values), 1.0)
        smallest = np.where(grid.exist, values, np.inf).min(-1, keepdims=True)
        extreme = np.where(power < 0, smallest, np.where(grid.exist, values, 0.0).max(-1, keepdims=True))
        powers = np.where(values == np.inf, 0.0, (values / extreme) ** power)
        average = np.where(grid.exist, powers, 0.0).sum(-1) / grid.exist.sum(-1)
        extreme, power = extreme[..., 0], power[..., 0]
        root = np.exp(np.log(average) / power / 2)  # of the root, which could vanish
        y = extreme * root * root
        y = np.where(average == 1, extreme, y)
        y = np.where(power == 0, 1.0, np.where(extreme == np.inf, np.inf, y))
        return (np.where(np.isnan(values).any(-1) | np.isnan(power), np.nan, y),)

    return each_window(x, windows, formula)[0]


def lp_pool(x, windows, norm_type):
    """norm_type, p, may be infinite: the largest, or the smallest, absolute value"""

    p = norm_type

    def formula(values, grid):
        count = grid.exist.sum(-1)
        values = np.where(grid.exist, values, 1.0)
        ordinary = grid.exist & ((np.isfinite(values) & (values != 0)) | np.isinf(p))
        size = np.where(ordinary, np.abs(values), -np.inf if p > 0 else np.inf)
        extreme = (size.max if p > 0 else size.min)(-1, keepdims=True)
        if np.isinf(p):
            return (np.where(np.isnan(values).any(-1), np.nan, extreme[..., 0]),)
        # Powers of what is beside a power of two do not overflow, and of p = 1 they are exact.
        scale = np.where(np.isfinite(extreme), 2.0 ** np.floor(np.log2(extreme)), 1.0)
        powers = np.where(grid.exist, np.power(values / scale, np.full(values.shape, p)), 0.0)  # 0.5 alone is a root
        return (scale[..., 0] * np.power(powers.sum(-1) / count * grid.sizes, 1 / p),)

    return each_window(x, windows, formula)[0]


def mean_std_pool(x, windows, correction=0):
    """-> mean, std"""

    def formula(values, grid):
        count = grid.exist.sum(-1)
        values = np.where(grid.exist, values, 0.0)
        size = np.abs(values).max(-1, keepdims=True)
        scale = np.where((size > 0) & np.isfinite(size), size, 1.0)  # sums and squares of what is below do not overflow
        mean = (values / scale).sum(-1) / count
        distances = np.where(grid.exist, values / scale - mean[..., None], 0.0)
        free = np.maximum(count - correction, 0)
        variance = np.where(free > 0, (distances**2).sum(-1) / np.where(free > 0, free, 1), 0.0)
        equal = (values == values[..., :1]).all(-1, where=grid.exist) & grid.exist[..., 0]
        return mean * scale[..., 0], np.where(equal & np.isfinite(mean), 0.0, np.sqrt(variance)) * scale[..., 0]

    return each_window(x, windows, formula)


def products(x, windows, weight):
    """Of a filter (K,) or (C, K) with every window: clipped taps count as 0."""

    def formula(values, grid):
        taps = np.where(grid.exist, values, 0.0)
        return ((taps * (weight if weight.ndim == 1 else weight[:, None, :])).sum(-1),)

    return each_window(x, windows, formula)[0]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated_pool(x, windows, weight, bias=0.0):
    with np.errstate(over="ignore"):
        return mixed_pool(x, windows, sigmoid(products(x, windows, weight) + np.reshape(bias, (-1, 1))))


def tree_pool(x, windows, leaves, gates):
    values = [products(x, windows, leaf) for leaf in leaves]
    with np.errstate(over="ignore"):
        shares = [sigmoid(products(x, windows, gate)) for gate in gates]
    nodes = shares[1:] + shares[:1]  # from the bottom
    while len(values) > 1:
        s = nodes[: len(values) // 2]
        values = [a * left + (1 - a) * right for a, left, right in zip(s, values[0::2], values[1::2], strict=True)]
        nodes = nodes[len(s) :]
    return values[0]


def philox(seed, counter):
    """Philox-4x32-10 (Salmon et al. 2011). counter: four arrays of uint32 -> four arrays of uint32"""
    low32 = np.uint64(0xFFFFFFFF)
    c = [np.asarray(word).astype(np.uint64) for word in counter]
    key = [np.uint64(seed % 2**64 & 0xFFFFFFFF), np.uint64(seed % 2**64 >> 32)]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (second >> np.uint64(32)) ^ c[1] ^ key[0],
            second & low32,
            (first >> np.uint64(32)) ^ c[3] ^ key[1],
            first & low32,
        ]
        key = [(key[0] + np.uint64(0x9E3779B9)) & low32, (key[1] + np.uint64(0xBB67AE85)) & low32]
    return c


def uniforms(seed, samples, channels, positions):
    """samples, channels: numbers of the outputs' samples and channels -> (N, C, P) in [0, 1)"""
    n, c, s = np.ix_(np.array(samples, dtype=object), channels, range(positions))
    low, high = (n % 2**32).astype(np.uint64), (n // 2**32).astype(np.uint64)
    words = np.broadcast_arrays(*philox(seed, (s // 4, c, low, high)), s)
    word = np.choose(words[4] % 4, words[:4])
    return (word >> np.uint64(8)) * 2.0**-24


def running_sums(weights, many):
    """many: whether taps are summed in classes -> running sums, total, the order in which the sums are searched"""
    if not many:
        running = np.cumsum(weights, axis=-1, dtype=weights.dtype)
        return running, running[..., -1], np.arange(weights.shape[-1])
    *lead, taps = weights.shape
    rows = -(-taps // CLASSES)
    padded = np.zeros((*lead, rows * CLASSES), weights.dtype)
    padded[..., :taps] = weights
    inside = np.cumsum(padded.reshape(*lead, rows, CLASSES), axis=-2, dtype=weights.dtype)
    totals = np.cumsum(inside[..., -1, :], axis=-1, dtype=weights.dtype)
    earlier = np.concatenate([np.zeros_like(totals[..., :1]), totals[..., :-1]], axis=-1)
    running = (earlier[..., None, :] + inside).reshape(padded.shape)[..., :taps]
    return running, totals[..., -1], np.argsort(np.arange(taps) % CLASSES, kind="stable")


def draw_position(values, u, grid, distribution, temperature):
    """-> position in the window (-1 for none), whether rounding of the weights cannot have changed it"""
    weights = weights_of(values, distribution, temperature)
    drawn, clear = np.empty(u.shape, int), np.empty(u.shape, bool)
    for many in (False, True):
        these = (grid.sizes > MANY_TAPS) == many
        if these.any():
            running, total, order = running_sums(weights[:, :, these], many)
            threshold = (u[:, :, these].astype(values.dtype) * total)[..., None]
            exceeds = (running > threshold)[..., order]
            drawn[:, :, these] = np.where(exceeds.any(-1), order[np.argmax(exceeds, axis=-1)], -1)
            clear[:, :, these] = (np.abs(running - threshold) > 1e-5 * total[..., None]).all(-1)
    positive = weights > 0
    last_positive = values.shape[-1] - 1 - np.argmax(positive[..., ::-1], axis=-1)
    position = np.where(drawn >= 0, drawn, last_positive)
    nothing = ~positive.any(-1)
    position = np.where(nothing, -1 if distribution == "relu" else np.argmax(grid.exist, axis=-1), position)
    infinite = values == np.inf
    position = np.where(infinite.any(-1), np.argmax(infinite, axis=-1), position)
    nan = np.isnan(values).any(-1)
    position = np.where(nan, max_position(values, grid), position)
    # Only weights of soft-max are rounded.
    return position, clear | (distribution == "relu") | infinite.any(-1) | nan | nothing


def stochastic_pool(
    x, windows, seed, distribution, temperature=1.0, samples=None, channels=None, accumulate=np.float32
):
    """-> values, indices, whether an element was drawn, whether the draw is clear of rounding"""
    samples = range(x.shape[0]) if samples is None else samples
    channels = range(x.shape[1]) if channels is None else channels
    u = uniforms(seed, samples, channels, len(windows))

    def formula(values, grid):
        position, clear = draw_position(
            values.astype(accumulate), u[:, :, grid.numbers], grid, distribution, temperature
        )
        drawn = position >= 0
        position = np.where(drawn, position, np.argmax(grid.exist, axis=-1))
        return np.where(drawn, pick(values, position), 0.0), pick_element(grid, position), drawn, clear

    return each_window(x, windows, formula)


def sum_by_element(indices, values, shape):
    """indices: positions in the planes of (N, C, ...), of as many axes as values"""
    size = math.prod(shape[2:])
    first = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * (values.ndim - 2)) * size
    flat = np.bincount((first + indices).ravel(), values.ravel(), minlength=math.prod(shape))
    return flat.astype(np.float64).reshape(shape)


def select_backward(g, indices, shape, drawn=True):
    return sum_by_element(indices, np.where(drawn, g, 0.0), shape)


def spread(contributions, windows, shape):
    """contributions: grid -> (N, C, P, K), what its elements get from each window"""
    gradient = np.zeros(shape)
    for grid in windows.grids:
        given = np.where(grid.exist, contributions(grid), 0.0)
        gradient += sum_by_element(grid.elements, given, shape)
    return gradient


def avg_pool_backward(g, windows, shape, **divisor):
    return spread(lambda grid: (g[:, :, grid.numbers] / divisors_of(grid, **divisor))[..., None], windows, shape)


def mixed_pool_backward(g, x, windows, alpha):
    """-> gradient of x, of an alpha that has the output's shape"""
    largest, indices = max_pool(x, windows)
    gradient = select_backward(alpha * g, indices, x.shape) + avg_pool_backward((1 - alpha) * g, windows, x.shape)
    with np.errstate(invalid="ignore"):
        return gradient, g * (largest - avg_pool(x, windows))


def backward_by(slopes, g, y, x, windows):
    """slopes: (values of taps, y beside taps, grid) -> dy/dx of each; as expectation_pool_backward"""

    def given(grid):
        values = np.where(grid.exist, planes(x).take(grid.elements, axis=2), 0.0)
        at, g_at = y[:, :, grid.numbers, None], g[:, :, grid.numbers, None]
        with np.errstate(all="ignore"):
            counts = np.isfinite(at) & (g_at != 0)  # of an infinite slope, as of roots at 0, no gradient makes 0
            return np.where(counts, g_at * slopes(values, at, grid), 0.0)

    def outside(grid):
        return ~np.isfinite(y[:, :, grid.numbers, None])

    return spread(given, windows, x.shape), spread(outside, windows, x.shape) > 0


def soft_pool_backward(g, x, windows, beta=1.0):
    def slopes(values, y, grid):
        weights, extreme = softmax_of(values, grid.exist, own(beta, grid))
        share = weights / weights.sum(-1, keepdims=True)
        # Half the distance to the extreme, which could overflow; that to y would take the rounding of huge elements.
        beside = np.where(weights > 0, values / 2 - extreme[..., None] / 2, 0.0)
        lever = 2 * own(beta, grid) * (beside - (share * beside).sum(-1, keepdims=True))
        return np.where(weights > 0, share * (1 + lever), 0.0)

    return backward_by(slopes, g, soft_pool(x, windows, beta), x, windows)


def lse_pool_backward(g, x, windows, r=1.0):
    def slopes(values, y, grid):
        weights, _ = softmax_of(values, grid.exist, own(r, grid))
        return weights / weights.sum(-1, keepdims=True)

    return backward_by(slopes, g, lse_pool(x, windows, r), x, windows)


def gem_pool_backward(g, x, windows, p=3.0, eps=1e-6):
    def slopes(values, y, grid):
        power = (np.maximum(values, eps) / y) ** (own(p, grid) - 1)
        return np.where(values < eps, 0.0, power / grid.exist.sum(-1)[:, None])

    return backward_by(slopes, g, gem_pool(x, windows, p, eps), x, windows)


def lp_pool_backward(g, x, windows, norm_type):
    def slopes(values, y, grid):
        power = np.where(y == 0, 0.0, np.power(values / y, np.full(values.shape, norm_type - 1)))
        return power * (grid.sizes / grid.exist.sum(-1))[:, None]

    return backward_by(slopes, g, lp_pool(x, windows, norm_type), x, windows)


def mean_std_pool_backward(gradients, x, windows, correction=0):
    mean, std = mean_std_pool(x, windows, correction)

    def slopes(values, y, grid):
        free = (grid.exist.sum(-1) - correction)[:, None]
        scale = np.where(y > 1, 0.5, 2.0**500)  # so that differences neither overflow nor lose bits
        distances = values * scale - mean[:, :, grid.numbers, None] * scale
        return np.where((y == 0) | (free <= 0), 0.0, distances / (y * scale) / free)

    of_mean = avg_pool_backward(gradients[0], windows, x.shape)
    of_std, outside = backward_by(slopes, gradients[1], std, x, windows)
    return of_mean + of_std, outside


def expectation_pool_backward(g, x, windows, distribution, temperature=1.0):
    """-> gradient with the windows that hold NaN or +inf left out, and the set of elements those windows cover"""
    y = expectation_pool(x, windows, distribution, temperature)

    def slopes(grid):
        values = np.where(grid.exist, planes(x).take(grid.elements, axis=2), -np.inf)
        mean = y[:, :, grid.numbers, None]
        with np.errstate(all="ignore"):
            weights = weights_of(values, distribution, temperature)
            if distribution == "relu":  # beside the largest weight, so that huge ones do not overflow
                largest = weights.max(-1, keepdims=True)
                slope, weights = 2 * (weights / largest) - mean / largest, weights / largest
            else:
                slope = weights * (1 + (values - mean) / temperature)
            slope = np.where(weights > 0, slope / weights.sum(-1, keepdims=True), 0.0)
            return np.where(np.isfinite(mean), g[:, :, grid.numbers, None] * slope, 0.0)

    def outside(grid):
        return ~np.isfinite(y[:, :, grid.numbers, None])

    return spread(slopes, windows, x.shape), spread(outside, windows, x.shape) > 0
