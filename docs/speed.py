"""Tables and pictures of the site that are made from benchmarks/results/*.json.

    ```{speed} soft                 one operation of benchmarks/operations.py, by its windows
    ```
    ```{speed} pyramid              one windowing (sliding, adaptive, global, pyramid), by operations
    ```

In reStructuredText: ``.. speed:: soft``. An operation that no file holds gives a sentence instead of a table, also one
that the benchmark does not know (``gated``, ``attention``); for power pooling the names are ``lp1``, ``lp2``, ``lp4``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.layers import LAYERS  # noqa: E402
from benchmarks.operations import OPERATIONS  # noqa: E402

# Of the layers that measure the same batch, and how a reader would call their windows.
WINDOWINGS = {
    "sliding": ("yardstick", "2x2"),
    "adaptive": ("yardstick-adaptive", "to 7x7"),
    "global": ("yardstick-global", "global"),
    "pyramid": ("yardstick-pyramid", "(4, 2, 1)"),
    "sppf": ("yolov5s-sppf", "5x5, 3 times"),
}
LAYOUTS = ("contiguous", "channels-last")
DTYPES = ("float32", "float16", "bfloat16", "float64")
PASSES = ("forward", "forward+backward")
CONTENDERS = ("fastpool", "torch", "compiled", "floor")


@dataclass(frozen=True)
class Results:
    """One machine's file."""

    path: Path
    machine: dict
    rows: list[dict]

    @property
    def name(self) -> str:
        """Processor, cores, instructions, versions and days of a machine, as a sentence holds them."""
        machine = self.machine
        build = (machine["build"] or {}).get("cpu_capability", "")
        processor = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores, {build.upper()}"
        days = machine.get("days") or []
        measured = f", measured {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
        return f"{processor}; torch {machine['versions']['torch']}{measured}"

    def row(self, **wanted: str) -> dict | None:
        for row in self.rows:
            if wanted.items() <= row.items() and row["threads"] == max(self.machine["threads"]) and row["times"]:
                return row
        return None


def results() -> list[Results]:
    """The fullest first. What runs of a part leave behind is not committed, and not shown."""
    found = []
    for path in sorted(report.RESULTS.glob("*.json")):
        if not path.stem.endswith(("-part", "-quick", "-reused", "-rivals")):
            found.append(Results(path, **json.loads(path.read_text())))
    return sorted(found, key=lambda one: -len(one.rows))


def times(row: dict | None) -> list[float | None]:
    """Seconds of CONTENDERS; None where one was not timed."""
    if row is None:
        return [None] * len(CONTENDERS)
    own = row["times"].get("fastpool")
    return [own and own["median"], report.fastest(row, "eager"), report.fastest(row, "compile"), row["floor"]]


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{1e3 * seconds:.0f}" if seconds >= 0.01 else f"{1e3 * seconds:.3g}"


def cells(row: dict | None) -> list[nodes.Node]:
    """The fastest contender, which the floor is not, stands out."""
    found = times(row)
    best = min((time for time in found[:-1] if time is not None), default=None)
    texts = [milliseconds(time) for time in found]
    return [
        nodes.strong(text=text) if time is not None and time == best else nodes.inline(text=text)
        for time, text in zip(found, texts)
    ]


def table(
    heads: Sequence[Sequence[tuple[str, int]]], rows: Iterable[Sequence[nodes.Node]], columns: int
) -> nodes.table:
    """`heads`: rows of (text, columns that it spans). The first two columns are text, the others are numbers."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(columns)), cols=columns)
    top, body = nodes.thead(), nodes.tbody()
    for head in heads:
        top += nodes.row("", *(cell(nodes.inline(text=text), i, span) for i, (text, span) in enumerate(head)))
    for row in rows:
        body += nodes.row("", *(cell(node, i) for i, node in enumerate(row)))
    group += [top, body]
    return nodes.table("", group, classes=["speed"])


def cell(node: nodes.Node, column: int, span: int = 1) -> nodes.entry:
    entry = nodes.entry("", nodes.paragraph("", "", node), classes=["text-left" if column < 2 else "text-right"])
    if span > 1:
        entry["morecols"] = span - 1
        entry["classes"] = ["text-center"]
    return entry


def times_table(first: str, rows: Iterable[tuple[str, str, dict | None, dict | None]]) -> nodes.table:
    """`rows`: (label, layout, row of the forward pass, row of forward and backward)."""
    span = len(CONTENDERS)
    heads = [
        [("", 2), ("forward", span), ("forward and backward", span)],
        [(first, 1), ("layout", 1), *((name, 1) for name in CONTENDERS * 2)],
    ]
    body = [
        [nodes.inline(text=label), nodes.inline(text=layout), *cells(forward), *cells(both)]
        for label, layout, forward, both in rows
    ]
    return table(heads, body, 2 + 2 * span)


def performance(text: str) -> nodes.Node:
    """A link to the page that says how all this is measured."""
    target = {"refdomain": "std", "reftype": "doc", "reftarget": "/performance", "refexplicit": True, "refwarn": True}
    return addnodes.pending_xref("", nodes.inline(text=text), refdoc="", **target)


def caption(found: Results, shape: Sequence[int]) -> nodes.paragraph:
    threads = max(found.machine["threads"])
    return nodes.paragraph(
        "",
        "",
        nodes.Text(
            f"Milliseconds for a batch of {tuple(shape)}, float32 where not said otherwise, {threads} threads; "
        ),
        nodes.Text(
            f"{found.name}. 2x2 windows have stride 2, (4, 2, 1) is a pyramid. torch: its own function, or else "
        ),
        nodes.Text("the fastest composition of its functions; compiled: the same by torch.compile; floor: moving the "),
        nodes.Text("bytes alone. A dash was not timed; the fastest stands out. "),
        performance("How this is measured"),
        nodes.Text("."),
    )


def pair(found: Results, **wanted: str) -> list[dict | None]:
    return [found.row(**wanted, **{"pass": each}) for each in PASSES]


def of_operation(name: str) -> list[nodes.Node]:
    """By windows, in float32, then 2x2 windows in the other dtypes."""
    for found in results():
        rows = []
        for windowing, dtype in [*((each, "float32") for each in WINDOWINGS), *(("sliding", d) for d in DTYPES[1:])]:
            layer, label = WINDOWINGS[windowing]
            for layout in LAYOUTS:
                forward, both = pair(found, operation=name, layer=layer, layout=layout, dtype=dtype)
                if forward or both:
                    rows.append((label if dtype == "float32" else dtype, layout, forward, both))
        if rows:
            layer = LAYERS["yolov5s-sppf" if name == "sppf" else "yardstick"]
            return [times_table("windows", rows), caption(found, layer.shape)]
    return [nodes.paragraph("", "", *unmeasured(name))]


def unmeasured(name: str) -> list[nodes.Node]:
    why = "is not among the committed measurements yet" if name in OPERATIONS else "has no row in the benchmark"
    return [nodes.Text(f"The speed of this pooling {why}. "), performance("What is measured, and how"), nodes.Text(".")]


def of_windowing(windowing: str) -> list[nodes.Node]:
    layer, _ = WINDOWINGS[windowing]
    found = max(results(), key=lambda one: sum(row["layer"] == layer for row in one.rows))
    rows = []
    for layout in LAYOUTS:
        for name in OPERATIONS:
            forward, both = pair(found, operation=name, layer=layer, layout=layout, dtype="float32")
            if forward or both:
                rows.append((name, layout, forward, both))
    return [times_table("operation", rows), caption(found, LAYERS[layer].shape)]


def has_pooling(name: str) -> bool:
    import fastpool.nn

    camel = "".join(word.capitalize() for word in name.split("_"))
    return any(hasattr(fastpool.nn, f"{spelled}Pool2d") for spelled in (camel, camel.replace("Gem", "GeM")))


class Speed(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name in WINDOWINGS and name not in OPERATIONS:
            return of_windowing(name)
        if name not in OPERATIONS and not has_pooling(name):
            raise self.error(f"speed: {name!r} is no operation, windowing or pooling")
        return of_operation(name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("speed", Speed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
