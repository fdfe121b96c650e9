"""What a run found, as JSON, table, summary and roofline picture. The last three are made from the first."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import geometric_mean, median

import torch

RESULTS = Path(__file__).parent / "results"
GROUPS = ("eager", "compile", "onnxruntime", "openvino")
# Above this a cell may never be slower than the best rival by more than the margin.
COUNTED_BYTES, MARGIN = 1e6, 1.05

HEADER = (
    f"{'operation':<20}{'layer':<22}{'dtype':<9}{'layout':<14}{'pass':<17}{'thr':>3} {'ms':>9} {'IQR':>8} {'GB/s':>7} "
    f"{'floor%':>6} {'eager':>7} {'compile':>7} {'ORT':>7} {'OpenV':>7} {'best':>7} {'error':>7}"
)


def machine(device: str, threads: list[int], buffers: str, library) -> dict:
    versions = {"python": platform.python_version(), "fastpool": library and library.__version__}
    for package in ("torch", "onnxruntime", "openvino"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        cpu = found.group(1) if found else cpu
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    info = dict(cpu=cpu, cores=os.cpu_count(), gpu=gpu, threads=threads, buffers=buffers, versions=versions)
    build = library and {name: value for name, value in library._C.build_info().items() if name != "sources"}
    return info | {"build": build, "load_average_at_start": os.getloadavg()}


def results_path(machine: dict, suffix: str) -> Path:
    name = machine["gpu"]
    if name is None:
        name = f"{machine['cpu']} {machine['cores']} cores {(machine['build'] or {}).get('cpu_capability', '')}"
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + suffix + ".json")


def save(path: Path, machine: dict, rows: list[dict]):
    """One row a line; the file is complete whenever somebody reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(map(json.dumps, rows))
    written = path.with_name(path.name + ".new")
    written.write_text(f'{{"machine": {json.dumps(machine)}, "rows": [\n{lines}\n]}}\n')
    written.replace(path)


def fastest(row, group: str) -> float | None:
    """Median of the fastest rival of a group; "" takes every rival."""
    names = [name for name in row["times"] if name != "fastpool" and name.startswith(group)]
    return min((row["times"][name]["median"] for name in names), default=None)


def ratio(row, group: str = "") -> float | None:
    """How many times longer the rival takes than fastpool."""
    rival, own = fastest(row, group), row["times"].get("fastpool")
    return rival / own["median"] if rival and own else None


def speed(row) -> tuple[dict | None, float, float]:
    """(times, GB/s, percent of floor speed) of fastpool, or of the best rival where fastpool was not measured."""
    times = row["times"].get("fastpool") or min(row["times"].values(), key=lambda t: t["median"], default=None)
    if times is None:
        return None, math.nan, math.nan
    return times, row["bytes"] / times["median"] / 1e9, 100 * row["floor"] / times["median"]


def line(row) -> str:
    times, rate, percent = speed(row)
    names = f"{row['operation']:<20}{row['layer']:<22}{row['dtype']:<9}{row['layout']:<14}{row['pass']:<17}"
    start = names + f"{row['threads']:>3} "
    if "error" in row:
        return start + "FAILED: " + row["error"]
    if times is None:
        return start + "nothing was measured"
    spread = times["upper_quartile"] - times["lower_quartile"]
    cells = [f"{times['median'] * 1e3:>9.3f} {spread * 1e3:>8.3f} {rate:>7.1f} {percent:>6.1f}"]
    for group in (*GROUPS, ""):
        if "fastpool" in row["times"]:
            value = ratio(row, group)
            cells.append(f"{value:>6.2f}x" if value else f"{'-':>7}")
        else:
            value = fastest(row, group)
            cells.append(f"{value * 1e3:>7.2f}" if value else f"{'-':>7}")
    error = row.get("errors", {}).get("fastpool")  # older files have none, and a draw has none
    cells.append(f"{'-' if error is None else format(error, '.0e'):>7}")
    called = row.get("called", {}).get("fastpool")
    return start + " ".join(cells) + (f" {called['median'] * 1e3:.3f} as called" if called else "")


def legend(machine: dict) -> str:
    columns = (
        "eager to best: rival's time / fastpool's; error: fastpool's largest against float64, gradients too, as a part "
    )
    columns += "of the largest magnitude"
    if machine["versions"]["fastpool"] is None:
        columns = "fastpool is not measured: ms, GB/s and floor% are the best rival's, eager to best are ms"
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    busy = machine["load_average_at_start"][0]
    warning = f"other programs are running (load {busy:.1f}): times are inflated\n" if busy > 0.5 else ""
    floor = "time to read the inputs and write the outputs once"
    if machine["gpu"]:
        floor = "time of a copy that moves the same bytes"
        columns += "\nreplayed as CUDA graphs, inputs not cached; `as called`: ms with the gaps between launches"
    return (
        f"{warning}{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {versions}\n"
        f"{machine['buffers']} buffers; floor% = {floor} / time\n{columns}"
    )


def summary(rows: list[dict]) -> str:
    """Per operation and pass: geometric mean and worst ratio to the best rival, and the cells behind it."""
    measured = [row for row in rows if "fastpool" in row["times"] and fastest(row, "")]
    lines = [f"{'operation':<20}{'pass':<17}{'cells':>6}{'floor% (median)':>17}{'to best (geomean)':>19}{'worst':>8}"]
    for operation, direction in sorted({(row["operation"], row["pass"]) for row in measured}):
        chosen = [row for row in measured if (row["operation"], row["pass"]) == (operation, direction)]
        ratios = [ratio(row) for row in chosen]
        percent = median(speed(row)[2] for row in chosen)
        names = f"{operation:<20}{direction:<17}{len(chosen):>6}"
        lines.append(f"{names}{percent:>17.1f}{geometric_mean(ratios):>18.2f}x{min(ratios):>7.2f}x")
    behind = [row for row in measured if row["bytes"] > COUNTED_BYTES and ratio(row) * MARGIN < 1]
    lines.append(f"more than 5 % behind the best rival, above 1 MB: {len(behind)} of {len(measured)} cells")
    return "\n".join(lines + ["  " + line(row) for row in behind])


def dots(axis, rows, seconds, **style):
    timed = [(row["bytes"], seconds(row)) for row in rows if seconds(row)]
    axis.scatter([moved / 1e6 for moved, _ in timed], [moved / time / 1e9 for moved, time in timed], **style)


def roofline(path: Path, machine: dict, rows: list[dict]) -> str:
    """Bytes moved against GB/s: the floor is the roof. Returns what was done, for the user."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return "roofline picture skipped: matplotlib is not installed"
    passes = sorted({row["pass"] for row in rows})
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    figure, axes = plt.subplots(1, len(passes), figsize=(7 * len(passes), 5), sharey=True, squeeze=False)
    for axis, direction in zip(axes[0], passes, strict=True):
        chosen = [row for row in rows if row["pass"] == direction and row["times"]]
        dots(axis, chosen, lambda row: row["floor"], marker="_", color="black", label="floor")
        dots(axis, chosen, lambda row: fastest(row, ""), color="lightgrey", s=14, label="best rival")
        for index, operation in enumerate(operations):
            own = [row for row in chosen if row["operation"] == operation and "fastpool" in row["times"]]
            color = plt.get_cmap("tab20")(index)
            if own:
                dots(axis, own, lambda row: row["times"]["fastpool"]["median"], s=18, color=color, label=operation)
        axis.set(xscale="log", yscale="log", title=direction, xlabel="MB moved per call", ylabel="GB/s")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    threads = " and ".join(map(str, machine["threads"]))
    name = machine["gpu"] or f"{machine['cpu']}, {threads} threads"
    figure.suptitle(f"{name}, {machine['buffers']} buffers")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return f"roofline picture: {path}"
