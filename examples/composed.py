"""Poolings as one writes them without fastpool, out of torch's own operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mixed(nn.Module):
    """alpha*max + (1 - alpha)*avg, alpha learned."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(F.avg_pool2d(x, self.size), F.max_pool2d(x, self.size), self.logit.sigmoid())


class Gated(nn.Module):
    """As mixed, but alpha is each window's own: a learned filter, the same in every channel."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(0.1 * torch.randn(size, size))

    def forward(self, x: Tensor) -> Tensor:
        planes = x.flatten(0, 1).unsqueeze(1)
        gates = F.conv2d(planes, self.weight[None, None], stride=self.size).sigmoid()
        mixed = torch.lerp(F.avg_pool2d(planes, self.size), F.max_pool2d(planes, self.size), gates)
        return mixed.view(*x.shape[:2], *mixed.shape[2:])


class Stochastic(nn.Module):
    """An element of every window, drawn in proportion to its positive part."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        windows = F.unfold(x.relu().reshape(n * c, 1, height, width), self.size, stride=self.size)
        running = windows.detach().cumsum(1)
        threshold = torch.rand_like(running[:, :1]) * running[:, -1:]
        drawn = (running <= threshold).sum(1, keepdim=True).clamp_(max=self.size**2 - 1)
        return windows.gather(1, drawn).view(n, c, height // self.size, width // self.size)


class Soft(nn.Module):
    """The mean, weighted by exp(beta*x); no care is taken of large beta*x."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.beta * x).exp()
        return F.avg_pool2d(weight * x, self.size) / F.avg_pool2d(weight, self.size)


class LSE(nn.Module):
    """log(mean(exp(r*x)))/r; no care is taken of large r*x."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.r = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d((self.r * x).exp(), self.size).log() / self.r


class GeM(nn.Module):
    """mean(max(x, eps)^p)^(1/p); no care is taken of large x^p."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), self.size).pow(1 / self.p)


class Pyramid(nn.Module):
    """The maxima of 4x4, 2x2 and 1x1 bins, say, whatever the size of the image."""

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in self.levels], 1)
