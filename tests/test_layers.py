"""Which folders of csrc include which."""

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
# csrc/core depends on nothing else; kernels know nothing of torch.
INCLUDED = {
    "core": {"core"},
    "reducers": {"core", "reducers"},
    "schedules": {"core", "reducers", "schedules"},
    "cpu": {"core", "reducers", "schedules", "cpu"},
    "cuda": {"core", "reducers", "schedules", "cuda"},
    "ops": {"core", "reducers", "schedules", "cpu", "cuda", "ops", "torch"},
}
INCLUDE = re.compile(r'^ *# *include *[<"]([^/>"]+)/', re.MULTILINE)
SYSTEM = {"sys", "sanitizer"}


def test_every_folder_has_its_rule():
    assert {path.name for path in CSRC.iterdir() if path.is_dir()} == INCLUDED.keys()


@pytest.mark.parametrize("folder", INCLUDED)
def test_folder_includes_nothing_above_it(folder):
    files = [path for path in (CSRC / folder).rglob("*") if path.is_file()]
    included = {(str(path.relative_to(CSRC)), name) for path in files for name in INCLUDE.findall(path.read_text())}
    assert included
    allowed = INCLUDED[folder] | SYSTEM
    assert not [(path, name) for path, name in included if name not in allowed]
