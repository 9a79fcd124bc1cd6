"""The site of `make docs`. Its root is the repository, so READMEs and notebooks are pages where they lie."""

from pathlib import Path

import tedlens

project = "tedlens"
author = "the tedlens developers"
copyright = author
release = tedlens.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.rst",
    "notebooks/*.ipynb",
    "tedlens/models/README.md",
    "tedlens/models/mini/README.md",
    "tests/benchmarks/README.md",
    "figures/benchmark*/report.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
templates_path = [str(Path(__file__).parent / "_templates")]  # autosummary looks beside the root, Sphinx beside this

html_theme = "furo"
html_title = f"tedlens {release}"

# Pages list what a package's __all__ (or its .pyi, where names load on first use) makes public.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "signature"
numpydoc_show_class_members = False

nb_execution_mode = "off"
suppress_warnings = ["mystnb.unknown_mime_type"]  # live plotly figures: the PNG beside each is shown
myst_heading_anchors = 3
