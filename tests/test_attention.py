"""AttentionPool2d against its formula in float64, and what its fused kernels promise."""

import copy
import io
import math
import pickle

import pytest
import torch
from comparison import assert_bitwise, assert_close
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpool import nn

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def pool(*args, **options):
    torch.manual_seed(0)
    return nn.AttentionPool2d(*args, **options)


def formula(module, x):
    """With all scores at once."""

    def rows(convolution, x):
        return convolution(x).flatten(2).mT

    seeking = x if module.output_size is None else torch.nn.functional.adaptive_avg_pool2d(x, module.output_size)
    scores = module.scale * rows(module.query, seeking) @ rows(module.key, x).mT
    y = scores.softmax(-1) @ rows(module.value, x)
    return y.mT.reshape(len(x), -1, *seeking.shape[2:])


@pytest.mark.parametrize("output_size", [None, 3, (2, None)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_is_its_formula(dtype, output_size, channels_last):
    module = pool(6, 8, scale=0.7, output_size=output_size).to(dtype)
    x = random(2, 6, 5, 7, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    x.requires_grad_()
    exact = copy.deepcopy(module).double()
    wide = x.detach().double().requires_grad_()
    composed = x.detach().clone().requires_grad_()
    same = copy.deepcopy(module)
    results = [module(x), formula(exact, wide), formula(same, composed)]
    assert results[0].dtype == dtype
    assert results[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert_close(results[0], results[1].detach().numpy(), results[2], "result")
    g = random(*results[0].shape)
    for y in results:
        y.backward(g.to(y.dtype))
    gradients = [
        {"input": leaf.grad, **{name: parameter.grad for name, parameter in m.named_parameters()}}
        for m, leaf in ((module, x), (exact, wide), (same, composed))
    ]

    def error(found, expected):
        return ((found.double() - expected).norm() / expected.norm()).item()

    # Adding to the bias of the keys changes no softmax: that gradient is rounding alone.
    for name in gradients[0].keys() - {"key.bias"}:
        actual, expected, other = (found[name] for found in gradients)
        allowed = max(2 * error(other, expected), 8 * torch.finfo(dtype).eps)
        assert error(actual, expected) <= allowed, f"gradient of {name}"


def test_scale_and_uniform_attention():
    """With scale 0 everything gets the mean of the values."""
    module, x = pool(3, 4, scale=0, output_size=2).double(), random(2, 3, 5, 6, dtype=torch.float64)
    expected = module.value(x).mean((2, 3), keepdim=True).expand(2, 4, 2, 2)
    torch.testing.assert_close(module(x), expected)
    assert not torch.allclose(pool(3, 4, output_size=2).double()(x), expected)


def test_shapes():
    module, x = pool(3, 4), random(2, 3, 5, 6)
    assert module(x).shape == (2, 4, 5, 6)
    assert_bitwise(module(x[0]).detach(), module(x[:1])[0].detach())
    empty = x[:0].requires_grad_()
    module(empty).sum().backward()
    assert module(empty).shape == (0, 4, 5, 6) and empty.grad.shape == empty.shape
    assert pool(3, 4, output_size=(2, None)).to("meta")(x.to("meta")).shape == (2, 4, 2, 6)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator takes or gives."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *(t.numel() for t in tensors)])
        return result


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_tensor_of_all_scores(dtype, channels_last):
    module, x = pool(4, 8).to(dtype), random(1, 4, 24, 32, dtype=dtype)
    x = (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    with Largest() as largest:
        module(x).sum().backward()
    positions = 24 * 32
    assert largest.elements <= 16 * positions
    with sdpa_kernel(SDPBackend.MATH), Largest() as largest:
        module(x)
    assert largest.elements >= positions**2


def test_derivatives():
    module = pool(2, 3, scale=0.5, output_size=2).double()
    x = random(1, 2, 3, 4, dtype=torch.float64).requires_grad_()
    parameters = tuple(module.parameters())

    def call(x, *parameters):
        names = [name for name, _ in module.named_parameters()]
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert gradcheck(call, (x, *parameters))
    with sdpa_kernel(SDPBackend.MATH):
        assert gradgradcheck(call, (x, *parameters))


@pytest.mark.parametrize(("output_size", "backend"), [(None, "aot_eager"), (3, "aot_eager"), (3, "inductor")])
def test_compiles(output_size, backend):
    module = pool(3, 8, output_size=output_size)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend, dynamic=True)
    for x in (random(2, 3, 5, 6), random(3, 3, 7, 4)):
        y = compiled(x)
        torch.testing.assert_close(y, module(x))
        gradients = [torch.autograd.grad(found.sum(), module.value.weight)[0] for found in (y, module(x))]
        torch.testing.assert_close(*gradients)


def test_exports():
    module, x = pool(3, 8, output_size=2).eval(), random(2, 3, 5, 6)
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
    assert exported.state_dict().keys() == module.state_dict().keys()


def test_copies_and_state():
    module, x = pool(3, 8, scale=2.0, output_size=(2, None)), random(2, 3, 5, 6)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for same in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ):
        assert repr(same) == repr(module)
        assert_bitwise(same(x).detach(), module(x).detach())
    assert "in_features=3, out_features=8, scale=2.0, output_size=(2, None)" in repr(module)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    parts = {"weight": (8, 3, 1, 1), "bias": (8,)}
    assert shapes == {f"{map}.{name}": shape for map in ("query", "key", "value") for name, shape in parts.items()}
    other = nn.AttentionPool2d(3, 8, scale=2.0, output_size=(2, None))
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(module.state_dict())
    assert_bitwise(other(x).detach(), module(x).detach())


def test_initial_values():
    module = pool(64, 32)
    bound = 1 / math.sqrt(64)  # torch.nn.Conv2d's
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.reset_parameters()
    for name, value in module.state_dict().items():
        assert not torch.equal(value, before[name]), name
        assert value.abs().max() <= bound and value.abs().max() > 0.8 * bound


REFUSED = [
    ((0, 4), {}, ValueError, "in_features must be at least 1, got 0"),
    ((4, -1), {}, ValueError, "out_features must be at least 1, got -1"),
    ((4.0, 4), {}, TypeError, "in_features must be made of ints, got 4.0"),
    ((4, (4, 4)), {}, TypeError, "out_features must be an int, got"),
    ((4, 4), {"scale": "large"}, TypeError, "scale must be a number, got 'large'"),
    ((4, 4), {"scale": float("inf")}, ValueError, "scale must be finite, got inf"),
    ((3, 4), {"output_size": 0}, ValueError, "output_size must be at least 1"),
    ((3, 4), {"output_size": (None, 0)}, ValueError, "output_size must be at least 1"),
    ((3, 4), {"output_size": (1, 2, 3)}, ValueError, "output_size must be an int or a pair"),
    ((3, 4), {"output_size": 2.5}, TypeError, "output_size must be made of ints, got 2.5"),
]


@pytest.mark.parametrize(("args", "options", "error", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_bad_arguments(args, options, error, message):
    with pytest.raises(error, match=message):
        nn.AttentionPool2d(*args, **options)(random(1, 3, 4, 4))


@pytest.mark.parametrize("output_size", [None, 2])
def test_bad_inputs(output_size):
    module, x = pool(3, 4, output_size=output_size), random(2, 3, 5, 6)
    for bad in (x[:, :2], x[0, 0], x[None], x[..., :0], x[:, :, :0]):
        with pytest.raises(ValueError, match=r"input must be \(N, 3, H, W\) or \(3, H, W\).*got shape"):
            module(bad)
    with pytest.raises(TypeError, match="input must be a dense tensor of float16"):
        module(x.int())
