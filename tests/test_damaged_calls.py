"""Damaged calls of the registered operators: an error, or a result of the shape that the fake kernel says."""

import damaged


def test_damaged_calls():
    """More of them: PYTHONPATH=. python tests/damaged.py"""
    counts, wrong = damaged.run(first=0, calls=300)
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > 100 and counts["returned"] > 50, f"calls are no longer damaged as they should: {counts}"
