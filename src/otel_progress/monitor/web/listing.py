"""Lists of operations: those that run come first, in order of trouble, then those that ended."""

from __future__ import annotations

from collections import Counter
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress.model.states import ANY_TROUBLE, TROUBLE, meant, state_of
from otel_progress.model.status import Health, Status, word
from otel_progress.monitor.state.saved import Query
from otel_progress.monitor.web.parameters import STATUSES
from otel_progress.monitor.web.request_error import RequestError
from otel_progress.monitor.web.row_json import is_unheard_trouble
from otel_progress.monitor.web.views import rank_of

if TYPE_CHECKING:
    from otel_progress.model.states import Label
    from otel_progress.monitor.state.core import Core
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.web.views import Views

_NO_CURSOR: Final = "invalid cursor; start without one"
_OPEN: Final = frozenset(status.value for status in Status if not status.final)
_RUNNING: Final = "r"
"""A cursor that begins with this continues among the running operations, at the offset that follows."""
_ENDED: Final = "e"
"""A cursor that begins with this continues among the ended operations, at the store's cursor that follows."""


_UNKNOWN: Final = word(Health.UNKNOWN)
FEW: Final = 2_000
"""The rows up to which the first ones are searched; with more of them, all are sorted."""
_Running = tuple[int, float, int, str, "Entry"]
"""A running operation: the rank of its state, minus its start, its place, which differs from all others, its state."""
_Known = dict[tuple[int, int], tuple[str, int, "Label | None"]]
"""The state and rank of operations with the same status and label; it holds the label, whose identity is the key."""


class Page(NamedTuple):
    """A part of a list.

    Attributes:
        rows: the rows as JSON texts, with their ids.
        next: the cursor of the next page; None on the last one.
        counts: the number of all operations in the list, by state.
        trouble: how many of them are in trouble.
        unshown: the rows of this page that are left out, as they cannot be shown.
    """

    rows: list[tuple[str, str]]
    next: str | None
    counts: dict[str, int]
    trouble: int
    unshown: int


class Listing:
    """Filters, sorts and counts operations; any thread may use it."""

    def __init__(self, core: Core, store: Store, views: Views) -> None:
        """Running operations come from the core, ended ones from the store."""
        self._core = core
        self._store = store
        self._views = views

    def counts(self, owner: str | None) -> dict[str, int]:
        """How many operations run, are in trouble, and are stored; of one owner or of all."""
        stored = self._store.count(Query(owner=owner))
        if owner is None:
            labels = Counter(list(self._core.labels.values()))
            bad = sum(number for label, number in labels.items() if state_of(Status.RUNNING, label) in TROUBLE)
            if any(label.health is Health.UNKNOWN for label in labels):
                bad = self._trouble(self._running(Query(), frozenset()))
            return {"running": labels.total(), "trouble": bad, "stored": stored}
        running = self._running(Query(owner=owner), frozenset())
        return {"running": len(running), "trouble": self._trouble(running), "stored": stored}

    def page(self, query: Query, verdicts: frozenset[str], limit: int, cursor: str | None) -> Page:
        """A page of at most `limit` rows.

        Raises:
            RequestError: for an invalid cursor.
        """
        if cursor is not None and cursor[0] not in (_RUNNING, _ENDED):
            raise RequestError(400, _NO_CURSOR)
        views = self._views.of(query.owner)
        if query.parent is not None and not views.may_name(query.parent):
            return Page([], None, {}, 0, 0)
        statuses = set(query.statuses) or STATUSES
        running = self._running(query, verdicts) if statuses & _OPEN else []
        ended = query._replace(statuses=tuple(sorted(statuses - _OPEN))) if statuses - _OPEN and not verdicts else None
        counts = dict(Counter(state for _, _, _, state, _ in running))
        if ended is not None:
            counts |= self._store.counts(ended)
        rows: list[Entry] = []
        following: str | None = None
        if cursor is None or cursor.startswith(_RUNNING):
            start = _offset(cursor[1:]) if cursor else 0
            first = nsmallest(start + limit, running) if start + limit <= FEW else sorted(running)
            rows = [entry for *_, entry in first[start : start + limit]]
            if start + limit < len(running):
                following = f"{_RUNNING}{start + limit}"
        if ended is not None and following is None:
            more, following = self._ended(ended, limit - len(rows), cursor)
            rows += more
        texts = views.texts(rows)
        return Page(texts, following, counts, self._trouble(running), len(rows) - len(texts))

    def _ended(self, query: Query, limit: int, cursor: str | None) -> tuple[list[Entry], str | None]:
        """Ended operations, and the cursor behind them."""
        if limit <= 0:
            return [], _ENDED
        at = cursor[1:] if cursor is not None and cursor.startswith(_ENDED) and len(cursor) > 1 else None
        try:
            kept, next_at = self._store.ended(query, limit, at)
        except ValueError:
            raise RequestError(400, _NO_CURSOR) from None
        found = (self._core.ledger.find(one.operation_id) for one in kept)
        rows = [entry for entry in found if entry is not None and not entry.open]
        return rows, None if next_at is None else f"{_ENDED}{next_at}"

    def _running(self, query: Query, verdicts: frozenset[str]) -> list[_Running]:
        """The operations that run and match, in no order."""
        states = meant(verdicts)
        labels, operations, known = self._core.labels, self._core.ledger.operations, _Known()
        is_any = query == Query()
        found: list[_Running] = []
        for place, entry in enumerate(list(operations.values())):
            head = entry.head
            if head.status.final or not (is_any or self._matches(entry, query)):
                continue
            label = labels.get(head.operation_id)
            seen = known.get((id(head.status), id(label)))
            if seen is None or label is None:  # without a label it is judged on its own
                state = self._views.state(entry)
                seen = known[id(head.status), id(label)] = state, rank_of(state), label
            state = seen[0]
            if states and state not in states:
                if ANY_TROUBLE not in verdicts or not self._views.is_trouble(entry):
                    continue
            found.append((seen[1], -(head.started_at or head.timestamp), place, state, entry))
        return found

    def _matches(self, entry: Entry, query: Query) -> bool:
        """Whether an operation matches a filter, apart from its state."""
        head = entry.head
        if query.statuses and head.status.value not in query.statuses:
            return False
        if (query.name is not None and head.name != query.name) or (
            query.parent is not None and head.parent_id != query.parent
        ):
            return False
        if (query.since is not None and head.timestamp < query.since) or (
            query.until is not None and head.timestamp >= query.until
        ):
            return False
        if query.owner is not None and self._core.ledger.owner_of(head) != query.owner:
            return False
        return not query.search or query.search.lower() in self._core.ledger.search_text(entry)

    def _trouble(self, running: list[_Running]) -> int:
        """How many of these are in trouble."""
        bad = sum(state in TROUBLE for _, _, _, state, _ in running)
        unknown = [entry for *_, state, entry in running if state == _UNKNOWN]
        return bad + sum(is_unheard_trouble(_UNKNOWN, self._core.observer.was_stuck(entry)) for entry in unknown)


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise RequestError(400, _NO_CURSOR)
    return int(text)
