"""Attacks on the guarantees of the product: each tries to break one, and reports whether it held.

`python -m benchmarks.attacks` runs them, and prints how many were run and how many held; tests/stress/test_attacks.py
runs each as a test. An attack is a function that raises `Broke` if a guarantee does not hold:

    @attack("store", "the database is removed while running")
    def removed() -> None: ...

    @attacks("receivers", "{receiver} against {transport}", receiver=ZOO, transport=TRANSPORTS)
    def held_up(receiver: str, transport: str) -> None: ...
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

ROOMS: Final = {
    "calls": "public calls where everything fails",
    "errors": "the job's own errors",
    "receivers": "receivers that hold or harm a sender",
    "intake": "requests that are to exhaust the monitor",
    "verdicts": "numbers of operations that are to exhaust the monitor",
    "files": "the monitor's files, changed under it",
    "owners": "tokens, and what they must not reach",
    "secrets": "secrets planted in everything that leaves",
    "command": "the command with odd arguments and streams",
}
"""The groups of attacks, a module each, and what they attack."""


class Broke(AssertionError):
    """A guarantee did not hold; the text says which, and how."""


@dataclass(frozen=True)
class Attack:
    """One attempt to break a guarantee.

    Attributes:
        room: the group; a key of `ROOMS`.
        name: what it tries, in words; unique in its group.
        run: runs the attack; raises `Broke` if a guarantee does not hold.
        long: whether it takes more than about ten seconds; `--short` skips it.
    """

    room: str
    name: str
    run: Callable[[], None]
    long: bool = False


F = TypeVar("F", bound=Callable[..., None])
_known: dict[tuple[str, str], Attack] = {}


def _add(one: Attack) -> None:
    if one.room not in ROOMS:
        raise ValueError(f"no room {one.room!r}; add it to ROOMS")
    if (one.room, one.name) in _known:
        raise ValueError(f"the attack {one.name!r} is there twice in {one.room}")
    _known[one.room, one.name] = one


def attack(room: str, name: str, *, long: bool = False) -> Callable[[F], F]:
    """Register the decorated function as an attack."""

    def keep(fn: F) -> F:
        _add(Attack(room, name, fn, long))
        return fn

    return keep


def attacks(room: str, name: str, *, long: bool = False, **values: Iterable[str]) -> Callable[[F], F]:
    """Register the function as one attack per combination of values; `name` has their names in braces."""
    fixed = {key: list(some) for key, some in values.items()}

    def keep(fn: F) -> F:
        for chosen in itertools.product(*fixed.values()):
            given = dict(zip(fixed, chosen, strict=True))
            _add(Attack(room, name.format(**given), partial(fn, **given), long))
        return fn

    return keep


def known() -> list[Attack]:
    """Return all attacks, group by group."""
    for room in ROOMS:
        importlib.import_module(f"benchmarks.attacks.{room}")
    order = list(ROOMS)
    return sorted(_known.values(), key=lambda one: order.index(one.room))


def hold(met: object, promise: str) -> None:
    """Raise `Broke` unless the condition is true."""
    if not met:
        raise Broke(promise)
