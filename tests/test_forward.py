"""Values, indices, shapes, dtypes and layouts of every pooling against the reference."""

import math

import cases
import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise, assert_close
from poolings import AVG, FURTHER, MAX, MAX_AVG, POOLINGS, accumulation

import fastpool._C as extension
import fastpool.functional as F

COMBINATIONS = [
    pytest.param(pooling, case, id=f"{pooling}-{case}")
    for pooling in POOLINGS
    for case in cases.SLIDING + cases.ADAPTIVE
    if pooling is not MAX and ("sliding" if case in cases.SLIDING else "adaptive") in pooling.forms
]


def check_layout(output, x, what):
    if cases.is_channels_last(x):
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        assert output.is_contiguous(memory_format=formats[x.ndim]), f"{what}: not channels-last but {output.stride()}"
    else:
        assert output.is_contiguous(), f"{what}: not contiguous but {output.stride()}"


def check_outputs(pooling, case, x, outputs, reshape):
    """reshape: (N, C, P) -> the shape of the outputs"""
    windows = case.windows()[1]
    exact, bitwise = (pooling.reference(case.array(x), windows, wide) for wide in (np.float64, accumulation(x.dtype)))
    composed = None
    assert len(outputs) == len(exact)
    for i, output in enumerate(outputs):
        what = f"{pooling} of {case}, {x.dtype}, output {i}"
        assert output.dtype == x.dtype, what
        if pooling.is_bitwise(i, case, windows):
            assert_bitwise(output, reshape(bitwise[i]), what)
        else:
            composed = composed or pooling.composition(x if case.batched else x[None], windows)
            assert_close(output, reshape(exact[i]), composed[i], what, factor=pooling.factor)


@pytest.mark.parametrize(("pooling", "case"), COMBINATIONS)
def test_values(pooling, case):
    size, _ = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        outputs = pooling(case, x)
        check_outputs(pooling, case, x, outputs, lambda y: case.unflatten(y, size))
        for output in outputs:
            check_layout(output, x, f"{pooling} of {case}, {dtype}")


MISSES = {
    "soft beta=0.0": "means of 256 taps are off by units of their largest element, from which distances are summed",
    "gem p=0.5 eps=0.25": "over 256 taps, an error of logarithms that p = 0.5 doubles",
    "lp norm_type=3.0": "the root of a sum that is 0 but for rounding",
}


@pytest.mark.parametrize(
    "pooling",
    [
        pytest.param(
            pooling,
            id=str(pooling),
            marks=pytest.mark.xfail(reason=MISSES[str(pooling)], raises=AssertionError, strict=True)
            if str(pooling) in MISSES
            else (),
        )
        for pooling in FURTHER
    ],
)
def test_further_numbers(pooling):
    for case in cases.SLIDING[::7]:
        test_values(pooling, case)


@pytest.mark.parametrize("case", cases.GLOBAL, ids=str)
@pytest.mark.parametrize("pooling", [p for p in POOLINGS if "global" in p.forms], ids=str)
def test_global(pooling, case):
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        check_outputs(pooling, case, x, pooling(case, x, "global"), lambda y: case.unflatten(y, (1,) * case.rank))
        check_outputs(pooling, case, x, pooling(case, x, "global", keepdim=False), lambda y: y[:, :, 0])


@pytest.mark.parametrize("case", cases.SLIDING + cases.ADAPTIVE, ids=str)
def test_max_and_its_indices(case):
    size, windows = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        values, indices = MAX(case, x, return_indices=True)
        expected, where = reference.max_pool(case.array(x), windows)
        what = f"max with indices of {case}, {dtype}"
        assert indices.dtype == torch.int64, what
        assert_bitwise(values, case.unflatten(expected, size), what)
        assert_bitwise(MAX(case, x)[0], values, f"{what}, alone")
        assert_bitwise(indices, case.unflatten(where, size), what)
        check_layout(indices, x, what)


@pytest.mark.parametrize("pooling", [p for p in POOLINGS if "global" in p.forms], ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 5), (2, 3, 2, 3, 4, 2), (1, 2, 2, 1, 2, 3, 2)], ids=lambda s: f"{len(s)} axes"
)
def test_global_takes_any_number_of_axes(pooling, shape):
    case = cases.adaptive("global axes", shape[:2] + (int(torch.tensor(shape[2:]).prod()),), 1, "integers")
    flat = case.values(torch.float32)
    x = flat.view(shape)
    check_outputs(
        pooling, case, flat, pooling(case, x, "global"), lambda y: y.reshape(shape[:2] + (1,) * (len(shape) - 2))
    )
    check_outputs(pooling, case, flat, pooling(case, x, "global", keepdim=False), lambda y: y[:, :, 0])


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_input_is_not_modified(pooling):
    for layout in cases.LAYOUTS:
        case = cases.sliding(f"untouched {layout}", (2, 3, 6, 6), 3, "nan and inf", stride=2, padding=1, layout=layout)
        x = case.values(torch.float32)
        before = x.clone()
        pooling(case, x)
        assert_bitwise(x, before, f"{pooling} {layout}")


@pytest.mark.parametrize("size", [64, 1024])
@pytest.mark.parametrize("dtype", cases.HALF, ids=str)
def test_ones_average_to_one_in_half_precision(dtype, size):
    x = torch.ones(1, 1, size, size, dtype=dtype)
    one = torch.ones(1, 1, 1, 1, dtype=dtype)
    case = cases.sliding("ones", x.shape, size)
    everything = cases.adaptive("ones", x.shape, 1)
    for pooling in POOLINGS:
        if pooling.name in ("avg divisor 7", "lp norm_type=2.0"):
            continue
        count = 1 if pooling.function == "mean_std" else 2
        for output in pooling(case, x)[:count]:
            assert_bitwise(output, one, f"{pooling} sliding")
        if "global" in pooling.forms:
            for output in pooling(everything, x)[:count] + pooling(everything, x, "global")[:count]:
                assert_bitwise(output, one, f"{pooling} of one bin")
    for layout in ("contiguous", "channels_last"):
        several = cases.adaptive("ones", (1, 3, size, size), 1)
        (average,) = AVG(several, cases.LAYOUTS[layout](one.expand(several.shape)), "global")
        assert_bitwise(average, one.expand(1, 3, 1, 1), layout)


@pytest.mark.parametrize(
    "case",
    [
        cases.sliding("folded", (1, 9, 40, 70), 3, "few signed zeros"),
        cases.sliding("folded and padded", (2, 9, 40, 70), 7, "few signed zeros", padding=3),
        cases.adaptive("one plane of a sample", (40, 1, 16, 16), 1, "few signed zeros"),
        cases.adaptive("several planes", (2, 9, 28, 28), 1, "few signed zeros"),
        cases.adaptive("bins in lanes", (1, 1, 33, 65), (1, 6), "few signed zeros"),
        cases.adaptive("folded bins", (2, 9, 12, 128), (4, 1), "few signed zeros"),
        cases.adaptive("channels_last", (1, 3, 12, 128), (4, 7), "few signed zeros", layout="channels_last"),
    ],
    ids=str,
)
def test_first_of_zeros_whose_windows_are_reduced_in_parts(case):
    """Without a gradient no tap tells which of two parts' zeros came first."""
    size, windows = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        expected = case.unflatten(reference.max_pool(case.array(x), windows)[0], size)
        for pooling in (MAX, MAX_AVG):
            assert_bitwise(pooling(case, x)[0], expected, f"{pooling} of {case}, {dtype}")
            assert_bitwise(pooling(case, x.requires_grad_())[0], expected, f"{pooling} of {case} with taps, {dtype}")
            x.requires_grad_(False)


def of_one_value(shape):
    """Each addition to a running sum errs by the same amount, and to the same side."""
    return torch.full(shape, 100.1)


def around_a_hundred(shape):
    return 100 + torch.randn(shape, generator=torch.Generator().manual_seed(0))


def nearly(exact):
    """A unit in the last place off, as a quotient of two sums may be."""
    return (torch.as_tensor(exact) * (1 + 2**-23)).float()


def global_results(x):
    """-> name: (result, the exact one, that of torch.mean)"""
    wide, axes = x.double(), (2, 3)
    exact, composed = wide.mean(axes, keepdim=True), x.mean(axes, keepdim=True)
    _, average = F.global_max_avg_pool(x)
    relu = (wide * wide).sum(axes, keepdim=True) / wide.sum(axes, keepdim=True)
    softmax = (torch.softmax(wide.flatten(2), -1).view(x.shape) * wide).sum(axes, keepdim=True)
    return {
        "avg": (F.global_avg_pool(x), exact, composed),
        "average of max_avg": (average, exact, composed),
        "mixed": (F.global_mixed_pool(x, alpha=0.0), exact, composed),
        "level of a pyramid": (F.spatial_pyramid_pool2d(x, (1,), mode="avg").view(exact.shape), exact, composed),
        "one kernel": (F.avg_pool2d(x, x.shape[2:]), exact, composed),
        "relu": (F.global_stochastic_pool(x, training=False), relu, nearly(relu)),
        "softmax": (F.global_stochastic_pool(x, training=False, distribution="softmax"), softmax, nearly(softmax)),
    }


LONG_SUMS = [
    ("one plane", (1, 1, 1024, 1024), "contiguous"),
    ("one long row", (1, 1, 1, 2**20), "contiguous"),
    ("narrow rows", (1, 1, 2**18, 4), "contiguous"),
    ("several planes", (1, 20, 300, 301), "contiguous"),
    ("planes of a few runs", (1, 16, 40, 41), "contiguous"),
    ("one channel", (1, 1, 1024, 1024), "channels_last"),
    ("many channels", (1, 80, 160, 160), "channels_last"),
    ("more than a cache", (2, 64, 200, 200), "channels_last"),
    ("narrow channels-last rows", (1, 3, 5000, 7), "channels_last"),
    ("odd channels", (1, 37, 90, 270), "channels_last"),
]


@pytest.mark.parametrize("values", [of_one_value, around_a_hundred], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "shape", "layout"), LONG_SUMS, ids=lambda value: str(value))
def test_long_sums_are_as_accurate_as_torchs(name, shape, layout, values):
    x = cases.LAYOUTS[layout](values(shape))
    for what, (result, exact, composed) in global_results(x).items():
        assert_close(result, exact.numpy(), composed, f"{what} of {name}")


@pytest.mark.parametrize("schedule", ["exact", "cuda", "cuda wide indices"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.usefixtures("restored_hooks")
def test_long_sums_of_other_schedules(schedule, layout):
    if schedule != "exact" and not extension.build_info()["emulation"]:
        pytest.skip("this build has no emulation; FASTPOOL_EMULATION=1 gives it one")
    x = cases.LAYOUTS[layout](of_one_value((1, 2, 300, 400)))
    extension.set_schedule(schedule)
    for what, (result, exact, composed) in global_results(x).items():
        assert_close(result, exact.numpy(), composed, f"{what}, {schedule}")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_long_sums_of_bins(layout):
    """Rows of bins that are folded first, over many rows, columns or both."""
    for shape, bins in (((1, 9, 4096, 64), (2, 3)), ((1, 9, 3, 2**14), (1, 3)), ((1, 8, 700, 800), (3, 2))):
        x = cases.LAYOUTS[layout](of_one_value(shape))
        exact = np.full((*shape[:2], *bins), float(x[0, 0, 0, 0]))
        for what, result in {
            "avg": F.adaptive_avg_pool2d(x, bins),
            "max_avg": F.adaptive_max_avg_pool2d(x, bins)[1],
            "expectation": F.adaptive_stochastic_pool2d(x, bins, training=False),
        }.items():
            assert_close(result, exact, nearly(exact), f"{what} of {shape}")


@pytest.mark.parametrize("value", [1e25, 1e-25])
def test_long_sums_whose_squares_leave_the_range(value):
    x = torch.full((1, 1, 512, 512), value)
    y = F.global_stochastic_pool(x, training=False)
    exact = x[:, :, :1, :1].double().numpy()
    assert_close(y, exact, nearly(exact), f"{value}")


EXPECTATIONS = [pooling for pooling in POOLINGS if pooling.name.startswith("expectation")]


@pytest.mark.parametrize("pooling", EXPECTATIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_expectation_of_huge_values_is_finite(pooling, dtype, sign):
    huge = 1e308 if dtype == torch.float64 else 1e38
    x = sign * huge * torch.tensor([1.0, 1.5, 0.25, 1.25, 1.0, 1.0, 1.0, 1.0, -1.0], dtype=torch.float64).to(dtype)
    case = cases.sliding("huge", (1, 1, 9), 3)
    for kernel in (3, 9):
        case = cases.sliding("huge", (1, 1, 9), kernel)
        (output,) = pooling(case, x.view(1, 1, 9))
        expected = pooling.reference(x.view(1, 1, 9).double().numpy(), case.windows()[1], None)[0]
        assert torch.isfinite(output).all(), output
        composed = torch.as_tensor(expected).to(dtype)  # torch's composition overflows: nothing but rounding is allowed
        assert_close(output, expected, composed, f"{pooling} {kernel}")


@pytest.mark.parametrize("pooling", EXPECTATIONS, ids=str)
def test_expectation_of_tiny_values(pooling):
    x = torch.tensor([[[1e-30, 3e-30, -1e-30, 1e-38, 2e-38, 0.0]]])
    case = cases.sliding("tiny", (1, 1, 6), 3)
    expected = pooling.reference(x.double().numpy(), case.windows()[1], None)[0]
    assert_close(pooling(case, x)[0], expected, torch.as_tensor(expected).float(), f"{pooling}")


TINY = [
    cases.sliding("tiny 2x2", (1, 2, 6, 40), 2, "positive"),
    cases.sliding("tiny 3x3", (1, 2, 7, 40), 3, "positive", stride=2, padding=1),
    cases.sliding("tiny planes", (1, 9, 6, 6), 3, "positive", stride=1),
    cases.sliding("tiny channels_last", (1, 33, 6, 6), 2, "positive", layout="channels_last"),
    cases.sliding("tiny 300 taps", (1, 2, 400), 300, "positive", stride=9),
    cases.adaptive("tiny bins", (1, 9, 12, 40), 3, "positive"),
]


@pytest.mark.parametrize("case", TINY, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_expectation_where_squares_lose_bits(case, dtype):
    """Squares of relu weights leave the normal numbers long before the weights do."""
    smallest = int(np.log2(torch.finfo(dtype).tiny))
    size, windows = case.windows()
    for exponent in range(smallest // 2 - 14, smallest // 2 + 16, 2):
        x = case.values(dtype).mul_(2.0**exponent).requires_grad_()
        (output,) = EXPECTATIONS[0](case, x)
        expected = EXPECTATIONS[0].reference(case.array(x), windows, None)[0]
        # What a composition in normal numbers errs; the gradient does not know the scale.
        leaf = (x.detach() * 2.0**-exponent).requires_grad_()
        (composed,) = EXPECTATIONS[0].composition(leaf, windows)
        what = f"{case} times 2**{exponent}"
        assert_close(output, case.unflatten(expected, size), composed * 2.0**exponent, what)
        g = torch.linspace(-1, 1, output.numel(), dtype=dtype).view(output.shape)
        planes = g.double().numpy().reshape(expected.shape)
        gradient = reference.expectation_pool_backward(planes, case.array(leaf), windows, "relu")[0]
        (yardstick,) = torch.autograd.grad(composed, leaf, g.reshape(composed.shape))
        assert_close(torch.autograd.grad(output, x, g)[0], gradient, yardstick, f"gradient of {what}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.3, 70.0])
def test_softmax_weights_are_accurate(dtype, temperature):
    """Windows (0, v) give v w/(1 + w), from which weights down to the smallest normal number are read off."""
    smallest = np.log(torch.finfo(dtype).tiny)
    v = torch.linspace(smallest * 1.1, -0.01, 5001, dtype=dtype) * temperature
    x = torch.stack([torch.zeros_like(v), v], 1).view(1, 1, -1)
    y = F.stochastic_pool1d(x, 2, training=False, distribution="softmax", temperature=temperature)
    v = v.double().numpy()
    exponent = v / temperature
    share, expected = y[0, 0].double().numpy() / v, np.exp(exponent) / (1 + np.exp(exponent))
    # The exponent is rounded as well, which the power multiplies by its size.
    allowed = torch.finfo(dtype).eps * (2 + 2 * np.abs(exponent)) * expected
    clear = np.abs(exponent - smallest) > 1e-3
    assert (np.abs(share - expected) <= allowed)[clear & (exponent > smallest)].all()
    assert (share[clear & (exponent < smallest)] == 0).all() and (exponent < smallest).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_softmax_of_extreme_temperatures(dtype, channels_last):
    """No temperature makes NaN of equal elements: the lowest leaves the maximum, the highest the average."""
    x = torch.randint(-3, 4, (2, 3, 8, 36), generator=torch.Generator().manual_seed(0)).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    lowest, highest = (5e-324, 1e308) if dtype == torch.float64 else (1e-45, 1e38)
    options = {"training": False, "distribution": "softmax"}
    for kernel in (2, 3, 6):
        assert torch.equal(F.stochastic_pool2d(x, kernel, temperature=lowest, **options), F.max_pool2d(x, kernel))
        average = F.avg_pool2d(x.double(), kernel).to(dtype)
        mean = F.stochastic_pool2d(x, kernel, temperature=highest, **options)
        torch.testing.assert_close(mean, average)
        drawn = F.stochastic_pool2d(x, kernel, temperature=lowest, seed=1, distribution="softmax")
        assert torch.equal(drawn, F.max_pool2d(x, kernel))
        x.requires_grad_()
        y = F.stochastic_pool2d(x, kernel, temperature=lowest, **options)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        x.requires_grad_(False)
        assert torch.isfinite(gradient).all()
    row = torch.tensor([-torch.inf, 1.0, 2.0, 3.0], dtype=dtype).reshape(1, 1, 4)
    assert F.stochastic_pool1d(row, 4, temperature=1e308, **options).item() == 2


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("stride", [100, 2**58])
def test_a_stride_beyond_the_input_is_never_taken(pooling, stride):
    case = cases.sliding(f"stride {stride}", (2, 9, 5, 6), 3, stride=stride, padding=1)
    usual = cases.sliding("stride 6", (2, 9, 5, 6), 3, stride=6, padding=1)
    x = case.values(torch.float32)
    for y, expected in zip(pooling(case, x), pooling(usual, x), strict=True):
        assert_bitwise(y, expected, f"{pooling}, stride {stride}")


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("channels", [3, 9])
def test_a_dilation_beyond_the_input_takes_no_memory(pooling, channels):
    case, usual = (
        cases.sliding(f"dilation {d}", (2, channels, 5, 6), 3, stride=1, padding=d, dilation=d) for d in (10**11, 7)
    )
    x = case.values(torch.float32).requires_grad_()
    for y, expected in zip(pooling(case, x), pooling(usual, x), strict=True):
        assert_bitwise(y, expected, f"{pooling}")
        gradients = [torch.autograd.grad(result.square().sum(), x, retain_graph=True)[0] for result in (y, expected)]
        assert_bitwise(*gradients, f"gradient of {pooling}")


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("norm_type", [math.inf, -math.inf])
def test_lp_of_infinity_has_the_layout_of_its_input(norm_type, layout):
    """Not that of |x|, which torch may lay out otherwise."""
    x = cases.sliding(layout, (1, 17, 35, 23), 2, layout=layout).values(torch.float32)
    check_layout(F.lp_pool2d(x, norm_type, 2), x, layout)
