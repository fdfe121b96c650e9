"""A network's pooling layers swapped for fastpool's."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any

import torch
from torch.nn import Module

from . import nn

__all__ = ["replace_pooling"]

# What is taken over from the layer and is no option.
SLIDING = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
GEOMETRY = (*SLIDING, "output_size")
TWO_RESULTS = ("max_avg", "mean_std")

# Layers of these classes alone: what a subclass computes is not known here.
LAYERS: dict[type[Module], tuple[str, int]] = {
    getattr(torch.nn, f"{form}{kind}Pool{rank}d"): (form, rank)
    for form, kind, rank in itertools.product(("", "Adaptive"), ("Max", "Avg"), (1, 2, 3))
}


def replace_pooling(model: Module, kind: str, **options: Any) -> list[tuple[str, Module, Module]]:
    """Swaps the pooling layers of a model for fastpool's of the same geometry, in place.

    Layers of torch.nn's MaxPoolNd, AvgPoolNd, AdaptiveMaxPoolNd and AdaptiveAvgPoolNd are replaced by those of the kind
    in :mod:`fastpool.nn`: ``"soft"`` puts SoftPool2d for MaxPool2d and AdaptiveSoftPool2d for AdaptiveAvgPool2d. Layers
    of other classes, their subclasses included, and poolings that the model calls as functions stay. Hooks of replaced
    layers are not taken over. A layer that the model holds in several places stays one layer. For a part of a model,
    give that part. Names stay, so that checkpoints of the model load; of what new layers learn they leave the initial
    value, and a warning says so.

    ``kernel_size``, ``stride``, ``padding``, ``dilation`` and ``ceil_mode``, or ``output_size``, are taken over, and
    whether the layer is in training. So are ``return_indices`` by kinds that have indices, and ``count_include_pad``
    and ``divisor_override`` by kinds that have them. Other kinds pool the elements inside the input only, and refuse a
    layer with ``divisor_override``. New parameters and buffers get the device and dtype of the model's first
    floating-point parameter or buffer.

    Args:
        model: any module; not itself a pooling layer, which only what holds it can replace.
        kind: the name of a pooling with one result, as in the functions: ``"max"``, ``"avg"``, ``"mixed"``,
            ``"stochastic"``, ``"random_mixed"``, ...
        options: the kind's own arguments, as its module takes them; an argument of sliding windows alone, such as
            ``count_include_pad``, goes to those.

    Returns:
        (name, old layer, new layer) for each name under which the model had one, in the model's order; empty if it had
        none.

    Raises:
        TypeError, ValueError: for an argument that is not as described, and for a layer that the kind cannot replace,
            which is named; the model is then as before.

    Example:
        >>> import torch, fastpool
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.MaxPool2d(2), torch.nn.AdaptiveAvgPool2d(1))
        >>> for name, old, new in fastpool.replace_pooling(model, "mixed", alpha=0.25):
        ...     print(name, type(old).__name__, "->", type(new).__name__)
        1 MaxPool2d -> MixedPool2d
        2 AdaptiveAvgPool2d -> AdaptiveMixedPool2d
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if type(model) in LAYERS:
        raise ValueError(
            f"model must hold the layers to replace, but is itself one, {model}, which cannot be replaced in place"
        )
    camel = _class_name(kind)
    _check_options(kind, camel, options)
    like = next((t for t in itertools.chain(model.parameters(), model.buffers()) if t.is_floating_point()), None)
    swapped: list[tuple[str, Module, Module]] = []
    made: dict[Module, Module] = {}
    for name, old in model.named_modules(remove_duplicate=False):
        if type(old) not in LAYERS:
            continue
        if old not in made:
            new = _counterpart(name, old, kind, camel, options)
            made[old] = (new if like is None else new.to(like.device, like.dtype)).train(old.training)
        swapped.append((name, old, made[old]))
    # Only now, so that a layer that is refused leaves the model whole.
    for name, _, new in swapped:
        holder, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(holder), attribute, new)
    return swapped


def kinds() -> dict[str, str]:
    """Name of each kind that has sliding windows -> how its modules spell it: "mean_std" -> "MeanStd"."""
    found = {}
    for name in nn.__all__:
        match = re.fullmatch(r"(\w+)Pool2d", name)
        if match and "kernel_size" in _arguments(name):
            found[re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", match[1]).lower()] = match[1]
    return found


def _class_name(kind: Any) -> str:
    known = kinds()
    allowed = ", ".join(repr(name) for name in known if name not in TWO_RESULTS)
    if not isinstance(kind, str):
        raise TypeError(f"kind must be one of {allowed}, got {kind!r}")
    if kind in TWO_RESULTS and kind in known:
        raise ValueError(f"kind must have one result, but {kind!r} gives two; choose one of {allowed}")
    if kind not in known:
        raise ValueError(f"kind must be one of {allowed}, got {kind!r}")
    return known[kind]


def _arguments(module: str) -> tuple[str, ...]:
    return tuple(inspect.signature(getattr(nn, module)).parameters)


def _check_options(kind: str, camel: str, options: dict[str, Any]) -> None:
    own = [name for name in _arguments(f"{camel}Pool2d") if name not in (*GEOMETRY, "return_indices")]
    for name in options:
        if name in (*GEOMETRY, "return_indices"):
            raise TypeError(f"{name} is taken from each layer and must not be given, got {options[name]!r}")
        if name not in own:
            raise TypeError(f"{name} is no argument of kind {kind!r}, which takes {', '.join(own) or 'none'}")


def _counterpart(name: str, old: Any, kind: str, camel: str, options: dict[str, Any]) -> Module:
    form, rank = LAYERS[type(old)]
    counterpart = f"{form}{camel}Pool{rank}d"
    layer = f"layer {name!r}, {old}, cannot become kind {kind!r}"
    if counterpart not in nn.__all__:
        raise ValueError(f"{layer}: there is no {counterpart}")
    known = _arguments(counterpart)
    taken: dict[str, Any] = {argument: getattr(old, argument) for argument in GEOMETRY if hasattr(old, argument)}
    plain = {"padding": 0, "dilation": 1, "ceil_mode": False}
    for argument, default in plain.items():
        if argument in taken and argument not in known:
            value = taken.pop(argument)
            if value != default and value != (default,) * rank:
                raise ValueError(f"{layer}: {counterpart} takes no {argument}")
    if getattr(old, "return_indices", False):
        if "return_indices" not in known:
            raise ValueError(f"{layer}: {counterpart} has no indices, but return_indices is True")
        taken["return_indices"] = True
    if getattr(old, "divisor_override", None) is not None and "divisor_override" not in known:
        raise ValueError(f"{layer}: {counterpart} has no divisor, but divisor_override is {old.divisor_override}")
    for argument in ("count_include_pad", "divisor_override"):
        if hasattr(old, argument) and argument in known:
            taken[argument] = getattr(old, argument)
    chosen = {argument: value for argument, value in options.items() if argument in known}
    try:
        new = getattr(nn, counterpart)(**{**taken, **chosen})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{layer}: {error}") from error
    assert isinstance(new, Module)
    return new
