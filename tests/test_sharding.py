"""DTensors: what is pooled in parts by several processes is what one process makes of the whole."""

import copy
import subprocess
import sys

import pytest
import torch
from comparison import assert_bitwise
from processes import in_processes
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.device_mesh import init_device_mesh

import fastpool.functional as F
import fastpool.nn as fnn

pytestmark = pytest.mark.multiprocess

# Neither divides by 2 or 4: four processes have 2, 2, 1 and 0 samples, or 2, 2, 2 and 1 channels.
N, C, H, W = 5, 7, 8, 9
torch.manual_seed(0)
X = torch.randn(N, C, H, W)
P = torch.rand(C) + 0.5  # one per channel
R = torch.rand(N, 1, 4, 5)  # one per region


def again(pool):
    """With torch's generator in the same state each time."""
    torch.manual_seed(7)
    return pool()


# Of the input, a parameter per channel, one per region.
POOLS = {
    "max": lambda x, p, r: F.max_pool2d(x, 3, 2, 1),
    "max, indices": lambda x, p, r: torch.cat([y.double() for y in F.max_pool2d(x, 2, return_indices=True)], 2),
    "average": lambda x, p, r: F.avg_pool2d(x, 3, 2, 1, count_include_pad=True),
    "both": lambda x, p, r: torch.cat(F.max_avg_pool2d(x, 2), 2),
    "mixed": lambda x, p, r: F.mixed_pool2d(x, 2, alpha=p),
    "mixed, one alpha": lambda x, p, r: F.mixed_pool2d(x, 2, alpha=p[2]),
    "mixed, by region": lambda x, p, r: F.mixed_pool2d(x, 2, ceil_mode=True, alpha=r),
    "soft": lambda x, p, r: F.soft_pool2d(x, 2, beta=p),
    "lse": lambda x, p, r: F.adaptive_lse_pool2d(x, 3, r=p),
    "gem": lambda x, p, r: F.global_gem_pool(x, keepdim=False, p=p),
    "mean and deviation": lambda x, p, r: torch.cat(F.global_mean_std_pool(x), 2),
    "power": lambda x, p, r: F.lp_pool2d(x.abs(), 3, 2),
    "largest absolute": lambda x, p, r: F.lp_pool2d(x, float("inf"), 2),
    "draw": lambda x, p, r: F.stochastic_pool2d(x, 2, seed=3, offset=(11, 2**20)),
    "draw, indices": lambda x, p, r: F.adaptive_stochastic_pool2d(x, 3, seed=3, return_indices=True)[1],
    "draw from torch's generator": lambda x, p, r: again(lambda: F.stochastic_pool2d(x, 2, distribution="softmax")),
    "expectation": lambda x, p, r: F.stochastic_pool2d(x, 2, training=False),
    "gated": lambda x, p, r: F.gated_pool2d(x, 2, weight=p.reshape(-1, 1, 1).expand(-1, 2, 2), bias=p),
    "tree": lambda x, p, r: F.tree_pool2d(
        x, 2, leaves=p[:4].reshape(2, 1, 2).expand(2, 2, 2), gates=p[:4].view(1, 2, 2)
    ),
    "channels-last": lambda x, p, r: F.mixed_pool2d(x.contiguous(memory_format=torch.channels_last), 2, alpha=p),
    "three axes": lambda x, p, r: F.max_pool3d(x.unsqueeze(2), (1, 2, 2)),
    "steps": lambda x, p, r: F.sppf2d(x),
    "randomly mixed": lambda x, p, r: again(lambda: fnn.RandomMixedPool2d(2, per_channel=True)(x)),
}
PYRAMIDS = {
    "pyramid": lambda x, p, r: F.spatial_pyramid_pool2d(x, mode="soft", beta=p),
    "pyramid, by channel": lambda x, p, r: F.spatial_pyramid_pool2d(x, (2, 1), flatten="channel"),
    "pyramid, two results": lambda x, p, r: F.spatial_pyramid_pool2d(x, (2, 1), mode="mean_std", flatten=None),
    "pyramid, draw": lambda x, p, r: F.spatial_pyramid_pool2d(x, mode="stochastic", seed=3),
}
# Enough where what was tried alone comes together.
SOME = ["max, indices", "mixed", "mixed, by region", "draw", "draw from torch's generator", "gated", *PYRAMIDS]
CLOSE: tuple[str, ...] = ()

CUTS = {
    "batch": ((4,), [Shard(0)]),
    "channels": ((4,), [Shard(1)]),
    "batch and channels": ((2, 2), [Shard(0), Shard(1)]),
    "channels twice": ((2, 2), [Shard(1), Shard(1)]),
    "copies of a cut batch": ((2, 2), [Replicate(), Shard(0)]),
}


def assert_near(ours, theirs, what):
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5, msg=lambda message: f"{what}: {message}")


def stays(placements, name):
    """Whether every process keeps what it has computed."""
    return Shard(1) not in placements or (name in POOLS and name != "steps")


def cut_and_whole(rank, shape, placements, names):
    mesh = init_device_mesh("cpu", shape)
    for name in names:
        pool = {**POOLS, **PYRAMIDS}[name]
        one = [t.clone().requires_grad_() for t in (X, P, R)]
        where = [placements, *[[Replicate()] * mesh.ndim] * 2]
        parts = [distribute_tensor(t, mesh, at).requires_grad_() for t, at in zip((X, P, R), where)]
        compare = assert_near if name in CLOSE else assert_bitwise
        theirs = pool(*one)
        with CommDebugMode() as talk:
            ours = pool(*parts)
        compare(ours.full_tensor(), theirs, name)
        assert ours.stride() == theirs.stride(), name
        if stays(placements, name):
            assert ours.placements == tuple(placements), (name, ours.placements)
            assert talk.get_total_counts() == 0, (name, talk.get_comm_counts())
        if not theirs.requires_grad:
            continue
        weights = torch.rand(theirs.shape, generator=torch.Generator().manual_seed(1)).to(theirs.dtype)
        cut_weights = distribute_tensor(weights, mesh, ours.placements)
        theirs.backward(weights)
        with CommDebugMode() as talk:
            ours.backward(cut_weights)
        found, expected = [t.grad for t in parts], [t.grad for t in one]
        if stays(placements, name) and found[1] is found[2] is None:
            assert talk.get_total_counts() == 0, (name, talk.get_comm_counts())
        assert found[0].placements == tuple(placements), name
        compare(found[0].full_tensor(), expected[0], f"{name}, gradient")
        for gradient, wanted in zip(found[1:], expected[1:], strict=True):
            assert (gradient is None) == (wanted is None), name
            if gradient is not None:
                assert_near(gradient.full_tensor(), wanted, f"{name}, gradient of the parameter")


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_input_is_pooled_as_the_whole(cut):
    shape, placements = CUTS[cut]
    in_processes(4, cut_and_whole, shape, placements, [*POOLS, *PYRAMIDS] if len(shape) == 1 else SOME)


def shared_parameter(rank):
    mesh = init_device_mesh("cpu", (2,))
    for cut, cut_parameter, expected in (
        (Shard(0), Replicate(), Partial()),
        (Shard(1), Shard(0), Shard(0)),
        (Replicate(), Replicate(), Replicate()),
    ):
        x, p = distribute_tensor(X, mesh, [cut]), distribute_tensor(P, mesh, [cut_parameter]).requires_grad_()
        with CommDebugMode() as talk:
            F.mixed_pool2d(x, 2, alpha=p).to_local().sum().backward()
        assert talk.get_total_counts() == 0 and p.grad.placements == (expected,), (cut, p.grad.placements)
    x = distribute_tensor(X, mesh, [Shard(0)])
    assert_bitwise(F.mixed_pool2d(x, 2, alpha=P).full_tensor(), F.mixed_pool2d(X, 2, alpha=P))
    with pytest.raises(TypeError, match="DTensor"):
        F.mixed_pool2d(x, 2, alpha=P.clone().requires_grad_())
    with pytest.raises(ValueError, match="7"):
        F.mixed_pool2d(x, 2, alpha=P[:3])
    with pytest.raises(RuntimeError, match="DTensor"):
        F.mixed_pool2d(X, 2, alpha=p)


def test_a_parameter_gets_its_gradient_where_it_lies():
    in_processes(2, shared_parameter)


def gathered_first(rank):
    mesh = init_device_mesh("cpu", (4,))
    x = X[:4, :5]
    for name, given, whole, placements in (
        ("rows", distribute_tensor(x, mesh, [Shard(2)]), x, [Replicate()]),
        ("fewer channels than processes", distribute_tensor(x[:, :3], mesh, [Shard(1)]), x[:, :3], [Replicate()]),
        ("none left for the last", distribute_tensor(x, mesh, [Shard(1)]), x, [Replicate()]),
        ("sums due", DTensor.from_local(x, mesh, [Partial()]), 4 * x, [Replicate()]),
        ("no batch axis", distribute_tensor(x[0, :4], mesh, [Shard(0)]), x[0, :4], [Shard(0)]),
        ("no sample", distribute_tensor(x[:0], mesh, [Shard(0)]), x[:0], [Shard(0)]),
    ):
        ours = F.stochastic_pool2d(given, 2, seed=5, return_indices=True)
        for y, expected in zip(ours, F.stochastic_pool2d(whole, 2, seed=5, return_indices=True), strict=True):
            assert_bitwise(y.full_tensor(), expected, name)
            assert y.placements == tuple(placements), name
    images = [X[0, :, :5], X[1]]
    for at in (Shard(0), Replicate()):
        cut = [distribute_tensor(image, mesh, [at]).requires_grad_() for image in images]
        ours = F.spatial_pyramid_pool2d(cut, mode="stochastic", seed=5)
        assert_bitwise(ours.full_tensor(), F.spatial_pyramid_pool2d(images, mode="stochastic", seed=5), str(at))
        ours.sum().backward()
        assert all(image.grad.placements == (at,) for image in cut)


def test_what_cannot_stay_cut_is_gathered_first():
    in_processes(4, gathered_first)


def second_derivatives(rank):
    mesh = init_device_mesh("cpu", (2,))
    weights = torch.rand(N, C, 4, 4, generator=torch.Generator().manual_seed(1))
    for pool in (lambda x: F.max_pool2d(x, 2), lambda x: F.soft_pool2d(x, 2)):
        for loss in (lambda y, w: y.pow(3).sum(), lambda y, w: (y * w).pow(2).sum(), lambda y, w: (y * w).sum()):
            found = []
            for x, w in (
                (X.clone(), weights.clone()),
                (distribute_tensor(X, mesh, [Shard(0)]), distribute_tensor(weights, mesh, [Replicate()])),
            ):
                x.requires_grad_(), w.requires_grad_()
                (first,) = torch.autograd.grad(loss(pool(x), w), x, create_graph=True)
                found.append(torch.autograd.grad(first.pow(2).sum(), [x, w], allow_unused=True))
            for theirs, ours in zip(*found, strict=True):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    assert_near(ours.full_tensor(), theirs, "second derivative")


def test_second_derivatives():
    in_processes(2, second_derivatives)


def compiled(rank):
    mesh = init_device_mesh("cpu", (2,))
    x, p = distribute_tensor(X, mesh, [Shard(0)]).requires_grad_(), distribute_tensor(P, mesh, [Replicate()])
    for name in ("mixed", "draw", "draw from torch's generator"):
        pool = POOLS[name] if "generator" not in name else lambda x, p, r: F.stochastic_pool2d(x, 2)
        results = []
        for call in (pool, torch.compile(pool, fullgraph=True, backend="aot_eager")):
            torch.manual_seed(7)
            y = call(x, p, None)
            results.append((y.to_local(), torch.autograd.grad(y.sum(), x)[0].to_local()))
        for ours, theirs in zip(*results, strict=True):
            assert_bitwise(ours, theirs, name)


def test_compiled():
    in_processes(2, compiled)


def trained(rank):
    """A replicated layer on a cut batch learns what one process learns."""
    mesh = init_device_mesh("cpu", (2,))
    layers = [fnn.MixedPool2d(2, learnable=True, num_channels=C), fnn.GeMPool2d(2), fnn.GatedPool2d(2, bias=True)]
    for layer in layers:
        whole, cut = layer, distribute_module(copy.deepcopy(layer), mesh)
        for model, x in ((whole, X), (cut, distribute_tensor(X, mesh, [Shard(0)]))):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                model(x).pow(2).mean().backward()
                optimizer.step()
        for (name, ours), theirs in zip(cut.named_parameters(), whole.parameters(), strict=True):
            assert_near(ours.full_tensor(), theirs, f"{layer}: {name}")


def test_a_layer_learns_as_in_one_process():
    in_processes(2, trained)


def test_importing_fastpool_does_not_import_what_only_dtensors_need():
    code = "import fastpool, sys; sys.exit('torch.distributed.tensor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
