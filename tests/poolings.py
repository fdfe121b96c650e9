"""The poolings under test: one row for each, saying how to call it, what it computes and how torch would compose it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import reference
import torch

import fastpool.functional as F
from fastpool import _table, nn
from fastpool._operators import OPERATORS as REGISTERED
from fastpool._window_formulas import WINDOW_FORMULAS


def accumulation(dtype):
    return np.float64 if dtype == torch.float64 else np.float32


@lru_cache
def element_table(windows):
    """-> the elements of each window (P, K), which of them there are"""
    longest = max(grid.elements.shape[1] for grid in windows.grids)
    padded = [
        [np.pad(table, ((0, 0), (0, longest - table.shape[1]))) for table in (grid.elements, grid.exist)]
        for grid in windows.grids
    ]
    return [torch.from_numpy(np.concatenate(tables)) for tables in zip(*padded, strict=True)]


def gather_windows(x, windows):
    """x: (N, C, *spatial) -> (N, C, P, K), which of them are elements (P, K)"""
    index, mask = element_table(windows)
    return x.flatten(2)[:, :, index], mask


def compose_select(x, indices):
    return x.flatten(2).gather(2, torch.from_numpy(np.ascontiguousarray(indices)))


def compose_max(x, windows):
    return compose_select(x, reference.max_pool(x.detach().resolve_neg().double().numpy(), windows)[1])


class RowMajorSum(torch.autograd.Function):
    """One element after the other, half types in float32: how torch.nn.functional.avg_pool2d sums."""

    @staticmethod
    def forward(ctx, values):
        ctx.shape = values.shape
        wide = values.detach().to(torch.promote_types(values.dtype, torch.float32)).numpy()
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(reference.row_major_sum(wide, wide.dtype.type))

    @staticmethod
    def backward(ctx, g):
        return g[..., None].expand(ctx.shape)


def compose_avg(x, windows, **divisor):
    values, mask = gather_windows(x, windows)
    divisors = torch.from_numpy(np.concatenate([reference.divisors_of(grid, **divisor) for grid in windows.grids]))
    total = RowMajorSum.apply(torch.where(mask, values, 0))
    return (total / divisors.to(total.dtype)).to(x.dtype)


def compose_mixed(x, windows, alpha):
    return alpha * compose_max(x, windows) + (1 - alpha) * compose_avg(x, windows)


def compose_expectation(x, windows, distribution, temperature=1.0):
    """avg(w * x) / avg(w), the common divisor left out"""
    values, mask = gather_windows(x, windows)
    if distribution == "relu":
        weights = torch.where(mask, values, 0).relu()
    else:
        largest = values.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True).detach()
        weights = ((values - largest) / temperature).exp().masked_fill(~mask, 0)
    total = RowMajorSum.apply(weights).to(x.dtype)
    weighted = RowMajorSum.apply(weights * torch.where(weights > 0, values, 0)).to(x.dtype)
    return weighted / total.where(total > 0, torch.ones_like(total))


@dataclass(frozen=True)
class Pooling:
    name: str
    function: str  # the middle of the public names
    reference: Callable  # (x, windows, accumulation type) -> the outputs, (N, C, P) each
    composition: Callable  # (tensor, windows) -> the same by torch operations
    bitwise: tuple  # for each output: "always", "sums" (sliding windows of up to 256 taps) or "never"
    options: dict = field(default_factory=dict, hash=False)
    forms: tuple = ("sliding", "adaptive", "global")
    factor: int = 1  # of the error that is allowed

    def __str__(self):
        return self.name

    def __call__(self, case, x, form=None, **more):
        form = form or form_of(case)
        options = {**self.options, **more}
        if form == "global":
            outputs = getattr(F, f"global_{self.function}_pool")(x, **options)
        else:
            prefix = "adaptive_" if form == "adaptive" else ""
            function = getattr(F, f"{prefix}{self.function}_pool{case.rank}d")
            outputs = function(x, **case.geometry, **options)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def of_form(self, form, rank=2, **more):
        """A function of the input: windows of 3 a step of 2 apart, bins of 2 an axis, or one window."""
        if form == "sliding":
            geometry = {"kernel_size": 3, "stride": 2, "padding": 1}
        else:
            geometry = {"output_size": 2} if form == "adaptive" else {}
        name = {"sliding": "{}_pool{}d", "adaptive": "adaptive_{}_pool{}d", "global": "global_{}_pool"}[form]
        function = getattr(F, name.format(self.function, rank))
        return lambda x: function(x, **geometry, **{**self.options, **more})

    def is_bitwise(self, output, case, windows):
        rule = self.bitwise[output]
        few = form_of(case) == "sliding" and (windows.sizes <= reference.MANY_TAPS).all()
        return rule == "always" or (rule == "sums" and few)


def form_of(case):
    return "adaptive" if "output_size" in case.geometry else "sliding"


def avg_row(name, options, divisor, forms=("sliding", "adaptive", "global")):
    return Pooling(
        name,
        "avg",
        lambda x, windows, accumulate: [reference.avg_pool(x, windows, accumulate, **divisor)],
        lambda x, windows: [compose_avg(x, windows, **divisor)],
        ("sums",),
        options,
        forms,
    )


def mixed_row(alpha):
    return Pooling(
        f"mixed {alpha}",
        "mixed",
        lambda x, windows, accumulate: [reference.mixed_pool(x, windows, alpha)],
        lambda x, windows: [compose_mixed(x, windows, alpha)],
        ("never",),
        {"alpha": alpha},
    )


def expectation_row(distribution, temperature=1.0):
    return Pooling(
        f"expectation {distribution}" + ("" if temperature == 1 else f" {temperature}"),
        "stochastic",
        lambda x, windows, accumulate: [reference.expectation_pool(x, windows, distribution, temperature)],
        lambda x, windows: [compose_expectation(x, windows, distribution, temperature)],
        ("never",),
        {"training": False, "distribution": distribution, "temperature": temperature},
    )


MAX = Pooling(
    "max",
    "max",
    lambda x, windows, accumulate: [reference.max_pool(x, windows)[0]],
    lambda x, windows: [compose_max(x, windows)],
    ("always",),
)
AVG = avg_row("avg", {}, {"count_include_pad": True})
MAX_AVG = Pooling(
    "max_avg",
    "max_avg",
    lambda x, windows, accumulate: [
        reference.max_pool(x, windows)[0],
        reference.avg_pool(x, windows, accumulate),
    ],
    lambda x, windows: [compose_max(x, windows), compose_avg(x, windows)],
    ("always", "sums"),
)
MIXED = mixed_row(0.3)
EXPECTATION_RELU = expectation_row("relu")
EXPECTATION_SOFTMAX = replace(expectation_row("softmax"), factor=2)

MIN = Pooling(
    "min",
    "min",
    lambda x, windows, accumulate: [reference.min_pool(x, windows)[0]],
    lambda x, windows: [-compose_max(-x, windows)],
    ("always",),
)
TABLE = {pooling.name: pooling for pooling in _table.POOLINGS}


def mean_of(values, exist):
    return RowMajorSum.apply(torch.where(exist, values, 0)).to(values.dtype) / exist.sum(-1)


def compose_soft(x, windows, beta=1.0):
    values, exist = gather_windows(x, windows)
    largest = (beta * values).masked_fill(~exist, -torch.inf).amax(-1, keepdim=True).detach()
    weights = (beta * values - largest).exp().masked_fill(~exist, 0)
    weighted = RowMajorSum.apply(weights * torch.where(weights > 0, values, 0)).to(x.dtype)
    return [weighted / RowMajorSum.apply(weights).to(x.dtype)]


def compose_lse(x, windows, r=1.0):
    values, exist = gather_windows(x, windows)
    largest = (r * values).masked_fill(~exist, -torch.inf).amax(-1, keepdim=True).detach()
    return [(largest[..., 0] + mean_of((r * values - largest).exp(), exist).log()) / r]


def compose_gem(x, windows, p=3.0, eps=1e-6):
    values, exist = gather_windows(x, windows)
    return [mean_of(values.clamp_min(eps) ** p, exist) ** (1 / p)]


def compose_lp(x, windows, norm_type):
    values, exist = gather_windows(x, windows)
    mean = mean_of(torch.where(exist, values, 1) ** norm_type, exist)
    return [(mean * int(windows.sizes[0])) ** (1 / norm_type)]


def compose_mean_std(x, windows, correction=0):
    values, exist = gather_windows(x, windows)
    first, count = mean_of(values, exist).detach(), exist.sum(-1)
    mean = first + mean_of(values - first[..., None], exist)
    squares = mean_of((values - mean.detach()[..., None]) ** 2, exist) * count  # its derivative by the mean is 0
    variance = squares / (count - correction).clamp_min(1)
    varies = (variance != 0) & (count > correction)
    return [mean, torch.where(varies, torch.where(varies, variance, 1).sqrt(), 0)]


def table_row(kind, **options):
    pooling = TABLE[kind]

    def formula(x, windows, accumulate):
        results = getattr(reference, f"{kind}_pool")(x, windows, **options)
        return results if pooling.results > 1 else [results]

    return Pooling(
        " ".join((kind, *(f"{name}={value}" for name, value in options.items()))),
        kind,
        formula,
        lambda x, windows: globals()[f"compose_{kind}"](x, windows, **options),
        ("never",) * pooling.results,
        options,
        pooling.forms,
        2,  # logarithms and powers of our own are off by 2 to 3 units in the last place, torch's by one
    )


# A pooling of the table that has no row above, with its defaults; of some further numbers.
DEFAULTS = {"lp": {"norm_type": 2.0}}
BY_TABLE = [table_row(kind, **DEFAULTS.get(kind, {})) for kind in TABLE if f"{kind}_pool" in WINDOW_FORMULAS]
FURTHER = [
    table_row("soft", beta=-3.0),
    table_row("soft", beta=0.0),
    table_row("soft", beta=40.0),
    table_row("lse", r=-0.5),
    table_row("lse", r=1e-3),
    table_row("gem", p=0.5, eps=0.25),
    table_row("gem", p=40.0),
    table_row("mean_std", correction=1),
    table_row("lp", norm_type=1.0),
    table_row("lp", norm_type=3.0),
    table_row("lp", norm_type=-2.5),
]

POOLINGS = [
    MAX,
    MIN,
    AVG,
    avg_row("avg of valid", {"count_include_pad": False}, {"count_include_pad": False}, ("sliding",)),
    avg_row("avg divisor 7", {"divisor_override": 7}, {"divisor_override": 7}, ("sliding",)),
    MAX_AVG,
    MIXED,
    EXPECTATION_RELU,
    EXPECTATION_SOFTMAX,
    *BY_TABLE,
]

# Calls that between them reach every pooling, for tests of what transforms or compiles them.
CALLS = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "max_avg": lambda x: torch.cat(F.max_avg_pool2d(x, 3, 2, 1), 1),
    "mixed": lambda x: F.mixed_pool2d(x, 2, alpha=0.25),
    "stochastic": lambda x: F.stochastic_pool2d(x, 2, seed=3),
    "softmax": lambda x: F.stochastic_pool2d(x, 2, seed=3, distribution="softmax"),
    "expectation": lambda x: F.stochastic_pool2d(x, 2, training=False),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (4, None)),
    "same": lambda x: F.avg_pool2d(x, 3, 2, "same"),
    "global": F.global_avg_pool,
    "pyramid": lambda x: F.spatial_pyramid_pool2d(x, mode="max_avg"),
    "pyramid draw": lambda x: F.spatial_pyramid_pool2d(x, mode="stochastic", seed=3),
}


def call_of(pooling, form):
    return lambda x: joined(pooling.of_form(form)(x))


def joined(outputs):
    return torch.cat(outputs, 1) if isinstance(outputs, tuple) else outputs


CALLS |= {pooling.name: call_of(pooling, "sliding") for pooling in (MIN, *BY_TABLE)}
CALLS |= {
    f"pyramid {pooling.name}": lambda x, pooling=pooling: F.spatial_pyramid_pool2d(x, mode=pooling.function)
    for pooling in (MIN, *BY_TABLE)
    if "adaptive" in pooling.forms
}

# Layers over five channels that between them reach every way in which modules are made.
LAYERS = {
    "max": lambda: nn.MaxPool2d(2),
    "avg": lambda: nn.AvgPool2d(2),
    "lp": lambda: nn.LPPool2d(2.0, 2),
    "adaptive": lambda: nn.AdaptiveMaxPool2d(2),
    "adaptive_avg": lambda: nn.AdaptiveAvgPool2d(2),
    "max_avg": lambda: nn.MaxAvgPool2d(2),
    "mixed": lambda: nn.MixedPool2d(2, learnable=True),
    "stochastic": lambda: nn.StochasticPool2d(2),
    "soft": lambda: nn.SoftPool2d(2, learnable=True, num_channels=5),
    "mean_std": lambda: nn.GlobalMeanStdPool(),
    "gated": lambda: nn.GatedPool2d(2, num_channels=5, bias=True),
    "tree": lambda: nn.TreePool2d(2),
    "pyramid": lambda: nn.SpatialPyramidPool2d(mode="mixed", learnable=True),
    "sppf": lambda: nn.SPPF2d(),
    "random_mixed": lambda: nn.RandomMixedPool2d(2),
    "attention": lambda: nn.AttentionPool2d(5, 3, output_size=2),
}


def arguments_of(name):
    """An input and what a public function needs besides: windows of 2, or 2 bins, an axis."""
    parameters = inspect.signature(getattr(F, name)).parameters.values()
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    rank = int(name[-2]) if name[-1] == "d" else 2
    spatial, seed = (2,) * rank, {"seed": 3} if "stochastic" in name else {}
    needed = {
        "kernel_size": 2,
        "output_size": 2,
        "norm_type": 2.0,
        "weight": torch.ones(spatial),
        "leaves": torch.ones(2, *spatial),
        "gates": torch.ones(1, *spatial),
    }
    options = {name: value for name, value in needed.items() if name in required}
    return torch.randn(2, 3, *[6] * rank), {**options, **seed}


# What of the table above and of the draw tests exercises each registered operation: no row, no release.
OPERATORS = {
    "stochastic_relu_pool": "stochastic",
    "stochastic_softmax_pool": "stochastic",
    "expectation_relu_pool": "stochastic",
    "expectation_relu_pool_backward": "stochastic",
    "lp1_pool": "lp",
    "lp1_pool_backward": "lp",
    "lp2_pool": "lp",
    "lp2_pool_backward": "lp",
    "select": "max",
    "tap_indices": "max",
    "select_backward": "max",
    "parameter_backward": "mixed",
    "correlate": "tree",
    "correlate_input": "tree",
    "correlate_filters": "tree",
    "logistic": "gated",
    "sppf": "max",
    "draw_seed": "stochastic",
    **{name: kind for kind in TABLE for name in (f"{kind}_pool", f"{kind}_pool_backward") if name in REGISTERED},
}
