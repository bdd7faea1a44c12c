"""What may come from a job, made safe: finite numbers, short texts, few attributes."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NoReturn, TypeAlias, Union

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.model.origin import of_the_job

Scalar: TypeAlias = Union[str, bool, int, float]
Value: TypeAlias = Union[Scalar, tuple[Scalar, ...]]
Number: TypeAlias = Union[int, float]

MESSAGE_LENGTH: Final = 1024
"""Characters kept of a message, a note, a description, a reason."""
NAME_LENGTH: Final = 200
"""Characters kept of a name, an id, a key."""
VALUE_LENGTH: Final = 1024
"""Characters kept of an attribute's value."""
ATTRIBUTE_COUNT: Final = 64
"""Attributes kept of an operation, a stage, an event."""
TEXT_LENGTH: Final = 16_384
"""Characters kept of all attributes of an operation, a stage, an event together."""
SEQUENCE_LENGTH: Final = 64
"""Elements kept of a list given as an attribute."""
NESTED_COUNT: Final = 256
"""Elements kept of a dict, or of a list of lists, that is told as JSON."""
NESTED_DEPTH: Final = 8
"""The deepest that values in it are nested."""

INT_MAX: Final = 2**63 - 1
INT_MIN: Final = -(2**63)

_NESTED: Final = (Mapping, list, tuple, set, frozenset)


class Attributes(dict[str, Value]):
    """A dict that can't be changed; it pickles and copies as any value does."""

    __slots__ = ()

    def _frozen(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a snapshot can't be changed; make a dict of it first: dict(...)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _frozen
    __ior__ = _frozen

    def __reduce__(self) -> tuple[type[Attributes], tuple[dict[str, Value]]]:
        """Pickle as the dict it holds."""
        return Attributes, (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Equal attributes have equal hashes."""
        return hash(frozenset(self.items()))


EMPTY: Final = Attributes()


class Drops(dict[str, int]):
    """Counts of what a limit dropped, by reason (`semconv.DROP_*`)."""

    __slots__ = ()

    def add(self, reason: str, count: int = 1) -> None:
        """Count so many more; the loss of a race is a count too few, never an error."""
        self[reason] = self.get(reason, 0) + count


def number(value: object, drops: Drops, otherwise: Number | None = None) -> Number | None:
    """A finite int within 64 bits or a finite float; anything else is counted and becomes `otherwise`.

    Numbers of any kind count (numpy, Decimal, Fraction; True is 1); texts don't, whatever they say.
    """
    if type(value) is not int:
        value = _plain(value)
    if type(value) is not int:
        if value is None:
            drops.add(semconv.DROP_VALUE)
            return otherwise
        return value
    if INT_MIN <= value <= INT_MAX:
        return value
    drops.add(semconv.DROP_VALUE)
    return INT_MAX if value > 0 else INT_MIN


def _plain(value: object) -> Number | None:
    """An int for what is a whole number by its type, a finite float for other numbers, else None."""
    if isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except BaseException as error:
        if of_the_job(error):
            raise
    try:
        result = float(value)  # type: ignore[arg-type]
    except BaseException as error:
        if of_the_job(error):
            raise
        return None
    return result if math.isfinite(result) else None


def count(value: object, drops: Drops) -> Number | None:
    """A number of at least 0; anything else is counted, and None."""
    result = number(value, drops)
    if result is None or result >= 0:
        return result
    drops.add(semconv.DROP_VALUE)
    return None


def text(value: object, drops: Drops, limit: int = MESSAGE_LENGTH) -> str:
    """Valid Unicode of at most `limit` characters; what is cut is counted."""
    try:
        if isinstance(value, _NESTED) and not isinstance(value, tuple):
            value = as_json(value, drops)
        # a subclass of str may do anything: only its plain text is taken
        result = value.decode("utf-8", "replace") if isinstance(value, bytes) else str.__str__(str(value))
    except BaseException as error:
        if of_the_job(error):
            raise
        drops.add(semconv.DROP_VALUE)
        return f"<{type(value).__name__} that can't be shown>"
    if len(result) > limit:
        drops.add(semconv.DROP_TEXT)
        result = result[: limit - 1] + "…"
    if not result.isascii():
        result = result.encode("utf-8", "replace").decode("utf-8", "replace")
    return result


def as_json(given: object, drops: Drops) -> str:
    """A dict or a list as JSON text; what is too deep or too much is left out, marked by `…` and counted."""
    return json.dumps(_pruned(given, drops, [NESTED_COUNT], NESTED_DEPTH), ensure_ascii=False, default=str)


def _pruned(given: object, drops: Drops, room: list[int], depth: int) -> Any:
    """What `given` is in JSON, with so much room and so deep."""
    room[0] -= 1
    if not isinstance(given, _NESTED):
        return None if given is None else scalar(given, drops)
    if depth == 0:
        drops.add(semconv.DROP_ATTRIBUTE)
        return "…"
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    kept: list[tuple[Any, Any]] = []
    for key, item in pairs:
        if room[0] <= 0:
            drops.add(semconv.DROP_ATTRIBUTE)
            kept.append(("…", "…"))
            break
        kept.append((key, _pruned(item, drops, room, depth - 1)))
    if isinstance(given, Mapping):
        return {text(key, drops, NAME_LENGTH): item for key, item in kept}
    return [item for _, item in kept]


def scalar(value: object, drops: Drops, limit: int = VALUE_LENGTH) -> Scalar:
    """One value that OTLP and JSON can carry; what they can't (NaN, too) is turned to text."""
    if isinstance(value, bool):
        return value
    if type(value) in (int, float):
        known = number(value, drops)
        return str(value) if known is None else known
    return text(value, drops, limit)


def value(given: object, drops: Drops, limit: int = VALUE_LENGTH) -> Value:
    """A scalar, or a tuple of scalars of one type, as OTLP attributes have them; what is nested becomes JSON text."""
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, set, frozenset)):
        return scalar(given, drops, limit)
    items = list(islice(given, SEQUENCE_LENGTH + 1))
    if len(items) > SEQUENCE_LENGTH:
        drops.add(semconv.DROP_ATTRIBUTE)
        del items[SEQUENCE_LENGTH:]
    if any(isinstance(item, _NESTED) for item in items):
        return text(list(items), drops, limit)
    scalars = tuple(scalar(item, drops, limit) for item in items)
    kinds = {type(item) for item in scalars}
    if len(kinds) > 1:
        return (
            tuple(map(float, scalars)) if kinds == {int, float} else tuple(text(item, drops, limit) for item in scalars)
        )
    return scalars


def positive(name: str, value: object) -> Number | None:
    """An option in seconds: a finite number above 0, or None.

    Raises:
        InvalidArgument: for anything else.
    """
    known = _option(value)
    if value is None or (known is not None and known > 0):
        return _cut(known)
    raise InvalidArgument(f"{name} must be a number of seconds above 0, or None, not {shown(value)}")


def size(name: str, value: object) -> Number | None:
    """An option that is a number of at least 0, or None; above 64 bits it is cut to that.

    Raises:
        InvalidArgument: for anything else.
    """
    known = _option(value)
    if value is None or (known is not None and known >= 0):
        return _cut(known)
    raise InvalidArgument(f"{name} must be a number of at least 0, not {shown(value)}")


def names(option: str, given: object, drops: Drops) -> tuple[str, ...]:
    """An option that is a list of names, or one name.

    Raises:
        InvalidArgument: for what can't be read as a list.
    """
    if isinstance(given, str):
        return (text(given, drops, NAME_LENGTH),)
    try:
        return tuple(text(item, drops, NAME_LENGTH) for item in given)  # type: ignore[attr-defined]
    except BaseException as error:
        if of_the_job(error):
            raise
        raise InvalidArgument(f"{option} must be a list of names, not {shown(given)}") from None


def _option(value: object) -> Number | None:
    """The number that an option is, or None; a bool is a mistake there."""
    known = None if isinstance(value, bool) else _plain(value)
    return known if finite(known) else None


def _cut(known: Number | None) -> Number | None:
    return min(known, INT_MAX) if type(known) is int else known


def shown(value: object, limit: int = 60) -> str:
    """A value in an error's text: short, whatever it is."""
    try:
        result = str.__str__(repr(value))
    except BaseException as error:
        if of_the_job(error):
            raise
        return f"a {type(value).__name__}"
    return result if len(result) <= limit else f"{result[: limit - 1]}…"


def finite(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def attributes(
    given: Mapping[Any, object],
    drops: Drops,
    before: Mapping[str, Value] = EMPTY,
    limit: int = VALUE_LENGTH,
    redact: Callable[[str, Value], Value] | None = None,
) -> Attributes:
    """`before` with `given` laid over it, within `ATTRIBUTE_COUNT` and `TEXT_LENGTH`; a None is left out.

    `redact` gets the key and the value of each that is given, and returns what is kept.
    """
    result = dict(before)
    room = TEXT_LENGTH - sum(map(_length, result.values()))
    try:
        pairs = list(given.items())
    except BaseException as error:
        if of_the_job(error):
            raise
        drops.add(semconv.DROP_ATTRIBUTE)
        return Attributes(result)
    for raw_key, raw in pairs:
        if raw is None:
            continue
        key = text(raw_key, drops, NAME_LENGTH)
        if key not in result and len(result) >= ATTRIBUTE_COUNT:
            drops.add(semconv.DROP_ATTRIBUTE)
            continue
        try:
            known = value(raw, drops, limit)
            if redact is not None:
                known = redact(key, known)
        except BaseException as error:
            if of_the_job(error):
                raise
            drops.add(semconv.DROP_VALUE)
            continue
        more = _length(known) - _length(result.get(key, 0))
        if more > 0 and more > room:
            drops.add(semconv.DROP_ATTRIBUTE)
            continue
        room -= more
        result[key] = known
    return Attributes(result)


def _length(known: Value) -> int:
    """How many characters the texts in a value have."""
    if isinstance(known, str):
        return len(known)
    return sum(map(_length, known)) if isinstance(known, tuple) else 0
