"""The redaction hook: every text passes it before it is stored, so that a masked secret is neither sent nor kept.

Texts are redacted on input, not on output: there are many outputs, and some (spans) are read in the caller's thread by
providers of others. Options given before a start (of an operation, a stage or a decorator) are redacted at the start,
so that a hook given to `configure()` also applies to decorators above that call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.live.guard import drops, say, tell_once
from otel_progress.model import values
from otel_progress.model.redact import Redact, by_name, guarded
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.values import EMPTY, MESSAGE_LENGTH, VALUE_LENGTH, Attributes, Value

MARGIN: Final = 256
"""Characters read beyond a limit, so that a secret cut in two by the limit is still recognised."""


def _failed(what: str) -> None:
    drops.add(semconv.DROP_VALUE)
    tell_once(f"{what}, and the job goes on")


masked: Redact = guarded(mask_secrets, _failed)
"""Redact a text: takes what kind of text it is and the text, returns the redacted text."""


given: Redact | None = None
"""The hook last given in code, until `shutdown()`."""


def use(redact: Redact | None) -> None:
    """Use this hook from now on; None is the default, `mask_secrets`."""
    global masked, given
    given = redact
    masked = guarded(redact or mask_secrets, _failed)
    described.cache_clear()


def chosen(redact: object, named: str) -> Redact:
    """The hook given to `configure()`, now or before, else the one that `OTEL_PROGRESS_REDACT` names.

    An invalid `OTEL_PROGRESS_REDACT` is logged, and secrets are masked: a typo must neither stop a job nor open a leak.

    Raises:
        InvalidArgument: if the given hook is not a function of two texts, or an unknown name.
    """
    if isinstance(redact, str):
        try:
            return by_name(redact)
        except ValueError as error:
            raise InvalidArgument(f"redact={redact!r} names no redaction: {error}") from None
    if redact is None and given is not None:
        return given  # a library that configures again must not open a leak
    if redact is not None:
        if not _takes_two(redact):
            raise InvalidArgument(
                f"redact must be a function of two texts, redact(what, text), or a name, not {values.shown(redact)}"
            )
        found: Redact = redact  # type: ignore[assignment]
        return found
    try:
        return by_name(named)
    except ValueError as error:
        say("OTEL_PROGRESS_REDACT=%r is not used, secrets are masked: %s", named, error)
        return mask_secrets


def _takes_two(redact: object) -> bool:
    """Whether it accepts two arguments, as far as its signature says."""
    try:
        inspect.signature(redact).bind("", "")  # type: ignore[arg-type]
    except ValueError:  # written in C
        return callable(redact)
    except TypeError:
        return False
    return True


def text(what: str, given: object, limit: int = MESSAGE_LENGTH) -> str:
    """Redact a text of the job, and shorten it to `limit` characters."""
    whole = values.text(given, drops, limit + MARGIN)
    found = masked(what, whole)
    if found is not whole and not found.isascii():
        found = values.text(found, drops, len(found))
    if len(found) <= limit:
        return found
    if len(whole) < limit + MARGIN:
        drops.add(semconv.DROP_TEXT)  # else the first cut was counted
    return found[: limit - 1] + "…"


def attributes(given: Mapping[str, object], before: Mapping[str, Value] = EMPTY) -> Attributes:
    """Redact attributes, and merge them into `before`."""
    return values.attributes(given, drops, before, VALUE_LENGTH + MARGIN, _value)


@functools.lru_cache(256)
def described(given: str | None) -> str | None:
    """Redact a description."""
    return None if given is None else text("description", given)


def _value(key: str, given: Value) -> Value:
    """Redact the value of an attribute; a masked number becomes a text."""
    if isinstance(given, tuple):
        return _values(key, given)
    if isinstance(given, str):
        return text(key, given, VALUE_LENGTH)
    if isinstance(given, bool):
        return given
    plain = str(given)
    found = masked(key, plain)
    return given if found == plain else values.text(found, drops, VALUE_LENGTH)


def _values(key: str, given: tuple[values.Scalar, ...]) -> Value:
    """Redact a list of values; an option of a command line and its value are redacted together."""
    found = tuple(str(_value(key, each)) for each in given)
    if all(isinstance(each, str) for each in given):
        line = masked(key, "\n".join(found)).split("\n")
        return tuple(line) if len(line) == len(found) else found
    return given if found == tuple(map(str, given)) else found
