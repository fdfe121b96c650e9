"""Shapes, dtypes and strides of every operator's results, for fake and meta tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ._layouts import CONTIGUOUS, layout_of, memory_format
from ._operators import OPERATORS, RESULTS, SAVE_MOMENTS, SAVE_SLOPE
from ._windows import MAP, bins_of_levels

TAP_DTYPES = {1: torch.uint8, 4: torch.int32}


def _empty(like: Tensor, shape: Sequence[int], layout: int, dtype: torch.dtype | None = None) -> Tensor:
    dense = memory_format(layout, len(shape))
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=dense)


def _none(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return _empty(like, (0,), CONTIGUOUS, dtype)


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _per_bin(inputs: Sequence[Tensor], window: Sequence[int], order: int, dtype: torch.dtype | None = None) -> Tensor:
    """One entry per channel and window, as taps have it."""
    x = inputs[0]
    if order == MAP:
        return _empty(x, (*x.shape[:2], *window[::6]), layout_of(x), dtype)
    return _empty(x, (_rows(inputs), x.shape[1], _bins(inputs, window)), CONTIGUOUS, dtype)


def _result(inputs: Sequence[Tensor], window: Sequence[int], order: int, maps: int = 1) -> Tensor:
    if order == MAP:
        return _per_bin(inputs, window, order)
    return _empty(inputs[0], (_rows(inputs), maps * inputs[0].shape[1] * _bins(inputs, window)), CONTIGUOUS)


def _rows(inputs: Sequence[Tensor]) -> int:
    return sum([x.shape[0] for x in inputs])


def _bins(inputs: Sequence[Tensor], window: Sequence[int]) -> int:
    return sum(bins_of_levels(window, inputs[0].dim() - 2, len(inputs)))


def _pool(
    results: Sequence[str], inputs: Any, own: Any, numbers: Any, integers: Any, window: Any, order: int, saves: int
) -> Any:
    wide = _accumulation_dtype(inputs[0])
    output = _result(inputs, window, order, maps=2 if "second" in results and order != MAP else 1)

    def other(name: str) -> Tensor:
        if name == "second":
            return _result(inputs, window, order) if order == MAP else _none(output)
        if name == "taps":
            return _per_bin(inputs, window, order, TAP_DTYPES[saves & 7]) if saves & 7 else _none(output, torch.uint8)
        if name == "moments":
            size = _per_bin(inputs, window, order).numel()
            return _empty(output, (2, size), CONTIGUOUS, wide) if saves & SAVE_MOMENTS else _none(output, wide)
        assert name == "slope"
        return _per_bin(inputs, window, order, wide) if saves & SAVE_SLOPE else _none(output, wide)

    others = tuple([other(name) for name in results[1:]])
    return (output, *others) if others else output


def _select(inputs: Any, taps: Tensor, window: Any, order: int) -> Tensor:
    return _result(inputs, window, order)


def _tap_indices(taps: Tensor, size: Any, window: Any) -> Tensor:
    return _empty(taps, taps.shape, layout_of(taps), torch.int64)


def _gradients(grad: Tensor, sizes: Any, rank: int, layouts: Any) -> list[Tensor]:
    step = rank + 2
    return [_empty(grad, sizes[i * step : (i + 1) * step], layout) for i, layout in enumerate(layouts)]


def _select_backward(grad: Tensor, taps: Tensor, sizes: Any, rank: int, layouts: Any, *_: Any) -> list[Tensor]:
    return _gradients(grad, sizes, rank, layouts)


def _pool_backward(
    grad: Tensor, second: Any, saved: Any, own: Any, numbers: Any, integers: Any, sizes: Any, rank: int, *others: Any
) -> list[Tensor]:
    return _gradients(grad, sizes, rank, others[0])


def _parameter_backward(grad: Tensor, slope: Tensor, parameter: Tensor, *_: Any) -> Tensor:
    return _empty(parameter, parameter.shape, CONTIGUOUS)


def _correlate(input: Tensor, filters: Tensor, window: Any) -> Tensor:
    maps = (filters.shape[0] * input.shape[0], input.shape[1], *window[::6])
    return _empty(input, maps, layout_of(input), _accumulation_dtype(input))


KERNELS: dict[str, Callable[..., Any]] = {
    "select": _select,
    "select_backward": _select_backward,
    "tap_indices": _tap_indices,
    "parameter_backward": _parameter_backward,
    "correlate": _correlate,
    "correlate_input": lambda grad, filters, input, window: _empty(input, input.shape, layout_of(input)),
    "correlate_filters": lambda grad, input, filters, window: _empty(filters, filters.shape, CONTIGUOUS),
    "logistic": lambda input: _empty(input, input.shape, layout_of(input)),
    "sppf": lambda input, window, repeats: _empty(
        input, (input.shape[0], (repeats + 1) * input.shape[1], *input.shape[2:]), layout_of(input)
    ),
    **{name: functools.partial(_pool, results) for name, results in RESULTS.items()},
}


def _on_one_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """One meta tensor among others brings the call here, whose results would never be written."""

    def checked(*arguments: Any) -> Any:
        devices = {x.device for x in tree_leaves(arguments) if isinstance(x, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(f"fastpool: tensors must be on one device, got {', '.join(sorted(map(str, devices)))}")
        return kernel(*arguments)

    return checked


for _name in OPERATORS:
    torch.library.register_fake(f"fastpool::{_name}", _on_one_device(KERNELS.get(_name, _pool_backward)))
