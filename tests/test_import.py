"""What an import says that finds no compiled extension."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastpool

PACKAGE = Path(fastpool.__file__).parent


@pytest.fixture
def sources(tmp_path):
    """The package as it lies in a clone, and in place of torch, which takes seconds to load, nothing."""
    folder = tmp_path / "clone" / "fastpool"
    shutil.copytree(PACKAGE, folder, ignore=lambda _, names: [n for n in names if not n.endswith((".py", ".pyi"))])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").touch()
    return folder


def message(sources, install=False):
    """Of Python started in the clone."""
    site = sources.parent.parent / "site"
    if install:
        shutil.copytree(sources, site / "fastpool")
        (site / "fastpool" / "_C.abi3.so").touch()
    ran = subprocess.run(
        [sys.executable, "-c", "import fastpool"],
        cwd=sources.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    return ran.stderr.splitlines()[-1]


def test_unbuilt_sources_say_how_to_build(sources):
    text = message(sources)
    assert "fastpool's compiled extension cannot be loaded (No module named 'fastpool._C')" in text
    assert "`pip install .`" in text


def test_sources_that_hide_the_installed_package_say_so(sources):
    text = message(sources, install=True)
    assert f"{sources} holds the sources, which hide the package installed in {sources.parent.parent / 'site'}" in text
    assert "start it in another folder" in text and "pip" not in text


def test_a_broken_extension_is_not_said_to_be_hidden(sources):
    (sources / "_C.abi3.so").write_text("no library")
    assert "build it for this torch" in message(sources, install=True)
