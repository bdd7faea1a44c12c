"""An exception as OpenTelemetry records it: type, message, and the text of its traceback.

An exception that passes through nested stages is recorded on the span of each. So the cost of one record is bounded:
a long traceback is cut to its outer and inner frames, a long chain to its root and newest exceptions, a large group to
its first members. The text of a frame is formatted once for each place in the code, and kept.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.live import redaction
from otel_progress.live.guard import drops
from otel_progress.live.outcome import message, words
from otel_progress.model import values
from otel_progress.model.origin import of_the_job

if TYPE_CHECKING:
    from types import CodeType, TracebackType

    from otel_progress.model.redact import Redact

STACKTRACE: Final = 16_384
"""Characters of a stack trace."""
OUTER: Final = 24
"""The outermost frames of a traceback that are shown."""
INNER: Final = 48
"""The innermost frames of a traceback that are shown."""
ROOTS: Final = 4
"""The first exceptions of a chain that are shown."""
NEWEST: Final = 8
"""The last exceptions of a chain that are shown."""
LINKS: Final = 10_000
"""Exceptions of a chain that are followed."""
MEMBERS: Final = 15
"""Exceptions of a group and its nested groups that are shown."""
DEPTH: Final = 8
"""The depth to which nested groups are shown."""
MESSAGE: Final = 4_096
"""Characters of a message within a stack trace."""
NOTES: Final = 8
"""Notes of an exception that are shown."""
REPEATED: Final = 3
"""How often a line of a recursion is shown."""
PLACES: Final = 2_048
"""Places in the code whose text is kept."""
MESSAGES: Final = 64
"""Messages whose redacted text is kept."""

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"

# The attributes of BaseException itself; a class may hide them behind properties with any effect.
_traceback: Final = BaseException.__dict__["__traceback__"].__get__
_cause: Final = BaseException.__dict__["__cause__"].__get__
_context: Final = BaseException.__dict__["__context__"].__get__
_hides_context: Final = BaseException.__dict__["__suppress_context__"].__get__

_places: Final[dict[tuple[int, int], tuple[CodeType, Redact, str]]] = {}
"""The text of a frame, by code and instruction; the code object is kept so that its id stays unique."""
_known: Final[dict[tuple[Redact, int, int], str]] = {}
"""Redacted messages, by hash and length, so that no secret stays in memory."""


def attributes(error: BaseException) -> dict[str, str]:
    """The attributes of the span event, bounded and encodable."""
    return {
        s.EXCEPTION_TYPE: type_name(error),
        s.EXCEPTION_MESSAGE: (words(error) or "").removeprefix(type(error).__name__).removeprefix(": "),
        s.EXCEPTION_STACKTRACE: values.text(stacktrace(error), drops, STACKTRACE + 3),
    }


def type_name(error: BaseException) -> str:
    """The qualified name of the class, without `builtins`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def stacktrace(error: BaseException) -> str:
    """What the interpreter would print, in at most `STACKTRACE` characters and 3; omissions are marked.

    Frames and messages are redacted one by one, so that an exception that passes through many spans is redacted once.
    """
    text = _Writer()
    try:
        text.chain(error, 0)
    except Exception as broken:
        if of_the_job(broken):
            raise
        text.put(_said(error), 0)
    result = "".join(text.parts)
    if len(result) <= STACKTRACE:
        return result
    drops.add(s.DROP_TEXT)
    head, tail = result[: STACKTRACE // 2], result[-STACKTRACE // 2 :]
    whole_head, whole_tail = head.rpartition("\n")[0], tail.partition("\n")[2]
    return f"{whole_head or head}\n…\n{whole_tail or tail}"  # no line is cut in two, nor a secret in it


class _Writer:
    """Writes the text, in the format of `traceback.format_exception`."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._room = MEMBERS

    def put(self, text: str, depth: int, mark: str = "|") -> None:
        """Add text; inside a group each line has a margin."""
        if depth == 0:
            self.parts.append(text)
        else:
            margin = f"{'  ' * depth}{mark} "
            self.parts += [margin + line for line in text.splitlines(keepends=True)]

    def chain(self, error: BaseException, depth: int) -> None:
        """Write an exception after those that led to it, the root first."""
        links = _chain(error)
        left_out = len(links) - ROOTS - NEWEST
        for position, (one, why) in enumerate(reversed(links)):
            if left_out > 0 and position == ROOTS:
                self.put(f"\n… {left_out} exceptions are left out …\n\n", depth)
            if position < ROOTS or position >= len(links) - NEWEST:
                self._one(one, depth)
                if why:
                    self.put(f"\n{why}\n\n", depth)

    def _one(self, error: BaseException, depth: int) -> None:
        members = _members(error)
        outermost = members is not None and depth == 0
        if outermost:
            depth = 1
        frames = _frames(_traceback(error))
        if frames:
            kind = "Traceback" if members is None else "Exception Group Traceback"
            self.put(f"{kind} (most recent call last):\n", depth, "+" if outermost else "|")
        for frame in frames:
            self.put(frame, depth)
        self.put(_said(error), depth)
        if members is not None:
            self._members(members, depth)

    def _members(self, members: tuple[BaseException, ...], depth: int) -> None:
        shown = 0
        for member in members if depth <= DEPTH else ():
            if self._room <= 0:
                break
            self._room -= 1
            shown += 1
            self._rule(str(shown), depth, first=shown == 1)
            self.chain(member, depth + 1)
        if shown < len(members):
            self._rule("…", depth, first=shown == 0)
            self.put(f"and {len(members) - shown} more exceptions\n", depth + 1)
        self.parts.append(f"{'  ' * (depth + 1)}+------------------------------------\n")

    def _rule(self, name: str, depth: int, *, first: bool) -> None:
        start = f"{'  ' * depth}+-" if first else "  " * (depth + 1)
        self.parts.append(f"{start}+---------------- {name} ----------------\n")


def _chain(error: BaseException) -> list[tuple[BaseException, str]]:
    """The exception and those that led to it, the newest first, each with how it led to the one before."""
    links, seen, why = [(error, "")], {id(error)}, ""
    while len(links) < LINKS:
        above = _cause(error)
        why = _CAUSE
        if above is None and not _hides_context(error):
            above, why = _context(error), _CONTEXT
        if above is None or id(above) in seen:
            break
        seen.add(id(above))
        links.append((above, why))
        error = above
    return links


def _members(error: BaseException) -> tuple[BaseException, ...] | None:
    """The exceptions of a group, including those of the backport for Python 3.10; None if it is no group."""
    if not any(cls.__name__ == "BaseExceptionGroup" for cls in type(error).__mro__):
        return None
    try:
        members = getattr(error, "exceptions", ())
    except Exception as broken:
        if of_the_job(broken):
            raise
        return ()
    return members if type(members) is tuple else ()


def _frames(trace: TracebackType | None) -> list[str]:
    """The frames of a traceback as texts."""
    outer, rest = _first(trace, OUTER)
    ahead, left_out = _first(rest, INNER)[1], 0
    while ahead is not None and rest is not None:  # to the end; nothing else tells how long it is
        ahead, rest = ahead.tb_next, rest.tb_next
        left_out += 1
    found = list(_unrepeated(outer))
    if left_out:
        found.append(f"  … {left_out} frames are left out …\n")
    found += _unrepeated(_first(rest, INNER)[0])
    return found


def _first(trace: TracebackType | None, most: int) -> tuple[list[TracebackType], TracebackType | None]:
    """The first `most` frames of a traceback, and the rest."""
    found: list[TracebackType] = []
    while trace is not None and len(found) < most:
        found.append(trace)
        trace = trace.tb_next
    return found, trace


def _unrepeated(traces: list[TracebackType]) -> Iterator[str]:
    """The frames as texts; a line that recurs is shown a few times, then counted."""
    for _, same in itertools.groupby(traces, lambda trace: (id(trace.tb_frame.f_code), trace.tb_lineno)):
        frames = list(same)
        yield from map(_frame, frames[:REPEATED])
        more = len(frames) - REPEATED
        if more > 0:
            yield f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n"


def _frame(trace: TracebackType) -> str:
    """The file, the line, and the source of a frame."""
    code = trace.tb_frame.f_code
    key = id(code), trace.tb_lasti
    known = _places.get(key)
    if known is not None and known[0] is code and known[1] is redaction.masked:
        return known[2]
    try:
        text = "".join(traceback.format_tb(trace, 1))
    except Exception as broken:
        if of_the_job(broken):
            raise
        text = f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n'
    masked = redaction.masked
    text = masked("stack", text)
    if len(_places) >= PLACES:
        _places.clear()
    _places[key] = code, masked, text
    return text


def _said(error: BaseException) -> str:
    """The class and the message, with the notes."""
    if isinstance(error, SyntaxError):
        try:
            return _redacted(_of_syntax(error)) + _notes(error)
        except Exception as broken:
            if of_the_job(broken):
                raise  # else it is formatted like other exceptions
    said = _redacted(message(error, MESSAGE + redaction.MARGIN + 1))
    return f"{type_name(error)}: {said}\n{_notes(error)}" if said else f"{type_name(error)}\n{_notes(error)}"


def _of_syntax(error: SyntaxError) -> str:
    """The invalid line, with the position; made of a copy, as the causes of the error would be formatted, too."""
    copy = SyntaxError(*error.args)
    text = "".join(traceback.format_exception_only(SyntaxError, copy))
    return text.replace("SyntaxError:", f"{type_name(error)}:")


def _redacted(said: str) -> str:
    """A redacted message, of at most `MESSAGE` characters."""
    key = redaction.masked, hash(said), len(said)
    known = _known.get(key)
    if known is None:
        known = redaction.text("exception", said, MESSAGE)
        if len(_known) >= MESSAGES:
            _known.clear()
        _known[key] = known
    return known


def _notes(error: BaseException) -> str:
    """The notes of the exception, one a line."""
    try:
        notes: Any = getattr(error, "__notes__", None)
    except Exception as broken:
        if of_the_job(broken):
            raise
        return ""
    if type(notes) is not list:
        return ""
    lines = [redaction.text("exception", note) for note in notes[:NOTES]]
    if len(notes) > NOTES:
        lines.append(f"… {len(notes) - NOTES} more notes")
    return "".join(f"{line}\n" for line in lines)
