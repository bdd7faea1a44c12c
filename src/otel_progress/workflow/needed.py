"""Whether the extra `workflow` is installed."""

from __future__ import annotations

import importlib

from otel_progress.errors import MissingDependency


def needed() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        MissingDependency: If one is not.
    """
    for package in ("anyio", "stamina"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingDependency(
                f"otel_progress.workflow needs {package}: pip install 'otel-progress[workflow]'"
            ) from None
