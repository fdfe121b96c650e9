"""Bad input is refused before anything is computed, by a message with the argument, its value and what is allowed."""

import numpy as np
import pytest
import torch
from poolings import TABLE

import fastpool.functional as F
from fastpool import nn

X = torch.ones(2, 3, 8, 8)
X1 = torch.ones(2, 3, 8)
X3 = torch.ones(2, 3, 4, 4, 4)

# name, call, exception, words of the message
BAD = [
    # axes and sizes
    ("no spatial axis", lambda: F.max_pool2d(torch.ones(3, 8), 2), ValueError, ["input", "(3, 8)"]),
    ("too many axes", lambda: F.max_pool1d(X, 2), ValueError, ["input", "(2, 3, 8, 8)"]),
    ("axes of mixed", lambda: F.mixed_pool3d(X1, 2), ValueError, ["input", "(2, 3, 8)"]),
    ("axes of adaptive", lambda: F.adaptive_max_pool2d(X3, 2), ValueError, ["input", "(2, 3, 4, 4, 4)"]),
    ("axes of pyramid", lambda: F.spatial_pyramid_pool2d(X1[0]), ValueError, ["input", "(3, 8)"]),
    ("global without spatial axes", lambda: F.global_max_pool(torch.ones(2, 3)), ValueError, ["input", "(2, 3)"]),
    ("zero channels", lambda: F.max_pool2d(torch.ones(2, 0, 4, 4), 2), ValueError, ["input", "(2, 0, 4, 4)"]),
    ("zero channels of avg", lambda: F.avg_pool1d(torch.ones(2, 0, 4), 2), ValueError, ["input", "(2, 0, 4)"]),
    ("zero length", lambda: F.max_pool2d(torch.ones(2, 3, 0, 4), 2), ValueError, ["input", "(2, 3, 0, 4)"]),
    ("zero length global", lambda: F.global_avg_pool(torch.ones(2, 3, 0)), ValueError, ["input", "(2, 3, 0)"]),
    ("zero length adaptive", lambda: F.adaptive_avg_pool1d(torch.ones(2, 3, 0), 1), ValueError, ["(2, 3, 0)"]),
    ("input is an array", lambda: F.max_pool2d(X.numpy(), 2), TypeError, ["input", "ndarray"]),
    ("output size of 0", lambda: F.max_pool2d(torch.ones(1, 1, 2, 2), 3), ValueError, ["0", "2", "3"]),
    ("negative output size", lambda: F.avg_pool1d(torch.ones(1, 1, 2), 9, 1), ValueError, ["-6", "2", "9"]),
    ("dilated kernel over the end", lambda: F.max_pool1d(X1, 3, dilation=4), ValueError, ["0", "8", "3"]),
    # windows
    ("kernel 0", lambda: F.max_pool2d(X, 0), ValueError, ["kernel_size", "0"]),
    ("kernel negative", lambda: F.stochastic_pool2d(X, (2, -3)), ValueError, ["kernel_size", "-3"]),
    ("kernel of three", lambda: F.avg_pool2d(X, (2, 2, 2)), ValueError, ["kernel_size", "(2, 2, 2)"]),
    ("kernel float", lambda: F.mixed_pool2d(X, 2.5), TypeError, ["kernel_size", "2.5"]),
    ("kernel of True", lambda: F.max_pool2d(X, True), TypeError, ["kernel_size", "True"]),
    ("stride of True", lambda: F.avg_pool1d(X1, 2, (True,)), TypeError, ["stride", "True"]),
    ("output size of True", lambda: F.adaptive_max_pool2d(X, (2, True)), TypeError, ["output_size", "True"]),
    ("kernel text", lambda: F.max_avg_pool2d(X, "two"), TypeError, ["kernel_size", "two"]),
    ("stride 0", lambda: F.max_pool2d(X, 2, 0), ValueError, ["stride", "0"]),
    ("stride negative", lambda: F.mixed_pool1d(X1, 2, -1), ValueError, ["stride", "-1"]),
    ("padding negative", lambda: F.max_pool2d(X, 3, padding=-1), ValueError, ["padding", "-1"]),
    ("padding above half", lambda: F.max_pool2d(X, 3, padding=2), ValueError, ["padding", "2", "1"]),
    ("padding pair above half", lambda: F.avg_pool1d(X1, 4, padding=((0, 3),)), ValueError, ["padding", "3", "2"]),
    (
        "padding dilated above half",
        lambda: F.max_pool2d(X, 3, padding=3, dilation=2),
        ValueError,
        ["padding", "3", "2"],
    ),
    ("padding unknown word", lambda: F.max_pool2d(X, 3, padding="valid"), ValueError, ["padding", "valid", "same"]),
    ("padding word of an axis", lambda: F.max_pool2d(X, 3, padding=("same", 1)), ValueError, ["padding", "same"]),
    ("padding too deep", lambda: F.max_pool2d(X, 3, padding=((1, (0, 1)), (1, 1))), ValueError, ["padding", "pairs"]),
    ("return_indices of 1", lambda: F.max_pool2d(X, 2, return_indices=1), TypeError, ["return_indices", "1"]),
    ("padding of three", lambda: F.max_pool2d(X, 3, padding=(1, 1, 1)), ValueError, ["padding", "(1, 1, 1)"]),
    ("same with ceil_mode", lambda: F.max_pool2d(X, 3, 2, "same", ceil_mode=True), ValueError, ["ceil_mode", "same"]),
    ("dilation 0", lambda: F.max_pool2d(X, 2, dilation=0), ValueError, ["dilation", "0"]),
    (
        "dilation of 2**50",
        lambda: F.max_pool1d(X1, 3, 1, "same", dilation=2**50),
        ValueError,
        ["dilation", str(2**50), "2**40"],
    ),
    ("kernel of 2**41", lambda: F.max_pool1d(X1, 2**41, 1, 2**40), ValueError, ["kernel_size", str(2**41), "2**40"]),
    ("dilation of avg", lambda: F.avg_pool2d(X, 2, dilation=(1, -1)), ValueError, ["dilation", "-1"]),
    (
        "window whose first element lies just behind",
        lambda: F.max_pool1d(torch.ones(1, 1, 3), 2, stride=1, padding=((1, 2),), dilation=4),
        ValueError,
        ["dilation", "4"],
    ),
    (
        "window without an element",
        lambda: F.max_pool1d(torch.ones(1, 1, 2), 2, stride=1, padding=2, dilation=4),
        ValueError,
        ["dilation", "4"],
    ),
    (
        "window of 2**31 taps",
        lambda: F.max_pool2d(torch.ones(1, 1, 1, 1).expand(1, 1, 2**16, 2**15), (2**16, 2**15)),
        ValueError,
        ["window", "2147483648"],
    ),
    ("divisor 0", lambda: F.avg_pool2d(X, 2, divisor_override=0), ValueError, ["divisor_override", "0"]),
    ("divisor 0 in 1-D", lambda: F.avg_pool1d(X1, 2, divisor_override=0), ValueError, ["divisor_override", "0"]),
    # bins
    ("output_size 0", lambda: F.adaptive_max_pool2d(X, 0), ValueError, ["output_size", "0"]),
    ("output_size negative", lambda: F.adaptive_avg_pool2d(X, (2, -1)), ValueError, ["output_size", "-1"]),
    ("output_size empty", lambda: F.adaptive_mixed_pool2d(X, ()), ValueError, ["output_size", "()"]),
    ("output_size of three", lambda: F.adaptive_avg_pool2d(X, (2, 2, 2)), ValueError, ["output_size", "(2, 2, 2)"]),
    ("output_size float", lambda: F.adaptive_avg_pool2d(X, 2.0), TypeError, ["output_size", "2.0"]),
    ("levels of 2**66 bins", lambda: F.spatial_pyramid_pool3d(X3, [2**22]), ValueError, ["levels", "4194304", "2**60"]),
    (
        "levels of 2**64 bins",
        lambda: F.spatial_pyramid_pool2d(X, [(2**40, 2**24)], mode="avg"),
        ValueError,
        ["levels", str(2**40), "2**60"],
    ),
    (
        "levels of 2**64 bins together",
        lambda: F.spatial_pyramid_pool2d(X, [(2**40, 2**23), (2**40, 2**23), (2, 2)]),
        ValueError,
        ["levels", str(2**40), "2**60"],
    ),
    (
        "levels of a list",
        lambda: F.spatial_pyramid_pool1d([X1[0], X1[1]], [2**60 // 4], mode="max_avg"),
        ValueError,
        ["levels", str(2**58), "2**60"],
    ),
    ("levels of an empty batch", lambda: F.spatial_pyramid_pool1d(X1[:0], [2**62]), ValueError, ["levels", "2**60"]),
    ("output_size of 2**64", lambda: F.adaptive_max_pool2d(X, 2**32), ValueError, ["output_size", str(2**32), "2**60"]),
    ("output_size of 2**62", lambda: F.adaptive_avg_pool1d(X1, 2**62), ValueError, ["output_size", str(2**62)]),
    ("levels empty", lambda: F.spatial_pyramid_pool2d(X, ()), ValueError, ["levels", "()"]),
    ("level 0", lambda: F.spatial_pyramid_pool2d(X, (2, 0)), ValueError, ["levels", "0"]),
    ("level of three axes", lambda: F.spatial_pyramid_pool2d(X, ((1, 2, 3),)), ValueError, ["levels", "(1, 2, 3)"]),
    ("level text", lambda: F.spatial_pyramid_pool2d(X, ("a",)), TypeError, ["levels", "a"]),
    (
        "floor level above size",
        lambda: F.spatial_pyramid_pool2d(X, (9, 1), bins="floor"),
        ValueError,
        ["floor", "9", "8"],
    ),
    (
        "bins unknown",
        lambda: F.spatial_pyramid_pool2d(X, bins="round"),
        ValueError,
        ["bins", "round", "adaptive", "floor"],
    ),
    (
        "flatten unknown",
        lambda: F.spatial_pyramid_pool2d(X, flatten="all"),
        ValueError,
        ["flatten", "all", "level", "channel", "None"],
    ),
    (
        "mode unknown",
        lambda: F.spatial_pyramid_pool2d(X, mode="median"),
        ValueError,
        ["mode", "median", "max", "avg", "max_avg", "mixed", "stochastic"],
    ),
    (
        "option of another mode",
        lambda: F.spatial_pyramid_pool2d(X, mode="max", alpha=0.5),
        (TypeError, ValueError),
        ["alpha", "mixed"],
    ),
    (
        "seed of another mode",
        lambda: F.spatial_pyramid_pool2d(X, mode="mixed", seed=1),
        (TypeError, ValueError),
        ["seed", "stochastic"],
    ),
    (
        "return_indices of a pyramid",
        lambda: F.spatial_pyramid_pool2d(X, mode="max", return_indices=True),
        (TypeError, ValueError),
        ["return_indices"],
    ),
    # lists
    ("empty list", lambda: F.spatial_pyramid_pool2d([]), ValueError, ["input", "empty"]),
    ("list of batches", lambda: F.spatial_pyramid_pool2d([X, X]), ValueError, ["input", "(2, 3, 8, 8)"]),
    ("list mixes channels", lambda: F.spatial_pyramid_pool2d([X[0], X[0, :2]]), ValueError, ["channels", "3", "2"]),
    (
        "list mixes dtypes",
        lambda: F.spatial_pyramid_pool2d([X[0], X[0].double()]),
        (ValueError, TypeError),
        ["float32", "float64"],
    ),
    ("list mixes devices", lambda: F.spatial_pyramid_pool2d([X[0], X[0].to("meta")]), ValueError, ["cpu", "meta"]),
    ("list holds no tensor", lambda: F.spatial_pyramid_pool2d([X[0], 3]), TypeError, ["input", "int"]),
    ("list elsewhere", lambda: F.max_pool2d([X[0]], 2), TypeError, ["input", "list"]),
    # alpha
    ("alpha nan", lambda: F.mixed_pool2d(X, 2, alpha=float("nan")), ValueError, ["alpha", "nan"]),
    ("alpha infinite", lambda: F.mixed_pool2d(X, 2, alpha=float("inf")), ValueError, ["alpha", "inf"]),
    ("alpha text", lambda: F.mixed_pool2d(X, 2, alpha="half"), TypeError, ["alpha", "half"]),
    ("alpha of wrong channels", lambda: F.mixed_pool2d(X, 2, alpha=torch.ones(4)), ValueError, ["alpha", "(4,)", "3"]),
    ("alpha of wrong axes", lambda: F.mixed_pool2d(X, 2, alpha=torch.ones(3, 1)), ValueError, ["alpha", "(3, 1)"]),
    (
        "alpha of wrong region",
        lambda: F.mixed_pool2d(X, 2, alpha=torch.ones(1, 1, 3, 4)),
        ValueError,
        ["alpha", "(1, 1, 3, 4)", "(2, 3, 4, 4)"],
    ),
    (
        "alpha of wrong dtype",
        lambda: F.mixed_pool2d(X, 2, alpha=torch.tensor(0.5).double()),
        (TypeError, ValueError),
        ["alpha", "float64", "float32"],
    ),
    (
        "alpha half beside float",
        lambda: F.mixed_pool2d(X, 2, alpha=torch.tensor(0.5).half()),
        (TypeError, ValueError),
        ["alpha", "float16", "float32"],
    ),
    (
        "alpha of wrong device",
        lambda: F.mixed_pool2d(X, 2, alpha=torch.tensor(0.5, device="meta")),
        (TypeError, ValueError),
        ["alpha", "meta", "cpu"],
    ),
    ("alpha of max", lambda: F.max_pool2d(X, 2, alpha=0.5), TypeError, ["alpha"]),
    # draws
    (
        "distribution unknown",
        lambda: F.stochastic_pool2d(X, 2, distribution="uniform"),
        ValueError,
        ["distribution", "uniform", "relu", "softmax"],
    ),
    (
        "distribution unknown in evaluation",
        lambda: F.stochastic_pool2d(X, 2, distribution="max", training=False),
        ValueError,
        ["distribution", "max", "relu", "softmax"],
    ),
    ("temperature 0", lambda: F.stochastic_pool2d(X, 2, temperature=0.0), ValueError, ["temperature", "0.0"]),
    (
        "temperature negative",
        lambda: F.adaptive_stochastic_pool2d(X, 2, temperature=-1.5),
        ValueError,
        ["temperature", "-1.5"],
    ),
    (
        "temperature nan",
        lambda: F.stochastic_pool2d(X, 2, temperature=float("nan")),
        ValueError,
        ["temperature", "nan"],
    ),
    (
        "temperature infinite",
        lambda: F.global_stochastic_pool(X, temperature=float("inf")),
        ValueError,
        ["temperature", "inf"],
    ),
    ("seed float", lambda: F.stochastic_pool2d(X, 2, seed=1.5), (TypeError, ValueError), ["seed", "1.5"]),
    ("seed too large", lambda: F.stochastic_pool2d(X, 2, seed=2**64), ValueError, ["seed", str(2**64)]),
    ("seed too small", lambda: F.stochastic_pool2d(X, 2, seed=-(2**63) - 1), ValueError, ["seed", str(-(2**63) - 1)]),
    (
        "seed int32",
        lambda: F.stochastic_pool2d(X, 2, seed=torch.tensor([1], dtype=torch.int32)),
        (TypeError, ValueError),
        ["seed", "int32", "int64"],
    ),
    ("seed of two", lambda: F.stochastic_pool2d(X, 2, seed=torch.tensor([1, 2])), ValueError, ["seed", "2"]),
    (
        "seed of another device",
        lambda: F.stochastic_pool2d(X, 2, seed=torch.zeros(1, dtype=torch.int64, device="meta")),
        (TypeError, ValueError),
        ["seed", "meta", "cpu"],
    ),
    (
        "seed and generator",
        lambda: F.stochastic_pool2d(X, 2, seed=1, generator=torch.Generator()),
        ValueError,
        ["seed", "generator"],
    ),
    ("generator of another kind", lambda: F.stochastic_pool2d(X, 2, generator=7), TypeError, ["generator", "7"]),
    ("offset of one", lambda: F.stochastic_pool2d(X, 2, seed=1, offset=(1,)), ValueError, ["offset", "(1,)"]),
    ("offset float", lambda: F.stochastic_pool2d(X, 2, seed=1, offset=(0.5, 0)), TypeError, ["offset", "0.5"]),
    (
        "offset channel",
        lambda: F.stochastic_pool2d(X, 2, seed=1, offset=(0, 2**32)),
        ValueError,
        ["offset", str(2**32)],
    ),
    ("offset negative", lambda: F.stochastic_pool2d(X, 2, seed=1, offset=(-1, 0)), ValueError, ["offset", "-1"]),
    (
        "indices in evaluation",
        lambda: F.stochastic_pool2d(X, 2, training=False, return_indices=True),
        ValueError,
        ["return_indices", "True", "training"],
    ),
    # arrays and numbers without end
    ("kernel array", lambda: F.max_pool2d(X, np.array([2, 2])), TypeError, ["kernel_size", "array([2, 2])"]),
    ("padding array", lambda: F.max_pool2d(X, 3, padding=np.array([1, 1])), TypeError, ["padding", "array([1, 1])"]),
    ("levels of numpy's int", lambda: F.spatial_pyramid_pool2d(X, np.int64(4)), TypeError, ["levels", "4"]),
    ("alpha array", lambda: F.mixed_pool2d(X, 2, alpha=np.array([0.1, 0.2])), TypeError, ["alpha", "array([0.1"]),
    ("alpha beyond floats", lambda: F.mixed_pool2d(X, 2, alpha=10**400), ValueError, ["alpha", "finite", "1000"]),
    ("seed array", lambda: F.stochastic_pool2d(X, 2, seed=np.array([1.5])), TypeError, ["seed", "array([1.5])"]),
    ("offset array", lambda: F.stochastic_pool2d(X, 2, offset=np.array([0, 0])), TypeError, ["offset", "array([0"]),
    (
        "zero length of a fourth axis",
        lambda: F.global_max_pool(torch.ones(2, 3, 4, 5, 0, 2)),
        ValueError,
        ["input", "(2, 3, 4, 5, 0, 2)"],
    ),
    # modules
    ("module learnable of 1", lambda: nn.MixedPool2d(2, learnable=1), TypeError, ["learnable", "1"]),
    (
        "module alpha of other channels",
        lambda: nn.MixedPool2d(2, alpha=torch.rand(4), learnable=True, num_channels=3),
        ValueError,
        ["alpha", "(3,)", "(4,)"],
    ),
    (
        "module learnable of another mode",
        lambda: nn.SpatialPyramidPool2d(mode="max", learnable=True),
        TypeError,
        ["learnable", "mode='mixed'", "'max'"],
    ),
    ("module kernel", lambda: nn.MaxPool2d(0), ValueError, ["MaxPool2d: kernel_size", "0"]),
    ("module alpha", lambda: nn.MixedPool2d(2, alpha=1.0, learnable=True), ValueError, ["alpha", "1.0"]),
    ("module alpha of 0", lambda: nn.MixedPool2d(2, alpha=0.0, learnable=True), ValueError, ["alpha", "0.0"]),
    ("module alpha nan", lambda: nn.MixedPool2d(2, alpha=float("nan")), ValueError, ["alpha", "nan"]),
    *(
        (f"channels of {name}", lambda make=make: make(5)(X), ValueError, ["num_channels is 5", "3 channels"])
        for name, make in {
            "a mixed module": lambda n: nn.MixedPool2d(2, learnable=True, num_channels=n),
            "a global module": lambda n: nn.GlobalGeMPool(num_channels=n),
            "a gated module": lambda n: nn.GatedPool2d(2, num_channels=n),
            "a tree": lambda n: nn.TreePool2d(2, num_channels=n),
            "a pyramid module": lambda n: nn.SpatialPyramidPool2d(mode="mixed", learnable=True, num_channels=n),
        }.items()
    ),
    (
        "channels of a pyramid module with a list",
        lambda: nn.SpatialPyramidPool2d(mode="mixed", learnable=True, num_channels=5)([X[0], X[1]]),
        ValueError,
        ["num_channels is 5", "3 channels"],
    ),
    ("module without channels", lambda: nn.MixedPool2d(2, learnable=True, num_channels=0), ValueError, ["num_ch", "0"]),
    (
        "module training",
        lambda: nn.SpatialPyramidPool2d(mode="stochastic", training=False),
        TypeError,
        ["training", "eval()", "False"],
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), [pytest.param(*row[1:], id=row[0]) for row in BAD])
def test_bad_input(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert not isinstance(caught.value, RuntimeError)
    for word in words:
        assert word in message, f"{word!r} is missing in: {message}"


# What is wrong whatever the input, by a call of a class that does not get one.
IMPOSSIBLE = {
    nn.MaxPool2d: [
        ({}, TypeError, "missing a required argument: 'kernel_size'"),
        ({"kernel_sise": 2}, TypeError, "kernel_sise|kernel_size"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1 on every axis.* got 0"),
        ({"kernel_size": (2, 2, 2)}, ValueError, "kernel_size must be an int or a pair"),
        ({"kernel_size": 2.5}, TypeError, "kernel_size must be made of ints, got 2.5"),
        ({"kernel_size": 2, "stride": 0}, ValueError, "stride must be at least 1"),
        ({"kernel_size": 3, "padding": 2}, ValueError, "padding must lie between 0 and half.* got 2"),
        ({"kernel_size": 3, "padding": "valid"}, ValueError, "padding must be .* got 'valid'"),
        ({"kernel_size": 3, "padding": "same", "ceil_mode": True}, ValueError, "ceil_mode must be False"),
        ({"kernel_size": 3, "ceil_mode": 1}, TypeError, "ceil_mode must be True or False"),
        ({"kernel_size": 3, "return_indices": 1}, TypeError, "return_indices must be True or False"),
        ({"kernel_size": 2, "dilation": 0}, ValueError, "dilation must be at least 1"),
    ],
    nn.AvgPool1d: [
        ({"kernel_size": 2, "divisor_override": 0}, ValueError, "divisor_override must not be 0"),
        ({"kernel_size": 2, "count_include_pad": 1}, TypeError, "count_include_pad must be True or False"),
    ],
    nn.LPPool3d: [
        ({"norm_type": 0, "kernel_size": 2}, ValueError, "norm_type must be finite and not 0, got 0"),
        ({"norm_type": 2, "kernel_size": -2}, ValueError, "kernel_size must be at least 1"),
    ],
    nn.AdaptiveMaxPool2d: [
        ({"output_size": 0}, ValueError, "output_size must be at least 1"),
        ({"output_size": ()}, ValueError, "output_size must be an int or a pair"),
        ({"output_size": (2, None), "return_indices": None}, TypeError, "return_indices must be True or False"),
    ],
    nn.GlobalAvgPool: [({"keepdim": 1}, TypeError, "keepdim must be True or False")],
    nn.StochasticPool2d: [
        ({"kernel_size": 2, "distribution": "sigmoid"}, ValueError, "distribution must be one of 'relu', 'softmax'"),
        ({"kernel_size": 2, "temperature": -1}, ValueError, "temperature must be finite and greater than 0, got -1"),
        ({"kernel_size": 2, "seed": 1.5}, TypeError, "seed must be an int"),
        ({"kernel_size": 2, "seed": 2**64}, ValueError, "seed must lie in"),
        ({"kernel_size": 2, "seed": torch.tensor([1, 2])}, ValueError, "seed must have exactly one element"),
        ({"kernel_size": 2, "seed": 1, "generator": torch.Generator()}, ValueError, "seed and generator exclude"),
        ({"kernel_size": 2, "generator": 7}, TypeError, "generator must be a torch.Generator, got 7"),
        ({"kernel_size": 2, "offset": (1,)}, ValueError, "offset must be"),
    ],
    nn.MixedPool2d: [
        ({"kernel_size": 2, "alpha": [0.1, 0.2]}, TypeError, "alpha must be a number or a tensor, got .0.1, 0.2."),
        ({"kernel_size": 2, "alpha": torch.tensor(1)}, TypeError, "alpha must be a dense tensor of float16"),
        ({"kernel_size": 2, "num_channels": 3}, ValueError, "num_channels is for learnable=True"),
        ({"kernel_size": 2, "learnable": True, "num_channels": 0}, ValueError, "num_channels must be at least 1"),
        ({"kernel_size": 2, "learnable": True, "num_channels": (3,)}, TypeError, "num_channels must be an int or None"),
        ({"kernel_size": 2, "learnable": True, "num_channels": 2.5}, TypeError, "num_channels must be an int or None"),
    ],
    nn.GlobalSoftPool: [
        ({"beta": torch.ones(2, 2)}, ValueError, "beta must be a number, 0-d or .C,., got shape .2, 2."),
        (
            {"beta": torch.ones(3), "learnable": True, "num_channels": 4},
            ValueError,
            "beta must be a number or of shape .4,. with num_channels=4",
        ),
    ],
    nn.GeMPool2d: [
        ({"kernel_size": 2, "p": -1.0}, ValueError, "p must be finite and greater than 0"),
        ({"kernel_size": 2, "eps": 0}, ValueError, "eps must be finite and greater than 0"),
    ],
    nn.GatedPool2d: [({"kernel_size": 2, "num_channels": True}, TypeError, "num_channels must be an int or None")],
    nn.TreePool2d: [({"kernel_size": 2, "levels": 3}, ValueError, "levels must be 1 or 2, got 3")],
    nn.SpatialPyramidPool2d: [
        ({"levels": ()}, ValueError, "levels must name at least one level"),
        ({"levels": (2, 0)}, ValueError, "levels must be at least 1"),
        ({"bins": "round"}, ValueError, "bins must be one of"),
        ({"flatten": "all"}, ValueError, "flatten must be one of"),
        ({"mode": "median"}, ValueError, "mode must be one of"),
        ({"mode": "stochastic", "temperature": 0.0}, ValueError, "temperature must be finite and greater than 0"),
        ({"mode": "soft", "beta": "1"}, TypeError, "beta must be a number or a tensor"),
        ({"mode": "mixed", "alpha": torch.ones(1, 3, 2, 2)}, ValueError, "alpha must be a number, 0-d or .C,."),
    ],
    nn.SPPF2d: [
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1"),
    ],
    nn.RandomMixedPool2d: [({"kernel_size": 0}, ValueError, "kernel_size must be at least 1")],
    nn.AttentionPool2d: [
        ({"in_features": 3, "out_features": 4, "output_size": 0}, ValueError, "output_size must be at least 1"),
    ],
}


@pytest.mark.parametrize(
    ("module", "arguments", "error", "message"),
    [(module, *row) for module, rows in IMPOSSIBLE.items() for row in rows],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:60],
)
def test_modules_refuse_at_construction(module, arguments, error, message):
    """With the name of their own class, which need not have the constructor."""
    with pytest.raises(error, match=f"^{module.__name__}: .*(?:{message})"):
        module(**arguments)


def test_a_subclass_may_construct_as_it_likes():
    class Mine(nn.MaxPool2d):
        def __init__(self, size):
            super().__init__((size, 1))

    assert Mine(2)(X).shape == (2, 3, 4, 8)
    with pytest.raises(ValueError, match="^MaxPool2d: kernel_size must be at least 1"):
        Mine(0)


DTYPES = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
FUNCTIONS = {
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_avg_pool2d": lambda x: F.max_avg_pool2d(x, 2),
    "mixed_pool2d": lambda x: F.mixed_pool2d(x, 2),
    "stochastic_pool2d": lambda x: F.stochastic_pool2d(x, 2),
    "stochastic_pool2d in evaluation": lambda x: F.stochastic_pool2d(x, 2, training=False),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "global_avg_pool": F.global_avg_pool,
    "spatial_pyramid_pool2d": F.spatial_pyramid_pool2d,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_unsupported_dtype(function, dtype):
    with pytest.raises(TypeError) as caught:
        function(torch.ones(2, 3, 8, 8).to(dtype))
    for word in (str(dtype).removeprefix("torch."), "float16", "bfloat16", "float32", "float64"):
        assert word in str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_sparse(function):
    with pytest.raises(TypeError, match="sparse"):
        function(X.to_sparse())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested():
    with pytest.raises(TypeError, match="nested"):
        F.max_pool2d(torch.nested.nested_tensor([X[0], X[1]]), 2)


def test_generator_untouched_by_a_refused_call():
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="temperature"):
        F.stochastic_pool2d(X, 2, temperature=-1.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_padding_up_to_half_the_effective_kernel_is_accepted():
    assert F.max_pool2d(X, 3, 1, padding=2, dilation=2).shape == X.shape
    assert F.avg_pool1d(X1, 3, 1, padding=((2, 2),), dilation=2).shape == X1.shape


@pytest.mark.parametrize("bad", [0, (2, 2, 2), -1])
def test_refused_without_gradient_mode_too(bad):
    with torch.no_grad(), pytest.raises(ValueError, match="kernel_size"):
        F.max_pool2d(X, bad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_script_is_refused_with_advice():
    with pytest.raises((RuntimeError, TypeError)) as caught:
        torch.jit.script(nn.MaxPool2d(2))
    assert "export" in str(caught.value)


FORBIDDEN = {"any": (), "positive": (0.0, -1.0), "nonzero": (0.0,), "not negative": (-1.0,)}
OWN = [
    (pooling, argument, value, error)
    for pooling in TABLE.values()
    for argument in pooling.arguments
    if argument.annotation.startswith("float") and not pooling.by_hand
    for error, values in (
        (ValueError, (*FORBIDDEN[argument.allowed], float("nan"), float("inf"), 10**400)),
        (TypeError, ("1", None, True, [1.0])),
    )
    for value in values
]


@pytest.mark.parametrize(("pooling", "argument", "value", "error"), OWN, ids=str)
def test_own_numbers(pooling, argument, value, error):
    options = {"distribution": "softmax", "training": False} if pooling.name == "stochastic" else {}
    calls = (
        lambda: getattr(F, f"{pooling.name}_pool2d")(X, 2, **options, **{argument.name: value}),
        lambda: getattr(F, f"global_{pooling.name}_pool")(X, **options, **{argument.name: value}),
        lambda: F.spatial_pyramid_pool2d(X, mode=pooling.name, **options, **{argument.name: value}),
    )
    for call in calls:
        with pytest.raises(error, match=argument.name):
            call()


@pytest.mark.parametrize("pooling", [pooling for pooling in TABLE.values() if pooling.parameter], ids=lambda p: p.name)
def test_parameters_that_do_not_fit(pooling):
    name = pooling.arguments[0].name
    wrong = {
        "shape": (torch.ones(X.shape[1] + 1), ValueError),
        "dtype": (torch.ones((), dtype=torch.float64), TypeError),
        "device": (torch.ones((), device="meta"), ValueError),
        "dense": (torch.ones(X.shape[1]).to_sparse(), TypeError),
    }
    for word, (value, error) in wrong.items():
        with pytest.raises(error, match=f"{name}.*{word}"):
            getattr(F, f"{pooling.name}_pool2d")(X, 2, **{name: value})
