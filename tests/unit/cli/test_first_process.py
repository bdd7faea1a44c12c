"""The first process of a container ends at SIGTERM, before a command handles it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from otel_progress.cli import main


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives process 1 no default action, so there is a handler, with the exit code of that signal."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    main([])
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


def test_other_processes_keep_what_the_kernel_does() -> None:
    """Elsewhere nothing is changed: the default action ends the process by the signal."""
    main([])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_handler_of_the_caller_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores or handles SIGTERM, and calls the command, keeps that."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main([])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
