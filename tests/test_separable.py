"""Maxima and minima over windows that overlap much, one axis after another, against one output at a time."""

import random

import cases
import pytest
import torch
from backends import gradient, supported
from comparison import assert_bitwise

import fastpool._C as extension
import fastpool.functional as F

SIZES = {1: (12, 20, 70, 700, 3000), 2: (4, 5, 9, 20, 33, 40, 70, 150), 3: (3, 5, 8, 11)}
KERNELS = {1: (10, 13, 25, 60, 200, 300), 2: (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 21), 3: (1, 2, 3, 4, 5)}
PATTERNS = ("integers", "random", "signed zeros", "nans", "-inf", "only -inf", "nan and inf", "mixture")
PATHS = ("baseline", "avx2", "avx512")


def random_case(choose, name):
    """-> a case of windows that hold at least ten elements and overlap"""
    rank = choose.choice((1, 2, 2, 3))
    while True:
        shape = [choose.choice(SIZES[rank]) for _ in range(rank)]
        kernel = [choose.choice(KERNELS[rank]) for _ in range(rank)]
        stride = [choose.choice((1, 1, 1, 2, 3)) for _ in range(rank)]
        padding = tuple((choose.randint(0, k // 2), choose.randint(0, k // 2)) for k in kernel)
        outputs = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding)]
        windows = 1
        for k, s, n in zip(kernel, stride, outputs):
            windows *= min(n, -(-k // s))
        if windows >= 10 and min(outputs) > 0:
            break
    shape = (choose.choice((1, 2)), choose.choice((1, 2, 3, 17, 33, 70, 130)), *shape)
    layout = choose.choice(
        ("contiguous", "channels_last", "sliced", "transposed") if rank > 1 else ("contiguous", "sliced")
    )
    return cases.sliding(
        name,
        shape,
        tuple(kernel),
        choose.choice(PATTERNS),
        layout=layout,
        stride=tuple(stride),
        padding=padding,
        ceil_mode=choose.random() < 0.5,
    )


def selections(case, x):
    """-> outputs with and without indices, and gradients, which follow one byte or four for each output"""
    results = {}
    for kind in ("max", "min"):
        pool = getattr(F, f"{kind}_pool{case.rank}d")
        results[kind], results[f"{kind} indices"] = pool(x, **case.geometry, return_indices=True)
        results[f"{kind} alone"] = pool(x.detach(), **case.geometry)
        results[f"{kind} gradient"] = gradient([results[kind]], x)
    return results


def check_paths(case, dtype):
    x = case.values(dtype).requires_grad_()
    extension.set_schedule("exact")
    expected = selections(case, x)
    extension.set_schedule("tiled")
    for threads, capability in enumerate(PATHS, 1):
        if not supported(capability):
            continue
        torch.set_num_threads(1 + threads % 2)
        for name, result in selections(case, x).items():
            what = f"{name} of {case.geometry} over {case.shape}, {case.pattern}, {case.layout}, {dtype}, {capability}"
            assert_bitwise(result, expected[name], what)


@pytest.mark.parametrize("block", range(20))
@pytest.mark.usefixtures("restored_hooks")
def test_random_windows(block):
    choose = random.Random(block)
    for i in range(8):
        check_paths(random_case(choose, f"separable {block} {i}"), choose.choice(cases.DTYPES))


# Rows that are cut into blocks of columns, planes side by side, bands of rows that slices keep, more rows than a part.
LARGE = {
    "wide rows": ((1, 2, 7, 2500), 5, 2),
    "wide rows channels_last": ((1, 70, 5, 150), (5, 7), 2),
    "high windows": ((1, 2, 300, 90), (120, 3), (60, 1)),
    "bands of rows": ((1, 2, 6, 120, 700), (4, 3, 3), 1),
    "many planes": ((2, 70, 11, 10), 5, 2),
    "many parts": ((1, 1, 500, 300), 9, 4),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.usefixtures("restored_hooks")
def test_large(name, layout):
    shape, kernel_size, padding = LARGE[name]
    check_paths(
        cases.sliding(name, shape, kernel_size, "nans", stride=1, padding=padding, layout=layout), torch.float32
    )


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_rows_of_nothing_but_padding(dtype):
    """A window of -inf alone gives its first element, also where its first rows and columns are padding."""
    x = torch.full((1, 2, 6, 7), -torch.inf, dtype=dtype)
    y, indices = F.max_pool2d(x, 5, 1, 2, return_indices=True)
    assert_bitwise(y, x)
    row, column = torch.arange(6).sub(2).clamp(min=0), torch.arange(7).sub(2).clamp(min=0)
    assert torch.equal(indices, (row[:, None] * 7 + column).expand(1, 2, 6, 7))
