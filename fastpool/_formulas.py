"""Gradients: for each operator what its forward saves and how its backward uses that, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._layouts import layout_of, memory_format
from ._operators import DISTRIBUTIONS, call
from ._windows import BY_CHANNEL, BY_LEVEL, MAP, bins_of_levels, elements

Grads = tuple[Any, ...]


class Formula(NamedTuple):
    save: Callable[[Any, tuple[Any, ...], Any], None]
    backward: Callable[..., Grads]  # gradients of the leading arguments; the others have none


class Saved(NamedTuple):
    """What a backward operator is told about the inputs and their windows, in the order of its arguments."""

    sizes: Sequence[int]
    rank: int
    layouts: Sequence[int]
    window: Sequence[int]
    order: int


def _saved(inputs: Sequence[Tensor], window: Sequence[int], order: int) -> Saved:
    x = inputs[0]
    if len(inputs) == 1:
        return Saved(x.shape, x.dim() - 2, (layout_of(x),), window, order)
    return Saved([n for x in inputs for n in x.shape], x.dim() - 2, [layout_of(x) for x in inputs], window, order)


def _present(saved: Tensor, what: str) -> Tensor:
    if saved.dim() == 1:
        raise RuntimeError(f"no {what} saved: the forward pass ran or was exported without gradients; record it again")
    return saved


# Selections: max and the stochastic draw. select and select_backward are each other's adjoint.


def _save_selection(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, *_, window, order, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])
    ctx.saved = _saved(tensors, window, order)


def _selection_backward(ctx: Any, grad: Tensor, _: None) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select_backward", grad, _present(taps, "taps"), *ctx.saved),)


def _save_select(ctx: Any, inputs: Any, output: Tensor) -> None:
    tensors, taps, window, order = inputs
    ctx.save_for_backward(taps)
    ctx.saved = _saved(tensors, window, order)


def _select_backward(ctx: Any, grad: Tensor) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select_backward", grad, taps, *ctx.saved),)


def _save_select_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    _, taps, *saved = inputs
    ctx.save_for_backward(taps)
    ctx.saved = Saved(*saved)


def _select_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    (taps,) = ctx.saved_tensors
    return (call("select", _laid_out(vectors, ctx.saved), taps, ctx.saved.window, ctx.saved.order),)


# Averages: avg_pool and avg_pool_backward are each other's adjoint.


def _save_avg(ctx: Any, inputs: Any, output: Tensor) -> None:
    tensors, window, order, *divisor = inputs
    ctx.saved, ctx.divisor = _saved(tensors, window, order), divisor


def _avg_backward(ctx: Any, grad: Tensor) -> Grads:
    return (call("avg_pool_backward", grad, *ctx.saved, *ctx.divisor),)


def _save_avg_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    _, sizes, rank, layouts, window, order, *divisor = inputs
    ctx.saved, ctx.divisor = Saved(sizes, rank, layouts, window, order), divisor


def _avg_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    return (call("avg_pool", _laid_out(vectors, ctx.saved), ctx.saved.window, ctx.saved.order, *ctx.divisor),)


# Maximum and average from one read.


def _save_max_avg(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, window, order, _ = inputs
    ctx.set_materialize_grads(False)
    if order != MAP:
        ctx.mark_non_differentiable(output[1])  # empty: a pyramid holds both results in one
    ctx.save_for_backward(output[2])
    ctx.saved = _saved(tensors, window, order)


def _max_avg_backward(ctx: Any, grad: Tensor | None, grad_average: Tensor | None, _: None) -> Grads:
    (taps,) = ctx.saved_tensors
    if grad is None:
        return (call("avg_pool_backward", grad_average, *ctx.saved, False, 0),)
    _present(taps, "taps")
    if grad_average is None and ctx.saved.order == MAP:
        return (call("select_backward", grad, taps, *ctx.saved),)
    return (call("max_avg_pool_backward", grad, grad_average, taps, *ctx.saved),)


def _save_max_avg_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    _, _, taps, *saved = inputs
    ctx.save_for_backward(taps)
    ctx.saved = Saved(*saved)


def _max_avg_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    (taps,) = ctx.saved_tensors
    chosen, mean = _max_and_mean(vectors, taps, ctx.saved)
    if ctx.saved.order == MAP:
        return (chosen, mean)
    return (_to_result(torch.cat([chosen, mean], 1), ctx.saved), None)


# Mixed: alpha*max + (1 - alpha)*avg. `difference` = max - avg is an output, so that the gradient of alpha has one too.


def _save_mixed(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, alpha, alpha_value, window, order, _, save_difference = inputs
    result, taps, difference = output
    ctx.set_materialize_grads(False)
    if not save_difference:
        ctx.mark_non_differentiable(difference)
    ctx.save_for_backward(taps, difference, alpha)
    ctx.saved, ctx.alpha_value, ctx.dtype = _saved(tensors, window, order), alpha_value, result.dtype


def _mixed_backward(ctx: Any, grad: Tensor | None, _: None, grad_difference: Tensor | None) -> Grads:
    taps, difference, alpha = ctx.saved_tensors
    saved: Saved = ctx.saved
    grad_inputs: list[Any] = [None] * len(saved.layouts)
    grad_alpha = None
    if any(ctx.needed[0]):
        _present(taps, "taps")
        if grad is not None:
            grad_inputs = call("mixed_pool_backward", grad, taps, alpha, ctx.alpha_value, *saved)
        if grad_difference is not None:
            g = _to_result(grad_difference, saved)
            of_max = call("select_backward", g, taps, *saved)
            of_mean = call("avg_pool_backward", g, *saved, False, 0)
            of_difference = [a - b for a, b in zip(of_max, of_mean)]
            grad_inputs = [b if grad is None else a + b for a, b in zip(grad_inputs, of_difference)]
            grad_inputs = [gradient.to(ctx.dtype) for gradient in grad_inputs]
    if alpha is not None and ctx.needed[1] and grad is not None:
        _present(difference, "difference of max and average")
        grad_alpha = _alpha_backward(grad, difference, alpha, saved)
    return (grad_inputs, grad_alpha)


def _alpha_backward(grad: Tensor, difference: Tensor, alpha: Tensor, saved: Saved) -> Tensor:
    sizes, rank, _, window, order = saved
    gradient: Tensor = call("mixed_alpha_backward", grad, difference, alpha, window, sizes, rank, order)
    return gradient


def _save_mixed_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    grad, taps, alpha, alpha_value, *saved = inputs
    ctx.save_for_backward(grad, taps, alpha)
    ctx.saved, ctx.alpha_value = Saved(*saved), alpha_value


def _mixed_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    grad, taps, alpha = ctx.saved_tensors
    saved: Saved = ctx.saved
    chosen, mean = map(_accumulated, _max_and_mean(vectors, taps, saved))
    grad_grad = grad_alpha = None
    if ctx.needed[0]:
        a = ctx.alpha_value if alpha is None else _per_output(alpha, chosen)
        grad_grad = _to_result((a * chosen + (1 - a) * mean).to(grad.dtype), saved)
    if alpha is not None and ctx.needed[2]:
        grad_alpha = _alpha_backward(grad, chosen - mean, alpha, saved)
    return (grad_grad, None, grad_alpha)


def _save_mixed_alpha_backward(ctx: Any, inputs: Any, output: Tensor) -> None:
    grad, difference, _, window, sizes, rank, order = inputs
    count = len(sizes) // (rank + 2)
    ctx.save_for_backward(grad, difference)
    ctx.saved = Saved(sizes, rank, [0] * count, window, order)


def _mixed_alpha_backward_backward(ctx: Any, vector: Tensor) -> Grads:
    grad, difference = ctx.saved_tensors
    v = _per_output(_accumulated(vector), difference)
    grad_grad = _to_result((v * difference).to(grad.dtype), ctx.saved)
    return (grad_grad, (v * _from_result(grad, ctx.saved)).to(difference.dtype))


# The stochastic expectation: not linear in the input, so its second derivative is another formula, and no kernel.


def _save_expectation(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, distribution, temperature, window, order, saves_moments = inputs
    result, moments = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(moments)
    # Without moments the result is found again, too.
    ctx.save_for_backward(result if saves_moments else moments, moments, *tensors)
    ctx.kind, ctx.windows = (distribution, temperature), (window, order)


def _expectation_backward(ctx: Any, grad: Tensor, _: None) -> Grads:
    result, moments, *tensors = ctx.saved_tensors
    return (call("expectation_pool_backward", grad, tensors, result, moments, *ctx.kind, *ctx.windows),)


def _save_expectation_backward(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    grad, tensors, _, _, distribution, temperature, window, order = inputs
    ctx.save_for_backward(grad, *tensors)
    ctx.saved, ctx.kind = _saved(tensors, window, order), (distribution, temperature)


def _expectation_backward_backward(ctx: Any, vectors: list[Tensor]) -> Grads:
    """By operations of torch, on copies of all windows in float64."""
    grad, *tensors = ctx.saved_tensors
    saved: Saved = ctx.saved
    g = _from_result(grad, saved).flatten(2).double()
    bins = [g.shape[2]] if saved.order == MAP else _bins_of_levels(saved)
    numbers = iter(saved.window)
    grad_grad, grad_tensors = [], []
    for x, v, rows in zip(tensors, vectors, g.split_with_sizes([len(x) for x in tensors])):
        total, products = torch.zeros_like(x, dtype=torch.float64).flatten(2).permute(2, 0, 1), []
        for row in rows.split_with_sizes(bins, 2):
            window = list(islice(numbers, 6 * saved.rank))
            index, exist = elements(window, x.shape[2:], x.device)
            windows_of_x, windows_of_v = (t.double().flatten(2)[:, :, index] for t in (x, v))
            product, gradient = _expectation_second(windows_of_x, windows_of_v, exist, *ctx.kind)
            gradient = (row[..., None] * gradient).where(exist, 0)
            # Unlike index_add, no atomics on CUDA.
            total = total.index_put((index,), gradient.permute(2, 3, 0, 1), accumulate=True)
            products.append(product)
        grad_grad.append(torch.cat(products, 2))
        grad_tensors.append(total.permute(1, 2, 0).reshape(x.shape).to(x.dtype))
    return (_to_result(torch.cat(grad_grad), saved).reshape(grad.shape).to(grad.dtype), grad_tensors)


def _expectation_second(
    x: Tensor, v: Tensor, exist: Tensor, distribution: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Of windows (N, C, windows, taps) and a direction v: the product of the expectation's gradient with v, and the
    gradient of that product.

    relu:    product = 2 E[v] - y sum v / sum w, over the positive elements
    softmax: product = E[v] + Cov(x, v) / temperature

    where E and Cov are those of the draw. Both are computed from w and x beside the largest of the window.
    """
    if distribution == DISTRIBUTIONS["relu"]:
        drawn = exist & ~(x <= 0)  # NaN counts
        w, v = x.where(drawn, 0), v.where(drawn, 0)
        largest = w.detach().amax(-1, keepdim=True)
        largest = largest.where(largest != 0, 1)
        w = w / largest
        total = w.sum(-1, keepdim=True)
        total = total.where(total != 0, 1)
        p, sum_v = w / total, v.sum(-1, keepdim=True) / total
        y = (p * w).sum(-1, keepdim=True)
        product = 2 * (p * v).sum(-1, keepdim=True) - y * sum_v
        gradient = (2 * v - (2 * w - y) * sum_v - product) / total / largest
        return product.squeeze(-1), gradient.where(drawn, 0)
    x = x.masked_fill(~exist, -torch.inf)
    p = ((x - x.detach().amax(-1, keepdim=True)) / temperature).softmax(-1)
    x, v = x.where(p > 0, 0), v.where(p > 0, 0)  # what has no weight contributes nothing, be it infinite
    x = (x - (p * x).sum(-1, keepdim=True)) / temperature
    mean_v = (p * v).sum(-1, keepdim=True)
    covariance = (p * x * (v - mean_v)).sum(-1, keepdim=True)
    gradient = p / temperature * (2 * (v - mean_v) + x * (v - mean_v) - covariance)
    return (mean_v + covariance).squeeze(-1), gradient


# Pieces of second derivatives. Results of pyramids are handled as (N, C, bins of all levels).


def _laid_out(tensors: Sequence[Tensor], saved: Saved) -> list[Tensor]:
    """Brings tensors to the layout of the saved taps."""
    return [x.contiguous(memory_format=memory_format(last, x.dim())) for x, last in zip(tensors, saved.layouts)]


def _max_and_mean(tensors: Sequence[Tensor], taps: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
    xs = _laid_out(tensors, saved)
    order = MAP if saved.order == MAP else BY_CHANNEL
    chosen = call("select", xs, taps, saved.window, order)
    mean = call("avg_pool", xs, saved.window, order, False, 0)
    if saved.order == MAP:
        return chosen, mean
    planes = (chosen.shape[0], saved.sizes[1], sum(_bins_of_levels(saved)))
    return chosen.reshape(planes), mean.reshape(planes)


def _bins_of_levels(saved: Saved) -> list[int]:
    return bins_of_levels(saved.window, saved.rank, len(saved.layouts))


def _to_result(y: Tensor, saved: Saved) -> Tensor:
    if saved.order == MAP:
        return y
    if saved.order == BY_LEVEL:
        return torch.cat([level.flatten(1) for level in y.split_with_sizes(_bins_of_levels(saved), 2)], 1)
    return y.flatten(1)


def _from_result(y: Tensor, saved: Saved) -> Tensor:
    if saved.order == MAP:
        return y
    n, c, bins = y.shape[0], saved.sizes[1], _bins_of_levels(saved)
    if saved.order == BY_LEVEL:
        levels = y.split_with_sizes([c * b for b in bins], 1)
        return torch.cat([level.reshape(n, c, b) for level, b in zip(levels, bins)], 2)
    return y.reshape(n, c, sum(bins))


def _per_output(alpha: Tensor, y: Tensor) -> Tensor:
    return alpha.reshape(-1, *[1] * (y.dim() - 2)) if alpha.dim() == 1 else alpha


def _accumulated(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


FORMULAS = {
    "max_pool": Formula(_save_selection, _selection_backward),
    "stochastic_pool": Formula(_save_selection, _selection_backward),
    "avg_pool": Formula(_save_avg, _avg_backward),
    "max_avg_pool": Formula(_save_max_avg, _max_avg_backward),
    "mixed_pool": Formula(_save_mixed, _mixed_backward),
    "expectation_pool": Formula(_save_expectation, _expectation_backward),
    "select": Formula(_save_select, _select_backward),
    "select_backward": Formula(_save_select_backward, _select_backward_backward),
    "avg_pool_backward": Formula(_save_avg_backward, _avg_backward_backward),
    "max_avg_pool_backward": Formula(_save_max_avg_backward, _max_avg_backward_backward),
    "mixed_pool_backward": Formula(_save_mixed_backward, _mixed_backward_backward),
    "mixed_alpha_backward": Formula(_save_mixed_alpha_backward, _mixed_alpha_backward_backward),
    "expectation_pool_backward": Formula(_save_expectation_backward, _expectation_backward_backward),
}
