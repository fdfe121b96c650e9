"""Random calls of the public functions: what `fuzz.py` tries. Trial i of seed s is the same on every machine."""

import math
import random
import re
from dataclasses import dataclass, field, replace

import cases
import numpy as np
import reference
import torch

import fastpool._kinds as kinds
import fastpool.functional as F

NAME = re.compile(r"(?:(adaptive|global)_)?(\w+?)_pool([123]d)?")
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130, 200, 301, 513)  # around widths of vectors
CHANNELS = (1, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 130, 200)
MOST_EXTENT = 2**40  # of a window


@dataclass(frozen=True)
class Trial:
    """One call: the function, its input, its arguments, and how the gradient is asked for."""

    seed: int
    number: int
    function: str
    form: str  # sliding, adaptive, global or pyramid
    kind: str
    case: cases.Case  # of a pyramid or a global pooling with the arguments of that
    dtype: torch.dtype
    options: dict = field(default_factory=dict)  # the kind's own arguments
    sizes: tuple = ()  # of the tensors of a list
    as_lists: bool = False  # sequences of ints are given as lists
    records: bool = True  # whether a gradient is wanted
    draw_seed: str = "int"  # how the seed is given
    parameter_shape: str | None = None
    parameters_learned: bool = False
    gradient: str = "whole"  # its values
    gradient_layout: str = "contiguous"
    left_out: int | None = None  # the output that gets no gradient
    size: str = "small"

    def __str__(self):
        geometry = ", ".join(f"{name}={value!r}" for name, value in self.case.geometry.items())
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        shape = list(self.sizes) if self.sizes else self.case.shape
        return (
            f"{self.function}(<{shape} {self.dtype} {self.case.layout!r} {self.case.pattern!r}>, {geometry}; {options}"
            f"{f'; parameters {self.parameter_shape}' if self.parameter_shape else ''}"
            f"{f'; gradient {self.gradient}, {self.gradient_layout!r}' if self.records else ''})"
        )

    def row(self):
        """The same input as a row of tests/cases.py, where that table has the form."""
        if self.form not in ("sliding", "adaptive"):
            return None
        geometry = dict(self.case.geometry)
        first = geometry.pop("kernel_size" if self.form == "sliding" else "output_size")
        more = "".join(f", {name}={value!r}" for name, value in geometry.items())
        layout = "" if self.case.layout == "contiguous" else f", layout={self.case.layout!r}"
        batched = "" if self.case.batched else ", batched=False"
        name, pattern = f"fuzz {self.seed}:{self.number}", self.case.pattern
        return (
            f"{self.form}({name!r}, {self.case.shape}, {first!r}, {pattern!r}{layout}{batched}{more}),  # {self.dtype}"
        )

    def generator(self, what):
        """-> random numbers for one purpose"""
        return np.random.default_rng((self.seed, self.number, sum(what.encode())))

    def inputs(self):
        """-> the tensor, or those of the list"""
        if not self.sizes:
            return [self.case.values(self.dtype)]
        items = [replace(self.case, name=f"{self.case.name} {i}", shape=size) for i, size in enumerate(self.sizes)]
        return [item.values(self.dtype) for item in items]

    def arguments(self):
        """-> the arguments of the call but for the input"""
        geometry = self.case.geometry
        if self.as_lists:
            geometry = {name: as_list(value) for name, value in geometry.items()}
        return {**geometry, **self.options}

    def parameters(self, output_shape, channels):
        """-> those that are tensors, by name"""
        if self.parameter_shape is None:
            return {}
        each, *own_dtype = self.parameter_shape.split(", ")
        wide = self.dtype == torch.float64 or own_dtype
        dtype, rng = self.dtype if wide else torch.float32, self.generator("alpha")
        per_channel = () if each == "scalar" else (channels,)

        def tensor(values):
            return torch.from_numpy(np.asarray(values)).to(dtype)

        if self.kind in FILTERS:
            kernel = reference.per_axis(self.case.geometry["kernel_size"], self.case.rank)
            count, scale = rng.choice([2, 4]), rng.choice([0.1, 1, 8]) / math.sqrt(math.prod(kernel))
            counts = {"leaves": (count,), "gates": (count - 1,), "weight": ()}
            found = {name: rng.normal(0, scale, (*counts[name], *per_channel, *kernel)) for name in FILTERS[self.kind]}
            if self.kind == "gated" and rng.random() < 0.7:
                found["bias"] = rng.normal(size=per_channel)
            return {name: tensor(values) for name, values in found.items()}
        name = kinds.POOLINGS[self.kind].arguments[0].name
        if name != "alpha":
            numbers = [n for n in (*NUMBERS[name], *OF_TENSORS.get(name, ())) if abs(n) < torch.finfo(dtype).max]
            return {name: tensor(rng.choice(np.array(numbers, float), per_channel))}
        shape = [n if rng.random() < 0.6 else 1 for n in output_shape] if each == "region" else per_channel
        alpha = tensor(rng.normal(0.5, 0.5, shape))
        if alpha.ndim > 1 and rng.random() < 0.4:
            alpha = alpha.transpose(0, -1).contiguous().transpose(0, -1)
        return {name: alpha}


def as_list(value):
    return [as_list(entry) for entry in value] if isinstance(value, tuple) else value


def form_and_kind(function):
    """-> form, kind, rank (None for global pooling) of a public name; fails for one that nothing here makes calls of"""
    if function.startswith("spatial_pyramid_pool"):
        return "pyramid", None, int(function[-2])
    prefix, kind, rank = NAME.fullmatch(function).groups()
    if kind not in OWN_ARGUMENTS:
        raise KeyError(f"no random calls of {function}: give its kind a row in OWN_ARGUMENTS of fuzz_trials.py")
    return prefix or "sliding", kind, int(rank[0]) if rank else None


# Random geometry.


def random_shape(choose, rank, elements):
    """-> (N, C, *spatial) of about so many elements"""
    channels = choose.choice([c for c in CHANNELS if c <= max(elements // 4, 1)])
    batch = 0 if choose.random() < 0.02 else choose.choice([1, 1, 2, 2, 3, 5])
    left, style = max(elements // (channels * max(batch, 1)), 2), choose.random()
    if style < 0.4 or left > 20_000:
        side = left ** (1 / rank)
        return (batch, channels, *(max(round(side * choose.uniform(0.5, 1.4)), 1) for _ in range(rank)))
    spatial = []
    for axis in range(rank):
        fitting = [n for n in LENGTHS if n <= left] or [1]
        spatial.append(choose.choice(fitting[-6:] if axis == 0 or choose.random() < 0.3 else fitting[:9]))
        left = max(left // spatial[-1], 1)
    # The longest axis last, in most cases.
    return (batch, channels, *(reversed(spatial) if choose.random() < 0.7 else spatial))


def shape_of_many_taps(choose, rank):
    """-> a shape with room for windows of more than 256 taps, the kernel"""
    least = {1: 240, 2: 15, 3: 6}[rank]
    spatial = [choose.randint(least, 2 * least) for _ in range(rank)]
    kernel = [choose.randint(max(least, n - least // 2), n) for n in spatial]
    return (choose.choice([1, 2]), choose.choice([1, 2, 3, 9, 33]), *spatial), kernel


def maybe_one(choose, values):
    """One int for axes that are alike."""
    return values[0] if len(set(values)) == 1 and choose.random() < 0.7 else tuple(values)


def random_kernel(choose, rank, spatial):
    style = choose.random()
    if style < 0.45:
        return [choose.choice([1, 2, 2, 3, 3, 4, 5])] * rank
    if style < 0.75:
        return [choose.randint(1, 6) for _ in range(rank)]
    if style < 0.9:
        return [choose.randint(1, n + 1) for n in spatial]
    return list(spatial) if style < 0.95 else [choose.choice([n, 2 * n]) for n in spatial]


def random_stride(choose, kernel, spatial):
    style = choose.random()
    if style < 0.3:
        return None
    if style < 0.5:
        return [choose.choice([1, 2])] * len(kernel)
    if style < 0.97:
        return [choose.choice([1, 2, 3, k, max(k - 1, 1), k + 1, k + choose.randint(0, 9)]) for k in kernel]
    return [choose.choice([n, 30, 1000, 2**40]) for n in spatial]


def random_padding(choose, extents, ceil_mode):
    style = choose.random()
    if style < 0.4:
        return 0
    if style < 0.5 and not ceil_mode:
        return "same"
    halves = [extent // 2 for extent in extents]
    if style < 0.75:
        return maybe_one(choose, [choose.choice([half, choose.randint(0, half)]) for half in halves])
    return tuple((choose.choice([0, half, choose.randint(0, half)]), choose.randint(0, half)) for half in halves)


def layer_of_a_network(choose):
    """What kernels of their own are written for."""
    if choose.random() < 0.3:
        return {"kernel_size": 2}
    kernel = choose.choice([2, 3, 3, 4, 5, 7])
    stride = choose.choice([None, None, 1, 2, 4])
    padding = choose.choice([0, 0, kernel // 2])
    return {
        "kernel_size": kernel,
        **({"stride": stride} if stride else {}),
        **({"padding": padding} if padding else {}),
    }


def random_sliding(choose, spatial, within, kernel=None):
    """-> arguments; `within`: the kernel may not exceed the input"""
    rank = len(spatial)
    if kernel is None and not within and choose.random() < 0.25:
        return layer_of_a_network(choose)
    kernel = kernel or random_kernel(choose, rank, spatial)
    if within:
        kernel = [min(k, n) for k, n in zip(kernel, spatial)]
    dilation = [1] * rank
    if choose.random() < 0.4:
        dilation = [choose.choice([1, 2, 3, 5, choose.randint(1, n), choose.choice([n, 2**30])]) for n in spatial]
        dilation = [min(d, MOST_EXTENT // k) for d, k in zip(dilation, kernel)]
    ceil_mode = choose.random() < 0.35
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    stride, padding = random_stride(choose, kernel, spatial), random_padding(choose, extents, ceil_mode)
    geometry = {"kernel_size": maybe_one(choose, kernel)}
    if stride is not None:
        geometry["stride"] = maybe_one(choose, stride)
    if padding != 0:
        geometry["padding"] = padding
    if dilation != [1] * rank:
        geometry["dilation"] = maybe_one(choose, dilation)
    return geometry | ({"ceil_mode": True} if ceil_mode else {})


def random_bins(choose, spatial, floor=False):
    """-> an int, or a tuple of ints"""
    if choose.random() < 0.4:
        most = min(spatial) if floor else min(max(spatial) + 2, 9)
        return choose.randint(1, max(min(most, 9), 1))
    return tuple(
        min(choose.choice([1, 2, 3, 4, 7, n, max(n - 1, 1), max(n // 2, 1), n if floor else n + 2]), n if floor else 40)
        for n in spatial
    )


def random_output_size(choose, spatial):
    bins = random_bins(choose, spatial)
    if isinstance(bins, tuple) and choose.random() < 0.2:
        bins = tuple(None if choose.random() < 0.5 else n for n in bins)
    return bins


def random_pyramid(choose, sizes):
    smallest = [min(lengths) for lengths in zip(*sizes)]
    floor = choose.random() < 0.3
    count = choose.choice([1, 2, 3, 3, 4, 8])
    geometry = {"levels": tuple(random_bins(choose, smallest, floor) for _ in range(count))}
    if floor:
        geometry["bins"] = "floor"
    if choose.random() < 0.6:
        geometry["flatten"] = choose.choice(["level", "channel", None])
    return geometry


def windows_of(form, spatial, geometry):
    """-> output size, windows; None where the geometry is not allowed"""
    if form == "sliding":
        return reference.sliding_windows(spatial, **geometry)
    if form == "adaptive":
        return reference.bin_windows(spatial, geometry["output_size"])
    if form == "global":
        return (1,), reference.bin_windows((math.prod(spatial),), 1)[1]
    counts, windows = reference.pyramid_windows(spatial, geometry["levels"], geometry.get("bins", "adaptive"))
    return counts, windows


def work_of(form, shape, geometry):
    """About how many elements all windows hold together, before any table of them is made."""
    shape = (max(shape[0], 1), *shape[1:])  # tables are of the windows of an empty batch, too
    spatial = shape[2:]
    if form == "global":
        return math.prod(shape)
    if form == "adaptive":
        bins = reference.per_axis(geometry["output_size"], len(spatial))
        return math.prod(shape[:2]) * math.prod(n + (b or n) for n, b in zip(spatial, bins))
    if form == "pyramid":
        levels = [reference.per_axis(level, len(spatial)) for level in geometry["levels"]]
        return sum(math.prod(shape[:2]) * math.prod(n + b for n, b in zip(spatial, level)) for level in levels)
    rank = len(spatial)
    kernel = reference.per_axis(geometry["kernel_size"], rank)
    stride = reference.per_axis(geometry.get("stride", kernel), rank)
    steps = [(2 * n + k) // s + 1 for n, k, s in zip(spatial, kernel, stride)]
    return math.prod(shape[:2]) * math.prod(k * out for k, out in zip(kernel, steps))


# The arguments of each kind.


def max_arguments(choose, form):
    return {"return_indices": True} if form != "pyramid" and choose.random() < 0.6 else {}


def avg_arguments(choose, form):
    options = {}
    if form == "sliding" and choose.random() < 0.6:
        options["count_include_pad"] = choose.random() < 0.5
    if form == "sliding" and choose.random() < 0.3:
        options["divisor_override"] = choose.choice([1, 2, 7, -3, 1000, 2**40])
    return options


def no_arguments(choose, form):
    return {}


# Numbers that the table's arguments take; of parameters that are tensors also what is refused as a number.
NUMBERS = {
    "alpha": (0.0, 1.0, 0.5, 0.3, -0.5, 2.0, 0.7312, 1),
    "beta": (0.0, 1e-30, 1e-3, 1.0, -1.0, 3.7, 40.0, -40.0, 1e6, -1e6, 1),
    "r": (1e-30, -1e-8, 1e-3, 0.5, -0.5, 1.0, 3.7, 50.0, -40.0, 1e6, 2),
    "p": (0.05, 0.5, 1.0, 2.0, 3.0, 3.7, 50.0, 3),
    "eps": (1e-6, 1e-6, 1e-37, 1e-3, 0.25, 1.0, 100.0),
    "correction": (0, 1, 1, 2, 0.5, 4.0, 9, 41, 1000),
    "norm_type": (0.5, 1.0, 2.0, 3.0, 4, 2.5, 7.0, -1.0, -2.5, -3, math.inf, -math.inf),
}
OF_TENSORS = {"r": (0.0,), "p": (-0.5, -3.0)}
FILTERS = {"gated": ("weight",), "tree": ("leaves", "gates")}


def numbers_of_the_table(kind):
    arguments = kinds.POOLINGS[kind].arguments

    def numbers(choose, form):
        # torch gives norm_type no default.
        given = [a for i, a in enumerate(arguments) if i == 0 or choose.random() < 0.7]
        return {a.name: choose.choice(NUMBERS[a.name]) for a in given}

    return numbers


def stochastic_arguments(choose, form):
    options = {}
    if choose.random() < 0.6:
        options["distribution"] = choose.choice(["relu", "softmax", "softmax"])
        options["temperature"] = choose.choice([1.0, 0.5, 0.1, 3.0, 50.0, 1e-3, 1, choose.uniform(0.2, 4)])
    if choose.random() < 0.45:
        return options | {"training": False}
    if choose.random() < 0.1:
        options["temperature"] = choose.choice([1e-38, 1e-30, 1e30, 1e38])
    if choose.random() < 0.3:
        sample = choose.choice([0, 5, 2**32 - 1, 2**40 + 3])
        options["offset"] = (sample, choose.choice([0, 7, 2**31, 2**32 - 5000]))
    if form != "pyramid" and choose.random() < 0.7:
        options["return_indices"] = True
    return options


OWN_ARGUMENTS = {
    "max": max_arguments,
    "min": max_arguments,
    "avg": avg_arguments,
    "max_avg": no_arguments,
    "stochastic": stochastic_arguments,
    **dict.fromkeys(FILTERS, no_arguments),
    **{
        name: numbers_of_the_table(name)
        for name, pooling in kinds.POOLINGS.items()
        if pooling.arguments and all(argument.name in NUMBERS for argument in pooling.arguments)
    },
}
SEEDS = (0, 1, -1, 2**31, 2**32 + 5, 2**63 - 1, -(2**63), 2**63, 2**64 - 1)


def seed_value(choose):
    return choose.choice(SEEDS) if choose.random() < 0.2 else choose.randrange(-(2**63), 2**64)


# Values and layouts.

PATTERNS = (
    *("random",) * 4,
    *("integers",) * 3,
    *("positive", "negative", "equal", "zeros", "signed zeros", "few signed zeros", "nan", "nans", "inf", "-inf"),
    *("only -inf", "nan and inf", "far apart", "subnormal", "huge", "mixture", "mixture", "finite mixture"),
)


def pattern_of(choose, dtype):
    pattern = choose.choice(PATTERNS)
    own = f"{pattern} {str(dtype).removeprefix('torch.')}"
    return own if own in cases.PATTERNS else pattern


def random_layout(choose, ndim, channels=0):
    """More channels-last tensors where channels fill vectors."""
    if ndim in (4, 5) and choose.random() < (0.4 if channels >= 16 else 0.15):
        return "channels_last"
    if choose.random() < 0.5:
        return "contiguous"
    return choose.choice([name for name in cases.LAYOUTS if name not in cases.NEEDS_4D or ndim in (4, 5)])


def weight_of(function):
    """Sliding windows have the most ways to go wrong, and pyramids the fewest names."""
    if function.startswith("spatial"):
        return 6
    return 1 if function.startswith(("global", "adaptive")) else 5 if "2d" in function else 3


COMPOSED = ("sppf2d",)  # of functions that have trials, with which tests/test_sppf.py compares it
FUNCTIONS = [name for name in F.__all__ if name not in COMPOSED]
WEIGHTS = [weight_of(function) for function in FUNCTIONS]
MODES = list(kinds.OPTIONS)
# Of each size: its share, the fewest and most elements of the input, the most elements of all windows together. What is
# far larger than caches is read and written in other ways: more than 8 and 30 MB.
SIZES = {
    "small": (0.949, (50, 5000), 25_000),
    "large": (0.05, (8000, 200_000), 2_000_000),
    "huge": (0.001, (8.5e6, 34e6), 10_000_000),  # bytes
}
SHARES = [share for share, _, _ in SIZES.values()]


def random_trial(seed, number):
    choose = random.Random(seed << 64 | number)
    function = choose.choices(FUNCTIONS, WEIGHTS)[0]
    form, kind, rank = form_and_kind(function)
    kind = kind or choose.choice(MODES)
    dtype = choose.choice(cases.DTYPES)
    (size,) = choose.choices(list(SIZES), SHARES)
    size = "large" if size == "huge" and kind in FILTERS else size
    while True:
        elements = random_elements(choose, size, dtype)
        geometry, shape, sizes = random_geometry(choose, function, form, rank, elements)
        work = work_of(form, shape, geometry) * max(len(sizes), 1) * (16 if kind in FILTERS else 1)
        if work <= SIZES[size][2] and windows_of(form, shape[2:], geometry) is not None:
            break
    options = OWN_ARGUMENTS[kind](choose, form)
    batched = form == "global" or shape[0] != 1 or choose.random() < 0.6
    shape = shape if batched else shape[1:]
    pooling, parameter_shape = kinds.POOLINGS[kind], None
    if kind in FILTERS or (pooling.parameter and choose.random() < 0.6):
        shapes = ("scalar", "channel", "region") if pooling.regions and form != "pyramid" else ("scalar", "channel")
        parameter_shape = choose.choice(shapes) + choose.choice(["", ", own dtype"])
    if kind == "stochastic" and options.get("training", True):
        options["seed"] = seed_value(choose)
    if form == "pyramid":
        geometry["mode"] = kind
    name = f"fuzz {seed}:{number}"
    case = cases.Case(
        name,
        shape,
        pattern_of(choose, dtype),
        geometry,
        random_layout(choose, len(sizes[0] if sizes else shape), shape[-1 - rank] if rank else shape[1]),
        batched,
    )
    selects = kind in ("max", "min") or (kind == "stochastic" and options.get("training", True))
    gradients = ("whole", "whole", "normal") + (("special",) if selects or kind == "avg" else ())
    return Trial(
        seed=seed,
        number=number,
        function=function,
        form=form,
        kind=kind,
        case=case,
        dtype=dtype,
        options=options,
        sizes=sizes,
        as_lists=choose.random() < 0.1,
        records=choose.random() < 0.65,
        draw_seed=choose.choice(["int", "int", "tensor", "generator", "global"]),
        parameter_shape=parameter_shape,
        parameters_learned=choose.random() < 0.7,
        gradient=choose.choice(gradients),
        gradient_layout=random_layout(choose, 4),
        left_out=choose.choice([None, None, 0, 1]) if pooling.results > 1 and form != "pyramid" else None,
        size=size,
    )


def random_elements(choose, size, dtype):
    low, high = SIZES[size][1]
    number = int(math.exp(choose.uniform(math.log(low), math.log(high))))
    return min(number // dtype.itemsize, 4_500_000) if size == "huge" else number


def random_geometry(choose, function, form, rank, elements):
    """-> arguments, shape of the (first) input with a batch axis, shapes of a list's tensors"""
    if form == "global":
        shape = random_shape(choose, choose.choice([1, 2, 2, 3, 4, 5]), elements)
        return ({"keepdim": choose.random() < 0.5} if choose.random() < 0.7 else {}), shape, ()
    shape = random_shape(choose, rank, elements)
    if form == "sliding":
        kernel = None
        if choose.random() < 0.06:
            shape, kernel = shape_of_many_taps(choose, rank)
        return random_sliding(choose, shape[2:], function == "avg_pool3d", kernel), shape, ()
    if form == "adaptive":
        return {"output_size": random_output_size(choose, shape[2:])}, shape, ()
    sizes = ()
    if choose.random() < 0.3:
        count, channels = choose.randint(1, 4), shape[1]
        sizes = tuple((channels, *random_shape(choose, rank, max(elements // count, 8))[2:]) for _ in range(count))
        shape = (1, *sizes[0])
    geometry = random_pyramid(choose, [size[1:] for size in sizes] or [shape[2:]])
    return geometry, shape, sizes
