"""Geometric arguments brought to ints per axis."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

INT64_END = 2**63


def padding_sides(padding: Any, rank: int, extents: Sequence[int]) -> list[tuple[int, int]]:
    allowed = f"an int, {per_axis_words(rank)}, {rank} (before, after) pairs or 'same'"
    if isinstance(padding, str):
        raise ValueError(f"padding must be {allowed}, got {padding!r}")
    entries = padding if isinstance(padding, tuple) else (padding,)
    if len(entries) == 1 and not isinstance(entries[0], tuple):
        entries *= rank
    pads = [entry if isinstance(entry, tuple) else (entry, entry) for entry in entries]
    if len(entries) != rank or any(len(sides) != 2 or not all(map(_is_int, sides)) for sides in pads):
        raise ValueError(f"padding must be {allowed}, got {padding}")
    for sides, extent in zip(pads, extents):
        if any(side < 0 or 2 * side > extent for side in sides):
            raise ValueError(
                "padding must lie between 0 and half the effective kernel dilation*(kernel_size-1)+1, "
                f"which is {extent // 2} at most on that axis, got {padding}"
            )
    return pads


def per_axis(name: str, value: Any, rank: int, minimum: int) -> tuple[int, ...]:
    entries: tuple[int, ...] = value if isinstance(value, tuple) else (value,)
    if not all(map(_is_int, entries)):
        raise TypeError(f"{name} must be an int or {per_axis_words(rank)}, got {value!r}")
    if len(entries) not in (1, rank):
        raise ValueError(f"{name} must be an int or {per_axis_words(rank)}, got {value}")
    if any(entry < minimum or entry >= INT64_END for entry in entries):
        raise ValueError(f"{name} must be at least {minimum} on every axis (and fit 64 bits), got {value}")
    return entries if len(entries) == rank else entries * rank


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, torch.SymInt))


def per_axis_words(rank: int) -> str:
    return ("a sequence of one", "a pair", "a triple")[rank - 1]


def exact(name: str, value: Any, none: bool = False) -> Any:
    """Python ints and tuples of them: 2.0 and True are refused, and do not find what was remembered for 2 and 1."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    if isinstance(value, (tuple, list)):
        return tuple([None if none and entry is None else exact(name, entry) for entry in value])
    if isinstance(value, str) and name == "padding":
        return value
    index = as_int(value)
    if index is None:
        raise TypeError(f"{name} must be made of ints, got {value!r}")
    return index


def as_int(value: Any) -> int | None:
    """What Python takes for an int, but for bools and tensors; None for anything else."""
    if isinstance(value, (bool, Tensor)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
