"""Every program of the gallery, run as a reader would who is in a hurry."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastpool

pytest.importorskip("sklearn")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if "\ndef main(" in path.read_text())


def run(name, *arguments):
    # The examples are to find the fastpool under test, installed or not.
    found = os.pathsep.join([str(Path(fastpool.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": found},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_quick_run(name, tmp_path):
    output = run(name, "--quick", "--out", tmp_path)
    assert (tmp_path / f"{name}.txt").read_text().strip() in output
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["program"] == name and record["quick"] and record["seed"] == 0 and record["results"]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures and all(path.startswith(name) for path in pictures)
    for path in pictures:
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_poolings_draw_the_same_bytes_on_every_run(tmp_path):
    folders = tmp_path / "once", tmp_path / "again"
    for folder in folders:
        run("poolings", "--out", folder)
    once, again = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"} for folder in folders
    )
    assert len(once) == 26 and once.keys() == again.keys()
    assert [name for name in once if once[name] != again[name]] == []
    rows = json.loads((folders[0] / "poolings.json").read_text())["results"]
    assert len(rows) == 13
    for call, row in rows.items():
        assert row["fastpool"] == pytest.approx(row["numpy"], abs=1e-6), call


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name):
    assert "--seed" in run(name, "--help")
