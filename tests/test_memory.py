"""What training keeps, what a call allocates, and tensors that no cache holds."""

from pathlib import Path

import cases
import pytest
import torch
from comparison import assert_bitwise

import fastpool.functional as F

X = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def saved_by(function, x):
    """-> what autograd keeps of the call"""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        outputs = function(x.clone(memory_format=torch.preserve_format).requires_grad_())
    return [t for t in saved if t.numel()], outputs[0] if isinstance(outputs, tuple) else outputs


# One tap per output and nothing else.
ONE_TAP = {
    "max": lambda x: F.max_pool2d(x, 2),
    "max overlapping": lambda x: F.max_pool2d(x, 3, 1, 1),
    "max with indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_avg": lambda x: F.max_avg_pool2d(x, 2),
    "mixed": lambda x: F.mixed_pool2d(x, 2, alpha=0.25),
    "mixed by an alpha without gradient": lambda x: F.mixed_pool2d(x, 2, alpha=torch.tensor(0.25)),
    "stochastic": lambda x: F.stochastic_pool2d(x, 2),
    "stochastic with indices": lambda x: F.stochastic_pool2d(x, 2, return_indices=True),
    "stochastic softmax": lambda x: F.stochastic_pool2d(x, 2, distribution="softmax"),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    "adaptive mixed": lambda x: F.adaptive_mixed_pool2d(x, 3),
    "adaptive stochastic": lambda x: F.adaptive_stochastic_pool2d(x, 3),
    "global max": lambda x: F.global_max_pool(x),
    "global stochastic": lambda x: F.global_stochastic_pool(x),
    "pyramid max": lambda x: F.spatial_pyramid_pool2d(x),
    "pyramid stochastic": lambda x: F.spatial_pyramid_pool2d(x, mode="stochastic", flatten="channel"),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", ONE_TAP)
def test_one_byte_per_output(name, layout):
    saved, y = saved_by(ONE_TAP[name], X.contiguous(memory_format=layout))
    taps = [t for t in saved if t.numel() > 1]
    assert [t.dtype for t in taps] == [torch.uint8]
    assert taps[0].numel() == y.numel()
    assert len(saved) - len(taps) <= 1, "besides the taps there is room for one number, alpha"


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 3),
        lambda x: F.global_avg_pool(x),
        lambda x: F.spatial_pyramid_pool2d(x, mode="avg"),
    ],
    ids=["sliding", "adaptive", "global", "pyramid"],
)
def test_average_saves_nothing(pool):
    assert saved_by(pool, X)[0] == []


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.stochastic_pool2d(x, 2, training=False),
        lambda x: F.stochastic_pool2d(x, 2, training=False, distribution="softmax"),
        lambda x: F.soft_pool2d(x, 2),
    ],
    ids=["relu", "softmax", "soft"],
)
def test_small_windows_save_the_input_alone(pool, layout):
    saved, _ = saved_by(pool, X.contiguous(memory_format=layout))
    assert [t.shape for t in saved if t.numel()] == [X.shape]


# kind, number of taps -> dtype of the taps
LIMITS = [
    ("max", 255, torch.uint8),
    ("max", 256, torch.uint8),
    ("max", 257, torch.int32),
    ("max_avg", 256, torch.uint8),
    ("max_avg", 257, torch.int32),
    ("mixed", 256, torch.uint8),
    ("mixed", 257, torch.int32),
    ("relu", 255, torch.uint8),
    ("relu", 256, torch.int32),
    ("softmax", 256, torch.uint8),
    ("softmax", 257, torch.int32),
]


@pytest.mark.parametrize(("kind", "size", "dtype"), LIMITS, ids=lambda value: str(value))
def test_width_of_taps(kind, size, dtype):
    pools = {
        "max": lambda x: F.max_pool1d(x, size),
        "max_avg": lambda x: F.max_avg_pool1d(x, size),
        "mixed": lambda x: F.mixed_pool1d(x, size),
        "relu": lambda x: F.stochastic_pool1d(x, size),
        "softmax": lambda x: F.stochastic_pool1d(x, size, distribution="softmax"),
    }
    saved, _ = saved_by(pools[kind], torch.rand(2, 3, 2 * size))
    assert [t.dtype for t in saved if t.numel() > 1] == [dtype]


@pytest.mark.parametrize(("length", "dtype"), [(764, torch.uint8), (767, torch.int32)])
def test_width_of_taps_follows_the_largest_bin(length, dtype):
    """Of three uneven bins the middle one is two longer than a third: 256 and 257 elements."""
    x = torch.zeros(1, 2, length)
    middle = slice(length // 3, -(-2 * length // 3))
    x[..., middle.stop - 1] = 1.0
    saved, _ = saved_by(lambda x: F.adaptive_max_pool1d(x, 3), x)
    assert [t.dtype for t in saved] == [dtype]
    assert middle.stop - middle.start == (256 if dtype == torch.uint8 else 257)
    _, indices = F.adaptive_max_pool1d(x, 3, return_indices=True)
    assert (indices[..., 1] == middle.stop - 1).all()


def test_learned_alpha_keeps_no_input():
    alpha = torch.tensor(0.5, requires_grad=True)
    saved, y = saved_by(lambda x: F.mixed_pool2d(x, 2, alpha=alpha), X)
    assert sorted((t.numel() for t in saved), reverse=True) == [y.numel(), y.numel(), 1]
    assert {t.dtype for t in saved} == {torch.uint8, torch.float32}


def test_nothing_is_kept_without_gradient():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        for pool in ONE_TAP.values():
            pool(X)
            with torch.no_grad():
                pool(X.clone().requires_grad_())
    assert saved == []


def kilobytes(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise AssertionError(key)


def peak_bytes(function):
    """-> result, growth of the resident set during the call at its highest"""
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    result = function()
    return result, 1024 * (kilobytes("VmHWM") - before)


def size_of(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


PEAKS = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg": lambda x: F.avg_pool2d(x, 2),
    "mixed": lambda x: F.mixed_pool2d(x, 2, alpha=0.3),
    "stochastic": lambda x: F.stochastic_pool2d(x, 2, seed=1),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 7),
    "global": lambda x: F.global_avg_pool(x),
    "pyramid": lambda x: F.spatial_pyramid_pool2d(x),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, torch.contiguous_format) for name in PEAKS]
    + [(name, torch.channels_last) for name in ("max", "stochastic", "pyramid")],
    ids=str,
)
def test_peak_memory(name, layout):
    """Besides outputs and taps a call takes less than 1 % of its input, forward and backward."""
    x = torch.ones(32, 64, 160, 160).contiguous(memory_format=layout)
    small = torch.ones(2, 64, 160, 160, requires_grad=True)
    PEAKS[name](small.contiguous(memory_format=layout)).sum().backward()  # code and threads of a first call
    PEAKS[name](x[:2])
    y, peak = peak_bytes(lambda: PEAKS[name](x))
    spare = size_of(x) // 100
    assert peak < size_of(y) + spare, "forward"
    del y
    x.requires_grad_()
    y, peak = peak_bytes(lambda: PEAKS[name](x))
    assert peak < size_of(y) + y.numel() + spare, "forward with taps"
    g = torch.ones_like(y)
    (gradient,), peak = peak_bytes(lambda: torch.autograd.grad(y, x, g))
    assert peak < size_of(gradient) + spare, "backward"


# Long rows, or many short ones: nothing is held for all of them at once.
LONG = {
    "adaptive max": ((1, 1, 1_600_000), lambda x: F.adaptive_max_pool1d(x, 400_001)),
    "adaptive avg": ((1, 2, 4_000_000), lambda x: F.adaptive_avg_pool1d(x, 1_500_000)),
    "adaptive max_avg": ((1, 9, 1_000_000), lambda x: F.adaptive_max_avg_pool1d(x, 300_001)),
    "adaptive draws": ((1, 8, 2_000_000), lambda x: F.adaptive_stochastic_pool1d(x, 400_001, seed=1)),
    "many rows": ((1, 1, 2_000_000, 8), lambda x: F.max_pool2d(x, (1, 2))),
    "avg": ((1, 1, 40_000_000), lambda x: F.avg_pool1d(x, 3)),
    "padded avg": ((1, 1, 20_000_000), lambda x: F.avg_pool1d(x, 3, 2, 1)),
    "wide kernels": ((1, 2, 4_000_000), lambda x: F.avg_pool1d(x, 200, 50)),
    "folded rows": ((1, 8, 40, 100_000), lambda x: F.adaptive_avg_pool2d(x, (3, 1000))),
    "pyramid": ((1, 1, 3, 4_000_000), lambda x: F.spatial_pyramid_pool2d(x, ((3, 100_001), 1), mode="avg")),
    "avg channels_last": ((1, 2, 2, 2_000_000), lambda x: F.avg_pool2d(x, (1, 3))),
    "overlapping avg channels_last": ((1, 64, 4, 60_000), lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "bins channels_last": ((1, 16, 4, 100_000), lambda x: F.adaptive_mixed_pool2d(x, (3, 70_001))),
    "overlapping max bfloat16": ((1, 1, 30_000_000), lambda x: F.max_pool1d(x, 3, 2, 1)),
    "overlapping max bfloat16 channels_last": ((1, 64, 4, 60_000), lambda x: F.max_pool2d(x, 3, 2, 1)),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("name", LONG)
def test_scratch_of_long_rows(name):
    shape, pool = LONG[name]
    x = torch.rand(shape, dtype=torch.bfloat16 if "bfloat16" in name else torch.float32)
    if "channels_last" in name:
        x = cases.channels_last(x)
    warm = torch.rand(2, 64, 32, 32, requires_grad=True)
    F.avg_pool2d(warm, 3, 1, 1).sum().backward()  # threads and code of a first call
    spare = max(size_of(x) // 100, 4 << 20)
    x.requires_grad_()
    y, peak = peak_bytes(lambda: pool(x))
    results = y if isinstance(y, tuple) else (y,)
    assert peak < size_of(*results) + results[0].numel() + spare, "forward with taps"
    g = [torch.ones_like(result) for result in results]
    (gradient,), peak = peak_bytes(lambda: torch.autograd.grad(results, x, g))
    assert peak < size_of(gradient) + spare, "backward"


@pytest.mark.parametrize("channels", [32, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_too_large_for_caches(channels, dtype):
    """They are written past the caches, where their addresses allow it."""
    rows = 48 * 2**20 // (channels * 500 * dtype.itemsize) + 3
    x = torch.randn(1, channels, rows, 500, dtype=dtype)
    x[0, 5, 6, 7] = torch.nan
    wide = x.contiguous(memory_format=torch.channels_last)
    for pool in (F.max_pool2d, F.avg_pool2d):
        assert torch.equal(pool(wide, 2).nan_to_num(9), pool(x, 2).nan_to_num(9))


@pytest.mark.parametrize("channels", [20, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_too_large_for_caches(channels, dtype):
    """They are written past the caches, unless one row is copied from the one before."""
    rows = 32 * 2**20 // (channels * 250 * dtype.itemsize)
    x = torch.randn(1, channels, rows, 250, dtype=dtype)
    pools = {
        "2x2": lambda x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2),
        "mixed 3x3": lambda x: F.mixed_pool2d(x, 3, 2, 1, alpha=0.3),
        "average 3x3": lambda x: F.avg_pool2d(x, 3, 2, 1),
        "repeated rows": lambda x: F.adaptive_avg_pool2d(x, 7),
        "weighted": lambda x: F.stochastic_pool2d(x, 2, training=False),
    }
    for name, pool in pools.items():
        routed = []
        for own in (x.clone(), cases.channels_last(x)):
            y = pool(own.requires_grad_())
            torch.manual_seed(0)
            g = torch.randn(y.shape, dtype=dtype)
            routed += torch.autograd.grad(y, own, cases.channels_last(g) if routed else g)
        assert_bitwise(routed[1], routed[0], name)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(130, 70, 25, 26), (300, 5, 49, 61), (3, 17, 11, 90, 91)], ids=str)
def test_inputs_too_large_for_caches(shape, dtype):
    """Large windows are then pooled in the order of memory, with the bits that each sample has by itself."""
    rank = len(shape) - 2
    x = torch.randn(shape, dtype=dtype)
    x.view(-1)[torch.randint(x.numel(), (50,))] = torch.nan
    x[0, 1], x[1, 0] = 0.5, -torch.inf
    x = cases.channels_last(x)
    assert x.numel() * x.element_size() > 8 * 2**20

    def same(name, *arguments, **options):
        pool = getattr(F, f"{name}{rank}d")
        apart = [pool(x[i : i + 1], *arguments, **options) for i in range(len(x))]
        together = pool(x, *arguments, **options)
        if isinstance(together, tuple):
            apart = zip(*apart, strict=True)
        else:
            apart, together = [apart], [together]
        for parts, whole in zip(apart, together, strict=True):
            assert_bitwise(whole, torch.cat(list(parts)))

    for output_size in (2, 3):
        same("adaptive_max_pool", output_size)
        same("adaptive_max_pool", output_size, return_indices=True)
        same("adaptive_max_avg_pool", output_size)
        same("adaptive_stochastic_pool", output_size, training=False)
    same("spatial_pyramid_pool", (3, 2, 1), mode="mixed", alpha=0.3)
    same("spatial_pyramid_pool", (3, 1), mode="avg", flatten="channel")
    same("max_pool", 11, stride=7, padding=5, return_indices=True)
    same("avg_pool", 11, stride=7, padding=5, count_include_pad=False)
    same("mixed_pool", 9, stride=5, dilation=2 if rank == 2 else 1, alpha=0.3)


def test_volumes_too_large_for_caches():
    """Rows of bins that see the same depth do not share what they gather."""
    x = torch.randn(176, 32, 3, 16, 8)
    own = cases.channels_last(x)
    assert_bitwise(F.max_pool3d(own, (3, 8, 8)), F.max_pool3d(x, (3, 8, 8)))
    x = torch.randn(3, 32, 32, 32, 32)
    own = cases.channels_last(x)
    assert_bitwise(F.spatial_pyramid_pool3d(own), F.spatial_pyramid_pool3d(x))
