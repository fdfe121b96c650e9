"""torch.vmap and torch.func: what a loop, or an ordinary gradient, gives."""

import pytest
import torch
from comparison import assert_bitwise
from poolings import CALLS

import fastpool.functional as F

X = torch.randn(4, 2, 3, 8, 9, generator=torch.Generator().manual_seed(0))

DIFFERENTIABLE = {
    **CALLS,
    "expectation of 3x3": lambda x: F.stochastic_pool2d(x, 3, training=False),
    "global mixed": F.global_mixed_pool,
    "list": lambda x: F.spatial_pyramid_pool2d([x[0], x[1, :, :5]], mode="max"),
}
POOLS = {**DIFFERENTIABLE, "max indices": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[1]}


def parameters(pools):
    return pytest.mark.parametrize("pool", [pytest.param(pool, id=name) for name, pool in pools.items()])


def loss(pool):
    return lambda x: (pool(x) * torch.arange(1.0, pool(x.detach()).numel() + 1).view_as(pool(x.detach()))).sum()


def gradient(pool, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(pool)(x), x)[0]


@parameters(POOLS)
@pytest.mark.parametrize("axis", [0, 1, 4])
def test_vmap_is_a_loop(pool, axis):
    x = X.movedim(0, axis)
    assert_bitwise(torch.vmap(pool, axis)(x), torch.stack([pool(part) for part in X]))


def test_vmap_of_channels_last_and_of_no_member():
    x = torch.stack([part.contiguous(memory_format=torch.channels_last) for part in X], -1)
    pool = POOLS["max"]
    assert_bitwise(torch.vmap(pool, -1)(x), torch.stack([pool(part) for part in X]))
    assert torch.vmap(pool)(X[:0]).shape == (0, *pool(X[0]).shape)


def test_vmap_over_alpha():
    alpha = torch.tensor([0.0, 0.25, 1.0])
    pooled = torch.vmap(lambda a: F.mixed_pool2d(X[0], 2, alpha=a))(alpha)
    assert_bitwise(pooled, torch.stack([F.mixed_pool2d(X[0], 2, alpha=a) for a in alpha]))


def test_gradient_of_a_batch_of_alpha():
    """Which says of itself that it requires none."""
    alpha = torch.tensor([0.0, 0.25, 1.0])
    loss = lambda a: F.mixed_pool2d(X[0], 2, alpha=a).pow(2).sum()  # noqa: E731
    ours = torch.func.grad(lambda alpha: torch.vmap(loss)(alpha).sum())(alpha)
    leaf = alpha.clone().requires_grad_()
    assert_bitwise(torch.autograd.grad(torch.vmap(loss)(leaf).sum(), leaf)[0], ours)
    for a, expected in zip(alpha, ours):
        assert_bitwise(torch.func.grad(loss)(a), expected)


def test_vmap_draws_as_its_randomness_says():
    ones = torch.ones(4, 2, 3, 8, 8)
    pool = lambda x: F.stochastic_pool2d(x, 2, return_indices=True)[1]  # noqa: E731
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(pool)(ones)
    same = torch.vmap(pool, randomness="same")(ones)
    assert (same == same[0]).all()
    assert (torch.vmap(pool, randomness="different")(ones) != same[0]).any()


@parameters(DIFFERENTIABLE)
def test_gradient_through_vmap(pool):
    x = X.clone().requires_grad_()
    y = torch.vmap(pool)(x)
    (ours,) = torch.autograd.grad((y * torch.arange(1.0, y[0].numel() + 1).view_as(y[0])).sum(), x)
    assert_bitwise(ours, torch.stack([gradient(pool, part) for part in X]))


@parameters(DIFFERENTIABLE)
def test_func_grad(pool):
    assert_bitwise(torch.func.grad(loss(pool))(X[0]), gradient(pool, X[0]))


@parameters(DIFFERENTIABLE)
def test_gradients_of_samples(pool):
    assert_bitwise(torch.vmap(torch.func.grad(loss(pool)))(X), torch.stack([gradient(pool, part) for part in X]))


@parameters(DIFFERENTIABLE)
def test_func_jacrev(pool):
    x = X[0, :, :2, :4, :5]
    rows = torch.func.jacrev(pool)(x)
    expected = torch.autograd.functional.jacobian(pool, x)
    assert_bitwise(rows, expected)


@parameters(DIFFERENTIABLE)
def test_second_derivative(pool):
    """Of a cubic loss, so that it is not zero."""

    def slope(x):
        return torch.func.grad(lambda x: pool(x).pow(3).sum())(x).sum()

    leaf = X[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(pool(leaf).pow(3).sum(), leaf, create_graph=True)
    assert_bitwise(torch.func.grad(slope)(X[0]), torch.autograd.grad(first.sum(), leaf)[0])


def test_forward_mode_is_refused():
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(POOLS["max"], (X[0],), (X[0],))
