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
    title: str = ""  # of modules, where it is not the name
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
    def class_name(self) -> str:
        return self.title or "".join(word.title() for word in self.name.split("_"))

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
    "0-d or ``(1,)``, or ``(C,)`` for one per channel."
)
MIXING = (
    "Lee, Gallagher, Tu: Generalizing pooling functions in convolutional neural networks (AISTATS 2016).\n"
    "    Possibly patented (UCSD SD2016-053, status unknown)."
)

POOLINGS = (
    Pooling(
        name="min",
        summary="The smallest element of {}.",
        formula="""
Each output is the smallest element of its window. Of equal elements the first is chosen, NaN wins (of several the
last), and a window of only inf gives inf. The gradient goes to the chosen element.""",
        example=("", "{}", "tensor([1., 2.])", "tensor([1.])"),
        arguments=(RETURN_INDICES,),
        positional=True,
        indices=True,
        call="selected",
        module="Max",
    ),
    Pooling(
        name="avg",
        summary="The mean of {}.",
        formula="""
Each output is the mean of its window; NaN and inf count as in any sum. The gradient is shared equally by the
elements.""",
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
The gradient g gives ``alpha * g`` to the largest element, of equal ones the first, and ``(1 - alpha) * g / n`` to each
of the n elements; ``alpha`` receives ``sum g * (max - mean)`` over the outputs that share it. NaN anywhere gives NaN,
and so does inf beside a factor of 0.""",
        example=(", alpha=0.25", "{}", "tensor([2.2500, 4.5000])", "tensor([3.7500])"),
        arguments=(
            Argument(
                "alpha",
                "0.5",
                (
                    "a number, or a tensor of the input's dtype (or float32 beside half types) on its device: "
                    "0-d or ``(1,)``, ``(C,)`` for one per channel, or with the output's number of axes, each 1 or "
                    "equal, for one per region. Values outside [0, 1] are allowed."
                ),
                "float | Tensor",
            ),
        ),
        parameter=True,
        paper=MIXING,
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
            Argument("distribution", '"relu"', '``"relu"`` or ``"softmax"``.', "Distribution"),
            Argument(
                "temperature", "1.0", 'a positive number for ``"softmax"``; large ones draw evenly.', allowed="positive"
            ),
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
    Pooling(
        name="soft",
        summary="The mean of {}, weighted by the soft-max of the elements.",
        formula="""
Each output is ``sum w_i x_i / sum w_i`` with ``w_i = exp(beta * x_i)``: the mean for beta = 0, towards the largest
element for large beta, towards the smallest where it is negative. The gradient g gives
``g * w_i * (1 + beta * (x_i - y)) / sum w``; ``beta`` receives ``sum g * (sum w x^2 / sum w - y^2)``, the variance
under the weights. Elements of weight 0 contribute nothing; NaN anywhere gives NaN.""",
        example=("", "{}", "tensor([2.7616, 5.9281])", "tensor([5.7615])"),
        arguments=(Argument("beta", "1.0", PER_CHANNEL, "float | Tensor"),),
        parameter=True,
        paper="Stergiou, Poppe, Kalliatakis: Refining activation downsampling with SoftPool (ICCV 2021).",
    ),
    Pooling(
        name="lse",
        title="LSE",
        summary="The log-mean-exp of {}.",
        formula="""
Each output is ``log(mean(exp(r * x))) / r``: the mean for small r, towards the largest element for large r, towards the
smallest where it is negative. The gradient g gives ``g * p_i``, ``p = softmax(r * x)``; ``r`` receives
``sum g * (sum p x - y) / r``. NaN anywhere gives NaN; -inf adds 0 to the mean, inf does where r is negative, and a
window of nothing else gives it.""",
        example=("", "{}", "tensor([2.4338, 5.3250])", "tensor([4.6859])"),
        arguments=(Argument("r", "1.0", PER_CHANNEL + " The number 0 is refused.", "float | Tensor", "nonzero"),),
        parameter=True,
        paper="Pinheiro, Collobert: From image-level to pixel-level labeling with convolutional networks (CVPR 2015).",
    ),
    Pooling(
        name="gem",
        title="GeM",
        summary="The generalised mean of {}.",
        formula="""
Each output is ``mean(max(x, eps)^p)^(1/p)``: the mean for p = 1, towards the largest element for large p. The
gradient g gives ``g * (x_i / y)^(p - 1) / n`` where x_i >= eps, else 0; ``p`` has its exact gradient, too. NaN
anywhere gives NaN, else inf gives inf.""",
        example=("", "{}", "tensor([2.4101, 4.8203])", "tensor([3.9791])"),
        arguments=(
            Argument("p", "3.0", PER_CHANNEL + " A number must be positive.", "float | Tensor", "positive"),
            Argument("eps", "1e-6", "elements are at least this: a positive number.", "float", "positive"),
        ),
        parameter=True,
        learnable="True",
        paper="Radenovic, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation (TPAMI 2018).",
    ),
    Pooling(
        name="mean_std",
        summary="The mean and the standard deviation of {}.",
        formula="""
Returns two tensors, the mean and ``sqrt(sum (x - mean)^2 / (n - correction))`` over the n elements of each window,
without cancellation; 0 where n <= correction. The gradients g of the mean and h of the deviation give ``g / n`` and
``h * (x - mean) / ((n - correction) * std)``, 0 where the deviation is 0. NaN anywhere makes both NaN, inf the
deviation.""",
        example=("", "torch.cat({})", "tensor([2., 4., 1., 2.])", "tensor([3.0000, 1.8708])"),
        arguments=(Argument("correction", "0", "taken from n: 1 for the unbiased estimate.", "float", "not negative"),),
        result_names=("mean", "std"),
        paper="Snyder, Garcia-Romero, Povey, Khudanpur: Deep neural network embeddings for text-independent speaker\n"
        "    verification (Interspeech 2017).",
    ),
    Pooling(
        name="lp",
        title="LP",
        summary="The power mean of {}, as in torch.",
        formula="""
Each output is ``(K * mean(x^p))^(1/p)``, the mean over the elements inside the input and K the window's size, clipped
taps included; ``p = inf`` and ``-inf`` give the largest and the smallest absolute value. The gradient g gives
``g * (K / n) * (x_i / y)^(p - 1)``, 0 where the sum is 0. Powers are IEEE's: NaN for negative elements and a p that is
no integer.""",
        example=("", "{}", "tensor([3.1623, 6.3246])", "tensor([7.0711])"),
        arguments=(Argument("norm_type", "2.0", "the power p, not 0.", "float", "nonzero"),),
        forms=("sliding",),
        by_hand=True,
    ),
    Pooling(
        name="gated",
        summary="A blend of maximum and mean of {}, which a learned filter mixes.",
        formula="""
Each output is ``alpha * max + (1 - alpha) * mean`` of its window with ``alpha = sigmoid(<weight, window> + bias)``, the
mean over the elements inside the input; padding counts as 0 in the product. All gradients are exact; of equal largest
elements the first has the maximum's. NaN anywhere gives NaN, and so does inf beside a factor of 0. The product is
made in float32 of half types.""",
        example=(
            ", weight=torch.zeros({two})",
            "{}",
            "tensor([2.5000, 5.0000])",
            "",
        ),
        arguments=(
            Argument(
                "weight", "", "the filter: ``(*kernel_size)``, or ``(C, *kernel_size)`` for one a channel.", "Tensor"
            ),
            Argument("bias", "None", "0-d or ``(1,)``, or ``(C,)`` for one per channel.", "Tensor | None"),
        ),
        forms=("sliding",),
        paper=MIXING,
        call="gated_kind",
        module="Gated",
    ),
    Pooling(
        name="tree",
        summary="A learned tree of filters over {}.",
        formula="""
A leaf m gives ``<leaves[m], window>``, a node ``s * left + (1 - s) * right``, ``s = sigmoid(<gates[m], window>)``.
Padding counts as 0. All gradients are exact. NaN anywhere gives NaN, and so does inf beside a factor of 0. The products
are made in float32 of half types.""",
        example=(
            ", leaves=torch.ones(2, {sizes}), gates=torch.zeros(1, {sizes})",
            "{}",
            "tensor([4., 8.])",
            "",
        ),
        arguments=(
            Argument("leaves", "", "2 or 4 filters, ``(2 or 4, [C,] *kernel_size)``.", "Tensor"),
            Argument(
                "gates",
                "",
                "1 or 3 filters, the root's first: ``(1 or 3, [C,] *kernel_size)``.",
                "Tensor",
            ),
        ),
        forms=("sliding",),
        paper=MIXING,
        call="tree_kind",
        module="Tree",
    ),
)
