"""Pictures of maps: numbers in cells, images on a common scale."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

# With few colours, and so a small file.
MAGMA = colormaps["magma"].resampled(22)
INK, GRAY, ACCENT = "#1f2933", "#616e7c", "#c2410c"
VALUES = LinearSegmentedColormap.from_list("values", ["#f8fafc", "#bfdbfe", "#3b82f6", "#1e3a8a"])
GRADIENTS = LinearSegmentedColormap.from_list("gradients", ["#6b21a8", "#f8fafc", "#ea580c"])


def place(made: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """A panel there, in inches from the figure's upper left corner."""
    whole = made.get_size_inches()
    return made.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def heading(axis: Axes, title: str, caption: str = "", size: float = 15, lines: int = 2) -> None:
    """A bold title and, below it, a smaller caption with room for `lines` lines, over the left edge."""
    small = 0.68 * size
    pad = 6 + 1.25 * small * lines
    # A letter of DejaVu Sans Mono is 0.602 of its size wide.
    letters = int(1.1 * axis.get_window_extent().width * 72 / (axis.figure.dpi * 0.602 * small))
    axis.set_title(title, fontsize=size, fontweight="bold", color=INK, loc="left", pad=pad)
    axis.annotate(
        textwrap.fill(caption, letters), (0, 1), xytext=(0, pad - 3), xycoords="axes fraction",
        textcoords="offset points", family="monospace", fontsize=small, color=GRAY, va="top", annotation_clip=False,
    )  # fmt: skip


def image(axis: Axes, values: Tensor | np.ndarray, norm: Normalize | None = None) -> None:
    axis.axis("off")
    axis.imshow(np.asarray(values), cmap=MAGMA, norm=norm, interpolation="nearest")


def cells(axis: Axes, values: Tensor, top: float, signed: bool = False) -> None:
    """A map with its numbers: white is 0, the darkest colour is `top`."""
    rows, columns = values.shape
    colors = ScalarMappable(Normalize(-top if signed else 0, top), GRADIENTS if signed else VALUES)
    # A gradient of 1/8 takes three digits; two are enough for what no three say.
    fitting = (n for n in range(4 if signed else 2) if torch.allclose(values, values.round(decimals=n), atol=1e-5))
    digits = next(fitting, 2)
    texts = {place: written(value, digits) for place, value in np.ndenumerate(values.numpy())}
    extent = axis.get_window_extent()
    cell = min(extent.width / columns, extent.height / rows) * 72 / axis.figure.dpi
    size = min(28, 0.36 * cell, 1.36 * cell / max(map(len, texts.values())))
    axis.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", anchor="NW", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    for (row, column), text in texts.items():
        color = colors.to_rgba(values[row, column].item())
        axis.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="#cbd2d9", linewidth=1, clip_on=False))
        dark = np.dot(color[:3], (0.299, 0.587, 0.114)) < 0.6
        axis.text(
            column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=size,
            color="white" if dark else "#b8c1cc" if signed and text == "0" else INK,
        )  # fmt: skip


def written(value: float, digits: int) -> str:
    """Halves away from zero, as by hand."""
    return "0" if value == 0 else f"{value + np.copysign(1e-6, value):.{digits}f}".replace("-", "−")


def frame(axis: Axes, row: float, column: float, height: float, width: float, **style) -> None:
    options = dict(fill=False, edgecolor=ACCENT, linewidth=3.5, clip_on=False, zorder=3, joinstyle="round")
    axis.add_patch(Rectangle((column, row), width, height, **options | style))


def lattice(axis: Axes, rows: Sequence[float], columns: Sequence[float], **style) -> None:
    """Lines between bins, at these rows and columns."""
    for row in rows:
        axis.plot([columns[0], columns[-1]], [row, row], clip_on=False, solid_capstyle="projecting", **style)
    for column in columns:
        axis.plot([column, column], [rows[0], rows[-1]], clip_on=False, solid_capstyle="projecting", **style)


def colorbar(made: Figure, axis: Axes, colors: Colormap, norm: Normalize, label: str, ticks: Sequence[float]) -> None:
    bar = made.colorbar(ScalarMappable(norm, colors), cax=axis, orientation="horizontal")
    bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "−") for tick in ticks])
    bar.set_label(label, fontsize=13, color=GRAY)
    bar.ax.tick_params(labelsize=12, colors=GRAY)
    bar.outline.set_visible(False)


def plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[:].set_color(GRAY)
    axis.tick_params(labelsize=13, colors=GRAY)
    axis.xaxis.label.set_color(GRAY)
