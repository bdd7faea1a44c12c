"""Learning: limits from the earlier runs of each operation and stage name, kept in memory and optionally in a file.

The file also keeps the last attempt of each given id, so that a restarted process continues to count.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_progress import files, settings
from otel_progress.live.counting import life, own_progress
from otel_progress.live.engine import process
from otel_progress.live.guard import tell_once
from otel_progress.live.records import Gaps, LearnedLimits
from otel_progress.live.registry import registry
from otel_progress.live.survey import by_count, settled
from otel_progress.model.closing import LEAST
from otel_progress.model.history import EVERY, RATIO, SHORT, Learned, Seen
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.live.state import HandleState, OperationState


log = logging.getLogger("otel_progress")

KEYS: Final = 2_000
"""Names of operations and stages that are learned."""
STEADY: Final = SHORT
"""Seconds; shorter gaps are not counted one by one."""
SAVE_EVERY: Final = 60.0
"""Seconds between two saves."""
SOON: Final = 2.0
"""Seconds within which a new attempt is saved, as a killed one never ends."""
IDS: Final = 2_000
"""Ids whose attempts the file keeps; the newest stay."""
SLOW_PLAN: Final = 2.0
"""A run is slow after this many times the duration that its plan expects."""
KEPT_MODE: Final = 0o664
"""The permission bits that are kept when the file is rewritten."""
_VERSION: Final = 1
_MOST_ATTEMPTS: Final = 1_000_000_000
Key = tuple[str, str]
"""The name of an operation, and the path of a stage in it or an empty text."""


class Learning:
    """Everything learned in this process; used by the ticker's thread."""

    def __init__(self, path: Path | None = None) -> None:
        """Keep it in memory, and in this file.

        Raises:
            OSError: if the file can't be read, or its folder does not exist.
            ValueError: if the file is no history.
        """
        self._path = path
        self._known: dict[Key, Learned] = {}
        self._news: dict[Key, Learned] = {}
        self._save_at = 0.0
        self._saving: threading.Thread | None = None
        self._limits: dict[Key, tuple[Any, LearnedLimits]] = {}
        if path is not None:
            if not path.parent.is_dir():
                raise FileNotFoundError(f"the folder {path.parent} does not exist; create it")
            self._known = read(path)
            registry.know_attempts(read_attempts(path))
        registry.keeps_attempts = path is not None

    # -- what the ticker tells

    def gap(self, operation: OperationState, node: HandleState, seconds: float, limit: float | None = None) -> None:
        """Learn a gap: seconds without progress of a handle or one of its loops.

        Args:
            operation: the operation of the handle.
            node: the handle.
            seconds: how long it was idle.
            limit: the allowed idle time. A longer gap was reported as a stall and counts as the limit: one incident
                teaches little, repeated gaps raise the limit step by step.
        """
        kept = _gaps(node)
        kept.gaps += 1
        kept.seconds += seconds
        taught = seconds if limit is None else min(seconds, limit)
        kept.longest = max(kept.longest, taught)
        for learned in self._both(_key(operation, node)):
            learned.gaps.add(taught)

    def ended(self, operation: OperationState, node: HandleState) -> None:
        """Learn from an operation or a stage that ended; only completed ones teach about healthy runs."""
        if node._started is None or node._ended is None:
            return
        if node is not operation:
            around = node._parent or operation
            _note_stage(around, node._started, node._ended)
        if node._status is not Status.COMPLETED:
            return
        if operation._session is not None and operation._session.before is not None:
            return  # it went on from an earlier attempt, so its durations are those of a part
        duration, last = node._ended - node._started, node._ended - _moved_at(node)
        longest, moved = _longest(node, duration, last), steady(node)
        done, total, _ = own_progress(node)
        has_all = (0 < total <= done) if done is not None and total is not None else node._ratio == 1
        counted_all = has_all and not node._inner and not node._stood_times
        # If it counted after the last look, nobody knows when.
        closing = last if counted_all and last >= LEAST and life(node) == node._sampled else 0.0
        found = settled(node)
        ratio = not by_count(node, found)
        for learned in self._both(_key(operation, node)):
            learned.gaps.add(EVERY, moved)
            if last >= STEADY and node._counted_at:
                learned.gaps.add(last)
            learned.ended(duration, longest, counted=node._counted_at > 0)
            if not node._restored:
                learned.outline.add(duration - node._stood - node._slept, node._inner or {})
                learned.waits.add(node._stood, node._stood_times)
                if counted_all:
                    learned.closing.add(closing)
            if node._pace is not None:
                course = learned.new_course(RATIO if ratio else str(found.unit))
                node._pace.teach(course, node._ended - closing, 1.0 if ratio else node._pace.reached(done))

    def _both(self, key: Key) -> Iterator[Learned]:
        for kept in (self._known,) if self._path is None else (self._known, self._news):
            learned = kept.get(key)
            if learned is None and len(kept) < KEYS:
                learned = kept[key] = Learned()
            if learned is not None:
                yield learned

    # -- what it asks

    def limits(self, operation: OperationState, node: HandleState) -> LearnedLimits:
        """The limits of a handle that names none: by its plan, by history, and by the run so far."""
        key = _key(operation, node)
        learned, seen = self._known.get(key, _NOTHING), seen_of(node)
        about = 1 << int(seen.steady).bit_length() >> 1  # rounded to a power of two, so that handles share the result
        whole = self._known.get((operation.name, ""))
        state = about, _state(learned), _state(whole), operation._opts.plan
        cached = self._limits.get(key)
        if cached is None or cached[0] != state:
            if len(self._limits) >= KEYS:
                self._limits.clear()
            cached = self._limits[key] = state, _limits(learned.bound(about), whole, _planned(operation))
        found = cached[1]
        if found.stall_after is None:
            return found
        stall_after = learned.mixed(found.stall_after, seen)
        source = learned.source(key[1], seen)
        return found._replace(stall_after=stall_after, stall_source=source, by_runs=learned.runs > 0)

    def slow(self, operation: OperationState) -> LearnedLimits:
        """The run time limit of an operation that names only its idle time."""
        whole, plan = self._known.get((operation.name, "")), operation._opts.plan
        state = _state(whole), plan
        key = operation.name, _SLOW
        cached = self._limits.get(key)
        if cached is None or cached[0] != state:
            if len(self._limits) >= KEYS:
                self._limits.clear()
            cached = self._limits[key] = state, _limits(None, whole, _planned(operation))
        return cached[1]

    def learned(self, operation: OperationState, stage: str = "") -> Learned | None:
        """What earlier runs of an operation, or of the stage with this path, taught; None before the first one."""
        found = self._known.get((operation.name, stage))
        return found if found is not None and found.runs else None

    def longest(self, operation: OperationState, node: HandleState) -> float:
        """The longest gap, in seconds, of completed handles of this name."""
        learned = self._known.get(_key(operation, node))
        return 0.0 if learned is None else learned.gaps.longest

    # -- the file

    def on_tick(self, now: float) -> None:
        """Save new knowledge once a minute, in a thread that may hang."""
        due = self._save_at - (SAVE_EVERY - SOON if registry.begun else 0.0)
        if self._path is None or not (self._news or registry.begun) or now < due:
            return
        self._save_at = now + SAVE_EVERY
        if not process.threads_allowed:
            self.save()
        elif self._saving is None or not self._saving.is_alive():
            self._saving = threading.Thread(target=self.save, name="otel-progress-history", daemon=True)
            self._saving.start()

    def finish(self, timeout: float) -> None:
        """Save new knowledge at the end, within about `timeout` seconds."""
        if self._saving is not None:
            self._saving.join(timeout)
        self.save()

    def save(self) -> None:
        """Merge new knowledge into the file, to which other processes may have added."""
        path, news = self._path, self._news
        if path is None or not (news or registry.begun):
            return
        self._news, begun = {}, registry.take_begun()
        try:
            with files.Lock(f"{path}.lock"):
                whole = read(path)
                _merge(whole, news)
                write(path, whole, _joined(read_attempts(path), begun))
            return
        except BlockingIOError:
            pass  # another process is saving
        except (OSError, ValueError) as error:
            tell_once("what was learned could not be saved to %s; the job goes on: %s", path, error, trace=False)
        except Exception:
            tell_once(f"what was learned could not be saved to {path}; the job goes on")
        _merge(self._news, news)  # for the next save
        with registry.lock:
            registry.begun = {**begun, **registry.begun}

    def after_fork_in_child(self) -> None:
        """Forget what is not saved yet; the parent saves it."""
        self._news = {}


def _merge(into: dict[Key, Learned], news: dict[Key, Learned]) -> None:
    """Merge new knowledge, up to the number of names."""
    for key, learned in news.items():
        if key in into or len(into) < KEYS:
            into.setdefault(key, Learned()).merge(learned)


def _joined(kept: dict[str, int], begun: dict[str, int]) -> dict[str, int]:
    """The attempts of both, the newest last, up to the number of ids."""
    whole = {key: number for key, number in kept.items() if key not in begun}
    whole |= {key: max(number, kept.get(key, 0)) for key, number in begun.items()}
    return dict(list(whole.items())[-IDS:])


def _state(learned: Learned | None) -> tuple[float, ...]:
    """A value that changes whenever enough was learned to matter."""
    if learned is None:
        return ()
    return learned.runs, int(learned.gaps.total).bit_length(), learned.gaps.longest


def _limits(bound: float | None, whole: Learned | None, planned: float | None) -> LearnedLimits:
    """The limits that change only when more is learned; the idle limit is not yet mixed with the prior."""
    slow, slow_source = planned, "from the plan"
    if slow is None and whole is not None:
        slow, slow_source = whole.slow_after(), whole.runs_source()
    return LearnedLimits(bound, None, slow, slow_source if slow is not None else None)


_SLOW: Final = "\0"
"""Marks the key of a cached run time limit; no stage has this name."""


def _key(operation: OperationState, node: HandleState) -> Key:
    return operation.name, stage_of(node)


def stage_of(node: HandleState) -> str:
    """The path of a stage; empty for an operation."""
    return "" if node is node.operation else node._path or node.name


def steady(node: HandleState) -> float:
    """Seconds in which a handle moved steadily, gaps excluded; 0 before it completed anything."""
    if not node._counted_at or node._started is None:
        return 0.0
    gaps = 0.0 if node._gaps is None else node._gaps.seconds
    return max(0.0, _moved_at(node) - node._started - gaps)


def seen_of(node: HandleState) -> Seen:
    """What the current run of a handle has shown so far."""
    gaps, moved = node._gaps, steady(node)
    if gaps is None and not moved:
        return Seen()
    units = _units(node)
    return Seen(units, moved) if gaps is None else Seen(units, moved, gaps.gaps, gaps.longest)


def _units(node: HandleState) -> float:
    """Its count, else that of the nearest counting handle around it."""
    counting: HandleState | None = node
    while counting is not None and not counting._sampled:
        counting = counting._parent if counting is not node.operation else None
    done = None if counting is None else own_progress(counting)[0]
    return 0.0 if done is None else float(done)


def _moved_at(node: HandleState) -> float:
    return max(node._moved_at, node._counted_at)


def _gaps(node: HandleState) -> Gaps:
    if node._gaps is None:
        node._gaps = Gaps()
    return node._gaps


def _note_stage(node: HandleState, start: float, end: float) -> None:
    """Note that a stage of the handle ran from `start` to `end` (s, monotonic)."""
    kept = _gaps(node)
    before = node._started if kept.until is None else kept.until
    if before is not None and node._sampled == kept.count:
        kept.between = max(kept.between, start - before - (node._waited - kept.waited))
    kept.until = end if kept.until is None else max(kept.until, end)
    kept.count, kept.waited = node._sampled, node._waited


def _longest(node: HandleState, duration: float, last: float) -> float:
    """The longest gap of a run, in seconds; all of a run that has no counts and no stages."""
    gaps = node._gaps or _NONE
    if not node._counted_at and gaps.until is None:
        return max(0.0, duration - node._waited)
    return max(gaps.longest, gaps.between, last)


def _planned(operation: OperationState) -> float | None:
    """The run time that the plan allows, in seconds, if it names a time for each stage."""
    plan = operation._opts.plan
    if plan is None or not plan.stages or any(stage.expected is None for stage in plan.stages):
        return None
    return SLOW_PLAN * sum(stage.expected or 0.0 for stage in plan.stages)


def read(path: Path) -> dict[Key, Learned]:
    """Read a history file; nothing if it does not exist yet, or has no content.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is no history.
    """
    try:
        text = files.read_private(path).decode("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise _no_history(path, error) from error
    if not text.strip():
        return {}
    try:
        given = json.loads(text)
        if given["version"] != _VERSION:
            raise ValueError(f"version {given['version']!r} is not known")
        return {_read_key(item): Learned.from_dict(item) for item in given["learned"][:KEYS]}
    except Exception as error:
        raise _no_history(path, error) from error


def _no_history(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is no history of otel-progress ({error}); move it away, or name another file")


def _read_key(item: Any) -> Key:
    operation, stage = item["operation"], item["stage"]
    if not (isinstance(operation, str) and isinstance(stage, str)):
        raise TypeError("a name is not a text")
    return operation, stage


def read_attempts(path: Path) -> dict[str, int]:
    """Read the last attempt of each id from a history file; empty if it has none.

    Raises:
        OSError, ValueError: if the file can't be read.
    """
    try:
        text = files.read_private(path)
    except FileNotFoundError:
        return {}
    found = json.loads(text).get("attempts", {}) if text.strip() else {}
    given = found if isinstance(found, dict) else {}
    return {key: number for key, number in given.items() if type(number) is int and 0 < number < _MOST_ATTEMPTS}


def write(path: Path, learned: dict[Key, Learned], attempts: dict[str, int] | None = None) -> None:
    """Write the history file atomically."""
    items: list[dict[str, Any]] = [
        {"operation": operation, "stage": stage, **what.to_dict()}
        for (operation, stage), what in sorted(learned.items())
    ]
    path = path.resolve()  # keep a symbolic link
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, "learned": items, "attempts": attempts or {}}, file, indent=1)
        os.chmod(name, path.stat().st_mode & KEPT_MODE if path.exists() else files.MODE)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


_NOTHING: Final = Learned()
"""The knowledge about a name that never ran; never modified."""
_NONE: Final = Gaps()
"""The gaps of a run without any; never modified."""

learning = Learning()
_unnamed: Learning | None = learning
"""What is used while no file is named; None once the file of the environment was tried."""


def of_file(path: str | os.PathLike[str]) -> Learning | None:
    """What earlier runs taught, from a file; None if it can't be used, as that never stops a job.

    Then a warning says what to do, and this process learns in memory alone.
    """
    file = Path(path).absolute()
    try:
        return Learning(file)
    except (OSError, ValueError) as error:
        log.warning("no history is kept in %s, and what is learned stays in memory alone: %s", file, error)
        return None


def use_named() -> None:
    """Keep what is learned in the file that `OTEL_PROGRESS_HISTORY` names, unless another one is used."""
    global learning, _unnamed
    if learning is not _unnamed:
        return
    path = settings.history_file()
    if path is None:
        return
    _unnamed = None
    learning = of_file(path) or learning
