"""Shapes, dtypes and strides of every operator's results, for fake and meta tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ._layouts import CONTIGUOUS, layout_of, memory_format
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


def _taps(inputs: Sequence[Tensor], window: Sequence[int], order: int, tap_bytes: int) -> Tensor:
    return _per_bin(inputs, window, order, TAP_DTYPES[tap_bytes]) if tap_bytes else _none(inputs[0], torch.uint8)


def _rows(inputs: Sequence[Tensor]) -> int:
    return inputs[0].shape[0] if len(inputs) == 1 else len(inputs)


def _bins(inputs: Sequence[Tensor], window: Sequence[int]) -> int:
    return sum(bins_of_levels(window, inputs[0].dim() - 2, len(inputs)))


def _max_pool(inputs: Any, window: Any, order: int, tap_bytes: int) -> tuple[Tensor, ...]:
    return _result(inputs, window, order), _taps(inputs, window, order, tap_bytes)


def _avg_pool(inputs: Any, window: Any, order: int, *_: Any) -> Tensor:
    return _result(inputs, window, order)


def _max_avg_pool(inputs: Any, window: Any, order: int, tap_bytes: int) -> tuple[Tensor, ...]:
    taps = _taps(inputs, window, order, tap_bytes)
    if order == MAP:
        return _result(inputs, window, order), _result(inputs, window, order), taps
    return _result(inputs, window, order, maps=2), _none(inputs[0]), taps


def _mixed_pool(
    inputs: Any, alpha: Any, alpha_value: float, window: Any, order: int, tap_bytes: int, save_difference: bool
) -> tuple[Tensor, ...]:
    dtype = _accumulation_dtype(inputs[0])
    difference = _per_bin(inputs, window, order, dtype) if save_difference else _none(inputs[0], dtype)
    return _result(inputs, window, order), _taps(inputs, window, order, tap_bytes), difference


def _stochastic_pool(inputs: Any, *arguments: Any) -> tuple[Tensor, ...]:
    *_, window, order, tap_bytes = arguments
    return _result(inputs, window, order), _taps(inputs, window, order, tap_bytes)


def _expectation_pool(
    inputs: Any, distribution: int, temperature: float, window: Any, order: int, save_moments: bool
) -> tuple[Tensor, ...]:
    result = _result(inputs, window, order)
    dtype = _accumulation_dtype(result)
    return result, _empty(result, (2, result.numel()), CONTIGUOUS, dtype) if save_moments else _none(result, dtype)


def _select(inputs: Any, taps: Tensor, window: Any, order: int) -> Tensor:
    return _result(inputs, window, order)


def _tap_indices(taps: Tensor, size: Any, window: Any) -> Tensor:
    return _empty(taps, taps.shape, layout_of(taps), torch.int64)


def _gradients(grad: Tensor, sizes: Any, rank: int, layouts: Any) -> list[Tensor]:
    step = rank + 2
    return [_empty(grad, sizes[i * step : (i + 1) * step], layout) for i, layout in enumerate(layouts)]


def _select_backward(grad: Tensor, taps: Tensor, sizes: Any, rank: int, layouts: Any, *_: Any) -> list[Tensor]:
    return _gradients(grad, sizes, rank, layouts)


def _avg_pool_backward(grad: Tensor, sizes: Any, rank: int, layouts: Any, *_: Any) -> list[Tensor]:
    return _gradients(grad, sizes, rank, layouts)


def _max_avg_pool_backward(
    grad: Tensor, grad_average: Any, taps: Tensor, sizes: Any, rank: int, layouts: Any, *_: Any
) -> list[Tensor]:
    return _gradients(grad, sizes, rank, layouts)


def _mixed_pool_backward(
    grad: Tensor, taps: Tensor, alpha: Any, alpha_value: float, sizes: Any, rank: int, layouts: Any, *_: Any
) -> list[Tensor]:
    return _gradients(grad, sizes, rank, layouts)


def _mixed_alpha_backward(grad: Tensor, difference: Tensor, alpha: Tensor, *_: Any) -> Tensor:
    return _empty(alpha, alpha.shape, CONTIGUOUS)


def _expectation_pool_backward(grad: Tensor, inputs: Any, *_: Any) -> list[Tensor]:
    return [_empty(x, x.shape, layout_of(x)) for x in inputs]


KERNELS: tuple[Callable[..., Any], ...] = (
    _max_pool,
    _avg_pool,
    _max_avg_pool,
    _mixed_pool,
    _stochastic_pool,
    _expectation_pool,
    _select,
    _tap_indices,
    _select_backward,
    _avg_pool_backward,
    _max_avg_pool_backward,
    _mixed_pool_backward,
    _mixed_alpha_backward,
    _expectation_pool_backward,
)


def _on_one_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """One meta tensor among others brings the call here, whose results would never be written."""

    @functools.wraps(kernel)
    def checked(*arguments: Any) -> Any:
        devices = {x.device for x in tree_leaves(arguments) if isinstance(x, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(f"fastpool: tensors must be on one device, got {', '.join(sorted(map(str, devices)))}")
        return kernel(*arguments)

    return checked


for _kernel in KERNELS:
    torch.library.register_fake(f"fastpool::{_kernel.__name__[1:]}", _on_one_device(_kernel))
