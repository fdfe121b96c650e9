"""DTensors: every process pools its shard of batch and channels, since no window reaches beyond them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from ._autograd import run
from ._formulas import saved_of, to_result
from ._layouts import CONTIGUOUS, layout_of, memory_format
from ._operators import OPERATORS, RESULTS
from ._windows import BY_CHANNEL, MAP, Geometry

# Where a tensor has the input's batch and channels, if it has.
Axes = tuple[int | None, int | None]
MAP_AXES: Axes = (0, 1)


class Shards:
    """How an input (N, C, *spatial) is cut over a mesh, and what else belongs to a shard of it."""

    def __init__(self, input: DTensor) -> None:
        self.device_mesh = input.device_mesh
        self.shape = tuple(input.shape)
        self.layout = layout_of(input)
        # As torch's own poolings: other axes, and sums that are due, are brought together first.
        self.placements = [p if type(p) is Shard and p.dim < 2 else Replicate() for p in input.placements]
        fewest = self.shape[1]
        for i, placement in enumerate(self.placements):
            if placement == Shard(1):
                size = self.device_mesh.size(i)
                last = fewest - (size - 1) * -(-fewest // size)
                # No process is left without channels, of which kernels take at least one.
                self.placements[i] = placement if last > 0 else Replicate()
                fewest = last if last > 0 else fewest

    @property
    def processes_over_channels(self) -> int:
        return math.prod(self.device_mesh.size(i) for i, p in enumerate(self.placements) if p == Shard(1))

    def begin(self, axis: int) -> int:
        """The sample, or channel, that this process begins with."""
        coordinates: Any = self.device_mesh.get_coordinate()
        begin, length = 0, self.shape[axis]
        for i, placement in enumerate(self.placements):
            if placement == Shard(axis):
                each = -(-length // self.device_mesh.size(i))
                before = min(coordinates[i] * each, length)
                begin, length = begin + before, min(each, length - before)
        return begin

    def local(self, x: Any, axes: Axes = MAP_AXES) -> Tensor:
        """This process's part of a tensor; what all shards share gets the sum of their gradients."""
        placements = self.placements_at(axes)
        if not isinstance(x, DTensor):
            if x.requires_grad:
                raise TypeError("beside an input that is a DTensor, a tensor that requires a gradient must be one, too")
            x = beside_shards(x, self)
        elif x.device_mesh != self.device_mesh:
            raise ValueError(f"tensors must be on the input's mesh {self.device_mesh}, got one on {x.device_mesh}")
        grads = [
            Partial() if cut.is_shard() and not here.is_shard() else here
            for cut, here in zip(self.placements, placements)
        ]
        if list(x.placements) != placements:
            x = x.redistribute(placements=placements)
        part: Tensor = x.to_local(grad_placements=grads)
        return part

    def whole(self, y: Tensor, axes: Axes = MAP_AXES, layout: int = CONTIGUOUS) -> DTensor:
        """A result of which every process has computed its part."""
        shape = list(y.shape)
        for axis, size in zip(axes, self.shape):
            if axis is not None:
                shape[axis] = size
        stride = torch.empty(shape, device="meta", memory_format=memory_format(layout, y.dim())).stride()
        placements = self.placements_at(axes)
        whole = DTensor.from_local(y, self.device_mesh, placements, shape=torch.Size(shape), stride=stride)
        # Nothing moves; but a gradient that is placed otherwise has a second derivative through this alone.
        return whole.redistribute(placements=placements)

    def axes_of(self, parameter: Tensor) -> Axes:
        """Of one for all, one per channel, or one per region."""
        if parameter.dim() < 2:
            return (None, parameter.dim() - 1 if parameter.dim() else None)
        n, c = parameter.shape[:2]
        return (0 if n > 1 else None, 1 if c > 1 else None)

    def placements_at(self, axes: Axes) -> list[Placement]:
        placements: list[Placement] = []
        for placement in self.placements:
            axis = axes[placement.dim] if isinstance(placement, Shard) else None
            placements.append(Replicate() if axis is None else Shard(axis))
        return placements


def run_on_shards(
    name: str,
    recorded: bool,
    inputs: Sequence[Any],
    own: Tensor | None,
    numbers: Sequence[float],
    integers: Sequence[int],
    window: Sequence[int],
    order: int,
    saves: int,
) -> Any:
    """As `run`, for DTensors; of what a call saves for its gradient it returns the taps alone."""
    shards = Shards(inputs[0])
    drawn = name.startswith("stochastic")
    if drawn:
        value, sample, channel = integers
        integers = (value, sample + shards.begin(0), channel + shards.begin(1))
    if own is not None:
        own = shards.local(own, (None, None) if drawn else shards.axes_of(own))
    xs = [shards.local(x) for x in inputs]
    if order == MAP:
        results = run(name, recorded, xs, own, numbers, integers, window, order, saves)
        return _maps(name, shards, results)
    n = 0 if len(inputs) == 1 else None  # of a list every row is whole
    cut = Shard(1) in shards.placements
    # Part of the channels is part of the result only where the channels come one after another.
    results = run(name, recorded, xs, own, numbers, integers, window, BY_CHANNEL if cut else order, saves)
    part, *others = results if isinstance(results, (tuple, list)) else (results,)
    if cut:
        maps = 2 if "second" in RESULTS[name] else 1
        planes = shards.whole(part.reshape(len(part), maps, xs[0].shape[1], -1), (n, 2))
        if order != BY_CHANNEL or maps > 1 or shards.shape[1] % shards.processes_over_channels:
            planes = planes.redistribute(placements=shards.placements_at((n, None)))
        y = to_result(planes.flatten(1, 2), saved_of(inputs, window, order))
    else:
        y = shards.whole(part, (n, None))
    return (y, *others) if others else y


def _maps(name: str, shards: Shards, results: Any) -> Any:
    """What has an entry for each output; the others never leave this process."""
    if isinstance(results, Tensor):
        return shards.whole(results, layout=shards.layout)
    return [
        shards.whole(y, layout=shards.layout) if kept in ("output", "second", "taps") and y.dim() > 1 else y
        for kept, y in zip(RESULTS[name], results, strict=True)
    ]


def beside_shards(x: Tensor, input: Any) -> Tensor:
    """A tensor that is the same in every process, to be used with the input."""
    return DTensor.from_local(x, input.device_mesh, [Replicate()] * input.device_mesh.ndim)


def indices_of_shards(taps: Any, size: Sequence[int], window: Sequence[int]) -> Tensor:
    shards = Shards(taps)
    return shards.whole(OPERATORS["tap_indices"](shards.local(taps), size, window), layout=shards.layout)


def products_of_shards(
    products: Callable[..., tuple[Tensor, Tensor]], x: Any, geometry: Geometry, filters: Tensor, values: int
) -> tuple[Tensor, Tensor]:
    shards = Shards(x)
    part = shards.local(x)
    own = shards.local(filters, (None, 1 if filters.shape[1] > 1 else None))
    first, shares = products(part, geometry._replace(channels=part.shape[1]), own, values)
    return shards.whole(first.contiguous(), (1, 2)), shards.whole(shares.contiguous(), (1, 2))
