"""What `make gpu` and `make gpu-more` do with a CUDA card: steps that do not depend on each other, within 300 seconds.

    python benchmarks/gpu.py first [--out DIR] [--dry]      build, smoke test, the rows that matter most, tests
    python benchmarks/gpu.py more [--out DIR] [--dry]       sanitizers, counters, compiled rivals, the rows left over
    python benchmarks/gpu.py build | memcheck | racecheck | counters | hot      one step alone

A step that fails or takes too long does not keep the next ones from running; it is told at the end, and in the exit
status. DIR gets the log of all steps and the table of rows, both up to date at every moment.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# How a step says that the machine does not let it run.
SKIPPED = 77
# A step is asked to stop, so that pytest tells what it found, and after these seconds made to.
GRACE = 5
# Seconds that a run of the benchmark takes besides its rows.
MARGIN = 15
# Of each step, so that a log can be carried home.
MOST_OUTPUT = 2 << 20
# What the tools say where they cannot work.
REFUSALS = ("not supported", "Failed to initialize the profiler", "ERR_NVGPUCTRPERM", "LibraryNotLoaded")
COUNTERS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "launch__registers_per_thread",
    "launch__grid_size",
)
# One call of each is profiled.
HOT_LAYERS = ("yardstick", "resnet50-stem", "yardstick-global", "yardstick-pyramid", "published-global")


@dataclass(frozen=True)
class Step:
    """A command that is stopped when so many seconds have passed since the first step began; the time that earlier
    ones leave is its own. {minutes} is what it has, less the time to start and to finish; {out} is the folder."""

    name: str
    until: float
    command: tuple[str, ...]


def python(*arguments):
    return (sys.executable, *arguments)


def own(name):
    return python("benchmarks/gpu.py", name)


def rows(*selection):
    return python("benchmarks/run.py", "--device", "cuda", "--output", "{out}", "--minutes", "{minutes}", *selection)


def tests() -> tuple[str, ...]:
    """In several processes where pytest can: a kernel that breaks the device fails all later tests of its process."""
    shared = ("-n", "8", "--max-worker-restart", "20") if find_spec("xdist") else ()
    return python("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *shared, "tests/test_gpu.py")


def fuzz():
    return python("tests/fuzz.py", "--seed", "1", "--minutes", "0.5", "--jobs", str(min(os.cpu_count() or 1, 12)))


COMPILED = ("--layer", "large", "yardstick-global", "--operation", "avg", "mixed", "stochastic", "--dtype")
SEQUENCES = {
    "first": (
        Step("build", 150, own("build")),
        Step("smoke", 165, python("tests/smoke.py")),
        Step("tests", 225, tests()),
        Step("random calls", 262, fuzz()),
        Step("rows", 288, rows("--rivals", "eager", "--seconds", "0.03")),
    ),
    "more": (
        Step("build", 150, own("build")),
        Step("memcheck", 175, own("memcheck")),
        Step("racecheck", 195, own("racecheck")),
        Step("counters", 220, own("counters")),
        Step("compiled rivals", 245, rows("--rivals", "eager", "compile", *COMPILED, "float16", "float32")),
        Step("rows", 280, rows("--rivals", "eager", "--add")),
    ),
}


def filled(command, out, seconds):
    return [word.format(out=out, minutes=f"{max(seconds - MARGIN, 0) / 60:.2f}") for word in command]


class Log:
    """To a file and to the terminal at once."""

    def __init__(self, path: Path):
        self.file = path.open("wb", buffering=0)

    def write(self, data: bytes):
        self.file.write(data)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def copy(self, stream):
        """All that comes, up to MOST_OUTPUT."""
        written = 0
        while data := os.read(stream.fileno(), 1 << 16):
            if written < MOST_OUTPUT:
                self.write(data)
            written += len(data)
        if written > MOST_OUTPUT:
            self.write(f"\n{written - MOST_OUTPUT} bytes are left out\n".encode())


def run(command, seconds: float, log: Log) -> str:
    """-> how it ended"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # A shell that starts this in the background has interrupts ignored, by children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    reader = threading.Thread(target=log.copy, args=(process.stdout,), daemon=True)
    reader.start()
    outcome = ""
    # One that waits for a driver ignores even the last.
    for number, patience in ((signal.SIGINT, seconds), (signal.SIGKILL, GRACE), (None, GRACE)):
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            outcome = f"FAILED: stopped after {seconds:.0f} s"
            if number is not None:
                os.killpg(process.pid, number)
    reader.join(GRACE)
    if outcome:
        return outcome
    if process.returncode == SKIPPED:
        return "skipped"
    return f"FAILED: exit status {process.returncode}" if process.returncode else "ok"


def perform(steps, out: Path, name: str) -> int:
    """Runs the steps; -> exit status. The log is OUT/gpu-NAME.log."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / f"gpu-{name}.log")
    start, ends = time.monotonic(), []
    for step in steps:
        began = time.monotonic() - start
        seconds = step.until - began
        command = filled(step.command, out, seconds)
        log.write(f"\n== {step.name}, at most {seconds:.0f} s: {shlex.join(command)}\n".encode())
        outcome = run(command, seconds, log) if seconds >= 1 else "FAILED: no time was left"
        ends.append(f"{step.name:<36}{time.monotonic() - start - began:>6.1f} s  {outcome}")
        log.write(f"== {ends[-1]}\n".encode())
    log.write(("\n" + "\n".join(ends) + "\n").encode())
    return 1 if any("FAILED" in end for end in ends) else 0


def plan(steps, out) -> str:
    """What would run; the limits are those of a step whose predecessors take all of their time."""
    lines, before = [], 0.0
    for step in steps:
        command = shlex.join(filled(step.command, out, step.until - before)).replace(sys.executable, "python")
        lines.append(f"{step.name:<36}until {step.until:>3.0f} s  {command}")
        before = step.until
    return "\n".join(lines)


def why_build() -> str:
    """Why the module must be built, or nothing."""
    import torch

    import setup

    try:
        from fastpool import _C
    except ImportError as error:
        return str(error)
    info = _C.build_info()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    if not any(architecture.startswith(capability) for architecture in info["cuda"]):
        return f"the module has CUDA kernels for {info['cuda']}, the card wants {capability}"
    if info["sources"] != setup.digest():
        return "the module is of other sources"
    return ""


def build() -> int:
    reason = why_build()
    print(f"building: {reason}" if reason else "the module is up to date")
    if not reason:
        return 0
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "FASTPOOL_CUDA": "1"}).returncode


def tool(name, *arguments, **environment) -> int:
    """Runs a tool of the CUDA toolkit; SKIPPED, with its own words, where it cannot work."""
    found = shutil.which(name) or shutil.which(f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/{name}")
    if found is None:
        print(f"{name} is not installed")
        return SKIPPED
    words = ""
    with subprocess.Popen(
        [found, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            words += line
    return SKIPPED if process.returncode and any(refusal in words for refusal in REFUSALS) else process.returncode


def sanitize(name) -> int:
    # The allocator's own pool would hide accesses past the end of a tensor.
    options = ("--tool", name, "--error-exitcode", "9", "--print-limit", "20")
    return tool("compute-sanitizer", *options, *python("tests/smoke.py"), PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def counters() -> int:
    ours = ("--kernel-name-base", "demangled", "--kernel-name", "regex:fastpool")
    shown = ("--metrics", ",".join(COUNTERS), "--csv", "--page", "raw", "--clock-control", "none")
    return tool("ncu", *ours, *shown, *own("hot"))


def hot() -> int:
    """One call, forward and backward, of each kernel that the speed targets are about."""
    import torch

    from benchmarks import layers, operations
    from benchmarks.run import LAYOUTS, random_input

    for layer_name in HOT_LAYERS:
        layer = layers.LAYERS[layer_name]
        for dtype, layout in product((torch.float16, torch.float32), LAYOUTS):
            x = random_input(layer, dtype, layout, "cuda").requires_grad_()
            for operation in operations.FIRST:
                y = operations.OPERATIONS[operation].fastpool(layer)(x)
                torch.autograd.grad(y, x, torch.ones_like(y))
    torch.cuda.synchronize()
    return 0


def card() -> str:
    """Why there is nothing to do, or nothing."""
    try:
        import torch
    except ImportError as error:
        return f"{sys.executable}: {error}"
    return "" if torch.cuda.is_available() else f"the torch of {sys.executable} sees no CUDA device"


def begin_with_known_rows(out: Path):
    """Copies the card's table to the folder: `more` measures what it lacks."""
    import torch

    from benchmarks import report

    out.mkdir(parents=True, exist_ok=True)
    known = report.results_path({"gpu": torch.cuda.get_device_name()}, "")
    copy = out / known.name
    if known.exists() and not copy.exists():
        machine = json.loads(known.read_text())["machine"]
        if machine["versions"]["torch"] == version("torch"):
            shutil.copy(known, copy)


def main() -> int:
    alone = {"build": build, "counters": counters, "hot": hot}
    alone |= {name: lambda name=name: sanitize(name) for name in ("memcheck", "racecheck")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*SEQUENCES, *alone])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the log and the rows")
    parser.add_argument("--dry", action="store_true", help="print the steps only")
    options = parser.parse_args()
    sys.path.append(str(ROOT))
    if options.what in alone:
        return alone[options.what]()
    steps, missing = SEQUENCES[options.what], card()
    if missing:
        print(f"{missing}; nothing to do" + ("" if options.dry else " (DRY=1 prints what would be done)"))
    if options.dry:
        print(plan(steps, options.out))
    if missing or options.dry:
        return 0
    begin_with_known_rows(options.out)
    return perform(steps, options.out.resolve(), options.what)


if __name__ == "__main__":
    sys.exit(main())
