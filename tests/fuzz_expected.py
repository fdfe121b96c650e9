"""What a random call must give, by the reference: results, gradients, and by how much rounding may move them."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import poolings
import reference
import torch
from comparison import COUNTS, assert_bitwise, tolerance
from fuzz_rounded import FORMULAS, Rounded, tree
from fuzz_trials import FILTERS, Trial, windows_of

MET = Counter()  # how often things were tried or happened, by name


@dataclass
class Exactly:
    values: np.ndarray

    def check(self, actual, what):
        assert_bitwise(actual, self.values, what)


@dataclass
class Closely:
    """The rule of comparison.py; but a sum of torch's may be right by luck: where the rule is missed, an element may
    still err as much as a sum in any order may, which is counted."""

    values: np.ndarray  # float64
    composed: Callable | None  # () -> what torch's operations make of it
    any_order: Callable  # () -> bound of every element's error in the accumulation type, in any order of summation
    terms: Callable | None = None  # () -> sums of the magnitudes of what is summed: where they overflow, sums may

    def check(self, actual, what):
        assert tuple(actual.shape) == self.values.shape, f"{what}: shape {tuple(actual.shape)}"
        COUNTS["tolerance"] += 1
        dtype, values, got = actual.dtype, self.values, actual.detach().double().numpy()
        info = torch.finfo(dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            error, finite = np.abs(got - values), np.isfinite(values)
            same = (got == values) | (np.isnan(got) & np.isnan(values))
            wrong = np.where(finite, ~(error <= tolerance(values[finite], values[finite], dtype)), ~same)
            if not wrong.any():
                return
            wrong &= ~self.beyond_the_dtype(got, info)
            if self.terms is not None:
                wrong &= ~(self.terms() > torch.finfo(torch.promote_types(dtype, torch.float32)).max / 2)
            if not wrong.any():
                return
            finite &= np.isfinite(got)
            composed, allowed = values, 0.0
            if self.composed is not None:
                composed = self.composed().detach().double().numpy().reshape(got.shape)
                allowed = tolerance(values[finite], composed[finite], dtype)
                wrong &= ~(finite & (error <= allowed))
            if not wrong.any():
                MET["compared with torch's composition"] += 1
                return
            bound = self.any_order() + info.eps * np.abs(values) + 2 * info.smallest_normal * info.eps
            wrong &= ~(finite & (error <= bound))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"{what}: {int(wrong.sum())} of {wrong.size} wrong, first at {where}: {got[where]!r}, expected "
                f"{values[where]!r}, torch composition {composed[where]!r}, off by {error[where]:.3g}, allowed "
                f"{allowed:.3g} or {bound[where]:.3g}"
            )
        beside = "than twice torch's composition" if self.composed else "than a rounding of the largest"
        MET[f"farther off {beside}, within any order of summation"] += 1

    def beyond_the_dtype(self, got, info):
        """Numbers that the dtype cannot hold are infinite, or the largest ones where they are almost those."""
        size = np.abs(self.values)
        is_large = (np.abs(got) >= info.max * (1 - 4 * info.eps)) & (np.sign(got) == np.sign(self.values))
        almost = size <= info.max * (1 + 4 * info.eps)
        return np.isfinite(size) & (size > info.max * (1 - info.eps)) & is_large & (almost | np.isinf(got))


@dataclass
class Scattered:
    """A gradient beside windows that are not finite: NaN there, or that of the other windows."""

    expected: Closely
    outside: np.ndarray  # the elements of those windows; or of windows of which nothing is known
    special: np.ndarray | None  # those of them that must have NaN; None: anything will do

    def check(self, actual, what):
        got, free = actual.detach().double().numpy(), self.outside
        if self.special is not None:
            assert np.isnan(got[self.outside & self.special]).all(), f"{what}: NaN and infinity must have gradient NaN"
            free = self.outside & np.isnan(got)
        values = np.where(free, got, self.expected.values)
        replace(self.expected, values=values).check(actual, what)


@dataclass
class Problem:
    """A trial with its tensors, and as the reference takes it: samples of all tensors together, (N, C, P) each."""

    trial: Trial
    inputs: list = field(init=False)

    def __post_init__(self):
        self.inputs = self.trial.inputs()

    @cached_property
    def items(self):
        """-> (x in float64, windows) of each tensor of a list, or of the one input; batched"""
        found = []
        for x in self.inputs:
            x = self.batched(x.detach()).resolve_neg().double().numpy()
            found.append((x, windows_of(self.trial.form, x.shape[2:], self.trial.case.geometry)[1]))
        return found

    def batched(self, x):
        x = x if self.has_batch_axis else x[None]
        return x.flatten(2) if self.trial.form == "global" else x

    @property
    def has_batch_axis(self):
        return self.trial.case.batched and not self.trial.sizes

    @cached_property
    def output_size(self):
        """Of a map; of a pyramid the number of bins of each level."""
        geometry, form = self.trial.case.geometry, self.trial.form
        if form == "global":
            return (1,) * self.trial.case.rank if geometry.get("keepdim", True) else ()
        return windows_of(form, self.items[0][0].shape[2:], geometry)[0]

    @cached_property
    def shape(self):
        x, windows = self.items[0]
        return sum(len(x) for x, _ in self.items), x.shape[1], len(windows)

    @cached_property
    def output_shape(self):
        return self.laid_out([np.empty(self.shape)])[0].shape

    @cached_property
    def few_taps(self):
        """Whether plain sums have promised bits."""
        windows = [windows for _, windows in self.items]
        return self.trial.form == "sliding" and all((w.sizes <= reference.MANY_TAPS).all() for w in windows)

    @property
    def accumulation(self):
        return poolings.accumulation(self.trial.dtype)

    @property
    def rounds(self):
        """As fuzz_rounded.py has it."""
        return self.rounding, float(np.finfo(self.accumulation).smallest_normal)

    @property
    def rounding(self):
        """Twice, for float64 has no better reference."""
        return 2 * float(np.finfo(self.accumulation).eps)

    def each(self, formula):
        """formula: (x, windows, number of the first sample) -> arrays; -> those of all samples"""
        with np.errstate(all="ignore"):
            parts = [formula(x, windows, n) for n, (x, windows) in enumerate(self.items)]
        return [np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts)]

    def samples_of(self, item):
        first = sum(len(x) for x, _ in self.items[:item])
        return slice(first, first + len(self.items[item][0]))

    def laid_out(self, outputs):
        """(N, C, P) of each output -> the results of the call"""
        batched = self.trial.case.batched
        if self.trial.form == "pyramid":
            joint = np.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]
            y = reference.flatten_pyramid(joint, self.output_size, self.trial.case.geometry.get("flatten", "level"))
            return [y if batched or self.trial.sizes else y[0]]
        lead = self.shape[:2] if batched else self.shape[1:2]
        return [y.reshape(*lead, *self.output_size) for y in outputs]

    def in_planes(self, gradients, count):
        """The inverse of `laid_out` for `count` outputs; None stays None."""
        wide = [None if g is None else g.detach().resolve_neg().double().numpy() for g in gradients]
        if self.trial.form != "pyramid":
            return [None if g is None else g.reshape(self.shape) for g in wide]
        numbers = np.arange(count * math.prod(self.shape)).reshape(count, *self.shape)
        flat = np.empty(numbers.size)
        flat[self.laid_out(list(numbers))[0].ravel()] = wide[0].ravel()
        return list(flat.reshape(numbers.shape))

    @cached_property
    def magnitudes(self):
        """-> the largest and the mean of |x| over each window, the number of its elements"""

        def formula(x, windows, _):
            counts = np.concatenate([grid.exist.sum(axis=1) for grid in windows.grids])
            mean = reference.avg_pool(np.abs(x), windows)
            return reference.max_pool(np.abs(x), windows)[0], mean, np.broadcast_to(counts, mean.shape)

        return self.each(formula)

    def covering(self, item):
        """The most windows that see one element."""
        x, windows = self.items[item]
        return reference.spread(lambda grid: np.ones(grid.exist.shape), windows, (1, 1, *x.shape[2:])).max()


class Kind:
    """`results`: expectations by name; `gradient`: one of a tensor's gradient; `compose`: by torch's operations."""

    outputs = 1

    def __init__(self, problem, options):
        self.problem, self.options = problem, options

    def closely(self, values, any_order, terms=None):
        """-> an expectation for each of the call's outputs"""
        p = self.problem

        def late(planes, i):
            return lambda: p.laid_out(planes())[i]

        laid = p.laid_out(values)
        return [Closely(y, self.composed(i), late(any_order, i), terms and late(terms, i)) for i, y in enumerate(laid)]

    def composed(self, index):
        def run():
            p = self.problem
            outputs = [self.compose(p.batched(x.detach()), item) for item, x in enumerate(p.inputs)]
            joint = [torch.cat(parts).double().numpy() for parts in zip(*outputs)]
            return torch.from_numpy(np.ascontiguousarray(p.laid_out(joint)[index]))

        return run

    def closely_gradient(self, item, values, g, any_order):
        p = self.problem
        shape = p.inputs[item].shape

        def composed():
            leaf = p.inputs[item].detach().clone().requires_grad_()
            outputs = self.compose(p.batched(leaf), item)
            pairs = [(y, torch.from_numpy(part).to(y.dtype)) for y, part in zip(outputs, g) if part is not None]
            return torch.autograd.grad([y for y, _ in pairs], leaf, [part for _, part in pairs])[0]

        return Closely(values.reshape(shape), composed, lambda: any_order().reshape(shape))

    def gradients(self, g):
        """-> an expectation for each tensor"""
        parts = [
            [None if y is None else y[self.problem.samples_of(i)] for y in g] for i in range(len(self.problem.items))
        ]
        with np.errstate(all="ignore"):
            return [self.gradient(item, part) for item, part in enumerate(parts)]

    def shared(self, each, name):
        """-> sums over what shares a parameter"""
        parameter, p = self.options[name], self.problem
        if parameter.ndim < 2:
            return np.asarray(each.sum(axis=(0, 2) if parameter.ndim else None))
        (each,) = p.laid_out([each])
        return each.sum(axis=tuple(a for a, n in enumerate(parameter.shape) if n == 1), keepdims=True)

    def of_chosen(self, item, g, drawn=True):
        """A gradient that goes to the chosen elements: its bits, where its sums are exact."""
        p, x = self.problem, self.problem.items[item][0]
        indices = self.indices[p.samples_of(item)]
        values = reference.select_backward(g[0], indices, x.shape, drawn)
        covering = p.covering(item)
        if p.trial.gradient != "normal" or covering == 1:
            return Exactly(values.reshape(p.inputs[item].shape))

        def any_order():
            return p.rounding * covering * reference.select_backward(np.abs(g[0]), indices, x.shape, drawn)

        return self.closely_gradient(item, values, g, any_order)


class Max(Kind):
    def select(self, x, windows):
        return reference.max_pool(x, windows)

    def results(self, actual):
        p = self.problem
        values, self.indices = p.each(lambda x, windows, _: self.select(x, windows))
        expected = {"output": Exactly(p.laid_out([values])[0])}
        if self.options.get("return_indices"):
            expected["indices"] = Exactly(p.laid_out([self.indices])[0])
        return expected

    def compose(self, x, item):
        return [poolings.compose_select(x, self.indices[self.problem.samples_of(item)])]

    def gradient(self, item, g):
        return self.of_chosen(item, g)


class Min(Max):
    def select(self, x, windows):
        return reference.min_pool(x, windows)


class LpOfInfinity(Max):
    def select(self, x, windows):
        pool = reference.max_pool if self.options["norm_type"] > 0 else reference.min_pool
        return pool(np.abs(x), windows)

    def gradient(self, item, g):
        of_sizes = self.of_chosen(item, g)
        any_order = of_sizes.any_order if isinstance(of_sizes, Closely) else lambda: 0.0
        sign = np.sign(np.nan_to_num(self.problem.items[item][0])).reshape(of_sizes.values.shape)  # as torch.sgn has it
        return Closely(of_sizes.values * sign, None, any_order)


class ByTable(Kind):
    """A pooling that has a formula in fuzz_rounded.py."""

    def __init__(self, problem, options, name=None):
        super().__init__(problem, options)
        self.name = name or problem.trial.kind
        pooling = poolings.TABLE[self.name]
        self.outputs = pooling.results
        self.own = {argument.name: options.get(argument.name, argument.value) for argument in pooling.arguments}
        self.parameter = pooling.arguments[0].name if pooling.parameter else None
        self.factor = np.ones(())
        if self.parameter:
            factor = self.own[self.parameter]
            factor = factor.detach().double().numpy() if isinstance(factor, torch.Tensor) else np.float64(factor)
            self.own[self.parameter] = self.factor = factor[:, None] if factor.ndim else factor

    def pool(self, x, windows):
        y = getattr(reference, f"{self.name}_pool")(x, windows, **self.own)
        return y if self.outputs > 1 else [y]

    def slope(self, g, x, windows):
        g = [np.zeros_like(self.unknown[: len(x)]) if part is None else part for part in g]
        backward = getattr(reference, f"{self.name}_pool_backward")
        return backward(g if self.outputs > 1 else g[0], x, windows, **self.own)[0]

    def rounded(self, values, grid):
        """-> results, derivatives by taps, derivative by the parameter, with bounds of their errors"""
        if self.name == "gem":
            values = np.where(values == -np.inf, 0, values)
        numbers = [value for name, value in self.own.items() if name != self.parameter]
        numbers += [grid.sizes[:, None]] if self.name == "lp" else []
        weighs = grid.exist & np.isfinite(values)
        taps = Rounded(np.where(weighs, values, 0).astype(np.longdouble), self.problem.rounds)
        factor = taps.exact(self.factor[..., None])
        return FORMULAS[self.name](taps, grid.exist, weighs, factor, *numbers)

    def in_windows(self, formula):
        return self.problem.each(lambda x, windows, _: reference.each_window(x, windows, formula))

    def errors(self):
        return self.in_windows(lambda values, grid: [y.error[..., 0] for y in self.rounded(values, grid)[0]])

    def results(self, actual):
        p = self.problem
        values = p.each(lambda x, windows, _: self.pool(x, windows))
        # Results that even the accumulation type cannot hold, of which no gradient is known.
        with np.errstate(over="ignore"):
            self.lost = [np.isfinite(y) & np.isinf(y.astype(p.accumulation)) for y in values]
        self.unknown = ~np.isfinite(values).all(0) | np.any(self.lost, axis=0)
        if self.name == "lp":
            without_sign = np.isinf(self.errors()[0])
            values[0] = np.where(without_sign, p.in_planes([actual["output"]], 1)[0], values[0])
            self.unknown |= without_sign
        expected = [replace(y, composed=None) for y in self.closely(values, cache(self.errors))]
        return dict(zip(("output", "second output"), expected if p.trial.form != "pyramid" else expected[:1]))

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]
        samples, covering = p.samples_of(item), p.covering(item)
        shape, unknown = p.inputs[item].shape, self.unknown[samples]
        g = [part if part is None else np.where(lost[samples], 0, part) for part, lost in zip(g, self.lost)]

        def error(grid):
            taps = np.where(grid.exist, reference.planes(x).take(grid.elements, axis=2), 0)
            with np.errstate(all="ignore"):
                slopes = self.rounded(taps, grid)[1]
                each = [
                    np.where(part == 0, 0, np.abs(part) * slope.worse(covering + 4).error)
                    for part, slope in zip((y if y is None else y[:, :, grid.numbers, None] for y in g), slopes)
                    if part is not None
                ]
                return np.where(unknown[:, :, grid.numbers, None], 0, sum(each)).astype(np.float64)

        @cache
        def any_order():
            return reference.spread(error, windows, x.shape).reshape(shape)

        outside = reference.spread(lambda grid: unknown[:, :, grid.numbers, None], windows, x.shape) > 0
        special = None
        if self.parameter:
            sign = self.factor.reshape(-1, *[1] * (x.ndim - 2))
            least = (x == -np.inf) & (sign < 0) & (self.name != "gem")
            special = (np.isnan(x) | ((x == np.inf) & (sign > 0)) | least).reshape(shape)
        expected = Closely(self.slope(g, x, windows).reshape(shape), None, any_order)
        return Scattered(expected, outside.reshape(shape), special)

    def parameter_gradients(self, g):
        def formula(values, grid):
            own = self.rounded(values, grid)[2].worse(6)
            return [own.value[..., 0].astype(np.float64), own.error[..., 0].astype(np.float64)]

        value, error = (np.where(self.unknown, 0, y) for y in self.in_windows(formula))
        with np.errstate(all="ignore"):
            sums = [g[0] * value, np.abs(g[0]) * error, self.unknown, np.maximum(1, np.abs(g[0])) * np.abs(value)]
            value, error, unknown, size = (self.shared(each, self.parameter) for each in sums)
        expected = Closely(value, None, lambda: error, lambda: size)
        return {self.parameter: Scattered(expected, unknown > 0, np.zeros(unknown.shape, bool))}


class ByFilters(Kind):
    """Gated and tree pooling: of products of filters with windows, what they become, and its derivative by each."""

    def __init__(self, problem, options):
        super().__init__(problem, options)
        tensors = {name: y.detach().double() for name, y in options.items() if isinstance(y, torch.Tensor)}
        self.bias = tensors.pop("bias", torch.zeros(())).reshape(-1, 1).numpy()
        self.filters = {name: y.flatten(-problem.trial.case.rank).numpy() for name, y in tensors.items()}
        several = {name: y[None] if name == "weight" else y for name, y in self.filters.items()}
        self.each = {name: [f if f.ndim == 1 else f[:, None] for f in y] for name, y in several.items()}

    def rounded(self, values, grid, largest, mean):
        """-> result, its derivatives by the products of each filter and by the bias, shares of maximum and mean"""
        taps = Rounded(np.where(grid.exist & np.isfinite(values), values, 0).astype(np.longdouble), self.problem.rounds)
        taps = taps.only(grid.exist)
        products = {name: [(taps * f).sum(values.shape[-1]) for f in each] for name, each in self.each.items()}
        if "leaves" in products:
            shares = [z.sigmoid() for z in products["gates"]]
            y, of_shares, of_leaves = tree(shares, products["leaves"])
            slopes = [g * s * (s.exact(1) - s) for g, s in zip(of_shares, shares)]
            return y, {"leaves": of_leaves, "gates": slopes}, None
        alpha = (products["weight"][0] + self.bias[:, None]).sigmoid()
        rest, count = alpha.exact(1) - alpha, grid.exist.sum(-1, keepdims=True)
        mean = Rounded(mean[..., None], taps.kind, (taps.only(True).sum(count) / count).error)
        y = alpha * largest[..., None] + rest * mean
        return y, {"weight": [alpha * rest * (mean * -1 + largest[..., None])]}, (alpha, rest / count)

    def in_windows(self, formula):
        """formula: (values, grid, what `rounded` gives) -> arrays (N, C, P)"""
        return self.problem.each(lambda x, windows, _: self.in_windows_of(x, windows, formula))

    def in_windows_of(self, x, windows, formula):
        largest, mean = reference.max_pool(x, windows)[0], reference.avg_pool(x, windows)
        return reference.each_window(x, windows, lambda *at: formula(*at, self.rounded(*at, largest, mean)))

    def results(self, actual):
        p, filters = self.problem, self.filters
        if "weight" in filters:
            (y,) = p.each(lambda x, windows, _: [reference.gated_pool(x, windows, filters["weight"], self.bias)])
        else:
            (y,) = p.each(lambda x, windows, _: [reference.tree_pool(x, windows, filters["leaves"], filters["gates"])])
        most = sum(np.abs(f) for each in self.each.values() for f in each) + 1

        def of_magnitudes(values, grid):
            return [(np.abs(np.where(grid.exist, values, 0)) * most).sum(-1)]

        @cache
        def any_order():
            return self.in_windows(lambda values, grid, found: [found[0].error[..., 0]])

        (size,) = p.each(lambda x, windows, _: reference.each_window(x, windows, of_magnitudes))
        overflows = (size > np.finfo(p.accumulation).max / 4) & np.isfinite(size)  # in some order
        y = np.where(overflows, p.in_planes([actual["output"]], 1)[0], y)
        self.unknown = overflows | ~np.isfinite(size)
        return {"output": replace(self.closely([y], any_order)[0], composed=None)}

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]
        covering, info = p.covering(item), torch.finfo(p.trial.dtype)
        sums = np.zeros((2, *x.shape))

        def add(values, grid, found):
            _, slopes, shares = found
            parts = [(slope * f).only(grid.exist) for name in slopes for slope, f in zip(slopes[name], self.each[name])]
            if shares:
                chosen = reference.max_position(values, grid)[..., None] == np.arange(values.shape[-1])
                parts += [(shares[0] * chosen).only(grid.exist), (shares[1] * np.ones(values.shape)).only(grid.exist)]
            for part in parts:
                part = part.worse(covering * len(parts) + 4 + info.eps / p.rounding)  # the sum of two rounded gradients
                for i, each in enumerate((part.value * g[0][..., None], part.error * np.abs(g[0])[..., None])):
                    each = np.where(self.unknown[p.samples_of(item)][..., None], 0, each).astype(np.float64)
                    sums[i] += reference.sum_by_element(grid.elements, each, x.shape)
            return [g[0]]

        self.in_windows_of(x, windows, add)
        value, error = (y.reshape(p.inputs[item].shape) for y in sums)
        outside = reference.spread(lambda grid: self.unknown[p.samples_of(item)][..., None], windows, x.shape) > 0
        return Scattered(Closely(value, None, lambda: error), outside.reshape(value.shape), None)

    def parameter_gradients(self, g):
        sums = {}

        def add(values, grid, found):
            _, slopes, _ = found
            count, taps = values.size // values.shape[-1], np.where(grid.exist & np.isfinite(values), values, 0)
            of = {
                (name, i): (s * taps, self.each[name][i].ndim > 1)
                for name in slopes
                for i, s in enumerate(slopes[name])
            }
            if "weight" in slopes:
                of["bias", 0] = slopes["weight"][0], self.bias.size > 1
            for key, (part, per_channel) in of.items():
                part = (part * np.where(self.unknown, 0, g[0])[..., None]).worse(count)
                axes = (0, 2) if per_channel else (0, 1, 2)
                sums[key] = [each.sum(axes).astype(np.float64) for each in (part.value, part.error)]
            return [g[0]]

        self.in_windows(add)
        found = {}
        for name, parameter in self.options.items():
            if isinstance(parameter, torch.Tensor):
                value, error = (
                    np.stack([sums[key][i] for key in sums if key[0] == name]).reshape(parameter.shape) for i in (0, 1)
                )
                outside = np.full(value.shape, self.unknown.any())
                found[name] = Scattered(Closely(value, None, lambda error=error: error), outside, None)
        return found


class Average(Kind):
    def __init__(self, problem, options):
        super().__init__(problem, options)
        include = problem.trial.form == "sliding" and options.get("count_include_pad", True)
        self.divisor = {"count_include_pad": include, "divisor_override": options.get("divisor_override")}

    def results(self, actual):
        p = self.problem
        if p.few_taps:
            wide = p.accumulation
            (y,) = p.each(lambda x, windows, _: [reference.avg_pool(x, windows, wide, **self.divisor)])
            return {"output": Exactly(p.laid_out([y])[0])}
        (y,) = p.each(lambda x, windows, _: [reference.avg_pool(x, windows, **self.divisor)])

        def any_order():
            _, _, counts = p.magnitudes
            (mean,) = p.each(lambda x, windows, _: [reference.avg_pool(np.abs(x), windows, **self.divisor)])
            return [p.rounding * (counts + 2) * np.abs(mean)]

        def terms():
            _, mean, counts = p.magnitudes
            return [mean * counts]

        return {"output": self.closely([y], any_order, terms)[0]}

    def compose(self, x, item):
        return [poolings.compose_avg(x, self.problem.items[item][1], **self.divisor)]

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]

        def any_order():
            positive = {**self.divisor, "divisor_override": abs(self.divisor["divisor_override"] or 0) or None}
            shares = reference.avg_pool_backward(np.abs(g[0]), windows, x.shape, **positive)
            return p.rounding * (p.covering(item) + 2) * shares

        return self.closely_gradient(
            item, reference.avg_pool_backward(g[0], windows, x.shape, **self.divisor), g, any_order
        )


class MaxAverage(Kind):
    outputs = 2

    def results(self, actual):
        p = self.problem
        wide = p.accumulation if p.few_taps else np.float64
        largest, self.indices, mean = p.each(
            lambda x, windows, _: [*reference.max_pool(x, windows), reference.avg_pool(x, windows, wide)]
        )

        def any_order():
            _, mean, counts = p.magnitudes
            return [np.zeros(mean.shape), p.rounding * (counts + 2) * mean]

        def terms():
            _, mean, counts = p.magnitudes
            return [np.zeros(mean.shape), mean * counts]

        expected = self.closely([largest, mean], any_order, terms)
        if p.trial.form == "pyramid":
            return {"output": expected[0]}
        second = Exactly(expected[1].values) if p.few_taps else expected[1]
        return {"output": Exactly(expected[0].values), "second output": second}

    def compose(self, x, item):
        windows = self.problem.items[item][1]
        return [poolings.compose_max(x, windows), poolings.compose_avg(x, windows)]

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]
        indices = self.indices[p.samples_of(item)]
        both = [np.zeros(indices.shape) if part is None else part for part in g]

        def of(largest, mean):
            chosen = reference.select_backward(largest, indices, x.shape)
            return chosen + reference.avg_pool_backward(mean, windows, x.shape)

        def any_order():
            return p.rounding * (2 * p.covering(item) + 2) * of(*map(np.abs, both))

        return self.closely_gradient(item, of(*both), g, any_order)


class Mixed(Kind):
    def __init__(self, problem, options):
        super().__init__(problem, options)
        alpha = options["alpha"]
        if isinstance(alpha, torch.Tensor):
            alpha = alpha.detach().double().numpy()
            alpha = alpha[:, None] if alpha.ndim == 1 else alpha
            if options["alpha"].ndim > 1:
                alpha = np.broadcast_to(alpha, problem.output_shape).reshape(problem.shape)
        self.alpha = np.broadcast_to(alpha, problem.shape).astype(np.float64)

    def results(self, actual):
        p = self.problem
        largest, self.indices, mean = p.each(
            lambda x, windows, _: [*reference.max_pool(x, windows), reference.avg_pool(x, windows)]
        )
        with np.errstate(all="ignore"):
            y, self.difference = self.alpha * largest + (1 - self.alpha) * mean, largest - mean

        def sizes():
            largest, mean, counts = p.magnitudes
            return np.abs(self.alpha) * largest, np.abs(1 - self.alpha) * mean, counts

        def any_order():
            largest, mean, counts = sizes()
            return [p.rounding * (3 * largest + (counts + 5 + 2 * np.abs(self.alpha)) * mean)]

        def terms():
            largest, mean, counts = sizes()
            return [np.maximum(largest + mean, p.magnitudes[1] * counts)]

        return {"output": self.closely([y], any_order, terms)[0]}

    def compose(self, x, item):
        alpha = torch.from_numpy(self.alpha[self.problem.samples_of(item)]).to(x.dtype)
        windows = self.problem.items[item][1]
        return [alpha * poolings.compose_max(x, windows) + (1 - alpha) * poolings.compose_avg(x, windows)]

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]
        samples = p.samples_of(item)
        alpha, indices = self.alpha[samples], self.indices[samples]

        def of(g, alpha, rest):
            chosen = reference.select_backward(alpha * g, indices, x.shape)
            return chosen + reference.avg_pool_backward(rest * g, windows, x.shape)

        def any_order():
            size = np.abs(alpha)
            return p.rounding * (2 * p.covering(item) + 6) * of(np.abs(g[0]), size, np.abs(1 - alpha) + size)

        return self.closely_gradient(item, of(g[0], alpha, 1 - alpha), g, any_order)

    def parameter_gradients(self, g):
        p, alpha = self.problem, self.options["alpha"]

        def shared(each):
            return self.shared(each, "alpha")

        def composed():
            differences = []
            for x, (_, windows) in zip(p.inputs, p.items):
                x = p.batched(x.detach())
                differences.append(poolings.compose_max(x, windows) - poolings.compose_avg(x, windows))
            each = torch.from_numpy(g[0]).to(differences[0].dtype) * torch.cat(differences)
            return torch.from_numpy(shared(each.double().numpy())).to(alpha.dtype)

        def terms():
            largest, mean, counts = p.magnitudes
            return shared(np.maximum(1, np.abs(g[0])) * (largest + mean) * counts)

        def any_order():
            largest, mean, counts = p.magnitudes
            return p.rounding * shared(np.abs(g[0]) * (largest + (counts + 6) * mean))

        with np.errstate(all="ignore"):
            return {"alpha": Closely(shared(g[0] * self.difference), composed, any_order, terms)}


class Draw(Kind):
    def results(self, actual):
        p, options = self.problem, self.options
        sample, channel = options.get("offset", (0, 0))
        self.values, self.indices, self.drawn, clear = p.each(
            lambda x, windows, n: reference.stochastic_pool(
                x,
                windows,
                options["seed"],
                options.get("distribution", "relu"),
                float(options.get("temperature", 1.0)),
                samples=range(sample + n, sample + n + len(x)),
                channels=range(channel, channel + x.shape[1]),
                accumulate=p.accumulation,
            )
        )
        self.is_known = clear.all()
        if not self.is_known:
            MET["draws on the boundary between two elements"] += 1
            self.take_boundaries_from(actual, clear)
        expected = {"output": Exactly(p.laid_out([self.values])[0])}
        if options.get("return_indices"):
            expected["indices"] = Exactly(p.laid_out([self.indices])[0])
        return expected

    def take_boundaries_from(self, actual, clear):
        """A draw that rounding of exp may move to a neighbour must still be an element of its window."""
        p = self.problem
        if "indices" not in actual:
            self.values = np.where(clear, self.values, p.in_planes([actual["output"]], 1)[0])
            return
        (x, windows), indices = p.items[0], p.in_planes([actual["indices"]], 1)[0].astype(int)
        for n, c, i in np.argwhere(~clear):
            assert indices[n, c, i] in windows.elements(i), f"index {indices[n, c, i]} outside window {i}"
        self.indices, self.is_known = np.where(clear, self.indices, indices), True
        self.values = np.where(clear, self.values, np.take_along_axis(reference.planes(x), self.indices, axis=-1))

    def compose(self, x, item):
        return [poolings.compose_select(x, self.indices[self.problem.samples_of(item)])]

    def gradient(self, item, g):
        return self.of_chosen(item, g, self.drawn[self.problem.samples_of(item)]) if self.is_known else None


class ReluExpectation(Kind):
    """With weights of soft-max it is soft pooling."""

    def results(self, actual):
        p = self.problem
        (y,) = p.each(lambda x, windows, _: [reference.expectation_pool(x, windows, "relu")])

        def error(values, grid):
            share, size, units = self.shares(values, grid)
            return (p.rounding * (share * units * (size + (share * size).sum(-1, keepdims=True))).sum(-1),)

        def any_order():
            return p.each(lambda x, windows, _: reference.each_window(x, windows, error))

        return {"output": self.closely([y], any_order)[0]}

    def shares(self, values, grid):
        """-> each element's share of the weights, |x| where it has one, the relative error of that in roundings"""
        weights = np.maximum(values, 0)
        weights = weights / weights.max(-1, keepdims=True)
        share = weights / weights.sum(-1, keepdims=True)
        units = 2 * grid.exist.sum(axis=1)[:, None] + 10
        return np.where(share > 0, share, 0), np.where(share > 0, np.abs(values), 0), units

    def compose(self, x, item):
        return [poolings.compose_expectation(x, self.problem.items[item][1], "relu")]

    def gradient(self, item, g):
        p, (x, windows) = self.problem, self.problem.items[item]
        shape = p.inputs[item].shape
        values, outside = reference.expectation_pool_backward(g[0], x, windows, "relu")

        def error(grid):
            taps = np.where(grid.exist, reference.planes(x).take(grid.elements, axis=2), -np.inf)
            info = torch.finfo(p.trial.dtype)
            with np.errstate(all="ignore"):
                share, size, units = self.shares(taps, grid)
                largest = taps.max(-1, keepdims=True)  # whose inverse may be infinite
                factor = largest / np.maximum(taps, 0).sum(-1, keepdims=True)
                mean = (share * size).sum(-1, keepdims=True)
                slope, mean, tiny = (2 * size + mean) / largest * factor, mean / largest, info.smallest_normal / largest
                # The result is saved in the input's dtype.
                lost = info.eps * (mean + tiny) * factor
                found = p.rounding * (units + p.covering(item)) * slope + lost
                found = np.abs(g[0][:, :, grid.numbers, None]) * found
            return np.where(np.isfinite(found) & (share > 0), found, 0)

        def any_order():
            return reference.spread(error, windows, x.shape)

        expected = self.closely_gradient(item, values, g, any_order)
        special = np.isnan(x) | (x == np.inf)
        return Scattered(expected, outside.reshape(shape), special.reshape(shape))


KINDS = {
    **dict.fromkeys(FORMULAS, ByTable),
    **dict.fromkeys(FILTERS, ByFilters),
    "max": Max,
    "min": Min,
    "avg": Average,
    "max_avg": MaxAverage,
    "mixed": Mixed,
    "stochastic": Draw,
}


def kind_of(problem, options):
    if options.get("training") is False:
        if options.get("distribution", "relu") == "relu":
            return ReluExpectation(problem, options)
        return ByTable(problem, {"beta": 1 / options.get("temperature", 1.0)}, "soft")
    if math.isinf(options.get("norm_type", 0)):
        return LpOfInfinity(problem, options)
    return KINDS[problem.trial.kind](problem, options)
