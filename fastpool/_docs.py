"""Documentation shared by the ranks and windowings of one kind of pooling, joined to each function's summary line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

FORMULAS = {
    "max": """
Each output is the largest element of its window. Of equal elements the first is chosen, NaN wins (of several the
last), and a window of only -inf gives -inf. The gradient goes to the chosen element.""",
    "avg": """
Each output is the mean of its window. The gradient is shared equally by the elements.""",
    "max_avg": """
Returns two tensors, the largest element and the mean of each window, from one read of the input. Ties and NaN are
resolved as in max pooling; padding is never averaged. The gradient is the sum of both.""",
    "mixed": """
Each output is ``alpha * max + (1 - alpha) * mean`` of its window, the mean over the elements inside the input.
The gradient g gives ``alpha * g`` to the largest element and ``(1 - alpha) * g / n`` to each of the n elements;
``alpha`` receives ``sum g * (max - mean)`` over the outputs that share it.""",
    "stochastic": """
In training each output is one element of its window, drawn with probability ``w_i / sum w``; otherwise it is the
expectation ``sum w_i x_i / sum w``. ``distribution="relu"`` has ``w_i = max(x_i, 0)`` and pools relu(x): negative
elements are never drawn, and a window without positive elements gives 0. ``"softmax"`` has
``w_i = exp((x_i - max) / temperature)``, for signed inputs. Elements of weight 0 contribute nothing; NaN wins. The
gradient in training goes to the drawn element, otherwise it is that of the formula.""",
}

OWN_ARGUMENTS = {
    "mixed": """
    alpha: a number, or a tensor of the input's dtype (or float32 beside half types) on its device: 0-d, ``(C,)`` for
        one per channel, or with the output's number of axes, each 1 or equal, for one per region. Values outside
        [0, 1] are allowed.""",
    "stochastic": """
    training: draw (True) or take the expectation (False), which ignores seed, generator and offset and has no indices.
    distribution: ``"relu"`` or ``"softmax"``.
    temperature: a positive number for ``"softmax"``; large ones draw evenly.
    generator: a generator of the input's device; torch's default one otherwise. Not inside torch.compile.
    seed: an int in [-2**63, 2**64) or a one-element int64 tensor on the input's device: the same seed gives the
        same draw on every device and in every layout.
    offset: (sample, channel) added to positions in the draw, for a batch that is cut over devices.""",
    "return_indices": """
    return_indices: also return the row-major position of each chosen element in the input's spatial plane (int64).""",
    "average": """
    ceil_mode: round the output size up; a window still may not start in the padding behind the input.
    count_include_pad: count padding in the divisor.
    divisor_override: divide by this number instead; 0 is refused.
    dilation: spacing of the window's elements.""",
}

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
    input: ``(N, C, *spatial)`` with any number (at least one) of spatial axes, float16, bfloat16, float32 or float64.
    keepdim: keep the spatial axes, with size 1.""",
}

PAPERS = {
    "mixed": "Lee, Gallagher, Tu: Generalizing pooling functions in convolutional neural networks (AISTATS 2016).\n"
    "    Possibly patented (UCSD SD2016-053, status unknown).",
    "stochastic": "Zeiler, Fergus: Stochastic pooling for regularization of deep convolutional neural networks (2013).",
    "spatial_pyramid": "He, Zhang, Ren, Sun: Spatial pyramid pooling in deep convolutional networks (TPAMI 2015).",
}

# Over the windows (3, 1) and (2, 6), and over all four.
EXAMPLES = {
    "max": ("", "{}", "tensor([3., 6.])", "tensor([6.])"),
    "avg": ("", "{}", "tensor([2., 4.])", "tensor([3.])"),
    "max_avg": ("", "torch.cat({})", "tensor([3., 6., 2., 4.])", "tensor([6., 3.])"),
    "mixed": (", alpha=0.25", "{}", "tensor([2.2500, 4.5000])", "tensor([3.7500])"),
    "stochastic": (", training=False", "{}", "tensor([2.5000, 5.0000])", "tensor([4.1667])"),
}

PYRAMID = """
Each level cuts every axis into that many bins and pools them; all levels come from one read of the input. With
``flatten="level"`` the result equals ``torch.cat([adaptive(x, level).flatten(1) for level in levels], 1)``, of length
``sum C * bins`` for any input size. Gradients of all levels are summed.

Args:
    input: ``(N, C, {axes})``, ``(C, {axes})``, or a list of ``(C, {axes})`` tensors of different sizes, which gives
        one row per tensor; float16, bfloat16, float32 or float64.
    levels: bins per axis of each level, ints or one tuple per level.
    mode: ``"max"``, ``"avg"``, ``"max_avg"`` (both, max first along the channels), ``"mixed"`` or ``"stochastic"``.
    bins: ``"adaptive"``, or ``"floor"`` for bins of ``floor(length / level)`` that drop the remainder.
    flatten: ``"level"``, ``"channel"`` for ``(N, C * B)`` with a channel's bins together, None for ``(N, C, B)``.
    options: arguments of the mode: ``alpha`` (a number, 0-d or one per channel), or ``training``, ``distribution``,
        ``temperature``, ``generator``, ``seed`` and ``offset``.

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
    name = function.__name__
    match = re.fullmatch(r"(adaptive_|global_|)(\w+?)_pool([123]d)?", name)
    assert match, name
    form, kind, rank = match[1].rstrip("_") or "sliding", match[2], int((match[3] or "2d")[0])
    place = {
        "name": name,
        "axes": ("L", "H, W", "D, H, W")[rank - 1],
        "shape": ", ".join(["1"] * (rank + 1) + ["4"]),
        "two": "2" if rank == 1 else f"({', '.join(['1'] * (rank - 1) + ['2'])})",
    }
    if kind == "spatial_pyramid":
        text = PYRAMID.format(**place, paper=PAPERS[kind])
    else:
        text = (
            _formula(form, kind)
            + _arguments(form, kind).format(**place)
            + _results(form, kind)
            + _example(form, kind, place)
        )
        text += f"\nReference:\n    {PAPERS[kind]}\n" if kind in PAPERS else ""
    function.__doc__ = f"{function.__doc__}\n{text}"
    return function


def _formula(form: str, kind: str) -> str:
    outside = " Padding is never an element." if form == "sliding" and kind != "avg" else ""
    return FORMULAS[kind] + outside + "\n"


def _arguments(form: str, kind: str) -> str:
    parts = [WINDOWS[form]]
    if form == "sliding":
        parts.append(OWN_ARGUMENTS["average"] if kind == "avg" else WINDOWS["dilation"])
    parts += [OWN_ARGUMENTS[key] for key in (kind,) if key in OWN_ARGUMENTS]
    if kind in ("max", "stochastic"):
        parts.append(OWN_ARGUMENTS["return_indices"])
    return "\nArgs:" + "".join(parts) + "\n"


def _results(form: str, kind: str) -> str:
    what = "(maximum, mean), two tensors" if kind == "max_avg" else "A tensor"
    shape = "``(N, C, 1, ...)`` or ``(N, C)``" if form == "global" else "the input's shape with the output's size"
    indices = "\n    With return_indices, (result, indices)." if kind in ("max", "stochastic") else ""
    return f"""
Returns:
    {what} of the input's dtype and layout, {shape}. An empty batch gives an empty result.{indices}

Raises:
    TypeError, ValueError: for an argument that is not as described, before anything is computed.
    RuntimeError: for a device that this build has no kernels for.
"""


def _example(form: str, kind: str, place: dict[str, str]) -> str:
    options, shown, by_window, overall = EXAMPLES[kind]
    windows = "" if form == "global" else f", {place['two']}"
    pooled = shown.format(f"fastpool.{place['name']}(x{windows}{options})")
    return f"""
Example:
    >>> import torch, fastpool
    >>> x = torch.tensor([3.0, 1.0, 2.0, 6.0]).reshape({place["shape"]})
    >>> {pooled}.flatten()
    {overall if form == "global" else by_window}
"""
