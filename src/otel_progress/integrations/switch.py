"""What integrations share: the switch that turns one off after an error of its own, and what is kept of inputs."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from otel_progress.live import hooks
from otel_progress.live.guard import tell_once

DIGEST: Final = 8
"""Bytes of a digest; it tells inputs of one operation apart."""


class Switch:
    """Whether an integration works; each function that the library calls asks `on` first."""

    __slots__ = ("name", "on")

    def __init__(self, name: str) -> None:
        """Switched off, until `install()` sets `on`."""
        self.name = name
        self.on = False

    def failed(self) -> None:
        """Switch the integration off, and log the error that is handled; call it in an `except BaseException`.

        Raises:
            BaseException: the error itself, if it is the job's own, such as `KeyboardInterrupt`.
        """
        self.on = False
        try:
            tell_once(f"integration {self.name} failed and is off; the job goes on")
        except BaseException:
            self.on = True
            raise


def captured(given: object) -> object | None:
    """What a tool was asked for if `configure(capture_inputs=True)` allows to keep it, else None.

    Give it to `set(...)` or `note(...)`, whose texts pass the redaction hook.
    """
    return given if hooks.captures_inputs else None


def digest(given: object) -> str:
    """A short digest by which equal inputs are known, and that says nothing else of them; for `step(...)`."""
    try:
        text = json.dumps(given, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError):
        text = repr(given)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=DIGEST).hexdigest()
