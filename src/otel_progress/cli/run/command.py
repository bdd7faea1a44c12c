"""`otel-progress run`: a command, its telemetry on its way through us, and a certificate for what it left open."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.run import py_spy
from otel_progress.cli.run.child import Child, start
from otel_progress.cli.run.environment import endpoints, mute, redirected
from otel_progress.cli.run.signals import Signals
from otel_progress.cli.run.spawning import NotStarted
from otel_progress.errors import ProgressError
from otel_progress.model.redact import Redact, by_name, guarded
from otel_progress.model.secrets import mask_secrets
from otel_progress.monitor.intake import records
from otel_progress.monitor.intake.server import Intake
from otel_progress.monitor.state.watcher import Watcher, words
from otel_progress.outbound.certificate import Exit
from otel_progress.outbound.queue import Forwarder, without_credentials

if TYPE_CHECKING:
    from otel_progress.cli.run.follow import Following
    from otel_progress.settings import Endpoint

TICK: Final = 0.25
FLUSH_SECONDS: Final = 2.5
GRACE_SECONDS: Final = 1.0
"""How long the end is held for processes of the command that are about to end, too."""
BYTES: Final = 20 * 1024 * 1024
"""What one request may hold: as much as a Collector takes, as we stand in its place for a command of the user's own."""
LINES: Final = 5


def run(
    command: list[str],
    environ: Mapping[str, str],
    *,
    stderr_tail: int = 0,
    verbose: bool = False,
    follow: bool = False,
) -> int:
    """Run a command to its end; returns its exit code, 128 + n where signal n killed it.

    Args:
        command: what to run.
        environ: its environment.
        stderr_tail: so many last lines of its stderr go along with the end of what it lost.
        verbose: say more.
        follow: show its operations while it runs.

    Raises:
        MissingDependency: where the endpoint needs a client that is not installed.
        ProgressError: where this system can't wait for signals, or there is no monitor to follow by.
    """
    if not hasattr(signal, "sigtimedwait"):
        raise ProgressError("run works on Linux only, so far")
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(terminal=follow))
        following = None
        if follow:
            from otel_progress.cli.run.follow import Following

            following = stack.enter_context(Following(environ, say))
        return Run(command, environ, signals, following).to_its_end(stderr_tail, verbose=verbose)


class Run:
    """One command, and what stands between it and where its telemetry goes."""

    def __init__(
        self, command: list[str], environ: Mapping[str, str], signals: Signals, following: Following | None
    ) -> None:
        """Nothing is started yet."""
        self._command, self._environ = command, environ
        self._signals, self._following = signals, following
        self._ways, self._guessed = endpoints(environ)
        self._forwarders: list[Forwarder] = []
        if following is not None:
            self._ways = following.place.others(self._ways)
            self._forwarders.append(following.forwarder)
        self._forwarders.append(Forwarder(self._ways))
        self._redact = _redaction(environ)
        self._watcher = Watcher(self._put, say, look_into=self._look_into)

    def to_its_end(self, stderr_tail: int, *, verbose: bool) -> int:
        """Run it; returns the exit code."""
        _greet(self._ways, guessed=self._guessed, verbose=verbose, followed=self._following is not None)
        place = None if self._following is None else self._following.place
        intake = Intake(self._take, most_bytes=BYTES, headers=None if place is None else place.headers)
        self._watcher.settled = intake.settled
        intake.start()
        environ = redirected(self._environ, intake.endpoint)
        try:
            child = self._started(environ if place is None else place.environment(environ), stderr_tail)
        except NotStarted as error:
            intake.stop()
            say(str(error))
            return error.code
        self._watcher.adopt(child.pid)
        self._attend(child)
        self._flush()
        intake.stop()
        self._report(verbose=verbose)
        return child.exit_code

    def _look_into(self, pid: int, tell: Callable[[str], None]) -> None:
        py_spy.tell(pid, lambda text: tell(self._redact("stack", text)))

    def _started(self, environ: Mapping[str, str], stderr_tail: int) -> Child:
        if self._following is None:
            return start(self._command, environ, stderr_tail)
        actions, write = self._following.begin(self._watcher)
        child = start(self._command, environ, stderr_tail, actions=actions, write=write)
        self._following.started()
        return child

    def _put(self, signal: str, body: bytes) -> None:
        for forwarder in self._forwarders:
            forwarder.put(signal, body)

    def _take(self, parcel: records.Parcel) -> records.Taken:
        # First here: what the monitor tells of is known to be ours.
        try:
            if parcel.signal == "logs":
                self._watcher.hear(records.groups(parcel))
        except Exception as error:  # what was said goes on all the same
            say(f"an event could not be read ({type(error).__name__}: {error})")
        self._put(parcel.signal, parcel.body)
        return records.Taken()

    def _attend(self, child: Child) -> None:
        """Pass signals on, and look, until the command is gone and what it left open is closed."""
        watcher = self._watcher
        while not child.ended():
            came = self._signals.next(TICK)
            if self._following is not None:
                if came is not None:
                    self._following.came(came, child)
                self._following.tick(child)
            elif came is not None and not came.typed:
                child.send(came.number)
            watcher.tick()
        if self._following is not None:
            self._following.ended()
        tail = child.tail()
        watcher.ended(Exit(child.code, child.signal, None, tail and self._redact("stderr", tail)))
        grace = clock.monotonic() + GRACE_SECONDS
        watcher.tick()
        while watcher.waiting or (watcher.left() and clock.monotonic() < grace):
            self._signals.next(TICK / 5)
            watcher.tick()

    def _flush(self) -> None:
        deadline = clock.monotonic() + FLUSH_SECONDS
        for forwarder in self._forwarders:
            forwarder.hurry(deadline)
        for forwarder in self._forwarders:
            forwarder.flush(max(0.0, deadline - clock.monotonic()))

    def _report(self, *, verbose: bool) -> None:
        followed = self._following is not None
        if self._following is not None:
            self._following.finish()
        told = any(forwarder.queues for forwarder in self._forwarders)
        _tell_losses(self._watcher, told=told)
        for line in (line for forwarder in self._forwarders for line in forwarder.losses()):
            say(line)
        if (verbose or followed) and not self._watcher.heard:
            why = mute(self._environ) or "the command must call otel_progress.configure()"
            say(f"no operation was heard of; {why}")


def _redaction(environ: Mapping[str, str]) -> Redact:
    """How what is told of the command is redacted: as its processes do it, by `OTEL_PROGRESS_REDACT`."""
    named = environ.get("OTEL_PROGRESS_REDACT", "").strip() or "secrets"
    if ":" in named and "" not in sys.path:
        sys.path.insert(0, "")  # the function stands where the command finds it
    try:
        return guarded(by_name(named))
    except ValueError as error:
        say(f"OTEL_PROGRESS_REDACT={named!r} is not used, secrets are masked: {error}")
        return mask_secrets


def _greet(ways: Mapping[str, Endpoint], *, guessed: bool, verbose: bool, followed: bool) -> None:
    """Say where telemetry goes, where nobody said it, or it is asked for."""
    if guessed and ways:
        say(f"no endpoint is configured; telemetry goes to {_where(ways)}, where something listens")
    elif verbose and (ways or not followed):
        say(f"telemetry goes to {_where(ways)}" if ways else "no endpoint is configured, and none is found")


def say(line: str) -> None:
    """Tell a human, on stderr; what can't be shown in a terminal is left out."""
    lines = ("".join(letter if letter.isprintable() else " " for letter in part) for part in line.split("\n"))
    try:
        sys.stderr.write("otel-progress: " + "\n    ".join(lines) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _where(ways: Mapping[str, Endpoint]) -> str:
    return ", ".join(dict.fromkeys(without_credentials(way.url).partition("/v1/")[0] for way in ways.values()))


def _tell_losses(watcher: Watcher, *, told: bool) -> None:
    """What was lost, in a few lines; nothing where all went well."""
    untold = "" if told else " (no endpoint is configured: nobody else was told)"
    for loss in watcher.losses[:LINES]:
        say(f"lost: {words(loss.snapshot)} - {loss.exit.reason}{untold}")
    if len(watcher.losses) > LINES:
        say(f"lost: {len(watcher.losses) - LINES} operations more")
    left = watcher.left()
    if left:
        pids = ", ".join(str(process.pid or process.instance) for process in left[:LINES])
        say(f"these processes still run operations, and are not watched any more: {pids}")
