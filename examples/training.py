"""Training as all programs here do it, and times that can be compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from program import progress
from torch import Tensor, nn
from torch.utils.benchmark import Timer

Batch = TypeVar("Batch")


def batches(count: int, size: int, epochs: int) -> Iterator[Tensor]:
    """Indices of `count` samples, shuffled anew in every epoch; the last, smaller batch is left out."""
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // size * size].split(size)


def train(
    name: str,
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    size: int,
    epochs: int,
    rate: float,
    each_epoch: Callable[[], None] = lambda: None,
    part: tuple[int, int] = (0, 1),
) -> list[float]:
    """AdamW with one cycle of the learning rate, over `epochs` times `count` samples; the loss of every step.

    `loss_of` gets a batch's indices. `part` (3, 5) is the fourth of five trainings, as long as each other, in one bar.
    """
    in_epoch = count // size
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * in_epoch)
    losses: list[float] = []
    for step, batch in enumerate(batches(count, size, epochs), 1):
        model.train()
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % in_epoch == 0:
            each_epoch()
        steps = epochs * in_epoch
        progress(name, part[0] * steps + step, part[1] * steps, f"loss {losses[-1]:.3f}")
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    guesses = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return (guesses == labels).float().mean().item()


def seconds(calls: Mapping[str, Callable[[], object]], rounds: int = 5, at_least: float = 0.1) -> dict[str, float]:
    """The median time of each call. They take turns, so that what slows the machine slows all of them."""
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        for name, call in calls.items()
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, timer in timers.items():
            times[name].append(timer.blocked_autorange(min_run_time=at_least / rounds).median)
    return {name: statistics.median(of) for name, of in times.items()}


def mean_and_spread(values: list[float], form: str = "{:.1%}") -> str:
    """Mean and standard deviation over seeds; of one seed there is no deviation."""
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean
