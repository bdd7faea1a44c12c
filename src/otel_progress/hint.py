"""One line on stderr, where nobody watches: how the operations of this program can be seen.

A library may have started the operation, and its users did not ask for us. So the line is for programs of one's own on
a terminal, once they have run for a moment; not for tests, workers, and commands of installed packages.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from typing import Any, Final

from otel_progress import launch, settings
from otel_progress.live import hooks, redaction
from otel_progress.live.diagnosis.packages import is_script, package_of
from otel_progress.live.registry import registry
from otel_progress.model.command_line import bounded, shell_line, without_secrets

SECONDS: Final = 2.0
"""Seconds from the first operation to the line; short tools stay silent."""
LENGTH: Final = 100
"""The most characters of the command in the line."""
_TESTS: Final = frozenset({"_pytest", "unittest", "doctest"})


def later() -> None:
    """Say it after a moment, if it is meant for this program; the first operation calls this in its thread."""
    if is_unwatched() and _is_on_a_terminal() and not settings.is_quiet() and _is_own_process() and _is_own_program():
        threading.Thread(target=_wait, name="otel-progress-hint", daemon=True).start()


def _wait() -> None:
    threading.Event().wait(SECONDS)
    say()


def say() -> None:
    """Write the line, unless somebody watches by now."""
    try:
        if is_unwatched():
            sys.stderr.write(f"{line()}\n")
            sys.stderr.flush()
    except Exception:
        return  # that terminal is gone


def is_unwatched() -> bool:
    """Whether no pipeline, handler or listener takes events, and no SDK the spans."""
    return not hooks.wanted and hooks.tracing.absent()


def line() -> str:
    """What to do to see the operations."""
    missing = [name for name, module in (("monitor", "starlette"), ("console", "rich")) if not _is_installed(module)]
    install = f"pip install 'otel-progress[{','.join(missing)}]', then " if missing else ""
    if hasattr(signal, "sigtimedwait"):
        way = f"otel-progress run -f -- {_command()}"
    else:
        way = f"otel-progress monitor, and start this program with {settings.CONFIGURE}=true"
    return (
        f"otel-progress: nobody watches the operations of this program. To see them: {install}{way}  "
        f"({settings.QUIET}=1 hides this line)"
    )


def _command() -> str:
    """The command line that started this program, short and without secrets."""
    given = launch.command()
    if not given or launch.is_code():
        return "COMMAND"
    shown = shell_line(without_secrets(bounded(("python", *given[1:])), redaction.text))
    return shown if len(shown) <= LENGTH else "COMMAND"


def _is_installed(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _is_on_a_terminal() -> bool:
    """Whether a person reads stderr, and types nothing at an interpreter's prompt."""
    return settings.has_terminal() and settings.attended() and not hasattr(sys, "ps1")


def _is_own_process() -> bool:
    """Whether this is no worker that multiprocessing started, and no fork."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    return registry.pid == os.getpid() and (multiprocessing is None or multiprocessing.parent_process() is None)


def _is_own_program() -> bool:
    """Whether the program itself, or code of its own around the operation, is installed nowhere; no tests run."""
    main = sys.modules.get("__main__")
    own = main is not None and _is_own(str(getattr(main, "__name__", "")), str(getattr(main, "__file__", None) or ""))
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _TESTS:
            return False
        own = own or _is_own(module, frame.f_code.co_filename)
        frame = frame.f_back  # type: ignore[assignment]
    return own


def _is_own(module: str, path: str) -> bool:
    top = module.partition(".")[0]
    known = top == "otel_progress" or top in sys.stdlib_module_names or path.startswith("<frozen ")
    return not known and package_of(path) is None and not is_script(path)
