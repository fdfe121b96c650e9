"""Nested tensors, jagged and strided: global and pyramid poolings take them as they take lists."""

import pytest
import torch
from comparison import assert_bitwise
from poolings import TABLE

import fastpool.functional as F
from fastpool import nn

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
KINDS = [name for name, pooling in TABLE.items() if "global" in pooling.forms]


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def jagged_1d(dtype=torch.float32):
    """(N, C, lengths), as it comes from batches of sequences, whose ragged axis is the first."""
    items = [random(3, n).to(dtype).requires_grad_() for n in (5, 1, 300)]
    rows = torch.nested.as_nested_tensor([x.mT for x in items], layout=torch.jagged)
    return items, rows.transpose(1, 2)


def jagged_2d():
    items = [random(3, n, 6).requires_grad_() for n in (5, 2, 9)]
    return items, torch.nested.as_nested_tensor([x.transpose(0, 1) for x in items], layout=torch.jagged).transpose(1, 2)


def strided():
    items = [random(3, h, w).requires_grad_() for h, w in ((5, 4), (1, 7), (20, 21))]
    return items, torch.nested.as_nested_tensor(items)


NESTED = {"jagged 1d": jagged_1d, "jagged 2d": jagged_2d, "strided": strided}


def results(y):
    return y if isinstance(y, tuple) else (y,)


def check(nested, listed, items, bitwise):
    """The same results and the same gradients, of the tensors that were nested."""
    for y, expected in zip(results(nested), results(listed), strict=True):
        assert y.shape == expected.shape
        assert_bitwise(y.detach(), expected.detach()) if bitwise else torch.testing.assert_close(y, expected)
    sums = [sum((y * random(*y.shape)).sum() for y in results(each)) for each in (nested, listed)]
    for x, expected in zip(torch.autograd.grad(sums[0], items), torch.autograd.grad(sums[1], items), strict=True):
        assert_bitwise(x, expected) if bitwise else torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_global(make, kind, keepdim):
    items, nested = make()
    pool = getattr(F, f"global_{kind}_pool")
    options = [{"seed": 7, "offset": (i, 0)} if kind == "stochastic" else {} for i in range(len(items))]
    each = [results(pool(x[None], keepdim, **o)) for x, o in zip(items, options, strict=True)]
    listed = tuple([torch.cat(ys) for ys in zip(*each, strict=True)])
    bitwise = kind in ("max", "min", "stochastic")
    check(pool(nested, keepdim, **options[0]), listed, items, bitwise)


@pytest.mark.parametrize("kind", KINDS)
def test_pyramid(kind):
    for make, pool in ((jagged_1d, F.spatial_pyramid_pool1d), (strided, F.spatial_pyramid_pool2d)):
        items, nested = make()
        options = {"mode": kind, "seed": 7} if kind == "stochastic" else {"mode": kind}
        check(pool(nested, (3, 1), **options), pool(items, (3, 1), **options), items, bitwise=True)


def test_parameters_have_gradients_too():
    items, nested = jagged_1d()
    module = nn.GlobalMixedPool(learnable=True, num_channels=3)
    alone = torch.cat([module(x[None]) for x in items])
    expected = torch.autograd.grad(alone.sum(), module.logit)
    torch.testing.assert_close(torch.autograd.grad(module(nested).sum(), module.logit), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    items, nested = jagged_1d(dtype)
    y = nn.GlobalMaxPool(keepdim=False)(nested)
    assert y.dtype == dtype
    assert_bitwise(y.detach(), torch.stack([x.amax(1) for x in items]).detach())


def test_values_and_offsets():
    values = random(3, 12).requires_grad_()
    nested = torch.nested.nested_tensor_from_jagged(values, offsets=torch.tensor([0, 5, 12]), jagged_dim=2)
    F.global_avg_pool(nested).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([1 / 5] * 5 + [1 / 7] * 7).expand(3, 12))


def test_what_is_refused():
    _, nested = jagged_1d()
    with pytest.raises(ValueError, match="ragged along the channels; transpose"):
        F.global_max_pool(nested.transpose(1, 2))
    with pytest.raises(ValueError, match="return_indices must be False for a nested tensor"):
        F.global_max_pool(nested, return_indices=True)
    with pytest.raises(ValueError, match="return_indices must be False for a nested tensor"):
        F.global_stochastic_pool(nested, return_indices=True)
    with pytest.raises(TypeError, match="nested tensors, which global and pyramid poolings alone take"):
        F.max_pool1d(nested, 2)
    with pytest.raises(ValueError, match="must not mix channels: input.0. has 2, input.1. has 3"):
        F.global_max_pool(torch.nested.nested_tensor([random(2, 4), random(3, 4)]))
    with pytest.raises(ValueError, match="one to three spatial axes, got 0"):
        F.global_max_pool(torch.nested.nested_tensor([random(4), random(3)]))
    with pytest.raises(ValueError, match=r"input\[0\] must be \(C, \*spatial\) with 2 spatial axes"):
        F.spatial_pyramid_pool2d(nested)
