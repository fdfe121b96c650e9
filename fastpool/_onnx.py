"""The operators as compositions of torch's own, which torch.onnx.export can translate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._operators import RESULTS
from ._window_formulas import WINDOW_FORMULAS
from ._windows import BY_LEVEL, MAP, Axis, elements

functional = torch.nn.functional
MAX_POOLS: Sequence[Callable[..., Any]] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
AVG_POOLS: Sequence[Callable[..., Tensor]] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
CONVOLUTIONS: Sequence[Callable[..., Tensor]] = (functional.conv1d, functional.conv2d, functional.conv3d)
Axes = Sequence[Axis]
Pool = Callable[..., Sequence[Tensor]]


def _composition(name: str) -> Callable[..., Any]:
    results = RESULTS[name]
    pool: Pool = POOLS.get(name, _formula)

    def composition(
        inputs: list[Tensor], own: Any, numbers: Any, integers: Any, window: Any, order: int, saves: int
    ) -> Any:
        rank = inputs[0].dim() - 2
        axes = [Axis(*window[i : i + 6]) for i in range(0, len(window), 6)]
        levels = [axes[i : i + rank] for i in range(0, len(axes), rank)]
        each = len(levels) // len(inputs)
        rows = [
            [pool(name, x, level, own, numbers, integers) for level in levels[i * each : (i + 1) * each]]
            for i, x in enumerate(inputs)
        ]
        if order == MAP:
            outputs = rows[0][0]
        else:
            outputs = [torch.cat([_flat([torch.cat([*maps], 1) for maps in row], order) for row in rows])]
        found = dict(zip([result for result in results if result in ("output", "second")], outputs))
        if pool is _selection and saves and order == MAP:
            found["taps"] = _indices(inputs[0] if name == "max_pool" else -inputs[0], levels[0])
        # What only a backward pass reads is left out.
        everything = tuple([found.get(result, inputs[0].new_empty(0)) for result in results])
        return everything if len(everything) > 1 else everything[0]

    return composition


def _flat(levels: Sequence[Tensor], order: int) -> Tensor:
    if order == BY_LEVEL:
        return torch.cat([level.flatten(1) for level in levels], 1)
    return torch.cat([level.flatten(2) for level in levels], 2).flatten(1)


def _selection(name: str, x: Tensor, axes: Axes, *_: Any) -> tuple[Tensor]:
    return (_extreme(x, axes) if name == "max_pool" else -_extreme(-x, axes),)


def _avg(name: str, x: Tensor, axes: Axes, own: Any, numbers: Any, integers: Sequence[int]) -> tuple[Tensor]:
    return (_mean(_wide(x), axes, *integers).to(x.dtype),)


def _max_avg(name: str, x: Tensor, axes: Axes, *_: Any) -> tuple[Tensor, Tensor]:
    return _extreme(x, axes), _mean(_wide(x), axes).to(x.dtype)


def _mixed(name: str, x: Tensor, axes: Axes, alpha: Tensor | None, numbers: Any, _: Any) -> tuple[Tensor]:
    wide = _wide(x)
    share: Any = numbers[-1] if alpha is None else alpha.to(wide.dtype)
    if alpha is not None and alpha.dim() == 1:
        share = share.reshape(-1, *[1] * len(axes))
    return ((share * _extreme(wide, axes) + (1 - share) * _mean(wide, axes)).to(x.dtype),)


def _formula(name: str, x: Tensor, axes: Axes, own: Tensor | None, numbers: Any, _: Any) -> list[Tensor]:
    values, exist, _ = _windows_of(_wide(x), axes)
    parameter = None if own is None else own.to(values.dtype).reshape(1, -1, 1)
    results = WINDOW_FORMULAS[name](values, exist, parameter, numbers)
    return [_as_map(y, x, axes).to(x.dtype) for y in results]


def _drawn(*_: Any) -> Any:
    raise RuntimeError(
        "stochastic pooling in training mode draws with a generator that ONNX does not have; call .eval() on the model "
        "before the export, or give the function training=False, for the expectation"
    )


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _extreme(x: Tensor, axes: Axes) -> Tensor:
    if x.dtype == torch.bfloat16:  # which MaxPool takes since opset 22
        return _extreme(x.float(), axes).bfloat16()
    if _everything(axes):
        return x.amax([*range(2, x.dim())], keepdim=True)
    sliding = _sliding(x, axes)
    if sliding is None:
        values, exist, _ = _windows_of(x, axes)
        return _as_map(values.where(exist, -torch.inf).amax(-1), x, axes)
    kernel, stride, padding, dilation = sliding
    if padding is None:
        x, padding = functional.pad(x, _sides(x, axes), value=-torch.inf), [0] * len(axes)
    largest: Tensor = MAX_POOLS[len(axes) - 1](x, kernel, stride, padding, dilation)
    return largest


def _indices(x: Tensor, axes: Axes) -> Tensor:
    """Where the largest elements lie in the plane."""
    wide = _wide(x)
    sliding = _sliding(x, axes)
    if sliding is not None and sliding[2] is not None:
        _, indices = MAX_POOLS[len(axes) - 1](wide, *sliding, return_indices=True)
    else:
        values, exist, positions = _windows_of(wide, axes)
        windows, taps = positions.shape
        tap = values.where(exist, -torch.inf).argmax(-1) + torch.arange(windows, device=x.device) * taps
        indices = positions.flatten().index_select(0, tap.flatten())
    return _as_map(indices, x, axes)


def _mean(x: Tensor, axes: Axes, count_include_pad: int = 0, divisor: int = 0) -> Tensor:
    if _everything(axes) and not divisor:
        return x.mean([*range(2, x.dim())], keepdim=True)
    sliding = _sliding(x, axes)
    # AveragePool has dilation since opset 19, and ONNX Runtime none for float64.
    if sliding is None or x.dtype == torch.float64 or any(axis.dilation > 1 for axis in axes):
        values, exist, _ = _windows_of(x, axes)
        return _as_map(values.where(exist, 0).sum(-1), x, axes) / (divisor or _counts(x, axes, count_include_pad))
    kernel, stride, padding, _ = sliding
    average = AVG_POOLS[len(axes) - 1]
    if padding is not None and not divisor:
        return average(x, kernel, stride, padding, False, bool(count_include_pad))
    share = math.prod(kernel) / (divisor or _counts(x, axes, count_include_pad))
    return average(functional.pad(x, _sides(x, axes)), kernel, stride) * share


def _counts(x: Tensor, axes: Axes, count_include_pad: int) -> Tensor:
    """The divisors of averages, (*output)"""
    counts = torch.ones((), dtype=x.dtype, device=x.device)
    for n, axis in zip(x.shape[2:], axes):
        if count_include_pad:
            n, axis = axis.before + n + axis.after, axis._replace(before=0)
        _, exist = elements(axis, [n], x.device)
        counts = counts[..., None] * exist.sum(-1)
    return counts


def _everything(axes: Axes) -> bool:
    return all(_always(axis.kernel == 0) and _always(axis.output == 1) for axis in axes)


def _sliding(x: Tensor, axes: Axes) -> tuple[list[int], list[int], list[int] | None, list[int]] | None:
    """Kernel, stride, padding and dilation of torch's poolings; padding is None where it must be put around x before.

    None for windows of different sizes, or of one that is not known.
    """
    found = []
    for n, (output, kernel, stride, before, after, dilation) in zip(x.shape[2:], axes):
        if _always(kernel == 0):
            if not _always(n % output == 0):
                return None
            kernel = stride = n // output
        k, s, left, right = map(_number, (kernel, stride, before, after))
        if k is None or s is None:
            return None
        usual = left is not None and left == right and 2 * left <= k
        usual = usual and _always(output == (n + 2 * before - dilation * (k - 1) - 1) // s + 1)
        found.append((k, s, left if usual else None, dilation))
    kernels, strides, paddings, dilations = [[*each] for each in zip(*found)]
    return kernels, strides, None if None in paddings else paddings, dilations


def _number(n: Any) -> int | None:
    """None where it depends on the input's size"""
    number: int | None = n if isinstance(n, int) else n.node.maybe_as_int()
    return number


def _always(condition: Any) -> bool:
    """Whether it holds for every size of the input"""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def _sides(x: Tensor, axes: Axes) -> list[int]:
    """What torch's pad takes, so that the windows fill the input: negative where its end is not used."""
    sides = []
    for n, (output, kernel, stride, before, _, dilation) in zip(x.shape[2:], axes):
        sides += [(output - 1) * stride + dilation * (kernel - 1) + 1 - n - before, before]
    return sides[::-1]


def _windows_of(x: Tensor, axes: Axes) -> tuple[Tensor, Tensor, Tensor]:
    """-> (N, C, windows, taps); which taps exist; where they lie in the plane, (windows, taps)"""
    spatial = x.shape[2:]
    if _everything(axes):
        n = math.prod(spatial)
        exist = torch.ones(1, 1, dtype=torch.bool, device=x.device)
        return x.reshape(*x.shape[:2], 1, n), exist, torch.arange(n, device=x.device)[None]
    positions, exist = elements([number for axis in axes for number in axis], spatial, x.device)
    values = x.flatten(2).index_select(2, positions.flatten())
    return values.reshape(*x.shape[:2], *positions.shape), exist, positions


def _as_map(y: Tensor, x: Tensor, axes: Axes) -> Tensor:
    return y.reshape(*x.shape[:2], *[axis.output for axis in axes])


def _correlate(x: Tensor, filters: Tensor, window: Any) -> Tensor:
    """By one convolution"""
    axes = [Axis(*window[i : i + 6]) for i in range(0, len(window), 6)]
    count, channels, kernel = filters.shape[0], x.shape[1], window[1::6]
    taps = math.prod(kernel)
    weights = filters[:, :, :taps].expand(-1, channels, -1).transpose(0, 1).reshape(channels * count, 1, *kernel)
    strides, dilations = [axis.stride for axis in axes], [axis.dilation for axis in axes]
    padded = functional.pad(_wide(x), _sides(x, axes))
    y = CONVOLUTIONS[len(axes) - 1](padded, weights, None, strides, 0, dilations, channels)
    y = y.reshape(x.shape[0], channels, count, *y.shape[2:]).movedim(2, 0)
    if filters.shape[2] > taps:
        y = y + filters[:, :, taps].reshape(count, 1, -1, *[1] * len(axes))
    return y.flatten(0, 1)


POOLS: dict[str, Pool] = {
    "max_pool": _selection,
    "min_pool": _selection,
    "avg_pool": _avg,
    "max_avg_pool": _max_avg,
    "mixed_pool": _mixed,
    "stochastic_relu_pool": _drawn,
    "stochastic_softmax_pool": _drawn,
}
COMPOSITIONS: dict[str, Callable[..., Any]] = {name: _composition(name) for name in RESULTS}
# In compositions indices stand for taps.
COMPOSITIONS |= {"correlate": _correlate, "logistic": torch.sigmoid}
COMPOSITIONS["tap_indices"] = lambda taps, size, window: taps
