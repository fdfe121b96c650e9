"""3,000 trials of `make fuzz`, those that failed once, and that the fuzzing itself finds what it is for."""

import argparse
import inspect

import fuzz
import fuzz_expected
import fuzz_trials
import pytest
import torch

import fastpool.functional as F
from fastpool._kinds import POOLINGS

SEED, BLOCKS, PER_BLOCK = 0, 25, 120


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def failures_of(numbers, seed=SEED):
    return [failure for number in numbers if (failure := fuzz.attempt(seed, number))]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_block(block):
    failures = failures_of(range(block * PER_BLOCK, (block + 1) * PER_BLOCK))
    assert not failures, "\n".join(failures)


def test_kept():
    failures = [failure for seed, number in fuzz.KEPT if (failure := fuzz.attempt(seed, number))]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("function", fuzz_trials.FUNCTIONS)
def test_every_function_has_trials(function):
    """A function of a new kind fails here until its arguments have a row."""
    form, kind, _ = fuzz_trials.form_and_kind(function)
    assert form in ("sliding", "adaptive", "global", "pyramid")
    assert kind in fuzz_trials.OWN_ARGUMENTS or form == "pyramid"


def test_every_pooling_has_trials():
    assert set(POOLINGS) == set(fuzz_trials.OWN_ARGUMENTS) == set(fuzz_expected.KINDS)


def test_trials_are_reproducible():
    for number in range(50):
        first, second = (fuzz_trials.random_trial(3, number) for _ in range(2))
        assert str(first) == str(second)
        for x, y in zip(first.inputs(), second.inputs(), strict=True):
            assert torch.equal(x.isnan(), y.isnan())
            assert torch.equal(x.nan_to_num(), y.nan_to_num())


# Spoilt functions: (the call's results, its input) -> results.


def changed(results, change):
    return (change(results[0]), *results[1:])


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, g):
        return g * 2


def next_element(y):
    return y.roll(1, -1) if y.ndim else y


def overwritten(results, x):
    for tensor in x if isinstance(x, list) else [x]:
        if not any(stride == 0 for stride in tensor.stride()):
            tensor.detach().zero_()
    return results


SPOILT = {
    "the neighbour's value": lambda results, x: changed(results, next_element),
    "another dtype": lambda results, x: changed(
        results, lambda y: y.float() if y.dtype != torch.float32 else y.double()
    ),
    "another shape": lambda results, x: changed(results, lambda y: y[None]),
    "another layout": lambda results, x: changed(results, lambda y: y.mT.contiguous().mT if y.ndim > 1 else y),
    "the neighbour's index": lambda results, x: (results[0], *map(next_element, results[1:])),
    "twice the gradient": lambda results, x: changed(results, Twice.apply),
    "a bit of the value": lambda results, x: changed(
        results, lambda y: torch.nextafter(y.float(), y.new_tensor(9.0).float()).to(y)
    ),
    "an overwritten input": overwritten,
    "noise": lambda results, x: changed(
        results, lambda y: y + torch.randn(y.shape, dtype=y.dtype) * (torch.rand(()) < 0.5)
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_wrong_result_is_found(spoil, monkeypatch):
    def spoilt(function):
        def call(input, *arguments, **options):
            results = function(input, *arguments, **options)
            found = spoil(results if isinstance(results, tuple) else (results,), input)
            return found if isinstance(results, tuple) else found[0]

        return call

    for name in F.__all__:
        monkeypatch.setattr(F, name, spoilt(getattr(F, name)))
    assert len(failures_of(range(150))) >= 5


REFUSALS = {
    "accepts anything": lambda error: None,
    "RuntimeError": lambda error: RuntimeError(str(error)),
    "no name": lambda error: ValueError("invalid"),
}


@pytest.mark.parametrize("replace", REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_refusal_is_found(replace, monkeypatch):
    def spoilt(function):
        def call(*arguments, **options):
            try:
                return function(*arguments, **options)
            except (ValueError, TypeError) as error:
                if found := replace(error):
                    raise found from error

        return call

    for name in F.__all__:
        monkeypatch.setattr(F, name, spoilt(getattr(F, name)))
    assert len(failures_of(range(150))) >= 5


CRASHING = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import fuzz
attempt = fuzz.attempt
fuzz.attempt = lambda seed, number: os.kill(os.getpid(), signal.SIGSEGV) if number == 5 else attempt(seed, number)
sys.exit(fuzz.main())
"""


def test_a_crash_tells_its_case_and_the_rest_goes_on(tmp_path, monkeypatch, capfd):
    script = tmp_path / "crashing.py"
    script.write_text(CRASHING.format(tests=str(fuzz.Path(inspect.getfile(fuzz)).parent)))
    monkeypatch.setattr(fuzz, "__file__", str(script))
    arguments = argparse.Namespace(seed=SEED, cases=12, until=1e12, jobs=1)
    assert fuzz.supervise(arguments, tmp_path) == 1
    printed = capfd.readouterr().out
    assert fuzz.command(SEED, 5) in printed
    assert "6 cases" in printed  # those behind the crash
