"""What `/health` says: whether the monitor is well, how much it holds, and what got stuck on the way in or out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from otel_progress.monitor.auth import READ
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.web.threads import in_thread

if TYPE_CHECKING:
    from otel_progress.monitor.auth import Auth, Identity
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.web.listing import Listing
    from otel_progress.monitor.web.stream import Hub
    from otel_progress.monitor.web.views import Views

Part = Callable[[], Mapping[str, Any]]
"""What a part of the monitor says of itself, by its key; a value with `trouble` makes the monitor degraded."""


class MonitorHealth:
    """Collects what the parts of the monitor say of themselves."""

    def __init__(
        self, core: Core, listing: Listing, views: Views, hub: Hub, auth: Auth, version: str, parts: tuple[Part, ...]
    ) -> None:
        """What `parts` say is shown only to those who may see everything."""
        self._core = core
        self._listing = listing
        self._views = views
        self._hub = hub
        self._auth = auth
        self._parts = parts
        self.about = {"status": "ok", "product": "otel-progress", "version": version, "pid": os.getpid()}

    def loading(self, owner: str | None) -> dict[str, Any]:
        """How much of what ran before the start is loaded; an owner only learns that loading goes on."""
        loading = self._core.loading.progress()
        return {} if loading is None else {"loading": loading if owner is None else {}}

    async def report(self, identity: Identity | None) -> dict[str, Any]:
        """The answer; without an identity only whether the monitor is well."""
        parts: dict[str, Any] = {}
        for part in self._parts:
            parts |= part()
        trouble = self._trouble(parts)
        out: dict[str, Any] = {**self.about, "status": "degraded" if trouble else "ok"}
        if identity is not None and READ in identity.rights:
            with contextlib.suppress(StoreError):  # the trouble below says why
                out["operations"] = await in_thread(self._listing.counts, identity.owner)
            out |= self.loading(identity.owner)
        if identity is not None and identity.owner is None:
            out["records"] = {"taken": self._core.taken, "refused": self._core.refused}
            out["readers"] = self._hub.readers
            out["denied"] = self._auth.denied
            if self._views.unshown:
                out["unshown"] = len(self._views.unshown)
            out |= parts
            if trouble:
                out["trouble"] = trouble
        return out

    def _trouble(self, parts: Mapping[str, Any]) -> str | None:
        """What is wrong, in words; what is wrong with the monitor itself comes first."""
        if self._core.faults.text:
            return self._core.faults.text
        found = (part.get("trouble") for part in parts.values() if isinstance(part, Mapping))
        return next((str(trouble) for trouble in found if trouble), None)
