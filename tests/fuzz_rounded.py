"""Poolings computed beside a bound of their rounding errors, which follows from each operation, in any order of sums.

Formulas take the steps of the reducers, since errors depend on those. They work in long double, whose range no product
of the elements leaves.
"""

from dataclasses import dataclass

import numpy as np

WIDE = np.longdouble
CONSTANT = 3  # roundings of a product with a rounded constant, or of a polynomial that a power or a logarithm ends with


@dataclass
class Rounded:
    """Numbers, by how much rounding may move each, and the type that rounds: its unit, its smallest normal number."""

    value: np.ndarray
    kind: tuple
    error: np.ndarray | float = 0.0

    def of(self, value, error=0.0, roundings=1):
        """What some roundings make of a value that was off by `error`. Tiny numbers lose bits."""
        unit, smallest = self.kind
        return Rounded(value, self.kind, error + roundings * unit * (np.abs(value) + smallest))

    def exact(self, value):
        return value if isinstance(value, Rounded) else Rounded(np.asarray(value, WIDE), self.kind)

    def worse(self, relative):
        return Rounded(self.value, self.kind, self.error + self.kind[0] * relative * np.abs(self.value))

    def __add__(self, other):
        other = self.exact(other)
        return self.of(self.value + other.value, self.error + other.error)

    def __neg__(self):
        return Rounded(-self.value, self.kind, self.error)

    def __sub__(self, other):
        return self + -self.exact(other)

    def __mul__(self, other):
        other = self.exact(other)
        error = np.abs(self.value) * other.error + (np.abs(other.value) + other.error) * self.error
        return self.of(self.value * other.value, error)

    def __truediv__(self, other):
        other = self.exact(other)
        value, relative = self.value / other.value, other.error / np.abs(other.value)
        error = (self.error / np.abs(other.value) + np.abs(value) * relative) / (1 - relative)
        return self.of(value, np.where(relative < 1, error, np.inf))

    def sum(self, count, axis=-1):
        error = self.error + self.kind[0] * count * np.abs(self.value)
        error = np.broadcast_to(error, self.value.shape)
        return Rounded(self.value.sum(axis, keepdims=True), self.kind, error.sum(axis, keepdims=True))

    def only(self, which, other=0.0):
        """Where it counts; else an exact number."""
        return Rounded(np.where(which, self.value, other), self.kind, np.where(which, self.error, 0.0))

    def exp(self):
        value = np.exp(self.value)
        return self.of(value, value * np.expm1(self.error) + self.kind[1], CONSTANT)  # below the smallest it is 0

    def expm1(self):
        return self.of(np.expm1(self.value), np.exp(self.value) * np.expm1(self.error), CONSTANT)

    def log_of(self, more):
        """log(more + self): near more = 1 no bits are lost."""
        all_of_it = more + self.value
        value, relative = np.where(more == 1, np.log1p(self.value), np.log(all_of_it)), self.error / np.abs(all_of_it)
        return self.of(value, np.where(relative < 0.5, 2 * relative, np.inf), CONSTANT)

    def split_log(self):
        """log2 as an integer and a rest, which is rounded beside 1/2."""
        found = self.log_of(np.zeros_like(self.value))
        return Rounded(found.value, self.kind, found.error + CONSTANT * self.kind[0])

    def sigmoid(self):
        away = self.exact(np.clip(-self.value, -11000, 11000))
        found = self.exact(1) / (self.exact(1) + away.exp())
        return Rounded(found.value, self.kind, found.error + np.minimum(self.error / 4, 1))


def factor_out(taps, weighs, factor):
    """-> the element whose weight is the largest, distances from it, their products with the factor, weights"""
    values = taps.value
    smallest = np.where(weighs, values, np.inf).min(-1, keepdims=True)
    extreme = np.where(factor.value < 0, smallest, np.where(weighs, values, -np.inf).max(-1, keepdims=True))
    beside = (taps - extreme).only(weighs)
    exponent = beside * factor
    return extreme, beside, exponent, exponent.exp().only(weighs)


# (taps, which exist, which of these are finite, the parameter, further numbers) -> the results, the derivatives of each
# by the taps, the derivative by the parameter


def soft(taps, exist, weighs, beta):
    count = exist.sum(-1, keepdims=True)
    beta = beta.worse(CONSTANT)
    extreme, beside, exponent, w = factor_out(taps, weighs, beta)
    total = w.sum(count)
    mean = (w * beside).sum(count) / total
    y = mean + extreme
    # Where squares of distances may overflow, or beta is tiny, the careful path sums the elements themselves.
    squares = np.abs(beside.value).max(-1, keepdims=True) ** 2 * count * beta.kind[1]
    is_careful = (squares > 0.1) | (np.abs(beta.value) < beta.kind[1] ** 0.7)
    y = y.of(y.value, np.where(is_careful, ((w * taps).sum(count) / total).error, y.error))
    # Backward raises 2 to distances from y: that y is rounded cancels, that they are does not.
    lever = (taps - y) * beta
    share = (w / total).worse(2 * np.abs(lever.value) + np.abs((extreme - y.value) * beta.value))
    return [y], [share * (lever + 1)], (w * beside * beside).sum(count) / total - mean * mean


def lse(taps, exist, weighs, r):
    count = exist.sum(-1, keepdims=True)
    spread = np.where(weighs, taps.value, -np.inf).max(-1) - np.where(weighs, taps.value, np.inf).min(-1)
    least = np.where(spread > 0, 2.0**-62 / np.where(spread > 0, spread, 1), 1)[..., None]  # less gives the same,
    least = np.where((weighs == exist).all(-1, keepdims=True), least, 1e-300)  # but beside -inf
    r = r.exact(np.where(np.abs(r.value) < least, np.where(r.value < 0, -least, least), r.value)).worse(CONSTANT)
    extreme, beside, exponent, w = factor_out(taps, weighs, r)
    # Where all weights are near 1, their distances to it are summed.
    near = (np.abs(exponent.value).max(-1, keepdims=True) < 0.34) & (weighs == exist).all(-1, keepdims=True)
    excess, total = exponent.expm1().only(weighs, -1.0), w.sum(count)
    mean = Rounded(np.where(near, excess.value, w.value), w.kind, np.where(near, excess.error, w.error))
    log = (mean.only(exist).sum(count) / count).log_of(near * WIDE(1))
    # A divergence: the mean of (1 + u) log(1 + u) - u, where 1 + u are the weights over their mean.
    average = excess.only(exist).value.sum(-1, keepdims=True) / count
    u = np.where(exist, (excess.value - average) / (1 + average), 0)
    series = sum((-u) ** k / (k * (k - 1)) for k in range(2, 16))
    each = np.where(np.abs(u) < 0.03, series, (1 + u) * np.log1p(np.where(u > -1, u, 0)) - u)
    # The library takes it from sums of no more than this, which do not cancel either; else from a difference.
    products = (excess * exponent).sum(count) / count
    difference = (w * exponent).sum(count) / total - log
    error = np.where(near, 3 * products.error + 20 * r.kind[0] * products.value, difference.error)
    own = Rounded(np.where(exist, each, 0).sum(-1, keepdims=True) / count, r.kind, error) / r / r
    return [log / r + extreme], [w / total], own


def gem(taps, exist, weighs, p, eps):
    count, is_above = exist.sum(-1, keepdims=True), taps.value >= eps
    taps = taps.exact(np.maximum(taps.value, eps))
    extreme = factor_out(taps, weighs, p)[0]
    exponent = (taps.split_log() - taps.exact(extreme).split_log()) * p
    w = exponent.exp().only(weighs)
    total = w.sum(count)
    log = (total / count).log_of(np.zeros_like(total.value))
    y = (log / p).exp() * extreme
    slope = ((taps / y).split_log() * (p - 1)).exp() / count
    return [y], [slope.only(is_above)], y * ((w * exponent).sum(count) / total - log) / p / p


def lp(taps, exist, weighs, _, p, size):
    """Where it is not known on which side of 0 the sum is, nothing bounds the root: an infinite error."""
    count, sizes = exist.sum(-1, keepdims=True), np.abs(taps.value)
    extreme = factor_out(taps.exact(np.where(weighs, sizes, 0)), weighs, taps.exact(p))[0]
    is_zero, extreme = extreme == 0, np.where(extreme > 0, extreme, 1)
    if p in (1, 2):
        ratio = taps.exact(sizes) / extreme
        w = ratio if p == 1 else ratio * ratio
    else:
        w = ((taps.exact(sizes).split_log() - taps.exact(extreme).split_log()) * p).exp()
    sign = np.sign(np.power(np.sign(taps.value), WIDE(p)))
    total = (w * sign).only(weighs & (sizes > 0)).sum(count) * size / count
    unknown = ~is_zero & (np.abs(total.value) <= 2 * total.error)
    y = total * extreme
    if p != 1:
        root = Rounded(np.abs(total.value), total.kind, total.error).split_log() / p
        y = root.exp() * extreme * np.power(np.sign(total.value), 1 / WIDE(p))
        y = Rounded(y.value, y.kind, np.where(unknown, np.inf, y.error))
    slope = taps.exact(np.ones(sizes.shape, WIDE))
    if p != 1:
        ratio = taps.exact(sizes) / Rounded(np.abs(y.value), y.kind, y.error)
        slope = (ratio.split_log() * (p - 1)).exp() * np.sign(np.power(np.sign(taps.value), WIDE(p - 1)))
        slope = slope.only((sizes > 0) & ~is_zero)
    else:
        slope.error = np.where(unknown, 1, 0)  # of a sum that is 0 the slope is 0
    return [y.only(~is_zero)], [slope * (size / count)], None


def mean_std(taps, exist, weighs, _, correction):
    count = exist.sum(-1, keepdims=True)
    first = taps.only(exist).sum(count) / count
    largest, smallest = np.where(exist, taps.value, -np.inf).max(-1), np.where(exist, taps.value, np.inf).min(-1)
    off = np.minimum(first.error, (largest - smallest)[..., None])  # the mean that distances are taken from
    distances = np.where(exist, taps.value - first.value, 0)
    unit = taps.kind[0]
    size = np.abs(distances).sum(-1, keepdims=True) / count + off
    mean = taps.of(first.value, unit * (count + 4) * size, 2)
    squares = (distances**2).sum(-1, keepdims=True)
    free = np.maximum(count - correction, 0)
    divisor = np.where(free > 0, free, np.inf)
    error = unit * (count + 8) * (squares + count * off**2) / divisor
    std = np.sqrt(squares / divisor)
    error = np.minimum(np.sqrt(error), error / np.where(std > 0, std, np.finfo(WIDE).tiny))
    std = taps.of(std, error, 2)
    slope = ((taps - mean) / std / divisor).only((std.value > 0) & (free > 0))
    # One over a deviation that is not a normal number is taken as the largest number, so that the product falls short.
    slope.error += np.where(std.value < 16 * taps.kind[1], np.abs(slope.value), 0)
    # Beside a huge one even small gradients over it are no normal numbers.
    slope.error += 1024 * unit * taps.kind[1] * np.abs((taps - mean).value) / divisor
    return [mean, std], [taps.exact(np.where(exist, WIDE(1) / count, 0)).worse(2), slope], None


FORMULAS = {"soft": soft, "lse": lse, "gem": gem, "lp": lp, "mean_std": mean_std}


def tree(shares, leaves):
    """shares, the root's first -> the result, its derivatives by the shares and by the leaves"""
    if len(leaves) == 1:
        return leaves[0], [], [leaves[0].exact(1)]
    half, lower = len(leaves) // 2, len(leaves) > 2
    left, right = (tree(shares[1 + i : 2 + i] if lower else [], leaves[i * half : (i + 1) * half]) for i in range(2))
    s, rest = shares[0], leaves[0].exact(1) - shares[0]
    of_shares = [left[0] - right[0], *(s * each for each in left[1]), *(rest * each for each in right[1])]
    return s * left[0] + rest * right[0], of_shares, [*(s * g for g in left[2]), *(rest * g for g in right[2])]
