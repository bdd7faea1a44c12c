"""How processes end, and what is known of them afterwards."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from contextlib import ExitStack

import pytest

from .program import Program, exit_seconds, run
from .receiver import Log, Receiver

LATEST = 1.0
"""What was reported this many seconds before a kill has arrived."""
PROTOCOLS = ("http/protobuf", "grpc")


def last_said(program: Program, until: float) -> int:
    """Return the number of its last report before this time."""
    said = [(float(words[1]), int(words[2])) for words in program.said if words[0] == "said"]
    return max((number for when, number in said if when <= until), default=0)


def check_told(logs: list[Log], number: int) -> None:
    """Check that everything up to this number arrived: each stage, each note, and the last count and message."""
    logs = [log for log in logs if log.operation]
    notes = {log.attributes["progress.note.text"] for log in logs if log.name == "progress.note"}
    assert notes >= {f"note {n}" for n in range(1, number + 1)}
    stages = {
        (log.name, log.attributes["progress.stage.name"]) for log in logs if log.name.startswith("progress.stage.")
    }
    assert stages >= {
        (f"progress.stage.{what}", f"stage-{n}") for n in range(1, number + 1) for what in ("started", "ended")
    }
    by_number = {log.attributes["progress.sequence"]: log.attributes for log in logs}
    latest = by_number[max(by_number)] if by_number else {}
    assert latest.get("progress.completed", 0) >= number
    assert not latest or int(latest["progress.message"].split()[-1]) >= number


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_killed_process_has_told_all_but_its_last_second(protocol: str) -> None:
    """After SIGKILL at any moment, everything reported up to 1 s before is at the receiver."""
    pick = random.Random(time.time_ns())
    for _ in range(2):
        with Receiver(protocol) as receiver, ExitStack() as stack:
            programs = [stack.enter_context(Program("teller", "kill", 0, env=receiver.env)) for _ in range(3)]
            killed = {}
            for program in programs:
                program.line("begin")
            ends = sorted((time.monotonic() + pick.uniform(1.2, 3.0), program) for program in programs)
            for moment, program in ends:
                time.sleep(max(0.0, moment - time.monotonic()))
                killed[program] = time.monotonic()
                program.process.send_signal(signal.SIGKILL)
            for program in programs:
                assert program.wait() == -signal.SIGKILL
            for program in programs:
                logs = [log for log in receiver.logs if log.operation == f"teller-{program.process.pid}"]
                check_told(logs, last_said(program, killed[program] - LATEST))
                assert all(log.name != "progress.operation.ended" for log in logs)


def test_os_exit_loses_at_most_the_last_second() -> None:
    """os._exit runs no code of ours; what was reported up to 1 s before is still at the receiver."""
    with Receiver() as receiver:
        program = run("teller", "os_exit", 2.3, env=receiver.env, code=3)
        check_told(receiver.logs, last_said(program, float(program.values()["end"]) - LATEST))


ENDS = {
    "exit0": (0, "completed"),
    "exit3": (3, "interrupted"),
    "raise": (1, "failed"),
    "running": (0, "interrupted"),
    "dropped": (0, "interrupted"),
    "thread": (0, "completed"),
}


def check_ended(receiver: Receiver, status: str, errors: str = "") -> None:
    """Check that the operation, its stage and its spans ended with this status, and were flushed.

    Spans for which an exit had no time on a busy machine are among those that it counted in its `errors`.
    """
    assert receiver.ended().get("ending") == status
    spans = {span.name: span.status for span in receiver.spans}
    if status != "completed" and ("ending" in spans or not re.search(r"\d spans? could not be sent", errors)):
        assert spans["ending"] == 2, spans
    assert receiver.doubled() == []


@pytest.mark.parametrize("way", ENDS)
def test_end_of_process_is_told(way: str) -> None:
    """If the process ends with Python code running, each operation ends with the right status, and all is flushed."""
    code, status = ENDS[way]
    with Receiver() as receiver:
        program = run("ending", way, env=receiver.env, code=code)
        assert program.held() < exit_seconds()
        check_ended(receiver, status)
        if way == "raise":
            assert "ValueError: as the test wants it" in program.errors


def test_keyboard_interrupt_is_interrupted() -> None:
    """Ctrl-C: the operation is interrupted, all is flushed, and the process dies as Python does."""
    with Receiver() as receiver, Program("ending", "signal", env=receiver.env) as program:
        program.line("ready")
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == -signal.SIGINT
        assert program.held() < exit_seconds()
        check_ended(receiver, "interrupted")


@pytest.mark.parametrize("options", ["", "chained", "chained exits", "many"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sigterm_handled(protocol: str, options: str) -> None:
    """With handle_sigterm, operations end as interrupted and are flushed, then the previous handler runs."""
    with (
        Receiver(protocol) as receiver,
        Program("ending", "signal", "handled", *options.split(), env=receiver.env) as program,
    ):
        program.line("ready")
        receiver.wait_for(lambda: "ending" in receiver.heard())
        sent = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == (7 if "exits" in options else -signal.SIGTERM)
        assert program.ended - sent < exit_seconds()
        check_ended(receiver, "interrupted", program.errors)
        assert ("chained" in program.values()) == ("chained" in options)


def test_sigterm_with_hanging_receiver() -> None:
    """With handle_sigterm and a receiver that never answers, the process ends within 2.5 s, by the signal."""
    with (
        Receiver() as receiver,
        Program("ending", "signal", "handled", "chained", "exits", env=receiver.env) as program,
    ):
        receiver.fail(0)
        program.line("ready")
        sent = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == 7
        assert program.ended - sent < exit_seconds()


def test_end_of_a_lifespan() -> None:
    """A terminated server that shuts telemetry down at the end of its lifespan leaves nothing open."""
    with Receiver() as receiver, Program("lifespan", env=receiver.env) as program:
        program.line("ready")
        receiver.wait_for(lambda: "background" in receiver.heard())
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() in (0, -signal.SIGTERM)
        assert program.held() < exit_seconds()
        assert receiver.ended() == {"done": "completed", "background": "interrupted"}
        assert {span.name for span in receiver.spans} == {"done", "background", "inside"}


def test_sigterm_not_handled() -> None:
    """Without handle_sigterm the signal ends the process as usual; what was reported a second before has arrived."""
    with Receiver() as receiver, Program("ending", "signal", env=receiver.env) as program:
        program.line("ready")
        receiver.wait_for(lambda: any(log.name == "progress.note" for log in receiver.logs))
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM
        assert receiver.ended() == {}


def test_kill_loses_nothing_older_than_a_second_on_a_slow_receiver() -> None:
    """A receiver that takes 0.2 s for each response delays nothing beyond the second."""
    with Receiver() as receiver, Program("teller", "kill", 0, env=receiver.env) as program:
        receiver.fail(200, after=0.2)
        program.line("begin")
        receiver.wait_for(lambda: len(receiver.of("progress.note")) > 40)
        killed = time.monotonic()
        os.kill(program.process.pid, signal.SIGKILL)
        program.wait()
        number = last_said(program, killed - LATEST)
        told = f"note {number}"
        receiver.wait_for(
            lambda: told in [log.attributes["progress.note.text"] for log in receiver.of("progress.note")], 5
        )
        check_told(receiver.logs, number)
