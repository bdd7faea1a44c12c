"""`otel-progress run --follow`: the command in its own terminal, its operations below its output, and Ctrl+C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from otel_progress import clock
from otel_progress.cli.query.client import ConnectionLost, ErrorResponse, path_of
from otel_progress.cli.query.exit_codes import CommandError
from otel_progress.cli.query.rows import label_of
from otel_progress.cli.run.live_view import LiveView
from otel_progress.cli.run.monitor_host import MonitorHost
from otel_progress.cli.run.pty import PseudoTerminal
from otel_progress.outbound.queue import Forwarder
from otel_progress.render.diversion import on_terminal
from otel_progress.render.overlay import write_all

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_progress.cli.query.client import Client
    from otel_progress.cli.run.child import Child
    from otel_progress.cli.run.signals import ReceivedSignal
    from otel_progress.monitor.state.ledger import Entry
    from otel_progress.monitor.state.watcher import Watcher

AT_ONCE: Final = 16
"""The most concurrent cancel requests."""
ASK_SECONDS: Final = 6.0
AGAIN: Final = (0.2, 0.4, 0.6)
"""Seconds before each retry if a process can't be reached: it may have just begun."""
TWICE: Final = 2.0
"""Seconds after the end of all cancelled operations until Ctrl+C starts over."""
ANEW: Final = 10.0
"""Seconds after Ctrl+C without any operation until it starts over: an interpreter's prompt is interrupted often."""
ASKED, TAKEN, ENDED, AWAY, DEAF = "asking", "received", "ended", "can't be reached", "takes no requests"


class Follower:
    """What `--follow` adds to a run; a context manager, which always restores the terminal."""

    def __init__(self, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Find the monitor, or start one.

        Raises:
            ProgressError: if there is none and none can be started.
        """
        self._say = say
        self.host = MonitorHost(environ, say)
        try:
            self.forwarder = Forwarder(self.host.endpoints)
        except BaseException:
            self.host.close()
            raise
        self._terminal: PseudoTerminal | None = None
        self._view: LiveView | None = None
        self._stop: CtrlC | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ended(lambda: True)
            self.finish()
        finally:
            self.host.close()

    # -- the command

    def begin(self, watcher: Watcher) -> tuple[list[Any], Callable[[bytes], None] | None]:
        """Prepare a start; returns the file actions for the command, and the function that receives its stderr."""
        if self._view is None:
            self._view = LiveView(self.host.client, sys.stderr, watcher)
            self._stop = CtrlC(self.host, watcher, self._say)
            self._view.asked = self._stop.said
        self._view.restarts_at = None
        slots = [number for number in (0, 1, 2) if os.isatty(number)]
        overlay = self._view.overlay
        show = overlay.pass_on if overlay is not None else _writer(slots)
        self._terminal = PseudoTerminal(slots, show) if slots else None
        return [] if self._terminal is None else self._terminal.actions, None if overlay is None else overlay.pass_on

    def started(self) -> None:
        """Start the terminal and the view; the command runs."""
        if self._terminal is not None:
            self._terminal.start()
        assert self._view is not None
        self._view.start()

    def received(self, received: ReceivedSignal, child: Child) -> None:
        """Handle a signal: Ctrl+C is for the operations first; the others are for the command."""
        assert self._stop is not None
        if received.number == signal.SIGINT:
            self._stop.press(child)
        elif received.number == signal.SIGTSTP:
            self._pause(child)
        elif received.number == signal.SIGCONT:
            self._go_on()
        elif received.number == signal.SIGWINCH:
            self._go_on()
            child.send_all(signal.SIGWINCH)
        elif received.typed:
            child.send_all(received.number)
        else:
            child.send(received.number)

    def tick(self, child: Child) -> None:
        """Check for the foreground, for the monitor, and for the results of Ctrl+C."""
        assert self._stop is not None
        assert self._view is not None
        if self._terminal is not None:
            self._terminal.take_keys()
        if self._view.is_blind:
            self.host.lost()
        self._stop.tick(child)

    def _pause(self, child: Child) -> None:
        """Ctrl+Z: stop together with the command and give the terminal to the shell; continue together."""
        assert self._view is not None
        with self._view.paused():
            if self._terminal is not None:
                self._terminal.give_back()
            child.send_all(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            child.send_all(signal.SIGCONT)
            self._go_on()

    def _go_on(self) -> None:
        if self._terminal is not None:
            self._terminal.take_keys()
            self._terminal.resize()

    def print(self, data: bytes) -> bool:
        """Print above what is drawn; returns false if nothing may be drawn."""
        overlay = None if self._view is None else self._view.overlay
        if overlay is not None:
            overlay.pass_on(data)
        return overlay is not None

    def pauses(self, received: ReceivedSignal | None, until: float) -> None:
        """The command has ended and is started again at this time: show that, and handle what the terminal does."""
        assert self._view is not None
        self._view.restarts_at = until
        if received is not None and received.number == signal.SIGTSTP:
            with self._view.paused():
                os.kill(os.getpid(), signal.SIGSTOP)

    # -- the end

    def ended(self, interrupted: Callable[[], bool]) -> None:
        """The command has ended: show the rest of its output, unless `interrupted()` becomes true."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close(interrupted)

    def finish(self) -> None:
        """Print the ends that are still missing; it may be called twice."""
        view, self._view = self._view, None
        if view is not None:
            view.finish()


class CtrlC:
    """Ctrl+C: the first cancels the operations, the second interrupts the command, the third kills it.

    Where no operation can be asked, as only integrations see them, the first one interrupts the command, as without us.
    """

    def __init__(self, host: MonitorHost, watcher: Watcher, say: Callable[[str], None]) -> None:
        """Create it; nothing was pressed yet."""
        self._host, self._watcher, self._say = host, watcher, say
        self._states: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._pressed = 0
        self._pressed_at = 0.0
        self._interrupted = False
        self._ended_at: float | None = None
        self._told = not on_terminal(sys.stderr)

    def press(self, child: Child) -> None:
        """Handle Ctrl+C."""
        self._pressed += 1
        self._pressed_at = clock.monotonic()
        if self._pressed == 1:
            self._begin(child)
        elif self._pressed == 2:
            self._interrupt(child)
        else:
            child.send_all(signal.SIGKILL)
        if self._told:
            self._say(self.said())

    def tick(self, child: Child) -> None:
        """Interrupt the command if no operation can be asked; start over if the command goes on."""
        found = set(self._now().values())
        if found and all(state.startswith(ENDED) for state in found):
            self._ended_at = self._ended_at or clock.monotonic()
            if clock.monotonic() - self._ended_at >= TWICE:
                self._forget()
        elif found and found <= {AWAY, DEAF} and not self._interrupted:
            self._interrupt(child)
            if self._told:
                self._say(self.said())
        elif not found and self._pressed and clock.monotonic() - self._pressed_at >= ANEW:
            self._forget()

    def said(self) -> str:
        """The result so far and what the next Ctrl+C does, as text; empty before the first."""
        if not self._pressed:
            return ""
        if self._pressed > 2:
            return "killed the command"
        done = "; ".join(filter(None, (self._asked(), "interrupted the command" if self._interrupted else "")))
        if self._pressed == 2:
            return f"{done}; press Ctrl+C again to kill"
        return f"{done}; press Ctrl+C again to interrupt{' once more' * self._interrupted}, a third time to kill"

    def _asked(self) -> str:
        states = self._now()
        if len(states) <= 1:
            return "".join(f"asked {self._labels.get(key, key)} to stop: {state}" for key, state in states.items())
        counts = Counter(states.values())
        told = ", ".join(f"{counts[state]:,} {state}" for state in sorted(counts))
        return f"asked {len(states):,} operations to stop: {told}"

    def _begin(self, child: Child) -> None:
        """Cancel all that run; if none does, interrupt the command, as Ctrl+C would without us."""
        running = self._running()
        self._states = {entry.head.operation_id: ASKED for entry in running}
        self._labels = {entry.head.operation_id: _label(entry) for entry in running}
        if not running:
            self._interrupt(child)
        waiting = deque(self._states)
        for _ in range(min(AT_ONCE, len(waiting))):
            threading.Thread(target=self._ask, args=(waiting,), name="otel-progress-cancel", daemon=True).start()

    def _interrupt(self, child: Child) -> None:
        self._interrupted = True
        child.send_all(signal.SIGINT)

    def _forget(self) -> None:
        self._pressed, self._interrupted, self._ended_at, self._states = 0, False, None, {}

    def _ask(self, waiting: deque[str]) -> None:
        client, states = self._host.client, self._states
        while True:
            try:
                key = waiting.popleft()
            except IndexError:
                return
            found = _ask(client, key)
            for pause in AGAIN:
                if found == AWAY:
                    threading.Event().wait(pause)
                    found = _ask(client, key)
            states[key] = found

    def _now(self) -> dict[str, str]:
        """The state of each operation that was asked; we know of an end, and how it ended, before the monitor does."""
        operations = self._watcher.ledger.operations
        found = {}
        for key, state in list(self._states.items()):
            entry = operations.get(key)
            found[key] = f"{ENDED} as {entry.head.status.value}" if entry is not None and not entry.open else state
        return found

    def _running(self) -> list[Entry]:
        """The running operations without a running parent."""
        entries = [entry for entry in self._watcher.operations() if entry.open]
        names = {entry.head.operation_id for entry in entries}
        return [entry for entry in entries if entry.head.parent_id not in names]


def _ask(client: Client, key: str) -> str:
    """Ask one operation to stop; returns what its process answered."""
    query = urlencode({"wait": 0, "reason": "Ctrl+C"})
    try:
        answer = client.ask(f"{path_of(key)}?{query}", method="DELETE", timeout=ASK_SECONDS)
    except ErrorResponse as error:
        return DEAF if str(error).startswith("refused:") else AWAY
    except (CommandError, ConnectionLost):
        return AWAY
    return {"received": TAKEN, "obeyed": ENDED}.get(str(answer.get("state")), AWAY)


def _label(entry: Entry) -> str:
    return label_of({"name": entry.head.name, "id": entry.head.operation_id})


def _writer(slots: Sequence[int]) -> Callable[[bytes], None]:
    """Make a function that writes to our terminal as long as it is there."""

    def write(data: bytes) -> None:
        with suppress(OSError):
            write_all(slots[-1], data)

    return write
