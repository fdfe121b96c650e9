"""Small faults of the library, of which the tests must notice each: `make mutants`.

One build holds them all. In a copy of the sources every text of the table becomes a choice between itself and its
faulty form, made by the environment variable FASTPOOL_MUTANT; then each row's tests run with its number. What they
miss, the whole suite gets once more. A crash or a hang counts as noticed.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "mutants"
LOGS = COPY / "logs"
COPIED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "fastpool", "tests", "examples", "benchmarks")
LIMIT, LIMIT_OF_ALL = 300, 3600  # seconds
WHOLE_SUITE = "tests --ignore tests/test_mutants.py"


class Mutant(NamedTuple):
    name: str
    file: str
    old: str  # an expression, or where it holds a semicolon, statements; found exactly once in the file
    new: str
    tests: str  # as pytest takes them
    equivalent: str = ""  # why no test can tell it from the original

    @property
    def number(self):
        """Does not change with other rows, so that a new one recompiles only what it patches."""
        return zlib.crc32(self.name.encode()) & 0x7FFFFFFF


FORWARD = "tests/test_forward.py"
BACKWARD = "tests/test_backward.py"
DRAW = "tests/test_draw.py"
PYRAMID = "tests/test_pyramid.py"
MIXED = "tests/test_mixed.py"
MEMORY = "tests/test_memory.py"
BITS = "tests/test_determinism.py"
GUARD = "tests/test_guard_pages.py -k"
RANDOM = "tests/test_random_windows.py"
ERRORS = "tests/test_errors.py"
CUDA = "tests/test_cuda_schedules.py"
TORCH = "tests/test_torch_parity.py"
AUTOGRAD = "tests/test_autograd.py"
COMPILE = "tests/test_compile.py"
OPERATORS = "tests/test_operators.py"
MODULES = "tests/test_modules.py"

WINDOWS = [
    Mutant(
        "clipped window begins in the padding",
        "csrc/core/window.h",
        "larger(-origin, 0)",
        "larger(-origin - 1, 0)",
        f"{FORWARD} -k clipped",
    ),
    Mutant(
        "window ends behind the input",
        "csrc/core/window.h",
        "larger(smaller(kernel, in - origin) - clipped, 0)",
        "larger(smaller(kernel, in - origin + 1) - clipped, 0)",
        f"{FORWARD} -k ceil_mode",
    ),
    Mutant(
        "dilated window begins in the padding",
        "csrc/core/window.h",
        "origin < 0 ? ceil_div(-origin, dilation) : 0",
        "origin < 0 ? -origin / dilation : 0",
        f"{FORWARD} -k dilated",
    ),
    Mutant(
        "dilated window loses its last element",
        "csrc/core/window.h",
        "origin >= in ? 0 : ceil_div(in - origin, dilation)",
        "origin >= in ? 0 : (in - origin) / dilation",
        f"{FORWARD} -k dilated",
    ),
    Mutant(
        "clipped window counts as whole",
        "csrc/core/window.h",
        "larger(begin, smaller(out, last / stride + 1))",
        "larger(begin, smaller(out, last / stride + 2))",
        f"{FORWARD} -k clipped",
    ),
    Mutant(
        "first whole window too early",
        "csrc/core/window.h",
        "smaller(ceil_div(before, stride), out)",
        "smaller(before / stride, out)",
        f"{FORWARD} -k clipped",
    ),
    Mutant(
        "window one beyond the end is not clipped",
        "csrc/core/window.h",
        "(out - 1) * stride - before + extent() > in",
        "(out - 1) * stride - before + extent() > in + 1",
        f"{FORWARD} {RANDOM} -k 'ceil_mode or asymmetric or random_windows'",
    ),
    Mutant(
        "padding behind is not counted",
        "csrc/core/window.h",
        "ceil_div(in + after - (o * stride - before), dilation)",
        "ceil_div(in - (o * stride - before), dilation)",
        f"{FORWARD} -k clipped",
    ),
    Mutant(
        "last bin that covers an element",
        "csrc/core/window.h",
        "ceil_div((i + 1) * out, in)",
        "(i + 1) * out / in",
        f"{BACKWARD} -k adaptive",
    ),
    Mutant(
        "output before the first that covers",
        "csrc/core/window.h",
        "padded < extent()",
        "padded <= extent()",
        f"{AUTOGRAD} -k gradcheck",
    ),
    Mutant(
        "last output that covers an element",
        "csrc/core/window.h",
        "over_stride(padded) + 1",
        "over_stride(padded)",
        f"{BACKWARD} -k overlapping",
    ),
    Mutant(
        "dilated window covers what it steps over",
        "csrc/core/window.h",
        "distance % dilation == 0 && distance / dilation < kernel",
        "distance / dilation < kernel",
        f"{BACKWARD} -k dilated",
    ),
    Mutant(
        "slices of a window run into each other",
        "csrc/core/window.h",
        "tap / width % height",
        "tap / width",
        f"{FORWARD} {BITS} -k '3d'",
    ),
    Mutant(
        "first element of a window that draws nothing",
        "csrc/core/window.h",
        "axis[2].window(o[2]).start",
        "axis[2].position(o[2], 0)",
        f"{DRAW} -k 'negative or clipped'",
    ),
]

PHILOX = [
    Mutant(
        "upper half of the seed",
        "csrc/core/philox.h",
        "uint32_t(seed >> 32)",
        "uint32_t(0)",
        f"{DRAW} -k taps",
    ),
    Mutant(
        "upper half of the sample",
        "csrc/core/philox.h",
        "uint32_t(sample >> 32)",
        "uint32_t(0)",
        f"{DRAW} -k 'offset'",
    ),
    Mutant(
        "one bit of a uniform",
        "csrc/core/philox.h",
        "float(int32_t(word >> 8)) * 0x1p-24f",
        "float(int32_t(word >> 9)) * 0x1p-23f",
        f"{DRAW} -k every_bit",
    ),
    Mutant(
        "channel offset of lone outputs",
        "csrc/core/problem.h",
        "uint32_t(p.offset_channel + c)",
        "uint32_t(c)",
        f"{DRAW} -k offset",
    ),
    Mutant(
        "sample offset of lone outputs",
        "csrc/core/problem.h",
        "uint64_t(p.offset_sample + n)",
        "uint64_t(n)",
        f"{DRAW} -k offset",
    ),
    Mutant(
        "word of a lone output",
        "csrc/core/problem.h",
        "bin % 4",
        "bin % 2",
        f"{DRAW} -k taps",
    ),
    Mutant(
        "row of outputs that begins inside a block",
        "csrc/cpu/kernels/draw.h",
        "first % 4",
        "first * 0",
        f"{DRAW} -k 'odd or overlapping'",
    ),
    Mutant(
        "channel offset of channels-last",
        "csrc/cpu/kernels/draw.h",
        "uint64_t(p.offset_channel + c)",
        "uint64_t(c)",
        f"{DRAW} -k offset",
    ),
    Mutant(
        "last coefficient of the power of two",
        "csrc/core/exp.h",
        "4.45496059818651839e-10",
        "0.0",
        f"{FORWARD} -k accurate",
    ),
]

EXACT = [
    Mutant(
        "256 taps are summed in classes",
        "csrc/core/direct.h",
        "level.grid.taps(at.o) > kMostSequentialTaps",
        "level.grid.taps(at.o) >= kMostSequentialTaps",
        f"{DRAW} {BITS} -k '256 or 16x16 or mixed_bin or mixed'",
    ),
    Mutant(
        "careful path is never taken",
        "csrc/core/direct.h",
        "!state.ordinary()",
        "false",
        f"{FORWARD} -k 'nan or inf'",
    ),
    Mutant(
        "second moment of the exact path",
        "csrc/core/direct.h",
        "state.moment(which)",
        "state.moment(0)",
        f"{BACKWARD} {BITS} -k 'expectation or rounding'",
    ),
    Mutant(
        "dilated depth of the exact path",
        "csrc/core/direct.h",
        "tap_d < 0 || tap_h < 0 || tap_w < 0",
        "tap_h < 0 || tap_w < 0",
        f"{BACKWARD} {RANDOM} -k 'dilated or random'",
    ),
    Mutant(
        "nothing drawn has a position",
        "csrc/core/lookup.h",
        "tap < 0 || tap >= level.grid.taps(at.o)",
        "tap >= level.grid.taps(at.o)",
        f"{DRAW} -k negative",
    ),
    Mutant(
        "last channel of a shared alpha",
        "csrc/core/lookup.h",
        "channel_axis > 1 ? c_begin + 1 : p.channels",
        "channel_axis > 1 ? c_begin + 1 : p.channels - 1",
        MIXED,
    ),
    Mutant(
        "summing orders of bins of both kinds",
        "csrc/ops/plan.cpp",
        "!traits.draws || level.large || largest <= kMostSequentialTaps",
        "true",
        f"{DRAW} -k mixed",
    ),
    Mutant(
        "256 taps are large",
        "csrc/ops/plan.cpp",
        "smallest > kMostSequentialTaps",
        "smallest >= kMostSequentialTaps",
        f"{DRAW} -k '256'",
    ),
    Mutant(
        "largest of uneven bins",
        "csrc/ops/plan.cpp",
        "axis.out % rest == 0 ? whole + 1 : whole + 2",
        "whole + 1",
        f"{DRAW} -k 'adaptive and taps'",
    ),
    Mutant(
        "padding wider than the kernel passes",
        "csrc/ops/plan.cpp",
        "axis.before < axis.extent()",
        "true",
        f"{ERRORS} {OPERATORS}",
    ),
]

REDUCERS = [
    Mutant(
        "last of ties",
        "csrc/reducers/largest.h",
        "(x > best) | (x != x)",
        "(x >= best) | (x != x)",
        f"{FORWARD} -k 'max and ties'",
    ),
    Mutant(
        "NaN does not win",
        "csrc/reducers/largest.h",
        "(x > best) | (x != x)",
        "(x > best)",
        f"{FORWARD} -k 'max and nan'",
    ),
    Mutant(
        "first of several NaNs",
        "csrc/reducers/largest.h",
        "(best == best) | (tap > at)",
        "(best == best)",
        f"{FORWARD} -k 'max and (nan or nans)'",
    ),
    Mutant(
        "last of ties of parts",
        "csrc/reducers/largest.h",
        "(x == best) & (tap < at)",
        "(x == best) & (tap > at)",
        f"{FORWARD} -k 'max and (folded or global)'",
    ),
    Mutant(
        "first of several NaNs of a team",
        "csrc/reducers/largest.h",
        "select(largest != largest, last, first)",
        "first",
        f"{FORWARD} {CUDA} -k 'nan'",
    ),
    Mutant(
        "window of -inf keeps the tap of a lane",
        "csrc/reducers/largest.h",
        "!(best == -infinity<V>())",
        "Mask<V>(true)",
        f"{FORWARD} -k 'max and inf'",
    ),
    Mutant(
        "zeros of two signs are not disputed",
        "csrc/reducers/largest.h",
        "(x == best) & (bits_of(x) != bits_of(best))",
        "Mask<V>(false)",
        f"{FORWARD} -k 'zeros'",
    ),
    Mutant(
        "maximum without taps overlooks NaN",
        "csrc/reducers/max.h",
        "sum == sum",
        "Mask<V>(true)",
        f"{FORWARD} {RANDOM} -k 'max and nan or random'",
    ),
    Mutant(
        "merged maxima forget a dispute",
        "csrc/reducers/max.h",
        "select(largest.is_disputed_by(x), nan<V>(), sum + x)",
        "sum + x",
        f"{FORWARD} -k 'zeros'",
    ),
    Mutant(
        "window of -inf keeps the tap of a lane beside its average",
        "csrc/reducers/max_avg.h",
        "sum > -infinity<V>()",
        "sum == sum",
        f"{BACKWARD} -k 'max_avg and inf'",
    ),
    Mutant(
        "share of the average in a mixed gradient",
        "csrc/reducers/max_avg.h",
        "(V(Scalar<V>(1)) - facts.alpha) * out.g",
        "facts.alpha * out.g",
        f"{BACKWARD} -k mixed",
    ),
    Mutant(
        "padding of averages",
        "csrc/reducers/average.h",
        "return T(0);",
        "return T(1);",
        f"{FORWARD} -k 'avg and clipped'",
    ),
    Mutant(
        "tiny squares of the expectation",
        "csrc/reducers/expectation.h",
        "T(1e-28)",
        "T(0)",
        f"{FORWARD} {BACKWARD} -k 'expectation and (tiny or subnormal)'",
    ),
    Mutant(
        "tiny squares of the expectation in float64",
        "csrc/reducers/expectation.h",
        "T(1e-280)",
        "T(0)",
        f"{FORWARD} {BACKWARD} -k 'expectation and (tiny or subnormal)'",
    ),
    Mutant(
        "soft-max sums that overflow below",
        "csrc/reducers/expectation.h",
        "(weighted < infinity<V>()) & (weighted > -infinity<V>())",
        "(weighted < infinity<V>())",
        f"{FORWARD} -k huge",
    ),
    Mutant(
        "expectation of -inf alone",
        "csrc/reducers/expectation.h",
        "largest <= empty",
        "largest < empty",
        f"{FORWARD} -k 'expectation and inf'",
    ),
    Mutant(
        "zeros have a gradient",
        "csrc/reducers/expectation.h",
        "select(x <= zero, zero, slope)",
        "select(x < zero, zero, slope)",
        f"{BACKWARD} -k 'expectation and ties'",
    ),
    Mutant(
        "infinite temperatures",
        "csrc/reducers/weights.h",
        "factor < Limits<T>::largest() ? T(factor) : Limits<T>::largest()",
        "T(factor)",
        f"{FORWARD} -k extreme",
    ),
    Mutant(
        "class whose sum meets the threshold",
        "csrc/reducers/stochastic.h",
        "(after > threshold)",
        "(after >= threshold)",
        f"{DRAW} -k every_bit",
    ),
    Mutant(
        "lane whose sum meets the threshold",
        "csrc/reducers/stochastic.h",
        "after > limit",
        "after >= limit",
        f"{DRAW} -k every_bit",
    ),
    Mutant(
        "no class exceeds the threshold",
        "csrc/reducers/stochastic.h",
        "select(chosen < Tap<V>(0), infinity<V>(), threshold)",
        "threshold",
        DRAW,
        equivalent="what no class exceeds is infinite, or so small that sums are exact: no running sum does",
    ),
    Mutant(
        "no lane exceeds the threshold",
        "csrc/reducers/stochastic.h",
        "found < 0 ? Limits<T>::infinity() : limit",
        "limit",
        DRAW,
    ),
    Mutant(
        "sum that meets the threshold",
        "csrc/reducers/stochastic.h",
        "!(reached() > threshold)",
        "!(reached() >= threshold)",
        f"{DRAW} -k every_bit",
    ),
    Mutant(
        "element without weight is drawn",
        "csrc/reducers/stochastic.h",
        "(w > V(T(0)))",
        "(w >= V(T(0)))",
        f"{DRAW} -k 'integers or ties or hand'",
    ),
    Mutant(
        "last +inf is drawn",
        "csrc/reducers/stochastic.h",
        "x == Limits<T>::infinity() && odd_at < 0",
        "x == Limits<T>::infinity()",
        f"{DRAW} -k inf",
    ),
    Mutant(
        "soft-max draw of -inf alone",
        "csrc/reducers/stochastic.h",
        "Weights::needs_max && Draw::tap() < 0 ? first : Draw::tap()",
        "Draw::tap()",
        f"{DRAW} -k inf",
    ),
    Mutant(
        "sums before the class are those with it",
        "csrc/reducers/stochastic.h",
        "select(take, passed, before)",
        "select(take, after, before)",
        f"{DRAW} -k taps",
    ),
]

SHARED_WINDOWS = [  # csrc/cpu/kernels/flat.h
    Mutant(
        "lanes of a window read behind the input",
        "csrc/cpu/kernels/flat.h",
        "x - lead + round_up(lead + w.count, L) <= self.end",
        "true",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "lanes of a window read before the input",
        "csrc/cpu/kernels/flat.h",
        "x - lead >= self.begin",
        "true",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "sums of planes read behind the input",
        "csrc/cpu/kernels/flat.h",
        "x + (n - 1) * positions + round_up(length, n) > end",
        "false",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "pooled planes read behind the input",
        "csrc/cpu/kernels/flat.h",
        "x + (n - 1) * positions + round_up(length, 4 * n) > end",
        "false",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "pieces of a window read behind the input",
        "csrc/cpu/kernels/flat.h",
        "step == 1 && k >= lead && from + L <= end",
        "step == 1 && k >= lead",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "walk of a class skips too far",
        "csrc/cpu/kernels/flat.h",
        "round_up(w.size - k, L)",
        "round_up(w.size - k + 1, L)",
        DRAW,
    ),
    Mutant(
        "walk of a class skips one step less",
        "csrc/cpu/kernels/flat.h",
        "round_up(w.size - k, L)",
        "round_up(w.size - k, L) - (w.size - k > L ? L : 0)",
        DRAW,
        equivalent="what is left of the clipped row is skipped next",
    ),
    Mutant(
        "walk of a class reads clipped columns",
        "csrc/cpu/kernels/flat.h",
        "k >= w.first && k < w.first + w.count",
        "k < w.first + w.count",
        DRAW,
    ),
    Mutant(
        "walk of a class reads a clipped row above",
        "csrc/cpu/kernels/flat.h",
        "i < 0 || i >= d.count || j < 0 || j >= h.count",
        "i < 0 || i >= d.count || j < -1 || j >= h.count",
        DRAW,
    ),
    Mutant(
        "first lanes of a window that begins inside a class",
        "csrc/cpu/kernels/flat.h",
        "k >= lead && stop - k >= L",
        "stop - k >= L",
        f"{DRAW} -k clipped",
    ),
    Mutant(
        "last lanes of a sum",
        "csrc/cpu/kernels/flat.h",
        "select(tail, load<T, n>(from + k), Sums(T(0)))",
        "load<T, n>(from + k)",
        f"{FORWARD} -k global",
    ),
]

CHANNELS = [  # csrc/cpu/kernels/channels.h
    Mutant(
        "few channels read behind the input",
        "csrc/cpu/kernels/channels.h",
        "from > self.last ? self.tail + (from - self.last) : from",
        "from",
        f"{GUARD} channels_last",
    ),
    Mutant(
        "few channels of a large window read behind the input",
        "csrc/cpu/kernels/channels.h",
        "tiles == 1 && x > last",
        "tiles == 1 && false",
        f"{GUARD} channels_last",
    ),
    Mutant(
        "held windows run into the padding",
        "csrc/cpu/kernels/channels.h",
        "larger(whole_end - o, 1)",
        "larger(whole_end - o + 1, 1)",
        f"{FORWARD} {BITS} -k 'channels_last'",
    ),
    Mutant(
        "held windows run into the next block of uniforms",
        "csrc/cpu/kernels/channels.h",
        "smaller(windows, 4 - bin % 4)",
        "smaller(windows, 5 - bin % 4)",
        f"{DRAW} -k 'channels_last and wide'",
    ),
    Mutant(
        "last tile of channels",
        "csrc/cpu/kernels/channels.h",
        "smaller(tile, larger(channels - L, 0))",
        "tile",
        f"{FORWARD} -k 'channels_last'",
    ),
    Mutant(
        "sweep begins each row anew",
        "csrc/cpu/kernels/channels.h",
        "slice == d.first && line == h.first",
        "slice == d.first",
        f"{MEMORY} -k inputs_too_large",
    ),
    Mutant(
        "block of channels leaves out the rest",
        "csrc/cpu/work.h",
        "tile + 1 == blocks ? channels : c + block",
        "c + block",
        f"{FORWARD} {BITS} -k 'channels_last'",
    ),
    Mutant(
        "part of the rows ends early",
        "csrc/cpu/work.h",
        "rows * (part + 1) / parts",
        "rows * (part + 1) / parts - (part == 1)",
        BITS,
    ),
]

ROWS = [
    Mutant(
        "rows read behind the input",
        "csrc/cpu/kernels/rows.h",
        "rows[row_count - 1] + length <= x + p.samples * p.channels * p.positions()",
        "true",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "rows read before the input",
        "csrc/cpu/kernels/rows.h",
        "rows[0] >= x",
        "true",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "held rows read behind the input",
        "csrc/cpu/kernels/rows.h",
        "smaller(smaller(most, whole.end - at.o[1]), readable)",
        "smaller(most, whole.end - at.o[1])",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "held rows that are clipped by one column",
        "csrc/cpu/kernels/rows.h",
        "column + (lanes - 1) * w.stride + width > w.in",
        "column + (lanes - 1) * w.stride + width > w.in + 1",
        f"{FORWARD} -k '3x3 or clipped or ceil'",
    ),
    Mutant(
        "last lane of a clipped row",
        "csrc/cpu/kernels/rows.h",
        "column >= begin && column + span < end",
        "column >= begin && column + span <= end",
        f"{FORWARD} -k 'clipped or ceil_mode or 1d'",
    ),
    Mutant(
        "last lanes of a row write behind the output",
        "csrc/cpu/kernels/rows.h",
        "lane0 + L <= room ? L : count",
        "L",
        f"{FORWARD} {BITS}",
    ),
    Mutant(
        "repair of the second of two rows",
        "csrc/cpu/kernels/rows.h",
        "at.o[1] + i / (L / 2)",
        "at.o[1]",
        f"{FORWARD} -k 'nan or inf'",
    ),
    Mutant(
        "lane 0 is not repaired",
        "csrc/cpu/kernels/tile.h",
        "if (odd.lanes[i]) again(i);",
        "if (odd.lanes[i] && i > 0) again(i);",
        f"{FORWARD} -k 'nan or inf'",
    ),
    Mutant(
        "divisor of the last whole column",
        "csrc/cpu/kernels/tile.h",
        "fill_run(columns + whole.begin, T(w.kernel), whole.end - whole.begin);",
        "fill_run(columns + whole.begin, T(w.kernel), whole.end - whole.begin - 1);",
        f"{FORWARD} -k 'avg and clipped'",
    ),
    Mutant(
        "alphas read behind the last",
        "csrc/cpu/kernels/tile.h",
        "step == 1 && count == kLanes<T>",
        "step == 1",
        f"{GUARD} 'contiguous or channels_last or more'",
    ),
    Mutant(
        "columns folded behind the row",
        "csrc/cpu/kernels/planes.h",
        "smaller(column + t * L, p.extent[2] - L)",
        "column + t * L",
        f"{FORWARD} -k folded",
    ),
    Mutant(
        "taps of folded rows that are clipped",
        "csrc/cpu/kernels/planes.h",
        "(d.first + i) * h.size + h.first",
        "i * h.size + h.first",
        f"{FORWARD} {BACKWARD} -k folded",
    ),
]

MOVES = [  # csrc/cpu/kernels/memory.h
    Mutant(
        "bfloat16 rounds half up",
        "csrc/cpu/kernels/memory.h",
        "(((bits >> 16) & 1u) + 0x7fffu)",
        "Bits<V>(0x8000u)",
        f"{FORWARD} -k avg",
    ),
    Mutant(
        "team overlooks NaN",
        "csrc/cpu/kernels/memory.h",
        "select((b > a) | (b != b), b, a)",
        "select(b > a, b, a)",
        f"{FORWARD} -k 'nan or global'",
    ),
    Mutant(
        "lanes apart read behind the last",
        "csrc/cpu/kernels/memory.h",
        "i < count ? T(widen(from[i * step])) : T(0)",
        "T(widen(from[i * step]))",
        f"{GUARD} 'contiguous or channels_last or more'",
    ),
    Mutant(
        "neighbours read behind the last",
        "csrc/cpu/kernels/memory.h",
        "count == L ? load<T, L>(from) : load_part<T, L>(from, count)",
        "load<T, L>(from)",
        f"{GUARD} 'contiguous or channels_last or more'",
    ),
    Mutant(
        "last pieces of a part",
        "csrc/cpu/kernels/memory.h",
        "copy_part<pieces / 2>(to + here, from + here, count)",
        "copy_part<pieces / 4>(to + here, from + here, count)",
        f"{FORWARD} -k odd",
    ),
    Mutant(
        "squares of fewer columns than a register",
        "csrc/cpu/kernels/memory.h",
        "rows < n || columns < n",
        "rows < n",
        f"{FORWARD} -k planes",
    ),
]

GRADIENTS = [
    Mutant(
        "bins of a row read behind the input",
        "csrc/cpu/kernels/rows_backward.h",
        "x + j <= last ? load<T, L>(x + j) : load_part<T, L>(x + j, end - j)",
        "load<T, L>(x + j)",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "last output of a tile of columns",
        "csrc/cpu/kernels/rows_backward.h",
        "(tile.end - 1 + w.before) / w.stride + 1",
        "(tile.end - 1 + w.before) / w.stride",
        f"{BACKWARD} -k 'avg or mixed'",
    ),
    Mutant(
        "gradients written behind the last row",
        "csrc/cpu/kernels/rows_backward.h",
        "room - done >= width ? width : left",
        "width",
        f"{BACKWARD} {BITS}",
    ),
    Mutant(
        "rows of bins that end elsewhere repeat",
        "csrc/cpu/kernels/slots.h",
        "now.begin == before.begin && now.end == before.end",
        "now.begin == before.begin",
        f"{BACKWARD} -k 'avg and adaptive'",
    ),
    Mutant(
        "rows of outputs that cover one row of bins",
        "csrc/cpu/kernels/slots.h",
        "ceil_div(axis.out, axis.in) + 1",
        "ceil_div(axis.out, axis.in)",
        f"{BACKWARD} -k adaptive",
    ),
    Mutant(
        "dilated depth of listed rows",
        "csrc/cpu/kernels/slots.h",
        "tap_d >= 0 && tap_h >= 0",
        "tap_h >= 0",
        f"{BACKWARD} -k dilated",
    ),
    Mutant(
        "selection of the last row of windows",
        "csrc/cpu/kernels/scatter.h",
        "source.rows[begin].last < first",
        "source.rows[begin].last <= first",
        f"{BACKWARD} {BITS} -k 'max or threads'",
    ),
    Mutant(
        "gradient of -0.0 is kept",
        "csrc/cpu/kernels/scatter.h",
        "g.bits & 0x7fff",
        "true",
        f"{BACKWARD} -k minus_zero",
    ),
    Mutant(
        "gradient outside the rows at hand",
        "csrc/cpu/kernels/scatter.h",
        "uint64_t(at) >= uint64_t(held.size)",
        "at < 0",
        f"{BACKWARD} {BITS} {MEMORY} -k 'max or threads or schedules'",
    ),
    Mutant(
        "dilated columns of channels-last",
        "csrc/cpu/kernels/lanes_backward.h",
        "if (tap < 0) continue;",
        "",
        f"{BACKWARD} -k 'dilated'",
    ),
    Mutant(
        "repeated rows of a block of channels",
        "csrc/cpu/kernels/lanes_backward.h",
        "channels == step ? p.extent[2] * step : channels",
        "p.extent[2] * step",
        f"{BACKWARD} {MEMORY} {BITS} -k 'avg or gradients_too_large or threads'",
    ),
    Mutant(
        "outputs apart read behind the last",
        "csrc/cpu/kernels/disjoint_backward.h",
        "saved + L <= results ? L : count",
        "L",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "rows of gradients written behind the last",
        "csrc/cpu/kernels/disjoint_backward.h",
        "existing >= L * stride ? L * stride : larger(left, 0)",
        "L * stride",
        f"{BACKWARD} {BITS}",
    ),
    Mutant(
        "column before a window keeps what it held",
        "csrc/cpu/kernels/disjoint_backward.h",
        "span.start - done",
        "span.start - done - 1",
        f"{BACKWARD} -k 'channels_last'",
    ),
    Mutant(
        "pooling again reads behind the gradients",
        "csrc/cpu/kernels/again_backward.h",
        "inputs <= elements && inputs <= room && outputs <= results",
        "inputs <= elements && inputs <= room",
        f"{GUARD} contiguous",
    ),
    Mutant(
        "pooling again writes behind the rows",
        "csrc/cpu/kernels/again_backward.h",
        "inputs <= elements && inputs <= room && outputs <= results",
        "inputs <= elements && outputs <= results",
        f"{BITS} -k 'threads and narrow'",
    ),
    Mutant(
        "pooling again does not round",
        "csrc/cpu/kernels/again_backward.h",
        "rounded(state.y())",
        "state.y()",
        f"{BITS} -k kept_nothing",
    ),
]

CALLS = [
    Mutant(
        "one unit of a large call is forgotten",
        "csrc/ops/parallel.cpp",
        "units * (i + 1) / shares",
        "units * (i + 1) / shares - (shares > 2 * threads && i == 5)",
        f"{BITS} {MEMORY} -k 'threads or too_large'",
    ),
    Mutant(
        "last share of a thread's part is forgotten",
        "csrc/ops/parallel.cpp",
        "shares * (part + 1) / parts",
        "shares * (part + 1) / parts - (shares > 2 * threads)",
        f"{BITS} {MEMORY} -k 'threads or too_large'",
    ),
    Mutant(
        "alpha of one value moves with the channels",
        "csrc/ops/call.cpp",
        "alpha->size(1) == 1 ? 0 : bins",
        "bins",
        MIXED,
    ),
    Mutant(
        "alpha per channel does not move",
        "csrc/ops/call.cpp",
        "alpha->dim() == 1",
        "false",
        MIXED,
    ),
    Mutant(
        "alpha of one sample moves with the samples",
        "csrc/ops/call.cpp",
        "alpha->size(0) == 1 ? 0 : alpha->size(1) * bins",
        "alpha->size(1) * bins",
        MIXED,
    ),
    Mutant(
        "results of a list with two results",
        "csrc/ops/call.h",
        "row * geometry.result_channels * geometry.bins * int64_t(output.element_size())",
        "row * geometry.channels * geometry.bins * int64_t(output.element_size())",
        f"{PYRAMID} -k list",
    ),
    Mutant(
        "gradients of a list with two results",
        "csrc/ops/call.h",
        "row * geometry.result_channels * geometry.bins * int64_t(grad.element_size())",
        "row * geometry.channels * geometry.bins * int64_t(grad.element_size())",
        f"{PYRAMID} -k list",
    ),
    Mutant(
        "sample of a list item",
        "csrc/ops/stochastic.cpp",
        "offset[0] + row",
        "offset[0]",
        f"{PYRAMID} -k list",
    ),
    Mutant(
        "tap behind the last looks one up",
        "csrc/cpu/lookup.cpp",
        "tap >= size",
        "tap > size",
        f"{DRAW} -k '255'",
    ),
    Mutant(
        "clipped rows count as whole for indices",
        "csrc/cpu/lookup.cpp",
        "span.count < span.size",
        "false",
        f"{DRAW} -k negative",
    ),
]

EMULATED = [
    Mutant(
        "team adds elements behind the window",
        "csrc/cuda/forward.h",
        "tap + k * members < taps && uint32_t(d) < uint32_t(axis[0].in)",
        "uint32_t(d) < uint32_t(axis[0].in)",
        f"{CUDA} -k 'taps or adaptive or global'",
    ),
    Mutant(
        "team adds clipped rows",
        "csrc/cuda/forward.h",
        "uint32_t(h) < uint32_t(axis[1].in)",
        "h >= 0",
        f"{CUDA} -k taps",
    ),
    Mutant(
        "team of a bin of 256 taps",
        "csrc/cuda/forward.h",
        "window.taps() <= kMostSequentialTaps",
        "window.taps() < kMostSequentialTaps",
        f"{CUDA} -k 'mixed or both'",
    ),
    Mutant(
        "team steps without a carry",
        "csrc/cuda/forward.h",
        "at[1] += step[1] + carry;",
        "at[1] += step[1];",
        f"{CUDA} -k 'taps or adaptive'",
    ),
    Mutant(
        "team takes no careful path",
        "csrc/cuda/forward.h",
        "Reducer::careful_passes > 0 && !state.ordinary()",
        "false",
        f"{CUDA} -k 'nan or inf'",
    ),
    Mutant(
        "channel behind the last is read",
        "csrc/cuda/forward.h",
        "i < count ? i : count - 1",
        "i",
        f"{GUARD} emulation",
    ),
    Mutant(
        "dilated depth of a tile",
        "csrc/cuda/backward.h",
        "(tap_d | tap_h[r] | tap_w[e]) < 0",
        "(tap_h[r] | tap_w[e]) < 0",
        f"{CUDA} -k 'dilated'",
    ),
    Mutant(
        "second column of a tile",
        "csrc/cuda/backward.h",
        "tile.at[2] + tile.width - 1",
        "tile.at[2]",
        f"{CUDA} -k 'ties or overlapping'",
    ),
    Mutant(
        "second row of a tile",
        "csrc/cuda/backward.h",
        "tile.at[1] + tile.height - 1",
        "tile.at[1]",
        f"{CUDA} -k 'ties or overlapping'",
    ),
    Mutant(
        "pairs of odd rows",
        "csrc/cuda/backward.h",
        "p.extent[2] % columns == 0",
        "true",
        f"{CUDA} -k 'ties or width or odd'",
    ),
    Mutant(
        "quads of odd planes",
        "csrc/cuda/quads.h",
        "a.before == 0 && a.in == 2 * a.out",
        "a.before == 0",
        f"{CUDA} -k '2x2 or width or kernel'",
    ),
    Mutant(
        "quads of rows of no multiple of four",
        "csrc/cuda/quads.h",
        "axis[2].out % outputs == 0",
        "true",
        f"{CUDA} -k '2x2 or width or ties'",
    ),
    Mutant(
        "warps draw from 256 taps",
        "csrc/cuda/schedule.h",
        "most_taps(level.grid) <= kMostSequentialTaps",
        "most_taps(level.grid) < kMostSequentialTaps",
        f"{CUDA} -k '256 or 16x16'",
        equivalent="a team leaves windows of up to 256 taps to one thread",
    ),
    Mutant(
        "neighbouring channels of no multiple",
        "csrc/cuda/schedule.h",
        "p.channels % items == 0",
        "true",
        f"{CUDA} -k 'channels_last'",
    ),
    Mutant(
        "block reads slots that are still written",
        "csrc/cuda/team.h",
        "thread.barrier();  // the slots may still be read",
        "",
        f"{CUDA} -k 'warp or large or global'",
    ),
    Mutant(
        "end of a dilated window",
        "csrc/cuda/index.h",
        "windows.divide(in - origin + dilation - 1)",
        "windows.divide(in - origin)",
        f"{CUDA} -k 'dilated'",
    ),
    Mutant(
        "dilated window covers what a tile steps over",
        "csrc/cuda/index.h",
        "tap < kernel && tap * dilation == distance",
        "tap < kernel",
        f"{CUDA} -k 'dilated'",
    ),
    Mutant(
        "launch that begins inside a sample",
        "csrc/cuda/index.h",
        "int32_t(row % middle_count())",
        "0",
        f"{CUDA} -k 'planes or ties or grid'",
    ),
    Mutant(
        "padding behind is not counted by a tile",
        "csrc/cuda/index.h",
        "windows.divide(in + after - (o * stride - before) + dilation - 1)",
        "windows.divide(in - (o * stride - before) + dilation - 1)",
        f"{CUDA} -k 'sums and clipped'",
    ),
    Mutant(
        "gradient of alpha steps without a carry",
        "csrc/cuda/lookup.h",
        "c += step_channel + carry;",
        "c += step_channel;",
        f"{CUDA} -k alpha",
    ),
]

PYTHON = [
    Mutant(
        "window that starts in the padding behind",
        "fastpool/_windows.py",
        "(output - 1) * stride >= start_limit",
        "(output - 1) * stride > start_limit",
        f"{FORWARD} {TORCH} -k 'ceil_mode or torch'",
    ),
    Mutant(
        "odd half of same padding",
        "fastpool/_windows.py",
        "total // 2, total - total // 2",
        "total - total // 2, total // 2",
        f"{FORWARD} -k same",
    ),
    Mutant(
        "same padding below zero",
        "fastpool/_windows.py",
        "total if total > 0 else 0",
        "total",
        f"{FORWARD} {ERRORS} {MODULES} -k same",
    ),
    Mutant(
        "window between all elements",
        "fastpool/_windows.py",
        "(o * axis.stride - axis.before) % axis.dilation >= length",
        "(o * axis.stride - axis.before) % axis.dilation > length",
        ERRORS,
    ),
    Mutant(
        "width of taps of uneven bins",
        "fastpool/_windows.py",
        "1 if bins % (length % bins) == 0 else 2",
        "1",
        f"{MEMORY} -k width",
    ),
    Mutant(
        "257 taps in a byte",
        "fastpool/_windows.py",
        "n <= 256",
        "n <= 257",
        f"{MEMORY} -k width",
    ),
    Mutant(
        "256 taps and none in a byte",
        "fastpool/_windows.py",
        "n <= 255",
        "n <= 256",
        f"{MEMORY} -k width",
    ),
    Mutant(
        "squares in ceil_mode",
        "fastpool/_windows.py",
        "rank == 2 and not ceil_mode",
        "rank == 2",
        f"{BACKWARD} {MEMORY} -k 'expectation and ceil_mode'",
        equivalent="the kernel pools again only where it can, and computes what was not kept elsewhere",
    ),
    Mutant(
        "kernel as large as the input",
        "fastpool/_windows.py",
        "k > n",
        "k >= n",
        f"{TORCH} {FORWARD}",
    ),
    Mutant(
        "floor bins of the whole step",
        "fastpool/_windows.py",
        "n // bins",
        "-(-n // bins)",
        f"{PYRAMID} -k floor",
    ),
    Mutant(
        "windows are remembered without the shape",
        "fastpool/_windows.py",
        "remembered(*key)",
        "vars(remembered).setdefault(str(key[2:]), remembered(*key))",
        f"{FORWARD} -k max",
    ),
    Mutant(
        "padding of half the kernel",
        "fastpool/_arguments.py",
        "2 * side > extent",
        "2 * side >= extent",
        f"{FORWARD} {TORCH} -k 'same or asymmetric or torch'",
    ),
    Mutant(
        "True is 1",
        "fastpool/_arguments.py",
        "isinstance(value, (bool, Tensor))",
        "isinstance(value, Tensor)",
        ERRORS,
    ),
    Mutant(
        "one int for all axes",
        "fastpool/_arguments.py",
        "entries if len(entries) == rank else entries * rank",
        "(*entries, *[1] * (rank - len(entries)))",
        f"{FORWARD} -k ties",
    ),
    Mutant(
        "seed of 2**63",
        "fastpool/_draw.py",
        "value - 2**64 if value >= 2**63 else value",
        "value - 2**64 if value > 2**63 else value",
        f"{DRAW} -k seeds",
    ),
    Mutant(
        "channel offset of 2**32",
        "fastpool/_draw.py",
        "offset[1] < 2**32",
        "offset[1] <= 2**32",
        ERRORS,
    ),
    Mutant(
        "maximum alone of a pyramid of two results",
        "fastpool/_formulas.py",
        "grad_average is None and ctx.saved.order == MAP",
        "grad_average is None",
        f"{PYRAMID} -k 'gradient and max_avg'",
    ),
    Mutant(
        "sign of the mean in a second derivative",
        "fastpool/_formulas.py",
        "[a - b for a, b in zip(of_max, of_mean)]",
        "[a + b for a, b in zip(of_max, of_mean)]",
        f"{AUTOGRAD} {MIXED}",
    ),
    Mutant(
        "second derivative of an empty expectation",
        "fastpool/_formulas.py",
        "largest.where(largest != 0, 1)",
        "largest",
        AUTOGRAD,
    ),
    Mutant(
        "sign of a second derivative of the expectation",
        "fastpool/_formulas.py",
        "2 * (p * v).sum(-1, keepdim=True) - y * sum_v",
        "2 * (p * v).sum(-1, keepdim=True) + y * sum_v",
        AUTOGRAD,
    ),
    Mutant(
        "pyramid ordered by level in a second derivative",
        "fastpool/_formulas.py",
        "[c * b for b in bins]",
        "[c * b for b in reversed(bins)]",
        f"{AUTOGRAD} {OPERATORS}",
    ),
    Mutant(
        "list whose first item needs no gradient",
        "fastpool/_kinds.py",
        "any(x.requires_grad for x in inputs)",
        "inputs[-1].requires_grad",
        f"{PYRAMID} -k some_items",
    ),
    Mutant(
        "unbatched result in a channels-last order",
        "fastpool/_kinds.py",
        "output.contiguous()",
        "output",
        f"{FORWARD} {BACKWARD} -k unbatched",
    ),
    Mutant(
        "relu draw of 256 taps in a byte",
        "fastpool/_kinds.py",
        'geometry.draw_bytes if code == DISTRIBUTIONS["relu"] else geometry.tap_bytes',
        "geometry.tap_bytes",
        f"{MEMORY} -k width",
    ),
    Mutant(
        "layout of one channel",
        "fastpool/_layouts.py",
        "x.dim() == 3 or x.is_contiguous()",
        "x.dim() == 3",
        f"{FORWARD} {OPERATORS} {BACKWARD}",
    ),
    Mutant(
        "rows of a list of one tensor",
        "fastpool/_fake.py",
        "inputs[0].shape[0] if len(inputs) == 1 else len(inputs)",
        "len(inputs)",
        f"{OPERATORS} {COMPILE}",
    ),
    Mutant(
        "dtype of a fake difference",
        "fastpool/_fake.py",
        "torch.float64 if x.dtype == torch.float64 else torch.float32",
        "x.dtype",
        OPERATORS,
    ),
    Mutant(
        "keepdim of global maxima",
        "fastpool/functional.py",
        "max_kind(input, whole(input, keepdim), return_indices)",
        "max_kind(input, whole(input, True), return_indices)",
        f"{FORWARD} -k global",
    ),
    Mutant(
        "stride of a module is its kernel",
        "fastpool/nn.py",
        "kernel_size if stride is None else stride",
        "kernel_size",
        MODULES,
    ),
    Mutant(
        "learned alpha without its sigmoid",
        "fastpool/nn.py",
        "torch.sigmoid(self.logit)",
        "self.logit",
        MODULES,
    ),
    Mutant(
        "alpha of a module at an end of its range",
        "fastpool/nn.py",
        '0 < number("alpha", alpha) < 1',
        '0 <= number("alpha", alpha) < 1',
        f"{MODULES} {ERRORS}",
    ),
]

AREAS = {
    "windows": WINDOWS,
    "draws and exp": PHILOX,
    "exact path, plans": EXACT,
    "reducers": REDUCERS,
    "shared windows": SHARED_WINDOWS,
    "channels": CHANNELS,
    "rows, planes": ROWS,
    "moves": MOVES,
    "gradients": GRADIENTS,
    "calls, threads": CALLS,
    "CUDA, emulated": EMULATED,
    "Python": PYTHON,
}
MUTANTS = [mutant for area in AREAS.values() for mutant in area]


def misfits(mutants):
    """-> what is wrong with rows whose text does not stand in its file exactly once"""
    wrong = []
    for mutant in mutants:
        file = ROOT / mutant.file
        count = file.read_text().count(mutant.old) if file.exists() else 0
        if count != 1:
            wrong.append(f"{mutant.name!r}: its text occurs {count} times in {mutant.file}: {mutant.old}")
        wrong += [
            f"{mutant.name!r}: no {path}"
            for path in mutant.tests.split()
            if path.endswith(".py") and not (ROOT / path).exists()
        ]
    return wrong


def choices(mutants):
    """Mutants of one text -> the text with all its faulty forms"""
    old = mutants[0].old
    python, statement = mutants[0].file.endswith(".py"), ";" in old
    text = old if statement else f"({old})"
    for mutant in mutants:
        if python:
            text = f"(({mutant.new}) if MUTANT == {mutant.number} else {text})"
        elif statement:
            text = f"{{ if (::fastpool::mutant == {mutant.number}) {{\n{mutant.new}\n}} else {{\n{text}\n}} }}"
        else:
            text = f"(::fastpool::mutant == {mutant.number} ? ({mutant.new}) : {text})"
    return text


def patched(file):
    """A file with all its mutants."""
    text = (ROOT / file).read_text()
    texts = {}
    for mutant in MUTANTS:
        if mutant.file == file:
            texts.setdefault(mutant.old, []).append(mutant)
    # Parts of the file between them, so that no text is sought in what has been put in.
    places = sorted((text.index(old), old) for old in texts)
    parts, end = [], 0
    for place, old in places:
        if place < end:
            raise SystemExit(f"{file}: mutants {texts[old][0].name!r} and another one overlap")
        parts += [text[end:place], choices(texts[old])]
        end = place + len(old)
    text = "".join([*parts, text[end:]])
    if not file.endswith(".py"):
        return f'#include "mutant.h"\n{text}'
    first = "from __future__ import annotations\n"
    if text.count(first) != 1:
        raise SystemExit(f"{file}: no place for the import of its mutants")
    return text.replace(first, f"{first}\nfrom ._mutant import MUTANT\n")


HEADER = """#pragma once
namespace fastpool {
extern const int mutant;
}
"""
SOURCE = """#include "mutant.h"
#include <cstdlib>
static int chosen() {
  const char* number = std::getenv("FASTPOOL_MUTANT");
  return number ? std::atoi(number) : 0;
}
const int fastpool::mutant = chosen();
"""
MODULE = 'import os\n\nMUTANT = int(os.environ.get("FASTPOOL_MUTANT", "0"))\n'


def write(path, content):
    """Only where it changed, which decides what is compiled again."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def make_copy():
    files = {"csrc/mutant.h": HEADER, "csrc/cpu/mutant.cpp": SOURCE, "fastpool/_mutant.py": MODULE}
    contents = {COPY / name: text.encode() for name, text in files.items()}
    mutated = {mutant.file for mutant in MUTANTS}
    for name in COPIED:
        for path in [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")):
            file = str(path.relative_to(ROOT))
            if path.is_file() and path.suffix not in (".so", ".pyc"):
                contents[COPY / file] = patched(file).encode() if file in mutated else path.read_bytes()
    for path, content in contents.items():
        write(path, content)
    for name in COPIED:
        for path in (COPY / name).rglob("*"):
            if path.is_file() and path.suffix not in (".so", ".pyc") and path not in contents:
                path.unlink()


def build():
    print("building all mutants", flush=True)
    options = {"FASTPOOL_EMULATION": "1", "FASTPOOL_CUDA": "0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "build.txt").open("w") as log:
        if subprocess.run(command, cwd=COPY, env=os.environ | options, stdout=log, stderr=log).returncode:
            raise SystemExit(f"the mutants do not build: {log.name}")


RUNNING = set()


class Outcome(NamedTuple):
    killed: bool
    by: str
    seconds: float


def run(number, tests, limit, log):
    """Runs tests with one mutant, or with none for 0, up to the first failure."""
    # On a busy machine threads that wait by spinning keep each other from running.
    environment = {"FASTPOOL_MUTANT": str(number), "PYTHONPATH": str(COPY), "OMP_WAIT_POLICY": "passive"}
    # -v names a test before it runs, which a crash leaves as the last line.
    options = ["-x", "-v", "--tb=short", "-rfE", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *shlex.split(tests)]
    start = time.monotonic()
    with log.open("w") as out:
        child = subprocess.Popen(
            command, cwd=COPY, env=os.environ | environment, stdout=out, stderr=out, start_new_session=True
        )
        RUNNING.add(child)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        RUNNING.remove(child)
    seconds = time.monotonic() - start
    if code in (4, 5) or (code and number == 0):
        raise SystemExit(f"these tests do not run: {tests}\n{log.read_text()[-3000:]}")
    lines = log.read_text().splitlines()
    last = next((line for line in reversed(lines) if "::" in line and "%" not in line), "").strip()
    failed = next((line.split(" ", 1)[1] for line in lines if line.startswith(("FAILED ", "ERROR "))), last)
    how = {None: f"hangs for {limit} s: ", 0: "", 1: "", 2: ""}.get(code, "crashes: ")
    return Outcome(code != 0, how + failed.split(" - ")[0].removeprefix("tests/"), seconds)


def examine(mutant):
    """Its own tests first, then all."""
    log = LOGS / f"{mutant.name.replace(' ', '_')}.txt"
    outcome = run(mutant.number, mutant.tests, LIMIT, log)
    if not outcome.killed and not mutant.equivalent:
        whole = run(mutant.number, WHOLE_SUITE, LIMIT_OF_ALL, log)
        outcome = Outcome(
            whole.killed, f"not by its own tests, but {whole.by}" * whole.killed, outcome.seconds + whole.seconds
        )
    if outcome.killed:
        verdict = "noticed, though equivalent" if mutant.equivalent else "noticed"
        note = outcome.by
    else:
        verdict, note = ("equivalent", mutant.equivalent) if mutant.equivalent else ("SURVIVES", mutant.tests)
    sys.stdout.write(f"{outcome.seconds:6.0f} s  {mutant.name}: {verdict}: {note}\n")  # in one piece
    sys.stdout.flush()
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="mutants whose names or files contain it")
    parser.add_argument("--list", action="store_true", help="name the mutants and end")
    parser.add_argument("--jobs", type=int, default=2, help="tests that run at a time")
    arguments = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not arguments.only or any(part in mutant.name or part in mutant.file for part in arguments.only)
    ]
    if arguments.list:
        for name, area in AREAS.items():
            for mutant in area:
                if mutant in chosen:
                    print(f"{name:16} {mutant.name} ({mutant.file})")
        return 0
    if wrong := misfits(MUTANTS):
        raise SystemExit("rows that do not fit the sources:\n" + "\n".join(wrong))
    start = time.monotonic()
    make_copy()
    build()
    print(f"built after {time.monotonic() - start:.0f} s; the tests without a mutant", flush=True)
    for tests in {mutant.tests for mutant in chosen} if arguments.only else [WHOLE_SUITE]:
        run(0, tests, LIMIT_OF_ALL, LOGS / "none.txt")
    print(f"they pass after {time.monotonic() - start:.0f} s; {len(chosen)} mutants", flush=True)
    try:
        verdicts = dict(zip(chosen, ThreadPoolExecutor(arguments.jobs).map(examine, chosen), strict=True))
    except KeyboardInterrupt:
        for child in RUNNING:  # in sessions of their own, which the interrupt did not reach
            os.killpg(child.pid, signal.SIGKILL)
        os._exit(130)
    print()
    for name, area in AREAS.items():
        found = [verdicts[mutant] for mutant in area if mutant in verdicts]
        if found:
            counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in dict.fromkeys(found))
            print(f"{name:18} {len(found):3}: {counts}")
    wrong = {mutant: verdict for mutant, verdict in verdicts.items() if verdict not in ("noticed", "equivalent")}
    print(f"{len(chosen)} mutants in {(time.monotonic() - start) / 60:.0f} minutes; not as they should: {len(wrong)}")
    for mutant, verdict in wrong.items():
        print(f"  {verdict}: {mutant.name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
