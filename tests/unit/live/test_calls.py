"""Telemetry never breaks the job: what leaves a public call is the job's own exception, or a documented one."""

from __future__ import annotations

import ast
import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from benchmarks.attacks.programs import every

import otel_progress as progress
from otel_progress import InvalidArgument, semconv
from otel_progress.live import guard, misuse, preload
from otel_progress.live.boundary import public
from otel_progress.live.guard import drops
from otel_progress.testing import Capture

PACKAGE = Path(progress.__file__).parent


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    guard._told.clear()
    misuse._told.clear()


ALLOWED = {
    ("__init__.py", "__getattr__"): "guarded; a function that can't be imported tries again when it is called",
    ("live/preload.py", "_imported"): "guarded by load()",
    ("api.py", "_open_session"): "at the start of a resumable operation, which raises CheckpointError if it fails",
    ("decorators.py", "_resumable"): "when a function is decorated, which is guarded",
    ("files.py", "__init__"): "in a thread of ours, or of the monitor and the command",
    ("files.py", "_hold_by_sqlite"): "of the monitor",
    ("files.py", "_is_own_group"): "in a thread of ours, or of the monitor and the command",
    ("model/snapshot.py", "to_dict"): "a part: imported before any snapshot is made",
    ("live/engine/commands.py", "_runs_here"): "in a thread of ours",
    ("live/engine/learning.py", "on_tick"): "in a thread of ours",
    ("live/engine/learning.py", "_locked"): "in a thread of ours",
    ("live/engine/ticker.py", "round"): "in a thread of ours",
    ("live/engine/ticker.py", "_change"): "in a thread of ours",
    ("live/engine/watchdog.py", "stalled"): "in a thread of ours",
    ("telemetry/control_channel.py", "_run"): "in a thread of ours",
    ("telemetry/setup.py", "configure"): "in configure(), which is guarded",
    ("api.py", "_first_operation"): "at the first start under `run`, and guarded; no call of a handle that runs",
    ("telemetry/setup.py", "configure_as_guest"): "the same",
    ("telemetry/setup.py", "export"): "of a rehearsal, whose process runs no job",
    (
        "api.py",
        "_use_handlers",
    ): "in configure(), and at the first start if a variable names handlers; both are guarded",
    ("api.py", "_use_integrations"): "in configure(), and at import if a variable names integrations; both are guarded",
    ("telemetry/setup.py", "_replace"): "in configure() and shutdown(), which are guarded",
    ("outbound/http_transport.py", "__init__"): "in configure(), which is guarded",
    ("outbound/grpc_transport.py", "__init__"): "in configure(), which is guarded",
    ("live/handles.py", "report"): "guarded; a report that can't be written is logged",
    ("outbound/dead_letters.py", "_alone"): "in a thread of ours, or of the command",
    ("outbound/redis_connection.py", "connect"): "where a handler is made, or in the monitor",
}
"""Functions that import something, and why that can't break a call of a running job."""


def _importing() -> Iterator[tuple[str, str]]:
    for folder in ("", "live", "live/engine", "model", "outbound", "telemetry"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            tree = ast.parse(path.read_text())
            for function in ast.walk(tree):
                if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                    for part in ast.walk(function):
                        if isinstance(part, (ast.Import, ast.ImportFrom)):
                            yield str(path.relative_to(PACKAGE)), getattr(function, "name", "lambda")


def test_no_call_of_a_running_job_imports() -> None:
    """An import needs file descriptors, and a signal handler finds it half done: none is inside a call of a handle."""
    found = {place for place in _importing() if place[0] not in {"testing.py", "rehearsal.py", "__main__.py"}}
    assert found - set(ALLOWED) == set()


def test_every_public_function_is_attacked() -> None:
    """A new public function, or method of a handle, has a use in the attacks on calls."""
    assert every.unused() == []


def test_parts_are_imported_with_the_first_operation() -> None:
    """An operation brings all that its calls need; importing the package brings none of it."""
    code = """
import sys
import otel_progress
from otel_progress.live import preload
before = [name for name in preload.modules if f"otel_progress.{name}" in sys.modules]
otel_progress.operation("x")
after = [name for name in preload.modules if f"otel_progress.{name}" not in sys.modules]
print(before, after)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[] []\n"


FAILS_ONCE = """
import sys, logging
import otel_progress as progress
from otel_progress.live import preload
from otel_progress.live.guard import drops

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "otel_progress.live.engine.loops":
            raise OSError(24, "Too many open files")

sys.meta_path.insert(0, Finder())
with progress.operation("x") as op:
    progress.step("a")
    counted = drops["internal_error"]
    assert counted, drops
    sys.meta_path.pop(0)
    progress.step("b")
    assert drops["internal_error"] > counted  # not tried again yet
    preload._again_at = 0.0
    progress.step("c")
    assert op._loops is not None
"""


def test_a_failed_import_is_tried_again() -> None:
    """Where parts can't be imported, the job goes on without; it is counted, logged once, and tried again after 1 s."""
    done = subprocess.run([sys.executable, "-c", FAILS_ONCE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Too many open files") <= 2
    assert "will be tried again" in done.stderr


# -- the guard


class Broken(Exception):
    """Of the attacks."""


@public("instead")
def _breaks(error: BaseException) -> str:
    raise error


@pytest.mark.parametrize("error", [ValueError("x"), OSError(24, "x"), MemoryError(), RecursionError(), Broken()])
def test_an_error_of_ours_is_kept_from_the_job(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted each time, and logged once a call."""
    before = drops.get(semconv.DROP_ERROR, 0)
    assert _breaks(error) == "instead"
    assert _breaks(error) == "instead"
    assert drops[semconv.DROP_ERROR] == before + 2
    (record,) = caplog.records
    assert record.getMessage() == "telemetry failed in _breaks; the job goes on"
    drops.pop(semconv.DROP_ERROR)


@pytest.mark.parametrize("error", [InvalidArgument("x"), KeyboardInterrupt(), SystemExit(2), GeneratorExit()])
def test_documented_errors_and_interrupts_pass(error: BaseException) -> None:
    """A ProgressError, and an interrupt that no value raised, reach the job."""
    ours: dict[str, Any] = {"__name__": "otel_progress.live.example"}
    exec("def interrupted(error): raise error", ours)
    with pytest.raises(type(error)) as caught:
        public()(ours["interrupted"])(error)
    assert caught.value is error


class Late(Exception):
    """A time limit of the job's."""


@pytest.mark.parametrize("kind", [Late, ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_signal_handler_raises_reaches_the_job(kind: type[BaseException], progress_capture: Capture) -> None:
    """A handler interrupts any line, also one of ours; what it raises is the job's, whatever it is."""

    def late(number: int, frame: FrameType | None) -> None:
        raise kind

    class Slow:
        def __str__(self) -> str:
            signal.raise_signal(signal.SIGUSR1)
            return "slow"

    before = signal.signal(signal.SIGUSR1, late)
    try:
        for call in (progress.note, progress.step, progress.waiting):
            with progress.operation("work"), pytest.raises(kind):
                call(Slow())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_another_thread_sets_reaches_the_job(progress_capture: Capture) -> None:
    """An exception set by `PyThreadState_SetAsyncExc`, as time limits of task queues do, is the job's."""
    target = threading.get_ident()
    with pytest.raises(Late), progress.operation("work"):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), ctypes.py_object(Late))
        while True:
            progress.step("a")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError])
def test_what_a_value_raises_does_not(kind: type[BaseException], progress_capture: Capture) -> None:
    """A special method of an argument is no code that the job called: what it raises is counted, and goes no further."""

    class Hostile:
        def __str__(self) -> str:
            raise kind

        __repr__ = __str__

        def __bool__(self) -> bool:
            raise kind

        def __eq__(self, other: object) -> bool:
            raise kind

        __hash__ = None  # type: ignore[assignment]

    evil: Any = Hostile()
    with progress.operation("work") as op:
        op.note(evil, status=evil, of=evil)
        op.update(completed=evil, total=evil, ratio=evil, message=evil)
        op.record(evil, item=evil)
        op.step(evil)
        op.set(evil=evil)
        for option in ("total", "stall_after", "loop_after", "stall_policy", "parent"):
            with pytest.raises(InvalidArgument):
                progress.operation("x", **{option: evil})


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RecursionError, MemoryError, GeneratorExit])
@pytest.mark.parametrize("make", [progress.operation, progress.stage])
def test_the_jobs_own_exception_passes(kind: type[BaseException], make: Any, progress_capture: Capture) -> None:
    """It comes out as it went in, whatever its texts raise; its operation failed."""

    class Job(Exception):
        def __str__(self) -> str:
            raise kind

        __repr__ = __str__

    error = Job()
    with pytest.raises(Job) as caught, progress.operation("outer") as op, make("inner"):
        raise error
    assert caught.value is error
    assert op.status is progress.Status.FAILED


# -- arguments that a function does not have


def test_a_misspelt_option_names_the_nearest() -> None:
    """`operation`, `stage` and `configure` raise InvalidArgument, which says what was meant."""
    for call in (progress.operation, progress.stage):
        with pytest.raises(InvalidArgument, match=r"there is no option 'totl'; did you mean 'total'\?"):
            call("x", totl=3)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match=r"configure\(\): there is no option 'endpont'; did you mean 'endpoint'"):
        progress.configure(endpont="x")  # type: ignore[call-arg]


def test_a_wrong_call_of_a_running_job_is_ignored(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A method of a running job never raises: a misspelt option is told once, with the nearest one."""
    with progress.operation("work") as op:
        for _ in range(2):
            op.update(complete=3)  # type: ignore[call-arg]
        op.note()  # type: ignore[call-arg]
    told = [record.getMessage().partition(" is ignored: ")[2] for record in caplog.records]
    assert told == [
        "there is no option 'complete'; did you mean 'completed'?",
        "missing 1 required positional argument: 'text'",
    ]


def test_a_count_beyond_all_bounds(progress_capture: Capture) -> None:
    """`advance(10**400)` is cut to 64 bits, and later counts and snapshots go on."""
    with progress.operation("work", total=10) as op:
        op.advance(10**400)
        op.update(completed=5)
        op.advance(1)
        assert op.snapshot().progress.completed is not None
    assert semconv.DROP_ERROR not in progress_capture.drops


def test_a_signal_handler_that_reports(progress_capture: Capture) -> None:
    """`step()` from a signal handler in the middle of the import of parts does without, and raises nothing."""
    loading = preload._loading
    loading.add(threading.get_ident())
    found, preload._found = preload._found, {}
    try:
        with progress.operation("work"):
            progress.step("a")
    finally:
        preload._found = found
        loading.discard(threading.get_ident())
    assert progress_capture.drops[semconv.DROP_ERROR] >= 1
