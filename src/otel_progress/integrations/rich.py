"""rich: each task of a `Progress`, also that of `track`, is a stage if it lasts, or an operation where none runs.

Tasks are read, as their counts are at most 0.1 s old. Their loops cost nothing more; a call that moves one is asked for
its thread.
"""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Any, Final

from otel_progress.integrations.naming import named, plain
from otel_progress.integrations.switch import Patch, Switch
from otel_progress.live.late import Late, is_all

LIBRARY: Final = "rich"
TESTED: Final = ("13.7", "16")
MODULES: Final = ("rich.progress",)
OURS: Final = "_otel_progress"
"""The attribute of a `Progress` that has what we know of its tasks."""
_switch = Switch("rich")
_patch: Final = Patch()


def install() -> None:
    """Patch the class of all progress displays.

    Raises:
        AttributeError: if it has no such methods.
    """
    makers = {"add_task": _add_task, "remove_task": _remove_task, "stop": _stop, "__exit__": _exit}
    makers |= {"update": _moving, "advance": _moving}
    _patch.put(sys.modules["rich.progress"].Progress, makers)
    _switch.on = True


def uninstall() -> None:
    """Restore the class."""
    _switch.on = False
    _patch.restore()


class Task(Late):
    """What we know of a task."""

    __slots__ = ("_name", "_task")

    def __init__(self, task: Any, frame: FrameType) -> None:
        """Of a task that was just added by this frame."""
        super().__init__()
        self._task = weakref.ref(task)
        self._name = named(plain(str(task.description)), frame)

    def name(self) -> str:
        """Its first description without markup and numbers, else the function that added it."""
        return self._name

    def read(self) -> tuple[float | None, float | None, str | None]:
        """Its count, total and description."""
        task = self._task()
        return self._read if task is None else (task.completed, task.total, plain(str(task.description)) or None)

    def over(self) -> str | None:
        """It is finished, or gone."""
        task = self._task()
        return "completed" if task is None or task.finished_time is not None else None

    def stopped(self, error: BaseException | None) -> None:
        """Its display stopped, by an exception or as it should."""
        if isinstance(error, GeneratorExit):  # the loop of `track` was left; this may run in a finalizer
            done, total, _ = self.read()
            self.end("completed" if is_all(done, total) else "left", later=True)
        else:
            self.end("completed" if error is None or self.over() else error)


def _add_task(original: Any) -> Any:
    def add_task(self: Any, *args: Any, **options: Any) -> Any:
        number = original(self, *args, **options)
        frame = sys._getframe(1)
        if _switch.on and frame.f_globals.get("__name__") != "tqdm.rich":  # whose bars are tqdm's
            try:
                task = Task(next(one for one in self.tasks if one.id == number), frame)
                vars(self).setdefault(OURS, {})[number] = task
                task.begin(group=self)
            except BaseException:
                _switch.failed()
        return number

    return add_task


def _remove_task(original: Any) -> Any:
    def remove_task(self: Any, task_id: Any) -> Any:
        known = vars(self).get(OURS, {}).pop(task_id, None)
        if known is not None:
            _say(known, None)
        return original(self, task_id)

    return remove_task


def _moving(original: Any) -> Any:
    def move(self: Any, task_id: Any, *args: Any, **options: Any) -> Any:
        known = vars(self).get(OURS, {}).get(task_id)
        if known is not None and sys._getframe(1).f_globals.get("__name__") != "rich.progress":  # a thread of `track`
            known.moved()
        return original(self, task_id, *args, **options)

    return move


def _stop(original: Any) -> Any:
    def stop(self: Any) -> Any:
        found = original(self)
        _stop_all(self, None)
        return found

    return stop


def _exit(original: Any) -> Any:
    def __exit__(self: Any, kind: Any, error: Any, trace: Any) -> Any:  # noqa: N807
        if error is not None:
            _stop_all(self, error)
        return original(self, kind, error, trace)

    return __exit__


def _stop_all(shown: Any, error: BaseException | None) -> None:
    known = vars(shown).get(OURS)
    while known:
        _say(known.popitem()[1], error)


def _say(known: Task, error: BaseException | None) -> None:
    try:
        known.stopped(error)
    except BaseException:
        _switch.failed()
