"""What only a CUDA device shows: the whole case table against the CPU, streams, graphs, memory, training."""

import copy
import gc
import importlib
import threading
from pathlib import Path

import backends
import cases
import pytest
import torch
from comparison import assert_bitwise
from poolings import arguments_of
from test_torch_features import Network
from test_torch_features import step as layers_step
from torch.utils._pytree import tree_leaves, tree_map

import fastpool.functional as F
from fastpool import _C, nn

HERE = Path(__file__).parent


def missing():
    """-> why these tests cannot run, or nothing"""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if not _C.build_info()["cuda"]:
        return "fastpool was built without CUDA kernels"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "never")


@pytest.mark.parametrize("case", backends.CASES, ids=str)
def test_selections(case):
    for dtype in cases.DTYPES:
        x = backends.prepared(case, dtype)
        actual = backends.selections(case, backends.on_device(x).requires_grad_())
        backends.check_bitwise(actual, backends.selections(case, x), f"{case} {dtype}")


@pytest.mark.parametrize("case", backends.FINITE, ids=str)
def test_sums_and_expectations(case):
    for dtype in backends.dtypes(case):
        x = backends.prepared(case, dtype)
        exact = backends.rounded(case, x.detach().double().requires_grad_())
        actual = backends.rounded(case, backends.on_device(x).requires_grad_())
        backends.check_close(actual, backends.rounded(case, x), exact, f"{case} {dtype}")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", backends.PYRAMIDS)
def test_pyramids(name, layout):
    case = cases.sliding(f"pyramid {name}", backends.PYRAMIDS[name][0], 1, layout=layout)
    for dtype in cases.DTYPES:
        x = backends.prepared(case, dtype)
        exact = backends.pyramids(name, x.detach().double().requires_grad_())[1]
        selected, rest = backends.pyramids(name, backends.on_device(x).requires_grad_())
        expected_selected, expected_rest = backends.pyramids(name, x)
        backends.check_bitwise(selected, expected_selected, f"{name} {layout} {dtype}")
        backends.check_close(rest, expected_rest, exact, f"{name} {layout} {dtype}")


@pytest.mark.parametrize("case", backends.SLIDING, ids=str)
def test_products_of_filters(case):
    for dtype, options in zip((*backends.dtypes(case), torch.float64), backends.filters_of(case), strict=True):
        x, window = backends.windows_of_filters(case, dtype)
        actual = backends.by_filters(backends.on_device(x), window, *options)
        backends.check_by_filters(actual, x, window, options, f"{case} {dtype}")


def moved(tree, device="cuda"):
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, tree)


def assert_like_cpu(actual, expected, what=""):
    """Within some roundings of float32."""
    for y, wanted in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        torch.testing.assert_close(
            y.detach().cpu(), wanted.detach(), rtol=1e-5, atol=1e-5, msg=lambda m: f"{what}: {m}"
        )


def called(name, device):
    """-> results and the gradient of one call of a public function"""
    torch.manual_seed(0)
    x, options = moved(arguments_of(name), device)
    outputs = tree_leaves(getattr(F, name)(x.requires_grad_(), **options))
    differentiable = [y for y in outputs if y.is_floating_point()]
    return [*outputs, backends.gradient(differentiable, x)]


@pytest.mark.parametrize("name", F.__all__)
def test_every_function(name):
    assert_like_cpu(called(name, "cuda"), called(name, "cpu"), name)


def test_pyramid_of_a_list():
    """Of inputs of their own sizes."""
    items = [torch.randn(5, height, 30) for height in (7, 40, 12)]
    for mode in ("max", "avg", "mixed", "stochastic"):
        options = {"mode": mode, "levels": (3, 1), **({"seed": 3} if mode == "stochastic" else {})}
        results = []
        for device in ("cuda", "cpu"):
            xs = [x.to(device).requires_grad_() for x in items]
            y = F.spatial_pyramid_pool2d(xs, **options)
            results.append([y, *torch.autograd.grad(y, xs, backends.incoming([y])[0])])
        assert_like_cpu(*results, mode)


@pytest.fixture
def exact_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def test_every_layer_trains(exact_convolutions):
    x, network = torch.randn(2, 5, 9, 10), Network("stochastic", "random_mixed")
    assert_like_cpu(layers_step(copy.deepcopy(network).cuda(), x.cuda()), layers_step(network, x))


@pytest.mark.parametrize("memory_format", (torch.contiguous_format, torch.channels_last), ids=str)
def test_every_layer_compiles(exact_convolutions, memory_format):
    """With the draws of an eager call, but for those of torch.rand, for which inductor has a generator of its own."""
    x, network = torch.randn(2, 5, 9, 10, device="cuda").to(memory_format=memory_format), Network("random_mixed").cuda()
    torch._dynamo.reset()
    compiled = layers_step(network, x, torch.compile(lambda network, x: network(x), fullgraph=True))
    assert_like_cpu(compiled, moved(layers_step(network, x), "cpu"))


def test_every_layer_is_exported(exact_convolutions):
    x, network = torch.randn(2, 5, 9, 10, device="cuda"), Network().eval().cuda()
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    x = torch.randn(3, 5, 9, 10, device="cuda")
    assert_like_cpu(exported.module()(x), moved(network(x), "cpu"))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
def test_autocast_and_gradient_scaling(dtype):
    x, network = torch.randn(4, 5, 9, 10, device="cuda"), Network().cuda()
    optimizer, scaler = torch.optim.SGD(network.parameters(), 1e-3), torch.amp.GradScaler("cuda", init_scale=16.0)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.autocast("cuda", dtype):
        results = network(x)
        loss = sum(y.float().square().mean() for y in results)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(y.isfinite().all() for y in results)
    assert all((p != b).any() for p, b in zip(network.parameters(), before, strict=True))


def test_every_layer_in_vmap(exact_convolutions):
    network, x = Network("stochastic", "random_mixed").cuda(), torch.randn(3, 2, 5, 9, 10, device="cuda")
    with torch.no_grad():
        together, alone = torch.func.vmap(network)(x), [network(part) for part in x]
    for i, ys in enumerate(alone):
        assert_like_cpu([y[i] for y in together], moved(ys, "cpu"))


def test_arguments_of_another_device_are_refused():
    here, there = torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6, device="cuda")
    for x, other in ((here, there), (there, here)):
        with pytest.raises((ValueError, RuntimeError), match="alpha"):
            F.mixed_pool2d(x, 2, alpha=other[0, :, 0, 0].sigmoid())
        with pytest.raises(ValueError, match="seed"):
            F.stochastic_pool2d(x, 2, seed=torch.tensor([3], device=other.device))
        with pytest.raises(ValueError, match="generator"):
            F.stochastic_pool2d(x, 2, generator=torch.Generator(other.device))


def test_modules_move():
    """To the device, and with their state back."""
    for pool in (nn.MixedPool2d(2, learnable=True, num_channels=5), nn.StochasticPool2d(2, seed=torch.tensor([3]))):
        x = torch.randn(2, 5, 9, 10)
        assert_like_cpu(pool.cuda()(x.cuda()), pool.cpu()(x))


def step(x):
    """One forward and backward of several kinds -> everything they gave"""
    results = []
    for pool in (
        lambda: F.max_pool2d(x, 3, 2, 1),
        lambda: F.mixed_pool2d(x, 2, alpha=torch.full((x.shape[1],), 0.3, device=x.device, requires_grad=True)),
        lambda: F.stochastic_pool2d(x, 2, seed=3),
        lambda: F.spatial_pyramid_pool2d(x, mode="avg"),
        lambda: F.global_avg_pool(x),
    ):
        y = pool()
        results += [y.detach(), backends.gradient([y], x)]
    return results


def test_a_stream_of_its_own():
    """The input is made on the stream just before: a kernel on another one would read it too early."""
    x = torch.randn(8, 16, 112, 112, device="cuda")
    expected = step(x.clone().requires_grad_())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    for _ in range(20):
        with torch.cuda.stream(stream):
            late = torch.zeros_like(x)
            torch.cuda._sleep(2_000_000)
            late.copy_(x)
            actual = step(late.requires_grad_())
        stream.synchronize()
        for a, e in zip(actual, expected, strict=True):
            assert_bitwise(a.cpu(), e.cpu())


def test_two_threads_on_two_streams():
    inputs = [torch.randn(4, 8, 57, 60, device="cuda") for _ in range(2)]
    expected = [step(x.clone().requires_grad_()) for x in inputs]
    torch.cuda.synchronize()
    wrong = []

    def work(x, wanted):
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(30):
                    for a, e in zip(step(x.clone().requires_grad_()), wanted, strict=True):
                        assert_bitwise(a.cpu(), e.cpu())
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def test_graph_replays_with_fresh_draws():
    x = torch.rand(4, 8, 32, 32, device="cuda") + 0.1
    with torch.cuda.stream(torch.cuda.Stream()):
        F.stochastic_pool2d(x, 2), F.max_pool2d(x, 2)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn, largest = F.stochastic_pool2d(x, 2), F.max_pool2d(x, 2)
    graph.replay()
    first = drawn.clone()
    assert_bitwise(largest.cpu(), F.max_pool2d(x.cpu(), 2))
    x.mul_(2)  # exact: a replay reads the input anew
    graph.replay()
    assert_bitwise(largest.cpu(), F.max_pool2d(x.cpu(), 2))
    second = drawn / 2
    same = (first == second).float().mean().item()
    assert same < 0.5, f"{same:.0%} of the draws are the same"
    windows = torch.nn.functional.unfold(x / 2, 2, stride=2).view(4, 8, 4, -1)
    assert (windows == second.flatten(2)[:, :, None]).any(2).all()


def unsynchronised(x):
    step(x)
    F.stochastic_pool2d(x, 3).sum().backward()


def test_no_synchronisation():
    x = torch.randn(4, 8, 33, 33, device="cuda", requires_grad=True)
    unsynchronised(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        unsynchronised(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_are_alike():
    x = torch.randn(8, 32, 57, 56, device="cuda", requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        expected = step(x)
        for _ in range(3):
            for a, e in zip(step(x), expected, strict=True):
                assert torch.equal(a, e)
    finally:
        torch.use_deterministic_algorithms(False)


# Name -> shape, axis along which pieces are compared. Sums over 2^31 elements, and 2^24 + 1 planes, which is more than
# two axes of a grid would hold.
LARGE = {
    "samples": ((2**13 + 1, 1, 512, 514), 0),
    "planes": ((2**24 + 1, 1, 2, 2), 0),
    "one plane": ((1, 1, 1, 2**31 + 2**20), 3),
    "channels_last": ((2**13 + 1, 4, 256, 258), 0),
}


def check_large(name):
    shape, axis = LARGE[name]
    layout = torch.channels_last if name == "channels_last" else torch.contiguous_format
    x = torch.empty(shape, dtype=torch.float16, device="cuda", memory_format=layout).normal_().requires_grad_()
    kernel_size = (min(shape[2], 2), 2)
    y = F.max_pool2d(x, kernel_size)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    scale, length = shape[axis] // y.shape[axis], 64
    for start in (0, shape[axis] // 4 * 2, shape[axis] - length):
        piece = x.detach().narrow(axis, start, length).cpu().requires_grad_()
        expected = F.max_pool2d(piece, kernel_size)
        assert_bitwise(y.detach().narrow(axis, start // scale, length // scale).cpu(), expected, f"{name} {start}")
        (wanted,) = torch.autograd.grad(expected, piece, torch.ones_like(expected))
        assert_bitwise(gradient.narrow(axis, start, length).cpu(), wanted, f"gradient of {name} {start}")


def test_large():
    """One after the other, also where tests run in several processes."""
    for name, (shape, _) in LARGE.items():
        needed = 12 * torch.Size(shape).numel()
        if torch.cuda.mem_get_info()[0] < needed:
            pytest.skip(f"{name} needs {needed >> 30} GiB")
        check_large(name)
        torch.cuda.empty_cache()


def test_memory_comes_back():
    x = torch.randn(4, 8, 32, 32, device="cuda", requires_grad=True)

    def steps(count):
        for _ in range(count):
            step(x)
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = steps(5)
    assert steps(1000) == before


@pytest.fixture
def digits(monkeypatch):
    """The demo, whose networks are trained here."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(HERE.parent / "examples"))
    return importlib.import_module("digits")


@pytest.mark.parametrize("name", ["max", "average", "mixed", "stochastic", "pyramid"])
def test_training(digits, name):
    """The demo's networks on its digits: the device learns them, as the CPU does."""
    sklearn = pytest.importorskip("sklearn.datasets")
    images, labels = (torch.from_numpy(a).cuda() for a in sklearn.load_digits(return_X_y=True))
    images = images.float().view(-1, 1, 8, 8) / 16
    torch.manual_seed(0)
    network = digits.Network(digits.POOLINGS[name], 8).cuda()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(12):
        for batch in torch.randperm(1500, device="cuda").split(50):
            loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    assert accuracy > 0.85, accuracy
