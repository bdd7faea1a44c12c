"""Late imports: modules that are too slow to import with the package, and that no call of a running job may import.

They are imported together when the first operation or decorator is created, or by `configure()`. If that fails, as no
file descriptor or memory is left, the job goes on without them, the failure is counted and logged once, and a later
call tries again, at most once a second.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from otel_progress import clock
from otel_progress.live.guard import swallow

PAUSE: Final = 1.0
"""Seconds from a failed import to the next try."""
modules: Final = [
    "live.engine.loops",
    "live.engine.sampling",
    "live.engine.capture",
    "live.engine.runtime",
    "live.engine.listeners",
    "live.executor",
    "model.json_keys",
    "model.summary",
]
"""The modules to import; `api.py` adds the decorators."""
_found: dict[str, Any] = {}
_loading: set[int] = set()
_again_at = 0.0


class NotImported(Exception):
    """A module is not imported, and can't be imported now; the guard counts it."""


def load() -> bool:
    """Import all modules if that was not done yet; returns whether they are imported.

    A signal handler may interrupt this; its own calls then work without the modules.
    """
    global _again_at
    if _found:
        return True
    thread = threading.get_ident()
    if thread in _loading or clock.monotonic() < _again_at:
        return False
    _loading.add(thread)
    try:
        _found.update(_imported())
    except BaseException as error:
        _again_at = clock.monotonic() + PAUSE
        swallow(
            error, "the import of its own parts; is there no file descriptor or no memory left? It will be tried again"
        )
    finally:
        _loading.discard(thread)
    return bool(_found)


def get(module: str) -> Any:
    """A module by its name, such as `live.engine.loops`.

    Raises:
        NotImported: if it can't be imported now.
    """
    if not _found and not load():
        raise NotImported(module)
    return _found[module]


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word nearest to a mistyped one, or None."""
    if not _found and not load():
        return None
    close = _found["difflib"].get_close_matches(word, known, 1)
    return close[0] if close else None


def _imported() -> dict[str, Any]:
    """Import all modules; an interrupted import keeps none of them half initialised here."""
    import difflib
    from importlib import import_module

    found = {name: import_module(f"otel_progress.{name}") for name in modules}
    return {**found, "difflib": difflib}
