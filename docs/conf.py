"""The site. `make docs` builds it, where a warning is an error; no page takes anything from another host."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import ziamath
from docutils.nodes import Element, SkipNode
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

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
exclude_patterns = ["extensions", "gallery/*.py"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# A name of fastpool that is nowhere is an error; torch's and Python's are linked to nothing, for want of a network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(torch|collections)\..*")]

autodoc_typehints_format = "short"
add_module_names = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "params_style"), "Reference"]

html_theme = "furo"
html_title = "fastpool"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
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
html_math_renderer = "ziamath"
ziamath.config.math.color = "currentColor"
ziamath.config.precision = 2


def formula(node: Element, display: bool) -> str:
    latex = node.astext()
    # ziamath makes \left( around a bare \sum_i a thousand pixels high.
    drawn = ziamath.Latex(
        re.sub(r"\\(sum|prod)(?=_)", r"\\\1\\limits", latex) if display else latex, 18, inline=not display
    )
    if "\\" in drawn.mathmlstr():
        logging.getLogger("fastpool.math").warning("not all of this formula can be drawn: %s", latex, location=node)
    svg = drawn.svgxml()
    width, height = (float(svg.get(side)) / 16.5 for side in ("width", "height"))
    below = (drawn.getyofst() - 1) / 16.5
    svg.set("style", f"width: {width:.3f}em; height: {height:.3f}em; vertical-align: {below:.3f}em")
    svg.set("role", "img")
    svg.set("aria-label", latex)
    return ElementTree.tostring(svg, encoding="unicode")


def inline(self: HTML5Translator, node: Element) -> None:
    self.body.append(f'<span class="math">{formula(node, display=False)}</span>')
    raise SkipNode


def display(self: HTML5Translator, node: Element) -> None:
    self.body.append(f'<div class="math">{formula(node, display=True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("ziamath", (inline, None), (display, None))
