"""The Pythons that a command runs, and what keeps us out of them: then nothing of them is seen, and a line says why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from otel_progress import procfs
from otel_progress.settings import RUN

FIRST: Final = 2.0
"""Seconds after the start of the first look; the next ones come after twice as long each time."""
SECONDS: Final = 10.0
"""The longest answer of a Python that is asked."""
MOST: Final = 16
"""Pythons that are asked, at most."""
_NAME: Final = re.compile(r"(python|pypy)[\d.]*w?(\.exe)?")
_ALONE: Final = {
    "I": "isolated mode",
    "E": "without the variables of Python",
    "S": "without the module site",
}
"""Options of Python that keep us out."""
_HAS_US: Final = "import importlib.util, sys; sys.exit(importlib.util.find_spec('otel_progress') is None)"


class Python(NamedTuple):
    """A Python that runs: its path, and the option that keeps us out of it, if any."""

    path: str
    option: str | None


def of(arguments: Sequence[str], cwd: str | None, path: str | None) -> Python | None:
    """The Python that a process with these arguments is; None if it is none, or nobody knows where.

    Args:
        arguments: its command line.
        cwd: its working directory, if that is known.
        path: where it looks for programs.
    """
    if not arguments or not _NAME.fullmatch(os.path.basename(arguments[0])):
        return None
    program = arguments[0]
    if os.path.dirname(program):
        found = program if cwd is None else os.path.join(cwd, program)
    else:
        found = shutil.which(program, path=path) or ""
    return Python(found, _option(arguments[1:])) if os.path.isabs(found) else None


def _option(arguments: Sequence[str]) -> str | None:
    """The first option that keeps us out, of those before the program."""
    words = iter(arguments)
    for word in words:
        if not re.match("-[A-Za-z]", word):
            return None
        for at, letter in enumerate(word[1:], 1):
            if letter in _ALONE:
                return letter
            if letter in "cm":
                return None
            if letter in "WX":
                if at == len(word) - 1:
                    next(words, None)
                break
    return None


class Pythons:
    """Looks for the Pythons of a command while nothing is heard of it."""

    def __init__(self, mark: str, environ: Mapping[str, str], is_heard: Callable[[], bool]) -> None:
        """Prepare.

        Args:
            mark: the value of `RUN` in the environment of each process of the command.
            environ: the environment of the command, but for what we add.
            is_heard: whether anything was heard of it.
        """
        self._mark, self._environ, self._is_heard = mark, environ, is_heard
        self._asked: dict[Python, str] = {}
        self._over = threading.Event()
        self.found = ""
        """What keeps us out, once it was seen."""

    def watch(self, say: Callable[[str], None]) -> None:
        """Look again and again in a thread; `say` hears once why nothing can be seen."""
        threading.Thread(target=self._watch, args=(say,), name="otel-progress-pythons", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _watch(self, say: Callable[[str], None]) -> None:
        pause = FIRST
        while not self._over.wait(pause) and not self._is_heard():
            pause *= 2
            self.found = self.why()
            if self.found:
                say(f"nothing can be seen of this command: {self.found}")
                return

    def why(self) -> str:
        """What keeps us out of all the Pythons that run now; empty if nothing does, or none runs."""
        found = {
            python
            for process in procfs.with_variable(RUN, self._mark)
            if (python := of(*procfs.command(process.pid), self._environ.get("PATH"))) is not None
        }
        answers = [self._ask(python) for python in sorted(found)[:MOST]]
        return answers[0] if answers and all(answers) else ""

    def _ask(self, python: Python) -> str:
        if python not in self._asked:
            self._asked[python] = keeps_out(python, self._environ)
        return self._asked[python]


def keeps_out(python: Python, environ: Mapping[str, str]) -> str:
    """What keeps us out of a Python; empty if nothing does, or it does not answer."""
    if python.option is not None:
        return (
            f"{python.path} was started with -{python.option} ({_ALONE[python.option]}), so only operations of its own "
            "code are reported"
        )
    try:
        done = subprocess.run(  # noqa: S603  # the same Python that the command runs
            [python.path, "-c", _HAS_US],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{python.path} has no otel-progress: install it there, too" if done.returncode == 1 else ""
