"""Draws a feature map of a photograph beside its poolings: python examples/picture.py [FILE]"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

import fastpool.functional as fp

WINDOW = 8
LEVELS = ((32, 48), (16, 24), (8, 12), (4, 6))


def draw(path: Path) -> None:
    photograph = load_sample_image("china.jpg")[11:395, 32:608]
    x = vertical_edges(photograph)
    maxima = fp.max_pool2d(x, WINDOW)
    panels = [
        ("A photograph", "384 x 576 pixels", photograph),
        ("Its feature map x", "vertical edges, after ReLU", x),
        ("Max", f"max_pool2d(x, {WINDOW})", maxima),
        ("Average", f"avg_pool2d(x, {WINDOW})", fp.avg_pool2d(x, WINDOW)),
        ("Mixed", f"mixed_pool2d(x, {WINDOW}, alpha=0.5)", fp.mixed_pool2d(x, WINDOW, alpha=0.5)),
        ("Stochastic, training", f"stochastic_pool2d(x, {WINDOW})", fp.stochastic_pool2d(x, WINDOW, seed=0)),
        (
            "Stochastic, evaluation",
            f"stochastic_pool2d(x, {WINDOW}, training=False)",
            fp.stochastic_pool2d(x, WINDOW, training=False),
        ),
        ("Spatial pyramid", "spatial_pyramid_pool2d(x, levels)", pyramid(x)),
    ]
    # One scale for all, so that brightness compares; the root keeps weak edges visible.
    norm = PowerNorm(0.5, vmin=0, vmax=maxima.quantile(0.995).item(), clip=True)
    figure = Figure(figsize=(14, 5.8), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1, wspace=0.02, hspace=0.03)
    for axis, panel in zip(figure.subplots(2, 4).flat, panels):
        show(axis, *panel, norm)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def vertical_edges(photograph: np.ndarray) -> Tensor:
    """What a first convolution and its ReLU might find: places that grow brighter towards the right."""
    gray = torch.from_numpy(photograph.copy()).float().mean(2)[None, None] / 255
    across = torch.arange(-3.0, 4.0)
    smooth = torch.exp(-(across**2) / 2)
    kernel = torch.outer(smooth, across * smooth)[None, None]
    return F.conv2d(F.pad(gray, (3, 3, 3, 3), mode="replicate"), kernel).relu()


def pyramid(x: Tensor) -> Tensor:
    """The levels of one call as four tiles of one size, a blank line between them."""
    bins = fp.spatial_pyramid_pool2d(x, LEVELS, flatten=None)[0, 0].split([rows * columns for rows, columns in LEVELS])
    tiles = [
        F.pad(F.interpolate(level.view(1, 1, *size), (192, 288)), (3, 3, 3, 3), value=torch.nan)
        for level, size in zip(bins, LEVELS)
    ]
    return torch.cat([torch.cat(tiles[:2], 3), torch.cat(tiles[2:], 3)], 2)[..., 3:-3, 3:-3]


def show(axis: Axes, title: str, subtitle: str, values: Tensor | np.ndarray, norm: PowerNorm) -> None:
    axis.set_title(title, fontsize=13, fontweight="bold", loc="left", pad=19)
    axis.text(0, 1.02, subtitle, transform=axis.transAxes, fontsize=9.5, color="0.35", va="bottom")
    axis.axis("off")
    axis.imshow(
        values[0, 0] if isinstance(values, Tensor) else values, cmap="magma", norm=norm, interpolation="nearest"
    )


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/poolings.png"))
