"""Each kind of pooling over any windows: own arguments checked, one operator called, results brought to shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_exporting
from torch.utils._pytree import tree_map_only

from ._arguments import INT64_END
from ._autograd import run, traced
from ._checks import check_flag, check_input, check_parameter, choice, number
from ._draw import check_seed, offset_argument, seed_argument
from ._layouts import laid_out, layout_of, memory_format
from ._operators import (
    POOL_AGAIN,
    POOLINGS,
    RESULTS,
    SAVE_MOMENTS,
    SAVE_SLOPE,
    call,
    call_below_autograd,
    is_sharded,
    transforming,
)
from ._table import Argument, Pooling
from ._windows import MAP, Bins, Flatten, Geometry, Levels, nested_inputs, pyramid

NO_INTEGERS = (0,)  # packages of AOTInductor make None of an empty list
DISTRIBUTIONS = {"relu": True, "softmax": False}  # whether a window may have nothing to draw
# Of each pooling its operator, and whether a gradient needs moments; taps else.
SAVES = {name: (f"{name}_pool", "moments" in RESULTS[f"{name}_pool"]) for name in POOLINGS if f"{name}_pool" in RESULTS}
Distribution = Literal["relu", "softmax"]
Mode = Literal["min", "avg", "max", "max_avg", "mixed", "stochastic", "soft", "lse", "gem", "mean_std"]
Pooled = Tensor | tuple[Tensor, Tensor]  # (result, indices) with return_indices=True


def pooled(name: str, input: Any, geometry: Geometry, *own: Any) -> Tensor:
    """The first result of a pooling of the table; of pyramids, which hold both in one, the only one."""
    return _leaving(_pool(name, input, geometry, own)[0], geometry)


def pooled_twice(name: str, input: Any, geometry: Geometry, *own: Any) -> tuple[Tensor, Tensor]:
    first, second, *_ = _pool(name, input, geometry, own)
    if geometry.order != MAP:
        first, second = first.chunk(2, 1)
    return _leaving(first, geometry), _leaving(second, geometry)


def selected(name: str, input: Any, geometry: Geometry, return_indices: bool = False) -> Pooled:
    _check_indices(return_indices, geometry)
    output, taps = _pool(name, input, geometry, (), return_indices)
    return _with_indices(output, taps, geometry) if return_indices else _leaving(output, geometry)


def beside_maxima(input: Tensor, geometry: Geometry, repeats: int) -> Tensor | None:
    """The input and its maxima over windows that grow, written side by side; None where each is wanted by itself."""
    seen = is_compiling() or transforming() or is_sharded(input) or _recorded([input], geometry)
    if seen or not input.is_cpu or geometry.lead == 1:
        return None
    output: Tensor = call_below_autograd("sppf", input, geometry.window, repeats)
    return output


def _pool(name: str, input: Any, geometry: Geometry, own: Sequence[Any], taps: bool = False) -> Any:
    operator, saves_moments = SAVES[name]
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs, geometry)
    saves = 0
    if recorded or taps:
        saves = _moments(operator, inputs[0], geometry) if saves_moments else geometry.tap_bytes
    window, order = geometry.window, geometry.order
    if not own:
        return run(operator, recorded, inputs, None, (), NO_INTEGERS, window, order, saves)
    pooling = POOLINGS[name]
    parameter: Tensor | None = None
    numbers: list[float] = []
    for argument, value in zip(pooling.arguments, own):
        if pooling.parameter and not numbers and isinstance(value, Tensor):
            parameter = _parameter(argument.name, value, inputs[0], geometry, pooling.regions)
            numbers.append(0.0)
        else:
            numbers.append(own_number(pooling, argument, value))
    if pooling.parameter:
        numbers.append(numbers.pop(0))  # where the operator has it
    if parameter is not None and _recorded([parameter], geometry):
        recorded, saves = True, saves | SAVE_SLOPE
    return run(operator, recorded, inputs, parameter, numbers, NO_INTEGERS, window, order, saves)


def _moments(operator: str, x: Tensor, geometry: Geometry) -> int:
    """What a call saves whose gradient reads moments, or finds them again sooner."""
    if operator not in POOL_AGAIN or not x.is_cpu or geometry.traced or is_exporting():
        return SAVE_MOMENTS  # what is traced or exported may run elsewhere
    return 0 if geometry.halves() else SAVE_MOMENTS


def own_number(pooling: Pooling, argument: Argument, value: Any) -> float:
    first = pooling.parameter and argument is pooling.arguments[0]
    return number(argument.name, value, argument.allowed, "a number or a tensor" if first else "a number")


def check_own(pooling: Pooling, values: Mapping[str, Any]) -> None:
    """What must hold of own arguments over any input, for modules, which have none yet."""
    for argument in pooling.arguments:
        if argument.name not in values:
            continue
        value = values[argument.name]
        if argument.annotation == "bool":
            check_flag(argument.name, value)
        elif pooling.parameter and argument is pooling.arguments[0] and isinstance(value, Tensor):
            check_input(value, argument.name)
            if value.dim() > 1 and not pooling.regions:
                raise ValueError(f"{argument.name} must be a number, 0-d or (C,), got shape {tuple(value.shape)}")
        elif argument.annotation.startswith("float"):
            own_number(pooling, argument, value)
    if pooling.call == "stochastic_kind":
        choice("distribution", values.get("distribution", "relu"), DISTRIBUTIONS)
        check_seed(values.get("seed"), values.get("generator"))
        offset_argument(values.get("offset", (0, 0)))


def avg_kind(
    input: Any, geometry: Geometry, count_include_pad: bool = False, divisor_override: int | None = None
) -> Tensor:
    integers = avg_integers(count_include_pad, divisor_override)
    inputs = _entering(input, geometry)
    output = run(
        "avg_pool", _recorded(inputs, geometry), inputs, None, (), integers, geometry.window, geometry.order, 0
    )
    return _leaving(output, geometry)


def avg_integers(count_include_pad: bool, divisor_override: int | None) -> tuple[int, int]:
    """As the operator takes them, with 0 for no divisor."""
    check_flag("count_include_pad", count_include_pad)
    if divisor_override is None:
        return int(count_include_pad), 0
    if type(divisor_override) is not int:
        raise TypeError(f"divisor_override must be an int or None, got {divisor_override!r}")
    if divisor_override == 0 or not -INT64_END <= divisor_override < INT64_END:
        raise ValueError(f"divisor_override must not be 0 and must fit 64 bits, got {divisor_override}")
    return int(count_include_pad), divisor_override


def lp_kind(input: Any, geometry: Geometry, norm_type: float = 2.0) -> Tensor:
    p = lp_power(norm_type)
    if abs(p) == math.inf:
        size = input.abs()
        if geometry.lead > 1:
            size = laid_out(size, layout_of(input))  # torch may return another layout, as of elements that overlap
        return pooled("max" if p > 0 else "min", size, geometry)
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs, geometry)
    numbers = (p, float(math.prod(geometry.window[1::6])))
    name = "lp1_pool" if p == 1 else "lp2_pool" if p == 2 else "lp_pool"
    saves = _moments(name, inputs[0], geometry) if recorded else 0
    output, *_ = run(name, recorded, inputs, None, numbers, NO_INTEGERS, geometry.window, geometry.order, saves)
    return _leaving(output, geometry)


def lp_power(norm_type: float) -> float:
    if isinstance(norm_type, float) and abs(norm_type) == math.inf:  # which may be symbolic
        return norm_type
    return number("norm_type", norm_type, "nonzero")


def gated_kind(input: Any, geometry: Geometry, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = _entering(input, geometry)[0]
    parts = [_filters("weight", weight, x, geometry, ())]
    if bias is not None:
        if not isinstance(bias, Tensor):
            raise TypeError(f"bias must be a tensor or None, got {type(bias).__name__}")
        check_parameter("bias", bias, x)
        if bias.dim() > 1 or bias.numel() not in (1, geometry.channels):
            raise ValueError(
                f"bias must be a 0-d tensor, (1,) or ({geometry.channels},), got shape {tuple(bias.shape)}"
            )
        parts.append(bias.reshape(1, -1, 1))
    _, shares = _products(x, geometry, _joined(parts, 2, x.dtype), 0)
    alpha = shares.reshape(shares.shape[1:])
    alpha = alpha[0] if geometry.lead == 1 else alpha
    return pooled("mixed", input, geometry, alpha)


def tree_kind(input: Any, geometry: Geometry, leaves: Tensor, gates: Tensor) -> Tensor:
    x = _entering(input, geometry)[0]
    filters = [_filters("leaves", leaves, x, geometry, (2, 4)), _filters("gates", gates, x, geometry, (1, 3))]
    count = len(filters[0])
    if len(filters[1]) != count - 1:
        raise ValueError(f"gates must hold one filter less than leaves, which hold {count}, got {len(filters[1])}")
    values, shares = _products(x, geometry, _joined(filters, 0, x.dtype), count)
    while count > 1:
        count //= 2
        s = shares[count - 1 : 2 * count - 1]
        values = s * values[0::2] + (1 - s) * values[1::2]
    # torch may return another layout where an axis has one element.
    y = values[0].to(x.dtype).contiguous(memory_format=memory_format(layout_of(x), x.dim()))
    return _leaving(y, geometry)


def _filters(name: str, filters: Any, x: Tensor, geometry: Geometry, counts: Sequence[int]) -> Tensor:
    """As (filters, C or 1, taps)"""
    if not isinstance(filters, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(filters).__name__}")
    check_parameter(name, filters, x)
    kernel, channels = geometry.window[1::6], geometry.channels
    each = filters if counts else filters.unsqueeze(0)
    shared = tuple(each.shape[1:]) == kernel
    if (counts and len(each) not in counts) or not (shared or tuple(each.shape[1:]) == (channels, *kernel)):
        lead = f"{' or '.join(map(str, counts))}, " if counts else ""
        raise ValueError(
            f"{name} must have shape ({lead}*{kernel}) or ({lead}{channels}, *{kernel}), got {tuple(filters.shape)}"
        )
    return (each.unsqueeze(1) if shared else each).flatten(2)


def _joined(parts: Sequence[Tensor], axis: int, dtype: torch.dtype) -> Tensor:
    """In the accumulation type, with as many channels as any has."""
    wide, channels = torch.promote_types(dtype, torch.float32), max([part.shape[1] for part in parts])
    return torch.cat([part.to(wide).expand(-1, channels, -1) for part in parts], axis)


def _products(x: Tensor, geometry: Geometry, filters: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Of each filter with each window, (filters, N, C, *output): the first, and of the others the shares."""
    if is_sharded(x):
        from ._sharding import products_of_shards  # which imports torch.distributed.tensor

        return products_of_shards(_products, x, geometry, filters, values)
    y = _called("correlate", x, filters, geometry.window)
    n, others = x.shape[0], filters.shape[0] - values
    first, rest = torch.split(y, [values * n, others * n]) if values else (y[:0], y)
    shares = _called("logistic", rest)
    return first.reshape(values, n, *y.shape[1:]), shares.reshape(others, n, *y.shape[1:])


def _called(name: str, *arguments: Any) -> Tensor:
    result: Tensor = traced(name)(*arguments) if is_compiling() else call(name, *arguments)
    return result


def stochastic_kind(
    input: Any,
    geometry: Geometry,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    check_flag("training", training)
    _check_indices(return_indices, geometry)
    draws_nothing = choice("distribution", distribution, DISTRIBUTIONS)
    temperature = number("temperature", temperature, "positive")
    inputs = _entering(input, geometry)
    recorded = _recorded(inputs, geometry)
    window, order = geometry.window, geometry.order
    numbers = () if distribution == "relu" else (temperature,)
    if not training:
        if return_indices:
            raise ValueError("return_indices must be False with training=False, which draws nothing; got True")
        name = "expectation_relu_pool"
        if distribution == "softmax":
            # However high the temperature, an infinite element counts for nothing or for everything.
            name, numbers = "soft_pool", (max(1 / temperature, _smallest(inputs[0])),)
        saves = _moments(name, inputs[0], geometry) if recorded else 0
        output, *_ = run(name, recorded, inputs, None, numbers, NO_INTEGERS, window, order, saves)
        return _leaving(output, geometry)
    offset = offset_argument(offset)
    tensor, value = seed_argument(inputs[0], seed, generator)
    tap_bytes = geometry.draw_bytes if draws_nothing else geometry.tap_bytes
    tap_bytes = tap_bytes if recorded or return_indices else 0
    name, integers = f"stochastic_{distribution}_pool", (value, *offset)
    output, taps = run(name, recorded, inputs, tensor, numbers, integers, window, order, tap_bytes)
    return _with_indices(output, taps, geometry) if return_indices else _leaving(output, geometry)


# What each mode of a pyramid takes.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    name: tuple([argument.name for argument in pooling.arguments if argument.name != "return_indices"])
    for name, pooling in POOLINGS.items()
    if "adaptive" in pooling.forms
}


def check_mode(mode: str, options: Mapping[str, Any], known: Mapping[str, Sequence[str]] = OPTIONS) -> None:
    choice("mode", mode, OPTIONS)
    for name in options:
        if name not in known.get(mode, ()):
            takers = " or ".join(f"mode={other!r}" for other, names in known.items() if name in names)
            raise TypeError(f"{name} is an argument of {takers or 'no mode'}, but mode is {mode!r}")


def pyramid_kind(
    rank: int,
    input: Tensor | Sequence[Tensor],
    levels: Levels,
    mode: Mode,
    bins: Bins,
    flatten: Flatten,
    options: Mapping[str, Any],
) -> Tensor:
    check_mode(mode, options)
    if isinstance(input, Tensor) and input.is_nested:
        input = nested_inputs(input)
    pooling = POOLINGS[mode]
    geometry = pyramid(rank, input, levels, bins, flatten, pooling.results)
    if mode == "avg":
        return avg_kind(input, geometry)
    if mode == "stochastic":
        drawn = stochastic_kind(input, geometry, **options)
        assert isinstance(drawn, Tensor)  # there is no return_indices
        return drawn
    defaults = {argument.name: argument.value for argument in pooling.arguments if argument.name in OPTIONS[mode]}
    return pooled(mode, input, geometry, *{**defaults, **options}.values())


def _check_indices(return_indices: bool, geometry: Geometry) -> None:
    check_flag("return_indices", return_indices)
    if return_indices and geometry.order != MAP:
        raise ValueError("return_indices must be False for a nested tensor, got True")


def _entering(input: Any, geometry: Geometry) -> list[Tensor]:
    if geometry.traced and geometry.fixed:
        # At another size the trace shall fail, not pool a part.
        input = tree_map_only(
            Tensor, lambda x: x.expand(*[-1] * geometry.lead, *map(int, x.shape[geometry.lead :])), input
        )
    if isinstance(input, (list, tuple)):
        return [x.unsqueeze(0) for x in input]
    return [input if geometry.entry is None else input.reshape(_of_any_batch(geometry.entry, input, geometry))]


def _leaving(output: Tensor, geometry: Geometry) -> Tensor:
    if geometry.lead == 1:
        output = output.contiguous()  # without a batch axis no result is channels-last
    return output.reshape(_of_any_batch(geometry.result, output, geometry)) if geometry.reshape else output


def _of_any_batch(shape: Sequence[int], x: Tensor, geometry: Geometry) -> Sequence[int]:
    """The shape with x's batch, which a trace follows."""
    return shape if geometry.lead == 1 else (x.shape[0], *shape[1:])


def _with_indices(output: Tensor, taps: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    if is_sharded(taps):
        from ._sharding import indices_of_shards as indices_of  # which imports torch.distributed.tensor
    else:
        indices_of = traced("tap_indices")
    indices = indices_of(taps, geometry.spatial, geometry.window)
    return _leaving(output, geometry), _leaving(indices, geometry)


def _smallest(input: Tensor) -> float:
    """The smallest normal number of the type that is computed in."""
    return torch.finfo(torch.float64 if input.dtype == torch.float64 else torch.float32).tiny


def _recorded(inputs: list[Tensor], geometry: Geometry) -> bool:
    """Whether a backward pass may want what the forward pass can save for these."""
    if geometry.traced:
        return True  # torch.jit.trace compares the graph with one that it makes without gradients
    if not torch.is_grad_enabled():
        return forward_ad._current_level >= 0  # which asks nothing of grad mode
    if inputs[0].requires_grad or (len(inputs) > 1 and any(x.requires_grad for x in inputs)):
        return True
    # What the exported module's inputs, or a transform's, will require is not known here.
    return is_exporting() or transforming()


def _parameter(name: str, value: Tensor, input: Tensor, geometry: Geometry, regions: bool) -> Tensor:
    check_parameter(name, value, input)
    axes = value.dim()
    if axes == 0 or (axes == 1 and value.shape[0] == geometry.channels):
        return value
    if axes == 1 and value.shape[0] == 1:
        return value.reshape(())
    result, lead, rank = geometry.result, geometry.lead, len(geometry.spatial)
    regions = regions and geometry.order == MAP
    if regions and axes == len(result) and all(a == 1 or a == n for a, n in zip(value.shape, result)):
        # The operator's axes: a batch axis where there was none, and as many ones as a global window has axes.
        spatial = (*value.shape[lead:], *[1] * rank)[:rank]
        return value.reshape((*[1] * (2 - lead), *value.shape[:lead], *spatial))
    or_regions = f" or of {len(result)} axes, each 1 or as in {tuple(result)}" if regions else ""
    raise ValueError(
        f"{name} must be a number, a 0-d tensor or (1,), ({geometry.channels},) for one per channel{or_regions}, "
        f"got shape {tuple(value.shape)}"
    )
