"""The report of one operation, made from what the views show: whoever may read the operation sees no more in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.model.status import Health
from otel_progress.monitor.web.request_error import RequestError
from otel_progress.reports import writing
from otel_progress.reports.run import Attempt, Run, Told, pause_of, within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_progress.model.snapshot import Snapshot
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.web.views import Views

CHILDREN: Final = 100
BELOW: Final = 1_000
"""Operations below the children that are counted."""
EVENTS: Final = 1_000
"""Events of the feed, the newest."""
TYPES: Final = {
    "html": ("text/html; charset=utf-8", "html"),
    "markdown": ("text/markdown; charset=utf-8", "md"),
    "csv": ("text/csv; charset=utf-8", "csv"),
    "json": ("application/json", "json"),
    "text": ("text/plain; charset=utf-8", "txt"),
}
"""The content type of each format, and the suffix of its file."""
CSP: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_GONE: Final = (Health.DEAD, Health.UNKNOWN)
_QUIET: Final = frozenset({s.UPDATED, s.HEARTBEAT, s.PROCESS_HEARTBEAT})
_TOLD: Final = tuple(sorted(s.EVENTS - _QUIET))
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def headers(operation_id: str, form: str) -> dict[str, str]:
    """The headers of a report: a file to save, in which nothing runs."""
    name = _UNSAFE.sub("-", operation_id)[:80].strip("-.") or "operation"
    return {
        "Content-Disposition": f'attachment; filename="{name}.{TYPES[form][1]}"',
        "Content-Security-Policy": CSP,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def render(views: Views, store: Store, entry: Entry, form: str) -> bytes:
    """Write the report of an operation in a format.

    Raises:
        RequestError: 501 if HTML is asked for, and Jinja2 is not installed where the monitor runs.
    """
    try:
        if form == "html":
            writing.require()
        return writing.render(run_of(views, store, entry), form).encode("utf-8", "replace")
    except MissingDependency:
        raise RequestError(
            501,
            'a report in HTML needs Jinja2 where the monitor runs: pip install "otel-progress[report]"; '
            "format=markdown, csv, json and text need nothing",
        ) from None


def run_of(views: Views, store: Store, entry: Entry) -> Run:
    """All that the views show of an operation, and of those below it."""
    detail = views.detail(entry)
    seen = views.seen(entry)
    key = entry.head.operation_id
    rows = store.events(key, before=2**62, names=_TOLD, limit=EVENTS)
    events = (views.event(number, event) for number, event in rows if event.attempt == entry.number)
    every = views.children_of(key)
    children = [views.seen(child) for child in every[:CHILDREN]]
    below, deeper = _below(views, key, every[:CHILDREN])
    missing = len(every) - len(children)
    return Run(
        seen,
        "the monitor",
        within((pause_of(one) for one in detail.get("timeline", ())), seen),
        tuple(map(_told, events)),
        tuple(map(_attempt, detail.get("attempts") or ())),
        tuple(children),
        missing,
        alive=None if seen.status.final else seen.health not in _GONE,
        below=below,
        more_below=missing + deeper,
    )


def _below(views: Views, key: str, children: Iterable[Entry]) -> tuple[tuple[Snapshot, ...], int]:
    """The operations below the children, and how many of them are left out."""
    waiting = list(children)
    known = {key, *(child.head.operation_id for child in waiting)}
    found: list[Snapshot] = []
    missing = 0
    while waiting:
        some = views.children_of(waiting.pop(0).head.operation_id)
        fresh = [child for child in some if child.head.operation_id not in known]
        known.update(child.head.operation_id for child in fresh)
        room = max(0, BELOW - len(found))
        found.extend(views.seen(child) for child in fresh[:room])
        waiting.extend(fresh[:room])
        missing += max(0, len(fresh) - room)
    return tuple(found), missing


def _told(event: dict[str, Any]) -> Told:
    stage, text, status = event.get("stage"), event.get("text") or "", event.get("status")
    return Told(event["sequence"], event["timestamp"], event["event"], stage, text, status)


def _attempt(one: dict[str, Any]) -> Attempt:
    ended, status, ratio = one.get("ended_at"), one.get("status"), one.get("ratio")
    return Attempt(one["attempt"], one.get("started_at"), ended, status, ratio, one.get("reason") or one.get("signal"))
