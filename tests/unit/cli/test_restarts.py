"""When a command is started again, and after how long; nothing is started here."""

from __future__ import annotations

import argparse
import json
import logging

import pytest

from otel_progress.cli.run.between_starts import MOST_BYTES, attempts_text
from otel_progress.cli.run.restarts import (
    STEADY,
    RestartPolicy,
    Restarts,
    StartResult,
    restart_policy,
    was_cancelled,
)
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.outbound.certificate import Exit
from otel_progress.settings import read


def failed(*unfinished: Snapshot, code: int | None = 1, signal: str | None = None, ran: float = 1.0) -> StartResult:
    return StartResult(Exit(code if signal is None else None, signal), ran, unfinished)


def ended(status: Status, at: float, *, asked: bool = False, reason: str | None = None) -> Snapshot:
    return Snapshot("a", "job", status, at, cancel_requested=asked, reason=reason)


@pytest.mark.parametrize("text", ["always", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:x", "", "5"])
def test_a_value_that_is_not_known_is_refused(text: str) -> None:
    """`--restart` takes `on-failure` and `on-failure:N` with N of at least 1."""
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        restart_policy(text)


def test_the_number_of_restarts_is_the_most() -> None:
    """Without N there is no limit; with it, the N-th restart is the last one."""
    assert restart_policy("on-failure").most is None
    restarts = Restarts(restart_policy("on-failure:2"))
    assert restarts.against(failed(), None) is None
    restarts.next_pause(1.0)
    assert restarts.count == "restart 1 of 2"
    assert restarts.against(failed(), None) is None
    restarts.next_pause(1.0)
    assert restarts.against(failed(), None) == "2 restarts did not help"


def test_the_pauses_double_and_begin_again_after_a_long_run() -> None:
    """1 s, 2 s, 4 s and so on up to 60 s; a start that ran for 5 minutes is no quick failure."""
    restarts = Restarts(RestartPolicy())
    assert [restarts.next_pause(0.1) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert restarts.next_pause(STEADY) == 1
    assert restarts.next_pause(STEADY - 1) == 2
    assert restarts.made == 10


@pytest.mark.parametrize("result", [failed(), failed(code=255), failed(signal="SIGKILL"), failed(signal="SIGTERM")])
def test_a_failure_is_an_exit_code_or_a_signal(result: StartResult) -> None:
    """Any exit code but 0 and any signal to the command alone is a failure; after a signal to `run` none is."""
    assert Restarts(RestartPolicy()).against(result, None) is None
    assert Restarts(RestartPolicy()).against(result, "SIGTERM was received") == "SIGTERM was received"


def test_success_is_never_repeated() -> None:
    """Exit code 0 ends it, whatever its operations came to."""
    assert Restarts(RestartPolicy()).against(failed(ended(Status.LOST, 1.0), code=0), None) == "it succeeded"


def test_what_was_asked_to_stop_is_not_restarted() -> None:
    """A person who cancels an operation does not want it to begin again."""
    asked = ended(Status.CANCELLED, 5.0, asked=True, reason="OperationCancelled: 'a' was asked to stop: enough")
    assert was_cancelled([ended(Status.FAILED, 2.0), asked])
    assert was_cancelled([ended(Status.LOST, 5.0, asked=True)])
    assert Restarts(RestartPolicy()).against(failed(asked), None) == "its operation was asked to stop"


@pytest.mark.parametrize(
    "unfinished",
    [
        [],
        [ended(Status.FAILED, 5.0)],
        [ended(Status.CANCELLED, 5.0, asked=True), ended(Status.LOST, 7.0)],
        [ended(Status.LOST, 5.0, asked=True), ended(Status.LOST, 5.0)],
        [ended(Status.CANCELLED, 5.0, asked=True, reason="asked to stop: no progress for 9 s, stall_after is 5 s")],
    ],
)
def test_a_failure_beside_or_after_a_request_counts(unfinished: list[Snapshot]) -> None:
    """What failed after the request, died together with other work, or stopped itself when stuck is a failure."""
    assert not was_cancelled(unfinished)


# -- attempts that are passed on


def test_attempts_are_passed_on_for_given_ids() -> None:
    """Ids that the library made up never come again; the text is what the settings read."""
    text = attempts_text({"ingest-7": 2, "0123456789abcdef-12": 1, 'a"b': 1})
    assert read(environ={"OTEL_PROGRESS_ATTEMPTS": text}).attempts == {"ingest-7": 2, 'a"b': 1}
    assert attempts_text({}) == ""


def test_attempts_are_bounded() -> None:
    """Many or long ids keep the environment small; the last ones stay."""
    many = json.loads(attempts_text({f"id-{number}": 1 for number in range(100_000)}))
    assert len(many) == 2_000
    assert "id-99999" in many
    assert len(attempts_text({f"{number}{'x' * 1000}": 1 for number in range(500)})) <= MOST_BYTES


@pytest.mark.parametrize("text", ["[1]", "x", "5", '{"a": "1"', '{"a": "2", "b": 0, "c": 1.5, "d": true}'])
def test_attempts_that_are_none_are_ignored(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid variable never stops a job."""
    with caplog.at_level(logging.WARNING):
        assert read(environ={"OTEL_PROGRESS_ATTEMPTS": text}).attempts == {}
