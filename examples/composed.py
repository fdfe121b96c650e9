"""The demo's poolings as one writes them without fastpool, out of torch's own operations."""

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


class Pyramid(nn.Module):
    """The maxima of 4x4, 2x2 and 1x1 bins, say, whatever the size of the image."""

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in self.levels], 1)
