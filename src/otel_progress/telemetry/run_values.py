"""The values of the run series: which series there are, and what each says of an operation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.live.engine import limits, progress
from otel_progress.live.engine.estimates import left_as_told
from otel_progress.live.running import around
from otel_progress.live.survey import Survey
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health

if TYPE_CHECKING:
    from otel_progress.live.engine.branch_verdicts import Figures
    from otel_progress.live.state import HandleState, OperationState
    from otel_progress.model.loop import Loop

LABEL_TEXT: Final = 120
"""Characters of the labels that say what repeats, and what an overdue wait is for."""
MARKS: Final = 3
"""Exports in which a series that has no value any more is marked as ended, in case one export is lost."""


class Column(NamedTuple):
    """A series that each operation may have.

    Attributes:
        metric: its name.
        gone: its value once it has none any more, for queries over a window; None to end the series.
        seldom: whether it changes so seldom that it is sent when it does, and once a minute.
        of: `stage` if it is of the current stage, None if of the operation.
        is_read: whether a panel or an alert reads it; the others exist only with `run_series="all"`.
    """

    metric: s.Metric
    gone: float | None = None
    seldom: bool = False
    of: str | None = None
    is_read: bool = True


COLUMNS: Final = (
    Column(s.RUN_START_TIME, seldom=True),
    Column(s.RUN_IDLE),
    Column(s.RUN_LAST_HEARTBEAT, is_read=False),
    Column(s.RUN_STALL_AFTER, gone=math.inf, seldom=True),
    Column(s.RUN_SLOW_AFTER, seldom=True),
    Column(s.RUN_WAIT_REMAINING, gone=0.0, seldom=True),
    Column(s.RUN_RATIO),
    Column(s.RUN_COMPLETED),
    Column(s.RUN_TOTAL, seldom=True),
    Column(s.RUN_ETA),
    Column(s.RUN_COMPLETED, of=s.OF_STAGE),
    Column(s.RUN_TOTAL, seldom=True, of=s.OF_STAGE),
    Column(s.RUN_ETA, of=s.OF_STAGE),
    Column(s.RUN_LOOP_REPEATS, gone=0.0, seldom=True),
    Column(s.RUN_LOOP_TOKENS, gone=0.0, seldom=True),
)


def values(operation: OperationState, seen: Figures, now: float, *, everything: bool) -> tuple[float | None, ...]:
    """The values of an operation at a monotonic time, in the order of `COLUMNS`; None without one.

    Where the operation has no count of its own, there is that of the current stage; where it has no estimate, that of
    the current stage. With `everything` there are both.
    """
    survey = Survey(operation)
    found = survey.of(operation)
    eta = left_as_told(operation, found, now) or progress.eta(operation, found, now, survey)
    loop = loop_of(operation, seen)
    beat = operation._extras.beat_at if everything and operation._extras is not None else None
    completed, total, left = _NONE
    if everything or found.completed is None:
        completed, total, left = _of_stage(operation, seen.node, now, survey)
    return (
        operation._started_ns / 1e9,
        seen.idle,
        beat,
        seen.stall_after,
        limits.slow_after(operation),
        seen.wait_remaining,
        progress.shown_ratio(operation, progress.known_ratio(operation, found)),
        found.completed,
        found.total,
        eta.eta if eta is not None else None,
        completed,
        total,
        left if everything or eta is None else None,
        None if loop is None else loop.repeats,
        None if loop is None else _tokens(loop),
    )


def loop_of(operation: OperationState, seen: Figures) -> Loop | None:
    """The loop that the verdict on an operation is about, or that of a branch beside the stuck one."""
    if operation._health is Health.SILENT and seen.beside is not None:
        return seen.beside.branch.loop
    return seen.loop if operation._health is Health.LOOPING else None


def what_repeats(loop: Loop | None) -> str | None:
    """What repeats, as a label."""
    if loop is None:
        return None
    return _label(loop.what)


def overdue(operation: OperationState, seen: Figures) -> dict[tuple[str, str | None], float]:
    """The limit of the wait that is overdue, by its reason and its stage (None without one); empty if none is."""
    wait = seen.wait
    if wait is None or wait.overdue_after is None or wait.elapsed < wait.overdue_after:
        return {}
    stage = None if seen.waits_in is None or seen.waits_in is operation else seen.waits_in.name
    return {(_label(wait.reason), stage): wait.overdue_after}


def _label(text: str) -> str:
    return text if len(text) <= LABEL_TEXT else f"{text[: LABEL_TEXT - 1]}…"


def cost_of(loop: Loop | None) -> dict[str, float]:
    """What a loop spent, by currency."""
    spent = {} if loop is None else loop.spent
    return {key.removeprefix("cost."): float(n) for key, n in spent.items() if key.startswith("cost.")}  # type: ignore[arg-type]


_Three = tuple["float | None", "float | None", "float | None"]
_NONE: Final[_Three] = (None, None, None)


def _of_stage(operation: OperationState, node: HandleState, now: float, survey: Survey) -> _Three:
    """Count, total and time left of the current stage, or of the nearest one around it that counts."""
    for stage in around(node):
        if stage is operation:
            break
        found = survey.of(stage)
        if found.completed is not None:
            left = left_as_told(stage, found, now) or progress.eta(stage, found, now, survey)
            stuck = operation._health in NOT_MOVING
            return found.completed, found.total, left.eta if left is not None and not stuck else None
    return _NONE


def _tokens(loop: Loop) -> float | None:
    used = [n for key, n in loop.spent.items() if key.endswith("_tokens")]
    return float(sum(used)) if used else None  # type: ignore[arg-type]
