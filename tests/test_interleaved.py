"""Channels-last maps of few channels: lanes are channels of neighbouring positions; against one output at a time."""

import random

import cases
import pytest
import torch
from backends import check_bitwise, check_close, rounded, selections, supported
from test_random_windows import is_allowed, random_sliding

import fastpool._C as extension

CHANNELS = (2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31)  # up to those of two registers
WIDTHS = (2, 3, 5, 8, 13, 34, 67)
PATHS = ("avx2", "avx512")


def random_case(choose):
    rank = choose.choice((2, 2, 3))
    while True:
        sizes = [choose.choice(WIDTHS[:5]) for _ in range(rank - 1)] + [choose.choice(WIDTHS)]
        shape = (choose.choice((1, 2)), choose.choice(CHANNELS), *sizes)
        geometry = random_sliding(choose, sizes)
        if is_allowed(shape, geometry):
            pattern = choose.choice(("random", "integers", "few signed zeros", "positive"))
            return cases.Case(f"{shape} {pattern} {geometry}", shape, pattern, geometry, "channels_last")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.usefixtures("restored_hooks")
def test_random_windows_of_few_channels(seed):
    choose = random.Random(seed)
    for i in range(6):
        case = random_case(choose)
        dtype = cases.DTYPES[i % 4]
        x = case.values(dtype).requires_grad_()
        extension.set_schedule("exact")
        selected, sums = selections(case, x), rounded(case, x)
        exact = rounded(case, x.detach().double().requires_grad_())
        extension.set_schedule("tiled")
        for threads, path in enumerate(PATHS, 1):
            if not supported(path):
                continue
            torch.set_num_threads(threads)
            what = f"{case} {dtype} {path}"
            check_bitwise(selections(case, x), selected, what)
            check_close(rounded(case, x), sums, exact, what)


@pytest.mark.parametrize("pattern", ["nans", "only -inf", "nan and inf", "mixture"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.usefixtures("restored_hooks")
def test_special_values(channels, pattern):
    for kernel_size, stride, padding in ((2, 2, 0), (3, 2, 1), ((2, 4), (1, 3), (1, 2))):
        case = cases.sliding(
            "few channels",
            (2, channels, 7, 19),
            kernel_size,
            pattern,
            layout="channels_last",
            stride=stride,
            padding=padding,
        )
        x = case.values(torch.float32).requires_grad_()
        extension.set_schedule("exact")
        expected = selections(case, x)
        extension.set_schedule("tiled")
        for path in filter(supported, PATHS):
            check_bitwise(selections(case, x), expected, f"{case} {path}")
