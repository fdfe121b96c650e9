"""Poolings of windows by operations of torch, for second derivatives: (values (..., taps) in float64, which of them
exist, the parameter, the other numbers) -> the results (...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _relu_mean(x: Tensor, exist: Tensor, parameter: float | Tensor, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    w = x.where(exist & ~(x <= 0), 0)  # NaN counts
    largest = w.detach().amax(-1, keepdim=True)
    largest = largest.where(largest != 0, 1)
    w = w / largest
    total = w.sum(-1, keepdim=True)
    return (((w * w / total.where(total != 0, 1)).sum(-1, keepdim=True) * largest).squeeze(-1),)


def _softmax_mean(x: Tensor, exist: Tensor, parameter: float | Tensor, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    x = x.masked_fill(~exist, -torch.inf)
    p = ((x - x.detach().amax(-1, keepdim=True)) / numbers[0]).softmax(-1)
    return ((p * x.where(p > 0, 0)).sum(-1),)  # what has no weight contributes nothing, be it infinite


WINDOW_FORMULAS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "expectation_relu_pool": _relu_mean,
    "expectation_softmax_pool": _softmax_mean,
}
