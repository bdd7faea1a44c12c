"""Runs a command to its end: forwards its telemetry, and certifies the loss of the operations that it left open."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress import clock
from otel_progress.cli.monitor import UNSENT, redaction, state_folder
from otel_progress.cli.run import py_spy
from otel_progress.cli.run.between_starts import BetweenStarts
from otel_progress.cli.run.child import Child, start
from otel_progress.cli.run.control_offer import ControlOffer
from otel_progress.cli.run.deaths import Stores
from otel_progress.cli.run.environment import absent, endpoints, mute, redirected
from otel_progress.cli.run.late_receiver import LateReceiver
from otel_progress.cli.run.pythons import Pythons
from otel_progress.cli.run.remarks import Remarks
from otel_progress.cli.run.signals import Signals
from otel_progress.cli.run.spawning import NotStarted
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.newest_points import newest_now
from otel_progress.monitor.intake.server import Intake
from otel_progress.monitor.state.watcher import Watcher, words
from otel_progress.outbound.certificate import Exit
from otel_progress.outbound.queue import Forwarder, without_credentials
from otel_progress.outbound.spool import Spool, SpoolQueue

if TYPE_CHECKING:
    from otel_progress.cli.run.follow import Follower
    from otel_progress.cli.run.restarts import RestartPolicy
    from otel_progress.settings import Endpoint

TICK: Final = 0.25
FLUSH_SECONDS: Final = 2.5
GRACE_SECONDS: Final = 1.0
"""Seconds that we wait at the end for processes of the command that are about to end."""
BYTES: Final = 20 * 1024 * 1024
"""The largest request: as large as a Collector takes, since we stand in for one."""
LINES: Final = 5


def run(
    command: list[str],
    environ: Mapping[str, str],
    *,
    stderr_tail: int = 0,
    verbose: bool = False,
    follow: bool = False,
    restart: RestartPolicy | None = None,
) -> int:
    """Run a command to its end; returns its last exit code, or 128 + n if signal n killed it.

    Args:
        command: the command and its arguments.
        environ: its environment.
        stderr_tail: the number of last lines of stderr to send with the end of a lost operation.
        verbose: print more.
        follow: show its operations while they run.
        restart: when to start it again.

    Raises:
        MissingDependency: if the endpoint needs a package that is not installed.
        ProgressError: if no monitor can be had.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(terminal=follow))
        follower = None
        if follow:
            from otel_progress.cli.run.follow import Follower

            follower = stack.enter_context(Follower(environ, say))
        supervisor = Supervisor(command, environ, signals, follower, restart)
        stack.callback(supervisor.close)
        return supervisor.to_its_end(stderr_tail, verbose=verbose)


class _End(NamedTuple):
    """How one start of the command ended: the exit, its code as a shell reports it, and the session in which it ran."""

    exit: Exit
    code: int
    session: int | None


class Supervisor:
    """Stands between one command and the receivers of its telemetry."""

    def __init__(
        self,
        command: list[str],
        environ: Mapping[str, str],
        signals: Signals,
        follower: Follower | None,
        policy: RestartPolicy | None = None,
    ) -> None:
        """Prepare; nothing is started yet."""
        self._command, self._environ = command, environ
        self._signals, self._follower = signals, follower
        self._endpoints, self._guessed = endpoints(environ)
        self._forwarders: list[Forwarder] = []
        if follower is not None:
            follower.host.say = self._say
            self._endpoints = follower.host.others(self._endpoints)
            self._forwarders.append(follower.forwarder)
        missing = absent(environ, self._endpoints) if follower is None else {}
        self._late = LateReceiver(missing)
        self._forwarders.append(self._late)
        forwarder = Forwarder(self._endpoints, merge_metrics=newest_now)
        self._forwarders.append(forwarder)
        self._spool = Spool(state_folder(environ) / UNSENT)
        self._control = ControlOffer(None if follower is not None else {**missing, **self._endpoints}.get("logs"))
        for queues in (forwarder.queues, self._late.queues):
            if "logs" in queues:
                queues["logs"].offered = self._control.offered
        self._redact = redaction(environ)
        self._unsent: list[SpoolQueue] = []
        self._watcher = Watcher(self._put, self._say, look_into=self._look_into)
        self._stores = Stores(environ)
        self._remarks = Remarks(self._watcher.ledger, self._put)
        self._policy = policy
        self._between: BetweenStarts | None = None

    def to_its_end(self, stderr_tail: int, *, verbose: bool) -> int:
        """Run it; returns the exit code."""
        _greet(self._endpoints, guessed=self._guessed, verbose=verbose, followed=self._follower is not None)
        host = None if self._follower is None else self._follower.host
        intake = Intake(self._take, most_bytes=BYTES, headers=self._control.headers if host is None else host.headers)
        self._watcher.settled = intake.settled
        intake.start()
        environ = self._control.environment(redirected(self._environ, intake.endpoint))
        environ = self._stores.environment(environ if host is None else host.environment(environ))
        self._pythons = Pythons(intake.endpoint, self._environ, lambda: self._watcher.heard)
        if (verbose or self._follower is not None) and not mute(self._environ):
            self._pythons.watch(self._say)
        if self._policy is not None:
            about = (self._signals, self._watcher, self._follower, self._remarks, self._say)
            self._between = BetweenStarts(self._policy, *about, mark=("OTEL_EXPORTER_OTLP_ENDPOINT", intake.endpoint))
        try:
            end = self._run_once(environ, stderr_tail)
        except NotStarted as error:
            intake.stop()
            say(str(error))
            return error.code
        while self._between is not None and self._between.goes_on(end.exit, end.session):
            end = self._run_again(environ, stderr_tail)
        self._pythons.stop()
        self._flush()
        intake.stop()
        self._report(verbose=verbose)
        return end.code

    def close(self) -> None:
        """Remove what was made for the command alone."""
        self._stores.close()

    def _run_once(self, environ: Mapping[str, str], stderr_tail: int) -> _End:
        """Start the command and attend it to its end.

        Raises:
            NotStarted: if there is no such command, or it can't be executed.
        """
        if self._between is not None:
            environ = self._between.begins(environ)
        child = self._started(environ, stderr_tail)
        self._watcher.adopt(child.pid)
        self._unsent = self._unsent or self._spool.senders(self._endpoints, newest_now)
        exit = self._attend(child)
        self._stores.tell(child.pid, exit, self._watcher.losses, self._remarks, self._say)
        if self._between is not None:
            self._tell_losses()
        return _End(exit, child.exit_code, child.session)

    def _run_again(self, environ: Mapping[str, str], stderr_tail: int) -> _End:
        """Start the command anew; one that can't be started now, as while it is being replaced, has failed."""
        try:
            return self._run_once(environ, stderr_tail)
        except NotStarted as error:
            self._say(str(error))
            return _End(Exit(error.code), error.code, None)

    def _look_into(self, pid: int, tell: Callable[[str], None]) -> None:
        py_spy.tell(pid, lambda text: tell(self._redact("stack", text)))

    def _started(self, environ: Mapping[str, str], stderr_tail: int) -> Child:
        if self._follower is None:
            return start(self._command, environ, stderr_tail)
        actions, write = self._follower.begin(self._watcher)
        child = start(self._command, environ, stderr_tail, actions=actions, write=write)
        self._follower.started()
        return child

    def _put(self, signal: str, body: bytes) -> None:
        for forwarder in self._forwarders:
            forwarder.put(signal, body)

    def _take(self, parcel: requests.Parcel) -> requests.Accepted:
        # The watcher first: what the monitor then reports is known to be ours.
        try:
            if parcel.signal == "logs":
                self._watcher.hear(records.groups(parcel))
        except Exception as error:  # the request is forwarded all the same
            say(f"an event could not be read ({type(error).__name__}: {error})")
        self._put(parcel.signal, parcel.body)
        return requests.Accepted()

    def _attend(self, child: Child) -> Exit:
        """Pass signals on and watch, until the command is gone and what it left open is closed; returns its end."""
        watcher = self._watcher
        while not child.ended():
            received = self._signals.next(TICK)
            if received is not None and self._between is not None:
                self._between.received(received)
            if self._follower is not None:
                if received is not None:
                    self._follower.received(received, child)
                self._follower.tick(child)
            elif received is not None and not received.typed:
                child.send(received.number)
            watcher.tick()
        if self._between is not None:
            self._between.ended()
        if self._follower is not None:
            self._follower.ended(self._is_interrupted)
        tail = child.tail()
        exit = watcher.ended(Exit(child.code, child.signal, None, tail and self._redact("stderr", tail)))
        grace = clock.monotonic() + GRACE_SECONDS
        watcher.tick()
        while watcher.waiting or (watcher.left() and clock.monotonic() < grace):
            self._is_interrupted()
        return exit

    def _is_interrupted(self) -> bool:
        """Wait a moment for a signal; whether it asks us to stop."""
        self._watcher.tick()
        received = self._signals.next(TICK / 5)
        if received is not None and self._between is not None:
            self._between.received(received)
        return received is not None and received.stops

    def _flush(self) -> None:
        deadline = clock.monotonic() + FLUSH_SECONDS
        for forwarder in self._forwarders:
            forwarder.hurry(deadline)
        for queue in self._unsent:
            queue.hurry(deadline)
        for forwarder in self._forwarders:
            rest = forwarder.flush(max(0.0, deadline - clock.monotonic()))
            if forwarder is not self._forwarders[-1] or not self._keep(rest):
                forwarder.give_up(rest)
        for queue in self._unsent:
            queue.wait(deadline)
            queue.stop()

    def _keep(self, rest: Mapping[str, list[bytes]]) -> bool:
        """Put what an endpoint did not take into the spool; false if there is none to keep it in."""
        if not any(rest.values()):
            return True
        if rest.get("metrics"):
            rest = {**rest, "metrics": newest_now(rest["metrics"])}
        try:
            kept = self._spool.keep(rest, self._endpoints)
        except OSError as error:
            say(f"what could not be sent can't be kept: {error}")
            return False
        ends = f"{kept.ends} {'end' if kept.ends == 1 else 'ends'} of operations" if kept.ends else ""
        others = f"{kept.requests} {'request' if kept.requests == 1 else 'requests'}"
        where = _where({signal: self._endpoints[signal] for signal, bodies in rest.items() if bodies})
        say(
            f"{where} did not take everything: {others}{f' with {ends}' if ends else ''} kept in "
            f"{self._spool.folder}; the next `otel-progress run` with this endpoint sends them"
        )
        if kept.dropped:
            say(f"{kept.dropped} older requests in {self._spool.folder} were dropped: it is full, or they were too old")
        return True

    def _report(self, *, verbose: bool) -> None:
        followed = self._follower is not None
        if self._follower is not None:
            self._follower.finish()
        self._tell_losses()
        left = self._watcher.left()
        if left:
            pids = ", ".join(str(process.pid or process.instance) for process in left[:LINES])
            say(f"these processes still run operations and are no longer watched: {pids}")
        for line in (line for forwarder in self._forwarders for line in forwarder.losses()):
            say(line)
        if (verbose or followed) and not self._watcher.heard:
            why = mute(self._environ) or self._pythons.found or "the command started none, or sends them elsewhere"
            say(f"no operation was reported; {why}")

    def _tell_losses(self) -> None:
        """Print the losses that were not printed yet."""
        losses, self._watcher.losses = self._watcher.losses, []
        losses = [loss for loss in losses if self._watcher.is_still_lost(loss.snapshot)]
        told = self._late.answers or any(one.queues for one in self._forwarders if one is not self._late)
        untold = "" if told else " (no endpoint is configured: it is reported here only)"
        for loss in losses[:LINES]:
            self._say(f"lost: {words(loss.snapshot)} - {loss.exit.reason}{untold}")
        if len(losses) > LINES:
            self._say(f"lost: {len(losses) - LINES} more operations")

    def _say(self, line: str) -> None:
        """Print a line, above what a live view draws."""
        if self._follower is None or not self._follower.print(shown(line).encode("utf-8", "replace")):
            say(line)


def _greet(targets: Mapping[str, Endpoint], *, guessed: bool, verbose: bool, followed: bool) -> None:
    """Print where telemetry goes, if that was guessed, or if more output is wanted."""
    if guessed and targets:
        say(f"no endpoint is configured; telemetry goes to {_where(targets)}, where something listens")
    elif verbose and (targets or not followed):
        say(
            f"telemetry goes to {_where(targets)}"
            if targets
            else "no endpoint is configured, and nothing listens at the default one yet"
        )


def say(line: str) -> None:
    """Print a line to stderr, without characters that a terminal can't show."""
    try:
        sys.stderr.write(shown(line))
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def shown(line: str) -> str:
    """A message as it is printed."""
    lines = ("".join(letter if letter.isprintable() else " " for letter in part) for part in line.split("\n"))
    return "otel-progress: " + "\n    ".join(lines) + "\n"


def _where(targets: Mapping[str, Endpoint]) -> str:
    return ", ".join(dict.fromkeys(without_credentials(way.url).partition("/v1/")[0] for way in targets.values()))
