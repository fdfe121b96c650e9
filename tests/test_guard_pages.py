"""No kernel touches memory beside its tensors, which here begin or end at pages that nobody may touch.

A page that is touched ends the process, so that cases run in child processes, which name each before they run it.
"""

import ctypes
import itertools
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import backends
import cases
import pytest
import reference
import torch
from poolings import POOLINGS

import fastpool._C as extension
import fastpool.functional as F

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are guarded by Linux's mprotect")

PAGE = mmap.PAGESIZE
CAPABILITIES = ("baseline", "avx2", "avx512")
LARGE = 2**16  # elements; larger cases run once


class Fence:
    """Makes tensors that begin, or end, at a guarded page."""

    def __init__(self):
        self.at_end = True
        self.protect = ctypes.CDLL(None, use_errno=True).mprotect
        self.protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def strided(self, shape, strides, dtype):
        """An undefined tensor without gaps."""
        count = 1
        for n in shape:
            count *= n
        if count == 0:
            return torch.empty_strided(shape, strides, dtype=dtype)  # some operations enlarge it
        size = count * dtype.itemsize
        inner = -(-size // PAGE) * PAGE
        memory = mmap.mmap(-1, inner + 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (address, address + PAGE + inner):
            if self.protect(page, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        offset = PAGE + (inner - size if self.at_end else 0)
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).as_strided(shape, strides)

    def copy(self, x):
        """x in the same layout; what has gaps or repeats elements is copied by the library, too."""
        dense = x.numel() == 0 or x.is_contiguous() or cases.is_dense_channels_last(x)
        return self.strided(x.shape, x.stride(), x.dtype).copy_(x) if dense else x

    def fresh(self, size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        """torch.empty"""
        dtype = dtype or torch.get_default_dtype()
        strides = torch.empty(size, device="meta", memory_format=memory_format or torch.contiguous_format).stride()
        return self.strided(size, strides, dtype)


def results_of(case, x):
    """Every call on x, by name -> its differentiable results"""
    form = "adaptive_" if "output_size" in case.geometry else ""

    def call(kind, **options):
        outputs = getattr(F, f"{form}{kind}_pool{case.rank}d")(x, **case.geometry, **options)
        return [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y.is_floating_point()]

    for pooling in POOLINGS:
        other_divisors = pooling.name.startswith("avg ")
        if not other_divisors and ("adaptive" if form else "sliding") in pooling.forms:
            yield str(pooling), lambda pooling=pooling: pooling(case, x)
    yield "max with indices", lambda: call("max", return_indices=True)
    for name, options in backends.DRAWS.items():
        yield f"{name} draw", lambda options=options: call("stochastic", seed=7, return_indices=True, **options)
    shape = x.shape[1:2] if cases.is_channels_last(x) else call("avg")[0].shape
    alpha = FENCE.copy(torch.full(shape, 0.25, dtype=x.dtype)).requires_grad_()
    yield f"alpha of shape {tuple(shape)}", lambda: call("mixed", alpha=alpha)
    if not form:
        lead = x.shape[-1 - case.rank :][:1] if cases.is_channels_last(x) else ()
        kernel = reference.per_axis(case.geometry["kernel_size"], case.rank)
        weight, leaves = (FENCE.copy(torch.full((*n, *lead, *kernel), 0.25, dtype=x.dtype)) for n in ((), (2,)))
        yield "gated", lambda: call("gated", weight=weight.requires_grad_())
        yield "tree", lambda: call("tree", leaves=leaves.requires_grad_(), gates=weight.detach()[None])


def pyramids_of(name, x):
    for flatten, mode in itertools.product(("level", "channel"), ("max", "avg", "max_avg", "mixed", "stochastic")):
        options = {**backends.PYRAMIDS[name][1], "flatten": flatten, "mode": mode}
        options |= {"seed": 5} if mode == "stochastic" else {}
        yield f"{mode} by {flatten}", lambda options=options: [F.spatial_pyramid_pool2d(x, **options)]
        if mode == "stochastic":
            options = {**options, "training": False}
            yield f"expectation by {flatten}", lambda options=options: [F.spatial_pyramid_pool2d(x, **options)]


def run_calls(what, calls):
    """Each call without and with a gradient; -> how many there were"""
    count = 0
    for name, call in calls:
        os.write(1, f"{what}: {name}\n".encode())
        with torch.no_grad():
            call()
        # What backward reads is fenced as well.
        with torch.autograd.graph.saved_tensors_hooks(FENCE.copy, lambda saved: saved):
            outputs = call()
        leaves = [y for y in outputs if y.requires_grad]
        torch.autograd.backward(leaves, [FENCE.copy(g) for g in backends.incoming(leaves)])
        count += 1
    return count


def layouts_of(shape):
    return ("contiguous", "channels_last") if len(shape) in (4, 5) else ("contiguous",)


BEST = extension.build_info()["cpu_capability"]


def places(dtype):
    """Ends on every capability, as lanes differ; beginnings on the best but AVX-512, which forgives what it masks."""
    for capability in CAPABILITIES[: CAPABILITIES.index(BEST) + 1]:
        if capability != "baseline" or dtype not in cases.HALF:  # which has no lanes for them
            yield capability, True
    if dtype is torch.float32:
        yield ("avx2" if BEST == "avx512" else BEST), False


def each_input(case, dtypes, layouts):
    """-> what it is, the fenced input; turns to each capability"""
    for dtype, layout in itertools.product(dtypes, layouts):
        values = cases.LAYOUTS[layout](case.values(dtype))
        for capability, at_end in places(dtype) if values.numel() < LARGE else [(BEST, True)]:
            extension.set_cpu_capability(capability)
            FENCE.at_end = at_end
            what = f"{case}, {dtype}, {layout}, {capability}, at the {'end' if at_end else 'beginning'}"
            yield what, FENCE.copy(values).requires_grad_()


def run_cases(layout):
    """All cases whose layout is dense, in one layout: in float32, and each other one in another dtype, too."""
    count = 0
    for i, case in enumerate(cases.ALL):
        dense = case.layout in ("contiguous", "channels_last")
        if dense and layout in layouts_of(case.shape) and (case.batched or layout == "contiguous"):
            for what, x in each_input(case, backends.dtypes(case)[: 1 + i % 2], [layout]):
                count += run_calls(what, results_of(case, x))
    return count


# Last rows, planes and channels that end among the lanes; and inputs that exceed the caches.
MORE = [
    cases.adaptive("bins of 17 planes", (1, 17, 1, 45), (1, 2)),
    cases.adaptive("33 planes of 33", (1, 33, 1, 33), 1),
    cases.adaptive("7x7 of 65 planes", (1, 65, 7, 7), 1),
    cases.sliding("wide windows", (1, 2, 3, 400), (2, 290), stride=(1, 40)),
    cases.sliding("clipped on both sides", (1, 3, 5, 37), (3, 5), stride=(2, 1), padding=(1, 2)),
    cases.sliding("squares", (1, 3, 6, 34), 2, "positive"),
    cases.sliding("odd squares", (1, 5, 7, 13), 2, "positive"),
    cases.sliding("short squares", (1, 3, 6, 14), 2, "positive"),
    cases.sliding("shorter squares", (2, 3, 8, 6), 2, "positive"),
    cases.sliding("short rows above an odd one", (1, 3, 13, 8), 2, "positive"),
    cases.sliding("short rows of odd planes", (1, 3, 13, 29), 2, "positive"),
    cases.sliding("large, few channels", (1, 3, 21, 23), 20, stride=1),
    cases.sliding("overlapping much", (2, 3, 9, 23), 5, stride=1, padding=2),
    cases.sliding("overlapping much, 3d", (1, 5, 4, 5, 7), 4, stride=1, padding=2),
    cases.sliding("overlapping much, strided", (1, 70, 11, 19), 8, stride=(1, 3)),
    cases.sliding("far away", (130, 70, 17, 16), 8, stride=4),
    cases.adaptive("far away bins", (130, 70, 17, 16), 2),
]


def run_more():
    count = 0
    for case in MORE:
        for what, x in each_input(case, backends.dtypes(case), layouts_of(case.shape)):
            count += run_calls(what, results_of(case, x))
    for name, (shape, _) in backends.PYRAMIDS.items():
        case = cases.sliding(f"pyramid {name}", shape, 1)
        for what, x in each_input(case, (torch.float32, torch.bfloat16), ("contiguous", "channels_last")):
            count += run_calls(what, pyramids_of(name, x))
    return count


def run_emulation():
    """The CUDA schedules on small tensors."""
    if not extension.build_info()["emulation"]:
        return 0
    extension.set_schedule("cuda")
    count = 0
    for case in cases.ALL[::3]:
        x = case.values(torch.float32)
        if case.layout in ("contiguous", "channels_last") and x.numel() < 2000:
            FENCE.at_end = True
            count += run_calls(f"{case}, emulated", results_of(case, FENCE.copy(x).requires_grad_()))
    return count


def touch_beside():
    """Reads the byte behind a fenced tensor: this must not end well."""
    x = FENCE.copy(torch.ones(3))
    ctypes.string_at(x.data_ptr() + x.numel() * x.element_size(), 1)
    return 0


def end_at_pages():
    """Results of the library are fenced, too."""
    y = F.max_pool2d(FENCE.copy(torch.ones(1, 3, 4, 6)), 2)
    assert (y.data_ptr() + y.numel() * y.element_size()) % PAGE == 0
    return 1


BLOCKS = {
    "contiguous": lambda: run_cases("contiguous"),
    "channels_last": lambda: run_cases("channels_last"),
    "more": run_more,
    "emulation": run_emulation,
    "touch": touch_beside,
    "fences": end_at_pages,
}


def run_block(block):
    """-> exit status, last line, what it wrote to stderr"""
    folder = Path(__file__).parent
    paths = {"PYTHONPATH": os.pathsep.join([str(folder.parent), str(folder)])}
    child = subprocess.run([sys.executable, __file__, block], capture_output=True, text=True, env=os.environ | paths)
    lines = child.stdout.splitlines()
    return child.returncode, lines[-1] if lines else "", child.stderr[-2000:]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != "touch"])
def test_nothing_is_touched_beside_tensors(block):
    status, last, errors = run_block(block)
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    assert status == 0, f"{ended} in {last}\n{errors}"
    word, count = last.split()
    assert word == "calls"
    if block == "emulation" and not extension.build_info()["emulation"]:
        pytest.skip("this build has no emulation; FASTPOOL_EMULATION=1 gives it one")
    assert int(count) > 0


def test_the_fence_holds():
    assert run_block("touch")[0] == -signal.SIGSEGV


if __name__ == "__main__":
    FENCE = Fence()
    torch.set_num_threads(1)
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", FENCE.fresh, "CPU")
    print("calls", BLOCKS[sys.argv[1]](), flush=True)
