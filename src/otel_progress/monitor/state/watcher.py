"""The watcher: notices which processes of this machine are gone, and ends the operations that they left open.

A process is gone if no process with its pid and creation time is alive on this machine, and it was seen alive here
before. Nothing else is proof: a process that is stopped, frozen or cut off is merely silent.

A process that does not say when it was created may be another one with the same pid. If it seems to be one of this
machine, its operations are presumed lost, which the next sign of life undoes.

After a restart of the monitor, the processes that it saw alive before are looked at again. What such a process sent may
still be under way, as a Collector tries again for a while: if it is gone, its operations are presumed lost at once, and
certified a minute later.

Of a process that sends by way of a Collector, and was not heard for longer than its heartbeats allow when it was gone,
the way may have been cut, and its end may come when that is over: its operations are presumed lost as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import clock, procfs
from otel_progress import semconv as s
from otel_progress.model.health import BEATS
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.model.units import duration, percent, units
from otel_progress.monitor.state.ledger import MARK, Entry, Ledger, Process, Seen, lose
from otel_progress.monitor.state.process_keys import CREATED_WITHIN
from otel_progress.outbound.certificate import Exit, certify
from otel_progress.outbound.certificate import known as valid
from otel_progress.outbound.last_metrics import last_metrics, lost_counters_at_zero

STOPPED: Final = "Tt"
"""The states of a process that does nothing until it is continued."""
ASLEEP: Final = 2.0
"""Seconds between two ticks from which on the watcher itself was asleep, so that it knows nothing."""
QUIET: Final = 0.3
"""Seconds without data from a process that is gone, before its operations are ended."""
DRAIN_MOST: Final = 3.0
"""Seconds after which they are ended in any case."""
PROMPT: Final = 0.5
"""Seconds after which an event was not sent at once."""
LATE_MOST: Final = 30.0
"""Seconds of delay beyond which telemetry was not delayed but cut off."""
LATE_KEPT: Final = 600.0
"""Seconds for which it is remembered how late events arrived."""
UNDER_WAY: Final = 60.0
"""Seconds for which what a process sent before the monitor was started may still arrive: a Collector waits up to 45 s
between two attempts.
"""
ANOTHER_BOOT: Final = -1
"""The start of a process in ticks since a boot that is over; no process that is alive has it."""
KNOWN: Final = 1000
"""The most processes without running operations that are remembered."""
NAMES: Final = 1000
"""The most operation names of a process whose counter of the lost is sent as 0 beforehand."""


class Probe(Protocol):
    """Reads the processes of this machine."""

    def look(self, pid: int) -> procfs.ProcessStat | None:
        """The process with this pid, if one is alive."""

    def created(self, seen: procfs.ProcessStat) -> float | None:
        """When it was created, in seconds since 1970."""

    def executable(self, pid: int) -> str | None:
        """The name of the file that it runs."""

    def waits_in(self, pid: int) -> str:
        """The kernel function in which it waits."""

    def has_running_thread(self, pid: int) -> bool:
        """Whether one of its threads runs now."""

    def memory_kills(self) -> int | None:
        """How often the kernel killed processes for lack of memory."""

    def pid_space(self) -> procfs.PidSpace:
        """Where the pids of this machine count."""

    def is_hidden(self, pid: int) -> bool:
        """Whether a process with this pid may be alive although `look` doesn't find it."""

    def has_connection(self, pid: int, port: int) -> bool:
        """Whether a process holds the TCP connection that comes from this port."""


@dataclass
class _WatchedProcess:
    """A process that was identified with one on this machine."""

    seen: procfs.ProcessStat
    gone_at: float | None = None
    gone_time: int = 0
    """When it ended (ns, Unix), if that was seen, else when it was last seen alive."""
    alive_time: int = 0
    """When it was last seen alive (ns, Unix)."""
    exit: Exit = field(default_factory=Exit)
    silent_since: float | None = None
    is_certain: bool = True
    """Whether it is proven to be the reported one: its pid and the time of its creation are the same."""
    state: str = ""
    """Its state at the last tick, a key of `procfs.STATES`."""
    counted: set[str] = field(default_factory=set)
    """The names of operations whose counter of the lost was sent as 0."""
    is_restored: bool = False
    """Whether it was seen before the start of the monitor, and not heard since."""
    presumed: tuple[str, ...] = ()
    """The operations that are presumed lost and not certified yet."""
    sends_itself: bool | None = None
    """Whether it was seen to send by a connection of its own, so that what is late waited in its memory and ends with
    it; None if nobody has looked.
    """


class Gone(NamedTuple):
    """A process that is gone, if it was the one of this machine that it seemed to be.

    Attributes:
        instance: the process.
        reason: how it ended, in words.
        moment: when it ended, if that was seen, else when it was last seen alive, in Unix seconds.
    """

    instance: str
    reason: str
    moment: float


@dataclass(frozen=True)
class Loss:
    """An operation that was ended."""

    snapshot: Snapshot
    exit: Exit


class Watcher:
    """Watches the processes of one command, or of this machine.

    Any thread may call `hear`; `tick` and `finish` belong to one thread.
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
        """Send certificates with `post`, and messages for people with `say`.

        Args:
            post: sends a finished OTLP request of a signal.
            say: shows a line.
            look_into: reports the stack of a process, some time later.
            probe: reads the processes of this machine.
            ledger: what is known already.
            eager: whether to watch processes that only the ledger heard of, not `hear` or `notice`.
            quiet: seconds without data from a process that is gone.
        """
        self.ledger = Ledger() if ledger is None else ledger
        self.losses: list[Loss] = []
        self._post = post
        self._say = say
        self.settled: Callable[[], bool] = lambda: True
        """Whether everything that had reached this machine's sockets was processed."""
        self._look_into = look_into
        self._quiet = quiet
        self._eager = eager
        self._probe = probe
        self._known: dict[str, _WatchedProcess] = {}
        self._command: procfs.ProcessStat | None = None
        self._command_exit: Exit | None = None
        self._command_ended = 0
        self._space = probe.pid_space()
        self._memory_kills = probe.memory_kills()
        self._killed_at: float | None = None
        self._awake_since = self._last_tick = clock.monotonic()
        self._began = self._last_tick
        self._late = self._late_at = 0.0
        self._gone: dict[str, Gone] = {}
        self._lock = threading.Lock()

    def take_gone(self) -> list[Gone]:
        """The processes that seem to be gone since the last call: their operations may be presumed lost."""
        with self._lock:
            found, self._gone = list(self._gone.values()), {}
        return found

    def adopt(self, pid: int) -> None:
        """The command was started with this pid; of an earlier start nothing is waited for."""
        self._command = self._probe.look(pid) or procfs.ProcessStat(pid, 0, "?")
        self._command_exit = None

    @property
    def heard(self) -> bool:
        """Whether any operation was heard of."""
        return bool(self.ledger.operations)

    def hear(self, groups: Iterable[Any]) -> None:
        """Take events; called while the process that sent them waits for the answer, so that it can be identified."""
        with self._lock:
            for group in groups:
                self._notice(self.ledger.hear(group.resource, group.records, clock.monotonic()))

    def notice(self, process: Process, late: float = 0.0, port: int | None = None) -> None:
        """The ledger took events of this process; `late` is how many seconds after they happened.

        A Collector in between may hold events for seconds, so the end of an operation may arrive long after its process
        is gone. Nothing is concluded before as much time has passed as other events needed. A process that sends by a
        connection of its own, from `port` of this machine, has nothing under way once it is gone.
        """
        with self._lock:
            self._notice(process)
            if late > PROMPT and self._sends_itself(process.instance, port):
                return
            now = clock.monotonic()
            if late > now - self._began:
                return  # it waited for us
            late = min(late, LATE_MOST)
            if process.instance in self._known and (late >= self._late or now - self._late_at > LATE_KEPT):
                self._late, self._late_at = late, now

    def _sends_itself(self, instance: str, port: int | None) -> bool:
        """Whether a known process sends by a connection of its own; looked up once, as it takes a millisecond."""
        known = self._known.get(instance)
        if known is None or port is None:
            return False
        if known.sends_itself is None:
            known.sends_itself = self._probe.has_connection(known.seen.pid, port)
        return known.sends_itself

    def _notice(self, process: Process) -> None:
        known = self._known.get(process.instance)
        if known is None:
            self._recognise(process)
        else:
            if known.gone_at is None:
                known.is_restored = False
            if known.silent_since is not None:
                self._heard_again(process, known)

    def restore(self) -> None:
        """After a start: watch the processes with running operations that were seen alive before it."""
        with self._lock:
            for process in self.ledger.busy():
                seen = process.seen
                if seen is None or process.instance in self._known or not _is_here(process):
                    continue
                was = procfs.PidSpace(seen.boot, seen.namespace, seen.machine)
                if was.is_same(self._space):
                    stat = procfs.ProcessStat(seen.pid, seen.ticks, "?")
                    known = _WatchedProcess(stat, is_certain=seen.is_certain, is_restored=True)
                elif was.is_earlier_boot(self._space):  # whatever has its pid now is another process
                    stat = procfs.ProcessStat(seen.pid, ANOTHER_BOOT, "?")
                    known = _WatchedProcess(stat, is_certain=False, is_restored=True)
                else:
                    continue
                self._known[process.instance] = known

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
        with self._lock:
            for instance, known in self._known.items():
                if known.presumed and now - (known.gone_at or now) >= UNDER_WAY:
                    self._confirm(instance, known)

    def _busy(self) -> list[Process]:
        """Processes with running operations that can be looked at; unless eager, only those that are known."""
        if self._eager:
            return list(self.ledger.busy())
        processes, is_busy = self.ledger.processes, self.ledger.is_busy
        return [processes[key] for key in self._known if is_busy(key) and key in processes]

    def ended(self, exit: Exit) -> Exit:
        """The command ended in this way; returns what is known of it."""
        now = clock.monotonic()
        self._watch_memory(now)
        if exit.signal == "SIGKILL" and self._memory_kills is not None:
            exit = replace(exit, out_of_memory=self._memory_killed(now))
        self._command_exit, self._command_ended = exit, clock.time_ns()
        return exit

    @property
    def waiting(self) -> bool:
        """Whether a process is gone whose operations are not ended yet."""
        with self._lock:
            return any(known.gone_at is not None and self.ledger.is_busy(key) for key, known in self._known.items())

    def operations(self) -> list[Entry]:
        """The current state of all operations that were heard of."""
        with self._lock:
            return list(self.ledger.operations.values())

    def is_still_lost(self, snapshot: Snapshot) -> bool:
        """Whether nobody told meanwhile how an operation ended that was lost."""
        with self._lock:
            entry = self.ledger.operations.get(snapshot.operation_id)
        return entry is None or entry.head.attempt != snapshot.attempt or entry.head.status is Status.LOST

    def left(self) -> list[Process]:
        """Processes that have running operations."""
        with self._lock:
            return list(self.ledger.busy())

    def left_here(self) -> list[procfs.ProcessStat]:
        """The processes of this machine that have running operations and are alive."""
        with self._lock:
            known = [self._known.get(process.instance) for process in self.ledger.busy()]
            return [one.seen for one in known if one is not None and self._is_alive(one) is not None]

    def is_stopped(self, instance: str) -> str | None:
        """Why a process is proven to be stopped, in words; None if it is not, or is not one of this machine."""
        known = self._known.get(instance)
        if known is None or known.state not in STOPPED or not known.state:
            return None
        return f"{procfs.STATES[known.state]} (pid {known.seen.pid}, state {known.state})"

    # -- who is who

    def _recognise(self, process: Process) -> _WatchedProcess | None:
        """Identify the process on this machine; only one that was seen alive can be seen to be gone."""
        if process.pid is None:
            return None
        command = self._command
        if command is None and not _is_here(process):
            return None
        seen = self._probe.look(process.pid)
        if seen is None and command is not None and process.pid == command.pid:
            seen = command  # we are its parent, so nobody else can have had this pid
        if seen is None:
            return None
        certain = self._is_command(seen) or (_is_here(process) and self._was_created(seen, process))
        if not certain and (self._eager or not self._seems_to_be(seen, process)):
            return None
        known = self._known[process.instance] = _WatchedProcess(seen, is_certain=certain)
        known.alive_time = clock.time_ns()
        if not self._eager and not process.instance.startswith(MARK):
            space = self._space
            where = (space.boot, space.namespace, space.machine)
            self.ledger.see(process, Seen(*where, seen.pid, seen.ticks, certain))
        return known

    def _seems_to_be(self, seen: procfs.ProcessStat, process: Process) -> bool:
        """Whether a process that does not say when it was created seems to be one of this machine.

        It names this host, it was there before its first operation began, and it runs the program that it names.
        """
        if process.created is not None or process.host != socket.gethostname():
            return False
        found = self._probe.created(seen)
        began = [entry.head.started_at or entry.head.timestamp for entry in self.ledger.open_of(process.instance)]
        if found is None or not began or found > min(began) + CREATED_WITHIN:
            return False
        named = process.resource.get(s.PROCESS_EXECUTABLE)
        return named is None or named == self._probe.executable(seen.pid)

    def _was_created(self, seen: procfs.ProcessStat, process: Process) -> bool:
        """Whether the process that is alive was created when the reported one says it was."""
        said = None if process.created is None else procfs.from_iso(process.created)
        found = self._probe.created(seen)
        return said is not None and found is not None and abs(said - found) <= CREATED_WITHIN

    def _is_alive(self, known: _WatchedProcess) -> procfs.ProcessStat | None:
        seen = self._probe.look(known.seen.pid)
        same = seen is not None and seen.ticks == known.seen.ticks
        if seen is None and known.is_restored and self._probe.is_hidden(known.seen.pid):
            return known.seen  # nobody can tell
        if self._is_command(known.seen):  # until somebody waits for it, it may be dead but is not gone
            return None if self._command_exit is not None else seen if same else known.seen
        return seen if same else None

    def _is_command(self, seen: procfs.ProcessStat) -> bool:
        command = self._command
        return command is not None and (seen.pid, seen.ticks) == (command.pid, command.ticks)

    def _forget(self) -> None:
        """Forget processes without running operations; one that reports again is identified again."""
        busy = {process.instance for process in self.ledger.busy()}
        self._known = {key: known for key, known in self._known.items() if key in busy or known.presumed}

    # -- gone

    def _examine(self, process: Process, known: _WatchedProcess, now: float) -> None:
        if known.gone_at is not None:
            return
        seen = self._is_alive(known)
        if seen is not None:
            known.state, known.alive_time = seen.state, clock.time_ns()
            if self._eager:
                self._count_from_zero(process, known)
            self._listen(process, known, seen, now)
            return
        was_alive = bool(known.state) or not known.is_restored
        known.gone_at, known.gone_time, known.state = now, known.alive_time, ""
        if not was_alive:  # nobody knows when it ended: not before its last sign of life
            known.gone_time = clock.time_ns() - round((now - process.heard_at) * 1e9)
        elif self._is_command(known.seen):
            known.gone_time = self._command_ended or clock.time_ns()
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

    def _is_quiet(self, instance: str, known: _WatchedProcess, now: float) -> bool:
        """Whether it is gone, and nothing has arrived from it for a while."""
        if known.gone_at is None or not self.ledger.is_busy(instance):
            return False
        heard_at = self.ledger.processes[instance].heard_at
        late = 0.0 if known.sends_itself else self._late
        return now - max(known.gone_at, heard_at) >= self._quiet + late

    def _overdue(self, instances: list[str], now: float) -> bool:
        return any(now - (self._known[key].gone_at or now) > self._quiet + DRAIN_MOST for key in instances)

    def _close(self, instance: str) -> None:
        """End all operations that the process left open."""
        known, process = self._known[instance], self.ledger.processes[instance]
        may_have_ended = self._was_unheard(process, known)
        if not known.is_certain or known.is_restored or instance.startswith(MARK) or may_have_ended:
            self._gone[instance] = Gone(instance, known.exit.reason, known.gone_time / 1e9)
            if known.is_certain and not instance.startswith(MARK) and not may_have_ended:
                known.presumed += tuple(entry.head.operation_id for entry in self.ledger.open_of(instance))
            return
        self._count_from_zero(process, known)
        losses = []
        for entry in self.ledger.open_of(instance):
            lost = lose(entry.snapshot, known.exit.reason, known.gone_time / 1e9)
            self.ledger.apply(lost, instance, clock.monotonic())
            losses.append(lost)
        self._certify(losses, process, known)

    def _was_unheard(self, process: Process, known: _WatchedProcess) -> bool:
        """Whether a process that sends by way of others was not heard for long when it was gone: its end may come."""
        if self._eager or known.sends_itself or known.is_restored or not process.beats or known.gone_at is None:
            return False
        return known.gone_at - process.heard_at > BEATS * process.interval

    def _confirm(self, instance: str, known: _WatchedProcess) -> None:
        """What is presumed lost since the start is proven: nothing can be under way any more."""
        found = [self.ledger.find(key) for key in dict.fromkeys(known.presumed)]
        known.presumed = ()
        losses = [one.snapshot for one in found if one is not None and one.presumed and one.instance == instance]
        process = self.ledger.processes.get(instance)
        if process is None:
            return
        losses = [one for one in losses if one.status is Status.LOST]
        self._count_names({one.name for one in losses}, process, known)
        self._certify(losses, process, known)

    def _certify(self, losses: list[Snapshot], process: Process, known: _WatchedProcess) -> None:
        """Send what the process can no longer send of its lost operations."""
        resource = process.resource
        for lost in losses:
            self.losses.append(Loss(lost, known.exit))
            try:
                certificate = certify(lost, known.exit, resource, clock.time_ns())
            except Exception as error:
                self._say(f"{words(lost)} can't be closed ({type(error).__name__}: {error})")
                continue
            self._post("logs", certificate.logs)
            if certificate.traces:
                self._post("traces", certificate.traces)
        try:
            for request in last_metrics(losses, known.exit.label, valid(resource), clock.time_ns()):
                self._post("metrics", request)
        except Exception as error:
            self._say(f"the series of pid {known.seen.pid} can't be ended ({type(error).__name__}: {error})")

    def _count_from_zero(self, process: Process, known: _WatchedProcess) -> None:
        """Send the counter of the lost as 0 for each new name, so that stores see it rise."""
        self._count_names({entry.snapshot.name for entry in self.ledger.open_of(process.instance)}, process, known)

    def _count_names(self, names: set[str], process: Process, known: _WatchedProcess) -> None:
        names = names - known.counted
        if names and len(known.counted) < NAMES:
            known.counted |= names
            self._post("metrics", lost_counters_at_zero(sorted(names), valid(process.resource), clock.time_ns()))

    # -- silent

    def _listen(self, process: Process, known: _WatchedProcess, seen: procfs.ProcessStat, now: float) -> None:
        since = max(process.heard_at, self._awake_since)
        if known.silent_since is not None or now - since < BEATS * process.interval:
            return
        known.silent_since = process.heard_at
        running = ", ".join(words(entry.snapshot) for entry in self.ledger.open_of(process.instance)[:3])
        where = self._probe.waits_in(seen.pid)
        state = procfs.STATES.get(seen.state, "in an unknown state")
        busy = ", but another thread of it is running" if self._is_busy(seen) else ""
        self._say(
            f"{'frozen' if seen.state in STOPPED else 'dead'}: nothing was heard of pid {seen.pid} for "
            f"{duration(now - process.heard_at)}; "
            f"it is {state} ({seen.state}{f', in {where}' if where else ''}){busy}; running: {running}"
        )
        if self._look_into is not None:
            self._look_into(seen.pid, self._say)

    def _is_busy(self, seen: procfs.ProcessStat) -> bool:
        """Whether its first thread waits while another one runs, as one in C code that keeps the others waiting."""
        return seen.state not in STOPPED and seen.state != "R" and self._probe.has_running_thread(seen.pid)

    def _heard_again(self, process: Process, known: _WatchedProcess) -> None:
        assert known.silent_since is not None
        after = process.heard_at - known.silent_since
        known.silent_since = None
        self._say(f"pid {known.seen.pid} is heard again, after {duration(after)}")


def _is_here(process: Process) -> bool:
    """Whether it does not claim to run on another machine."""
    return process.host is None or process.host == socket.gethostname()


def words(snapshot: Snapshot) -> str:
    """An operation in words: which one, where, how far."""
    progress = snapshot.progress
    said = [snapshot.name if snapshot.name == snapshot.operation_id else f"{snapshot.name} [{snapshot.operation_id}]"]
    if snapshot.stage:
        said.append(f"at {snapshot.stage}")
    innermost = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    counted = progress if progress.completed is not None or innermost is None else innermost.progress
    if counted.completed is not None:
        said.append(units(counted.completed, counted.total, counted.unit))
    if progress.stated is not None:
        said.append(percent(progress.stated))
    message = snapshot.message or (innermost.message if innermost is not None else None)
    return ", ".join(said) + (f": {message}" if message else "")
