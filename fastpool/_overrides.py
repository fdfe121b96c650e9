"""What stands for a tensor in a call: torch.fx's proxies, and subclasses of Tensor that override functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.fx import Proxy, Tracer
from torch.overrides import handle_torch_function
from torch.utils._pytree import tree_leaves, tree_map_only

T = TypeVar("T")
Forward = TypeVar("Forward", bound=Callable[[Any, Any], Any])


def overridden(function: Callable[..., T], arguments: dict[str, Any]) -> T:
    """Hands a call of a public function to the `__torch_function__` of its arguments."""
    given = {**arguments, **arguments.get("options", {})}
    given.pop("options", None)
    input = given.pop("input")
    if is_compiling() and not torch._C._is_torch_function_enabled():
        # Compilers find overrides also where these have been switched off; what views return there has none.
        input, given = tree_map_only(Tensor, lambda x: x.view_as(x), (input, given))
        return function(input, **given)
    result: T = handle_torch_function(function, tensors_of(input, given), input, **given)
    return result


def tensors_of(input: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    """What may be a tensor; the input of a pyramid may be a list of them."""
    return (*(input if isinstance(input, (list, tuple)) else (input,)), *options.values())


def leaf(forward: Forward) -> Forward:
    """Makes a module of the package a node of torch.fx, as modules of torch.nn are.

    Traced through, it would lose what follows `train()` and `eval()`, and gradients of what it computes of parameters.
    """

    @functools.wraps(forward)
    def called(self: Any, input: Any) -> Any:
        if type(input) is not Tensor and type(self).__module__ == forward.__module__:
            for x in tree_leaves(input):
                if isinstance(x, Proxy) and isinstance(x.tracer, Tracer) and x.tracer.root is not self:
                    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (input,), {})
        return forward(self, input)

    return called  # type: ignore[return-value]
