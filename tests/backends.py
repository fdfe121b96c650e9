"""What two backends must agree on for one case: bit by bit, or as closely as rounding allows."""

import math
import re

import cases
import reference
import torch
from comparison import assert_bitwise, assert_close
from poolings import AVG, BY_TABLE, EXPECTATION_RELU, EXPECTATION_SOFTMAX, MAX, MAX_AVG, MIN, MIXED, TABLE, form_of

import fastpool._C as extension
import fastpool.functional as F
from fastpool._windows import sliding

DRAWS = {
    "relu": {"distribution": "relu"},
    "softmax": {"distribution": "softmax", "temperature": 0.5},
}
WEIGHTED = ("expectation softmax", *(pooling.function for pooling in BY_TABLE))
ROUNDED = (AVG, MAX_AVG, MIXED, EXPECTATION_RELU, EXPECTATION_SOFTMAX, *BY_TABLE)


def supported(capability):
    """A capability that this processor lacks is refused, not silently replaced."""
    try:
        extension.set_cpu_capability(capability)
    except (RuntimeError, ValueError):
        return False
    return True


def on_device(x):
    """The same values and strides on the CUDA device."""
    moved = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
    return moved.copy_(x.detach()) if all(x.stride()) else x.detach().cuda().expand(x.shape)


def incoming(outputs):
    return [(torch.arange(y.numel(), device=y.device) % 5 - 2).view(y.shape).to(y) for y in outputs]


def gradient(outputs, x):
    return torch.autograd.grad(outputs, x, incoming(outputs))[0]


def selections(case, x):
    """Everything whose bits are promised on every backend."""
    results = {}
    for pooling in (MAX, MIN):
        values, indices = pooling(case, x, return_indices=True)
        results |= {f"{pooling}": values, f"{pooling} indices": indices, f"{pooling} gradient": gradient([values], x)}
    for name, options in DRAWS.items():
        values, indices = EXPECTATION_RELU(case, x, training=True, seed=77, return_indices=True, **options)
        results |= {f"{name} draw": values, f"{name} indices": indices, f"{name} gradient": gradient([values], x)}
    largest, average = MAX_AVG(case, x)
    results["max of max_avg"] = largest
    if form_of(case) == "sliding" and (case.windows()[1].sizes <= reference.MANY_TAPS).all():
        results |= {"avg": AVG(case, x)[0], "avg of max_avg": average}
    return {name: result.detach() for name, result in results.items()}


def rounded(case, x):
    """What backends compute in orders of their own."""
    results = {}
    for pooling in ROUNDED:
        if form_of(case) not in pooling.forms:
            continue
        outputs = pooling(case, x)
        results |= {f"{pooling} {i}": y.detach() for i, y in enumerate(outputs)}
        results[f"{pooling} gradient"] = gradient(outputs, x)
    alpha = torch.linspace(0.1, 0.9, x.shape[1 if case.batched else 0], dtype=x.dtype, device=x.device).requires_grad_()
    (mixture,) = MIXED(case, x, alpha=alpha)
    results["mixture"] = mixture.detach()
    gradients = torch.autograd.grad([mixture], (x, alpha), incoming([mixture]))
    results["mixture gradient"], results["alpha gradient"] = gradients
    for pooling in BY_TABLE:
        kind = TABLE[pooling.function]
        if kind.parameter and form_of(case) in pooling.forms:
            learned = (1 + alpha.detach()).requires_grad_()
            outputs = pooling(case, x, **{kind.arguments[0].name: learned})
            gradient_of = torch.autograd.grad(outputs, learned, [torch.ones_like(y) for y in outputs])
            taps = int(case.windows()[1].sizes.max())
            (results[f"{pooling} parameter of {taps} taps"],) = gradient_of
    return results


# How many filters, shared by all channels or not, with a bias or not.
FILTERS = ((3, False, True), (1, True, True), (6, True, False))


def filters_of(case):
    """Each of them, in turns the first."""
    turn = len(str(case)) % 3
    return FILTERS[turn:] + FILTERS[:turn]


def windows_of_filters(case, dtype):
    """-> batched input, windows as operators take them"""
    x, defaults = case.values(dtype), {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    window = sliding(case.rank, x, **{**defaults, **case.geometry}).window
    return (x if case.batched else x[None]), window


def by_filters(x, window, count, shared, bias):
    """-> what has the same bits everywhere, the filters' gradient"""
    rng = torch.Generator().manual_seed(len(window))
    shape = (count, 1 if shared else x.shape[1], math.prod(window[1::6]) + bias)
    filters = torch.randint(-8, 9, shape, generator=rng).div(8)
    filters = filters.to(x.device, torch.promote_types(x.dtype, torch.float32)).requires_grad_()
    x = x.detach().requires_grad_()
    y = torch.ops.fastpool.correlate(x, filters, window)
    of_x, of_filters = torch.autograd.grad([y], (x, filters), incoming([y]))
    shares = torch.ops.fastpool.logistic(y.detach())
    return {"products": y.detach(), "shares": shares, "gradient": of_x}, {"filters": of_filters}


def check_by_filters(actual, x, window, options, what):
    """What another backend gave, against the CPU's kernels."""
    same, of_filters = by_filters(x, window, *options)
    check_bitwise(actual[0], same, f"{what} {options}")
    exact = by_filters(x.double(), window, *options)[1]
    check_close(actual[1], of_filters, exact, f"{what} {options}")


PYRAMIDS = {
    "levels": ((2, 8, 13, 11), {"levels": (4, 2, 1)}),
    "large levels": ((2, 3, 37, 40), {"levels": (2, 1)}),
    "levels of both summing orders": ((2, 4, 40, 40), {"levels": (5, 2, 1)}),
    "nested levels": ((3, 50, 16, 32), {"levels": (4, 2, 1)}),
    "nested levels of half packs": ((2, 8, 12, 24), {"levels": (2, 1)}),
    "nested levels of one row": ((2, 70, 24, 16), {"levels": ((2, 4), (1, 2), 1)}),
    "cells of short rows": ((3, 9, 14, 14), {"levels": (4, 2, 1)}),
    "cells that leave some out": ((2, 8, 15, 7), {"levels": (2, 1), "bins": "floor"}),
    "short planes of one row": ((2, 21, 1, 10), {"levels": ((1, 2), 1)}),
    "channel order": ((2, 3, 9, 8), {"levels": (3, 1), "flatten": "channel"}),
    "no order": ((3, 5, 9, 8), {"levels": ((2, 3), 1), "flatten": None}),
    "floor bins": ((2, 3, 11, 9), {"levels": (4, 3), "bins": "floor"}),
    "eight levels": ((1, 2, 9, 9), {"levels": tuple(range(1, 9))}),
}


def pyramids(name, x):
    """-> selections, rounded"""
    options = PYRAMIDS[name][1]
    selected, rest = {}, {}
    for mode in (name for name, kind in TABLE.items() if "adaptive" in kind.forms):
        y = F.spatial_pyramid_pool2d(x, mode=mode, **options, **({"seed": 5} if mode == "stochastic" else {}))
        chosen = selected if mode in ("max", "min", "stochastic") else rest
        chosen |= {mode: y.detach(), f"{mode} gradient": gradient([y], x)}
    return selected, rest


def check_bitwise(actual, expected, what):
    assert actual.keys() == expected.keys()
    for name, result in actual.items():
        assert_bitwise(result.cpu(), expected[name], f"{name}: {what}")


def check_close(actual, expected, exact, what):
    """exact: float64; a backend may err twice as much as the other, and by a unit in the last place.

    Where elements have weights, which rounding moves, too, four times as much. The derivative by a parameter is a
    difference whose terms are larger than it by as much as there are taps.
    """
    assert actual.keys() == expected.keys()
    for name, result in actual.items():
        yardstick = expected[name]
        taps = re.search(r"parameter of (\d+) taps", name)
        if taps:
            yardstick = exact[name] * (1 + 4 * int(taps[1]) * torch.finfo(result.dtype).eps)
        elif name.startswith(WEIGHTED):
            yardstick = 2 * yardstick.double() - exact[name]
        assert_close(result.cpu(), exact[name].numpy(), yardstick, f"{name}: {what}")


def prepared(case, dtype):
    return case.values(dtype).requires_grad_()


def dtypes(case):
    """float32 and, in turn, one of the others."""
    return torch.float32, (torch.float16, torch.bfloat16, torch.float64)[len(str(case)) % 3]


CASES = cases.ALL
# Where the formula gives NaN for infinities, gradients of one backend may be NaN and of another the other windows'.
FINITE = [case for case in CASES if "inf" not in case.pattern and "nan" not in case.pattern]
SLIDING = [case for case in FINITE if form_of(case) == "sliding"]
