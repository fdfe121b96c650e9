"""The two memory layouts of the kernels, by the number that operators take for them."""

from __future__ import annotations

import torch
from torch import Tensor

CONTIGUOUS, CHANNELS_LAST = 0, 1


def memory_format(layout: int, dim: int) -> torch.memory_format:
    if layout == CONTIGUOUS:
        return torch.contiguous_format
    return torch.channels_last if dim == 4 else torch.channels_last_3d


def layout_of(x: Tensor) -> int:
    """Channels-last where torch says so of a batched 4-D or 5-D tensor or slice, and it is not contiguous as well."""
    if x.dim() == 3 or x.is_contiguous():
        return CONTIGUOUS
    known = not torch._C._are_functorch_transforms_active()  # by vmap, formats are not
    if known and x.is_contiguous(memory_format=memory_format(CHANNELS_LAST, x.dim())):
        return CHANNELS_LAST
    channels, spatial, strides = x.shape[1], x.shape[2:], x.stride()
    if channels == 1 or all(n == 1 for n in spatial) or strides[1] == 0:
        return CONTIGUOUS  # dense it would be both, or neither
    least = 0
    for axis in (1, *range(x.dim() - 1, 1, -1), 0):
        if strides[axis] < least:
            return CONTIGUOUS
        least = strides[axis] * x.shape[axis]
    return CHANNELS_LAST


def laid_out(x: Tensor, layout: int) -> Tensor:
    """The same in a layout, also under vmap."""
    return x.contiguous() if layout == CONTIGUOUS else x.movedim(1, -1).contiguous().movedim(-1, 1)
