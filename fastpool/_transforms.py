"""torch.vmap and the gradients of torch.func, for which operators need rules of their own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ._formulas import FORMULAS, Formula
from ._operators import OPERATORS


def call_transformed(name: str, *arguments: Any) -> Any:
    """Calls an operator through a Function that keeps what is saved apart from the forward pass."""
    leaves, structure = tree_flatten(arguments)
    results = FUNCTIONS[name].apply(structure, *leaves)
    return list(results) if _gives_list(name) else results


def _gives_list(name: str) -> bool:
    return str(OPERATORS[name]._schema.returns[0].type) == "List[Tensor]"


def _function(name: str, formula: Formula) -> type[torch.autograd.Function]:
    gives_list = _gives_list(name)

    def forward(structure: Any, *leaves: Any) -> Any:
        results = OPERATORS[name](*tree_unflatten(leaves, structure))
        return tuple(results) if gives_list else results

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.structure, *leaves = inputs
        arguments = tree_unflatten(leaves, ctx.structure)
        ctx.counts = [len(tree_leaves(argument)) for argument in arguments]
        formula.save(ctx, arguments, output)

    def backward(ctx: Any, *grads: Any) -> Any:
        _, *needed = ctx.needs_input_grad
        ctx.needed = tree_unflatten(needed, ctx.structure)
        if all(grad is None for grad in grads):
            return (None, *[None] * len(needed))
        found = formula.backward(ctx, [*grads]) if gives_list else formula.backward(ctx, *grads)
        flat = [None]
        for count, gradient in zip_longest(ctx.counts, found):
            flat += gradient if isinstance(gradient, list) else [gradient] * count
        return tuple(flat)

    members = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(backward),
        "generate_vmap_rule": True,
    }
    return type(name, (torch.autograd.Function,), members)


def _batching_rule(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the operator once for each member of the batch, and gives what a loop over it would."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        # An empty batch still tells the shapes of its results.
        found = [operator(*_member(arguments, in_dims, i)) for i in range(max(info.batch_size, 1))]
        if isinstance(found[0], (tuple, list)):
            results = [torch.stack(parts)[: info.batch_size] for parts in zip(*found, strict=True)]
            return type(found[0])(results), type(found[0])([0] * len(results))
        return torch.stack(found)[: info.batch_size], 0

    return rule


def _member(argument: Any, axis: Any, i: int) -> Any:
    """Member i of an argument, or of each of its parts; None is the axis of what has no batch."""
    if axis is None:
        return argument
    if isinstance(axis, (tuple, list)):
        return [_member(*part, i) for part in zip(argument, axis, strict=True)]
    batch = argument.movedim(axis, 0)
    return batch[i] if len(batch) else batch.new_zeros(batch.shape[1:])


FUNCTIONS: dict[str, Any] = {name: _function(name, formula) for name, formula in FORMULAS.items()}
for _name, _operator in OPERATORS.items():
    torch.library.register_vmap(f"fastpool::{_name}", _batching_rule(_operator))
