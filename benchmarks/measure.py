"""Medians and quartiles of a call, and the floor: the time that moving its bytes takes in the same run."""

from __future__ import annotations

import ctypes
import mmap
import time
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

# glibc's mallopt parameters: with no mmap and no trimming, freed pages are used again without a page fault.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
HUGE_PAGE = 2 << 20
# Below this a pass times its own call, not the memory.
SMALLEST_PASS = 1 << 20
# Of each contender of a row, after a pause: idle thread pools of some runtimes keep spinning for a while.
TURNS, PAUSE = 3, 0.01
# Rotating inputs over four times an H200's 50 MB L2 leaves none of them cached.
COLD_BYTES = 200 << 20


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


def measure_in_turn(calls: dict, seconds: float, threads: int, device: str = "cpu") -> dict[str, Times]:
    """Times each (call, arguments) for so many seconds, in turns: what disturbs the machine meets all of them. One that
    takes several times as long has its first turn only."""
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(TURNS):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            if samples[name] and min(samples[name]) > 4 * seconds:
                continue
            time.sleep(PAUSE)
            samples[name] += sample(*calls[name], seconds / TURNS, threads, device)
    return {name: Times.of(found) for name, found in samples.items()}


def sample(call, arguments: list[tuple], seconds: float, threads: int, device: str) -> list[float]:
    """Times `call(*arguments[i])`, which has run before; on a GPU the arguments rotate."""
    if device == "cuda":
        return sample_cuda(call, arguments, seconds)
    timer = Timer("call(*arguments)", globals={"call": call, "arguments": arguments[0]}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=seconds).times


def sample_cuda(call, arguments, seconds) -> list[float]:
    samples, finish = [], time.perf_counter() + seconds
    while not samples or time.perf_counter() < finish:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The host queues the whole rotation while the device sleeps, so its overhead is not timed.
        torch.cuda._sleep(20_000_000)
        start.record()
        for inputs in arguments:
            call(*inputs)
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / 1e3 / len(arguments))
    return samples


def rotations(nbytes: int, device: str) -> int:
    return 1 if device == "cpu" else max(2, -(-COLD_BYTES // nbytes))


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
    """Reading these tensors plus writing fresh outputs of these sizes in bytes, as `calls` for measure_in_turn: they
    take turns with the contenders, so that what disturbs the machine meets them too."""

    def __init__(self, reads: list[torch.Tensor], writes: list[int]):
        self.calls: dict = {}
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
        names = [f"floor:{len(self.calls) + i}" for i in range(len(ways))]
        self.calls |= {name: (call, [(argument,)]) for name, (call, argument) in zip(names, ways, strict=True)}
        self.passes.append((names, share))

    def seconds(self, times: dict[str, Times]) -> float:
        return sum(min(times[name].median for name in names) * share for names, share in self.passes)


def cuda_floor(nbytes, seconds, device) -> float:
    """A copy that moves the same number of bytes."""
    half = max(nbytes // 2, 1)
    pairs = [
        tuple(torch.ones(half, dtype=torch.uint8, device=device) for _ in range(2))
        for _ in range(rotations(nbytes, "cuda"))
    ]
    return Times.of(sample_cuda(lambda target, source: target.copy_(source), pairs, seconds)).median
