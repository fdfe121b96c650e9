"""Spatial pyramid pooling: every mode, bins, flattening and list input against the reference and torch."""

import zlib
from dataclasses import dataclass

import cases
import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise, assert_close
from poolings import AVG, BY_TABLE, EXPECTATION_RELU, EXPECTATION_SOFTMAX, MAX, MAX_AVG, MIN, MIXED, accumulation
from test_backward import expected_gradient

import fastpool.functional as F

FLATTENS = ("level", "channel", None)
SEED = 12345


@dataclass(frozen=True)
class Pyramid:
    name: str
    shape: tuple
    levels: tuple = (4, 2, 1)
    bins: str = "adaptive"
    pattern: str = "random"
    layout: str = "contiguous"

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.shape) - 2

    def values(self, dtype):
        return cases.Case(self.name, self.shape, self.pattern, {}, self.layout).values(dtype)

    def windows(self, size=None):
        return reference.pyramid_windows(size or self.shape[2:], self.levels, self.bins)

    def __call__(self, x, flatten="level", **options):
        function = getattr(F, f"spatial_pyramid_pool{self.rank}d")
        return function(x, self.levels, bins=self.bins, flatten=flatten, **options)


CASES = [
    Pyramid("pyramid dividing", (2, 3, 8, 8), pattern="integers"),
    Pyramid("pyramid 13x13", (2, 5, 13, 13)),
    Pyramid("pyramid 11x11", (2, 3, 11, 11), pattern="integers"),
    Pyramid("pyramid non-square", (2, 3, 9, 14), levels=(3, 2, 1)),
    Pyramid("pyramid one level", (2, 3, 9, 14), levels=(3,)),
    Pyramid("pyramid levels in any order", (2, 3, 9, 14), levels=(1, 4, 2, 4)),
    Pyramid("pyramid tuple levels", (2, 3, 9, 14), levels=((3, 1), (1, 5), 2), pattern="integers"),
    Pyramid("pyramid level above size", (2, 3, 3, 2)),
    Pyramid("pyramid 1d", (2, 3, 37), levels=(6, 3, 2, 1)),
    Pyramid("pyramid 3d", (1, 2, 5, 6, 7), levels=(3, 2, 1)),
    Pyramid("pyramid channels_last", (2, 17, 13, 13), layout="channels_last"),
    Pyramid("pyramid channels_last 70", (2, 70, 7, 7), pattern="integers", layout="channels_last"),
    Pyramid("pyramid channels_last 3d", (1, 3, 5, 6, 7), levels=(2, 1), layout="channels_last"),
    Pyramid("pyramid sliced", (2, 3, 13, 12), layout="sliced"),
    Pyramid("pyramid transposed", (2, 3, 13, 12), layout="transposed"),
    Pyramid("pyramid expanded", (2, 3, 13, 12), layout="expanded"),
    Pyramid("pyramid nan", (2, 3, 9, 9), pattern="nan"),
    Pyramid("pyramid infinities", (2, 3, 9, 9), pattern="inf"),
    Pyramid("pyramid of -inf", (1, 2, 9, 9), pattern="-inf"),
    Pyramid("pyramid negative", (2, 3, 9, 9), pattern="negative"),
    Pyramid("pyramid signed zeros", (2, 3, 9, 9), pattern="signed zeros"),
    Pyramid("pyramid empty batch", (0, 3, 9, 9)),
    Pyramid("pyramid big plane", (1, 2, 40, 41), pattern="positive"),
    Pyramid("pyramid wide", (1, 2, 6, 200), levels=((1, 70), (2, 33), 1)),
    Pyramid("pyramid folded", (1, 33, 37, 70), levels=(3, 2, 1), pattern="nans"),
    Pyramid("pyramid folded in rounds", (1, 9, 40, 150), levels=((10, 4), 3, 1), pattern="integers"),
    Pyramid("pyramid folded and whole", (1, 9, 32, 32), levels=(16, 4, 1), pattern="integers"),
    Pyramid("floor dividing", (2, 3, 8, 8), bins="floor"),
    Pyramid("floor 13x13", (2, 5, 13, 13), bins="floor", pattern="integers"),
    Pyramid("floor 11x11", (2, 3, 11, 11), bins="floor"),
    Pyramid("floor 1d", (2, 3, 37), levels=(6, 3, 2, 1), bins="floor"),
    Pyramid("floor 3d", (1, 2, 5, 6, 7), levels=(3, 2, 1), bins="floor"),
    Pyramid("floor channels_last", (2, 17, 13, 13), bins="floor", layout="channels_last"),
    Pyramid("floor nan", (2, 3, 11, 11), bins="floor", pattern="nan"),
]
MODES = {
    "max": (MAX, {}),
    "avg": (AVG, {}),
    "max_avg": (MAX_AVG, {}),
    "mixed": (MIXED, {"alpha": 0.3}),
    "expectation relu": (EXPECTATION_RELU, {"training": False}),
    "expectation softmax": (EXPECTATION_SOFTMAX, {"training": False, "distribution": "softmax"}),
    **{pooling.function: (pooling, {}) for pooling in (MIN, *BY_TABLE) if "adaptive" in pooling.forms},
}


def mode_of(name):
    return {"mode": name.split()[0].replace("expectation", "stochastic"), **MODES[name][1]}


def flat(outputs, counts, flatten):
    """Outputs of a mode, (N, C, B) each, follow one another along the channels."""
    return reference.flatten_pyramid(np.concatenate([np.asarray(y) for y in outputs], axis=1), counts, flatten)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", MODES)
def test_values(case, name):
    pooling = MODES[name][0]
    counts, windows = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        x64 = x.double().numpy()
        expected = pooling.reference(x64, windows, np.float64)
        composition = [y.double().numpy() for y in pooling.composition(x, windows)]
        for flatten in FLATTENS:
            y = case(x, flatten, **mode_of(name))
            what = f"{name} of {case}, flatten={flatten!r}, {dtype}"
            assert y.dtype == dtype, what
            assert y.is_contiguous() or flatten is None, what
            if name == "max":
                assert_bitwise(y, flat(expected, counts, flatten), what)
            else:
                composed = torch.from_numpy(flat(composition, counts, flatten)).to(dtype)
                assert_close(y, flat(expected, counts, flatten), composed, what, factor=pooling.factor)
            if name == "max_avg" and flatten is None:
                assert_bitwise(y[:, : case.shape[1]], expected[0], what)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("distribution", ["relu", "softmax"])
def test_draw(case, distribution):
    counts, windows = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        values, _, _, clear = reference.stochastic_pool(
            x.double().numpy(), windows, SEED, distribution, accumulate=accumulation(dtype)
        )
        for flatten in FLATTENS:
            y = case(x, flatten, mode="stochastic", seed=SEED, distribution=distribution)
            expected, sure = flat([values], counts, flatten), flat([clear], counts, flatten)
            what = f"draw of {case}, {distribution}, flatten={flatten!r}, {dtype}"
            assert_bitwise(y, np.where(sure, expected, y.double().numpy()), what)


def incoming(case, y, counts, whole):
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    g = rng.integers(-3, 4, y.shape) if whole else rng.normal(size=y.shape)
    return torch.from_numpy(g.astype(float)).to(y.dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", MODES)
def test_gradient(case, name):
    pooling = MODES[name][0]
    counts, windows = case.windows()
    for dtype in cases.DTYPES if name == "max" else cases.some_dtypes(case):
        x = case.values(dtype).requires_grad_()
        x64 = x.detach().double().numpy()
        y = case(x, None, **mode_of(name))
        g = incoming(case, y, counts, whole=name == "max")
        (actual,) = torch.autograd.grad(y, x, g, retain_graph=True)
        parts = np.split(g.double().numpy(), len(pooling.bitwise), axis=1)
        expected, outside = expected_gradient(pooling, x64, windows, parts)
        what = f"gradient of {name} of {case}, {dtype}"
        if name == "max":
            assert_bitwise(actual, expected, what)
        else:
            leaf = x.detach().clone().requires_grad_()
            composed = torch.cat(pooling.composition(leaf, windows), 1)
            assert_close(
                actual, expected, torch.autograd.grad(composed, leaf, g)[0], what, ignore=outside, factor=pooling.factor
            )
        for flatten in ("level", "channel"):
            z = case(x, flatten, **mode_of(name))
            same = torch.from_numpy(reference.flatten_pyramid(g.double().numpy(), counts, flatten)).to(dtype)
            assert_bitwise(torch.autograd.grad(z, x, same)[0], actual, f"{what}, flatten={flatten!r}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_of_the_draw(case):
    counts, windows = case.windows()
    for dtype in cases.DTYPES:
        x = case.values(dtype).requires_grad_()
        y = case(x, "channel", mode="stochastic", seed=SEED)
        _, where, drawn, _ = reference.stochastic_pool(
            x.detach().double().numpy(), windows, SEED, "relu", accumulate=accumulation(dtype)
        )
        g = incoming(case, y, counts, whole=True)
        expected = reference.select_backward(g.double().numpy().reshape(where.shape), where, case.shape, drawn)
        assert_bitwise(torch.autograd.grad(y, x, g)[0], expected, f"{case} {dtype}")


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_torch(mode, rank):
    """flatten="level" is what the concatenation of adaptive poolings gives."""
    torch_pool = getattr(torch.nn.functional, f"adaptive_{mode}_pool{rank}d")
    x = torch.randn(2, 3, *(11, 9, 7)[:rank], dtype=torch.float64)
    expected = torch.cat([torch_pool(x, (level,) * rank).flatten(1) for level in (4, 2, 1)], 1)
    actual = getattr(F, f"spatial_pyramid_pool{rank}d")(x, mode=mode)
    assert_close(actual, expected.numpy(), expected)


@pytest.mark.parametrize("name", [*MODES, "draw"])
@pytest.mark.parametrize("bins", ["adaptive", "floor"])
def test_list_of_sizes(name, bins):
    options = {"mode": "stochastic", "seed": SEED} if name == "draw" else mode_of(name)
    case = Pyramid("pyramid list", (1, 3, 9, 9), bins=bins)
    sizes = [(9, 9), (4, 13), (30, 5), (9, 9), (64, 70)]
    for dtype in cases.DTYPES:
        items = [torch.randn(3, *size, generator=torch.Generator().manual_seed(1)).to(dtype) for size in sizes]
        items[1] = items[1].transpose(1, 2).contiguous().transpose(1, 2)
        items = [x.requires_grad_() for x in items]
        for flatten in FLATTENS:
            y = case(items, flatten, **options)
            rows = [
                case(x[None], flatten, **options, **({"offset": (i, 0)} if name == "draw" else {}))
                for i, x in enumerate(items)
            ]
            assert_bitwise(y, torch.cat(rows), f"{name} {dtype} flatten={flatten!r}")
            g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
            gradients = torch.autograd.grad(y, items, g)
            for i, (x, row) in enumerate(zip(items, rows, strict=True)):
                (expected,) = torch.autograd.grad(row, x, g[i : i + 1])
                assert_bitwise(gradients[i], expected, f"gradient of item {i}, {name} {dtype} flatten={flatten!r}")


def test_position_in_the_list_is_the_sample():
    case = Pyramid("pyramid positions", (1, 3, 12, 12), pattern="positive")
    x = case.values(torch.float32)[0]
    y = case([x, x, x], None, mode="stochastic", seed=SEED)
    samples = [0, 1, 2]
    _, windows = case.windows()
    expected = reference.stochastic_pool(
        x.double().expand(3, 3, 12, 12).numpy(), windows, SEED, "relu", samples=samples, channels=range(3)
    )[0]
    assert_bitwise(y, expected)
    assert not torch.equal(y[0], y[1])


def test_list_where_some_items_need_a_gradient():
    items = [torch.randn(2, 5, 6), torch.randn(2, 7, 4).requires_grad_(), torch.randn(2, 5, 5)]
    y = F.spatial_pyramid_pool2d(items, mode="max")
    (gradient,) = torch.autograd.grad(y.sum(), [items[1]])
    alone = items[1][None]
    (expected,) = torch.autograd.grad(F.spatial_pyramid_pool2d(alone, mode="max").sum(), [items[1]])
    assert_bitwise(gradient, expected)


@pytest.mark.parametrize("name", [*MODES, "draw"])
def test_unbatched_drops_the_batch_axis(name):
    options = {"mode": "stochastic", "seed": SEED} if name == "draw" else mode_of(name)
    case = Pyramid("pyramid unbatched", (1, 3, 9, 10))
    x = case.values(torch.float32)
    for flatten in FLATTENS:
        assert_bitwise(case(x[0], flatten, **options), case(x, flatten, **options)[0], f"{name} {flatten!r}")


@pytest.mark.parametrize(
    "alpha", [0.25, torch.tensor(0.25), torch.tensor([0.0, 0.5, 1.0])], ids=["number", "0-d", "1-d"]
)
def test_mixed_alpha(alpha):
    case = Pyramid("pyramid mixed", (2, 3, 9, 10))
    x = case.values(torch.float32)
    counts, windows = case.windows()
    shared = isinstance(alpha, torch.Tensor)
    alpha = alpha.clone().requires_grad_() if shared else alpha
    alpha64 = alpha.detach().double().numpy().reshape(-1, 1) if shared else alpha
    for flatten in FLATTENS:
        y = case(x, flatten, mode="mixed", alpha=alpha)
        expected = reference.mixed_pool(x.double().numpy(), windows, alpha64)
        wide = alpha.detach().view(-1, 1) if shared else alpha
        composed = (
            MIXED.composition(x, windows)[0] * 0
            + wide * torch.from_numpy(MAX.reference(x.double().numpy(), windows, None)[0]).float()
            + (1 - wide) * MAX_AVG.composition(x, windows)[1]
        )
        assert_close(y, flat([expected], counts, flatten), composed, f"flatten={flatten!r}")
        if shared:
            g = incoming(case, y, counts, whole=False)
            (actual,) = torch.autograd.grad(y, alpha, g)
            largest, average = MAX_AVG.composition(x, windows)
            index = reference.flatten_pyramid(np.arange(largest.numel()).reshape(largest.shape), counts, flatten)
            unflat = torch.empty(largest.numel()).index_copy_(0, torch.from_numpy(index.ravel()), g.flatten())
            each = unflat.view(largest.shape) * (largest - average)
            axes = (0, 2) if alpha.ndim else (0, 1, 2)
            assert_close(actual, each.double().sum(axes).numpy(), each.sum(axes), f"alpha, flatten={flatten!r}")
