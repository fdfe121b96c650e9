"""RandomMixedPoolNd: in training the bits of one pooling, drawn with probability p; in evaluation the blend."""

import copy
import pickle

import cases
import pytest
import torch
from comparison import assert_bitwise
from torch.autograd import gradcheck, gradgradcheck

import fastpool.functional as F
from fastpool import nn

SHAPES = {1: (2, 3, 12), 2: (2, 3, 9, 10), 3: (2, 3, 5, 6, 7)}


def module_of(rank, *args, **options):
    return getattr(nn, f"RandomMixedPool{rank}d")(*args, **options)


def both(x, rank, *args):
    return getattr(F, f"max_pool{rank}d")(x, *args), getattr(F, f"avg_pool{rank}d")(x, *args, count_include_pad=False)


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def with_infinities(x):
    x = x.clone()
    x.view(-1)[3::29], x.view(-1)[5::31], x.view(-1)[11::37] = torch.inf, -torch.inf, torch.nan
    return x


def is_bitwise(y, expected):
    try:
        assert_bitwise(y, expected)
    except AssertionError:
        return False
    return True


def chosen(y, poolings):
    """-> which pooling y is, to the bit: 0 for the maximum, 1 for the mean"""
    (which,) = [i for i, pooling in enumerate(poolings) if is_bitwise(y, pooling)]
    return which


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_training_gives_one_pooling_and_its_gradient(rank, dtype, layout):
    if layout in cases.NEEDS_4D and rank == 1:
        layout = "contiguous"
    x = cases.LAYOUTS[layout](with_infinities(random(*SHAPES[rank], dtype=dtype)))
    module, seen = module_of(rank, 3, 2, 1), set()
    torch.manual_seed(0)
    for _ in range(12):
        leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
        y, poolings = module(leaves[0]), both(leaves[1], rank, 3, 2, 1)
        expected = poolings[chosen(y, poolings)]
        assert y.dtype == dtype and y.stride() == expected.stride()
        g = torch.arange(1, y.numel() + 1, dtype=torch.float32).view(y.shape).remainder(5).add(1).to(dtype)
        y.backward(g)
        expected.backward(g)
        assert_bitwise(leaves[0].grad, leaves[1].grad, "gradient")
        seen.add(chosen(y, poolings))
    assert seen == {0, 1}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_certain_draws(rank, per_channel):
    x = with_infinities(random(*SHAPES[rank]))
    for inputs in (x, x[0], x[:0]):
        for p, which in ((1, 0), (0.0, 1)):
            y = module_of(rank, 2, p=p, per_channel=per_channel)(inputs)
            assert_bitwise(y, both(inputs, rank, 2)[which])


@pytest.mark.parametrize("batched", [True, False])
def test_channels_draw_on_their_own_and_samples_together(batched):
    x = with_infinities(random(3, 40, 4, 4))
    x = x if batched else x[0]
    torch.manual_seed(1)
    y, poolings = nn.RandomMixedPool2d(2, per_channel=True)(x), both(x, 2, 2)
    axis = x.ndim - 3
    draws = [chosen(y.select(axis, c), [p.select(axis, c) for p in poolings]) for c in range(40)]
    assert 8 <= sum(draws) <= 32


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_probability(p):
    """Within five standard deviations, of 20,000 channels and of 1,500 calls."""
    x = torch.tensor([0.0, 1.0]).expand(1, 20_000, 2)
    torch.manual_seed(2)
    by_channel = nn.RandomMixedPool1d(2, p=p, per_channel=True)(x).eq(1).double().mean().item()
    module = nn.RandomMixedPool1d(2, p=p)
    by_call = sum(module(x[:, :1]).item() == 1 for _ in range(1500)) / 1500
    for found, draws in ((by_channel, 20_000), (by_call, 1500)):
        assert abs(found - p) < 5 * (p * (1 - p) / draws) ** 0.5


def test_draws_follow_the_default_generator_and_evaluation_draws_nothing():
    x, module = random(2, 64, 4, 4), nn.RandomMixedPool2d(2, p=0.25, per_channel=True)
    torch.manual_seed(3)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert_bitwise(module(x), first)
    module.eval()
    state = torch.get_rng_state()
    assert_bitwise(module(x), F.mixed_pool2d(x, 2, alpha=0.25))
    assert torch.equal(torch.get_rng_state(), state)
    module.train()
    assert_bitwise(module(x), second)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_evaluation_is_the_blend(rank):
    x, module = random(*SHAPES[rank]), module_of(rank, 3, 2, 1, ceil_mode=True, p=0.3).eval()
    assert_bitwise(module(x), getattr(F, f"mixed_pool{rank}d")(x, 3, 2, 1, ceil_mode=True, alpha=0.3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("per_channel", [False, True])
def test_derivatives(training, per_channel):
    x = random(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    module = nn.RandomMixedPool2d(3, 2, 1, p=0.4, per_channel=per_channel).train(training)

    def pool(x):
        torch.manual_seed(5)
        return module(x)

    assert gradcheck(pool, x)
    assert gradgradcheck(pool, x)


@pytest.mark.parametrize("per_channel", [False, True])
def test_meta_tensors_tell_that_no_value_is_read(per_channel):
    module = nn.RandomMixedPool2d(3, 2, 1, per_channel=per_channel)
    x = torch.empty(2, 3, 9, 10, device="meta", requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.is_meta and y.shape == (2, 3, 5, 5) and x.grad.is_meta


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles(backend):
    torch._dynamo.reset()
    x, module = with_infinities(random(2, 8, 9, 10)), nn.RandomMixedPool2d(3, 2, 1)
    compiled, poolings = torch.compile(module, fullgraph=True, backend=backend), both(x, 2, 3, 2, 1)
    draws = [chosen(compiled(x), poolings) for _ in range(12)]
    assert set(draws) == {0, 1}
    if backend == "aot_eager":  # inductor draws from torch's seed by a generator of its own
        torch.manual_seed(4)
        expected = [chosen(module(x), poolings) for _ in range(12)]
        torch.manual_seed(4)
        assert [chosen(compiled(x), poolings) for _ in range(12)] == expected


def test_exports():
    x, module = random(2, 3, 9, 10), nn.RandomMixedPool2d(3, 2, 1, p=0.3).eval()
    assert_bitwise(torch.export.export(module, (x,)).module()(x), module(x))
    drawn = torch.export.export(module.train(), (x,)).module()
    assert {chosen(drawn(x), both(x, 2, 3, 2, 1)) for _ in range(12)} == {0, 1}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_copies(rank):
    module = module_of(rank, 3, 2, 1, p=0.25, per_channel=True)
    assert not module.state_dict()
    geometry = "kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False"
    assert repr(module) == f"RandomMixedPool{rank}d({geometry}, p=0.25, per_channel=True)"
    x = random(*SHAPES[rank])
    for same in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(same) == repr(module)
        results = []
        for copied in (module, same):
            torch.manual_seed(6)
            results.append(copied(x))
        assert_bitwise(*results)


REFUSED = [
    ({"p": 1.5}, ValueError, r"p must lie in \[0, 1\], got 1.5"),
    ({"p": -0.1}, ValueError, r"p must lie in \[0, 1\]"),
    ({"p": float("nan")}, ValueError, "p must be finite"),
    ({"p": "half"}, TypeError, "p must be a number, got 'half'"),
    ({"p": torch.tensor(0.5)}, TypeError, "p must be a number"),
    ({"p": True}, TypeError, "p must be a number"),
    ({"per_channel": 1}, TypeError, "per_channel must be True or False, got 1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED, ids=str)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        nn.RandomMixedPool2d(2, **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_bad_inputs(training):
    with pytest.raises(TypeError, match="input must be a dense tensor of float16"):
        nn.RandomMixedPool2d(2).train(training)(torch.ones(1, 1, 4, 4, dtype=torch.int64))
