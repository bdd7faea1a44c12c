"""Type and range of each attribute: values of another type or out of range are dropped.

Any program may send anything under these names, and a monitor shows it to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.values import finite

LONGEST: Final = 1e12
"""Longest time that is accepted, in seconds."""
_LARGEST: Final = 2**63 - 1


def is_seconds(given: object) -> bool:
    """Whether the value is a valid duration or timestamp in seconds."""
    return finite(given) and 0 <= given <= LONGEST  # type: ignore[operator]


def is_whole(given: object) -> bool:
    """Whether the value is a whole number from 0 to 2**63 - 1."""
    return type(given) is int and 0 <= given <= _LARGEST


def _is_difference(given: object) -> bool:
    return finite(given) and abs(given) <= LONGEST  # type: ignore[arg-type]


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _is_bool(given: object) -> bool:
    return isinstance(given, bool)


_RULES: Final[tuple[tuple[Callable[[object], bool], tuple[str, ...]], ...]] = (
    (
        is_seconds,
        (
            s.START_TIME,
            s.LAST_HEARTBEAT,
            s.ELAPSED,
            s.IDLE,
            s.STALL_AFTER,
            s.UPDATE_PAUSE,
            s.SLOW_AFTER,
            s.START_WITHIN,
            s.WAIT_DURATION,
            s.ETA,
            s.ETA_LOW,
            s.ETA_HIGH,
        ),
    ),
    (_is_difference, (s.WAIT_REMAINING,)),
    (finite, (s.COMPLETED, s.TOTAL, s.RATIO, s.RATIO_RAW, s.RATE)),
    (is_whole, (s.OPERATION_ATTEMPT, s.SEQUENCE, s.KEYFRAME, s.SPAN_START_TIME, s.ETA_RUNS)),
    (_is_bool, (s.CANCEL_REQUESTED, s.OVERDUE, s.SPAN_PARENT_REMOTE)),
    (
        _is_text,
        (
            s.OPERATION_ID,
            s.OPERATION_NAME,
            s.OPERATION_PARENT_ID,
            s.OPERATION_DESCRIPTION,
            s.GEN_AI_AGENT,
            s.STATUS,
            s.HEALTH,
            s.STAGE_CURRENT,
            s.MESSAGE,
            s.UNIT,
            s.STALL_AFTER_SOURCE,
            s.SLOW_AFTER_SOURCE,
            s.STATUS_REASON,
            s.STATUS_HINT,
            s.HEALTH_REASON,
            s.STUCK_AT,
            s.STACK,
            s.ETA_SOURCE,
            s.WAIT_REASON,
            s.SPAN_PARENT_ID,
            s.SPAN_KIND,
            s.OUTCOMES,
            s.COUNTERS,
            s.USAGE,
            s.RESULT,
            s.ATTRIBUTES,
            s.STAGES,
            s.STAGES_FOLDED,
            s.STAGES_REPEATED,
            s.LOOP,
            s.BRANCHES,
            s.COMPONENTS,
            s.FAILURES,
            s.CURVE,
            s.RESOURCES,
        ),
    ),
)
_RULE: Final[Mapping[str, Callable[[object], bool]]] = {key: rule for rule, keys in _RULES for key in keys}
_ESTIMATE: Final = (s.ETA, s.ETA_LOW, s.ETA_HIGH)


def is_valid(key: str, value: object) -> bool:
    """Whether a value is valid for this attribute; any is valid for an attribute without a rule."""
    check = _RULE.get(key)
    return check is None or check(value)


def typed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes with valid values; an incomplete estimate is dropped as a whole."""
    rule = _RULE.get
    found = {
        key: value
        for key, value in attributes.items()
        if value is not None and ((check := rule(key)) is None or check(value))
    }
    if not all(key in found for key in _ESTIMATE):
        for key in _ESTIMATE:
            found.pop(key, None)
    return found
