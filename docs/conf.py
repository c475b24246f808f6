"""Settings of the docs site: Sphinx with MyST's Markdown and the theme Furo (`make docs`)."""

project = "reelbank"
html_title = "reelbank"
extensions = ["myst_parser"]
# Packages that show how to extend reelbank are no pages.
exclude_patterns = ["example*"]

# Definition lists, for the options of the commands. Headings down to the third level have anchors.
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# With the warnings as errors of `make docs`, a reference to nothing stops the build.
nitpicky = True

# Two dashes are an option, not a long dash.
smartquotes = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
