"""The inputs that every pooling is tested on: a geometry, the values in it and the memory layout."""

import zlib
from dataclasses import dataclass, field

import numpy as np
import reference
import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)


def some_dtypes(case):
    """float32, float64 and one half type, this one in half of the cases: for tests that compare by tolerance."""
    return HALF[len(str(case)) % 2], torch.float32, torch.float64


def sprinkle(values, rng, share, *specials):
    return np.where(rng.random(values.shape) < share, rng.choice(specials, values.shape), values)


def integers(rng, shape):
    return rng.integers(-4, 5, shape).astype(float)


def mixture(rng, shape, *specials):
    """Normal and tiny values, ties, zeros of both signs, and the given ones: of each as many as it happens."""
    values = sprinkle(rng.normal(size=shape), rng, rng.random(), 0.0, -0.0, 1.0, -1.0, 6e-8, -3e-40)
    return sprinkle(values, rng, rng.choice([0.02, 0.3]), *specials)


PATTERNS = {
    "integers": integers,
    "random": lambda rng, shape: rng.normal(size=shape),
    "positive": lambda rng, shape: np.abs(rng.normal(size=shape)) + 0.1,
    "negative": lambda rng, shape: -np.abs(rng.normal(size=shape)) - 0.1,
    "equal": lambda rng, shape: np.full(shape, 3.0),
    "zeros": lambda rng, shape: np.zeros(shape),
    "signed zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "few signed zeros": lambda rng, shape: rng.choice([-1.0, -2.0, -3.0, 0.0, -0.0], shape),
    "nan": lambda rng, shape: sprinkle(integers(rng, shape), rng, 0.1, np.nan),
    "nans": lambda rng, shape: sprinkle(integers(rng, shape), rng, 0.6, np.nan),
    "inf": lambda rng, shape: sprinkle(integers(rng, shape), rng, 0.15, np.inf, -np.inf),
    "-inf": lambda rng, shape: sprinkle(integers(rng, shape), rng, 0.9, -np.inf),
    "only -inf": lambda rng, shape: np.full(shape, -np.inf),
    "nan and inf": lambda rng, shape: sprinkle(integers(rng, shape), rng, 0.3, np.nan, np.inf, -np.inf),
    "far apart": lambda rng, shape: rng.normal(size=shape) * 300,  # exp of most differences is 0
    "subnormal": lambda rng, shape: rng.integers(-4, 5, shape) * 6e-8 * 2.0**-103,
    "subnormal float16": lambda rng, shape: rng.integers(-4, 5, shape) * 2.0**-24,
    "subnormal float64": lambda rng, shape: rng.integers(-4, 5, shape) * 2.0**-1070,
    "huge float16": lambda rng, shape: rng.uniform(-65504, 65504, shape),
    "huge": lambda rng, shape: rng.uniform(-1, 1, shape) * 3.38e38,
    "huge float64": lambda rng, shape: rng.uniform(-1, 1, shape) * 1.79e308,
    "mixture": lambda rng, shape: mixture(rng, shape, np.nan, np.inf, -np.inf),
    "finite mixture": lambda rng, shape: mixture(rng, shape, 100.0, -7.0),
}


def contiguous(x):
    return x.clone(memory_format=torch.contiguous_format)


def channels_last_format(x):
    return {4: torch.channels_last, 5: torch.channels_last_3d}[x.ndim]


def channels_last(x):
    return x.clone(memory_format=channels_last_format(x))


def sliced(x):
    larger = x.new_full([n + 3 for n in x.shape], torch.nan)
    view = larger[tuple(slice(1, 1 + n) for n in x.shape)]
    view.copy_(x)
    return view


def every_second(x):
    larger = x.new_full([2 * n for n in x.shape], torch.nan)
    larger[(slice(None, None, 2),) * x.ndim] = x
    return larger[(slice(None, None, 2),) * x.ndim]


def offset(x):
    return torch.cat([x.new_full((3,), torch.nan), x.flatten()])[3:].view(x.shape)


def offset_channels_last(x):
    last = x.movedim(1, -1)
    return offset(last.contiguous()).movedim(-1, 1)


def some_channels_of_channels_last(x):
    more = torch.cat([x, torch.full_like(x, torch.nan)], dim=1)
    return channels_last(more)[:, : x.shape[1]]


def negated(x):
    """A view whose elements torch negates when it reads them."""
    return torch._neg_view(-x)


def overlapping(x):
    """Neighbours along different axes are the same element."""
    return x.flatten()[: sum(x.shape) - x.ndim + 1].as_strided(x.shape, (1,) * x.ndim) if x.numel() else x


# Each gives a tensor of the same shape; those of SHARING repeat some of the elements, all others keep the values.
LAYOUTS = {
    "contiguous": contiguous,
    "channels_last": channels_last,
    "sliced": sliced,
    "every second": every_second,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "permuted": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "first axis innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "reversed axes": lambda x: x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim))),
    "negated": negated,
    "expanded": lambda x: x[:1].expand(x.shape),
    "expanded second axis": lambda x: x[:, :1].expand(x.shape),
    "expanded last axis": lambda x: x[..., :1].expand(x.shape),
    "one element": lambda x: x.flatten()[:1].expand(x.shape) if x.numel() else x,
    "overlapping": overlapping,
    "offset": offset,
    "offset channels_last": offset_channels_last,
    "channel slice of channels_last": some_channels_of_channels_last,
}
SHARING = {"expanded", "expanded second axis", "expanded last axis", "one element", "overlapping"}
NEEDS_4D = {"channels_last", "offset channels_last", "channel slice of channels_last"}


def is_channels_last(x):
    """Whether the output of x must be channels-last: as torch's, where a dense x is not contiguous as well."""
    if x.ndim not in (4, 5) or x.is_contiguous() or all(n == 1 for n in x.shape[2:]):
        return False
    return is_dense_channels_last(x) or torch._prims_common.suggest_memory_format(x) == channels_last_format(x)


def is_dense_channels_last(x):
    return x.ndim in (4, 5) and x.is_contiguous(memory_format=channels_last_format(x))


@dataclass(frozen=True)
class Case:
    name: str
    shape: tuple
    pattern: str
    geometry: dict = field(hash=False)
    layout: str = "contiguous"
    batched: bool = True

    def __str__(self):
        return self.name

    @property
    def rank(self):
        return len(self.shape) - (2 if self.batched else 1)

    @property
    def spatial(self):
        return self.shape[-self.rank :]

    def values(self, dtype):
        """-> the input, on which nothing was computed yet"""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        values = torch.from_numpy(PATTERNS[self.pattern](rng, self.shape)).to(dtype)
        return LAYOUTS[self.layout](values)

    def array(self, x):
        """-> x as the reference wants it: batched, float64"""
        values = x.detach().resolve_neg().to(torch.float64).numpy()
        return values if self.batched else values[None]

    def windows(self):
        """-> output size, windows"""
        if "output_size" in self.geometry:
            return reference.bin_windows(self.spatial, self.geometry["output_size"])
        return reference.sliding_windows(self.spatial, **self.geometry)

    def unflatten(self, y, output_size):
        """(N, C, P) -> the shape of the output"""
        y = y.reshape(*y.shape[:2], *output_size)
        return y if self.batched else y[0]


def sliding(name, shape, kernel_size, pattern="random", *, layout="contiguous", batched=True, **geometry):
    return Case(name, shape, pattern, {"kernel_size": kernel_size, **geometry}, layout, batched)


def adaptive(name, shape, output_size, pattern="random", *, layout="contiguous", batched=True):
    return Case(name, shape, pattern, {"output_size": output_size}, layout, batched)


SLIDING = [
    # values
    sliding("ties", (2, 3, 6, 7), 2, "integers"),
    sliding("ties overlapping", (2, 3, 7, 6), 3, "integers", stride=1, padding=1),
    sliding("ties 1d", (2, 3, 40), 3, "integers", stride=2),
    sliding("ties 3d", (2, 2, 5, 4, 6), 2, "integers"),
    sliding("all equal", (1, 2, 6, 6), 3, "equal", stride=1, padding=1),
    sliding("zeros", (1, 2, 6, 6), 2, "zeros"),
    sliding("signed zeros", (1, 3, 8, 40), 2, "signed zeros"),
    sliding("signed zeros overlapping", (1, 3, 8, 8), 3, "signed zeros", stride=1, padding=1),
    sliding("all negative", (2, 3, 8, 8), 2, "negative"),
    sliding("all negative clipped", (2, 3, 7, 7), 3, "negative", stride=2, padding=1),
    sliding("positive", (2, 3, 8, 8), 2, "positive"),
    sliding("nan", (2, 3, 9, 40), 3, "nan", stride=2, padding=1),
    sliding("nan 2x2", (2, 3, 8, 70), 2, "nan"),
    sliding("several nans", (2, 3, 8, 70), 2, "nans"),
    sliding("several nans overlapping", (2, 3, 9, 9), 3, "nans", stride=1, padding=1),
    sliding("several nans channels_last", (2, 33, 5, 5), 3, "nans", stride=2, layout="channels_last"),
    sliding("infinities", (2, 3, 8, 70), 2, "inf"),
    sliding("infinities overlapping", (2, 3, 9, 9), 3, "inf", stride=2, padding=1),
    sliding("windows of -inf", (2, 3, 8, 40), 2, "-inf"),
    sliding("infinities 2x2", (2, 3, 8, 72), 2, "nan and inf"),
    sliding("windows of -inf overlapping", (2, 3, 8, 8), 3, "-inf", stride=1, padding=1),
    sliding("only -inf clipped", (1, 2, 5, 5), 3, "only -inf", stride=2, padding=1),
    sliding("nan and infinities", (2, 17, 8, 8), 2, "nan and inf", layout="channels_last"),
    sliding("far apart", (2, 9, 7, 40), 3, "far apart", stride=2, padding=1),
    sliding("far apart channels_last", (2, 33, 7, 8), 3, "far apart", layout="channels_last"),
    sliding("subnormal", (1, 2, 8, 8), 2, "subnormal"),
    # sizes
    sliding("empty batch", (0, 3, 8, 8), 2),
    sliding("empty batch 1d", (0, 3, 8), 3, stride=1, padding=1),
    sliding("empty batch 3d", (0, 2, 4, 4, 4), 2),
    sliding("one element", (1, 1, 1), 1),
    sliding("one element 2d", (1, 1, 1, 1), 1),
    sliding("one element padded", (1, 1, 1, 1), 3, padding=1),
    sliding("one window", (2, 3, 4, 5), (4, 5)),
    sliding("odd sizes", (3, 5, 7, 11), (3, 2), stride=(2, 3), padding=(1, 0)),
    sliding("odd sizes 3d", (1, 3, 5, 7, 6), (2, 3, 1), stride=(1, 2, 3), padding=(0, 1, 0)),
    sliding("unbatched 1d", (3, 20), 3, stride=2, padding=1, batched=False),
    sliding("unbatched 2d", (3, 9, 10), 3, "integers", stride=2, padding=1, batched=False),
    sliding("unbatched 3d", (2, 4, 5, 6), 2, batched=False),
    sliding("single row", (1, 3, 1, 50), (1, 3), stride=(1, 2)),
    sliding("single column", (1, 3, 50, 1), (3, 1), stride=(2, 1)),
    sliding("one wide plane", (1, 1, 20, 200), 2, "integers"),
    sliding("very wide 1d", (1, 2, 5000), 2),
    sliding("very wide 1d overlapping", (1, 1, 2500), 5, "integers", stride=2, padding=2),
    sliding("big plane", (1, 2, 56, 57), 3, "integers", stride=2, padding=1),
    sliding("many small planes", (3, 64, 7, 7), 2, "integers"),
    # windows
    sliding("pointwise", (2, 3, 5, 6), 1),
    sliding("kernel 1 stride 2", (2, 3, 5, 6), 1, stride=2),
    sliding("overlapping", (2, 3, 9, 9), 3, stride=1),
    sliding("overlapping 5x5", (1, 3, 13, 40), 5, "integers", stride=1, padding=2),
    sliding("stride greater than kernel", (2, 3, 11, 40), 2, stride=(3, 4)),
    sliding("stride 3", (2, 3, 12, 50), 3, "integers", stride=3),
    sliding("stride 3 kernel 5", (2, 3, 14, 50), 5, stride=3, padding=2),
    sliding("clipped", (2, 3, 7, 9), 3, stride=2, padding=1),
    sliding("clipped 3d", (1, 2, 5, 5, 7), 3, "integers", stride=2, padding=1),
    sliding("dilated", (2, 3, 9, 40), 3, dilation=2),
    sliding("dilated and strided", (2, 3, 12, 40), 3, "integers", stride=2, dilation=2, padding=2),
    sliding("dilated 1d", (2, 3, 30), 4, stride=3, dilation=3, padding=5),
    sliding("dilated 3d", (1, 2, 7, 8, 9), 2, "integers", stride=1, dilation=(2, 3, 1)),
    sliding("dilated channels_last", (2, 17, 9, 9), 3, stride=1, dilation=2, padding=2, layout="channels_last"),
    sliding("ceil_mode", (2, 3, 8, 9), 3, stride=2, ceil_mode=True),
    sliding("ceil_mode clipped", (2, 3, 7, 10), 3, "integers", stride=2, padding=1, ceil_mode=True),
    sliding("ceil_mode of rows longer than a vector", (2, 3, 4, 67), 2, ceil_mode=True),
    sliding("ceil_mode drops a window", (2, 3, 5, 5), 2, stride=3, padding=1, ceil_mode=True),
    sliding("ceil_mode 1d", (2, 3, 11), 4, stride=3, padding=2, ceil_mode=True),
    sliding("ceil_mode 3d", (1, 2, 5, 6, 7), 3, stride=2, padding=1, ceil_mode=True),
    sliding("asymmetric 1d", (2, 3, 20), 3, stride=2, padding=((0, 1),)),
    sliding("asymmetric", (2, 3, 8, 9), 4, "integers", stride=3, padding=((2, 0), (0, 1))),
    sliding("asymmetric ceil_mode", (2, 3, 8, 9), 3, stride=2, padding=((0, 1), (1, 0)), ceil_mode=True),
    sliding("asymmetric 3d", (1, 2, 5, 6, 7), 3, stride=2, padding=((1, 0), (0, 1), (1, 1))),
    sliding("same", (2, 3, 8, 9), 3, stride=2, padding="same"),
    sliding("same stride 1", (2, 3, 6, 7), (4, 5), "integers", stride=1, padding="same"),
    sliding("same dilated", (2, 3, 9, 8), 3, stride=1, dilation=2, padding="same"),
    sliding("same 1d", (2, 3, 17), 5, stride=3, padding="same"),
    sliding("same with gaps", (2, 3, 8, 11), (1, 2), stride=(3, 4), padding="same"),
    sliding("same 3d", (1, 2, 5, 4, 7), 2, stride=(2, 1, 3), padding="same"),
    # channels-last lanes
    *(
        sliding(f"{c} channels_last channels", (2, c, 6, 5), 2, "integers", layout="channels_last")
        for c in (1, 3, 16, 17, 64, 70)
    ),
    sliding("70 channels_last clipped", (1, 70, 7, 7), 3, stride=2, padding=1, layout="channels_last"),
    sliding("130 channels_last ceil_mode", (1, 130, 5, 5), 3, stride=2, ceil_mode=True, layout="channels_last"),
    sliding("channels_last 3d", (1, 17, 4, 5, 6), 3, "integers", stride=2, padding=1, layout="channels_last"),
    sliding(
        "70 channels_last dilated",
        (1, 70, 9, 8),
        3,
        "integers",
        stride=2,
        dilation=2,
        padding=2,
        layout="channels_last",
    ),
    sliding("70 channels_last wide", (1, 70, 4, 22), 2, "integers", layout="channels_last"),
    sliding("33 channels_last wide 3x3", (1, 33, 5, 23), 3, stride=2, padding=1, layout="channels_last"),
    sliding("channels_last one pixel", (2, 5, 1, 1), 1, layout="channels_last"),
    sliding("70 channels_last apart", (1, 70, 8, 10), 3, "integers", stride=3, padding=1, layout="channels_last"),
    sliding("channels_last gaps", (2, 5, 9, 11), 2, "integers", stride=3, layout="channels_last"),
    sliding("several nans in slices", (2, 2, 3, 4, 16), (1, 2, 2), "nans"),
    # lanes of planes
    sliding("35 planes clipped", (1, 35, 9, 20), 3, stride=2, padding=1),
    sliding("35 planes with nan", (1, 35, 6, 40), 2, "nan"),
    sliding("9 tall planes", (1, 9, 601, 8), 2),
    sliding("9 tall planes clipped", (1, 9, 400, 9), 3, "nan", stride=2, padding=1),
    sliding("40 planes dilated 3d", (1, 40, 4, 5, 6), 2, "integers", stride=1, dilation=(1, 2, 1)),
    # contiguous lanes
    *(sliding(f"width {w} 2x2", (1, 2, 4, w), 2, "integers") for w in (15, 16, 17, 31, 33, 63, 65, 130)),
    *(
        sliding(f"width {w} 3x3 stride 2", (1, 2, 5, w), 3, stride=2, padding=1)
        for w in (15, 16, 17, 31, 33, 63, 65, 130)
    ),
    *(sliding(f"width {w} 3x3", (1, 1, 4, w), 3, "integers", stride=1, padding=1) for w in (16, 33, 65, 130)),
    *(sliding(f"width {w} 4 taps", (1, 3, w), 4, stride=4) for w in (63, 200, 301)),
    # rows whose accesses a device can align
    *(
        sliding(f"aligned rows 3x3 stride {stride}, {pattern}", (2, 3, 8, 16), 3, pattern, stride=stride, padding=1)
        for stride in (1, 2)
        for pattern in ("integers", "random", "nans", "inf", "-inf", "signed zeros", "negative", "far apart")
    ),
    sliding("aligned rows 3x3, odd height", (1, 2, 5, 24), 3, "integers", stride=1, padding=1),
    sliding("aligned rows 3x3, one row", (2, 3, 1, 8), 3, stride=1, padding=1),
    sliding("gaps", (2, 3, 9, 70), (2, 1), "integers", stride=(3, 2)),
    sliding("stride 2000", (1, 3, 9000), 3, stride=2000, padding=1),
    sliding("gaps stride 4", (2, 3, 9, 70), (2, 3), "integers", stride=(3, 4)),
    sliding("apart 3d", (1, 2, 5, 6, 40), 2, "integers", stride=(2, 3, 2)),
    sliding("gaps of 28", (2, 9, 4, 200), 2, "integers", stride=(2, 30)),
    sliding("width 301 6 taps stride 4 clipped", (1, 3, 301), 6, stride=4, padding=3),
    sliding("short rows 3d", (1, 2, 4, 9, 24), 2, "integers"),
    sliding("short rows clipped above and below", (2, 3, 16, 6), 2, "integers", padding=(1, 0)),
    sliding("short rows clipped", (2, 3, 12, 13), 3, "nan", stride=1, padding=1),
    # huge windows: 256 taps fit a byte and one running sum
    *(sliding(f"{k} taps", (2, 2, k + 7), k, "integers", stride=5) for k in (255, 256, 257, 300, 1024)),
    *(
        sliding(f"{k} random taps", (1, 3, k + 7), k, "positive", stride=3, layout="sliced")
        for k in (255, 256, 257, 1024)
    ),
    sliding("aligned windows of odd rows", (1, 2, 20, 70), (20, 16), "integers"),
    sliding("one clipped window of a plane's size", (2, 4, 3, 3), 3, "integers", stride=5, padding=1),
    sliding("rows of slices apart", (1, 2, 40, 1, 16), (40, 1, 8), "integers"),
    sliding("one window a row", (1, 2, 5, 2), (1, 2), stride=1),
    sliding("folded", (2, 8, 19, 37), (5, 6), "integers", padding=(2, 3)),
    sliding("folded, larger", (1, 40, 20, 120), (4, 30), "nans"),
    sliding("folded 3d", (1, 8, 6, 8, 33), (4, 5, 3), "integers", padding=(2, 2, 1)),
    sliding("folded dilated", (1, 9, 19, 40), (3, 2), "integers", stride=(5, 4), dilation=(2, 3)),
    sliding("folded dilated clipped", (1, 9, 19, 40), 3, "integers", stride=7, dilation=3, padding=2),
    sliding("interleaved windows clipped", (1, 8, 64, 20), 3, stride=1, padding=3, dilation=4),
    sliding("interleaved windows far apart", (1, 8, 2000), 3, "integers", stride=200, padding=150, dilation=300),
    sliding("one plane", (1, 1, 370, 371), 3, "integers", stride=2, padding=1),
    sliding("one sample channels_last", (1, 3, 210, 211), 3, "integers", stride=2, padding=1, layout="channels_last"),
    sliding("16x16 taps clipped", (1, 2, 20, 21), 16, stride=4, padding=8),
    sliding("17x17 taps clipped", (1, 2, 20, 21), 17, "positive", stride=4, padding=8),
    sliding("300 taps clipped, 40 planes", (1, 40, 310), 300, stride=3, padding=140),
    sliding("2x150 taps clipped to a row, 40 planes", (1, 40, 3, 160), (2, 150), stride=(2, 3), padding=(1, 0)),
    sliding("65x65 taps clipped", (1, 2, 67, 70), 65, "positive", stride=4, padding=3),
    sliding("300 taps channels_last", (1, 17, 20, 16), (20, 15), "integers", stride=1, layout="channels_last"),
    sliding("7x7x7 taps", (1, 2, 8, 9, 8), 7, "positive", stride=1),
    sliding("300 taps with nan", (1, 4, 400), 300, "nan", stride=50),
    sliding("300 taps with infinities", (1, 4, 400), 300, "inf", stride=50),
    sliding("300 taps of -inf", (1, 2, 310), 300, "only -inf", stride=5),
    sliding("300 negative taps", (1, 2, 310), 300, "negative", stride=5),
    # of which nothing is drawn, a code of its own; in clipped windows no element is the first
    *(sliding(f"{k} negative taps clipped", (2, 2, k + 7), k, "negative", stride=5, padding=9) for k in (255, 256)),
    sliding("255 negative taps channels_last", (1, 9, 16, 18), (15, 17), "negative", stride=1, layout="channels_last"),
    # windows that overlap much: maxima and minima of their rows, columns and slices one after another
    *(
        sliding(f"5x5 stride 1, {pattern}, {layout}", (2, 3, 7, 12), 5, pattern, stride=1, padding=2, layout=layout)
        for pattern in ("integers", "nans", "-inf", "only -inf", "nan and inf", "signed zeros")
        for layout in ("contiguous", "channels_last")
    ),
    sliding("12 taps stride 1", (2, 9, 50), 12, "integers", stride=1, padding=(6,)),
    sliding("4x3x5 stride 1", (1, 2, 7, 6, 9), (4, 3, 5), "integers", stride=1, padding=(2, 1, 2)),
    sliding("4x3x5 channels_last", (1, 17, 5, 6, 9), (4, 3, 5), "nans", stride=1, padding=1, layout="channels_last"),
    sliding("9x1 stride 1", (1, 3, 30, 12), (12, 1), "integers", stride=1, padding=(6, 0)),
    sliding("9x8 strided, ceil_mode", (1, 3, 17, 34), (9, 8), "nans", stride=(2, 3), padding=(4, 1), ceil_mode=True),
    sliding("larger than the input, stride 1", (1, 3, 9, 11), 13, "integers", stride=1, padding=6),
    sliding("70 channels_last 6x7 strided", (1, 70, 9, 12), (6, 7), "integers", stride=(1, 2), layout="channels_last"),
    # layouts
    *(
        sliding(f"layout {layout}", (3, 4, 6, 9), 3, stride=2, padding=1, layout=layout)
        for layout in LAYOUTS
        if layout != "contiguous"
    ),
    sliding("layout transposed 1d", (3, 4, 20), 3, stride=2, layout="transposed"),
    sliding("layout transposed 3d", (2, 3, 4, 5, 6), 2, layout="transposed"),
    # its channels are neighbours, but without a batch axis no result is channels-last
    sliding("layout unbatched", (3, 7, 9), 3, stride=2, layout="first axis innermost", batched=False),
    sliding("layout unbatched sliced", (3, 7, 9), 3, stride=2, layout="sliced", batched=False),
]

ADAPTIVE = [
    adaptive("adaptive dividing", (2, 3, 8, 12), (4, 3), "integers"),
    adaptive("adaptive overlapping", (2, 3, 7, 10), (3, 4)),
    adaptive("adaptive 1d", (2, 3, 29), 7),
    adaptive("adaptive 3d", (1, 2, 5, 7, 6), (2, 3, 4)),
    adaptive("adaptive None", (2, 3, 7, 9), (None, 2)),
    adaptive("adaptive int", (2, 3, 7, 9), 3, "integers"),
    adaptive("adaptive larger than the input", (1, 2, 3, 4), (5, 6), "integers"),
    adaptive("adaptive identity", (1, 2, 5, 6), (5, 6)),
    adaptive("adaptive one", (2, 3, 5, 6), 1),
    adaptive("adaptive nan", (2, 3, 9, 11), 4, "nan"),
    adaptive("adaptive several nans", (2, 3, 9, 11), 4, "nans"),
    adaptive("adaptive infinities", (2, 3, 9, 11), 4, "inf"),
    adaptive("adaptive windows of -inf", (2, 3, 9, 11), 4, "-inf"),
    adaptive("adaptive negative", (2, 3, 9, 11), 4, "negative"),
    adaptive("adaptive signed zeros", (2, 3, 9, 11), 4, "signed zeros"),
    adaptive("adaptive empty batch", (0, 3, 9, 11), 4),
    adaptive("adaptive unbatched", (3, 9, 11), 4, batched=False),
    adaptive("adaptive unbatched 1d", (3, 21), 4, batched=False),
    adaptive("adaptive channels_last", (2, 17, 7, 7), (2, 3), layout="channels_last"),
    adaptive("adaptive channels_last 70", (2, 70, 7, 7), 3, "integers", layout="channels_last"),
    adaptive("adaptive channels_last 3d", (1, 5, 4, 5, 6), 2, layout="channels_last"),
    adaptive("adaptive channels_last large", (1, 70, 40, 30), 2, "integers", layout="channels_last"),
    adaptive("adaptive 35 planes", (1, 35, 11, 18), (4, 5)),
    adaptive("adaptive 35 larger planes", (1, 35, 33, 40), (7, 9), "integers"),
    adaptive("adaptive sliced", (2, 3, 9, 40), (2, 33), layout="sliced"),
    # rows long enough to be folded first: all poolings' in high bins, some poolings' in low ones
    *(
        adaptive(f"adaptive folded, {height}, {pattern}", (1, 9, height, 35), (3, 5), pattern)
        for height in (10, 37)
        for pattern in ("random", "integers", "nan", "nans", "inf", "-inf", "only -inf", "signed zeros")
    ),
    adaptive("adaptive folded in rounds", (1, 33, 33, 150), (10, 3), "integers"),
    adaptive("adaptive folded 3d", (1, 33, 4, 10, 40), (2, 3, 4), "integers"),
    adaptive("adaptive 256 taps", (1, 2, 32, 32), 2),
    # 256, 272 taps: both summing orders
    adaptive("adaptive mixed bin sizes", (1, 2, 47, 31), (3, 2), "positive"),
    adaptive("adaptive mixed bin sizes channels_last", (1, 17, 47, 31), (3, 2), "positive", layout="channels_last"),
    adaptive("adaptive 256 and 257 taps", (2, 9, 767), 3, "positive"),
    adaptive("adaptive 1024 taps", (1, 2, 64, 64), 2, "integers"),
    adaptive("adaptive aligned columns 3d", (1, 2, 4, 4, 32), (2, 1, 2), "integers"),
    adaptive("adaptive aligned 3d", (1, 2, 8, 16, 32), 2, "nans"),
    adaptive("adaptive aligned rows of packs", (1, 3, 40, 128), (2, 2), "integers"),
    adaptive("adaptive 5040 taps", (1, 2, 90, 111), (1, 2), "integers"),
    adaptive("adaptive wide", (1, 2, 1000), 70, "integers"),
]

GLOBAL = [
    adaptive("global 7x7", (2, 70, 7, 7), 1, "integers"),
    adaptive("global 7x7 peaks", (2, 170, 7, 7), 1),
    adaptive("global 7x7 nan", (2, 70, 7, 7), 1, "nan"),
    adaptive("global 7x7 channels_last", (2, 70, 7, 7), 1, layout="channels_last"),
    adaptive("global 20x40 channels_last", (1, 70, 20, 40), 1, "integers", layout="channels_last"),
    adaptive("global 1d", (2, 3, 100), 1),
    adaptive("global 3d", (2, 3, 4, 5, 6), 1),
    adaptive("global 56x56", (1, 2, 56, 56), 1, "integers"),
    adaptive("global 300x300", (1, 4, 300, 300), 1, "positive"),
    adaptive("global 4x15 planes", (2, 8, 15, 15), 1, "nans"),
    adaptive("global 16 channels_last 3d", (2, 16, 3, 5, 4), 1, "integers", layout="channels_last"),
    adaptive("global 17x17", (2, 9, 17, 17), 1, "integers"),
    adaptive("global 33x35 nans", (1, 8, 33, 35), 1, "nans"),
    adaptive("global nan", (2, 3, 6, 6), 1, "nan"),
    adaptive("global -inf", (2, 3, 6, 6), 1, "only -inf"),
    adaptive("global infinities", (2, 8, 3, 3), 1, "inf"),
    adaptive("global empty batch", (0, 3, 4, 4), 1),
    adaptive("global one element", (2, 3, 1), 1),
    adaptive("global sliced", (2, 3, 9, 9), 1, layout="sliced"),
]

ALL = SLIDING + ADAPTIVE + GLOBAL
