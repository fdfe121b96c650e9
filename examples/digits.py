"""Trains a small CNN on real handwritten digits, once with each of fastpool's poolings.

    make demo                          scikit-learn's 1,797 digits
    make demo MNIST=FOLDER             MNIST, from its four IDX files (.gz or not)

Prints test accuracy, training time, and the time spent in pooling against torch's own operations.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import composed
import data
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

import fastpool.nn as fnn


class Pooling(NamedTuple):
    """What comes after the two convolutions, and the same without fastpool."""

    first: Callable[[], nn.Module]
    second: Callable[[], nn.Module]
    composed: tuple[Callable[[], nn.Module], Callable[[], nn.Module]]
    many_sizes: bool = False


def twice(own: Callable[[], nn.Module], theirs: Callable[[], nn.Module]) -> Pooling:
    return Pooling(own, own, (theirs, theirs))


POOLINGS = {
    "max": twice(lambda: fnn.MaxPool2d(2), lambda: nn.MaxPool2d(2)),
    "average": twice(lambda: fnn.AvgPool2d(2), lambda: nn.AvgPool2d(2)),
    "mixed": twice(lambda: fnn.MixedPool2d(2, learnable=True), lambda: composed.Mixed(2)),
    "stochastic": twice(lambda: fnn.StochasticPool2d(2), lambda: composed.Stochastic(2)),
    # A pyramid gives a vector of one length for images of any size, so this network trains on many.
    "pyramid": Pooling(
        lambda: fnn.MaxPool2d(2),
        lambda: fnn.SpatialPyramidPool2d((4, 2, 1)),
        (lambda: nn.MaxPool2d(2), lambda: composed.Pyramid((4, 2, 1))),
        many_sizes=True,
    ),
}


class Network(nn.Module):
    def __init__(self, pooling: Pooling, side: int):
        super().__init__()
        self.pools = nn.ModuleList([pooling.first(), pooling.second()])
        # ReLU comes before pooling: stochastic pooling draws in proportion to positive activations.
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), self.pools[0],
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), self.pools[1],
            nn.Flatten(),
        )  # fmt: skip
        width = self.features(torch.zeros(1, 1, side, side)).shape[1]
        self.classifier = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class Result(NamedTuple):
    accuracy: dict[int, float]  # by the side of the test images
    training: float
    pooling: float
    composed: float
    alphas: list[float]


def run(name: str, digits: data.Digits, options: argparse.Namespace) -> Result:
    torch.manual_seed(options.seed)
    pooling, side = POOLINGS[name], digits.train[0].shape[-1]
    model = Network(pooling, side)
    pooled: Counter[tuple[int, torch.Size]] = Counter()
    for index, layer in enumerate(model.pools):
        layer.register_forward_pre_hook(lambda _, inputs, index=index: pooled.update([(index, inputs[0].shape)]))

    started = time.perf_counter()
    train(name, model, digits.train, pooling.many_sizes, options)
    training = time.perf_counter() - started

    calls = dict(pooled)
    theirs = [layer() for layer in pooling.composed]
    sides = (side, side * 3 // 2, side * 2) if pooling.many_sizes else (side,)
    return Result(
        accuracy={side: accuracy(model, digits.test, side) for side in sides},
        training=training,
        pooling=sum(count * seconds_of(model.pools[i], shape) for (i, shape), count in calls.items()),
        composed=sum(count * seconds_of(theirs[i], shape) for (i, shape), count in calls.items()),
        alphas=[layer.alpha.item() for layer in model.pools] if name == "mixed" else [],
    )


def train(name: str, model: nn.Module, digits: tuple[Tensor, Tensor], many_sizes: bool, options: argparse.Namespace):
    images, labels = digits
    side, steps = images.shape[-1], options.epochs * (len(images) // options.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step, batch in enumerate(batches(len(images), options.batch, options.epochs), 1):
        x = data.jittered(images[batch])
        if many_sizes:
            x = data.resized(x, int(torch.randint(side, 2 * side + 1, ())))
        loss = F.cross_entropy(model(x), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(name, step, steps, f"loss {loss.item():.3f}")


def batches(count: int, size: int, epochs: int) -> Iterable[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // size * size].split(size)


def accuracy(model: nn.Module, test: tuple[Tensor, Tensor], side: int) -> float:
    model.eval()
    with torch.no_grad():
        guesses = torch.cat([model(data.resized(x, side)).argmax(1) for x in test[0].split(1000)])
    return (guesses == test[1]).float().mean().item()


def seconds_of(layer: nn.Module, shape: torch.Size) -> float:
    """Forward and backward of one pooling layer in training, the median of many calls."""
    layer.train()
    x = torch.randn(shape).relu().requires_grad_()
    inputs = [x, *layer.parameters()]
    gradient = torch.randn_like(layer(x))
    timer = Timer(
        "grad(layer(x), inputs, gradient)",
        globals=dict(grad=torch.autograd.grad, layer=layer, x=x, inputs=inputs, gradient=gradient),
        num_threads=torch.get_num_threads(),
    )
    return timer.blocked_autorange(min_run_time=0.1).median


def progress(name: str, step: int, steps: int, note: str) -> None:
    if sys.stdout.isatty():
        filled = 30 * step // steps
        bar = "━" * filled + "╌" * (30 - filled)
        print(f"\r{name:<11}{bar} {step}/{steps}  {note}\033[K", end="\n" if step == steps else "", flush=True)
    elif step == steps:
        print(f"{name:<11}{steps} steps  {note}", flush=True)


def table(results: dict[str, Result]) -> str:
    lines = [
        "pooling        test      training   of which   the same with",
        "             accuracy    seconds    pooling    torch's operations",
        "─" * 66,
    ]
    for name, result in results.items():
        (shown, *_), own, theirs = result.accuracy.values(), result.pooling, result.composed
        lines.append(
            f"{name:<11}{shown:>9.1%}{result.training:>12.1f}{own:>11.2f}{theirs:>11.2f}  ({theirs / own:.1f} times)"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="train on MNIST's IDX files in this folder")
    parser.add_argument("--poolings", nargs="+", choices=POOLINGS, default=list(POOLINGS))
    parser.add_argument("--epochs", type=int, help="default: 20, with MNIST 3")
    parser.add_argument("--batch", type=int, help="default: 32, with MNIST 128")
    parser.add_argument("--threads", type=int, help="default: 1, with MNIST as many as torch takes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.epochs = options.epochs or (3 if options.mnist else 20)
    options.batch = options.batch or (128 if options.mnist else 32)
    # On 8x8 images threads would mostly wait for each other.
    options.threads = options.threads or (torch.get_num_threads() if options.mnist else 1)
    return options


def main() -> None:
    options, started = parse(), time.perf_counter()
    torch.set_num_threads(options.threads)
    digits = data.mnist(options.mnist) if options.mnist else data.scikit_digits()
    (images, _), (held_out, _) = digits
    side = images.shape[-1]
    print(f"{'MNIST' if options.mnist else 'scikit-learn'} digits, {side}x{side}: ", end="")
    print(f"{len(images)} to train on, {len(held_out)} held out for the test; ", end="")
    print(f"{options.epochs} epochs, seed {options.seed}, threads: {options.threads}\n")

    results = {name: run(name, digits, options) for name in options.poolings}
    print("\n" + table(results) + "\n")
    if "mixed" in results:
        alphas = " and ".join(f"{alpha:.2f}" for alpha in results["mixed"].alphas)
        print(f"mixed learned alpha = {alphas} (1 is max, 0 average)")
    if "pyramid" in results:
        accuracies = ", ".join(f"{value:.1%} at {s}x{s}" for s, value in results["pyramid"].accuracy.items())
        print(f"pyramid, one network for images of {side} to {2 * side} pixels: {accuracies}")
    print(f"{time.perf_counter() - started:.0f} seconds in all")


if __name__ == "__main__":
    main()
