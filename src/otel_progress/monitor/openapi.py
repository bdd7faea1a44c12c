"""The description of the API, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any


def document(version: str) -> dict[str, Any]:
    """The whole of it."""
    return {"openapi": "3.1.0", "info": {"title": "otel-progress monitor", "version": version}, "paths": {}}
