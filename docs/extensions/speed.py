"""Tables and pictures of the site that are made from benchmarks/results/*.json.

    ```{speed} soft                 one operation of benchmarks/operations.py, by its windows
    ```
    ```{speed} pyramid              one windowing (sliding, adaptive, global, pyramid), by operations
    ```
    ```{speed-summary} machines     one of SUMMARIES, below
    ```

In reStructuredText: ``.. speed:: soft``. An operation that no file holds gives a sentence instead of a table, also one
that the benchmark does not know (``gated``, ``attention``); for power pooling the names are ``lp1``, ``lp2``, ``lp4``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import geometric_mean, median

import torch
from docutils import nodes
from docutils.parsers.rst import Directive
from matplotlib.figure import Figure
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT))

from benchmarks import report  # noqa: E402
from benchmarks.layers import LAYERS, sliding  # noqa: E402
from benchmarks.operations import OPERATIONS  # noqa: E402

# Of the layers that measure the same batch, and how a reader would call their windows.
WINDOWINGS = {
    "sliding": ("yardstick", "2x2"),
    "adaptive": ("yardstick-adaptive", "to 7x7"),
    "global": ("yardstick-global", "global"),
    "pyramid": ("yardstick-pyramid", "(4, 2, 1)"),
    "sppf": ("yolov5s-sppf", "5x5, 3 times"),
}
# Left out where operations are listed beside each other.
SPECIAL = ("max_indices", "max_double_backward", "mixed_per_channel", "stochastic_compiled")
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
        return f"{self.processor}; torch {self.machine['versions']['torch']}{self.committed}"

    @property
    def processor(self) -> str:
        instructions = (self.machine["build"] or {}).get("cpu_capability", "").upper()
        return self.machine["gpu"] or f"{self.machine['cpu']}, {self.machine['cores']} cores, {instructions}"

    @property
    def committed(self) -> str:
        """A file says no day, so that of its commit is told, where the whole history is there."""
        shallow = ["git", "rev-parse", "--is-shallow-repository"]
        day = ["git", "log", "-1", "--format=%cs", "--", str(self.path)]
        try:
            answers = [subprocess.run(each, cwd=ROOT, capture_output=True, text=True).stdout for each in (shallow, day)]
        except OSError:
            return ""
        return f", committed {answers[1].strip()}" if answers[0] == "false\n" and answers[1].strip() else ""

    @property
    def compared(self) -> list[dict]:
        """The float32 rows that count: above a megabyte, below which a call itself is what is timed."""
        rows = (row for row in self.rows if row["dtype"] == "float32" and row["bytes"] > report.COUNTED_BYTES)
        return [row for row in rows if report.ratio(row)]

    @property
    def behind(self) -> list[dict]:
        return [row for row in self.compared if report.ratio(row) * report.MARGIN < 1]

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
            content = json.loads(path.read_text())
            # A file may be older than the name of an operation.
            rows = [row for row in content["rows"] if row["operation"] in OPERATIONS]
            found.append(Results(path, content["machine"], rows))
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
        [("", 2), ("forward", span), ("forward and backward", span), ("", 1)],
        [(first, 1), ("layout", 1), *((name, 1) for name in CONTENDERS * 2), ("error", 1)],
    ]
    body = [
        [nodes.inline(text=label), nodes.inline(text=layout), *cells(forward), *cells(both)]
        + [nodes.inline(text=largest_error(forward, both))]
        for label, layout, forward, both in rows
    ]
    return table(heads, body, 3 + 2 * span)


def largest_error(*rows: dict | None) -> str:
    found = [row["errors"].get("fastpool") for row in rows if row and "errors" in row]
    known = [error for error in found if error is not None]
    if not known:
        return "–"
    return f"{max(known):.0e}" if max(known) else "0"


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
        nodes.Text("bytes alone; error: fastpool's largest against float64, gradients too, as a part of the largest "),
        nodes.Text("magnitude. A dash was not measured, and draws have no error; the fastest stands out. "),
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
            if (forward or both) and name not in SPECIAL:
                rows.append((name, layout, forward, both))
    return [times_table("operation", rows), caption(found, LAYERS[layer].shape)]


def plain(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 2) -> nodes.table:
    """`texts`: how many columns are text, at most two."""
    made = table(
        [[(head, 1) for head in heads]], ([nodes.inline(text=cell) for cell in row] for row in rows), len(heads)
    )
    if texts == 1:
        for entry in made.findall(nodes.entry):
            if entry.parent.index(entry) == 1:
                entry["classes"] = ["text-right"]
    return made


def machines() -> list[nodes.Node]:
    heads = ("processor", "torch", "rows", "of them compared", "rival / fastpool", "more than 5 % behind", "file")
    rows = []
    for found in results():
        ratios = [report.ratio(row) for row in found.compared]
        numbers = (len(found.rows), len(ratios), f"{geometric_mean(ratios):.1f}", len(found.behind))
        rows.append((found.processor, found.machine["versions"]["torch"], *map(str, numbers), found.path.name))
    return [plain(heads, rows)]


def operations() -> list[nodes.Node]:
    found = results()[0]
    heads = ("operation", "pass", "rows", "% of the floor's speed", "rival / fastpool", "worst row")
    rows = []
    for name in OPERATIONS:
        for each in PASSES:
            chosen = [row for row in found.compared if (row["operation"], row["pass"]) == (name, each)]
            if chosen:
                ratios = [report.ratio(row) for row in chosen]
                percent = median(report.speed(row)[2] for row in chosen)
                numbers = (f"{percent:.0f}", f"{geometric_mean(ratios):.2f}", f"{min(ratios):.2f}")
                rows.append((name, each, str(len(chosen)), *numbers))
    return [plain(heads, rows), nodes.paragraph("", f"{found.name}.")]


def behind() -> list[nodes.Node]:
    heads = ("operation", "layer", "layout", "pass", "fastpool, ms", "best rival, ms", "which")
    rows = []
    for row in sorted(results()[0].behind, key=report.ratio):
        rivals = {name: found["median"] for name, found in row["times"].items() if name != "fastpool"}
        best = min(rivals, key=rivals.get)
        times = (row["times"]["fastpool"]["median"], rivals[best])
        rows.append((row["operation"], row["layer"], row["layout"], row["pass"], *map(milliseconds, times), best))
    return [plain(heads, rows)]


def missing() -> list[nodes.Node]:
    measured = {row["operation"] for found in results() for row in found.rows}
    names = [name for name in OPERATIONS if name not in measured]
    if not names:
        return [nodes.paragraph("", "Every operation of the benchmark is in the committed files.")]
    command = f"python benchmarks/run.py --add --layer 'yardstick*' --operation {' '.join(names)}"
    text = f"In no committed file yet: {', '.join(names)}. This measures them on the batch above:"
    return [nodes.paragraph("", text), nodes.literal_block(command, command, language="console")]


def cards() -> list[nodes.Node]:
    """Of each GPU: percent of a copy's speed, forward / forward and backward."""
    made = []
    for found in results():
        names = [name for name in OPERATIONS if any(row["operation"] == name for row in found.rows)]
        kinds: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
        for row in found.rows if found.machine["gpu"] else ():
            percents = kinds.setdefault((row["layer"], row["layout"], row["dtype"]), {})
            percents[row["operation"], row["pass"]] = f"{report.speed(row)[2]:.0f}"
        rows = []
        for (layer, layout, dtype), percents in kinds.items():
            texts = [" / ".join(percents.get((name, each), "–") for each in PASSES) for name in names]
            rows.append((f"{layer}, {'×'.join(map(str, LAYERS[layer].shape))}", f"{layout}, {dtype}", *texts))
        if rows:
            made += [plain(("layer", "layout", *names), rows), nodes.paragraph("", f"{found.name}.")]
    return made


SHAPE = (2, 8, 32, 32)


def kept(function: Callable, x: torch.Tensor, *parameters: torch.Tensor) -> int:
    """Bytes of what a call saves for its backward, each piece of memory once."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # or its address could be given away again
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x.requires_grad_(), *parameters)
    return sum(saved.values())


def memory() -> list[nodes.Node]:
    """Counted while the site is built."""
    layer, rows = sliding(SHAPE, 2), []
    torch.manual_seed(0)
    for name, operation in OPERATIONS.items():
        if "sliding" in operation.windowings and operation.compiles and name != "stochastic_compiled":
            x = torch.rand(SHAPE)
            parameters = [p.requires_grad_() for p in operation.parameters(x)]
            compositions = [composition(layer) for composition in operation.rivals.values() if composition(layer)]
            pairs = [kept(operation.fastpool(layer), x, *parameters), *(kept(f, x, *parameters) for f in compositions)]
            own, least = pairs[0], min(pairs[1:])
            rows.append((name, *(f"{100 * each / (4 * prod(SHAPE)):.0f} %" for each in (own, least))))
    return [plain(("operation", "fastpool", "torch"), rows, texts=1)]


SUMMARIES: dict[str, Callable[[], list[nodes.Node]]] = {
    "machines": machines,
    "operations": operations,
    "behind": behind,
    "missing": missing,
    "memory": memory,
    "cards": cards,
}

BLUE, GREY, RED = "#2f6fbb", "#9a9a9a", "#c8452f"


def floor_picture(found: Results) -> Figure:
    """Of each operation, how near to the memory's speed its rows come."""
    measured = {row["operation"] for row in found.compared}
    names = [name for name in OPERATIONS if name in measured and name not in SPECIAL]
    figure = Figure((8, len(names) + 2), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for axis, each in zip(axes, PASSES):
        for place, name in enumerate(names):
            rows = [row for row in found.compared if (row["operation"], row["pass"]) == (name, each)]
            rival = [100 * row["floor"] / report.fastest(row, "") for row in rows]
            own = [report.speed(row)[2] for row in rows]
            for percent, offset, color in ((own, -0.16, BLUE), (rival, 0.16, GREY)):
                axis.scatter(percent, [place + offset] * len(percent), color=color, s=14, alpha=0.35, linewidths=0)
                if percent:
                    axis.plot([median(percent)] * 2, [place + offset - 0.16, place + offset + 0.16], color=color, lw=4)
        axis.axvline(100, color="0.2", lw=1)
        axis.set_xlim(0, 125)
        axis.set_title(each, fontsize=14)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_yticks(range(len(names)), names, fontsize=13)
        axis.invert_yaxis()
        axis.text(101, -0.55, "floor", fontsize=13)
    axes[1].tick_params(axis="x", labelsize=12)
    axes[1].set_xlabel("% of the floor's speed", fontsize=13)
    figure.suptitle("fastpool (blue) and the best rival (grey):\na dot per float32 row, bars are medians", fontsize=15)
    return figure


def ratio_picture(found: Results) -> Figure:
    """Where fastpool is ahead, and where it is behind."""
    rows = [row for row in found.rows if row["dtype"] == "float32" and report.ratio(row)]
    figure = Figure((8, 5), layout="constrained")
    for axis, layout in zip(figure.subplots(1, 2, sharey=True), LAYOUTS):
        for ahead, color in ((True, BLUE), (False, RED)):
            chosen = [r for r in rows if r["layout"] == layout and (report.ratio(r) * report.MARGIN >= 1) is ahead]
            points = [r["bytes"] / 1e6 for r in chosen], [report.ratio(r) for r in chosen]
            axis.scatter(*points, color=color, s=22, alpha=0.5, linewidths=0)
        axis.axhline(1, color="0.2", lw=1)
        axis.set(xscale="log", yscale="log")
        axis.set_title(layout, fontsize=14)
        axis.set_xlabel("MB that a call moves", fontsize=12)
        axis.set_yticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"], fontsize=12)
        axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"], fontsize=12)
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("best rival's time / fastpool's", fontsize=12)
    figure.suptitle("Above the line fastpool is faster;\nred rows are more than 5 % behind the best rival", fontsize=15)
    return figure


PICTURES = {"floor": floor_picture, "ratio": ratio_picture}


def draw(app: Sphinx) -> None:
    """Beside the pages that show them; git ignores the folder."""
    folder = Path(app.srcdir, "generated")
    folder.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        picture(results()[0]).savefig(folder / f"speed-{name}.png", dpi=100, metadata={"Software": None})


def has_pooling(name: str) -> bool:
    import fastpool.nn

    camel = "".join(word.capitalize() for word in name.split("_"))
    return any(hasattr(fastpool.nn, f"{spelled}Pool2d") for spelled in (camel, camel.replace("Gem", "GeM")))


class Speed(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        made = self.tables(self.arguments[0])
        for node in made:
            for link in node.findall(addnodes.pending_xref):
                link["refdoc"] = self.state.document.settings.env.docname  # links are relative to the page
        return made

    def tables(self, name: str) -> list[nodes.Node]:
        if name in WINDOWINGS and name not in OPERATIONS:
            return of_windowing(name)
        if name not in OPERATIONS and not has_pooling(name):
            raise self.error(f"speed: {name!r} is no operation, windowing or pooling")
        return of_operation(name)


class Summary(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in SUMMARIES:
            raise self.error(f"speed-summary: {name!r} is none of {', '.join(SUMMARIES)}")
        return SUMMARIES[name]()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("speed", Speed)
    app.add_directive("speed-summary", Summary)
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
