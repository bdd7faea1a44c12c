"""Publishes changes of the core as frames: at most twenty times a second, with a limited number of rows each time.

Rows are built in a worker thread, so that the loop answers meanwhile; the loop only adds the finished frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.model.states import Label
from otel_progress.model.status import Health
from otel_progress.monitor.web.detail_json import ended_text
from otel_progress.monitor.web.dump import dump
from otel_progress.monitor.web.packing import packed
from otel_progress.monitor.web.stream import BEAT_SECONDS, ONE, ONE_OF, OWNED, TROUBLE, Text, is_of_one, is_private
from otel_progress.monitor.web.threads import in_thread

if TYPE_CHECKING:
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.web.stream import Hub
    from otel_progress.monitor.web.views import Views

ROWS: Final = 200
"""The most rows of open operations in one frame; ended ones are never held back."""
MANY: Final = 1_000
"""Open operations from which on those that only go on, and that nobody watches, are published less often."""
PLAIN: Final = 10
"""The most rows of such operations in one frame."""
REST: Final = 3.0
"""How many times as long as publishing takes the pause after it is, at least: it takes a quarter of a core at most."""
COMING: Final = 5.0
"""Seconds that a topic of one operation is kept up to date after its last reader left, or a new one asked for it;
a reader that is on its way, or comes back at once, misses nothing.
"""
ALL: Final = "all"
_PLAIN: Final = Label(Health.PROGRESSING)
EVENTS: Final = 500
FEW: Final = 300
ANCESTORS: Final = 16


def of_owner(owner: str) -> str:
    """The topic of the operations of one owner."""
    return f"{OWNED}{owner}"


def of_operation(operation_id: str, owner: str | None = None) -> str:
    """The topic of one operation; an owner has a topic of their own."""
    return f"{ONE}{operation_id}" if owner is None else f"{_of_owners(operation_id)}{owner}"


def _of_owners(operation_id: str) -> str:
    """The prefix of the topics of one operation for owners; the length keeps ids apart."""
    return f"{ONE_OF}{len(operation_id)} {operation_id} "


class Publisher:
    """Publishes changes to readers; it belongs to the loop of the server."""

    def __init__(
        self,
        core: Core,
        store: Store,
        views: Views,
        hub: Hub,
        interval: float,
        on_trouble: Callable[[str | None], None] = lambda _: None,
        *,
        idle: float | None = None,
    ) -> None:
        """Publish every `interval` seconds, and every `idle` seconds while there is no topic, if that is given.

        `on_trouble` is called when trouble begins, and with None when it ends.
        """
        self._idle = idle
        self._on_trouble = on_trouble
        self._core = core
        self._store = store
        self._views = views
        self._hub = hub
        self._interval = interval
        self.watched: Callable[[str], bool] = lambda _: False
        """Whether an operation is on somebody's screen, by its id: its row comes before others."""
        self._pending: dict[str, None] = {}
        self._plain: dict[str, None] = {}
        """Operations that are to be published, too, but only go on as before."""
        self._causes: dict[str, set[str]] = {}
        """The descendants that changed, for each operation that is to be published."""
        self._shown: dict[str, dict[str, int]] = {}
        """The revisions of an operation and its descendants that were published, by private topic."""
        self._published: dict[str, int] = {}
        self._places = views.places
        self._was_loading = not core.loading.done
        self.failures = 0

    async def run(self) -> None:
        """Run until cancelled. With few readers it publishes twice as often, as each frame costs for each reader."""
        tidy_at = beat_at = due = clock.monotonic()
        while True:
            due = max(due + self._pause(), clock.monotonic())
            await asyncio.sleep(due - clock.monotonic())
            now = clock.monotonic()
            try:
                await self._publish()
            except Exception as error:  # for example a store that cannot be read for a moment
                self._fail(error)
            due = max(due, now + (1 + REST) * (clock.monotonic() - now) - self._pause())
            if now - tidy_at >= 1:
                tidy_at = now
                self._tidy(now)
            if now - beat_at >= BEAT_SECONDS:
                beat_at = now
                self._hub.beat()

    def _pause(self) -> float:
        """Seconds until changes are published again."""
        if self._idle is not None and not self._hub.topics:
            return self._idle
        return self._interval / (2 if self._hub.readers <= FEW else 1)

    def _tell_trouble(self) -> None:
        """Publish trouble of the monitor itself to everybody."""
        trouble = self._core.faults.text
        if trouble == self._hub.trouble:
            return
        self._hub.trouble = trouble
        self._on_trouble(trouble)
        for name in self._hub.topics:
            text = TROUBLE if trouble and is_private(name) else trouble
            self._hub.publish(name, "trouble", dump({"text": text}))

    def _fail(self, error: Exception) -> None:
        """Frames may be lost: make all readers reload, so that nobody misses an end."""
        self.failures += 1
        self._core.faults.current = f"changes can't be told ({type(error).__name__}: {error})"
        self._pending.clear()
        self._plain.clear()
        self._causes.clear()
        self._hub.turn()
        for name, topic in self._hub.topics.items():
            self._hub.skip(name)
            for reader in topic.readers:
                reader.wake()

    def _tidy(self, now: float) -> None:
        self._hub.tidy(now)
        for known in (self._published, self._shown):
            for name in [name for name in known if name not in self._hub.topics]:
                del known[name]

    def publish(self) -> None:
        """Publish what changed since the last call, as far as there is room."""
        chosen = self._collect()
        if chosen:
            self._add(self._build(*chosen))

    async def _publish(self) -> None:
        """The same, without holding up the loop."""
        chosen = self._collect()
        if chosen:
            self._add(await in_thread(self._build, *chosen))

    @staticmethod
    def _add(steps: list[Callable[[], object]]) -> None:
        for step in steps:
            step()

    def _collect(self) -> tuple[dict[str, set[str]], list[str], list[str]] | None:
        """The operations to publish, each with the descendants that caused it; the topics of lists, and of one each."""
        self._tell_trouble()
        self._tell_loaded()
        changed, gone = self._core.journal.changes(), self._core.journal.removed()
        if changed or gone:
            self._hub.turn()
        if not self._hub.topics:  # nobody reads now, nor did a moment ago
            self._pending.clear()
            self._plain.clear()
            self._causes.clear()
            return None
        if gone:
            self._tell_gone(gone)
        if not (changed or self._pending or self._plain):
            return None
        for key in changed:
            self._want(key)
            for above in self._above(key):
                self._want(above)
                self._causes.setdefault(above, set()).add(key)
        lists = [name for name in self._hub.topics if not is_of_one(name)]
        chosen = self._choose() if lists else [*self._pending, *self._plain]
        causes: dict[str, set[str]] = {}
        for key in chosen:
            self._pending.pop(key, None)
            self._plain.pop(key, None)
            causes[key] = self._causes.pop(key, set())
        return causes, lists, [name for name in self._hub.topics if is_of_one(name)]

    def _build(self, chosen: dict[str, set[str]], lists: list[str], few: list[str]) -> list[Callable[[], object]]:
        """What the loop has to do to publish these operations; in a worker thread."""
        steps: list[Callable[[], object]] = []
        if lists:
            self._build_lists(list(chosen), lists, steps)
        if few:
            for key, below in chosen.items():
                self._build_one(key, below, steps)
        return steps

    def _tell_loaded(self) -> None:
        """Readers that loaded a list before loading was done reload it."""
        if self._was_loading and self._core.loading.done:
            self._was_loading = False
            self._hub.turn()
            for name in list(self._hub.topics):
                if not is_of_one(name):
                    self._hub.publish(name, "reset", "{}")

    def _tell_gone(self, gone: list[str]) -> None:
        """Publish removed operations; to owners only those they were shown, as the owner is no longer known."""
        for name, topic in list(self._hub.topics.items()):
            mine = gone if name == ALL else [] if is_of_one(name) else topic.take_back(gone)
            if mine is None:
                self._hub.publish(name, "reset", "{}")
            for at in range(0, len(mine or ()), ROWS):
                self._hub.publish(name, "changes", dump({"rows": [], "removed": (mine or [])[at : at + ROWS]}))
        few = [name for name in self._hub.topics if is_of_one(name)]
        for key in gone if few else ():
            name = of_operation(key)
            for one in few:
                if one == name or one.startswith(_of_owners(key)):  # for every owner
                    self._hub.publish(one, "gone", "{}")

    def _want(self, key: str) -> None:
        """An operation is to be published: at once, or if it only goes on and nobody watches it, when there is room."""
        entry = self._core.ledger.operations.get(key)
        is_plain = entry is not None and entry.open and self._core.labels.get(key) == _PLAIN
        if is_plain and key not in self._pending and not self.watched(key):
            self._plain[key] = None
        else:
            self._plain.pop(key, None)
            self._pending[key] = None

    def _choose(self) -> list[str]:
        """All ended operations, and the open ones that have waited longest; those that only go on come last."""
        known = self._core.ledger.operations
        ended = [key for key in self._pending if (entry := known.get(key)) is None or not entry.open]
        over = set(ended)
        going = list(islice((key for key in self._pending if key not in over), ROWS))
        room = PLAIN if len(self._core.labels) > MANY else ROWS - len(going)
        return [*ended, *going, *islice(self._plain, room)]

    def _above(self, key: str) -> Iterator[str]:
        """The ancestors of an operation that changed, as they show its figures."""
        operations, seen = self._core.ledger.operations, {key}
        for _ in range(ANCESTORS):
            entry = operations.get(key)
            parent = None if entry is None else entry.head.parent_id
            if parent is None or parent in seen or parent not in operations:
                return
            seen.add(parent)
            yield parent
            key = parent

    def _build_lists(self, chosen: list[str], lists: list[str], steps: list[Callable[[], object]]) -> None:
        rows: dict[str, list[str]] = {name: [] for name in lists}
        for key in chosen:
            entry = self._core.ledger.find(key)
            if entry is None:
                continue
            if ALL in rows:
                rows[ALL] += (text for _, text in self._views.texts([entry]))
            if len(rows) > (ALL in rows):
                owner = self._core.ledger.owner_of(entry.head) or ""
                name = of_owner(owner)
                if name in rows:
                    views = self._views.of(owner)
                    texts = [text for _, text in views.texts([entry])]
                    topic = self._hub.topics.get(name)
                    if texts and topic is not None and topic.give(key, views.revision(entry)):
                        rows[name] += texts
        for name, texts in rows.items():
            for at in range(0, len(texts), ROWS):
                part = ",".join(texts[at : at + ROWS])
                steps.append(self._frame(name, "changes", f'{{"rows":[{part}],"removed":[]}}'))

    def _frame(self, name: str, event: str, text: str) -> Callable[[], object]:
        """A frame for a topic, packed if one of its readers gets it so."""
        topic, plain = self._hub.topics.get(name), text.encode()
        made = Text(plain, packed(plain) if topic is not None and topic.packs else None)
        return partial(self._hub.publish, name, event, made)

    def _build_one(self, key: str, below: set[str], steps: list[Callable[[], object]]) -> None:
        """Publish an operation to those who see everything, and to its owner."""
        entry = self._core.ledger.find(key)
        self._build_topic(key, entry, None, steps)
        owner = None if entry is None else self._core.ledger.owner_of(entry.head)
        if owner is not None and self._is_new(of_operation(key, owner), owner, (key, *below)):
            self._build_topic(key, entry, owner, steps)

    def _is_new(self, name: str, owner: str, ids: Iterable[str]) -> bool:
        """Whether what an owner sees of any of these differs from what was published to a topic."""
        if name not in self._hub.topics:
            return False
        views, shown, new = self._views.of(owner), self._shown.setdefault(name, {}), False
        for key in ids:
            entry = self._core.ledger.find(key)
            if entry is not None and self._core.ledger.owner_of(entry.head) == owner:
                revision = views.revision(entry)
                new = new or shown.get(key) != revision
                shown[key] = revision
        return new

    def _build_topic(self, key: str, entry: Entry | None, owner: str | None, steps: list[Callable[[], object]]) -> None:
        name = of_operation(key, owner)
        topic = self._hub.topics.get(name)
        if topic is None:
            return
        if entry is None or entry.open:
            topic.over = None  # it may run again
        if not topic.readers and clock.monotonic() - topic.left_at > COMING:
            steps.append(partial(self._hub.skip, name))
            self._published[name] = self._store.newest_event_id()
            return
        if entry is None:
            steps.append(self._frame(name, "gone", "{}"))
            return
        if not entry.open and self._core.journal.holds(key):
            steps.append(partial(self._want, key))  # its end is not stored yet, and its last events are read with it
            return
        steps.append(self._frame(name, "operation", dump(self._views.of(owner).detail(entry))))
        self._build_events(key, name, owner, steps)
        if not entry.open:
            steps.append(partial(self._hub.end, name, ended_text(entry)))

    def _build_events(self, key: str, name: str, owner: str | None, steps: list[Callable[[], object]]) -> None:
        """Publish new events of an operation that somebody reads."""
        newest = self._published.get(name)
        if newest is None:
            newest = self._published[name] = self._store.newest_event_id()
        view = self._views.of(owner).event
        while rows := self._store.events(key, after=newest, limit=EVENTS):
            newest = self._published[name] = rows[-1][0]
            numbered = rows if owner is None else self._places.numbered(key, rows)
            steps.append(self._frame(name, "events", dump({"events": [view(*row) for row in numbered]})))
            if len(rows) < EVENTS:
                break

    def begin(self, operation_id: str, owner: str | None = None) -> None:
        """A reader starts, and has the history up to now."""
        name = of_operation(operation_id, owner)
        topic = self._hub.topics.get(name)
        if name not in self._published or topic is None or not topic.readers:
            self._published[name] = self._store.newest_event_id()
            if owner is not None and (entry := self._core.ledger.find(operation_id)) is not None:
                self._shown[name] = {operation_id: self._views.of(owner).revision(entry)}
