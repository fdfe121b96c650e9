"""The poolings, a row for each: its title, its call, its formula in NumPy; and a small picture for each kind.

Calls and formulas are evaluated as they stand, so what is printed above a picture is what drew it. `k` is the side of
the windows, `w` one window.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from panels import cells, frame, heading, image, place
from torch import Tensor

import fastpool.functional as fp
import fastpool.nn as fnn

WINDOW = (0, 1)  # the row and column of an output
CORNER = tuple(slice(2 * index, 2 * index + 2) for index in WINDOW)  # its window in a map


class Kind(NamedTuple):
    title: str
    call: str
    formula: str


KINDS = {
    "max": Kind("Maximum", "max_pool2d(x, k)", "w.max()"),
    "min": Kind("Minimum", "min_pool2d(x, k)", "w.min()"),
    "avg": Kind("Average", "avg_pool2d(x, k)", "w.mean()"),
    "mixed": Kind("Mixed", "mixed_pool2d(x, k, alpha=0.5)", "0.5 * w.max() + 0.5 * w.mean()"),
    "draw": Kind("Stochastic draw", "stochastic_pool2d(x, k, seed=0)", "w.flat[np.argmax(w.cumsum() > u * w.sum())]"),
    "expectation": Kind("Expectation", "stochastic_pool2d(x, k, training=False)", "(w * w).sum() / w.sum()"),
    "soft": Kind("Soft", "soft_pool2d(x, k, beta=1)", "(np.exp(w) * w).sum() / np.exp(w).sum()"),
    "lse": Kind("Log-mean-exp", "lse_pool2d(x, k, r=1)", "np.log(np.exp(w).mean())"),
    "gem": Kind("Generalised mean", "gem_pool2d(x, k, p=3)", "(w**3).mean() ** (1 / 3)"),
    "lp": Kind("Root mean square", "lp_pool2d(x, 2, k) / k", "np.sqrt((w**2).mean())"),
    "std": Kind("Deviation", "mean_std_pool2d(x, k)[1]", "w.std()"),
    "gated": Kind(
        "Gated",
        "gated_pool2d(x, k, weight=weight)",
        "sigmoid(np.vdot(weight, w)) * (w.max() - w.mean()) + w.mean()",
    ),
    "tree": Kind(
        "Tree",
        "tree_pool2d(x, k, leaves=leaves, gates=gates)",
        "sigmoid(np.vdot(gates, w)) * np.vdot(leaves[0] - leaves[1], w) + np.vdot(leaves[1], w)",
    ),
}


def filters(k: int) -> dict[str, Tensor]:
    """What gated and tree pooling would learn. The gate opens where the window is brighter on its right."""
    right = torch.cat([torch.zeros(k, k // 2), torch.ones(k, k // 2)], 1)
    weight = (2 * right - 1) * 4 / k**2
    return {"weight": weight, "gates": weight[None], "leaves": torch.stack([right, 1 - right]) * 2 / k**2}


def pooled(call: str, x: Tensor, k: int = 2) -> Tensor:
    result = eval(call, {**vars(fp), **filters(k), "x": x, "k": k, "pool": fnn.RandomMixedPool2d(k)})
    return torch.cat(result, 1) if isinstance(result, tuple) else result


def shown(call: str, k: int = 2) -> str:
    return re.sub(r"\bk\b", str(k), call)


def gradient_of(output: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(output(x), x)[0]


class Page(NamedTuple):
    """Calls, and a title for each map that they give; `of`: the maps whose output has the gradient.

    `side` is the input's, `window` the row, column, height and width that are framed in it.
    """

    calls: tuple[str, ...]
    titles: tuple[str, ...]
    of: tuple[int, ...] = (0,)
    side: int = 4
    window: tuple[int, int, int, int] = (0, 2, 2, 2)
    output: tuple[int, int] = WINDOW


NAMES = ("max", "min", "avg", "mixed", "soft", "lse", "gem", "gated", "tree")
PAGES = {name: Page((KINDS[name].call,), (KINDS[name].title,)) for name in NAMES} | {
    "max_avg": Page(("max_avg_pool2d(x, k)",), ("Maximum", "Average"), of=(0, 1)),
    "random_mixed": Page(
        ("pool.train()(x)", "pool.train()(x)", "pool.eval()(x)"), ("Training", "Training again", "Evaluation"), of=(2,)
    ),
    "stochastic": Page((KINDS["draw"].call, KINDS["expectation"].call), ("A draw", "Expectation")),
    "mean_std": Page(("mean_std_pool2d(x, k)",), ("Mean", "Deviation"), of=(1,)),
    "lp": Page(("lp_pool2d(x, 2, k)",), ("Power",)),
    "spatial_pyramid": Page(("spatial_pyramid_pool2d(x, (2, 1))",), ("A vector",), output=(1, 0)),
    "sppf": Page(("sppf2d(x, 3, repeats=2)",), ("", "3x3 maxima", "5x5 maxima"), (2,), 6, (0, 1, 5, 5), (2, 3)),
    "adaptive": Page(("adaptive_avg_pool2d(x, 3)",), ("Average of bins",), (0,), 5, (1, 1, 3, 3), (1, 1)),
    "global": Page(("global_avg_pool(x)",), ("Average of all",), (0,), 4, (0, 0, 4, 4), (0, 0)),
}


def maps_of(page: Page, x: Tensor) -> list[Tensor]:
    """Of calls that draw from torch's generator each finds it in another state."""
    maps = []
    for seed, call in enumerate(page.calls):
        torch.manual_seed(seed)
        y = pooled(call, x)
        maps += [y.mT] if y.dim() == 2 else y[0]
    return maps


def picture(page: Page, x: Tensor) -> Figure:
    x, top = x[..., : page.side, : page.side], x.max().item()
    maps = maps_of(page, x)
    captions = [*map(shown, page.calls)] if len(page.calls) == len(maps) else [shown(page.calls[0])] * len(maps)
    parts = [panel for panel in zip(maps, page.titles, captions, range(len(maps))) if panel[1]]
    made = Figure(figsize=(3 * (len(parts) + 2), 3.7))
    first, *between, last = [place(made, 0.15 + 3 * column, 0.85, 2.7, 2.7) for column in range(len(parts) + 2)]
    cells(first, x[0, 0], top)
    frame(first, *page.window)
    heading(first, "Input x", "framed: one window", 18)
    for axis, (values, title, caption, index) in zip(between, parts):
        cells(axis, values, top)
        if index in page.of:
            frame(axis, *page.output, 1, 1)
        heading(axis, title, caption, 18)
    gradient = gradient_of(lambda x: sum(maps_of(page, x)[index][page.output] for index in page.of), x)[0, 0]
    cells(last, gradient, 1, signed=True)
    frame(last, *page.window)
    heading(last, "Gradient", "of the framed output" if len(page.of) == 1 else "of the sum of both", 18)
    return made


def attention_picture(photograph: np.ndarray) -> Figure:
    """Attention weighs all positions, which a photograph shows better than a small map.

    Queries and keys are the pixels' colours, less their mean and of length 1; values are the colours themselves.
    """
    colors = fp.avg_pool2d(torch.from_numpy(photograph.copy()).float().permute(2, 0, 1)[None] / 255, 8)
    centred = colors - colors.mean((2, 3), keepdim=True)
    x = torch.cat([F.normalize(centred, dim=1), colors], 1)
    pool = fnn.AttentionPool2d(6, 3, scale=100.0)
    for convolution, chosen in ((pool.query, 0), (pool.key, 0), (pool.value, 3)):
        torch.nn.init.zeros_(convolution.bias)
        convolution.weight.data = torch.eye(6)[chosen : chosen + 3, :, None, None]
    with torch.no_grad():
        y = pool(x)
    row, column = 10, 24  # on the upper roof
    gradient = gradient_of(lambda x: pool(x)[0, 0, row, column], x)[0, 3]
    made = Figure(figsize=(12, 3.35))
    first, second, third = [place(made, 0.15 + 3.97 * column, 0.65, 3.8, 2.53) for column in range(3)]
    image(first, x[0, 3:].permute(1, 2, 0))
    heading(first, "Input x", "48 x 72 colours", 18, lines=1)
    image(second, y[0].permute(1, 2, 0))
    heading(second, "Attention", f"AttentionPool2d(6, 3, scale={pool.scale:g})", 18, lines=1)
    image(third, gradient, PowerNorm(0.5, 0, gradient.max().item()))
    heading(third, "Gradient", "of the framed output", 18, lines=1)
    for axis in (first, second, third):
        frame(axis, row - 1.5, column - 1.5, 3, 3, edgecolor="white", linewidth=5)
        frame(axis, row - 1.5, column - 1.5, 3, 3, linewidth=2.5)
    return made
