"""What `make gpu` does on a card, as far as it can be tried without one: steps, tools, files, timing, devices."""

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import smoke
import test_gpu
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastpool import _C

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import gpu, layers, measure, operations, run  # noqa: E402
from benchmarks.isolated import Isolated, Lost  # noqa: E402


@pytest.mark.skipif(not _C.build_info()["cuda"], reason="fastpool was built without CUDA kernels")
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("readelf"), reason="needs Linux and readelf")
def test_the_module_reaches_torchs_cuda_library():
    read = subprocess.run(["readelf", "-d", _C.LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "[libtorch.so]" in read, read
    if torch.version.cuda:
        assert hasattr(ctypes.CDLL(str(_C.LIBRARY)), "aoti_torch_get_current_cuda_stream")


def shell(name, until, script):
    return gpu.Step(name, until, ("bash", "-c", script))


def test_steps(tmp_path, monkeypatch, capfdbinary):
    """One that fails, one that hangs and one that will not stop keep no other from running."""
    monkeypatch.setattr(gpu, "GRACE", 0.5)
    steps = (
        shell("fails", 20, "echo first words; exit 3"),
        shell("hangs", 2, "trap 'echo last words; exit 1' INT; echo {minutes} {out}; while :; do sleep 0.1; done"),
        shell("ignores", 4, "trap '' INT; echo $$ > {out}/pid; while :; do sleep 0.1; done"),
        shell("late", 2, "echo not run"),
        shell("cannot", 20, "echo tool says no; exit 77"),
        shell("works", 20, "echo done"),
    )
    assert gpu.perform(steps, tmp_path / "out", "first") == 1
    log = (tmp_path / "out" / "gpu-first.log").read_text()
    for words in ("first words", "last words", f"0.00 {tmp_path}/out", "tool says no", "done"):
        assert f"\n{words}\n" in log, words
    ends = [line.split()[0] + " " + line.split(" s  ")[1] for line in log.splitlines()[-len(steps) :]]
    assert ends[0] == "fails FAILED: exit status 3"
    assert ends[1].startswith("hangs FAILED: stopped after") and ends[2].startswith("ignores FAILED: stopped after")
    assert ends[3:] == ["late FAILED: no time was left", "cannot skipped", "works ok"]
    assert capfdbinary.readouterr().out.decode() == log
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out" / "pid").read_text()), 0)
    assert gpu.perform(steps[-2:], tmp_path, "more") == 0


def test_a_log_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "MOST_OUTPUT", 1000)
    assert gpu.perform([shell("talks", 20, "head -c 1000000 /dev/zero")], tmp_path, "first") == 0
    log = (tmp_path / "gpu-first.log").read_bytes()
    assert len(log) < 100_000 and b"bytes are left out" in log


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        ("Error: Device not supported", 1, gpu.SKIPPED),
        ("Invalid __global__ read", 9, 9),
        ("0 errors, warnings not supported", 0, 0),
    ],
)
def test_a_tool_that_refuses_is_skipped(tmp_path, monkeypatch, capfd, words, status, expected):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '========= {words}'\necho $*\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu.sanitize("racecheck") == expected
    said = capfd.readouterr().out
    assert words in said and "--tool racecheck" in said


def test_a_tool_that_is_missing_is_skipped(monkeypatch, capfd):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert gpu.counters() == gpu.SKIPPED
    assert "ncu is not installed" in capfd.readouterr().out


@pytest.mark.parametrize("target", ["first", "more"])
def test_dry_run(target, tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", target, "--dry", "--out", str(tmp_path / "out")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for step in gpu.SEQUENCES[target]:
        assert f"{step.name} " in ran.stdout
        # With what a step takes to stop.
        assert step.until + 2 * gpu.GRACE < 300
        assert all((ROOT / word.split("::")[0]).exists() for word in step.command if word.endswith(".py"))
    assert torch.cuda.is_available() or "sees no CUDA device; nothing to do" in ran.stdout
    assert not list(tmp_path.iterdir())


def test_a_module_is_built_where_it_does_not_fit(monkeypatch):
    pytest.importorskip("setuptools")
    setup = importlib.import_module("setup")
    monkeypatch.setattr(_C, "build_info", lambda: {"cuda": ["8.0", "9.0a"], "sources": "these"})
    monkeypatch.setattr(setup, "digest", lambda: "these")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert gpu.why_build() == ""
    monkeypatch.setattr(setup, "digest", lambda: "those")
    assert "other sources" in gpu.why_build()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (10, 0))
    assert "the card wants 10.0" in gpu.why_build()


@pytest.mark.parametrize("torch_version", ["this", "another"])
def test_known_rows_are_begun_with(tmp_path, monkeypatch, torch_version):
    """Where they are of this torch: others could not be added to."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(run.report, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    versions = {"torch": version("torch") if torch_version == "this" else "1.0"}
    (tmp_path / "nvidia-h200.json").write_text(json.dumps({"machine": {"versions": versions}, "rows": []}))
    gpu.begin_with_known_rows(tmp_path / "out")
    assert (tmp_path / "out" / "nvidia-h200.json").exists() == (torch_version == "this")


def test_smoke():
    command = [sys.executable, "tests/smoke.py", "cpu"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and " 0 wrong" in ran.stdout, ran.stdout + ran.stderr


def refused(x, alpha):
    raise RuntimeError("CUDA error: an illegal memory access")


def test_smoke_tells_what_is_wrong(monkeypatch, capsys):
    number = count()
    wrong = {"noisy": (True, lambda x, alpha: x + next(number)), "slightly": (False, lambda x, alpha: x + next(number))}
    monkeypatch.setattr(smoke, "POOLS", wrong | {"refused": (True, refused)})
    monkeypatch.setattr(sys, "argv", ["smoke.py", "cpu"])
    assert smoke.main() == 1
    said = capsys.readouterr().out
    inputs = len(smoke.SHAPES) * len(smoke.DTYPES) * len(smoke.LAYOUTS)
    assert said.count("differs from the CPU") == 2 * inputs
    assert said.count(": CUDA error: an illegal memory access") == inputs


def parsed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    return run.parse()


def test_rows_in_order_of_interest(monkeypatch):
    options = parsed(monkeypatch, "--device", "cuda")
    cells = sorted(run.cells(options), key=run.interest)
    first = list(dict.fromkeys(cell["layer"] for cell in cells))
    assert tuple(first[: len(layers.FIRST)]) == layers.FIRST
    # Both types, layouts and passes of the four operations; then other types; then the rest.
    assert {cell["layer"] for cell in cells[: 4 * 2 * 2 * 2]} == {"large"}
    assert {cell["operation"] for cell in cells[: 4 * 2 * 2 * 2]} == set(operations.FIRST)
    kinds = [run.interest(cell)[:2] for cell in cells]
    assert kinds == sorted(kinds) and len(set(kinds)) == 4
    assert len({tuple(cell.items()) for cell in cells}) == len(cells)


def measured(monkeypatch, capfd, path, *arguments):
    monkeypatch.setattr(
        sys,
        "argv",
        ["run.py", "--device", "cpu", "--layer", "tiny", "--seconds", "0.01", "--output", str(path), *arguments],
    )
    assert run.main() == 0, capfd.readouterr()
    return json.loads(path.read_text())["rows"]


def test_output_is_added_to(tmp_path, monkeypatch, capfd):
    path = tmp_path / "rows.json"
    saved, files = [], []
    save = run.report.save

    def watched(*row):
        save(*row)
        saved.append(json.loads(path.read_text())["rows"])
        files.append(path.stat().st_ino)

    monkeypatch.setattr(run.report, "save", watched)
    selection = ("--rivals", "eager", "--layout", "contiguous", "--pass", "forward", "--threads", "1")
    first = measured(monkeypatch, capfd, path, *selection, "--operation", "max", "avg")
    assert [row["operation"] for row in first] == ["max", "avg"]
    second = measured(monkeypatch, capfd, path, *selection, "--operation", "max", "mixed")
    assert [row["operation"] for row in second] == ["avg", "max", "mixed"]
    assert second[0] == first[1] and second[1] != first[0]
    third = measured(monkeypatch, capfd, path, *selection, "--operation", "max", "max_avg", "--add")
    assert third[:3] == second and third[3]["operation"] == "max_avg" and len(third) == 4
    # Complete after every row, each time as a new file, and nothing else is left there.
    assert [len(rows) for rows in saved] == [1, 2, 2, 3, 4]
    assert all(a != b for a, b in pairwise(files))
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".png"}


def test_no_time_for_a_row(tmp_path, monkeypatch, capfd):
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "--device", "cpu", "--minutes", "0", "--output", str(path)])
    assert run.main() == 0
    assert "rows were left out after 0 minutes" in capfd.readouterr().out and not path.exists()


def test_output_of_another_torch_is_left_alone(tmp_path, monkeypatch, capfd):
    path = tmp_path / "rows.json"
    selection = ("--rivals", "eager", "--layout", "contiguous", "--pass", "forward", "--operation", "max")
    measured(monkeypatch, capfd, path, *selection)
    text = path.read_text().replace(f'"torch": "{version("torch")}"', '"torch": "1.0"')
    path.write_text(text)
    with pytest.raises(SystemExit, match="has versions"):
        measured(monkeypatch, capfd, path, *selection)
    assert path.read_text() == text


def test_a_call_that_is_lost_costs_itself():
    call = Isolated(eval, time.time, 20)
    assert call("6 * 7") == 42
    with pytest.raises(Lost, match="the process ended"):
        call("__import__('os')._exit(1)")
    call.seconds = 0.5
    with pytest.raises(Lost, match="no answer within 0.5 s"):
        call("__import__('time').sleep(3)")
    call.seconds = 20
    assert call("6 * 7") == 42
    call.stop()


def test_a_sick_process_is_replaced():
    call = Isolated(eval, bool, 20)
    numbers = {call("__import__('os').getpid()") for _ in range(3)}
    assert len(numbers) == 3
    call.stop()


class Device(TorchDispatchMode):
    """Refuses tensors of the CPU: where a card is, each is a copy that waits."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            assert not isinstance(tensor, torch.Tensor) or not tensor.is_cpu, f"{function} has a CPU tensor"
        return result


def test_guarded_parts_make_no_cpu_tensor():
    with Device():
        test_gpu.unsynchronised(torch.empty(4, 8, 33, 33, device="meta", requires_grad=True))


@pytest.mark.parametrize("name", operations.OPERATIONS)
def test_timed_parts_make_no_cpu_tensor(name):
    operation, tried = operations.OPERATIONS[name], 0
    if name == "stochastic_compiled":
        pytest.skip("compiled code is not seen")
    for layer_name in ("tiny", "published-global", "published-adaptive", "sppnet-conv5", "yolov5s-sppf"):
        layer = layers.LAYERS[layer_name]
        builders = [operation.fastpool, *operation.rivals.values()] if layer.windowing in operation.windowings else []
        for function in filter(None, (builder(layer) for builder in builders)):
            x = torch.empty(layer.shape, device="meta")
            inputs = [t.requires_grad_() for t in (x, *operation.parameters(x))]
            with Device():
                outputs = run.differentiable(function(*inputs))
                run.trained(function)(inputs, [torch.empty_like(y) for y in outputs])
            tried += 1
    assert tried


class Paper(TorchFunctionMode):
    """The device "cuda" is the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1e3 * (end.time - self.time)


@pytest.fixture
def paper_card(monkeypatch):
    """torch.cuda as far as the benchmark uses it; -> what graphs do."""
    captured = SimpleNamespace(replays=0, refuses="")

    class Graph:
        def replay(self):
            captured.replays += 1

    @contextlib.contextmanager
    def graph(graph):
        yield
        if captured.refuses:
            raise RuntimeError(captured.refuses)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = dict(Event=Event, CUDAGraph=Graph, graph=graph, Stream=lambda: stream, current_stream=lambda: stream)
    fakes |= dict(set_stream=lambda stream: None, synchronize=lambda: None, _sleep=lambda cycles: None)
    fakes |= dict(stream=lambda stream: contextlib.nullcontext())
    fakes |= dict(get_device_properties=lambda: SimpleNamespace(L2_cache_size=50 << 10))
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    measure.cache_filler.cache_clear()
    with Paper():
        yield captured
    measure.cache_filler.cache_clear()


@pytest.mark.parametrize("direction", operations.BOTH)
@pytest.mark.parametrize("refuses", ["", "operation not permitted when stream is capturing"])
def test_a_row_of_a_card(paper_card, monkeypatch, direction, refuses):
    """A replay on paper takes no time: the calls take more, and are told."""
    paper_card.refuses = refuses
    options = parsed(monkeypatch, "--device", "cuda", "--rivals", "eager", "--seconds", "0.01")
    cell = dict(dtype="float32", layout="channels-last", operation="mixed", threads=1, layer="tiny")
    row = run.run_cell(cell | {"pass": direction}, options)
    assert row["times"].keys() == {"fastpool", "eager:torch"} and "error" not in row and row["floor"] > 0
    assert row["copies"] == 4 and row["bytes"] > 50_000
    assert (paper_card.replays > 0) == (not refuses)
    assert row["not_captured"] == (dict.fromkeys(row["times"], f"RuntimeError: {refuses}") if refuses else {})
    if not refuses:
        assert row["called"]["fastpool"]["median"] > row["times"]["fastpool"]["median"]
        assert "as called" in run.report.line(row)
    json.dumps(row)


def test_profiled_calls(paper_card, monkeypatch):
    assert set(gpu.HOT_LAYERS) <= set(layers.LAYERS)
    monkeypatch.setattr(gpu, "HOT_LAYERS", ("tiny", "published-global", "published-adaptive"))
    assert gpu.hot() == 0


def test_a_row_that_fails_is_a_row(paper_card, monkeypatch):
    options = parsed(monkeypatch, "--device", "cuda")
    cell = dict(dtype="float32", layout="contiguous", operation="max", threads=1, layer="tiny") | {"pass": "forward"}
    monkeypatch.setattr(run, "random_input", lambda *arguments: 1 / 0)
    row = run.measured_anyway(cell, options)
    assert row["error"] == "ZeroDivisionError: division by zero" and cell.items() <= row.items()
    assert "FAILED" in run.report.line(row) and run.report.summary([row])
    json.dumps(row)


def test_inputs_are_cold_and_few(monkeypatch):
    monkeypatch.setattr(measure, "cold_bytes", lambda: 150 << 20)
    assert measure.rotations(1, "cuda") == measure.rotations(50 << 10, "cuda") == measure.MOST_COPIES
    assert measure.rotations(10 << 20, "cuda") == 15
    assert measure.rotations(1 << 30, "cuda") == 2
    assert measure.rotations(1, "cpu") == 1
