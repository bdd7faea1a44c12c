"""What a call of a decorated function is known by: its qualified name and its arguments."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import hashlib
import inspect
import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from otel_progress.errors import InvalidArgument
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.values import shown

LENGTH: Final = 200
"""Characters of arguments that are shown; longer ones are shortened to a digest."""
MOST: Final = 1000
"""Parts of an attribute that are looked at; of a larger one only their number."""
TEXTS: Final = (dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)
"""Types of which a text says all."""
PLAIN: Final = (str, int, float, bytes, os.PathLike, enum.Enum, *TEXTS)
"""Types of values that don't change."""


def of_call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The fingerprint of a call, as `jobs.ingest(path="data", limit=10)`; of an object it knows only the type.

    A method is known by its object as well, as in `jobs.Site.crawl(self=Site(url="x"), limit=10)`. Secrets are masked,
    as the text is stored and shown.
    """
    fn, args, kwargs = _unwrapped(fn, args, kwargs)
    name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
    owner = getattr(fn, "__self__", None)
    known = [] if owner is None or isinstance(owner, ModuleType) else [f"self={_of_owner(owner)}"]
    said = ", ".join(filter(None, (*known, _text(_bound(fn, args, kwargs), _by_type))))
    return f"{name}({_short(_masked(said))})"


def of_arguments(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What tells apart the calls of functions that run once for each set of arguments: name, arguments, closure.

    Raises:
        InvalidArgument: if an argument is an object, which another process could not recognise.
    """
    fn, args, kwargs = _unwrapped(fn, args, kwargs)
    said = _text(_bound(fn, args, kwargs), _refuse)
    cells = {str(number): _content(cell) for number, cell in enumerate(getattr(fn, "__closure__", None) or ())}
    name = f"{_module(fn)}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
    whole = f"{name}({said}){_text(cells, _by_type)}{_of_object(getattr(fn, '__self__', None))}"
    return f"({hashlib.sha256(whole.encode()).hexdigest()[:16]})"


def _unwrapped(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
    """The function of a `functools.partial`, with all of its arguments."""
    part: Any = fn
    while isinstance(part, functools.partial):
        part, args, kwargs = part.func, (*part.args, *args), {**part.keywords, **kwargs}
    return part, args, kwargs


def _module(fn: Callable[..., Any]) -> str:
    """The module of a function; that of a script by its file, as it has another name when it is imported."""
    name: str = getattr(fn, "__module__", None) or ""
    if name != "__main__":
        return name
    main = sys.modules.get(name)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    known: str = spec.name if spec is not None else os.path.basename(file or name).partition(".")[0]
    return known


def _content(cell: Any) -> Any:
    """What a closure refers to, if that is a plain value; lists and objects change while the job runs."""
    try:
        value = cell.cell_contents
    except ValueError:  # not filled yet
        return None
    return value if value is None or isinstance(value, PLAIN) else _by_type(value)


def _of_object(owner: Any) -> str:
    """What a later attempt can recognise of the object whose method is called: the fields of a dataclass."""
    if owner is None or isinstance(owner, type) or not dataclasses.is_dataclass(owner):
        return ""
    return _text({one.name: getattr(owner, one.name) for one in dataclasses.fields(owner)}, _by_type)


def _of_owner(owner: Any) -> str:
    """The object of a method by its attributes as they are now: plain values by their content, others by their type."""
    if isinstance(owner, type):
        return owner.__name__
    if dataclasses.is_dataclass(owner):
        found = {one.name: getattr(owner, one.name, None) for one in dataclasses.fields(owner)}
    else:
        slots = (getattr(kind, "__slots__", ()) for kind in type(owner).__mro__)
        names = [name for one in slots for name in ((one,) if isinstance(one, str) else one)]
        found = {name: getattr(owner, name) for name in names if hasattr(owner, name)} | getattr(owner, "__dict__", {})
    parts = []
    for name, value in found.items():
        if name.startswith("__"):  # `__weakref__`, `__dict__`
            continue
        if isinstance(value, (list, tuple, dict, set, frozenset)) and len(value) > MOST:
            parts.append(f"{name}={len(value)} {_by_type(value)}")
            continue
        try:
            parts.append(_text({name: value}, _by_type))
        except InvalidArgument:
            parts.append(f"{name}={_by_type(value)}")
    return f"{type(owner).__name__}({', '.join(parts)})"


def _bound(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, with defaults, so that equal calls look equal."""
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except (TypeError, ValueError):  # the call itself raises what is wrong
        return {"args": args, **kwargs}
    bound.apply_defaults()
    return dict(bound.arguments)


def _text(given: dict[str, Any], other: Callable[[Any], str]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, TEXTS):
            return str(value)
        if isinstance(value, enum.Enum):
            return value.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        if isinstance(value, (set, frozenset)):
            return sorted(map(repr, value))
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()
        return other(value)

    try:
        parts = (f"{name}={json.dumps(value, default=plain, sort_keys=True)}" for name, value in given.items())
        return ", ".join(parts)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"the arguments can't be recognised by a later attempt: {error}") from None


def _by_type(value: Any) -> str:
    return f"<{type(value).__qualname__}>"


def _refuse(value: Any) -> str:
    raise InvalidArgument(
        f"a function with once=True is recognised by its arguments, and {shown(value)} is none that a later attempt "
        "could recognise: give texts, numbers, paths, dates, dataclasses, or lists and dicts of them"
    )


def _masked(text: str) -> str:
    """A text without secrets. A few bits of a digest notice another secret, and say nothing about it."""
    masked = mask_secrets("command", text)
    return masked if masked == text else f"{masked} #{hashlib.sha256(text.encode()).hexdigest()[:4]}"


def _short(text: str) -> str:
    if len(text) <= LENGTH:
        return text
    return f"{text[: LENGTH - 20]}…#{hashlib.sha256(text.encode()).hexdigest()[:16]}"
