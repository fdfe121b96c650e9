"""
Every pooling, in pictures
==========================

What does a pooling keep of a feature map, and where does its gradient go? This program trains nothing. It draws a
photograph's feature map and what each kind of pooling makes of it, then the same with numbers small enough to follow
by hand: a random 6x6 map, its windows of 2x2, the draws of stochastic pooling, blends between average and maximum, the
bins of a spatial pyramid, and the gradient of one output.

The table that it prints has one window, pooled by fastpool and by the formula in NumPy.

The photograph is scikit-learn's ``china.jpg``, by danielbuechele, CC BY 2.0.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import program
import torch
import torch.nn.functional as F
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from panels import ACCENT, GRADIENTS, GRAY, INK, VALUES, cells, figure, frame, heading, image, lattice
from sklearn.datasets import load_sample_image
from torch import Tensor

import fastpool.functional as fp
import fastpool.nn as fnn

# %%
# The poolings
# ------------
# A row has a title, the call, and the formula in NumPy, of which ``w`` is one window. Both are evaluated as they stand,
# so what is printed below a picture is what drew it. ``k`` is the side of the windows.


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
    "lp": Kind("Power", "lp_pool2d(x, 2, k)", "np.sqrt((w**2).sum())"),
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
    result = eval(call, {**vars(fp), **vars(fnn), **filters(k), "x": x, "k": k})
    return torch.cat(result, 1) if isinstance(result, tuple) else result


def shown(call: str, k: int = 2) -> str:
    return re.sub(r"\bk\b", str(k), call)


# %%
# A photograph's feature map
# --------------------------
# What a first convolution and its ReLU might find: places that grow brighter towards the right. One scale for all
# panels, so that their brightness compares; its square root keeps weak edges visible.


def vertical_edges(photograph: np.ndarray) -> Tensor:
    gray = torch.from_numpy(photograph.copy()).float().mean(2)[None, None] / 255
    across = torch.arange(-3.0, 4.0)
    smooth = torch.exp(-(across**2) / 2)
    kernel = 3 * torch.outer(smooth, across * smooth)[None, None]
    return F.conv2d(F.pad(gray, (3, 3, 3, 3), mode="replicate"), kernel).relu()


def overview(photograph: np.ndarray, x: Tensor) -> Figure:
    norm = PowerNorm(0.5, vmin=0, vmax=4, clip=True)
    made = figure(12, 12.4)
    axes = made.subplots(4, 4)
    image(axes.flat[0], photograph)
    heading(axes.flat[0], "A photograph", f"{photograph.shape[0]} x {photograph.shape[1]} pixels")
    image(axes.flat[1], x[0, 0], norm)
    heading(axes.flat[1], "Its feature map x", "vertical edges, after a ReLU")
    for axis, kind in zip(axes.flat[2:], KINDS.values()):
        image(axis, pooled(kind.call, x, 8)[0, 0], norm)
        heading(axis, kind.title, shown(kind.call, 8))
    levels = ((32, 48), (16, 24), (8, 12), (4, 6))
    bins = fp.spatial_pyramid_pool2d(x, levels, flatten=None)[0, 0].split([rows * columns for rows, columns in levels])
    tiles = [
        F.pad(F.interpolate(level.view(1, 1, *size), (192, 288)), (3, 3, 3, 3), value=torch.nan)
        for level, size in zip(bins, levels)
    ]
    tiled = torch.cat([torch.cat(tiles[:2], 3), torch.cat(tiles[2:], 3)], 2)[0, 0, 3:-3, 3:-3]
    image(axes.flat[-1], tiled, norm)
    heading(axes.flat[-1], "Spatial pyramid", "spatial_pyramid_pool2d(x, levels)")
    bar = made.colorbar(axes.flat[1].images[0], ax=axes, location="bottom", aspect=60, shrink=0.5, extend="max")
    bar.set_label("value, the same scale in all panels", fontsize=12, color=GRAY)
    bar.set_ticks([0, 0.25, 1, 2, 4], labels=["0", "0.25", "1", "2", "4"], fontsize=12)
    return made


def main() -> None:
    options = program.start(program.parser(__doc__))
    photograph = load_sample_image("china.jpg")[11:395, 32:608]
    x = vertical_edges(photograph)
    figures = {"poolings": overview(photograph, x)}
    program.finish(options, "text", figures, {"a": 1})


if __name__ == "__main__":
    main()
