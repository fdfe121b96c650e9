"""No pooling of the table is without functions, modules, pyramid mode, reference, tests, benchmark or documentation."""

import inspect
from pathlib import Path

import backends
import poolings
import pytest
import reference
import test_autograd
import test_filters
import test_modules
import test_operators
import test_pyramid

import fastpool.functional as F
from fastpool import _onnx, nn
from fastpool._kinds import OPTIONS
from fastpool._operators import OPERATORS, RESULTS
from fastpool._window_formulas import WINDOW_FORMULAS

ROOT = Path(__file__).parent.parent
KINDS = list(poolings.TABLE)
BY_FILTERS = [pooling.name for pooling in poolings.TABLE.values() if pooling.call in ("gated_kind", "tree_kind")]
NAMES = {"sliding": "{}_pool2d", "adaptive": "adaptive_{}_pool2d", "global": "global_{}_pool"}


def operators_of(kind):
    return [name for name, function in poolings.OPERATORS.items() if function == kind and name in RESULTS]


@pytest.mark.parametrize("kind", KINDS)
def test_functions_and_modules(kind):
    pooling = poolings.TABLE[kind]
    for form in pooling.forms:
        function = getattr(F, NAMES[form].format(kind))
        assert {argument.name for argument in pooling.arguments} <= set(inspect.signature(function).parameters)
        assert all(argument.name + ":" in function.__doc__ for argument in pooling.arguments)
        assert "NaN" in function.__doc__
    assert hasattr(nn, f"{pooling.class_name}Pool2d")
    tested = [*test_modules.MODULES, *(poolings.TABLE[name].class_name for name in BY_FILTERS)]
    assert any(name.startswith(pooling.class_name) for name in tested), "no test of its module"
    assert (kind in OPTIONS) == ("adaptive" in pooling.forms), "no mode of pyramids"


@pytest.mark.parametrize("kind", KINDS)
def test_tests(kind):
    if kind in BY_FILTERS:
        assert f"{kind}_pool" in inspect.getsource(test_filters), "no tests"
        assert hasattr(reference, f"{kind}_pool"), "no reference"
        return
    rows = [pooling for pooling in poolings.POOLINGS if pooling.function == kind]
    assert rows, "no row in poolings.POOLINGS: nothing compares it with its reference"
    assert hasattr(reference, f"{kind}_pool") or kind == "max_avg", "no reference"
    assert any(kind == pooling[0].function for pooling in test_pyramid.MODES.values()) or kind not in OPTIONS
    of_backends = inspect.getsource(backends.selections) + " ".join(pooling.function for pooling in backends.ROUNDED)
    assert kind in of_backends.lower(), "the emulated CUDA kernels do not run it"
    assert any(kind in name.replace("draw", "stochastic") for name in test_autograd.POOLS), "no finite differences"
    for operator in operators_of(kind):
        assert operator in test_operators.SAMPLES, f"{operator} has no samples for opcheck"


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    for operator in operators_of(kind):
        if "moments" in RESULTS[operator]:
            assert operator in WINDOW_FORMULAS, f"{operator} has no formula for its second derivative"
            assert f"{operator}_backward" in OPERATORS, f"{operator} has no gradient"


@pytest.mark.parametrize("kind", KINDS)
def test_export_to_onnx(kind):
    for operator in operators_of(kind):
        assert operator in _onnx.POOLS or operator in WINDOW_FORMULAS, f"{operator} has no composition"


@pytest.mark.parametrize("kind", KINDS)
def test_benchmarks_and_documentation(kind):
    benchmarks = (ROOT / "benchmarks" / "operations.py").read_text()
    for operator in operators_of(kind):
        assert f'"{operator}"' in benchmarks, f"no benchmark row runs {operator}"
    assert f"`{kind}_pool`" in (ROOT / "README.md").read_text(), "not in the README's table of operations"
