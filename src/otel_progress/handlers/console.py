"""The console: what runs, as a live tree in the terminal; plain lines where there is no terminal.

A thread of its own looks at the operations eight times a second and draws what fits the terminal. What ended, what
is in trouble and what was noted comes from the ticker over a bounded queue, and stays above the tree. Prints and log
lines pass between two drawings. The job never waits for a drawing, except where it prints itself.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.live import runtime
from otel_progress.live.drops import drops
from otel_progress.live.guard import tell_once
from otel_progress.live.hooks import sinks
from otel_progress.live.registry import registry
from otel_progress.model.snapshot import Event, Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.summary import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from rich.console import Console as RichConsole
    from rich.live import Live
    from rich.text import Text
    from typing_extensions import Self

    from otel_progress.live.operation import Operation

__all__ = ["Console", "console"]

Verbosity = Literal["quiet", "normal", "verbose"]
Span = tuple[str, str]
"""A text and its style."""
Line = tuple[Span, ...]

HERTZ: Final = 8
QUEUE: Final = 1_000
"""Events that may wait for the console."""
LINES: Final = 40
"""Lines above the tree, or plain lines, a second; trouble and what did not complete always comes through."""
RUNS: Final = 10
"""Operations that tell their progress in plain lines at a time."""
PARENTS: Final = 1_000
"""Ended operations that are remembered, so that their children are known as such."""
NEWEST: Final = 3
"""Ended stages without a plan, and ended children, that normal verbosity shows one by one."""
PARTIAL: Final = 65_536
"""Characters of an unfinished line that wait for its end."""
QUIET_SECONDS: Final = 3.0
"""Idle time shorter than that is not worth a word."""


class Console:
    """Shows every operation of this process in the terminal; for `with`, or `start()` and `stop()`.

    Where the file is no terminal, `TERM` is `dumb`, or `CI` is set, it writes plain lines instead: one for each
    change of state, and for each operation a line of progress every few seconds. A forked child shows nothing.
    Prints and log lines of this process pass above the tree; what other processes write to the terminal may tear it.

    Args:
        verbosity: `quiet` for endings and trouble only, `normal`, or `verbose` for notes and all stages too.
        file: where to show it; standard error unless given, so that `> out.txt` takes the job's own output only.
        live: whether to draw a tree; found out unless given.
        every: seconds between two plain lines of progress of an operation; they get rarer as it gets older.

    Raises:
        MissingDependency: where Rich is not installed.
    """

    def __init__(
        self,
        verbosity: Verbosity = "normal",
        file: IO[str] | None = None,
        *,
        live: bool | None = None,
        every: float = 5.0,
    ) -> None:
        """A console that shows nothing yet."""
        if verbosity not in ("quiet", "normal", "verbose"):
            raise InvalidArgument(f"verbosity must be 'quiet', 'normal' or 'verbose', not {verbosity!r}")
        if importlib.util.find_spec("rich") is None:
            raise MissingDependency('the console needs Rich: pip install "otel-progress[console]"')
        self.verbosity = verbosity
        self._file = file
        self._wanted = live
        self._every = every
        self._running = False
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._diversion: _Diversion | None = None
        self._draws = False
        self._reset()

    def _reset(self) -> None:
        self._queue: deque[tuple[Event, bool]] = deque()
        self._verdicts: dict[str, Health | None] = {}
        self._doubled: dict[str, str] = {}
        self._last: dict[str, Snapshot] = {}
        self._leaving: dict[str, tuple[Snapshot, float]] = {}
        self._over: OrderedDict[str, deque[Ended]] = OrderedDict()
        self._gone: deque[str] = deque(maxlen=PARENTS)
        self._told_at: dict[str, float] = {}
        self._drawn: list[Line] = []
        self._spare = float(LINES)
        self._left_out = 0
        self._then = clock.monotonic()
        self._scanned = 0.0

    # -- its life

    def start(self) -> Self:
        """Show from now on, until `stop()` or the end of the process; it may be called twice."""
        from rich.console import Console as RichConsole

        with self._lock:
            if self._running:
                return self
            self._running = True
            self._reset()
            file: IO[str] = self._file or sys.stderr
            self._draws = self.verbosity != "quiet" and (_is_watched(file) if self._wanted is None else self._wanted)
            self._rich: RichConsole = RichConsole(file=file, force_terminal=True if self._draws else None)
            self._glyphs = PRETTY if (self._rich.encoding or "").lower().startswith("utf") else ASCII
            self._sheet = Sheet(self._glyphs)
            self._diversion = _Diversion(self._above, file)
        sinks.append(self._take)
        runtime.at_exit.append(self._exit)
        runtime.in_child.append(self._after_fork_in_child)
        runtime.want()
        runtime.ensure()
        if runtime.threads_allowed:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="otel-progress-console", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Tell what ended, take the tree away, and give the terminal back; it may be called twice."""
        if not self._running:
            return
        runtime.ticker.ask(runtime.ticker.round, 0.5)
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        if self._running:
            self._exit(0.0)
        self._leave()

    def __enter__(self) -> Self:
        """Show from now on."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell what ended, and give the terminal back."""
        self.stop()

    def _leave(self) -> None:
        """Give everything back: streams, cursor, hooks."""
        self._running = False
        self._stopping.set()
        _take_out(sinks, self._take)
        _take_out(runtime.at_exit, self._exit)
        _take_out(runtime.in_child, self._after_fork_in_child)
        try:
            self._take_down()
        except Exception:
            tell_once("the terminal could not be given back; the job goes on")

    def _exit(self, _: float) -> None:
        """Tell what ended, and leave the terminal as it was; if this was not the end, the next drawing goes on."""
        try:
            with self._lock:
                self._draw_last()
        except Exception:
            tell_once("the console failed at the end; the job goes on")

    def _put_up(self) -> None:
        """Begin to draw; only while something runs, so that the terminal is the job's own for the rest."""
        from rich.live import Live

        self._live = Live(
            console=self._rich,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()
        if self._diversion is not None:
            self._diversion.on()

    def _take_down(self) -> None:
        """Take the tree away, and give the terminal back."""
        live, self._live = self._live, None
        self._drawn = []
        try:
            if live is not None:
                live.update(self._text([]))
                live.stop()
        finally:
            if self._diversion is not None:
                self._diversion.off()

    def _after_fork_in_child(self) -> None:
        """The tree is the parent's: show nothing, and give the child plain streams."""
        self._running = False
        self._live = None
        self._thread = None
        self._lock = threading.RLock()
        if self._diversion is not None:
            self._diversion.forget()
        _take_out(sinks, self._take)
        _take_out(runtime.at_exit, self._exit)

    # -- what happens, from the ticker's thread

    def _take(self, event: Event, _: Operation) -> None:
        """Keep what is worth a line; the console's own thread writes it."""
        snapshot = event.snapshot
        key = snapshot.operation_id
        verdict = None if snapshot.health_reason is None or snapshot.status.final else snapshot.health
        turned = self._verdicts.get(key) is not verdict
        if snapshot.status.final or verdict is None:
            self._verdicts.pop(key, None)
        else:
            self._verdicts[key] = verdict
        told = event.name in _TOLD or (event.name == semconv.NOTE and self.verbosity == "verbose")
        if not told and not turned:
            return
        if len(self._queue) >= QUEUE and event.name != semconv.OPERATION_ENDED:
            drops.add(semconv.DROP_LISTENER)
        elif len(self._queue) < 2 * QUEUE:
            self._queue.append((event, turned))

    # -- the thread

    def _run(self) -> None:
        while not self._stopping.wait(1 / HERTZ):
            self.refresh()

    def refresh(self) -> None:
        """Draw once; the thread calls it. An error is logged once, and the console stops."""
        try:
            with self._lock:
                if self._running:
                    self._draw()
        except Exception:
            self._leave()
            tell_once("the console failed, and stops; the job goes on")

    def _draw(self) -> None:
        now = clock.monotonic()
        self._spare = min(float(LINES), self._spare + (now - self._then) * LINES)
        self._then = now
        self._name_apart(registry.operations())
        news = self._news()
        if not self._draws:
            self._print(news)
            if self.verbosity != "quiet":
                self._print(self._progress_lines(now))
            return
        lines = self._tree(now)
        if not lines:
            if self._live is not None:
                self._take_down()
            self._print(news)
            return
        if self._live is None:
            self._put_up()
        self._show(lines, news, now)

    def _show(self, lines: list[Line], news: list[Line], now: float) -> None:
        assert self._live is not None
        if self._diversion is not None and now - self._scanned >= 1:
            self._scanned = now
            self._diversion.scan()
        if lines != self._drawn:
            self._drawn = lines
            self._live.update(self._text(lines), refresh=not news)
        self._print(news)

    def _draw_last(self) -> None:
        news = self._news()
        self._take_down()
        self._print(news)

    # -- writing

    def _text(self, lines: Sequence[Line]) -> Text:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="crop", end="")
        for number, line in enumerate(lines):
            if number:
                text.append("\n")
            for words, style in line:
                text.append(self._encodable(words), style or None)
        return text

    def _print(self, lines: Sequence[Line]) -> None:
        if lines:
            self._rich.print(self._text(lines), soft_wrap=True)

    def _encodable(self, words: str) -> str:
        if self._glyphs is PRETTY or words.isascii():
            return words
        encoding = self._rich.encoding or "ascii"
        return words.encode(encoding, "replace").decode(encoding, "replace")

    def _above(self, lines: Sequence[str]) -> None:
        """Lines that the job printed."""
        from rich.text import Text

        for line in lines:
            self._rich.print(Text.from_ansi(line), soft_wrap=True)

    # -- lines above the tree, and plain lines

    def _news(self) -> list[Line]:
        """What happened since the last look."""
        lines: list[Line] = []
        for _ in range(len(self._queue)):
            event, turned = self._queue.popleft()
            if event.name == semconv.OPERATION_ENDED:
                told = self._ending(event)
                lines.extend(told if event.snapshot.status is not Status.COMPLETED else self._afford(told))
                continue
            if turned:
                lines.append(self._stamped(event, _verdict(event)))
            lines.extend(self._afford([self._stamped(event, line) for line in self._changes(event)]))
        if self._left_out and (self._spare >= LINES / 2 or self._stopping.is_set()):
            lines.append(((f"+ {self._left_out:,} more that ended or changed", "dim"),))
            self._left_out = 0
        return lines

    def _afford(self, lines: list[Line]) -> list[Line]:
        """The lines if there are few enough of them, else only their number."""
        if lines and self._spare < 1:
            self._left_out += 1
            return []
        self._spare -= min(len(lines), 1)
        return lines

    def _changes(self, event: Event) -> list[Line]:
        """The words for a change of state; with a tree most of them are seen there."""
        if self.verbosity == "quiet" or event.name in (semconv.STALLED, semconv.RECOVERED):
            return []
        if event.name == semconv.NOTE:
            return [_noted(event)] if self.verbosity == "verbose" else []
        return [] if self._draws else [((_changed(event), ""),)]

    def _stamped(self, event: Event, line: Line) -> Line:
        when = datetime.fromtimestamp(event.timestamp / 1e9, timezone.utc).astimezone()
        return ((f"{when:%H:%M:%S} ", "dim"), (f"{self._label(event.snapshot)}: ", "bold"), *line)

    def _ending(self, event: Event) -> list[Line]:
        snapshot = event.snapshot
        stores: tuple[dict[str, Any], ...] = (self._last, self._leaving, self._told_at, self._over)
        for store in stores:
            store.pop(snapshot.operation_id, None)
        self._gone.append(snapshot.operation_id)
        parent = snapshot.parent_id
        if parent is None or not (parent in registry.live or parent in self._gone):
            label = self._label(snapshot)
            self._doubled.pop(snapshot.operation_id, None)
            return closing(snapshot, label, self._look_of(), self._rich.width)
        if parent in registry.live:
            self._over.setdefault(parent, deque(maxlen=64)).append(Ended(self._label(snapshot), snapshot))
            while len(self._over) > PARENTS:
                self._over.popitem(last=False)
        bad = snapshot.status is not Status.COMPLETED
        if bad or self.verbosity == "verbose" or (not self._draws and self.verbosity == "normal"):
            return [self._stamped(event, _over(snapshot))]
        return []

    def _label(self, snapshot: Snapshot) -> str:
        """The name, with the id where the caller gave one or the name alone is not enough."""
        label = clean(snapshot.name)
        prefix = f"{registry.prefix}-"
        if not snapshot.operation_id.startswith(prefix):
            return f"{label} {clean(snapshot.operation_id)}"
        return label + self._doubled.get(snapshot.operation_id, "")

    def _progress_lines(self, now: float) -> list[Line]:
        """A plain line of progress for each operation whose turn it is."""
        branches, _ = self._look(now, RUNS)
        lines: list[Line] = []
        for branch in branches:
            snapshot = branch.snapshot
            key = snapshot.operation_id
            due = self._told_at.setdefault(key, now) + max(self._every, snapshot.elapsed / 50)
            if now >= due and not snapshot.status.final:
                self._told_at[key] = now
                stamp = Event(semconv.UPDATED, clock.time_ns(), snapshot)
                lines.append(self._stamped(stamp, ((_progress_words(snapshot), ""),)))
        alive = {branch.snapshot.operation_id for branch in branches}
        self._told_at = {key: when for key, when in self._told_at.items() if key in alive}
        return lines

    # -- the tree

    def _look(self, now: float, room: int) -> tuple[list[Branch], int]:
        """Snapshots of the operations that fit, children below their parents; and how many there are besides."""
        operations = sorted(
            (one for one in registry.operations() if not one.status.final), key=lambda one: one._started or now
        )
        order = _family(operations)
        by_need = sorted(range(len(order)), key=lambda at: (order[at][1]._health not in _TROUBLE, at))
        chosen = sorted(by_need[: max(room, 1)])
        branches = [Branch(order[at][0], order[at][1].snapshot()) for at in chosen]
        self._keep_leaving({operation.id for operation in operations}, now)
        self._last = {branch.snapshot.operation_id: branch.snapshot for branch in branches}
        branches.extend(Branch(0 if one.parent_id is None else 1, one) for one, _ in self._leaving.values())
        return branches, len(order) - len(chosen)

    def _keep_leaving(self, alive: set[str], now: float) -> None:
        """Show what just ended until the ticker tells of it, so that nothing blinks."""
        for key in self._last.keys() - alive:
            self._leaving.setdefault(key, (self._last[key], now))
        for key, (_, since) in list(self._leaving.items()):
            if now - since > 1 or key in self._gone:
                del self._leaving[key]

    def _name_apart(self, operations: Iterable[Operation]) -> None:
        """Give operations that run under one name at a time a number; they keep it."""
        by_name: dict[str, list[Operation]] = defaultdict(list)
        for operation in operations:
            by_name[operation.name].append(operation)
        for alike in by_name.values():
            if len(alike) > 1:
                for operation in alike:
                    self._doubled.setdefault(operation.id, f" #{operation.id.rpartition('-')[2]}")
        while len(self._doubled) > 2 * PARENTS:
            del self._doubled[next(iter(self._doubled))]

    def _look_of(self, now: float = 0.0) -> Look:
        return Look(self._glyphs, now, self.verbosity == "verbose")

    def _tree(self, now: float) -> list[Line]:
        width, height = self._rich.size
        branches, more = self._look(now, height - 1)
        rows: list[Row] = []
        look = self._look_of(now)
        for branch in branches:
            over = self._over.get(branch.snapshot.operation_id, ())
            rows.extend(rows_of(branch, self._label(branch.snapshot), over, look))
        return self._sheet.lines(rows, width, max(2, height - 2), more)


def console(verbosity: Verbosity = "normal", file: IO[str] | None = None, **options: Any) -> Console:
    """Show every operation of this process from here on, until the process ends; see `Console`."""
    return Console(verbosity, file, **options).start()


def _take_out(where: list[Any], what: object) -> None:
    if what in where:
        where.remove(what)


def _is_watched(file: IO[str]) -> bool:
    """Whether a human looks at it who can see a tree."""
    try:
        terminal = file.isatty()
    except Exception:
        return False
    return terminal and os.environ.get("TERM", "") not in ("dumb", "unknown") and not os.environ.get("CI")


# -- prints and log lines


class _Proxy(io.TextIOBase):
    """Stands for a stream: while a tree is drawn, whole lines go above it; at other times all goes to the stream."""

    def __init__(self, stream: Any) -> None:
        self.above: Callable[[Sequence[str]], None] | None = None
        self._stream = stream
        self._partial = ""
        self._guard = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> Any:  # type: ignore[override]
        return self._stream.errors

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Only a line that has no end yet may wait here."""
        if self.above is None:
            self._stream.flush()

    def write(self, text: str) -> int:
        above = self.above
        if above is None:
            return int(self._stream.write(text) or 0)
        with self._guard:
            *lines, rest = (self._partial + text).split("\n")
            self._partial = (rest if rest.endswith("\r") else rest.rpartition("\r")[2])[-PARTIAL:]
            if lines:
                try:
                    above([line.rstrip("\r").rpartition("\r")[2] for line in lines])
                except Exception:
                    self._stream.write("\n".join([*lines, ""]))
        return len(text)

    def end(self) -> None:
        """Let go of the line that has no end."""
        rest, self._partial = self._partial, ""
        if rest:
            self._stream.write(rest)
            self._stream.flush()

    def forget(self) -> None:
        """In a forked child: what waits is the parent's, and so may be the lock."""
        self._guard = threading.RLock()
        self._partial = ""


class _Diversion:
    """Leads what is written to the terminal around the tree: prints, and handlers of logging that keep a stream."""

    def __init__(self, above: Callable[[Sequence[str]], None], file: IO[str]) -> None:
        """Of those standard streams that show on a terminal; files and pipes stay as they are."""
        self._above = above
        self._proxies: dict[int, _Proxy] = {}
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._streams: dict[str, tuple[Any, _Proxy]] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Proxy) and (stream is file or _on_terminal(stream)):
                proxy = _Proxy(stream)
                self._streams[name] = (stream, proxy)
                self._proxies[id(stream)] = proxy
                first = getattr(sys, f"__{name}__")
                if first is not None and _on_terminal(first):
                    self._proxies[id(first)] = proxy

    def on(self) -> None:
        """Lead it around from now on."""
        for name, (stream, proxy) in self._streams.items():
            proxy.above = self._above
            if getattr(sys, name) is stream:
                setattr(sys, name, proxy)
        self.scan()

    def scan(self) -> None:
        """Find the handlers of logging that kept a stream from before."""
        for logger in (logging.root, *list(logging.root.manager.loggerDict.values())):
            for handler in list(getattr(logger, "handlers", ())):
                if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
                    continue
                stream = getattr(handler, "stream", None)
                proxy = self._proxies.get(id(stream))
                if proxy is not None and "stream" in vars(handler):
                    self._handlers.append((handler, stream))
                    handler.setStream(proxy)

    def off(self) -> None:
        """Put the streams back, and let go of lines that have no end."""
        self._put_back()
        for _, proxy in self._streams.values():
            proxy.end()

    def _put_back(self) -> None:
        for name, (stream, proxy) in self._streams.items():
            proxy.above = None
            if getattr(sys, name) is proxy:
                setattr(sys, name, stream)
        for handler, stream in self._handlers:
            if isinstance(handler.stream, _Proxy):
                handler.stream = stream
        self._handlers.clear()

    def forget(self) -> None:
        """Put the streams back in a forked child, where nothing may be waited for or written."""
        for _, proxy in self._streams.values():
            proxy.forget()
        self._put_back()


def _on_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except Exception:
        return False


# -- words


class Glyphs(NamedTuple):
    """The signs of the tree."""

    done: str
    failed: str
    cancelled: str
    interrupted: str
    pending: str
    waiting: str
    trouble: str
    still: str
    moving: str
    heavy: str
    half: str
    light: str
    share: str
    dash: str
    dot: str
    cut: str


PRETTY: Final = Glyphs(
    done="✓",
    failed="✗",
    cancelled="⊘",
    interrupted="■",
    pending="·",
    waiting="‖",
    trouble="!",
    still="⠿",
    moving="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    heavy="━",
    half="╾",
    light="─",
    share="▪",
    dash="\u2013",
    dot=" · ",
    cut="…",
)
ASCII: Final = Glyphs("+", "x", "/", "#", ".", "=", "!", "*", "|/-\\", "=", ">", "-", "#", "-", ", ", "~")

_TOLD: Final = frozenset(
    {
        semconv.OPERATION_STARTED,
        semconv.OPERATION_ENDED,
        semconv.STAGE_STARTED,
        semconv.STAGE_ENDED,
        semconv.WAIT_STARTED,
        semconv.WAIT_ENDED,
    }
)
_TROUBLE: Final = frozenset({Health.SILENT, Health.SLOW, Health.LOOPING, Health.DEAD})
_BADGES: Final = {Health.SILENT: "STUCK", Health.WAITING: "OVERDUE"}
_STYLES: Final = {
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.LOST: "bold red",
    Status.INTERRUPTED: "yellow",
    Status.CANCELLED: "yellow",
    Status.WAITING: "yellow",
}


def clean(words: object) -> str:
    """The text on one line, without control characters or signs that turn its direction."""
    text = str(words)
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def passed(time: float) -> str:
    """A duration as on a clock: `0:07`, `12:30`, `1:02:03`."""
    whole = int(time)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def amount(value: float, unit: str = "") -> str:
    """A number for people: `1,102`, `0.5`, `3.2 MB`."""
    if unit == "By":
        for size in ("B", "kB", "MB", "GB"):
            if abs(value) < 1000:
                return f"{value:.0f} {size}" if size == "B" else f"{value:.1f} {size}"
            value /= 1000
        return f"{value:,.1f} TB"
    return f"{value:,}" if isinstance(value, int) else f"{round(value, 2):,g}" if value < 1e5 else f"{value:,.0f}"


def plural(unit: str) -> str:
    """`files` for `file`; units of measurement stay as they are."""
    word = clean(unit)
    if (
        len(word) < 4
        or not (word.isascii() and word.isalpha() and word.islower())
        or (word.endswith("s") and word[-2] != "s")
    ):
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return word + ("es" if word.endswith(("tch", "sh", "ss", "x")) else "s")


def counted(progress: Progress) -> str:
    """`1,102/1,812 files`."""
    if progress.completed is None:
        return ""
    unit = "" if progress.unit in ("item", "By", "1") else f" {plural(progress.unit)}"
    text = amount(progress.completed, progress.unit)
    if progress.total and progress.total != progress.completed:
        text += f"/{amount(progress.total, progress.unit)}"
    return text + unit


def paced(rate: float | None, unit: str) -> str:
    """`143/s`, or `8.4/min` where it is slow."""
    if not rate:
        return ""
    value, per = (rate, "s") if rate >= 1 else (rate * 60, "min") if rate * 60 >= 1 else (rate * 3600, "h")
    if unit == "By":
        return f"{amount(value, unit)}/{per}"
    return f"{value:,.0f}/{per}" if value >= 10 else f"{value:.1f}/{per}"


def remaining(progress: Progress, dash: str) -> str:
    """`ETA 0:07`, with the interval where it says something else: `ETA 0:05-0:12`."""
    eta = progress.eta
    if eta is None:
        return ""
    low, high = passed(eta.low), passed(eta.high)
    if eta.high - eta.low > max(5.0, 0.5 * eta.eta) and low != high:
        return f"ETA {low}{dash}{high}"
    return f"ETA {passed(eta.eta)}"


def idle_words(idle: float, limit: float | None) -> Span | None:
    """`idle 0:12 of 0:30`, redder as it comes near the limit."""
    if idle < QUIET_SECONDS:
        return None
    if limit is None:
        return f"idle {passed(idle)}", "dim"
    part = idle / limit
    return f"idle {passed(idle)} of {passed(limit)}", "red" if part >= 0.8 else "yellow" if part >= 0.5 else "dim"


def _verdict(event: Event) -> Line:
    snapshot = event.snapshot
    if snapshot.health_reason is not None and not snapshot.status.final:
        badge = _BADGES.get(snapshot.health, snapshot.health.value.upper())
        style = "bold yellow" if snapshot.health in (Health.SLOW, Health.WAITING) else "bold red"
        where = f" in {clean(snapshot.stage)}" if snapshot.stage else ""
        return ((badge, style), (f" {snapshot.health_reason}{where}", ""))
    stuck = event.attributes.get(semconv.STALL_DURATION)
    after = f" after {seconds(float(stuck))}" if isinstance(stuck, (int, float)) else ""
    return ((f"moving again{after}" if after else "in order again", "green"),)


def _noted(event: Event) -> Line:
    status = event.attributes.get(semconv.NOTE_STATUS)
    style = {"failed": "red", "error": "red", "warning": "yellow", "ok": "green"}.get(str(status), "")
    where = f"{clean(event.stage)}: " if event.stage else ""
    return ((where, "dim"), (clean(event.attributes.get(semconv.NOTE_TEXT, "")), style))


def _changed(event: Event) -> str:
    """A change of state in words."""
    snapshot = event.snapshot
    where = f"{clean(event.stage)} " if event.stage else ""
    reason = clean(event.attributes.get(semconv.WAIT_REASON, ""))
    if event.name == semconv.WAIT_STARTED:
        return f"{where}waits: {reason}"
    if event.name == semconv.WAIT_ENDED:
        return f"{where}waited {seconds(float(event.attributes.get(semconv.WAIT_DURATION, 0)))}: {reason}"  # type: ignore[arg-type]
    if event.name == semconv.STAGE_ENDED:
        stage = next((one for one in reversed(snapshot.stages) if one.path == event.stage), None)
        return f"{where}ended" if stage is None else where + _outcome(stage)
    return f"{where}started"


def _outcome(stage: StageSnapshot | Snapshot) -> str:
    text = f"{stage.status.value} in {seconds(stage.elapsed)}"
    if stage.progress.completed:
        text += f", {counted(stage.progress)}"
    return text + (f": {clean(stage.reason)}" if stage.reason else "")


def _over(snapshot: Snapshot) -> Line:
    return ((_outcome(snapshot), _STYLES.get(snapshot.status, "")),)


def _progress_words(snapshot: Snapshot) -> str:
    """A line of progress: the whole, and the stage that runs."""
    whole = snapshot.progress
    parts = [f"{whole.ratio:.0%}" if whole.ratio is not None else "", counted(whole)]
    here = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    if here is not None:
        parts.append(f"{clean(here.path)} {counted(here.progress)}".strip())
        whole = here.progress if whole.rate is None else whole
    parts.extend((paced(whole.rate, whole.unit), remaining(snapshot.progress, "-")))
    idle = idle_words(snapshot.idle, snapshot.stall_after)
    if snapshot.wait is not None:
        parts.append(f"waits {passed(snapshot.wait.elapsed)}: {clean(snapshot.wait.reason)}")
    elif idle is not None:
        parts.append(idle[0])
    parts.append(f"elapsed {passed(snapshot.elapsed)}")
    said = f" - {clean(snapshot.message)}" if snapshot.message else ""
    return "  ".join(part for part in parts if part) + said


# -- rows


class Branch(NamedTuple):
    """An operation of the tree."""

    depth: int
    snapshot: Snapshot


class Ended(NamedTuple):
    """A child that ended, under the name it is shown by."""

    label: str
    snapshot: Snapshot


class Step(NamedTuple):
    """A stage of the tree, and the part of its path that is not said above it."""

    snapshot: Snapshot
    stage: StageSnapshot
    name: str
    depth: int


class Look(NamedTuple):
    """How to show it: with which signs, at what monotonic time, and whether all of it."""

    glyphs: Glyphs
    now: float
    everything: bool = False


class Row(NamedTuple):
    """A line of the tree; where there is no room, the highest rank goes first. With `free` it has no columns."""

    rank: int
    depth: int
    icon: str = ""
    style: str = ""
    name: str = ""
    ratio: float | None = None
    bar: str = ""
    amount: str = ""
    rate: str = ""
    eta: str = ""
    elapsed: str = ""
    free: Line | None = None


TROUBLED, ROOT, RUNNING, CHILD, MESSAGE, BAD, COUNTS, PENDING, DONE = range(9)


def _family(operations: Sequence[Operation]) -> list[tuple[int, Operation]]:
    """Each after its parent, with its depth."""
    here = {operation.id for operation in operations}
    below: dict[str | None, list[Operation]] = defaultdict(list)
    for operation in operations:
        parent = operation.parent_id
        below[parent if parent in here and parent != operation.id else None].append(operation)
    order: list[tuple[int, Operation]] = []
    waiting = [(0, operation) for operation in reversed(below[None])]
    while waiting:
        depth, operation = waiting.pop()
        order.append((depth, operation))
        waiting.extend((depth + 1, child) for child in reversed(below.pop(operation.id, [])))
    return order


def _icon(status: Status, glyphs: Glyphs) -> str:
    icons = {
        Status.COMPLETED: glyphs.done,
        Status.FAILED: glyphs.failed,
        Status.LOST: glyphs.failed,
        Status.CANCELLED: glyphs.cancelled,
        Status.INTERRUPTED: glyphs.interrupted,
        Status.WAITING: glyphs.waiting,
        Status.SKIPPED: glyphs.dash,
    }
    return icons.get(status, glyphs.pending)


def _turning(idle: float, look: Look) -> str:
    """A sign that turns only while something gets done."""
    moving = look.glyphs.moving
    return moving[int(look.now * HERTZ) % len(moving)] if idle < 1.5 else look.glyphs.still


def rows_of(branch: Branch, label: str, over: Sequence[Ended], look: Look) -> list[Row]:
    """An operation, its stages, and the children of it that ended."""
    snapshot, depth = branch.snapshot, 2 * branch.depth
    troubled = snapshot.health_reason is not None
    later = CHILD if branch.depth else 0
    rows = [_head(snapshot, depth, label, look, TROUBLED if troubled else CHILD if later else ROOT)]
    rows.extend(_about(snapshot, depth + 1, look.glyphs, later))
    stages, hidden = _worth_showing(snapshot, everything=look.everything)
    for level, stage, name in _nested(stages):
        rows.extend(_stage_rows(Step(snapshot, stage, name, depth + 1 + level), look, later))
    if hidden:
        count = sum(number for number, _ in hidden.values())
        spent = sum(time for _, time in hidden.values())
        bad = sum(number for status, (number, _) in hidden.items() if status is not Status.COMPLETED)
        text = f"{count:,} more stages in {seconds(spent)}" + (f", {bad:,} of them not completed" if bad else "")
        rows.append(Row(DONE + later, depth, free=((f"{look.glyphs.done} {text}", "dim"),)))
    rows.extend(_over_rows(over, depth + 2, look))
    return rows


def _head(snapshot: Snapshot, depth: int, label: str, look: Look, rank: int) -> Row:
    glyphs = look.glyphs
    style, icon = "bold cyan", _turning(snapshot.idle, look)
    if snapshot.health_reason is not None:
        mild = snapshot.health in (Health.SLOW, Health.WAITING)
        style, icon = ("bold yellow" if mild else "bold red"), glyphs.trouble
    elif snapshot.wait is not None:
        style, icon = "bold yellow", glyphs.waiting
    if snapshot.attempt > 1:
        label += f" (attempt {snapshot.attempt})"
    progress = snapshot.progress
    return Row(
        rank,
        depth,
        icon,
        style,
        label,
        progress.ratio,
        style.replace("bold ", ""),
        counted(progress),
        paced(progress.rate, progress.unit),
        remaining(progress, glyphs.dash),
        passed(snapshot.elapsed),
    )


def _about(snapshot: Snapshot, depth: int, glyphs: Glyphs, later: int) -> list[Row]:
    """What is wrong, what it waits for, its counters, and its message where no stage has one."""
    rows: list[Row] = []
    if snapshot.health_reason is not None:
        badge = _BADGES.get(snapshot.health, snapshot.health.value.upper())
        colour = "yellow" if snapshot.health in (Health.SLOW, Health.WAITING) else "red"
        free = ((f" {badge} ", f"bold white on {colour}"), (f" {snapshot.health_reason}", colour))
        rows.append(Row(TROUBLED, depth, free=free))
    if snapshot.wait is not None and not any(stage.wait for stage in snapshot.stages):
        rows.append(_wait_row(snapshot, depth, later))
    if snapshot.cancel_requested:
        rows.append(Row(ROOT + later, depth, free=(("asked to stop", "bold yellow"),)))
    counts = tally(snapshot, glyphs)
    if counts:
        rows.append(Row(COUNTS + later, depth, free=counts))
    if snapshot.stage is None:
        rows.extend(_message(snapshot, snapshot, depth, later))
    return rows


def _wait_row(node: Snapshot | StageSnapshot, depth: int, later: int) -> Row:
    wait = node.wait
    assert wait is not None
    limit = f" of {passed(wait.overdue_after)}" if wait.overdue_after is not None else ""
    words = f"waits for {passed(wait.elapsed)}{limit}: {clean(wait.reason)}"
    return Row(RUNNING + later, depth, free=((words, "yellow"),))


def _message(snapshot: Snapshot, node: Snapshot | StageSnapshot, depth: int, later: int) -> list[Row]:
    limit = node.stall_after or snapshot.stall_after
    idle = None if node.wait is not None or snapshot.health_reason else idle_words(node.idle, limit)
    spans: list[Span] = [idle, ("  ", "")] if idle is not None else []
    if node.message:
        spans.append((clean(node.message), "dim"))
    return [Row(MESSAGE + later, depth, free=tuple(spans))] if spans else []


def tally(snapshot: Snapshot, glyphs: Glyphs) -> Line:
    """Outcomes, counts in other units, tokens and money: `1,099 ok, 3 failed, 20,400 tokens in`."""
    styles = {"failed": "red", "error": "red", "skipped": "yellow", "ok": "green"}
    spans = [(f"{amount(n)} {clean(key)}", styles.get(key, "")) for key, n in _numbers(snapshot.outcomes)]
    spans.extend(
        (amount(n, key) + ("" if key == "By" else f" {plural(key)}"), "") for key, n in _numbers(snapshot.counters)
    )
    for key, n in _numbers(snapshot.usage):
        what, _, currency = key.partition(".")
        words = f"{n:,.4g} {currency}" if what == "cost" else f"{amount(n)} {key.replace('_', ' ')}"
        spans.append((clean(words), ""))
    line: list[Span] = []
    for words, style in spans:
        line.extend(((glyphs.dot, "dim"),) if line else ())
        line.append((words, style or "dim"))
    return tuple(line)


def _numbers(values: Any) -> list[tuple[str, float]]:
    return [(key, value) for key, value in values.items() if isinstance(value, (int, float))]


def _worth_showing(
    snapshot: Snapshot, *, everything: bool
) -> tuple[list[StageSnapshot], dict[Status, tuple[int, float]]]:
    """The stages to show, and number and time of the rest by status."""
    hidden = {Status(status): (count, spent) for status, count, spent in snapshot.folded}
    if everything:
        return list(snapshot.stages), hidden
    ended = [stage for stage in snapshot.stages if stage.status.final and not stage.planned]
    bad = [stage for stage in ended if stage.status is not Status.COMPLETED]
    kept = {id(stage) for stage in (*ended[-NEWEST:], *bad[-NEWEST:])}
    shown = []
    for stage in snapshot.stages:
        if stage.planned or not stage.status.final or id(stage) in kept:
            shown.append(stage)
        else:
            count, spent = hidden.get(stage.status, (0, 0.0))
            hidden[stage.status] = (count + 1, spent + stage.elapsed)
    return shown, hidden


def _nested(stages: Sequence[StageSnapshot]) -> list[tuple[int, StageSnapshot, str]]:
    """Each after the stage around it, with its depth, and the part of its path that is not said above it."""
    below: dict[int | None, list[int]] = defaultdict(list)
    newest: dict[str, int] = {}
    for at, stage in enumerate(stages):
        around = stage.path[: -len(stage.name) - 1]
        below[newest.get(around)].append(at)
        newest[stage.path] = at
    order: list[tuple[int, StageSnapshot, str]] = []
    waiting = [(0, at) for at in reversed(below[None])]
    while waiting:
        depth, at = waiting.pop()
        stage = stages[at]
        order.append((min(depth, 8), stage, clean(stage.name if depth else stage.path)))
        waiting.extend((depth + 1, child) for child in reversed(below[at]))
    return order


def _stage_rows(step: Step, look: Look, later: int) -> list[Row]:
    snapshot, stage, name, depth = step
    glyphs, progress, status = look.glyphs, stage.progress, stage.status
    if status is Status.PENDING or status is Status.SKIPPED:
        expected = f"~{seconds(stage.expected)}" if stage.expected and status is Status.PENDING else ""
        word = "skipped" if status is Status.SKIPPED else ""
        rank = PENDING if status is Status.PENDING else DONE
        return [Row(rank + later, depth, _icon(status, glyphs), "dim", name, amount=word, elapsed=expected)]
    if status.final:
        rank, style = (DONE, "green") if status is Status.COMPLETED else (BAD, _STYLES.get(status, ""))
        row = Row(rank + later, depth, _icon(status, glyphs), style, name, amount=counted(progress))
        rows = [row._replace(elapsed=seconds(stage.elapsed))]
        if status is not Status.COMPLETED and stage.reason:
            rows.append(Row(BAD + later, depth + 1, free=((clean(stage.reason), style),)))
        return rows
    waits = stage.wait is not None
    style, icon = ("yellow", glyphs.waiting) if waits else ("cyan", _turning(stage.idle, look))
    late = stage.expected is not None and stage.elapsed > stage.expected
    rows = [
        Row(
            RUNNING + later,
            depth,
            icon,
            style,
            name,
            progress.ratio,
            style,
            counted(progress),
            paced(progress.rate, progress.unit),
            f"expected {passed(stage.expected)}" if late and stage.expected else remaining(progress, glyphs.dash),
            passed(stage.elapsed),
        )
    ]
    if waits:
        rows.append(_wait_row(stage, depth + 1, later))
    rows.extend(_message(snapshot, stage, depth + 1, later))
    return rows


def _over_rows(over: Sequence[Ended], depth: int, look: Look) -> list[Row]:
    """Children that ended: the newest, and how many before."""
    glyphs = look.glyphs
    shown = list(over) if look.everything else list(over)[-NEWEST:]
    rows: list[Row] = []
    if len(shown) < len(over):
        rows.append(Row(DONE, depth - 1, free=((f"{glyphs.done} {len(over) - len(shown)} more ended", "dim"),)))
    for label, child in shown:
        rank, style = (DONE, "green") if child.status is Status.COMPLETED else (BAD, _STYLES.get(child.status, ""))
        row = Row(rank, depth, _icon(child.status, glyphs), style, label, amount=counted(child.progress))
        rows.append(row._replace(elapsed=seconds(child.elapsed)))
    return rows


# -- from rows to lines


class Sheet:
    """Lays rows out in columns; a column never gets narrower while something is shown, so nothing jitters."""

    def __init__(self, glyphs: Glyphs) -> None:
        """Nothing laid out yet."""
        self._glyphs = glyphs
        self._widths: dict[str, int] = {}

    def lines(self, rows: Sequence[Row], width: int, height: int, more: int = 0) -> list[Line]:
        """At most `height` lines of at most `width` cells; what there is besides is a number."""
        if not rows:
            self._widths.clear()
            return []
        shown = list(rows)
        if len(rows) + bool(more) > height:
            best = sorted(range(len(rows)), key=lambda at: (rows[at].rank, at))[: height - 1]
            shown = [rows[at] for at in sorted(best)]
            more += sum(row.free is None for row in rows) - sum(row.free is None for row in shown)
        columns = self._columns(shown, width)
        lines = [self._line(row, columns, width) for row in shown]
        if more:
            lines.append(((f"+ {more:,} more", "dim"),))
        return lines

    def _columns(self, rows: Sequence[Row], width: int) -> dict[str, int]:
        """How wide each column is; on a narrow terminal some are left out."""
        from rich.cells import cell_len

        widths = self._widths
        for row in rows:
            if row.free is None:
                for column in ("amount", "rate", "eta", "elapsed"):
                    widths[column] = max(widths.get(column, 0), cell_len(getattr(row, column)))
                widths["name"] = max(widths.get("name", 12), 2 * row.depth + 2 + cell_len(row.name))
        columns = dict(widths)
        columns["name"] = min(columns.get("name", 12), max(12, width * 2 // 5))
        columns["percent"] = 4
        for column in ("rate", "eta", "amount", "percent", "elapsed"):
            if self._rest(columns, width) >= 10:
                break
            columns[column] = 0
        columns["bar"] = max(0, min(40, self._rest(columns, width)))
        return columns

    @staticmethod
    def _rest(columns: dict[str, int], width: int) -> int:
        return width - 1 - sum(size + 2 for size in columns.values() if size)

    def _line(self, row: Row, columns: dict[str, int], width: int) -> Line:
        indent = "  " * row.depth
        if row.free is not None:
            return self._fit(((f"{indent}  ", ""), *row.free), width - 1)
        faint, top = row.style == "dim", row.depth == 0
        name = ((f"{indent}{row.icon} ", row.style), (row.name, "dim" if faint else "bold" if top else ""))
        cells: list[Span] = [*self._fit(name, columns["name"], pad=True), ("  ", "")]
        if columns["bar"]:
            cells.extend(self._bar(row, columns["bar"]))
            cells.append(("  ", ""))
        percent = f"{int(row.ratio * 100)}%" if row.ratio is not None and row.bar else ""
        for column, words, style in (
            ("percent", percent, "bold" if top else ""),
            ("amount", row.amount, "dim" if faint else ""),
            ("rate", row.rate, "dim"),
            ("eta", row.eta, "magenta"),
            ("elapsed", row.elapsed, "dim"),
        ):
            size = columns.get(column, 0)
            if size:
                cells.extend(((words.rjust(size), style), ("  ", "")))
        return self._fit(cells, width - 1)

    def _bar(self, row: Row, size: int) -> Line:
        if row.ratio is None or not row.bar:
            return ((" " * size, ""),)
        glyphs = self._glyphs
        halves = int(row.ratio * size * 2)
        full, half = divmod(halves, 2)
        filled = glyphs.heavy * full + (glyphs.half if half and full < size else "")
        return ((filled, row.bar), (glyphs.light * (size - len(filled)), "bright_black"))

    def _fit(self, spans: Iterable[Span], size: int, *, pad: bool = False) -> Line:
        """The spans in so many cells, cut with a sign if need be."""
        from rich.cells import cell_len, set_cell_size

        line: list[Span] = []
        left = size
        for words, style in spans:
            taken = cell_len(words)
            if taken > left:
                if left > 0:
                    line.append((set_cell_size(words, left - 1) + self._glyphs.cut, style))
                left = 0
                break
            line.append((words, style))
            left -= taken
        if pad and left > 0:
            line.append((" " * left, ""))
        return tuple(line)


# -- the summary


def closing(snapshot: Snapshot, label: str, look: Look, width: int = 100) -> list[Line]:
    """What became of an operation: status, time, progress, its stages with their share of the time, results."""
    glyphs = look.glyphs
    style = _STYLES.get(snapshot.status, "")
    head: list[Span] = [(f"{_icon(snapshot.status, glyphs)} {label} ", f"bold {style}".strip())]
    head.append((f"{snapshot.status.value} after {seconds(snapshot.elapsed)}", style))
    percentage = snapshot.progress.ratio
    if snapshot.status is not Status.COMPLETED and percentage is not None:
        head.append((f" at {int(percentage * 100)}%", style))
    if snapshot.progress.completed:
        head.append((f"  {counted(snapshot.progress)}", ""))
    if snapshot.reason:
        head.append((f": {clean(snapshot.reason)}", style))
    lines: list[Line] = [tuple(head), *_stage_times(snapshot, glyphs, 64 if look.everything else 15)]
    counts = tally(snapshot, glyphs)
    if counts:
        lines.append((("    ", ""), *counts))
    pairs = [f"{clean(key)} {_shown(value)}" for key, value in snapshot.result.items()]
    lines.extend((("    ", ""), (words, "")) for words in _filled(pairs, glyphs.dot, width - 4))
    return lines


def _filled(parts: Sequence[str], dot: str, width: int) -> list[str]:
    """As many parts on a line as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(dot) + len(part) <= width:
            lines[-1] += dot + part
        else:
            lines.append(part)
    return lines


def _shown(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return amount(value)
    return clean(", ".join(map(str, value)) if isinstance(value, tuple) else value)


def _stage_times(snapshot: Snapshot, glyphs: Glyphs, room: int) -> list[Line]:
    """A line for each path: how often it ran, how long, and its share of the whole."""
    ran: dict[str, list[StageSnapshot]] = {}
    for stage in snapshot.stages:
        if stage.started_at is not None:
            ran.setdefault(stage.path, []).append(stage)
    lines: list[Line] = []
    names = {path: clean(path) + (f" ({len(runs)} times)" if len(runs) > 1 else "") for path, runs in ran.items()}
    wide = min(48, max((len(names[path]) for path in list(ran)[:room]), default=0))
    for path, runs in list(ran.items())[:room]:
        worst = next((one.status for one in runs if one.status is not Status.COMPLETED), Status.COMPLETED)
        spent = sum(one.elapsed for one in runs)
        share = min(1.0, spent / snapshot.elapsed) if snapshot.elapsed else 0.0
        lines.append(
            (
                ("  ", ""),
                (f"{_icon(worst, glyphs)} ", _STYLES.get(worst, "")),
                (names[path].ljust(wide), ""),
                (f"{seconds(spent):>10}  {share:4.0%}  ", ""),
                (glyphs.share * max(1, round(share * 20)), "cyan"),
            )
        )
        if len(runs) == 1 and runs[0].progress.completed:
            gap = " " * (22 - max(1, round(share * 20)))
            lines[-1] += ((gap + counted(runs[0].progress), "dim"),)
        if worst is not Status.COMPLETED:
            reason = next((one.reason for one in runs if one.reason), None)
            if reason and reason != snapshot.reason:
                lines.append((("      ", ""), (clean(reason), _STYLES.get(worst, ""))))
    rest = Counter({status: count for status, count, _ in snapshot.folded})
    for runs in list(ran.values())[room:]:
        rest.update(one.status.value for one in runs)
    if rest:
        words = glyphs.dot.join(f"{count:,} {status}" for status, count in rest.items())
        lines.append((("    ", ""), (f"+ {sum(rest.values()):,} more stages: {words}", "dim")))
    return lines
