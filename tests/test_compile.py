"""torch.compile, torch.export and their training steps against eager."""

import shutil

import pytest
import torch
from comparison import assert_bitwise, assert_close
from poolings import CALLS
from torch import nn

import fastpool.functional as F
import fastpool.nn

X = torch.randn(2, 5, 9, 10, generator=torch.Generator().manual_seed(0))

POOLS = {**CALLS, "max with indices": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0]}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def value_and_gradient(function, x, *parameters):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    weight = torch.arange(y.numel(), dtype=y.dtype).view(y.shape) % 7
    return y.detach(), torch.autograd.grad((y * weight).sum(), (x, *parameters))


@pytest.mark.parametrize("name", POOLS)
def test_fullgraph_without_a_code_generator(name):
    compiled = torch.compile(POOLS[name], fullgraph=True, backend="aot_eager")
    for x in (X, X.contiguous(memory_format=torch.channels_last)):
        y, (gradient,) = value_and_gradient(compiled, x)
        expected, (expected_gradient,) = value_and_gradient(POOLS[name], x)
        assert_bitwise(y, expected, name)
        assert_bitwise(gradient, expected_gradient, f"gradient of {name}")
        assert y.stride() == expected.stride()
    with torch.no_grad():
        assert_bitwise(compiled(X), POOLS[name](X), f"{name} without gradient")


@pytest.mark.parametrize("name", ["max", "mixed", "stochastic"])
def test_fullgraph(name):
    def network(x):
        return POOLS[name](x * 1.5).relu()

    y, (gradient,) = value_and_gradient(torch.compile(network, fullgraph=True), X)
    expected, (expected_gradient,) = value_and_gradient(network, X)
    assert_bitwise(y, expected, name)
    assert_close(gradient, expected_gradient.double().numpy(), expected_gradient, f"gradient of {name}")


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_draws_are_fresh_and_follow_the_eager_sequence(backend):
    def pool(x):
        return F.stochastic_pool2d(x, 2, stride=2)

    compiled = torch.compile(pool, fullgraph=True, backend=backend)
    positive = X.abs()
    compiled(positive)
    torch.manual_seed(5)
    expected = [value_and_gradient(pool, positive) for _ in range(3)]
    torch.manual_seed(5)
    actual = [value_and_gradient(compiled, positive) for _ in range(3)]
    for (y, (gradient,)), (wanted, (wanted_gradient,)) in zip(actual, expected, strict=True):
        assert_bitwise(y, wanted)
        assert_bitwise(gradient, wanted_gradient)
    assert not torch.equal(actual[0][0], actual[1][0])
    with torch.no_grad():
        torch.manual_seed(5)
        assert_bitwise(compiled(positive), expected[0][0])


def test_two_draws_in_one_graph_differ():
    def pools(x):
        return F.stochastic_pool2d(x, 2), F.stochastic_pool2d(x, 2)

    torch.manual_seed(0)
    expected = pools(X.abs())
    torch.manual_seed(0)
    actual = torch.compile(pools, fullgraph=True, backend="aot_eager")(X.abs())
    assert not torch.equal(*actual)
    for y, wanted in zip(actual, expected, strict=True):
        assert_bitwise(y, wanted)


def test_generator_is_refused_with_advice():
    generator = torch.Generator()
    compiled = torch.compile(
        lambda x: F.stochastic_pool2d(x, 2, generator=generator), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(Exception, match="seed="):
        compiled(X)


@pytest.mark.parametrize("shape", [(), (5,)], ids=["scalar", "per channel"])
def test_alpha_learns(shape):
    alpha = torch.full(shape, 0.25, requires_grad=True)

    def pool(x):
        return F.mixed_pool2d(x, 3, 2, 1, alpha=alpha)

    _, gradients = value_and_gradient(torch.compile(pool, fullgraph=True, backend="aot_eager"), X, alpha)
    _, expected = value_and_gradient(pool, X, alpha)
    for actual, wanted in zip(gradients, expected, strict=True):
        assert_bitwise(actual, wanted)


@pytest.mark.parametrize("name", ["max", "avg", "mixed", "stochastic", "same", "pyramid"])
def test_dynamic_shapes(name):
    compiled = torch.compile(POOLS[name], fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((9, 10), (12, 7), (16, 16), (9, 10)):
        x = torch.randn(3, 5, *size)
        y, (gradient,) = value_and_gradient(compiled, x)
        expected, (expected_gradient,) = value_and_gradient(POOLS[name], x)
        assert_bitwise(y, expected, f"{name} {size}")
        assert_bitwise(gradient, expected_gradient, f"gradient of {name} {size}")


def test_gates_of_dynamic_shapes():
    pool = fastpool.nn.GatedPool2d(2, num_channels=5)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((9, 10), (12, 7)):
        x = torch.randn(3, 5, *size)
        assert_bitwise(compiled(x), pool(x), str(size))


def test_modules_compile():
    layers = nn.Sequential(
        fastpool.nn.MixedPool2d(2, learnable=True, num_channels=5),
        fastpool.nn.StochasticPool2d(2),
        fastpool.nn.GlobalMaxPool(),
    )
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
    parameters = list(layers.parameters())
    torch.manual_seed(1)
    expected = value_and_gradient(layers, X, *parameters)
    torch.manual_seed(1)
    actual = value_and_gradient(compiled, X, *parameters)
    assert_bitwise(actual[0], expected[0])
    for gradient, wanted in zip(actual[1], expected[1], strict=True):
        assert_bitwise(gradient, wanted)


class Classifier(nn.Module):
    def __init__(self, pool):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(5, 4, 3)
        self.pool = pool
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.pool(self.convolution(x)).flatten(1))


EXPORTED = {
    "max": lambda: fastpool.nn.MaxPool2d(2),
    "avg": lambda: fastpool.nn.AvgPool2d(2),
    "mixed": lambda: fastpool.nn.MixedPool2d(2, learnable=True, num_channels=4),
    "stochastic": lambda: fastpool.nn.StochasticPool2d(2),
    "pyramid": lambda: fastpool.nn.SpatialPyramidPool2d(),
    "global": lambda: fastpool.nn.GlobalAvgPool(),
}


def training_step(model):
    """-> loss and the gradients by name; without an autograd formula the convolution would get none"""
    torch.manual_seed(9)
    loss = nn.functional.cross_entropy(model(X), torch.tensor([0, 2]))
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", EXPORTED)
def test_training_step_through_export(name):
    model = Classifier(EXPORTED[name]())
    model(X)
    exported = torch.export.export(model, (X,)).module()
    loss, gradients = training_step(model)
    again, exported_gradients = training_step(exported)
    assert_bitwise(again, loss)
    assert exported_gradients.keys() == gradients.keys()
    for key, expected in gradients.items():
        assert expected is not None
        assert exported_gradients[key] is not None, f"{key} has no gradient after export"
        assert_close(exported_gradients[key], expected.double().numpy(), expected, key)
        assert expected.abs().sum() > 0


def test_gradient_of_alpha_through_export():
    class Mixed(nn.Module):
        def forward(self, x, alpha):
            return F.mixed_pool2d(x, 2, alpha=alpha)

    alpha = torch.rand(5)
    exported = torch.export.export(Mixed(), (X, alpha)).module()
    gradients = []
    for mixed in (exported, Mixed()):
        leaf = alpha.clone().requires_grad_()
        gradients.append(torch.autograd.grad(mixed(X, leaf).square().sum(), leaf)[0])
    assert_bitwise(*gradients)


def test_export_in_evaluation_is_the_expectation():
    model = Classifier(fastpool.nn.StochasticPool2d(2)).eval()
    expected = model(X)
    exported = torch.export.export(model, (X,)).module()
    assert_bitwise(exported(X), expected)
    assert_bitwise(exported(X), expected)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_a_package_of_aotinductor(tmp_path):
    layers = nn.Sequential(fastpool.nn.SoftPool2d(2), fastpool.nn.MaxPool2d(2)).eval()
    with torch.no_grad():
        program = torch.export.export(layers, (X,))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "layers.pt2"))
        assert_bitwise(torch._inductor.aoti_load_package(package)(X), layers(X))


def test_export_with_a_dynamic_batch():
    model = nn.Sequential(fastpool.nn.MaxPool2d(2), fastpool.nn.SpatialPyramidPool2d((2, 1)))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (X,), dynamic_shapes=({0: batch},)).module()
    for count in (1, 2, 7):
        x = torch.randn(count, 5, 9, 10)
        assert_bitwise(exported(x), model(x), f"batch of {count}")
