"""Random calls with one argument made invalid: each must be refused by ValueError or TypeError that names it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import reference
import torch
from fuzz_trials import FILTERS

import fastpool.functional as F
from fastpool._kinds import OPTIONS, POOLINGS

FAR = (2**63, 2**70, -(2**70))


@dataclass(frozen=True)
class Refusal:
    """One way to spoil a call."""

    argument: str  # whose name must be in the message
    spoil: Callable  # (choose, trial) -> arguments to replace
    applies: Callable = lambda trial: True


def value(argument, *values, applies=lambda trial: True):
    return Refusal(argument, lambda choose, trial: {argument: choose.choice(values)}, applies)


def is_form(*forms):
    return lambda trial: trial.form in forms


def is_kind(*kinds):
    return lambda trial: trial.kind in kinds


def draws(trial):
    return trial.kind == "stochastic" and trial.options.get("training", True)


def sizes(argument, form="sliding"):
    """What no argument of one int per axis may be."""
    values = [0, -1, 2.5, 2.0, "two", True, np.array([2, 2]), torch.ones(2), b"2", (1.5,), {}, *FAR]
    values += [(2, None)] if form == "sliding" else []
    values += [None] if argument != "stride" else []

    def spoil(choose, trial):
        way = choose.random()
        if way < 0.25:
            return {argument: (2,) * choose.choice([n for n in (2, 3, 4, 5) if n != trial.case.rank])}
        if way < 0.5:
            bad = [2] * trial.case.rank
            bad[choose.randrange(len(bad))] = choose.choice([0, -1, 1.5, "1", -(2**63), 2**64])
            return {argument: tuple(bad)}
        return {argument: choose.choice(values)}

    return Refusal(argument, spoil, is_form(form))


def too_much_padding(choose, trial):
    geometry, rank = trial.case.geometry, trial.case.rank
    kernel = reference.per_axis(geometry["kernel_size"], rank)
    dilation = reference.per_axis(geometry.get("dilation", 1), rank)
    bad = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    axis = choose.randrange(rank)
    half = bad[axis] // 2
    pads = [(0, 0)] * rank
    pads[axis] = choose.choice([(half + 1, 0), (0, half + 1), (half + 1, half + 1), (-1, 0), (0, -1)])
    return {"padding": tuple(pads)}


def too_large_kernel(choose, trial):
    spatial = trial.case.spatial
    kernel = [1] * len(spatial)
    axis = choose.randrange(len(spatial))
    kernel[axis] = spatial[axis] + choose.choice([1, 5, 1000])
    return {"kernel_size": tuple(kernel), "stride": 1, "padding": 0, "dilation": 1, "ceil_mode": False}


def wrong_input(choose, trial):
    """In place of the input, or of an element of a list."""
    good = trial.inputs()
    x = good[0]
    bad = [
        x.to(choose.choice([torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64])),
        x.detach().float().nan_to_num(1.0).to_sparse(),
        x.detach().resolve_neg().float().numpy(),
        None,
        3,
        "input",
        x[None, None],
        x.flatten(),
        x.flatten()[:0].reshape((0,) * x.ndim) if trial.form != "global" else x[:, :0],
        x[..., :0],
    ]
    found = choose.choice(bad)
    if trial.form == "global" and isinstance(found, torch.Tensor) and found.ndim == x.ndim + 2:
        found = x.flatten()  # any number of axes from three on will do
    if not trial.sizes:
        return {"input": found}
    return {"input": choose.choice([[found, *good], [*good, found], [], [*good, good[0].to(torch.complex128)]])}


def channels_of(trial):
    shape = trial.sizes[0] if trial.sizes else trial.case.shape
    return shape[0] if trial.sizes or not trial.case.batched else shape[1]


def wrong_number(pooling, argument):
    """Of a pooling of the table."""
    forbidden = {"any": (), "positive": (0, 0.0, -1.5), "nonzero": (0, 0.0), "not negative": (-1, -0.5)}
    values = [*forbidden[argument.allowed], float("nan"), 10**400, "half", None, [0.5], True, np.array([0.1, 0.2])]
    values += [] if argument.name == "norm_type" else [float("inf"), -float("inf")]
    values += [] if "Tensor" in argument.annotation else [torch.tensor(1.0)]
    return value(argument.name, *values, applies=is_kind(pooling.name))


def wrong_tensor(pooling, argument):
    is_filter = argument.annotation.startswith("Tensor")

    def spoil(choose, trial):
        channels, dtype = channels_of(trial), trial.dtype
        other = torch.float16 if dtype != torch.float16 else torch.float64
        bad = [
            torch.ones((channels + 1, *[1] * 7) if is_filter else channels + 1, dtype=dtype),
            torch.ones((1,) * 9, dtype=dtype),
            torch.tensor(0.5, dtype=other),
            torch.tensor(1),
            torch.tensor(0.5, dtype=dtype, device="meta"),
            torch.ones(channels, dtype=dtype).to_sparse(),
        ]
        return {argument.name: choose.choice(bad + ([0.5, "half", [0.5], np.ones(2)] if is_filter else []))}

    return Refusal(argument.name, spoil, is_kind(pooling.name))


def wrong_levels(choose, trial):
    rank = trial.case.rank if not trial.sizes else len(trial.sizes[0]) - 1
    return {
        "levels": choose.choice(
            [
                (),
                3,
                0,
                (0,),
                (2, -1),
                (2.5,),
                ("a",),
                "ab",
                None,
                ((1,) * (rank + 1),),
                ((0,) * rank,),
                (True,),
                (None,),
            ]
            + [torch.tensor([2, 1]), (2**70,), {}]
        )
    }


def too_many_floor_bins(choose, trial):
    lengths = [min(axis) for axis in zip(*(size[1:] for size in trial.sizes))] if trial.sizes else trial.case.spatial
    return {"levels": (1, max(lengths) + 1), "bins": "floor"}


# An argument that only others take.
OTHERS = {
    kind: next(name for names in OPTIONS.values() for name in names if name not in own) for kind, own in OPTIONS.items()
}

REFUSALS = [
    Refusal("input", wrong_input),
    Refusal("input", wrong_input),
    Refusal("nonsense", lambda choose, trial: {"nonsense": 1}),
    sizes("kernel_size"),
    sizes("stride"),
    sizes("dilation"),
    Refusal("padding", too_much_padding, is_form("sliding")),
    value(
        "padding",
        *(
            "valid",
            "SAME",
            None,
            1.5,
            (1.5,),
            -1,
            -(2**70),
            2**70,
            ("same",),
            ((1, (0, 1)),),
            ((1, 2, 3),),
            (1,) * 5,
            [[]],
        ),
        applies=is_form("sliding"),
    ),
    Refusal("kernel_size", too_large_kernel, is_form("sliding")),
    value("ceil_mode", 1, 0, None, "yes", 1.0, applies=is_form("sliding")),
    Refusal(
        "ceil_mode", lambda choose, trial: {"padding": "same", "dilation": 1, "ceil_mode": True}, is_form("sliding")
    ),
    sizes("output_size", "adaptive"),
    value("keepdim", 1, 0, None, "yes", applies=is_form("global")),
    Refusal("levels", wrong_levels, is_form("pyramid")),
    Refusal("levels", too_many_floor_bins, is_form("pyramid")),
    value("mode", "median", None, 3, ["max"], "MAX", applies=is_form("pyramid")),
    value("bins", "round", None, 1, ["floor"], applies=is_form("pyramid")),
    value("flatten", "all", 0, True, ["level"], applies=is_form("pyramid")),
    Refusal("return_indices", lambda choose, trial: {"return_indices": True}, is_form("pyramid")),
    *(
        wrong_number(pooling, argument)
        for pooling in POOLINGS.values()
        for argument in pooling.arguments
        if argument.annotation.startswith("float") and pooling.name != "stochastic"
    ),
    *(
        wrong_tensor(pooling, argument)
        for pooling in POOLINGS.values()
        for i, argument in enumerate(pooling.arguments)
        if argument.annotation.startswith("Tensor") or (pooling.parameter and i == 0)
    ),
    value(
        "return_indices",
        1,
        0,
        None,
        "yes",
        applies=lambda trial: trial.form != "pyramid" and trial.kind in ("max", "min", "stochastic"),
    ),
    value("count_include_pad", 1, None, "no", applies=lambda trial: trial.kind == "avg" and trial.form == "sliding"),
    value(
        "divisor_override",
        0,
        1.5,
        "2",
        *FAR,
        True,
        applies=lambda trial: trial.kind == "avg" and trial.form == "sliding",
    ),
    value("training", 1, 0, None, "yes", applies=is_kind("stochastic")),
    value("distribution", "uniform", None, 1, ["relu"], "ReLU", applies=is_kind("stochastic")),
    value(
        "temperature",
        *(0, 0.0, -1.5, float("nan"), float("inf"), 10**400, "warm", None, [1.0], True, torch.tensor(1.0)),
        applies=is_kind("stochastic"),
    ),
    value(
        "seed",
        *(1.5, "1", True, [1], 2**64, -(2**63) - 1, np.array([1.5]), torch.tensor([1, 2]), torch.tensor(1.0)),
        *(torch.tensor(1, dtype=torch.int32), torch.empty(0, dtype=torch.int64), torch.ones(1, device="meta").long()),
        applies=draws,
    ),
    value("generator", 7, "g", torch.tensor(1), applies=draws),
    Refusal("generator", lambda choose, trial: {"seed": 1, "generator": torch.Generator()}, draws),
    value(
        "offset",
        *((1,), (0, 0, 0), (-1, 0), (0, -1), (0.5, 0), (0, "1"), 3, None, "ab", (2**63, 0), (0, 2**32), (True, 0)),
        applies=draws,
    ),
    Refusal(
        "return_indices",
        lambda choose, trial: {"training": False, "return_indices": True},
        lambda trial: trial.kind == "stochastic" and trial.form != "pyramid",
    ),
    Refusal(
        "alpha or seed",
        lambda choose, trial: {OTHERS[trial.kind]: 1},
        lambda trial: trial.form == "pyramid",
    ),
]


def random_refusal(trial, choose):
    """-> the name that the message must hold, the function, all arguments"""
    refusal = choose.choice([refusal for refusal in REFUSALS if refusal.applies(trial)])
    inputs = trial.inputs()
    filters = trial.parameters((), channels_of(trial)) if trial.kind in FILTERS else {}
    arguments = {"input": inputs if trial.sizes else inputs[0], **trial.arguments(), **filters}
    arguments |= refusal.spoil(choose, trial)
    if (
        refusal.argument == "generator"
        and "generator" in arguments
        and not isinstance(arguments["generator"], torch.Generator)
    ):
        arguments.pop("seed", None)
    name = OTHERS[trial.kind] if refusal.argument == "alpha or seed" else refusal.argument
    return name, trial.function, arguments


def describe(function, arguments):
    def of(value):
        if isinstance(value, torch.Tensor):
            return f"<{tuple(value.shape)} {value.dtype} {value.layout} {value.device}>"
        return f"[{', '.join(map(of, value))}]" if isinstance(value, list) else repr(value)

    return f"{function}({', '.join(f'{name}={of(value)}' for name, value in arguments.items())})"


def check(trial, choose):
    name, function, arguments = random_refusal(trial, choose)
    call = describe(function, arguments)
    try:
        getattr(F, function)(**arguments)
    except (ValueError, TypeError) as error:
        assert name in str(error), f"{call}: the message does not name {name}: {error}"
        return
    except Exception as error:
        raise AssertionError(f"{call}: {name} is invalid, but {type(error).__name__}: {error}") from error
    raise AssertionError(f"{call}: {name} is invalid, but was accepted")
