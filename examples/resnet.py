"""
Other pooling in a network that is already there
=================================================

A residual network (He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016) is written as people write
it, from ``torch.nn`` alone. Then ``fastpool.replace_pooling`` swaps its pooling layers in place: the stem's 3x3 max
pooling, the head's global average, or both. Nothing else of the model changes, and its checkpoints still load.

With noisy digits one swap shows: a maximum in place of the head's average, of which no seed comes up to any with max,
average, mixed or soft pooling in the stem. Between the others seeds differ as much as poolings do.

What is sure to change is the time. Of a contiguous batch of 224x224 images the stem's pooling, forward and backward,
takes a sixth of torch's time, which makes the whole step some 8 % shorter. Channels-last, torch's own is almost as
fast, and of the step, which convolutions fill, nothing is seen.
"""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict

import data
import program
import torch
import training
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fastpool

# %%
# The network
# -----------
# The stem and the head are parts with names of their own. That is worth doing in any network: a swap is told the part
# in which to look for pooling layers.


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (self.residual(x) + self.shortcut(x)).relu()


def resnet18(channels: int, classes: int, width: int = 64) -> nn.Sequential:
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = {
        f"stage{i}": nn.Sequential(Block(before, after, 1 if i == 1 else 2), Block(after, after, 1))
        for i, (before, after) in enumerate(itertools.pairwise(widths), 1)
    }
    head = nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classify=nn.Linear(widths[-1], classes))
    )
    return nn.Sequential(OrderedDict(stem=stem, **stages, head=head))


# %%
# The swap
# --------
# One call for the whole model, or one for each part. A kind's own arguments follow its name. In a network that somebody
# else has written, ``replace_pooling(model, "soft")`` is all it takes; it returns what it has replaced.

Part = tuple[str, dict[str, object]]
SWAPS: dict[str, dict[str, Part]] = {
    "max, average": {},
    "average, average": {"stem": ("avg", {})},
    "mixed, average": {"stem": ("mixed", {"learnable": True})},
    "soft, average": {"stem": ("soft", {})},
    "stochastic, average": {"stem": ("stochastic", {})},
    "max, max": {"head": ("max", {})},
    "max, generalised mean": {"head": ("gem", {})},
}


def swap(model: nn.Sequential, parts: dict[str, Part]) -> nn.Sequential:
    for part, (kind, options) in parts.items():
        fastpool.replace_pooling(getattr(model, part), kind, **options)
    return model


# %%
# What a swap keeps
# -----------------
# A layer takes over its predecessor's window, stride and padding, so every shape stays. Max and average pooling of
# fastpool are torch's own functions: swapped for themselves they change the speed and nothing else.


@torch.no_grad()
def shapes(model: nn.Sequential, images: Tensor) -> dict[str, tuple[int, ...]]:
    """What each part gives, after the stem's pooling too."""
    found = {"image": tuple(images.shape)}
    for name, part in model.named_children():
        if name == "stem":
            found["stem.conv"] = tuple(part[:-1](images).shape)
        images = part(images)
        found["stem.pool" if name == "stem" else name] = tuple(images.shape)
    return found


@torch.no_grad()
def check(width: int) -> dict[str, tuple[int, ...]]:
    images = torch.randn(1, 3, 224, 224)
    model = resnet18(3, 1000, width).eval()
    checkpoint, expected, logits = model.state_dict(), shapes(model, images), model(images)
    swap(model, {"stem": ("max", {}), "head": ("avg", {})})
    assert (model(images) - logits).abs().max() <= 1e-5 * logits.abs().max(), "the same network gives other results"
    warnings.simplefilter("ignore")  # that what a pooling learns is not in the checkpoint
    for parts in SWAPS.values():
        other = swap(resnet18(3, 1000, width), parts).eval()
        missing, unexpected = other.load_state_dict(checkpoint, strict=False)
        assert not unexpected and all(".pool." in name for name in missing), "only what pooling learns may be new"
        assert shapes(other, images) == expected
    return expected


# %%
# Training
# --------
# Digits of 40x40 pixels, of which the stages leave 2x2 for the head. They are turned, scaled, moved, and covered with
# noise: clean ones every network gets right, and then there is nothing to compare. A seed decides the first weights and
# the order and distortion of all images.

SIDE, NOISE = 40, 1.5


def distorted(images: Tensor) -> Tensor:
    moved = data.jittered(data.resized(images, SIDE))
    return moved + NOISE * torch.randn_like(moved)


def accuracies(name: str, seed: int, epochs: int, width: int, digits: data.Digits) -> float:
    torch.manual_seed(0)
    (images, labels), (test_images, test_labels) = digits.train, (distorted(digits.test[0]), digits.test[1])
    torch.manual_seed(seed)
    model = swap(resnet18(1, 10, width), SWAPS[name])
    training.train(
        f"{name} {seed}",
        model,
        lambda batch: cross_entropy(model(distorted(images[batch])), labels[batch]),
        len(images),
        64,
        epochs,
        4e-3,
    )
    return training.accuracy(model, test_images, test_labels)


# %%
# Time
# ----
# One step on a batch of full-size images with torch's layers and with fastpool's, in both layouts, and the stem's
# pooling alone, forward and backward. The four take turns.

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def times(side: int, batch: int, width: int) -> dict[str, dict[str, float]]:
    steps, pools = {}, {}
    images, labels = torch.randn(batch, 3, side, side), torch.randint(1000, (batch,))
    for (layout, memory), library in itertools.product(LAYOUTS.items(), ("torch", "fastpool")):
        model = resnet18(3, 1000, width).to(memory_format=memory)
        if library == "fastpool":
            swap(model, {"stem": ("max", {}), "head": ("avg", {})})
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        x = images.to(memory_format=memory)
        with torch.no_grad():
            features = model.stem[:-1](x)
        features.requires_grad_()

        def step(model=model, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            cross_entropy(model(x), labels).backward()
            optimizer.step()

        def pool(layer=model.stem.pool, x=features):
            y = layer(x)
            torch.autograd.grad(y, x, torch.ones_like(y))

        steps[f"{library}, {layout}"], pools[f"{library}, {layout}"] = step, pool
    return {
        "Training step": training.seconds(steps),
        "Pooling of the stem": training.seconds(pools, rounds=15),
    }


def picture(accuracy: dict[str, list[float]], time: dict[str, dict[str, float]]) -> Figure:
    figure = Figure((9, 10), layout="constrained")
    grid = figure.add_gridspec(3, 1, height_ratios=(2 + len(accuracy), 5, 5))
    top = figure.add_subplot(grid[0])
    for row, values in enumerate(accuracy.values()):
        percent = [100 * value for value in values]
        top.plot([sum(percent) / len(percent)] * 2, [row - 0.28, row + 0.28], color="0.3", linewidth=2)
        top.scatter(percent, [row] * len(percent), color="tab:blue", s=70, alpha=0.7)
    top.set_yticks(range(len(accuracy)), accuracy, fontsize=14)
    top.invert_yaxis()
    top.set_title("Accuracy in % by pooling of stem and head:\na dot per seed, a line at the mean", fontsize=14)
    for row, (title, found) in enumerate(time.items(), 1):
        axis = figure.add_subplot(grid[row])
        milliseconds = [1e3 * seconds for seconds in found.values()]
        bars = axis.barh(list(found), milliseconds, color=["0.7", "tab:blue"] * (len(found) // 2))
        axis.bar_label(bars, [f"{value:.3g}" for value in milliseconds], padding=4, fontsize=13)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.12 * max(milliseconds))
        axis.tick_params(axis="y", labelsize=14)
        axis.set_title(f"{title}, milliseconds", fontsize=14)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", labelsize=12)
    return figure


def main() -> None:
    options = program.start(program.parser(__doc__))
    quick = options.quick
    found = check(8 if quick else 64)

    digits = data.scikit_digits()
    seeds = [options.seed + i for i in range(2 if quick else 3)]
    epochs, width = (1, 4) if quick else (8, 16)
    names = list(SWAPS)[:2] if quick else list(SWAPS)
    accuracy = {name: [accuracies(name, seed, epochs, width, digits) for seed in seeds] for name in names}
    time = times(64, 2, 8) if quick else times(224, 8, 64)

    parts = [f"{name:<11}{'x'.join(map(str, shape[1:]))}" for name, shape in found.items()]
    scores = [(name, training.mean_and_spread(values)) for name, values in accuracy.items()]
    columns = list(next(iter(time.values())))
    rows = [(title, *(f"{1e3 * of[name]:.1f}" for name in columns)) for title, of in time.items()]
    text = [
        "\n".join(parts),
        program.table(("pooling of stem, head", f"accuracy, {len(seeds)} seeds"), scores),
        program.table(("milliseconds", *columns), rows),
    ]
    results = {"shapes": found, "accuracy": accuracy, "seconds": time}
    program.finish(options, "\n\n".join(text), {"resnet": picture(accuracy, time)}, results)


if __name__ == "__main__":
    main()
