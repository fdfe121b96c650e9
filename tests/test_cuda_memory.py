"""What emulated CUDA kernels do to memory: which sectors a warp touches, and that results are written once.

A warp's access moves whole sectors of 32 bytes. The emulation counts them where its lanes access memory together, and
how few sectors could hold the same bytes: a kernel that touches more wastes as much of the bandwidth. Stores belong
together one by one, loads by fours, since a cache keeps the rest of a sector for that long.
"""

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastpool._C as extension
import fastpool.functional as F

MOST = 1.25  # sectors touched over sectors needed

pytestmark = [
    pytest.mark.skipif(
        not extension.build_info()["emulation"], reason="this build has no emulation; FASTPOOL_EMULATION=1 gives it one"
    ),
    pytest.mark.usefixtures("saves_as_on_cuda"),
]


# As many channels as after the first convolution of many networks.
CHANNELS = {"contiguous": (2, 24), "channels_last": (1, 64)}
WINDOWS = {
    "2x2": ((16, 16), "", {"kernel_size": 2}),
    "2x2 odd": ((15, 14), "", {"kernel_size": 2, "ceil_mode": True}),
    "3x3 stride 2": ((16, 16), "", {"kernel_size": 3, "stride": 2, "padding": 1}),
    "3x3 stride 2 odd": ((13, 13), "", {"kernel_size": 3, "stride": 2}),
    "3x3 stride 1": ((16, 16), "", {"kernel_size": 3, "stride": 1, "padding": 1}),
    "3x3 stride 1 odd": ((14, 14), "", {"kernel_size": 3, "stride": 1, "padding": 1}),
    "5x5 stride 3": ((14, 14), "", {"kernel_size": 5, "stride": 3}),
    "head": ((7, 7), "global", {}),
    "global": ((28, 28), "global", {}),
    "adaptive even": ((28, 28), "adaptive", {"output_size": 7}),
    "adaptive": ((30, 28), "adaptive", {"output_size": 6}),
    "pyramid even": ((16, 16), "pyramid", {"levels": (4, 2, 1)}),
    "pyramid": ((13, 13), "pyramid", {"levels": (6, 3, 2, 1)}),
}
POOLINGS = {
    "max": ("max", {}),
    "avg": ("avg", {}),
    "max_avg": ("max_avg", {}),
    "mixed": ("mixed", {"alpha": 0.3}),
    "draw": ("stochastic", {"seed": 7}),
    "softmax draw": ("stochastic", {"seed": 7, "distribution": "softmax"}),
    "expectation": ("stochastic", {"training": False}),
    "softmax expectation": ("stochastic", {"training": False, "distribution": "softmax"}),
}

# What touches more sectors than MOST allows, why, and how many times as many in the worst case. "To mend": as it is
# today, not as it has to be.
GATHERED = "to mend: lanes load elements one by one, a stride apart or from a row each; the cache holds what they leave"
ROWS = "to mend: lanes store outputs of short rows of several planes"
SPREAD = "to mend: lanes load the outputs of their tiles one by one, a stride apart"
PAIRS = "to mend: an odd row is stored element by element, each lane's two beside each other"
EDGES = "a column beside each lane's pack is a load of its own; the neighbour's pack brought it to the cache"
PYRAMID = "neighbouring channels of a pyramid's output lie all its bins apart"
PLANE = "a few bytes for each plane, from each of several arrays"
SHORT = "short rows of half types begin inside a sector; the cache completes it"
LEVELS = "levels of a small plane are short runs of the output; its planes are read whole"
EXCEPTIONS = {
    ("contiguous", "head", "WholePlanes", "reads"): PLANE,  # 3.11
    ("contiguous", "global", "WholePlanes", "reads"): PLANE,  # 3.16
    ("contiguous", "pyramid even", "PlanesForward", "writes"): LEVELS,  # 2.29
    ("contiguous", "pyramid", "PlanesForward", "writes"): LEVELS,  # 2.37
    ("contiguous", "2x2 odd", "ThreadForward", "reads"): GATHERED,  # 4.28
    ("contiguous", "2x2 odd", "ThreadForward", "writes"): ROWS,  # 1.62
    ("contiguous", "2x2 odd", "TileBackward", "reads"): SPREAD,  # 1.62
    ("contiguous", "2x2 odd", "TileBackward", "writes"): PAIRS,  # 2.07
    ("contiguous", "3x3 stride 2", "RowsBackward", "reads"): EDGES,  # 1.41
    ("contiguous", "3x3 stride 2", "RowsForward", "reads"): EDGES,  # 1.42
    ("contiguous", "3x3 stride 2 odd", "ThreadForward", "reads"): GATHERED,  # 4.72
    ("contiguous", "3x3 stride 2 odd", "ThreadForward", "writes"): ROWS,  # 1.89
    ("contiguous", "3x3 stride 2 odd", "TileBackward", "reads"): SPREAD,  # 2.83
    ("contiguous", "3x3 stride 2 odd", "TileBackward", "writes"): PAIRS,  # 4.46
    ("contiguous", "3x3 stride 1", "RowsForward", "reads"): EDGES,  # 1.33
    ("contiguous", "3x3 stride 1", "RowsBackward", "reads"): EDGES,  # 1.75
    ("contiguous", "3x3 stride 1", "TileBackward", "reads"): SPREAD,  # 3.41
    ("contiguous", "3x3 stride 1 odd", "ThreadForward", "reads"): GATHERED,  # 2.3
    ("contiguous", "3x3 stride 1 odd", "ThreadForward", "writes"): ROWS,  # 1.61
    ("contiguous", "3x3 stride 1 odd", "TileBackward", "reads"): SPREAD,  # 6.72
    ("contiguous", "3x3 stride 1 odd", "TileBackward", "writes"): PAIRS,  # 2.18
    ("contiguous", "5x5 stride 3", "ThreadForward", "reads"): GATHERED,  # 6.2
    ("contiguous", "5x5 stride 3", "ThreadForward", "writes"): ROWS,  # 1.33
    ("contiguous", "5x5 stride 3", "TileBackward", "reads"): SPREAD,  # 2.74
    ("contiguous", "5x5 stride 3", "TileBackward", "writes"): PAIRS,  # 2.18
    ("contiguous", "adaptive even", "ThreadForward", "reads"): GATHERED,  # 5.96
    ("contiguous", "adaptive even", "ThreadForward", "writes"): ROWS,  # 1.87
    ("contiguous", "adaptive even", "BinsBackward", "writes"): SHORT,  # 1.51
    ("contiguous", "adaptive", "ThreadForward", "reads"): GATHERED,  # 11.06
    ("contiguous", "adaptive", "ThreadForward", "writes"): ROWS,  # 1.89
    ("contiguous", "adaptive", "TileBackward", "reads"): SPREAD,  # 4.0
    ("contiguous", "adaptive", "TileBackward", "writes"): PAIRS,  # 1.59
    ("contiguous", "pyramid even", "BinsBackward", "reads"): PLANE,  # 1.7
    ("contiguous", "pyramid", "TileBackward", "reads"): SPREAD,  # 5.14
    ("contiguous", "pyramid", "TileBackward", "writes"): PAIRS,  # 4.46
    ("channels_last", "pyramid even", "TeamForward", "writes"): PYRAMID,  # 13.0
    ("channels_last", "pyramid even", "BinsBackward", "reads"): PYRAMID,  # 11.67
    ("channels_last", "pyramid even", "ThreadForward", "writes"): PYRAMID,  # 3.26
    ("channels_last", "pyramid", "ThreadForward", "writes"): PYRAMID,  # 3.7
    ("channels_last", "pyramid", "TileBackward", "reads"): PYRAMID,  # 8.39
}


def call(windows, pooling, x):
    _, form, geometry = WINDOWS[windows]
    kind, options = POOLINGS[pooling]
    if form == "pyramid":
        return F.spatial_pyramid_pool2d(x, mode=kind, **geometry, **options)
    name = {"": f"{kind}_pool2d", "global": f"global_{kind}_pool", "adaptive": f"adaptive_{kind}_pool2d"}[form]
    return getattr(F, name)(x, **geometry, **options)


class Recorded(TorchDispatchMode):
    """Keeps of each of fastpool's operators its name, its results and what its kernels did."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.namespace != "fastpool":
            return function(*arguments, **(options or {}))
        extension.record(True)
        try:
            results = function(*arguments, **(options or {}))
        finally:
            record = extension.record(False)
        tensors = results if isinstance(results, (tuple, list)) else [results]
        self.operators.append((function.__name__, [tensor for tensor in tensors if tensor.numel()], record))
        return results


def recorded(windows, pooling, x):
    """-> the operators of a forward and a backward pass"""
    x = x.requires_grad_()
    extension.set_schedule("cuda large")
    try:
        with Recorded() as mode:
            y = call(windows, pooling, x)
            outputs = y if isinstance(y, tuple) else (y,)
            torch.autograd.grad(outputs, x, [torch.ones_like(output) for output in outputs])
    finally:
        extension.set_schedule(None)
    assert len(mode.operators) == 2, [name for name, *_ in mode.operators]
    return mode.operators


def times_written(operator, results, record):
    """-> how often each byte of each result was written; fails for a byte outside of them"""
    counts = [np.zeros(tensor.nbytes, np.int64) for tensor in results]
    inside = 0
    for address, size, times in record["written"]:
        for tensor, count in zip(results, counts, strict=True):
            begin = max(address - tensor.data_ptr(), 0)
            end = min(address + size - tensor.data_ptr(), tensor.nbytes)
            if begin < end:
                count[begin:end] += times
                inside += end - begin
    beside = sum(size for _, size, _ in record["written"]) - inside
    assert not beside, f"{operator} writes {beside} bytes elsewhere"
    return counts


def example(layout, size, dtype):
    x = torch.randn(*CHANNELS[layout], *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    return x.to(memory_format=torch.channels_last) if layout == "channels_last" else x


@pytest.mark.parametrize("layout", CHANNELS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_sectors_and_writes(windows, layout):
    wasteful = defaultdict(list)
    for pooling in POOLINGS:
        for dtype in (torch.float16, torch.float32):
            x = example(layout, WINDOWS[windows][0], dtype)
            for operator, results, record in recorded(windows, pooling, x):
                for count in times_written(operator, results, record):
                    assert (count == 1).all(), f"{operator} {pooling} {dtype}: written {np.unique(count)} times"
                for direction in ("reads", "writes"):
                    assert record[direction], f"{operator} {pooling} {dtype}: no kernel {direction}"
                    for kernel, (_, sectors, ideal) in record[direction].items():
                        if sectors > MOST * ideal:
                            wasteful[kernel.split("<")[0], direction].append(f"{kernel} {sectors / ideal:.2f}")
    excepted = {key[2:] for key in EXCEPTIONS if key[:2] == (layout, windows)}
    assert wasteful.keys() == excepted, "\n".join(
        [f"{layout}, {windows}"]
        + [f"too many sectors: {of} {sorted(set(wasteful[of]))}" for of in sorted(wasteful.keys() - excepted)]
        + [f"needs no exception any more: {of}" for of in sorted(excepted - wasteful.keys())]
    )


@pytest.mark.parametrize("layout", CHANNELS)
@pytest.mark.parametrize("windows", ["2x2", "2x2 odd", "3x3 stride 2", "head", "pyramid"])
def test_only_windows_that_are_computed_again_are_written_twice(windows, layout):
    """Where a NaN or an infinity makes the fast arithmetic of draws and expectations wrong."""
    x = example(layout, WINDOWS[windows][0], torch.float32)
    x[:, ::5, 3, 3], x[:, 1::5, 3, 3], x[:, 2::5, 3, 3] = torch.nan, torch.inf, -torch.inf
    again = set()
    for pooling in POOLINGS:
        (operator, results, record), backward = recorded(windows, pooling, x.detach())
        assert all((count == 1).all() for count in times_written(*backward)), f"{pooling}: gradients"
        finite = torch.as_strided(results[0], (results[0].numel(),), (1,)).isfinite()
        for result, count in zip(results, times_written(operator, results, record), strict=True):
            times = torch.from_numpy(count).view(-1, result.element_size())
            assert (times == times[:, :1]).all(), f"{pooling}: a part of an element is written again"
            assert set(times.unique().tolist()) <= {1, 2}, f"{pooling}: written {times.unique().tolist()} times"
            twice = times[:, 0] == 2
            # What a pyramid saves lies in another order than its output.
            assert twice.sum() <= (~finite).sum() * (result.numel() // finite.numel()), pooling
            if result is results[0]:
                assert not (twice & finite).any(), pooling
            again |= {pooling} if twice.any() else set()
    assert not again & {"max", "avg", "max_avg", "mixed"}
    # Of small planes a thread asks before it stores.
    assert bool(again) != (layout == "contiguous" and windows in ("head", "pyramid"))


def test_every_exception_names_a_case():
    assert {key[:2] for key in EXCEPTIONS} <= {(layout, windows) for layout in CHANNELS for windows in WINDOWS}
