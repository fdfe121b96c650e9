"""The layers that are measured: pooling layers of real networks, windows of image processing, and the yardsticks of the
speed targets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """`arguments` are torch.nn.functional's, one int for every axis; `wide`: in all dtypes by default."""

    shape: tuple[int, ...]
    windowing: str
    arguments: dict = field(default_factory=dict)
    wide: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape) - 2

    @property
    def levels(self) -> tuple[int, ...]:
        """Bins per axis of each level of a windowing made of bins."""
        if self.windowing == "pyramid":
            return self.arguments["levels"]
        return (self.arguments.get("output_size", 1),)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Outputs along each axis of a sliding window: torch's rule."""
        kernel_size, stride, padding = (self.arguments[name] for name in ("kernel_size", "stride", "padding"))
        sizes = []
        for length in self.shape[2:]:
            room = length + 2 * padding - kernel_size
            size = (-(-room // stride) if self.arguments["ceil_mode"] else room // stride) + 1
            # A window may not start in the right padding.
            sizes.append(size - 1 if (size - 1) * stride >= length + padding else size)
        return tuple(sizes)

    @property
    def outputs(self) -> int:
        """Windows in the whole layer, all samples and channels."""
        if self.windowing == "sliding":
            windows = math.prod(self.output_size)
        elif self.windowing == "sppf":
            windows = self.arguments["repeats"] * math.prod(self.shape[2:])
        else:
            windows = sum(level**self.rank for level in self.levels)
        return self.shape[0] * self.shape[1] * windows

    @property
    def taps(self) -> int:
        """Elements of the largest window."""
        if self.windowing in ("sliding", "sppf"):
            return self.arguments["kernel_size"] ** self.rank
        sizes = (math.prod(max(b - a for a, b in bins(level, n)) for n in self.shape[2:]) for level in self.levels)
        return max(sizes)


def bins(count: int, length: int) -> list[tuple[int, int]]:
    """Bounds of adaptive bins along one axis."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def sliding(shape, kernel_size, stride=None, padding=0, ceil_mode=False, **flags) -> Layer:
    stride = kernel_size if stride is None else stride
    geometry = dict(kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
    return Layer(shape, "sliding", geometry, **flags)


def adaptive(shape, output_size, **flags) -> Layer:
    return Layer(shape, "adaptive", {"output_size": output_size}, **flags)


def global_(shape, **flags) -> Layer:
    return Layer(shape, "global", **flags)


def pyramid(shape, levels, **flags) -> Layer:
    return Layer(shape, "pyramid", {"levels": levels}, **flags)


def sppf(shape, kernel_size, repeats, **flags) -> Layer:
    return Layer(shape, "sppf", {"kernel_size": kernel_size, "repeats": repeats}, **flags)


# What a reader asks for first.
FIRST = (
    "large",
    "resnet50-stem",
    "yardstick",
    "yardstick-global",
    "yardstick-pyramid",
    "resnet50-head",
    "googlenet-head",
)
FIRST += ("published-2x2", "published-global", "published-adaptive")

LAYERS: dict[str, Layer] = {
    "yardstick": sliding((32, 64, 112, 112), 2, wide=True),
    "yardstick-pyramid": pyramid((32, 64, 112, 112), (4, 2, 1), wide=True),
    "yardstick-global": global_((32, 64, 112, 112), wide=True),
    "yardstick-adaptive": adaptive((32, 64, 112, 112), 7),
    "large": sliding((64, 128, 112, 112), 2),
    "published-2x2": sliding((16, 128, 56, 56), 2),
    "published-global": global_((8, 2048, 7, 7)),
    "published-adaptive": adaptive((2, 128, 56, 56), 6),
    "tiny": sliding((1, 64, 14, 14), 2),
    "alexnet-pool1": sliding((32, 96, 55, 55), 3, 2),
    "alexnet-pool2": sliding((32, 256, 27, 27), 3, 2),
    "alexnet-pool5": sliding((32, 256, 13, 13), 3, 2),
    "vgg16-pool1": sliding((8, 64, 224, 224), 2),
    "vgg16-pool2": sliding((8, 128, 112, 112), 2),
    "vgg16-pool3": sliding((8, 256, 56, 56), 2),
    "vgg16-pool4": sliding((8, 512, 28, 28), 2),
    "vgg16-pool5": sliding((8, 512, 14, 14), 2),
    "resnet50-stem": sliding((32, 64, 112, 112), 3, 2, 1),
    "resnet50d-shortcut": sliding((32, 512, 28, 28), 2, ceil_mode=True),
    "resnet50-head": global_((32, 2048, 7, 7)),
    "googlenet-pool1": sliding((32, 64, 112, 112), 3, 2, ceil_mode=True),
    "googlenet-pool2": sliding((32, 192, 56, 56), 3, 2, ceil_mode=True),
    "googlenet-inception3a": sliding((32, 192, 28, 28), 3, 1, 1),
    "googlenet-pool4": sliding((32, 832, 14, 14), 3, 2, ceil_mode=True),
    "googlenet-auxiliary": sliding((32, 512, 14, 14), 5, 3),
    "googlenet-head": global_((32, 1024, 7, 7)),
    "sppnet-conv5": pyramid((32, 256, 13, 13), (6, 3, 2, 1)),
    "sppnet-conv5-180": pyramid((32, 256, 10, 10), (4, 3, 2, 1)),
    "pspnet-bin6": adaptive((2, 2048, 60, 60), 6),
    "yolov5s-sppf": sppf((16, 256, 20, 20), 5, 3),
    "sppf-20": sppf((8, 256, 20, 20), 5, 3),
    "sppf-40": sppf((8, 128, 40, 40), 5, 3),
    "superpoint-peaks": sliding((4, 1, 480, 640), 9, 1, 4),
    "dilation-21": sliding((1, 3, 1024, 1024), 21, 1, 10),
    "dilation3d-3": sliding((8, 1, 96, 96, 96), 3, 1, 1),
    "dilation3d-5": sliding((8, 1, 96, 96, 96), 5, 1, 2),
    "planes-14": sliding((64, 512, 14, 14), 2),
    "planes-14-pyramid": pyramid((64, 512, 14, 14), (4, 2, 1)),
    "planes-28": sliding((32, 256, 28, 28), 2),
    "planes-28-pyramid": pyramid((32, 256, 28, 28), (4, 2, 1)),
    "unet-down1": sliding((4, 64, 256, 256), 2),
    "unet-down2": sliding((4, 128, 128, 128), 2),
    "unet-down4": sliding((4, 512, 32, 32), 2),
    "unet3d-down1": sliding((1, 32, 96, 96, 96), 2),
    "m5-audio-pool1": sliding((32, 128, 8000), 4),
}
