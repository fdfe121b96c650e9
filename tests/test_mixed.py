"""alpha of mixed pooling as a number and as a tensor: shapes, dtypes and its gradient."""

import cases
import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise, assert_close
from poolings import compose_avg, compose_max

import fastpool.functional as F

CASES = [
    cases.sliding("mixed 2d", (3, 4, 7, 9), 3, stride=2, padding=1),
    cases.sliding("mixed ties", (3, 4, 6, 8), 2, "integers"),
    cases.sliding("mixed channels_last", (2, 17, 7, 7), 3, stride=2, layout="channels_last"),
    cases.sliding("mixed sliced", (2, 3, 7, 7), 2, layout="sliced"),
    cases.sliding("mixed 1d", (2, 3, 33), 4, stride=3, padding=1, ceil_mode=True),
    cases.sliding("mixed 3d", (2, 3, 4, 5, 6), 2, stride=1),
    cases.sliding("mixed unbatched", (3, 7, 9), 3, stride=2, batched=False),
    cases.sliding("mixed empty batch", (0, 3, 6, 6), 2),
    cases.sliding("mixed 289 taps", (1, 3, 20, 19), 17, stride=2),
    cases.adaptive("mixed adaptive", (2, 3, 7, 10), (3, 4)),
    cases.adaptive("mixed global", (2, 5, 6, 6), 1),
    cases.adaptive("mixed global 7x7", (2, 70, 7, 7), 1),
]
SHAPES = {
    "scalar": lambda y, c: (),
    "per channel": lambda y, c: (c,),
    "per region": lambda y, c: y.shape,
    "per row": lambda y, c: (1,) * (y.ndim - 2) + (y.shape[-2], 1),
    "per channel and column": lambda y, c: (1,) * (y.ndim - 3) + (y.shape[-3] if y.ndim > 3 else 1, 1, y.shape[-1]),
    "ones": lambda y, c: (1,) * y.ndim,
}


def mixed(case, x, alpha):
    if "output_size" in case.geometry:
        return getattr(F, f"adaptive_mixed_pool{case.rank}d")(x, **case.geometry, alpha=alpha)
    return getattr(F, f"mixed_pool{case.rank}d")(x, **case.geometry, alpha=alpha)


def alpha_dtypes(dtype):
    return {dtype, torch.float32} if dtype in cases.HALF else {dtype}


def broadcast(alpha, y, case):
    """alpha -> as the reference wants it, (N, C, P)"""
    alpha = alpha.view(-1, *(1,) * case.rank) if alpha.ndim == 1 else alpha
    alpha = alpha.expand(y.shape)
    return (alpha if case.batched else alpha[None]).flatten(2)


def gradients_by_composition(case, x, alpha, gradients):
    """-> output, gradients of x, gradients of alpha, in the dtype of x"""
    x, alpha = x.detach().clone().requires_grad_(), alpha.detach().to(x.dtype).requires_grad_()
    batched, windows = (x if case.batched else x[None]), case.windows()[1]
    wide = broadcast(alpha, gradients[0], case)
    y = wide * compose_max(batched, windows) + (1 - wide) * compose_avg(batched, windows)
    pairs = [torch.autograd.grad(y, (x, alpha), g.reshape(y.shape), retain_graph=True) for g in gradients]
    return y, *(torch.stack(parts) for parts in zip(*pairs, strict=True))


def gradients_by_reference(case, x, alpha, gradients):
    x64, windows = case.array(x), case.windows()[1]
    leaf = alpha.detach().double().requires_grad_()
    wide = broadcast(leaf, gradients[0], case)
    alpha64 = wide.detach().numpy()
    of_x, of_alpha = [], []
    for g in gradients:
        gradient, each = reference.mixed_pool_backward(g.double().numpy().reshape(wide.shape), x64, windows, alpha64)
        of_x.append(gradient.reshape(x.shape))
        of_alpha.append(torch.autograd.grad(wide, leaf, torch.from_numpy(each), retain_graph=True)[0].numpy())
    return reference.mixed_pool(x64, windows, alpha64), np.stack(of_x), np.stack(of_alpha)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("shared", SHAPES, ids=str)
def test_alpha(case, shared):
    for dtype in cases.DTYPES:
        for alpha_dtype in sorted(alpha_dtypes(dtype), key=str):
            x = case.values(dtype).requires_grad_()
            shape = SHAPES[shared](mixed(case, x, 0.5), x.shape[-case.rank - 1])
            rng = np.random.default_rng(len(shared))
            alpha = torch.from_numpy(rng.normal(0.5, 0.5, shape)).to(alpha_dtype).requires_grad_()
            y = mixed(case, x, alpha)
            # one sum may be right by luck: several gradients show what error a way of summing has
            gradients = [torch.from_numpy(rng.normal(size=tuple(y.shape))).to(dtype) for _ in range(6)]
            pairs = [torch.autograd.grad(y, (x, alpha), g, retain_graph=True) for g in gradients]
            gx, galpha = (torch.stack(parts) for parts in zip(*pairs, strict=True))

            what = f"{case}, alpha {shared} {alpha_dtype}, x {dtype}"
            assert y.dtype == dtype, what
            assert galpha.dtype == alpha_dtype, what
            assert galpha.shape[1:] == alpha.shape, what
            expected = gradients_by_reference(case, x, alpha, gradients)
            composed = gradients_by_composition(case, x, alpha, gradients)
            assert_close(y, expected[0].reshape(y.shape), composed[0], what)
            assert_close(gx, expected[1], composed[1], f"{what}: gradient of x")
            assert_close(galpha, expected[2], composed[2].to(alpha_dtype), f"{what}: gradient of alpha")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, 2.0, 0.7])
def test_number_equals_tensor(alpha):
    case = cases.sliding("number", (2, 3, 8, 8), 3, "random", stride=2, padding=1)
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        if dtype in cases.HALF or float(torch.tensor(alpha, dtype=wide)) == alpha:
            assert_bitwise(mixed(case, x, alpha), mixed(case, x, torch.tensor(alpha, dtype=wide)), f"{alpha} {dtype}")


@pytest.mark.parametrize(("alpha", "function"), [(1.0, F.max_pool2d), (0.0, F.avg_pool2d)], ids=["max", "avg"])
def test_ends_of_the_mixture(alpha, function):
    case = cases.sliding("ends", (2, 3, 8, 8), 2, "random")
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        assert_bitwise(mixed(case, x, alpha), function(x, 2), f"alpha {alpha} {dtype}")


@pytest.mark.parametrize("pattern", ["inf", "-inf", "nan", "nan and inf"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_infinities_follow_ieee(pattern, alpha):
    case = cases.sliding(f"ieee {pattern}", (2, 3, 8, 8), 2, pattern)
    x = case.values(torch.float32).requires_grad_()
    expected = reference.mixed_pool(case.array(x), case.windows()[1], alpha)
    learned = torch.tensor(alpha, requires_grad=True)
    for given in (alpha, learned):
        y = mixed(case, x, given)
        assert_close(y, expected.reshape(y.shape), torch.from_numpy(expected).float(), f"{pattern} {alpha}")
    gx, galpha = torch.autograd.grad(y, (x, learned), torch.ones_like(y))
    gradient, each = reference.mixed_pool_backward(np.ones(expected.shape), case.array(x), case.windows()[1], alpha)
    assert_close(gx, gradient, torch.from_numpy(gradient).float(), f"{pattern} {alpha}: gradient of x")
    assert_close(
        galpha, np.asarray(each.sum()), torch.tensor(each.sum()).float(), f"{pattern} {alpha}: gradient of alpha"
    )


def test_gradient_of_alpha_alone():
    x = torch.randn(2, 3, 8, 8)
    alpha = torch.full((3,), 0.5, requires_grad=True)
    F.mixed_pool2d(x, 2, alpha=alpha).sum().backward()
    expected = (F.max_pool2d(x, 2) - F.avg_pool2d(x, 2)).double().sum((0, 2, 3))
    composed = (F.max_pool2d(x, 2) - F.avg_pool2d(x, 2)).sum((0, 2, 3))
    assert_close(alpha.grad, expected.numpy(), composed)
