"""What a newcomer runs: the README's lines, the demo for one epoch, the demo on MNIST's IDX files written here."""

import gzip
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastpool

pytest.importorskip("sklearn")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
POOLINGS = ["max", "average", "mixed", "stochastic", "pyramid"]


@pytest.fixture
def data(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import data

    yield data
    del sys.modules["data"]


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("digits")


def demo(*arguments):
    # The examples are to find the fastpool under test, installed or not.
    found = os.pathsep.join([str(Path(fastpool.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "digits.py"), "--threads", "1", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": found},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def accuracies(output):
    rows = [line.split() for line in output.splitlines() if line.split()[:1] and line.split()[0] in POOLINGS]
    return {row[0]: float(row[1].rstrip("%")) / 100 for row in rows if row[1].endswith("%")}


def write_idx(folder, name, array, compressed):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    if compressed:
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    else:
        (folder / name).write_bytes(data)


def write_mnist(folder, train, test):
    """Every image shows a bar whose height says the digit: learnable in a moment."""
    generator = np.random.default_rng(0)
    for part, count, compressed in (("train", train, True), ("t10k", test, False)):
        labels = np.arange(count) % 10
        images = generator.integers(0, 30, (count, 28, 28))
        for image, label in zip(images, labels):
            image[27 - 2 * label - 3 :, 8:20] = 255
        write_idx(folder, f"{part}-images-idx3-ubyte", images, compressed)
        write_idx(folder, f"{part}-labels-idx1-ubyte", labels, compressed)


def test_readme_lines_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec("\n".join(blocks), names)
    assert names["y"].shape == (8, 64, 28, 28) and names["v"].shape == (2, 1344)
    assert names["model"](torch.randn(2, 3, 40, 24)).shape == (2, 10)


def test_readme_commands_are_run_by_the_workflow():
    commands = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    jobs = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    run = re.findall(r"^ *- run: (.*)$", jobs, re.MULTILINE)
    assert commands and all(line in run for block in commands for line in block.splitlines()), commands


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_short_run_on_scikit_digits(tmp_path):
    run = demo("--seeds", 1, "--epochs", 1, "--poolings", *POOLINGS, "--out", tmp_path / "folder")
    assert run.returncode == 0, run.stderr
    found = accuracies(run.stdout)
    assert list(found) == POOLINGS
    # One epoch is far from trained; chance is 0.1.
    assert all(accuracy > 0.5 for accuracy in found.values()), run.stdout
    assert "alpha" in run.stdout and "16x16" in run.stdout
    # One seed has no spread, and says nothing about few images.
    assert "±" not in run.stdout and "200 images" not in run.stdout
    for name in ("digits.png", "digits-curves.png"):
        assert (tmp_path / "folder" / name).read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_results(tmp_path):
    def results(seed):
        run = demo("--seeds", 2, "--epochs", 1, "--poolings", "stochastic", "--seed", seed, "--out", tmp_path)
        assert run.returncode == 0, run.stderr
        runs = json.loads((tmp_path / "digits.json").read_text())["results"]["runs"]["stochastic"]
        for one in runs:
            del one["seconds"]
        return runs, [(tmp_path / name).read_bytes() for name in ("digits.png", "digits-curves.png")]

    first = results(5)
    assert results(5) == first
    # Seeds are 5 and 6, then 6 and 7; what differs otherwise is how the test's images are distorted.
    other, _ = results(6)
    assert other[0]["curve"] == first[0][1]["curve"] != first[0][0]["curve"]


def test_mnist_files_plain_and_compressed(tmp_path):
    write_mnist(tmp_path, 640, 100)
    out = ("--out", tmp_path / "out")
    run = demo("--mnist", tmp_path, "--epochs", 4, "--seeds", 1, "--poolings", "max", *out)
    assert run.returncode == 0, run.stderr
    assert "28x28: 640 to train on, 100 held out" in run.stdout
    assert accuracies(run.stdout)["max"] > 0.5, run.stdout


@pytest.mark.parametrize("name", ["max", "average", "mixed", "gated", "soft", "lse", "gem", "pyramid"])
def test_compositions_compute_the_same(digits, name):
    """What the demo times side by side: results and gradients, of inputs and parameters."""
    pooling = digits.POOLINGS[name]
    for ours, theirs in zip((pooling.first(), pooling.second()), (make() for make in pooling.composed)):
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.data.copy_(parameter.data.view_as(other))
        torch.manual_seed(0)
        x = torch.randn(2, 3, 8, 8).relu().add(0.01).requires_grad_()
        results = []
        for layer in (ours, theirs):
            y = layer(x)
            gradient = torch.linspace(-1, 1, y.numel()).view_as(y)
            results.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], gradient)])
        for own, other in zip(*results, strict=True):
            torch.testing.assert_close(own, other.view_as(own), rtol=1e-4, atol=1e-5)


def test_digits_are_split_once_and_standardized(data):
    digits = data.scikit_digits()
    (images, labels), (test_images, test_labels) = digits
    assert images.shape == (1347, 1, 8, 8) and test_images.shape == (450, 1, 8, 8)
    assert abs(images.mean()) < 1e-5 and abs(images.std() - 1) < 1e-5
    # Stratified: a quarter of every digit.
    counts = torch.bincount(labels), torch.bincount(test_labels)
    assert ((counts[1] - (counts[0] + counts[1]) / 4).abs() <= 1).all()
    held_out = {image.numpy().tobytes() for image in test_images}
    assert not held_out & {image.numpy().tobytes() for image in images}
    assert all(torch.equal(a, b) for a, b in zip(digits.test, data.scikit_digits().test))


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_idx_content(data, tmp_path, compressed):
    array = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    write_idx(tmp_path, "t10k-images-idx3-ubyte", array, compressed)
    assert torch.equal(data.read_idx(tmp_path, "t10k-images-idx3-ubyte"), torch.from_numpy(array).byte())


def test_missing_and_broken_files_are_named(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(b"\x00\x00\x0d\x01\x00\x00\x00\x02ab")
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.* 00 00 0d 01"):
        data.read_idx(tmp_path, path.name)
    path.write_bytes(b"\x00\x00\x08\x01\x00\x00\x00\x03ab")
    with pytest.raises(ValueError, match="10 bytes"):
        data.read_idx(tmp_path, path.name)
