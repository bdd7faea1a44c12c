"""Situations that reports are made of: real jobs under the fake clock, as a file of JSON lines and a monitor's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from monitor_parts import Parts, event_of, request_of

import otel_progress as progress
from otel_progress import Event
from otel_progress import semconv as s
from otel_progress.cli.report.lines_file import LinesFile
from otel_progress.cli.report.store_file import StoreFile
from otel_progress.handlers.jsonlines import line_of
from otel_progress.testing import Capture

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
DAY = 86_400.0


def lines_file(events: Sequence[Event], path: Path) -> Path:
    """Write what the handler `JsonLines` writes."""
    path.write_text("".join(f"{line_of(event)}\n" for event in events), encoding="utf-8")
    return path


def store_file(events: Sequence[Event], path: Path) -> Path:
    """Write what a monitor keeps after it received these events."""
    received(events, path).store.close()
    return path


def received(events: Sequence[Event], path: Path, *, apart: bool = False) -> Parts:
    """A monitor that received these events; `apart` from a process for each operation."""
    parts = Parts(path)
    for event in events:
        own = {key: value for key, value in event.attributes.items() if isinstance(value, (str, int, float))}
        own |= {s.STAGE_PATH: event.stage} if event.stage else {}
        instance = event.snapshot.operation_id if apart else "p1"
        parts.take(request_of(event_of(event.snapshot, event.name, **own), instance=instance))
    parts.core.journal.save_changes()
    return parts


@contextmanager
def read(events: Sequence[Event], folder: Path, kind: str) -> Iterator[LinesFile | StoreFile]:
    """Open what these events left, as `lines` or as `store`."""
    found = (
        LinesFile(lines_file(events, folder / "progress.jsonl"), lambda *_: None)
        if kind == "lines"
        else StoreFile(store_file(events, folder / "monitor.db"))
    )
    with closing(found):
        yield found


def nightly(captured: Capture, days: int = 30) -> None:
    """A job of each night: 100 s, of late 150 s as one stage got slower; the last but one fails, each costs money."""
    for day in range(days):
        slow = day >= days - days // 4
        with progress.operation("nightly", id=f"nightly-{day:02}", total=10, unit="table") as op:
            for name, seconds in (("dump", 20), ("copy", 100 if slow else 50), ("check", 30)):
                with op.stage(name):
                    captured.clock.sleep(seconds)
            op.advance(10)
            op.usage(cost=0.5)
            if day == days - 2:
                op.fail("no space left on device")
        captured.look()
        captured.clock.sleep(DAY - 200)


def resumed(captured: Capture) -> None:
    """An id that takes three attempts: interrupted, failed, completed."""
    for attempt, why in ((1, "SIGTERM"), (2, "no route to host"), (3, None)):
        with progress.operation("migrate", id="migrate-1", total=9, unit="table") as op:
            captured.clock.sleep(5.0 * attempt)
            op.advance(3 * attempt)
            captured.look()
            if why is not None:
                op.fail(why)
        captured.look()


def side_by_side(captured: Capture) -> None:
    """Two stages that overlap, one with a nested stage."""
    with progress.operation("build", id="build-1") as op:
        one = op.stage("compile", total=4, unit="file")
        other = op.stage("docs")
        one.start()
        captured.advance(2)
        other.start()
        with one.stage("link"):
            one.advance(4)
            captured.advance(3)
        one.complete()
        captured.advance(1)
        other.complete()
    captured.look()


def stuck(captured: Capture, *, ends: bool = False) -> None:
    """A run that gets stuck; it is killed then, so no end is heard."""
    op = progress.operation("crawl", id="crawl/shop/1", total=100, unit="page", stall_after=10)
    op.start()
    with op.stage("fetch"):
        for _ in range(5):
            op.advance()
            captured.advance(1)
        captured.advance(40)
        if ends:
            op.advance()
            captured.advance(10)
    if ends:
        op.complete()
        captured.look()


def long_wait(captured: Capture) -> None:
    """A run that waits for hours for a person."""
    with progress.operation("release", id="release-1") as op:
        captured.advance(2)
        with op.waiting("approval by a person", overdue_after=3_600):
            captured.look()
            op.note("asked again")
            captured.look()
            captured.clock.sleep(5 * 3_600)
            captured.look()
        captured.advance(2)
    captured.look()


def tiny(captured: Capture) -> None:
    """A run of 2 ms, without stages."""
    with progress.operation("ping", id="ping-1"):
        captured.clock.sleep(0.002)
    captured.look()


def cancelled(captured: Capture) -> None:
    """A run that was asked to stop."""
    with progress.operation("export", id="export-1", total=10) as op:
        op.advance(3)
        captured.advance(2)
        op.cancel("by the user")
    captured.look()


def currencies(captured: Capture) -> None:
    """A run that pays in two currencies."""
    with progress.operation("translate", id="translate-1", total=4, unit="page") as op:
        op.usage(cost=1.5, currency="EUR", input_tokens=1000)
        op.usage(cost=0.25, currency="USD", output_tokens=200)
        op.advance(4)
        captured.advance(3)
    captured.look()


def jumps(captured: Capture) -> None:
    """A run whose count jumps up and falls back."""
    with progress.operation("sync", id="sync-1", total=1_000, unit="row") as op:
        for done in (10, 20, 700, 690, 100, 110, 1_000):
            op.update(completed=done)
            captured.advance(2)
    captured.look()


def hostile(captured: Capture) -> None:
    """A run with markup, formulas, control characters and broken text in every place."""
    bad = HOSTILE + "\x1b[31m\u202e|`*_[x](javascript:alert(1))"
    with progress.operation(bad, id=f"=cmd|'/C calc'!A0 {HOSTILE}", description=bad, agent=bad) as op:
        op.set(key=bad)
        with op.stage("=1+1 " + HOSTILE) as stage:
            stage.update(message=bad)
            captured.advance(1)
            op.record("failed", item=bad, component=bad, error=bad)
        op.note(bad, status="failed", where=bad)
        with op.waiting(bad):
            captured.advance(1)
        op.result(answer=bad)
        op.fail(f"@SUM(1) {bad} \udcff", hint=bad)
    captured.look()


def continued(captured: Capture, *, ends: bool = True) -> None:
    """A run that goes on from an earlier one: 600 of 1,000 rows are there, and it does 10 a second for 2 USD."""
    op = progress.operation("load", id="load-1", total=1_000, unit="row", restored=600).start()
    for _ in range(40):
        captured.advance(1)
        op.advance(10)
    op.usage(cost=2.0, currency="USD")
    captured.look()
    if ends:
        op.complete()
        captured.look()


def pool(captured: Capture) -> None:
    """A parent with two parts, one of which has two shards below it; a shard fails."""
    with progress.operation("pool", id="pool-1", total=2, unit="part") as op:
        op.usage(cost=1.0)
        for number in range(2):
            with progress.operation("part", id=f"part-{number}", total=4, unit="row") as part:
                part.advance(4)
                part.usage(input_tokens=100)
                captured.advance(1)
                if number:
                    for shard in "ab":
                        with progress.operation("shard", id=f"shard-{shard}") as below:
                            below.record("ok" if shard == "a" else "failed")
                            below.usage(cost=0.25)
                            captured.advance(1)
                            if shard == "b":
                                below.fail("no route to host")
            op.advance()
    captured.look()
