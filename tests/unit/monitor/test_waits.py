"""Declared waits of emitters without an SDK of ours, which need not say for how long they have waited."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_progress import semconv as s
from otel_progress.model.snapshot import Wait
from otel_progress.monitor.intake.records import groups
from otel_progress.monitor.intake.requests import parse
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.outbound import otlp

AT = 1_700_000_000


def told(sequence: int, event: str, status: str, reason: str | None = None, left: float | None = None) -> bytes:
    """A request with an event that happens as many seconds after the start as its sequence says."""
    about: dict[str, str | int | float] = {
        s.OPERATION_ID: "a",
        s.OPERATION_NAME: "w",
        s.STATUS: status,
        s.START_TIME: float(AT),
    }
    about |= {s.SEQUENCE: sequence} | (
        {} if reason is None else {s.WAIT_REASON: reason, s.WAIT_REMAINING: 9.0 - sequence if left is None else left}
    )
    moment = (AT + sequence) * 10**9
    record = otlp.log_record(event, moment, moment, otlp.INFO, "", otlp.attributes(6, about), None, None, False)
    return otlp.envelope(otlp.resource({s.SERVICE_INSTANCE_ID: "p1"}), otlp.scope("emitter", ""), [record])


EVENTS = (
    told(1, s.OPERATION_STARTED, "running"),
    told(2, s.WAIT_STARTED, "waiting", "lock"),
    told(3, s.UPDATED, "waiting", "lock"),
    told(4, s.WAIT_ENDED, "running", "lock"),
    told(5, s.WAIT_STARTED, "waiting", "lock"),
    told(6, s.UPDATED, "waiting", "lock"),
    told(7, s.UPDATED, "waiting", "lock"),
)


REPEATED = (
    told(1, s.OPERATION_STARTED, "running"),
    told(2, s.WAIT_STARTED, "waiting", "lock", 8.0),
    told(4, s.UPDATED, "waiting", "lock", 6.0),
    told(5, s.UPDATED, "waiting", "lock", 8.0),
    told(7, s.UPDATED, "waiting", "lock", 8.0),
)


def wait_after(requests: list[bytes]) -> Wait:
    """The wait of the operation after these requests, in this order."""
    ledger = Ledger()
    for request in requests:
        for group in groups(parse("logs", request)):
            ledger.hear(group.resource, group.records, 1.0)
    wait = ledger.operations["a"].snapshot.wait
    assert wait is not None
    return wait


@given(st.permutations([event for event in REPEATED if event != REPEATED[2]] * 2))
def test_repeated_remaining_time_counts_from_the_first_event(requests: list[bytes]) -> None:
    """In whatever order events come, and come again, the limit is that of the start of the wait."""
    wait = wait_after(requests)
    assert (wait.elapsed, wait.overdue_after) == (5.0, 8.0)


@given(st.permutations(REPEATED))
def test_remaining_time_that_was_another_one_in_between_is_extended(requests: list[bytes]) -> None:
    """Who says 8 s, 6 s and 8 s again waits longer; what comes again in its order puts right what came late."""
    wait = wait_after([*requests, *REPEATED])
    assert wait.elapsed == 5.0
    assert wait.overdue_after in (11.0, 13.0)
    assert wait_after(list(REPEATED)).overdue_after == 11.0


@given(st.permutations(EVENTS * 2))
def test_wait_lasts_from_its_start(requests: list[bytes]) -> None:
    """In whatever order events come, and come again, the newest wait began with its start."""
    wait = wait_after(requests)
    assert (wait.elapsed, wait.overdue_after) == (2.0, 4.0)
