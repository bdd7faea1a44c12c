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
html_static_path = ["static"]
html_css_files = ["site.css"]


def setup(app):
    """Name the twin of each page in Markdown."""
    app.connect("html-page-context", _twin)


def _twin(_app, page, _template, context, doctree) -> None:
    if doctree is not None:
        name = page.rpartition("/")[2]
        context["metatags"] += f'<link rel="alternate" type="text/markdown" href="{name}.md">\n'
