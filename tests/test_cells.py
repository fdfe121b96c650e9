"""Pyramids and bins over small planes, whose rows are reduced for all levels at once, against one output at a time."""

import random

import cases
import pytest
import torch
from backends import check_bitwise, check_close, gradient
from poolings import MAX, MIN

import fastpool._C as extension
import fastpool.functional as F

WIDTHS = (3, 5, 7, 8, 9, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 64)
LEVELS = ((4, 2, 1), (3, 2, 1), (1, 2), (3,), ((2, 1), (1, 3)), (5, 3, 2, 1))
PATTERNS = ("random", "integers", "few signed zeros", "positive")
SPECIAL = ("nans", "-inf", "nan and inf", "mixture")
MOST_POSITIONS = 1024


def random_pyramid(choose, width, patterns):
    """-> input, options: of as many planes as lanes, fewer or more; the last rows end with the tensor"""
    height = choose.randint(6, MOST_POSITIONS // width if width > 32 else 32)
    shape = (choose.choice((1, 2)), choose.choice((2, 8, 9, 16, 31, 33, 64)), height, width)
    levels, bins = choose.choice(LEVELS), choose.choice(("adaptive", "floor"))
    if bins == "floor" and min(height, width) < 5:
        bins = "adaptive"
    pattern = choose.choice(patterns)
    case = cases.Case(f"{pattern} {levels} of {shape}", shape, pattern, {})
    return case, {"levels": levels, "bins": bins, "flatten": choose.choice(("level", "channel", None))}


def random_windows(choose, patterns):
    """-> a case of tall windows side by side, of which the first and the last lose rows and columns to the padding"""
    kernel_size = (choose.randint(6, 9), choose.randint(3, 9))
    padding = tuple(choose.randint(0, k // 2) for k in kernel_size)
    shape = (choose.choice((1, 2)), choose.choice((8, 9, 33)), 28, choose.choice((9, 14, 28, 30)))
    stride = tuple(k + choose.choice((0, 0, 1)) for k in kernel_size)
    pattern = choose.choice(patterns)
    name = f"{pattern} {kernel_size} {stride} {padding} of {shape}"
    return cases.sliding(name, shape, kernel_size, pattern, stride=stride, padding=padding)


def pooled(x, modes, options):
    """By every mode, with and without what a gradient needs."""
    results = {}
    for mode in modes:
        y = F.spatial_pyramid_pool2d(x, mode=mode, **options)
        results |= {mode: y.detach(), f"{mode} gradient": gradient([y], x)}
        results[f"{mode} alone"] = F.spatial_pyramid_pool2d(x.detach(), mode=mode, **options)
    return results


@pytest.mark.parametrize("width", WIDTHS)
def test_cells(width, capability):
    choose = random.Random(width)
    for dtype in cases.DTYPES:
        torch.set_num_threads(choose.choice((1, 2)))
        for patterns in (PATTERNS, PATTERNS, PATTERNS, SPECIAL):
            case, options = random_pyramid(choose, width, patterns)
            x = case.values(dtype).requires_grad_()
            what = f"{case}, {options}, {dtype}, {capability}"
            results = []
            for schedule in ("exact", "tiled"):
                extension.set_schedule(schedule)
                results.append((pooled(x, ("max", "min"), options), pooled(x, ("avg", "mean_std"), options)))
            (selected, rounded), (tiled_selected, tiled_rounded) = results
            check_bitwise(tiled_selected, selected, what)
            if patterns is PATTERNS:
                exact = pooled(x.detach().double().requires_grad_(), ("avg", "mean_std"), options)
                check_close(tiled_rounded, rounded, exact, what)


def test_selections_of_tall_windows(capability):
    choose = random.Random(1)
    for turn in range(24):
        case = random_windows(choose, SPECIAL if turn % 4 == 0 else PATTERNS)
        x = case.values(cases.DTYPES[turn % len(cases.DTYPES)]).requires_grad_()
        results = []
        for schedule in ("exact", "tiled"):
            extension.set_schedule(schedule)
            found = {}
            for pooling in (MAX, MIN):
                y, indices = pooling(case, x, return_indices=True)
                found |= {
                    f"{pooling}": y.detach(),
                    f"{pooling} indices": indices,
                    f"{pooling} gradient": gradient([y], x),
                }
            results.append(found)
        check_bitwise(results[1], results[0], f"{case}, {x.dtype}, {capability}")


@pytest.mark.usefixtures("restored_hooks")
def test_columns_of_a_position():
    """The tap of an element far to the right of a window of many rows."""
    x = torch.zeros(1, 8, 6, 170)
    x[..., 5, 169] = 1
    y, indices = F.adaptive_max_pool2d(x, (1, 2), return_indices=True)
    assert y[..., 1].eq(1).all() and indices[..., 1].eq(6 * 170 - 1).all() and indices[..., 0].eq(0).all()
