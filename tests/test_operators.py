"""Every registered operation: schema, fake kernel, autograd, and that tests and benchmarks know of it."""

from functools import partial
from pathlib import Path

import cases
import poolings
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fastpool.functional as F
from fastpool._operators import OPERATORS, POOLS, RESULTS, SAVE_MOMENTS, SAVE_SLOPE

OPS = torch.ops.fastpool
BENCHMARKS = Path(__file__).parent.parent / "benchmarks" / "operations.py"


def registered():
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.split("::")[1].split(".")[0] for name in names if name.startswith("fastpool::")})


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


# output, kernel, stride, before, after, dilation of each axis
MAP = [3, 3, 2, 1, 1, 1, 4, 2, 2, 0, 0, 1]  # (6, 8) -> (3, 4)
BINS = [2, 0, 1, 0, 0, 1, 2, 0, 1, 0, 0, 1]
ONE = [1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1]
LEVELS = BINS + ONE
MAP1D = [3, 2, 2, 0, 0, 1]


def layouts_of_maps():
    yield random(2, 3, 6, 8)
    yield random(2, 5, 6, 8, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    yield random(2, 3, 8, 6, dtype=torch.float64).transpose(2, 3)
    yield random(0, 3, 6, 8)


def wanting(tensor):
    return tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_()


def forward_samples(numbers=(), integers=(), own=None, saves=(0, 1, 4)):
    """Maps in every layout, a pyramid, a list; with and without gradient; `saves`: from nothing on"""
    samples = [([x], MAP, -1, save) for x in layouts_of_maps() for save in saves]
    samples.append(([random(2, 3, 7)], MAP1D, -1, saves[-1]))
    samples.append(([random(2, 3, 6, 8)], LEVELS, 0, saves[-1]))
    samples.append(([random(1, 3, 6, 8), random(1, 3, 5, 4)], LEVELS * 2, 1, saves[-1]))
    for inputs, window, order, save in samples:
        arguments = own, list(numbers), list(integers), window, order, save
        yield (inputs, *arguments), {}
        if save or len(saves) == 1:  # what a gradient needs
            yield ([wanting(x) for x in inputs], *arguments), {}


def avg_samples():
    yield from forward_samples(integers=(1, 0), saves=(0,))
    yield from forward_samples(integers=(0, 3), saves=(0,))


def mixed_samples():
    for (inputs, _, _, _, *windows, taps), more in forward_samples():
        for save in (0, SAVE_SLOPE):
            yield (inputs, None, [0.3], [], *windows, taps | save), more
            for alpha in (torch.tensor(0.5), torch.rand(inputs[0].shape[1])):
                alpha = alpha.to(inputs[0].dtype).requires_grad_(bool(save and taps))
                yield (inputs, alpha, [0.0], [], *windows, taps | save), more


def draw_samples(*numbers):
    yield from forward_samples(numbers, (7, 1, 2))
    yield from forward_samples(numbers, (0, 1, 2), torch.tensor([7]))


def saved_samples(function):
    """Backward operations are fed what the forward operation saved."""
    for (inputs, _, _, _, window, order, _), _ in forward_samples(saves=(1,)):
        if not inputs[0].requires_grad:
            output, taps = OPS.max_pool(inputs, None, [], [], window, order, 1)
            yield from function(inputs, output, taps, *geometry_of(inputs), window, order)


def geometry_of(inputs):
    """-> sizes, rank, layouts"""
    layouts = [int(cases.is_channels_last(x)) for x in inputs]
    return [n for x in inputs for n in x.shape], inputs[0].ndim - 2, layouts


def select_samples():
    def samples(inputs, output, taps, sizes, rank, layouts, window, order):
        yield (inputs, taps, window, order), {}
        yield ([wanting(x) for x in inputs], taps, window, order), {}

    return saved_samples(samples)


def tap_indices_samples():
    def samples(inputs, output, taps, sizes, rank, layouts, window, order):
        if order == -1:
            yield (taps, sizes[2:], window), {}

    return saved_samples(samples)


def select_backward_samples():
    def samples(inputs, output, taps, sizes, rank, layouts, window, order):
        for g in (torch.ones_like(output), wanting(torch.ones_like(output))):
            yield (g, taps, sizes, rank, layouts, window, order), {}

    return saved_samples(samples)


def avg_pool_backward_samples():
    def samples(inputs, output, taps, *geometry):
        for g in (torch.ones_like(output), wanting(torch.ones_like(output))):
            yield (g, None, [], None, [], [1, 0], *geometry), {}
            yield (g, None, [], None, [], [0, 3], *geometry), {}

    return saved_samples(samples)


def max_avg_pool_backward_samples():
    def samples(inputs, output, taps, sizes, rank, layouts, window, order):
        output, average, taps = OPS.max_avg_pool(inputs, None, [], [], window, order, 1)
        for prepare in (torch.ones_like, lambda y: wanting(torch.ones_like(y))):
            other = prepare(average) if order == -1 else None
            yield (prepare(output), other, [taps], None, [], [], sizes, rank, layouts, window, order), {}

    return saved_samples(samples)


def mixed_pool_backward_samples():
    def samples(inputs, output, taps, *geometry):
        for g in (torch.ones_like(output), wanting(torch.ones_like(output))):
            yield (g, None, [taps], None, [0.3], [], *geometry), {}
            alpha = torch.rand(inputs[0].shape[1]).to(g.dtype).requires_grad_(g.requires_grad)
            yield (g, None, [taps], alpha, [0.0], [], *geometry), {}

    return saved_samples(samples)


def parameter_backward_samples():
    def samples(inputs, output, taps, sizes, rank, layouts, window, order):
        for alpha in (torch.tensor(0.5), torch.rand(inputs[0].shape[1])):
            alpha = alpha.to(inputs[0].dtype)
            output, _, slope = OPS.mixed_pool(inputs, alpha, [0.0], [], window, order, 1 | SAVE_SLOPE)
            for g in (torch.ones_like(output), wanting(torch.ones_like(output))):
                yield (g, slope, alpha, window, sizes, rank, order), {}

    return saved_samples(samples)


def filters_samples():
    """-> input, filters, shared or one for each channel, with or without a bias, and window"""
    for i, x in enumerate((*layouts_of_maps(), random(2, 3, 7))):
        window = MAP if x.dim() == 4 else MAP1D
        taps = 6 if x.dim() == 4 else 2
        wide = torch.promote_types(x.dtype, torch.float32)
        yield x, random(2, 1 if i % 2 else x.shape[1], taps + i // 2 % 2, dtype=wide), window


def correlate_samples():
    for x, filters, window in filters_samples():
        yield (x, filters, window), {}
        yield (wanting(x), wanting(filters), window), {}


def correlate_input_samples():
    for x, filters, window in filters_samples():
        grad = torch.ones_like(OPS.correlate(x, filters, window))
        yield (grad, filters, x, window), {}
        yield (wanting(grad), wanting(filters), x, window), {}


def correlate_filters_samples():
    for x, filters, window in filters_samples():
        grad = torch.ones_like(OPS.correlate(x, filters, window))
        yield (grad, x, filters, window), {}
        yield (wanting(grad), wanting(x), filters, window), {}


def logistic_samples():
    for x in layouts_of_maps():
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        yield (x,), {}
        yield (wanting(x),), {}


def sppf_samples():
    same = [6, 5, 1, 2, 2, 1, 8, 3, 1, 1, 1, 1]
    for x in layouts_of_maps():
        yield (x, same, 2), {}


def numbers_of(name):
    """An operator's own, by default."""
    if name in NUMBERS:
        return NUMBERS[name]
    pooling = poolings.TABLE.get(name.removesuffix("_pool"))
    numbers = [float(argument.value) for argument in pooling.arguments if argument.annotation != "bool"]
    return [*numbers[1:], numbers[0]] if pooling.parameter else numbers


def pool_samples(name, numbers):
    saves = (0, SAVE_MOMENTS) if "moments" in RESULTS[name] else (0, 1, 4)
    yield from forward_samples(numbers, saves=saves)
    if "slope" in RESULTS[name]:
        for (inputs, _, _, _, window, order, saved), more in forward_samples(numbers, saves=saves):
            for own in (torch.tensor(0.7), torch.rand(inputs[0].shape[1])):
                own = own.to(inputs[0].dtype).requires_grad_(bool(saved))
                yield (inputs, own, [*numbers[:-1], 0.0], [], window, order, saved and saved | SAVE_SLOPE), more


def backward_samples(name, numbers):
    """Of a pooling whose gradient reads its input."""

    def samples(inputs, output, taps, *geometry):
        *_, window, order = geometry
        output, *others, moments = getattr(OPS, name)(inputs, None, numbers, [], window, order, SAVE_MOMENTS)[
            : 2 + ("second" in RESULTS[name])
        ]
        second = torch.ones_like(output) if others and order == -1 else None
        kept = [output, moments, *inputs]
        for prepare in (torch.ones_like, lambda y: wanting(torch.ones_like(y))):
            yield (prepare(output), second, kept, None, numbers, [], *geometry), {}

    return saved_samples(samples)


NUMBERS = {
    "lp_pool": [4.0, 9.0],
    "lp1_pool": [1.0, 9.0],
    "lp2_pool": [2.0, 9.0],
    "stochastic_relu_pool": [],
    "stochastic_softmax_pool": [0.5],
    "expectation_relu_pool": [],
}
SAMPLES = {
    "avg_pool": avg_samples,
    "mixed_pool": mixed_samples,
    "stochastic_relu_pool": draw_samples,
    "stochastic_softmax_pool": lambda: draw_samples(0.5),
    "select": select_samples,
    "tap_indices": tap_indices_samples,
    "select_backward": select_backward_samples,
    "avg_pool_backward": avg_pool_backward_samples,
    "max_avg_pool_backward": max_avg_pool_backward_samples,
    "mixed_pool_backward": mixed_pool_backward_samples,
    "parameter_backward": parameter_backward_samples,
    "correlate": correlate_samples,
    "correlate_input": correlate_input_samples,
    "correlate_filters": correlate_filters_samples,
    "logistic": logistic_samples,
    "sppf": sppf_samples,
    "draw_seed": lambda: iter([((random(2, 3), torch.empty(0)), {})]),
}
for pool in POOLS:
    numbers = numbers_of(pool)
    SAMPLES.setdefault(pool, partial(pool_samples, pool, numbers))
    if f"{pool}_backward" in OPERATORS:
        SAMPLES.setdefault(f"{pool}_backward", partial(backward_samples, pool, numbers))
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize("name", registered())
def test_every_operation_is_known(name):
    assert name in SAMPLES, "an operation needs samples for opcheck"
    assert name in poolings.OPERATORS, "an operation needs a row in poolings.OPERATORS"
    function = poolings.OPERATORS[name]
    if function in ("gated", "tree"):
        return  # which tests/test_filters.py compares with a reference
    assert any(pooling.function == function for pooling in poolings.POOLINGS), "no reference and cases"
    assert f'"{name}"' in BENCHMARKS.read_text(), f"no benchmark row runs {name}"


def test_known_operations_exist():
    assert set(SAMPLES) == set(poolings.OPERATORS) == set(registered())


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name):
    operation = getattr(OPS, name).default
    count = 0
    for args, kwargs in SAMPLES[name]():
        torch.library.opcheck(operation, args, kwargs, test_utils=CHECKS)
        count += 1
    assert count


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "draw_seed"])
def test_opcheck_with_dynamic_shapes(name):
    """aot_dispatch is slow: the first samples, with and without gradients, stand for all."""
    operation = getattr(OPS, name).default
    for args, kwargs in list(SAMPLES[name]())[:3]:
        torch.library.opcheck(operation, args, kwargs, test_utils="test_aot_dispatch_dynamic")


def described(outputs):
    outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [(tuple(y.shape), y.dtype, y.stride(), y.device.type) for y in outputs]


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "draw_seed"])
def test_fake_kernels_say_what_the_real_ones_do(name):
    operation = getattr(OPS, name)
    with torch.no_grad():
        for args, _ in SAMPLES[name]():
            with FakeTensorMode(allow_non_fake_inputs=False) as mode:
                fake_args = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, args)
                fake = described(operation(*fake_args))
            assert fake == described(operation(*args)), f"{name}{args[1:]}"


PUBLIC = {
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool2d indices": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "max_avg_pool2d": lambda x: F.max_avg_pool2d(x, 3, 2, "same"),
    "mixed_pool2d": lambda x: F.mixed_pool2d(x, 2),
    "stochastic_pool2d": lambda x: F.stochastic_pool2d(x, 2, seed=1, return_indices=True),
    "expectation": lambda x: F.stochastic_pool2d(x, 2, training=False),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (None, 2)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "global_max_avg_pool": F.global_max_avg_pool,
    **poolings.CALLS,
    "pyramid": F.spatial_pyramid_pool2d,
    "pyramid unflattened": lambda x: F.spatial_pyramid_pool2d(x, mode="max_avg", flatten=None),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("name", PUBLIC)
def test_meta_tensors(name, layout):
    x = cases.LAYOUTS[layout](random(2, 5, 7, 9))
    strange = torch.empty_strided(x.shape, x.stride(), device="meta")
    real, meta = described(PUBLIC[name](x)), described(PUBLIC[name](strange))
    assert [row[:3] for row in meta] == [row[:3] for row in real]
    assert all(row[3] == "meta" for row in meta)


@pytest.mark.parametrize("name", PUBLIC)
def test_fake_tensors(name):
    x = random(2, 5, 7, 9)
    with FakeTensorMode() as mode:
        fake = described(PUBLIC[name](mode.from_tensor(x)))
    assert fake == described(PUBLIC[name](x))


TWO = [2, 2, 2, 0, 0, 1] * 2


def malformed_calls():
    """Calls past the Python checks, each of which would read or write elsewhere."""
    x = random(1, 1, 4, 4)
    y, taps = OPS.max_pool([x], None, [], [], TWO, -1, 1)
    geometry = [1, 1, 4, 4], 2, [0], TWO, -1
    average = None, [], None, [], [0, 0]
    yield "window of seven numbers", lambda: OPS.max_pool([x], None, [], [], TWO[:7], -1, 1)
    yield "no input", lambda: OPS.max_pool([], None, [], [], TWO, -1, 1)
    yield "no output", lambda: OPS.max_pool([x], None, [], [], [0, 2, 2, 0, 0, 1] * 2, -1, 1)
    yield "stride 0", lambda: OPS.max_pool([x], None, [], [], [2, 2, 0, 0, 0, 1] * 2, -1, 1)
    yield "dilation 0", lambda: OPS.max_pool([x], None, [], [], [2, 2, 2, 0, 0, 0] * 2, -1, 1)
    yield "padding -1", lambda: OPS.max_pool([x], None, [], [], [2, 2, 2, -1, 0, 1] * 2, -1, 1)
    yield "a window behind the input", lambda: OPS.max_pool([x], None, [], [], [4, 2, 2, 0, 0, 1] * 2, -1, 1)
    yield "a window before the input", lambda: OPS.max_pool([x], None, [], [], [2, 2, 2, 2, 0, 1] * 2, -1, 1)
    yield "a window around the input", lambda: OPS.max_pool([x], None, [], [], [1, 2, 1, 4, 4, 9] * 2, -1, 1)
    yield "a window too large to count", lambda: OPS.max_pool([x], None, [], [], [1, 3, 1, 0, 0, 2**62] * 2, -1, 1)
    yield "huge output", lambda: OPS.max_pool([x], None, [], [], [2**40, 2, 2, 0, 0, 1] * 2, -1, 1)
    yield "unknown order", lambda: OPS.max_pool([x], None, [], [], TWO, 7, 1)
    yield "three bytes", lambda: OPS.max_pool([x], None, [], [], TWO, -1, 3)
    yield "integers", lambda: OPS.max_pool([x.int()], None, [], [], TWO, -1, 1)
    yield "two channels and one", lambda: OPS.max_pool([x, random(1, 2, 4, 4)], None, [], [], TWO * 2, 0, 1)
    yield (
        "seed of no element",
        lambda: OPS.stochastic_relu_pool([x], torch.empty(0, dtype=torch.int64), [], [0, 0, 0], TWO, -1, 1),
    )
    yield "offset of one", lambda: OPS.stochastic_relu_pool([x], None, [], [0, 0], TWO, -1, 1)
    yield "alpha of two channels", lambda: OPS.mixed_pool([x], torch.ones(2), [0.0], [], TWO, -1, 1)
    yield "alpha of another region", lambda: OPS.mixed_pool([x], torch.ones(1, 1, 3, 3), [0.0], [], TWO, -1, 1)
    yield "alpha of two samples", lambda: OPS.mixed_pool([x], torch.ones(2, 1, 1, 1), [0.0], [], TWO, -1, 1)
    yield "short taps", lambda: OPS.select([x], taps[:, :, :1], TWO, -1)
    yield "short gradient", lambda: OPS.select_backward(y[:, :, :1], taps, *geometry)
    yield "sizes of one axis", lambda: OPS.select_backward(y, taps, [1, 1, 4], 2, [0], TWO, -1)
    yield "another rank", lambda: OPS.select_backward(y, taps, [1, 1, 4, 4], 3, [0], TWO, -1)
    yield "no sizes", lambda: OPS.select_backward(y, taps, [], 2, [0], TWO, -1)
    no_taps = torch.zeros(0, 2, 3, 3, dtype=torch.uint8)
    yield "taps of no sample in another shape", lambda: OPS.tap_indices(no_taps, [6, 8], MAP)
    yield "alpha elsewhere", lambda: OPS.mixed_pool([x], torch.ones(1, device="meta"), [0.0], [], TWO, -1, 1)
    yield "rank 2**63 - 1", lambda: OPS.parameter_backward(y, y, torch.ones(1), TWO, [1, 1, 4, 4], 2**63 - 1, -1)
    yield "rank -2", lambda: OPS.parameter_backward(y, y, torch.ones(1), TWO, [1, 1, 4, 4], -2, -1)
    wide = torch.ones(1, 1, 4)
    yield "filters of another window", lambda: OPS.correlate(x, wide[:, :, :2], TWO)
    yield "filters of two channels", lambda: OPS.correlate(x, wide.expand(1, 2, 4), TWO)
    yield "filters of another type", lambda: OPS.correlate(x, wide.double(), TWO)
    yield "no filter", lambda: OPS.correlate(x, wide[:0], TWO)
    yield "filters of bins", lambda: OPS.correlate(x, wide, BINS)
    yield "products of another shape", lambda: OPS.correlate_input(y[:, :, :1], wide, x, TWO)
    yield "products of another type", lambda: OPS.correlate_filters(y.double(), x, wide, TWO)
    yield "an input of no plane", lambda: OPS.correlate(x[0, 0], wide, TWO)
    yield "half a share", lambda: OPS.logistic(x.half())
    yield "maxima of another size", lambda: OPS.sppf(x, TWO, 1)
    yield "no maxima", lambda: OPS.sppf(x, [4, 3, 1, 1, 1, 1] * 2, 0)
    bins = [1, 0, 1, 0, 0, 1]
    of_list = [1, 1, 4, 1, 64, 4], 1, [0, 0], bins * 2, 0
    yield "sizes of other channels", lambda: OPS.avg_pool_backward(random(2, 1), *average, *of_list)
    yield "an empty axis", lambda: OPS.avg_pool_backward(y, *average, [1, 4, 0], 1, [0], bins, -1)
    yield "no channel", lambda: OPS.avg_pool_backward(random(1, 0, 1), *average, [1, 0, 4], 1, [0], bins, -1)
    for number, name in ((2, "stride"), (3, "padding"), (4, "padding behind"), (5, "dilation")):
        damaged = [1, 0, 1, 0, 0, 1]
        damaged[number] += 2
        yield f"bins with {name}", lambda damaged=damaged: OPS.max_pool([x], None, [], [], damaged * 2, -1, 1)
        yield (
            f"even bins with {name}",
            lambda damaged=[2, *damaged[1:]]: OPS.avg_pool([x], None, [], [0, 0], damaged * 2, -1, 0),
        )
        yield (
            f"gradient of bins with {name}",
            lambda damaged=[1, *damaged[1:]]: OPS.max_avg_pool_backward(
                *[y[:, :, :1, :1]] * 2, [taps[:, :, :1, :1]], None, [], [], [1, 1, 4, 4], 2, [0], damaged * 2, -1
            ),
        )
    yield (
        "window of 2**31 elements",
        lambda: OPS.avg_pool([x], None, [], [0, 0], [1, 2**31, 1, 2**30, 2**30, 1] * 2, -1, 0),
    )
    yield "2**64 bins", lambda: OPS.max_pool([x], None, [], [], [2**32, 0, 1, 0, 0, 1] * 2, -1, 0)
    many = [2**31, 0, 1, 0, 0, 1]
    yield "2**63 bins of two levels", lambda: OPS.max_pool([x], None, [], [], many * 4, 0, 0)
    yield "2**64 bins of no sample", lambda: OPS.avg_pool([x[:0]], None, [], [0, 0], [2**32, 0, 1, 0, 0, 1] * 2, -1, 0)
    empty = random(0, 1, 1, 1)
    yield "2**66 elements", lambda: OPS.avg_pool_backward(empty, *average, [0, 1, 2**33, 2**33], 2, [0], ONE, -1)
    yield "another channel", lambda: OPS.avg_pool_backward(y, *average, [1, 5, 4, 4], 2, [0], TWO, -1)


def test_malformed_calls_are_refused():
    for what, call in malformed_calls():
        try:
            call()
        except RuntimeError:
            continue
        raise AssertionError(f"{what} was accepted")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_taps_in_the_padding_reach_no_other_plane(dtype, channels_last):
    """No max pooling saves such taps, but a call by hand may bring them."""
    window = [6, 3, 1, 1, 1, 1, 6, 3, 1, 1, 1, 1]
    taps = torch.zeros(2, 4, 6, 6, dtype=torch.uint8)  # above and left of the output
    grad = torch.ones(2, 4, 6, 6, dtype=dtype)
    grad[0], grad[:, 0] = 0, 0
    if channels_last:
        taps, grad = (t.contiguous(memory_format=torch.channels_last) for t in (taps, grad))
    (gradient,) = OPS.select_backward(grad, taps, [2, 4, 6, 6], 2, [int(channels_last)], window, -1)
    assert not gradient[0].any() and not gradient[:, 0].any()
    assert (gradient[1, 1:, :5, :5] == 1).all()


def test_a_byte_for_each_tap_of_a_huge_window():
    """Whose taps no list can hold; all are in the padding but one."""
    window = [1, 2**10, 1, 2**9, 2**9, 1] * 3
    taps = torch.zeros(1, 1, 1, 1, 1, dtype=torch.uint8)
    (gradient,) = OPS.select_backward(random(1, 1, 1, 1, 1), taps, [1, 1, 1, 1, 1], 3, [0], window, -1)
    assert gradient.item() == 0


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("tap", [0, 9, 255, 2**30, -1, -(2**31)])
def test_lookups_of_taps_by_hand_stay_in_the_plane(tap, channels_last):
    """Tap 0 of the corner is padding, the others are none: the value is 0, the index the window's first element."""
    window = [6, 3, 1, 1, 1, 1, 6, 3, 1, 1, 1, 1]
    taps = torch.full((2, 4, 6, 6), tap, dtype=torch.uint8 if 0 <= tap < 256 else torch.int32)
    x = torch.arange(1.0, 289).reshape(2, 4, 6, 6)
    if channels_last:
        taps, x = (t.contiguous(memory_format=torch.channels_last) for t in (taps, x))
    values, indices = OPS.select([x], taps, window, -1), OPS.tap_indices(taps, [6, 6], window)
    before = torch.tensor([0, 0, 1, 2, 3, 4])  # the first row or column inside the plane
    looked_up = slice(0, 1) if tap == 0 else slice(None)  # of the former, the first row of windows
    assert not values[:, :, looked_up].any()
    assert (indices[:, :, looked_up] == (before[:, None] * 6 + before)[looked_up]).all()
