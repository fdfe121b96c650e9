"""The stochastic draw: bit by bit against the Philox contract."""

import cases
import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise
from poolings import accumulation

import fastpool._C as extension
import fastpool.functional as F

SEED = 0x9E3779B97F4A7C15 - 2**64
DISTRIBUTIONS = [("relu", 1.0), ("softmax", 0.5)]


def draw(case, x, seed=SEED, form=None, **options):
    if form == "global":
        return F.global_stochastic_pool(x, seed=seed, **options)
    prefix = "adaptive_" if "output_size" in case.geometry else ""
    function = getattr(F, f"{prefix}stochastic_pool{case.rank}d")
    return function(x, **case.geometry, seed=seed, **options)


def expected_draw(case, x, distribution, temperature, seed=SEED, **numbers):
    windows = case.windows()[1]
    wide = accumulation(x.dtype)
    return reference.stochastic_pool(
        case.array(x), windows, seed, distribution, temperature, accumulate=wide, **numbers
    )


def check_draw(case, x, values, indices, expected, what):
    """Draws that rounding of exp may move to a neighbour must still lie in their window."""
    size, windows = case.windows()
    wanted, where, _, clear = expected
    got = indices.numpy().reshape(where.shape)
    for n, c, p in np.argwhere(~clear):
        assert got[n, c, p] in windows.elements(p), f"{what}: index outside window {p}"
    taken = np.take_along_axis(reference.planes(case.array(x)), np.where(clear, where, got), axis=-1)
    assert_bitwise(indices, case.unflatten(np.where(clear, where, got), size), f"indices of {what}")
    assert_bitwise(values, case.unflatten(np.where(clear, wanted, taken), size), what)


@pytest.mark.parametrize("case", cases.SLIDING + cases.ADAPTIVE, ids=str)
@pytest.mark.parametrize(("distribution", "temperature"), DISTRIBUTIONS)
def test_draw(case, distribution, temperature):
    options = {"distribution": distribution, "temperature": temperature}
    for dtype in cases.DTYPES:
        what = f"draw of {case}, {distribution}, {dtype}"
        x = case.values(dtype).requires_grad_()
        values, indices = draw(case, x, return_indices=True, **options)
        assert values.dtype == dtype, what
        assert indices.dtype == torch.int64, what
        assert values.stride() == indices.stride(), what
        expected = expected_draw(case, x, distribution, temperature)
        check_draw(case, x, values, indices, expected, what)
        alone = draw(case, x, **options)
        assert_bitwise(alone, values, f"{what} without indices")

        _, where, drawn, clear = expected
        g = np.random.default_rng(1).integers(-3, 4, where.shape).astype(float) * clear
        (actual,) = torch.autograd.grad(alone, x, torch.from_numpy(g.reshape(values.shape)).to(dtype))
        gradient = reference.select_backward(g, where, case.array(x).shape, drawn)
        assert_bitwise(actual, gradient.reshape(x.shape), f"gradient of {what}")


@pytest.mark.parametrize("case", cases.GLOBAL, ids=str)
def test_global_draw(case):
    for dtype in cases.DTYPES:
        x = case.values(dtype)
        y = draw(case, x, form="global")
        assert_bitwise(y, case.unflatten(expected_draw(case, x, "relu", 1.0)[0], (1,) * case.rank), f"{case} {dtype}")
        assert_bitwise(draw(case, x, form="global", keepdim=False), y.flatten(1), f"{case} {dtype} keepdim=False")


def test_known_answer_of_the_reference():
    words = reference.philox(0, (0, 0, 0, 0))
    assert [int(word) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_known_answer():
    """256 equal weights show the first byte of each word; relu taps of that many elements are int32."""
    _, indices = F.stochastic_pool1d(torch.ones(1, 1, 4 * 256), 256, seed=0, return_indices=True)
    assert (indices[0, 0] - torch.arange(4) * 256).tolist() == [0x66, 0xE1, 0xBC, 0x9B]


def test_classes_by_hand():
    """257 equal weights: class 0 holds taps 0, 32 ... 256, the others eight taps; u * 257 counts through them."""
    _, indices = F.stochastic_pool1d(torch.ones(1, 1, 4 * 257), 257, seed=0, return_indices=True)
    order = [tap for r in range(32) for tap in range(r, 257, 32)]
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert (indices[0, 0] - torch.arange(4) * 257).tolist() == [order[(word >> 8) * 257 >> 24] for word in words]


def test_small_table_by_hand():
    x = torch.tensor([[[0.0, 5.0, -1.0, 0.0, -2.0, -3.0, 2.0, torch.inf, torch.inf, torch.nan, 1.0, torch.nan]]])
    y, indices = F.stochastic_pool1d(x, 3, stride=3, seed=3, return_indices=True)
    assert_bitwise(y, torch.tensor([[[5.0, 0.0, torch.inf, torch.nan]]]))
    assert indices.tolist() == [[[1, 3, 7, 11]]]
    y, indices = F.stochastic_pool1d(x[..., 6:], 3, seed=3, return_indices=True, distribution="softmax")
    assert_bitwise(y, torch.tensor([[[torch.inf, torch.nan]]]))
    assert indices.tolist() == [[[1, 5]]]


@pytest.mark.parametrize("size", [2, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("schedule", ["tiled", "exact"])
@pytest.mark.usefixtures("restored_hooks")
def test_every_bit_of_u_counts(dtype, size, layout, schedule):
    """The total is 2**24, so the second window's threshold is its word's upper 24 bits: a sum must exceed it."""
    extension.set_schedule(schedule)
    threshold = 0xE169C58D >> 8
    for first, tap in ((threshold, size - 1), (threshold + 1, 0)):
        x = torch.zeros(1, 3, 1, 2 * size, dtype=dtype)
        x[..., size], x[..., -1] = first, 2**24 - first
        _, indices = F.stochastic_pool2d(cases.LAYOUTS[layout](x), (1, size), seed=0, return_indices=True)
        assert indices[0, 0, 0, 1] == size + tap


@pytest.mark.parametrize("size", [4, 300])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_overflow_of_the_running_sum_draws_the_last_positive_tap(dtype, size):
    x = torch.full((1, 1, size), 3e38, dtype=dtype)
    x[..., -1] = -1.0
    _, indices = F.stochastic_pool1d(x, size, seed=0, return_indices=True)
    assert indices.item() == size - 2
    case = cases.sliding("overflow", x.shape, size)
    check_draw(case, x, *draw(case, x, return_indices=True), expected_draw(case, x, "relu", 1.0), "overflow")


SMALLEST = 2.0**-149  # of float32
BARELY = [
    cases.sliding("barely positive", (2, 3, 8, 40), 2),
    cases.sliding("barely positive planes", (2, 40, 6, 6), 3, stride=1, padding=1),
    cases.sliding("barely positive channels_last", (2, 17, 6, 6), 3, stride=2, layout="channels_last"),
    cases.sliding("barely positive of 300", (2, 9, 1200), 300, stride=30),
    cases.sliding("barely positive of 289 clipped", (2, 3, 24, 25), 17, stride=3, padding=8),
    cases.sliding(
        "barely positive of 289 channels_last", (2, 17, 24, 25), 17, stride=3, padding=8, layout="channels_last"
    ),
    cases.adaptive("barely positive bins", (2, 9, 47, 31), (3, 2)),
]


@pytest.mark.parametrize("case", BARELY, ids=str)
def test_no_sum_exceeds_a_threshold_that_rounds_up(case):
    """Of a total of the smallest number, more than half is all: the last tap with weight is drawn."""
    size, windows = case.windows()
    rng = np.random.default_rng(0)
    longest = max(grid.exist.sum(axis=1).max() for grid in windows.grids)
    values = np.where(rng.random(case.shape) < 1 / longest, SMALLEST, rng.choice([0.0, -1.0], case.shape))
    x = cases.LAYOUTS[case.layout](torch.from_numpy(values).float())
    assert x.max().item() == SMALLEST, "float32 is flushed to zero here"
    for seed in range(5):
        expected = expected_draw(case, x, "relu", 1.0, seed=seed)
        u = reference.uniforms(seed, range(case.shape[0]), range(case.shape[1]), len(windows))
        assert (expected[2] & (u > 0.5)).any()
        check_draw(case, x, *draw(case, x, seed=seed, return_indices=True), expected, f"{case}, seed {seed}")


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
def test_draw_of_an_only_minus_infinite_window(distribution):
    x = torch.full((1, 2, 6), -torch.inf)
    y, indices = F.stochastic_pool1d(x, 3, seed=0, return_indices=True, distribution=distribution)
    assert_bitwise(y, torch.full((1, 2, 2), 0.0 if distribution == "relu" else -torch.inf))
    assert ((indices >= torch.tensor([0, 3])) & (indices < torch.tensor([3, 6]))).all()


SEEDS = [0, 1, -1, 2**31, 2**32 + 5, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]
BIG = cases.sliding("seeds", (2, 3, 8, 40), 3, "positive", stride=2, padding=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds(seed):
    x = BIG.values(torch.float32)
    values, indices = draw(BIG, x, seed=seed, return_indices=True)
    check_draw(BIG, x, values, indices, expected_draw(BIG, x, "relu", 1.0, seed=seed), f"seed {seed}")
    signed = seed - 2**64 if seed >= 2**63 else seed
    for shape in ((), (1,), (1, 1)):
        tensor = torch.full(shape, signed, dtype=torch.int64)
        assert_bitwise(draw(BIG, x, seed=tensor), values, f"seed {seed} as a tensor of shape {shape}")


def test_seeds_differ():
    x = BIG.values(torch.float32)
    draws = {tuple(draw(BIG, x, seed=seed).flatten().tolist()) for seed in SEEDS}
    assert len(draws) == len(SEEDS) - 2  # 2**63 and -2**63, 2**64 - 1 and -1 are the same modulo 2**64


def test_manual_seed():
    x = BIG.values(torch.float32)
    torch.manual_seed(3)
    first, second = draw(BIG, x, seed=None), draw(BIG, x, seed=None)
    torch.manual_seed(3)
    assert_bitwise(draw(BIG, x, seed=None), first)
    assert_bitwise(draw(BIG, x, seed=None), second)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64)
    assert_bitwise(draw(BIG, x, seed=seed), first, "the seed is one torch.randint(2**63 - 1, (1,))")
    after = torch.get_rng_state()
    torch.manual_seed(3)
    draw(BIG, x, seed=None)
    assert torch.equal(torch.get_rng_state(), after)


def test_generator():
    x = BIG.values(torch.float32)
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(11)
    first, second = draw(BIG, x, seed=None, generator=generator), draw(BIG, x, seed=None, generator=generator)
    generator.manual_seed(11)
    seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64, generator=generator)
    assert_bitwise(draw(BIG, x, seed=seed), first)
    assert_bitwise(draw(BIG, x, seed=None, generator=generator), second)
    assert torch.equal(torch.get_rng_state(), state), "the default generator must not move"


def test_seed_and_evaluation_draw_nothing_from_the_generator():
    x = BIG.values(torch.float32)
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(1)
    own = generator.get_state()
    draw(BIG, x, seed=4)
    plain = draw(BIG, x, seed=None, training=False)
    assert_bitwise(draw(BIG, x, seed=None, training=False, generator=generator, offset=(3, 4)), plain)
    assert_bitwise(draw(BIG, x, seed=9, training=False), plain)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(generator.get_state(), own)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_offset_cuts_batch_and_channels(layout):
    case = cases.sliding(f"cut {layout}", (4, 6, 7, 9), 3, "positive", stride=2, padding=1, layout=layout)
    x = case.values(torch.float32)
    whole = draw(case, x)
    parts = [torch.cat([draw(case, x[n : n + 2, c : c + 3], offset=(n, c)) for c in (0, 3)], dim=1) for n in (0, 2)]
    assert_bitwise(torch.cat(parts), whole)
    assert not torch.equal(draw(case, x, offset=(1, 0)), whole)
    assert not torch.equal(draw(case, x, offset=(0, 1)), whole)


SCHEDULES = [
    BIG,
    cases.sliding("offset planes", (2, 9, 6, 7), 3, "positive", stride=1),
    cases.sliding("offset channels_last", (2, 17, 6, 7), 3, "positive", stride=2, layout="channels_last"),
    cases.sliding("offset 300 taps", (2, 3, 400), 300, "positive", stride=9),
    cases.sliding(
        "offset 300 taps channels_last", (2, 17, 20, 16), (20, 15), "positive", stride=1, layout="channels_last"
    ),
    cases.adaptive("offset bins", (2, 9, 9, 40), 4, "positive"),
    cases.adaptive("offset bins of both orders", (2, 3, 47, 31), (3, 2), "positive"),
]


@pytest.mark.parametrize("offset", [(2**32 - 1, 0), (2**40, 7), (5, 2**31)])
@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_large_offsets(case, offset):
    x = case.values(torch.float32)
    samples, channels = (range(first, first + n) for first, n in zip(offset, case.shape, strict=False))
    expected = expected_draw(case, x, "relu", 1.0, samples=samples, channels=channels)
    check_draw(case, x, *draw(case, x, offset=offset, return_indices=True), expected, f"{case}, offset {offset}")


def test_unbatched_is_sample_zero():
    x = BIG.values(torch.float32)
    assert_bitwise(draw(BIG, x[0]), draw(BIG, x)[0])


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
def test_one_seed_in_every_dtype(distribution):
    x = cases.sliding("whole", (2, 3, 8, 40), 2, "integers").values(torch.float64)
    draws = [F.stochastic_pool2d(x.to(dtype), 2, seed=8, distribution=distribution).double() for dtype in cases.DTYPES]
    assert_bitwise(draws[0], draws[2])
    assert_bitwise(draws[1], draws[2])
    if distribution == "relu":
        assert_bitwise(draws[3], draws[2])
