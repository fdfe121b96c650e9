"""Seeds of the stochastic draw: given, or taken from torch's generator in the same sequence eager and compiled."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._arguments import as_int
from ._operators import is_sharded

SEED_END = 2**63 - 1


@torch.library.custom_op("fastpool::draw_seed", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def draw_seed(input: Tensor, nonce: Tensor) -> Tensor:
    # The arguments are for compilers: `input` keeps the order of draws, a fresh `nonce` keeps them from being merged.
    return torch.randint(SEED_END, (1,), dtype=torch.int64, device=input.device)


@draw_seed.register_fake
def _(input: Tensor, nonce: Tensor) -> Tensor:
    return torch.empty((1,), dtype=torch.int64, device=input.device)


def seed_argument(input: Tensor, seed: Any, generator: torch.Generator | None) -> tuple[Tensor | None, int]:
    """A tensor that the kernel reads, or None and a number: nothing is read back from a device."""
    check_seed(seed, generator)
    if seed is None:
        if generator is not None:
            _check_generator(input, generator)
        elif torch.compiler.is_compiling():
            here = input.to_local() if is_sharded(input) else input  # type: ignore[attr-defined]
            return draw_seed(here.detach(), torch.empty(0, device=input.device)), 0
        return torch.randint(SEED_END, (1,), dtype=torch.int64, device=input.device, generator=generator), 0
    if isinstance(seed, Tensor):
        if seed.device != input.device:
            raise ValueError(f"seed must be on the input's device {input.device}, got {seed.device}")
        return seed, 0
    value = operator.index(seed)
    return None, value - 2**64 if value >= 2**63 else value


def check_seed(seed: Any, generator: Any) -> None:
    """What must hold over any input."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}")
    if seed is None:
        return
    if generator is not None:
        raise ValueError("seed and generator exclude each other, got both")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(f"seed must be an int or an int64 tensor, got dtype {seed.dtype}")
        if seed.numel() != 1:
            raise ValueError(f"seed must have exactly one element, got shape {tuple(seed.shape)}")
        return
    value = as_int(seed)
    if value is None:
        raise TypeError(f"seed must be an int or a one-element int64 tensor, got {seed!r}")
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"seed must lie in [-2**63, 2**64), got {value}")


def offset_argument(offset: Any) -> Sequence[int]:
    if not isinstance(offset, (tuple, list)) or not all(type(n) is int for n in offset):
        raise TypeError(f"offset must be a pair of ints (sample, channel), got {offset!r}")
    if len(offset) != 2 or not 0 <= offset[0] < 2**63 or not 0 <= offset[1] < 2**32:
        raise ValueError(f"offset must be (sample in [0, 2**63), channel in [0, 2**32)), got {offset}")
    return offset


def _check_generator(input: Tensor, generator: torch.Generator) -> None:
    if torch.compiler.is_compiling():
        raise RuntimeError("generator= cannot be used inside torch.compile or torch.export; pass seed= instead")
    if generator.device != input.device and not input.is_meta:
        raise ValueError(f"generator must be of the input's device {input.device}, got {generator.device}")
