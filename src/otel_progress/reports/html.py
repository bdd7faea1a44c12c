"""The report as one HTML file: no script, no foreign font, nothing that is loaded from elsewhere."""

from __future__ import annotations

import importlib
from importlib import resources
from typing import Any

from otel_progress.errors import MissingDependency
from otel_progress.reports.formats import Report, document_of
from otel_progress.version import VERSION


def require() -> Any:
    """Import Jinja2, the one package that HTML needs.

    Raises:
        MissingDependency: if it is not installed.
    """
    try:
        return importlib.import_module("jinja2")
    except ImportError:
        raise MissingDependency(
            'a report in HTML needs Jinja2: pip install "otel-progress[report]", or choose another format'
        ) from None


def html(report: Report) -> str:
    """The report as HTML; every text in it is escaped.

    Raises:
        MissingDependency: if Jinja2 is not installed.
    """
    jinja2 = require()
    environment: Any = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files(__package__).joinpath("template.html").read_text("utf-8")
    page: str = environment.from_string(source).render(page=document_of(report), version=VERSION)
    return page.encode("utf-8", "replace").decode("utf-8")
