"""Medians and quartiles of a call, and the floor: the time that moving its bytes takes in the same run."""

from __future__ import annotations

import ctypes
import mmap
import time
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.benchmark import Timer

# glibc's mallopt parameters: with no mmap and no trimming, freed pages are used again without a page fault.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
HUGE_PAGE = 2 << 20
# Below this a pass times its own call, not the memory.
SMALLEST_PASS = 1 << 20
# Of each contender of a row, after a pause: idle thread pools of some runtimes keep spinning for a while.
TURNS, PAUSE = 3, 0.01
# Of a GPU's inputs: so many that a turn of all of them reads three times the L2, or this many where that takes more.
CACHE_FILLS, MOST_COPIES = 3, 64
# A card at rest runs at a fifth of its clock.
WARM_UP = 0.05
# Clock cycles in which the host gets ahead: of a graph's one launch, and of all calls of a rotation.
AHEAD_OF_A_GRAPH, AHEAD_OF_CALLS = 1_000_000, 20_000_000
# A call that launches with gaps is told beside its replay.
NOTABLE_GAPS = 1.05


@dataclass
class Times:
    """Seconds of one call."""

    median: float
    lower_quartile: float
    upper_quartile: float
    samples: int

    @classmethod
    def of(cls, samples):
        lower, median, upper = torch.tensor(samples).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        return cls(median, lower, upper, len(samples))


def reuse_buffers():
    """Makes every allocation after this call reuse freed memory, for fastpool and all rivals alike."""
    libc = ctypes.CDLL(None)
    if not libc.mallopt(M_MMAP_MAX, 0) or not libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1):
        raise OSError("mallopt refused: --buffers reused needs glibc")


def measure_in_turn(samplers: dict, seconds: float) -> dict[str, Times]:
    """Calls each sampler, which takes seconds and returns samples, in turns: what disturbs the machine meets all of
    them. One that takes several times as long has its first turn only."""
    names = list(samplers)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(TURNS):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            if samples[name] and min(samples[name]) > 4 * seconds:
                continue
            time.sleep(PAUSE)
            samples[name] += samplers[name](seconds / TURNS)
    return {name: Times.of(found) for name, found in samples.items()}


def on_cpu(call, arguments: list[tuple], threads: int):
    """A sampler of `call(*arguments[0])`, which has run before."""
    timer = Timer("call(*arguments)", globals={"call": call, "arguments": arguments[0]}, num_threads=threads)
    return lambda seconds: timer.blocked_autorange(min_run_time=seconds).times


class OnCuda:
    """A sampler of `call(*inputs)` for each `inputs` of `arguments` in turn: replayed as a CUDA graph, without the gaps
    between launches, or where `refusal` says why there is no graph, as calls that the host has queued beforehand."""

    def __init__(self, call, arguments: list[tuple]):
        self.call, self.arguments, self.refusal = call, arguments, ""
        ahead = torch.cuda.Stream()
        ahead.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(ahead):
            self.warm_up()
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                self.rotate()
            self.work, self.cycles = graph.replay, AHEAD_OF_A_GRAPH
        except Exception as error:
            torch.cuda.set_stream(current)
            self.refusal = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            self.work, self.cycles = self.rotate, AHEAD_OF_CALLS

    def rotate(self):
        for inputs in self.arguments:
            self.call(*inputs)

    def warm_up(self):
        finish = time.perf_counter() + WARM_UP
        while time.perf_counter() < finish:
            self.rotate()
            torch.cuda.synchronize()

    def __call__(self, seconds: float) -> list[float]:
        return self.samples(self.work, lambda: torch.cuda._sleep(self.cycles), seconds)

    def called(self, seconds: float) -> Times:
        """As a program calls it, with the gaps in which the device waits for the host."""
        return Times.of(self.samples(self.rotate, torch.cuda.synchronize, seconds))

    def samples(self, work, before, seconds):
        samples, finish = [], time.perf_counter() + seconds
        while not samples or time.perf_counter() < finish:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # Cold: since this read of three times the cache, which leaves nothing to be written back, each input is
            # met once.
            read(cache_filler())
            before()
            start.record()
            work()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) / 1e3 / len(self.arguments))
        return samples


def gaps(samplers: dict[str, OnCuda], times: dict[str, Times], seconds: float) -> dict[str, Times]:
    """What calls take beside their replays, where that is notably more."""
    called = {name: sampler.called(seconds) for name, sampler in samplers.items()}
    return {name: found for name, found in called.items() if found.median > NOTABLE_GAPS * times[name].median}


def cold_bytes() -> int:
    return CACHE_FILLS * torch.cuda.get_device_properties().L2_cache_size


@cache
def cache_filler():
    return torch.ones(cold_bytes() // 8, dtype=torch.int64, device="cuda")


def rotations(nbytes: int, device: str) -> int:
    return 1 if device == "cpu" else min(max(2, -(-cold_bytes() // nbytes)), MOST_COPIES)


def whole_memory(tensor):
    """The tensor's memory as integers, whatever its strides."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.int64, device=tensor.device).set_(storage, 0, (storage.nbytes() // 8,))


def read(buffer):
    # Of sum, dot, amax and norm in each dtype, the integer sum read 103 MB fastest (1.8 ms against 2.2 to 8.5).
    return buffer.sum()


def write_heap(nbytes):
    torch.empty(nbytes // 4).fill_(1.0)


def write_huge_pages(nbytes):
    pages = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    buffer = torch.frombuffer(pages, dtype=torch.float32)
    skip = -buffer.data_ptr() % HUGE_PAGE // 4
    buffer[skip : skip + nbytes // 4].fill_(1.0)


class Floor:
    """Reading these tensors plus writing fresh outputs of these sizes in bytes, as `samplers` for measure_in_turn:
    they take turns with the contenders, so that what disturbs the machine meets them too."""

    def __init__(self, reads: list[torch.Tensor], writes: list[int], threads: int):
        self.threads = threads
        self.samplers: dict = {}
        # The fastest of the named calls, times a share of its bytes.
        self.passes: list[tuple[list[str], float]] = []
        for tensor in reads:
            buffer = whole_memory(tensor)
            if tensor.nbytes < SMALLEST_PASS:
                buffer = torch.ones(SMALLEST_PASS // 8, dtype=torch.int64)
            self.add([(read, buffer)], tensor.nbytes / buffer.nbytes)
        # malloc reuses freed pages below its threshold.
        ways = [write_heap, write_huge_pages] if hasattr(mmap, "MADV_HUGEPAGE") else [write_heap]
        for nbytes in writes:
            size = max(nbytes, SMALLEST_PASS)
            self.add([(write, size) for write in ways], nbytes / size)

    def add(self, ways, share):
        names = [f"floor:{len(self.samplers) + i}" for i in range(len(ways))]
        for name, (call, argument) in zip(names, ways, strict=True):
            self.samplers[name] = on_cpu(call, [(argument,)], self.threads)
        self.passes.append((names, share))

    def seconds(self, times: dict[str, Times]) -> float:
        return sum(min(times[name].median for name in names) * share for names, share in self.passes)


class CopyFloor:
    """Of a GPU: a copy that moves this number of bytes."""

    def __init__(self, nbytes: int):
        half = max(nbytes // 2, 1)
        pairs = [
            tuple(torch.ones(half, dtype=torch.uint8, device="cuda") for _ in range(2))
            for _ in range(rotations(nbytes, "cuda"))
        ]
        self.samplers = {"copy": OnCuda(lambda target, source: target.copy_(source), pairs)}

    def seconds(self, times: dict[str, Times]) -> float:
        return times["copy"].median
