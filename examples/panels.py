"""Pictures of maps: numbers in cells, images on a common scale."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

# With few colors, and so a small file.
MAGMA = colormaps["magma"].resampled(48)
INK, GRAY, ACCENT = "#1f2933", "#616e7c", "#c2410c"
VALUES = LinearSegmentedColormap.from_list("values", ["#f8fafc", "#bfdbfe", "#3b82f6", "#1e3a8a"])
GRADIENTS = LinearSegmentedColormap.from_list("gradients", ["#6b21a8", "#f8fafc", "#ea580c"])


def figure(width: float, height: float) -> Figure:
    made = Figure(figsize=(width, height), layout="constrained")
    made.get_layout_engine().set(w_pad=0.1, h_pad=0.1, wspace=0.02, hspace=0.02)
    return made


def heading(axis: Axes, title: str, caption: str = "", size: float = 15, width: int = 33, lines: int = 2) -> None:
    """A bold title and, below it, a smaller caption with room for `lines` lines, over the left edge."""
    small = 0.68 * size
    pad = 6 + 1.25 * small * lines
    axis.set_title(title, fontsize=size, fontweight="bold", color=INK, loc="left", pad=pad)
    axis.annotate(
        textwrap.fill(caption, width), (0, 1), xytext=(0, pad - 3), xycoords="axes fraction",
        textcoords="offset points", family="monospace", fontsize=small, color=GRAY, va="top", annotation_clip=False,
    )  # fmt: skip


def image(axis: Axes, values: Tensor | np.ndarray, norm: Normalize | None = None) -> None:
    axis.axis("off")
    axis.imshow(values, cmap=MAGMA, norm=norm, interpolation="nearest")


def cells(axis: Axes, values: Tensor, top: float, size: float, signed: bool = False) -> None:
    """A map with its numbers: white is 0, the darkest color is `top`."""
    rows, columns = values.shape
    colors = (
        ScalarMappable(TwoSlopeNorm(0, -top, top), GRADIENTS) if signed else ScalarMappable(Normalize(0, top), VALUES)
    )
    digits = next((n for n in (0, 1) if ((values * 10**n).round() - values * 10**n).abs().max() < 1e-4), 2)
    axis.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values.numpy()):
        color = colors.to_rgba(value)
        axis.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="#cbd2d9", linewidth=1))
        dark = np.dot(color[:3], (0.299, 0.587, 0.114)) < 0.6
        text = "0" if value == 0 else f"{value:.{digits}f}".replace("-", "−")
        faint = signed and value == 0
        axis.text(
            column + 0.5, row + 0.52, text, ha="center", va="center", fontsize=size,
            color="white" if dark else "#b8c1cc" if faint else INK,
        )  # fmt: skip


def frame(axis: Axes, row: float, column: float, height: float, width: float, **style) -> None:
    options = dict(fill=False, edgecolor=ACCENT, linewidth=3.5, clip_on=False, zorder=3, joinstyle="round")
    axis.add_patch(Rectangle((column, row), width, height, **options | style))


def lattice(axis: Axes, rows: Sequence[float], columns: Sequence[float], **style) -> None:
    """Lines between bins, at these rows and columns."""
    for row in rows:
        axis.plot([columns[0], columns[-1]], [row, row], clip_on=False, solid_capstyle="projecting", **style)
    for column in columns:
        axis.plot([column, column], [rows[0], rows[-1]], clip_on=False, solid_capstyle="projecting", **style)


def colorbar(made: Figure, axis: Axes, colors: Colormap, low: float, high: float, label: str) -> None:
    """In the place of a panel."""
    axis.axis("off")
    strip = axis.inset_axes((0.05, 0.5, 0.9, 0.12))
    bar = made.colorbar(ScalarMappable(Normalize(low, high), colors), cax=strip, orientation="horizontal")
    bar.set_label(label, fontsize=13, color=GRAY)
    bar.ax.tick_params(labelsize=12, colors=GRAY)
    bar.outline.set_visible(False)


def plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[:].set_color(GRAY)
    axis.tick_params(labelsize=13, colors=GRAY)
    axis.xaxis.label.set_color(GRAY)
