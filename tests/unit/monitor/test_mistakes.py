"""What a sender gets wrong is told in words that name the field, once for each sender, and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from monitor_parts import WALL, Parts, event_of, request_of

from otel_progress import Snapshot, Status, clock
from otel_progress import semconv as s
from otel_progress.cli.query.rows import later_of, snapshot_of
from otel_progress.model import wire
from otel_progress.monitor.intake.mistakes import KINDS, Mistake, Mistakes
from otel_progress.monitor.intake.records import RECORD_BYTES
from otel_progress.monitor.intake.requests import Accepted
from otel_progress.outbound import otlp
from otel_progress.render.words import idling
from otel_progress.testing import FakeClock


def take(monitor: Parts, event: str = s.UPDATED, scope: str = "theirs", instance: str = "n1", **about: Any) -> Accepted:
    """Send one event of a program without our SDK; None leaves an attribute out."""
    given = {
        s.OPERATION_ID: "a",
        s.OPERATION_NAME: "work",
        s.STATUS: "running",
        s.SEQUENCE: 1,
        s.START_TIME: WALL,
        **{key.replace("__", "."): value for key, value in about.items()},
    }
    known = otlp.attributes(6, {key: value for key, value in given.items() if value is not None})
    moment = clock.time_ns()
    record = otlp.log_record(event, moment, moment, 9, "", known, None, None, False)
    resource = otlp.resource({"service.name": "node", "service.instance.id": instance})
    (answer,) = monitor.take(otlp.envelope(resource, otlp.scope(scope, ""), [record]))
    assert isinstance(answer, Accepted)
    return answer


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("operation_id", {"progress__operation__id": None}, "progress.operation.id must be a text of 1 to 1024 characters, it is missing"),
    ("operation_id", {"progress__operation__id": "x" * 2000}, "progress.operation.id"),
    ("operation_name", {"progress__operation__name": 5}, "progress.operation.name must be a text, it is the integer 5"),
    ("status", {"progress__status": "Running"}, "progress.status must be one of pending, running"),
    ("order", {"progress__sequence": "7"}, "progress.sequence must be an integer of at least 0, it is the text '7'"),
    ("order", {"progress__sequence": -3}, "progress.sequence must be an integer of at least 0, it is the integer -3"),
    ("order", {"progress__operation__attempt": 1.5}, "progress.operation.attempt must be an integer"),
    ("start_time", {"progress__start_time": "2026-11-29"}, "progress.start_time must be a number of seconds"),
    ("operation_parent_id", {"progress__operation__parent__id": "x" * 2000}, "progress.operation.parent.id may have"),
]  # fmt: skip

TAKEN: list[tuple[str, dict[str, Any], str]] = [
    ("type", {"progress__completed": "12"}, "progress.completed must be a number of at least 0, it is the text '12'"),
    (
        "type",
        {"progress__stall_after": 0},
        "progress.stall_after must be a number of seconds above 0, it is the integer 0",
    ),
    ("type", {"progress__completed": -5}, "progress.completed must be a number of at least 0, it is the integer -5"),
    (
        "type",
        {"progress__ratio": 7.0},
        "progress.ratio must be a number from 0 to 1, it is the number 7.0: it is ignored",
    ),
    ("type", {"progress__ratio": float("nan")}, "progress.ratio must be a number from 0 to 1, it is the number nan"),
    (
        "type",
        {"progress__stages": '[{"path": "x", "status": "running", "ratio": -3}]'},
        "`ratio` of the stage 'x' in progress.stages must be a number from 0 to 1, it is the integer -3",
    ),
    ("order", {"progress__sequence": None}, "an event needs progress.sequence, which rises"),
    ("start_time", {"progress__start_time": None}, "an event needs progress.start_time, in seconds since 1970"),
    ("start_time", {"progress__start_time": 1_700_000_000_000}, "is that milliseconds?"),
    ("json", {"progress__stages": "[{"}, "progress.stages must be JSON, it is the text '[{'"),
    (
        "type",
        {"progress__stages": '[{"name": "x"}]'},
        "`path` of a stage in progress.stages must be a text, it is missing",
    ),
    (
        "type",
        {"progress__stages": '[{"path": "x", "status": "done"}]'},
        "`status` of the stage 'x' in progress.stages must",
    ),
    ("type", {"progress__stages": '[{"path": "x", "status": "running", "eta": 30}]'}, "`eta` of the stage 'x'"),
    ("type", {"progress__stages": "null"}, "progress.stages must be a JSON list, it is 'null': it is ignored"),
    ("type", {"progress__counters": "[1]"}, "progress.counters must be a JSON object, it is '[1]': it is ignored"),
    ("event_name", {"event": "progress.started"}, "'progress.started' is no event name"),
    ("event_name", {"event": ""}, "an event needs its name"),
    ("attribute_name", {"progress__complete": 3}, "'progress.complete' is no attribute"),
    ("not_final", {"event": s.OPERATION_ENDED}, "progress.operation.ended needs a progress.status of completed"),
    ("heartbeat_interval", {"event": s.PROCESS_HEARTBEAT}, "a heartbeat needs progress.heartbeat.interval"),
    ("heartbeat_interval", {"event": s.PROCESS_HEARTBEAT, "progress__heartbeat__interval": 0}, "in seconds above 0"),
]


@pytest.mark.parametrize(("kind", "about", "words"), REFUSED)
def test_refused_event_is_told_with_its_field(monitor: Parts, kind: str, about: dict[str, Any], words: str) -> None:
    """Each answer says why, whoever sends it, as nobody else can."""
    for scope in (s.SCOPE, "theirs", "theirs"):
        answer = take(monitor, scope=scope, **about)
        assert answer.rejected == 1
        assert words in answer.reason
    assert monitor.core.mistakes.counts[kind] == monitor.core.refused == 3
    assert list(monitor.core.ledger.operations) == []


@pytest.mark.parametrize(("kind", "about", "words"), TAKEN)
def test_what_is_ignored_is_told_once(monitor: Parts, kind: str, about: dict[str, Any], words: str) -> None:
    """The event counts without its wrong values; the first answer and one line say what they are."""
    told: list[str] = []
    monitor.core.mistakes.tell = told.append
    first, second = take(monitor, **about), take(monitor, **about)
    assert (first.rejected, second) == (0, Accepted())
    assert words in first.reason
    assert len(told) == 1
    assert told[0].startswith("node (n1): ")
    assert take(monitor, instance="n2", **about).reason == first.reason
    assert monitor.core.mistakes.health()["mistakes"][kind] == 3
    assert set(monitor.core.mistakes.health()["mistakes"]) == {kind, "fields", "newest"}
    assert list(monitor.core.mistakes.health()["mistakes"]["fields"].values()) == [3]
    assert monitor.core.refused == 0


@pytest.mark.parametrize("scope", ["theirs", s.SCOPE])
def test_end_that_is_too_large_is_an_end(monitor: Parts, scope: str) -> None:
    """What is large is left out and told; without its end the operation would be called lost, or dead."""
    told: list[str] = []
    monitor.core.mistakes.tell = told.append
    take(monitor, scope=scope)
    about = {
        "progress__sequence": 2,
        "progress__stages": json.dumps([{"path": "x" * RECORD_BYTES, "status": "completed"}]),
    }
    answer = take(monitor, s.OPERATION_ENDED, scope, progress__status="completed", progress__completed=7, **about)
    words = "progress.stages makes an event larger than 320 KiB: it is left out"
    assert answer == Accepted(0, words)
    assert told == [f"node (n1): {words} (told once)"]
    assert monitor.core.mistakes.health()["mistakes"]["too_large"] == 1
    seen = monitor.views.detail(monitor.core.ledger.operations["a"])
    assert (seen["status"], seen["progress"]["completed"], seen.get("stages")) == ("completed", 7, [])


def test_limit_of_zero_is_no_limit(monitor: Parts, fake: FakeClock) -> None:
    """It would have passed before anything began, so it is ignored, and the operation can be shown."""
    limits: dict[str, Any] = dict.fromkeys(
        ("progress__stall_after", "progress__slow_after", "progress__start_within"), 0
    )
    stages = json.dumps([{"path": "a", "status": "running", "stall_after": 0, "expected": 0, "started_at": WALL}])
    take(monitor, progress__stages=stages, progress__total=0, **limits)
    fake.sleep(20.0)
    monitor.tick()
    seen = later_of(snapshot_of(monitor.views.detail(monitor.core.ledger.operations["a"])), 20.0)
    (stage,) = seen.stages
    assert (seen.stall_after, seen.slow_after, seen.start_within) == (None, None, None)
    assert (stage.stall_after, stage.expected) == (None, None)
    assert monitor.health() == "progressing"
    assert idling(20.0, seen.stall_after) == ("idle 20 s", "dim")


def test_sender_without_identity_is_told(monitor: Parts) -> None:
    """Its processes can't be told apart; a pid is enough. Its answers don't say so: many SDKs never name an instance."""
    answers = []
    for about in ({"service.name": "node"}, {"service.name": "node", s.PROCESS_PID: 7}):
        record = event_of(Snapshot("a", "work", Status.RUNNING, WALL), **{s.SEQUENCE: 1, s.START_TIME: WALL})
        answers += monitor.take(otlp.envelope(otlp.resource(about), otlp.scope("theirs", ""), [record]))
    assert answers == [Accepted(), Accepted()]
    assert monitor.core.mistakes.counts["instance"] == 1


def test_logs_of_a_program_are_no_events_without_a_name(monitor: Parts) -> None:
    """A log line may name the operation in which it was written."""
    moment = clock.time_ns()
    line = otlp.log_record("", moment, moment, 9, "said", otlp.attributes(6, {s.OPERATION_ID: "a"}), None, None, False)
    assert monitor.take(request_of(line)) == [Accepted()]
    assert monitor.core.mistakes.health() == {}


def test_mistakes_are_told_by_field(monitor: Parts) -> None:
    """The second wrong attribute of a sender is told, too, although its kind is the same."""
    first = take(monitor, progress__ratio=7.0)
    second = take(monitor, progress__ratio=7.0, progress__total=-1, progress__idle=-1.0)
    assert "progress.ratio" in first.reason
    assert "progress.ratio" not in second.reason
    assert "progress.total must be a number of at least 0" in second.reason
    assert "progress.idle must be a number of seconds of at least 0" in second.reason
    found = monitor.core.mistakes.health()["mistakes"]
    assert (found["type"], found["fields"]) == (4, {"progress.ratio": 2, "progress.total": 1, "progress.idle": 1})


def test_operation_that_has_not_started_needs_no_start_time(monitor: Parts) -> None:
    """Nobody knows when it will."""
    assert take(monitor, progress__status="pending", progress__start_time=None) == Accepted()


def test_page_shows_what_its_sender_gets_wrong(monitor: Parts) -> None:
    """The operation is shown, with a hint what is missing from it, and without a start in the year 55,000."""
    take(monitor, progress__completed="12", progress__start_time=1_700_000_000_000)
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    found = monitor.views.detail(entry)
    assert ["must be a number" in words or "milliseconds" in words for words in found["sender_mistakes"]] == [
        True,
        True,
    ]
    assert "started_at" not in found


def test_own_events_and_other_logs_are_no_mistakes(monitor: Parts) -> None:
    """Ordinary log records have no state of an operation, or other names; what our SDK sends is not examined again."""
    take(monitor, event="", progress__status=None)
    take(monitor, event="user.login")
    take(monitor)
    assert monitor.core.mistakes.health() == {}


@pytest.fixture
def one() -> Mistakes:
    """No mistakes yet."""
    return Mistakes()


def test_senders_are_bounded(one: Mistakes) -> None:
    """Many senders push the oldest out; the counts stay."""
    for number in range(3_000):
        one.note(Mistake(KINDS[0], "a field", "words"), str(number), "x")
    assert one.of("0") == []
    assert one.of("2999") == ["words"]
    assert one.counts[KINDS[0]] == 3_000


def test_wrong_sender_can_not_hurt_others(monitor: Parts, fake: FakeClock) -> None:
    """Deep JSON, huge values, odd keys: one line each, and the next event is taken."""
    take(monitor, progress__stages="[" * 10_000, progress__usage='{"a":' * 5_000, progress__completed=float("nan"))
    assert take(monitor, instance="n2") == Accepted()
    assert all(len(words) < 400 for words in monitor.core.mistakes.of("n1"))


def test_a_sender_that_is_newer_is_told_once(monitor: Parts) -> None:
    """What this monitor knows of its events counts; the first answer and one line say that it may not be all."""
    told: list[str] = []
    monitor.core.mistakes.tell = told.append
    answers = []
    for schema in (3, 3, wire.SCHEMA, None, "9"):
        about = {} if schema is None else {s.SCHEMA: schema}
        snapshot = Snapshot("a", "work", Status.RUNNING, 101.0, started_at=100.0, sequence=len(answers) + 1)
        answers += monitor.take(request_of(event_of(snapshot), instance="n1", **about))
    words = "progress.schema is 3, and this monitor reads 2"
    assert [words in answer.reason for answer in answers if isinstance(answer, Accepted)] == [True, *[False] * 4]
    assert [words in line for line in told] == [True]
    assert monitor.core.ledger.operations["a"].head.sequence == 5


def test_a_delta_whose_stages_are_no_json_harms_nothing(monitor: Parts) -> None:
    """It is said, and the rest of it counts."""
    answer = take(monitor, progress__keyframe=1, progress__stages="[[0,")
    assert "progress.stages must be JSON" in answer.reason
    assert monitor.core.ledger.operations["a"].head.name
