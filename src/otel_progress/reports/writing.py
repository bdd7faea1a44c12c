"""Writes a report: the format by name or by the suffix of a file, and the file in one step."""

from __future__ import annotations

import errno
import os
import secrets
import select
from collections.abc import Callable
from pathlib import Path
from typing import Final

from otel_progress.errors import InvalidArgument
from otel_progress.reports import formats
from otel_progress.reports.formats import Report
from otel_progress.reports.html import html, require

__all__ = ["FORMATS", "SUFFIXES", "format_of", "render", "require", "write"]

FORMATS: Final[dict[str, Callable[[Report], str]]] = {
    "text": formats.text,
    "json": formats.as_json,
    "csv": formats.as_csv,
    "html": html,
    "markdown": formats.markdown,
}
SUFFIXES: Final = {
    ".txt": "text",
    ".json": "json",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
}


PATIENCE: Final = 5.0
"""Seconds that a device or a pipe may take nothing."""


def format_of(path: str | os.PathLike[str] | None, given: str | None = None) -> str:
    """The format of a file: as given, else by its suffix; text without a file.

    Raises:
        InvalidArgument: if the suffix is unknown, or belongs to another format than the given one.
    """
    if given is not None and given not in FORMATS:
        raise InvalidArgument(f"there is no format {given!r}; there are {', '.join(FORMATS)}")
    if path is None:
        return given or "text"
    suffix = Path(path).suffix.lower()
    by_suffix = SUFFIXES.get(suffix)
    if given is None and by_suffix is None:
        known = ", ".join(SUFFIXES)
        raise InvalidArgument(
            f"the name of the file must end in one of {known}, or name a format; not {os.fspath(path)!r}"
        )
    if given is not None and by_suffix is not None and by_suffix != given:
        raise InvalidArgument(
            f"{os.fspath(path)} is named like {by_suffix}, but the format is {given}: change one of them"
        )
    return given or by_suffix or "text"


def render(report: Report, form: str) -> str:
    """The report in a format.

    Raises:
        MissingDependency: if HTML is asked for, and Jinja2 is not installed.
    """
    return FORMATS[form](report)


def write(report: Report, path: str | os.PathLike[str], form: str | None = None) -> Path:
    """Write a report to a file, which is replaced once the report is complete; returns its path.

    Raises:
        InvalidArgument: if the format is not known.
        MissingDependency: if HTML is asked for, and Jinja2 is not installed.
        OSError: if the file can't be written; what was there stays. A pipe that nobody reads is such a file.
    """
    text = render(report, format_of(path, form))
    target = Path(os.path.abspath(path))
    if target.exists() and not target.is_file():  # a device or a pipe is written to, a folder refuses
        _send(target, text.encode("utf-8", "replace"))
        return target
    target = target.resolve()
    draft = target.with_name(f".{target.name[:64]}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "replace"))
        if target.exists():
            os.chmod(draft, target.stat().st_mode & 0o777)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
    return target


def _send(target: Path, data: bytes) -> None:
    """Write to a device or a pipe, which must take some of it every few seconds."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(target, os.O_WRONLY | nonblocking | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads from this pipe") from None
        raise
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                if not select.select([], [descriptor], [], PATIENCE)[1]:
                    raise TimeoutError(errno.ETIMEDOUT, "nobody reads from it") from None
    finally:
        os.close(descriptor)
