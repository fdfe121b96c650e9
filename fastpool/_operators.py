"""The registered operators, and how a call reaches their kernels."""

from __future__ import annotations

from typing import Any

import torch

POOLS = ("max_pool", "avg_pool", "max_avg_pool", "mixed_pool", "stochastic_pool", "expectation_pool")
DERIVATIVES = (
    "select",
    "select_backward",
    "avg_pool_backward",
    "max_avg_pool_backward",
    "mixed_pool_backward",
    "mixed_alpha_backward",
    "expectation_pool_backward",
)
OPERATORS: dict[str, Any] = {
    name: getattr(torch.ops.fastpool, name).default for name in (*POOLS, *DERIVATIVES, "tap_indices")
}
DISTRIBUTIONS = {"relu": 0, "softmax": 1}  # as operators take them


def call(name: str, *arguments: Any) -> Any:
    """Calls an operator; its registered gradient is entered only where one is being recorded."""
    if torch._C._are_functorch_transforms_active():
        from ._transforms import call_transformed  # which needs the formulas, which need this

        return call_transformed(name, *arguments)
    if torch.is_grad_enabled():
        return OPERATORS[name](*arguments)
    return call_below_autograd(name, *arguments)


def call_below_autograd(name: str, *arguments: Any) -> Any:
    # Half the time of a call through the registered gradient, which is Python.
    with torch._C._AutoDispatchBelowAutograd():
        return OPERATORS[name](*arguments)
