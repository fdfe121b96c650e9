"""torch.vmap and torch.func: what a loop, or an ordinary gradient, gives."""

from collections import Counter

import pytest
import torch
from comparison import assert_bitwise
from poolings import CALLS
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import fastpool
import fastpool.functional as F

X = torch.randn(4, 2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
LAST = X.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, X.shape[:2])

DIFFERENTIABLE = {
    **CALLS,
    "expectation of 3x3": lambda x: F.stochastic_pool2d(x, 3, training=False),
    "global mixed": F.global_mixed_pool,
    "list": lambda x: F.spatial_pyramid_pool2d([x[0], x[1, :, :5]], mode="max"),
    "list by soft": lambda x: F.spatial_pyramid_pool2d([x[0], x[1, :, :5]], (2, 1), mode="soft"),
}
POOLS = {**DIFFERENTIABLE, "max indices": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[1]}


def parameters(pools):
    return pytest.mark.parametrize("pool", [pytest.param(pool, id=name) for name, pool in pools.items()])


def loss(pool):
    return lambda x: (pool(x) * torch.arange(1.0, pool(x.detach()).numel() + 1).view_as(pool(x.detach()))).sum()


def gradient(pool, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(pool)(x), x)[0]


@parameters(POOLS)
@pytest.mark.parametrize("axis", [0, 1, 4])
def test_vmap_is_a_loop(pool, axis):
    x = X.movedim(0, axis)
    assert_bitwise(torch.vmap(pool, axis)(x), torch.stack([pool(part) for part in X]))


def test_vmap_of_channels_last_and_of_no_member():
    x = torch.stack([part.contiguous(memory_format=torch.channels_last) for part in X], -1)
    pool = POOLS["max"]
    assert_bitwise(torch.vmap(pool, -1)(x), torch.stack([pool(part) for part in X]))
    assert torch.vmap(pool)(X[:0]).shape == (0, *pool(X[0]).shape)


def test_vmap_over_alpha():
    alpha = torch.tensor([0.0, 0.25, 1.0])
    pooled = torch.vmap(lambda a: F.mixed_pool2d(X[0], 2, alpha=a))(alpha)
    assert_bitwise(pooled, torch.stack([F.mixed_pool2d(X[0], 2, alpha=a) for a in alpha]))


def test_gradient_of_a_batch_of_alpha():
    """Which says of itself that it requires none."""
    alpha = torch.tensor([0.0, 0.25, 1.0])
    loss = lambda a: F.mixed_pool2d(X[0], 2, alpha=a).pow(2).sum()  # noqa: E731
    ours = torch.func.grad(lambda alpha: torch.vmap(loss)(alpha).sum())(alpha)
    leaf = alpha.clone().requires_grad_()
    assert_bitwise(torch.autograd.grad(torch.vmap(loss)(leaf).sum(), leaf)[0], ours)
    for a, expected in zip(alpha, ours):
        assert_bitwise(torch.func.grad(loss)(a), expected)


def test_vmap_draws_as_its_randomness_says():
    """One seed for all members, or one for each: what a loop with these seeds draws."""
    ones = torch.ones(4, 2, 3, 8, 8)
    pool = lambda x: F.stochastic_pool2d(x, 2, return_indices=True)[1]  # noqa: E731
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(pool)(ones)
    same = torch.vmap(pool, randomness="same")(ones)
    assert (same == same[0]).all()
    assert (torch.vmap(pool, randomness="different")(ones) != same[0]).any()
    drawn = lambda x, seed: F.stochastic_pool2d(x, 2, seed=seed, return_indices=True)[1]  # noqa: E731
    seeds = torch.arange(4).view(4, 1)
    assert_bitwise(torch.vmap(drawn)(ones, seeds), torch.stack([drawn(x, int(s)) for x, s in zip(ones, seeds)]))


@parameters(DIFFERENTIABLE)
def test_gradient_through_vmap(pool):
    x = X.clone().requires_grad_()
    y = torch.vmap(pool)(x)
    (ours,) = torch.autograd.grad((y * torch.arange(1.0, y[0].numel() + 1).view_as(y[0])).sum(), x)
    assert_bitwise(ours, torch.stack([gradient(pool, part) for part in X]))


@parameters(DIFFERENTIABLE)
def test_func_grad(pool):
    assert_bitwise(torch.func.grad(loss(pool))(X[0]), gradient(pool, X[0]))


@parameters(DIFFERENTIABLE)
def test_gradients_of_samples(pool):
    assert_bitwise(torch.vmap(torch.func.grad(loss(pool)))(X), torch.stack([gradient(pool, part) for part in X]))


@parameters(DIFFERENTIABLE)
def test_func_jacrev(pool):
    x = X[0, :, :2, :4, :5]
    rows = torch.func.jacrev(pool)(x)
    expected = torch.autograd.functional.jacobian(pool, x)
    assert_bitwise(rows, expected)


@parameters(DIFFERENTIABLE)
def test_second_derivative(pool):
    """Of a cubic loss, so that it is not zero."""

    def slope(x):
        return torch.func.grad(lambda x: pool(x).pow(3).sum())(x).sum()

    leaf = X[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(pool(leaf).pow(3).sum(), leaf, create_graph=True)
    assert_bitwise(torch.func.grad(slope)(X[0]), torch.autograd.grad(first.sum(), leaf)[0])


def along(pool, x, v):
    """The derivative along v, by the gradient of a gradient."""
    return torch.autograd.functional.jvp(pool, x, v)[1]


@parameters(DIFFERENTIABLE)
def test_func_jvp(pool):
    v = X[1].flip(0)
    y, tangent = torch.func.jvp(pool, (X[0],), (v,))
    assert_bitwise(y, pool(X[0]))
    assert_bitwise(tangent, along(pool, X[0], v))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, in make_dual
@pytest.mark.parametrize("recorded", [True, False])
@parameters({name: DIFFERENTIABLE[name] for name in ("max", "mixed", "soft", "pyramid")})
def test_dual_tensors(pool, recorded):
    v = X[1]
    with torch.set_grad_enabled(recorded), forward_ad.dual_level():
        y = forward_ad.unpack_dual(pool(forward_ad.make_dual(X[0], v)))
        assert forward_ad.unpack_dual(pool(X[0])).tangent is None
    assert_bitwise(y.tangent, along(pool, X[0], v))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_forward_mode_is_torchs(name):
    functions = getattr(F, name), getattr(torch.nn.functional, name)
    ours, theirs = [torch.func.jvp(lambda x, f=f: f(x, 3, 2, 1), (X[0],), (X[1],)) for f in functions]
    assert_bitwise(ours[0], theirs[0])
    assert_bitwise(ours[1], theirs[1])


def test_forward_mode_while_compiling():
    """An operator in a graph would lose tangents: refused where the graph must be whole, else left to eager mode."""

    def slope(x):
        return torch.func.jvp(DIFFERENTIABLE["max"], (x,), (x,))[1]

    with pytest.raises(Exception, match="compile what jvp calls instead"):
        torch.compile(slope, fullgraph=True, backend="eager")(X[0])
    assert_bitwise(torch.compile(slope, backend="eager")(X[0]), slope(X[0]))
    compiled = torch.compile(DIFFERENTIABLE["max"], backend="eager")
    assert_bitwise(torch.func.jvp(compiled, (X[0],), (X[0],))[1], slope(X[0]))


def test_forward_mode_of_a_module():
    pool = fastpool.nn.MixedPool2d(2, learnable=True)
    parameters = dict(pool.named_parameters())
    tangents = {name: torch.ones_like(p) for name, p in parameters.items()}
    tangent = torch.func.jvp(lambda p: torch.func.functional_call(pool, p, X[0]), (parameters,), (tangents,))[1]
    alpha = torch.tensor(0.5, requires_grad=True)
    slope = torch.autograd.functional.jvp(lambda alpha: F.mixed_pool2d(X[0], 2, alpha=alpha), alpha, torch.tensor(0.25))
    assert_bitwise(tangent, slope[1])


SMALL = X[0, :, :2, :4, :3].double()


@parameters(DIFFERENTIABLE)
def test_hessian(pool):
    """Forward over reverse mode and over itself, in batches, against reverse over reverse in a loop."""

    def cubic(x):
        return pool(x).pow(3).sum()

    x = SMALL if pool in (DIFFERENTIABLE["list"], DIFFERENTIABLE["list by soft"]) else SMALL[:1]
    expected = torch.autograd.functional.hessian(cubic, x)
    torch.testing.assert_close(torch.func.hessian(cubic)(x), expected, rtol=1e-10, atol=1e-10)
    forward = torch.func.jacfwd(torch.func.jacfwd(cubic))(x)
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@parameters(DIFFERENTIABLE)
def test_batches_of_gradients(pool):
    """The other kind of batches, of torch.autograd."""
    x = SMALL.clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian
    expected = jacobian(pool, x)
    assert_bitwise(jacobian(pool, x, vectorize=True), expected)
    forward = jacobian(pool, x, vectorize=True, strategy="forward-mode")
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-10)
    y = pool(x)
    g = torch.stack([torch.ones_like(y), torch.arange(1.0, y.numel() + 1, dtype=y.dtype).view_as(y)]).requires_grad_()
    (ours,) = torch.autograd.grad(y, x, g, is_grads_batched=True, create_graph=True)
    each = torch.stack([torch.autograd.grad(y, x, member, create_graph=True)[0] for member in g])
    assert_bitwise(ours, each)
    seconds = (torch.autograd.grad(z.pow(2).sum(), (g, x), allow_unused=True, retain_graph=True) for z in (ours, each))
    for second, expected in zip(*seconds):
        torch.testing.assert_close(second, expected, rtol=1e-10, atol=1e-10)


@parameters({name: DIFFERENTIABLE[name] for name in ("max", "mixed", "soft", "pyramid mean_std", "list")})
def test_vectorized_hessian(pool):
    """A batch of gradients of gradients."""

    def cubic(x):
        return pool(x).pow(3).sum()

    hessian = torch.autograd.functional.hessian
    assert_bitwise(hessian(cubic, SMALL, vectorize=True), hessian(cubic, SMALL))


class Calls(TorchDispatchMode):
    """How often each operator was called."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastpool":
            self.counts[function.name().removeprefix("fastpool::")] += 1
        return function(*args, **(kwargs or {}))


DRAWS = {"stochastic", "softmax", "pyramid draw"}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_one_call_for_a_batch(name):
    """Except of draws, of which every member has the same for one seed."""
    pool = DIFFERENTIABLE[name]
    pairs = torch.stack([X, X.flip(0)], 2)
    with Calls() as once:
        torch.vmap(pool)(X)
    with Calls() as nested:
        ours = torch.vmap(torch.vmap(pool), 2)(pairs)
    with Calls() as backward:
        torch.vmap(torch.func.grad(lambda x: pool(x).sum()))(X)
    assert_bitwise(ours[1], torch.stack([pool(x) for x in X.flip(0)]))
    members = len(X) if name in DRAWS else 1
    assert [*once.counts.values()] == [members]
    assert [*nested.counts.values()] == [2 * members if name in DRAWS else 1]
    assert [*backward.counts.values()] == [members, 1]


LEARNED = {
    "mixed": lambda x, p: F.mixed_pool2d(x, 2, alpha=p),
    "soft": lambda x, p: F.soft_pool2d(x, 3, 2, 1, beta=p),
    "soft of 2x2": lambda x, p: F.soft_pool2d(x[..., :8], 2, beta=p),
    "adaptive lse": lambda x, p: F.adaptive_lse_pool2d(x, 2, r=p),
    "global gem": lambda x, p: F.global_gem_pool(x, p=p),
    "pyramid soft": lambda x, p: F.spatial_pyramid_pool2d(x, (2, 1), mode="soft", beta=p),
    "pyramid mixed": lambda x, p: F.spatial_pyramid_pool2d(x, (2, 1), mode="mixed", flatten="channel", alpha=p),
    "list": lambda x, p: F.spatial_pyramid_pool2d([x[0], x[1, :, :5]], (2, 1), mode="gem", p=p),
}
REGIONS = {
    "of channels": (torch.rand(4, 1, 3, 1, 1), LEARNED["mixed"]),
    "of places": (torch.rand(4, 1, 1, 4, 1), LEARNED["mixed"]),
    "of samples": (torch.rand(4, 2, 3, 1, 1), LEARNED["mixed"]),
    "gated": (torch.rand(4, 3, 3), lambda x, w: F.gated_pool2d(x, 3, 2, 1, weight=w)),
}
PARAMETERS = {
    **{
        f"{name} of {shape}": (p, pool)
        for name, pool in LEARNED.items()
        for shape, p in {"one": torch.linspace(0.5, 2, 4), "channels": torch.linspace(0.5, 2, 12).view(4, 3)}.items()
    },
    **REGIONS,
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("name", PARAMETERS)
def test_batches_of_parameters(name, in_dims, layout):
    values, pool = PARAMETERS[name]
    xs = X if layout == "contiguous" else LAST
    pairs = [[each[i if axis == 0 else 0] for each, axis in zip((xs, values), in_dims)] for i in range(len(X))]

    def cost(x, p):
        return pool(x, p).pow(2).sum()

    given = [each if axis == 0 else each[0] for each, axis in zip((xs, values), in_dims)]
    with Calls() as calls:
        ours = torch.vmap(pool, in_dims)(*given)
    expected = torch.stack([pool(*pair) for pair in pairs])
    if name.startswith(("global gem", "list")):
        # A batch has more channels, and these sums over bins have an order for few and one for many.
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    else:
        assert_bitwise(ours, expected)
    apart = in_dims[1] == 0 and name not in REGIONS and (layout == "channels_last" or name.startswith(("pyr", "list")))
    assert {*calls.counts.values()} == {len(X) if apart else 1}
    slopes = torch.vmap(torch.func.grad(cost, (0, 1)), in_dims)(*given)
    for slope, *expected in zip(slopes, *[torch.func.grad(cost, (0, 1))(*pair) for pair in pairs]):
        torch.testing.assert_close(slope, torch.stack(expected), rtol=1e-5, atol=1e-5)


@parameters({name: DIFFERENTIABLE[name] for name in ("max", "mixed", "soft", "gem", "expectation")})
def test_channels_last(pool):
    """What is saved is in the input's layout, and so are results."""
    x = X[0].contiguous(memory_format=torch.channels_last)
    ours = torch.func.grad(loss(pool))(x)
    assert_bitwise(ours, gradient(pool, x))
    assert ours.is_contiguous(memory_format=torch.channels_last)
    y, slopes = torch.vmap(pool)(LAST), torch.vmap(torch.func.grad(loss(pool)))(LAST)
    assert_bitwise(y, torch.stack([pool(x) for x in LAST]))
    assert_bitwise(slopes, torch.stack([gradient(pool, x) for x in LAST]))
    for each in (y, slopes):
        assert each[0].is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_samples_of_a_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        fastpool.nn.SoftPool2d(2, learnable=True),
        torch.nn.Conv2d(4, 4, 2),
        fastpool.nn.GlobalGeMPool(num_channels=4),
        torch.nn.Flatten(0),
    )
    parameters = dict(network.named_parameters())

    def cost(parameters, x):
        return torch.func.functional_call(network, parameters, x.unsqueeze(0)).pow(2).sum()

    samples = X[:, 0]
    with Calls() as calls:
        ours = torch.vmap(torch.func.grad(cost), (None, 0))(parameters, samples)
    assert set(calls.counts.values()) == {1, 2}
    assert calls.counts.pop("parameter_backward") == 2  # of two layers
    for i, x in enumerate(samples):
        for name, expected in torch.func.grad(cost)(parameters, x).items():
            torch.testing.assert_close(ours[name][i], expected, rtol=1e-4, atol=1e-5)
