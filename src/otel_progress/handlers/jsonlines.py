"""JSON lines: one JSON object for each event, to a file that stays small, or to a stream."""

from __future__ import annotations

import json
import os
import queue
import threading
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.outlet import Outlet
from otel_progress.live.guard import drops, tell_once

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event

__all__ = ["JsonLines", "line_of"]

QUEUE: Final = 10_000
"""Events that may wait for the disk."""
MAX_BYTES: Final = 100_000_000
EXIT_SECONDS: Final = 1.0


def line_of(event: Event) -> str:
    """The event as one line of JSON, without its end."""
    when = datetime.fromtimestamp(event.timestamp // 1000 / 1e6, timezone.utc)
    return json.dumps(
        {
            "event": event.name,
            "timestamp": when.isoformat(timespec="microseconds"),
            "sequence": event.sequence,
            "stage": event.stage,
            "attributes": dict(event.attributes),
            "snapshot": event.snapshot.to_dict(),
        },
        ensure_ascii=False,
        separators=(",", ":"),
        default=str,
    )


class JsonLines(Outlet):
    """Writes every event of every operation of this process; for `with`, or `start()` and `stop()`.

    Each line is flushed, so a killed process leaves what it had said. A file named by its path is appended to;
    before it would grow beyond `max_bytes` it becomes `<path>.1`, in place of the one before, so both together
    never hold more than twice that. A stream is the caller's: it is neither bounded nor closed.

    What can't be written (the disk is full, the stream is closed) is logged once, counted as dropped, and
    tried anew with the next event; the job never feels it. One file belongs to one process: a forked child writes
    nothing until it starts a JsonLines of its own.

    Args:
        target: a path, or a stream for text.
        max_bytes: the size at which a file named by its path is put aside.

    Raises:
        InvalidArgument: for a `max_bytes` that is not above 0.
    """

    _name = "jsonlines"

    def __init__(self, target: str | os.PathLike[str] | IO[str], *, max_bytes: int = MAX_BYTES) -> None:
        """Nothing is opened before the first event."""
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
            raise InvalidArgument(f"max_bytes must be a whole number above 0, not {max_bytes!r}")
        self._stream: IO[str] | None = None
        self._path: str | None = None
        if isinstance(target, (str, os.PathLike)):
            self._path = os.path.abspath(os.fspath(target))
        else:
            self._stream = target
        self._max_bytes = max_bytes
        self._file: Any = None
        self._size = 0
        self._torn = False
        self._queue: queue.SimpleQueue[Event | threading.Event | None] = queue.SimpleQueue()

    # -- its life

    def _begin(self) -> None:
        self._queue = queue.SimpleQueue()

    def _finish(self) -> None:
        self._leave()
        thread, self._thread = self._thread, None
        if thread is None:
            self._close()
        else:
            self._queue.put(None)
            thread.join(EXIT_SECONDS)

    def _exit(self, left: float) -> None:
        """Have all that waits written; what comes later is written too."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put(written)
            written.wait(min(left, EXIT_SECONDS))

    def _after_fork_in_child(self) -> None:
        """The file is the parent's, too."""
        super()._after_fork_in_child()
        self._file = None

    # -- from the ticker to the file

    def _take(self, event: Event, _: OperationState) -> None:
        """The sink of the ticker: it must not wait for a disk."""
        if self._thread is None:
            self._write(event)
        elif self._queue.qsize() >= QUEUE:
            drops.add(semconv.DROP_LISTENER)
        else:
            self._queue.put(event)

    def _run(self) -> None:
        waiting = self._queue
        while (event := waiting.get()) is not None:
            if isinstance(event, threading.Event):
                event.set()
            else:
                self._write(event)
        self._close()

    def _write(self, event: Event) -> None:
        try:
            line = line_of(event) + "\n"
            if self._stream is not None:
                self._stream.write(line)
                self._stream.flush()
            else:
                self._append(line.encode("utf-8", "replace"))
        except Exception:
            drops.add(semconv.DROP_LISTENER_ERROR)
            tell_once("JsonLines could not write an event; the job goes on, and the next event is tried anew")

    def _append(self, line: bytes) -> None:
        """One write for a line; what a full disk cut off does not run into the next line."""
        if self._torn:
            line = b"\n" + line
        if self._file is not None and self._size and self._size + len(line) > self._max_bytes:
            self._put_aside()
        if self._file is None:
            self._open()
            if self._size and self._size + len(line) > self._max_bytes:
                self._put_aside()
                self._open()
        written = self._file.write(line)
        self._size += written
        self._torn = written < len(line)
        if self._torn:
            raise OSError(f"only {written} of {len(line)} bytes fitted")

    def _open(self) -> None:
        assert self._path is not None
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        self._size = os.fstat(self._file.fileno()).st_size

    def _put_aside(self) -> None:
        assert self._path is not None
        self._close()
        os.replace(self._path, f"{self._path}.1")
        self._torn = False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
