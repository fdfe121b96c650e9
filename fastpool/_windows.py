"""Where the windows lie: the one place that computes output sizes, for eager calls and symbolic sizes alike."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.utils._pytree import tree_map_only

from ._arguments import exact, padding_sides, per_axis, per_axis_words
from ._checks import check_flag, check_input, check_inputs, choice

Size = int | Sequence[int]
Padding = int | Sequence[int | Sequence[int]] | Literal["same"]
OutputSize = int | Sequence[int | None]
Levels = Sequence[int | Sequence[int]]
Bins = Literal["adaptive", "floor"]
Flatten = Literal["level", "channel", None]

# Results of an operator: a map, or a pyramid ordered level by level or channel by channel.
MAP, BY_LEVEL, BY_CHANNEL = -1, 0, 1
MOST_ELEMENTS, MOST_EXTENT = 2**60, 2**40  # what kernels count
BINS = {"adaptive": False, "floor": True}  # whether a remainder is dropped
FLATTEN = {"level": BY_LEVEL, "channel": BY_CHANNEL, None: BY_CHANNEL}


class Geometry(NamedTuple):
    """The windows over an input, as an operator takes them, and the shapes on either side of it."""

    window: tuple[int, ...]  # for each input, level and axis: output, kernel, stride, before, after, dilation
    order: int
    spatial: Sequence[int]  # of the input, or of the first in a list
    lead: int  # axes of the input in front of the spatial ones: 2, or 1 without a batch axis
    channels: int
    tap_bytes: int
    draw_bytes: int  # as tap_bytes, with one more state for "nothing drawn"
    entry: tuple[int, ...] | None  # the shape that the operator is given, None for the input's own
    result: tuple[int, ...]
    reshape: bool  # whether the operator's result must be brought to `result`
    fixed: bool  # whether `window` is right for inputs of this size only
    traced: bool = False  # by torch.jit.trace

    def halves(self) -> bool:
        """Whether these are windows of two elements along every axis, side by side and inside the input."""
        axes = [Axis(*self.window[i : i + 6]) for i in range(0, len(self.window), 6)]
        return self.order == MAP and all(
            axis[1:] == (2, 2, 0, 0, 1) and 2 * axis.output <= n for axis, n in zip(axes, self.spatial, strict=True)
        )


class Axis(NamedTuple):
    output: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int


def sliding(
    rank: int, input: Tensor, kernel_size: Size, stride: Any, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    check_input(input)
    check_flag("ceil_mode", ceil_mode)
    return _sliding(
        rank,
        input.shape,
        kernel_size if type(kernel_size) is int else exact("kernel_size", kernel_size),
        stride if stride is None or type(stride) is int else exact("stride", stride),
        padding if type(padding) is int else exact("padding", padding),
        dilation if type(dilation) is int else exact("dilation", dilation),
        ceil_mode,
    )


def check_sliding(rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> None:
    """What must hold over any input, for modules, which have none yet."""
    check_flag("ceil_mode", ceil_mode)
    kernels, strides = exact("kernel_size", kernel_size), stride if stride is None else exact("stride", stride)
    _sliding_axes(rank, kernels, strides, exact("padding", padding), exact("dilation", dilation), ceil_mode)


def sliding_within(
    rank: int, input: Tensor, kernel_size: Size, stride: Any, padding: Padding, dilation: Size, ceil_mode: bool
) -> Geometry:
    """For avg_pool3d, where torch alone refuses a kernel larger than the input, whatever the padding."""
    geometry = sliding(rank, input, kernel_size, stride, padding, dilation, ceil_mode)
    if padding != "same" and any(k > n for k, n in zip(geometry.window[1::6], geometry.spatial)):
        raise ValueError(f"kernel_size must not exceed the input's size {tuple(geometry.spatial)}, got {kernel_size}")
    return geometry


def adaptive(rank: int, input: Tensor, output_size: OutputSize) -> Geometry:
    check_input(input)
    return _adaptive(rank, input.shape, exact("output_size", output_size, none=True))


def check_adaptive(rank: int, output_size: Any) -> None:
    """What must hold over any input."""
    _adaptive_axes([1] * rank, exact("output_size", output_size, none=True))


def whole(input: Tensor, keepdim: bool) -> tuple[Tensor | list[Tensor], Geometry]:
    """One window over everything, or over each tensor of a nested one, which a pyramid of one bin has."""
    check_flag("keepdim", keepdim)
    if isinstance(input, Tensor) and input.is_nested:
        rank = input.dim() - 2
        if not 1 <= rank <= 3:
            raise ValueError(f"a nested input must hold (C, *spatial) with one to three spatial axes, got {rank}")
        inputs = nested_inputs(input)
        geometry = pyramid(rank, inputs, (1,), "adaptive", "level", 1)
        batch = (len(inputs), geometry.channels)
        return inputs, geometry._replace(result=(*batch, *[1] * rank) if keepdim else batch, reshape=keepdim)
    check_input(input)
    return input, _whole(input.shape, keepdim)


def nested_inputs(input: Tensor) -> list[Tensor]:
    """The (C, *spatial) of a nested tensor, strided or jagged."""
    if input.layout is torch.jagged and isinstance(input.shape[1], torch.SymInt):
        raise ValueError(
            f"input must be ragged along a spatial axis, got the nested shape {tuple(input.shape)}, "
            "which is ragged along the channels; transpose(1, 2) may be what is wanted"
        )
    return [*input.unbind()]


def pyramid(
    rank: int, input: Tensor | Sequence[Tensor], levels: Levels, bins: Bins, flatten: Flatten, maps: int
) -> Geometry:
    """`maps` results per channel; a list of inputs makes one row each."""
    sizes, floor, order = _pyramid_arguments(levels, bins, flatten)
    if isinstance(input, (list, tuple)):
        check_inputs(rank, input)
        return _pyramid(rank, tuple([x.shape for x in input]), True, sizes, floor, order, flatten is not None, maps)
    check_input(input)
    assert isinstance(input, Tensor)
    return _pyramid(rank, (input.shape,), False, sizes, floor, order, flatten is not None, maps)


def check_pyramid(rank: int, levels: Levels, bins: Bins, flatten: Flatten) -> None:
    """What must hold over any input."""
    _level_sizes(rank, _pyramid_arguments(levels, bins, flatten)[0])


def _pyramid_arguments(levels: Any, bins: Bins, flatten: Flatten) -> tuple[tuple[Any, ...], bool, int]:
    sizes = exact("levels", levels)
    if not isinstance(sizes, tuple):
        raise TypeError(f"levels must be a sequence of ints or per-axis tuples, got {levels!r}")
    return sizes, choice("bins", bins, BINS), choice("flatten", flatten, FLATTEN)


def bins_of_levels(window: Sequence[int], rank: int, inputs: int) -> list[int]:
    """The number of bins of each level, which all inputs share."""
    outputs = window[: len(window) // inputs : 6]
    return [math.prod(outputs[i : i + rank]) for i in range(0, len(outputs), rank)]


def elements(window: Sequence[int], spatial: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the windows of one level, (windows, taps): the row-major positions of their elements, and which there are."""
    positions = torch.zeros(1, 1, dtype=torch.int64, device=device)
    exist = torch.ones(1, 1, dtype=torch.bool, device=device)
    for a, n in enumerate(spatial):
        output, kernel, stride, before, _, dilation = window[6 * a : 6 * a + 6]
        o = torch.arange(output, device=device)[:, None]
        start, stop = (o * stride - before, n) if kernel else (o * n // output, ((o + 1) * n + output - 1) // output)
        at = start + dilation * torch.arange(kernel or _largest_bin(n, output), device=device)
        inside = (at >= 0) & (at < stop)
        shape = (positions.shape[0] * output, -1)
        positions = (positions[:, None, :, None] * n + at.where(inside, 0)[None, :, None, :]).reshape(shape)
        exist = (exist[:, None, :, None] & inside[None, :, None, :]).reshape(shape)
    return positions, exist


def _remembered(rule: Callable[..., Geometry]) -> Callable[..., Geometry]:
    remembered = functools.lru_cache(maxsize=512)(rule)

    def look_up(*key: Any) -> Geometry:
        if is_compiling():
            return rule(*key)
        if torch._C._is_tracing():
            # A traced size is a tensor; torch warns that it becomes a constant of the trace.
            return rule(*tree_map_only(Tensor, int, key))._replace(traced=True)
        try:
            return remembered(*key)
        except TypeError:
            pass  # Symbolic sizes have no hash; a wrong type is reported again below.
        return rule(*key)

    return look_up


@_remembered
def _sliding(
    rank: int, shape: Sequence[int], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Geometry:
    spatial = _spatial(rank, shape)
    kernels, strides, dilations, extents, sides = _sliding_axes(rank, kernel_size, stride, padding, dilation, ceil_mode)
    pads = sides or [_same_padding(n, e, s) for n, e, s in zip(spatial, extents, strides)]
    axes = []
    for n, k, s, d, e, (before, after) in zip(spatial, kernels, strides, dilations, extents, pads):
        axes.append(Axis(_output_size(n + before + after, n + before, e, s, ceil_mode), k, s, before, after, d))
    output = tuple([axis.output for axis in axes])
    if any(n < 1 for n in output):
        raise ValueError(
            f"output size must be at least 1 on every axis, but it would be {output}: input of size {tuple(spatial)}, "
            f"kernel_size={kernel_size}, stride={stride}, padding={padding!r}, dilation={dilation}, {ceil_mode=}"
        )
    for n, axis in zip(spatial, axes):
        if _holds_empty_window(n, axis):
            raise ValueError(
                f"dilation={dilation} with padding={padding!r} leaves a window without any element of the input, "
                f"whose size is {tuple(spatial)}; every window must hold at least one"
            )
    return _map_geometry(rank, shape, axes, math.prod(kernels), fixed=True)


def _sliding_axes(rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """Of each axis kernel, stride, dilation, effective kernel and padding, which is None for "same"."""
    kernels = per_axis("kernel_size", kernel_size, rank, 1)
    strides = kernels if stride is None or stride == () else per_axis("stride", stride, rank, 1)
    dilations = per_axis("dilation", dilation, rank, 1)
    extents = [d * (k - 1) + 1 for k, d in zip(kernels, dilations)]
    if any(e > MOST_EXTENT for e in extents):
        raise ValueError(
            f"the effective kernel dilation*(kernel_size-1)+1 must be at most 2**40, got {kernel_size=} and {dilation=}"
        )
    if padding == "same" and ceil_mode:
        raise ValueError("ceil_mode must be False with padding='same', got True")
    pads = None if padding == "same" else padding_sides(padding, rank, extents)
    return kernels, strides, dilations, extents, pads


@_remembered
def _adaptive(rank: int, shape: Sequence[int], output_size: Any) -> Geometry:
    spatial = _spatial(rank, shape)
    output = _adaptive_axes(spatial, output_size)
    _check_countable("output_size", output_size, (*shape[:-rank], *output))
    largest = math.prod([_largest_bin(n, o) for n, o in zip(spatial, output)])
    keeps = isinstance(output_size, tuple) and None in output_size
    return _map_geometry(rank, shape, [_bins(o) for o in output], largest, fixed=keeps)


def _adaptive_axes(spatial: Sequence[int], output_size: Any) -> tuple[int, ...]:
    rank = len(spatial)
    if isinstance(output_size, tuple):
        if len(output_size) != rank:
            raise ValueError(f"output_size must be an int or {per_axis_words(rank)}, got {output_size}")
        output_size = tuple([n if o is None else o for n, o in zip(spatial, output_size)])
    return per_axis("output_size", output_size, rank, 1)


@_remembered
def _whole(shape: Sequence[int], keepdim: bool) -> Geometry:
    if len(shape) < 3:
        raise ValueError(f"input must be (N, C, *spatial) with at least one spatial axis, got shape {tuple(shape)}")
    rank = min(len(shape) - 2, 3)
    _check_not_empty(shape, shape[1:])
    # Operators know three axes; the position inside one window does not change when more are flattened.
    entry = (*shape[:4], math.prod(shape[4:])) if len(shape) > 5 else tuple(shape)
    spatial = _spatial(rank, entry)
    geometry = _map_geometry(rank, entry, [_bins(1)] * rank, math.prod(spatial), fixed=False)
    result = (*shape[:2], *[1] * (len(shape) - 2)) if keepdim else tuple(shape[:2])
    changed = len(entry) != len(shape)
    return geometry._replace(entry=entry if changed else None, result=result, reshape=changed or not keepdim)


@_remembered
def _pyramid(
    rank: int, shapes: Sequence[Any], listed: bool, levels: Any, floor: bool, order: int, flat: bool, maps: int
) -> Geometry:
    sizes = _level_sizes(rank, levels)
    axes = []
    largest = []
    for shape in shapes:
        spatial = _spatial(rank, shape)
        for level in sizes:
            taps = 1
            for n, bins in zip(spatial, level):
                if floor and n < bins:
                    raise ValueError(
                        f"levels with bins='floor' must not exceed the axis they divide, got {bins} for an axis of "
                        f"length {n} (input of shape {tuple(shape)})"
                    )
                step = n // bins
                axes.append(Axis(bins, step, step, 0, 0, 1) if floor else _bins(bins))
                taps *= step if floor else _largest_bin(n, bins)
            largest.append(taps)
    lead = len(shapes[0]) - rank
    channels = shapes[0][lead - 1]
    total = sum([math.prod(level) for level in sizes])
    _check_countable("levels", levels, (len(shapes), *shapes[0][:lead], maps, total))
    tap_bytes, draw_bytes = _bytes_for_taps(largest)
    batch = (len(shapes),) if listed else tuple(shapes[0][: lead - 1])
    return Geometry(
        window=_window(axes),
        order=order,
        spatial=shapes[0][lead:],
        lead=lead,
        channels=channels,
        tap_bytes=tap_bytes,
        draw_bytes=draw_bytes,
        entry=(1, *shapes[0]) if lead == 1 and not listed else None,
        result=(*batch, maps * channels * total) if flat else (*batch, maps * channels, total),
        reshape=not flat or (lead == 1 and not listed),
        fixed=floor,
    )


def _level_sizes(rank: int, levels: Sequence[Any]) -> list[tuple[int, ...]]:
    if not levels:
        raise ValueError(f"levels must name at least one level, got {levels}")
    return [per_axis("levels", level, rank, 1) for level in levels]


def _map_geometry(rank: int, shape: Sequence[int], axes: Sequence[Axis], largest: int, fixed: bool) -> Geometry:
    lead = len(shape) - rank
    tap_bytes, draw_bytes = _bytes_for_taps([largest])
    return Geometry(
        window=_window(axes),
        order=MAP,
        spatial=shape[lead:],
        lead=lead,
        channels=shape[lead - 1],
        tap_bytes=tap_bytes,
        draw_bytes=draw_bytes,
        entry=(1, *shape) if lead == 1 else None,
        result=(*shape[:lead], *[axis.output for axis in axes]),
        reshape=lead == 1,
        fixed=fixed,
    )


def _window(axes: Sequence[Axis]) -> tuple[int, ...]:
    return tuple([number for axis in axes for number in axis])


def _bins(output: int) -> Axis:
    return Axis(output, 0, 1, 0, 0, 1)


def _output_size(padded: int, start_limit: int, extent: int, stride: int, ceil_mode: bool) -> int:
    output = (padded - extent + (stride - 1 if ceil_mode else 0)) // stride + 1
    # torch's rule: a window may not start in the padding behind the input.
    if ceil_mode and (output - 1) * stride >= start_limit:
        output -= 1
    return output


def _same_padding(length: int, extent: int, stride: int) -> tuple[int, int]:
    total = ((length + stride - 1) // stride - 1) * stride + extent - length
    total = total if total > 0 else 0
    return total // 2, total - total // 2


def _holds_empty_window(length: int, axis: Axis) -> bool:
    if axis.dilation == 1 or axis.before == 0 or length >= axis.dilation:
        return False
    # Only windows that start in the padding can step over a short axis; starts repeat modulo the dilation.
    starts = range(min(axis.output, -(-axis.before // axis.stride), axis.dilation))
    return any((o * axis.stride - axis.before) % axis.dilation >= length for o in starts)


def _largest_bin(length: int, bins: int) -> int:
    whole_part = length // bins
    if _known(length % bins == 0):
        return whole_part
    if is_compiling():
        return whole_part + 2  # an upper bound, which asks nothing of a symbolic length
    return whole_part + (1 if bins % (length % bins) == 0 else 2)


def _check_countable(name: str, value: Any, result: Sequence[int]) -> None:
    """Refuses results whose bytes 64 bits could not count, be the batch empty or not."""
    elements = math.prod([n if _known(n >= 1) else 1 for n in result])
    if _known(elements > MOST_ELEMENTS):
        raise ValueError(f"{name} must give a result of at most 2**60 elements, got {value}, which gives {elements}")


def _bytes_for_taps(elements: Sequence[int]) -> tuple[int, int]:
    """Bytes of a tap, and of a tap that may also be "none", in windows of so many elements."""
    for n in elements:
        if _known(n >= 2**31):
            raise ValueError(f"a window must hold fewer than 2**31 elements, got {n}")
    # Not of their maximum, which would be a guess about symbolic sizes.
    return 1 if all(_known(n <= 256) for n in elements) else 4, 1 if all(_known(n <= 255) for n in elements) else 4


def _known(condition: bool) -> bool:
    """Whether a condition holds; while compiling, for every value of a symbolic size: a guess would become a guard."""
    if not is_compiling():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def _spatial(rank: int, shape: Sequence[int]) -> Sequence[int]:
    if len(shape) not in (rank + 1, rank + 2):
        axes = ("L", "H, W", "D, H, W")[rank - 1]
        raise ValueError(f"input must be (N, C, {axes}) or (C, {axes}), got shape {tuple(shape)}")
    _check_not_empty(shape, shape[-rank - 1 :])
    return shape[-rank:]


def _check_not_empty(shape: Sequence[int], channels_and_axes: Sequence[int]) -> None:
    if any(n < 1 for n in channels_and_axes):
        raise ValueError(f"input must have at least one channel and no empty spatial axis, got shape {tuple(shape)}")
