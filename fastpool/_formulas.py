"""Gradients: for each operator what its forward saves and how its backward uses that, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._layouts import laid_out, layout_of
from ._operators import OPERATORS, POOL_AGAIN, POOLS, RESULTS, SAVE_MOMENTS, SAVE_SLOPE, call
from ._window_formulas import WINDOW_FORMULAS
from ._windows import BY_CHANNEL, BY_LEVEL, MAP, bins_of_levels, elements

Grads = tuple[Any, ...]
vjp: Any = torch.func.vjp  # of more than one argument, too


class Formula(NamedTuple):
    save: Callable[[Any, tuple[Any, ...], Any], tuple[Any, ...]]  # the tensors to keep; what else, in the context
    backward: Callable[..., Grads]  # gradients of the leading arguments; the others have none


class Saved(NamedTuple):
    """What a backward operator is told about the inputs and their windows, in the order of its arguments."""

    sizes: Sequence[int]
    rank: int
    layouts: Sequence[int]
    window: Sequence[int]
    order: int


def saved_of(inputs: Sequence[Tensor], window: Sequence[int], order: int) -> Saved:
    x = inputs[0]
    if len(inputs) == 1:
        return Saved(x.shape, x.dim() - 2, (layout_of(x),), window, order)
    return Saved([n for x in inputs for n in x.shape], x.dim() - 2, [layout_of(x) for x in inputs], window, order)


def _present(saved: Tensor, what: str) -> Tensor:
    if saved.dim() == 1:
        raise RuntimeError(f"no {what} saved: the forward pass ran or was exported without gradients; record it again")
    return saved


# Poolings: what an operator returns tells what its gradient reads. Taps, or the output, the moments and the inputs; and
# of a parameter the slope, which is a result so that the parameter's gradient has a gradient, too.


def _saver(name: str) -> Callable[[Any, tuple[Any, ...], Any], tuple[Any, ...]]:
    results = RESULTS[name]
    at = {result: i for i, result in enumerate(results)}
    taps, moments, slope = at.get("taps", 0), at.get("moments", 0), at.get("slope", 0)

    def save(ctx: Any, inputs: Any, output: Any) -> tuple[Any, ...]:
        tensors, own, numbers, integers, window, order, saves = inputs
        ctx.set_materialize_grads(False)
        ctx.saved, ctx.own, ctx.dtype = saved_of(tensors, window, order), (numbers, integers), output[0].dtype
        constant = [output[moments]] if moments else []
        if slope and not saves & SAVE_SLOPE:
            constant.append(output[slope])
        if "second" in at and order != MAP:
            constant.append(output[1])  # empty: a pyramid holds both results in one
        if constant:
            ctx.mark_non_differentiable(*constant)
        kept = [output[taps]]
        if not taps:  # where moments are found again, so is the output
            kept = [output[0] if saves & SAVE_MOMENTS else output[moments], output[moments], *tensors]
        return (own, output[slope] if slope else None, *kept)

    if len(results) == 1:
        return _save_windows
    return save if f"{name}_backward" in OPERATORS else _save_selection


def _save_windows(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    tensors, _, numbers, integers, window, order, _ = inputs
    ctx.saved, ctx.own = saved_of(tensors, window, order), (numbers, integers)
    return ()


def _backward(name: str) -> Callable[..., Grads]:
    results = RESULTS[name]
    input_gradients: Callable[..., list[Any]] = INPUT_GRADIENTS.get(name, _input_gradients)
    slope_gradients: Callable[..., tuple[list[Any], Any]] = SLOPE_GRADIENTS.get(name, _slope_gradients)
    if name == "avg_pool":
        return _avg_backward
    if f"{name}_backward" not in OPERATORS:
        return _selection_backward

    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        own, slope, *kept = ctx.saved_tensors
        grad, *others = grads
        named = dict(zip(results[1:], others))
        of_slope = named.get("slope")
        of_inputs: list[Any] = [None] * len(ctx.saved.layouts)
        of_own = None
        if any(ctx.needed[0]):
            of_inputs = input_gradients(name, ctx, own, kept, grad, named.get("second"))
        if own is not None and ctx.needed[1] and grad is not None:
            of_own = _parameter_gradient(grad, _present(slope, "slope of the parameter"), own, ctx.saved)
        if of_slope is not None:
            more_inputs, more_own = slope_gradients(name, ctx, own, kept, of_slope)
            of_inputs = [_sum(a, b) for a, b in zip(of_inputs, more_inputs)]
            of_own = _sum(of_own, more_own)
        return (of_inputs, of_own)

    return backward


def _avg_backward(ctx: Any, grad: Tensor) -> Grads:
    return (call("avg_pool_backward", grad, None, [], None, *ctx.own, *ctx.saved),)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else (a + b).to(a.dtype)


def _input_gradients(
    name: str, ctx: Any, own: Any, kept: list[Tensor], grad: Tensor | None, second: Tensor | None
) -> list[Any]:
    if grad is None and second is None:
        return [None] * len(ctx.saved.layouts)
    if len(kept) == 1:
        _present(kept[0], "taps")
    elif name not in POOL_AGAIN or not kept[1].is_cpu:
        _present(kept[1], "moments")
    if "second" in RESULTS[name] and ctx.saved.order == MAP:
        grad = torch.zeros_like(second) if grad is None and second is not None else grad
        second = torch.zeros_like(grad) if second is None and grad is not None else second
    gradients: list[Any] = call(f"{name}_backward", grad, second, kept, own, *ctx.own, *ctx.saved)
    return gradients


def _max_avg_gradients(
    name: str, ctx: Any, own: None, kept: list[Tensor], grad: Tensor | None, second: Tensor | None
) -> list[Any]:
    gradients: list[Any]
    if grad is None and second is not None:
        gradients = call("avg_pool_backward", second, None, [], None, [], [0, 0], *ctx.saved)
    elif second is None and ctx.saved.order == MAP:
        gradients = call("select_backward", grad, _present(kept[0], "taps"), *ctx.saved)
    else:
        gradients = _input_gradients(name, ctx, own, kept, grad, second)
    return gradients


def _parameter_gradient(grad: Tensor, slope: Tensor, parameter: Tensor, saved: Saved) -> Tensor:
    sizes, rank, _, window, order = saved
    if order == MAP and parameter.shape == slope.shape:
        return (grad * slope).to(parameter.dtype)  # of one output each: nothing to sum
    gradient: Tensor = call("parameter_backward", grad, slope, parameter, window, sizes, rank, order)
    return gradient


def _save_parameter(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    grad, slope, _, window, sizes, rank, order = inputs
    count = len(sizes) // (rank + 2)
    ctx.saved = Saved(sizes, rank, [0] * count, window, order)
    return grad, slope


def _parameter_backward(ctx: Any, vector: Tensor) -> Grads:
    grad, slope = ctx.saved_tensors
    v = _per_output(_accumulated(vector), slope)
    grad_grad = to_result((v * slope).to(grad.dtype), ctx.saved)
    return (grad_grad, (v * from_result(grad, ctx.saved)).to(slope.dtype))


# Products of filters with windows are linear in both, but for a bias: the gradients are the other two operators.


def _save_correlate(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    x, filters, ctx.window = inputs
    return x, filters


def _correlate_backward(ctx: Any, grad: Tensor) -> Grads:
    x, filters = ctx.saved_tensors
    return (
        call("correlate_input", grad, filters, x, ctx.window) if ctx.needed[0] else None,
        call("correlate_filters", grad, x, filters, ctx.window) if ctx.needed[1] else None,
    )


def _save_correlate_input(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    grad, filters, _, ctx.window = inputs
    return grad, filters


def _correlate_input_backward(ctx: Any, vector: Tensor) -> Grads:
    grad, filters = ctx.saved_tensors
    taps = math.prod(ctx.window[1::6])
    bias, filters = filters.shape[2] - taps, filters[:, :, :taps]  # which no input knows of
    of_filters = call("correlate_filters", grad, vector, filters, ctx.window) if ctx.needed[1] else None
    return (
        call("correlate", vector, filters, ctx.window) if ctx.needed[0] else None,
        torch.nn.functional.pad(of_filters, (0, 1)) if of_filters is not None and bias else of_filters,
    )


def _save_correlate_filters(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    grad, x, _, ctx.window = inputs
    return grad, x


def _correlate_filters_backward(ctx: Any, vector: Tensor) -> Grads:
    grad, x = ctx.saved_tensors
    return (
        call("correlate", x, vector, ctx.window) if ctx.needed[0] else None,
        call("correlate_input", grad, vector, x, ctx.window) if ctx.needed[1] else None,
    )


def _save_logistic(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    return (output,)


def _logistic_backward(ctx: Any, grad: Tensor) -> Grads:
    (share,) = ctx.saved_tensors
    return (grad * (share * (1 - share)),)


def _save_pool_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> tuple[Any, ...]:
    grad, second, kept, own, numbers, integers, *saved = inputs
    ctx.saved, ctx.own = Saved(*saved), (numbers, integers)
    return (grad, second, own, *kept)


# Selections: max, min and the stochastic draw. select and select_backward are each other's adjoint.


def _save_selection(ctx: Any, inputs: Any, output: Any) -> tuple[Any, ...]:
    tensors, _, _, _, window, order, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.saved = saved_of(tensors, window, order)
    return (output[1],)


def _selection_backward(ctx: Any, grad: Tensor, _: None) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select_backward", grad, _present(taps, "taps"), *ctx.saved),)


def _save_select(ctx: Any, inputs: Any, output: Tensor) -> tuple[Any, ...]:
    tensors, taps, window, order = inputs
    ctx.saved = saved_of(tensors, window, order)
    return (taps,)


def _select_backward(ctx: Any, grad: Tensor) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select_backward", grad, taps, *ctx.saved),)


def _save_select_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> tuple[Any, ...]:
    _, taps, *saved = inputs
    ctx.saved = Saved(*saved)
    return (taps,)


def _select_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select", _laid_out(vectors, ctx.saved), taps, ctx.saved.window, ctx.saved.order),)


# Poolings that are linear in the input, given the taps: their second derivatives are poolings of the vectors.


def _avg_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    return (_average(_laid_out(vectors, ctx.saved), ctx.saved.window, ctx.saved.order, ctx.own[1]),)


def _max_avg_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    _, _, _, taps = ctx.saved_tensors
    chosen, mean = _max_and_mean(vectors, taps, ctx.saved)
    if ctx.saved.order == MAP:
        return (chosen, mean)
    return (to_result(torch.cat([chosen, mean], 1), ctx.saved), None)


def _mixed_slope_gradients(
    name: str, ctx: Any, own: Tensor | None, kept: list[Tensor], of_slope: Tensor
) -> tuple[list[Any], None]:
    if not any(ctx.needed[0]):
        return [None] * len(ctx.saved.layouts), None
    g = to_result(of_slope, ctx.saved)
    of_max = call("select_backward", g, _present(kept[0], "taps"), *ctx.saved)
    of_mean = call("avg_pool_backward", g, None, [], None, [], [0, 0], *ctx.saved)
    return [(a - b).to(ctx.dtype) for a, b in zip(of_max, of_mean)], None


def _mixed_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    grad, _, alpha, taps = ctx.saved_tensors
    saved: Saved = ctx.saved
    chosen, mean = map(_accumulated, _max_and_mean(vectors, taps, saved))
    grad_grad = grad_alpha = None
    if ctx.needed[0]:
        a = ctx.own[0][0] if alpha is None else _per_output(alpha, chosen)
        grad_grad = to_result((a * chosen + (1 - a) * mean).to(grad.dtype), saved)
    if alpha is not None and ctx.needed[3]:
        grad_alpha = _parameter_gradient(grad, chosen - mean, alpha, saved)
    return (grad_grad, None, [None], grad_alpha)


# All others: their windows once more by operations of torch in float64, differentiated as often as is asked. No kernel.


def _pool_windows(
    name: str, tensors: Sequence[Tensor], parameter: Tensor | None, numbers: Sequence[float], saved: Saved
) -> list[Tensor]:
    """The results (N, C, bins) of `tensors` in float64; `parameter` broadcasts to them, or is one of the numbers."""
    bins = _bins_of_levels(saved)
    levels = iter(saved.window)
    rows = []
    first = 0
    for x in tensors:
        parts = []
        begin = 0
        for count in bins:
            index, exist = elements(list(islice(levels, 6 * saved.rank)), x.shape[2:], x.device)
            here = parameter
            if parameter is not None and parameter.shape[2] > 1:
                here = parameter[first : first + len(x), :, begin : begin + count]
            parts.append(WINDOW_FORMULAS[name](x.flatten(2)[:, :, index], exist, here, numbers))
            begin += count
        rows.append([torch.cat(level, 2) for level in zip(*parts)])
        first += len(x)
    return [torch.cat(result) for result in zip(*rows)]


def _slope_gradients(
    name: str, ctx: Any, own: Tensor, kept: list[Tensor], of_slope: Tensor
) -> tuple[list[Any], Tensor]:
    _, _, *tensors = kept
    numbers, u = ctx.own[0], of_slope.flatten(2).double()

    def slope(xs: list[Tensor], own: Tensor) -> Tensor:
        each = own.expand(u.shape)
        (y,), pull = vjp(lambda each: _pool_windows(name, xs, each, numbers, ctx.saved), each)
        gradient: Tensor = pull([torch.ones_like(y)])[0]
        return gradient

    _, pull = vjp(slope, [x.double() for x in tensors], own.double().reshape(1, -1, 1))
    of_inputs, of_own = pull(u)
    return [g.to(ctx.dtype) for g in of_inputs], of_own.reshape(own.shape).to(own.dtype)


def _any_backward_backward(name: str) -> Callable[..., Grads]:
    def backward(ctx: Any, vectors: list[Tensor]) -> Grads:
        grad, second, own, _, _, *tensors = ctx.saved_tensors
        saved: Saved = ctx.saved
        parameter, numbers = None if own is None else own.double().reshape(1, -1, 1), ctx.own[0]
        wide = [v.double() for v in vectors]
        grads = [from_result(g, saved).flatten(2).double() for g in _results_of(grad, second, saved, RESULTS[name])]

        def product(gs: list[Tensor], xs: list[Tensor], parameter: Tensor | None = parameter) -> Tensor:
            _, pull = vjp(lambda xs: _pool_windows(name, xs, parameter, numbers, saved), xs)
            total: Tensor = sum((v * g).sum() for v, g in zip(wide, pull(gs)[0]))
            return total

        arguments = [grads, [x.double() for x in tensors], *([] if own is None else [parameter])]
        value, pull = vjp(product, *arguments)
        of_grads, of_inputs, *of_own = pull(torch.ones_like(value))
        if second is None and len(of_grads) > 1:
            of_grads = [torch.cat(of_grads, 1)]
        first, *more = [
            to_result(g, saved).reshape(grad.shape).to(grad.dtype) if i == 0 or saved.order == MAP else g
            for i, g in enumerate(of_grads)
        ]
        of_parameter = of_own[0].reshape(own.shape).to(own.dtype) if own is not None else None
        kept = [None, None, *[g.to(x.dtype) for g, x in zip(of_inputs, tensors)]]
        return (first.reshape(grad.shape), more[0].reshape(grad.shape) if more else None, kept, of_parameter)

    return backward


def _results_of(grad: Tensor, second: Tensor | None, saved: Saved, results: Sequence[str]) -> list[Tensor]:
    """The gradients of each result: a pyramid has both in one."""
    if "second" not in results:
        return [grad]
    if second is not None:
        return [grad, second]
    both = from_result(grad, saved, 2)
    return [to_result(half, saved) for half in both.chunk(2, 1)]


# Pieces of second derivatives. Results of pyramids are handled as (N, C, bins of all levels).


def _laid_out(tensors: Sequence[Tensor], saved: Saved) -> list[Tensor]:
    """Brings tensors to the layout of the saved taps."""
    return [laid_out(x, layout) for x, layout in zip(tensors, saved.layouts)]


def _max_and_mean(tensors: Sequence[Tensor], taps: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
    xs = _laid_out(tensors, saved)
    order = MAP if saved.order == MAP else BY_CHANNEL
    chosen = call("select", xs, taps, saved.window, order)
    mean = _average(xs, saved.window, order, (0, 0))
    if saved.order == MAP:
        return chosen, mean
    planes = (chosen.shape[0], saved.sizes[1], sum(_bins_of_levels(saved)))
    return chosen.reshape(planes), mean.reshape(planes)


def _average(tensors: Sequence[Tensor], window: Sequence[int], order: int, integers: Sequence[int]) -> Tensor:
    mean: Tensor = call("avg_pool", tensors, None, [], integers, window, order, 0)
    return mean


def _bins_of_levels(saved: Saved) -> list[int]:
    return bins_of_levels(saved.window, saved.rank, len(saved.layouts))


def to_result(y: Tensor, saved: Saved) -> Tensor:
    if saved.order == MAP:
        return y
    if saved.order == BY_LEVEL:
        return torch.cat([level.flatten(1) for level in y.split_with_sizes(_bins_of_levels(saved), 2)], 1)
    return y.flatten(1)


def from_result(y: Tensor, saved: Saved, maps: int = 1) -> Tensor:
    if saved.order == MAP:
        return y
    n, c, bins = y.shape[0], maps * saved.sizes[1], _bins_of_levels(saved)
    if saved.order == BY_LEVEL:
        levels = y.split_with_sizes([c * b for b in bins], 1)
        return torch.cat([level.reshape(n, c, b) for level, b in zip(levels, bins)], 2)
    return y.reshape(n, c, sum(bins))


def _per_output(alpha: Tensor, y: Tensor) -> Tensor:
    return alpha.reshape(-1, *[1] * (y.dim() - 2)) if alpha.dim() == 1 else alpha


def _accumulated(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


INPUT_GRADIENTS: dict[str, Callable[..., list[Any]]] = {"max_avg_pool": _max_avg_gradients}
SLOPE_GRADIENTS: dict[str, Callable[..., tuple[list[Any], Any]]] = {"mixed_pool": _mixed_slope_gradients}
SECOND = {
    "avg_pool_backward": _avg_backward_backward,
    "max_avg_pool_backward": _max_avg_backward_backward,
    "mixed_pool_backward": _mixed_backward_backward,
}
FORMULAS = {name: Formula(_saver(name), _backward(name)) for name in POOLS}
FORMULAS |= {
    name: Formula(_save_pool_backward, SECOND[name] if name in SECOND else _any_backward_backward(pool))
    for pool in POOLS
    for name in [f"{pool}_backward"]
    if name in OPERATORS
}
FORMULAS |= {
    "select": Formula(_save_select, _select_backward),
    "select_backward": Formula(_save_select_backward, _select_backward_backward),
    "parameter_backward": Formula(_save_parameter, _parameter_backward),
    "correlate": Formula(_save_correlate, _correlate_backward),
    "correlate_input": Formula(_save_correlate_input, _correlate_input_backward),
    "correlate_filters": Formula(_save_correlate_filters, _correlate_filters_backward),
    "logistic": Formula(_save_logistic, _logistic_backward),
}
# Of operators that are linear, the taps given, the adjoint: whose gradient is their derivative.
ADJOINTS = {name: "select_backward" for name in POOLS if f"{name}_backward" not in OPERATORS}
ADJOINTS |= {"select": "select_backward", "avg_pool": "avg_pool_backward"}
ADJOINTS |= {"select_backward": "select", "avg_pool_backward": "avg_pool"}
