"""Times every operation of operations.py on every layer of layers.py against its rivals and the floor.

    python benchmarks/run.py                       every layer in float32, the yardsticks in four dtypes
    python benchmarks/run.py --quick               a few rows; torch.compile for the yardstick's forward only
    python benchmarks/run.py --operation mixed --layer 'vgg16-*' --dtype bfloat16 --threads 1 2
    python benchmarks/run.py --minutes 60 --add    an hour of the rows that the machine's table lacks
    python benchmarks/run.py --output FILE         adds to FILE, where a row measured again replaces itself alone
    python benchmarks/run.py --report FILE         table, summary and picture of an earlier run

The rows that a reader asks for first come first. All contenders of a row get the same tensors and take turns. Each
result is checked before it is timed. Files are complete after every row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import torch

# Last, so that an installed fastpool comes before an unbuilt source folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import layers, operations, report, runtimes
from benchmarks.checks import Oracle, differentiable
from benchmarks.isolated import Isolated, Lost
from benchmarks.measure import CopyFloor, Floor, OnCuda, gaps, measure_in_turn, on_cpu, reuse_buffers, rotations

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = ("contiguous", "channels-last")
# Seconds after which a row on a GPU is given up, with and without compiling.
ROW, COMPILED_ROW = 45, 90
TABLES = {"operation": operations.OPERATIONS, "layer": layers.LAYERS}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few yardsticks only")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after this time")
    parser.add_argument("--output", type=Path, metavar="FILE", help="add to it; in a folder, to the machine's own file")
    parser.add_argument("--add", action="store_true", help="measure what FILE, or else the machine's table, lacks")
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", help=f"names or patterns: {' '.join(table)}")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES)
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    parser.add_argument("--pass", nargs="+", dest="passes", choices=operations.BOTH, default=operations.BOTH)
    parser.add_argument("--threads", nargs="+", type=int, default=[torch.get_num_threads()])
    parser.add_argument("--rivals", nargs="*", choices=report.GROUPS, default=report.GROUPS)
    parser.add_argument("--buffers", choices=("fresh", "reused"), default="fresh", help="reused: without page faults")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, help="time spent on each median (default 0.3, quick 0.1)")
    parser.add_argument("--without-fastpool", action="store_true", help="measure the rivals and the floor only")
    parser.add_argument("--report", type=Path, metavar="FILE", help="show an earlier run")
    options = parser.parse_args()
    options.seconds = options.seconds or (0.1 if options.quick or options.device == "cuda" else 0.3)
    for name, table in TABLES.items():
        for pattern in getattr(options, name) or ():
            if not any(fnmatch(row, pattern) for row in table):
                parser.error(f"--{name}: nothing matches {pattern!r}; there are: {', '.join(table)}")
    return options


def selected(name, patterns) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns or ["*"])


def interest(cell):
    """Sorts first what a reader asks for first."""
    layer = [*layers.FIRST, cell["layer"]].index(cell["layer"])
    beyond = layer == len(layers.FIRST) or cell["operation"] not in operations.FIRST
    return beyond, cell["dtype"] not in ("float32", "float16"), layer


def default_dtypes(layer, options):
    if options.quick:
        return ["float32"]
    if layer.wide:
        return DTYPES
    return ["float32", "float16"] if options.device == "cuda" else ["float32"]


def cells(options):
    """Every (operation, layer, dtype, layout, threads, pass) of the run."""
    everything = dict.fromkeys(layers.LAYERS, operations.OPERATIONS)
    quick = operations.QUICK if options.quick else everything
    for layer_name in quick:
        layer = layers.LAYERS[layer_name]
        if not selected(layer_name, options.layer):
            continue
        dtypes = options.dtype or default_dtypes(layer, options)
        # torch has no channels-last form of (N, C, L).
        layouts = [layout for layout in options.layout if layer.rank > 1 or layout == "contiguous"]
        names = [name for name in quick[layer_name] if selected(name, options.operation)]
        threads = options.threads if options.device == "cpu" else [1]
        keys = ("dtype", "layout", "operation", "threads", "pass")
        for values in product(dtypes, layouts, names, threads, options.passes):
            cell = dict(zip(keys, values, strict=True), layer=layer_name)
            operation = operations.OPERATIONS[cell["operation"]]
            if layer.windowing in operation.windowings and cell["pass"] in operation.passes:
                yield cell


def random_input(layer, dtype, layout, device):
    x = torch.randn(layer.shape, device=device).to(dtype)
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last if layer.rank == 2 else torch.channels_last_3d)
    return x


def not_compiled(cell, operation, layer, options) -> str | None:
    """Why torch.compile is no rival of this row."""
    if not operation.compiles:
        return "it has no double backward"
    if options.quick and (cell["layer"], cell["pass"]) != ("yardstick", "forward"):
        return "with --quick the yardstick's forward only"
    many_bins = layer.windowing in ("adaptive", "pyramid")
    if many_bins and operation.check.startswith("drawn") and not (layer.wide and cell["dtype"] == "float32"):
        return "draws from bins take it a minute to compile: the float32 yardstick only"
    return None


def too_slow(name, operation, layer) -> str | None:
    """Why this composition is no rival of this layer."""
    slices = operation.rivals.get("slices")
    if name == "unfold" and not layer.wide and slices and slices(layer):
        return "slower than slices in 488 of 490 rows: the yardsticks only"
    return None


def contenders(cell, operation, layer, options, skipped):
    """(name, builder of a function of (x, *parameters))."""
    if not options.without_fastpool:
        yield "fastpool", lambda: operation.fastpool(layer)
    for name, composition in operation.rivals.items():
        if composition(layer) is None:
            continue
        reason = too_slow(name, operation, layer)
        if reason:
            skipped[name] = reason
            continue
        if "eager" in options.rivals:
            yield f"eager:{name}", lambda build=composition: build(layer)
        if "compile" not in options.rivals:
            continue
        reason = not_compiled(cell, operation, layer, options)
        if reason:
            skipped["compile"] = reason
        else:
            yield f"compile:{name}", lambda build=composition: operations.compile_for(build(layer), cell["threads"])
    for name in runtimes.RUNTIMES:
        if name not in options.rivals:
            continue
        if options.device == "cuda" or (cell["dtype"], cell["layout"], cell["pass"]) != (
            "float32",
            "contiguous",
            "forward",
        ):
            skipped[name] = "CPU, float32, contiguous, forward only"
        else:
            yield name, lambda name=name: exported(runtimes.build(name, operation, layer, cell["threads"]))


def exported(function):
    return lambda x: torch.from_numpy(function(x.numpy()))


def trained(function):
    """Forward and backward as one call; the gradients are fresh, as in a training step."""

    def step(inputs, gradients):
        return torch.autograd.grad(differentiable(function(*inputs)), inputs, gradients)

    return step


def checked(function, copies, oracle, own, backward):
    """Asserts the result, and fastpool's gradients; returns the call to time, its arguments, and the largest error."""
    result = function(*copies[0])
    if not backward:
        return function, copies, oracle.check(result, rival=not own)
    # Everyone's gradient arrives in the layout of its own output.
    arguments = [
        (copy, [torch.empty_like(y).copy_(g) for y, g in zip(differentiable(result), oracle.gradients, strict=True)])
        for copy in copies
    ]
    routed = torch.autograd.grad(differentiable(result), copies[0], arguments[0][1])
    return trained(function), arguments, oracle.check(result, routed, rival=not own)


def moved(operation, layer, inputs, oracle, backward):
    """(tensors read, bytes of the fresh buffers written): inputs, outputs and saved taps once."""
    reads, writes = [inputs[0], *oracle.gradients], [y.nbytes for y in oracle.results]
    if backward:
        writes += [t.nbytes for t in inputs]
        # "none" takes one of the 256 codes of a byte.
        codes = layer.taps + (operation.check == "drawn-relu")
        writes += [layer.outputs * (1 if codes <= 256 else 4)] if operation.taps else []
    return reads, writes


def run_cell(cell, options) -> dict:
    torch.manual_seed(0)
    torch.set_num_threads(cell["threads"])
    # Past its recompilation limit torch.compile would silently run eager.
    torch._dynamo.reset()
    operation, layer = operations.OPERATIONS[cell["operation"]], layers.LAYERS[cell["layer"]]
    on_cuda, backward = options.device == "cuda", cell["pass"] != "forward"
    x = random_input(layer, DTYPES[cell["dtype"]], cell["layout"], options.device)
    inputs = (x, *operation.parameters(x))
    oracle = Oracle(operation, layer, inputs, backward)
    reads, writes = moved(operation, layer, inputs, oracle, backward)
    copies = [inputs, *(tuple(t.clone() for t in inputs) for _ in range(1, rotations(x.nbytes, options.device)))]
    copies = [tuple(t.detach().requires_grad_(backward) for t in copy) for copy in copies]
    sources = None if options.without_fastpool else library(options)._C.build_info()["sources"]
    row = dict(
        cell,
        shape=layer.shape,
        sources=sources,
        copies=len(copies),
        buffers=options.buffers,
        bytes=sum(t.nbytes for t in reads) + sum(writes),
    )
    row["skipped"] = {name: "left out by --rivals" for name in report.GROUPS if name not in options.rivals}
    calls, errors = {}, {}
    with torch.set_grad_enabled(backward):
        for name, build in contenders(cell, operation, layer, options, row["skipped"]):
            own = name == "fastpool"
            try:
                *calls[name], errors[name] = checked(build(), copies, oracle, own, backward)
            except runtimes.Unavailable as error:
                row["skipped"][name] = str(error)
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                if own:
                    row["error"] = reason
                    if on_cuda:  # which may answer nothing any more
                        return row | dict(floor=0.0, times={})
                else:
                    row["skipped"][name] = reason
        if on_cuda:
            samplers = {name: OnCuda(*call) for name, call in calls.items()}
            floor = CopyFloor(row["bytes"])
        else:
            samplers = {name: on_cpu(*call, cell["threads"]) for name, call in calls.items()}
            floor = Floor(reads, writes, cell["threads"])
        times = measure_in_turn(samplers | floor.samplers, options.seconds)
        if on_cuda:
            row["called"] = described(gaps(samplers, times, options.seconds / 3))
            row["not_captured"] = {name: sampler.refusal for name, sampler in samplers.items() if sampler.refusal}
    row["floor"] = floor.seconds(times)
    row["times"] = described({name: times[name] for name in calls})
    row["errors"] = errors
    return row


def described(times):
    return {name: asdict(found) for name, found in times.items()}


def measured_anyway(cell, options) -> dict:
    """run_cell, where a failure outside of all contenders is a row too."""
    try:
        return run_cell(cell, options)
    except Exception as error:
        return failed(cell, error)


def failed(cell, error) -> dict:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return dict(cell, shape=layers.LAYERS[cell["layer"]].shape, bytes=0, floor=0.0, skipped={}, times={}, error=reason)


def device_lives() -> bool:
    """After an illegal access every call of its process fails."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def measurer(options):
    """-> a function of (cell, options)"""
    if options.device == "cpu":
        return run_cell
    isolated = Isolated(measured_anyway, device_lives, COMPILED_ROW if "compile" in options.rivals else ROW)

    def measure(cell, options):
        try:
            return isolated(cell, options)
        except Lost as error:
            return failed(cell, error)

    return measure


def progress(done, total, started, label):
    if not sys.stderr.isatty():
        return
    bar = "#" * (30 * done // total)
    remaining = f"{(time.time() - started) / done * (total - done) / 60:.0f} min left" if done else ""
    print(f"\r\033[K[{bar:.<30}] {done}/{total} {label} {remaining}", end="", file=sys.stderr, flush=True)


def library(options):
    """The fastpool module, None if it is not to be measured."""
    if options.without_fastpool:
        return None
    try:
        import fastpool
    except ImportError as error:
        sys.exit(f"{error}\n--without-fastpool measures the rivals and the floor only")
    return fastpool


def earlier(path, machine):
    """-> the machine of the table that a run adds to, with this run's threads too, and its rows"""
    if not path.exists():
        return machine, []
    found = json.loads(path.read_text())
    # A GPU's times depend on little else.
    keys = ("gpu", "buffers") if machine["gpu"] else ("cpu", "cores", "gpu", "buffers", "versions", "build")
    pairs = {key: (found["machine"][key], machine[key]) for key in keys}
    pairs["torch"] = (found["machine"]["versions"]["torch"], machine["versions"]["torch"])
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            sys.exit(f"{path} has {key} {theirs}, this run {ours}; move it away")
    threads = sorted({*found["machine"]["threads"], *machine["threads"]})
    return found["machine"] | {"threads": threads}, found["rows"]


def table(options, machine):
    """-> the file that this run writes"""
    # A selection must not replace the full table of the machine; it may add to it.
    chosen = options.operation or options.layer or options.dtype
    part = chosen or set(options.layout) != set(LAYOUTS) or set(options.passes) != set(operations.BOTH)
    marks = {
        "-quick": options.quick,
        "-part": part and not (options.add or options.output),
        "-reused": options.buffers == "reused",
        "-rivals": options.without_fastpool,
    }
    own = report.results_path(machine, "".join(mark for mark, present in marks.items() if present))
    if options.output is None:
        return own
    return options.output / own.name if options.output.is_dir() else options.output


def show(path, machine, rows):
    print("\n" + report.summary(rows))
    reasons = sorted({f"{name}: {reason}" for row in rows for name, reason in row["skipped"].items()})
    print("rivals skipped in some rows:\n  " + "\n  ".join(reasons) if reasons else "no rival was skipped")
    print(report.roofline(path.with_suffix(".png"), machine, rows))


def main() -> int:
    options = parse()
    if options.report:
        found = json.loads(options.report.read_text())
        print(report.legend(found["machine"]), report.HEADER, *map(report.line, found["rows"]), sep="\n")
        show(options.report, found["machine"], found["rows"])
        return 0
    if options.buffers == "reused":
        reuse_buffers()
    machine = report.machine(options.device, options.threads, options.buffers, library(options))
    path = table(options, machine)
    todo, rows, started = sorted(cells(options), key=interest), [], time.time()
    if not todo:
        sys.exit("no row matches this selection" + (", --quick has few layers" if options.quick else ""))
    if options.add or options.output:
        machine, rows = earlier(path, machine)
    if options.add:
        found = [row for row in rows if "error" not in row]
        todo = [cell for cell in todo if not any(cell.items() <= row.items() for row in found)]
    measured, measure = [], measurer(options)
    print(report.legend(machine), report.HEADER, sep="\n")
    for done, cell in enumerate(todo):
        if time.time() - started > 60 * options.minutes:
            print(f"{len(todo) - done} of {len(todo)} rows were left out after {options.minutes:g} minutes")
            break
        progress(done, len(todo), started, f"{cell['operation']} {cell['layer']} {cell['dtype']} {cell['pass']}")
        row = measure(cell, options)
        measured.append(row)
        rows = [other for other in rows if not cell.items() <= other.items()] + [row]
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(report.line(row), flush=True)
        # After every row, so that an interrupted run keeps what it measured.
        report.save(path, machine, rows)
    if measured:
        show(path, machine, rows)
    print(f"{len(measured)} rows in {time.time() - started:.0f} s: {path}")
    return 1 if any("error" in row for row in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
