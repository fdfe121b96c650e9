"""torch.nn.functional is the second oracle: same arguments, same values, indices, gradients and refusals."""

import inspect
import random

import numpy as np
import pytest
import reference
import torch
from comparison import assert_bitwise, assert_close

import fastpool.functional as F
import fastpool.nn

SWEEPS = 12
PER_SWEEP = 25
NAN_SHARE = 0.08


def geometry(rng, rank, dilated):
    """A random geometry; about a third of them are ones that torch refuses."""

    def draw(low, high):
        return rng.randint(low, high) if rng.random() < 0.4 else tuple(rng.randint(low, high) for _ in range(rank))

    kernel = draw(1, 4)
    kernels = reference.per_axis(kernel, rank)
    legal = tuple(rng.randint(0, k // 2) for k in kernels)
    padding = legal if rng.random() < 0.85 else tuple(p + 1 for p in legal)
    arguments = {
        "kernel_size": kernel if rng.random() < 0.97 else 0,
        "stride": draw(1, 4) if rng.random() < 0.8 else None,
        "padding": padding if rng.random() < 0.95 else -1,
        "ceil_mode": rng.random() < 0.5,
    }
    if dilated:
        arguments["dilation"] = draw(1, 3) if rng.random() < 0.5 else 1
    return tuple(rng.randint(1, 12) for _ in range(rank)), arguments


def positional(arguments, names):
    return [arguments[name] for name in names]


def exceeds_torch_padding(arguments, rank):
    """Allowed here only: padding of up to half the effective kernel where torch takes half the kernel."""
    kernel, padding = reference.per_axis(arguments["kernel_size"], rank), reference.per_axis(arguments["padding"], rank)
    return any(k < 2 * p for k, p in zip(kernel, padding, strict=True))


def whole_numbers(rng, shape, nan_share=0.0):
    values = np.array([rng.randint(-3, 3) for _ in range(int(np.prod(shape)))], dtype=float)
    holes = np.array([rng.random() < nan_share for _ in range(values.size)], dtype=bool)
    return torch.from_numpy(np.where(holes, np.nan, values).reshape(shape))


def both(ours, theirs):
    """-> our result and torch's, or None when both refuse"""
    try:
        expected = theirs()
    except (RuntimeError, ValueError, TypeError, IndexError):
        with pytest.raises((ValueError, TypeError)):
            ours()
        return None
    return ours(), expected


@pytest.mark.parametrize("sweep", range(SWEEPS))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool(rank, sweep):
    rng = random.Random(f"max {rank} {sweep}")
    compared = 0
    for _ in range(PER_SWEEP):
        size, arguments = geometry(rng, rank, dilated=True)
        shape = (rng.randint(1, 2), rng.randint(1, 3), *size)
        x = whole_numbers(rng, shape if rng.random() < 0.8 else shape[1:], NAN_SHARE)
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        values = positional(arguments, names)
        what = f"{tuple(x.shape)} {arguments}"
        try:
            windows = reference.sliding_windows(size, *values)
        except (ValueError, ZeroDivisionError):
            windows = None
        if windows is None and arguments["kernel_size"] != 0 and arguments["padding"] != -1:
            # torch gives -inf for a window without an element, which is a ValueError here
            with pytest.raises(ValueError, match="."):
                getattr(F, f"max_pool{rank}d")(x, *values)
            continue
        if arguments["padding"] != -1 and exceeds_torch_padding(arguments, rank):
            continue
        result = both(
            lambda v=values, x=x: getattr(F, f"max_pool{rank}d")(x, *v, True),
            lambda v=values, x=x: getattr(torch.nn.functional, f"max_pool{rank}d")(x, *v, True),
        )
        if result:
            (actual, indices), (expected, where) = result
            compared += 1
            assert_bitwise(actual, expected, what)
            assert_bitwise(indices, where, f"indices {what}")
    assert compared > PER_SWEEP // 4


@pytest.mark.parametrize("sweep", range(SWEEPS))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_avg_pool(rank, sweep):
    rng = random.Random(f"avg {rank} {sweep}")
    compared = 0
    names = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"] + ["divisor_override"] * (rank > 1)
    for _ in range(PER_SWEEP):
        size, arguments = geometry(rng, rank, dilated=False)
        arguments["count_include_pad"] = rng.random() < 0.5
        arguments["divisor_override"] = rng.choice([None, None, 1, 5, -3, 0])
        x = whole_numbers(rng, (2, 2, *size))
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        values = positional(arguments, names)
        result = both(
            lambda v=values, x=leaf: getattr(F, f"avg_pool{rank}d")(x, *v),
            lambda v=values, x=other: getattr(torch.nn.functional, f"avg_pool{rank}d")(x, *v),
        )
        if result:
            compared += 1
            what = f"{tuple(x.shape)} {arguments}"
            assert_close(result[0], result[1].detach().numpy(), result[1], what)
            g = whole_numbers(rng, result[0].shape)
            gradients = [torch.autograd.grad(y, x, g)[0] for y, x in zip(result, (leaf, other), strict=True)]
            assert_close(gradients[0], gradients[1].numpy(), gradients[1], f"gradient {what}")
    assert compared > PER_SWEEP // 4


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool_gradient(rank):
    rng = random.Random(f"gradient {rank}")
    compared = 0
    while compared < 40:
        size, arguments = geometry(rng, rank, dilated=True)
        values = positional(arguments, ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))
        x = whole_numbers(rng, (2, 2, *size), NAN_SHARE)
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        try:
            expected, _ = getattr(torch.nn.functional, f"max_pool{rank}d")(other, *values, True)
            actual = getattr(F, f"max_pool{rank}d")(leaf, *values)
        except (RuntimeError, ValueError, TypeError):
            continue
        compared += 1
        g = whole_numbers(rng, expected.shape)
        gradients = [torch.autograd.grad(y, x, g)[0] for y, x in ((actual, leaf), (expected, other))]
        assert_bitwise(gradients[0], gradients[1], f"{size} {arguments}")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_adaptive(rank, kind):
    rng = random.Random(f"adaptive {kind} {rank}")
    ours = getattr(F, f"adaptive_{kind}_pool{rank}d")
    theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool{rank}d")
    for _ in range(60):
        size = tuple(rng.randint(1, 12) for _ in range(rank))
        x = whole_numbers(rng, (2, 2, *size) if rng.random() < 0.8 else (2, *size), NAN_SHARE if kind == "max" else 0.0)
        output = tuple(rng.choice([None, 1, 2, 3, 5]) if rank > 1 else rng.randint(1, 6) for _ in range(rank))
        output = output if rng.random() < 0.7 else rng.randint(1, 5)
        leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        what = f"{tuple(x.shape)} -> {output}"
        if kind == "max":
            (actual, indices), (expected, where) = (f(t, output, True) for f, t in ((ours, leaf), (theirs, other)))
            assert_bitwise(actual, expected, what)
            assert_bitwise(indices, where, f"indices {what}")
        else:
            actual, expected = ours(leaf, output), theirs(other, output)
            assert_close(actual, expected.detach().numpy(), expected, what)
        g = whole_numbers(rng, expected.shape)
        gradients = [torch.autograd.grad(y, x, g)[0] for y, x in ((actual, leaf), (expected, other))]
        assert_close(gradients[0], gradients[1].numpy(), gradients[1], f"gradient {what}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_dtypes_and_layouts(dtype, layout):
    x = (
        torch.randn(2, 20, 15, 17, generator=torch.Generator().manual_seed(0))
        .to(dtype)
        .contiguous(memory_format=layout)
    )
    actual, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    expected, where = torch.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert_bitwise(actual, expected)
    assert_bitwise(indices, where)
    assert actual.stride() == expected.stride()
    average, theirs = F.avg_pool2d(x, 3, 2, 1), torch.nn.functional.avg_pool2d(x, 3, 2, 1)
    assert_close(average, torch.nn.functional.avg_pool2d(x.double(), 3, 2, 1).numpy(), theirs)
    assert average.dtype == theirs.dtype
    assert average.stride() == theirs.stride()


def test_without_a_batch_axis_results_are_contiguous():
    x = torch.randn(15, 17, 20).permute(2, 0, 1)
    for actual, expected in zip(
        F.max_pool2d(x, 3, 2, 1, return_indices=True),
        torch.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True),
        strict=True,
    ):
        assert_bitwise(actual, expected)
        assert actual.is_contiguous() and expected.is_contiguous()
    assert F.adaptive_max_avg_pool2d(x, 2)[1].is_contiguous()


@pytest.mark.filterwarnings("ignore:max_unpooling")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_indices_feed_max_unpool(rank):
    size = (9, 8, 7)[:rank]
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    unpool = getattr(torch.nn.functional, f"max_unpool{rank}d")
    outputs = getattr(F, f"max_pool{rank}d")(x, 2, return_indices=True)
    expected = getattr(torch.nn.functional, f"max_pool{rank}d")(x, 2, return_indices=True)
    assert_bitwise(unpool(*outputs, 2, output_size=size), unpool(*expected, 2, output_size=size))
    drawn = getattr(F, f"stochastic_pool{rank}d")(x, 2, seed=1, return_indices=True)
    restored = unpool(*drawn, 2, output_size=size)
    taken = restored.flatten(2).gather(2, drawn[1].flatten(2))
    assert_bitwise(taken.view(drawn[0].shape), drawn[0])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "avg", "adaptive_max", "adaptive_avg"])
def test_signatures_begin_as_torch(kind, rank):
    name = f"{kind}_pool{rank}d"
    torch_names = {
        "max": ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"],
        "avg": ["input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"],
        "adaptive_max": ["input", "output_size", "return_indices"],
        "adaptive_avg": ["input", "output_size"],
    }[kind]
    parameters = inspect.signature(getattr(F, name)).parameters
    assert list(parameters)[: len(torch_names)] == torch_names
    layer = "".join(part.capitalize() for part in kind.split("_")) + f"Pool{rank}d"
    theirs = list(inspect.signature(getattr(torch.nn, layer).__init__).parameters)
    assert list(inspect.signature(getattr(fastpool.nn, layer).__init__).parameters)[: len(theirs)] == theirs


@pytest.mark.parametrize("shape", [(4,), (1, 1, 1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_same_number_of_axes_refused(shape, rank):
    for kind in ("max_pool", "avg_pool", "adaptive_max_pool"):
        name = f"{kind}{rank}d"
        ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
        assert both(lambda f=ours: f(torch.ones(shape), 1), lambda f=theirs: f(torch.ones(shape), 1)) is None, name


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_ways_to_write_arguments(kind, rank):
    x = torch.randn(1, 2, *(6,) * rank)
    ours, theirs = getattr(F, f"{kind}_pool{rank}d"), getattr(torch.nn.functional, f"{kind}_pool{rank}d")
    accepted = [[2] * rank], [2, []], [[2] * rank, [1] * rank, [1] * rank], [(2,)], [2, (1,)]
    refused = [(2,) * 4], [2.0], [True], ["2"], [2, 1.5]
    compared = 0
    for arguments in (*accepted, *refused):
        result = both(lambda a=arguments: ours(x, *a), lambda a=arguments: theirs(x, *a))
        if result:
            compared += 1
            assert_close(result[0], result[1].double().numpy(), result[1], f"{kind} {arguments}")
    assert compared == len(accepted)
