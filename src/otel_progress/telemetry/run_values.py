"""The values of the run series: which series there are, and what each says of an operation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.live.engine import limits, progress
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
    """

    metric: s.Metric
    gone: float | None = None


COLUMNS: Final = (
    Column(s.RUN_ACTIVE),
    Column(s.RUN_START_TIME),
    Column(s.RUN_IDLE),
    Column(s.RUN_LAST_HEARTBEAT),
    Column(s.RUN_STALL_AFTER, gone=math.inf),
    Column(s.RUN_SLOW_AFTER),
    Column(s.RUN_ETA),
    Column(s.RUN_WAIT_REMAINING, gone=0.0),
    Column(s.RUN_RATIO),
    Column(s.RUN_COMPLETED),
    Column(s.RUN_TOTAL),
    Column(s.RUN_STAGE_COMPLETED),
    Column(s.RUN_STAGE_TOTAL),
    Column(s.RUN_STAGE_ETA),
    Column(s.RUN_LOOP_REPEATS, gone=0.0),
    Column(s.RUN_LOOP_TOKENS, gone=0.0),
)


def values(operation: OperationState, seen: Figures, now: float) -> tuple[float | None, ...]:
    """The values of an operation at a monotonic time, in the order of `COLUMNS`; None without one."""
    survey = Survey(operation)
    found = survey.of(operation)
    eta = progress.eta(operation, found, now, survey)
    loop = loop_of(operation, seen)
    return (
        1.0,
        operation._started_ns / 1e9,
        seen.idle,
        operation._extras.beat_at if operation._extras is not None else None,
        seen.stall_after,
        limits.slow_after(operation),
        eta.eta if eta is not None else None,
        seen.wait_remaining,
        progress.shown_ratio(operation, progress.known_ratio(operation, found)),
        found.completed,
        found.total,
        *(_of_stage(operation, seen.node, now, survey) if found.completed is None else _NONE),
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
            left = progress.eta(stage, found, now, survey)
            stuck = operation._health in NOT_MOVING
            return found.completed, found.total, left.eta if left is not None and not stuck else None
    return _NONE


def _tokens(loop: Loop) -> float | None:
    used = [n for key, n in loop.spent.items() if key.endswith("_tokens")]
    return float(sum(used)) if used else None  # type: ignore[arg-type]
