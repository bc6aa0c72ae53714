"""Settings of Sphinx: `sphinx-build -W docs docs/_build`."""

import os

# The build of the gallery shows what an example prints, not what TensorFlow logs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import skvae
from skvae.documentation import BASE_ADDRESS

project = "skvae"
author = "The skvae developers"
project_copyright = "The skvae developers"
version = release = skvae.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples"]
templates_path = ["_templates"]
nitpicky = True

# API reference
autodoc_typehints = "none"  # docstrings have the types
numpydoc_show_class_members = False

# Pages
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "api/examples",
    "doc_module": ("skvae",),
    "reference_url": {"skvae": None},
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "thumbnail_size": (400, 280),
}


def skip_member(app, what, name, obj, skip, options):
    """Leave out the methods of scikit-learn's metadata routing."""
    return skip or (name.startswith("set_") and name.endswith("_request"))


def setup(app):
    """Connect to Sphinx."""
    app.connect("autodoc-skip-member", skip_member)


# Appearance
html_theme = "pydata_sphinx_theme"
html_title = f"skvae {release}"
html_baseurl = BASE_ADDRESS
html_static_path = ["_static"]
html_css_files = ["skvae.css"]
html_show_sourcelink = False
# Pages without pages below them need no list of these.
html_sidebars = {
    page: [] for page in ("getting_started", "how_it_works", "changes", "contributing")
}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
}
