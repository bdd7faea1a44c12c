"""The watcher: hears what a command's processes say, sees which of them are gone, and closes what they left open.

A process is gone when no process with its pid and its start is alive on this machine, and it was seen alive here
before. Nothing else is proof: one that is stopped, frozen or cut off is only silent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from otel_progress import clock, procfs
from otel_progress.model.health import BEATS
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.summary import seconds
from otel_progress.model.units import units
from otel_progress.monitor.state.ledger import Entry, Ledger, Process, lose
from otel_progress.outbound.certificate import Exit, certify

STOPPED: Final = "Tt"
"""The states of a process that does nothing until somebody lets it go on."""
ASLEEP: Final = 2.0
"""A pause between two looks, in seconds, from which on the watcher itself was asleep, and knows nothing."""
QUIET: Final = 0.3
"""For so many seconds nothing must have come from a process that is gone, before its operations are closed."""
DRAIN_MOST: Final = 3.0
"""After so many seconds they are closed in any case."""
LATE_MOST: Final = 30.0
"""More delay than this on the way to us is no delay but an outage, in seconds."""
LATE_KEPT: Final = 600.0
"""For so many seconds it is remembered how late events came."""
CREATED_WITHIN: Final = 1.0
"""How far two readings of when a process was created may be apart, in seconds: the wall clock may have been set."""
KNOWN: Final = 1000
"""More processes than this are not remembered where they run nothing."""


class Probe(Protocol):
    """Looks at the processes of this machine."""

    def look(self, pid: int) -> procfs.ProcessStat | None:
        """The process with this pid, if one is alive."""

    def created(self, seen: procfs.ProcessStat) -> float | None:
        """When it was created, in seconds since 1970."""

    def waits_in(self, pid: int) -> str:
        """Where in the kernel it waits."""

    def memory_kills(self) -> int | None:
        """How often the kernel killed for want of memory."""


@dataclass
class _Known:
    """A process of which is known which one on this machine it is."""

    seen: procfs.ProcessStat
    gone_at: float | None = None
    gone_time: int = 0
    exit: Exit = field(default_factory=Exit)
    silent_since: float | None = None
    state: str = ""
    """Its state at the last look, a key of `proc.STATES`."""


@dataclass(frozen=True)
class Loss:
    """An operation that was closed."""

    snapshot: Snapshot
    exit: Exit


class Watcher:
    """Judges the processes of one command.

    `hear` may be called by any thread; `tick` and `finish` by one, which they belong to.
    """

    def __init__(
        self,
        post: Callable[[str, bytes], None],
        say: Callable[[str], None],
        *,
        look_into: Callable[[int, Callable[[str], None]], None] | None = None,
        probe: Probe = procfs,
        ledger: Ledger | None = None,
        quiet: float = QUIET,
        eager: bool = True,
    ) -> None:
        """Send certificates by `post` (signal, request), and tell a human by `say`.

        Args:
            post: sends a finished OTLP request of a signal.
            say: tells a line.
            look_into: has the stack of a process told, some time later.
            probe: looks at processes.
            ledger: what is known already.
            eager: whether processes count that the ledger heard of in another way than by `hear` and `notice`.
            quiet: for so many seconds nothing must have come from a process that is gone.
        """
        self.ledger = Ledger() if ledger is None else ledger
        self.losses: list[Loss] = []
        self._post = post
        self._say = say
        self.settled: Callable[[], bool] = lambda: True
        """Whether all that had reached this machine's sockets was heard."""
        self._look_into = look_into
        self._quiet = quiet
        self._eager = eager
        self._probe = probe
        self._known: dict[str, _Known] = {}
        self._command: procfs.ProcessStat | None = None
        self._command_exit: Exit | None = None
        self._memory_kills = probe.memory_kills()
        self._killed_at: float | None = None
        self._awake_since = self._last_tick = clock.monotonic()
        self._late = self._late_at = 0.0
        self._lock = threading.Lock()

    def adopt(self, pid: int) -> None:
        """The command was started with this pid."""
        self._command = self._probe.look(pid) or procfs.ProcessStat(pid, 0, "?")

    @property
    def heard(self) -> bool:
        """Whether any operation was heard of."""
        return bool(self.ledger.operations)

    def hear(self, groups: Iterable[Any]) -> None:
        """Take what was said; called while the process that said it waits for the answer, so it can be found here."""
        with self._lock:
            for group in groups:
                self._notice(self.ledger.hear(group.resource, group.records, clock.monotonic()))

    def notice(self, process: Process, late: float = 0.0) -> None:
        """The ledger was told by this process, so many seconds after it happened.

        A Collector on the way may hold events for seconds. The end of an operation may then come long after its
        process is gone, so nothing is proven before as much time has gone by as others needed.
        """
        with self._lock:
            self._notice(process)
            now, late = clock.monotonic(), min(late, LATE_MOST)
            if process.instance in self._known and (late >= self._late or now - self._late_at > LATE_KEPT):
                self._late, self._late_at = late, now

    def _notice(self, process: Process) -> None:
        known = self._known.get(process.instance)
        if known is None:
            self._recognise(process)
        elif known.silent_since is not None:
            self._heard_again(process, known)

    def tick(self) -> None:
        """Look at all processes that have running operations."""
        now = clock.monotonic()
        if now - self._last_tick > ASLEEP:
            self._awake_since = now
        self._last_tick = now
        with self._lock:
            self._watch_memory(now)
            for process in self._busy():
                known = self._known.get(process.instance) or (self._recognise(process) if self._eager else None)
                if known is not None:
                    self._examine(process, known, now)
            if len(self._known) > KNOWN:
                self._forget()
            drained = [instance for instance, known in self._known.items() if self._is_quiet(instance, known, now)]
        if drained and (self.settled() or self._overdue(drained, now)):
            with self._lock:
                for instance in drained:
                    if self._is_quiet(instance, self._known[instance], clock.monotonic()):
                        self._close(instance)

    def _busy(self) -> list[Process]:
        """Those with running operations that can be looked at; where no others may be found, only the known ones."""
        if self._eager:
            return list(self.ledger.busy())
        processes, is_busy = self.ledger.processes, self.ledger.is_busy
        return [processes[key] for key in self._known if is_busy(key) and key in processes]

    def ended(self, exit: Exit) -> None:
        """The command ended in this way."""
        now = clock.monotonic()
        self._watch_memory(now)
        if exit.signal == "SIGKILL" and self._memory_kills is not None:
            exit = replace(exit, out_of_memory=self._memory_killed(now))
        self._command_exit = exit

    @property
    def waiting(self) -> bool:
        """Whether a process is gone whose operations are not closed yet."""
        with self._lock:
            return any(known.gone_at is not None and self.ledger.is_busy(key) for key, known in self._known.items())

    def operations(self) -> list[Entry]:
        """All that was heard of, as it is now; each is as its newest event had it."""
        with self._lock:
            return list(self.ledger.operations.values())

    def left(self) -> list[Process]:
        """Processes that have running operations."""
        with self._lock:
            return list(self.ledger.busy())

    def is_stopped(self, instance: str) -> str | None:
        """How a process is proven to be stopped, in words; None where it is not, or is not one of this machine."""
        known = self._known.get(instance)
        if known is None or known.state not in STOPPED or not known.state:
            return None
        return f"{procfs.STATES[known.state]} (pid {known.seen.pid}, state {known.state})"

    # -- who is who

    def _recognise(self, process: Process) -> _Known | None:
        """Find out which process of this machine it is; only one that was seen alive can be seen to be gone."""
        if process.pid is None:
            return None
        command = self._command
        seen = self._probe.look(process.pid)
        if seen is None and command is not None and process.pid == command.pid:
            seen = command  # its parent are we: nobody else can have had this pid
        if seen is None:
            return None
        if not self._is_command(seen) and not (_is_here(process) and self._was_created(seen, process)):
            return None
        known = self._known[process.instance] = _Known(seen)
        return known

    def _was_created(self, seen: procfs.ProcessStat, process: Process) -> bool:
        """Whether the one that is alive was created when the one that was heard of says that it was."""
        said = None if process.created is None else procfs.from_iso(process.created)
        found = self._probe.created(seen)
        return said is not None and found is not None and abs(said - found) <= CREATED_WITHIN

    def _is_alive(self, known: _Known) -> procfs.ProcessStat | None:
        seen = self._probe.look(known.seen.pid)
        same = seen is not None and seen.ticks == known.seen.ticks
        if self._is_command(known.seen):  # until it was waited for, it may be dead but is not gone
            return None if self._command_exit is not None else seen if same else known.seen
        return seen if same else None

    def _is_command(self, seen: procfs.ProcessStat) -> bool:
        command = self._command
        return command is not None and (seen.pid, seen.ticks) == (command.pid, command.ticks)

    def _forget(self) -> None:
        """Drop those that run nothing; one that says something more is recognised again."""
        busy = {process.instance for process in self.ledger.busy()}
        self._known = {key: known for key, known in self._known.items() if key in busy}

    # -- gone

    def _examine(self, process: Process, known: _Known, now: float) -> None:
        if known.gone_at is not None:
            return
        seen = self._is_alive(known)
        if seen is not None:
            known.state = seen.state
            self._listen(process, known, seen, now)
            return
        known.gone_at, known.gone_time, known.state = now, clock.time_ns(), ""
        if self._is_command(known.seen):
            known.exit = self._command_exit or Exit()
        elif self._memory_killed(now):
            known.exit = Exit(out_of_memory=True)

    def _memory_killed(self, now: float) -> bool:
        return self._killed_at is not None and now - self._killed_at < ASLEEP

    def _watch_memory(self, now: float) -> None:
        kills = self._probe.memory_kills()
        if kills is not None and self._memory_kills is not None and kills > self._memory_kills:
            self._killed_at = now
        self._memory_kills = kills

    def _is_quiet(self, instance: str, known: _Known, now: float) -> bool:
        """Whether it is gone, and nothing came from it for a moment."""
        if known.gone_at is None or not self.ledger.is_busy(instance):
            return False
        heard_at = self.ledger.processes[instance].heard_at
        return now - max(known.gone_at, heard_at) >= self._quiet + self._late

    def _overdue(self, instances: list[str], now: float) -> bool:
        return any(now - (self._known[key].gone_at or now) > self._quiet + DRAIN_MOST for key in instances)

    def _close(self, instance: str) -> None:
        """Say the end of all that the process left open."""
        known, resource = self._known[instance], self.ledger.processes[instance].resource
        for entry in self.ledger.open_of(instance):
            lost = lose(entry.snapshot, known.exit.reason, known.gone_time / 1e9)
            self.ledger.apply(lost, instance, clock.monotonic())
            self.losses.append(Loss(lost, known.exit))
            try:
                certificate = certify(lost, known.exit, resource, clock.time_ns())
            except Exception as error:
                self._say(f"{words(lost)} can't be closed ({type(error).__name__}: {error})")
                continue
            self._post("logs", certificate.logs)
            if certificate.traces:
                self._post("traces", certificate.traces)

    # -- silent

    def _listen(self, process: Process, known: _Known, seen: procfs.ProcessStat, now: float) -> None:
        since = max(process.heard_at, self._awake_since)
        if known.silent_since is not None or now - since < BEATS * process.interval:
            return
        known.silent_since = process.heard_at
        running = ", ".join(words(entry.snapshot) for entry in self.ledger.open_of(process.instance)[:3])
        where = self._probe.waits_in(seen.pid)
        state = procfs.STATES.get(seen.state, "in an unknown state")
        self._say(
            f"{'frozen' if seen.state in STOPPED else 'dead'}: nothing was heard of pid {seen.pid} for "
            f"{seconds(now - process.heard_at)}; "
            f"it is {state} ({seen.state}{f', in {where}' if where else ''}); running: {running}"
        )
        if self._look_into is not None:
            self._look_into(seen.pid, self._say)

    def _heard_again(self, process: Process, known: _Known) -> None:
        assert known.silent_since is not None
        after = process.heard_at - known.silent_since
        known.silent_since = None
        self._say(f"pid {known.seen.pid} is heard again, after {seconds(after)}")


def _is_here(process: Process) -> bool:
    """Whether it does not say that it runs on another machine."""
    return process.host is None or process.host == socket.gethostname()


def words(snapshot: Snapshot) -> str:
    """An operation in words: which, where, how far."""
    progress = snapshot.progress
    said = [snapshot.name if snapshot.name == snapshot.operation_id else f"{snapshot.name} [{snapshot.operation_id}]"]
    if snapshot.stage:
        said.append(f"at {snapshot.stage}")
    innermost = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    counted = progress if progress.completed is not None or innermost is None else innermost.progress
    if counted.completed is not None:
        said.append(units(counted.completed, counted.total, counted.unit))
    if progress.percentage is not None:
        said.append(f"{progress.percentage:g}%")
    message = snapshot.message or (innermost.message if innermost is not None else None)
    return ", ".join(said) + (f": {message}" if message else "")
