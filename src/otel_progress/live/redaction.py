"""The one hook through which every text goes before it is kept: what it masks leaves by no way, and lies in no memory.

Texts are redacted when they come in, not when they go out: there are many ways out, and some of them (spans) are taken
in the caller's thread by providers of others. What is said before a start (the options of an operation, a stage or a
decorator) is redacted at the start, so that a hook given to `configure()` holds for decorators above it, too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.live.drops import drops
from otel_progress.live.guard import say, tell_once
from otel_progress.model import values
from otel_progress.model.redact import Redact, by_name, guarded
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.values import EMPTY, MESSAGE_LENGTH, VALUE_LENGTH, Attributes, Value

if TYPE_CHECKING:
    from otel_progress.live.handle import Handle

MARGIN: Final = 256
"""Characters looked at beyond a limit, so that a secret that the limit cuts in two is still known as one."""


def _failed(what: str) -> None:
    drops.add(semconv.DROP_VALUE)
    tell_once(f"{what}, and the job goes on")


masked: Redact = guarded(mask_secrets, _failed)
"""What a text is, and the text as it may leave."""


given: Redact | None = None
"""The hook that code named last, until `shutdown()`."""


def use(redact: Redact | None) -> None:
    """Redact by this function from now on; None is the default, `mask_secrets`."""
    global masked, given
    given = redact
    masked = guarded(redact or mask_secrets, _failed)
    described.cache_clear()


def chosen(redact: object, named: str) -> Redact:
    """The hook that `configure()` was given, now or before, else the one that `OTEL_PROGRESS_REDACT` names.

    Raises:
        InvalidArgument: where what was given is no such function. What the environment names wrong is told in the log,
            and secrets are masked: a typo must neither stop a job nor open a leak.
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
    """Whether it can be called with two arguments, as far as that can be told."""
    try:
        inspect.signature(redact).bind("", "")  # type: ignore[arg-type]
    except ValueError:  # written in C
        return callable(redact)
    except TypeError:
        return False
    return True


def text(what: str, given: object, limit: int = MESSAGE_LENGTH) -> str:
    """What the job said, as a text of at most `limit` characters that may leave."""
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
    """`before` with `given` laid over it, as far as it may leave."""
    return values.attributes(given, drops, before, VALUE_LENGTH + MARGIN, _value)


def of_start(node: Handle) -> None:
    """What was said of an operation or a stage before it starts may leave from now on."""
    if node._message is not None:
        node._message = text("message", node._message)
    more = node._more
    if more is not None and more.attributes:
        more.attributes = attributes(more.attributes)


@functools.lru_cache(256)
def described(given: str | None) -> str | None:
    """A description as it may leave."""
    return None if given is None else text("description", given)


def _value(key: str, given: Value) -> Value:
    """The value of an attribute as it may leave; a number that is masked becomes a text."""
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
    """A list of values; an option of a command line and its value are looked at together."""
    found = tuple(str(_value(key, each)) for each in given)
    if all(isinstance(each, str) for each in given):
        line = masked(key, "\n".join(found)).split("\n")
        return tuple(line) if len(line) == len(found) else found
    return given if found == tuple(map(str, given)) else found
