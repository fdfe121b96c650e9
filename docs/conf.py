"""The site. `make docs` builds it, where a warning is an error; no page takes anything from another host."""

import re
import sys
from pathlib import Path

import ziamath
from docutils.nodes import SkipNode
from sphinx.application import Sphinx

import fastpool

sys.path.append(str(Path(__file__).parent / "extensions"))
import gallery_pages  # noqa: E402

project = "fastpool"
author = copyright = "The fastpool authors"
version = release = fastpool.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "gallery_pages",
    "speed",
]
exclude_patterns = ["extensions", "**/README.md", "gallery/*.ipynb", "gallery/*.py", "gallery/sg_execution_times.rst"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist", "substitution"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
add_module_names = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "params_style")]

html_theme = "furo"
html_title = "fastpool"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "within_subsection_order": "gallery_pages.Order",
    "ignore_pattern": rf"^({'|'.join(gallery_pages.SHARED)})\.py$",
    "notebook_extensions": set(),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}

# Drawn when the site is built: the same in every browser, without scripts and fonts.
ziamath.config.math.color = "currentColor"
ziamath.config.precision = 2


def formula(latex: str, display: bool) -> str:
    if display:
        # ziamath makes \left( around a bare \sum_i a thousand pixels high.
        latex = re.sub(r"\\(sum|prod)(?=_)", r"\\\1\\limits", latex)
    drawn = ziamath.Latex(latex, size=18 if display else 17, inline=not display)
    svg = drawn.svgxml()
    svg.set("role", "img")
    svg.set("aria-label", latex)
    svg.set("style", f"vertical-align: {drawn.getyofst() - 1:.1f}px")
    return ziamath.zmath.ET.tostring(svg, encoding="unicode")


def inline_formula(self, node) -> None:
    self.body.append(f'<span class="math">{formula(node.astext(), False)}</span>')
    raise SkipNode


def displayed_formula(self, node) -> None:
    self.body.append(f'<div class="math">{formula(node.astext(), True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("ziamath", (inline_formula, None), (displayed_formula, None))


html_math_renderer = "ziamath"
