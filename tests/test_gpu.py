"""What only a CUDA device shows: the whole case table against the CPU, streams, graphs, memory, training."""

import gc
import importlib
import threading
from pathlib import Path

import backends
import cases
import pytest
import torch
from comparison import assert_bitwise

import fastpool.functional as F
from fastpool import _C

HERE = Path(__file__).parent


def missing():
    """-> why these tests cannot run, or nothing"""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if not _C.build_info()["cuda"]:
        return "fastpool was built without CUDA kernels"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "never")


def on_device(x):
    """The same values and strides on the device."""
    moved = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
    return moved.copy_(x.detach()) if all(x.stride()) else x.detach().cuda().expand(x.shape)


@pytest.mark.parametrize("case", backends.CASES, ids=str)
def test_selections(case):
    for dtype in cases.DTYPES:
        x = backends.prepared(case, dtype)
        actual = backends.selections(case, on_device(x).requires_grad_())
        backends.check_bitwise(actual, backends.selections(case, x), f"{case} {dtype}")


@pytest.mark.parametrize("case", backends.FINITE, ids=str)
def test_sums_and_expectations(case):
    for dtype in backends.dtypes(case):
        x = backends.prepared(case, dtype)
        exact = backends.rounded(case, x.detach().double().requires_grad_())
        actual = backends.rounded(case, on_device(x).requires_grad_())
        backends.check_close(actual, backends.rounded(case, x), exact, f"{case} {dtype}")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", backends.PYRAMIDS)
def test_pyramids(name, layout):
    case = cases.sliding(f"pyramid {name}", backends.PYRAMIDS[name][0], 1, layout=layout)
    for dtype in cases.DTYPES:
        x = backends.prepared(case, dtype)
        exact = backends.pyramids(name, x.detach().double().requires_grad_())[1]
        selected, rest = backends.pyramids(name, on_device(x).requires_grad_())
        expected_selected, expected_rest = backends.pyramids(name, x)
        backends.check_bitwise(selected, expected_selected, f"{name} {layout} {dtype}")
        backends.check_close(rest, expected_rest, exact, f"{name} {layout} {dtype}")


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


def free_bytes():
    return torch.cuda.mem_get_info()[0]


# Name -> shape, axis along which pieces are compared. Sums over 2^31 elements, and 2^24 + 1 planes, which is more than
# two axes of a grid would hold.
LARGE = {
    "samples": ((2**13 + 1, 1, 512, 514), 0),
    "planes": ((2**24 + 1, 1, 2, 2), 0),
    "one plane": ((1, 1, 1, 2**31 + 2**20), 3),
    "channels_last": ((2**13 + 1, 4, 256, 258), 0),
}


@pytest.mark.parametrize("name", LARGE)
def test_large(name):
    shape, axis = LARGE[name]
    numel = torch.Size(shape).numel()
    if torch.cuda.mem_get_info()[0] < 12 * numel:
        pytest.skip(f"{numel} elements need {12 * numel >> 30} GiB")
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
    for _ in range(8):
        for batch in torch.randperm(1500, device="cuda").split(50):
            loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    assert accuracy > 0.85, accuracy
