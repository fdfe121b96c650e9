"""What fastpool computes, in NumPy, written from the formulas and sharing no code with the library.

Poolings take x of shape (N, C, *spatial) and a list of windows and give (N, C, P), P windows in row-major order.
Sliding, adaptive, floor and global pooling differ only in that list; a pyramid is the concatenation of its levels'.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np

MANY_TAPS = 256
CLASSES = 32


@dataclass(frozen=True, eq=False)
class Window:
    """The input elements that one output sees, in row-major order."""

    elements: np.ndarray  # row-major positions in the input plane
    taps: np.ndarray  # row-major positions of the same elements in the unclipped window
    size: int  # number of taps, clipped ones included
    padded_count: int  # the divisor of count_include_pad


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
    """axes: for each axis its windows, each (positions, taps, unclipped extent, padded count)."""
    windows = []
    for parts in itertools.product(*axes):
        positions, taps, extents, counts = zip(*parts, strict=True)
        windows.append(
            Window(
                elements=np.ravel_multi_index(np.ix_(*positions), size).ravel(),
                taps=np.ravel_multi_index(np.ix_(*taps), extents).ravel(),
                size=int(np.prod(extents)),
                padded_count=int(np.prod(counts)),
            )
        )
    return tuple(len(axis) for axis in axes), tuple(windows)


@cache
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
        axis = []
        for out in range(output_length(n, k, s, before, after, d, ceil_mode)):
            where = [out * s - before + tap * d for tap in range(k)]
            taps = [tap for tap in range(k) if 0 <= where[tap] < n]
            axis.append(([where[tap] for tap in taps], taps, k, sum(p < n + after for p in where)))
        if not axis or not all(positions for positions, *_ in axis):
            return None
        axes.append(axis)
    return product_of_axes(size, axes)


@cache
def bin_windows(size, output_size, bins="adaptive"):
    axes = []
    for n, bins_here in zip(size, per_axis(output_size, len(size)), strict=True):
        count = n if bins_here is None else bins_here
        axis = []
        for i in range(count):
            if bins == "adaptive":
                start, stop = i * n // count, -(-(i + 1) * n // count)
            else:
                start, stop = i * (n // count), (i + 1) * (n // count)
            axis.append((list(range(start, stop)), list(range(stop - start)), stop - start, stop - start))
        axes.append(axis)
    return product_of_axes(size, axes)


@cache
def pyramid_windows(size, levels, bins="adaptive"):
    """-> (number of bins of each level, the windows of all levels)"""
    parts = [bin_windows(size, level, bins)[1] for level in levels]
    return [len(part) for part in parts], sum(parts, ())


def flatten_pyramid(y, counts, flatten):
    """y: (N, C, B) -> what flatten="level", "channel" or None returns"""
    if flatten is None:
        return y
    levels = [y] if flatten == "channel" else np.split(y, np.cumsum(counts)[:-1], axis=2)
    return np.concatenate([level.reshape(len(y), math.prod(level.shape[1:])) for level in levels], axis=1)


def planes(x):
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


@cache
def alike(windows):
    """Windows that hold the same taps are computed together -> [(their numbers, their elements (Q, k), one of them)]"""
    groups = {}
    for p, window in enumerate(windows):
        groups.setdefault((window.taps.tobytes(), window.size, window.padded_count), []).append(p)
    return [
        (numbers, np.stack([windows[p].elements for p in numbers]), windows[numbers[0]]) for numbers in groups.values()
    ]


def each_window(x, windows, formula):
    """formula: (values (N, C, Q, k), elements (Q, k), window, numbers) -> (N, C, Q) arrays; -> (N, C, P) arrays"""
    x, results = planes(x), None
    for numbers, elements, window in alike(windows):
        with np.errstate(all="ignore"):
            columns = formula(x[:, :, elements], elements, window, numbers)
        results = results or [np.empty((*x.shape[:2], len(windows)), column.dtype) for column in columns]
        for result, column in zip(results, columns, strict=True):
            result[:, :, numbers] = column
    return tuple(results)


def pick(values, position):
    values = np.broadcast_to(values, (*position.shape, values.shape[-1]))
    return np.take_along_axis(values, position[..., None], axis=-1)[..., 0]


def max_position(values):
    """First of equal maxima; NaN wins, of several NaNs the last."""
    nan = np.isnan(values)
    last_nan = values.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1)
    return np.where(nan.any(-1), last_nan, np.argmax(values, axis=-1))


def max_pool(x, windows):
    """-> values, indices"""

    def formula(values, elements, window, numbers):
        position = max_position(values)
        return pick(values, position), pick(elements, position)

    return each_window(x, windows, formula)


def row_major_sum(values, accumulate=np.float64):
    return np.cumsum(values, axis=-1, dtype=accumulate)[..., -1] + accumulate(0)  # a sum starts at +0.0


def divisor_of(window, count_include_pad=False, divisor_override=None):
    if divisor_override is not None:
        return divisor_override
    return window.padded_count if count_include_pad else len(window.elements)


def avg_pool(x, windows, accumulate=np.float64, **divisor):
    def formula(values, elements, window, numbers):
        return (row_major_sum(values, accumulate) / accumulate(divisor_of(window, **divisor)),)

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
    def formula(values, elements, window, numbers):
        weights = weights_of(values, distribution, temperature)
        weights = weights / weights.max(-1, keepdims=True)  # a common factor cancels; huge sums do not overflow
        weights = weights / weights.sum(-1, keepdims=True)
        y = np.where(weights > 0, weights * values, 0).sum(-1)
        nothing = values.max(-1) <= 0 if distribution == "relu" else values.max(-1) == -np.inf
        y = np.where(nothing, 0.0 if distribution == "relu" else -np.inf, y)
        y = np.where((values == np.inf).any(-1), np.inf, y)
        return (np.where(np.isnan(values).any(-1), np.nan, y),)

    return each_window(x, windows, formula)[0]


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


def running_sums(weights, window):
    """-> sums in visiting order, total, the order in which the sums are searched"""
    if window.size <= MANY_TAPS:
        running = np.cumsum(weights, axis=-1, dtype=weights.dtype)
        return running, running[..., -1], np.arange(weights.shape[-1])
    running, total = np.empty_like(weights), np.zeros(weights.shape[:-1], weights.dtype)
    for r in range(CLASSES):
        members = window.taps % CLASSES == r
        if members.any():
            inside = np.cumsum(weights[..., members], axis=-1, dtype=weights.dtype)
            running[..., members] = total[..., None] + inside
            total = total + inside[..., -1]
    return running, total, np.argsort(window.taps % CLASSES, kind="stable")


def draw_position(values, u, window, distribution, temperature):
    """-> position in the window (-1 for none), whether rounding of the weights cannot have changed it"""
    weights = weights_of(values, distribution, temperature)
    running, total, order = running_sums(weights, window)
    threshold = u.astype(values.dtype) * total
    exceeds = (running > threshold[..., None])[..., order]
    positive = weights > 0
    last_positive = values.shape[-1] - 1 - np.argmax(positive[..., ::-1], axis=-1)
    position = np.where(exceeds.any(-1), order[np.argmax(exceeds, axis=-1)], last_positive)
    # Only weights of soft-max are rounded.
    clear = (np.abs(running - threshold[..., None]) > 1e-5 * total[..., None]).all(-1) | (distribution == "relu")
    nothing = ~positive.any(-1)
    position = np.where(nothing, -1 if distribution == "relu" else 0, position)
    infinite = values == np.inf
    position = np.where(infinite.any(-1), np.argmax(infinite, axis=-1), position)
    nan = np.isnan(values).any(-1)
    position = np.where(nan, max_position(values), position)
    return position, clear | infinite.any(-1) | nan | nothing


def stochastic_pool(
    x, windows, seed, distribution, temperature=1.0, samples=None, channels=None, accumulate=np.float32
):
    """-> values, indices, whether an element was drawn, whether the draw is clear of rounding"""
    samples = range(x.shape[0]) if samples is None else samples
    channels = range(x.shape[1]) if channels is None else channels
    u = uniforms(seed, samples, channels, len(windows))

    def formula(values, elements, window, numbers):
        position, clear = draw_position(values.astype(accumulate), u[:, :, numbers], window, distribution, temperature)
        drawn = position >= 0
        position = np.maximum(position, 0)
        return np.where(drawn, pick(values, position), 0.0), pick(elements, position), drawn, clear

    return each_window(x, windows, formula)


def select_backward(g, indices, shape, drawn=True):
    gradient = planes(np.zeros(shape))
    n, c, _ = np.ogrid[: shape[0], : shape[1], :1]
    np.add.at(gradient, (n, c, indices), np.where(drawn, g, 0.0))
    return gradient.reshape(shape)


def spread(contributions, windows, shape):
    """contributions: (numbers, elements, window) -> (N, C, Q, k), what its elements get from each window"""
    gradient = planes(np.zeros(shape))
    for numbers, elements, window in alike(windows):
        np.add.at(gradient, (slice(None), slice(None), elements), contributions(numbers, elements, window))
    return gradient.reshape(shape)


def avg_pool_backward(g, windows, shape, **divisor):
    return spread(
        lambda numbers, elements, window: g[:, :, numbers, None] / divisor_of(window, **divisor), windows, shape
    )


def mixed_pool_backward(g, x, windows, alpha):
    """-> gradient of x, of an alpha that has the output's shape"""
    largest, indices = max_pool(x, windows)
    gradient = select_backward(alpha * g, indices, x.shape) + avg_pool_backward((1 - alpha) * g, windows, x.shape)
    with np.errstate(invalid="ignore"):
        return gradient, g * (largest - avg_pool(x, windows))


def expectation_pool_backward(g, x, windows, distribution, temperature=1.0):
    """-> gradient with the windows that hold NaN or +inf left out, and the set of elements those windows cover"""
    y = expectation_pool(x, windows, distribution, temperature)

    def slopes(numbers, elements, window):
        values, mean = planes(x)[:, :, elements], y[:, :, numbers, None]
        with np.errstate(all="ignore"):
            weights = weights_of(values, distribution, temperature)
            slope = 2 * values - mean if distribution == "relu" else weights * (1 + (values - mean) / temperature)
            slope = np.where(weights > 0, slope / weights.sum(-1, keepdims=True), 0.0)
            return np.where(np.isfinite(mean), g[:, :, numbers, None] * slope, 0.0)

    def outside(numbers, elements, window):
        return ~np.isfinite(y[:, :, numbers, None])

    return spread(slopes, windows, x.shape), spread(outside, windows, x.shape) > 0
