"""
A U-Net that finds digits
=========================

Segmentation asks of each pixel what it belongs to. The network is a U-Net (Ronneberger, Fischer & Brox, *U-Net:
Convolutional Networks for Biomedical Image Segmentation*, MICCAI 2015): an encoder that pools four times, and a decoder
that enlarges four times and sees, at each size, what the encoder saw there. Digits lie scattered over photographs, and
the network finds their pixels. The encoder is pooled in six ways, and by strided convolutions beside them.

All of them find what stands out, and lose what is faint or lies on a busy ground; a bright petal or a dark corner that
no photograph of the training has is taken for ink. The picture shows one seed of three of them: their mistakes are
mostly the same ones. Seeds of one pooling lie up to ten points apart, means of poolings five, so three seeds do not say
which is best; they do say that a U-Net trains with any.

Pooling takes 4 to 7 % of a step. On these small channels-last maps a call costs more than what it computes, so torch's
own max and average are ahead, learned mixed pooling of two of torch's functions too; stochastic pooling takes a quarter
of the time that torch's operations take.

The photographs are scikit-image's and scikit-learn's: ``china.jpg`` by danielbuechele and ``flower.jpg`` by vultilion,
CC BY 2.0.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import composed
import data
import program
import skimage.data
import torch
import torch.nn.functional as F
import training
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import fastpool.nn as fnn

# %%
# Scenes whose every pixel has a known answer
# -------------------------------------------
# A scene is a crop of a photograph with three handwritten digits on it: turned, enlarged, in any colour, and more or
# less transparent. A pixel's class is 1 where there is ink, else 0. The scenes of the test have other photographs and
# other digits, so that nothing can be learned by heart.

SIDE = 64
TRAIN = ("astronaut", "rocket", "hubble_deep_field", "immunohistochemistry", "retina", "brick", "grass", "gravel")
TRAIN += ("moon", "coins", "stereo_motorcycle", "china.jpg")
TEST = ("chelsea", "coffee", "camera", "flower.jpg")


class Scenes(NamedTuple):
    images: Tensor  # (N, 3, SIDE, SIDE), from 0 to 1
    masks: Tensor  # (N, 1, SIDE, SIDE), 0 or 1


def crops(pictures: list[Tensor], count: int) -> Tensor:
    """Squares of one to four times SIDE from anywhere, resized."""
    taken = []
    for which in torch.randint(len(pictures), (count,)).tolist():
        height, width = pictures[which].shape[1:]
        side = int(torch.randint(SIDE, min(4 * SIDE, height, width), ()))
        top, left = int(torch.randint(height - side, ())), int(torch.randint(width - side, ()))
        crop = pictures[which][None, :, top : top + side, left : left + side]
        taken.append(F.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True))
    return torch.cat(taken)


def scattered(digits: Tensor, count: int) -> Tensor:
    """The ink, from 0 to 1, of one digit per scene: turned by up to 40 degrees, 16 to 36 pixels large, anywhere."""
    angle, scale = 1.4 * torch.rand(count) - 0.7, SIDE / (16 + 20 * torch.rand(count))
    cosine, sine, (x, y) = scale * angle.cos(), scale * angle.sin(), 1.5 * torch.rand(2, count) - 0.75
    rows = [cosine, -sine, sine * y - cosine * x, sine, cosine, -sine * x - cosine * y]
    grid = F.affine_grid(torch.stack(rows, 1).view(count, 2, 3), [count, 1, SIDE, SIDE], align_corners=False)
    chosen = digits[torch.randint(len(digits), (count,))]
    return F.grid_sample(chosen, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def scenes(pictures: list[Tensor], digits: Tensor, count: int) -> Scenes:
    images, masks = crops(pictures, count), torch.zeros(count, 1, SIDE, SIDE)
    for _ in range(3):
        ink = scattered(digits, count)
        opacity, colour = 0.5 + 0.4 * torch.rand(count, 1, 1, 1), torch.rand(count, 3, 1, 1)
        images = images.lerp(colour, opacity * (3 * ink - 1).clamp(0, 1))
        masks = masks.maximum((ink > 0.5).float())
    return Scenes(images.clamp(0, 1).contiguous(memory_format=torch.channels_last), masks)


def photographs(names: tuple[str, ...]) -> Iterator[Tensor]:
    """(3, height, width), from 0 to 1; three times the same where the photograph is gray."""
    for name in names:
        picture = load_sample_image(name) if name.endswith(".jpg") else getattr(skimage.data, name)()
        if isinstance(picture, tuple):  # two views and the depth
            picture = picture[0]
        pixels = torch.from_numpy(picture.copy()) / 255
        yield pixels.permute(2, 0, 1) if pixels.dim() == 3 else pixels.expand(3, -1, -1)


def train_and_test_scenes(train_count: int, test_count: int) -> tuple[Scenes, Scenes]:
    (train_digits, _), (test_digits, _) = data.as_ink(data.scikit_digits())
    return (
        scenes([*photographs(TRAIN)], train_digits, train_count),
        scenes([*photographs(TEST)], test_digits, test_count),
    )


# %%
# What halves the image
# ---------------------
# Each pooling has its counterpart in torch beside it, for the times. Two of them are not mere layers: "max and average"
# gives two results, which the next block gets as twice the channels, and a strided convolution learns nine weights for
# each pair of channels (Springenberg et al. 2014).


class Both(nn.Module):
    """Two results as one, with twice the channels."""

    def __init__(self, pool: Callable[[Tensor], tuple[Tensor, Tensor]]):
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.pool(x), 1)


def max_and_average(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(x, 2), F.avg_pool2d(x, 2)


class Pooling(NamedTuple):
    """Makes a layer for so many channels."""

    layer: Callable[[int], nn.Module]
    torch: Callable[[int], nn.Module] | None = None


POOLINGS = {
    "max": Pooling(lambda channels: fnn.MaxPool2d(2), lambda channels: nn.MaxPool2d(2)),
    "average": Pooling(lambda channels: fnn.AvgPool2d(2), lambda channels: nn.AvgPool2d(2)),
    "mixed, learned": Pooling(lambda channels: fnn.MixedPool2d(2, learnable=True), lambda channels: composed.Mixed(2)),
    "soft, learned": Pooling(lambda channels: fnn.SoftPool2d(2, learnable=True), lambda channels: composed.Soft(2)),
    "stochastic": Pooling(lambda channels: fnn.StochasticPool2d(2), lambda channels: composed.Stochastic(2)),
    "max and average": Pooling(lambda channels: Both(fnn.MaxAvgPool2d(2)), lambda channels: Both(max_and_average)),
    "strided convolution": Pooling(lambda channels: nn.Conv2d(channels, channels, 3, stride=2, padding=1)),
}

# %%
# The network
# -----------
# Four levels down and four up (Ronneberger et al. 2015). Pooling comes after a ReLU, as stochastic pooling wants it.
# What a level saw before it was pooled is put beside what comes up from below: where an edge is, which pooling forgets,
# the way up learns from there. Batches are normalised, which the paper's network did not do.

WIDTHS = (8, 16, 32, 64, 128)


def block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, pooling: Pooling):
        super().__init__()
        self.pools = nn.ModuleList([pooling.layer(width) for width in WIDTHS[:-1]])
        pooled = [pool(torch.zeros(1, width, 2, 2)).shape[1] for pool, width in zip(self.pools, WIDTHS)]
        self.down = nn.ModuleList([block(*pair) for pair in zip([3, *pooled], WIDTHS)])
        pairs = list(zip(WIDTHS, WIDTHS[1:]))
        self.enlarge = nn.ModuleList([nn.ConvTranspose2d(wide, narrow, 2, stride=2) for narrow, wide in pairs])
        self.up = nn.ModuleList([block(2 * narrow, narrow) for narrow, _ in pairs])
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for down, pool in zip(self.down, self.pools):
            skipped.append(down(x))
            x = pool(skipped[-1])
        x = self.down[-1](x)
        for enlarge, up, skip in reversed([*zip(self.enlarge, self.up, skipped)]):
            x = up(torch.cat([skip, enlarge(x)], 1))
        return self.head(x)


# %%
# Training and measuring
# ----------------------
# IoU, intersection over union, counts pixels of the whole test: those that are rightly found, out of those that are
# found or should be. Seeds differ in initial weights, order and draws; scenes are the same for all.

BATCH = 8


def loss(model: nn.Module, scenes: Scenes, batch: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(model(scenes.images[batch]), scenes.masks[batch])


@torch.no_grad()
def found(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part) > 0 for part in images.split(50)])


def intersection_over_union(found: Tensor, masks: Tensor) -> float:
    return ((found & (masks > 0)).sum() / (found | (masks > 0)).sum()).item()


def poolings_alone(layer: Callable[[int], nn.Module]) -> Callable[[], object]:
    """A call that pools, forward and backward, what the U-Net pools in a step."""
    calls = []
    for level, width in enumerate(WIDTHS[:-1]):
        pool, x = layer(width), torch.rand(BATCH, width, SIDE >> level, SIDE >> level)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        calls.append((pool, x, [x, *pool.parameters()], torch.rand_like(pool(x))))
    return lambda: [torch.autograd.grad(pool(x), wanted, gradient) for pool, x, wanted, gradient in calls]


def milliseconds(scenes: Scenes, quick: bool) -> dict[str, dict[str, float]]:
    """Of a step, forward and backward; of the poolings in it; of these poolings by torch alone."""
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, pooling in POOLINGS.items():
        model = UNet(pooling)
        calls["step", name] = lambda model=model: loss(model, scenes, torch.arange(BATCH)).backward()
        calls["pooling", name] = poolings_alone(pooling.layer)
        if pooling.torch:
            calls["torch", name] = poolings_alone(pooling.torch)
    times = training.seconds(calls, *((1, 0.01) if quick else (9, 0.9)))
    return {
        what: {name: 1000 * time for (of, name), time in times.items() if of == what}
        for what in ("step", "pooling", "torch")
    }


# %%
# Pictures
# --------
# What was found, missed and wrongly found, over the scene in gray; and each seed's IoU as a dot.

FOUND, MISSED, WRONG = "#2a9d8f", "#f4a300", "#d81b60"


def draw_scenes(test: Scenes, guesses: dict[str, Tensor]) -> Figure:
    rows = 2 + len(guesses)
    figure = Figure(figsize=(12, 2 * rows + 1.2), layout="constrained")
    figure.get_layout_engine().set(rect=(0.01, 0.05, 0.98, 0.935))
    figure.suptitle("Three digits on each photograph, and the pixels that a U-Net takes for ink", fontsize=20)
    axes = figure.subplots(rows, len(test.images))
    truth = test.masks[:, 0] > 0
    pictures = [test.images.permute(0, 2, 3, 1), test.masks[:, 0]]
    for guess in guesses.values():
        picture = (0.35 * test.images.mean(1))[..., None].expand(-1, -1, -1, 3).clone()
        for where, colour in ((guess & truth, FOUND), (truth & ~guess, MISSED), (guess & ~truth, WRONG)):
            picture[where] = torch.tensor(to_rgb(colour))
        pictures.append(picture)
    for row, name, of in zip(axes, ["scene", "ink", *guesses], pictures):
        row[0].set_ylabel(name.replace(" ", "\n", 1), fontsize=17)
        for axis, picture in zip(row, of):
            axis.imshow(picture, cmap="gray", interpolation="nearest")
            axis.set(xticks=[], yticks=[], frame_on=False)
    for x, word, colour in ((0.3, "found", FOUND), (0.5, "missed", MISSED), (0.72, "found where none is", WRONG)):
        figure.text(x, 0.03, f"■ {word}", color=colour, fontsize=20, ha="center", va="center")
    return figure


def draw_spread(scores: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.2, h_pad=0.2)
    axis = figure.subplots()
    for row, values in enumerate(reversed(scores.values())):
        axis.plot([statistics.mean(values)] * 2, [row - 0.3, row + 0.3], color="#264653", linewidth=3)
        axis.plot(values, [row] * len(values), "o", color=FOUND, markersize=11, alpha=0.8)
    axis.set_yticks(range(len(scores)), reversed(scores), fontsize=17)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=15)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(axis="x", color="#dddddd")
    axis.spines[:].set_visible(False)
    axis.set_title("IoU on test scenes: a dot for each seed, a bar at their mean", fontsize=20, pad=16)
    return figure


def main() -> None:
    options = program.start(program.parser(__doc__))
    count, held_out, seeds = (24, 24, 1) if options.quick else (3200, 240, 3)
    train, test = train_and_test_scenes(count, held_out)
    scores: dict[str, list[float]] = {name: [] for name in POOLINGS}
    guesses: dict[str, Tensor] = {}
    for name, pooling in POOLINGS.items():
        for seed in range(seeds):
            torch.manual_seed(options.seed + seed)
            model = UNet(pooling)
            training.train(
                name, model, functools.partial(loss, model, train), count, BATCH, 1, rate=5e-3, part=(seed, seeds)
            )
            guess = found(model, test.images)
            scores[name].append(intersection_over_union(guess, test.masks))
            if seed == 0 and name in ("max", "stochastic", "strided convolution"):
                guesses[name] = guess[:6, 0]

    times = milliseconds(train, options.quick)
    step, own, torchs = times["step"], times["pooling"], times["torch"]
    rows = [
        (
            name,
            training.mean_and_spread(values),
            f"{step[name]:.1f}",
            f"{own[name]:.2f}",
            f"{own[name] / step[name]:.1%}",
            f"{torchs[name]:.2f}" if name in torchs else "",
        )
        for name, values in scores.items()
    ]
    all_ink = test.masks.mean().item()
    text = (
        program.table(("", "IoU in the test", "ms a step", "poolings", "of the step", "by torch alone"), rows)
        + f"\n\nIoU: mean ± standard deviation, seeds: {seeds}; it would be {all_ink:.1%} if all were called ink."
        + f"\nForward and backward of {BATCH} scenes of {SIDE}x{SIDE}, channels-last: medians, measured in turn."
    )
    figures = {
        "segmentation": draw_scenes(Scenes(test.images[:6], test.masks[:6]), guesses),
        "segmentation-spread": draw_spread(scores),
    }
    program.finish(options, text, figures, {"iou": scores, "all ink": all_ink, "milliseconds": times})


if __name__ == "__main__":
    main()
