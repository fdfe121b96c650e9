"""The demo's network in two processes, by torch's own engines: it learns what it learns in one."""

import importlib
from pathlib import Path

import pytest
import torch
from processes import in_processes
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import fastpool._C as extension
import fastpool.nn as fnn

pytestmark = pytest.mark.multiprocess

EXAMPLES = str(Path(__file__).parent.parent / "examples")
PROCESSES, BATCH, STEPS = 2, 32, 5
DEVICES = {"gloo": "cpu", "nccl": "cuda"}
two_devices = pytest.mark.skipif(
    torch.cuda.device_count() < PROCESSES or not extension.build_info()["cuda"],
    reason=f"needs {PROCESSES} CUDA devices and a build for CUDA",
)
BACKENDS = ["gloo", pytest.param("nccl", marks=two_devices)]


@pytest.fixture
def digits(monkeypatch):
    """Images and labels; processes will find the demo, too."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    return [t[: BATCH * STEPS].numpy() for t in importlib.import_module("data").scikit_digits().train]


def assert_near(ours, theirs, what, **options):
    torch.testing.assert_close(ours, theirs, msg=lambda message: f"{what}: {message}", **options)


def learn(model, images, labels, rank=0, share=BATCH):
    """Steps with this process's share of each batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    for x, y in zip(images.split(BATCH), labels.split(BATCH)):
        mine = slice(rank * share, (rank + 1) * share)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[mine]), y[mine]).backward()
        optimizer.step()


def replicated(network, device):
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def sharded(network, device):
    mesh = init_device_mesh(device.type, (PROCESSES,))
    for layer in [*network.pools, network]:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return network


def together(rank, engine, backend, *train):
    """In float64, where what another order of sums changes stays small through AdamW's division by small numbers."""
    import digits

    device = torch.device(DEVICES[backend], rank if backend == "nccl" else None)
    images, labels = (torch.from_numpy(t).to(device) for t in train)
    share = BATCH // PROCESSES
    for name in ("max", "mixed", "stochastic"):
        networks = []
        for _ in range(2):
            torch.manual_seed(0)
            networks.append(digits.Network(digits.POOLINGS[name], 8).double().to(device))
        one, several = networks
        if name == "stochastic":
            for layer in several.pools:
                layer.offset = (rank * share, 0)
        start = one.state_dict()["pools.0.logit"].clone() if name == "mixed" else None
        torch.manual_seed(1)
        learn(one, images.double(), labels)
        torch.manual_seed(1)
        learn(engine(several, device), images.double(), labels, rank, share)
        for (parameter, theirs), ours in zip(one.named_parameters(), several.parameters(), strict=True):
            ours = ours.full_tensor() if isinstance(ours, DTensor) else ours
            assert_near(ours, theirs, f"{name}, {parameter}", rtol=1e-7, atol=1e-9)
        if start is not None:
            assert (one.pools[0].logit - start).abs() > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", [replicated, sharded])
def test_the_demo_learns_as_in_one_process(digits, engine, backend):
    in_processes(PROCESSES, together, engine, backend, *digits, backend=backend)


LEARNED = {
    "mixed": lambda: fnn.MixedPool2d(2, learnable=True),
    "mixed, from a tensor": lambda: fnn.AdaptiveMixedPool2d(2, alpha=torch.tensor(0.3), learnable=True),
    "soft": lambda: fnn.SoftPool2d(2, learnable=True),
    "lse": lambda: fnn.GlobalLSEPool(learnable=True),
    "gem": lambda: fnn.GeMPool2d(2),
    "gated": lambda: fnn.GatedPool2d(2, bias=True),
    "tree": lambda: fnn.TreePool2d(2),
}


def every_learned_layer(rank):
    mesh = init_device_mesh("cpu", (PROCESSES,))
    x = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    for name, make in LEARNED.items():
        torch.manual_seed(0)
        one = make()
        torch.manual_seed(0)
        several = fully_shard(make(), mesh=mesh)
        one(x).pow(2).mean().backward()
        several(x[2 * rank : 2 * rank + 2]).pow(2).mean().backward()
        for ours, theirs in zip(several.parameters(), one.parameters(), strict=True):
            assert_near(ours.grad.full_tensor(), theirs.grad, name)


def test_fully_shard_takes_every_layer_that_learns():
    in_processes(PROCESSES, every_learned_layer)
