"""Handwritten digits: scikit-learn's 1,797 real ones, or MNIST's IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Digits(NamedTuple):
    """Images (N, 1, side, side) with the training images' mean 0 and deviation 1, and labels 0-9."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def scikit_digits() -> Digits:
    """8x8 images; a quarter of every digit, chosen once and for all, is held out for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.reshape(-1, 8, 8), labels, test_size=0.25, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, split)
    return standardized((train_images, train_labels), (test_images, test_labels))


def mnist(folder: Path) -> Digits:
    """28x28 images and MNIST's own test set, from the four files as published, compressed or not."""
    parts = [
        tuple(read_idx(folder, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        for part in ("train", "t10k")
    ]
    for images, labels in parts:
        if len(images) != len(labels):
            raise ValueError(f"{folder} has {len(images)} images for {len(labels)} labels")
    return standardized(*parts)


def read_idx(folder: Path, name: str) -> Tensor:
    """IDX: two zero bytes, type (8 = unsigned byte), number of axes, each length as big-endian int32, the data."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            break
    else:
        raise FileNotFoundError(f"neither {name} nor {name}.gz is in {folder}")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = int(name[name.index("idx") + 3])
    if data[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"{path} is no IDX file of unsigned bytes with {axes} axes: it begins with {data[:4].hex(' ')}"
        )
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    if len(data) != 4 + 4 * axes + shape.prod():
        raise ValueError(f"{path} has {len(data)} bytes, which do not fit its shape {tuple(map(int, shape))}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())


def standardized(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Digits:
    pixels = train[0].float()
    mean, deviation = pixels.mean(), pixels.std()
    return Digits(*(((x.float().unsqueeze(1) - mean) / deviation, y.long()) for x, y in (train, test)))


def as_ink(digits: Digits) -> Digits:
    """The same, from 0, the darkest, to 1, the lightest of the training images."""
    darkest, lightest = digits.train[0].min(), digits.train[0].max()
    return Digits(*(((x - darkest) / (lightest - darkest), y) for x, y in digits))


def jittered(images: Tensor, strength: float = 1.0) -> Tensor:
    """Each image turned by up to 11 degrees, scaled by up to 10 % and moved by up to 8 % of its side.

    `strength` multiplies all three.
    """

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(len(images)) - 1) * limit * strength

    angle, scale = uniform(0.2), 1 + uniform(0.1)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cosine, -sine, uniform(0.16)], 1), torch.stack([sine, cosine, uniform(0.16)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def resized(images: Tensor, side: int) -> Tensor:
    return images if images.shape[-1] == side else F.interpolate(images, (side, side), mode="bilinear")
