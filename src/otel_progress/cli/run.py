"""`otel-progress run`: a command, its telemetry on its way through us, and a certificate for what it left open."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.child import Child, start
from otel_progress.cli.environment import endpoints, mute, redirected
from otel_progress.cli.signals import Signals
from otel_progress.errors import ProgressError
from otel_progress.monitor import otlp, stacks
from otel_progress.monitor.forward import Forwarder, bare
from otel_progress.monitor.intake import Intake
from otel_progress.monitor.watch import Watcher, words
from otel_progress.telemetry.certificate import Exit

if TYPE_CHECKING:
    from otel_progress.settings import Endpoint

TICK: Final = 0.25
FLUSH_SECONDS: Final = 2.5
GRACE_SECONDS: Final = 1.0
"""How long the end is held for processes of the command that are about to end, too."""
BYTES: Final = 20 * 1024 * 1024
"""What one request may hold: as much as a Collector takes, as we stand in its place for a command of the user's own."""
LINES: Final = 5
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126


def run(command: list[str], environ: Mapping[str, str], *, stderr_tail: int = 0, verbose: bool = False) -> int:
    """Run a command to its end; returns its exit code, 128 + n where signal n killed it.

    Raises:
        MissingDependency: where the endpoint needs a client that is not installed.
        ProgressError: where this system can't wait for signals.
    """
    if not hasattr(signal, "sigtimedwait"):
        raise ProgressError("run works on Linux only, so far")
    ways, guessed = endpoints(environ)
    if guessed:
        say(f"no endpoint is configured; telemetry goes to {_where(ways)}, where something listens")
    elif verbose:
        say(f"telemetry goes to {_where(ways)}" if ways else "no endpoint is configured, and none is found")
    with Signals() as signals:
        forwarder = Forwarder(ways)
        watcher = Watcher(forwarder.put, say, look_into=stacks.tell)
        intake = Intake(_taker(watcher, forwarder), most_bytes=BYTES)
        watcher.settled = intake.settled
        intake.start()
        try:
            child = start(command, redirected(environ, intake.endpoint), stderr_tail)
        except OSError as error:
            intake.stop()
            return _not_started(command[0], error)
        watcher.adopt(child.pid)
        _attend(child, watcher, signals)
        forwarder.flush(FLUSH_SECONDS)
        intake.stop()
    _report(watcher, forwarder)
    if verbose and not watcher.heard:
        say(f"no operation was heard of; {mute(environ) or 'the command must call otel_progress.configure()'}")
    return child.exit_code


def say(line: str) -> None:
    """Tell a human, on stderr; what can't be shown in a terminal is left out."""
    lines = ("".join(letter if letter.isprintable() else " " for letter in part) for part in line.split("\n"))
    try:
        sys.stderr.write("otel-progress: " + "\n    ".join(lines) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _taker(watcher: Watcher, forwarder: Forwarder) -> Callable[[otlp.Parcel], otlp.Taken]:
    def take(parcel: otlp.Parcel) -> otlp.Taken:
        forwarder.put(parcel.signal, parcel.body)
        try:
            if parcel.signal == "logs":
                watcher.hear(otlp.groups(parcel))
        except Exception as error:  # what was said goes on all the same
            say(f"an event could not be read ({type(error).__name__}: {error})")
        return otlp.Taken()

    return take


def _attend(child: Child, watcher: Watcher, signals: Signals) -> None:
    """Pass signals on, and look, until the command is gone and what it left open is closed."""
    while not child.ended():
        came = signals.wait(TICK)
        if came is not None:
            child.send(came)
        watcher.tick()
    watcher.ended(Exit(child.code, child.signal, None, child.tail()))
    grace = clock.monotonic() + GRACE_SECONDS
    watcher.tick()
    while watcher.waiting or (watcher.left() and clock.monotonic() < grace):
        signals.wait(TICK / 5)
        watcher.tick()


def _not_started(name: str, error: OSError) -> int:
    missing = isinstance(error, FileNotFoundError)
    say(f"{name}: {'command not found' if missing else error.strerror}")
    return NOT_FOUND if missing else NOT_EXECUTABLE


def _where(ways: Mapping[str, Endpoint]) -> str:
    return ", ".join(dict.fromkeys(bare(way.url).partition("/v1/")[0] for way in ways.values()))


def _report(watcher: Watcher, forwarder: Forwarder) -> None:
    """What was lost, in a few lines; nothing where all went well."""
    untold = "" if forwarder.lanes else " (no endpoint is configured: nobody else was told)"
    for loss in watcher.losses[:LINES]:
        say(f"lost: {words(loss.snapshot)} - {loss.exit.reason}{untold}")
    if len(watcher.losses) > LINES:
        say(f"lost: {len(watcher.losses) - LINES} operations more")
    left = watcher.left()
    if left:
        pids = ", ".join(str(process.pid or process.instance) for process in left[:LINES])
        say(f"these processes still run operations, and are not watched any more: {pids}")
    for line in forwarder.losses():
        say(line)
