"""The gallery: examples/*.py in the Makefile's order, each with the results of its full run. The build runs none.

A program that is not in that order, or has no results in examples/results, is a warning and so an error of `make docs`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx_gallery.utils import scale_image

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "examples" / "results"
ORDER = re.search(r"^GALLERY := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
FILES = {path.stem: path for path in sorted(ROOT.glob("examples/*.py"))}
PROGRAMS = [name for name, path in FILES.items() if "\ndef main(" in path.read_text()]
SHARED = [name for name in FILES if name not in PROGRAMS]

log = logging.getLogger("fastpool.gallery")


class Order:
    def __init__(self, folder: str) -> None:
        pass

    def __call__(self, name: str) -> int:
        name = name.removesuffix(".py")
        return ORDER.index(name) if name in ORDER else len(ORDER)


def check(app: Sphinx) -> None:
    for name in PROGRAMS:
        if name not in ORDER:
            log.warning("examples/%s.py is a program that the Makefile's GALLERY does not name", name)
        missing = [f"{name}{end}" for end in (".png", ".txt", ".json") if not (RESULTS / f"{name}{end}").exists()]
        if missing:
            log.warning(
                "examples/results has no %s: run examples/%s.py --out examples/results", ", ".join(missing), name
            )


def thumbnails(app: Sphinx) -> None:
    for name in PROGRAMS:
        picture = RESULTS / f"{name}.png"
        thumbnail = Path(app.srcdir, "gallery", "images", "thumb", f"sphx_glr_{name}_thumb.png")
        if picture.exists() and thumbnail.parent.exists():
            scale_image(picture, thumbnail, 400, 280)


def imported(name: str) -> list[str]:
    """A program's siblings, and theirs."""
    found: list[str] = []
    for line in re.findall(r"^import (\w+)$", FILES[name].read_text(), re.MULTILINE):
        if line in SHARED:
            found += [line, *imported(line)]
    return list(dict.fromkeys(found))


def results(name: str) -> str:
    """What the full run drew, printed and took."""
    pictures = [RESULTS / f"{name}.png", *sorted(RESULTS.glob(f"{name}-*.png"))]
    blocks = [f".. image:: /../examples/results/{path.name}\n   :alt: {path.stem}" for path in pictures]
    printed = (RESULTS / f"{name}.txt").read_text().rstrip()
    blocks.append(".. code-block:: text\n\n" + "\n".join(f"   {line}".rstrip() for line in printed.splitlines()))
    record = json.loads((RESULTS / f"{name}.json").read_text())
    blocks.append(
        "``python examples/{program}.py --seed {seed}`` made this in {seconds:.0f} seconds: "
        "{threads} threads, {machine}, torch {torch}.".format(**record)
    )
    links = [f":download:`{file}.py </../examples/{file}.py>`" for file in (name, *imported(name))]
    return "\n\n".join(blocks) + f"\n\nThe program\n-----------\n\nFiles: {', '.join(links)}.\n\n"


def show(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the results between the prose and the code, and the files, with those that are imported, before the code."""
    name = page.removeprefix("gallery/")
    if name not in PROGRAMS or not (RESULTS / f"{name}.json").exists():
        return
    text = source[0][source[0].index(".. rst-class:: sphx-glr-example-title") :]
    text = text[: text.index(f".. _sphx_glr_download_gallery_{name}.py:")]
    prose, mark, code = text.partition(".. GENERATED FROM PYTHON SOURCE LINES")
    source[0] = prose + results(name) + mark + code


def always(app: Sphinx, *changes: object) -> list[str]:
    """Sphinx sees changes of a page, not of its results."""
    return [f"gallery/{name}" for name in PROGRAMS]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", check)
    # After sphinx-gallery, which without running them knows no picture.
    app.connect("builder-inited", thumbnails, priority=900)
    app.connect("env-get-outdated", always)
    app.connect("source-read", show)
    return {"parallel_read_safe": True}
