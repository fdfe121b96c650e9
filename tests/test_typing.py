"""What type checkers know of the public functions and modules: mistakes are found, and right calls are not refused."""

import subprocess
import sys
import typing
from pathlib import Path

import pytest

from fastpool._kinds import DISTRIBUTIONS, OPTIONS, Distribution, Mode
from fastpool._windows import BINS, FLATTEN, Bins, Flatten

ROOT = Path(__file__).parent.parent
# Each line but the first ones as it is, or with what mypy says of it.
PROGRAM = """
import torch
from torch import Tensor
import fastpool
from fastpool import nn

x = torch.rand(2, 3, 8, 8)
y: Tensor = fastpool.max_pool2d(x, 2)
y = fastpool.max_pool2d(x, (2, 1), padding="same", stride=1).relu()
y, indices = fastpool.max_pool2d(x, 2, return_indices=True)
y, indices = fastpool.adaptive_max_pool1d(x[0], 2, True)
y = fastpool.stochastic_pool2d(x, 2, seed=3, distribution="softmax")
drawn: tuple[Tensor, Tensor] = fastpool.global_stochastic_pool(x, return_indices=True)
y = fastpool.spatial_pyramid_pool2d([x[0], x[1]], (2, (1, 2)), mode="mixed", alpha=0.3, flatten=None)
y = fastpool.sppf2d(x)
nn.StochasticPool2d(2, distribution="relu")
def either(return_indices: bool) -> Tensor:
    pooled = fastpool.min_pool2d(x, 2, return_indices=return_indices)
    return pooled if isinstance(pooled, Tensor) else pooled[0]
fastpool.max_pool2d(x, 2, return_indices=True).relu()  # "tuple[Tensor, Tensor]" has no attribute "relu"
both: tuple[Tensor, Tensor] = fastpool.stochastic_pool2d(x, 2)  # has type "Tensor", variable has type "tuple
fastpool.stochastic_pool2d(x, 2, distribution="sigmoid")  # No overload variant of "stochastic_pool2d"
fastpool.spatial_pyramid_pool2d(x, mode="median")  # expected "Literal['min', 'avg', 'max',
fastpool.avg_pool2d(x, 2, padding="valid")  # Argument "padding" to "avg_pool2d" has incompatible type
fastpool.spatial_pyramid_pool2d(x, bins="round")  # expected "Literal['adaptive', 'floor']"
nn.SpatialPyramidPool2d(flatten="all")  # expected "Literal['level', 'channel'] | None"
nn.AdaptiveStochasticPool2d(2, distribution="sigmoid")  # expected "Literal['relu', 'softmax']"
fastpool.global_max_pool(x, return_indices=True).shape  # has no attribute "shape"
nn.MaxPool2d("2")  # Argument 1 to "MaxPool2d" has incompatible type
"""


def test_mypy_finds_mistakes(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    lines = PROGRAM.strip().splitlines()
    program = tmp_path / "program.py"
    program.write_text("\n".join(line.split("  # ")[0] for line in lines) + "\n")
    # From here, where `make lint` may have left what it knows of torch.
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(program)]
    ran = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True)
    found: dict[int, str] = {}
    for line in ran.stdout.splitlines():
        file, number, text = line.split(":", 2)
        assert file.endswith("program.py"), line
        found[int(number)] = found.get(int(number), "") + text
    expected = {i: line.split("  # ")[1] for i, line in enumerate(lines, 1) if "  # " in line}
    assert found.keys() == expected.keys(), ran.stdout + ran.stderr
    for i, words in expected.items():
        assert words in found[i], found[i]


@pytest.mark.parametrize(
    ("annotation", "choices"),
    [(Mode, OPTIONS), (Distribution, DISTRIBUTIONS), (Bins, BINS), (Flatten, FLATTEN)],
    ids=["mode", "distribution", "bins", "flatten"],
)
def test_annotations_are_what_is_accepted(annotation, choices):
    assert set(typing.get_args(annotation)) == set(choices)
