"""Declared waits of emitters without an SDK of ours, which need not say for how long they have waited."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_progress import semconv as s
from otel_progress.monitor.intake.records import groups
from otel_progress.monitor.intake.requests import parse
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.outbound import otlp

AT = 1_700_000_000


def told(sequence: int, event: str, status: str, reason: str | None = None) -> bytes:
    """A request with an event that happens as many seconds after the start as its sequence says."""
    about: dict[str, str | int | float] = {
        s.OPERATION_ID: "a",
        s.OPERATION_NAME: "w",
        s.STATUS: status,
        s.START_TIME: float(AT),
    }
    about |= {s.SEQUENCE: sequence} | (
        {} if reason is None else {s.WAIT_REASON: reason, s.WAIT_REMAINING: 9.0 - sequence}
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


@given(st.permutations(EVENTS * 2))
def test_wait_lasts_from_its_start(requests: list[bytes]) -> None:
    """In whatever order events come, and come again, the newest wait began with its start."""
    ledger = Ledger()
    for request in requests:
        for group in groups(parse("logs", request)):
            ledger.hear(group.resource, group.records, 1.0)
    wait = ledger.operations["a"].snapshot.wait
    assert wait is not None
    assert (wait.elapsed, wait.overdue_after) == (2.0, 4.0)
