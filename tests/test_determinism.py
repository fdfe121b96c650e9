"""Bits do not depend on threads, runs, schedules, CPU capability or layout, as far as semantics promise."""

import cases
import pytest
import torch
from backends import check_bitwise, check_close, gradient, rounded, selections, supported
from comparison import assert_bitwise, assert_close
from poolings import AVG, BY_TABLE, EXPECTATION_RELU, EXPECTATION_SOFTMAX, MAX, MAX_AVG, MIXED, form_of
from reference import per_axis
from test_operators import numbers_of

import fastpool._C as extension
import fastpool.functional as F
from fastpool._layouts import layout_of
from fastpool._operators import POOL_AGAIN, RESULTS, SAVE_MOMENTS

# Several threads' worth of elements, rows and channels of full lanes with a remainder.
SHAPES = {
    "2x2": cases.sliding("bits 2x2", (1, 70, 8, 141), 2, "random"),
    "2x2 narrow": cases.sliding("bits 2x2 narrow", (6, 70, 8, 20), 2, "random"),
    "3x3": cases.sliding("bits 3x3", (2, 35, 8, 141), 3, "random", stride=2, padding=1),
    "3x3 nan and inf": cases.sliding("bits 3x3 nan", (1, 70, 8, 141), 3, "nan and inf", stride=2, padding=1),
    "3x3 stride 1": cases.sliding("bits 3x3 s1", (2, 17, 10, 141), 3, "integers", stride=1, padding=1),
    "dilated": cases.sliding("bits dilated", (1, 33, 30, 70), 3, "random", stride=2, dilation=2, padding=2),
    "ceil_mode": cases.sliding("bits ceil", (2, 17, 30, 70), 4, "random", stride=3, padding=1, ceil_mode=True),
    "5x5 stride 1": cases.sliding("bits 5x5", (2, 35, 12, 141), 5, "nan and inf", stride=1, padding=2),
    "4x5x3": cases.sliding("bits 4x5x3", (1, 70, 7, 9, 34), (4, 5, 3), "integers", stride=1, padding=1),
    "16x16": cases.sliding("bits 16x16", (2, 17, 30, 80), 16, "random", stride=5),
    "1d": cases.sliding("bits 1d", (3, 70, 300), 3, "random", stride=2, padding=1),
    "3d": cases.sliding("bits 3d", (1, 70, 5, 6, 34), 2, "random"),
}
MANY_TAPS = {
    "17x17": cases.sliding("bits 17x17", (2, 17, 30, 80), 17, "positive", stride=5),
    "adaptive": cases.adaptive("bits adaptive", (2, 35, 8, 141), (5, 33)),
    "global": cases.adaptive("bits global", (2, 70, 21, 23), 1),
}
ALL_SHAPES = {**SHAPES, **MANY_TAPS}
# More shares of work than threads.
SHARED = {"shares": cases.sliding("bits shares", (2, 70, 40, 141), 3, "random", stride=2, padding=1)}


def prepared(case, dtype, layout):
    return cases.LAYOUTS[layout](case.values(dtype)).requires_grad_()


def everything(case, x):
    """What must not depend on threads and runs: all of it."""
    results = selections(case, x)
    for pooling in (AVG, MAX_AVG, MIXED, EXPECTATION_RELU, EXPECTATION_SOFTMAX):
        outputs = pooling(case, x)
        results |= {f"{pooling} {i}": y.detach() for i, y in enumerate(outputs)}
        results[f"gradient of {pooling}"] = gradient(outputs, x)
    alpha = torch.full((case.shape[1],), 0.3, dtype=x.dtype, requires_grad=True)
    (mixed,) = MIXED(case, x, alpha=alpha)
    results["learned mix"] = mixed.detach()
    results["gradient of alpha"] = torch.autograd.grad(mixed.sum(), alpha)[0]
    if case.rank == 2:
        for mode in ("max", "avg", "max_avg", "mixed", "stochastic"):
            options = {"seed": 5} if mode == "stochastic" else {}
            y = F.spatial_pyramid_pool2d(x, mode=mode, **options)
            results |= {f"pyramid {mode}": y.detach(), f"gradient of pyramid {mode}": gradient([y], x)}
    return results


def check_same(actual, expected, what):
    assert actual.keys() == expected.keys()
    for name, result in actual.items():
        assert_bitwise(result, expected[name], f"{name}: {what}")


# A layout that a rank does not have is no case of it.
SHAPES_AND_LAYOUTS = [
    (name, layout)
    for name, case in ALL_SHAPES.items()
    for layout in ("contiguous", "channels_last")
    if case.rank > 1 or layout not in cases.NEEDS_4D
]


@pytest.mark.parametrize(
    ("name", "layout"), [*SHAPES_AND_LAYOUTS, ("shares", "contiguous"), ("shares", "channels_last")]
)
def test_threads_and_runs(name, layout):
    case = {**ALL_SHAPES, **SHARED}[name]
    dtype = torch.bfloat16 if name in ("3x3", "adaptive") else torch.float32
    x = prepared(case, dtype, layout)
    torch.set_num_threads(1)
    expected = everything(case, x)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        check_same(everything(case, x), expected, f"{case} {dtype} {layout} {threads} threads")


PATHS = [("baseline", "exact"), ("baseline", "tiled"), ("avx2", "tiled"), ("avx512", "tiled")]


# Every shape in float32 and, in turn, in one other dtype.
OTHERS = (torch.float16, torch.float64, torch.bfloat16)
SHAPES_AND_DTYPES = [
    (name, layout, dtype)
    for i, (name, layout) in enumerate(SHAPES_AND_LAYOUTS)
    for dtype in (torch.float32, OTHERS[i % len(OTHERS)])
]


@pytest.mark.parametrize(("name", "layout", "dtype"), SHAPES_AND_DTYPES, ids=str)
@pytest.mark.usefixtures("restored_hooks")
def test_schedules_and_capabilities(name, dtype, layout):
    case = ALL_SHAPES[name]
    expected, x, ran = selections(case, prepared(case, dtype, "contiguous")), prepared(case, dtype, layout), 0
    for capability, schedule in PATHS:
        if supported(capability):
            extension.set_schedule(schedule)
            check_same(selections(case, x), expected, f"{case} {dtype} {capability} {schedule} {layout}")
            ran += 1
    assert ran >= 2


FORCED = [name for name in extension.SCHEDULES if name.startswith(("forward", "backward")) and "exact" not in name]
FORCED.remove("backward pooled_again")  # has no choice: test_gradients_that_kept_nothing


def is_used(schedule, case, x):
    """Whether it computes one of these, now that it is forced."""
    for pooling in (MAX, AVG, EXPECTATION_SOFTMAX):
        outputs, used = pooling(case, x), extension.chosen_schedules()
        if schedule.startswith("backward"):
            gradient(outputs, x)
            used = extension.chosen_schedules()
        if schedule in used:
            return True
    return False


@pytest.mark.parametrize("schedule", FORCED)
@pytest.mark.usefixtures("restored_hooks")
def test_every_schedule_wherever_it_fits(schedule):
    """Chosen or not: what is chosen may change with a threshold."""
    few = {
        f"{c} channels": cases.sliding(f"bits {c} channels", (2, c, 13, 38), (3, 2), "random", stride=2)
        for c in (1, 3, 9)
    }
    large = {f"{k} taps": cases.sliding(f"bits {k} taps", (2, 9, 2 * k), k, "random", stride=1) for k in (257, 300)}
    bins = {f"{n} bins": cases.adaptive(f"bits {n} bins", (2, 19, 14, 36), n) for n in (1, 4)}
    used = 0
    for case in [*ALL_SHAPES.values(), *few.values(), *large.values(), *bins.values()]:
        for layout in ("contiguous", "channels_last") if case.rank > 1 else ("contiguous",):
            x = prepared(case, torch.float32, layout)
            extension.set_schedule(schedule)
            if not is_used(schedule, case, x):
                continue
            actual, close = selections(case, x), rounded(case, x)
            extension.set_schedule("tiled")
            check_bitwise(actual, selections(case, x), f"{case} {layout} {schedule}")
            exact = rounded(case, prepared(case, torch.float64, layout))
            check_close(close, rounded(case, x), exact, f"{case} {layout} {schedule}")
            used += 1
    assert used >= 2


# Rows of more outputs than lanes, of fewer, and in between; with and without a rest.
NARROW_AND_WIDE = [(1, 3, 7, 150), (1, 35, 28, 28), (2, 33, 9, 15), (3, 40, 5, 37), (1, 2, 2, 2), (1, 40, 33, 4)]


def kept(name, x, own, window):
    results = dict(zip(RESULTS[name], getattr(torch.ops.fastpool, name)([x], *own, window, -1, SAVE_MOMENTS)))
    return results["output"], results["moments"]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("kernel_size", [(2, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("name", sorted(POOL_AGAIN))
@pytest.mark.usefixtures("restored_hooks")
def test_gradients_that_kept_nothing(name, kernel_size, layout):
    """2x2 windows are pooled again where their elements are held, others one by one: what is saved otherwise."""
    backward = getattr(torch.ops.fastpool, f"{name}_backward")
    own = (None, numbers_of(name), [])
    for shape in NARROW_AND_WIDE:
        window = [n for size, k in zip(shape[2:], kernel_size) for n in (size // k, k, k, 0, 0, 1)]
        if 0 in window[::6]:
            continue
        for i, pattern in enumerate(("random", "nan and inf", "far apart", "subnormal")):
            case = cases.sliding(f"again {pattern} {shape}", shape, kernel_size, pattern, layout=layout)
            for dtype in (torch.float32, OTHERS[i % len(OTHERS)]):
                extension.set_cpu_capability(None)
                extension.set_schedule("tiled")
                x = case.values(dtype)
                call = (*own, shape, 2, [layout_of(x)], window, -1)
                output, moments = kept(name, x, own, window)
                g, nothing = torch.linspace(-3, 3, output.numel()).view(output.shape).to(dtype), moments[:0]
                (saved,) = backward(g, None, [output, moments, x], *call)
                (exact,) = backward(g.double(), None, [*kept(name, x.double(), own, window), x.double()], *call)
                for capability, schedule in PATHS:
                    if supported(capability):
                        extension.set_schedule(schedule)
                        (actual,) = backward(g, None, [nothing, nothing, x], *call)
                        what = f"{case} {dtype} {capability} {schedule}"
                        assert_close(actual, exact.numpy(), saved, what, factor=2)


ODD_LAYOUTS = [name for name in cases.LAYOUTS if name not in {"contiguous", "channels_last", *cases.SHARING}]


@pytest.mark.parametrize("layout", ODD_LAYOUTS)
@pytest.mark.parametrize("name", ["3x3", "adaptive", "3d"])
def test_layouts(name, layout):
    case = ALL_SHAPES[name]
    for dtype in (torch.float32, torch.float16):
        expected = selections(case, prepared(case, dtype, "contiguous"))
        check_same(selections(case, prepared(case, dtype, layout)), expected, f"{case} {dtype} {layout}")


@pytest.mark.parametrize("capability", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("schedule", ["exact", "tiled"])
@pytest.mark.parametrize("pooling", [AVG, MAX_AVG, MIXED, EXPECTATION_RELU, *BY_TABLE], ids=str)
@pytest.mark.usefixtures("restored_hooks")
def test_rounding_kinds_on_every_path(pooling, schedule, capability):
    """Sums over bins and transcendental kinds agree within rounding."""
    if not supported(capability):
        pytest.skip(f"this processor has no {capability}")
    for case in (SHAPES["3x3"], MANY_TAPS["adaptive"], MANY_TAPS["global"]):
        if form_of(case) not in pooling.forms:
            continue
        extension.set_cpu_capability(None)
        extension.set_schedule(None)
        exact = pooling(case, case.values(torch.float32).double())
        for layout in ("contiguous", "channels_last"):
            x = cases.LAYOUTS[layout](case.values(torch.float32))
            yardstick = pooling.composition(x, case.windows()[1])
            extension.set_cpu_capability(capability)
            extension.set_schedule(schedule)
            for y, wanted, composed in zip(pooling(case, x), exact, yardstick, strict=True):
                what = f"{pooling} of {case}, {capability} {schedule} {layout}"
                assert_close(y, wanted.numpy(), composed, what, factor=pooling.factor)


@pytest.mark.usefixtures("restored_hooks")
def test_hooks_return_the_previous_setting():
    default = extension.set_schedule("exact")
    assert extension.set_schedule("tiled") == "exact"
    assert extension.set_schedule(None) == "tiled"
    assert extension.set_schedule(None) == default
    with pytest.raises((ValueError, RuntimeError)):
        extension.set_schedule("magic")
    with pytest.raises((ValueError, RuntimeError)):
        extension.set_cpu_capability("sse9")
    before = extension.set_cpu_capability("baseline")
    assert extension.build_info()["cpu_capability"] == "baseline"
    extension.set_cpu_capability(before)


def test_deterministic_algorithms_mode():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        for y in (F.max_pool2d(x, 3, 1, 1), F.adaptive_avg_pool2d(x, 3), F.stochastic_pool2d(x, 2, seed=1)):
            y.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def filtered(case, x, channels):
    """Gated and tree pooling with all their gradients"""
    generator = torch.Generator().manual_seed(1)
    wide = torch.promote_types(x.dtype, torch.float32)
    kernel = per_axis(case.geometry["kernel_size"], case.rank)

    def learned(*shape):
        return torch.randn(shape, dtype=wide, generator=generator).div(4).requires_grad_()

    lead = (case.shape[1],) if channels else ()
    weight, bias = learned(*lead, *kernel), learned(*lead)
    leaves, gates = learned(4, *lead, *kernel), learned(3, *lead, *kernel)
    results = {}
    for name, filters in (("gated", {"weight": weight, "bias": bias}), ("tree", {"leaves": leaves, "gates": gates})):
        y = getattr(F, f"{name}_pool{case.rank}d")(x, **case.geometry, **filters)
        g = torch.randn(y.shape, generator=generator).to(y.dtype)
        results[name] = y.detach()
        for what, of_it in zip(("x", *filters), torch.autograd.grad(y, (x, *filters.values()), g), strict=True):
            results[f"{name}, gradient of {what}"] = of_it
    return results


FILTERED = [
    (name, layout, dtype) for name, layout, dtype in SHAPES_AND_DTYPES if "kernel_size" in ALL_SHAPES[name].geometry
]
FILTERED += [("shares", layout, torch.float32) for layout in ("contiguous", "channels_last")]


@pytest.mark.parametrize("channels", [False, True], ids=["shared", "per channel"])
@pytest.mark.parametrize(("name", "layout", "dtype"), FILTERED, ids=str)
@pytest.mark.usefixtures("restored_hooks")
def test_filters(name, layout, dtype, channels):
    """A tree is the same in both layouts and on every path, too; what is mixed has the bits of maximum and mean."""
    case = {**ALL_SHAPES, **SHARED}[name]
    torch.set_num_threads(1)
    x = prepared(case, dtype, layout)
    expected = filtered(case, x, channels)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        check_same(filtered(case, x, channels), expected, f"{case} {dtype} {layout} {threads} threads")
    other = filtered(case, prepared(case, dtype, "contiguous"), channels)
    trees = {what: result for what, result in expected.items() if what.startswith("tree")}
    check_same(trees, {what: other[what] for what in trees}, f"{case} {dtype} {layout}")
    for capability in ("baseline", "avx2", "avx512"):
        if supported(capability):
            again = filtered(case, x, channels)
            check_same({what: again[what] for what in trees}, trees, f"{case} {dtype} {layout} {capability}")
