"""
Which pooling, on handwritten digits?
=====================================

Trains one small network with each pooling, and without any: strided convolutions do the work (Springenberg et al.,
*Striving for Simplicity: The All Convolutional Net*, 2014), or a global average is the whole classifier (Lin et al.,
*Network in Network*, 2013). Each is trained with several seeds.

Held-out digits tell little apart: eleven of the thirteen networks end between 99.2 and 99.7 %, and their seeds
overlap. Below them are the global average, which has a third of the parameters, and the pyramid that was trained on
all sizes from 8 to 16 pixels. Of 8x8 pixels that one gets 98.5 %, of 12x12 99.7 %.

Digits that are turned, scaled and moved further than in training tell more. Strided convolutions and the global
average get 79 to 81 % of them, and none of their seeds comes near the worst seed of max, mixed, gated, stochastic,
soft, lse, gem or the pyramid of one size. Average pooling lies between. The means of those eight differ by one point,
as seeds of one pooling do: which of them is best, this does not say. Nor does training on 200 digits, where spreads
are wider still.

Maps are small here, so a call costs as much as what it computes. Stochastic and gated pooling gain most over torch's
own operations; learned soft pooling takes longer than they do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import composed
import data
import program
import torch
import torch.nn.functional as F
import training
from matplotlib.figure import Figure
from torch import Tensor, nn

import fastpool.nn as fnn

FEW = 200


# %%
# What follows each of the two convolutions. A pooling also names what one would write without fastpool. The pyramid
# gives a vector of one length for images of any size, so one of its networks trains on many sizes.
class Pooling(NamedTuple):
    first: Callable[[], nn.Module]
    second: Callable[[], nn.Module]
    composed: tuple[Callable[[], nn.Module], ...] = ()
    many_sizes: bool = False
    stride: int = 1  # of the convolutions
    head: bool = True  # two linear layers


def twice(own: Callable[[], nn.Module], theirs: Callable[[], nn.Module]) -> Pooling:
    return Pooling(own, own, (theirs, theirs))


def convolution(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.ReLU())


pyramid = Pooling(
    lambda: fnn.MaxPool2d(2),
    lambda: fnn.SpatialPyramidPool2d((4, 2, 1)),
    (lambda: nn.MaxPool2d(2), lambda: composed.Pyramid((4, 2, 1))),
)
POOLINGS = {
    "max": twice(lambda: fnn.MaxPool2d(2), lambda: nn.MaxPool2d(2)),
    "average": twice(lambda: fnn.AvgPool2d(2), lambda: nn.AvgPool2d(2)),
    "mixed": twice(lambda: fnn.MixedPool2d(2, learnable=True), lambda: composed.Mixed(2)),
    "gated": twice(lambda: fnn.GatedPool2d(2), lambda: composed.Gated(2)),
    "stochastic": twice(lambda: fnn.StochasticPool2d(2), lambda: composed.Stochastic(2)),
    "soft": twice(lambda: fnn.SoftPool2d(2, learnable=True), lambda: composed.Soft(2)),
    "lse": twice(lambda: fnn.LSEPool2d(2, learnable=True), lambda: composed.LSE(2)),
    "gem": twice(lambda: fnn.GeMPool2d(2), lambda: composed.GeM(2)),
    "pyramid": pyramid._replace(many_sizes=True),
    "one-size pyramid": pyramid,
    "global average": Pooling(
        lambda: fnn.MaxPool2d(2),
        lambda: nn.Sequential(nn.Conv2d(64, 10, 1), fnn.GlobalAvgPool()),
        head=False,
    ),
    "strides": Pooling(nn.Identity, nn.Identity, stride=2),
    "all convolutions": Pooling(lambda: convolution(32), lambda: convolution(64)),
}


# %%
# ReLU comes before pooling: stochastic pooling draws in proportion to positive activations.
class Network(nn.Module):
    def __init__(self, pooling: Pooling, side: int):
        super().__init__()
        self.pools = nn.ModuleList([pooling.first(), pooling.second()])
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, stride=pooling.stride), nn.ReLU(), self.pools[0],
            nn.Conv2d(32, 64, 3, padding=1, stride=pooling.stride), nn.ReLU(), self.pools[1],
            nn.Flatten(),
        )  # fmt: skip
        width = self.features(torch.zeros(1, 1, side, side)).shape[1]
        self.classifier = (
            nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 10)) if pooling.head else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Run(NamedTuple):
    """What one seed gives: accuracies, and the training's seconds."""

    curve: list[float]  # after every epoch
    distorted: float
    few: float | None  # trained on FEW images
    sizes: dict[int, float]  # by the side of the test images
    seconds: float
    alphas: list[float]


# %%
# Digits of 8x8 pixels are easy, so there are two harder tests beside the usual one: images that are turned, scaled and
# moved up to twice as far as in training, and training on 200 images, in as many steps. One seed would say nothing
# about so few images, and leaves that out.
def run(name: str, digits: data.Digits, distorted: Tensor, index: int, options: argparse.Namespace) -> Run:
    (images, labels), (held_out, answers) = digits
    count, side = len(images), images.shape[-1]
    sides = (side, side * 3 // 2, side * 2) if POOLINGS[name].many_sizes else (side,)
    parts = options.seeds * (2 if options.seeds > 1 else 1)
    curve: list[float] = []
    seconds = -time.perf_counter()

    def after_epoch() -> None:
        nonlocal seconds
        seconds -= time.perf_counter()
        curve.append(training.accuracy(model, held_out, answers))
        seconds += time.perf_counter()

    def fit(
        model: Network, images: Tensor, labels: Tensor, size: int, epochs: int, part: int, after=after_epoch
    ) -> None:
        def loss_of(batch: Tensor) -> Tensor:
            x = data.jittered(images[batch])
            if POOLINGS[name].many_sizes:
                x = data.resized(x, int(torch.randint(side, 2 * side + 1, ())))
            return F.cross_entropy(model(x), labels[batch])

        training.train(name, model, loss_of, len(images), size, epochs, 5e-3, after, (part, parts))

    torch.manual_seed(options.seed + index)
    model = Network(POOLINGS[name], side)
    fit(model, images, labels, options.batch, options.epochs, index * parts // options.seeds)
    seconds += time.perf_counter()

    few = None
    if options.seeds > 1:
        torch.manual_seed(options.seed + index)
        chosen = torch.randperm(count)[:FEW]
        other = Network(POOLINGS[name], side)
        epochs = max(1, options.epochs * (count // options.batch) // (FEW // 32))
        fit(other, images[chosen], labels[chosen], 32, epochs, 2 * index + 1, lambda: None)
        few = training.accuracy(other, held_out, answers)
    return Run(
        curve=curve,
        distorted=training.accuracy(model, distorted, answers.repeat(len(distorted) // len(answers))),
        few=few,
        sizes={s: training.accuracy(model, data.resized(held_out, s), answers) for s in sides},
        seconds=seconds,
        alphas=[layer.alpha.item() for layer in model.pools] if name == "mixed" else [],
    )


# %%
# Pooling's share of the training, and what torch's operations would take for the same calls: forward and backward of
# each layer alone, taking turns.
def pooling_seconds(name: str, batch: int, side: int, steps: int, quick: bool) -> tuple[float, float]:
    def step(layer: nn.Module, x: Tensor) -> Callable[[], object]:
        inputs = [x, *layer.parameters()]
        gradient = torch.randn_like(layer(x))
        return lambda: torch.autograd.grad(layer(x), inputs, gradient)

    pooling, ours, theirs = POOLINGS[name], 0.0, 0.0
    # Each of many sizes is as likely as the others.
    sizes = range(side, 2 * side + 1) if pooling.many_sizes else (side,)
    for s in sizes:
        shapes = ((batch, 32, s, s), (batch, 64, s // 2, s // 2))
        for own, other, shape in zip((pooling.first, pooling.second), pooling.composed, shapes):
            x = torch.randn(shape).relu().requires_grad_()
            calls = {"fastpool": step(own(), x), "torch": step(other(), x)}
            times = training.seconds(calls, rounds=1 if quick else 5, at_least=0.01 if quick else 0.1)
            ours += times["fastpool"] * steps / len(sizes)
            theirs += times["torch"] * steps / len(sizes)
    return ours, theirs


def tables(runs: dict[str, list[Run]], times: dict[str, tuple[float, float]], side: int) -> str:
    columns = {"accuracy": lambda r: r.curve[-1], "distorted": lambda r: r.distorted}
    if any(r.few is not None for of in runs.values() for r in of):
        columns[f"from {FEW} images"] = lambda r: r.few
    rows = [
        [name, *(training.mean_and_spread([value(r) for r in of]) for value in columns.values()),
         f"{sum(p.numel() for p in Network(POOLINGS[name], side).parameters()):,}"]
        for name, of in runs.items()
    ]  # fmt: skip
    accuracies = program.table(["pooling", *columns, "parameters"], rows)
    rows = [
        [name, f"{statistics.median(r.seconds for r in runs[name]):.1f}", f"{ours:.2f}", f"{theirs:.2f}",
         f"{theirs / ours:.1f} times"]
        for name, (ours, theirs) in times.items()
    ]  # fmt: skip
    seconds = program.table(["seconds", "training", "in pooling", "by torch's operations", "ratio"], rows)
    text = f"{accuracies}\n\n{seconds}\n"
    if "mixed" in runs:
        alphas = [statistics.mean(of) for of in zip(*(r.alphas for r in runs["mixed"]))]
        text += f"\nmixed learned alpha = {alphas[0]:.2f} and {alphas[1]:.2f} (1 is max, 0 average)"
    if "pyramid" in runs:
        found = {s: training.mean_and_spread([r.sizes[s] for r in runs["pyramid"]]) for s in runs["pyramid"][0].sizes}
        shown = ", ".join(f"{value} at {s}x{s}" for s, value in found.items())
        text += f"\npyramid, one network for images of {side} to {2 * side} pixels: {shown}"
    return text.rstrip()


BLUE, ORANGE, GRAY = "#2563a8", "#c8641e", "0.8"


def color(name: str) -> str:
    return BLUE if POOLINGS[name].composed else ORANGE


# %%
# Every seed is a dot: where the clouds overlap, the table decides nothing.
def dots(runs: dict[str, list[Run]], examples: dict[str, Tensor]) -> Figure:
    panels = {
        "held-out digits": lambda r: r.curve[-1],
        "turned, scaled, moved": lambda r: r.distorted,
        f"trained on {FEW} digits": lambda r: r.few,
    }
    if len(next(iter(runs.values()))) == 1:
        panels.popitem()
    figure = Figure(figsize=(12, 2.4 + 0.42 * len(runs)), layout="constrained")
    figure.suptitle("Test accuracy: each dot is a seed, each bar a mean", fontsize=18, x=0.01, ha="left")
    axes = figure.subplots(2, len(panels), height_ratios=[1, 0.45 * len(runs)], squeeze=False)
    for (title, value), strip, axis in zip(panels.items(), *axes):
        strip.imshow(torch.cat(list(examples[title][:8, 0]), 1), cmap="gray_r")
        strip.axis("off")
        strip.set_title(title, fontsize=15)
        for row, (name, of) in enumerate(runs.items()):
            values = [100 * value(r) for r in of]
            axis.plot(values, [row] * len(values), "o", color=color(name), alpha=0.45, markersize=8, mew=0)
            axis.plot([statistics.mean(values)] * 2, [row - 0.3, row + 0.3], color=color(name), linewidth=3)
        axis.set_yticks(range(len(runs)), list(runs), fontsize=14)
        axis.tick_params(axis="y", length=0, labelleft=axis is axes[1, 0])
        axis.tick_params(axis="x", labelsize=13)
        axis.xaxis.set_major_formatter("{x:g} %")
        axis.set_ylim(len(runs) - 0.5, -0.5)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
    return figure


def curves(runs: dict[str, list[Run]]) -> Figure:
    """One panel each, with the others in gray."""
    columns = 5 if len(runs) > 9 else min(3, len(runs))
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(12, 1.2 + 2.3 * rows), layout="constrained")
    figure.suptitle("Test accuracy by epoch: mean, and least to most of the seeds", fontsize=18, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    lines = {name: torch.tensor([[100 * a for a in r.curve] for r in of]) for name, of in runs.items()}
    epochs = range(1, next(iter(lines.values())).shape[1] + 1)
    for index, (axis, (name, line)) in enumerate(zip(axes, lines.items())):
        for other in lines.values():
            axis.plot(epochs, other.mean(0), color=GRAY, linewidth=0.8)
        axis.fill_between(epochs, line.amin(0), line.amax(0), color=color(name), alpha=0.25, linewidth=0)
        axis.plot(epochs, line.mean(0), ".-", color=color(name), linewidth=2.2, markersize=4)
        axis.set_title(name, fontsize=14, color=color(name))
        axis.tick_params(labelsize=12, labelbottom=index + columns >= len(runs))
        axis.set_xticks(sorted({1, len(epochs)}))
        axis.set_xlim(0.5, len(epochs) + 0.5)
        axis.yaxis.set_major_formatter("{x:g} %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(max(0, min(of.mean(0)[len(epochs) // 4].item() for of in lines.values()) - 2), 100.3)
    for axis in axes[len(runs) :]:
        axis.axis("off")
    figure.supxlabel("epoch", fontsize=14)
    return figure


def parse() -> argparse.Namespace:
    parser = program.parser(__doc__)
    parser.add_argument("--seeds", type=int, help="how many; default: 5")
    parser.add_argument("--poolings", nargs="+", choices=POOLINGS, metavar="NAME", help="default: all")
    parser.add_argument("--epochs", type=int, help="default: 20, with MNIST 3")
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="train on MNIST's four IDX files (.gz or not)")
    # On 8x8 images threads would mostly wait for each other.
    parser.set_defaults(threads=1)
    options = program.start(parser)
    options.poolings = options.poolings or list(POOLINGS)[:: 2 if options.quick else 1]
    options.seeds = options.seeds or (2 if options.quick else 5)
    options.epochs = options.epochs or (1 if options.quick else 3 if options.mnist else 20)
    options.batch = 128 if options.mnist else 32
    return options


def main() -> None:
    options = parse()
    digits = data.mnist(options.mnist) if options.mnist else data.scikit_digits()
    (images, _), (held_out, _) = digits
    side = images.shape[-1]
    print(f"{'MNIST' if options.mnist else 'scikit-learn'} digits, {side}x{side}: ", end="")
    print(f"{len(images)} to train on, {len(held_out)} held out for the test; ", end="")
    print(f"{options.epochs} epochs, seeds: {options.seeds}, threads: {options.threads}\n")

    distorted = torch.cat([data.jittered(held_out, 2) for _ in range(4)])
    runs = {name: [run(name, digits, distorted, i, options) for i in range(options.seeds)] for name in options.poolings}
    steps = options.epochs * (len(images) // options.batch)
    times = {
        name: pooling_seconds(name, options.batch, side, steps, options.quick)
        for name in options.poolings
        if POOLINGS[name].composed
    }
    examples = dict(zip(("held-out digits", "turned, scaled, moved"), (held_out, distorted)))
    examples[f"trained on {FEW} digits"] = held_out
    program.finish(
        options,
        tables(runs, times, side),
        {"digits": dots(runs, examples), "digits-curves": curves(runs)},
        {"runs": {name: [r._asdict() for r in of] for name, of in runs.items()}, "pooling seconds": times},
    )


if __name__ == "__main__":
    main()
