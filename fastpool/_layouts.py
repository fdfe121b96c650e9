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
    """Channels-last exactly when a batched 4-D or 5-D tensor is, and is not contiguous as well."""
    if x.dim() == 3 or x.is_contiguous():
        return CONTIGUOUS
    if torch._C._are_functorch_transforms_active():
        return int(x.movedim(1, -1).is_contiguous())  # vmap knows no memory formats
    return int(x.is_contiguous(memory_format=memory_format(CHANNELS_LAST, x.dim())))


def laid_out(x: Tensor, layout: int) -> Tensor:
    """The same in a layout, also under vmap."""
    return x.contiguous() if layout == CONTIGUOUS else x.movedim(1, -1).contiguous().movedim(-1, 1)
