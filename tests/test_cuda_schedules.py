"""The CUDA schedules, emulated thread by thread on the CPU, against the ordinary CPU kernels."""

import faulthandler
import os
import random
import re
import signal

import backends
import cases
import pytest
import test_filters
import torch
from comparison import assert_bitwise, assert_close

import fastpool._C as extension
import fastpool.functional as F

# "small grid": bodies stride over three blocks and work takes several launches; "wide indices": 64 bits throughout.
EMULATED = ("cuda", "cuda small grid", "cuda wide indices")


pytestmark = [
    pytest.mark.skipif(
        not extension.build_info()["emulation"], reason="this build has no emulation; FASTPOOL_EMULATION=1 gives it one"
    ),
    pytest.mark.usefixtures("saves_as_on_cuda"),
]


@pytest.fixture(autouse=True)
def restored_schedule():
    yield
    extension.set_schedule(None)


@pytest.fixture(autouse=True)
def random_order():
    """Emulated threads run in another order every time; pytest shows what a failing test prints."""
    order = int(os.environ.get("FASTPOOL_TEST_ORDER", random.getrandbits(31)))
    print(f"FASTPOOL_TEST_ORDER={order} runs the emulated threads in the same order again")
    extension.set_order(order)


def emulated(schedule, function, *arguments):
    previous = extension.set_schedule(schedule)
    assert previous == "tiled"
    try:
        return function(*arguments)
    finally:
        assert extension.set_schedule(None) == schedule


@pytest.mark.parametrize("case", backends.CASES, ids=str)
def test_selections(case):
    for dtype, schedule in zip(backends.dtypes(case), EMULATED[1::-1], strict=True):
        x = backends.prepared(case, dtype)
        actual = emulated(schedule, backends.selections, case, x)
        backends.check_bitwise(actual, backends.selections(case, x), f"{case} {dtype} {schedule}")


@pytest.mark.parametrize("case", backends.FINITE, ids=str)
def test_sums_and_expectations(case):
    for dtype, schedule in zip(backends.dtypes(case), EMULATED[1::-1], strict=True):
        x = backends.prepared(case, dtype)
        exact = backends.rounded(case, x.detach().double().requires_grad_())
        actual = emulated(schedule, backends.rounded, case, x)
        backends.check_close(actual, backends.rounded(case, x), exact, f"{case} {dtype} {schedule}")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", backends.PYRAMIDS)
def test_pyramids(name, layout):
    for dtype, schedule in zip((torch.float32, torch.bfloat16), EMULATED, strict=False):
        case = cases.sliding(f"pyramid {name}", backends.PYRAMIDS[name][0], 1, layout=layout)
        x = backends.prepared(case, dtype)
        exact = backends.pyramids(name, x.detach().double().requires_grad_())[1]
        selected, rest = emulated(schedule, backends.pyramids, name, x)
        expected_selected, expected_rest = backends.pyramids(name, x)
        backends.check_bitwise(selected, expected_selected, f"{name} {layout} {dtype}")
        backends.check_close(rest, expected_rest, exact, f"{name} {layout} {dtype}")


def test_pyramid_of_a_list():
    xs = [torch.randn(4, height, 9, requires_grad=True) for height in (7, 40, 12)]

    def run():
        y = F.spatial_pyramid_pool2d(xs, levels=(3, 1), mode="stochastic", seed=3)
        return {"y": y.detach()} | dict(enumerate(torch.autograd.grad([y], xs, backends.incoming([y]))))

    backends.check_bitwise(emulated("cuda small grid", run), run(), "list")


def pixels(name, shape, *windows, **geometry):
    return cases.sliding(f"pixels {name}", shape, *windows, layout="channels_last", **geometry)


def stripes(name, shape, output_size):
    return cases.adaptive(f"stripes {name}", shape, output_size, layout="channels_last")


# Case -> bodies that it is there for.
BODIES = {
    pixels("2x2 of odd planes", (2, 8, 9, 13), 2): {"PixelsForward", "PixelsBackward", "ThreadForward"},
    pixels("2x2", (1, 16, 12, 8), 2): {"PixelsForward", "PixelsBackward"},
    pixels("3x3 of odd planes", (2, 8, 9, 13), 3, stride=2, padding=1): {"PixelsForward", "PixelsBackward"},
    pixels("3x3 behind the padding", (2, 8, 10, 8), 3, stride=2, padding=1, ceil_mode=True): {
        "ThreadForward",
        "TileBackward",
    },
    pixels("3x3 beside each other", (1, 16, 6, 8), 3, stride=1, padding=1): {"PixelsForward", "PixelsBackward"},
    stripes("of a warp", (2, 24, 7, 7), 1): {"TeamForward", "WholeColumns"},
    stripes("of a block", (1, 8, 40, 40), 1): {"TeamForward", "WholeColumns"},
    stripes("behind the last channels", (2, 20, 23, 17), 2): {"TeamForward"},
    stripes("that divide the plane", (1, 8, 32, 64), 2): {"TeamForward", "BinsBackward"},
    cases.adaptive("bins side by side", (2, 3, 14, 24), (7, 3)): {"BinsBackward"},
    cases.adaptive("bins of one and a half packs", (2, 3, 14, 24), (7, 4)): {"TileBackward"},
}


@pytest.mark.parametrize("case", BODIES, ids=str)
def test_bodies(case):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = backends.prepared(case, dtype)
        extension.record(True)
        actual = emulated("cuda", lambda x=x: (backends.selections(case, x), backends.rounded(case, x)))
        ran = extension.record(False)["writes"]
        if dtype == torch.float32:
            assert BODIES[case] <= {re.search(r"(\w+)<", name)[1] for name in ran}, set(ran)
        exact = backends.rounded(case, x.detach().double().requires_grad_())
        backends.check_bitwise(actual[0], backends.selections(case, x), f"{case} {dtype}")
        backends.check_close(actual[1], backends.rounded(case, x), exact, f"{case} {dtype}")


def test_first_of_clipped_pixels():
    case = pixels("of -inf", (2, 8, 9, 13), 3, "only -inf", stride=2, padding=1)
    for dtype in (torch.float32, torch.bfloat16):
        x = backends.prepared(case, dtype)
        backends.check_bitwise(
            emulated("cuda", backends.selections, case, x), backends.selections(case, x), f"{case} {dtype}"
        )


WIDE = (
    "ties 3d",
    "clipped",
    "dilated 3d",
    "adaptive overlapping",
    "300 taps channels_last",
    "70 channels_last clipped",
)


@pytest.mark.parametrize("name", WIDE)
def test_wide_indices(name):
    case = next(case for case in backends.CASES if case.name == name)
    x = backends.prepared(case, torch.float32)
    actual = emulated("cuda wide indices", backends.selections, case, x)
    backends.check_bitwise(actual, backends.selections(case, x), f"{case}")


ALPHAS = {
    "scalar": (),
    "channel": (5,),
    "region": (1, 1, 30, 31),
    "row": (1, 1, 30, 1),
    "channel and region": (1, 5, 30, 31),
    "sample": (3, 1, 1, 1),
    "everything": (3, 5, 30, 31),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ALPHAS)
def test_gradient_of_alpha(name, layout):
    """Whole numbers: sums are exact in any order."""
    case = cases.sliding(f"alpha {name}", (3, 5, 60, 62), 2, "integers", layout=layout)
    for dtype, schedule in zip((torch.float32, torch.float64), EMULATED, strict=False):
        x, alpha = backends.prepared(case, dtype), torch.ones(ALPHAS[name], dtype=dtype, requires_grad=True)

        def run(x=x, alpha=alpha):
            y = F.mixed_pool2d(x, 2, alpha=alpha)
            return dict(zip("xa", torch.autograd.grad([y], (x, alpha), backends.incoming([y])), strict=True))

        backends.check_bitwise(emulated(schedule, run), run(), f"{name} {layout} {dtype}")


@pytest.mark.parametrize("case", backends.SLIDING, ids=str)
def test_products_of_filters(case):
    dtypes = (*backends.dtypes(case), torch.float32)
    for dtype, schedule, options in zip(dtypes, EMULATED, backends.filters_of(case), strict=True):
        x, window = backends.windows_of_filters(case, dtype)
        actual = emulated(schedule, backends.by_filters, x, window, *options)
        backends.check_by_filters(actual, x, window, options, f"{case} {dtype} {schedule}")


# Output, kernel, stride, padding before and after, dilation of an axis of 9.
FAR = {
    "stride": (1, 2, 2**40, 0, 0, 1),
    "dilation": (9, 3, 1, 2**38, 2**38, 2**38),
    "stride and dilation": (4, 3, 2, 2**31, 2**31, 2**31),
    "stride beside dilation": (3, 5, 4, 6, 6, 3),
    "padding": (100, 199, 1, 99, 91, 1),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", FAR)
def test_filters_that_reach_far(name, layout):
    """Whole numbers: sums are exact in any order."""
    x = cases.sliding(name, (2, 9, 9, 2), 1, "integers", layout=layout).values(torch.float32)
    for options in backends.FILTERS[:2]:
        window = (*FAR[name], 2, 1, 1, 0, 0, 1)
        actual = emulated("cuda", backends.by_filters, x, window, *options)
        expected = backends.by_filters(x, window, *options)
        for results, wanted in zip(actual, expected, strict=True):
            backends.check_bitwise(results, wanted, f"{name} {layout} {options}")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_filters_are_summed_in_parts(shared, layout):
    """Whole numbers again."""
    x = cases.sliding("parts", (3, 10, 40, 41), 1, "integers", layout=layout).values(torch.float32)
    window = (40, 1, 1, 0, 0, 1, 41, 1, 1, 0, 0, 1)

    def run():
        filters = torch.zeros(1, 1 if shared else 10, 2)
        return {"filters": torch.ops.fastpool.correlate_filters(x.roll(1, 0), x, filters, window)}

    backends.check_bitwise(emulated("cuda", run), run(), f"{shared} {layout}")


@pytest.mark.parametrize("channels", [False, True], ids=["shared", "per channel"])
@pytest.mark.parametrize("case", test_filters.CASES[::8], ids=str)
def test_pooling_by_filters(case, channels):
    emulated("cuda", test_filters.test_values, case, channels)


def test_more_planes_than_a_grid_axis_holds():
    """65,536 is the limit of a grid's second and third axis."""
    x = torch.randn(65537, 1, 2, 2)
    assert_bitwise(emulated("cuda", F.max_pool2d, x, 2), F.max_pool2d(x, 2))
    x = torch.randn(1, 65537, 2)
    assert_bitwise(emulated("cuda small grid", F.max_pool1d, x, 2), F.max_pool1d(x, 2))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_large_windows_are_summed_by_many_threads(layout):
    """A long running sum in float32 errs by far more than sums of 32 or 256 threads."""
    x = torch.rand(1, 20, 150, 150) + 0.5
    x = cases.LAYOUTS[layout](x)
    actual = emulated("cuda", F.global_avg_pool, x)
    assert_close(actual, x.double().mean((2, 3), keepdim=True).numpy(), x.mean((2, 3), keepdim=True), layout)


def test_draws_from_bins_of_both_summing_orders():
    """Bins of 256 taps are summed in order, those of 257 in classes."""
    case = cases.adaptive("both orders", (2, 3, 1023), 4, "positive")
    x = backends.prepared(case, torch.float32)
    backends.check_bitwise(emulated("cuda", backends.selections, case, x), backends.selections(case, x), "both orders")


def test_every_warp_of_a_block_counts():
    """Warps run ahead of each other: of sixty windows some have their maximum where a missing barrier loses it."""
    x = torch.randn(2, 30, 60, 60)
    x[:, ::2] = x[:, ::2].round()  # ties: the first of several lanes
    actual = emulated("cuda", lambda: F.adaptive_max_pool2d(x, 1, return_indices=True))
    for a, e in zip(actual, F.adaptive_max_pool2d(x, 1, return_indices=True), strict=True):
        assert_bitwise(a, e)


def test_more_levels_than_the_parameters_hold():
    x = torch.randn(1, 2, 9, 9)
    with pytest.raises(RuntimeError, match="levels has 9 entries"):
        emulated("cuda", lambda: F.spatial_pyramid_pool2d(x, levels=tuple(range(1, 10))))


def test_double_backward_and_indices():
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)

    def run():
        y = F.max_pool2d(x, 3, 2, 1)
        (g,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
        return {"y": y.detach(), "g": torch.autograd.grad((g * g).sum(), x)[0]}

    backends.check_bitwise(emulated("cuda small grid", run), run(), "double backward")


FAULTS = {
    "lane 32": "shuffle from a lane outside 0 to 31",
    "lane -1": "shuffle from a lane outside 0 to 31",
    "another shuffle": "meet in different shuffles",
    "another pass": "meet in different shuffles",
    "ended lane": "wait for one that has ended",
    "ended thread": "wait for one that has ended",
    "shuffle and barrier": "wait for one that",
    "race": "race for shared memory",
    "beyond shared memory": "reach beyond their block's shared memory",
    "unaligned access": "access an address that is not a multiple of the access",
    "unmet contract": "relies on o >= 0 && o < out",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that ends is a fork of this one")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_device_leaves_to_chance_ends_the_process(fault):
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            faulthandler.disable()
            os.dup2(write, 2)
            extension.set_order(1234)
            extension.run_faulty(fault)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGABRT, f"{fault}: nothing was noticed"
    assert FAULTS[fault] in said and ("(order 1234)" in said or fault == "unmet contract"), said
