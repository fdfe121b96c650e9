"""What torch.func and forward mode ask of operators beside a gradient."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ._formulas import ADJOINTS, FORMULAS, Formula, vjp
from ._operators import OPERATORS
from ._vmap import over_batches


def call_transformed(name: str, *arguments: Any) -> Any:
    """Calls an operator through a Function that keeps what is saved apart from the forward pass."""
    leaves, structure = tree_flatten(arguments)
    recorded = torch.is_grad_enabled() and any(map(_requires_grad, leaves))
    if not recorded and forward_ad._current_level < 0:
        return OPERATORS[name](*arguments)  # only torch.vmap is left, and that in a third of the time
    results = FUNCTIONS[name].apply(structure, *leaves)
    return list(results) if _gives_list(name) else results


def _requires_grad(x: Any) -> bool:
    """To any of the transforms that wrap it, or below them."""
    if not isinstance(x, Tensor) or x.requires_grad:
        return isinstance(x, Tensor)
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(x) and _requires_grad(functorch.get_unwrapped(x))


def _gives_list(name: str) -> bool:
    return str(OPERATORS[name]._schema.returns[0].type) == "List[Tensor]"


class _Primals:
    """A context whose saved tensors are without their tangents."""

    def __init__(self, ctx: Any) -> None:
        self.ctx, self.saved_tensors = ctx, [*map(_primal, ctx.saved_tensors)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)


def _primal(x: Any) -> Any:
    functorch = torch._C._functorch
    if not isinstance(x, Tensor):
        return x
    if functorch.is_batchedtensor(x):  # for which unpack_dual has no rule
        level, axis = functorch.maybe_get_level(x), functorch.maybe_get_bdim(x)
        return functorch._add_batch_dim(_primal(functorch.get_unwrapped(x)), axis, level)
    return forward_ad.unpack_dual(x).primal  # type: ignore[no-untyped-call]


def _function(name: str, formula: Formula) -> type[torch.autograd.Function]:
    gives_list = _gives_list(name)

    def forward(structure: Any, *leaves: Any) -> Any:
        results = OPERATORS[name](*tree_unflatten(leaves, structure))
        return tuple(results) if gives_list else results

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.structure, *leaves = inputs
        arguments = tree_unflatten(leaves, ctx.structure)
        ctx.counts = [len(tree_leaves(argument)) for argument in arguments]
        kept = formula.save(ctx, arguments, output)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        constant = {id(result) for result in ctx.non_differentiable or ()}
        ctx.results = [
            (y.shape, y.dtype, y.device) if y.is_floating_point() and id(y) not in constant else None
            for y in tree_leaves(output)
        ]

    def gradients(ctx: Any, needed: list[bool], grads: tuple[Any, ...]) -> list[Any]:
        """One for each leaf of the arguments."""
        ctx.needed = tree_unflatten(needed, ctx.structure)
        found = formula.backward(ctx, [*grads]) if gives_list else formula.backward(ctx, *grads)
        flat: list[Any] = []
        for count, gradient in zip_longest(ctx.counts, found):
            flat += gradient if isinstance(gradient, list) else [gradient] * count
        return flat

    def backward(ctx: Any, *grads: Any) -> Any:
        _, *needed = ctx.needs_input_grad
        if all(grad is None for grad in grads):
            return (None, *[None] * len(needed))
        return (None, *gradients(ctx, needed, grads))

    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        # torch leaves forward mode here, and so would lose the tangents of an outer one.
        with forward_ad._set_fwd_grad_enabled(True):
            return derivative(_Primals(ctx), [*map(_primal, tangents)])

    def derivative(ctx: Any, tangents: list[Any]) -> Any:
        first = tree_unflatten(tangents, ctx.structure)[0]
        if name in ADJOINTS and all(tangent is not None for tangent in tree_leaves(first)):
            (found,) = FORMULAS[ADJOINTS[name]].backward(ctx, first)
            return tuple(found) if gives_list else found if len(ctx.results) == 1 else (found, None)
        # A gradient is linear in what it is given; the transpose of that map takes tangents to the result's.
        along: list[int] = []

        def gradient(*given: Tensor) -> tuple[Tensor, ...]:
            grads = iter(given)
            flat = gradients(
                ctx,
                [tangent is not None for tangent in tangents],
                tuple([None if result is None else next(grads) for result in ctx.results]),
            )
            along[:] = [i for i, g in enumerate(flat) if g is not None and tangents[i] is not None]
            return tuple([flat[i] for i in along])

        zeros = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in filter(None, ctx.results)]
        _, pull = vjp(gradient, *zeros)
        found = iter(pull(tuple([tangents[i] for i in along])))
        results = tuple([None if result is None else next(found) for result in ctx.results])
        return results if len(results) > 1 or gives_list else results[0]

    members = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(over_batches(backward)),
        "jvp": staticmethod(over_batches(jvp)),
        "generate_vmap_rule": True,
    }
    return type(name, (torch.autograd.Function,), members)


FUNCTIONS: dict[str, Any] = {name: _function(name, formula) for name, formula in FORMULAS.items()}
