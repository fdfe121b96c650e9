"""Poolings that are not linear in their input, as operations of torch that may be differentiated again and again.

Each takes windows x (..., taps) in float64, which of the taps `exist` (broadcasts to x), the parameter as a tensor that
broadcasts to (...) or None where it is the last of the numbers, and the numbers; it gives the results (...). Taps
that do not exist, or have no weight, hold another element's value, so that no derivative of theirs is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _relu_mean(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    w = x.where(exist & ~(x <= 0), 0)  # NaN counts
    largest = w.detach().amax(-1, keepdim=True)
    largest = largest.where(largest != 0, 1)
    w = w / largest
    total = w.sum(-1, keepdim=True)
    return (((w * w / total.where(total != 0, 1)).sum(-1, keepdim=True) * largest).squeeze(-1),)


def _beside_taps(parameter: Tensor | None, numbers: Sequence[float], x: Tensor) -> Tensor:
    """-> (..., 1)"""
    return x.new_tensor([numbers[-1]]) if parameter is None else parameter[..., None].to(x)


def _extreme_of(x: Tensor, exist: Tensor, sign: Tensor) -> Tensor:
    """The element (..., 1) that exists and is the largest, or where the sign is negative the smallest: a constant."""
    x = x.detach()
    largest = torch.where(exist, x, -torch.inf).amax(-1, keepdim=True)
    return torch.where(sign.detach() < 0, torch.where(exist, x, torch.inf).amin(-1, keepdim=True), largest)


def _exponents_of(x: Tensor, exist: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
    """-> distances to the extreme element, 0 of taps without weight; exponents; which taps weigh; that element"""
    extreme = _extreme_of(x, exist, factor)
    weighs = exist & ~(torch.exp(factor.detach() * (x.detach() - extreme)) == 0)
    beside = torch.where(weighs, x - extreme, 0.0)
    return beside, factor * beside, weighs, extreme


def _soft(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    beside, exponents, weighs, extreme = _exponents_of(x, exist, _beside_taps(parameter, numbers, x))
    weights = torch.where(weighs, torch.exp(exponents), 0.0)
    return (extreme[..., 0] + (weights * beside).sum(-1) / weights.sum(-1),)


def _lse(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    r = _beside_taps(parameter, numbers, x)
    _, exponents, weighs, extreme = _exponents_of(x, exist, r)
    count = exist.expand(x.shape).sum(-1)
    # expm1 and log1p by functions that ONNX has, too: exp(x) - 1 and log(1 + x) would lose all of a small r.
    minus_one = torch.tanh(exponents / 2) * (torch.exp(exponents) + 1)
    below = torch.where(weighs, minus_one, torch.where(exist, -1.0, 0.0)).sum(-1) / count
    return (extreme[..., 0] + 2 * torch.atanh(below / (below + 2)) / r[..., 0],)


def _gem(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    """numbers: eps, and p where it is none"""
    eps, p = numbers[0], _beside_taps(parameter, numbers, x)
    x = torch.where(x < eps, eps, x)
    extreme = _extreme_of(x, exist, p)
    powers = torch.exp(p * torch.log(torch.where(exist, x, extreme) / extreme))
    average = torch.where(exist, powers, 0.0).sum(-1) / exist.expand(x.shape).sum(-1)
    return (extreme[..., 0] * torch.exp(torch.log(average) / p[..., 0]),)


def _lp(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    """numbers: p and the taps of a window, clipped ones included"""
    p, taps = numbers
    size = torch.where(exist, x.detach().abs(), -torch.inf).amax(-1, keepdim=True)
    size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)  # powers of what is below do not overflow
    powers = torch.where(exist, torch.where(exist, x, size) / size, 1.0) ** p
    total = torch.where(exist, powers, 0.0).sum(-1) / exist.expand(x.shape).sum(-1) * taps
    root = torch.where(total == 0, 1.0, total) ** (1 / p)
    return (torch.where(total == 0, 0.0 if p > 0 else torch.inf, size[..., 0] * root),)


def _mean_std(x: Tensor, exist: Tensor, parameter: Tensor | None, numbers: Sequence[float]) -> tuple[Tensor, ...]:
    """numbers: the correction"""
    count = exist.expand(x.shape).sum(-1)
    shift = torch.where(exist, x, 0.0).sum(-1, keepdim=True).detach() / count[..., None]
    shifted = torch.where(exist, x - shift, 0.0)
    rest = shifted.sum(-1) / count
    size = shifted.detach().abs().amax(-1)
    size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
    distances = torch.where(exist, shifted - rest[..., None], 0.0) / size[..., None]
    free = count - numbers[0]
    variance = (distances**2).sum(-1) / torch.where(free > 0, free, 1.0)
    one = torch.ones((), dtype=x.dtype, device=x.device)
    equal = _extreme_of(x, exist, one) == _extreme_of(x, exist, -one)  # rounding may tell them from their mean
    varies = (free > 0) & (variance != 0) & ~equal[..., 0]
    std = torch.where(varies, size * torch.sqrt(torch.where(varies, variance, 1.0)), 0.0)
    return shift[..., 0] + rest, std


WINDOW_FORMULAS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "expectation_relu_pool": _relu_mean,
    "soft_pool": _soft,
    "lse_pool": _lse,
    "gem_pool": _gem,
    "lp_pool": _lp,
    "lp1_pool": _lp,
    "lp2_pool": _lp,
    "mean_std_pool": _mean_std,
}
