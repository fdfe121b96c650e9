"""Documentation shared by the ranks and windowings of one kind of pooling, joined to each function's summary line."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ._operators import POOLINGS
from ._table import Pooling

F = TypeVar("F", bound=Callable[..., Any])

AVERAGE = """
    ceil_mode: round the output size up; a window still may not start in the padding behind the input.
    count_include_pad: count padding in the divisor.
    divisor_override: divide by this number instead; 0 is refused.
    dilation: spacing of the window's elements."""

WINDOWS = {
    "sliding": """
    input: ``(N, C, {axes})`` or ``(C, {axes})``, float16, bfloat16, float32 or float64.
    kernel_size: the window's size: an int, or one per axis.
    stride: the step between windows, ``kernel_size`` by default.
    padding: an int, one per axis, (before, after) pairs per axis, or ``"same"``; at most half the effective kernel
        ``dilation * (kernel_size - 1) + 1`` on each side.""",
    "dilation": """
    dilation: spacing of the window's elements.
    ceil_mode: round the output size up; a window still may not start in the padding behind the input.""",
    "adaptive": """
    input: ``(N, C, {axes})`` or ``(C, {axes})``, float16, bfloat16, float32 or float64.
    output_size: an int, or one per axis, where None keeps the input's. Bin i of n over a length a holds the elements
        ``floor(i*a/n)`` to ``ceil((i+1)*a/n) - 1``.""",
    "global": """
    input: ``(N, C, *spatial)`` with any number (at least one) of spatial axes, float16, bfloat16, float32 or float64;
        or a nested tensor of ``(C, *spatial)`` of different sizes with at most three spatial axes.
    keepdim: keep the spatial axes, with size 1.""",
}

PYRAMID_PAPER = "He, Zhang, Ren, Sun: Spatial pyramid pooling in deep convolutional networks (TPAMI 2015)."

PYRAMID = """
Each level cuts every axis into that many bins and pools them; all levels come from one read of the input. With
``flatten="level"`` the result equals ``torch.cat([adaptive(x, level).flatten(1) for level in levels], 1)``, of length
``sum C * bins`` for any input size. Gradients of all levels are summed.

Args:
    input: ``(N, C, {axes})``, ``(C, {axes})``, or a list or nested tensor of ``(C, {axes})`` of different sizes,
        which gives one row per tensor; float16, bfloat16, float32 or float64.
    levels: bins per axis of each level, ints or one tuple per level.
{mode}
    bins: ``"adaptive"``, or ``"floor"`` for bins of ``floor(length / level)`` that drop the remainder.
    flatten: ``"level"``, ``"channel"`` for ``(N, C * B)`` with a channel's bins together, None for ``(N, C, B)``.
    options: arguments of the mode, as its function has them but ``return_indices``; tensors are 0-d or one per channel.

Returns:
    A tensor of the input's dtype; without the batch axis where the input has none.

Raises:
    TypeError, ValueError: for an argument that is not as described, before anything is computed.
    RuntimeError: for a device that this build has no kernels for.

Example:
    >>> import torch, fastpool
    >>> x = torch.tensor([3.0, 1.0, 2.0, 6.0]).reshape({shape})
    >>> fastpool.{name}(x, levels=[{two}, 1])
    tensor([[3., 6., 6.]])

Reference:
    {paper}
"""


def documented(function: F) -> F:
    """Completes the docstring of a function whose name tells its windowing, kind and rank."""
    form, kind, place = _parts(function.__name__)
    if kind == "spatial_pyramid":
        modes = ", ".join(f'``"{name}"``' for name, pooling in POOLINGS.items() if "adaptive" in pooling.forms)
        mode = _entry("mode", f"one of {modes}; of two results the first comes first along the channels.")
        text = PYRAMID.format(**place, paper=PYRAMID_PAPER, mode=mode)
    else:
        pooling = POOLINGS[kind]
        text = _formula(form, pooling) + _arguments(form, pooling).format(**place)
        text += _results(form, pooling) + _example(form, pooling, place)
        text += f"\nReference:\n    {pooling.paper}\n" if pooling.paper else ""
    function.__doc__ = f"{function.__doc__}\n{text}"
    return function


def documented_module(name: str, function: Callable[..., Any], arguments: Iterable[str], own: Mapping[str, str]) -> str:
    """Of a module with these arguments: what its function says of them, but for its `own`, and of it what "" says."""
    form, kind, place = _parts(function.__name__)
    summary, *sections = re.split(r"^(Args|Returns|Raises|Example|Reference):\n", function.__doc__ or "", flags=re.M)
    said = dict(zip(sections[::2], sections[1::2]))
    entries = {
        entry.split(":")[0]: f"    {entry.rstrip()}" for entry in re.split(r"^    (?=\w)", said["Args"], flags=re.M)
    }
    input_shape = entries["input"].partition(": ")[2]
    output_shape = textwrap.indent(said["Returns"].strip(), "    ").strip()
    entries |= {argument: _entry(argument, text) for argument, text in own.items()}
    about = (
        f"The module of :func:`fastpool.{function.__name__}`, which has the formula, the gradient, ties, NaN and inf."
    )
    text = "\n".join(entries[argument] for argument in arguments)
    return f"""{summary.splitlines()[0]}

{textwrap.fill(" ".join((about, own.get("", ""))), 120)}

Args:
{text}

Shape:
    Input: {input_shape}
    Output: {output_shape}

Example:
    >>> import torch, fastpool
    >>> x = torch.tensor([3.0, 1.0, 2.0, 6.0]).reshape({place["shape"]})
{_module_example(name, form, kind, place)}"""


def _module_example(name: str, form: str, kind: str, place: dict[str, str]) -> str:
    two = place["two"]
    if kind == "spatial_pyramid":
        return f"    >>> fastpool.nn.{name}([{two}, 1])(x)\n    tensor([[3., 6., 6.]])\n"
    pooling = POOLINGS[kind]
    options, shown, by_window, overall = pooling.example
    arguments = [pooling.arguments[0].default] if kind == "lp" else []  # as in torch
    arguments += [two] if form != "global" else []
    if pooling.call in ("gated_kind", "tree_kind"):  # filters start at random
        shape = place["shape"].replace("4", "2")
        return f"    >>> fastpool.nn.{name}({two})(x).shape\n    torch.Size([{shape}])\n"
    evaluated = ".eval()" if "training" in options else ""
    if not evaluated and options:
        arguments.append(options.removeprefix(", "))
    if pooling.learnable == "True":
        arguments.append("learnable=False")
    return f"""    >>> pool = fastpool.nn.{name}({", ".join(arguments)}){evaluated}
    >>> {shown.format("pool(x)")}.flatten()
    {overall if form == "global" else by_window}
"""


def _parts(name: str) -> tuple[str, str, dict[str, str]]:
    """Of a function's name its windowing, its kind, and what places in texts are filled with."""
    match = re.fullmatch(r"(adaptive_|global_|)(\w+?)_pool([123]d)?", name)
    assert match, name
    rank = int((match[3] or "2d")[0])
    return (
        match[1].rstrip("_") or "sliding",
        match[2],
        {
            "name": name,
            "axes": ("L", "H, W", "D, H, W")[rank - 1],
            "shape": ", ".join(["1"] * (rank + 1) + ["4"]),
            "two": "2" if rank == 1 else f"({', '.join(['1'] * (rank - 1) + ['2'])})",
        },
    )


@functools.cache  # most of them occur in many functions and modules
def _entry(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {text}", 116, initial_indent="    ", subsequent_indent="        ")


def _formula(form: str, pooling: Pooling) -> str:
    outside = " Padding is never an element." if form == "sliding" and pooling.name != "avg" else ""
    return pooling.formula + outside + "\n"


def _arguments(form: str, pooling: Pooling) -> str:
    parts = [WINDOWS[form]]
    if form == "sliding":
        parts.append(AVERAGE if pooling.name == "avg" else WINDOWS["dilation"])
    for argument in pooling.arguments:
        # Braces are none of the places to fill in.
        parts.append("\n" + _entry(argument.name, argument.text).replace("{", "{{").replace("}", "}}"))
    return "\nArgs:" + "".join(parts) + "\n"


def _results(form: str, pooling: Pooling) -> str:
    what = f"({', '.join(pooling.result_names)}), two tensors" if pooling.results == 2 else "A tensor"
    shape = "``(N, C, 1, ...)`` or ``(N, C)``" if form == "global" else "the input's shape with the output's size"
    indices = " With return_indices, (result, indices)." if pooling.indices else ""
    return f"""
Returns:
    {what} of the input's dtype and layout, {shape}.
    An empty batch gives an empty result.{indices}

Raises:
    TypeError, ValueError: for an argument that is not as described, before anything is computed.
    RuntimeError: for a device that this build has no kernels for.
"""


def _example(form: str, pooling: Pooling, place: dict[str, str]) -> str:
    options, shown, by_window, overall = pooling.example
    windows = "" if form == "global" else f", {place['two']}"
    first = f", {pooling.arguments[0].default}" if pooling.name == "lp" else ""  # as in torch
    sizes = place["two"].strip("()")
    pooled = shown.format(f"fastpool.{place['name']}(x{first}{windows}{options.format(**place, sizes=sizes)})")
    return f"""
Example:
    >>> import torch, fastpool
    >>> x = torch.tensor([3.0, 1.0, 2.0, 6.0]).reshape({place["shape"]})
    >>> {pooled}.flatten()
    {overall if form == "global" else by_window}
"""
