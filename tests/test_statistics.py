"""Draws follow their probabilities: chi-square over many windows, and their mean is the evaluation output."""

import pytest
import torch

import fastpool.functional as F

VALUES = {
    "relu": torch.tensor([1.0, 0.0, 4.0, -2.0, 2.0, 3.0]),
    "softmax": torch.tensor([-1.0, 0.5, 0.0, 1.0, 0.25, -0.5]),
}


def probabilities(values, distribution):
    weights = values.double().clamp(min=0) if distribution == "relu" else values.double().exp()
    return weights / weights.sum()


def critical_value(freedom, z=4.75):
    """Wilson-Hilferty: chi-square with this freedom exceeds it once in a million."""
    return freedom * (1 - 2 / (9 * freedom) + z * (2 / (9 * freedom)) ** 0.5) ** 3


def chi_square(counts, expected):
    used = expected > 0
    assert (counts[~used] == 0).all()
    return float(((counts[used] - expected[used]) ** 2 / expected[used]).sum()), int(used.sum()) - 1


def repeated(values, windows):
    return values.repeat(windows).view(1, 1, -1)


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
@pytest.mark.parametrize("across", ["positions", "channels", "samples", "seeds"])
def test_chi_square(distribution, across):
    values, count = VALUES[distribution], 60_000
    size = len(values)
    if across == "seeds":
        count = 3_000
        draws = [
            F.stochastic_pool1d(values.view(1, 1, -1), size, seed=s, distribution=distribution, return_indices=True)[1]
            for s in range(count)
        ]
        taps = torch.cat(draws).flatten()
    else:
        x = repeated(values, count)
        x = x.view({"positions": (1, 1, -1), "channels": (1, count, size), "samples": (count, 1, size)}[across])
        taps = F.stochastic_pool1d(x, size, seed=17, distribution=distribution, return_indices=True)[1].flatten() % size
    statistic, freedom = chi_square(
        torch.bincount(taps, minlength=size).double(), count * probabilities(values, distribution)
    )
    assert statistic < critical_value(freedom)


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
def test_chi_square_of_many_taps(distribution):
    """Windows of 300 taps are searched by classes: every tap must come up as often as its weight says."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(300, generator=generator) + 0.2
    count = 60_000
    x = values.expand(1, count, 300)
    taps = F.stochastic_pool1d(x, 300, seed=5, distribution=distribution, return_indices=True)[1].flatten()
    statistic, freedom = chi_square(
        torch.bincount(taps, minlength=300).double(), count * probabilities(values, distribution)
    )
    assert statistic < critical_value(freedom)


def test_neighbouring_draws_are_independent():
    """Pairs of neighbours (words of one Philox block, two channels, two samples) fill a 2 by 2 table evenly."""
    x = torch.ones(200, 200, 8)
    taps = F.stochastic_pool1d(x, 2, seed=1, return_indices=True)[1] % 2
    for axis in range(3):
        first, second = taps.narrow(axis, 0, taps.shape[axis] - 1), taps.narrow(axis, 1, taps.shape[axis] - 1)
        counts = torch.bincount((2 * first + second).flatten(), minlength=4).double()
        statistic, freedom = chi_square(counts, counts.sum() * torch.full((4,), 0.25, dtype=torch.float64))
        assert statistic < critical_value(freedom)


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_mean_of_draws_is_the_evaluation_output(distribution, dtype):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 3, 12, 12, generator=generator).to(dtype)
    count = 4_000
    many = x.expand(count, 3, 12, 12)
    draws = F.stochastic_pool2d(many, 3, stride=2, padding=1, seed=23, distribution=distribution).double()
    evaluation = F.stochastic_pool2d(x.double(), 3, 2, 1, training=False, distribution=distribution)
    error = (draws.mean(0, keepdim=True) - evaluation).abs()
    allowed = 5 * draws.std(0, keepdim=True) / count**0.5 + 1e-12
    assert (error < allowed).all(), (error / allowed).max()
