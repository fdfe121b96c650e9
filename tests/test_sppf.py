"""sppf2d and its module against max pooling step by step, by torch's kernels, and against one window for each map."""

import copy
import pickle

import cases
import pytest
import torch
from comparison import assert_bitwise
from torch.autograd import gradcheck, gradgradcheck

import fastpool
import fastpool.functional as F
from fastpool import nn


def steps(x, kernel_size=5, repeats=3):
    kernels = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    maps = [x]
    for _ in range(repeats):
        maps.append(torch.nn.functional.max_pool2d(maps[-1], kernels, 1, tuple(k // 2 for k in kernels)))
    return torch.cat(maps, -3)


def integers(*shape, dtype=torch.float32):
    """With ties."""
    return torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def with_specials(x):
    x = x.clone()
    x.view(-1)[3::17], x.view(-1)[5::23], x.view(-1)[7::11] = torch.nan, torch.inf, -torch.inf
    return x


X = integers(2, 5, 9, 7)
ARGUMENTS = {
    "defaults": (X, {}),
    "a pair": (X, {"kernel_size": (3, 7), "repeats": 2}),
    "a list": (X, {"kernel_size": [7, 1], "repeats": 1}),
    "five times": (X, {"kernel_size": 3, "repeats": 5}),
    "kernel 1": (X, {"kernel_size": 1}),
    "wider than the map": (integers(1, 2, 3, 2), {"kernel_size": 13}),
    "wide maps of many channels": (integers(2, 70, 6, 12), {}),
    "without a batch axis": (X[0], {}),
    "no sample": (X[:0], {}),
    "NaN and infinities": (with_specials(X), {"kernel_size": 3}),
    "only -inf": (torch.full_like(X, -torch.inf), {}),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_equals_torch_step_by_step(name, dtype, layout):
    x, arguments = ARGUMENTS[name]
    if layout == "channels_last" and x.ndim == 3:
        layout = "contiguous"
    x = cases.LAYOUTS[layout](x.to(dtype))
    kernel_size = arguments.get("kernel_size", 5)
    oracle = {**arguments, "kernel_size": tuple(kernel_size) if isinstance(kernel_size, list) else kernel_size}
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
    actual, expected = F.sppf2d(leaves[0], **arguments), steps(leaves[1], **oracle)
    assert_bitwise(actual.detach(), expected.detach(), name)
    assert actual.dtype == dtype and actual.stride() == expected.stride()
    g = torch.arange(actual.numel(), dtype=torch.float32).view(actual.shape).remainder(3).to(dtype)  # exact sums
    for y in (actual, expected):
        y.backward(g)
    assert_bitwise(leaves[0].grad, leaves[1].grad, f"gradient of {name}")
    with torch.no_grad():
        assert_bitwise(F.sppf2d(x, **arguments), expected.detach(), name)


def test_equals_one_window_for_each_map():
    windows = [torch.nn.functional.max_pool2d(X, k, 1, k // 2) for k in (5, 9, 13)]
    assert_bitwise(F.sppf2d(X), torch.cat([X, *windows], 1))


def test_derivatives():
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert gradcheck(lambda x: F.sppf2d(x, 3, 2), x)
    assert gradgradcheck(lambda x: F.sppf2d(x, 3, 2), x)


def test_vmap_and_meta():
    batches = torch.stack([X, X.flip(1)])
    assert_bitwise(torch.vmap(F.sppf2d)(batches), torch.stack([F.sppf2d(X), F.sppf2d(X.flip(1))]))
    for x in (X, X.contiguous(memory_format=torch.channels_last)):
        meta = F.sppf2d(torch.empty_strided(x.shape, x.stride(), device="meta"))
        assert meta.is_meta and (meta.shape, meta.stride()) == (F.sppf2d(x).shape, F.sppf2d(x).stride())


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(nn.SPPF2d(3, 2), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for x in (X, integers(1, 3, 6, 8), X.contiguous(memory_format=torch.channels_last)):
        leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
        actual, expected = compiled(leaves[0]), steps(leaves[1], 3, 2)
        assert_bitwise(actual.detach(), expected.detach())
        assert actual.stride() == expected.stride()
        for y in (actual, expected):
            y.backward(torch.ones_like(y))
        assert_bitwise(leaves[0].grad, leaves[1].grad)


def test_exports():
    exported = torch.export.export(nn.SPPF2d().eval(), (X,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_bitwise(exported(X[:1]), steps(X[:1]))


def test_module():
    module = nn.SPPF2d((3, 5), repeats=2)
    assert repr(module) == "SPPF2d(kernel_size=(3, 5), repeats=2)"
    assert not module.state_dict()
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_bitwise(same(X), F.sppf2d(X, (3, 5), 2))
    assert_bitwise(nn.SPPF2d()(X), fastpool.sppf2d(X, 5, 3))


REFUSED = [
    ({"kernel_size": 4}, ValueError, "kernel_size must be odd.*got 4"),
    ({"kernel_size": (3, 2)}, ValueError, r"kernel_size must be odd.*got \(3, 2\)"),
    ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be an int or a pair"),
    ({"kernel_size": -1}, ValueError, "kernel_size must be at least 1"),
    ({"kernel_size": 3.0}, TypeError, "kernel_size must be made of ints, got 3.0"),
    ({"kernel_size": None}, TypeError, "kernel_size"),
    ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
    ({"repeats": 2.0}, TypeError, "repeats must be an int, got 2.0"),
    ({"repeats": True}, TypeError, "repeats must be an int, got True"),
    ({"repeats": (1, 2)}, TypeError, "repeats must be an int"),
    ({"input": X.int()}, TypeError, "input must be a dense tensor of float16"),
    ({"input": X[0, 0]}, ValueError, r"input must be \(N, C, H, W\) or \(C, H, W\)"),
    ({"input": X[:, :0]}, ValueError, "input must have at least one channel"),
    ({"input": None}, TypeError, "input must be a tensor"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        F.sppf2d(**{"input": X, **arguments})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_scripting_is_refused():
    with pytest.raises(RuntimeError, match="sppf2d does not support torch.jit.script"):
        torch.jit.script(F.sppf2d)
    with pytest.raises(RuntimeError, match="SPPF2d does not support torch.jit.script"):
        torch.jit.script(nn.SPPF2d())
