"""How Sphinx builds the documentation: `make docs`.

Everything that the built pages load lies beside them: formulas are MathML, which browsers render by themselves, the
theme brings no web fonts, and the build fails where a page would load anything from another host (tools/offline.py).
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Oubli"
author = "the Oubli authors"
project_copyright = f"%Y, {author}"
version = release = installed_version("oubli")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "tools.docstrings",
    "tools.directives",
    "tools.mathml",
    "tools.offline",
]
exclude_patterns = ["tools"]

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Progress", "CurvatureBuilder", "LossFunction", "Damping")}
# The interpreter's own text for these is not ours.
autodoc_inherit_docstrings = False
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
# Fields are members as well: listed once, not as objects of their own.
napoleon_use_ivar = True
python_maximum_signature_line_length = 120
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"Oubli {version}"
html_static_path = ["static"]
html_css_files = ["oubli.css"]
html_show_sphinx = False
html_math_renderer = "mathml"
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2f5d8c", "color-brand-content": "#2f5d8c"},
    "dark_css_variables": {"color-brand-primary": "#8ab6e0", "color-brand-content": "#8ab6e0"},
}
# A dash in an option is no punctuation.
smartquotes = False
pygments_style = "friendly"
