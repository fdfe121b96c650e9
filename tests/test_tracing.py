"""torch.jit.trace, torch.fx.symbolic_trace and `__torch_function__`."""

import io
import re
import warnings

import pytest
import torch
from comparison import assert_bitwise
from poolings import CALLS
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


LAYERS = {
    "max": lambda: nn.MaxPool2d(2),
    "avg": lambda: nn.AvgPool2d(2),
    "lp": lambda: nn.LPPool2d(2.0, 2),
    "adaptive": lambda: nn.AdaptiveMaxPool2d(2),
    "mixed": lambda: nn.MixedPool2d(2, learnable=True),
    "stochastic": lambda: nn.StochasticPool2d(2),
    "soft": lambda: nn.SoftPool2d(2, learnable=True, num_channels=5),
    "mean_std": lambda: nn.GlobalMeanStdPool(),
    "gated": lambda: nn.GatedPool2d(2, num_channels=5, bias=True),
    "tree": lambda: nn.TreePool2d(2),
    "pyramid": lambda: nn.SpatialPyramidPool2d(mode="mixed", learnable=True),
    "sppf": lambda: nn.SPPF2d(),
    "random_mixed": lambda: nn.RandomMixedPool2d(2),
    "attention": lambda: nn.AttentionPool2d(5, 3, output_size=2),
}


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
