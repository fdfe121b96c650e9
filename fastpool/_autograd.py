"""Gradients enter eager calls by thin autograd Functions, compiled ones by the operators' registration."""

from __future__ import annotations

import functools
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_exporting

from ._formulas import FORMULAS, Formula, Grads
from ._onnx import COMPOSITIONS
from ._operators import OPERATORS, POOLS, call_below_autograd, is_sharded, transforming
from ._transforms import call_transformed
from ._vmap import over_batches


def run(name: str, recorded: bool, inputs: list[Tensor], *arguments: Any) -> Any:
    """Calls an operator: directly where a compiler or trace sees it, by a thin Function if `recorded`."""
    if is_sharded(inputs[0]):
        from ._sharding import run_on_shards  # which imports torch.distributed.tensor

        return run_on_shards(name, recorded, inputs, *arguments)
    if is_compiling() or (recorded and torch._C._is_tracing()):  # a trace always records
        if forward_ad._current_level >= 0:
            # A registered operator would lose the tangents.
            raise NotImplementedError("torch.compile cannot enter forward mode here; compile what jvp calls instead")
        return traced(name)(inputs, *arguments)
    if transforming():
        return call_transformed(name, inputs, *arguments)
    if recorded:
        return FUNCTIONS[name].apply(len(inputs), *inputs, *arguments)
    return call_below_autograd(name, inputs, *arguments)


def traced(name: str) -> Any:
    """What a trace is to show of an operator: itself, or operations that ONNX has."""
    return COMPOSITIONS[name] if is_exporting() and _to_onnx() else OPERATORS[name]


def _to_onnx() -> bool:
    return torch.onnx.is_in_onnx_export()


# As torch.compiler.assume_constant_result does, which loads the compiler; Dynamo would take torch's function for False.
_to_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _thin(name: str, formula: Formula) -> type[torch.autograd.Function]:
    nothing = (None,) * len(OPERATORS[name]._schema.arguments)

    def forward(ctx: Any, count: int, *flat: Any) -> Any:
        inputs = ([*flat[:count]], *flat[count:])
        output = call_below_autograd(name, *inputs)
        ctx.save_for_backward(*formula.save(ctx, inputs, output))
        ctx.count = count
        return output

    def backward(ctx: Any, *grads: Any) -> Any:
        _, *needed = ctx.needs_input_grad
        ctx.needed = [needed[: ctx.count], *needed[ctx.count :]]
        if grads[0] is None and all(grad is None for grad in grads):
            return (None, *[None] * len(needed))
        found = formula.backward(ctx, *grads)
        return (None, *found[0], *found[1:], *nothing[len(found) :])

    members = {"forward": staticmethod(forward), "backward": staticmethod(over_batches(backward))}
    return type("".join(word.title() for word in name.split("_")), (torch.autograd.Function,), members)


def _register(name: str, formula: Formula) -> None:
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*formula.save(ctx, inputs, output))

    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.needed = ctx.needs_input_grad
        nothing = grads[0] is None and all(grad is None for grad in grads)
        found: Grads = () if nothing else formula.backward(ctx, *grads)
        # Where an argument was a list of tensors, or an empty one, so is its gradient.
        none = [[None] * len(each) if isinstance(each, list) else None for each in ctx.needed]
        return tuple([given if gradient is None else gradient for gradient, given in zip_longest(found, none)])

    # What torch.library.register_autograd does, of which 30 take half the time that importing fastpool took.
    @functools.cache
    def kernel() -> Any:
        return make_autograd_impl(OPERATORS[name], Info(over_batches(backward), setup_context))

    LIBRARY.impl(name, lambda keys, *arguments: kernel()(keys, *arguments), "Autograd", with_keyset=True)


LIBRARY: Any = torch.library.Library("fastpool", "FRAGMENT")  # type: ignore[no-untyped-call]
FUNCTIONS: dict[str, Any] = {name: _thin(name, FORMULAS[name]) for name in POOLS}
for _name, _formula in FORMULAS.items():
    _register(_name, _formula)
