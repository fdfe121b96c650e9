"""What goes wrong around a call: no memory, an interrupt, other threads, a fork, a changed tensor, a leak.

What may end or spoil the process runs in a child: `python test_faults.py FUNCTION ARGUMENT...` calls that function.
FASTPOOL_TEST_FAULTS=all runs the long variants.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from comparison import assert_bitwise

import fastpool
import fastpool.functional as F
from fastpool import _C as extension

LONG = os.environ.get("FASTPOOL_TEST_FAULTS") == "all"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc and limits addresses")
LONG_ONLY = pytest.mark.skipif(not LONG, reason="long; FASTPOOL_TEST_FAULTS=all runs it")

FUNCTIONS = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "avg": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "max_avg": lambda x: torch.cat(F.max_avg_pool2d(x, 2)),
    "mixed": lambda x: F.mixed_pool2d(x, 3, 2, alpha=0.3),
    "stochastic": lambda x: F.stochastic_pool2d(x, 2, seed=1),
    "softmax": lambda x: F.stochastic_pool2d(x, 4, distribution="softmax", seed=1),
    "expectation": lambda x: F.stochastic_pool2d(x, 3, 2, training=False),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 7),
    "adaptive avg": lambda x: F.adaptive_avg_pool2d(x, 5),
    "global": F.global_avg_pool,
    "pyramid": lambda x: F.spatial_pyramid_pool2d(x, mode="max_avg"),
    "rows": lambda x: F.avg_pool1d(x.flatten(1, 2), 7, 3),
    "channels last": lambda x: F.mixed_pool2d(x.contiguous(memory_format=torch.channels_last), 3, 2),
}


def results(pool, x):
    y = pool(x)
    return [y.detach(), *torch.autograd.grad(y.sum(), x)]


def child(function, *arguments):
    """-> what a function of this file prints in a process of its own"""
    found = os.pathsep.join([str(Path(fastpool.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    # Without arenas and thresholds that adapt, every tensor and every block of scratch is asked of the system.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, __file__, function, *map(str, arguments)],
        env={"OMP_WAIT_POLICY": "passive", **os.environ, **malloc, "PYTHONPATH": found},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def in_new_thread(function, *arguments):
    """A thread has scratch memory, and a pool of OpenMP's, of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


# No memory.


def addresses():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def starved(pool, x, step):
    """-> the texts of the errors in a call that may take so much and no more memory, ever more until it succeeds"""
    results(pool, x)  # threads that cannot start, or find no memory for their own data, end the process
    texts, budget, actual = [], 0, None
    while actual is None:
        resource.setrlimit(resource.RLIMIT_AS, (addresses() + budget, resource.RLIM_INFINITY))
        try:
            actual = results(pool, x)
        except (RuntimeError, MemoryError) as error:
            texts.append(str(error) or repr(error))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        budget += step
    return texts, actual, results(pool, x)


def starve(step):
    torch.set_num_threads(2)
    x = torch.randn(2, 24, 64, 96, generator=torch.Generator().manual_seed(0), requires_grad=True)
    report = {}
    for name, pool in FUNCTIONS.items():
        texts, *both = in_new_thread(starved, pool, x, int(step))
        expected = in_new_thread(results, pool, x)
        for actual in both:
            for one, other in zip(actual, expected, strict=True):
                assert_bitwise(one, other, name)
        report[name] = texts
    print(json.dumps(report))


@LINUX
@pytest.mark.skipif("san.so" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer needs terabytes of addresses")
@LONG_ONLY
@pytest.mark.parametrize("step", [2**18, 2**14])
def test_no_memory(step):
    """Results, taps, copies and gradients fail in turn; then the call succeeds, with the right bits."""
    report = json.loads(child("starve", step))
    assert all(report.values()), "a call that failed at no point"
    texts = [text for texts in report.values() for text in texts]
    for text in texts:
        # Copies of inputs, and what Python computes, are torch's own.
        assert (
            re.search("no memory left for|aten::contiguous|DefaultCPUAllocator", text)
            and "torch_parallel_for" not in text
        ), text
    assert any("a result of shape" in text for text in texts)


def without_scratch(pool, x, step=2**16):
    """-> the texts of the errors in a call that may have so much and no more scratch, ever more until it succeeds"""
    texts, limit, actual = [], 0, None
    while actual is None:
        assert extension.limit_scratch(limit) is None
        try:
            actual = results(pool, x)
        except RuntimeError as error:
            texts.append(str(error))
        finally:
            assert extension.limit_scratch() == limit
        limit += step
    return texts, extension.scratch_size(), actual, results(pool, x)


def test_no_scratch():
    """Every growth of a thread's scratch fails in turn; then the call succeeds, with the right bits, and gives back."""
    x = torch.randn(2, 24, 96, 1024, generator=torch.Generator().manual_seed(0), requires_grad=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        needs = {}
        for name, pool in FUNCTIONS.items():
            expected = in_new_thread(results, pool, x)
            texts, kept, *both = in_new_thread(without_scratch, pool, x)
            for actual in both:
                for one, other in zip(actual, expected, strict=True):
                    assert_bitwise(one, other, name)
            for text in texts:
                assert re.search(r"fastpool: no memory left for \d+ bytes of a thread's scratch", text), text
            assert kept <= 2**20, f"{name} keeps {kept} bytes"
            needs[name] = len(texts)
        assert max(needs.values()) * 2**16 > 2**20, f"none needs more than a thread keeps: {needs}"
    finally:
        torch.set_num_threads(threads)


# Interrupts.


@pytest.fixture
def interruptible():
    """What a shell starts in the background ignores Ctrl-C."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_interrupt(interruptible):
    """Ctrl-C between or in calls of a long loop leaves nothing behind."""
    x = torch.randn(4, 16, 128, 128, requires_grad=True)
    expected = {name: results(pool, x) for name, pool in FUNCTIONS.items()}
    for attempt in range(20):
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.01 + 0.003 * attempt, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                for pool in FUNCTIONS.values():
                    results(pool, x)
        for name, pool in FUNCTIONS.items():
            for one, other in zip(results(pool, x), expected[name], strict=True):
                assert_bitwise(one, other, name)


# Threads.


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_python_threads(threads):
    """Each calls another function, all at once, with as many threads of torch's."""
    torch.set_num_threads(threads)
    x = torch.randn(2, 40, 30, 70, requires_grad=True)
    expected = {name: results(pool, x) for name, pool in FUNCTIONS.items()}
    names = list(FUNCTIONS)
    start = threading.Barrier(8)

    def calls(first):
        torch.set_num_threads(threads)  # is a thread's own
        start.wait()
        for i in range(30):
            name = names[(first + i) % len(names)]
            for one, other in zip(results(FUNCTIONS[name], x), expected[name], strict=True):
                assert_bitwise(one, other, name)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(calls, range(8)))) == 8


# Fork.


def forked(threads):
    """In a child that was forked after parallel work, which has the parent's memory and none of its threads."""
    torch.set_num_threads(2)
    x = torch.randn(2, 40, 30, 70, requires_grad=True)
    expected = {name: results(pool, x) for name, pool in FUNCTIONS.items()}
    process = os.fork()
    if process == 0:
        code = 1
        try:
            torch.set_num_threads(int(threads))
            for name, pool in FUNCTIONS.items():
                for one, other in zip(results(pool, x), expected[name], strict=True):
                    assert_bitwise(one, other, name)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    for name, pool in FUNCTIONS.items():
        assert_bitwise(results(pool, x)[1], expected[name][1], name)


def test_fork_after_parallel_work():
    """OpenMP's pool does not survive a fork: a child calls with one thread, as torch's own data loaders do."""
    child("forked", 1)


# Tensors that are changed before backward reads them.

X = torch.rand(2, 3, 9, 11, dtype=torch.float64)
ALPHA = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def expectation(**options):
    return lambda x, alpha: F.stochastic_pool2d(x, 3, 2, training=False, **options)


# name: call, what backward reads, what it does not
KEPT = {
    "expectation": (expectation(), "xy", ""),
    "expectation by softmax": (expectation(distribution="softmax"), "xy", ""),
    "expectation 2x2": (lambda x, alpha: F.stochastic_pool2d(x, 2, training=False), "x", "y"),
    "expectation without a batch": (lambda x, alpha: F.stochastic_pool2d(x[0], 3, training=False), "xy", ""),
    "adaptive expectation": (lambda x, alpha: F.adaptive_stochastic_pool2d(x, 4, training=False), "xy", ""),
    "global expectation": (lambda x, alpha: F.global_stochastic_pool(x, keepdim=False, training=False), "xy", ""),
    "pyramid of expectations": (
        lambda x, alpha: F.spatial_pyramid_pool2d(x, flatten=None, mode="stochastic", training=False),
        "xy",
        "",
    ),
    "list of expectations": (
        lambda x, alpha: F.spatial_pyramid_pool2d([x[0], x[1]], mode="stochastic", training=False),
        "xy",
        "",
    ),
    "mixed": (lambda x, alpha: F.mixed_pool2d(x, 2, alpha=alpha), "a", "xy"),
    "mixed 3x3": (lambda x, alpha: F.mixed_pool2d(x, 3, 2, 1, alpha=alpha), "a", "xy"),
    "pyramid of mixtures": (lambda x, alpha: F.spatial_pyramid_pool2d(x, mode="mixed", alpha=alpha), "a", "xy"),
    "max": (lambda x, alpha: F.max_pool2d(x, 2, return_indices=True), "", "xyi"),
    "avg": (lambda x, alpha: F.avg_pool2d(x, 3, 2), "", "xy"),
    "max_avg": (lambda x, alpha: F.max_avg_pool2d(x, 2), "", "xyi"),
    "stochastic": (lambda x, alpha: F.stochastic_pool2d(x, 2, seed=1, return_indices=True), "", "xyi"),
    "adaptive max": (lambda x, alpha: F.adaptive_max_pool2d(x, 4), "", "xy"),
    "pyramid": (lambda x, alpha: F.spatial_pyramid_pool2d(x), "", "xy"),
}


def gradients_after(pool, change):
    """-> the gradients of x and alpha where `change`, of the input, alpha, output or second result, was overwritten"""
    x, alpha = X.clone().requires_grad_(), ALPHA.clone().requires_grad_()
    y = pool(x, alpha)
    y, second = y if isinstance(y, tuple) else (y, None)
    g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    with torch.no_grad():
        if change:
            {"x": x, "a": alpha, "y": y, "i": second}[change].zero_()
    return torch.autograd.grad(y, (x, alpha), g, allow_unused=True)


@pytest.mark.parametrize("name", KEPT)
def test_tensors_changed_in_place(name):
    pool, kept, free = KEPT[name]
    for change in kept:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradients_after(pool, change)
    expected = gradients_after(pool, "")
    for change in free:
        for one, other in zip(gradients_after(pool, change), expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert_bitwise(one, other, f"{name}: {change} changed")


@pytest.mark.parametrize("name", [name for name in KEPT if KEPT[name][1]])
def test_gradients_changed_in_place(name):
    """What the second backward reads of the first."""
    x, alpha = X.clone().requires_grad_(), ALPHA.clone().requires_grad_()
    y = KEPT[name][0](x, alpha)
    g = torch.ones_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    with torch.no_grad():
        g.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad((first * first).sum(), (x, g))


# Leaks.


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_files_and_threads():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def refused(x):
    for call in (
        lambda: F.max_pool2d(x, 0),
        lambda: torch.ops.fastpool.max_pool([x], None, [], [], [9, 2, 2, 0, 0, 1] * 2, -1, 1),
    ):
        try:
            call()
        except (ValueError, RuntimeError):
            continue
        raise AssertionError("accepted")


def call_often(times):
    torch.set_num_threads(2)
    small = torch.randn(1, 3, 9, 9, requires_grad=True)
    large = torch.randn(4, 24, 48, 64, requires_grad=True)  # enough for two threads
    pools = [*FUNCTIONS.values()]
    for i in range(times):
        pools[i % len(pools)](small)
        if i % 10 == 0:
            results(pools[i // 10 % len(pools)], small)
            refused(small)
        if i % 100 == 0:
            results(pools[i // 100 % len(pools)], large)


def train(steps):
    import fastpool.nn as fnn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds = [fnn.MaxPool2d(2), fnn.MixedPool2d(3, 2, learnable=True), fnn.StochasticPool2d(2)]
    layers = [torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), kind) for kind in kinds]
    model = torch.nn.Sequential(*layers, fnn.SpatialPyramidPool2d((2, 1)), torch.nn.Linear(20, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 4, 32, 32)).square().mean().backward()
        optimizer.step()


def grown(work, times):
    """Bytes that the process holds more after `work`, which has warmed up, and that files and threads are as before."""
    work = globals()[work]
    times = int(times)
    work(max(times // 5, 100))
    before, others = resident(), open_files_and_threads()
    work(times)
    assert open_files_and_threads() == others
    print(resident() - before)


@LINUX
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=LONG_ONLY)])
@pytest.mark.parametrize(("work", "times"), [("call_often", 10**4), ("train", 200)])
def test_nothing_leaks(work, times, long):
    """An allocator's own movements come to less than 2 MB, however often it is asked."""
    times *= 10 if long else 1
    growth = int(child("grown", work, times))
    assert growth < 2 * 2**20, f"{growth} bytes in {times} times"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
