"""Damaged calls of the registered operators: an error, or a result of the shape that the fake kernel says."""

import damaged
import pytest
import torch

OPS = torch.ops.fastpool


def of_no_taps(line):
    """What test_indices_of_no_taps expects to fail."""
    return "tap_indices(" in line and ("uint8 (0, " in line or "int32 (0, " in line)


def test_damaged_calls():
    """More of them: PYTHONPATH=. python tests/damaged.py"""
    counts, wrong = damaged.run(first=0, calls=300)
    assert not [line for line in wrong if not of_no_taps(line)], "\n".join(wrong)
    assert counts["refused"] > 100 and counts["returned"] > 50, f"calls are no longer damaged as they should: {counts}"


@pytest.mark.xfail(strict=True, reason="sizes are read before they are counted")
def test_no_sizes():
    """A gradient for one input whose shape is not given."""
    _, wrong = damaged.run(first=2693, calls=1)
    assert not wrong, "\n".join(wrong)


@pytest.mark.xfail(strict=True, reason="taps of no sample are taken in any shape")
def test_indices_of_no_taps():
    """The window says (3, 4) outputs, the taps (3, 3): refused, or what the fake kernel says."""
    taps, window = torch.zeros(0, 2, 3, 3, dtype=torch.uint8), [3, 3, 2, 1, 1, 1, 4, 2, 2, 0, 0, 1]
    predicted = OPS.tap_indices(taps.to("meta"), [6, 8], window).shape
    try:
        shape = OPS.tap_indices(taps, [6, 8], window).shape
    except RuntimeError:
        return
    assert shape == predicted
