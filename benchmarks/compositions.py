"""The rivals written with torch's own operations. Each builder takes a layer and returns a function of the tensor, or
None where it does not apply; where several can win, the table lists them all and the fastest counts."""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate, product

import torch
import torch.nn.functional as F

from .layers import Layer, bins


def torch_pool(kind: str, layer: Layer, **options):
    """torch.nn.functional's own max or avg pooling over the layer's windows."""
    if layer.windowing == "sliding":
        return partial(getattr(F, f"{kind}_pool{layer.rank}d"), **layer.arguments, **options)
    pool = getattr(F, f"adaptive_{kind}_pool{layer.rank}d")
    if layer.windowing == "pyramid":
        return lambda x: torch.cat([pool(x, level).flatten(1) for level in layer.levels], 1)
    return partial(pool, output_size=layer.levels[0], **options)


def maximum(layer):
    return torch_pool("max", layer)


def average(layer):
    return torch_pool("avg", layer)


def along_axes(kind: str, rank: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool = False):
    """Maxima or averages along the last axis, then those of these along the one before it, and so on."""
    pool = getattr(F, f"{kind}_pool{rank}d")

    def steps(x):
        for axis in reversed(range(rank)):
            sizes = {
                name: [value if i == axis else default for i in range(rank)]
                for name, value, default in (
                    ("kernel_size", kernel_size, 1),
                    ("stride", stride, 1),
                    ("padding", padding, 0),
                )
            }
            x = pool(x, **sizes, ceil_mode=ceil_mode)
        return x

    return steps


def pool_along_axes(kind: str, layer):
    """Sooner where windows overlap."""
    if layer.windowing != "sliding" or layer.rank == 1 or layer.arguments["kernel_size"] <= layer.arguments["stride"]:
        return None
    return along_axes(kind, layer.rank, **layer.arguments)


def maximum_along_axes(layer):
    return pool_along_axes("max", layer)


def average_along_axes(layer):
    return pool_along_axes("avg", layer)


def sppf(layer):
    kernel_size = layer.arguments["kernel_size"]
    return repeated(layer, lambda x: F.max_pool2d(x, kernel_size, 1, kernel_size // 2))


def sppf_along_axes(layer):
    kernel_size = layer.arguments["kernel_size"]
    return repeated(layer, along_axes("max", 2, kernel_size, 1, kernel_size // 2))


def repeated(layer, pool):
    def steps(x):
        maps = [x]
        for _ in range(layer.arguments["repeats"]):
            maps.append(pool(maps[-1]))
        return torch.cat(maps, 1)

    return steps


def reduction(name: str):
    """A global pooling as a plain reduction."""

    def build(layer):
        if layer.windowing != "global":
            return None
        return partial(getattr(torch, name), dim=tuple(range(2, 2 + layer.rank)), keepdim=True)

    return build


def valid_average(layer):
    padded = layer.windowing == "sliding"
    return torch_pool("avg", layer, **({"count_include_pad": False} if padded else {}))


def maximum_with_indices(layer):
    return torch_pool("max", layer, return_indices=True)


def maximum_and_average(layer):
    maximum_of, average_of = maximum(layer), valid_average(layer)
    if layer.windowing != "pyramid":
        return lambda x: (maximum_of(x), average_of(x))
    pools = [getattr(F, f"adaptive_{kind}_pool{layer.rank}d") for kind in ("max", "avg")]
    return lambda x: torch.cat([pool(x, level).flatten(1) for level in layer.levels for pool in pools], 1)


def mixed(alpha: float):
    """a*max + (1-a)*avg; lerp is that in one pass."""

    def build(layer):
        maximum_of, average_of = maximum(layer), valid_average(layer)
        return lambda x: torch.lerp(average_of(x), maximum_of(x), alpha)

    return build


def mixed_per_channel(layer):
    maximum_of, average_of = maximum(layer), valid_average(layer)
    shape = (-1,) + (1,) * layer.rank
    return lambda x, alpha: torch.lerp(average_of(x), maximum_of(x), alpha.view(shape))


def differentiated(build):
    """The gradient of half the sum of squares as a function of x: its backward is the pooling's double backward."""

    def build_gradient(layer):
        pool = build(layer)

        def gradient(x):
            y = pool(x)
            return torch.autograd.grad(y, x, y, create_graph=True)[0]

        return gradient

    return build_gradient


def expectation_relu(layer):
    average_of = average(layer)

    def expectation(x):
        weights = x.relu()
        # A window without a positive element has a zero numerator as well.
        total = average_of(weights).clamp_min(torch.finfo(x.dtype).tiny)
        return average_of(weights * weights) / total

    return expectation


def expectation_softmax(layer):
    average_of = average(layer)

    def expectation(x):
        weights = x.exp()
        return average_of(x * weights) / average_of(weights)

    return expectation


def minimum(layer, maximum=maximum):
    maximum_of = maximum(layer)
    return maximum_of and (lambda x: -maximum_of(-x))


def minimum_along_axes(layer):
    return minimum(layer, maximum_along_axes)


def log_mean_exp(layer):
    average_of = valid_average(layer)
    return lambda x: average_of(x.exp()).log()


def generalised_mean(layer):
    average_of = valid_average(layer)
    return lambda x: average_of(x.clamp_min(1e-6).pow(3)).pow(1 / 3)


def power_mean(p: float):
    def build(layer):
        sizes = {name: layer.arguments[name] for name in ("kernel_size", "stride")}
        return partial(getattr(F, f"lp_pool{layer.rank}d"), norm_type=p, **sizes)

    return build


def mean_and_std(layer):
    average_of = valid_average(layer)

    def both(x):
        mean = average_of(x)
        return mean, (average_of(x * x) - mean * mean).clamp_min(0).sqrt()

    return both


def padded(x, layer, fill):
    """x with the layer's padding, and on the right whatever the last window of ceil_mode needs."""
    kernel_size, stride, padding = (layer.arguments[name] for name in ("kernel_size", "stride", "padding"))
    sides = []
    for n, size in zip(reversed(layer.shape[2:]), reversed(layer.output_size), strict=True):
        sides += [padding, max((size - 1) * stride + kernel_size - n - padding, 0)]
    return F.pad(x, sides, value=fill) if any(sides) else x


def tap_slices(x, layer, fill):
    """The padded plane, each tap of all windows as a strided slice of it, and the offsets of the taps in it."""
    x = padded(x, layer, fill)
    stride = layer.arguments["stride"]
    spatial = x.shape[2:]
    slices, offsets = [], []
    for tap in product(range(layer.arguments["kernel_size"]), repeat=layer.rank):
        spans = [slice(t, t + (size - 1) * stride + 1, stride) for t, size in zip(tap, layer.output_size, strict=True)]
        slices.append(x[(slice(None), slice(None), *spans)])
        offsets.append(sum(t * math.prod(spatial[axis + 1 :]) for axis, t in enumerate(tap)))
    return x, slices, offsets


def bin_windows(x, layer, level):
    """The bins of one level, each flattened to (N, C, elements)."""
    axes = [bins(level, n) for n in layer.shape[2:]]
    for bounds in product(*axes):
        yield x[(slice(None), slice(None), *(slice(a, b) for a, b in bounds))].flatten(2)


def draw(weights, values):
    """One element along the last axis, drawn in proportion to the weights."""
    with torch.no_grad():
        running = weights.cumsum(-1)
        threshold = torch.rand_like(running[..., :1]) * running[..., -1:]
        tap = torch.searchsorted(running, threshold, right=True).clamp_(max=running.shape[-1] - 1)
    return values.gather(-1, tap).squeeze(-1)


def weights_of(distribution: str, x):
    """(weights, values) of the draw; exp without its maximum is the cheaper composition and enough for these inputs."""
    x = x.relu() if distribution == "relu" else x
    return (x if distribution == "relu" else x.exp()), x


def stochastic_unfold(distribution: str):
    """unfold, cumsum, rand, gather; bins are cut out one by one."""

    def build(layer):
        def sliding(x):
            x = padded(x, layer, 0.0 if distribution == "relu" else -math.inf)
            for axis in range(2, 2 + layer.rank):
                x = x.unfold(axis, layer.arguments["kernel_size"], layer.arguments["stride"])
            return draw(*weights_of(distribution, x.flatten(-layer.rank)))

        def binned(x):
            weights, values = weights_of(distribution, x)
            levels = []
            for level in layer.levels:
                cut = [bin_windows(tensor, layer, level) for tensor in (weights, values)]
                levels.append(torch.stack([draw(*pair) for pair in zip(*cut, strict=True)], -1))
            if layer.windowing == "pyramid":
                return torch.cat([level.flatten(1) for level in levels], 1)
            return levels[0].unflatten(-1, (layer.levels[0],) * layer.rank)

        return sliding if layer.windowing == "sliding" else binned

    return build


def stochastic_slices(distribution: str):
    """Running sums over strided slices: no buffer of K times the input."""

    def build(layer):
        if layer.windowing != "sliding":
            return None
        stride = layer.arguments["stride"]

        def sample(x):
            fill = 0.0 if distribution == "relu" else -math.inf
            plane, values, offsets = tap_slices(x.relu() if distribution == "relu" else x, layer, fill)
            with torch.no_grad():
                weights = values if distribution == "relu" else [value.exp() for value in values]
                running = list(accumulate(weights, torch.add))
                threshold = torch.rand_like(running[-1]) * running[-1]
            if not torch.is_grad_enabled():
                drawn = values[-1]
                for value, total in zip(values[-2::-1], running[-2::-1], strict=True):
                    drawn = torch.where(total > threshold, value, drawn)
                return drawn
            # With a gradient one gather is cheaper than the backward of every slice.
            index = torch.zeros((), dtype=torch.int64, device=x.device)
            for axis, size in enumerate(layer.output_size):
                step = stride * math.prod(plane.shape[3 + axis :])
                starts = torch.arange(0, size * step, step, device=x.device)
                index = index + starts.view((-1,) + (1,) * (layer.rank - 1 - axis))
            offset = torch.where(running[0] > threshold, offsets[0], offsets[1])
            for total, following in zip(running[1:-1], offsets[2:], strict=True):
                offset = torch.where(total > threshold, offset, following)
            index = index + offset
            return plane.flatten(2).gather(2, index.flatten(2)).view(index.shape)

        return sample

    return build
