"""What the runs of each operation and stage name taught, in memory, and in a file where one is named.

The file also keeps which attempt of each given id began last: a process that is started again goes on counting.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_progress import files
from otel_progress.live.counting import own_progress
from otel_progress.live.engine import process
from otel_progress.live.guard import tell_once
from otel_progress.live.records import Gaps, LearnedLimits
from otel_progress.live.registry import registry
from otel_progress.model.history import EVERY, SHORT, Learned, Seen
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.live.state import HandleState, OperationState


KEYS: Final = 2_000
"""Names of operations and stages that are learned about."""
STEADY: Final = SHORT
"""Shorter gaps are not counted one by one, in seconds."""
SAVE_EVERY: Final = 60.0
SOON: Final = 2.0
"""Seconds within which an attempt that began is saved, as one that is killed never ends."""
IDS: Final = 2_000
"""Ids whose attempts are kept in the file; the ones that began last stay."""
SLOW_PLAN: Final = 2.0
"""A run is slow past so many times what its plan expects."""
KEPT_MODE: Final = 0o664
"""The bits of a file's mode that stay when it is written anew: who is let read it still may."""
_VERSION: Final = 1
_MOST_ATTEMPTS: Final = 1_000_000_000
Key = tuple[str, str]
"""The name of an operation, and the path of a stage in it, or nothing."""


class Learning:
    """All that is learned in this process; used by the ticker's thread."""

    def __init__(self, path: Path | None = None) -> None:
        """Keep it in memory, and in this file too.

        Raises:
            OSError: where the file can't be read, or its folder is not there.
            ValueError: where it is something else.
        """
        self._path = path
        self._known: dict[Key, Learned] = {}
        self._news: dict[Key, Learned] = {}
        self._save_at = 0.0
        self._saving: threading.Thread | None = None
        self._limits: dict[Key, tuple[Any, LearnedLimits]] = {}
        if path is not None:
            if not path.parent.is_dir():
                raise FileNotFoundError(f"the folder {path.parent} does not exist")
            self._known = read(path)
            registry.know_attempts(read_attempts(path))
        registry.keeps_attempts = path is not None

    # -- what the ticker tells

    def gap(self, operation: OperationState, node: HandleState, seconds: float, limit: float | None = None) -> None:
        """Progress of a handle, or of one of its lanes, came after so many seconds without.

        Args:
            operation: which the handle is, or belongs to.
            node: the handle.
            seconds: how long it was idle.
            limit: the idle time that was allowed. A longer gap was told as a stall and counts as the limit only:
                one incident teaches little, gaps that come again and again raise the limit step by step.
        """
        kept = _gaps(node)
        kept.gaps += 1
        kept.seconds += seconds
        taught = seconds if limit is None else min(seconds, limit)
        kept.longest = max(kept.longest, taught)
        for learned in self._both(_key(operation, node)):
            learned.gaps.add(taught)

    def ended(self, operation: OperationState, node: HandleState) -> None:
        """An operation or a stage completed; what ends otherwise teaches nothing of healthy ones."""
        if node._started is None or node._ended is None:
            return
        if node is not operation:
            around = node._parent or operation
            _note_stage(around, node._started, node._ended)
        if node._status is not Status.COMPLETED:
            return
        duration, last = node._ended - node._started, node._ended - _moved_at(node)
        longest, moved = _longest(node, duration, last), steady(node)
        for learned in self._both(_key(operation, node)):
            learned.gaps.add(EVERY, moved)
            if last >= STEADY and node._counted_at:
                learned.gaps.add(last)
            learned.ended(duration, longest, counted=node._counted_at > 0)

    def _both(self, key: Key) -> Iterator[Learned]:
        for kept in (self._known,) if self._path is None else (self._known, self._news):
            learned = kept.get(key)
            if learned is None and len(kept) < KEYS:
                learned = kept[key] = Learned()
            if learned is not None:
                yield learned

    # -- what it asks

    def limits(self, operation: OperationState, node: HandleState) -> LearnedLimits:
        """The limits of a handle where nobody named them, by the plan, by history and by the run so far."""
        key = _key(operation, node)
        learned, seen = self._known.get(key, _NOTHING), seen_of(node)
        about = 1 << int(seen.steady).bit_length() >> 1  # to within a doubling, so that many share what is found
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
        return found._replace(stall_after=stall_after, stall_source=learned.source(key[1], seen))

    def slow(self, operation: OperationState) -> LearnedLimits:
        """The run time of an operation where nobody named it; for one whose idle time was named."""
        whole, plan = self._known.get((operation.name, "")), operation._opts.plan
        state = _state(whole), plan
        key = operation.name, _SLOW
        cached = self._limits.get(key)
        if cached is None or cached[0] != state:
            if len(self._limits) >= KEYS:
                self._limits.clear()
            cached = self._limits[key] = state, _limits(None, whole, _planned(operation))
        return cached[1]

    def longest(self, operation: OperationState, node: HandleState) -> float:
        """The longest time without progress of a handle of this name that ended well, in seconds."""
        learned = self._known.get(_key(operation, node))
        return 0.0 if learned is None else learned.gaps.longest

    # -- the file

    def on_tick(self, now: float) -> None:
        """Save what is new, once a minute, in a thread that may hang."""
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
        """Save what is new at the end, within about so many seconds."""
        if self._saving is not None:
            self._saving.join(timeout)
        self.save()

    def save(self) -> None:
        """Add what is new to the file; another process may have added to it meanwhile."""
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
            pass  # another process is at it
        except Exception:
            tell_once(f"what was learned could not be saved to {path}; the job goes on")
        _merge(self._news, news)  # another time
        with registry.lock:
            registry.begun = {**begun, **registry.begun}

    def after_fork_in_child(self) -> None:
        """What the parent did not save yet, it saves itself."""
        self._news = {}


def _merge(into: dict[Key, Learned], news: dict[Key, Learned]) -> None:
    """Add what is new, as far as there is room for names."""
    for key, learned in news.items():
        if key in into or len(into) < KEYS:
            into.setdefault(key, Learned()).merge(learned)


def _joined(kept: dict[str, int], begun: dict[str, int]) -> dict[str, int]:
    """The attempts of both, those that began last at the end, as far as there is room."""
    whole = {key: number for key, number in kept.items() if key not in begun}
    whole |= {key: max(number, kept.get(key, 0)) for key, number in begun.items()}
    return dict(list(whole.items())[-IDS:])


def _state(learned: Learned | None) -> tuple[float, ...]:
    """What changes when it learned enough to matter."""
    if learned is None:
        return ()
    return learned.runs, int(learned.gaps.total).bit_length(), learned.gaps.longest


def _limits(bound: float | None, whole: Learned | None, planned: float | None) -> LearnedLimits:
    """What changes only when more was learned; the limit before it is mixed with the prior."""
    slow, slow_source = planned, "from the plan"
    if slow is None and whole is not None:
        slow, slow_source = whole.slow_after(), whole.runs_source()
    return LearnedLimits(bound, None, slow, slow_source if slow is not None else None)


_SLOW: Final = "\0"
"""Stands for a stage in the key of what is known of the run time alone; no stage has this name."""


def _key(operation: OperationState, node: HandleState) -> Key:
    return operation.name, "" if node is operation else node._path or node.name


def steady(node: HandleState) -> float:
    """How long a handle moved without gaps that can be told apart, in seconds; 0 before it completed anything."""
    if not node._counted_at or node._started is None:
        return 0.0
    gaps = 0.0 if node._gaps is None else node._gaps.seconds
    return max(0.0, _moved_at(node) - node._started - gaps)


def seen_of(node: HandleState) -> Seen:
    """What a handle showed so far in its run."""
    gaps, moved = node._gaps, steady(node)
    if gaps is None and not moved:
        return Seen()
    units = _units(node)
    return Seen(units, moved) if gaps is None else Seen(units, moved, gaps.gaps, gaps.longest)


def _units(node: HandleState) -> float:
    """What it counted, else what is around it, on its behalf."""
    counting: HandleState | None = node
    while counting is not None and not counting._seen:
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
    """A stage of the handle ran from `start` to `end` (s, monotonic)."""
    kept = _gaps(node)
    before = node._started if kept.until is None else kept.until
    if before is not None and node._seen == kept.count:
        kept.between = max(kept.between, start - before - (node._waited - kept.waited))
    kept.until = end if kept.until is None else max(kept.until, end)
    kept.count, kept.waited = node._seen, node._waited


def _longest(node: HandleState, duration: float, last: float) -> float:
    """The longest time without progress of a run; of one that counted nothing and has no stages, all of it."""
    gaps = node._gaps or _NONE
    if not node._counted_at and gaps.until is None:
        return max(0.0, duration - node._waited)
    return max(gaps.longest, gaps.between, last)


def _planned(operation: OperationState) -> float | None:
    """What the plan of an operation allows, where it names a time for each stage; in seconds."""
    plan = operation._opts.plan
    if plan is None or not plan.stages or any(stage.expected is None for stage in plan.stages):
        return None
    return SLOW_PLAN * sum(stage.expected or 0.0 for stage in plan.stages)


def read(path: Path) -> dict[Key, Learned]:
    """What a file holds; nothing where there is none yet.

    Raises:
        OSError: where it can't be read.
        ValueError: where it is something else.
    """
    try:
        text = files.read_private(path).decode("utf-8")
    except FileNotFoundError:
        return {}
    try:
        given = json.loads(text)
        if given["version"] != _VERSION:
            raise ValueError(f"version {given['version']!r} is not known")
        return {_read_key(item): Learned.from_dict(item) for item in given["learned"][:KEYS]}
    except Exception as error:
        raise ValueError(
            f"{path} is no history of otel-progress ({error}); move it away, or name another file"
        ) from error


def _read_key(item: Any) -> Key:
    operation, stage = item["operation"], item["stage"]
    if not (isinstance(operation, str) and isinstance(stage, str)):
        raise TypeError("a name is not a text")
    return operation, stage


def read_attempts(path: Path) -> dict[str, int]:
    """The number of the last attempt of each id that a file knows; nothing where it has none.

    Raises:
        OSError, ValueError: where the file can't be read.
    """
    try:
        found = json.loads(files.read_private(path)).get("attempts", {})
    except FileNotFoundError:
        return {}
    given = found if isinstance(found, dict) else {}
    return {key: number for key, number in given.items() if type(number) is int and 0 < number < _MOST_ATTEMPTS}


def write(path: Path, learned: dict[Key, Learned], attempts: dict[str, int] | None = None) -> None:
    """Put it into the file, whole or not at all."""
    items: list[dict[str, Any]] = [
        {"operation": operation, "stage": stage, **what.to_dict()}
        for (operation, stage), what in sorted(learned.items())
    ]
    path = path.resolve()  # a link stays one
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
"""What is known of a name that never ran; nothing is added to it."""
_NONE: Final = Gaps()
"""The gaps of a run that had none."""

learning = Learning()
