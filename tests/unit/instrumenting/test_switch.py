"""What integrations share: an error switches one off, and inputs are kept only if that is asked for."""

from __future__ import annotations

import signal

import pytest

import otel_progress as progress
from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.integrations.switch import Switch, captured, digest
from otel_progress.live import hooks
from otel_progress.testing import capture


def fail(switch: Switch, error: BaseException) -> None:
    try:
        raise error
    except BaseException:
        switch.failed()


def test_an_integration_that_fails_is_off_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The job goes on, and the error is counted."""
    switch = Switch("worklib")
    switch.on = True
    with capture() as captured_:
        fail(switch, ValueError("x"))
        fail(switch, ValueError("x"))
        assert captured_.drops[semconv.DROP_ERROR] == 2
    assert not switch.on
    assert [record.getMessage() for record in caplog.records] == [
        "integration worklib failed and is off; the job goes on"
    ]


def test_the_jobs_own_exceptions_pass() -> None:
    """Ctrl+C in a function of ours is the user's, and switches nothing off."""
    switch = Switch("worklib")
    switch.on = True
    with pytest.raises(KeyboardInterrupt):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            switch.failed()
    assert switch.on


def test_inputs_are_kept_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument takes precedence over the variable; shutdown() ends it."""
    assert captured({"query": "cats"}) is None
    progress.configure(capture_inputs=True)
    assert captured({"query": "cats"}) == {"query": "cats"}
    monkeypatch.setenv("OTEL_PROGRESS_CAPTURE_INPUTS", "true")
    progress.configure(capture_inputs=False)
    assert captured("cats") is None
    progress.configure()
    assert captured("cats") == "cats"
    progress.shutdown(0.1)
    assert captured("cats") is None
    with pytest.raises(InvalidArgument, match="capture_inputs must be True, False or None, not 'yes'"):
        progress.configure(capture_inputs="yes")  # type: ignore[arg-type]


def test_what_is_kept_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in the arguments of a tool does not leave the process."""
    monkeypatch.setattr(hooks, "captures_inputs", True)
    with capture() as seen:
        with progress.operation("agent"):
            progress.set(tool=captured("password=hunter2"))
        seen.look()
    assert "hunter2" not in str(seen.ended("agent").attributes)


def test_a_digest_tells_inputs_apart_and_nothing_else() -> None:
    """Equal inputs are known, whatever the order of their keys, and anything has one."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({1, 2}) == digest({1, 2})
    assert "cats" not in digest("cats")
    ring: list[object] = []
    ring.append(ring)
    assert digest(ring)
    assert digest({(1, 2): 3})
