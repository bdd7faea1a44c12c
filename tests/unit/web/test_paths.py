"""The path below the mount point, whatever root, proxy and encoding."""

from __future__ import annotations

import pytest

from otel_progress.web.paths import below_root, undecoded


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        ("/operations", "", "/operations"),
        ("/progress/operations", "/progress", "/operations"),
        ("/progress/operations", "/progress/", "/operations"),
        ("/api/progress/operations", "/api/progress", "/operations"),
        ("/progress/operations", "/api/progress", "/operations"),  # the proxy removed /api
        ("/progress/operations", "/a/b/progress", "/operations"),
        ("/progressive/operations", "/progress", "/progressive/operations"),
        ("/progress", "/progress", ""),
    ],
)
def test_root_is_removed(path: str, root: str, found: str) -> None:
    """The root, or what a proxy left of it, is no part of the path."""
    assert below_root({"path": path, "root_path": root}) == found


@pytest.mark.parametrize(
    "raw", ["/operations/a%2Fb", "/operations/a%2Fb/stream", "/operations/%3Cscript%3E%25", "/operations/%C3%A4"]
)
@pytest.mark.parametrize("root", ["", "/progress", "/a/b/c"])
def test_ids_stay_encoded(raw: str, root: str) -> None:
    """An id with slashes, percent signs or other letters is one segment of the path as it was sent."""
    from urllib.parse import unquote

    scope = {"path": root + unquote(raw), "raw_path": (root + raw).encode() + b"?after=1", "root_path": root}
    assert undecoded(scope, below_root(scope)) == raw


def test_server_without_raw_path() -> None:
    """A server that gives only the decoded path serves ids without slashes."""
    assert undecoded({"path": "/p/operations/a b%", "root_path": "/p"}, "/operations/a b%") == "/operations/a%20b%25"
