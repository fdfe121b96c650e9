"""The compiled library: loading it registers the operators. It also tells how it was built, and has hooks for tests.

It holds nothing of Python's own, so that one library serves every Python.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path

import torch  # noqa: F401  # its libraries must be loaded before this one, which uses their symbols

LIBRARY = Path(__file__).with_name("libfastpool.so")

try:
    _library = ctypes.CDLL(str(LIBRARY))
except OSError as error:
    raise ImportError(str(error)) from error

_library.fastpool_build_info.restype = ctypes.c_char_p
_library.fastpool_stop_recording.restype = ctypes.c_char_p
_library.fastpool_can_emulate_cuda.restype = ctypes.c_bool
_library.fastpool_limit_scratch.argtypes = [ctypes.c_int64]
_library.fastpool_limit_scratch.restype = ctypes.c_int64
_library.fastpool_scratch_size.restype = ctypes.c_int64

CAPABILITIES = ("baseline", "avx2", "avx512")
SCHEDULES = ("tiled", "exact", "cuda", "cuda small grid", "cuda wide indices", "cuda large")
UNLIMITED = 2**63 - 1


def build_info() -> dict[str, object]:
    """Version, a digest of the sources, CUDA architectures and emulation, CPU capability in use and compiler."""
    info: dict[str, object] = json.loads(_library.fastpool_build_info())
    return info | {
        "cuda": str(info["cuda"]).replace(";", " ").split(),
        "emulation": _library.fastpool_can_emulate_cuda(),
        "cpu_capability": CAPABILITIES[_library.fastpool_cpu_capability()],
    }


def set_cpu_capability(name: str | None) -> str:
    """Forces a CPU capability (None: the best); returns the previous one. For tests."""
    previous, best = _library.fastpool_cpu_capability(), _library.fastpool_best_cpu_capability()
    wanted = best if name is None else _index(name, CAPABILITIES)
    if wanted > best:
        raise ValueError(f"name is {name!r}, which this processor lacks")
    _library.fastpool_set_cpu_capability(wanted)
    return CAPABILITIES[previous]


def limit_scratch(bytes: int | None = None) -> int | None:
    """Lets no thread have more scratch memory (None: no limit); returns the previous limit. For tests."""
    previous: int = _library.fastpool_limit_scratch(UNLIMITED if bytes is None else bytes)
    return None if previous == UNLIMITED else previous


def scratch_size() -> int:
    """Bytes of scratch memory that the calling thread keeps. For tests."""
    return int(_library.fastpool_scratch_size())


def set_schedule(name: str | None) -> str:
    """Forces the exact schedule, or emulates the CUDA schedules (None: by shape); returns the previous. For tests."""
    choice = 0 if name is None else _index(name, SCHEDULES)
    if choice >= SCHEDULES.index("cuda"):
        _check_emulation(f"name is {name!r}, which")
    return SCHEDULES[_library.fastpool_set_schedule(choice)]


def set_order(order: int) -> None:
    """Starts the random order that emulated threads run in. For tests."""
    _check_emulation("order")
    _library.fastpool_set_order(order)


def run_faulty(fault: str) -> None:
    """Emulates a kernel with a fault that ends the process. For tests."""
    _check_emulation("fault")
    _library.fastpool_run_faulty(fault.encode())


def record(on: bool) -> dict[str, object] | None:
    """Records what emulated kernels read and write, or stops and tells it. For tests.

    ``{"reads", "writes": {kernel: (accesses, sectors touched, sectors that would do)}, "written": [(address, bytes,
    times)]}``
    """
    _check_emulation("on")
    if on:
        _library.fastpool_start_recording()
        return None
    result: dict[str, object] = json.loads(_library.fastpool_stop_recording())
    return result


def _index(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ValueError(f"name is {name!r}; allowed: {', '.join(names)}")
    return names.index(name)


def _check_emulation(what: str) -> None:
    if not _library.fastpool_can_emulate_cuda():
        raise ValueError(f"{what} needs a build with FASTPOOL_EMULATION=1")
