"""
Attention as pooling, and where it looks
========================================

TODO
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import data
import program
import torch
import torch.nn.functional as F
import training
from matplotlib.figure import Figure
from skimage import data as photographs
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import fastpool as fp
import fastpool.nn as fnn

SIDE, CHANNELS = 64, 64

# %%
# One digit somewhere in a photograph
# -----------------------------------
# Most of such an image says nothing about the answer, so how a head sums up its 256 positions matters. Photographs and
# digits of the test are never seen in training.


def crops(pictures: list[Tensor], count: int) -> Tensor:
    """Squares from anywhere in the photographs, as (count, 3, SIDE, SIDE), 0 to 1."""
    taken = []
    for which in torch.randint(len(pictures), (count,)).tolist():
        picture = pictures[which]
        top, left = (int(torch.randint(length - SIDE + 1, ())) for length in picture.shape[1:])
        taken.append(picture[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(taken)


def scenes(pictures: list[Tensor], digits: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Images with one digit each, 32 to 56 pixels large, white and more or less transparent; and which digit it is."""
    chosen = torch.randint(len(digits[0]), (count,))
    zoom = SIDE / (18 + 8 * torch.rand(count))
    across, down = (2 * torch.rand(2, count) - 1) * (zoom - 1)
    zero = torch.zeros(count)
    rows = torch.stack([zoom, zero, across, zero, zoom, down], 1).view(count, 2, 3)
    grid = F.affine_grid(rows, [count, 1, SIDE, SIDE], align_corners=False)
    ink = F.grid_sample(digits[0][chosen], grid, align_corners=False)
    return crops(pictures, count).lerp(torch.ones(()), ink * (0.7 + 0.3 * torch.rand(count, 1, 1, 1))), digits[1][chosen]


def material() -> tuple[tuple[list[Tensor], tuple[Tensor, Tensor]], ...]:
    digits = data.scikit_digits()
    darkest, lightest = digits.train[0].min(), digits.train[0].max()
    seen = [photographs.astronaut(), photographs.rocket(), photographs.immunohistochemistry(), load_sample_image("flower.jpg")]
    unseen = [photographs.chelsea(), photographs.coffee(), load_sample_image("china.jpg")]

    def halved(pictures: list) -> list[Tensor]:
        whole = [torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255 for picture in pictures]
        return [F.interpolate(x, scale_factor=0.25, mode="bilinear", antialias=True)[0] for x in whole]

    return tuple(
        (halved(pictures), ((images - darkest) / (lightest - darkest), labels))
        for pictures, (images, labels) in ((seen, digits.train), (unseen, digits.test))
    )


# %%
# The same trunk under different heads


HEADS: dict[str, Callable[[], nn.Module]] = {
    "average": fnn.GlobalAvgPool,
    "max": fnn.GlobalMaxPool,
    "mixed, learned": lambda: fnn.GlobalMixedPool(learnable=True, num_channels=CHANNELS),
    "attention": lambda: fnn.AttentionPool2d(CHANNELS, CHANNELS, scale=CHANNELS**-0.5, output_size=1),
}


class Network(nn.Module):
    def __init__(self, head: str):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(), fnn.MaxPool2d(2)]
        for inward, outward in ((16, 32), (32, CHANNELS)):
            layers += [nn.Conv2d(inward, outward, 3, padding=1), nn.BatchNorm2d(outward), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = HEADS[head]()
        self.classifier = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.trunk(x - 0.5)).flatten(1))


# %%
# The weights, which the fused kernel never writes down


def weights(pool: fnn.AttentionPool2d, x: Tensor) -> Tensor:
    """(N, queries, H * W): how much of each position goes into each result."""
    seeking = x if pool.output_size is None else fp.adaptive_avg_pool2d(x, pool.output_size)
    query, key = pool.query(seeking).flatten(2), pool.key(x).flatten(2)
    return (pool.scale * query.mT @ key).softmax(-1)


def explicit(pool: fnn.AttentionPool2d, x: Tensor) -> Tensor:
    return (pool.value(x).flatten(2) @ weights(pool, x).mT).unflatten(2, x.shape[2:])


def peak(call: Callable[[], object]) -> float:
    """The most megabytes that torch had allocated at once, beyond what it had before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "[memory]"]
    held, most = 0, 0
    for event in sorted(events, key=lambda event: event["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most / 2**20


def main() -> None:
    p = program.parser(__doc__)
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--seeds", type=int, default=1)
    options = program.start(p)
    (pictures, digits), (other_pictures, other_digits) = material()
    torch.manual_seed(99)
    test = scenes(other_pictures, other_digits, 500)
    f = Figure(figsize=(12, 6), layout="constrained")
    for head in HEADS:
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            m = Network(head)
            def loss_of(batch):
                x, y = scenes(pictures, digits, len(batch))
                return F.cross_entropy(m(x), y)
            t = time.perf_counter(); import resource; c = resource.getrusage(0).ru_utime
            training.train(head, m, loss_of, 32 * options.steps, 32, 1, 5e-3)
            print(head, training.accuracy(m, *test), time.perf_counter() - t, resource.getrusage(0).ru_utime - c, flush=True)
    with torch.no_grad():
        w = weights(m.head, m.trunk(test[0][:12] - .5)).view(-1, 16, 16)
    for ax, im, a in zip(f.subplots(2, 6).flat, test[0], w):
        ax.imshow(im.permute(1, 2, 0), extent=(0, 1, 0, 1))
        ax.imshow(a, cmap="hot", alpha=(a / a.max()).sqrt()*.7, extent=(0, 1, 0, 1), interpolation="bilinear")
        ax.axis("off")
    f.savefig(options.out / "x.png")

if __name__ == "__main__":
    main()
