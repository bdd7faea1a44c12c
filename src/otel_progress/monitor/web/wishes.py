"""What the monitor wishes of processes: all updates of what somebody looks at, and whole events that it lacks.

Updates of old operations leave their processes rarely. While few operations run, the monitor asks for all of them, and
otherwise for those on somebody's screen. A request lasts for some seconds; it is renewed with the answer to a poll of
the control channel, which processes hold open anyway. All of this lives on the event loop of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import clock
from otel_progress.monitor.state.process_keys import declared_instance
from otel_progress.monitor.web.stream import of_one

if TYPE_CHECKING:
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.web.cancel import Control
    from otel_progress.monitor.web.stream import Hub

ROOM: Final = 1_000
"""Running operations from which on only those on somebody's screen are live."""
WATCHED: Final = 1_000
"""The most operations on screens that are live."""
LEASE: Final = 15.0
"""Seconds that a request for all updates lasts."""
RENEW: Final = 5.0
"""Seconds before its end at which it is renewed."""
LOOK: Final = 0.25
"""Seconds between two looks at what is on screens."""
SHOWN: Final = 200
"""The most operations that one screen shows."""
KEYFRAMES: Final = 200
"""The most whole events that are asked for in one answer."""
AGAIN: Final = 5.0
"""Seconds until a whole event of the same operation is asked for again."""
ASKED: Final = 20_000
"""The most operations that are remembered as asked for a whole event."""
AWAY: Final = 60.0
"""Seconds for which a whole event waits to be asked for until its process polls, as after a start of the monitor."""
_NOTHING: Final = frozenset[str]()

Wish = dict[str, Any]


def shown_ids(body: bytes) -> list[str]:
    """The operations that a screen shows, as it says.

    Raises:
        ValueError: if the body is invalid; the text says why.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    ids = given.get("ids") if isinstance(given, dict) else None
    if not isinstance(ids, list) or len(ids) > SHOWN or not all(isinstance(key, str) for key in ids):
        raise ValueError(f'send JSON: {{"ids": [...]}} with at most {SHOWN} ids of operations')
    return ids


class _Lease(NamedTuple):
    """What a process was asked for: all its operations (None), or some; and until when."""

    ids: frozenset[str] | None
    until: float

    def covers(self, ids: frozenset[str] | None) -> bool:
        """Whether it includes these."""
        return self.ids is None or (ids is not None and ids <= self.ids)


class Wishes:
    """Decides what to ask processes for; `Control` puts it into the answers to their polls."""

    def __init__(self, core: Core, hub: Hub, control: Control) -> None:
        """Nothing is asked for yet."""
        self._core = core
        self._hub = hub
        self._control = control
        self._shown: dict[str, float] = {}
        """Operations that a screen shows, and until when that counts."""
        self._leases: dict[tuple[str, int | None], _Lease] = {}
        self._all = False
        self._streamed: frozenset[str] = frozenset()
        """Operations whose own stream has a reader, while not all are live."""
        self._seen: dict[str, frozenset[str]] = {}
        """Operations on screens, by process, while not all are live."""
        self._lacking: dict[str, dict[str, float]] = {}
        """Operations of which whole events are lacking, by process, and since when."""
        self._asked: dict[str, float] = {}
        control.wishes = self

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with contextlib.suppress(RuntimeError):  # the state changed in its thread meanwhile
                self.look()
            await asyncio.sleep(LOOK)

    def show(self, ids: Iterable[str]) -> None:
        """A screen shows these operations; it says so again while it does."""
        now = clock.monotonic()
        for key in ids:
            self._shown.pop(key, None)
            self._shown[key] = now + LEASE
        while len(self._shown) > WATCHED:
            del self._shown[next(iter(self._shown))]

    def is_watched(self, key: str) -> bool:
        """Whether a screen said that it shows this operation, or somebody reads its own stream."""
        return key in self._streamed or clock.monotonic() < self._shown.get(key, 0.0)

    def look(self) -> None:
        """Find out what is to be live and what is lacking, and answer the polls of processes that are to know."""
        now = clock.monotonic()
        self._all = len(self._core.labels) < ROOM
        self._seen = {} if self._all else self._on_screens(now)
        self._take_lacking(now)
        for instance, lacking in list(self._lacking.items()):
            if max(lacking.values()) + AWAY < now and not self._control.connected(instance):
                del self._lacking[instance]
        about = None if self._all else {*self._seen, *self._lacking}
        self._control.wake(about, lambda instance, pid: bool(self._wanted(instance, pid, now)))
        for key in [key for key, lease in self._leases.items() if lease.until < now]:
            del self._leases[key]

    def due(self, instance: str, pid: int | None) -> list[Wish]:
        """What to ask a process for now; it counts as asked."""
        now = clock.monotonic()
        found = self._wanted(instance, pid, now)
        for wish in found:
            if wish["do"] == "live":
                ids = wish["ids"]
                self._leases[instance, pid] = _Lease(None if ids is None else frozenset(ids), now + LEASE)
            else:
                lacking = self._lacking.get(instance, {})
                for key in wish["ids"]:
                    lacking.pop(key, None)
                if not lacking:
                    self._lacking.pop(instance, None)
        return found

    def _wanted(self, instance: str, pid: int | None, now: float) -> list[Wish]:
        found: list[Wish] = []
        ids = None if self._all else self._seen.get(instance, _NOTHING)
        if ids is None or ids:
            lease = self._leases.get((instance, pid))
            if lease is None or not lease.covers(ids) or lease.until - now <= RENEW:
                found.append({"do": "live", "ids": None if ids is None else sorted(ids), "for": LEASE})
        lacking = self._lacking.get(instance)
        if lacking:
            found.append({"do": "keyframe", "ids": list(lacking)[:KEYFRAMES]})
        return found

    def _on_screens(self, now: float) -> dict[str, frozenset[str]]:
        """What screens show, by process: the streams of single operations first."""
        while self._shown and (oldest := next(iter(self._shown))) and self._shown[oldest] < now:
            del self._shown[oldest]
        streamed = (of_one(name) for name, topic in self._hub.topics.items() if topic.readers)
        self._streamed = frozenset(key for key in streamed if key is not None)
        keys = dict.fromkeys((*self._streamed, *reversed(self._shown)))
        found: dict[str, set[str]] = {}
        for key in list(keys)[:WATCHED]:
            entry = self._core.ledger.operations.get(key)
            if entry is not None and entry.open:
                found.setdefault(declared_instance(entry.instance), set()).add(key)
        return {instance: frozenset(some) for instance, some in found.items()}

    def _take_lacking(self, now: float) -> None:
        """Take over of which operations the ledger lacks a whole event."""
        lacking = self._core.ledger.lacking
        for key in tuple(lacking):
            lacking.pop(key, None)
            entry = self._core.ledger.operations.get(key)
            if entry is None or now < self._asked.get(key, 0.0) + AGAIN:
                continue
            self._asked.pop(key, None)
            self._asked[key] = now
            if len(self._asked) > ASKED:
                del self._asked[next(iter(self._asked))]
            self._lacking.setdefault(declared_instance(entry.instance), {})[key] = now
