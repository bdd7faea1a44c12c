"""Between two starts of a command: whether it is started again, what its operations are told, and the back-off."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.run.leftovers import LeftProcesses, StandardStreams, descendants
from otel_progress.cli.run.restarts import RestartPolicy, Restarts, StartResult
from otel_progress.model.status import Status
from otel_progress.model.units import duration
from otel_progress.settings import ATTEMPTS

if TYPE_CHECKING:
    from otel_progress.cli.run.follow import Follower
    from otel_progress.cli.run.remarks import Remarks
    from otel_progress.cli.run.signals import ReceivedSignal, Signals
    from otel_progress.model.snapshot import Snapshot
    from otel_progress.monitor.state.watcher import Watcher
    from otel_progress.outbound.certificate import Exit

LOOK: Final = 0.1
"""Seconds between two looks at what was left behind, and at the signals."""
PIDS: Final = 5
"""The most pids that are printed."""
REMARKS: Final = 50
"""The most operations that get a note about a restart."""
MOST_IDS: Final = 2_000
MOST_BYTES: Final = 65_536
"""The most ids, and bytes, of the variable that passes attempts on; Linux allows 128 KiB for a variable."""
_MADE_UP: Final = re.compile(r"[0-9a-f]{16}-\d+")
"""An id that the library made up; no later process has it again."""


class BetweenStarts:
    """Decides after each start of the command whether it is started again, and waits until then."""

    def __init__(
        self,
        policy: RestartPolicy,
        signals: Signals,
        watcher: Watcher,
        follower: Follower | None,
        remarks: Remarks,
        say: Callable[[str], None],
        *,
        mark: tuple[str, str],
    ) -> None:
        """Prepare; `mark` is the environment variable by which descendants of the command are found."""
        self._restarts = Restarts(policy)
        self._signals, self._watcher, self._follower = signals, watcher, follower
        self._remarks, self._say, self._mark = remarks, say, mark
        self._streams = StandardStreams()
        self._began = self._ran = 0.0
        self._began_at = 0.0
        self._asked: str | None = None

    def begins(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The command is about to be started; returns its environment, so that its ids continue to count attempts."""
        self._began, self._began_at, self._ran = clock.monotonic(), clock.unix(), 0.0
        text = attempts_text({entry.head.operation_id: entry.head.attempt for entry in self._watcher.operations()})
        return {**environ, **({ATTEMPTS: text} if text else {})}

    def ended(self) -> None:
        """The command has just ended."""
        self._ran = clock.monotonic() - self._began

    def received(self, received: ReceivedSignal) -> None:
        """Note a signal; after one that stops the command it is never started again."""
        if received.stops:
            self._asked = f"{signal.Signals(received.number).name} was received"

    def goes_on(self, exit: Exit, session: int | None) -> bool:
        """Decide, and wait for the next start; false if there is none.

        Args:
            exit: how the last start ended.
            session: the session in which it ran.
        """
        for received in self._signals.waiting():  # Ctrl+C reached the command, too, and it may have ended first
            self.received(received)
        result = StartResult(exit, self._ran, self._unfinished())
        against = self._restarts.against(result, self._asked)
        if against is None:
            pause = self._restarts.next_pause(result.ran)
            self._tell(result, f"restarts in {duration(pause)} ({self._restarts.count})", "warning")
            return self._waits(clock.monotonic() + pause, session)
        if exit.code != 0:
            self._tell(result, f"not restarted: {against}", "failed")
        elif self._restarts.made:
            self._say(f"the command succeeded after {self._restarts.made_words}")
        return False

    def _unfinished(self) -> tuple[Snapshot, ...]:
        """The outermost operations of the last start that did not complete."""
        ids = self._watcher.ledger.operations
        return tuple(
            entry.snapshot
            for entry in self._watcher.operations()
            if entry.head.timestamp >= self._began_at
            and entry.head.status is not Status.COMPLETED
            and not entry.open
            and entry.head.parent_id not in ids
        )

    def _tell(self, result: StartResult, what: str, status: str) -> None:
        """Print what follows, and add it to the feeds of the operations that did not complete."""
        text = f"the command {result.words}; {what}"
        self._say(text)
        for snapshot in result.unfinished[-REMARKS:]:
            self._remarks.add(snapshot, text, status)

    # -- the back-off

    def _waits(self, until: float, session: int | None) -> bool:
        """Wait for the back-off and for the end of what was left behind; false if a signal stops it."""
        found = {seen.pid: seen for seen in (*self._watcher.left_here(), *descendants(*self._mark, session))}
        left = LeftProcesses(found.values())
        if left.pids:
            more = ", ..." if len(left.pids) > PIDS else ""
            self._say(f"ends what the command left behind: pid {', '.join(map(str, left.pids[:PIDS]))}{more}")
        while not left.are_gone() or self._watcher.waiting or clock.monotonic() < until:
            received = self._signals.next(LOOK)
            if received is not None:
                self.received(received)
                if received.number == signal.SIGHUP:  # no command that could read its configuration; a shell that ends
                    self._asked = "SIGHUP was received"
            if self._asked is not None:
                self._say(f"not restarted: {self._asked}")
                return False
            self._watcher.tick()
            if self._follower is not None:
                self._follower.pauses(received, until)
        self._streams.restore()
        return True


def attempts_text(attempts: Mapping[str, int]) -> str:
    """The attempts by id as JSON text; the last ids if there are too many, and none that the library made up."""
    kept: dict[str, int] = {}
    size = 2
    for key, attempt in reversed(list(attempts.items())):
        if _MADE_UP.fullmatch(key):
            continue
        size += len(json.dumps({key: attempt}))
        if size > MOST_BYTES or len(kept) >= MOST_IDS:
            break
        kept[key] = attempt
    return json.dumps(kept) if kept else ""
