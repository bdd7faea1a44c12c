"""JSON lines: writes one JSON object per event, to a file of bounded size or to a stream."""

from __future__ import annotations

import json
import os
import queue
import threading
from datetime import datetime, timezone
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, Final

from otel_progress import procfs, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.outlet import Outlet
from otel_progress.live.guard import drops, tell_once

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event

__all__ = ["JsonLines", "line_of"]

QUEUE: Final = 10_000
"""The most events that wait for the disk."""
MAX_BYTES: Final = 100_000_000
EXIT_SECONDS: Final = 1.0


def line_of(event: Event) -> str:
    """The event as one line of JSON, without a line end."""
    when = datetime.fromtimestamp(event.timestamp // 1000 / 1e6, timezone.utc)
    return json.dumps(
        {
            "event": event.name,
            "timestamp": when.isoformat(timespec="microseconds"),
            "sequence": event.sequence,
            "stage": event.stage,
            "attributes": dict(event.attributes),
            "process": _process(os.getpid()),
            "snapshot": event.snapshot.to_dict(),
        },
        ensure_ascii=False,
        separators=(",", ":"),
        default=str,
    )


@lru_cache(maxsize=1)
def _process(pid: int) -> dict[str, str | int]:
    """What tells later whether this process is alive: its pid and start, and the run of the system that counts them."""
    seen = procfs.look(pid)
    if seen is None:
        return {"pid": pid}
    return {"pid": pid, "ticks": seen.ticks, "boot": procfs.boot_id(), "namespace": procfs.pid_namespace()}


class JsonLines(Outlet):
    """Writes every event of every operation of this process; use it with `with`, or with `start()` and `stop()`.

    Each line is flushed, so that the events of a killed process are there. A file given by its path is appended to;
    before it would exceed `max_bytes`, it is renamed to `<path>.1`, replacing the previous one, so that both together
    never hold more than twice that. A stream belongs to the caller: it is neither bounded nor closed.

    A failed write (the disk is full, the stream is closed) is logged once and counted as dropped; the next event is
    written again, and the job is never affected. A file belongs to one process: a forked child writes nothing until
    it starts a JsonLines of its own.

    Args:
        target: a path, or a text stream.
        max_bytes: the size at which a file given by its path is renamed.

    Raises:
        InvalidArgument: if `max_bytes` is not above 0.
    """

    _name = "jsonlines"

    def __init__(self, target: str | os.PathLike[str] | IO[str], *, max_bytes: int = MAX_BYTES) -> None:
        """Create it; nothing is opened before the first event."""
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

    # -- life cycle

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
        """Wait until all queued events are written; later ones are written, too."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put(written)
            written.wait(min(left, EXIT_SECONDS))

    def _after_fork_in_child(self) -> None:
        """Drop the file, which is the parent's."""
        super()._after_fork_in_child()
        self._file = None

    # -- from the ticker to the file

    def _take(self, event: Event, _: OperationState) -> None:
        """Queue an event; called by the ticker, which must not wait for a disk."""
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
            tell_once("JsonLines could not write an event; the job goes on, and the next event is tried again")

    def _append(self, line: bytes) -> None:
        """Append a line by one write; after a line that a full disk cut off, begin a new one."""
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
            raise OSError(f"only {written} of {len(line)} bytes were written")

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
