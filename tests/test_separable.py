"""Windows that overlap much, against one output at a time: maxima, minima and large averages, one axis after another;
averages of few taps, neighbours at a time."""

import math
import random

import cases
import pytest
import reference
import torch
from backends import gradient, incoming, supported
from comparison import assert_bitwise, assert_close

import fastpool._C as extension
import fastpool.functional as F

SIZES = {1: (12, 20, 70, 700, 3000), 2: (4, 5, 9, 20, 33, 40, 70, 150), 3: (3, 5, 8, 11)}
KERNELS = {1: (10, 13, 25, 60, 200, 300), 2: (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 21), 3: (1, 2, 3, 4, 5, 7)}
PATTERNS = ("integers", "random", "signed zeros", "nans", "-inf", "only -inf", "nan and inf", "mixture")
PATHS = ("baseline", "avx2", "avx512")


def random_case(choose, name, serves=lambda *sizes: True):
    """-> a case of windows that hold at least ten elements and overlap; serves: of shape, kernel and outputs"""
    rank = choose.choice((1, 2, 2, 3))
    while True:
        shape = [choose.choice(SIZES[rank]) for _ in range(rank)]
        kernel = [choose.choice(KERNELS[rank]) for _ in range(rank)]
        stride = choose.choice(([1] * rank, [choose.choice((1, 1, 2, 3)) for _ in range(rank)]))
        padding = tuple((choose.randint(0, k // 2), choose.randint(0, k // 2)) for k in kernel)
        outputs = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding)]
        windows = 1
        for k, s, n in zip(kernel, stride, outputs):
            windows *= min(n, -(-k // s))
        if windows >= 10 and min(outputs) > 0 and serves(shape, kernel, outputs):
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


def averages(case, x, options):
    """-> results, the schedules that were chosen for each"""
    y = getattr(F, f"avg_pool{case.rank}d")(x, **case.geometry, **options)
    chosen = {name for name in extension.chosen_schedules() if name.startswith("forward")}
    results = {"average": y.detach(), "gradient": gradient([y], x)}
    return results, chosen | {name for name in extension.chosen_schedules() if name.startswith("backward")}


def check_averages(case, dtype, **options):
    x = case.values(dtype).requires_grad_()
    extension.set_schedule("exact")
    exact, _ = averages(case, x.detach().double().requires_grad_(), options)
    expected, _ = averages(case, x, options)
    extension.set_schedule("tiled")
    chosen = set()
    for threads, capability in enumerate(filter(supported, PATHS)):
        torch.set_num_threads(1 + threads % 2)
        actual, schedules = averages(case, x, options)
        chosen |= schedules
        what = f"{case.geometry} {options} over {case.shape}, {case.pattern}, {case.layout}, {dtype}, {capability}"
        if math.prod(case.geometry["kernel_size"]) <= reference.MANY_TAPS:
            assert_bitwise(actual["average"], expected["average"], what)
        for name, result in actual.items():
            # What outputs give has both signs: sums that nearly cancel.
            factor = 16 if name == "gradient" else 1
            assert_close(result, exact[name].numpy(), expected[name], f"{name} of {what}", factor=factor)
    return chosen


def serves_averages(shape, kernel, outputs):
    """avg_pool3d refuses kernels larger than the input. Not too much for a schedule without lanes."""
    return math.prod(kernel + outputs) < 200_000 and (len(shape) < 3 or all(k <= n for k, n in zip(kernel, shape)))


def has_free_order(shape, kernel, outputs):
    return math.prod(kernel) > reference.MANY_TAPS and serves_averages(shape, kernel, outputs)


def has_row_major_order(shape, kernel, outputs):
    return math.prod(kernel) <= reference.MANY_TAPS and serves_averages(shape, kernel, outputs)


@pytest.mark.parametrize("block", range(8))
@pytest.mark.usefixtures("restored_hooks")
def test_random_averages(block):
    choose, chosen = random.Random(1000 + block), set()
    for i in range(20):
        options = choose.choice(({}, {"count_include_pad": False}, {"divisor_override": choose.choice((-7, 3, 256))}))
        case = random_case(choose, f"average {block} {i}", has_free_order)
        chosen |= check_averages(case, choose.choice(cases.DTYPES), **options)
    assert {"forward separable", "backward separable"} <= chosen


@pytest.mark.parametrize("block", range(8))
@pytest.mark.usefixtures("restored_hooks")
def test_random_averages_of_few_taps(block):
    choose = random.Random(2000 + block)
    for i in range(20):
        case = random_case(choose, f"few taps {block} {i}", has_row_major_order)
        check_averages(case, choose.choice(cases.DTYPES), count_include_pad=choose.random() < 0.5)


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


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_averages_have_the_bits_of_each_sample(layout):
    """However many samples there are, by which work is cut into parts."""
    for shape, kernel_size in (((5, 3, 300, 90), (19, 17)), ((3, 17, 11, 60, 61), 7), ((6, 70, 40, 44), 21)):
        x = torch.randn(shape)
        x = (cases.channels_last(x) if layout == "channels_last" else x).requires_grad_()
        pool = getattr(F, f"avg_pool{len(shape) - 2}d")
        y = pool(x, kernel_size, 1)
        assert "forward separable" in extension.chosen_schedules()
        g = gradient([y], x)
        for i in range(len(x)):
            one = x[i : i + 1].detach().requires_grad_()
            y_of_one = pool(one, kernel_size, 1)
            assert_bitwise(y_of_one, y[i : i + 1])
            (g_of_one,) = torch.autograd.grad(y_of_one, one, incoming([y])[0][i : i + 1])
            assert_bitwise(g_of_one, g[i : i + 1])
