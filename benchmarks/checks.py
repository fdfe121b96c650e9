"""Correctness of what is timed, on the tensors that are timed."""

from __future__ import annotations

import math

import torch

from .compositions import bin_windows, maximum, tap_slices
from .layers import Layer
from .operations import Operation

# torch.testing's default relative tolerances.
RELATIVE = {torch.float16: 1e-3, torch.bfloat16: 1.6e-2, torch.float32: 1.3e-6, torch.float64: 1e-7}
ABSOLUTE = 1e-5
# Tells a wrong graph from a rival's own rounding.
RIVAL_RELATIVE = 0.1


def tensors(result) -> tuple[torch.Tensor, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def differentiable(result) -> list[torch.Tensor]:
    return [y for y in tensors(result) if y.is_floating_point()]


class Oracle:
    """The first rival's results in float64 for the same input, random gradients for them, and the input's gradients.
    Of draws only the shape of the result is of use: that of the maxima."""

    def __init__(self, operation: Operation, layer: Layer, inputs, backward: bool):
        self.operation, self.layer, self.x = operation, layer, inputs[0]
        self.drawn = operation.check.startswith("drawn")
        # Contiguous: torch's gradient of padded averages over channels-last input is wrong on CUDA (pytorch#188344).
        wide = [t.double().contiguous().requires_grad_(backward and not self.drawn) for t in inputs]
        reference = maximum if self.drawn else next(iter(operation.rivals.values()))
        result = reference(layer)(*wide)
        self.exact = [y.detach() for y in tensors(result)]
        self.results = [y.to(self.x.dtype) if y.is_floating_point() else y for y in self.exact]
        self.gradients = [torch.randn_like(y) for y in differentiable(self.results)] if backward else []
        self.input_gradients = ()
        if backward and not self.drawn:
            wanted = [g.double() for g in self.gradients]
            self.input_gradients = torch.autograd.grad(differentiable(result), wide, wanted)

    def check(self, result, input_gradients=(), rival=False) -> float | None:
        """AssertionError unless the result, and fastpool's gradients, are right. Returns their largest error; of draws,
        which have none, None."""
        results = [y.detach() for y in tensors(result)]
        if self.drawn:
            relu = self.operation.check == "drawn-relu"
            assert_drawn(results[0], self.x, self.layer, relu, rival)
            if input_gradients and not rival:
                assert_routed(input_gradients[0], self.gradients[0], results[0], self.x, relu)
            return None
        exact = self.operation.check == "equal" and not rival
        for actual, expected in zip(results, self.results, strict=True):
            assert_near(actual, expected, RIVAL_RELATIVE if rival else None, exact)
        # A rival may spread the gradient of tied maxima, so only fastpool's is compared.
        if not rival:
            for actual, expected in zip(input_gradients, self.input_gradients, strict=True):
                assert_near(actual, expected)
        pairs = [*zip(results, self.exact), *zip(input_gradients, self.input_gradients)]
        return max(error(actual, expected) for actual, expected in pairs)


def error(actual, expected) -> float:
    """The largest, as a part of the largest magnitude."""
    largest = expected.abs().max().item()
    return (actual - expected).abs().max().item() / (largest or 1.0)


def assert_near(actual, expected, relative=None, exact=False):
    """The tolerance is relative to the largest magnitude, since sums cancel."""
    expected = expected.to(actual.dtype)
    if exact:
        assert torch.equal(actual, expected), f"{(actual != expected).sum()} of {actual.numel()} values differ"
        return
    relative = relative or RELATIVE[actual.dtype]
    absolute = ABSOLUTE + relative * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=relative, atol=absolute, check_stride=False)


def per_level(y, layer):
    """The result of every level as (N, C, outputs)."""
    if layer.windowing != "pyramid":
        return [y.flatten(2)]
    counts = [level**layer.rank for level in layer.levels]
    parts = y.split([layer.shape[1] * count for count in counts], 1)
    return [part.unflatten(1, (layer.shape[1], count)) for part, count in zip(parts, counts, strict=True)]


def assert_drawn(y, x, layer, relu, rival):
    """Every output is an element of its window, and positive wherever the window holds a positive weight."""
    values = x.detach().relu() if relu else x.detach()
    if layer.windowing == "sliding":
        found = torch.zeros_like(y, dtype=torch.bool)
        # NaN in the padding equals no output.
        for value in tap_slices(values, layer, math.nan)[1]:
            found |= value == y
    else:
        found = torch.stack(
            [
                (window == level_y[..., i, None]).any(-1).all()
                for level, level_y in zip(layer.levels, per_level(y, layer), strict=True)
                for i, window in enumerate(bin_windows(values, layer, level))
            ]
        )
    assert found.all(), "a drawn value is not in its window"
    if relu and not rival:
        assert ((y > 0) == (maximum(layer)(values) > 0)).all(), "an element of weight zero was drawn"


def assert_routed(gradient, g, y, x, relu):
    """The gradient reaches drawable elements only, and all of it arrives."""
    if relu:
        assert not gradient[x <= 0].any(), "an element of weight zero received a gradient"
    sent = (g[y > 0] if relu else g).double().sum()
    arrived = gradient.double()
    allowed = torch.finfo(gradient.dtype).eps * arrived.abs().sum()
    assert (arrived.sum() - sent).abs() <= allowed, f"gradient sums to {arrived.sum()}, expected {sent}"
