"""
Images of any size, without resizing
====================================

A convolution takes images of any size; the classifier behind it wants vectors of one length. A spatial pyramid (He et
al., *Spatial Pyramid Pooling in Deep Convolutional Networks*, 2014) makes one of the other: the maxima of 4x4, 2x2 and
1x1 bins, however large the map. So one network learns from batches in which every image has its own size. Beside it
stands the same network on images that are resized to 40x40.

Which is better depends on what size means. Of textures a larger piece shows more, in the same scale. At its own size
such a piece is recognised more and more often, at 128x128, larger than any in training, still; resizing destroys the
scale, and the resized network falls behind at every size. A digit of another size is the same digit. There resizing
helps: the network on resized digits is ahead or level at every size, far ahead at the smallest and largest.

One call for the whole list takes about two thirds of the time of a loop over its maps. In a step, which convolutions
fill, that is hard to see.
"""

from __future__ import annotations

from collections.abc import Callable

import data
import numpy as np
import program
import skimage
import torch
import torch.nn.functional as F
import training
from matplotlib.figure import Figure
from torch import Tensor, nn

import fastpool.functional as fp
import fastpool.nn as fnn

LEVELS = (4, 2, 1)
SMALLEST, LARGEST, RESIZED = 16, 96, 40
SIDES = (16, 24, 32, 48, 64, 96, 128)
PHOTOGRAPHS = ("brick", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "page", "text")


# %%
# Convolutions see one image after the other. The pyramid takes their maps as one list, and gives a row for each.
class Network(nn.Module):
    def __init__(self, classes: int, resize: bool):
        super().__init__()
        self.resize = resize
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), fnn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), fnn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.pyramid = fnn.SpatialPyramidPool2d(LEVELS)
        self.classifier = nn.Linear(32 * sum(level**2 for level in LEVELS), classes)

    def forward(self, images: list[Tensor]) -> Tensor:
        if self.resize:
            return self.classifier(self.pyramid(self.features(resized(images))))
        return self.classifier(self.pyramid([self.features(image) for image in images]))


def resized(images: list[Tensor]) -> Tensor:
    size = (RESIZED, RESIZED)
    return torch.cat([F.interpolate(x[None], size, mode="bilinear", antialias=True) for x in images])


# %%
# Two tasks, for they differ in what size means. Pieces of photographs are all of one scale: a larger piece shows more
# grass, not larger grass. A digit of another size is the same digit.
Task = Callable[[str, list[tuple[int, int]]], tuple[list[Tensor], Tensor]]


def textures() -> Task:
    """Pieces of scikit-image's photographs: of the left half to train on, of the right half for the test."""
    halves: dict[str, list[Tensor]] = {"train": [], "test": []}
    for name in PHOTOGRAPHS:
        image = getattr(skimage.data, name)()
        gray = torch.from_numpy(np.array(skimage.color.rgb2gray(image) if image.ndim == 3 else image / 255.0)).float()
        middle = gray.shape[1] // 2
        halves["train"].append(gray[:, :middle])
        halves["test"].append(gray[:, middle:])

    def draw(part: str, sizes: list[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        labels = torch.randint(len(PHOTOGRAPHS), (len(sizes),))
        images = []
        for label, (height, width) in zip(labels.tolist(), sizes):
            half = halves[part][label]
            top, left = (int(torch.randint(a - b + 1, ())) for a, b in zip(half.shape, (height, width)))
            piece = half[top : top + height, left : left + width]
            # Brightness and contrast would tell photographs apart without a look at their texture.
            images.append(((piece - piece.mean()) / (piece.std() + 0.01))[None])
        return images, labels

    return draw


def digits() -> Task:
    """scikit-learn's digits, stretched to any height and width."""
    known = data.scikit_digits()

    def draw(part: str, sizes: list[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        images, labels = getattr(known, part)
        chosen = torch.randint(len(images), (len(sizes),))
        stretched = [
            F.interpolate(images[i, None], size, mode="bilinear")[0] for i, size in zip(chosen.tolist(), sizes)
        ]
        return stretched, labels[chosen]

    return draw


TASKS = {"textures": textures, "digits": digits}
METHODS = {"own size": False, "resized": True}


def any_sizes(count: int) -> list[tuple[int, int]]:
    """Heights and widths, each as often between 16 and 32 as between 32 and 64."""
    ratio = torch.tensor(LARGEST / SMALLEST)
    return [tuple(row) for row in (SMALLEST * ratio ** torch.rand(count, 2)).round().int().tolist()]


def trained(name: str, task: Task, classes: int, resize: bool, seed: int, steps: int, part: tuple[int, int]) -> Network:
    torch.manual_seed(seed)
    model = Network(classes, resize)

    def loss_of(batch: Tensor) -> Tensor:
        images, labels = task("train", any_sizes(len(batch)))
        return F.cross_entropy(model(images), labels)

    training.train(name, model, loss_of, 32 * steps, 32, 1, 3e-3, part=part)
    return model


@torch.no_grad()
def accuracy(model: Network, images: list[Tensor], labels: Tensor) -> float:
    model.eval()
    guesses = torch.cat([model(images[i : i + 50]).argmax(1) for i in range(0, len(images), 50)])
    return (guesses == labels).float().mean().item()


# %%
# The pyramid of a list is one call. Without it one pools each map alone, level by level. Both are timed forward and
# backward on the maps of one batch, and in a whole step of the network, where convolutions take most of the time.
def one_by_one(maps: list[Tensor]) -> Tensor:
    return torch.stack([torch.cat([F.adaptive_max_pool2d(x, n).flatten() for n in LEVELS]) for x in maps])


def times(task: Task, quick: bool) -> dict[str, dict[str, float]]:
    model = Network(10, resize=False)
    images, labels = task("train", any_sizes(32))
    maps = [model.features(image).detach().requires_grad_() for image in images]
    gradient = torch.randn(len(maps), model.classifier.in_features)

    def pool(pyramid: Callable[[list[Tensor]], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(pyramid(maps), maps, gradient)

    def step(pyramid: Callable[[list[Tensor]], Tensor]) -> Callable[[], object]:
        def call() -> object:
            scores = model.classifier(pyramid([model.features(image) for image in images]))
            return torch.autograd.grad(F.cross_entropy(scores, labels), list(model.parameters()))

        return call

    pyramids = {"list": lambda maps: fp.spatial_pyramid_pool2d(maps, LEVELS), "loop": one_by_one}
    at_least = 0.05 if quick else 2.0
    return {
        title: training.seconds({name: of(pyramid) for name, pyramid in pyramids.items()}, at_least=at_least)
        for title, of in (("pyramid alone", pool), ("whole step", step))
    }


# %%
# What the networks saw: images at their own sizes, and below them what resizing makes of the same.
def shelf(images: list[Tensor], width: int) -> Tensor:
    """Side by side on white, the tallest as high as the shelf."""
    sheet, left = torch.full((max(image.shape[1] for image in images), width), torch.nan), 0
    for image in images:
        height, across = image.shape[1:]
        sheet[len(sheet) - height :, left : left + across] = image[0]
        left += across + 6
    return sheet


def picture(
    examples: dict[str, list[Tensor]], found: dict[str, dict[str, dict[tuple[int, int], list[float]]]]
) -> Figure:
    figure = Figure(figsize=(12, 8.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    figure.suptitle(
        "One network for images of any size, and the same on resized images", fontsize=18, x=0.01, ha="left"
    )
    for (shown, chart), (task, methods) in zip(figure.subplots(2, 2, width_ratios=[1, 1.1]), found.items()):
        own, same = examples[task], list(resized(examples[task]))
        width = max(sum(image.shape[2] + 6 for image in images) for images in (own, same))
        sheets = [shelf(own, width), torch.full((32, width), torch.nan), shelf(same, width)]
        gray, darkest = ("gray", -2.0) if task == "textures" else ("gray_r", min(x.min().item() for x in own) - 0.3)
        shown.imshow(torch.cat(sheets), cmap=gray, vmin=darkest, vmax=2, interpolation="nearest")
        shown.set_title(f"{task}, each image at its own size", fontsize=15, loc="left")
        shown.text(0, len(sheets[0]) + 27, f"all resized to {RESIZED}x{RESIZED}", fontsize=15)
        shown.axis("off")
        lines = {
            method: 100 * torch.tensor([by_size[side, side] for side in SIDES]) for method, by_size in methods.items()
        }
        best = max(lines, key=lambda method: lines[method][-1].mean())
        for (method, values), color in zip(lines.items(), ("#2563a8", "#c8641e")):
            mean, deviation = values.mean(1), values.std(1) if values.shape[1] > 1 else torch.zeros(len(values))
            chart.plot(SIDES, mean, "o-", color=color, linewidth=2.2)
            chart.fill_between(SIDES, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0)
            chart.annotate(
                method, (SIDES[-1], mean[-1]), (14, 5 if method == best else -12), textcoords="offset points",
                color=color, fontsize=15,
            )  # fmt: skip
        chart.axvspan(LARGEST * 1.1, SIDES[-1] * 1.08, color="0.94", zorder=0, linewidth=0)
        chart.set_xscale("log")
        chart.set_xticks(SIDES, [str(side) for side in SIDES], fontsize=13)
        chart.minorticks_off()
        chart.tick_params(labelsize=13)
        chart.yaxis.set_major_formatter("{x:g} %")
        chart.set_title(f"{task}: test accuracy ± deviation of the seeds", fontsize=15, loc="left")
        chart.set_xlabel("side of a square image (gray: larger than in training)", fontsize=13)
        chart.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    parser = program.parser(__doc__)
    # Images of these sizes are too small for several threads to gain much.
    parser.set_defaults(threads=1)
    options = program.start(parser)
    seeds, steps, count = (1, 15, 40) if options.quick else (4, 300, 400)
    sizes = [*((side, side) for side in SIDES), (24, 96), (96, 24)]

    examples, found = {}, {}
    for title, make in TASKS.items():
        task = make()
        torch.manual_seed(options.seed)
        classes = len(PHOTOGRAPHS) if title == "textures" else 10
        examples[title] = task("test", [(24, 64), (16, 16), (80, 40), (32, 96), (56, 48)])[0]
        tests = {size: task("test", [size] * count) for size in sizes}
        found[title] = {method: {size: [] for size in sizes} for method in METHODS}
        for method, resize in METHODS.items():
            for i in range(seeds):
                name = f"{title}, {method}"
                model = trained(name, task, classes, resize, options.seed + i, steps, (i, seeds))
                for size, (images, labels) in tests.items():
                    found[title][method][size].append(accuracy(model, images, labels))
    seconds = times(task, options.quick)

    headings = ["accuracy at", *(f"{title}, {method}" for title in TASKS for method in METHODS)]
    rows = [
        [
            f"{height}x{width}",
            *(training.mean_and_spread(of[height, width]) for m in found.values() for of in m.values()),
        ]
        for height, width in sizes
    ]
    text = program.table(headings, rows) + "\n\n"
    text += program.table(
        ["milliseconds, 32 images", "pyramid of a list", "loop of torch's", "ratio"],
        [
            [name, f"{of['list'] * 1e3:.2f}", f"{of['loop'] * 1e3:.2f}", f"{of['loop'] / of['list']:.2f} times"]
            for name, of in seconds.items()
        ],
    )
    accuracies = {
        title: {method: {f"{h}x{w}": of for (h, w), of in by_size.items()} for method, by_size in methods.items()}
        for title, methods in found.items()
    }
    program.finish(options, text, {"any_size": picture(examples, found)}, {"accuracy": accuracies, "seconds": seconds})


if __name__ == "__main__":
    main()
