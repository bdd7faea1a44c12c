"""What integrations share: the switch that turns one off, patches of methods, and what is kept of inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar

from otel_progress.live import hooks
from otel_progress.live.guard import tell_once
from otel_progress.live.state import HandleState

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=HandleState)
DIGEST: Final = 8
"""Bytes of a digest; it tells inputs of one operation apart."""
RESULT: Final = 1_000_000
"""Characters of a result that are read to compare it with others, at most."""
PARTS: Final = 10_000
"""Parts of a result, such as the numbers in a list, that are read for that."""
NOTHING: Final = frozenset({"", "null", "None", "{}", "[]"})
"""Results that say nothing."""


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

    def guard(self, event: F, forget: Callable[[], None], passing: tuple[type[BaseException], ...] = ()) -> F:
        """Wrap what the library calls: an error of ours switches the integration off.

        Args:
            event: the function; it returns nothing.
            forget: drops what the integration holds; called after an error.
            passing: errors that are meant for the library.
        """

        @wraps(event)
        def heard(*args: Any, **kwargs: Any) -> None:
            if not self.on:
                return
            try:
                event(*args, **kwargs)
            except passing:
                raise
            except BaseException:
                self.failed()
                forget()

        return heard  # type: ignore[return-value]


class Patch:
    """Methods of a class for which ours stand; one that somebody patched after us keeps ours below."""

    __slots__ = ("_methods", "_owner")

    def __init__(self) -> None:
        """Of no class yet."""
        self._owner: Any = None
        self._methods: dict[str, tuple[Any, Any]] = {}

    def put(self, owner: Any, makers: Mapping[str, Callable[[Any], Any]]) -> None:
        """Put in the place of each method what its maker makes of it; once for a class.

        Raises:
            AttributeError, KeyError: if the class has no such method; then nothing is changed.
        """
        if self._owner is owner:
            return
        methods = {}
        for name, make in makers.items():
            plain = getattr(owner, name)  # what a descriptor, such as a `partialmethod`, makes of itself
            methods[name] = vars(owner)[name], wraps(plain)(make(plain))
        for name, (_, ours) in methods.items():
            setattr(owner, name, ours)
        self._owner, self._methods = owner, methods

    def restore(self) -> None:
        """Restore the class."""
        owner, self._owner = self._owner, None
        for name, (plain, ours) in self._methods.items() if owner is not None else ():
            if vars(owner).get(name) is ours:
                setattr(owner, name, plain)


def observed(handle: T) -> T:
    """An operation or a stage that is about to start, marked as made by an integration.

    Unless its program called `configure`, or opened an operation around it, nobody can ask it to stop. A stage of the
    same name again and again is no loop.
    """
    handle._observed = True
    return handle


def captured(given: object) -> object | None:
    """What a tool was asked for if `configure(capture_inputs=True)` allows to keep it, else None.

    Give it to `set(...)` or `note(...)`, whose texts pass the redaction hook.
    """
    return given if hooks.captures_inputs else None


def call_of(name: str, given: object, result: object) -> str | None:
    """What tells a call apart, for `step(...)`: its name, and a digest of what it was given and what it gave back.

    None if the result says nothing, or can't be compared: the same question may be about the next page, or the next job
    of a queue, so without the answer nobody knows whether anything repeats.
    """
    text = _text(result)
    return None if text is None or text in NOTHING else f"{name} {digest([given, text])}"


def _text(result: object) -> str | None:
    """All of a result as text; None if it is not made of plain values, or too large."""
    if isinstance(result, str):
        return result if len(result) <= RESULT else None
    parts, size = [], 0
    try:
        for part in _ENCODER.iterencode(result):
            parts.append(part)
            size += len(part)
            if size > RESULT or len(parts) > PARTS:
                return None
    except (TypeError, ValueError, RecursionError):
        return None
    return "".join(parts)


_ENCODER: Final = json.JSONEncoder(sort_keys=True)


def digest(given: object) -> str:
    """A short digest by which equal inputs are known, and that says nothing else of them; for `step(...)`."""
    try:
        text = json.dumps(given, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError):
        text = repr(given)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=DIGEST).hexdigest()
