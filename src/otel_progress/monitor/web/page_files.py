"""The files of the page, from memory: a browser needs thirty of them before it shows anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from otel_progress.monitor.web.threads import in_thread

if TYPE_CHECKING:
    from starlette.types import Scope


class PageFiles(StaticFiles):
    """Serves the files of a folder; each is read once, and kept: to read it takes several turns of worker threads."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        super().__init__(directory=folder, check_dir=False)
        self._kept: dict[str, Response] = {}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The response to a request for a file, relative to the folder."""
        kept = self._kept.get(path)
        if kept is None or scope["method"] not in ("GET", "HEAD"):
            found = await super().get_response(path, scope)
            if not isinstance(found, FileResponse):
                return found
            content = await in_thread(Path(found.path).read_bytes)
            about = {name: found.headers[name] for name in ("etag", "last-modified")}
            kept = self._kept[path] = Response(content, headers=about, media_type=found.media_type)
        if self.is_not_modified(kept.headers, Headers(scope=scope)):
            return NotModifiedResponse(kept.headers)
        return kept
