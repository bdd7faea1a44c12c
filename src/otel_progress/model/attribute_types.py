"""Type and range of each attribute: values of another type or out of range are dropped.

Any program may send anything under these names, and a monitor shows it to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.status import Status
from otel_progress.model.values import finite

LONGEST: Final = 1e12
"""Longest time that is accepted, in seconds."""
_LARGEST: Final = 2**63 - 1
_NOISE: Final = 1e-9
"""By how much a ratio may exceed 1, as a sum of fractions does."""
JSON_TEXTS: Final = frozenset(
    {
        *(s.ATTRIBUTES, s.BRANCHES, s.CHILD_OUTCOMES, s.COMPONENTS, s.COUNTERS, s.CURVE, s.FAILURES, s.LOOP),
        *(s.OUTCOMES, s.RESOURCES, s.RESULT, s.STAGES, s.STAGES_FOLDED, s.STAGES_REPEATED, s.USAGE),
    }
)
"""The attributes that are JSON texts."""
JSON_LISTS: Final = frozenset({s.BRANCHES, s.CURVE, s.FAILURES, s.STAGES, s.STAGES_FOLDED, s.STAGES_REPEATED})
"""Those of them that are lists; the others are objects."""
STATUSES: Final = frozenset(Status)


def is_seconds(given: object) -> bool:
    """Whether the value is a valid duration or timestamp in seconds."""
    return finite(given) and 0 <= given <= LONGEST  # type: ignore[operator]


def is_limit(given: object) -> bool:
    """Whether the value is a valid limit in seconds: 0 would have passed before anything began."""
    return is_seconds(given) and given > 0  # type: ignore[operator]


def is_whole(given: object) -> bool:
    """Whether the value is a whole number from 0 to 2**63 - 1."""
    return type(given) is int and 0 <= given <= _LARGEST


def is_amount(given: object) -> bool:
    """Whether the value is a finite number of at least 0: a count, a total, a rate."""
    return finite(given) and given >= 0  # type: ignore[operator]


def is_ratio(given: object) -> bool:
    """Whether the value is a number from 0 to 1."""
    return finite(given) and 0 <= given <= 1 + _NOISE  # type: ignore[operator]


def _is_difference(given: object) -> bool:
    return finite(given) and abs(given) <= LONGEST  # type: ignore[arg-type]


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _is_bool(given: object) -> bool:
    return isinstance(given, bool)


def _is_object(given: object) -> bool:
    return isinstance(given, dict)


def _is_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) for one in given)


def _is_wait(given: object) -> bool:
    if not isinstance(given, list) or not 2 <= len(given) <= 3:
        return False
    return isinstance(given[0], str) and is_seconds(given[1]) and (given[2:] in ([], [None]) or is_seconds(given[2]))


def _is_estimate(given: object) -> bool:
    if not isinstance(given, list) or not 3 <= len(given) <= 5:
        return False
    return all(map(is_seconds, given[:3])) and all(map(_is_text, given[3:4])) and all(map(is_whole, given[4:]))


_RULES: Final[tuple[tuple[Callable[[object], bool], tuple[str, ...]], ...]] = (
    (
        is_seconds,
        (
            s.START_TIME,
            s.LAST_HEARTBEAT,
            s.ELAPSED,
            s.IDLE,
            s.UPDATE_PAUSE,
            s.WAIT_DURATION,
            s.ETA,
            s.ETA_LOW,
            s.ETA_HIGH,
        ),
    ),
    (is_limit, (s.STALL_AFTER, s.SLOW_AFTER, s.START_WITHIN)),
    (_is_difference, (s.WAIT_REMAINING,)),
    (is_amount, (s.COMPLETED, s.RESTORED, s.TOTAL, s.RATE)),
    (is_ratio, (s.RATIO, s.RATIO_RAW)),
    (is_whole, (s.OPERATION_ATTEMPT, s.SEQUENCE, s.KEYFRAME, s.SPAN_START_TIME, s.ETA_RUNS)),
    (_is_bool, (s.CANCEL_REQUESTED, s.OBSERVED, s.OVERDUE, s.SPAN_PARENT_REMOTE)),
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
            *JSON_TEXTS,
        ),
    ),
)
_RULE: Final[Mapping[str, Callable[[object], bool]]] = {key: rule for rule, keys in _RULES for key in keys}
_MEANT: Final[Mapping[Callable[[object], bool], str]] = {
    is_seconds: "a number of seconds of at least 0",
    is_limit: "a number of seconds above 0",
    _is_difference: "a number of seconds",
    is_amount: "a number of at least 0",
    is_ratio: "a number from 0 to 1",
    is_whole: "an integer of at least 0",
    _is_bool: "a boolean",
    _is_text: "a text",
    _is_object: "an object",
    _is_texts: "a list of texts",
    _is_wait: "a list of the reason, the seconds that it has lasted, and its limit in seconds or null",
    _is_estimate: "a list of the estimate and its bounds, in seconds",
}
_STAGE: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("completed", "restored", "total", "rate"), is_amount),
    **dict.fromkeys(("ratio", "ratio_raw"), is_ratio),
    **dict.fromkeys(("weight", "peak_memory"), is_amount),
    **dict.fromkeys(("started_at", "elapsed", "idle", "cpu_seconds"), is_seconds),
    **dict.fromkeys(("expected", "stall_after"), is_limit),
    **dict.fromkeys(("name", "unit", "description", "message", "reason", "span_id"), _is_text),
    **dict.fromkeys(("planned", "critical"), _is_bool),
    **dict.fromkeys(("outcomes", "counters", "attributes", "usage", "child_outcomes"), _is_object),
    "depends_on": _is_texts,
    "wait": _is_wait,
    "eta": _is_estimate,
}
"""The keys of a stage in `progress.stages` beside `path` and `status`."""
_ESTIMATE: Final = (s.ETA, s.ETA_LOW, s.ETA_HIGH)


def is_valid(key: str, value: object) -> bool:
    """Whether a value is valid for this attribute; any is valid for an attribute without a rule."""
    check = _RULE.get(key)
    return check is None or check(value)


def meant(key: str) -> str:
    """What a value of this attribute must be, in words."""
    return _MEANT[_RULE[key]]


def is_stage(given: object) -> bool:
    """Whether an item of `progress.stages` says which stage it is, and its status."""
    return isinstance(given, dict) and _is_text(given.get("path")) and _is_status(given.get("status"))


def _is_status(given: object) -> bool:
    return isinstance(given, str) and given in STATUSES


def valid_keys(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a stage beside `path` and `status`, as far as they are known and valid."""
    rule = _STAGE.get
    return {
        key: value
        for key, value in stage.items()
        if value is not None and (check := rule(key)) is not None and check(value)
    }


def wrong_keys(stage: Mapping[str, Any]) -> dict[str, str]:
    """What the invalid keys of a stage must be, in words."""
    return {key: _MEANT[check] for key, check in _STAGE.items() if stage.get(key) is not None and not check(stage[key])}


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
