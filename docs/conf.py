"""How Sphinx builds these pages; `make docs` does."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nbclient
import sphinx.application

import scvae_data

project = "scvae-data"
author = copyright = "The scvae-data authors"
release = version = scvae_data.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
root_doc = "index"

html_theme = "sphinx_book_theme"
html_title = "scvae-data"
html_theme_options = {
    "navbar_persistent": [],  # one field to search is enough
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
html_static_path = ["_static"]
html_show_copyright = False

# Pages link to headings of each other as GitHub names them.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
highlight_language = "text"

# Tutorials are run whenever they are read, in the order of their names and in one folder: later ones go on with what
# earlier ones have made. One that fails ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
# What a program writes comes in pieces, wherever in a line: they are put together before they are shown.
nbclient.NotebookClient.coalesce_streams = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # types of attributes as they are written are no links: numpy.object_

# Names of the package must lead somewhere; those of other packages do where their inventories can be fetched, which is
# not asked of a build on any machine.
nitpicky = True
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
nitpick_ignore_regex = [("py:.*", r"(?!scvae_data\b).*")]

linkcheck_anchors = False  # pages of journals make theirs in the browser
linkcheck_timeout = 20


def setup(app: sphinx.application.Sphinx) -> None:
    """Give the tutorials an empty folder beside what is built, and the programs of this environment."""
    folder = Path(app.outdir).parent / "tutorials"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["SCVAE_DATA_TUTORIALS"] = str(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
