"""Times every CPU schedule that can compute a cell, and tells where the chosen one is not within 10 % of the fastest.

    python benchmarks/schedules.py                 every layer in float32, one thread
    python benchmarks/schedules.py --layer 'vgg16-*' --operation max --dtype float16 --threads 2
    python benchmarks/schedules.py --capability avx2

A cell is a layer, an operation, a layout and a pass; a backward is timed alone. The exact schedule, for what the others
leave out, is not among them. Differences that a second look does not confirm are noise.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import layers, operations
from benchmarks.checks import assert_near, differentiable, tensors
from benchmarks.measure import measure_in_turn, on_cpu
from benchmarks.run import DTYPES, LAYOUTS, cells, random_input
from fastpool import _C

# One of each kind of reduction: the others have the same traits.
KINDS = ("max", "avg", "mixed", "stochastic", "soft", "mean_std")
TOLERANCE = 1.1
SEED = 7
COLUMNS = "{:22} {:10} {:13} {:8}  {:15} {:9}  {}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", nargs="+", metavar="NAME", help="names or patterns")
    parser.add_argument("--operation", nargs="+", default=KINDS, choices=operations.OPERATIONS)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--threads", nargs=1, type=int, default=[1])
    parser.add_argument("--capability", help="baseline, avx2 or avx512 (default: the processor's best)")
    parser.add_argument("--seconds", type=float, default=0.05, help="time spent on each median")
    parser.add_argument("--all", action="store_true", help="print every cell with a choice")
    # What `cells` asks of a run, whose passes are timed apart here.
    parser.set_defaults(quick=False, device="cpu", passes=["forward"])
    return parser.parse_args()


@contextmanager
def schedule(name: str | None):
    _C.set_schedule(name)
    try:
        yield
    finally:
        _C.set_schedule(None)


def chosen(direction: str) -> set[str]:
    """The last call's schedules of a pass."""
    return {name for name in _C.chosen_schedules() if name.startswith(direction)}


def calls_of(layer, operation, layout, dtype):
    """(pass, the call of it)"""
    x = random_input(layer, DTYPES[dtype], layout, "cpu")
    inputs = [x, *operation.parameters(x)]
    function = operation.fastpool(layer)
    yield "forward", lambda: function(*inputs)
    inputs = [t.requires_grad_() for t in inputs]
    outputs = differentiable(function(*inputs))
    gradients = [torch.randn_like(y) for y in outputs]
    yield "backward", lambda: torch.autograd.grad(outputs, inputs, gradients, retain_graph=True)


def measured(direction, call, options):
    """-> the chosen schedules, the seconds of all that fit"""
    torch.manual_seed(SEED)
    expected = tensors(call())
    own = chosen(direction)
    label = " + ".join(sorted(name.split()[1] for name in own))
    forced = {label: None}
    for name in _C.SCHEDULES:
        if not name.startswith(direction) or name.endswith(" exact") or own == {name}:
            continue
        torch.manual_seed(SEED)
        with schedule(name):
            actual = tensors(call())
        if name not in chosen(direction):
            continue
        for result, wanted in zip(actual, expected, strict=True):
            if result.is_floating_point():
                assert_near(result, wanted)
        forced[name.split()[1]] = name

    def sampler(name):
        timed = on_cpu(call, [()], *options.threads)

        def sample(seconds):
            with schedule(name):
                return timed(seconds)

        return sample

    if len(forced) == 1:
        return label, {}
    times = measure_in_turn({one: sampler(name) for one, name in forced.items()}, options.seconds)
    return label, {one: found.lower_quartile for one, found in times.items()}


def is_slower(own, times) -> bool:
    return times[own] > TOLERANCE * min(times.values())


def main() -> int:
    options = parse()
    if options.capability:
        _C.set_cpu_capability(options.capability)
    torch.set_num_threads(*options.threads)
    print(COLUMNS.format("layer", "operation", "layout", "pass", "chosen", "ms", "others: ms"))
    started, count, slower = time.time(), 0, 0
    for cell in cells(options):
        layer, operation = layers.LAYERS[cell["layer"]], operations.OPERATIONS[cell["operation"]]
        for direction, call in calls_of(layer, operation, cell["layout"], cell["dtype"]):
            own, times = measured(direction, call, options)
            if not times:
                continue
            if is_slower(own, times):  # a second look
                times = measured(direction, call, options)[1]
            count += 1
            slower += is_slower(own, times)
            if is_slower(own, times) or options.all:
                milliseconds = {one: f"{seconds * 1e3:.3f}" for one, seconds in times.items()}
                others = [f"{one} {milliseconds[one]}" for one in sorted(times, key=times.get) if one != own]
                names = (cell["layer"], cell["operation"], cell["layout"])
                row = (*names, direction, own, milliseconds[own], ", ".join(others))
                print(COLUMNS.format(*row), flush=True)
    print(f"{slower} of {count} cells: another schedule is more than 10 % faster; {time.time() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
