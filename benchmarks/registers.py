"""Compiles the CUDA kernels for one architecture and prints what each takes of a multiprocessor.

    python benchmarks/registers.py [ARCHITECTURE]      9.0 by default

Fails if a kernel spills registers, since a spill costs more than what it saves. `stack` is memory of arrays that are
indexed at run time.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGISTERS, THREADS = 65536, {"7.5": 1024, "8.6": 1536, "8.9": 1536, "12.0": 1536}
ENTRY = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*")


def nvcc_flags() -> list[str]:
    """The flags of the build."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["NVCC"])


def compile_one(nvcc: str, source: Path, architecture: str, folder: str) -> tuple[str, float]:
    """-> what ptxas said, seconds"""
    number = architecture.replace(".", "")
    target = ["-gencode", f"arch=compute_{number},code=sm_{number}", "-Xptxas", "-v", "-DUSE_CUDA"]
    command = [nvcc, *nvcc_flags(), *target, f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", f"{folder}/{source.stem}.o"]
    start = time.time()
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    return ran.stderr, time.time() - start


def demangled(names: list[str]) -> list[str]:
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = [re.sub(r"fastpool::|cuda::|>\(.*", "", name).replace("void kernel<", "") for name in text.splitlines()]
    return [name.strip() for name in short]


def kernels(log: str, architecture: str):
    """-> (name, registers, stack, spilled bytes, shared bytes, percent of the threads that fit) of each kernel"""
    parts = ENTRY.split(log)[1:]
    for name, part in zip(demangled(parts[::2]), parts[1::2], strict=True):
        frames = [tuple(map(int, found)) for found in SPILLS.findall(part)]
        used = USED.search(part)
        shared = re.search(r"(\d+) bytes smem", used.group(0))
        registers, threads = int(used.group(1)), 512 if "Columns16" in name else 256
        most = THREADS.get(architecture, 2048)
        blocks = min(REGISTERS // (-(-registers // 8) * 8 * threads), most // threads)
        spilled = sum(stores + loads for _, stores, loads in frames)
        yield (
            name,
            registers,
            frames[0][0],
            spilled,
            int(shared.group(1)) if shared else 0,
            100 * blocks * threads // most,
        )


def main() -> int:
    architecture = sys.argv[1] if len(sys.argv) > 1 else "9.0"
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")
    if nvcc is None:
        sys.exit("cuda-report: no nvcc on PATH or in CUDA_HOME")
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    jobs = int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        logs = list(pool.map(lambda source: compile_one(nvcc, source, architecture, folder), sources))
    print(f"{'kernel':<70}{'registers':>10}{'stack':>7}{'spills':>7}{'shared':>7}{'occupancy':>10}")
    spilling, warnings, count = 0, [], 0
    for log, _ in logs:
        warnings += [line for line in log.splitlines() if "warning" in line]
        for name, registers, stack, spilled, shared, occupancy in kernels(log, architecture):
            print(f"{name:<70}{registers:>10}{stack:>7}{spilled:>7}{shared:>7}{occupancy:>9}%")
            spilling += spilled > 0
            count += 1
    times = ", ".join(f"{source.stem} {seconds:.0f}" for source, (_, seconds) in zip(sources, logs, strict=True))
    print(f"sm_{architecture}: {count} kernels, {spilling} spill, {len(warnings)} warnings; seconds: {times}")
    print(*warnings, sep="\n", end="")
    return 1 if spilling or warnings else 0


if __name__ == "__main__":
    sys.exit(main())
