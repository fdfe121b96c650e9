"""The registered operators, and how a call reaches their kernels."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _table

POOLINGS = {pooling.name: pooling for pooling in _table.POOLINGS}
# Powers of 1 and 2 have operators of their own, and so have distributions; the expectation by soft-max is soft_pool.
POOLS = (
    *(f"{name}_pool" for name in POOLINGS if hasattr(torch.ops.fastpool, f"{name}_pool")),
    "lp1_pool",
    "lp2_pool",
    "stochastic_relu_pool",
    "stochastic_softmax_pool",
    "expectation_relu_pool",
)
# Of learned filters with windows: the products, and their gradients by the input and by the filters.
CORRELATIONS = ("correlate", "correlate_input", "correlate_filters")
OPERATORS: dict[str, Any] = {
    name: getattr(torch.ops.fastpool, name).default
    for pool in POOLS
    for name in (pool, f"{pool}_backward")
    if hasattr(torch.ops.fastpool, name)  # selections share one gradient
}
OPERATORS |= {
    name: getattr(torch.ops.fastpool, name).default
    for name in ("select", "select_backward", "tap_indices", "parameter_backward", *CORRELATIONS, "logistic", "sppf")
}
# What each pooling returns: "output", and of "second", "taps", "moments" and "slope" what it has.
RESULTS = {name: tuple([result.name for result in OPERATORS[name]._schema.returns]) for name in POOLS}
# Those whose gradient finds moments of small windows again, on a CPU, sooner than it reads them.
POOL_AGAIN = {"soft_pool", "expectation_relu_pool"}
# What a call saves besides bytes of a tap, as operators take it.
SAVE_MOMENTS, SAVE_SLOPE = 8, 16


def is_sharded(x: Any) -> bool:
    """Whether x is a DTensor, without importing what defines them."""
    if type(x) is Tensor:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def transforming() -> bool:
    """Whether torch.vmap, torch.func or forward mode may want more of a call than its result and its gradient."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def call(name: str, *arguments: Any) -> Any:
    """Calls an operator; its registered gradient is entered only where one is being recorded."""
    if transforming():
        from ._transforms import call_transformed  # which needs the formulas, which need this

        return call_transformed(name, *arguments)
    if torch.is_grad_enabled():
        return OPERATORS[name](*arguments)
    return call_below_autograd(name, *arguments)


def call_below_autograd(name: str, *arguments: Any) -> Any:
    # Half the time of a call through the registered gradient, which is Python.
    with torch._C._AutoDispatchBelowAutograd():
        return OPERATORS[name](*arguments)
