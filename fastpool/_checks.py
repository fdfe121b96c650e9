"""Checks that are not about geometry: tensors, devices, numbers and choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import _C

T = TypeVar("T")

HALF_DTYPES = (torch.float16, torch.bfloat16)
DTYPES = frozenset((*HALF_DTYPES, torch.float32, torch.float64))
DEVICES = ("cpu", "cuda", "meta") if _C.build_info()["cuda"] else ("cpu", "meta")


def check_input(input: Any, name: str = "input") -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(input).__name__}")
    if input.dtype not in DTYPES or input.layout is not torch.strided or input.is_nested:
        more = " of nested tensors, which global and pyramid poolings alone take" if input.is_nested else ""
        if input.is_quantized:
            more = "; put a DeQuantStub in front of the layer and a QuantStub behind, or keep torch.nn's there"
        raise TypeError(
            f"{name} must be a dense tensor of float16, bfloat16, float32 or float64, "
            f"got dtype {input.dtype} with layout {input.layout}{more}"
        )
    if not input.is_cpu and input.device.type not in DEVICES:
        raise RuntimeError(
            f"{name} is on device {input.device}; this build of fastpool supports {', '.join(DEVICES)} "
            "(build with FASTPOOL_CUDA=1 for cuda)"
        )


def check_inputs(rank: int, inputs: Sequence[Any]) -> None:
    if not inputs:
        raise ValueError("input must hold at least one tensor, got an empty list")
    for i, x in enumerate(inputs):
        check_input(x, f"input[{i}]")
        if x.dim() != rank + 1:
            raise ValueError(f"input[{i}] must be (C, *spatial) with {rank} spatial axes, got shape {tuple(x.shape)}")
        for what, found, expected in (
            ("channels", x.shape[0], inputs[0].shape[0]),
            ("dtype", x.dtype, inputs[0].dtype),
            ("device", x.device, inputs[0].device),
        ):
            if found != expected:
                raise ValueError(f"input must not mix {what}: input[0] has {expected}, input[{i}] has {found}")


def check_flag(name: str, value: Any) -> None:
    if type(value) is not bool:
        raise TypeError(f"{name} must be True or False, got {value!r}")


def choice(name: str, value: Any, choices: Mapping[Any, T]) -> T:
    try:
        return choices[value]
    except (KeyError, TypeError):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}") from None


ALLOWED: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "any": (lambda value: True, ""),
    "positive": (lambda value: value > 0, " and greater than 0"),
    "not negative": (lambda value: value >= 0, " and at least 0"),
    "nonzero": (lambda value: value != 0, " and not 0"),
}


def number(name: str, value: Any, allowed: str = "any", kinds: str = "a number") -> float:
    if type(value) is not float and (isinstance(value, (bool, str, Tensor)) or not hasattr(value, "__float__")):
        raise TypeError(f"{name} must be {kinds}, got {value!r}")
    try:
        found = float(value)
    except TypeError:  # an array
        raise TypeError(f"{name} must be {kinds}, got {value!r}") from None
    except OverflowError:
        found = math.inf
    holds, words = ALLOWED[allowed]
    if not abs(found) < math.inf or not holds(found):
        raise ValueError(f"{name} must be finite{words}, got {value}")
    return found


def refuse_scripting(name: str) -> Any:
    """What torch.jit.script calls before it compiles something."""

    def refuse() -> None:
        raise RuntimeError(f"{name} does not support torch.jit.script; use torch.jit.trace or torch.export")

    return refuse


def check_parameter(name: str, parameter: Tensor, input: Tensor) -> None:
    if parameter.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {parameter.layout}")
    if parameter.dtype != input.dtype and not (parameter.dtype == torch.float32 and input.dtype in HALF_DTYPES):
        allowed = f"{input.dtype} or torch.float32" if input.dtype in HALF_DTYPES else str(input.dtype)
        raise TypeError(f"{name} must be of dtype {allowed} beside an input of {input.dtype}, got {parameter.dtype}")
    if parameter.device != input.device:
        raise ValueError(f"{name} must be on the input's device {input.device}, got {parameter.device}")
