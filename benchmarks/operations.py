"""The table of measured operations: a new operation costs one row of OPERATIONS."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from . import compositions as torch_ops
from .layers import Layer

ALPHA = 0.3
EVERYWHERE = ("sliding", "adaptive", "global", "pyramid")
MAPS = ("sliding", "adaptive", "global")
BOTH = ("forward", "forward+backward")


def fastpool(kind: str, **options):
    """Builder of fastpool's function of this kind over a layer's windows."""

    def build(layer: Layer):
        functional = importlib.import_module("fastpool.functional")
        if layer.windowing == "pyramid":
            pool = getattr(functional, f"spatial_pyramid_pool{layer.rank}d")
            return partial(pool, mode=kind, **layer.arguments, **options)
        name = {"sliding": f"{kind}_pool{layer.rank}d", "adaptive": f"adaptive_{kind}_pool{layer.rank}d"}
        pool = getattr(functional, name.get(layer.windowing, f"global_{kind}_pool"))
        return partial(pool, **layer.arguments, **options)

    return build


def sppf(layer: Layer):
    return partial(importlib.import_module("fastpool.functional").sppf2d, **layer.arguments)


def parameterised(build, *names):
    """Tensor parameters come after x in a call; fastpool takes its own by keyword."""

    def build_call(layer):
        pool = build(layer)
        return lambda x, *parameters: pool(x, **dict(zip(names, parameters, strict=True)))

    return build_call


def compiled(build):
    return lambda layer: compile_for(build(layer), torch.get_num_threads())


def compile_for(function, threads: int):
    return torch.compile(lambda *inputs: function(*inputs), dynamic=False, options={"cpp.threads": threads})


def alpha_per_channel(x):
    return (torch.full((x.shape[1],), ALPHA, dtype=x.dtype, device=x.device),)


@dataclass(frozen=True)
class Operation:
    """`fastpool` and each of `rivals` build a function of (x, *parameters) for a layer; the first rival is the oracle.
    `operators` are the torch.ops.fastpool names that the row runs."""

    fastpool: Callable
    rivals: dict[str, Callable]
    operators: tuple[str, ...]
    check: str = "close"
    taps: bool = False
    windowings: tuple[str, ...] = EVERYWHERE
    passes: tuple[str, ...] = BOTH
    parameters: Callable = lambda x: ()
    compiles: bool = True
    exported: str | None = None


def stochastic(distribution: str) -> dict[str, Callable]:
    return {
        "unfold": torch_ops.stochastic_unfold(distribution),
        "slices": torch_ops.stochastic_slices(distribution),
    }


def expectation(distribution: str):
    return fastpool("stochastic", training=False, distribution=distribution)


def power(p: float, *operators: str) -> Operation:
    rivals = {"torch": torch_ops.power_mean(p)}
    return Operation(fastpool("lp", norm_type=p), rivals, operators, windowings=("sliding",))


OPERATIONS: dict[str, Operation] = {
    "max": Operation(
        fastpool("max"),
        {
            "torch": torch_ops.maximum,
            "amax": torch_ops.reduction("amax"),
            "axes": torch_ops.maximum_along_axes,
        },
        ("max_pool", "select_backward"),
        check="equal",
        taps=True,
        exported="Max",
    ),
    "max_indices": Operation(
        fastpool("max", return_indices=True),
        {"torch": torch_ops.maximum_with_indices},
        ("max_pool", "tap_indices", "select_backward"),
        check="equal",
        taps=True,
        windowings=("sliding", "adaptive"),
    ),
    "max_double_backward": Operation(
        torch_ops.differentiated(fastpool("max")),
        {"torch": torch_ops.differentiated(torch_ops.maximum)},
        ("max_pool", "select_backward", "select"),
        taps=True,
        windowings=("sliding",),
        passes=("forward+backward",),
        compiles=False,
    ),
    "avg": Operation(
        fastpool("avg"),
        {
            "torch": torch_ops.average,
            "mean": torch_ops.reduction("mean"),
            "axes": torch_ops.average_along_axes,
        },
        ("avg_pool", "avg_pool_backward"),
        exported="Average",
    ),
    "max_avg": Operation(
        fastpool("max_avg"),
        {"torch": torch_ops.maximum_and_average},
        ("max_avg_pool", "max_avg_pool_backward"),
        taps=True,
    ),
    "mixed": Operation(
        fastpool("mixed", alpha=ALPHA),
        {"torch": torch_ops.mixed(ALPHA)},
        ("mixed_pool", "mixed_pool_backward"),
        taps=True,
    ),
    "mixed_per_channel": Operation(
        parameterised(fastpool("mixed"), "alpha"),
        {"torch": torch_ops.mixed_per_channel},
        ("mixed_pool", "mixed_pool_backward", "parameter_backward"),
        taps=True,
        windowings=MAPS,
        parameters=alpha_per_channel,
    ),
    "stochastic": Operation(
        fastpool("stochastic"),
        stochastic("relu"),
        ("stochastic_relu_pool", "select_backward"),
        check="drawn-relu",
        taps=True,
    ),
    "stochastic_softmax": Operation(
        fastpool("stochastic", distribution="softmax"),
        stochastic("softmax"),
        ("stochastic_softmax_pool", "select_backward"),
        check="drawn-softmax",
        taps=True,
    ),
    "stochastic_compiled": Operation(
        compiled(fastpool("stochastic")),
        stochastic("relu"),
        ("stochastic_relu_pool", "select_backward", "draw_seed"),
        check="drawn-relu",
        taps=True,
        windowings=("sliding",),
    ),
    "expectation_relu": Operation(
        expectation("relu"),
        {"torch": torch_ops.expectation_relu},
        ("expectation_relu_pool", "expectation_relu_pool_backward"),
    ),
    "min": Operation(
        fastpool("min"),
        {"torch": torch_ops.minimum, "axes": torch_ops.minimum_along_axes},
        ("min_pool", "select_backward"),
        check="equal",
        taps=True,
    ),
    "soft": Operation(
        fastpool("soft"),
        {"torch": torch_ops.expectation_softmax},
        ("soft_pool", "soft_pool_backward"),
    ),
    "lse": Operation(fastpool("lse"), {"torch": torch_ops.log_mean_exp}, ("lse_pool", "lse_pool_backward")),
    "gem": Operation(fastpool("gem"), {"torch": torch_ops.generalised_mean}, ("gem_pool", "gem_pool_backward")),
    "lp1": power(1.0, "lp1_pool", "lp1_pool_backward"),
    "lp2": power(2.0, "lp2_pool", "lp2_pool_backward"),
    "lp4": power(4.0, "lp_pool", "lp_pool_backward"),  # of an odd power torch has no root where sums are negative
    "mean_std": Operation(
        fastpool("mean_std"),
        {"torch": torch_ops.mean_and_std},
        ("mean_std_pool", "mean_std_pool_backward"),
        windowings=MAPS,
    ),
    "sppf": Operation(
        sppf,
        {"torch": torch_ops.sppf, "axes": torch_ops.sppf_along_axes},
        ("max_pool", "select_backward"),
        check="equal",
        taps=True,
        windowings=("sppf",),
    ),
}

# What a reader asks for first.
FIRST = ("max", "avg", "mixed", "stochastic")

# Layer to operations: what fits into three minutes on two cores.
QUICK = {
    "yardstick": ("max", "avg", "max_avg", "mixed", "stochastic", "expectation_relu"),
    "yardstick-pyramid": ("max",),
    "yardstick-global": ("max", "avg"),
    "tiny": ("max", "mixed", "stochastic"),
}
