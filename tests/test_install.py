"""What is packed and installed, and what importing it takes."""

import ast
import os
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest

import fastpool
from fastpool import _C

ROOT = Path(__file__).parent.parent


def run(*command, cwd=ROOT, env=None):
    found = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def egg_info(tmp_path_factory):
    """What `sdist` would write: the metadata and the list of files."""
    pytest.importorskip("setuptools", minversion="77")
    if not (ROOT / "fastpool").exists():
        pytest.skip("these tests lie outside the sources")
    folder = tmp_path_factory.mktemp("egg")
    run(sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder))
    return folder / "fastpool.egg-info"


def test_a_source_archive_holds_every_tracked_file(egg_info):
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs git and a clone")
    tracked = {path for path in run("git", "ls-files").splitlines() if (ROOT / path).exists()}
    others = set(run("git", "ls-files", "--others", "--exclude-standard").splitlines())
    packed = {line for line in (egg_info / "SOURCES.txt").read_text().splitlines() if ".egg-info/" not in line}
    assert packed - others == tracked - others


def test_what_is_imported_is_required(egg_info):
    required = {
        re.split(r"\W", line)[0]
        for line in Parser().parsestr((egg_info / "PKG-INFO").read_text()).get_all("Requires-Dist")
        if "extra ==" not in line
    }
    files = list(Path(fastpool.__file__).parent.glob("*.py"))
    imported = set()
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names - {file.stem for file in files} == required


def test_the_version(egg_info):
    assert f"\nVersion: {fastpool.__version__}\n" in (egg_info / "PKG-INFO").read_text()


BUILD = """
import sys
sys.path = [{root!r}, {overlay!r}, *(path for path in sys.path if "-packages" not in path)]
{fault}
import build_backend
print(*build_backend.get_requires_for_build_wheel())
print(build_backend.get_requires_for_build_sdist())
"""


NO_PACKAGES = "import site; site.getsitepackages, site.getusersitepackages = list, str"


@pytest.mark.parametrize("fault, expected", [("", ""), (NO_PACKAGES, "torch>=2.11")])
def test_a_build_in_isolation_takes_the_torch_that_is_there(fault, expected, tmp_path):
    """pip's isolation: the environment's packages are off the path, a folder of its own holds what it installed."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    if not (ROOT / "build_backend.py").exists():
        pytest.skip("these tests lie outside the sources")
    (tmp_path / "setuptools").symlink_to(Path(setuptools.__file__).parent)
    program = BUILD.format(root=str(ROOT), overlay=str(tmp_path), fault=fault)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert run(sys.executable, "-s", "-c", program, env=environment).split("\n")[:2] == [expected, "[]"]


def test_without_torch_a_build_says_so():
    if not (ROOT / "setup.py").exists():
        pytest.skip("these tests lie outside the sources")
    program = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_path('setup.py', run_name='__main__')"
    found = subprocess.run([sys.executable, "-c", program, "build_ext"], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode
    assert found.stderr.startswith("fastpool is compiled against torch 2.11 or newer, there is none")


def test_show_config(capsys):
    fastpool.show_config()
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines()[1:])
    assert {"library", "CUDA kernels", "threads", "torch", "Python", "system"} < shown.keys()
    assert shown["CPU capability"] == _C.build_info()["cpu_capability"]
    assert Path(shown["library"]).exists()


IMPORT = """
import sys, torch
before = set(sys.modules)
import fastpool
print(*sorted({name.split(".")[0] for name in sys.modules.keys() - before}))
"""


def test_importing_takes_nothing_beside_torch():
    found = set(run(sys.executable, "-c", IMPORT).split())
    assert "fastpool" in found
    assert not found - sys.stdlib_module_names - {"fastpool", "torch"}
