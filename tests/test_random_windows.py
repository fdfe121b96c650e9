"""Windows that nobody thought of: the schedules against the exact path, which takes one output after another."""

import random

import cases
import pytest
import torch
from backends import check_bitwise, check_close, rounded, selections
from poolings import AVG, MAX, MAX_AVG, MIXED

import fastpool._C as extension
import fastpool.functional as F

PER_TEST = 6
LARGEST = {1: 300, 2: 40, 3: 12}  # axes of random inputs, by rank


def random_sizes(choose, rank):
    sizes = [choose.randint(1, LARGEST[rank]) for _ in range(rank)]
    # Rows of a few outputs, and of many vectors.
    if rank > 1 and choose.random() < 0.3:
        sizes[-1] = choose.choice([choose.randint(1, 8), choose.randint(60, 300)])
    return sizes


def random_bins(choose, sizes):
    return {"output_size": tuple(choose.randint(1, min(n, choose.choice([1, 3, 12]))) for n in sizes)}


def random_sliding(choose, sizes):
    rank = len(sizes)
    kernel = [choose.choice([1, 2, 2, 2, 3, 3, 4, 5, choose.randint(1, 20 if rank > 1 else sizes[0])])] * rank
    if choose.random() < 0.5:
        kernel = [choose.choice([1, 2, 3, 5]) for _ in sizes]
    dilation = [choose.choice([1, 1, 1, 2, 3]) for _ in sizes]
    stride = kernel if choose.random() < 0.3 else [choose.choice([1, 2, 2, 3, 4, 5]) for _ in sizes]
    if choose.random() < 0.3:
        stride = [choose.randint(1, 5) + d * (k - 1) for k, d in zip(kernel, dilation)]
    sides = [(d * (k - 1) + 1) // 2 for k, d in zip(kernel, dilation)]
    padding = tuple((choose.choice([0, choose.randint(0, n)]), choose.choice([0, choose.randint(0, n)])) for n in sides)
    geometry = dict(kernel_size=tuple(kernel), stride=tuple(stride), padding=padding, dilation=tuple(dilation))
    return geometry | {"ceil_mode": choose.random() < 0.4}


def is_allowed(shape, geometry):
    try:
        for kind in ("max", "avg"):
            getattr(F, f"{kind}_pool{len(shape) - 2}d")(torch.zeros(1, 1, *shape[2:]), **geometry)
    except ValueError:
        return False
    return True


def random_case(choose):
    rank = choose.choice([1, 2, 2, 2, 3])
    layout = "contiguous" if rank == 1 else choose.choice(["contiguous", "contiguous", "channels_last", "sliced"])
    pattern = choose.choice(["random", "integers", "few signed zeros", "positive"])
    while True:
        sizes = random_sizes(choose, rank)
        shape = (choose.choice([1, 2]), choose.choice([1, 2, 3, 7, 8, 9, 16, 17, 33, 40]), *sizes)
        bins = choose.random() < 0.25
        geometry = random_bins(choose, sizes) if bins else random_sliding(choose, sizes)
        if bins or is_allowed(shape, geometry):
            return cases.Case(f"{shape} {layout} {pattern} {geometry}", shape, pattern, geometry, layout)


def without_taps(case, x):
    """What is computed in another way where no gradient wants taps."""
    with torch.no_grad():
        return {f"{pooling} {i}, no taps": y for pooling in (MAX, MAX_AVG) for i, y in enumerate(pooling(case, x)[:1])}


def sums_without_taps(case, x):
    with torch.no_grad():
        return {
            f"{pooling} {i}, no taps": y for pooling in (AVG, MAX_AVG, MIXED) for i, y in enumerate(pooling(case, x))
        }


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.usefixtures("restored_hooks")
def test_schedules_give_what_the_exact_path_gives(seed):
    choose = random.Random(seed)
    for _ in range(PER_TEST):
        case = random_case(choose)
        for dtype in (torch.float32, choose.choice([torch.float16, torch.bfloat16, torch.float64])):
            x = case.values(dtype).requires_grad_()
            extension.set_schedule("exact")
            selected = selections(case, x) | without_taps(case, x)
            sums = rounded(case, x) | sums_without_taps(case, x)
            wide = x.detach().double().requires_grad_()
            exact = {name: y.detach() for name, y in (rounded(case, wide) | sums_without_taps(case, wide)).items()}
            extension.set_schedule("tiled")
            what = f"{case} {dtype}"
            check_bitwise(selections(case, x) | without_taps(case, x), selected, what)
            check_close(rounded(case, x) | sums_without_taps(case, x), sums, exact, what)
