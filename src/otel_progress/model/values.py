"""Values that a job gives, made safe: finite numbers, bounded texts, a bounded number of attributes."""

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
"""Characters kept of an attribute value."""
ATTRIBUTE_COUNT: Final = 64
"""Attributes kept of one operation, stage or event."""
TEXT_LENGTH: Final = 16_384
"""Characters kept of all attributes of one operation, stage or event together."""
SEQUENCE_LENGTH: Final = 64
"""Elements kept of a list given as an attribute."""
NESTED_COUNT: Final = 256
"""Elements kept of a dict, or of a list of lists, that becomes JSON text."""
NESTED_DEPTH: Final = 8
"""Levels of nesting kept in that JSON text."""

INT_MAX: Final = 2**63 - 1
INT_MIN: Final = -(2**63)

_NESTED: Final = (Mapping, list, tuple, set, frozenset)


class Attributes(dict[str, Value]):
    """An immutable dict that can be pickled and copied."""

    __slots__ = ()

    def _frozen(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a snapshot is immutable; copy it first: dict(...)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _frozen
    __ior__ = _frozen

    def __reduce__(self) -> tuple[type[Attributes], tuple[dict[str, Value]]]:
        """Pickle as a plain dict."""
        return Attributes, (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash by content."""
        return hash(frozenset(self.items()))


EMPTY: Final = Attributes()


def no_attributes() -> Attributes:
    """The empty value, as a `default_factory`: Python 3.10 rejects a dict as the default of a dataclass field."""
    return EMPTY


class Drops(dict[str, int]):
    """Counts of what the limits dropped, by reason (`semconv.DROP_*`)."""

    __slots__ = ()

    def add(self, reason: str, count: int = 1) -> None:
        """Add `count` drops. A race between threads may lose a count; it never raises."""
        self[reason] = self.get(reason, 0) + count


def number(value: object, drops: Drops, otherwise: Number | None = None) -> Number | None:
    """Return a finite int within 64 bits or a finite float; anything else is counted and becomes `otherwise`.

    Numbers of all types are accepted (numpy, Decimal, Fraction; True is 1), texts are not.
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
    """Convert integers to int and other finite numbers to float; return None for anything else."""
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
    """Return a number of at least 0; anything else is counted and becomes None."""
    result = number(value, drops)
    if result is None or result >= 0:
        return result
    drops.add(semconv.DROP_VALUE)
    return None


def text(value: object, drops: Drops, limit: int = MESSAGE_LENGTH) -> str:
    """Return valid Unicode of at most `limit` characters; a cut is counted."""
    try:
        if isinstance(value, _NESTED) and not isinstance(value, tuple):
            value = as_json(value, drops)
        # a subclass of str may override anything, so only its plain text is used
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
    """Return a dict or a list as JSON text; elements beyond the limits are counted and replaced by `…`."""
    return json.dumps(_pruned(given, drops, [NESTED_COUNT], NESTED_DEPTH), ensure_ascii=False, default=str)


def _pruned(given: object, drops: Drops, room: list[int], depth: int) -> Any:
    """Return `given` as a JSON value with at most `room[0]` elements and `depth` levels."""
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
    """Return one value that OTLP and JSON can carry; others, such as NaN, become text."""
    if isinstance(value, bool):
        return value
    if type(value) in (int, float):
        known = number(value, drops)
        return str(value) if known is None else known
    return text(value, drops, limit)


def value(given: object, drops: Drops, limit: int = VALUE_LENGTH) -> Value:
    """Return an OTLP attribute value: a scalar or a tuple of scalars of one type; nested values become JSON text."""
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
    """Check an option in seconds: a finite number above 0, or None.

    Raises:
        InvalidArgument: if it is anything else.
    """
    known = _option(value)
    if value is None or (known is not None and known > 0):
        return _capped(known)
    raise InvalidArgument(f"{name} must be a number of seconds above 0, or None, not {shown(value)}")


def size(name: str, value: object) -> Number | None:
    """Check an option that is a number of at least 0, or None; integers are capped at 64 bits.

    Raises:
        InvalidArgument: if it is anything else.
    """
    known = _option(value)
    if value is None or (known is not None and known >= 0):
        return _capped(known)
    raise InvalidArgument(f"{name} must be a number of at least 0, not {shown(value)}")


def names(option: str, given: object, drops: Drops) -> tuple[str, ...]:
    """Check an option that is a list of names, or one name.

    Raises:
        InvalidArgument: if it can't be read as a list.
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
    """Return the option as a finite number, or None; a bool is not accepted."""
    known = None if isinstance(value, bool) else _plain(value)
    return known if finite(known) else None


def _capped(known: Number | None) -> Number | None:
    return min(known, INT_MAX) if type(known) is int else known


def whole(given: object) -> int | None:
    """A whole number, also of NumPy or an `IntEnum`; None for all others, and for True and False."""
    if isinstance(given, bool):
        return None
    try:
        return operator.index(given)  # type: ignore[arg-type] # what has no index raises
    except TypeError:
        return None


def shown(value: object, limit: int = 60) -> str:
    """Return a short `repr` of any value, for an error message."""
    try:
        result = str.__str__(repr(value))
    except BaseException as error:
        if of_the_job(error):
            raise
        return f"a {type(value).__name__}"
    return result if len(result) <= limit else f"{result[: limit - 1]}…"


def finite(value: object) -> bool:
    """Whether the value is a number that fits a float and is neither NaN nor infinite."""
    if type(value) is float:
        return math.isfinite(value)
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def without_noise(number: Number) -> Number:
    """A sum without the noise of its additions, such as `0.04000000000000003`: twelve digits, more than money has."""
    return float(f"{number:.12g}") if isinstance(number, float) else number


def attributes(
    given: Mapping[Any, object],
    drops: Drops,
    before: Mapping[str, Value] = EMPTY,
    limit: int = VALUE_LENGTH,
    redact: Callable[[str, Value], Value] | None = None,
) -> Attributes:
    """Merge `given` into `before`, within `ATTRIBUTE_COUNT` and `TEXT_LENGTH`; None values are skipped.

    `redact` is called with the key and the value of each given attribute and returns the value to keep.
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
    """Count the characters of the texts in a value."""
    if isinstance(known, str):
        return len(known)
    return sum(map(_length, known)) if isinstance(known, tuple) else 0
