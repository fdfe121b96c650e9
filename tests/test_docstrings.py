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
from fastpool._operators import POOLINGS

TESTS = Path(__file__).parent
SITE = TESTS.parent / "docs"
PAGES = {path.relative_to(SITE).as_posix(): path for path in sorted(SITE.rglob("*.md"))}
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


def examples_of(page):
    """The page with nothing left but its ```python blocks that start with a prompt, on the lines where they stood."""
    lines, inside = [], False
    for line in page.read_text().splitlines():
        inside = inside and not line.startswith("```")
        lines.append(line if inside else "")
        inside = inside or line.startswith("```python")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if ">>> " in page.read_text()])
def test_examples_of_pages_run(name):
    test = doctest.DocTestParser().get_doctest(examples_of(PAGES[name]), {}, name, PAGES[name], 0)
    found, written = len(test.examples), PAGES[name].read_text().count(">>> ")
    assert found == written, "an example outside ```python blocks"
    output = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.append)
    assert not output, "".join(output)


def test_every_pooling_has_a_page_that_shows_it():
    if not PAGES:
        pytest.skip("these tests lie outside the sources")
    for kind in [*POOLINGS, "random_mixed", "spatial_pyramid", "sppf", "attention", "windows"]:
        page = PAGES.get(f"poolings/{kind}.md")
        assert page and ">>> " in page.read_text(), f"docs/poolings/{kind}.md shows no example"
        assert f"({kind}.md)" in PAGES["poolings/index.md"].read_text(), f"{kind} is not in the table of poolings"


def test_what_works_where_names_tests_that_exist():
    page = SITE / "compatibility.md"
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
