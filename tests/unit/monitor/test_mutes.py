"""Muted operations: webhooks are silent, lists are not; the mute ends in time, and trouble that lasts is told then."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, parts
from tests.stress.served import event, serving
from tests.unit.monitor.test_outlets import AT, posted, snap

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.cli import main
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake.requests import Refused
from otel_progress.monitor.outlets.dispatch import Outlets
from otel_progress.monitor.state import mutes
from otel_progress.monitor.state.saved import Mute
from otel_progress.monitor.web.mute_request import asked_mute
from otel_progress.monitor.web.request_error import RequestError
from otel_progress.outbound.webhook import WebhookOptions

__all__ = ["posted"]
STUCK: dict[str, Any] = {"health": Health.SILENT, "idle": 9.0, "stall_after": 5.0}


@pytest.fixture
def monitor(posted: tuple[str, Any], tmp_path: Path) -> Iterator[Parts]:
    """A monitor's inside with a webhook."""
    with parts(tmp_path / "m.db") as found:
        outlets = Outlets(found.core, found.views, None, WebhookOptions(posted[0]), "origin")
        found.core.listen(outlets)
        outlets.start()
        yield found
        outlets.stop(2.0)


def mute(monitor: Parts, key: str, until: float | None = None, attempt: int = 1) -> Refused | None:
    """Mute an operation; the answer."""
    return change(monitor, key, Mute(key, attempt, "anna", "known", clock.unix(), until))


def change(monitor: Parts, key: str, asked: Mute | None) -> Refused | None:
    """Mute or unmute an operation; the answer."""
    answers: list[Refused | None] = []
    monitor.core.mute(key, asked, answers.append)
    monitor.core.work([])
    (answer,) = answers
    return answer


def row(monitor: Parts, key: str) -> dict[str, Any]:
    """The row of an operation."""
    entry = monitor.core.ledger.find(key)
    assert entry is not None
    return monitor.views.row(entry)


def kinds(posted: tuple[str, queue.Queue[dict[str, Any]]], least: int) -> list[str]:
    """The kinds of the next `least` deliveries to the webhook."""
    return [posted[1].get(timeout=10)["kind"] for _ in range(least)]


def test_webhook_is_silent_and_lists_are_not(posted: tuple[str, Any], monitor: Parts) -> None:
    """Nothing of a muted operation is posted, its end included; another one is posted as ever, and both are shown."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.say(snap(1, key="b"), event=s.OPERATION_STARTED)
    assert mute(monitor, "a") is None
    monitor.say(snap(2, **STUCK), event=s.STALLED)
    shown = row(monitor, "a")
    assert (shown["muted"]["by"], shown["muted"]["reason"], shown["state"]) == ("anna", "known", "stuck")
    monitor.say(snap(3, Status.FAILED), event=s.OPERATION_ENDED)
    monitor.say(snap(2, key="b", **STUCK), event=s.STALLED)
    assert posted[1].get(timeout=10)["operation"]["id"] == "b"
    assert posted[1].empty()


def test_what_is_below_is_muted_too(posted: tuple[str, Any], monitor: Parts) -> None:
    """A child of a muted operation is silent, and its row says through which one."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.say(snap(1, key="b", parent_id="a"), event=s.OPERATION_STARTED)
    monitor.say(snap(1, key="c", parent_id="b"), event=s.OPERATION_STARTED)
    before = row(monitor, "c")["revision"]
    mute(monitor, "a")
    assert row(monitor, "c")["muted"]["through"] == "a"
    assert row(monitor, "c")["revision"] > before  # readers of the list get it
    monitor.say(snap(2, key="c", parent_id="b", **STUCK), event=s.STALLED)
    change(monitor, "a", None)
    assert kinds(posted, 1) == ["stalled"]
    assert "muted" not in row(monitor, "c")


def test_trouble_that_lasts_is_told_when_the_mute_is_over(
    posted: tuple[str, Any], monitor: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mute until noon does not hide what is still stuck in the afternoon."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    now = clock.unix()
    mute(monitor, "a", until=now + 60)
    monitor.say(snap(2, **STUCK), event=s.STALLED)
    monitor.tick()
    assert posted[1].empty()
    monkeypatch.setattr(mutes.clock, "unix", lambda: now + 61)
    monitor.tick()
    assert kinds(posted, 1) == ["stalled"]
    monitor.tick()
    assert posted[1].empty()
    assert "muted" not in row(monitor, "a")


def test_no_trouble_is_no_news(posted: tuple[str, Any], monitor: Parts) -> None:
    """What runs well when it is unmuted is not posted."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    mute(monitor, "a")
    change(monitor, "a", None)
    monitor.say(snap(2, Status.COMPLETED), event=s.OPERATION_ENDED)
    assert kinds(posted, 1) == ["ended"]


def test_next_attempt_is_heard(posted: tuple[str, Any], monitor: Parts) -> None:
    """A mute is of one attempt: the next one is not silent, and the mute is gone."""
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    mute(monitor, "a")
    monitor.say(snap(2, Status.FAILED), event=s.OPERATION_ENDED)
    again: dict[str, Any] = {"started_at": AT + 100, "attempt": 2}
    monitor.say(snap(101, **again), event=s.OPERATION_STARTED)
    monitor.say(snap(102, **again, **STUCK), event=s.STALLED)
    assert kinds(posted, 1) == ["stalled"]
    assert "muted" not in row(monitor, "a")
    monitor.tick()
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    assert monitor.core.mutes.of(entry) is None


def test_mute_outlives_the_monitor(tmp_path: Path) -> None:
    """It is stored before it is answered, and so is its end."""
    for left in (True, False):
        with parts(tmp_path / "m.db") as monitor:
            if left:
                monitor.say(snap(1), event=s.OPERATION_STARTED)
                mute(monitor, "a", until=clock.unix() + 3600)
            else:
                assert row(monitor, "a")["muted"]["by"] == "anna"
                change(monitor, "a", None)
    with parts(tmp_path / "m.db") as monitor:
        assert "muted" not in row(monitor, "a")


def test_too_many(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit; what is muted already can be muted anew."""
    monkeypatch.setattr(mutes, "MOST", 1)
    monitor.say(snap(1), event=s.OPERATION_STARTED)
    monitor.say(snap(1, key="b"), event=s.OPERATION_STARTED)
    assert mute(monitor, "a") is None
    refused = mute(monitor, "b")
    assert refused is not None
    assert "unmute some first" in refused.reason
    assert mute(monitor, "a") is None


def test_core_wakes_for_it(tmp_path: Path) -> None:
    """Who mutes doesn't wait for the next second."""
    with parts(tmp_path / "m.db") as monitor:
        monitor.say(snap(1), event=s.OPERATION_STARTED)
        monitor.core.start()
        done = threading.Event()
        monitor.core.mute("a", Mute("a", 1, None, None, 0.0), lambda _: done.set())
        assert done.wait(10)
        monitor.core.stop()


@pytest.mark.parametrize(
    "body",
    [
        *(b"[]", b"{", b'"a"', b'{"bye": "anna"}', b'{"by": 7}', b'{"until": "noon"}', b'{"until": true}'),
        *(b'{"until": 999}', b'{"until": 1e12}', b'{"until": NaN}', b'{"reason": "%s"}' % (b"x" * 501)),
    ],
)
def test_bad_request_says_what_is_wrong(body: bytes) -> None:
    """Each bad body is refused with a text that helps."""
    with pytest.raises(RequestError) as error:
        asked_mute(body, 1_000.0)
    assert error.value.status == 400
    assert len(error.value.reason) > 20


def test_good_requests() -> None:
    """Everything may be left out."""
    assert asked_mute(b"", 0.0) == asked_mute(b"{}", 0.0) == (None, None, None)
    assert asked_mute(b'{"by": " anna ", "reason": "", "until": 1060}', 1_000.0) == ("anna", None, 1060.0)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mute` and `unmute` say what they did; `list` and `show` tell who muted it; what can't be done exits with 1."""
    with serving(tmp_path) as served:
        served.send(event("a"), event("b", OPERATION_PARENT_ID="a"))

        def command(*words: str) -> tuple[int, str]:
            code = main([*words, "--url", served.monitor.url])
            said = capsys.readouterr()
            return code, said.out + said.err

        code, said = command("mute", "a", "--by", "anna", "--reason", "archive is down", "--for", "2h")
        assert (code, "is muted until" in said) == (0, True)
        assert "muted by anna until" in command("list")[1]
        assert ": archive is down" in command("show", "a")[1]
        assert ", through a" in command("show", "b")[1]
        assert command("unmute", "b") == (
            1,
            "otel-progress: the monitor answers: it is not muted itself: 'a' above it is\n",
        )
        assert command("unmute", "a") == (0, "job a is no longer muted\n")
        assert command("unmute", "a") == (1, "otel-progress: the monitor answers: it is not muted\n")
        assert "muted" not in command("list")[1]
        assert command("mute", "nothing")[0] == 4
        served.send(event("a", status="completed", kind=s.OPERATION_ENDED, sequence=2))
        assert command("mute", "a") == (1, "otel-progress: the monitor answers: it is over already: completed\n")


@pytest.mark.parametrize("given", ["2x", "0m", "31d", "-1h", "1e3s", "", "2 h"])
def test_time_that_can_not_be_meant(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad `--for` is refused with examples."""
    with pytest.raises(SystemExit):
        main(["mute", "a", f"--for={given}"])
    assert "30m, 2h or 1d" in capsys.readouterr().err
