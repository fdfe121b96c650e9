"""Registered operators called by hand with damaged arguments: each is refused, or gives what its fake kernel says.

    PYTHONPATH=. python tests/damaged.py [--first 0] [--calls 2000]

Each call has a number, which alone decides it: `--first 1234 --calls 1` repeats one. A child makes the calls and names
each before making it, so that a crash is reported with its call; the next child goes on behind it.
"""

import argparse
import faulthandler
import math
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from functools import cache

import backends
import cases
import test_operators
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import fastpool._C as extension

NUMBERS = (-(2**63), -(2**40), -7, -1, 0, 1, 2, 3, 5, 255, 256, 257, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62)
NUMBERS += (2**63 - 1,)
REALS = (0.0, -0.0, -1.0, 1e-45, 1e-320, 1e300, math.inf, -math.inf, math.nan)
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
)
DTYPES += (torch.bool, torch.complex64)
REFUSALS = (RuntimeError, ValueError, TypeError)
OPERATORS = [name for name in test_operators.SAMPLES if name != "draw_seed"]  # which is Python
MOST_BYTES = 64 * 2**20
MOST_SECONDS = 600  # of a call under a sanitizer on a busy machine


def number(choose, n):
    return choose.choice([*NUMBERS, n - 1, n + 1, -n, 2 * n])


def numbers(choose, old):
    new, at = list(old), choose.randrange(len(old)) if old else 0
    action = choose.random()
    if not old or action < 0.05:
        new.insert(at, choose.choice(NUMBERS))
    elif action < 0.1:
        del new[at]
    elif action < 0.12:
        new = choose.choice([[], new * 2, new[: len(new) // 2], new[::-1]])
    elif action < 0.25 and len(new) % 6 == 0:
        new[at - at % 6 + 1] = 0  # an adaptive axis, whose other numbers should be 1, 0, 0, 1
    elif action < 0.35 and len(new) % 6 == 0:
        of_axis = slice(at - at % 6, at - at % 6 + 6)
        new[of_axis] = [choose.choice((0, 1, 2, 3, 5, 9, 2**31, 2**40)) for _ in range(6)]
    else:
        new[at] = number(choose, new[at])
    return new


def random_bytes(choose, x):
    generator = torch.Generator().manual_seed(choose.getrandbits(32))
    if x.dtype == torch.bool:
        return torch.rand(x.shape, generator=generator) < 0.5
    count = x.numel() * x.element_size()
    return torch.randint(256, (count,), dtype=torch.uint8, generator=generator).view(x.dtype).view(x.shape)


def another_length(choose, x):
    shape = list(x.shape) or [1]
    shape[choose.randrange(len(shape))] = choose.choice((0, 1, 2, 3, 7, 8, 9))
    return torch.ones(shape).to(x.dtype)


TENSORS = (
    random_bytes,
    random_bytes,
    another_length,
    another_length,
    lambda choose, x: x.to(choose.choice(DTYPES)),
    lambda choose, x: x.flatten(),
    lambda choose, x: x.unsqueeze(choose.randrange(x.dim() + 1)),
    lambda choose, x: x.squeeze(),
    lambda choose, x: x.new_zeros(()),
    lambda choose, x: x.new_zeros(0),
    lambda choose, x: x.transpose(0, -1) if x.dim() else x,
    lambda choose, x: x[..., :1] if x.dim() else x,
    lambda choose, x: x[..., 1:] if x.dim() else x,
    lambda choose, x: torch.stack([x, x], -1)[..., 0],
    lambda choose, x: x.new_zeros(()).expand(x.shape),
    lambda choose, x: x.new_zeros(1).expand(2**40),
    lambda choose, x: x.new_zeros(1).expand(2, 3, 2**31, 2**10),
    lambda choose, x: x.flatten()[:1].as_strided((2, 3), (0, 0)) if x.numel() else x,
    lambda choose, x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous(),
    lambda choose, x: x.to_sparse() if x.dim() else x,
    lambda choose, x: None,
)


def tensor(choose, x):
    if x is None or x.layout != torch.strided or x.device.type != "cpu" or x.numel() > 2**20:
        return x  # damaged enough
    return choose.choice(TENSORS)(choose, x)


def tensors(choose, old):
    new, at = list(old), choose.randrange(len(old)) if old else 0
    action = choose.random()
    if not old or action < 0.05:
        return choose.choice([[], new * 2, [torch.ones(1, 3, 4, 4)]])
    if action < 0.15:
        del new[at]
    elif action < 0.25:
        new.append(tensor(choose, new[at]))
    else:
        new[at] = tensor(choose, new[at])
    return new


def damaged(choose, value):
    if isinstance(value, torch.Tensor):
        return tensor(choose, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return number(choose, value)
    if isinstance(value, float):
        return choose.choice(REALS)
    if value is None:
        return choose.choice(
            [torch.tensor([7]), torch.tensor(0.5), torch.ones(3), torch.ones(0), torch.ones(1, 1, 3, 4)]
        )
    if value and isinstance(value[0], (torch.Tensor, type(None))):
        return tensors(choose, value)
    return numbers(choose, value)


# Of shapes that reach the schedules which small samples do not: many planes, long rows, large windows.
RICHER = (
    "many small planes",
    "nan 2x2",
    "one wide plane",
    "very wide 1d overlapping",
    "short rows clipped",
    "folded",
    "folded 3d",
    "16x16 taps clipped",
    "300 taps clipped, 40 planes",
    "300 taps channels_last",
    "70 channels_last clipped",
    "adaptive 35 planes",
    "adaptive channels_last 3d",
    "adaptive mixed bin sizes",
    "global 7x7",
    "global 20x40 channels_last",
)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastpool":
            self.calls.setdefault(function._opname, []).append(tree_map_only(torch.Tensor, torch.Tensor.detach, args))
        return function(*args, **(kwargs or {}))


@cache
def recorded():
    """-> the operator calls that functions make for some of the cases"""
    recorder = Recorder()
    with torch.enable_grad(), recorder:
        for i, name in enumerate(RICHER):
            case = next(case for case in cases.ALL if case.name == name)
            x = backends.prepared(case, cases.DTYPES[i % len(cases.DTYPES)])
            backends.selections(case, x)
            backends.rounded(case, x)
        for name in backends.PYRAMIDS:
            backends.pyramids(name, torch.randn(backends.PYRAMIDS[name][0], requires_grad=True))
    return recorder.calls


@cache
def samples(name):
    return [args for args, _ in test_operators.SAMPLES[name]()]


def sizes_of(name, args):
    """-> the shapes of the inputs, which backward operators are told by `sizes`"""
    named = dict(zip((a.name for a in getattr(test_operators.OPS, name).default._schema.arguments), args))
    if "inputs" in named:
        return [tuple(x.shape) for x in named["inputs"]]
    if name == "tap_indices":
        return [(*named["taps"].shape[:2], *named["size"])]
    step = named["rank"] + 2
    return [tuple(named["sizes"][i : i + step]) for i in range(0, len(named["sizes"]), step)] if step > 0 else []


def starts_behind(name, args):
    """Whether a sliding window starts behind its axis, which no output is large enough to excuse."""
    window = next((value for value in args if isinstance(value, (list, tuple)) and len(value) % 6 == 0), [])
    try:
        spatial = [n for sizes in sizes_of(name, args) for n in sizes[2:]]
        axes = [window[i : i + 6] for i in range(0, len(window), 6)]
        lengths = [n for n in spatial for _ in range(len(axes) // len(spatial))]
        return any(
            kernel > 0 and stride > 0 and (output - 1) * stride >= max(lengths) + before
            for output, kernel, stride, before, _, _ in axes
        )
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, IndexError):
        return False


def without_memory(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def predicted(name, args):
    """-> what the fake kernel says of the results; None where it, too, refuses the arguments or no memory holds them"""
    try:
        return described(getattr(test_operators.OPS, name)(*tree_map_only(torch.Tensor, without_memory, args)))
    except Exception:
        return None


def described(outputs):
    return [(tuple(y.shape), y.dtype) for y in tree_leaves(outputs)]


def bytes_of(prediction):
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in prediction)


def call_of(number):
    """-> schedule, operator, arguments, prediction"""
    choose = random.Random(number)
    schedules = ["tiled"] * 4 + ["exact"] + ["cuda"] * extension.build_info()["emulation"]
    while True:
        name = choose.choice(OPERATORS)
        args = list(choose.choice(choose.choice([samples(name), recorded().get(name, samples(name))])))
        for _ in range(choose.choice((1, 1, 2, 3))):
            at = choose.randrange(len(args))
            args[at] = damaged(choose, args[at])
        prediction = predicted(name, args)
        # A valid call of such a size would only take time.
        if prediction is None or bytes_of(prediction) <= MOST_BYTES or starts_behind(name, args):
            return choose.choice(schedules), name, args, prediction


def in_words(value):
    if isinstance(value, torch.Tensor):
        strides = f" strides {value.stride()}" if value.layout == torch.strided else f" {value.layout}"
        return f"<{value.dtype} {tuple(value.shape)}{strides} {value.device}>"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_words, value))}]"
    return repr(value)


def outcome(name, args, prediction):
    """-> "refused", "returned", or what is wrong"""
    operation = getattr(test_operators.OPS, name)
    results = []
    for fill in (False, True):
        # Where memory has been filled with NaN, an element that nobody writes has another value.
        torch.utils.deterministic.fill_uninitialized_memory = fill
        try:
            results.append(operation(*args))
        except REFUSALS:
            return "refused"
        except Exception as error:
            return f"WRONG: raised {error!r}"
    if prediction is None:
        return f"WRONG: returned {described(results[0])}, but its fake kernel refuses the call"
    if described(results[0]) != prediction:
        return f"WRONG: returned {described(results[0])}, but its fake kernel predicts {prediction}"
    for one, other in zip(*map(tree_leaves, results), strict=True):
        if not torch.equal(as_bytes(one), as_bytes(other)):
            return "WRONG: an element of the result is not written"
    return "returned"


def as_bytes(x):
    return x.contiguous().view(-1).view(torch.uint8) if x.numel() else x


def make(first, calls):
    """What a child does: a line for each call, of which a crash leaves the first half."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "san.so" not in os.environ.get("LD_PRELOAD", ""):  # a sanitizer takes terabytes of addresses and tells more
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
        faulthandler.enable()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(2)
    with torch.no_grad():
        for i in range(first, first + calls):
            schedule, name, args, prediction = call_of(i)
            print(f"{i} {schedule} {name}({', '.join(map(in_words, args))})", end=" -> ", flush=True)
            extension.set_schedule(schedule)
            faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
            print(outcome(name, args, prediction), flush=True)
            faulthandler.cancel_dump_traceback_later()


def run(first, calls):
    """-> how many calls ended how, and the lines of those that went wrong"""
    counts, wrong, last = Counter(), [], first + calls
    while first < last:
        command = [sys.executable, __file__, "--child", "--first", str(first), "--calls", str(last - first)]
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        lines = child.stdout.splitlines()
        for line in lines:
            counts[line.rsplit(" -> ", 1)[-1]] += line.endswith((" refused", " returned"))
            wrong += [line] * (" -> WRONG" in line)
        if child.returncode:
            report = "\n".join(child.stderr.splitlines()[:60])
            if not lines or not lines[-1].endswith(" -> "):
                raise RuntimeError(f"between calls, behind {lines[-1:]}: exit {child.returncode}\n{report}")
            wrong.append(f"{lines[-1]}CRASH: exit {child.returncode}\n{report}")
        first = int(lines[-1].split()[0]) + 1 if lines else last
    return +counts, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--child", action="store_true", help="make the calls here")
    options = parser.parse_args()
    if options.child:
        make(options.first, options.calls)
    else:
        counts, wrong = run(options.first, options.calls)
        print(*wrong, sep="\n")
        print(f"{options.calls} damaged calls: {dict(counts)}, {len(wrong)} went wrong")
        sys.exit(bool(wrong))
