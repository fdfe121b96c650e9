"""Writes docs/api: a page for each kind of pooling, with its functions and modules, from what fastpool exports."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ConfigError

from fastpool import functional, nn

# In the order of README's table. A page is called as the kind's page in docs/poolings, and as its functions.
KINDS = {
    "max": "Maximum",
    "min": "Minimum",
    "avg": "Average",
    "max_avg": "Maximum and average",
    "mixed": "Mixed",
    "random_mixed": "Randomly mixed",
    "stochastic": "Stochastic",
    "soft": "Soft",
    "lse": "Log-mean-exp",
    "gem": "Generalised mean",
    "mean_std": "Mean and deviation",
    "lp": "Power",
    "gated": "Gated",
    "tree": "Tree",
    "spatial_pyramid": "Spatial pyramid",
    "sppf": "SPPF",
    "attention": "Attention",
}
FORMS = ("", "adaptive", "global")

INDEX = """# API

Every function and every module, by kind of pooling. What a page says is what `help()` says of the same name, and its
examples are run by the tests.

Functions are in `fastpool` and in `fastpool.functional`, modules in `fastpool.nn`. What has no `2d` in its name below
has a `1d`, `2d` and `3d` form, but for those that begin with `global`, which take any number of axes.

{table}

## Modules

```{{eval-rst}}
.. automodule:: fastpool.nn
```

## Beside the poolings

```{{eval-rst}}
.. autofunction:: fastpool.replace_pooling

.. autofunction:: fastpool.show_config
```

```{{toctree}}
:hidden:

{pages}
```
"""


def of_kind(kind: str, names: list[str]) -> list[str]:
    """Sliding windows first; two axes before one and three."""
    found = {}
    for name in names:
        match = re.fullmatch(rf"(|adaptive|global)({kind})(|pool)(|[123]d)", name.replace("_", "").lower())
        if match:
            found[name] = (FORMS.index(match[1]), match[4] != "2d", match[4])
    return sorted(found, key=found.__getitem__)


def blocks(heading: str, directive: str, module: str, names: list[str]) -> str:
    text = "\n\n".join(f".. {directive}:: {module}.{name}" for name in names)
    return f"\n## {heading}\n\n```{{eval-rst}}\n{text}\n```\n" if names else ""


def shortly(names: list[str]) -> str:
    """One name for all that differ in the number of axes."""
    short = [
        name if name[-2:] == "2d" and f"{name[:-2]}1d" not in names else re.sub("[123]d$", "", name) for name in names
    ]
    return ", ".join(f"`{name}`" for name in dict.fromkeys(short))


def write(app: Sphinx) -> None:
    left = {*functional.__all__, *nn.__all__}
    table = ["| page | functions | modules |", "|---|---|---|"]
    texts = {}
    for page, title in KINDS.items():
        kind = page.replace("_", "")
        functions, modules = of_kind(kind, functional.__all__), of_kind(kind, nn.__all__)
        left -= {*functions, *modules}
        table.append(f"| [{title}]({page}.md) | {shortly(functions)} | {shortly(modules)} |")
        texts[page] = f"# {title}\n\nWhat it computes, when to use it, how fast it is: [](../poolings/{page}.md).\n"
        texts[page] += blocks("Functions", "autofunction", "fastpool", functions)
        texts[page] += blocks("Modules", "autoclass", "fastpool.nn", modules)
    if left:
        raise ConfigError(f"docs/extensions/api_pages.py puts these on no page: {', '.join(sorted(left))}")
    texts["index"] = INDEX.format(table="\n".join(table), pages="\n".join(KINDS))

    folder = Path(app.srcdir, "api")
    folder.mkdir(exist_ok=True)
    for page, text in texts.items():
        path = folder / f"{page}.md"
        # What is written anew is read anew.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
