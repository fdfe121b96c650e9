"""The poolings, a row for each: what it is called, what it takes, how it is documented.

From a row follow functions and modules (`_write.py` writes them into functional.py and nn.py), checks of arguments, the
pyramid's mode, documentation and the lists of the tests. The operator `NAME_pool` computes it: csrc/reducers says how.
This file imports nothing of the package.
"""

from __future__ import annotations

import ast
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """One of a pooling's own arguments."""

    name: str
    default: str
    text: str
    annotation: str = "float"
    allowed: str = "any"  # of numbers, as `_checks.ALLOWED` calls it

    @property
    def value(self) -> Any:
        return ast.literal_eval(self.default)


class Pooling(NamedTuple):
    """`parameter`: the first argument may be a tensor, for which there is a gradient, and modules may learn it."""

    name: str
    summary: str  # of the windows that stand for {}
    formula: str
    example: tuple[str, str, str, str]  # options, what is shown, over windows (3, 1) and (2, 6), over everything
    arguments: tuple[Argument, ...] = ()
    parameter: bool = False
    learnable: str = "False"  # by default
    result_names: tuple[str, ...] = ("result",)
    paper: str = ""
    regions: bool = False  # the parameter may differ by region, too
    forms: tuple[str, ...] = ("sliding", "adaptive", "global")  # pyramids go with adaptive
    positional: bool = False  # own arguments as in torch
    indices: bool = False  # there is return_indices, with which (result, indices)
    call: str = ""  # the function of `_kinds` that takes own arguments; none: `pooled`, which takes numbers
    by_hand: bool = False  # functions and modules are not written
    module: str = ""  # the class of nn that has the constructor; none: it is written, too

    @property
    def results(self) -> int:
        return len(self.result_names)

    @property
    def title(self) -> str:
        return "".join(word.title() for word in self.name.split("_"))

    @property
    def returns(self) -> str:
        return "Pooled" if self.indices else "Tensor" if self.results == 1 else "tuple[Tensor, Tensor]"


RETURN_INDICES = Argument(
    "return_indices",
    "False",
    "also return the row-major position of each chosen element in the input's spatial plane (int64).",
    "bool",
)
PER_CHANNEL = (
    "a number, or a tensor of the input's dtype (or float32 beside half types) on its device: "
    "0-d, or ``(C,)`` for one per channel."
)

POOLINGS = (
    Pooling(
        name="avg",
        summary="The mean of {}.",
        formula="""
Each output is the mean of its window. The gradient is shared equally by the elements.""",
        example=("", "{}", "tensor([2., 4.])", "tensor([3.])"),
        call="avg_kind",
        by_hand=True,
    ),
    Pooling(
        name="max",
        summary="The largest element of {}.",
        formula="""
Each output is the largest element of its window. Of equal elements the first is chosen, NaN wins (of several the
last), and a window of only -inf gives -inf. The gradient goes to the chosen element.""",
        example=("", "{}", "tensor([3., 6.])", "tensor([6.])"),
        arguments=(RETURN_INDICES,),
        positional=True,
        indices=True,
        call="selected",
        module="Max",
    ),
    Pooling(
        name="max_avg",
        summary="The largest element and the mean of {}.",
        formula="""
Returns two tensors, the largest element and the mean of each window, from one read of the input. Ties and NaN are
resolved as in max pooling; padding is never averaged. The gradient is the sum of both.""",
        example=("", "torch.cat({})", "tensor([3., 6., 2., 4.])", "tensor([6., 3.])"),
        result_names=("maximum", "mean"),
    ),
    Pooling(
        name="mixed",
        summary="A blend of maximum and mean of {}.",
        formula="""
Each output is ``alpha * max + (1 - alpha) * mean`` of its window, the mean over the elements inside the input.
The gradient g gives ``alpha * g`` to the largest element and ``(1 - alpha) * g / n`` to each of the n elements;
``alpha`` receives ``sum g * (max - mean)`` over the outputs that share it.""",
        example=(", alpha=0.25", "{}", "tensor([2.2500, 4.5000])", "tensor([3.7500])"),
        arguments=(
            Argument(
                "alpha",
                "0.5",
                (
                    "a number, or a tensor of the input's dtype (or float32 beside half types) on its device: "
                    "0-d, ``(C,)`` for one per channel, or with the output's number of axes, each 1 or equal, "
                    "for one per region. Values outside [0, 1] are allowed."
                ),
                "float | Tensor",
            ),
        ),
        parameter=True,
        paper="Lee, Gallagher, Tu: Generalizing pooling functions in convolutional neural networks (AISTATS 2016).\n"
        "    Possibly patented (UCSD SD2016-053, status unknown).",
        regions=True,
        module="Mixed",
    ),
    Pooling(
        name="stochastic",
        summary="An element drawn from {}, or its expectation.",
        formula="""
In training each output is one element of its window, drawn with probability ``w_i / sum w``; otherwise it is the
expectation ``sum w_i x_i / sum w``. ``distribution="relu"`` has ``w_i = max(x_i, 0)`` and pools relu(x): negative
elements are never drawn, and a window without positive elements gives 0. ``"softmax"`` has
``w_i = exp((x_i - max) / temperature)``, for signed inputs. Elements of weight 0 contribute nothing; NaN wins. The
gradient in training goes to the drawn element, otherwise it is that of the formula.""",
        example=(", training=False", "{}", "tensor([2.5000, 5.0000])", "tensor([4.1667])"),
        arguments=(
            Argument(
                "training",
                "True",
                "draw (True) or take the expectation (False), which ignores seed, generator and offset and has no "
                "indices.",
                "bool",
            ),
            Argument("distribution", '"relu"', '``"relu"`` or ``"softmax"``.', "str"),
            Argument("temperature", "1.0", 'a positive number for ``"softmax"``; large ones draw evenly.'),
            Argument(
                "generator",
                "None",
                "a generator of the input's device; torch's default one otherwise. Not inside torch.compile.",
                "torch.Generator | None",
            ),
            Argument(
                "seed",
                "None",
                (
                    "an int in [-2**63, 2**64) or a one-element int64 tensor on the input's device: the same "
                    "seed gives the same draw on every device and in every layout."
                ),
                "int | Tensor | None",
            ),
            Argument(
                "offset",
                "(0, 0)",
                "(sample, channel) added to positions in the draw, for a batch that is cut over devices.",
                "Sequence[int]",
            ),
            RETURN_INDICES,
        ),
        paper="Zeiler, Fergus: Stochastic pooling for regularization of deep convolutional neural networks (2013).",
        indices=True,
        call="stochastic_kind",
        module="Stochastic",
    ),
)
