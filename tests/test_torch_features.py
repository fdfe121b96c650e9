"""What torch.nn's layers work with, these do, too: compilers, files, mixed precision, checkpoints, profilers, ..."""

import copy
import functools
import subprocess
import sys

import pytest
import torch
import torch.utils.checkpoint
from comparison import assert_bitwise
from poolings import LAYERS, arguments_of
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

import fastpool.functional as F
from fastpool import nn

X = torch.randn(2, 5, 9, 10, generator=torch.Generator().manual_seed(0))


def check_equal(actual, expected):
    for y, wanted in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert_bitwise(y.detach(), wanted.detach())


class Network(torch.nn.Module):
    """A convolution, then every layer of a table beside the others."""

    def __init__(self, *without):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(5, 5, 3, padding=1)
        self.layers = torch.nn.ModuleDict({name: make() for name, make in LAYERS.items() if name not in without})

    def forward(self, x):
        x = self.convolution(x)
        return tuple(tree_leaves([layer(x) for layer in self.layers.values()]))


def step(network, x, run=lambda network, x: network(x)):
    """-> results and every parameter's gradient, with draws of one seed"""
    network.zero_grad()
    torch.manual_seed(1)
    results = tree_leaves(run(network, x))
    sum(y.float().square().mean() for y in results).backward()
    return [*results, *[parameter.grad for parameter in network.parameters()]]


FUNCTIONS = {rank: [name for name in F.__all__ if name.endswith(f"{rank}d")] for rank in (1, 2, 3)}
FUNCTIONS["any"] = [name for name in F.__all__ if name.startswith("global")]


@pytest.mark.parametrize("rank", FUNCTIONS)
def test_every_function_compiles(rank):
    calls = [(getattr(F, name), arguments_of(name)[1]) for name in FUNCTIONS[rank]]
    x, _ = arguments_of(FUNCTIONS[rank][0])

    def every(x):
        return [function(x, **options) for function, options in calls]

    torch._dynamo.reset()
    compiled = torch.compile(every, fullgraph=True, dynamic=True, backend="eager")
    check_equal(compiled(x), every(x))


def test_filters_compile_for_any_size():
    """Also where a filter has the batch's size, and so its symbol."""
    weight = torch.ones(2)

    def pool(x):
        return F.gated_pool1d(x, 2, weight=weight)

    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend="eager")
    for x in (torch.randn(2, 3, 6), torch.randn(5, 4, 9)):
        check_equal(compiled(x), pool(x))


@pytest.mark.parametrize("training", [True, False])
def test_every_layer_compiles_for_any_size(training):
    network = Network().train(training)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="eager")
    for x in (X, torch.randn(3, 5, 12, 7)):
        torch.manual_seed(2)
        actual = compiled(x)
        torch.manual_seed(2)
        check_equal(actual, network(x))


LOADS = """
import sys, torch
exported, traced, results = sys.argv[1:]
x, expected = torch.load(results)
for load in (torch.export.load, torch.jit.load):
    try:
        load(exported if load is torch.export.load else traced)
    except RuntimeError:
        continue
    sys.exit("loaded without fastpool")
import fastpool
for network in (torch.export.load(exported).module(), torch.jit.load(traced)):
    with torch.no_grad():
        for y, wanted in zip(torch.utils._pytree.tree_leaves(network(x)), expected, strict=True):
            assert torch.equal(y, wanted)
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_saved_graphs_are_loaded_after_fastpool(tmp_path):
    """Another process needs the operators' registration, which `import fastpool` makes."""
    network, more = Network().eval(), torch.randn(3, 5, 9, 10)
    batch = torch.export.Dim("batch", min=1, max=64)
    files = [str(tmp_path / name) for name in ("exported.pt2", "traced.pt", "results.pt")]
    torch.export.save(torch.export.export(network, (X,), dynamic_shapes=({0: batch},)), files[0])
    torch.jit.save(torch.jit.trace(network, X), files[1])
    torch.save((more, [y.detach() for y in tree_leaves(network(more))]), files[2])
    run = subprocess.run([sys.executable, "-c", LOADS, *files], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_again(reentrant):
    network = Network()
    x = X.clone().requires_grad_()  # without which a re-entrant checkpoint records nothing

    def checkpointed(network, x):
        return torch.utils.checkpoint.checkpoint(network, x, use_reentrant=reentrant)

    expected = [y.clone() for y in step(network, x)]
    check_equal(step(network, x, checkpointed), expected)


def test_autocast_and_gradient_scaling():
    """Layers take what the convolution gives, and their own float32 parameters learn."""
    network = Network("attention")
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = copy.deepcopy(network.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = tree_leaves(network(X))
    assert {y.dtype for y in results} == {torch.bfloat16}
    scaler.scale(sum(y.float().square().mean() for y in results)).backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}
    scaler.step(optimizer)
    scaler.update()
    for name, value in network.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} did not learn"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_networks(dtype):
    found = step(Network().to(dtype), X.to(dtype))
    assert {y.dtype for y in found} == {dtype}
    assert all(y.isfinite().all() for y in found)


def test_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        network = Network()
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
        assert {y.dtype for y in step(network, X.double())} == {torch.float64}
        assert F.mixed_pool2d(X, 2, alpha=0.25).dtype == F.soft_pool2d(X, 2).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_channels_last_networks():
    network = Network()
    expected = step(network, X)
    found = step(network.to(memory_format=torch.channels_last), X.to(memory_format=torch.channels_last))
    for y, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
        if y.requires_grad and y.dim() == 4:
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    network, other = Network(), Network()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    safetensors.save_model(network, str(tmp_path / "network.safetensors"))
    safetensors.load_model(other, str(tmp_path / "network.safetensors"))
    check_equal(other.eval()(X), network.eval()(X))


def test_parametrisation():
    class Negated(torch.nn.Module):
        def forward(self, value):
            return -value

    for layer, name in (
        (nn.MixedPool2d(2, alpha=0.25, learnable=True), "logit"),
        (nn.SoftPool2d(2, beta=2.0, learnable=True), "beta"),
        (nn.GatedPool2d(2), "weight"),
    ):
        plain = copy.deepcopy(layer)
        parametrize.register_parametrization(layer, name, Negated())
        setattr(plain, name, torch.nn.Parameter(-getattr(plain, name).detach()))
        check_equal(layer(X), plain(X))
        layer(X).square().sum().backward()
        assert layer.parametrizations[name].original.grad.abs().sum() > 0
        check_equal(pickled(layer)(X), plain(X))


def pickled(layer):
    """Parametrised modules are pickled by their state alone."""
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    return again


def test_profilers_name_operators():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        F.max_pool2d(X.clone().requires_grad_(), 2).sum().backward()
        F.soft_pool2d(X, 2)
    names = {event.key for event in profile.key_averages()}
    assert {"fastpool::max_pool", "fastpool::select_backward", "fastpool::soft_pool"} <= names


def test_flop_counter_counts_the_rest():
    from torch.utils.flop_counter import FlopCounterMode

    network = Network("gated", "tree", "attention")  # which convolve and multiply themselves
    with FlopCounterMode(display=False) as counter:
        step(network, X.clone().requires_grad_())
    with FlopCounterMode(display=False) as alone:
        network.convolution(X.clone().requires_grad_()).sum().backward()
    assert counter.get_total_flops() == alone.get_total_flops() > 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loaders(method):
    """Which bring images of several sizes to one, in a process of their own."""
    F.max_pool2d(torch.randn(8, 64, 64, 64), 2)  # so that a fork follows parallel work
    images = [torch.rand(5, 9, 10), torch.rand(5, 7, 12), torch.rand(5, 8, 8), torch.rand(5, 11, 6)]
    collate = functools.partial(F.spatial_pyramid_pool2d, mode="stochastic", seed=3)
    loader = DataLoader(images, batch_size=2, num_workers=1, multiprocessing_context=method, collate_fn=collate)
    check_equal(list(loader), [collate(images[:2]), collate(images[2:])])


def test_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    network = Network()
    expected = [y.clone() for y in step(network, X)]
    check_equal(step(network, X), expected)
