"""`otel-progress show`: shows all that the monitor knows of one operation."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import IO, Any, Final
from urllib.parse import urlencode

from otel_progress import clock, semconv
from otel_progress.cli.parsing import whole
from otel_progress.cli.query.cells import ago, begun, icon, muted_words, state
from otel_progress.cli.query.client import Client, path_of
from otel_progress.cli.query.execution import execute, require_rich
from otel_progress.cli.query.exit_codes import of_status
from otel_progress.cli.query.options import ID_HELP, LIST_MOST, common_options
from otel_progress.cli.query.rows import (
    Row,
    items,
    label_of,
    labels_of,
    mapping,
    number,
    shown,
    snapshot_of,
    text,
)
from otel_progress.cli.query.view_model import event_line, stamp
from otel_progress.model.health import BEATS, NOT_MOVING
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status, word
from otel_progress.model.units import duration, lasting, percent, spelled, unforeseen, units
from otel_progress.render import words
from otel_progress.render.diversion import on_terminal
from otel_progress.render.plain import closing
from otel_progress.render.screen import Screen
from otel_progress.render.tree import TROUBLED, TreeLayout, TreeNode, TreeOptions, rows_of
from otel_progress.render.words import Line, clean

EVENTS: Final = 20
"""Events that are shown unless another number is given."""
STAGES: Final = 64
TOGETHER: Final = 3
"""A stage that ran at least this often gets one line for all its runs."""
CHILDREN: Final = 50
SKEW: Final = 1.0
"""Seconds by which the clocks of two machines may differ."""
PAUSES: Final = 20
ATTEMPTS: Final = 20
TOLD: Final = sorted(semconv.EVENTS - {semconv.UPDATED, semconv.HEARTBEAT, semconv.PROCESS_HEARTBEAT})
"""The events that are shown: changes of state, no plain updates."""
STACK: Final = 60
"""The most lines of a call stack, the innermost ones."""
WIDE: Final = 120
"""The width of a line if there is no terminal."""


_ABOUT: Final = """\
Show all that is known of one operation: its verdict with the evidence, where it is stuck, its stages and children,
waits and stalls, cost, the last events, its trace, and if it was lost, how its process ended."""
_EXAMPLE: Final = """\
example:
  otel-progress show survey-1
  otel-progress show survey-1 --events 100"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `show`."""
    common_options(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("id", metavar="ID", help=ID_HELP)
    about = "the last N events (default: %(default)s; 0: none)"
    parser.add_argument("--events", type=whole(0, LIST_MOST), default=EVENTS, metavar="N", help=about)
    parser.add_argument("--json", action="store_true", help="write JSON")


def main(arguments: argparse.Namespace) -> int:
    """Write all that is known of the operation; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    require_rich(arguments)
    return show(client, arguments.id, sys.stdout, events=arguments.events, as_json=arguments.json)


def show(client: Client, given: str, out: IO[str], *, events: int = EVENTS, as_json: bool = False) -> int:
    """Write all that is known of it; returns the exit code.

    Raises:
        CommandError: if it is not there, or if the monitor denies access.
        ConnectionLost: if the monitor does not answer.
    """
    client.check()
    detail = client.find(given)
    happened = _history(client, detail, events, TOLD) if events else []
    code = of_status(snapshot_of(detail).status)
    if as_json:
        out.write(json.dumps({**detail, "events": happened} if events else detail) + "\n")
        return code
    ends = [one for one in items(happened) if one.get("event") == semconv.OPERATION_ENDED]
    if not ends and detail.get("status") == Status.LOST.value:
        ends = items(_history(client, detail, 1, [semconv.OPERATION_ENDED]))
    screen = Screen(out, draws=False)
    width = screen.rich.width if on_terminal(out) else WIDE
    for lines in sections(detail, items(happened), width, ends[-1:]):
        screen.print(lines)
    return code


def _history(client: Client, detail: Row, limit: int, names: list[str]) -> list[Any]:
    """The newest events of an operation that have one of these names."""
    query = urlencode({"limit": limit, "before": 2**53, "event": ",".join(names)})
    return client.ask(f"{path_of(str(detail.get('id')))}/events?{query}").get("events") or []


def sections(detail: Row, events: list[Row], width: int, ends: list[Row]) -> Iterable[list[Line]]:
    """The sections, one after the other; an empty one is left out."""
    now = clock.unix()
    one = snapshot_of(detail)
    yield [_head(one, detail), *_verdict(one, detail)]
    yield from _titled("side by side", [] if one.status.final else _strands(one, detail))
    yield from _titled("", _facts(one, detail, now))
    yield from _titled("progress", _closing(one, detail) if one.status.final else _tree(one, width))
    yield from _titled("children", _children(detail))
    yield from _titled("waits and stalls", _pauses(detail, one.timestamp))
    yield from _titled("its program sends what the monitor cannot use", _mistakes(detail))
    yield from _titled("attributes", _pairs(one.attributes))
    if not one.status.final:  # otherwise it is above
        yield from _titled("result", _pairs(one.result))
    yield from _titled("where it is stuck" if not one.status.final else "where it was stuck", _stack(one))
    if one.status.final:
        yield from _titled("how its process ended", _exit(ends, detail))
    yield from _titled("attempts", _attempts(detail))
    if one.status.final and one.status is not Status.COMPLETED:
        saved = number(detail.get("checkpoint_at"))
        yield from _titled("start it again" if saved is None else "resume it", _command(detail, saved, now))
    yield from _titled(
        "last event" if len(events) == 1 else f"last {len(events)} events", [_event(event) for event in events]
    )


def _titled(title: str, lines: list[Line]) -> Iterable[list[Line]]:
    if lines:
        yield [(("", ""),), ((title, "bold underline"),), *lines] if title else [(("", ""),), *lines]


def _head(one: Snapshot, detail: Row) -> Line:
    sign, style = icon(one)
    doing, colour = state(one)
    attempt = f", attempt {one.attempt}" if one.attempt > 1 else ""
    if one.status.final:
        spent = f" after {duration(one.elapsed)}{attempt}"
    elif doing == Status.WAITING.value and one.wait is not None:
        spent = f" for {lasting(one.wait.elapsed)}, running for {lasting(one.elapsed)}{attempt}"
    else:
        since = "for" if doing == Status.RUNNING.value else "running for"
        spent = f" {since} {lasting(one.elapsed)}{attempt}"
    asked = (("  asked to stop", "bold yellow"),) if one.cancel_requested and not one.status.final else ()
    return ((f"{sign} ", style), (label_of(detail), "bold"), ("  ", ""), (doing, colour), (spent, ""), *asked)


def _verdict(one: Snapshot, detail: Row) -> list[Line]:
    """The verdict with its evidence; of an ended operation, the reason for its end."""
    warning = text(detail.get("warning"))
    warned: list[Line] = [((f"  {warning}", "yellow"),)] if warning else []
    if one.status.final:
        said = [one.reason] if one.reason else []
        said += [f"hint: {one.hint}"] if one.hint else []
        said += [f"was stuck at {one.stuck_at}"] if one.stuck_at else []
        return [*(((f"  {line}", words.STYLES.get(one.status, "")),) for line in said), *warned]
    verdict, bad = mapping(detail.get("verdict")), words.trouble(one)
    muted = muted_words(detail)
    # Without trouble, only the state of the child that it waits for.
    reason = one.health_reason or (text(verdict.get("reason")) if verdict.get("child") else None)
    lines: list[Line] = [*([((f"  {muted}", "dim"),)] if muted else []), *warned]
    if reason:
        lines.append(((f"  {spelled(reason)}", bad[1] if bad else "dim"),))
    allowed, limit = number(verdict.get("allowed")), text(verdict.get("limit"))
    if bad and limit and allowed is not None:
        source = text(verdict.get("source"))
        what = f"{limit} of {duration(allowed)}"
        if limit == "heartbeat":
            what = f"not heard of for {BEATS} heartbeats of {duration(allowed / BEATS)}"
        lines.append(((f"  limit: {what}" + (f", {source}" if source else ""), "dim"),))
    if seen := text(verdict.get("seen")):
        lines.append(((f"  last seen: {seen}", "dim"),))
    if one.stuck_at:
        lines.append(((f"  at {one.stuck_at}", bad[1] if bad else ""),))
    loop = mapping(detail.get("loop"))
    if loop:
        keys = " → ".join(clean(key) for key in loop.get("keys") or ())
        lines.append(
            ((f"  repeats {number(loop.get('repeats')) or '?'} times: {keys or clean(loop.get('kind'))}", ""),)
        )
    return lines


def _facts(one: Snapshot, detail: Row, now: float) -> list[Line]:
    process, trace = mapping(detail.get("process")), mapping(detail.get("trace"))
    path = " / ".join(label_of(row) for row in items(detail.get("ancestors")))
    host = text(process.get("host")) or text(detail.get("host"))
    service = text(process.get("service")) or text(detail.get("service"))
    pid = number(process.get("pid")) or number(detail.get("pid"))
    heard = number(process.get("heard_ago"))
    runs = " ".join(filter(None, (service, f"on {host}," if host else "", f"pid {pid}" if pid else "")))
    if heard is not None and not one.status.final:
        runs += f", heard {duration(heard)} ago"
    trace_id = text(trace.get("trace_id"))
    if trace_id:
        trace_id += " (not sampled)" if trace.get("sampled") is False else ""
    started = f"{stamp(one.started_at, day=True)} ({begun(one, now)})" if one.started_at else None
    if one.started_at and one.started_at > now and one.status.final:
        started = f"{stamp(one.started_at, day=True)}, by the clock of its process"
    facts = (
        ("id", one.operation_id),
        ("part of", path or one.parent_id),
        ("about", one.description),
        ("agent", one.agent),
        ("started", started),
        ("estimate", _estimate(one)),
        ("process", runs or None),
        ("known from", "spans alone" if detail.get("source") == "spans" else None),
        ("trace", trace_id),
        ("", text(trace.get("url"))),
    )
    return [((f"  {name:<11}", "dim"), (value, "")) for name, value in facts if value]


def _estimate(one: Snapshot) -> str | None:
    """`2 to 5 min left, from 12 earlier runs`, `no estimate while stuck`, `no estimate yet, 1 of 200 files`."""
    progress, waits = one.progress, one.status is Status.WAITING
    if one.status is not Status.RUNNING and not waits:
        return None
    if one.health in NOT_MOVING:
        return unforeseen(progress.completed, progress.total, word(one.health)) or None
    if progress.eta is not None:
        return f"{words.remaining(progress, waits=waits)}, {words.source(progress.eta)}"
    said = words.remaining(progress)
    return f"{said}, {units(progress.completed or 0, progress.total, progress.unit)}" if said else None


def _closing(one: Snapshot, detail: Row) -> list[Line]:
    """Its stages with their share of the time, counts and results, as in the summary at its end."""
    counted = words.counted(one.progress) if one.progress.completed else ""
    head: list[Line] = [((f"  {counted}", ""),)] if counted else []
    return [*head, *closing(one, label_of(detail), STAGES)[1:]]


def _tree(one: Snapshot, width: int) -> list[Line]:
    apart, together = _together(one)
    rows = rows_of([TreeNode(0, one.name, apart)], TreeOptions(0, STAGES))
    # The verdict is already above.
    tree = TreeLayout().lines([row for row in rows if row.rank != TROUBLED or row.free is None], width, 1_000)
    return [*tree, *together]


def _together(one: Snapshot) -> tuple[Snapshot, list[Line]]:
    """The operation without the runs of repeated stages, and one line for each of these stages."""
    many = {runs.path: runs for runs in one.repeated if runs.count >= TOGETHER}
    kept = tuple(stage for stage in one.stages if stage.path not in many or stage.status is not Status.COMPLETED)
    lines = [((f"  {words.ICONS[Status.COMPLETED]} ", "green"), *words.repeated(runs)) for runs in many.values()]
    named = sum(runs.folded for runs in one.repeated)
    folded = one.folded if not named else ()
    return replace(one, stages=kept, folded=folded, repeated=()), lines


def _children(detail: Row) -> list[Line]:
    rows = items(detail.get("children_rows"))
    lines: list[Line] = []
    for row, label in zip(rows[:CHILDREN], labels_of(rows)):
        child = snapshot_of(row)
        sign, style = icon(child)
        doing, colour = state(child)
        done = "" if child.progress.stated is None else f"  {percent(child.progress.stated)}"
        why = child.health_reason if not child.status.final else child.reason
        earlier = "  earlier attempt" if _is_earlier(row, detail) else ""
        spent = f"  {duration(child.elapsed)}{done}{earlier}" + (f"  {why}" if why else "")
        lines.append(((f"  {sign} ", style), (f"{label}  ", ""), (doing, colour), (spent, "dim")))
    more = max(len(rows), int(number(detail.get("children")) or 0)) - len(lines)
    return [*lines, ((f"  + {more:,} more", "dim"),)] if more > 0 else lines


def _is_earlier(child: Row, detail: Row) -> bool:
    """Whether a child began before this attempt did."""
    began, now = number(child.get("started_at")), number(detail.get("started_at"))
    return (number(detail.get("attempt")) or 1) > 1 and began is not None and now is not None and began < now - SKEW


def _pauses(detail: Row, now: float) -> list[Line]:
    lines: list[Line] = []
    pauses = items(detail.get("timeline"))
    for pause in pauses[-PAUSES:]:
        begun, over = number(pause.get("from")), number(pause.get("to"))
        if begun is None:
            continue
        long = duration(max(0.0, (now if over is None else over) - begun)) + (" so far" if over is None else "")
        kind = text(pause.get("kind")) or "?"
        where = f" in {text(pause.get('stage'))}" if pause.get("stage") else ""
        why = f": {spelled(text(pause.get('reason')) or '')}" if pause.get("reason") else ""
        line = (f"{kind}{where} for {long}{why}", "red" if kind == "stall" else "yellow")
        lines.append(((f"  {stamp(begun)}  ", "dim"), line))
    more = len(pauses) - PAUSES
    return [((f"  + {more:,} before", "dim"),), *lines] if more > 0 else lines


def _mistakes(detail: Row) -> list[Line]:
    """What its process sends wrong: those values are missing above."""
    told = detail.get("sender_mistakes")
    return [((f"  {clean(one)}", "yellow"),) for one in told] if isinstance(told, list) else []


def _pairs(values: Row) -> list[Line]:
    return [((f"  {key}  ", "dim"), (shown(value), "")) for key, value in values.items()]


def _attempts(detail: Row) -> list[Line]:
    """Each attempt of the id, the newest first: when it ran, how long, how it ended and how far it was."""
    lines: list[Line] = []
    for one in reversed(items(detail.get("attempts"))[-ATTEMPTS:]):
        begun, over, ratio = (number(one.get(name)) for name in ("started_at", "ended_at", "ratio"))
        status = next((known for known in Status if known.value == one.get("status")), None)
        sign, style = words.UNKNOWN, "dim"
        if status is not None:
            sign, style = words.ICONS.get(status, words.STILL), words.STYLES.get(status, "")
        spent = "" if begun is None else f" after {duration(over - begun)}" if over is not None else ""
        far = f" at {percent(ratio)}" if ratio is not None and status is not Status.COMPLETED else ""
        signal, code = text(one.get("signal")), number(one.get("exit_code"))
        why = f"killed by {signal}" if signal else f"exit code {code}" if code is not None else text(one.get("reason"))
        state_words = "no end was reported" if status is None else status.value
        lines.append(
            (
                (f"  {stamp(begun, day=True) if begun is not None else '':19}  ", "dim"),
                (f"{sign} ", style),
                (f"attempt {number(one.get('attempt')) or '?'}  ", ""),
                (state_words, style),
                (f"{spent}{far}" + (f": {why}" if why else ""), ""),
            )
        )
    return lines


def _command(detail: Row, saved: float | None, now: float) -> list[Line]:
    """The command that started it, for a shell on its machine."""
    command = mapping(detail.get("command"))
    line = text(command.get("line"))
    if not line:
        return []
    host = text(detail.get("host"))
    facts = [
        f"on {host}" if host else "",
        f"last checkpoint {ago(saved, now)}" if saved is not None else "",
        "secrets are masked: fill them in" if command.get("masked") else "",
        "it was too long to be kept whole" if command.get("cut") else "",
    ]
    told = "; ".join(filter(None, facts))
    return [((f"  {line}", "bold"),), *([((f"  {told}", "dim"),)] if told else [])]


def _strands(one: Snapshot, detail: Row) -> list[Line]:
    """Its branches with their states, the worst first."""
    rows = items(detail.get("children_rows"))
    apart = {text(row.get("id")): f"child {label}" for row, label in zip(rows, labels_of(rows))}
    strands = [(words.strand(branch), branch) for branch in one.branches]
    shared = Counter(strand.label for strand, _ in strands)
    strands = [
        (strand._replace(label=apart.get(branch.child, strand.label)) if shared[strand.label] > 1 else strand, branch)
        for strand, branch in strands
    ]
    wide = max((len(strand.label) for strand, _ in strands), default=0)
    lines: list[Line] = []
    for strand, branch in strands:
        sign = words.TROUBLE if strand.troubled else words.ICONS[Status.WAITING] if branch.wait else words.STILL
        place = f"  at {branch.stuck_at}" if branch.stuck_at else ""
        head = ((f"  {sign} ", strand.style), (f"{strand.label:<{wide}}  ", ""), (f"{strand.state:<11}", strand.style))
        lines.append((*head, (f"  {strand.words}{place}".rstrip(), strand.style)))
    return lines


def _stack(one: Snapshot) -> list[Line]:
    lines = (one.stack or "").splitlines()
    shown: list[Line] = [((f"  {clean(line)}", ""),) for line in lines[-STACK:]]
    more = len(lines) - STACK
    return [((f"  + {more:,} lines before", "dim"),), *shown] if more > 0 else shown


def _exit(ends: list[Row], detail: Row) -> list[Line]:
    """How the process ended, as `run` or a monitor saw it: exit code or signal, and the end of its stderr."""
    found = [mapping(end.get("attributes")) for end in ends if end.get("attempt") == detail.get("attempt")]
    said = found[-1] if found else {}
    facts = [(name, said[key]) for key, name in _EXIT if said.get(key) not in (None, False)]
    lines: list[Line] = [((f"  {name}  ", "dim"), (shown(value), "")) for name, value in facts]
    tail = said.get(semconv.EXIT_STDERR)
    last = tail.splitlines()[-STACK:] if isinstance(tail, str) else []
    if last:
        lines.append((("  the last lines of its stderr", "dim"),))
    return [*lines, *(((f"    {text(line) or ''}", ""),) for line in last)]


_EXIT: Final = (
    (semconv.EXIT_CODE, "exit code"),
    (semconv.EXIT_SIGNAL, "signal"),
    (semconv.EXIT_OUT_OF_MEMORY, "out of memory"),
)


def _event(event: Row) -> Line:
    when = number(event.get("timestamp"))
    return ((f"  {stamp(when) if when is not None else '':8}  ", "dim"), *event_line(event))
