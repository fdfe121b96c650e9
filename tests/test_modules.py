"""fastpool.nn: one module for each function and dimension, thin, with torch's manners."""

import copy
import inspect
import io
import math
import pickle

import pytest
import torch
from comparison import assert_bitwise, assert_close
from poolings import TABLE

import fastpool.functional as F
from fastpool import nn
from fastpool._operators import POOLINGS

X = {
    1: torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)),
    2: torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(1)),
    3: torch.randn(2, 3, 5, 6, 7, generator=torch.Generator().manual_seed(2)),
}
KINDS = {pooling.class_name: pooling.name for pooling in TABLE.values() if "adaptive" in pooling.forms}


def every_module():
    """-> name, module, the function it stands for, an input"""
    for rank in (1, 2, 3):
        for name, kind in KINDS.items():
            seed = {"seed": 3} if kind == "stochastic" else {}
            yield (
                f"{name}Pool{rank}d",
                lambda n=f"{name}Pool{rank}d", s=seed: getattr(nn, n)(3, 2, 1, **s),
                lambda x, f=f"{kind}_pool{rank}d", s=seed: getattr(F, f)(x, 3, 2, 1, **s),
                X[rank],
            )
            yield (
                f"Adaptive{name}Pool{rank}d",
                lambda n=f"Adaptive{name}Pool{rank}d", s=seed: getattr(nn, n)(2, **s),
                lambda x, f=f"adaptive_{kind}_pool{rank}d", s=seed: getattr(F, f)(x, 2, **s),
                X[rank],
            )
        yield (
            f"LPPool{rank}d",
            lambda n=f"LPPool{rank}d": getattr(nn, n)(2.0, 3, 2, padding=1),
            lambda x, f=f"lp_pool{rank}d": getattr(F, f)(x, 2.0, 3, 2, padding=1),
            X[rank],
        )
        yield (
            f"SpatialPyramidPool{rank}d",
            lambda n=f"SpatialPyramidPool{rank}d": getattr(nn, n)((3, 1), mode="max_avg"),
            lambda x, f=f"spatial_pyramid_pool{rank}d": getattr(F, f)(x, (3, 1), mode="max_avg"),
            X[rank],
        )
    for name, kind in KINDS.items():
        seed = {"seed": 3} if kind == "stochastic" else {}
        yield (
            f"Global{name}Pool",
            lambda n=f"Global{name}Pool", s=seed: getattr(nn, n)(**s),
            lambda x, f=f"global_{kind}_pool", s=seed: getattr(F, f)(x, **s),
            X[2],
        )


MODULES = {name: rest for name, *rest in every_module()}


def outputs(y):
    return y if isinstance(y, tuple) else (y,)


def check_equal(actual, expected, what):
    for y, wanted in zip(outputs(actual), outputs(expected), strict=True):
        assert_bitwise(y, wanted, what)


@pytest.mark.parametrize("name", MODULES)
def test_module_is_its_function(name):
    module, function, x = MODULES[name]
    check_equal(module()(x), function(x), name)


@pytest.mark.parametrize("name", MODULES)
def test_copies(name):
    module, _, x = MODULES[name]
    original = module()
    buffer = io.BytesIO()
    torch.save(original, buffer)
    buffer.seek(0)
    for copied in (
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
        torch.load(buffer, weights_only=False),
    ):
        assert repr(copied) == repr(original)
        check_equal(copied(x), original(x), name)


@pytest.mark.parametrize("name", MODULES)
def test_forward_takes_the_input_only(name):
    parameters = list(inspect.signature(MODULES[name][0]().forward).parameters)
    assert parameters == ["input"]


TORCH = [
    ("LPPool1d", (2, 3), {}),
    ("LPPool2d", (1.5, (3, 2), 2), {"ceil_mode": True}),
    ("LPPool3d", (2, 2), {}),
    ("MaxPool1d", (3,), {}),
    ("MaxPool2d", (3, 2, 1), {}),
    ("MaxPool2d", ((3, 2), (2, 1), (0, 1), (1, 2)), {"ceil_mode": True}),
    ("MaxPool3d", (2,), {"return_indices": True}),
    ("AvgPool1d", (3, 2, 1), {}),
    ("AvgPool2d", ((3, 2), 2), {"count_include_pad": False}),
    ("AvgPool3d", (2,), {}),
    ("AdaptiveMaxPool1d", (3,), {}),
    ("AdaptiveMaxPool2d", ((3, None),), {"return_indices": True}),
    ("AdaptiveMaxPool3d", (2,), {}),
    ("AdaptiveAvgPool1d", (3,), {}),
    ("AdaptiveAvgPool2d", ((None, 2),), {}),
    ("AdaptiveAvgPool3d", (2,), {}),
]


@pytest.mark.parametrize(("name", "args", "options"), TORCH, ids=str)
def test_repr_and_result_as_torch(name, args, options):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    # What the result is, torch does not show.
    assert repr(ours).replace(", return_indices=True", "") == repr(theirs)
    x = X[int(name[-2])]
    exact = outputs(theirs(x.double()))
    for y, expected, wide in zip(outputs(ours(x)), outputs(theirs(x)), exact, strict=True):
        if y.is_floating_point():
            assert_close(y, wide.numpy(), expected, name)
        else:
            assert_bitwise(y, expected, name)


REPRS = [
    (lambda: nn.MixedPool2d(2, alpha=0.25), ["kernel_size=2", "alpha=0.25"]),
    (lambda: nn.MixedPool2d(2, alpha=0.25, learnable=True), ["alpha=0.25 (learned)"]),
    (
        lambda: nn.MixedPool2d(2, alpha=torch.tensor([0.25, 0.75, 0.8]), learnable=True, num_channels=3),
        ["alpha=0.6 (mean of 3, learned)"],
    ),
    (lambda: nn.MixedPool2d(2, learnable=True).to("meta"), ["alpha=learned"]),
    (lambda: nn.GlobalGeMPool(), ["p=3 (learned)", "eps=1e-06"]),
    (lambda: nn.StochasticPool2d(2, distribution="softmax", temperature=0.5), ["softmax", "temperature=0.5"]),
    (
        lambda: nn.AdaptiveStochasticPool2d(2, seed=7, offset=(4, 1), return_indices=True),
        ["seed=7", "offset=(4, 1)", "return_indices=True"],
    ),
    (lambda: nn.GlobalStochasticPool(seed=torch.tensor([7])), ["seed=tensor of shape (1,)"]),
    (lambda: nn.MinPool1d(2, return_indices=True), ["return_indices=True"]),
    (lambda: nn.SpatialPyramidPool2d(mode="stochastic", seed=7, temperature=2.0), ["temperature=2.0", "seed=7"]),
    (lambda: nn.SpatialPyramidPool2d(mode="mixed", learnable=True), ["alpha=0.5 (learned)"]),
    (lambda: nn.SpatialPyramidPool2d((3, 1), mode="avg", bins="floor"), ["levels=(3, 1)", "avg", "floor"]),
    (lambda: nn.SpatialPyramidPool2d(flatten=None), ["flatten=None"]),
    (lambda: nn.MaxPool2d(3, padding="same", stride=1), ["kernel_size=3", "same"]),
    (lambda: nn.AvgPool2d(3, dilation=2), ["kernel_size=3", "dilation=2"]),
    (lambda: nn.GlobalMaxPool(keepdim=False), ["keepdim=False"]),
]


@pytest.mark.parametrize(("make", "parts"), REPRS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_repr_names_what_was_given(make, parts):
    assert all(part in repr(make()) for part in parts), repr(make())


def test_repr_shows_what_was_learned():
    module = nn.MixedPool2d(2, learnable=True)
    with torch.no_grad():
        module.logit.fill_(math.log(4))
    assert "alpha=0.8 (learned)" in repr(module)


def test_fixed_alpha_has_no_state():
    module = nn.MixedPool2d(2, alpha=0.25)
    assert not list(module.parameters())
    assert not module.state_dict()
    assert_bitwise(module(X[2]), F.mixed_pool2d(X[2], 2, alpha=0.25))


SEEDED = {
    "sliding": lambda seed: nn.StochasticPool2d(2, seed=seed),
    "adaptive": lambda seed: nn.AdaptiveStochasticPool2d(2, seed=seed),
    "global": lambda seed: nn.GlobalStochasticPool(seed=seed),
    "pyramid": lambda seed: nn.SpatialPyramidPool2d(mode="stochastic", seed=seed),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in SEEDED.items()])
def test_a_tensor_seed_moves_with_the_module(make):
    module = make(torch.tensor([7]))
    assert_bitwise(module(X[2]), make(7)(X[2]))
    assert not module.state_dict()
    assert_bitwise(copy.deepcopy(module)(X[2]), module(X[2]))
    assert module.to("meta").seed.is_meta


def test_a_tensor_alpha_moves_and_is_saved():
    alpha = torch.tensor([0.0, 0.5, 1.0])
    module = nn.MixedPool2d(2, alpha=alpha)
    assert_bitwise(module(X[2]), F.mixed_pool2d(X[2], 2, alpha=alpha))
    assert not list(module.parameters())
    assert_bitwise(module.state_dict()["fixed_alpha"], alpha)
    assert module.to("meta").fixed_alpha.is_meta


@pytest.mark.parametrize(
    "make",
    (
        lambda p: nn.SoftPool2d(2, beta=p),
        lambda p: nn.MixedPool2d(2, alpha=p),
        lambda p: nn.SpatialPyramidPool2d((2, 1), mode="lse", r=p),
    ),
    ids=("soft", "mixed", "pyramid"),
)
def test_a_parameter_that_is_given_stays_one(make):
    given = torch.nn.Parameter(torch.tensor(0.3))
    pool = make(given)
    assert [*pool.parameters()] == [given] and "0.3 (learned)" in repr(pool)
    pool(torch.rand(1, 2, 4, 4)).sum().backward()
    assert given.grad is not None
    again = make(torch.nn.Parameter(torch.zeros(())))
    again.load_state_dict(pool.state_dict())
    assert next(again.parameters()) == given


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.9])
def test_learnable_alpha_starts_where_asked(channels, alpha):
    module = nn.MixedPool2d(2, alpha=alpha, learnable=True, num_channels=channels)
    (logit,) = module.parameters()
    assert logit.shape == (channels or 1,)
    assert torch.allclose(logit.detach().double(), torch.tensor(math.log(alpha / (1 - alpha))).double())
    expected = F.mixed_pool2d(X[2], 2, alpha=torch.sigmoid(logit.detach()))
    assert_bitwise(module(X[2]).detach(), expected)


@pytest.mark.parametrize("channels", [None, 3])
def test_learnable_alpha_learns(channels):
    """The data prefer the maximum: alpha must rise."""
    module = nn.MixedPool2d(2, learnable=True, num_channels=channels)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    start = torch.sigmoid(next(module.parameters())).detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        (module(X[2]) - torch.nn.functional.max_pool2d(X[2], 2)).square().mean().backward()
        optimizer.step()
    assert (torch.sigmoid(next(module.parameters())) > start + 0.05).all()


def test_learnable_alpha_stays_between_0_and_1():
    module = nn.MixedPool2d(2, learnable=True)
    with torch.no_grad():
        next(module.parameters()).fill_(100.0)
    assert_bitwise(module(X[2]).detach(), F.max_pool2d(X[2], 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_learnable_alpha_of_another_dtype(dtype):
    module = nn.MixedPool2d(2, learnable=True, num_channels=3).to(dtype)
    y = module(X[2].to(dtype))
    y.sum().backward()
    assert y.dtype == dtype
    assert next(module.parameters()).grad.dtype == dtype


def test_float32_parameters_beside_half_input():
    module = nn.MixedPool2d(2, learnable=True)
    y = module(X[2].half())
    y.sum().backward()
    assert y.dtype == torch.float16
    assert next(module.parameters()).grad.dtype == torch.float32


def test_state_dict():
    module = nn.MixedPool2d(2, learnable=True, num_channels=3)
    with torch.no_grad():
        next(module.parameters()).copy_(torch.tensor([-1.0, 0.5, 2.0]))
    other = nn.MixedPool2d(2, learnable=True, num_channels=3)
    assert not torch.equal(other(X[2]), module(X[2]))
    other.load_state_dict(module.state_dict())
    assert_bitwise(other(X[2]).detach(), module(X[2]).detach())
    with pytest.raises(RuntimeError):
        nn.MixedPool2d(2, learnable=True).load_state_dict(module.state_dict())


SHARED = {
    "mixed": (lambda: nn.AdaptiveMixedPool2d(2, learnable=True), "logit"),
    "soft": (lambda: nn.SoftPool2d(2, learnable=True), "beta"),
    "gem": (lambda: nn.GlobalGeMPool(), "p"),
    "gated": (lambda: nn.GatedPool2d(2, bias=True), "bias"),
}


@pytest.mark.parametrize("name", SHARED)
def test_state_dict_from_when_a_shared_parameter_had_no_axis(name):
    make, parameter = SHARED[name]
    model = torch.nn.Sequential(torch.nn.ReLU(), make())
    state = model.state_dict()
    assert state[f"1.{parameter}"].shape == (1,)
    before = {**state, f"1.{parameter}": torch.tensor(0.75)}
    model.load_state_dict(before)
    assert getattr(model[1], parameter).tolist() == [0.75]
    assert before[f"1.{parameter}"].shape == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_one_element_is_shared_by_all_channels(channels):
    x, one, none = X[2][:, :channels], torch.tensor([0.3]).requires_grad_(), torch.tensor(0.3).requires_grad_()
    calls = [
        lambda a: F.mixed_pool2d(x, 2, alpha=a),
        lambda a: F.adaptive_soft_pool2d(x, 2, beta=a),
        lambda a: F.spatial_pyramid_pool2d(x, mode="lse", r=a),
        lambda a: F.gated_pool2d(x, 2, weight=torch.ones(2, 2), bias=a),
    ]
    for call in calls:
        ours, theirs = call(one), call(none)
        assert_bitwise(ours, theirs)
        (gradient,) = torch.autograd.grad(ours.square().sum(), one)
        assert_bitwise(gradient, torch.autograd.grad(theirs.square().sum(), none)[0].reshape(1))


ALPHA = torch.tensor([0.1, 0.2, 0.9])
LEARNING = {
    "mixed": lambda: nn.MixedPool2d(2, alpha=0.3, learnable=True),
    "mixed of channels": lambda: nn.GlobalMixedPool(alpha=0.3, learnable=True, num_channels=3),
    "mixed from a tensor": lambda: nn.MixedPool2d(2, alpha=ALPHA, learnable=True),
    "pyramid": lambda: nn.SpatialPyramidPool2d(mode="mixed", alpha=0.3, learnable=True),
    "pyramid of gem": lambda: nn.SpatialPyramidPool2d(mode="gem", p=2.0, learnable=True, num_channels=3),
    "soft": lambda: nn.AdaptiveSoftPool2d(2, beta=2.0, learnable=True, num_channels=3),
    "gem": lambda: nn.GeMPool2d(2),
    "gated": lambda: nn.GatedPool2d(2, bias=True, num_channels=3),
    "tree": lambda: nn.TreePool2d(2),
    "attention": lambda: nn.AttentionPool2d(3, 4),
}


@pytest.mark.parametrize("name", LEARNING)
def test_reset_parameters_after_to_empty(name):
    make = LEARNING[name]
    torch.manual_seed(0)
    expected = make().state_dict()
    with torch.device("meta"):
        module = make()
    module.to("meta").to_empty(device="cpu")
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    torch.manual_seed(0)
    module.reset_parameters()
    assert list(expected) == list(module.state_dict()) and all(x.isfinite().all() for x in expected.values())
    for key, value in module.state_dict().items():
        assert_bitwise(value, expected[key], key)
    module(X[2])


STOCHASTIC = {
    "StochasticPool1d": (lambda: nn.StochasticPool1d(2), X[1]),
    "StochasticPool2d": (lambda: nn.StochasticPool2d(2), X[2]),
    "StochasticPool3d": (lambda: nn.StochasticPool3d(2), X[3]),
    "AdaptiveStochasticPool2d": (lambda: nn.AdaptiveStochasticPool2d(3), X[2]),
    "GlobalStochasticPool": (lambda: nn.GlobalStochasticPool(), X[2]),
    "SpatialPyramidPool2d": (lambda: nn.SpatialPyramidPool2d(mode="stochastic"), X[2]),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_follows_training(name):
    make, x = STOCHASTIC[name]
    module, x = make(), x.abs()
    assert module.training
    torch.manual_seed(0)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert_bitwise(module(x), first)
    module.eval()
    state = torch.get_rng_state()
    expectation = module(x)
    assert_bitwise(module(x), expectation)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(expectation, first)
    module.train()
    torch.manual_seed(0)
    assert_bitwise(module(x), first)


def test_stochastic_expectation_is_the_function():
    module = nn.StochasticPool2d(2, distribution="softmax", temperature=0.5).eval()
    expected = F.stochastic_pool2d(X[2], 2, training=False, distribution="softmax", temperature=0.5)
    assert_bitwise(module(X[2]), expected)


@pytest.mark.parametrize("mode", [name for name, pooling in POOLINGS.items() if pooling.parameter])
def test_a_pyramid_learns_the_parameter_of_its_mode(mode):
    name = POOLINGS[mode].arguments[0].name
    pool = nn.SpatialPyramidPool2d((2, 1), mode=mode, **{name: 0.4}, learnable=True, num_channels=3)
    value = torch.full((3,), 0.4, requires_grad=True)
    expected = F.spatial_pyramid_pool2d(X[2], (2, 1), mode=mode, **{name: value})
    assert_bitwise(pool(X[2]), expected)
    (learned,) = pool.parameters()
    expected.square().sum().backward()
    pool(X[2]).square().sum().backward()
    if mode == "mixed":  # through the sigmoid
        torch.testing.assert_close(learned.grad, value.grad * 0.4 * 0.6)
    else:
        assert_bitwise(learned.grad, value.grad)


def test_tensors_of_a_pyramid_move_with_it():
    pool = nn.SpatialPyramidPool2d(mode="lse", r=torch.tensor([1.0, 2.0, 3.0])).double()
    assert pool.r.dtype == torch.float64 and [*pool.state_dict()] == ["r"]
    assert pool(X[2].double()).dtype == torch.float64


def test_list_input_of_the_pyramid_module():
    module = nn.SpatialPyramidPool2d((2, 1))
    items = [X[2][0], X[2][1, :, :5]]
    assert_bitwise(module(items), torch.stack([module(item) for item in items]))


def test_modules_train_inside_a_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), nn.MixedPool2d(2, learnable=True), nn.StochasticPool2d(2),
        nn.SpatialPyramidPool2d((2, 1)), torch.nn.Linear(20, 2),
    )  # fmt: skip
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
