"""The documentation as a site: `make site` builds it, without a warning."""

from __future__ import annotations

import re
from typing import Any

from cmsim.version import __version__

project, author, release = "cmsim", "The cmsim developers", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
autosummary_generate = False  # numpydoc brings it
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"  # the docstrings say types where they help
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False, "navigation_depth": 2, "secondary_sidebar_items": ["page-toc"]}
html_title = f"cmsim {release}"

#: parts of the site, and the pages of each; on other readers of Markdown the index is a table, and this is not there
PARTS = {
    "Tutorial": ("tutorial",),
    "How to": ("howto/*",),
    "Explanation": ("engine", "figures", "architecture", "models", "glossary"),
    "Reference": ("reference", "api", "stability"),
    "Trust": ("validity", "validity/*", "coverage"),
    "Speed": ("performance", "performance/*"),
    "Decisions": ("decisions/*",),
}


def _read(_: Any, page: str, text: list[str]) -> None:
    """Pages beside the folder are no pages of the site; the index gets the site's tables of contents."""
    text[0] = re.sub(r"\[([^]]+)\]\((?:\.\./)+(?:[A-Z]+\.md|[^)]*\.(?:yaml|ipynb|py)|[A-Z]+)\)", r"\1", text[0])
    if page == root_doc:
        for caption, pages in PARTS.items():
            names = "\n".join(pages)
            text[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{names}\n```\n"


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", _read)
