"""2x2 windows side by side in rows of every length, of which several share lanes, against one output at a time."""

import random

import cases
import pytest
import torch
from backends import check_bitwise, check_close, rounded, selections, supported
from poolings import MAX, MIN

import fastpool._C as extension

WIDTHS = (2, 3, 4, 5, 6, 8, 9, 10, 14, 15, 16, 17, 18, 28, 32, 33, 34, 46, 64, 66)
PATTERNS = ("random", "integers", "few signed zeros", "positive")
SPECIAL = ("nans", "-inf", "nan and inf", "mixture")


def random_case(choose, width, patterns):
    """-> a case of some planes, which windows divide or leave a row of"""
    shape = (choose.choice((1, 2)), choose.choice((1, 3, 9, 33)), choose.choice((2, 6, 8, 11, 14, 15, 26)), width)
    kernel_size = 2
    if choose.random() < 0.2:
        shape, kernel_size = (*shape[:2], 3, *shape[2:]), (1, 2, 2)
    pattern = choose.choice(patterns)
    return cases.sliding(f"{pattern} {shape}", shape, kernel_size, pattern)


@pytest.mark.parametrize("capability", ["avx2", "avx512"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.usefixtures("restored_hooks")
def test_squares(width, capability):
    if not supported(capability):
        pytest.skip(f"this processor has no {capability}")
    choose = random.Random(width)
    for dtype in cases.DTYPES:
        torch.set_num_threads(choose.choice((1, 2)))
        for patterns in (PATTERNS, PATTERNS, SPECIAL):
            case = random_case(choose, width, patterns)
            x = case.values(dtype).requires_grad_()
            extension.set_schedule("exact")
            expected = selections(case, x)
            if patterns is PATTERNS:
                sums, exact = rounded(case, x), rounded(case, x.detach().double().requires_grad_())
            extension.set_schedule("tiled")
            what = f"{case}, {dtype}, {capability}"
            check_bitwise(selections(case, x), expected, what)
            with torch.no_grad():  # where nobody asks which element it was
                check_bitwise(
                    {str(kind): kind(case, x)[0] for kind in (MAX, MIN)},
                    {str(kind): expected[str(kind)] for kind in (MAX, MIN)},
                    what,
                )
            if patterns is PATTERNS:
                check_close(rounded(case, x), sums, exact, what)
