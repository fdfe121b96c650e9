"""The examples in the documentation run, and every public name is documented."""

import doctest
import inspect
import re
from pathlib import Path

import pytest
import torch

import fastpool._replace
import fastpool.functional
import fastpool.nn

TESTS = Path(__file__).parent
MODULES = [fastpool.functional, fastpool.nn, fastpool._replace]


def public(module):
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return {
        name: value
        for name in names
        if callable(value := getattr(module, name)) and value.__module__.startswith("fastpool")
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_run(module):
    """Docstrings are completed on import, so doctest cannot collect them from the source."""
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    environment = {"torch": torch, "fastpool": fastpool, **vars(module)}
    tests = [doctest.DocTestParser().get_doctest(module.__doc__ or "", dict(environment), module.__name__, None, 0)]
    for name, value in public(module).items():
        tests += finder.find(value, name, module=False, globs=dict(environment))
    output = []
    for test in tests:
        runner.run(test, out=output.append)
    results = runner.summarize(verbose=False)
    assert results.failed == 0, "".join(output)
    assert results.attempted > (len(public(module)) if module is fastpool.functional else 0)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    for name, value in public(module).items():
        text = inspect.getdoc(value) or ""
        assert ">>>" in text, f"{name} has no example"
        if module is fastpool.nn:
            described = text[text.index("\nArgs:") : text.index("\nExample:")]
            for argument in inspect.signature(value).parameters:
                assert re.search(rf"^    ([a-z_]+, )*{argument}(, [a-z_]+)*: ", described, re.MULTILINE), (
                    f"{name} lacks {argument}"
                )
            assert "Shape:" in described, f"{name} tells no shapes"
            assert all(len(line) <= 120 for line in text.splitlines()), name


def test_what_works_where_names_tests_that_exist():
    page = TESTS.parent / "docs" / "compatibility.md"
    if not page.exists():
        pytest.skip("these tests lie outside the sources")
    text = page.read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name for file in TESTS.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert named and named <= defined, named - defined
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^## (.*)", text, re.M)}
    links = set(re.findall(r"\]\(#([^)]*)\)", text))
    assert links and links <= headings, links - headings
