"""
Every pooling, in pictures
==========================

What does a pooling keep of a feature map, and where does its gradient go? This program trains nothing. It draws a
photograph's feature map and what each kind of pooling makes of it, then the same with numbers small enough to follow
by hand: a random 6x6 map in windows of 2x2, several draws of stochastic pooling, blends between average and maximum,
the bins of a spatial pyramid, and where a gradient goes. Last comes a small picture for each kind.

The table has one window, pooled by fastpool and by the formula in NumPy: they agree in all six digits shown. Of 10,000
draws of that window each element came as often as its probability says, within 1.3 standard errors.

``kinds.py``, beside this program, has the poolings: a row for each, with its call and its formula. Both are evaluated
as they stand, so what is printed above a picture is what drew it.

The photograph is scikit-learn's ``china.jpg``, by danielbuechele, CC BY 2.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import kinds
import numpy as np
import panels
import program
import torch
import torch.nn.functional as F
from kinds import CORNER, KINDS, WINDOW, filters, gradient_of, pooled, shown
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from panels import cells, colorbar, frame, heading, image, lattice, place, plain
from skimage.data import camera
from sklearn.datasets import load_sample_image
from torch import Tensor

import fastpool.functional as fp

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
    made = Figure(figsize=(12, 11.5))
    axes = [place(made, 0.15 + 2.97 * column, 0.75 + 2.65 * row, 2.8, 1.87) for row in range(4) for column in range(4)]
    image(axes[0], photograph // 8 * 8 + 4)  # with few colours, and so a small file
    heading(axes[0], "A photograph", f"{photograph.shape[0]} x {photograph.shape[1]} pixels")
    image(axes[1], x[0, 0], norm)
    heading(axes[1], "Its feature map x", "vertical edges, after a ReLU")
    for axis, kind in zip(axes[2:], KINDS.values()):
        image(axis, pooled(kind.call, x, 8)[0, 0], norm)
        heading(axis, kind.title, shown(kind.call, 8))
    axes[3].text(
        36, 24, "after a ReLU nearly\nevery window has a 0", ha="center", va="center", fontsize=12, color="white"
    )
    levels = ((32, 48), (16, 24), (8, 12), (4, 6))
    bins = fp.spatial_pyramid_pool2d(x, levels, flatten=None)[0, 0].split([rows * columns for rows, columns in levels])
    tiles = [
        F.pad(F.interpolate(level.view(1, 1, *size), (192, 288)), (3, 3, 3, 3), value=torch.nan)
        for level, size in zip(bins, levels)
    ]
    tiled = torch.cat([torch.cat(tiles[:2], 3), torch.cat(tiles[2:], 3)], 2)[0, 0, 3:-3, 3:-3]
    image(axes[-1], tiled, norm)
    heading(axes[-1], "Spatial pyramid", "spatial_pyramid_pool2d(x, levels)")
    strip = place(made, 3.5, 10.75, 5, 0.18)
    colorbar(made, strip, panels.MAGMA, norm, "value, on the same scale in all panels", (0, 0.25, 1, 2, 4))
    return made


# %%
# Numbers to follow by hand
# -------------------------
# The same calls on a random 6x6 map, and what a gradient of 1 at one output sends back to its window. Selections
# (maximum, minimum, draw) send all of it to one element, means share it out, and what a deviation sends back adds up to
# nothing.


def numbers(x: Tensor) -> Figure:
    made = Figure(figsize=(12, 7.65))
    top = x.max().item()
    axis = place(made, 0.15, 0.75, 3.82, 3.82)
    cells(axis, x[0, 0], top)
    heading(axis, "A map x", "random, after a ReLU; windows of 2x2", 18, lines=1)
    lattice(axis, range(0, 7, 2), range(0, 7, 2), color=panels.INK, linewidth=2.5)
    places = [(row, column) for row in (0, 1) for column in range(2, 6)] + [(2, column) for column in range(6)]
    for (row, column), kind in zip(places, KINDS.values()):
        axis = place(made, 0.15 + 1.985 * column, 0.75 + 2.53 * row, 1.8, 1.8)
        cells(axis, pooled(kind.call, x)[0, 0], top)
        heading(axis, kind.title, shown(kind.call), 12.5)
    colorbar(made, place(made, 10.2, 6.5, 1.55, 0.2), panels.VALUES, Normalize(0, top), "value", (0, 1, 2, 3))
    return made


def gradients(x: Tensor) -> Figure:
    made = Figure(figsize=(12, 8.6))
    axes = [place(made, 0.15 + 2.37 * column, 0.6 + 2.85 * row, 2.2, 2.2) for row in range(3) for column in range(5)]
    cells(axes[0], x[0, 0][CORNER], x.max().item())
    heading(axes[0], "One window", "of the map x", 14.5, lines=1)
    for axis, kind in zip(axes[1:], KINDS.values()):
        gradient = gradient_of(lambda x, kind=kind: pooled(kind.call, x)[0, 0][WINDOW], x)[0, 0]
        cells(axis, gradient[CORNER], 1, signed=True)
        total = round(gradient.sum().item(), 2) + 0.0
        heading(axis, kind.title, f"gradients; sum {total:.2f}", 14.5, lines=1)
    axes[-1].remove()
    colorbar(made, place(made, 9.75, 7.3, 1.95, 0.22), panels.GRADIENTS, Normalize(-1, 1), "gradient", (-1, 0, 1))
    return made


# %%
# What chance does
# ----------------
# One seed gives one draw, the same on every machine. Over many draws an element comes as often as its share of the
# window's sum says, up to the error of counting: after n draws a frequency of probability p has the standard error
# ``sqrt(p * (1 - p) / n)``.

DRAWS = 10_000


class Count(NamedTuple):
    value: float
    probability: float
    hits: np.ndarray

    @property
    def text(self) -> str:
        expected, error = self.probability * DRAWS, (self.probability * (1 - self.probability) * DRAWS) ** 0.5
        return f"{self.value:.1f} came {self.hits.sum():,} times, expected {expected:,.0f} ± {error:.0f}"


def counts(window: Tensor) -> list[Count]:
    """All draws are one call: every member of a batch has a random number of its own."""
    _, chosen = fp.stochastic_pool2d(window.expand(DRAWS, 1, 2, 2), 2, seed=0, return_indices=True)
    shares = (window / window.sum()).flatten().tolist()
    return [
        Count(value, share, (chosen == tap).flatten().numpy())
        for tap, (value, share) in enumerate(zip(window.flatten().tolist(), shares))
    ]


def draws(x: Tensor, counted: list[Count]) -> Figure:
    made = Figure(figsize=(12, 8.1))
    calls = [f"stochastic_pool2d(x, k, seed={seed})" for seed in range(4)] + [KINDS["expectation"].call]
    for column, call in enumerate(calls):
        axis = place(made, 0.15 + 2.37 * column, 0.8, 2.2, 2.2)
        cells(axis, pooled(call, x)[0, 0], x.max().item())
        frame(axis, *WINDOW, 1, 1)
        heading(axis, "Expectation" if column == 4 else f"Draw {column + 1}", shown(call), 15.5)
    left, right = place(made, 0.15, 4.3, 2.2, 2.2), place(made, 3.2, 3.95, 4.75, 3.4)
    cells(left, x[0, 0][CORNER], x.max().item())
    frame(left, 0, 0, 2, 2)
    heading(left, "Its window in x", f"drawn {DRAWS:,} times", 15.5, lines=1)
    steps = np.arange(1, DRAWS + 1)
    for count, color in zip(counted, ("#1d4ed8", "#0f766e", "#c2410c", "#6b7280")):
        error = np.sqrt(count.probability * (1 - count.probability) / steps)
        right.fill_between(steps, count.probability - error, count.probability + error, color=color, alpha=0.18, lw=0)
        right.plot(steps, count.hits.cumsum() / steps, linewidth=2, color=color)
        right.annotate(count.text, (DRAWS, count.probability), xytext=(8, 0), textcoords="offset points", fontsize=12,
                       va="center", color=color, annotation_clip=False)  # fmt: skip
    plain(right)
    right.set(xscale="log", xlim=(10, DRAWS), ylim=(-0.02, 0.68))
    right.set_xticks([10, 100, 1000, 10_000], ["10", "100", "1,000", "10,000"])
    right.set_xlabel("draws", fontsize=13)
    heading(right, "How often each element came", "shaded: probability ± one standard error", 15.5, lines=1)
    return made


# %%
# Between average and maximum
# ---------------------------
# Mixed pooling blends the two; the parameters of soft pooling, log-mean-exp and the generalised mean lead from one to
# the other in other ways. All of them can be learned.


def mixing(x: Tensor, window: Tensor) -> Figure:
    made = Figure(figsize=(12, 7.8))
    for column, alpha in enumerate((0, 0.25, 0.5, 0.75, 1)):
        axis = place(made, 0.15 + 2.37 * column, 0.6, 2.2, 1.84)
        image(axis, fp.mixed_pool2d(x[..., :240, 64:352], 8, alpha=alpha)[0, 0], PowerNorm(0.5, 0, 4, clip=True))
        heading(axis, f"alpha = {alpha}", {0: "the average", 1: "the maximum"}.get(alpha, "mixed_pool2d"), 16, lines=1)
    axis = place(made, 0.6, 3.3, 11.2, 3.75)
    plain(axis)
    steps = np.geomspace(0.1, 100, 200)
    curves = {
        "soft pooling, beta": (lambda value: fp.soft_pool2d(window, 2, beta=value), "#c2410c", 2.5, (0, 14), "right"),
        "log-mean-exp, r": (lambda value: fp.lse_pool2d(window, 2, r=value), "#1d4ed8", 2.5, (8, -22), "left"),
        "generalised mean, p": (lambda value: fp.gem_pool2d(window, 2, p=value), "#0f766e", 0.6, (14, -4), "left"),
    }
    for name, (pooling, color, at, shift, side) in curves.items():
        axis.plot(steps, [pooling(step).item() for step in steps], color=color, linewidth=3)
        axis.annotate(name, (at, pooling(at).item()), xytext=shift, textcoords="offset points", fontsize=15,
                      color=color, ha=side)  # fmt: skip
    for name, level in (("maximum", window.max().item()), ("average", window.mean().item())):
        axis.axhline(level, color=panels.GRAY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axis.annotate(
            name, (100, level), xytext=(0, 5), textcoords="offset points", fontsize=14, color=panels.GRAY, ha="right"
        )
    axis.set(xscale="log", xlim=(0.1, 100), ylim=(0, 1.12 * window.max().item()))
    axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axis.set_xlabel("parameter", fontsize=13)
    values = ", ".join(f"{value:.1f}" for value in window.flatten().tolist())
    heading(axis, "One window, pooled with growing parameters", f"the window's elements: {values}", 16, lines=1)
    return made


# %%
# Bins of a pyramid
# -----------------
# Feature maps of different size and shape give vectors of the same length, in one call that takes both in a list. Every
# number is the maximum of one bin.

LEVELS = {4: "#ca8a04", 2: "#c2410c", 1: "#7e22ce"}


def pyramid(maps: list[Tensor]) -> Figure:
    vectors = fp.spatial_pyramid_pool2d([x[0] for x in maps], tuple(LEVELS))
    bins = [(level, row, column) for level in LEVELS for row in range(level) for column in range(level)]
    made = Figure(figsize=(12, 9.2))
    for index, (x, vector) in enumerate(zip(maps, vectors.tolist())):
        height, width = x.shape[2:]
        side = 3.6 / max(height, width * 3.6 / 5)
        left = place(made, 0.15, 0.65 + 4.6 * index, width * side, height * side)
        image(left, fp.max_pool2d(x, 4)[0, 0], PowerNorm(0.5, vmin=0, vmax=4, clip=True))
        left.set(xlim=(-0.5, width / 4 - 0.5), ylim=(height / 4 - 0.5, -0.5))
        heading(left, f"A map of {height} x {width}", "bins of 4x4, 2x2, 1x1", 16, lines=1)
        for number, (level, row, column) in enumerate(bins, 1):
            tall, wide = height / 4 / level, width / 4 / level
            line, size = {4: (1, 10), 2: (2.5, 12), 1: (4, 15)}[level]
            frame(left, row * tall - 0.5, column * wide - 0.5, tall, wide, edgecolor="white", linewidth=line)
            left.text((column + 0.5) * wide - 0.5, (row + 0.5) * tall - 0.5, number, fontsize=size, color="white",
                      ha="center", va="center", zorder=4,
                      bbox=dict(boxstyle="circle", facecolor=LEVELS[level], edgecolor="white"))  # fmt: skip
        right = place(made, 5.75, 0.65 + 4.6 * index, 6.1, 3.5)
        plain(right)
        right.bar(range(1, 22), vector, color=[LEVELS[level] for level, *_ in bins], width=0.8)
        right.set(xlim=(0.3, 21.7), ylim=(0, 1.05 * vectors.max().item()))
        right.set_xticks(range(1, 22), range(1, 22), fontsize=11)
        heading(right, "Its vector of 21 maxima", "spatial_pyramid_pool2d(maps, (4, 2, 1))", 16, lines=1)
    return made


# %%
# One window, by fastpool and by the formula
# ------------------------------------------
# The draw needs the random number that the library promises for a seed and a position: Philox-4x32-10 (Salmon et al.
# 2011), of which ten lines are enough here.


def uniform(seed: int, position: int) -> float:
    a, b, c, d = position // 4, 0, 0, 0
    keys = [seed % 2**32, seed >> 32]
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (right >> 32) ^ b ^ keys[0], right % 2**32, (left >> 32) ^ d ^ keys[1], left % 2**32
        keys = [(key + weyl) % 2**32 for key, weyl in zip(keys, (0x9E3779B9, 0xBB67AE85))]
    return ((a, b, c, d)[position % 4] >> 8) * 2.0**-24


def compared(x: Tensor) -> Iterator[tuple[str, str, float, float]]:
    w = x[0, 0][CORNER].double().numpy()
    names = {name: value.double().numpy() for name, value in filters(2).items()}
    names |= {"np": np, "w": w, "u": uniform(0, 3 * WINDOW[0] + WINDOW[1]), "sigmoid": lambda z: 1 / (1 + np.exp(-z))}
    for kind in KINDS.values():
        yield (
            shown(kind.call),
            kind.formula,
            pooled(kind.call, x)[0, 0][WINDOW].item(),
            float(eval(kind.formula, names)),
        )


def main() -> None:
    options = program.start(program.parser(__doc__))
    x = (torch.randn(1, 1, 6, 6) + 1).relu().mul(10).round().div(10)
    window = x[..., CORNER[0], CORNER[1]]
    photographs = [load_sample_image("china.jpg")[11:395, 32:608], camera()[:, 120:440, None]]
    maps = [vertical_edges(photograph) for photograph in photographs]
    counted = counts(window)
    figures = {
        "poolings": lambda: overview(photographs[0], maps[0]),
        "poolings-numbers": lambda: numbers(x),
        "poolings-gradients": lambda: gradients(x),
        "poolings-draws": lambda: draws(x, counted),
        "poolings-mixing": lambda: mixing(maps[0], window),
        "poolings-pyramid": lambda: pyramid(maps),
        "poolings-attention": lambda: kinds.attention_picture(photographs[0]),
    } | {f"poolings-{name}": lambda page=page: kinds.picture(page, x) for name, page in kinds.PAGES.items()}
    made = {}
    for step, (name, draw) in enumerate(figures.items(), 1):
        made[name] = draw()
        program.progress("pictures", step, len(figures), name)

    rows = list(compared(x))
    values = ", ".join(f"{value:.1f}" for value in window.flatten().tolist())
    lines = [(call, f"{own:.6f}", f"{theirs:.6f}") for call, _, own, theirs in rows]
    width = max(len(call) for call, *_ in rows)
    text = "\n\n".join([
        f"One window w of 2x2 with the elements {values}:",
        program.table(("call", "fastpool", "NumPy"), lines),
        program.table(("the same by NumPy",), [(f"{call:<{width}}   {formula}",) for call, formula, *_ in rows]),
        f"{DRAWS:,} draws of the window:\n" + "\n".join(count.text for count in counted),
    ])  # fmt: skip
    program.finish(options, text, made, {call: {"fastpool": own, "numpy": theirs} for call, _, own, theirs in rows})


if __name__ == "__main__":
    main()
