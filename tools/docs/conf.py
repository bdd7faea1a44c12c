"""Settings of Sphinx for the site: Markdown as GitHub reads it, one theme, and nothing from other hosts."""

project = "otel-progress"
author = "the authors of otel-progress"
extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 6
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["misc.highlighting_failure"]  # languages without a lexer, such as LogQL, are shown plain
nitpicky = True
html_theme = "furo"
html_title = "otel-progress"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
