"""Small faults of the library, of which the tests must notice each: `make mutants`.

One build holds them all. In a copy of the sources every text of the table becomes a choice between itself and its
faulty form, made by the environment variable FASTPOOL_MUTANT; then each row's tests run with its number. What they
miss, the whole suite gets once more. A crash or a hang counts as noticed.
"""

import argparse
import ast
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
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
COPIED = (*FILES, "csrc", "docs", "fastpool", "tests", "examples", "benchmarks")
LIMIT, LIMIT_OF_ALL = 600, 3600  # seconds
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


def in_file(file, *rows):
    """Rows of one file: name, old, new, tests and why equivalent."""
    return [Mutant(name, file, *rest) for name, *rest in rows]


FORWARD = "tests/test_forward.py"
BACKWARD = "tests/test_backward.py"
DRAW = "tests/test_draw.py"
PYRAMID = "tests/test_pyramid.py"
MIXED = "tests/test_mixed.py"
MEMORY = "tests/test_memory.py"
BITS = "tests/test_determinism.py"
SEPARABLE = "tests/test_separable.py"
INTERLEAVED = "tests/test_interleaved.py"
SQUARES = "tests/test_squares.py"
CELLS = "tests/test_cells.py"
GUARD = "tests/test_guard_pages.py -k"
RANDOM = "tests/test_random_windows.py"
ERRORS = "tests/test_errors.py"
RANDOM_MIXED = "tests/test_random_mixed.py"
ATTENTION = "tests/test_attention.py"
REPLACE = "tests/test_replace.py"
SPPF = "tests/test_sppf.py"
CUDA = "tests/test_cuda_schedules.py"
CUDA_MEMORY = "tests/test_cuda_memory.py"
TORCH = "tests/test_torch_parity.py"
AUTOGRAD = "tests/test_autograd.py"
COMPILE = "tests/test_compile.py"
OPERATORS = "tests/test_operators.py"
MODULES = "tests/test_modules.py"
TRANSFORMS = "tests/test_transforms.py"

WINDOWS = [
    *in_file(
        "csrc/core/window.h",
        (
            "clipped window begins in the padding",
            "larger(-origin, 0)",
            "larger(-origin - 1, 0)",
            f"{FORWARD} -k clipped",
        ),
        (
            "window ends behind the input",
            "larger(smaller(kernel, in - origin) - clipped, 0)",
            "larger(smaller(kernel, in - origin + 1) - clipped, 0)",
            f"{FORWARD} -k ceil_mode",
        ),
        (
            "dilated window begins in the padding",
            "origin < 0 ? ceil_div(-origin, dilation) : 0",
            "origin < 0 ? -origin / dilation : 0",
            f"{FORWARD} -k dilated",
        ),
        (
            "dilated window loses its last element",
            "origin >= in ? 0 : ceil_div(in - origin, dilation)",
            "origin >= in ? 0 : (in - origin) / dilation",
            f"{FORWARD} -k dilated",
        ),
        (
            "clipped window counts as whole",
            "larger(begin, smaller(out, last / stride + 1))",
            "larger(begin, smaller(out, last / stride + 2))",
            f"{FORWARD} -k clipped",
        ),
        (
            "first whole window too early",
            "smaller(ceil_div(before, stride), out)",
            "smaller(before / stride, out)",
            f"{FORWARD} -k clipped",
        ),
        (
            "window one beyond the end is not clipped",
            "(out - 1) * stride - before + extent() > in",
            "(out - 1) * stride - before + extent() > in + 1",
            f"{FORWARD} {RANDOM} -k 'ceil_mode or asymmetric or random_windows'",
        ),
        (
            "padding behind is not counted",
            "ceil_div(in + after - (o * stride - before), dilation)",
            "ceil_div(in - (o * stride - before), dilation)",
            f"{FORWARD} -k clipped",
        ),
        (
            "last bin that covers an element",
            "ceil_div((i + 1) * out, in)",
            "(i + 1) * out / in",
            f"{BACKWARD} -k adaptive",
        ),
        ("output before the first that covers", "padded < extent()", "padded <= extent()", f"{AUTOGRAD} -k gradcheck"),
        (
            "last output that covers an element",
            "over_stride(padded) + 1",
            "over_stride(padded)",
            f"{BACKWARD} -k overlapping",
        ),
        (
            "dilated window covers what it steps over",
            "distance % dilation == 0 && distance / dilation < kernel",
            "distance / dilation < kernel",
            f"{BACKWARD} -k dilated",
        ),
        (
            "rows of outputs that cover one row of bins",
            "ceil_div(elements * out, in) + 1",
            "ceil_div(elements * out, in)",
            f"{BACKWARD} -k adaptive",
        ),
        (
            "largest of uneven bins",
            "out % rest == 0 ? whole + 1 : whole + 2",
            "whole + 1",
            f"{DRAW} -k 'adaptive and taps'",
        ),
        ("slices of a window run into each other", "tap / width % height", "tap / width", f"{FORWARD} {BITS} -k '3d'"),
        (
            "first element of a window that draws nothing",
            "axis[2].window(o[2]).start",
            "axis[2].position(o[2], 0)",
            f"{DRAW} -k 'negative or clipped'",
        ),
    ),
]

PHILOX = [
    *in_file(
        "csrc/core/philox.h",
        ("upper half of the seed", "uint32_t(seed >> 32)", "uint32_t(0)", f"{DRAW} -k taps"),
        ("upper half of the sample", "uint32_t(sample >> 32)", "uint32_t(0)", f"{DRAW} -k 'offset'"),
        (
            "one bit of a uniform",
            "float(int32_t(word >> 8)) * 0x1p-24f",
            "float(int32_t(word >> 9)) * 0x1p-23f",
            f"{DRAW} -k every_bit",
        ),
    ),
    *in_file(
        "csrc/core/problem.h",
        ("channel offset of lone outputs", "uint32_t(p.offset_channel + c)", "uint32_t(c)", f"{DRAW} -k offset"),
        ("sample offset of lone outputs", "uint64_t(p.offset_sample + n)", "uint64_t(n)", f"{DRAW} -k offset"),
        ("word of a lone output", "bin % 4", "bin % 2", f"{DRAW} -k taps"),
    ),
    *in_file(
        "csrc/cpu/kernels/draw.h",
        ("row of outputs that begins inside a block", "first % 4", "first * 0", f"{DRAW} -k 'odd or overlapping'"),
        ("channel offset of channels-last", "uint64_t(p.offset_channel + c)", "uint64_t(c)", f"{DRAW} -k offset"),
    ),
    *in_file(
        "csrc/core/exp.h",
        ("last coefficient of the power of two", "4.45496059818651839e-10", "0.0", f"{FORWARD} -k accurate"),
    ),
]

EXACT = [
    *in_file(
        "csrc/schedules/exact.h",
        (
            "256 taps are summed in classes",
            "level.grid.taps(at.o) > kMostSequentialTaps",
            "level.grid.taps(at.o) >= kMostSequentialTaps",
            f"{DRAW} {BITS} -k '256 or 16x16 or mixed_bin or mixed'",
        ),
        ("careful path is never taken", "!state.ordinary()", "false", f"{FORWARD} -k 'nan or inf'"),
        (
            "upper bit of a narrow tap",
            "uint8_t(state.tap())",
            "uint8_t(state.tap() & 0x7f)",
            f"{FORWARD} {BITS} -k 'taps or 16x16'",
        ),
        (
            "second moment of the exact path",
            "static_cast<T*>(p.moments)[which * p.moments_size + saved] = state.moment(which)",
            "static_cast<T*>(p.moments)[which * p.moments_size + saved] = state.moment(0)",
            f"{BACKWARD} {BITS} -k 'expectation or rounding'",
        ),
        (
            "dilated depth of the exact path",
            "tap_d < 0 || tap_h < 0 || tap_w < 0",
            "tap_h < 0 || tap_w < 0",
            f"{BACKWARD} {RANDOM} -k 'dilated or random'",
        ),
    ),
    *in_file(
        "csrc/schedules/lookup.h",
        (
            "nothing drawn has a position",
            "tap < 0 || tap >= level.grid.taps(at.o)",
            "tap >= level.grid.taps(at.o)",
            f"{DRAW} -k negative",
        ),
        (
            "last channel of a shared alpha",
            "channel_axis > 1 ? c_begin + 1 : p.channels",
            "channel_axis > 1 ? c_begin + 1 : p.channels - 1",
            MIXED,
        ),
    ),
    *in_file(
        "csrc/cpu/schedule.h",
        (
            "summing orders of bins of both kinds",
            "traits.draws && !level.large && grid.most_taps() > kMostSequentialTaps",
            "false",
            f"{DRAW} -k mixed",
        ),
        ("planes of odd height are one tall plane", "h.out * h.stride == h.in", "true", SQUARES),
    ),
    *in_file(
        "csrc/cpu/run.h",
        ("planes of other parameters are one tall plane", "p.parameter_view.channel", "false", SQUARES),
    ),
    *in_file(
        "csrc/ops/plan.cpp",
        (
            "256 taps are large",
            "level.grid.least_taps() > kMostSequentialTaps",
            "level.grid.least_taps() >= kMostSequentialTaps",
            f"{DRAW} -k '256'",
        ),
        ("padding wider than the kernel passes", "axis.before < axis.extent()", "true", f"{ERRORS} {OPERATORS}"),
    ),
]

REDUCERS = [
    *in_file(
        "csrc/reducers/largest.h",
        ("last of ties", "(x > best) | (x != x)", "(x >= best) | (x != x)", f"{FORWARD} -k 'max and ties'"),
        ("NaN does not win", "(x > best) | (x != x)", "(x > best)", f"{FORWARD} -k 'max and nan'"),
        (
            "first of several NaNs",
            "(best == best) | (tap > at)",
            "(best == best)",
            f"{FORWARD} -k 'max and (nan or nans)'",
        ),
        (
            "last of ties of parts",
            "(x == best) & (tap < at)",
            "(x == best) & (tap > at)",
            f"{FORWARD} -k 'max and (folded or global)'",
        ),
        (
            "first of several NaNs of a team",
            "select(largest != largest, last, first)",
            "first",
            f"{FORWARD} {CUDA} -k 'nan'",
        ),
        (
            "window of -inf keeps the tap of a lane",
            "!(best == -infinity<V>())",
            "Mask<V>(true)",
            f"{FORWARD} -k 'max and inf'",
        ),
        (
            "zeros of two signs are not disputed",
            "(x == best) & (bits_of(x) != bits_of(best))",
            "Mask<V>(false)",
            f"{FORWARD} -k 'zeros'",
        ),
    ),
    *in_file(
        "csrc/reducers/max.h",
        ("padding of maxima", "return -Limits<T>::infinity();", "return T(0);", f"{FORWARD} -k 'max and clipped'"),
    ),
    *in_file(
        "csrc/reducers/largest.h",
        (
            "maximum without taps overlooks NaN",
            "sum == sum",
            "Mask<V>(true)",
            f"{FORWARD} {RANDOM} -k 'max and nan or random'",
        ),
        (
            "merged maxima forget a dispute",
            "select(largest.is_disputed_by(x), nan<V>(), sum + x)",
            "sum + x",
            f"{FORWARD} -k 'zeros'",
        ),
    ),
    *in_file(
        "csrc/reducers/max_avg.h",
        (
            "window of -inf keeps the tap of a lane beside its average",
            "sum > -infinity<V>()",
            "sum == sum",
            f"{BACKWARD} -k 'max_avg and inf'",
        ),
        (
            "share of the average in a mixed gradient",
            "(V(Scalar<V>(1)) - facts.parameter) * out.g",
            "facts.parameter * out.g",
            f"{BACKWARD} -k mixed",
        ),
    ),
    *in_file(
        "csrc/reducers/average.h",
        ("padding of averages", "return T(0);", "return T(1);", f"{FORWARD} -k 'avg and clipped'"),
    ),
    *in_file(
        "csrc/reducers/expectation.h",
        (
            "tiny squares of the expectation",
            "T(1e-28)",
            "T(0)",
            f"{FORWARD} {BACKWARD} -k 'expectation and (tiny or subnormal)'",
        ),
        (
            "tiny squares of the expectation in float64",
            "T(1e-280)",
            "T(0)",
            f"{FORWARD} {BACKWARD} -k 'expectation and (tiny or subnormal)'",
        ),
        (
            "zeros have a gradient",
            "select(x <= zero, zero, slope)",
            "select(x < zero, zero, slope)",
            f"{BACKWARD} -k 'expectation and ties'",
        ),
    ),
    *in_file(
        "csrc/reducers/soft.h",
        (
            "soft-max sums that overflow",
            "(sum < most) & (sum > -most) & (extremes.largest < infinity<V>())",
            "extremes.largest < infinity<V>()",
            f"{FORWARD} -k 'soft and huge'",
        ),
        (
            "gradient of a soft mean without its distance",
            "slot.a * w * (V(T(1)) + exponent * V(T(0.69314718055994531)))",
            "slot.a * w * (V(T(1)) + exponent)",
            f"{BACKWARD} -k 'soft and ties'",
        ),
    ),
    *in_file(
        "csrc/reducers/lse.h",
        ("log-mean-exp of a sum", "mean(sum, facts)", "sum", f"{FORWARD} -k 'lse and ties'"),
    ),
    *in_file(
        "csrc/reducers/gem.h",
        ("gradient below eps", "x < V(gem_eps<T>(p))", "x < V(T(-1))", f"{BACKWARD} -k 'gem and negative'"),
    ),
    *in_file(
        "csrc/reducers/weights.h",
        (
            "infinite temperatures",
            "factor < Limits<T>::largest() ? T(factor) : Limits<T>::largest()",
            "T(factor)",
            f"{FORWARD} -k extreme",
        ),
    ),
    *in_file(
        "csrc/reducers/stochastic.h",
        ("class whose sum meets the threshold", "(after > threshold)", "(after >= threshold)", f"{DRAW} -k every_bit"),
        ("lane whose sum meets the threshold", "after > limit", "after >= limit", f"{DRAW} -k every_bit"),
        (
            "no class exceeds the threshold",
            "select(chosen < Tap<V>(0), infinity<V>(), threshold)",
            "threshold",
            DRAW,
            "what no class exceeds is infinite, or so small that sums are exact: no running sum does",
        ),
        ("no lane exceeds the threshold", "found < 0 ? Limits<T>::infinity() : limit", "limit", DRAW),
        (
            "sum that meets the threshold",
            "!(reached() > threshold)",
            "!(reached() >= threshold)",
            f"{DRAW} -k every_bit",
        ),
        ("element without weight is drawn", "(w > V(T(0)))", "(w >= V(T(0)))", f"{DRAW} -k 'integers or ties or hand'"),
        (
            "last +inf is drawn",
            "x == Limits<T>::infinity() && odd_at < 0",
            "x == Limits<T>::infinity()",
            f"{DRAW} -k inf",
        ),
        (
            "soft-max draw of -inf alone",
            "Weights::needs_max && Draw::tap() < 0 ? first : Draw::tap()",
            "Draw::tap()",
            f"{DRAW} -k inf",
        ),
        (
            "sums before the class are those with it",
            "select(take, passed, before)",
            "select(take, after, before)",
            f"{DRAW} -k taps",
        ),
    ),
]

SHARED_WINDOWS = [
    *in_file(
        "csrc/cpu/kernels/flat.h",
        (
            "lanes of a window read behind the input",
            "x - lead + round_up(lead + w.count, L) <= self.end",
            "true",
            f"{GUARD} contiguous",
        ),
        ("lanes of a window read before the input", "x - lead >= self.begin", "true", f"{GUARD} contiguous"),
        (
            "sums of planes read behind the input",
            "x + (n - 1) * positions + round_up(length, n) > end",
            "false",
            f"{GUARD} contiguous",
        ),
        (
            "pooled planes read behind the input",
            "x + (n - 1) * positions + round_up(length, 4 * n) > end",
            "false",
            f"{GUARD} contiguous",
        ),
        (
            "pieces of a window read behind the input",
            "step == 1 && k >= lead && from + L <= end",
            "step == 1 && k >= lead",
            f"{GUARD} contiguous",
        ),
        ("walk of a class skips too far", "round_up(w.size - k, L)", "round_up(w.size - k + 1, L)", DRAW),
        (
            "walk of a class skips one step less",
            "round_up(w.size - k, L)",
            "round_up(w.size - k, L) - (w.size - k > L ? L : 0)",
            DRAW,
            "what is left of the clipped row is skipped next",
        ),
        (
            "walk of a class reads clipped columns",
            "k >= w.first && k < w.first + w.count",
            "k < w.first + w.count",
            DRAW,
        ),
        (
            "walk of a class reads a clipped row above",
            "i < 0 || i >= d.count || j < 0 || j >= h.count",
            "i < 0 || i >= d.count || j < -1 || j >= h.count",
            DRAW,
        ),
        (
            "first lanes of a window that begins inside a class",
            "k >= lead && stop - k >= L",
            "stop - k >= L",
            f"{DRAW} -k clipped",
        ),
        (
            "last lanes of a sum",
            "select(tail, load<T, n>(from + k), One(T(0)))",
            "load<T, n>(from + k)",
            f"{FORWARD} -k global",
        ),
    ),
]

CHANNELS = [
    *in_file(
        "csrc/cpu/kernels/channels.h",
        (
            "few channels read behind the input",
            "from > self.last ? self.tail + (from - self.last) : from",
            "from",
            f"{GUARD} channels_last",
        ),
        (
            "few channels of a large window read behind the input",
            "tiles == 1 && x > last",
            "tiles == 1 && false",
            f"{GUARD} channels_last",
        ),
        (
            "held windows run into the padding",
            "level.grid.axis[2].adaptive() ? 0 : level.grid.axis[2].whole().end",
            "level.grid.axis[2].adaptive() ? 0 : level.grid.axis[2].whole().end + 1",
            f"{FORWARD} {BITS} -k 'channels_last'",
        ),
        (
            "held windows run into the next block of uniforms",
            "smaller(windows, 4 - bin % 4)",
            "smaller(windows, 5 - bin % 4)",
            f"{DRAW} -k 'channels_last and wide'",
        ),
        ("last tile of channels", "smaller(tile, larger(channels - L, 0))", "tile", f"{FORWARD} -k 'channels_last'"),
        (
            "sweep begins each row anew",
            "slice == d.first && line == h.first",
            "slice == d.first",
            f"{MEMORY} -k inputs_too_large",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/interleaved.h",
        ("few channels are read behind the input", "first - before + length > size", "false", f"{GUARD} channels_last"),
        ("few channels are read before the input", "first < before", "false", f"{GUARD} channels_last"),
        ("few channels are written behind a part", "room - first >= L ? L : count", "L", f"{GUARD} channels_last"),
        (
            "a stack's rows are written over the next",
            "line + 1 < Stack::count ? size : room - line * size",
            "room",
            SEPARABLE,
        ),
        ("last channels of a position", "smaller(first + L, end - L)", "first + L", INTERLEAVED),
        (
            "step of outputs of which one is clipped",
            "position + at_once > whole.end",
            "step.position >= whole.end",
            INTERLEAVED,
        ),
        ("third register of a stride", "element / L == r ? L + element % L : i", "i", INTERLEAVED),
        ("uniforms of a block's first output", "drawn_some + bin % 4 * word_step", "drawn_some", INTERLEAVED),
        (
            "divisors of the first row",
            "axis[0].divisor(at.o[0], p.include_pad) * axis[1].divisor(at.o[1], p.include_pad)",
            "axis[1].divisor(at.o[1], p.include_pad)",
            INTERLEAVED,
        ),
        ("gradient of a gap", "select(column < Tap<V>(Tap<T>(0)), zero, term)", "term", INTERLEAVED),
        ("gradients of few channels behind a part", "room - i >= L ? L : lanes", "L", f"{GUARD} channels_last"),
        (
            "slots of another row of outputs",
            "if (ids[slot] == bin) return to;",
            "if (ids[slot] >= 0) return to;",
            INTERLEAVED,
        ),
    ),
    *in_file(
        "csrc/cpu/work.h",
        (
            "block of channels leaves out the rest",
            "tile + 1 == blocks ? channels : c + block",
            "c + block",
            f"{FORWARD} {BITS} -k 'channels_last'",
        ),
        ("part of the rows ends early", "rows * (part + 1) / parts", "rows * (part + 1) / parts - (part == 1)", BITS),
    ),
]

ROWS = [
    *in_file(
        "csrc/cpu/kernels/rows.h",
        (
            "rows read behind the input",
            "rows[row_count - 1] + length <= x + p.samples * p.channels * p.positions()",
            "true",
            f"{GUARD} contiguous",
        ),
        ("rows read before the input", "rows[0] >= x", "true", f"{GUARD} contiguous"),
        ("short rows read behind the input", "while (lower + (count - 1) * step > last) --count;", "", f"{GUARD} more"),
        (
            "short rows written behind the last",
            "(row + lines - 1) * w.out + part > most * w.out",
            "false",
            f"{GUARD} more",
        ),
        (
            "held rows read behind the input",
            "smaller(smaller(most, whole.end - at.o[1]), readable)",
            "smaller(most, whole.end - at.o[1])",
            f"{GUARD} contiguous",
        ),
        (
            "held rows that are clipped by one output",
            "w.clips({at.o[2] + lane0, at.o[2] + lane0 + lanes})",
            "w.clips({at.o[2] + lane0, at.o[2] + lane0 + lanes - 1})",
            f"{FORWARD} -k '3x3 or clipped or ceil'",
        ),
        (
            "last lane of a clipped row",
            "column >= begin && column + span < end",
            "column >= begin && column + span <= end",
            f"{FORWARD} -k 'clipped or ceil_mode or 1d'",
        ),
        ("last lanes of a row write behind the output", "lane0 + L <= room ? L : count", "L", f"{FORWARD} {BITS}"),
        ("repair of the second of two rows", "at.o[1] + i / (L / 2)", "at.o[1]", f"{FORWARD} -k 'nan or inf'"),
    ),
    *in_file(
        "csrc/cpu/kernels/separable.h",
        ("the last of ties", "(b.value > a.value)", "(b.value >= a.value)", SEPARABLE),
        ("windows of -inf choose padding", "Tap<T>(w.window(of.begin + o).first)", "Tap<T>(0)", SEPARABLE),
        ("taps of planes side by side", "code + piece * pitch", "code", SEPARABLE),
        ("a block of rows ends one too early", "j + 1 == kernel", "j + 1 >= kernel - (kernel > 2)", SEPARABLE),
        ("rows written behind a part", "i + L <= room ? L : count - i", "L", SEPARABLE),
        (
            "runs of a sum lie on each other",
            "load<T, L>(line.values + i + seen * step)",
            "load<T, L>(line.values + i)",
            SEPARABLE,
        ),
        ("a part's blocks begin with it", "begin * axis.stride % kernel", "0", SEPARABLE),
        ("three columns of a sum are two", "rest == 2 ? two : two + load<T, L>(x + i + 2 * step)", "two", SEPARABLE),
        ("gradients are not divided", "element / (load<T, L>(counts + i) * V(rows))", "element", SEPARABLE),
        ("elements read behind the input", "end - at >= L", "true", f"{GUARD} contiguous"),
        (
            "maps between others end where dense ones would",
            "p.input.at(p.samples - 1, p.channels - 1, p.positions() - 1) + 1",
            "p.samples * p.channels * p.positions()",
            SPPF,
        ),
        ("maps between others are written side by side", "step == level.output.position", "step == p.channels", SPPF),
    ),
    *in_file(
        "csrc/cpu/kernels/tile.h",
        (
            "neighbours read what lies before a row",
            "larger(smaller(end, w.in - origin), -origin)",
            "smaller(end, w.in - origin)",
            SEPARABLE,
        ),
        ("a row of a stack is seen too long", "down < h.kernel ? 0", "down <= h.kernel ? 0", SEPARABLE),
        (
            "lane 0 is not repaired",
            "if (odd.lanes[i]) again(i);",
            "if (odd.lanes[i] && i > 0) again(i);",
            f"{FORWARD} -k 'nan or inf'",
        ),
        (
            "whole columns divide by what the first window holds",
            "T(w.kernel)",
            "T(w.window(0).count)",
            f"{FORWARD} -k 'avg and clipped'",
        ),
        (
            "alphas read behind the last",
            "step == 1 && count == kLanes<T>",
            "step == 1",
            f"{GUARD} 'contiguous or channels_last or more'",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/planes.h",
        ("columns folded one too far", "column + t * L", "column + t * L + 1", f"{FORWARD} -k folded"),
        (
            "taps of folded rows that are clipped",
            "row_of_window(d, h, i, 0)",
            "i * h.size + h.first",
            f"{FORWARD} {BACKWARD} -k folded",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/cells.h",
        (
            "cells of bins that end elsewhere",
            "now.begin != before.begin || now.end != before.end",
            "now.begin != before.begin",
            CELLS,
        ),
        ("rows of cells that are clipped", "row_of_window(d, h, 0, 0) - h.start", "-h.start", f"{CELLS} -k tall"),
        ("columns of cells that are clipped", "w.first - w.start", "-w.start", f"{CELLS} -k tall"),
        ("lanes beside the last row", "plane + planes * positions + behind > end ? behind : 0", "0", f"{GUARD} more"),
        ("lanes of a plane behind the last", "plane + planes * positions > end ? planes - 1 : 0", "0", f"{GUARD} more"),
    ),
]

MOVES = [
    *in_file(
        "csrc/cpu/kernels/memory.h",
        ("one byte of narrowed taps", "0x0c080400", "0x0c080404", f"{BITS} -k schedules"),
        ("bfloat16 rounds half up", "(((bits >> 16) & 1u) + 0x7fffu)", "Bits<V>(0x8000u)", f"{FORWARD} -k avg"),
        (
            "team overlooks NaN",
            "select((b > a) | (b != b), b, a)",
            "select(b > a, b, a)",
            f"{FORWARD} -k 'nan or global'",
        ),
        (
            "lanes apart read behind the last",
            "i < count ? T(widen(from[i * step])) : T(0)",
            "T(widen(from[i * step]))",
            f"{GUARD} 'contiguous or channels_last or more'",
        ),
        (
            "neighbours read behind the last",
            "count == L ? load<T, L>(from) : load_part<T, L>(from, count)",
            "load<T, L>(from)",
            f"{GUARD} 'contiguous or channels_last or more'",
        ),
        (
            "last pieces of a part",
            "copy_part<pieces / 2>(to + here, from + here, count)",
            "copy_part<pieces / 4>(to + here, from + here, count)",
            f"{FORWARD} -k odd",
        ),
        ("squares of fewer columns than a register", "rows < n || columns < n", "rows < n", f"{FORWARD} -k planes"),
    ),
]

GRADIENTS = [
    *in_file(
        "csrc/cpu/kernels/rows_backward.h",
        (
            "bins of a row read behind the input",
            "x + j <= last ? load<T, L>(x + j) : load_part<T, L>(x + j, end - j)",
            "load<T, L>(x + j)",
            f"{GUARD} contiguous",
        ),
        (
            "last output of a tile of columns",
            "w.covers(tile).end",
            "w.covers(tile).end - 1",
            f"{BACKWARD} -k 'avg or mixed'",
        ),
        ("gradients written behind the last row", "room - done >= width ? width : left", "width", f"{BACKWARD} {BITS}"),
    ),
    *in_file(
        "csrc/cpu/kernels/slots.h",
        (
            "rows of bins that end elsewhere repeat",
            "now.begin == before.begin && now.end == before.end",
            "now.begin == before.begin",
            f"{BACKWARD} -k 'avg and adaptive'",
        ),
        ("dilated depth of listed rows", "tap_d >= 0 && tap_h >= 0", "tap_h >= 0", f"{BACKWARD} -k dilated"),
    ),
    *in_file(
        "csrc/cpu/kernels/cells_backward.h",
        ("columns that no bin sees", "exists ? -1 : 0", "-1", CELLS),
        ("gradients of bins behind the last", "g + bin + L <= g_end", "true", f"{GUARD} more"),
        (
            "cells written behind the last row",
            "(c + 1 < unit.channels ? p.positions() : 0) + p.extent[2] >= L",
            "c + 1 < unit.channels || p.extent[2] >= L",
            f"{GUARD} more",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/scatter.h",
        ("planes behind the last", "smaller(step, unit.channels - c)", "step", f"{GUARD} more"),
        (
            "one row of sums is not cleared",
            "cleared < count",
            "cleared + 1 < count",
            f"{BACKWARD} {BITS} -k 'max or threads'",
        ),
        ("gradient of -0.0 is kept", "g.bits & 0x7fff", "true", f"{BACKWARD} -k minus_zero"),
        (
            "gradient outside the rows at hand",
            "uint64_t(at) >= uint64_t(target.size)",
            "at < 0",
            f"{BACKWARD} {BITS} {MEMORY} -k 'max or threads or schedules'",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/lanes_backward.h",
        ("dilated columns of channels-last", "tap >= 0", "true", f"{BACKWARD} -k 'dilated'"),
        (
            "repeated rows of a block of channels",
            "channels == step",
            "true",
            f"{BACKWARD} {MEMORY} {BITS} -k 'avg or gradients_too_large or threads'",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/disjoint_backward.h",
        ("outputs apart read behind the last", "saved + L <= results ? L : count", "L", f"{GUARD} contiguous"),
        (
            "short rows of gradients behind the last",
            "(seen * width - 2 * reach + width) / width / 2",
            "seen / 2",
            f"{GUARD} more",
        ),
        (
            "rows of outputs above an odd row",
            "smaller(most, 2 * (level.grid.axis[1].out - at.o[1]))",
            "most",
            f"{GUARD} more",
        ),
        (
            "rows of gradients written behind the last",
            "existing >= L * stride ? L * stride : larger(left, 0)",
            "L * stride",
            f"{BACKWARD} {BITS}",
        ),
        (
            "column before a window keeps what it held",
            "span.start - done",
            "span.start - done - 1",
            f"{BACKWARD} -k 'channels_last'",
        ),
    ),
    *in_file(
        "csrc/cpu/kernels/again_backward.h",
        (
            "pooling again reads behind the gradients",
            "inputs <= elements && inputs <= room && outputs <= results",
            "inputs <= elements && inputs <= room",
            f"{GUARD} contiguous",
        ),
        (
            "pooling again writes behind the rows",
            "inputs <= elements && inputs <= room && outputs <= results",
            "inputs <= elements && outputs <= results",
            f"{BITS} -k 'threads and narrow'",
        ),
        (
            "pooling again starts with the second pass",
            "for_each_pass<0, last>(Held<V, State, 4>{p, facts, state, x})",
            "for_each_pass<last, last>(Held<V, State, 4>{p, facts, state, x})",
            f"{BACKWARD} -k soft",
        ),
    ),
]

CALLS = [
    *in_file(
        "csrc/ops/parallel.cpp",
        (
            "one unit of a large call is forgotten",
            "units * (i + 1) / shares",
            "units * (i + 1) / shares - (shares > 2 * threads && i == 5)",
            f"{BITS} {MEMORY} -k 'threads or too_large'",
        ),
        (
            "last share of a thread's part is forgotten",
            "shares * (part + 1) / parts",
            "shares * (part + 1) / parts - (shares > 2 * threads)",
            f"{BITS} {MEMORY} -k 'threads or too_large'",
        ),
    ),
    *in_file(
        "csrc/ops/sppf.cpp",
        ("every map from the input", "(map - 1) * step", "(map - map) * step", SPPF),
        ("maps of short rows from the input", "dense = y;", "", SPPF),
        (
            "maxima beside a smaller input",
            "repeats > 0 && geometry.map == Ints(x.sizes().begin(), x.sizes().end())",
            "repeats > 0 || geometry.map == Ints(x.sizes().begin(), x.sizes().end())",
            OPERATORS,
        ),
    ),
    *in_file(
        "csrc/ops/call.cpp",
        ("parameter of one value moves with the channels", "parameter->size(1) == 1 ? 0 : bins", "bins", MIXED),
        ("parameter per channel does not move", "parameter->dim() == 1", "false", MIXED),
        (
            "alpha of one sample moves with the samples",
            "parameter->size(0) == 1 ? 0 : parameter->size(1) * bins",
            "parameter->size(1) * bins",
            MIXED,
        ),
    ),
    *in_file(
        "csrc/ops/call.h",
        (
            "results of a list with two results",
            "place_in(output, row * geometry.result_channels * geometry.bins)",
            "place_in(output, row * geometry.channels * geometry.bins)",
            f"{PYRAMID} -k list",
        ),
        (
            "gradients of a list with two results",
            "place_in(grad, row * geometry.result_channels * geometry.bins)",
            "place_in(grad, row * geometry.channels * geometry.bins)",
            f"{PYRAMID} -k list",
        ),
    ),
    *in_file(
        "csrc/ops/operators.h",
        ("sample of a list item", "integers[1] + row", "integers[1]", f"{PYRAMID} -k list"),
    ),
    *in_file(
        "csrc/cpu/lookup.cpp",
        ("tap behind the last looks one up", "tap >= size", "tap > size", f"{DRAW} -k '255'"),
        ("clipped rows count as whole for indices", "span.count < span.size", "false", f"{DRAW} -k negative"),
    ),
]

EMULATED = [
    *in_file(
        "csrc/cuda/team_forward.h",
        (
            "rows of packs are no runs",
            "size[1] == axis[1].in && size[2] == axis[2].in",
            "size[1] == axis[1].in",
            f"{CUDA} -k 'adaptive or slices'",
        ),
        (
            "slices of packs are no runs",
            "(size[1] == 1 || size[2] == axis[2].in)",
            "true",
            f"{CUDA} -k 'adaptive or slices'",
        ),
        ("packs of odd rows", "in_steps(axis[2].in)", "true", f"{CUDA} -k aligned"),
        ("elements before a pack", "member < head", "false", f"{CUDA} -k 'global or taps'"),
        ("elements after a pack", "tail + member < taps", "false", f"{CUDA} -k 'global or taps'"),
        (
            "packs of clipped windows",
            "p.input.position != 1 || level.clipped",
            "p.input.position != 1",
            f"{CUDA} -k 'taps'",
        ),
        (
            "team adds elements behind the window",
            "tap + k * members < taps && uint32_t(d) < uint32_t(axis[0].in)",
            "uint32_t(d) < uint32_t(axis[0].in)",
            f"{CUDA} -k 'taps or adaptive or global'",
        ),
        ("team adds clipped rows", "uint32_t(h) < uint32_t(axis[1].in)", "h >= 0", f"{CUDA} -k taps"),
        (
            "team of a bin of 256 taps",
            "window.taps() <= kMostSequentialTaps",
            "window.taps() < kMostSequentialTaps",
            f"{CUDA} -k 'mixed or both'",
        ),
        (
            "team steps without a carry",
            "at[1] += step[1] + carry;",
            "at[1] += step[1];",
            f"{CUDA} -k 'taps or adaptive'",
        ),
        (
            "team takes no careful path",
            "heavy && !states[i].ordinary()",
            "false",
            f"{CUDA} -k 'nan or inf'",
        ),
    ),
    *in_file(
        "csrc/cuda/forward.h",
        ("channel behind the last is read", "i < count ? i : count - 1", "i", f"{GUARD} emulation"),
    ),
    *in_file(
        "csrc/cuda/backward.h",
        (
            "dilated depth of a tile",
            "(tap_d | tap_h[r] | tap_w[e]) < 0",
            "(tap_h[r] | tap_w[e]) < 0",
            f"{CUDA} -k 'dilated'",
        ),
        ("second column of a tile", "tile.at[2] + tile.width - 1", "tile.at[2]", f"{CUDA} -k 'ties or overlapping'"),
        ("second row of a tile", "tile.at[1] + tile.height - 1", "tile.at[1]", f"{CUDA} -k 'ties or overlapping'"),
        ("pairs of odd rows", "p.extent[2] % columns == 0", "true", f"{CUDA} -k 'ties or width or odd'"),
    ),
    *in_file(
        "csrc/cuda/rows.h",
        ("compiled windows of odd planes", "a.in == W::stride * a.out", "true", f"{CUDA} -k 'width or kernel'"),
        ("rows of no multiple of four", "axis[2].out % outputs == 0", "true", f"{CUDA} -k '2x2 or width or ties'"),
        ("left padding of compiled windows", "c >= W::before || !first", "true", f"{CUDA} -k aligned"),
        ("right padding of compiled windows", "c < W::before + middle || !last", "true", f"{CUDA} -k aligned"),
        ("compiled windows above the plane", "W::before == 0 || row[r]", "true", f"{CUDA} -k aligned"),
        ("outputs beside a tile's row", "at >= middle && tile.last", "false", f"{CUDA} -k aligned"),
        ("rows of outputs below a plane", "last_row * stride >= rows", "false", f"{CUDA} -k aligned"),
        ("last row of an odd plane", "stride != rows && h + r >= this->height()", "false", f"{CUDA} -k aligned"),
    ),
    *in_file(
        "csrc/cuda/whole.h",
        ("planes of a pack's end", "is_next(i) ? next[0] : slot[0]", "slot[0]", f"{CUDA} -k 'global'"),
        ("taps of a pack's end", "(is_next(i) ? plane : 0)", "0", f"{CUDA} -k 'global'"),
        ("packs across samples", "p.channels * plane % items == 0", "true", f"{CUDA} -k 'global'"),
        (
            "clipped global windows",
            "p.level_count != 1 || p.levels[0].clipped",
            "p.level_count != 1",
            f"{CUDA} -k 'clipped or padded'",
        ),
        (
            "positions of channels",
            "here < positions",
            "here < stretch",
            f"{CUDA} -k 'global'",
        ),
    ),
    *in_file(
        "csrc/cuda/planes.h",
        (
            "ends of planes in shared memory",
            "packs * kPack<S> + thread.index",
            "elements + thread.index",
            f"{CUDA} -k 'global'",
        ),
        ("the last block's planes", "least(planes, total_planes - first)", "planes", f"{CUDA} -k 'global'"),
        (
            "odd windows of small planes",
            "heavy && !state[0].ordinary()",
            "false",
            f"{CUDA} -k 'global or adaptive'",
        ),
    ),
    *in_file(
        "csrc/cuda/pixels.h",
        ("pixels behind the padding", "end <= a.in + (W::before > 0 ? a.after : 0)", "true", f"{CUDA} -k pixels"),
        ("pixels beside the plane", "uint32_t(x) < uint32_t(this->width())", "true", f"{CUDA} -k pixels"),
        ("last output of an odd row of pixels", "begin + o < width", "true", f"{CUDA} -k pixels"),
        (
            "outputs beside a tile of pixels",
            "uint32_t(column) >= uint32_t(this->out_width())",
            "false",
            f"{CUDA} -k pixels",
        ),
        ("pixels of an odd plane's tile", "tile.w + k < this->width()", "true", f"{CUDA} -k pixels"),
        ("the first of clipped pixels", "(h < 0 ? -h : 0) * kernel", "0", f"{CUDA} -k pixels"),
    ),
    *in_file(
        "csrc/cuda/bins.h",
        ("runs across bins", "shared % n == 0", "true", f"{CUDA} -k 'bins or stripes or pyramids'"),
        ("packs across bins", "last || a < 2 || axis.kernel % items == 0", "true", f"{CUDA} -k 'bins or pyramids'"),
        ("taps of a run", "tap + r * along", "tap", f"{CUDA} -k 'bins or pyramids'"),
    ),
    *in_file(
        "csrc/cuda/nested.h",
        ("levels that do not divide", "fine.grid.axis[a].out % axis.out == 0", "true", f"{CUDA} -k pyramids"),
        ("second part of a nested bin", "T(parts[most_bins + bin])", "T(parts[bin])", f"{CUDA} -k pyramids"),
        (
            "taps of nested bins",
            "(d - window.d.start) * window.h.size + h - window.h.start",
            "(d - window.d.start) * window.h.size + h",
            f"{CUDA} -k pyramids",
        ),
    ),
    *in_file(
        "csrc/cuda/schedule.h",
        (
            "warps draw from 256 taps",
            "level.grid.most_taps() <= kMostSequentialTaps",
            "level.grid.most_taps() < kMostSequentialTaps",
            f"{CUDA} -k '256 or 16x16'",
            "a team leaves windows of up to 256 taps to one thread",
        ),
        ("neighbouring channels of no multiple", "p.channels % items == 0", "true", f"{CUDA} -k 'channels_last'"),
    ),
    *in_file(
        "csrc/cuda/job.h",
        (
            "rounds leave neighbouring threads a part of a sector",
            "smaller(p.channels / Policy::sector_channels, Policy::most_rounds)",
            "Policy::most_rounds",
            f"{CUDA_MEMORY} -k channels_last",
        ),
    ),
    *in_file(
        "csrc/cuda/team.h",
        ("lane beyond the warp", "member() ^ step", "member() + step", f"{CUDA} -k global"),
        ("stripes of other channels", "step >= columns", "step > columns", f"{CUDA} -k stripes"),
        ("warps of a block of stripes", "warp < warps", "warp < 1", f"{CUDA} -k stripes"),
        (
            "block reads slots that are still written",
            "thread.barrier();  // the slots may still be read",
            "",
            f"{CUDA} -k 'warp or large or global'",
        ),
    ),
    *in_file(
        "csrc/cuda/index.h",
        (
            "end of a dilated window",
            "windows.divide(in - origin + dilation - 1)",
            "windows.divide(in - origin)",
            f"{CUDA} -k 'dilated'",
        ),
        (
            "dilated window covers what a tile steps over",
            "tap < kernel && tap * dilation == distance",
            "tap < kernel",
            f"{CUDA} -k 'dilated'",
        ),
        (
            "launch that begins inside a sample",
            "int32_t(row % middle_count())",
            "0",
            f"{CUDA} -k 'planes or ties or grid'",
        ),
        (
            "padding behind is not counted by a tile",
            "windows.divide(in + after - (o * stride - before) + dilation - 1)",
            "windows.divide(in - (o * stride - before) + dilation - 1)",
            f"{CUDA} -k 'sums and clipped'",
        ),
    ),
    *in_file(
        "csrc/cuda/lookup.h",
        (
            "gradient of alpha steps without a carry",
            "c += step_channel + carry;",
            "c += step_channel;",
            f"{CUDA} -k alpha",
        ),
    ),
    *in_file(
        "csrc/cuda/correlate.h",
        ("neighbours of filters in memory", "channels_last ? first : second", "second", f"{CUDA} -k products"),
        (
            "windows behind the last hold an element",
            "padded > last ? by_dilation.divide(padded - last + dilation - 1) : 0",
            "0",
            f"{CUDA} -k 'products and clipped or far'",
        ),
        ("every output of dilated windows", "o -= output_step", "o -= 1", f"{CUDA} -k far"),
        (
            "fewer taps than hold an element",
            "tap + tap_step < kernel ? tap + tap_step : kernel",
            "tap + 1 < kernel ? tap + 1 : kernel",
            f"{CUDA} -k far",
        ),
        ("rows above the plane meet filters", "exists && w.has(column)", "w.has(column)", f"{CUDA} -k products"),
        ("a bias that sees an element", "first_tap + m < p.taps", "true", f"{CUDA} -k products"),
        ("parts of sums from the start", "split * part", "0 * part", f"{CUDA} -k parts"),
        (
            "sums beside the columns",
            "own < channels && first_tap + m < p.width()",
            "first_tap + m < p.width()",
            f"{GUARD} emulation",
        ),
        ("32 bits for strides beyond them", "FastLevel::fits(p.levels->grid)", "true", f"{CUDA} -k far"),
    ),
]

PYTHON = [
    *in_file(
        "fastpool/_windows.py",
        (
            "windows that reach beside the input are pooled again",
            "2 * axis.output <= n",
            "True",
            f"{BACKWARD} {MEMORY} -k 'expectation and ceil_mode'",
            "the kernel pools again only where it can, and computes what was not kept elsewhere",
        ),
        (
            "window that starts in the padding behind",
            "(output - 1) * stride >= start_limit",
            "(output - 1) * stride > start_limit",
            f"{FORWARD} {TORCH} -k 'ceil_mode or torch'",
        ),
        (
            "odd half of same padding",
            "total // 2, total - total // 2",
            "total - total // 2, total // 2",
            f"{FORWARD} -k same",
        ),
        ("same padding below zero", "total if total > 0 else 0", "total", f"{FORWARD} -k same"),
        (
            "window between all elements",
            "(o * axis.stride - axis.before) % axis.dilation >= length",
            "(o * axis.stride - axis.before) % axis.dilation > length",
            ERRORS,
        ),
        ("width of taps of uneven bins", "1 if bins % (length % bins) == 0 else 2", "1", f"{MEMORY} -k width"),
        ("257 taps in a byte", "n <= 256", "n <= 257", f"{MEMORY} -k width"),
        ("256 taps and none in a byte", "n <= 255", "n <= 256", f"{MEMORY} -k width"),
        ("kernel as large as the input", "k > n", "k >= n", f"{TORCH} {FORWARD}"),
        ("floor bins of the whole step", "n // bins", "-(-n // bins)", f"{PYRAMID} -k floor"),
        (
            "windows are remembered without the shape",
            "remembered(*key)",
            "vars(remembered).setdefault(str(key[2:]), remembered(*key))",
            f"{FORWARD} -k max",
        ),
    ),
    *in_file(
        "fastpool/_arguments.py",
        (
            "padding of half the kernel",
            "2 * side > extent",
            "2 * side >= extent",
            f"{FORWARD} {TORCH} -k 'same or asymmetric or torch'",
        ),
        ("True is 1", "isinstance(value, (bool, Tensor))", "isinstance(value, Tensor)", ERRORS),
        (
            "one int for all axes",
            "entries if len(entries) == rank else entries * rank",
            "(*entries, *[1] * (rank - len(entries)))",
            f"{FORWARD} -k ties",
        ),
    ),
    *in_file(
        "fastpool/_draw.py",
        (
            "seed of 2**63",
            "value - 2**64 if value >= 2**63 else value",
            "value - 2**64 if value > 2**63 else value",
            f"{DRAW} -k seeds",
        ),
        ("channel offset of 2**32", "0 <= offset[1] < 2**32", "0 <= offset[1] <= 2**32", ERRORS),
    ),
    *in_file(
        "fastpool/_formulas.py",
        (
            "maximum alone of a pyramid of two results",
            "second is None and ctx.saved.order == MAP",
            "second is None",
            f"{PYRAMID} -k 'gradient and max_avg'",
        ),
        (
            "sign of the mean in a second derivative",
            "[(a - b).to(ctx.dtype) for a, b in zip(of_max, of_mean)]",
            "[(a + b).to(ctx.dtype) for a, b in zip(of_max, of_mean)]",
            f"{AUTOGRAD} -k test_alpha",
        ),
        (
            "pyramid ordered by level in a second derivative",
            "[c * b for b in bins]",
            "[c * b for b in reversed(bins)]",
            f"{AUTOGRAD} -k 'list_of_sizes or (gradgradcheck and pyramid)'",
        ),
    ),
    *in_file(
        "fastpool/_window_formulas.py",
        (
            "second derivative of an empty expectation",
            "largest.where(largest != 0, 1)",
            "largest",
            f"{AUTOGRAD} -k without_weight",
        ),
        (
            "second derivative of another expectation",
            "w * w / total.where(total != 0, 1)",
            "w / total.where(total != 0, 1)",
            f"{AUTOGRAD} -k 'gradgradcheck and expectation'",
        ),
    ),
    *in_file(
        "fastpool/_kinds.py",
        (
            "both results of a nested tensor in each other's place",
            "first.chunk(2, 1)",
            "first.chunk(2, 1)[::-1]",
            "tests/test_nested.py",
        ),
        (
            "list whose first item needs no gradient",
            "any(x.requires_grad for x in inputs)",
            "inputs[-1].requires_grad",
            f"{PYRAMID} -k some_items",
        ),
        (
            "unbatched result in a channels-last order",
            "output.contiguous()",
            "output",
            f"{FORWARD} {BACKWARD} -k unbatched",
        ),
        (
            "relu draw of 256 taps in a byte",
            "geometry.draw_bytes if draws_nothing else geometry.tap_bytes",
            "geometry.tap_bytes",
            f"{MEMORY} -k width",
        ),
    ),
    *in_file(
        "fastpool/_layouts.py",
        (
            "layout of one channel",
            "x.is_contiguous()",
            "False",
            f"{BACKWARD} -k layout_of",
        ),
    ),
    *in_file(
        "fastpool/_fake.py",
        (
            "rows of a list of one tensor",
            "sum([x.shape[0] for x in inputs])",
            "len(inputs)",
            f"{OPERATORS} {COMPILE}",
        ),
        (
            "dtype of a fake difference",
            "torch.float64 if x.dtype == torch.float64 else torch.float32",
            "x.dtype",
            f"{OPERATORS} -k mixed",
        ),
    ),
    *in_file(
        "fastpool/_transforms.py",
        ("tangents of what was not saved", "id(y) not in constant", "True", TRANSFORMS),
    ),
    *in_file(
        "fastpool/_vmap.py",
        ("empty batch under vmap", "max(size, 1)", "size", TRANSFORMS),
        ("members of a list one after another", "SAMPLES if inputs == 1 else NEIGHBOURS", "SAMPLES", TRANSFORMS),
        ("draws of a batch in one call", 'name.startswith("stochastic")', "False", TRANSFORMS),
        ("a parameter of each sample for all members", "own.shape[0] == 1", "True", TRANSFORMS),
        ("moments of channels and neighbours", "max(sum([shape[0] for shape in shapes]), 1)", "1", TRANSFORMS),
        ("layout of a batch", "laid_out(x, layout_of(member))", "x.contiguous()", TRANSFORMS),
        ("gradient of a parameter by sample", "axes[0] == 1", "False", TRANSFORMS),
    ),
    *in_file(
        "fastpool/functional.py",
        (
            "keepdim of global maxima",
            'selected("max", *whole(input, keepdim), return_indices)',
            'selected("max", *whole(input, True), return_indices)',
            f"{FORWARD} -k global",
        ),
        ("each map of SPPF from the input", "maps[-1]", "input", SPPF),
        ("SPPF side by side on the wrong axis", "torch.cat(maps, -3)", "torch.cat(maps, 1)", SPPF),
        ("even kernels of SPPF", "k % 2 == 0", "k % 2 == 2", SPPF),
        ("no repeats of SPPF", "count < 1", "count < 0", SPPF),
    ),
    *in_file(
        "fastpool/nn.py",
        ("stride of a module is its kernel", "kernel_size if stride is None else stride", "kernel_size", MODULES),
        ("learned alpha without its sigmoid", "torch.sigmoid(self.logit)", "self.logit", MODULES),
        ("fewer channels than parameters", "channels != self.num_channels", "channels > self.num_channels", ERRORS),
        ("half of what is learned is missing", "keys <= {*missing}", "keys & {*missing}", REPLACE),
        (
            "alpha of a module at an end of its range",
            "0 < alpha < 1",
            "0 <= alpha < 1",
            f"{MODULES} {ERRORS}",
        ),
        (
            "maxima as rare as means should be",
            "torch.rand(draws, device=maximum.device) < self.p",
            "torch.rand(draws, device=maximum.device) >= self.p",
            RANDOM_MIXED,
        ),
        (
            "one draw for every channel",
            "maximum.shape[-1 - self.rank] if self.per_channel else 1",
            "1",
            RANDOM_MIXED,
        ),
        (
            "drawn by arithmetic",
            "torch.where(takes_maximum.view(-1, *[1] * self.rank), maximum, mean)",
            "torch.lerp(mean, maximum, takes_maximum.view(-1, *[1] * self.rank).to(mean.dtype))",
            RANDOM_MIXED,
        ),
        (
            "blend of the other share",
            "self.blend(input, *windows, alpha=self.p)",
            "self.blend(input, *windows, alpha=1 - self.p)",
            RANDOM_MIXED,
        ),
        ("probabilities above 1", "0 <= self.p <= 1", "0 <= self.p", RANDOM_MIXED),
        (
            "attention by all scores",
            "convolution(positions).flatten(2).unsqueeze(1).mT.contiguous()",
            "convolution(positions).flatten(2).unsqueeze(1).mT",
            ATTENTION,
        ),
        (
            "attention without its scale",
            "torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scale)",
            "torch.nn.functional.scaled_dot_product_attention(query, key, value)",
            ATTENTION,
        ),
        (
            "queries from every position",
            "x if self.output_size is None else functional.adaptive_avg_pool2d(x, self.output_size)",
            "x",
            ATTENTION,
        ),
        ("layout of attention", "memory_format(layout_of(x), 4)", "torch.contiguous_format", ATTENTION),
        (
            "parameters that are not reset",
            "(self.query, self.key, self.value)",
            "(self.query, self.value)",
            ATTENTION,
        ),
    ),
    *in_file(
        "fastpool/_replace.py",
        ("a layer in two places becomes two", "old not in made", "True", REPLACE),
        ("replaced layers train", "old.training", "True", REPLACE),
        ("replaced layers without the model's dtype", "like is None", "True", REPLACE),
        ("indices that are asked for get lost", 'getattr(old, "return_indices", False)', "False", REPLACE),
        ("divisors that get lost", 'getattr(old, "divisor_override", None)', "None", REPLACE),
        (
            "padding counted as by default",
            '("count_include_pad", "divisor_override")',
            '("divisor_override",)',
            REPLACE,
        ),
        ("options that lose", "{**taken, **chosen}", "{**chosen, **taken}", REPLACE),
        ("subclasses are replaced", "type(old) not in LAYERS", "not isinstance(old, tuple(LAYERS))", REPLACE),
        (
            "names without repeats",
            "model.named_modules(remove_duplicate=False)",
            "model.named_modules()",
            REPLACE,
        ),
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
        elif file.suffix == ".py":
            text = file.read_text()
            within = ast.parse(text.replace(mutant.old, f"({mutant.old})"))
            if ast.dump(within) != ast.dump(ast.parse(text)):
                wrong.append(f"{mutant.name!r}: in parentheses its text means something else: {mutant.old}")
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
        for child in list(RUNNING):  # in sessions of their own, which the interrupt did not reach
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
