"""torch.vmap and batches of gradients: one call with more samples or channels stands for all members, where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.utils._pytree import tree_flatten, tree_unflatten

from ._formulas import Saved, from_result
from ._layouts import CONTIGUOUS, laid_out, layout_of
from ._operators import CORRELATIONS, OPERATORS
from ._windows import MAP


class Place(NamedTuple):
    """Where the batch's axis is put before the axes `start` and `start + 1` become one."""

    put: int
    start: int


# Results of a list have its tensors' samples one after another: members must be neighbours.
SAMPLES, NEIGHBOURS, CHANNELS = Place(0, 0), Place(1, 0), Place(1, 1)


def _batched(x: Tensor, axis: int | None, size: int) -> Tensor:
    """With the axis of the batch in front."""
    return x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)


def _fold(x: Tensor, axis: int | None, size: int, place: Place) -> Tensor:
    return _batched(x, axis, size).movedim(0, place.put).flatten(place.start, place.start + 1)


def _unfold(x: Tensor, size: int, place: Place) -> Tensor:
    batch = torch.unflatten(x, place.start, (size, -1) if place.put == place.start else (-1, size))
    # Forward mode takes no tangents whose batch is not in front.
    return batch.movedim(place.put, 0).contiguous() if place.put else batch


def _member(argument: Any, axis: Any, i: int) -> Any:
    """Member i of an argument, or of each of its parts; None is the axis of what has no batch."""
    if axis is None:
        return argument
    if isinstance(axis, (tuple, list)):
        return [_member(*part, i) for part in zip(argument, axis, strict=True)]
    return argument.select(axis, i) if argument.shape[axis] else argument.new_zeros(argument.movedim(axis, 0).shape[1:])


def _loop(operator: Any, size: int, in_dims: Any, arguments: Any) -> tuple[Any, Any]:
    # An empty batch still tells the shapes of its results.
    found = [operator(*_member(arguments, in_dims, i)) for i in range(max(size, 1))]
    if isinstance(found[0], Tensor):
        return torch.stack(found)[:size], 0
    results = [torch.stack(parts)[:size] for parts in zip(*found, strict=True)]
    return type(found[0])(results), type(found[0])([0] * len(results))


def _place(name: str, given: dict[str, Any], axes: dict[str, Any], inputs: int) -> Place | None:
    """None where members differ in what one call has once."""
    own: Any = given.get("own")
    axis = axes.get("own")
    if name.startswith("stochastic"):
        return None  # every member draws as the first samples of a batch do
    if axis is None:
        return SAMPLES if inputs == 1 else NEIGHBOURS
    if own.dim() > 2:
        return SAMPLES
    layouts = given["layouts"] if "layouts" in given else map(layout_of, _member(given["inputs"], axes["inputs"], 0))
    return CHANNELS if given["order"] == MAP and all(layout == CONTIGUOUS for layout in layouts) else None


def _fold_parameter(own: Tensor, axis: int | None, size: int, place: Place, shape: Sequence[int]) -> Tensor:
    if place is CHANNELS:
        return _batched(own, axis, size).reshape(size, -1).expand(size, shape[1]).flatten()
    if axis is None and (own.dim() <= 1 or own.shape[0] == 1):
        return own
    batch = _batched(own, axis, size)
    return batch.expand(size, shape[0], *batch.shape[2:]).flatten(0, 1)


def _rule(name: str) -> Any:
    operator = OPERATORS[name]
    names = [argument.name for argument in operator._schema.arguments]
    results = [result.name for result in operator._schema.returns]

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        size, given, axes = info.batch_size, dict(zip(names, arguments)), dict(zip(names, in_dims))
        inputs = len(given.get("inputs") or given.get("layouts") or [None])
        place = _place(name, given, axes, inputs) if size else None
        if place is None:
            return _loop(operator, size, in_dims, arguments)
        shapes: list[Sequence[int]] = [()]
        if "inputs" in given:
            members = _member(given["inputs"], axes["inputs"], 0)
            shapes = [x.shape for x in members]
            folded = [_fold(x, axis, size, place) for x, axis in zip(given["inputs"], axes["inputs"])]
            given["inputs"] = [laid_out(x, layout_of(member)) for x, member in zip(folded, members)]
        elif "sizes" in given:
            sizes, step = given["sizes"], given["rank"] + 2
            shapes = [sizes[i : i + step] for i in range(0, len(sizes), step)]
            given["sizes"] = [n * size if i % step == place.start else n for i, n in enumerate(sizes)]
        # Moments are (2, all else), of which samples come first.
        before = max(sum([shape[0] for shape in shapes]), 1) if place.put else 1
        for each in ("grad", "grad_second", "taps"):
            if given.get(each) is not None:
                given[each] = _fold(given[each], axes[each], size, place)
        if given.get("saved"):
            kept = _member(given["saved"], axes["saved"], 0)
            # What was not saved has no samples.
            folded = [
                each if each.dim() == 1 else _fold(x, axis, size, place)
                for each, x, axis in zip(kept, given["saved"], axes["saved"])
            ]
            if len(kept) > 1 and kept[1].dim() > 1:
                moments = _batched(given["saved"][1], axes["saved"][1], size)
                folded[1] = torch.unflatten(moments, 2, (before, -1)).movedim(0, 2).flatten(1)
            given["saved"] = folded
        if given.get("own") is not None:
            given["own"] = _fold_parameter(given["own"], axes["own"], size, place, shapes[0])

        def unfolded(result: str, y: Tensor) -> Tensor:
            if y.dim() == 1:
                return y  # nothing was saved
            if result == "moments":
                return torch.unflatten(y, 1, (before, size, -1)).movedim(2, 0).flatten(2)
            return _unfold(y, size, place)

        found = operator(*given.values())
        if isinstance(found, Tensor):
            return unfolded(results[0], found), 0
        if isinstance(found, list):
            return [_unfold(x, size, place) for x in found], [0] * inputs
        return tuple(map(unfolded, results, found)), tuple([None if y.dim() == 1 else 0 for y in found])

    return rule


def _parameter_rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
    """Sums of each sample of each member, for which the parameter is spread out."""
    operator, size = OPERATORS["parameter_backward"], info.batch_size
    if not size:
        return _loop(operator, size, in_dims, arguments)
    grad, slope, parameter, window, sizes, rank, order = arguments
    grad, slope = [_fold(x, axis, size, SAMPLES) for x, axis in zip((grad, slope), in_dims)]
    if order != MAP:
        saved = Saved(sizes, rank, [0] * (len(sizes) // (rank + 2)), window, order)
        grad, slope = from_result(grad, saved), slope.flatten(2)
        window, sizes, rank = (slope.shape[2], 1, 1, 0, 0, 1), slope.shape, 1
    shape = _member(parameter, in_dims[2], 0).shape
    axes = shape if len(shape) > 1 else (1, *(shape or (1,)), *[1] * rank)
    spread = torch.zeros((), dtype=torch.float64, device=grad.device).expand(grad.shape[0], *axes[1:])
    found = operator(grad, slope, spread, window, (grad.shape[0], *sizes[1:]), rank, MAP)
    found = torch.unflatten(found, 0, (size, -1))
    if axes[0] == 1:
        found = found.sum(1)
    return found.to(parameter.dtype).reshape(size, *shape), 0


def _correlation_rule(name: str) -> Any:
    """Members are samples, or channels where each has filters, or a gradient of filters, of its own."""
    operator = OPERATORS[name]
    names = [argument.name for argument in operator._schema.arguments]

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        size, given, axes = info.batch_size, dict(zip(names, arguments)), dict(zip(names, in_dims))
        if not size:
            return _loop(operator, size, in_dims, arguments)
        member, own = [_member(given[each], axes[each], 0) for each in ("input", "filters")]
        apart = name == "correlate_filters" or axes["filters"] is not None
        place, (filters, shared) = CHANNELS if apart else SAMPLES, own.shape[:2]
        given["input"] = _fold(given["input"], axes["input"], size, place)
        if not apart:
            given["input"] = laid_out(given["input"], layout_of(member))
        if "grad" in given and apart:
            given["grad"] = _fold(given["grad"], axes["grad"], size, place)
        elif "grad" in given:  # a filter's maps stay together
            maps = torch.unflatten(_batched(given["grad"], axes["grad"], size), 1, (filters, -1))
            given["grad"] = maps.movedim(1, 0).flatten(0, 2)
        if apart:
            each = _batched(given["filters"], axes["filters"], size).expand(-1, -1, member.shape[1], -1)
            given["filters"] = each.movedim(0, 1).flatten(1, 2)
        found = operator(*given.values())
        if name == "correlate_filters":
            found = torch.unflatten(found, 1, (size, -1)).movedim(1, 0)
            return (found if shared > 1 else found.sum(2, True)), 0
        if name == "correlate" and not apart:
            return torch.unflatten(found, 0, (filters, size, -1)).movedim(1, 0).flatten(1, 2), 0
        return _unfold(found, size, place), 0

    return rule


def _by_samples(name: str) -> Any:
    """The rule of an operator that takes one sample after another."""

    def rule(info: Any, in_dims: Any, x: Tensor, *others: Any) -> tuple[Any, Any]:
        size, axis = info.batch_size, in_dims[0]
        if not size:
            return _loop(OPERATORS[name], size, in_dims, (x, *others))
        return _unfold(OPERATORS[name](_fold(x, axis, size, SAMPLES), *others), size, SAMPLES), 0

    return rule


def _is_batch(x: Any) -> bool:
    if isinstance(x, list):
        return any(map(_is_batch, x))
    return isinstance(x, Tensor) and torch._C._functorch.is_legacy_batchedtensor(x)


def over_batches(function: Callable[..., Any]) -> Callable[..., Any]:
    """A backward or jvp that takes what is_grads_batched and vectorize=True give it, too: an older kind of batch."""

    def called(ctx: Any, *grads: Any) -> Any:
        if is_compiling() or not any(map(_is_batch, grads)):
            return function(ctx, *grads)
        leaves, structure = tree_flatten(grads)
        batched = [*map(_is_batch, leaves)]
        plain = [torch._remove_batch_dim(x, 1, 0, 0) if batch else x for x, batch in zip(leaves, batched)]
        found: list[Any] = []
        of_found = structure

        def of_member(*leaves: Any) -> list[Tensor]:
            nonlocal found, of_found
            found, of_found = tree_flatten(function(ctx, *tree_unflatten(leaves, structure)))
            return [x for x in found if x is not None]

        tensors = iter(torch.vmap(of_member, tuple([0 if batch else None for batch in batched]))(*plain))
        # Forward mode takes no tangents whose batch is not in front.
        again = [None if x is None else torch._add_batch_dim(next(tensors).contiguous(), 0, 1) for x in found]
        return tree_unflatten(again, of_found)

    return called


RULES = {name: _correlation_rule(name) for name in CORRELATIONS}
RULES |= {"parameter_backward": _parameter_rule, "logistic": _by_samples("logistic"), "sppf": _by_samples("sppf")}
for _name in OPERATORS:
    _batching_rule = RULES[_name] if _name in RULES else _rule(_name)
    torch.library.register_vmap(f"fastpool::{_name}", _batching_rule)
