"""First and second derivatives by finite differences in float64, and what autograd can ask of a pooling."""

import cases
import pytest
import torch
from comparison import assert_bitwise, assert_close
from poolings import BY_TABLE, MIN, TABLE, joined
from torch.autograd import gradcheck, gradgradcheck

import fastpool.functional as F

X = {
    1: torch.randn(2, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    2: torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    3: torch.randn(1, 2, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
}
ALPHA = torch.tensor([0.3, 0.8], dtype=torch.float64)


def of(name, *args, **options):
    return lambda rank: lambda x: getattr(F, f"{name}_pool{rank}d")(x, *args, **options)


def global_of(name, **options):
    return lambda rank: lambda x: getattr(F, f"global_{name}_pool")(x, **options)


# Linear in x once the taps are chosen.
LINEAR = {
    "max": of("max", 2),
    "max overlapping": of("max", 3, 2, 1),
    "max with indices": lambda rank: lambda x: getattr(F, f"max_pool{rank}d")(x, 2, return_indices=True)[0],
    "avg": of("avg", 3, 2, 1),
    "avg of valid": of("avg", 3, 2, 1, count_include_pad=False),
    "avg divisor": of("avg", 2, divisor_override=3),
    "avg dilated": of("avg", 2, 1, 1, dilation=2),
    "max_avg": of("max_avg", 3, 2, 1),
    "mixed": of("mixed", 3, 2, 1, alpha=0.3),
    "draw": of("stochastic", 3, 2, 1, seed=4),
    "softmax draw": of("stochastic", 2, seed=4, distribution="softmax"),
    "adaptive max": of("adaptive_max", 2),
    "adaptive avg": of("adaptive_avg", 2),
    "adaptive max_avg": of("adaptive_max_avg", 2),
    "adaptive mixed": of("adaptive_mixed", 2, alpha=0.3),
    "adaptive draw": of("adaptive_stochastic", 2, seed=4),
    "global max": global_of("max"),
    "global avg": global_of("avg"),
    "global max_avg": global_of("max_avg", keepdim=False),
    "global mixed": global_of("mixed", alpha=0.3),
    "global draw": global_of("stochastic", seed=4),
    "pyramid max": of("spatial_pyramid", (2, 1)),
    "pyramid avg by channel": of("spatial_pyramid", (2, 1), mode="avg", flatten="channel"),
    "pyramid max_avg unflattened": of("spatial_pyramid", (2, 1), mode="max_avg", flatten=None),
    "pyramid mixed floor": of("spatial_pyramid", (2, 1), mode="mixed", bins="floor", alpha=0.3),
    "pyramid draw": of("spatial_pyramid", (2, 1), mode="stochastic", seed=4),
}
CURVED = {
    "expectation": of("stochastic", 3, 2, 1, training=False),
    "softmax expectation": of("stochastic", 3, 2, 1, training=False, distribution="softmax", temperature=0.7),
    "adaptive expectation": of("adaptive_stochastic", 2, training=False),
    "global softmax expectation": global_of("stochastic", training=False, distribution="softmax"),
    "pyramid expectation": of("spatial_pyramid", (2, 1), mode="stochastic", training=False),
}


def of_row(pooling, form):
    return lambda rank: pooling.of_form(form, rank)


LINEAR |= {f"{form} min": of_row(MIN, form) for form in MIN.forms}
CURVED |= {f"{form} {pooling}": of_row(pooling, form) for pooling in BY_TABLE for form in pooling.forms}
CURVED |= {
    f"pyramid {pooling}": of("spatial_pyramid", (2, 1), mode=pooling.function, **pooling.options)
    for pooling in BY_TABLE
    if "adaptive" in pooling.forms
}
POOLS = {**LINEAR, **CURVED}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", POOLS)
def test_gradcheck(name, rank):
    assert gradcheck(POOLS[name](rank), X[rank].clone().requires_grad_())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", POOLS)
def test_gradgradcheck(name, rank):
    assert gradgradcheck(POOLS[name](rank), X[rank].clone().requires_grad_())


@pytest.mark.parametrize("name", CURVED)
def test_third_derivative(name):
    def gradient(x):
        return torch.autograd.grad(joined(CURVED[name](2)(x)).pow(2).sum(), x, create_graph=True)[0]

    assert gradgradcheck(gradient, X[2][:1].clone().requires_grad_())


MIXED_FORMS = {
    "sliding": lambda x, alpha: F.mixed_pool2d(x, 3, 2, 1, alpha=alpha),
    "adaptive": lambda x, alpha: F.adaptive_mixed_pool2d(x, 2, alpha=alpha),
    "global": lambda x, alpha: F.global_mixed_pool(x, alpha=alpha),
    "pyramid": lambda x, alpha: F.spatial_pyramid_pool2d(x, (2, 1), mode="mixed", alpha=alpha),
}
ALPHAS = {"scalar": ALPHA[0], "per channel": ALPHA, "per region": torch.rand(1, 2, 1, 1, dtype=torch.float64)}


@pytest.mark.parametrize("form", MIXED_FORMS)
@pytest.mark.parametrize("shared", ALPHAS)
def test_alpha(form, shared):
    if form == "pyramid" and shared == "per region":
        return
    inputs = X[2].clone().requires_grad_(), ALPHAS[shared].clone().requires_grad_()
    assert gradcheck(MIXED_FORMS[form], inputs)
    assert gradgradcheck(MIXED_FORMS[form], inputs)


LEARNED = [pooling for pooling in BY_TABLE if TABLE[pooling.function].parameter]


@pytest.mark.parametrize("form", ["sliding", "adaptive", "global", "pyramid"])
@pytest.mark.parametrize("shared", ["scalar", "per channel"])
@pytest.mark.parametrize("pooling", LEARNED, ids=str)
def test_parameter(pooling, shared, form):
    name = TABLE[pooling.function].arguments[0].name

    def pool(x, parameter):
        if form == "pyramid":
            return F.spatial_pyramid_pool2d(x, (2, 1), mode=pooling.function, **{name: parameter})
        return pooling.of_form(form, **{name: parameter})(x)

    values = {"scalar": torch.tensor(1.3), "per channel": torch.tensor([2.5, 0.7])}[shared].double()
    inputs = X[2].clone().requires_grad_(), values.requires_grad_()
    assert gradcheck(pool, inputs)
    assert gradgradcheck(pool, inputs)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [2, 17])
@pytest.mark.parametrize("pooling", LEARNED, ids=str)
def test_parameter_of_large_windows(pooling, channels, layout):
    """Whose sums are long."""
    x = torch.randn(1, channels, 18, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = cases.LAYOUTS[layout](x)
    name = TABLE[pooling.function].arguments[0].name
    values = torch.linspace(0.5, 2, channels, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda parameter: pooling.of_form("global", **{name: parameter})(x), values)


@pytest.mark.parametrize("mode", ["max", "avg", "max_avg", "mixed", "stochastic", "expectation"])
def test_list_of_sizes(mode):
    items = [X[2][0].clone().requires_grad_(), X[2][1, :, :3, :2].clone().requires_grad_()]
    options = {"stochastic": {"seed": 1}, "expectation": {"training": False}}.get(mode, {})
    mode = "stochastic" if options else mode

    def pool(*items):
        return F.spatial_pyramid_pool2d(list(items), (2, 1), mode=mode, **options)

    assert gradcheck(pool, items)
    assert gradgradcheck(pool, items)


@pytest.mark.parametrize("name", POOLS)
def test_double_backward_of_an_empty_batch(name):
    x = torch.empty(0, 2, 4, 5, requires_grad=True)
    outputs = POOLS[name](2)(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = [torch.ones_like(y).requires_grad_() for y in outputs]
    (first,) = torch.autograd.grad(outputs, x, gradients, create_graph=True)
    second = torch.autograd.grad(first.sum(), gradients)
    assert first.shape == x.shape
    assert [g.shape for g in second] == [y.shape for y in outputs]


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_double_backward_of_layouts(layout):
    """The adjoint of the gradient of max pooling is to read at the chosen places."""
    case = cases.sliding(f"double {layout}", (2, 3, 6, 7), 3, stride=2, padding=1, layout=layout)
    x = case.values(torch.float32).requires_grad_()
    y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    g = torch.ones_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    v = cases.LAYOUTS[layout](torch.randn(x.shape, generator=torch.Generator().manual_seed(3)))
    (second,) = torch.autograd.grad(first, g, v)
    assert_bitwise(second, v.flatten(2).gather(2, indices.flatten(2)).view(y.shape), layout)


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_double_backward_of_the_expectation_in_other_forms(distribution, dtype):
    """In the input's dtype and any layout, with elements and whole windows that have no weight."""
    x = cases.channels_last((5 * X[2]).to(dtype))
    x[:, :, 0, 0] = -torch.inf
    x[:, 1] = -x[:, 1].abs() if distribution == "relu" else -torch.inf

    def second(x):
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = F.stochastic_pool2d(x, 2, training=False, distribution=distribution)
        (first,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        return torch.autograd.grad(first, x, torch.ones_like(first))[0][:, : 2 if distribution == "relu" else 1]

    assert second(x).isfinite().all()
    torch.testing.assert_close(second(x), second(x.double()).to(dtype))


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
def test_second_derivative_of_the_expectation_stays_in_its_window(distribution):
    x = torch.tensor([[[1.0, 2, 3, 4, 5, 6, 7, torch.inf]]], requires_grad=True)
    y = F.stochastic_pool1d(x, 3, padding=((0, 1),), training=False, distribution=distribution)
    g = torch.ones_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    second = torch.autograd.grad(first, (x, g), torch.arange(8.0).view(x.shape))
    of_x, of_g = (gradient.isfinite().flatten().tolist() for gradient in second)
    # What has no weight beside an infinite element, by softmax a finite one, gets 0.
    assert of_x == [True] * (6 + (distribution == "softmax")) + [False] * (2 - (distribution == "softmax"))
    assert of_g == [True, True, False]


@pytest.mark.parametrize("distribution", ["relu", "softmax"])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_second_derivative_of_the_expectation_at_any_scale(distribution, scale):
    def product(scale, temperature):
        x = scale * torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64)
        x.requires_grad_()
        options = {"training": False, "distribution": distribution, "temperature": temperature}
        y = F.stochastic_pool1d(x, 3, **options)
        g = torch.ones_like(y).requires_grad_()
        (first,) = torch.autograd.grad(y, x, g, create_graph=True)
        of_x, of_g = torch.autograd.grad(first, (x, g), torch.tensor([[[3.0, -1.0, 2.0]]], dtype=torch.float64))
        return scale * of_x, of_g

    torch.testing.assert_close(product(scale, scale), product(1.0, 1.0))


def test_second_derivative_of_the_expectation_without_weight():
    x = torch.tensor([[[-1.0, -2.0, 3.0, 1.0]]], requires_grad=True)
    y = F.stochastic_pool1d(x, 2, training=False)
    g = torch.ones_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    of_x, of_g = torch.autograd.grad(first.sum(), (x, g))
    assert of_x.isfinite().all()
    torch.testing.assert_close(of_g, first.detach().view(1, 1, 2, 2).sum(-1))
    assert of_g[0, 0, 0] == 0


def test_second_derivative_of_the_expectation_keeps_nan():
    x = torch.tensor([[[1.0, torch.nan]]], requires_grad=True)
    y = F.stochastic_pool1d(x, 2, training=False)
    (first,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    assert torch.autograd.grad(first.sum(), x)[0].isnan().all()


def test_second_derivative_of_mixed_in_half_precision():
    """The terms exceed float16, their sum does not."""
    x = torch.tensor([[[1.0, 2.0]]], dtype=torch.float16, requires_grad=True)
    y = F.mixed_pool1d(x, 2, alpha=-1.0)
    g = torch.ones_like(y).requires_grad_()
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    (second,) = torch.autograd.grad(first, g, torch.full_like(first, 60000.0))
    assert second.item() == 60000


def test_indices_take_no_gradient():
    x = X[2].clone().requires_grad_()
    assert not F.max_pool2d(x, 2, return_indices=True)[1].requires_grad
    assert not F.stochastic_pool2d(x, 2, seed=1, return_indices=True)[1].requires_grad


def test_no_gradient_wanted():
    x = X[2].clone()
    for pool in POOLS.values():
        outputs = pool(2)(x)
        assert not any(y.requires_grad for y in (outputs if isinstance(outputs, tuple) else (outputs,)))
    with torch.no_grad():
        assert not F.max_pool2d(x.requires_grad_(), 2).requires_grad
    with torch.inference_mode():
        assert F.mixed_pool2d(x, 2).is_inference()


def test_backward_twice_and_accumulation():
    x = X[2].clone().requires_grad_()
    y = F.mixed_pool2d(x, 2, alpha=0.3)
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert_close(x.grad, (2 * first).numpy(), 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_a_changed_saved_tensor_is_noticed():
    x = X[2].clone().requires_grad_()
    alpha = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    mixed = F.mixed_pool2d(x, 2, alpha=alpha)
    with torch.no_grad():
        alpha.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        mixed.sum().backward()


def test_only_what_is_needed_gets_a_gradient():
    x, alpha = X[2].clone(), ALPHA.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.mixed_pool2d(x, 2, alpha=alpha).sum(), alpha)
    assert gradient.shape == alpha.shape
    (gradient,) = torch.autograd.grad(F.mixed_pool2d(x.requires_grad_(), 2, alpha=alpha.detach()).sum(), x)
    assert gradient.shape == x.shape


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, in make_dual
@pytest.mark.parametrize("name", POOLS)
def test_forward_mode(name):
    x = X[1][:1].clone().requires_grad_()
    assert gradcheck(POOLS[name](1), x, check_backward_ad=False, check_forward_ad=True, fast_mode=True)


# Of each formula of a gradient one, and one of each form.
OVER_REVERSE = ["max overlapping", "avg of valid", "max_avg", "mixed", "draw", "global mixed", "adaptive max_avg"]
OVER_REVERSE += ["expectation", "sliding soft", "sliding gem", "sliding mean_std", "pyramid lse", "pyramid mean_std"]
FORWARD_OVER_REVERSE = {
    "check_fwd_over_rev": True,
    "check_rev_over_rev": False,
    "check_undefined_grad": False,
    "fast_mode": True,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("name", OVER_REVERSE)
def test_forward_over_reverse(name):
    assert gradgradcheck(POOLS[name](1), X[1][:1].clone().requires_grad_(), **FORWARD_OVER_REVERSE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("name", ["mixed sliding", "mixed pyramid", "gated", "tree", *map(str, LEARNED)])
def test_forward_mode_of_parameters(name):
    pools = {
        "mixed sliding": (MIXED_FORMS["sliding"], ALPHAS["per region"]),
        "mixed pyramid": (MIXED_FORMS["pyramid"], ALPHA),
        "gated": (lambda x, w: F.gated_pool2d(x, 2, weight=w), torch.rand(2, 2, dtype=torch.float64)),
        "tree": (
            lambda x, w: F.tree_pool2d(x, 2, leaves=w[:2], gates=w[2:]),
            torch.rand(3, 2, 2, 2, dtype=torch.float64),
        ),
    }
    for pooling in LEARNED:
        argument = TABLE[pooling.function].arguments[0].name
        pools[str(pooling)] = (
            lambda x, p, pooling=pooling, argument=argument: pooling.of_form("sliding", **{argument: p})(x),
            torch.tensor([2.5, 0.7], dtype=torch.float64),
        )
    pool, parameter = pools[name]
    inputs = X[2][:1].clone().requires_grad_(), parameter.clone().requires_grad_()
    assert gradcheck(pool, inputs, check_backward_ad=False, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(pool, inputs, **FORWARD_OVER_REVERSE)
