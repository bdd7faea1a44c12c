"""Reads runs from the API of a monitor that runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlencode

from otel_progress import semconv
from otel_progress.cli.query.client import Client, path_of
from otel_progress.cli.query.exit_codes import NOT_FOUND, CommandError
from otel_progress.cli.query.options import LIST_MOST
from otel_progress.cli.query.rows import GONE, Row, items, mapping, number, text
from otel_progress.cli.report.lines_file import read_snapshot
from otel_progress.cli.report.source import Step
from otel_progress.model.snapshot import Snapshot
from otel_progress.reports.run import Attempt, Run, Told, pause_of, within

EVENTS: Final = 1_000
"""The most events that the API gives at once."""
CHILDREN: Final = 100
BELOW: Final = 200
"""Operations below the children of a run that are asked for, one request each."""
_TOLD: Final = ",".join(sorted(semconv.EVENTS - {semconv.UPDATED, semconv.HEARTBEAT, semconv.PROCESS_HEARTBEAT}))


class MonitorApi:
    """The API of a monitor.

    Attributes:
        words: what it is, in words.
    """

    def __init__(self, client: Client) -> None:
        """Check that it answers.

        Raises:
            CommandError: if it does not.
        """
        client.check()
        self._client = client
        self.words = f"the monitor at {client.url}"

    def close(self) -> None:
        """Nothing stays open."""

    def find(self, given: str) -> list[str]:
        """The ids that a word may stand for."""
        try:
            return [str(self._client.find(given).get("id"))]
        except CommandError as error:
            if error.code == 4:
                return []
            raise

    def known(self) -> Iterable[str]:
        """Names and ids of the first rows of its list."""
        rows = items(self._client.operations(limit=1000).get("operations"))
        return [str(row.get(key)) for row in rows for key in ("name", "id")]

    def run(self, operation_id: str) -> Run:
        """All that the monitor knows of one run."""
        detail = self._client.operation(operation_id)
        snapshot = read_snapshot(detail)
        children, missing = self._children(detail)
        below, deeper = self._below(operation_id, children)
        found = tuple(read_snapshot(child) for child in children)
        query = urlencode({"limit": EVENTS, "before": 2**53, "event": _TOLD})
        events = items(self._client.ask(f"{path_of(operation_id)}/events?{query}").get("events"))
        told = tuple(_told(event) for event in events if event.get("attempt") == detail.get("attempt"))
        return Run(
            snapshot,
            self.words,
            within(
                (pause_of(one) for one in items(detail.get("timeline")) if number(one.get("from")) is not None),
                snapshot,
            ),
            told,
            tuple(_attempt(one) for one in items(detail.get("attempts"))),
            found,
            missing,
            alive=None if snapshot.status.final else snapshot.health not in GONE,
            below=below,
            more_below=missing + deeper,
        )

    def _children(self, detail: Row) -> tuple[list[Row], int]:
        """The details of the children that a detail lists, one request each, and how many it does not list."""
        rows = items(detail.get("children_rows"))[:CHILDREN]
        found = [self._detail(row) for row in rows]
        return found, max(0, int(number(detail.get("children")) or 0) - len(rows))

    def _detail(self, row: Row) -> Row:
        """The details of an operation; its row, if it is gone meanwhile."""
        try:
            return self._client.operation(str(row.get("id")))
        except CommandError as error:
            if error.code == NOT_FOUND:
                return row
            raise

    def _below(self, operation_id: str, children: list[Row]) -> tuple[tuple[Snapshot, ...], int]:
        """The operations below the children, and how many of them are left out, as far as that is known."""
        found: list[Snapshot] = []
        seen, missing, waiting = {operation_id, *(str(one.get("id")) for one in children)}, 0, list(children)
        while waiting:
            detail = waiting.pop(0)
            if len(found) >= BELOW:
                missing += int(number(detail.get("children")) or 0)
                continue
            some, more = self._children(detail)
            fresh = [one for one in some if str(one.get("id")) not in seen]
            seen.update(str(one.get("id")) for one in fresh)
            found.extend(read_snapshot(one) for one in fresh)
            waiting.extend(fresh)
            missing += more
        return tuple(found), missing

    def snapshots(self, operation_ids: list[str], step: Step) -> Iterator[Snapshot]:
        """The newest state of each run."""
        for count, key in enumerate(operation_ids, 1):
            yield read_snapshot(self._client.operation(key))
            step(count, len(operation_ids))

    def named(self, name: str, since: float, step: Step) -> Iterator[Snapshot]:
        """The runs of a name since a time, at most the newest 10,000; each is one request."""
        rows = items(self._client.operations(limit=LIST_MOST, name=name).get("operations"))
        chosen = [row for row in rows if row.get("name") == name and (number(row.get("timestamp")) or 0.0) >= since]
        chosen.sort(key=lambda row: number(row.get("timestamp")) or 0.0)
        yield from self.snapshots([str(row.get("id")) for row in chosen], step)


def _told(event: Any) -> Told:
    return Told(
        int(number(event.get("sequence")) or 0),
        float(number(event.get("timestamp")) or 0.0),
        str(event.get("event")),
        text(event.get("stage")),
        text(event.get("text")) or "",
        text(event.get("status")),
    )


def _attempt(one: Any) -> Attempt:
    given = mapping(one)
    return Attempt(
        int(number(given.get("attempt")) or 1),
        number(given.get("started_at")),
        number(given.get("ended_at")),
        text(given.get("status")),
        number(given.get("ratio")),
        text(given.get("reason")) or text(given.get("signal")),
    )
