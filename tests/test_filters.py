"""Gated and tree pooling: filters decide how windows are pooled."""

import backends
import cases
import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise, assert_close
from torch.autograd import gradcheck, gradgradcheck

import fastpool._C as extension
import fastpool.functional as F
from fastpool import nn

CASES = [case for case in cases.SLIDING if "nan" not in case.pattern and "inf" not in case.pattern]


def filters(case, *count, channels):
    """-> count filters, shared or one for each channel, as NumPy has them, and as torch does"""
    kernel = reference.per_axis(case.geometry["kernel_size"], case.rank)
    rng = np.random.default_rng(len(case.name))
    lead = (*count, case.shape[-1 - case.rank]) if channels else count
    weights = rng.normal(size=(*lead, *kernel)) * 0.3
    return weights.reshape(*lead, -1), torch.from_numpy(weights)


@pytest.mark.parametrize("channels", [False, True], ids=["shared", "per channel"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case, channels):
    size, windows = case.windows()
    weight, weights = filters(case, channels=channels)
    leaf, leaves = filters(case, 4, channels=channels)
    gate, gates = filters(case, 3, channels=channels)
    for dtype in cases.some_dtypes(case):
        x = case.values(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        x64, function = case.array(x), f"pool{case.rank}d"
        pool = getattr(F, f"gated_{function}")
        y = pool(x, **case.geometry, weight=weights.to(wide), bias=torch.tensor(0.2, dtype=wide))
        expected = reference.gated_pool(x64, windows, weight, 0.2)
        z = getattr(F, f"tree_{function}")(x, **case.geometry, leaves=leaves.to(wide), gates=gates.to(wide))
        for what, actual, exact in (("gated", y, expected), ("tree", z, reference.tree_pool(x64, windows, leaf, gate))):
            assert actual.dtype == dtype
            exact = case.unflatten(exact, size)
            # A sum of K products, each of which rounding moves by a unit in its last place.
            largest = max(np.abs(x64[np.isfinite(x64)]).max(initial=1), 1) * weight.shape[-1]
            rounding = torch.finfo(wide).eps * largest * np.maximum(np.abs(exact), 1) * 4
            composed = torch.from_numpy(exact + rounding).to(dtype)
            assert_close(actual, exact, composed, f"{what} of {case}")


X = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WINDOWS = {"kernel_size": (3, 2), "stride": 2, "padding": ((1, 0), (0, 1)), "ceil_mode": True}


@pytest.mark.parametrize("lead", [(), (2,)], ids=["shared", "per channel"])
def test_gradients(lead):
    weight, leaves, gates = (torch.randn(*shape, *lead, 3, 2, dtype=torch.float64) for shape in ((), (4,), (3,)))
    bias = torch.randn(lead, dtype=torch.float64)
    gated = [tensor.requires_grad_() for tensor in (X.clone(), weight, bias)]
    tree = [tensor.requires_grad_() for tensor in (X.clone(), leaves, gates)]
    for pool, inputs in (
        (lambda x, w, b: F.gated_pool2d(x, **WINDOWS, weight=w, bias=b), gated),
        (lambda x, v, w: F.tree_pool2d(x, **WINDOWS, leaves=v, gates=w), tree),
    ):
        assert gradcheck(pool, inputs)
        assert gradgradcheck(pool, inputs)


FAR = cases.sliding("far apart", (2, 3, 9, 40), 3, "integers", stride=1, padding=(1, 2**20), dilation=(1, 2**20))


@pytest.mark.parametrize("schedule", ["tiled", "cuda"])
@pytest.mark.parametrize("channels", [False, True], ids=["shared", "per channel"])
@pytest.mark.parametrize("case", [*CASES[::3], FAR], ids=str)
@pytest.mark.usefixtures("restored_hooks")
def test_weights_that_are_no_numbers_meet_no_padding(case, channels, schedule):
    """Whole numbers: the input's gradient is exact."""
    if schedule == "cuda" and not extension.build_info()["emulation"]:
        pytest.skip("this build has no emulation; FASTPOOL_EMULATION=1 gives it one")
    x, window = backends.windows_of_filters(case, torch.float32)
    _, windows = case.windows()
    weight, _ = filters(case, channels=channels)
    weight = np.round(weight * 8)
    weight[..., 0], weight[..., -1] = np.inf, np.nan
    taps = torch.from_numpy(weight).float().view(1, -1, weight.shape[-1])
    x = x.detach().requires_grad_()
    extension.set_schedule(schedule)
    y = torch.ops.fastpool.correlate(x, taps, window)
    (g,) = backends.incoming([y])
    (actual,) = torch.autograd.grad(y, x, g)
    planes = reference.planes(g.double().numpy().reshape(*x.shape[:2], *y.shape[-case.rank :]))
    weight = weight if weight.ndim == 1 else weight[:, None, :]
    with np.errstate(invalid="ignore"):
        expected = reference.spread(lambda grid: planes[:, :, grid.numbers, None] * weight, windows, x.shape)
    assert_bitwise(actual + 0.0, expected, f"{case}")


def test_two_leaves_and_equal_gates_are_the_mean_of_both():
    leaves = torch.randn(2, 3, 3, dtype=torch.float64)
    y = F.tree_pool2d(X, 3, leaves=leaves, gates=torch.zeros(1, 3, 3, dtype=torch.float64))
    halves = [F.tree_pool2d(X, 3, leaves=leaf.expand(2, 3, 3), gates=torch.ones(1, 3, 3).double()) for leaf in leaves]
    assert torch.allclose(y, sum(halves) / 2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("num_channels", [None, 3])
def test_modules(rank, num_channels):
    x = torch.randn(2, 3, *[7] * rank)
    for name, options in (("GatedPool", {"bias": True}), ("TreePool", {"levels": 1}), ("TreePool", {})):
        module = getattr(nn, f"{name}{rank}d")(3, 2, 1, num_channels=num_channels, **options)
        module(x).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
        assert module(x[:0]).shape == module(x)[:0].shape
        copy = getattr(nn, f"{name}{rank}d")(3, 2, 1, num_channels=num_channels, **options)
        copy.load_state_dict(module.state_dict())
        assert torch.equal(copy(x), module(x))
        assert "kernel_size=3" in repr(module)


W = torch.zeros(3, 3)
BAD = [
    (lambda x: F.gated_pool2d(x, 3, weight=torch.zeros(2, 2)), ValueError, ["weight", "(2, 2)"]),
    (lambda x: F.gated_pool2d(x, 3, weight=W.double()), TypeError, ["weight", "float64"]),
    (lambda x: F.gated_pool2d(x, 3, weight=W.to("meta")), ValueError, ["weight", "meta"]),
    (lambda x: F.gated_pool2d(x, 3, weight=3), TypeError, ["weight", "int"]),
    (lambda x: F.gated_pool2d(x, 3, weight=W, bias=torch.zeros(4)), ValueError, ["bias", "(4,)"]),
    (lambda x: F.gated_pool2d(x, 3, weight=W, bias=0.5), TypeError, ["bias", "float"]),
    (lambda x: F.tree_pool2d(x, 3, leaves=torch.zeros(3, 3, 3), gates=W[None]), ValueError, ["leaves", "2 or 4"]),
    (lambda x: F.tree_pool2d(x, 3, leaves=torch.zeros(4, 3, 3), gates=W[None]), ValueError, ["gates", "4"]),
    (lambda x: nn.TreePool2d(3, levels=3), ValueError, ["levels", "3"]),
    (lambda x: nn.GatedPool2d(3, num_channels=0), ValueError, ["num_channels", "0"]),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input(call, error, words):
    with pytest.raises(error) as raised:
        call(torch.zeros(1, 2, 6, 6))
    assert all(word in str(raised.value) for word in words), raised.value
