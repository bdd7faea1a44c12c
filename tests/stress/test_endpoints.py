"""What a faulty receiver may cost the job: only telemetry, and little of that."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .program import Program, exit_seconds, run
from .receiver import ENDLESS, GARBAGE, NO_ANSWER, RESET, Answer, Receiver

PROTOCOLS = ("http/protobuf", "grpc")
CALL_SECONDS = 0.5
"""Far more than any call takes, far less than a call that waits for a receiver."""
FAILURES: dict[str, Answer | None] = {
    "refused": None,
    "hanging": Answer(NO_ANSWER),
    "slow": Answer(200, after=1.2),
    "reset": Answer(RESET),
    "garbage": Answer(GARBAGE),
    "garbage-body": Answer(200, body=b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "503": Answer(503, headers={"Retry-After": "1"}),
    "429": Answer(429, headers={"Retry-After": "30"}),
    "404": Answer(404),
    "401": Answer(401),
}
OUTAGES = ("refused", "hanging", "reset", "garbage", "503")
STATE = (
    "progress.operation.started",
    "progress.stage.started",
    "progress.stage.ended",
    "progress.operation.ended",
)


def failing(protocol: str, failure: str) -> Receiver:
    """Return a receiver that fails like this."""
    answer = FAILURES[failure]
    receiver = Receiver(protocol, listening=answer is not None)
    if answer is not None:
        receiver.answer = lambda signal: answer
    return receiver


def recover(receiver: Receiver, failure: str) -> None:
    """Let it accept everything from now on."""
    receiver.fail(200)
    if FAILURES[failure] is None:
        receiver.listen()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_job_does_not_feel_a_failing_receiver(protocol: str, failure: str) -> None:
    """Whatever the receiver does, each call returns at once, the result is right, and the process ends within 2.5 s."""
    held = []
    for _ in range(2):
        with failing(protocol, failure) as receiver:
            job = run("job", 1, "sigterm", env=receiver.env)
        values = job.values()
        assert values["result"] == "True"
        assert float(values["longest"]) < CALL_SECONDS, job.said
        assert "Traceback" not in job.errors
        held.append(job.held())
        if held[-1] < exit_seconds():
            return
    pytest.fail(f"the process was held {held} s")


def test_endless_answer_is_not_read_to_its_end() -> None:
    """A response without an end costs neither memory nor time at the exit: it is cut off."""
    with Receiver() as receiver:
        receiver.answer = lambda signal: Answer(ENDLESS if signal == "logs" else 200)
        job = run("job", 2, env=receiver.env)
        assert receiver.requests["logs"] > 3, "it stopped sending after the first such answer"
    assert job.held() < exit_seconds()


@pytest.mark.parametrize(
    ("protocol", "failure"),
    # A receiver that speaks gRPC cannot send garbage, only a code that means that a retry is useless.
    [
        (protocol, failure)
        for protocol in PROTOCOLS
        for failure in OUTAGES
        if (protocol, failure) != ("grpc", "garbage")
    ],
)
def test_state_changes_outlive_an_outage(protocol: str, failure: str) -> None:
    """Changes of state during an outage of the receiver are delivered afterwards: each change, in order, once."""
    with failing(protocol, failure) as receiver, Program("steady", env=receiver.env) as program:
        for line in ("start a", "step a one", "end a", "start b", "step b two"):
            program.tell(line)
            program.line("done")
        if failure != "refused":
            receiver.wait_for(lambda: receiver.requests["logs"] >= 2)
        program.tell("step b three")
        program.line("done")
        recover(receiver, failure)
        program.tell("end b")
        receiver.wait_for(lambda: receiver.ended().keys() >= {"a", "b"})
        program.tell("stop")
        program.finish()

        def told(name: str) -> list[str]:
            logs = sorted(receiver.logs, key=lambda log: log.attributes.get("progress.sequence", 0))
            return [log.name for log in logs if log.operation == name and log.name in STATE]

        step = ["progress.stage.started", "progress.stage.ended"]
        assert told("a") == [STATE[0], *step, STATE[3]]
        assert told("b") == [STATE[0], *step, *step, STATE[3]]
        assert receiver.doubled() == []


@pytest.mark.parametrize("status", [401, 404])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_known_operation_that_ends_while_refused_does_not_look_lost(protocol: str, status: int) -> None:
    """An operation that the receiver knew, and that ended while it refused us (401, 404), is reported as ended later."""
    with Receiver(protocol) as receiver, Program("steady", env=receiver.env) as program:
        program.tell("start a")
        receiver.wait_for(lambda: "a" in receiver.heard())
        receiver.fail(status)
        seen = receiver.requests["logs"]
        program.tell("end a")
        program.line("done")
        receiver.wait_for(lambda: receiver.requests["logs"] > seen + 1)
        receiver.fail(200)
        receiver.wait_for(lambda: "a" in receiver.ended())
        program.tell("stop")
        program.finish()
        assert receiver.doubled() == []


def test_retry_after_is_kept() -> None:
    """A receiver that says when to retry is not asked before."""
    with Receiver() as receiver, Program("steady", env=receiver.env) as program:
        receiver.fail(429, headers={"Retry-After": "2"})
        program.tell("start a")
        receiver.wait_for(lambda: receiver.requests["logs"] == 1)
        first = time.monotonic()
        receiver.fail(200)
        receiver.wait_for(lambda: "a" in receiver.heard())
        assert time.monotonic() - first > 1.9
        program.tell("stop")
        program.finish()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_outage_longer_than_the_outbox(protocol: str) -> None:
    """What no longer fits is counted visibly, and no operation that the receiver knows looks lost."""
    env = {"OTEL_PROGRESS_OUTBOX": "40", "OTEL_PROGRESS_HEARTBEAT": "0.5"}
    known = [f"known-{number}" for number in range(60)]
    with Receiver(protocol) as receiver, Program("steady", env={**receiver.env, **env}) as program:
        for part in (known[:30], known[30:]):
            for name in part:
                program.tell(f"start {name}")
            receiver.wait_for(lambda part=part: receiver.heard() >= set(part))
        receiver.fail(503)
        for name in known:
            program.tell(f"end {name}")
        program.tell("many 300")
        for _ in range(2 * len(known) + 1):
            program.line("done")
        seen = receiver.requests["logs"]
        receiver.wait_for(lambda: receiver.requests["logs"] > seen)
        receiver.fail(200)
        receiver.wait_for(lambda: receiver.ended().keys() >= set(known))

        def counted() -> int:
            beats: list[Any] = [
                log.attributes.get("progress.dropped") for log in receiver.of("progress.process.heartbeat")
            ]
            return max((json.loads(beat).get("outbox", 0) for beat in beats if beat), default=0)

        receiver.wait_for(lambda: counted() > 300)
        receiver.wait_for(lambda: max(receiver.values("progress.sdk.dropped", reason="outbox"), default=0) > 300)
        program.tell("stop")
        program.finish()
        assert receiver.heard() == receiver.ended().keys()
        assert receiver.doubled() == []
