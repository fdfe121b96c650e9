"""A random call: its results against what is expected, its form, and the same bits on every path where promised."""

import backends
import cases
import numpy as np
import torch
from comparison import assert_bitwise
from fuzz_expected import MET, Problem, kind_of

import fastpool._C as extension
import fastpool.functional as F
from fastpool import _kinds

CAPABILITIES = ("baseline", "avx2", "avx512")
BEST = extension.build_info()["cpu_capability"]
HERE = CAPABILITIES[: CAPABILITIES.index(BEST) + 1]
# Other ways to compute the same: capability, schedule, whether all bits are promised.
AGAIN, TWO_THREADS, NO_GRADIENT, CARD, EMULATED = "again", "2 threads", "no gradient", "CUDA", "emulated CUDA"
PATHS = {
    AGAIN: (None, None, True),
    NO_GRADIENT: (None, None, False),
    "exact": (None, "exact", False),
    "baseline, exact": ("baseline", "exact", False),
    **{name: (name, None, False) for name in HERE},
    **({EMULATED: (None, "cuda", False)} if extension.build_info()["emulation"] else {}),
}
# Each of the CPU's schedules, wherever it fits.
FORCED = [name for name in extension.SCHEDULES if name.startswith(("forward", "backward")) and "exact" not in name]
PATHS |= {name: (None, name, False) for name in FORCED}

HAS_CARD = torch.cuda.is_available() and bool(extension.build_info()["cuda"])


def check(trial, choose):
    """Raises AssertionError, or what the call raises, where the trial does not give what it must."""
    problem, options = Problem(trial), dict(trial.options)
    count(problem)
    parameters = trial.parameters(problem.output_shape, problem.shape[1])
    options |= parameters
    given = [*problem.inputs, *parameters.values()]
    before = [x.clone() for x in given]
    results = run(problem, options, None)
    kind = kind_of(problem, {**options, "seed": seed_of(trial)})
    expected = kind.results(results)
    assert results.keys() == expected.keys(), f"results {list(results)}, expected {list(expected)}"
    g = None
    for name, y in results.items():
        check_form(problem, name, y)
        expected[name].check(y, name)
    if trial.records:
        g = upstream(trial, [y for name, y in results.items() if name != "indices"])
        copies = [part if part is None else part.clone() for part in g]
        results = run(problem, options, g)
        planes = problem.in_planes(g, kind.outputs)
        expected |= {f"gradient {i}": e for i, e in enumerate(kind.gradients(planes)) if e is not None}
        if parameters and trial.parameters_learned:
            expected |= {f"gradient of {name}": e for name, e in kind.parameter_gradients(planes).items()}
        for name, y in results.items():
            check_gradient_form(problem, name, y, options)
            if name in expected:
                expected[name].check(y, name)
        for part, copy in zip(g, copies):
            if part is not None:
                assert_bitwise(part, copy, "the incoming gradient was modified")
    for path in paths(trial, choose):
        check_path(problem, options, g, results, expected, path)
    for x, copy in zip(given, before):
        assert_bitwise(x, copy, "the input or a parameter was modified")


def run(problem, options, g, move=torch.Tensor.detach):
    """g: a gradient for each output, None for no backward pass; move: to where it runs -> every result by its name"""
    trial = problem.trial
    leaves = [move(x).requires_grad_(trial.records) for x in problem.inputs]
    wanted = list(leaves)
    parameters = {name: move(y) for name, y in options.items() if isinstance(y, torch.Tensor)}
    if trial.parameters_learned and trial.records:
        wanted += [y.requires_grad_() for y in parameters.values()]
    options = {**options, **parameters}
    arguments = {**trial.arguments(), **options}
    arguments = with_seed(trial, arguments) if leaves[0].is_cpu else arguments | seed_elsewhere(trial)
    outputs = getattr(F, trial.function)(leaves if trial.sizes else leaves[0], **arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    second = "indices" if options.get("return_indices") else "second output"
    results = {name: y.detach() for name, y in zip(("output", second, "third output"), outputs)}
    if g is not None:
        pairs = [(y, move(part)) for y, part in zip(outputs, g) if part is not None]
        found = torch.autograd.grad([y for y, _ in pairs], wanted, [part for _, part in pairs])
        names = [*(f"gradient {i}" for i in range(len(leaves))), *(f"gradient of {name}" for name in parameters)]
        results |= dict(zip(names, found))
    return {name: y.cpu() for name, y in results.items()}


def with_seed(trial, arguments):
    """Gives the seed in one of the ways there are."""
    if not draws(trial):
        return arguments
    seed = arguments.pop("seed")
    if trial.draw_seed == "int":
        arguments["seed"] = seed
    elif trial.draw_seed == "tensor":
        signed = seed - 2**64 if seed >= 2**63 else seed
        arguments["seed"] = torch.full(((), (1,), (1, 1))[trial.number % 3], signed, dtype=torch.int64)
    elif trial.draw_seed == "generator":
        arguments["generator"] = torch.Generator().manual_seed(trial.number)
    else:
        torch.manual_seed(trial.number)
    return arguments


def seed_elsewhere(trial):
    """Another device's generator would draw another seed."""
    return {"seed": seed_of(trial)} if draws(trial) else {}


def draws(trial):
    return trial.kind == "stochastic" and trial.options.get("training", True)


def seed_of(trial):
    """What `with_seed` comes to."""
    if not draws(trial) or trial.draw_seed in ("int", "tensor"):
        return trial.options.get("seed")
    generator = torch.Generator().manual_seed(trial.number)
    return int(torch.randint(2**63 - 1, (1,), dtype=torch.int64, generator=generator))


def upstream(trial, outputs):
    """-> a gradient for each output, in the trial's layout; None for one that is left out"""
    rng, found = trial.generator("gradient"), []
    for i, y in enumerate(outputs):
        shape = tuple(y.shape)
        g = rng.normal(size=shape) if trial.gradient == "normal" else rng.integers(-3, 4, shape).astype(float)
        if trial.gradient == "special":
            g = cases.sprinkle(g, rng, 0.1, np.nan, np.inf, -np.inf)
        fits = y.ndim in (4, 5) or (y.ndim > 1 and trial.gradient_layout not in cases.NEEDS_4D)
        g = cases.LAYOUTS[trial.gradient_layout if fits else "contiguous"](torch.from_numpy(g).to(y.dtype))
        found.append(None if trial.left_out == i else g)
    return found


def check_form(problem, name, y):
    """Dtype and layout; the shape is compared with the values."""
    trial, x = problem.trial, problem.inputs[0]
    assert y.dtype == (torch.int64 if name == "indices" else trial.dtype), f"{name} has dtype {y.dtype}"
    if problem.has_batch_axis and trial.form != "pyramid" and y.ndim == x.ndim and cases.is_channels_last(x):
        is_last = y.is_contiguous(memory_format=cases.channels_last_format(x))
        assert is_last, f"{name} is not channels-last but {y.stride()}"
    else:
        assert y.is_contiguous(), f"{name} is not contiguous but {y.stride()}"


def check_gradient_form(problem, name, y, options):
    if not name.startswith("gradient"):
        return
    of_parameter = name.startswith("gradient of ")
    like = options[name.split()[2]] if of_parameter else problem.inputs[int(name.split()[1])]
    assert y.dtype == like.dtype, f"{name} has dtype {y.dtype}"
    assert y.shape == like.shape, f"{name} has shape {tuple(y.shape)}"
    if of_parameter:
        return
    if like.is_contiguous():
        assert y.is_contiguous(), f"{name} has strides {y.stride()}, the input {like.stride()}"
    elif problem.has_batch_axis and cases.is_channels_last(like):
        assert cases.is_dense_channels_last(y), f"{name} has strides {y.stride()}, the input {like.stride()}"


def paths(trial, choose):
    forced, card = choose.choice(FORCED), [CARD] if HAS_CARD else []
    others = PATHS.keys() - FORCED
    if trial.size != "small":
        some = choose.sample(sorted(others - {EMULATED}), 2 if trial.size == "large" else 1)
        return [TWO_THREADS, *some, forced, *card]
    return [*choose.sample(sorted(others), choose.choice([1, 2])), forced, *card]


def check_path(problem, options, g, results, expected, path):
    MET[f"path: {path}"] += 1
    capability, schedule, all_bits = PATHS.get(path, (None, None, path != CARD))
    move = backends.on_device if path == CARD else torch.Tensor.detach
    extension.set_cpu_capability(capability)
    extension.set_schedule(schedule)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if path == TWO_THREADS else threads)
    pool_again = _kinds.POOL_AGAIN
    if path == EMULATED:
        _kinds.POOL_AGAIN = set()  # as on a card, where gradients find no moments again
    try:
        with torch.set_grad_enabled(path != NO_GRADIENT):
            others = run(problem, options, None if path == NO_GRADIENT else g, move)
    finally:
        extension.set_cpu_capability(None)
        extension.set_schedule(None)
        torch.set_num_threads(threads)
        _kinds.POOL_AGAIN = pool_again
    for name, y in others.items():
        check_gradient_form(problem, name, y, options)
        if name in ("output", "indices"):
            check_form(problem, name, y)
        if all_bits or has_promised_bits(problem, name):
            assert_bitwise(y, results[name], f"{name}, {path}")
        elif name in expected:
            expected[name].check(y, f"{name}, {path}")


def has_promised_bits(problem, name):
    """Whether a result has the same bits on every path."""
    trial = problem.trial
    if trial.kind in ("max", "min") or draws(trial):
        return True
    if trial.kind == "max_avg" and trial.form != "pyramid" and name == "output":
        return True
    return problem.few_taps and (trial.kind, name) in (("avg", "output"), ("max_avg", "second output"))


def count(problem):
    trial = problem.trial
    MET.update(
        [
            f"function: {trial.function}",
            f"kind: {trial.kind}" + (" in evaluation" if trial.options.get("training") is False else ""),
            f"dtype: {trial.dtype}",
            f"layout: {trial.case.layout}",
            f"pattern: {trial.case.pattern}",
        ]
    )
    if trial.records:
        MET.update([f"gradient: {trial.gradient}", f"gradient layout: {trial.gradient_layout}"])
    many_taps = any((windows.sizes > 256).any() for _, windows in problem.items)
    for name, is_so in (
        (f"{trial.size} inputs", True),
        ("more than 256 taps", many_taps),
        ("lists", trial.sizes),
        ("empty batches", problem.inputs[0].numel() == 0),
    ):
        MET[name] += bool(is_so)
    info = torch.finfo(trial.dtype)
    for x, _ in problem.items:
        size = np.abs(x)
        MET["elements"] += x.size
        for name, which in (
            ("NaN", np.isnan(x)),
            ("+inf", x == np.inf),
            ("-inf", x == -np.inf),
            ("subnormal", (size < info.smallest_normal) & (size > 0)),
            ("-0.0", (size == 0) & np.signbit(x)),
            ("above half the largest number", (size > info.max / 2) & (size < np.inf)),
        ):
            MET[f"element: {name}"] += int(which.sum())
