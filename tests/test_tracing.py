"""torch.jit.trace, torch.fx.symbolic_trace and `__torch_function__`."""

import copy
import io
import pickle
import re
import warnings

import pytest
import torch
from comparison import assert_bitwise
from poolings import CALLS, LAYERS, arguments_of
from torch.utils._pytree import tree_leaves

import fastpool.functional as F
from fastpool import nn

X = torch.randn(2, 5, 9, 10, generator=torch.Generator().manual_seed(0))

FILTER, LEAVES, GATES = torch.full((3, 3), 0.1), torch.full((2, 3, 3), 0.1), torch.full((1, 3, 3), 0.1)
POOLS = {
    **CALLS,
    "max with indices": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    "regions": lambda x: F.mixed_pool2d(x, 3, 2, 1, alpha=torch.full((1, 1, 5, 5), 0.25)),
    "gated": lambda x: F.gated_pool2d(x, 3, 2, 1, weight=FILTER),
    "tree": lambda x: F.tree_pool2d(x, 3, 2, 1, leaves=LEAVES, gates=GATES),
    "sppf": F.sppf2d,
    "floor bins": lambda x: F.spatial_pyramid_pool2d(x, bins="floor"),
    "without axes": lambda x: F.global_max_pool(x, keepdim=False),
    "five axes": lambda x: F.global_max_pool(x[:, :, None, None, None]),
    "in order of channels": lambda x: F.spatial_pyramid_pool2d(x, flatten=None),
}
SIZES_ARE_KEPT = pytest.mark.filterwarnings("ignore:(Conv|Us|Iter).*tensor.* might cause the trace to be incorrect")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def loaded(traced):
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


class Network(torch.nn.Module):
    """Whose convolution wants a gradient."""

    def __init__(self, pool):
        super().__init__()
        self.convolution = torch.nn.Conv2d(5, 5, 1)
        self.pool = pool

    def forward(self, x):
        return self.pool(self.convolution(x))


@SIZES_ARE_KEPT
@pytest.mark.parametrize("pool", [pytest.param(pool, id=name) for name, pool in POOLS.items()])
def test_a_trace_is_saved_and_learns(pool):
    """With the check that torch.jit.trace makes by default: that the graph is the same without gradients."""
    network = Network(lambda x: tree_leaves(pool(x))[0])
    torch.jit.trace(network, X)
    with torch.no_grad():
        again = loaded(torch.jit.trace(network, X))
    y, expected = again(X), network(X)
    assert_bitwise(y.detach(), expected.detach())
    y.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(again.parameters(), network.parameters(), strict=True):
        assert_bitwise(ours.grad, theirs.grad)


@SIZES_ARE_KEPT
@pytest.mark.parametrize("pool", [pytest.param(pool, id=name) for name, pool in POOLS.items()])
def test_a_trace_takes_any_batch_and_no_other_windows(pool):
    traced = torch.jit.trace(pool, X)
    for count in (1, 3):
        x = torch.randn(count, *X.shape[1:])
        torch.testing.assert_close(traced(x), pool(x), rtol=0, atol=0)
    larger = torch.randn(2, 5, 12, 13)
    try:
        y = traced(larger)
    except RuntimeError as error:
        assert re.search("must match|is invalid for input of size", str(error))
    else:
        torch.testing.assert_close(y, pool(larger), rtol=0, atol=0)


@SIZES_ARE_KEPT
@pytest.mark.parametrize("name", LAYERS)
def test_a_graph_for_tensorboard(name):
    """As torch.utils.tensorboard's add_graph makes it: in evaluation mode, strict, inlined."""
    layer = Network(LAYERS[name]()).eval()
    traced = torch.jit.trace(layer, X, strict=True)
    torch._C._jit_pass_inline(traced.graph)
    for y, expected in zip(tree_leaves(traced(X)), tree_leaves(layer(X)), strict=True):
        assert_bitwise(y.detach(), expected.detach(), name)


@SIZES_ARE_KEPT
@pytest.mark.filterwarnings("ignore:Output nr 1")
def test_draws_of_a_trace():
    """torch tells of the draw and of check_trace=False, with which it is fresh in each call; a seed needs neither."""
    layer = nn.StochasticPool2d(2)
    with pytest.warns(torch.jit.TracerWarning, match=r"(?s)nondeterministic nodes.*\.eval\(\).*check_trace=False"):
        torch.jit.trace(layer, X)
    again = loaded(torch.jit.trace(layer, X, check_trace=False))
    torch.manual_seed(3)
    drawn = [again(X) for _ in range(2)]
    assert not torch.equal(*drawn)
    torch.manual_seed(3)
    for y in drawn:
        assert_bitwise(layer(X), y)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Trace had nondeterministic nodes")
        traced = torch.jit.trace(nn.StochasticPool2d(2, seed=3), X)
    assert_bitwise(traced(X), F.stochastic_pool2d(X, 2, seed=3))


class Marked(torch.Tensor):
    """Tells which functions it went through."""

    functions: list = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.functions.append(function)
        return super().__torch_function__(function, types, args, kwargs)


@pytest.mark.parametrize("name", F.__all__)
def test_functions_honour_torch_function(name):
    function, (x, options) = getattr(F, name), arguments_of(name)
    Marked.functions.clear()
    y = function(x.as_subclass(Marked), **options)
    assert Marked.functions == [function]
    for actual, expected in zip(tree_leaves(y), tree_leaves(function(x, **options)), strict=True):
        assert type(actual) is Marked
        assert_bitwise(actual.as_subclass(torch.Tensor), expected, name)

    traced = torch.fx.symbolic_trace(lambda x: function(x, **options))
    (node,) = traced.graph.find_nodes(op="call_function", target=function)
    assert [argument.op for argument in node.args] == ["placeholder"]
    for actual, expected in zip(tree_leaves(traced(x)), tree_leaves(function(x, **options)), strict=True):
        assert_bitwise(actual, expected, name)


PARAMETERS = {
    "alpha": lambda x, t: F.mixed_pool2d(x, 2, alpha=t),
    "beta": lambda x, t: F.adaptive_soft_pool2d(x, 2, beta=t),
    "p": lambda x, t: F.global_gem_pool(x, p=t),
    "weight": lambda x, t: F.gated_pool2d(x, 2, weight=t.expand(2, 2)),
    "leaves": lambda x, t: F.tree_pool2d(x, 2, leaves=t.expand(2, 2, 2), gates=x[0, :1, :2, :2]),
    "of a pyramid": lambda x, t: F.spatial_pyramid_pool2d(x, mode="mixed", alpha=t),
    "in a list": lambda x, t: F.spatial_pyramid_pool2d([x[0], x[0] + t]),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_other_tensors_honour_torch_function(name):
    x, t = X.double(), torch.tensor(0.25, dtype=torch.float64)
    expected = PARAMETERS[name](x, t)
    y = PARAMETERS[name](x, t.as_subclass(Marked))
    assert type(y) is Marked
    assert_bitwise(y.as_subclass(torch.Tensor), expected)
    traced = torch.fx.symbolic_trace(lambda t: PARAMETERS[name](x, t))
    assert_bitwise(traced(t), expected)


def test_a_mode_sees_calls_and_devices_stay():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    seen = []
    with Mode():
        y = F.max_pool2d(X, 2)
    assert seen == [F.max_pool2d]
    assert_bitwise(y, F.max_pool2d(X, 2))
    with torch.device("meta"):  # a mode, too, which is not for what has an input
        y = F.stochastic_pool2d(X, 2, seed=3)
    assert_bitwise(y, F.stochastic_pool2d(X, 2, seed=3))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_nodes(name):
    """As those of torch.nn: what a layer learns, and whether it is in training, stays its own."""
    network = Network(LAYERS[name]())
    traced = torch.fx.symbolic_trace(network)
    assert [node.target for node in traced.graph.find_nodes(op="call_module", target="pool")] == ["pool"]
    assert not traced.graph.find_nodes(op="get_attr", target="_tensor_constant0")
    for training in (True, False):
        for copied in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
            copied.train(training), network.train(training)
            torch.manual_seed(0)
            actual = tree_leaves(copied(X))
            torch.manual_seed(0)
            for y, expected in zip(actual, tree_leaves(network(X)), strict=True):
                assert_bitwise(y.detach(), expected.detach(), name)


def test_layers_that_are_no_nodes():
    """The root, and a user's own class, whose forward torch.fx traces through."""

    class Own(nn.MixedPool2d):
        def forward(self, input):
            return super().forward(input.relu())

    for layer in (nn.AvgPool2d(2), Own(2), torch.nn.Sequential(Own(2))):
        traced = torch.fx.symbolic_trace(layer)
        assert not traced.graph.find_nodes(op="call_module", target="")
        assert any(node.target in (F.avg_pool2d, F.mixed_pool2d) for node in traced.graph.nodes)
        assert_bitwise(traced(X), layer(X))


def test_a_list_of_images_is_one_node():
    class Lists(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.SpatialPyramidPool2d(mode="mixed", learnable=True)

        def forward(self, x, y):
            return self.pool([x, y])

    traced = torch.fx.symbolic_trace(Lists())
    assert len(traced.graph.find_nodes(op="call_module", target="pool")) == 1
    traced(X[0], X[1, :, :6]).sum().backward()
    assert traced.pool.logit.grad is not None


def test_feature_extraction():
    extraction = pytest.importorskip(
        "torchvision.models.feature_extraction", reason="torchvision is not installed", exc_type=ImportError
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(Network(nn.StochasticPool2d(2)), nn.MixedPool2d(2, learnable=True)).eval()
    extractor = extraction.create_feature_extractor(network, {"0.pool": "drawn", "1": "mixed"})
    for training in (False, True):
        network.train(training), extractor.train(training)
        torch.manual_seed(1)
        features = extractor(X)
        torch.manual_seed(1)
        drawn = network[0](X)
        assert_bitwise(features["drawn"].detach(), drawn.detach())
        assert_bitwise(features["mixed"].detach(), network[1](drawn).detach())


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning")
def test_preparing_a_network_for_quantisation():
    """Layers stay in floating point between the network's quantised ones."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.manual_seed(0)
    network = Network(torch.nn.Sequential(nn.MixedPool2d(2, learnable=True), torch.nn.Conv2d(5, 3, 1))).eval()
    prepared = prepare_fx(network, get_default_qconfig_mapping(), (X,))
    y = prepared(X).detach()
    torch.testing.assert_close(y, network(X).detach())
    converted = convert_fx(prepared)
    assert type(converted.get_submodule("pool.0")) is nn.MixedPool2d
    torch.testing.assert_close(converted(X).detach(), y, rtol=0, atol=0.05)


def test_compiled_with_a_subclass():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: F.max_pool2d(x, 2), fullgraph=True, backend="eager")
    y = compiled(X.as_subclass(Marked))
    assert type(y) is Marked
    assert_bitwise(y.as_subclass(torch.Tensor), F.max_pool2d(X, 2))
