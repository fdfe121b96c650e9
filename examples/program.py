"""What every program here has: its options, a progress bar, a table, and where its results go."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

STARTED = time.perf_counter()


def parser(documentation: str) -> argparse.ArgumentParser:
    """Of a program whose documentation is a title, underlined, and prose."""
    _, _, prose = documentation.strip().split("\n", 2)
    parser = argparse.ArgumentParser(description=prose.strip(), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works: under 20 seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="default: demo")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def progress(name: str, step: int, steps: int, note: str = "") -> None:
    """A bar where somebody watches, else one line at the end."""
    if sys.stdout.isatty():
        filled = 30 * step // steps
        bar = "━" * filled + "╌" * (30 - filled)
        print(f"\r{name:<24}{bar} {step}/{steps}  {note}\033[K", end="\n" if step == steps else "", flush=True)
    elif step == steps:
        print(f"{name:<24}{steps} steps  {note}", flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join([text[0], "─" * (sum(widths) + 3 * (len(widths) - 1)), *text[1:]])


def finish(options: argparse.Namespace, text: str, figures: dict[str, Figure], results: object) -> None:
    """Prints `text`, and writes it beside pictures and numbers: OUT/PROGRAM.txt, OUT/FIGURE.png, OUT/PROGRAM.json."""
    name = Path(sys.argv[0]).stem
    for title, figure in figures.items():
        # Without the time and the versions that would make other bytes of the same picture.
        figure.savefig(
            options.out / f"{title}.png", dpi=100, metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
    print(f"\n{text}\n")
    (options.out / f"{name}.txt").write_text(text + "\n")
    record = {
        "program": name,
        "seed": options.seed,
        "quick": options.quick,
        "seconds": round(time.perf_counter() - STARTED, 1),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "results": results,
    }
    (options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    pictures = ", ".join(f"{options.out}/{title}.png" for title in figures)
    if len(figures) > 5:
        pictures = f"{len(figures)} pictures: {options.out}/{name}*.png"
    print(f"{pictures}; numbers: {options.out}/{name}.json\n{record['seconds']:.0f} seconds in all")
