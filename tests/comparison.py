"""The two ways in which results are compared: bit by bit, or by the error that the same dtype makes in torch."""

from collections import Counter

import numpy as np
import torch

COUNTS = Counter()
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_tensor(values, dtype):
    return torch.as_tensor(np.asarray(values) if not isinstance(values, torch.Tensor) else values).detach().to(dtype)


def bits(values):
    """The bits as integers: -0.0 differs from +0.0."""
    values = values.detach().resolve_neg().contiguous()
    return values.view(INTEGERS[values.element_size()]) if values.is_floating_point() else values


def assert_bitwise(actual, expected, what=""):
    expected = as_tensor(expected, actual.dtype)
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    COUNTS["bitwise"] += 1
    if torch.equal(bits(actual), bits(expected)):
        return
    wrong = (bits(actual) != bits(expected)) & ~(
        actual.isnan() & expected.isnan()
    )  # NaNs are equal, whatever their bits
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {wrong.numel()} differ, first at {where}: "
            f"{actual[where].item()}, expected {expected[where].item()}"
        )


def tolerance(expected, composed, dtype, factor=1):
    """expected: finite float64 values; composed: the same from a composition of torch operations in dtype."""
    largest = float(np.abs(expected).max(initial=0.0))
    finite = np.isfinite(composed)  # a composition may overflow or give NaN where fastpool must not
    if dtype == torch.float64:
        return 1e-12 * largest
    info = torch.finfo(dtype)
    last_place = max(info.eps * 2.0 ** np.floor(np.log2(largest)), info.smallest_normal * info.eps) if largest else 0.0
    return factor * (2 * float(np.abs(composed[finite] - expected[finite]).max(initial=0.0)) + last_place)


def assert_close(actual, expected, composed, what="", ignore=None, factor=1):
    """expected: float64, whose NaN and infinities must be met exactly; ignore: elements that are checked elsewhere."""
    expected = np.asarray(expected, dtype=np.float64)
    assert tuple(actual.shape) == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {expected.shape}"
    COUNTS["tolerance"] += 1
    actual64, composed64 = (t.detach().to(torch.float64).numpy() for t in (actual, composed))
    composed64 = composed64.reshape(expected.shape)
    use = np.ones(expected.shape, bool) if ignore is None else ~ignore.reshape(expected.shape)
    finite = np.isfinite(expected) & use
    with np.errstate(invalid="ignore"):
        allowed = tolerance(expected[finite], composed64[finite], actual.dtype, factor)
        bad = np.where(finite, ~(np.abs(actual64 - expected) <= allowed), False)
    special = use & ~finite
    bad |= special & ~((actual64 == expected) | (np.isnan(actual64) & np.isnan(expected)))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{what} [{actual.dtype}]: {int(bad.sum())} of {bad.size} outside {allowed:.3g}, first at {where}: "
            f"{actual64[where]!r}, expected {expected[where]!r}, torch composition {composed64[where]!r}"
        )
