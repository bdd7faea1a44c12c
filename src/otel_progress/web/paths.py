"""The path of a request below the point where the application is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from starlette.types import Scope


def below_root(scope: Scope) -> str:
    """The decoded path without its root.

    A proxy may have removed the first part of `root_path` already, as FastAPI's `root_path` says.

    Example:
        `"/operations"` for the path `/progress/operations` and the root `/api/progress` or `/progress`.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    while root and path != root and not path.startswith(f"{root}/"):
        cut = root.find("/", 1)
        root = "" if cut < 0 else root[cut:]
    return path[len(root) :]


def undecoded(scope: Scope, inner: str) -> str:
    """The end of the path that is `inner` when decoded, as it was sent: an id is one segment, whatever it contains."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return quote(inner, safe="/")
    before = path[: len(path) - len(inner)].count("/")
    return "/" + "/".join(raw.partition(b"?")[0].decode("latin-1").split("/")[1 + before :])
