"""The poolings that are not linear in x, as torch operations that may be differentiated again and again.

Each takes windows x of (..., taps) in float64, which of the taps `exist` (broadcasts to x), the learnable parameter as
a tensor that broadcasts to (...), or None where it is the last of the numbers, and the pooling's numbers; it gives a
tuple of results (...). Taps that do not exist, or have no weight, hold another element's value, so that no derivative
of theirs is NaN.
"""

import torch


def beside_taps(parameter, numbers, x):
    """-> (..., 1)"""
    return x.new_tensor([numbers[-1]]) if parameter is None else parameter[..., None].to(x)


def extreme_of(x, exist, sign):
    """The element (..., 1) that exists and is the largest, or where the sign is negative the smallest: a constant."""
    x = x.detach()
    largest = torch.where(exist, x, -torch.inf).amax(-1, keepdim=True)
    return torch.where(sign.detach() < 0, torch.where(exist, x, torch.inf).amin(-1, keepdim=True), largest)


def exponents_of(x, exist, factor):
    """-> distances to the extreme element, 0 of taps without weight; exponents; which taps weigh; that element"""
    extreme = extreme_of(x, exist, factor)
    weighs = exist & ~(torch.exp(factor.detach() * (x.detach() - extreme)) == 0)
    beside = torch.where(weighs, x - extreme, 0.0)
    return beside, factor * beside, weighs, extreme


def soft(x, exist, parameter, numbers):
    beside, exponents, weighs, extreme = exponents_of(x, exist, beside_taps(parameter, numbers, x))
    weights = torch.where(weighs, torch.exp(exponents), 0.0)
    return (extreme[..., 0] + (weights * beside).sum(-1) / weights.sum(-1),)


def lse(x, exist, parameter, numbers):
    r = beside_taps(parameter, numbers, x)
    _, exponents, weighs, extreme = exponents_of(x, exist, r)
    count = exist.expand(x.shape).sum(-1)
    below = torch.where(weighs, torch.expm1(exponents), torch.where(exist, -1.0, 0.0)).sum(-1) / count
    return (extreme[..., 0] + torch.log1p(below) / r[..., 0],)


def gem(x, exist, parameter, numbers):
    """numbers: eps, and p where it is none"""
    eps, p = numbers[0], beside_taps(parameter, numbers, x)
    x = torch.where(x < eps, eps, x)
    extreme = extreme_of(x, exist, p)
    powers = torch.exp(p * torch.log(torch.where(exist, x, extreme) / extreme))
    average = torch.where(exist, powers, 0.0).sum(-1) / exist.expand(x.shape).sum(-1)
    return (extreme[..., 0] * torch.exp(torch.log(average) / p[..., 0]),)


def lp(x, exist, parameter, numbers):
    """numbers: p and the taps of a window, clipped ones included"""
    p, taps = numbers
    size = torch.where(exist, x.detach().abs(), -torch.inf).amax(-1, keepdim=True)
    size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)  # powers of what is below do not overflow
    powers = torch.where(exist, torch.where(exist, x, size) / size, 1.0) ** p
    total = torch.where(exist, powers, 0.0).sum(-1) / exist.expand(x.shape).sum(-1) * taps
    root = torch.where(total == 0, 1.0, total) ** (1 / p)
    return (torch.where(total == 0, 0.0 if p > 0 else torch.inf, size[..., 0] * root),)


def mean_std(x, exist, parameter, numbers):
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
    equal = extreme_of(x, exist, one) == extreme_of(x, exist, -one)  # rounding may tell them from their mean
    varies = (free > 0) & (variance != 0) & ~equal[..., 0]
    std = torch.where(varies, size * torch.sqrt(torch.where(varies, variance, 1.0)), 0.0)
    return shift[..., 0] + rest, std
