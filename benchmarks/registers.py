"""Compiles the CUDA kernels for one architecture and prints what each takes of a multiprocessor.

    python benchmarks/registers.py [--accept] [ARCHITECTURE [SOURCE ...]]      9.0 and every source by default

`stack` is memory of arrays that are indexed at run time, in the kernel and in what it calls. `instructions` are those
of a kernel's machine code, each counted once however often it runs, without the functions it calls in rare cases;
`global` says how many of them access global memory, by width: `L4x128 S2x64` are four loads of 16 bytes and two stores
of 8. `flight`: bytes that loads have under way on a multiprocessor, of kernels that are known to load so many at once.

Fails if the compiler warns, if a kernel spills registers, which costs more than what it saves, if it needs more than
the architecture gives, has too few bytes in flight, or if a kernel that most calls run takes on 9.0 more instructions
than budgets.json allows.
`--accept` writes what they take now there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Limits(NamedTuple):
    """Of one multiprocessor."""

    threads: int
    blocks: int
    shared: int


# "Technical specifications per compute capability" of the CUDA programming guide.
LIMITS = {
    "7.5": Limits(1024, 16, 64 << 10),
    "8.0": Limits(2048, 32, 164 << 10),
    "8.6": Limits(1536, 16, 100 << 10),
    "8.9": Limits(1536, 24, 100 << 10),
    "9.0": Limits(2048, 32, 228 << 10),
    "10.0": Limits(2048, 32, 228 << 10),
    "12.0": Limits(1536, 24, 100 << 10),
}
REGISTERS, BLOCK_THREADS, BLOCK_SHARED, PARAMETERS = 65536, 1024, 48 << 10, 4096
STACK = 1024  # what a thread has from the start: for more, a launch would wait until the device is idle
SHARED_OF_SYSTEM = 1024  # of each block, from 8.0 on

# Bytes that a thread loads before it uses the first of them, and how many a multiprocessor needs under way to fill the
# memory's bandwidth, as published for an A100 and an H100. An H200 needs 48 KB.
IN_FLIGHT = {
    "RowsForward<Max, Half, Windows<2, 2, 0> >": 32,
    "RowsForward<Max, float, Windows<2, 2, 0> >": 64,
    "RowsForward<Max, Half, Windows<3, 2, 1> >": 54,
    "RowsForward<Max, float, Windows<3, 2, 1> >": 108,
    "ThreadForward<Max, Half, true>": 64,
    "ThreadForward<Max, float, true>": 64,
    "TeamForward<Max, Half, Warp, Packs>": 64,
    "TeamForward<Max, float, Warp, Packs>": 64,
    "NestedForward<Max, Half>": 64,
    "NestedForward<Max, float>": 64,
}
NEEDED = {"8.0": 16 << 10, "9.0": 32 << 10}

# What most calls run: neither the paths of 64-bit indices nor the rarer types.
HOT = re.compile(r"(?!EachOutput|Exact|AlphaGradient|.*\blong\b).*\b(Half|float)\b")
BUDGETS = ROOT / "benchmarks" / "budgets.json"

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*")
DECLARED = re.compile(r"\.entry (\w+)\((.*?)\)(.*?)\{", re.DOTALL)
PARAMETER = re.compile(r"\.param(?: \.align (\d+))? \.[a-z]+(\d+) \w+(?:\[(\d+)\])?")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z][\w.]*)")
ACCESS = re.compile(r"(LD|ST)G?\.")


@dataclass
class Kernel:
    name: str
    registers: int = 0
    stack: int = 0
    spilled: int = 0
    shared: int = 0
    threads: int = 0
    blocks: int = 0  # that shall fit a multiprocessor together
    parameters: int = 0
    instructions: int = 0
    accesses: str = ""

    def fitting(self, architecture: str) -> int:
        """Blocks that fit a multiprocessor together."""
        most = LIMITS[architecture]
        warps = self.threads // 32
        shared = self.shared + (SHARED_OF_SYSTEM if architecture != "7.5" else 0)
        return min(
            REGISTERS // (-(-self.registers // 8) * 8 * 32) // warps,
            most.threads // self.threads,
            most.blocks,
            most.shared // shared if shared else most.blocks,
        )

    def in_flight(self, architecture: str) -> int:
        """Bytes under way on a multiprocessor, where it is known what a thread loads at once."""
        return self.fitting(architecture) * self.threads * IN_FLIGHT.get(self.name, 0)

    def faults(self, architecture: str) -> list[str]:
        """What would keep the kernel from running, or from running well."""
        named = {
            "threads of a block": (self.threads, BLOCK_THREADS),
            "bytes of static shared memory": (self.shared, BLOCK_SHARED),
            "bytes of parameters": (self.parameters, PARAMETERS),
            "bytes of stack": (self.stack, STACK),
            "bytes of spilled registers": (self.spilled, 0),
            "blocks on a multiprocessor": (max(self.blocks, 1), self.fitting(architecture)),
        }
        faults = [f"{self.name}: {have} {what}, at most {most}" for what, (have, most) in named.items() if have > most]
        if self.name in IN_FLIGHT and self.in_flight(architecture) < NEEDED.get(architecture, 0):
            faults.append(
                f"{self.name}: {self.in_flight(architecture)} bytes in flight, at least {NEEDED[architecture]}"
            )
        if self.threads % 32:
            faults.append(f"{self.name}: {self.threads} threads of a block are not whole warps")
        return faults


def over_budget(found: list[Kernel], budgets: dict[str, int], whole: bool) -> list[str]:
    """`whole`: all kernels were found."""
    hot = {kernel.name: kernel.instructions for kernel in found if HOT.match(kernel.name)}
    faults = [f"{name}: no budget; it takes {count} instructions" for name, count in hot.items() if name not in budgets]
    faults += [
        f"{name}: {count} instructions, at most {budgets[name]}"
        for name, count in hot.items()
        if count > budgets.get(name, count)
    ]
    return faults + [f"{name}: has a budget, but is no kernel" for name in budgets.keys() - hot.keys() if whole]


def nvcc_flags() -> list[str]:
    """The flags of the build."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["NVCC"])


def find(tool: str) -> str | None:
    return shutil.which(tool) or shutil.which(f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/{tool}")


def sources() -> dict[str, str]:
    """What setup.py compiles for CUDA: one source for every reducer, those of filters, and of taps and parameters."""
    reducers = sorted((ROOT / "csrc" / "reducers").glob("*.h"))
    launched = [file for file in reducers if "\nFASTPOOL_FORWARD" in file.read_text()]
    texts = {file.stem: f'#include "cuda/launch.cuh"\n#include "reducers/{file.name}"\n' for file in launched}
    return texts | {name: f'#include "cuda/{name}.cuh"\n' for name in ("correlate", "lookup")}


def compile_one(nvcc: str, name: str, text: str, architecture: str, folder: Path) -> tuple[str, float]:
    """Leaves NAME.ptx and NAME.cubin in the folder -> what ptxas said, seconds"""
    source = folder / f"{name}.cu"
    source.write_text(text)
    number = architecture.replace(".", "")
    target = ["-gencode", f"arch=compute_{number},code=sm_{number}", "-Xptxas", "-v", "-DUSE_CUDA"]
    output = ["-cubin", "-o", str(folder / f"{name}.cubin"), "--keep", "--keep-dir", str(folder)]
    start = time.time()
    ran = subprocess.run(
        [nvcc, *nvcc_flags(), *target, f"-I{ROOT / 'csrc'}", str(source), *output], capture_output=True, text=True
    )
    if ran.returncode:
        sys.exit(ran.stderr)
    return ran.stderr, time.time() - start


def demangled(names: list[str]) -> list[str]:
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = [re.sub(r"fastpool::|cuda::|>\(.*", "", name).replace("void kernel<", "") for name in text.splitlines()]
    return [name.strip() for name in short]


def declarations(ptx: str) -> dict[str, tuple[int, int, int]]:
    """-> threads of a block, blocks that shall fit together and bytes of parameters, by mangled name"""
    found = {}
    for name, parameters, directives in DECLARED.findall(ptx):
        threads = re.search(r"\.maxntid (\d+)", directives)
        blocks = re.search(r"\.minnctapersm (\d+)", directives)
        size = 0
        for alignment, bits, count in re.findall(
            r"\.param(?: \.align (\d+))? \.[a-z]+(\d+) \w+(?:\[(\d+)\])?", parameters
        ):
            width = int(bits) // 8
            align = int(alignment or width)
            size = -(-size // align) * align + width * int(count or 1)
        assert threads, f"{name} has no launch bounds"
        found[name] = (int(threads.group(1)), int(blocks.group(1)) if blocks else 1, size)
    return found


def width(operation: str) -> int:
    bits = re.search(r"\.(?:[US])?(8|16|64|128)(?:\.|$)", operation)
    return int(bits.group(1)) if bits else 32


def counted(text: str) -> dict[str, tuple[int, str]]:
    """What nvdisasm wrote -> instructions and accesses of each kernel, by mangled name"""
    found = {}
    for section in text.split("\n//--------------------- .text.")[1:]:
        name = section.split(" ", 1)[0]
        code = section.split(f".text.{name}:\n", 1)[1]
        # What is called stands behind the kernel, under a name of its own.
        own = re.split(r"\n\s+\.type\s+", code)[0]
        operations = [operation for operation in INSTRUCTION.findall(own) if operation != "NOP"]
        accesses = Counter((op[0], width(op)) for op in operations if ACCESS.match(op))
        wide_first = sorted(accesses.items(), key=lambda item: (item[0][0], -item[0][1]))
        found[name] = len(operations), " ".join(f"{kind}{count}x{bits}" for (kind, bits), count in wide_first)
    return found


def kernels(log: str, folder: Path, stem: str, nvdisasm: str | None) -> list[Kernel]:
    """What one source was compiled to."""
    declared = declarations((folder / f"{stem}.ptx").read_text())
    code = {}
    if nvdisasm:
        command = [nvdisasm, "-c", str(folder / f"{stem}.cubin")]
        code = counted(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    parts, found = ENTRY.split(log)[1:], []
    for mangled, name, part in zip(parts[::2], demangled(parts[::2]), parts[1::2], strict=True):
        frames = [tuple(map(int, frame)) for frame in SPILLS.findall(part)]
        (used,) = USED.finditer(part)
        shared = re.search(r"(\d+) bytes smem", used.group(0))
        found.append(
            Kernel(
                name,
                int(used.group(1)),
                sum(frame for frame, _, _ in frames),
                sum(stores + loads for _, stores, loads in frames),
                int(shared.group(1)) if shared else 0,
                *declared[mangled],
                *code.get(mangled, ()),
            )
        )
    return found


def main() -> int:
    accept = "--accept" in sys.argv
    architecture, *only = [argument for argument in sys.argv[1:] if argument != "--accept"] or ["9.0"]
    if architecture not in LIMITS:
        sys.exit(f"cuda-report: architecture is {architecture}; known: {', '.join(LIMITS)}")
    texts = sources()
    unknown = set(only) - set(texts)
    if unknown:
        sys.exit(f"cuda-report: no source {', '.join(unknown)}; there are {', '.join(texts)}")
    names = [name for name in texts if not only or name in only]
    nvcc, nvdisasm = find("nvcc"), find("nvdisasm")
    if nvcc is None:
        sys.exit("cuda-report: no nvcc on PATH or in CUDA_HOME")
    jobs = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        folder = Path(temporary)
        logs = list(pool.map(lambda name: compile_one(nvcc, name, texts[name], architecture, folder), names))
        found = [
            kernel
            for name, (log, _) in zip(names, logs, strict=True)
            for kernel in kernels(log, folder, name, nvdisasm)
        ]
    widest = max(len(kernel.name) for kernel in found)
    columns = ("registers", "threads", "occupancy", "flight", "stack", "spills", "shared", "parameters", "instructions")
    print(f"{'kernel':<{widest}}", *columns, "global")
    faults = []
    for kernel in found:
        occupancy = 100 * kernel.fitting(architecture) * kernel.threads // LIMITS[architecture].threads
        flight = f"{kernel.in_flight(architecture) >> 10}K" if kernel.name in IN_FLIGHT else ""
        usage = (kernel.registers, kernel.threads, f"{occupancy}%", flight, kernel.stack, kernel.spilled, kernel.shared)
        values = (*usage, kernel.parameters, kernel.instructions or "?")
        cells = (f"{value:>{len(column)}}" for value, column in zip(values, columns, strict=True))
        print(f"{kernel.name:<{widest}}", *cells, kernel.accesses)
        faults += kernel.faults(architecture)
    faults += [line for log, _ in logs for line in log.splitlines() if "warning" in line]
    if nvdisasm is None:
        faults.append("no nvdisasm on PATH or in CUDA_HOME: instructions were not counted")
    elif architecture == "9.0":
        # Another compiler takes more instructions here and fewer there.
        version = re.search(
            r"release ([\d.]+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        )
        release = version.group(1) if version else "unknown"
        of_release, budgets = json.loads(BUDGETS.read_text()).values() if BUDGETS.exists() else (release, {})
        if accept:
            now = {kernel.name: kernel.instructions for kernel in found if HOT.match(kernel.name)}
            kept = budgets if only and release == of_release else {}
            BUDGETS.write_text(
                json.dumps({"nvcc": release, "instructions": dict(sorted({**kept, **now}.items()))}, indent=1) + "\n"
            )
        elif release != of_release:
            print(f"instructions were not compared: nvcc is {release}, and what is accepted are those of {of_release}")
        else:
            faults += over_budget(found, budgets, not only)
    times = ", ".join(f"{name} {seconds:.0f}" for name, (_, seconds) in zip(names, logs, strict=True))
    print(f"sm_{architecture}: {len(found)} kernels, {len(faults)} faults; seconds: {times}")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
