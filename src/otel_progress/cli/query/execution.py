"""Runs a query command: makes its client, and turns every way in which it may end into an exit code."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse, client_of
from otel_progress.cli.query.exit_codes import BAD, INTERRUPTED, NO_MONITOR, NO_READER, USAGE, CommandError
from otel_progress.errors import MissingDependency
from otel_progress.settings import environment

_ENDINGS: Final = ("SIGTERM", "SIGHUP")


class _Terminated(BaseException):
    """A signal that ends the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def execute(arguments: argparse.Namespace, command: Callable[[Client, argparse.Namespace], int]) -> int:
    """Run a command with a client of the monitor that its options name; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        with _ended_by_signals():
            code = command(client_of(arguments, environment()), arguments)
            sys.stdout.flush()
            return code
    except CommandError as error:
        return _fail(str(error), error.code)
    except MissingDependency as error:
        return _fail(str(error), USAGE)
    except ConnectionLost as error:
        return _fail(f"the monitor does not answer: {error}", NO_MONITOR)
    except ErrorResponse as error:
        return _fail(f"the monitor answers: {error}", BAD)
    except BrokenPipeError:
        _discard_output()
        return NO_READER
    except KeyboardInterrupt:
        _discard_output()
        return INTERRUPTED
    except _Terminated as error:
        _discard_output()
        return 128 + error.number


def require_rich(arguments: argparse.Namespace) -> None:
    """Check that Rich is installed, unless JSON is written.

    Raises:
        MissingDependency: if it is not.
    """
    if not arguments.json and importlib.util.find_spec("rich") is None:
        name = arguments.command_name
        raise MissingDependency(f'{name} needs Rich: pip install "otel-progress[console]", or use --json')


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn signals that would kill us at once into exceptions, so that the terminal is restored; a second one kills."""
    before: dict[int, Any] = {}

    def end(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated(number)

    def interrupt(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen: dict[int, Callable[[int, Any], NoReturn]] = {signal.SIGINT: interrupt}
    chosen.update({getattr(signal, name): end for name in _ENDINGS if hasattr(signal, name)})
    try:
        for number, handler in chosen.items():
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard_output() -> None:
    """Send what Python would still flush at its exit to the null device: nobody reads it, or the reader is stuck."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _fail(reason: str, code: int) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return code
