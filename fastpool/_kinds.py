"""Each kind of pooling over any windows: own arguments checked, one operator called, results brought to shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_exporting

from ._arguments import INT64_END
from ._autograd import run
from ._checks import check_flag, check_parameter, choice, number
from ._draw import offset_argument, seed_argument
from ._operators import DISTRIBUTIONS, OPERATORS
from ._windows import MAP, Geometry, Levels, pyramid

# What a call returns: a tensor; with return_indices=True (result, indices).
Pooled = Any


def max_kind(input: Any, geometry: Geometry, return_indices: bool = False) -> Pooled:
    check_flag("return_indices", return_indices)
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs)
    tap_bytes = geometry.tap_bytes if recorded or return_indices else 0
    output, taps = run("max_pool", recorded, inputs, geometry.window, geometry.order, tap_bytes)
    return _with_indices(output, taps, geometry) if return_indices else _leaving(output, geometry)


def avg_kind(
    input: Any, geometry: Geometry, count_include_pad: bool = False, divisor_override: int | None = None
) -> Tensor:
    check_flag("count_include_pad", count_include_pad)
    if divisor_override is None:
        divisor = 0
    elif type(divisor_override) is not int:
        raise TypeError(f"divisor_override must be an int or None, got {divisor_override!r}")
    elif divisor_override == 0 or not -INT64_END <= divisor_override < INT64_END:
        raise ValueError(f"divisor_override must not be 0 and must fit 64 bits, got {divisor_override}")
    else:
        divisor = divisor_override
    inputs = _entering(input, geometry)
    output = run("avg_pool", _recorded(inputs), inputs, geometry.window, geometry.order, count_include_pad, divisor)
    return _leaving(output, geometry)


def max_avg_kind(input: Any, geometry: Geometry) -> tuple[Tensor, Tensor]:
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs)
    tap_bytes = geometry.tap_bytes if recorded else 0
    output, average, _ = run("max_avg_pool", recorded, inputs, geometry.window, geometry.order, tap_bytes)
    return _leaving(output, geometry), _leaving(average, geometry) if geometry.order == MAP else average


def joint_max_avg_kind(input: Any, geometry: Geometry) -> Tensor:
    """For pyramids, whose output holds both."""
    return max_avg_kind(input, geometry)[0]


def mixed_kind(input: Any, geometry: Geometry, alpha: float | Tensor = 0.5) -> Tensor:
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs)
    if isinstance(alpha, Tensor):
        weight, value = _alpha_argument(alpha, inputs[0], geometry), 0.0
        learned = _recorded([weight])
    else:
        weight, value, learned = None, number("alpha", alpha), False
    tap_bytes = geometry.tap_bytes if recorded else 0
    window, order = geometry.window, geometry.order
    output, _, _ = run("mixed_pool", recorded or learned, inputs, weight, value, window, order, tap_bytes, learned)
    return _leaving(output, geometry)


def stochastic_kind(
    input: Any,
    geometry: Geometry,
    training: bool = True,
    distribution: str = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    check_flag("training", training)
    check_flag("return_indices", return_indices)
    code = choice("distribution", distribution, DISTRIBUTIONS)
    temperature = number("temperature", temperature, positive=True)
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs)
    window, order = geometry.window, geometry.order
    if not training:
        if return_indices:
            raise ValueError("return_indices must be False with training=False, which draws nothing; got True")
        # On a CPU, backward finds the results of small windows again sooner than it reads them.
        saves = recorded and not (geometry.squares and inputs[0].device.type == "cpu")
        output, _ = run("expectation_pool", recorded, inputs, code, temperature, window, order, saves)
        return _leaving(output, geometry)
    offset = offset_argument(offset)
    tensor, value = seed_argument(inputs[0], seed, generator)
    tap_bytes = geometry.draw_bytes if code == DISTRIBUTIONS["relu"] else geometry.tap_bytes
    tap_bytes = tap_bytes if recorded or return_indices else 0
    output, taps = run(
        "stochastic_pool", recorded, inputs, tensor, value, offset, code, temperature, window, order, tap_bytes
    )
    return _with_indices(output, taps, geometry) if return_indices else _leaving(output, geometry)


KINDS: Mapping[str, Callable[..., Any]] = {
    "max": max_kind,
    "avg": avg_kind,
    "max_avg": joint_max_avg_kind,
    "mixed": mixed_kind,
    "stochastic": stochastic_kind,
}
OPTIONS: Mapping[str, Sequence[str]] = {
    "mixed": ("alpha",),
    "stochastic": ("training", "distribution", "temperature", "generator", "seed", "offset"),
}


def check_mode(
    mode: str, options: Mapping[str, Any], known: Mapping[str, Sequence[str]] = OPTIONS
) -> Callable[..., Any]:
    kind = choice("mode", mode, KINDS)
    for name in options:
        if name not in known.get(mode, ()):
            takers = " or ".join(f"mode={other!r}" for other, names in known.items() if name in names)
            raise TypeError(f"{name} is an argument of {takers or 'no mode'}, but mode is {mode!r}")
    return kind


def pyramid_kind(
    rank: int,
    input: Tensor | Sequence[Tensor],
    levels: Levels,
    mode: str,
    bins: str,
    flatten: str | None,
    options: Mapping[str, Any],
) -> Tensor:
    kind = check_mode(mode, options)
    result: Tensor = kind(input, pyramid(rank, input, levels, bins, flatten, 2 if mode == "max_avg" else 1), **options)
    return result


def _entering(input: Any, geometry: Geometry) -> list[Tensor]:
    if isinstance(input, (list, tuple)):
        return [x.unsqueeze(0) for x in input]
    return [input if geometry.entry is None else input.reshape(geometry.entry)]


def _leaving(output: Tensor, geometry: Geometry) -> Tensor:
    if geometry.lead == 1:
        output = output.contiguous()  # without a batch axis no result is channels-last
    return output.reshape(geometry.result) if geometry.reshape else output


def _with_indices(output: Tensor, taps: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    indices = OPERATORS["tap_indices"](taps, geometry.spatial, geometry.window)
    return _leaving(output, geometry), _leaving(indices, geometry)


def _recorded(inputs: list[Tensor]) -> bool:
    """Whether a backward pass may want what the forward pass can save for these."""
    if not torch.is_grad_enabled():
        return False
    if inputs[0].requires_grad or (len(inputs) > 1 and any(x.requires_grad for x in inputs)):
        return True
    # What the exported module's inputs, or a transform's, will require is not known here.
    return is_exporting() or torch._C._are_functorch_transforms_active()


def _alpha_argument(alpha: Tensor, input: Tensor, geometry: Geometry) -> Tensor:
    check_parameter("alpha", alpha, input)
    axes = alpha.dim()
    if axes == 0 or (axes == 1 and alpha.shape[0] == geometry.channels):
        return alpha
    result, lead, rank = geometry.result, geometry.lead, len(geometry.spatial)
    if geometry.order == MAP and axes == len(result) and all(a in (1, n) for a, n in zip(alpha.shape, result)):
        # The operator's axes: a batch axis where there was none, and as many ones as a global window has axes.
        spatial = (*alpha.shape[lead:], *[1] * rank)[:rank]
        return alpha.reshape((*[1] * (2 - lead), *alpha.shape[:lead], *spatial))
    regions = f" or of {len(result)} axes, each 1 or as in {tuple(result)}" if geometry.order == MAP else ""
    raise ValueError(
        f"alpha must be a number, a 0-d tensor, ({geometry.channels},) for one per channel{regions}, "
        f"got shape {tuple(alpha.shape)}"
    )
