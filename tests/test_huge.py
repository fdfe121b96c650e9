"""More than 2^31 elements, more than 2^24 planes, rows of 2^27: results that are known, or those of a part."""

import os

import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise

import fastpool.functional as F

CHOICE = os.environ.get("FASTPOOL_TEST_HUGE", "some")
GIGABYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
NEEDED = 8
pytestmark = [
    pytest.mark.huge,
    pytest.mark.skipif(
        CHOICE == "0" or GIGABYTES < NEEDED,
        reason=f"needs {NEEDED} GB of free memory, there are {GIGABYTES:.0f} (FASTPOOL_TEST_HUGE=0 skips too)",
    ),
]
LONG = pytest.mark.skipif(CHOICE != "all", reason="takes minutes; FASTPOOL_TEST_HUGE=all runs it")


@pytest.fixture(autouse=True)
def nothing_filled(poisoned_memory_and_global_state):
    """Filling gigabytes with NaN takes longer than pooling them."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture(scope="module")
def huge():
    """2^31 + 2^17 elements, zero but for a few at the far end"""
    untouched = np.zeros(2**31 + 2**17, np.int16)  # the kernel's one zero page until somebody writes
    return torch.from_numpy(untouched).view(torch.bfloat16).view(1, 1, 2**15 + 2, 2**16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=LONG)], ids=str)
def test_more_than_2_31_elements_in_one_plane(huge, dtype):
    x = huge.detach().view(dtype)
    x[0, 0, -1, -3] = 2.0
    x[0, 0, 2**15 - 1, -2] = 1.0
    x.requires_grad_()
    kernel = (2, 2**10)
    y, indices = F.max_pool2d(x, kernel, return_indices=True)
    expected = torch.zeros(1, 1, 2**14 + 1, 2**6, dtype=dtype)
    expected[0, 0, -1, -1], expected[0, 0, -2, -1] = 2.0, 1.0
    assert_bitwise(y, expected)
    assert indices[0, 0, -1, -1] == (2**15 + 1) * 2**16 + 2**16 - 3
    assert indices[0, 0, -2, -1] == (2**15 - 1) * 2**16 + 2**16 - 2
    g = torch.zeros_like(y)
    g[0, 0, -1, -1], g[0, 0, -2, -1] = 3.0, 5.0
    (gradient,) = torch.autograd.grad(y, x, g)
    assert gradient[0, 0, -1, -3] == 3.0
    assert gradient[0, 0, 2**15 - 1, -2] == 5.0
    assert gradient.count_nonzero() == 2
    with torch.no_grad():
        x[0, 0, -1, -3], x[0, 0, 2**15 - 1, -2] = 0.0, 0.0


def test_more_than_2_31_elements_in_one_row(huge):
    x = huge.detach().view(1, 1, -1)
    x[0, 0, -3], x[0, 0, 5] = 2.0, 1.0
    x.requires_grad_()
    y = F.max_pool1d(x.detach(), 3, 2, 1)
    assert y[0, 0, :6].tolist() == [0, 0, 1, 1, 0, 0] and y[0, 0, -4:].tolist() == [0, 0, 2, 2]
    del y
    y = F.max_pool1d(x, 2**10)
    assert y[0, 0, 0] == 1.0 and y[0, 0, -1] == 2.0 and y.count_nonzero() == 2
    y = F.adaptive_avg_pool1d(x, 3)
    g = torch.tensor([[[3.0, 5.0, 7.0]]], dtype=torch.bfloat16)
    (gradient,) = torch.autograd.grad(y, x, g)
    size = x.numel() / 3
    for position in (0, 1, x.numel() // 2, 2**31 - 20, 2**31 - 1, 2**31, 2**31 + 20, x.numel() - 1):
        k = min(int(position / size), 2)
        assert gradient[0, 0, position].item() == pytest.approx((3 + 2 * k) / size, rel=2**-8), position
    with torch.no_grad():
        x[0, 0, -3], x[0, 0, 5] = 0.0, 0.0


@pytest.mark.parametrize("layout", ["planes", "channels last"])
def test_more_than_2_31_elements_in_many_planes(huge, layout):
    planes = 2**16 + 4
    flat = huge.detach().view(-1)[: planes * 2**15]
    flat[-1], flat[-1000] = 2.0, 1.0
    shapes = {"planes": (1, planes, 2**5, 2**10), "channels last": (1, 2**5, 2**10, planes)}
    x = flat.view(shapes[layout])
    x = x.permute(0, 3, 1, 2) if layout == "channels last" else x
    y, indices = F.max_pool2d(x, (2**5, 2**3), return_indices=True)
    average = F.global_avg_pool(x)
    if layout == "planes":
        assert_bitwise(F.stochastic_pool2d(x, (2**5, 2**3), seed=1), y, "the positive element is drawn")
        assert y[0, -1, 0, -1] == 2.0
        assert y[0, -1, 0, (2**10 - 1000) // 8] == 1.0
        assert indices[0, -1, 0, -1] == 2**15 - 1
        assert average[0, -1].double().item() == pytest.approx(3 / 2**15, rel=2**-8)
    else:
        assert y[0, -1, 0, -1] == 2.0
        assert y[0, -1000, 0, -1] == 1.0
        assert indices[0, -1, 0, -1] == 2**15 - 1
        assert average[0, -1].double().item() == 2 / 2**15
        assert average[0, -1000].double().item() == 1 / 2**15
    assert y.count_nonzero() == 2
    assert average.count_nonzero() == (1 if layout == "planes" else 2)
    flat[-1], flat[-1000] = 0.0, 0.0


# Poolings of planes by k x k windows; of draws, `first` is the number of x's first channel.
OF_PLANES = {
    "max": lambda x, k, first: F.max_pool2d(x, k),
    "avg": lambda x, k, first: F.avg_pool2d(x, k, k - 1),
    "stochastic": lambda x, k, first: F.stochastic_pool2d(x, k, k - 1, seed=5, offset=(0, first)),
    "max_avg": lambda x, k, first: torch.cat(F.max_avg_pool2d(x, k)),
    "mixed": lambda x, k, first: F.mixed_pool2d(x, k, k - 1, alpha=0.3),
    "softmax": lambda x, k, first: F.stochastic_pool2d(x, k, distribution="softmax", seed=5, offset=(0, first)),
    "expectation": lambda x, k, first: F.stochastic_pool2d(x, (k - 1, k), training=False),
    "min": lambda x, k, first: F.min_pool2d(x, k),
    "soft": lambda x, k, first: F.soft_pool2d(x, k, beta=2.0),
    "lse": lambda x, k, first: F.lse_pool2d(x, k, k - 1, r=2.0),
    "lp": lambda x, k, first: F.lp_pool2d(x, 2.0, k),
    "lp 3": lambda x, k, first: F.lp_pool2d(x, 3.0, k),
    "mean_std": lambda x, k, first: torch.cat(F.mean_std_pool2d(x, k, k - 1)),
    "adaptive": lambda x, k, first: F.adaptive_max_pool2d(x, (1, 2)),
    "global": lambda x, k, first: F.global_mixed_pool(x),
    "pyramid": lambda x, k, first: F.spatial_pyramid_pool2d(x, (2, 1), flatten=None),
}


def check_far_planes(pool, x, k, count=5):
    """The first and the last channels, alone not zero, give what they give by themselves, and the others 0."""
    parts = {0: x[:, :count], x.shape[1] - count: x[:, -count:]}
    generator = torch.Generator().manual_seed(1)
    for part in parts.values():
        part.copy_(torch.rand(part.shape, generator=generator) + 0.5)
    whole = x.detach().requires_grad_()
    y = pool(whole, k, 0)
    g, expected, nonzero = torch.zeros_like(y), {}, 0
    for first, part in parts.items():
        alone = part.clone().requires_grad_()
        expected[first] = pool(alone, k, first)
        assert_bitwise(y[:, first : first + count], expected[first], f"channels from {first}")
        nonzero += int(expected[first].count_nonzero())
        g[:, first : first + count] = torch.linspace(1, 2, expected[first].numel()).view(expected[first].shape)
        expected[first] = torch.autograd.grad(expected[first], alone, g[:, first : first + count])[0]
    assert y.count_nonzero() == nonzero
    del alone
    gradient = torch.autograd.grad(y, whole, g)[0]
    for first in parts:
        assert_bitwise(gradient[:, first : first + count], expected[first], f"gradient of channels from {first}")
    assert gradient.count_nonzero() == sum(int(part.count_nonzero()) for part in expected.values())
    for part in parts.values():
        part.zero_()


def planes_of(flat, layout, height, width):
    if layout == "channels last":
        return flat.view(1, height, width, -1).permute(0, 3, 1, 2)
    return flat.view(1, -1, height, width)


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", OF_PLANES)
@LONG
def test_more_than_2_31_elements_of_every_kind(huge, name, dtype, layout):
    flat = huge.detach().view(dtype).view(-1)[: (2**16 + 4) * 2**15]
    check_far_planes(OF_PLANES[name], planes_of(flat, layout, 2**5, 2**10), 8)


SOME = ("max", "avg", "stochastic")


@pytest.mark.parametrize("layout", ["planes", "channels last"])
@pytest.mark.parametrize("name", [name if name in SOME else pytest.param(name, marks=LONG) for name in OF_PLANES])
def test_more_than_2_24_planes(name, layout):
    x = planes_of(torch.zeros((2**24 + 1) * 6), layout, 2, 3)
    check_far_planes(OF_PLANES[name], x, 2)


def test_more_than_2_24_samples():
    x = torch.zeros(2**24 + 1, 1, 2, 3)
    check_far_planes(lambda x, k, first: F.max_pool2d(x.transpose(0, 1), k).transpose(0, 1), x.transpose(0, 1), 2)


ROW = 2**27


@pytest.fixture(scope="module")
def row():
    """Ones: sums are known, and exact unless somebody adds them one by one."""
    return torch.ones(1, 1, ROW, requires_grad=True)


def test_a_long_row_of_sliding_windows(row):
    y = F.max_pool1d(row, 3, 2, 1)
    assert y.shape[-1] == ROW // 2 and (y == 1).all()
    (gradient,) = torch.autograd.grad(y.sum(), row)
    assert gradient[0, 0, 0] == 1 and (gradient[0, 0, 1:-1:2] == 1).all(), "the first of a window's ones"
    assert not gradient[0, 0, 2::2].any() and gradient[0, 0, -1] == 0
    y = F.avg_pool1d(row, 2**10)
    assert y.shape[-1] == ROW // 2**10 and (y == 1).all()
    (gradient,) = torch.autograd.grad(y.sum(), row)
    assert (gradient == 2**-10).all()


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(F.avg_pool1d, id="sliding"),
        pytest.param(lambda x, k: F.global_avg_pool(x), id="global"),
        pytest.param(lambda x, k: F.global_mixed_pool(x, alpha=0.0), id="mixed"),
        pytest.param(lambda x, k: F.global_stochastic_pool(x, training=False), id="expectation"),
        pytest.param(
            lambda x, k: F.global_stochastic_pool(x, training=False, distribution="softmax"), id="softmax", marks=LONG
        ),
        pytest.param(lambda x, k: F.spatial_pyramid_pool1d(x, (1,), mode="avg"), id="pyramid", marks=LONG),
    ],
)
def test_a_long_row_as_one_window(row, pool):
    y = pool(row, ROW)
    assert y.numel() == 1 and y.item() == pytest.approx(1, rel=2**-20)
    (gradient,) = torch.autograd.grad(y.sum(), row)
    low, high = gradient.aminmax()
    assert low.item() == pytest.approx(1 / ROW, rel=2**-20) and high.item() == pytest.approx(1 / ROW, rel=2**-20)


def test_a_long_row_of_bins(row):
    y = F.adaptive_avg_pool1d(row, 3)
    assert (y - 1).abs().max() < 2**-20
    (gradient,) = torch.autograd.grad(y.sum(), row)
    assert gradient[0, 0, ROW // 3].item() == pytest.approx(6 / ROW, rel=2**-20), "of two bins"
    assert (gradient[0, 0, : ROW // 3] - 3 / ROW).abs().max() < 2**-40
    y, indices = F.adaptive_max_pool1d(row.detach(), 3, return_indices=True)
    assert indices.flatten().tolist() == [0, ROW // 3, 2 * ROW // 3] and (y == 1).all()


def test_pyramid_of_a_long_row(row):
    y = F.spatial_pyramid_pool1d(row, (4, 2, 1), mode="max_avg")
    assert (y == 1).all()
    (gradient,) = torch.autograd.grad(y.sum(), row)
    mean = 7 / ROW  # 4 / ROW + 2 / ROW + 1 / ROW
    firsts = {0: 3, ROW // 4: 1, ROW // 2: 2, 3 * ROW // 4: 1}
    for position, count in firsts.items():
        assert gradient[0, 0, position].item() == pytest.approx(count + mean)
        gradient[0, 0, position] = mean
    assert (gradient == mean).all()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=LONG)])
def test_draw_from_a_long_row(row, seed):
    """Ones in 32 classes: the first whose sum, with those of earlier classes, exceeds its share of the total."""
    y, index = F.global_stochastic_pool(row, seed=seed, return_indices=True)
    threshold = np.float32(reference.uniforms(seed, [0], [0], 1).item() * ROW)
    in_class = ROW // 32
    earlier = int(threshold) // in_class
    running = np.float32(earlier * in_class) + np.arange(1, in_class + 1, dtype=np.float32)
    assert index.item() == int(np.argmax(running > threshold)) * 32 + earlier
    (gradient,) = torch.autograd.grad(y.sum(), row)
    assert gradient[0, 0, index.item()] == 1 and gradient.count_nonzero() == 1
