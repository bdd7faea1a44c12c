"""Lines of code as text: short file names, and source lines with literals masked, as they may hold secrets."""

from __future__ import annotations

import linecache
import os
import re
import stat
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final, NamedTuple

from otel_progress.live.diagnosis import packages

LINE_LENGTH: Final = 120
"""Characters shown of a source line, and of a file's name."""
NAME_LENGTH: Final = 80
"""Characters shown of a function's name."""
FILE_SIZE: Final = 1 << 20
"""Bytes; lines of larger files are not shown."""

LIBRARY_FRAMES: Final = 6
"""Frames shown of a stack without a frame of the user."""

_OURS: Final = str(Path(__file__).parents[2]) + os.sep
_STDLIB: Final = str(Path(os.__file__).parent) + os.sep
_TYPED_IN: Final = ("<stdin>", "<string>", "<ipython")

_STRINGS: Final = r'"(?:\\.|[^"\\\n])*"?' + "|" + r"'(?:\\.|[^'\\\n])*'?"
_LITERALS: Final = re.compile(
    r'#[^\n]*|"""(?:\\.|[^\\])*?(?:"""|\Z)' + "|" + r"'''(?:\\.|[^\\])*?(?:'''|\Z)" + "|" + _STRINGS, re.DOTALL
)
_NUMBERS: Final = re.compile(r"(?<![\w.])\d{5,}")


class File(NamedTuple):
    """How a file of code is shown, and whose it is."""

    name: str
    library: bool
    """Of the standard library, or an installed package that doesn't use this library; else it is the user's."""
    ours: bool = False


class Spot(NamedTuple):
    """A line of code that is running."""

    code: CodeType
    line: int

    @property
    def file(self) -> File:
        """Its file."""
        return file(self.code.co_filename)

    @property
    def mine(self) -> bool:
        """Whether it is the user's code."""
        known = self.file
        return not known.library and not known.ours

    @property
    def generated(self) -> bool:
        """Whether it is code without a file, as of `exec`, and not frozen into Python."""
        path = self.code.co_filename
        return path.startswith("<") and not path.startswith("<frozen ")

    def __str__(self) -> str:
        """As `worker.py:12 in fetch`."""
        return f"{self.file.name}:{self.line} in {printable(self.code.co_name, NAME_LENGTH)}"

    def source(self) -> str:
        """Its source line, with literals masked; empty if it can't be read.

        Comments are removed. String literals and numbers of five digits or more are shown as "…": any of them may be a
        password, a key, or an address.
        """
        lines = _lines(self.code.co_filename)
        return printable(lines[self.line - 1].strip(), LINE_LENGTH) if 0 < self.line <= len(lines) else ""


def spot(frame: FrameType) -> Spot:
    """The line of a frame; it does not keep the frame."""
    return Spot(frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno)


def printable(text: str, limit: int) -> str:
    """The text on one line, with at most `limit` characters, all of them printable."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


@lru_cache(maxsize=2048)
def file(path: str) -> File:
    """How a code object's file is shown: relative to `sys.path` or the working directory; and whose it is."""
    if path.startswith(_OURS):
        return File("otel_progress", library=True, ours=True)
    if path.startswith("<"):
        frozen = path.removeprefix("<frozen ").rstrip(">").replace(".", "/") + ".py"
        typed_in = path.startswith(_TYPED_IN)
        return File(printable(frozen if path.startswith("<frozen ") else path, LINE_LENGTH), not typed_in)
    package = packages.PACKAGES.match(path)
    if package is not None:
        return File(_shown(path[package.end() :]), library=packages.package_of(path) not in packages.using)
    if path.startswith(_STDLIB):
        return File(_shown(path[len(_STDLIB) :]), library=True)
    return File(_shown(_relative(path)), library=packages.is_script(path))


def forget() -> None:
    """Forget whose files are whose, as more packages are known to be the user's."""
    file.cache_clear()


def _shown(path: str) -> str:
    name = path.replace(os.sep, "/")
    return printable(name if len(name) <= LINE_LENGTH else "…" + name[1 - LINE_LENGTH :], LINE_LENGTH)


def _relative(path: str) -> str:
    """The path from the nearest folder of `sys.path` or the working directory, else its last two parts."""
    if not os.path.isabs(path):
        return path
    try:
        folders = [os.getcwd()]
    except OSError:
        folders = []
    folders += [folder for folder in tuple(sys.path) if type(folder) is str]
    around = [folder.rstrip(os.sep) for folder in folders if path.startswith(folder.rstrip(os.sep) + os.sep)]
    longest = max(around, key=len, default="")
    return path[len(longest) + 1 :] if longest else os.sep.join(path.split(os.sep)[-2:])


@lru_cache(maxsize=64)
def _lines(path: str) -> tuple[str, ...]:
    """The lines of a source file, masked; none if it is not a plain file, or a large one."""
    # The parts of linecache that would ask a loader are left out: a loader may be the user's code.
    known = linecache.cache.get(path)
    if known is not None and len(known) == 4:
        text = "".join(known[2])
    else:
        try:
            about = os.stat(path)
            if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_SIZE:
                return ()
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return ()
    if len(text) > FILE_SIZE:
        return ()
    return tuple(_NUMBERS.sub("…", _LITERALS.sub(_mask, text)).split("\n"))


def _mask(found: re.Match[str]) -> str:
    literal = found.group()
    if literal.startswith("#"):
        return ""
    quote = literal[:3] if literal.startswith(('"""', "'''")) else literal[0]
    return quote + "…" + "\n" * literal.count("\n") + quote


def told(spots: Sequence[Spot], most: int) -> list[str]:
    """The lines for a stack, innermost first: the user's frames with their source, those of libraries condensed.

    At most `most` frames are shown; the middle is cut out.
    """
    entries = _entries(spots)
    if not entries:
        entries, most = [[str(found)] for found in spots], min(most, LIBRARY_FRAMES)
    cut = len(entries) - most
    if cut > 0:
        head = most - most // 3
        entries[head : head + cut] = [[f"… {cut} frames left out …"]]
    return [line for entry in entries for line in entry]


def _entries(spots: Sequence[Spot]) -> list[list[str]]:
    """The lines for each frame of the user: position, source, and the libraries that it called."""
    entries: list[list[str]] = []
    before: Spot | None = None
    libraries: list[Spot] = []
    same = 0
    for found in spots:
        if not found.mine:
            libraries.append(found)
            continue
        same = same + 1 if found == before and not libraries else 0
        if same > 1:
            entries[-1] = [f"… the same {same} times more"]
        elif same:
            entries.append(["… the same once more"])
        else:
            source = found.source()
            entry = [str(found), *(["    " + source] if source else [])]
            if libraries:
                entry.append("    " + _libraries(libraries, "in" if before is None else "through"))
            entries.append(entry)
        before = found
        libraries = []
    return entries


def _libraries(spots: Sequence[Spot], word: str) -> str:
    """Frames of libraries as one line."""
    if len(spots) == 1:
        return f"{word} {spots[0]}"
    more = f" (+{len(spots) - 2})" if len(spots) > 2 else ""
    return f"{word} {spots[0]}, called from {spots[-1]}{more}"
