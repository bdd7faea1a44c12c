"""A snapshot as OpenTelemetry attributes, and back.

Searchable fields have attributes of their own; structured ones (stages, counts, the user's own attributes) are one
JSON text each, which every language and every backend can carry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.attribute_types import LONGEST, is_seconds, is_stage, is_whole, typed, valid_keys
from otel_progress.model.curve import POINTS
from otel_progress.model.estimate import Estimate
from otel_progress.model.loop import Loop
from otel_progress.model.ratio import of_counts, shown_of_counts
from otel_progress.model.resources import from_dict
from otel_progress.model.rounding import estimate, figure, moment, pace, seconds, share
from otel_progress.model.snapshot import Branch, Progress, Snapshot, SpanIds, StageSnapshot, Wait
from otel_progress.model.stage_runs import StageRuns, from_list, to_list
from otel_progress.model.status import Health, Status
from otel_progress.model.tallies import COMPONENTS, MESSAGES
from otel_progress.model.values import Attributes, Number, Scalar, finite, without_noise

dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_FLAT: Final = (
    (s.OPERATION_ATTEMPT, "attempt"),
    (s.OPERATION_PARENT_ID, "parent_id"),
    (s.GEN_AI_AGENT, "agent"),
    (s.STAGE_CURRENT, "stage"),
    (s.MESSAGE, "message"),
    (s.STALL_AFTER_SOURCE, "stall_after_source"),
    (s.SLOW_AFTER_SOURCE, "slow_after_source"),
    (s.STATUS_REASON, "reason"),
    (s.STATUS_HINT, "hint"),
    (s.HEALTH_REASON, "health_reason"),
    (s.STUCK_AT, "stuck_at"),
    (s.STACK, "stack"),
    (s.OPERATION_DESCRIPTION, "description"),
)
_TIMES: Final = (
    (s.START_TIME, "started_at", moment),
    (s.ELAPSED, "elapsed", seconds),
    (s.SLOW_AFTER, "slow_after", figure),
    (s.START_WITHIN, "start_within", figure),
    (s.IDLE, "idle", seconds),
    (s.STALL_AFTER, "stall_after", figure),
    (s.UPDATE_PAUSE, "update_pause", figure),
)
_PROGRESS: Final = (
    (s.COMPLETED, "completed", without_noise),
    (s.RESTORED, "restored", without_noise),
    (s.TOTAL, "total", without_noise),
    (s.RATIO, "ratio", share),
    (s.RATIO_RAW, "ratio_raw", share),
    (s.RATE, "rate", pace),
)
_JSON: Final = (
    (s.OUTCOMES, "outcomes"),
    (s.COUNTERS, "counters"),
    (s.USAGE, "usage"),
    (s.RESULT, "result"),
    (s.ATTRIBUTES, "attributes"),
    (s.CHILD_OUTCOMES, "child_outcomes"),
)
_BRANCH: Final = ("path", "lane", "child", "child_name", "stall_after_source", "reason", "stuck_at")
BRANCHES: Final = 16
"""Branches that are read from one event."""
_STAGE: Final = ("weight", "description", "message", "reason", "span_id", "peak_memory")
_STAGE_TIMES: Final = (
    ("expected", figure),
    ("started_at", moment),
    ("stall_after", figure),
    ("cpu_seconds", seconds),
)
_STAGE_MAPPINGS: Final = ("outcomes", "counters", "attributes", "usage", "child_outcomes")
_HEALTHS: Final[Mapping[Any, Health]] = {health.value: health for health in Health}
SCHEMA: Final = 2
"""The version of the wire: 1 knows no deltas, and is what a sender speaks that names none."""
STATE: Final = frozenset(
    {
        *(key for key, _ in _FLAT),
        *(key for key, _, _ in (*_TIMES, *_PROGRESS) if key != s.ELAPSED),
        *(key for key, _ in _JSON),
        *(s.OPERATION_ID, s.OPERATION_NAME, s.STATUS, s.HEALTH, s.UNIT, s.OVERDUE, s.LAST_HEARTBEAT),
        *(s.ETA, s.ETA_LOW, s.ETA_HIGH, s.ETA_SOURCE, s.ETA_RUNS, s.CANCEL_REQUESTED, s.OBSERVED),
        *(s.STAGES, s.STAGES_FOLDED, s.STAGES_REPEATED, s.COMPONENTS, s.FAILURES, s.RESOURCES),
        *(s.WAIT_REASON, s.WAIT_DURATION, s.WAIT_REMAINING, s.LOOP, s.BRANCHES),
        *(s.SPAN_START_TIME, s.SPAN_KIND, s.SPAN_PARENT_ID, s.SPAN_PARENT_REMOTE),
    }
)
"""The attributes that describe the state of an operation, so that a delta inherits them from its keyframe.

The curve and the elapsed time are not among them: they are as of the event that carries them.
"""


def to_attributes(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return a snapshot as flat attributes; None and empty values are omitted."""
    out = state_of(snapshot)
    out[s.SEQUENCE] = snapshot.sequence
    if snapshot.stages:
        out[s.STAGES] = dump(stages_of(snapshot))
    return out


def stages_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return each stage of a snapshot as a small dict of JSON types."""
    return [stage_of(stage) for stage in snapshot.stages]


def state_of(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return a snapshot as flat attributes, without its stages and its sequence."""
    out: dict[str, Scalar] = {
        s.OPERATION_ID: snapshot.operation_id,
        s.OPERATION_NAME: snapshot.name,
        s.STATUS: snapshot.status.value,
        s.HEALTH: snapshot.health.value,
        s.UNIT: snapshot.progress.unit,
    }
    for key, name in _FLAT:
        value = getattr(snapshot, name)
        if value is not None:
            out[key] = value
    for about, fields in ((snapshot, _TIMES), (snapshot.progress, _PROGRESS)):
        for key, name, rounded in fields:
            value = getattr(about, name)
            if value is not None:
                out[key] = rounded(value)
    if s.RATIO in out and out.get(s.RATIO_RAW) == out[s.RATIO]:
        del out[s.RATIO_RAW]  # a reader takes the ratio for it
    eta = snapshot.progress.eta
    if eta is not None:
        out[s.ETA], out[s.ETA_LOW], out[s.ETA_HIGH] = estimate(eta)
        out |= {s.ETA_SOURCE: eta.source, s.ETA_RUNS: eta.runs}
    for key, name in _JSON:
        value = getattr(snapshot, name)
        if value:
            out[key] = dump(value)
    out |= _folded(snapshot) | _measured(snapshot)
    if snapshot.heartbeat_at is not None:
        out[s.LAST_HEARTBEAT] = seconds(snapshot.heartbeat_at)
    if snapshot.cancel_requested:
        out[s.CANCEL_REQUESTED] = True
    if snapshot.observed:
        out[s.OBSERVED] = True
    out |= _evidence(snapshot)
    if snapshot.span is not None:
        out |= _span(snapshot.span)
    return out


def _evidence(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return the evidence of its verdict."""
    out: dict[str, Scalar] = {} if snapshot.wait is None else _wait(snapshot.wait)
    if snapshot.loop is not None:
        out[s.LOOP] = dump(_loop(snapshot.loop))
    if snapshot.overdue:
        out[s.OVERDUE] = True
    if snapshot.branches:
        out[s.BRANCHES] = dump([_branch(branch) for branch in snapshot.branches])
    return out


def _folded(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return the stages that are not listed one by one."""
    out: dict[str, Scalar] = {}
    if snapshot.folded:
        out[s.STAGES_FOLDED] = dump(snapshot.folded)
    if snapshot.repeated:
        over = snapshot.status.final
        out[s.STAGES_REPEATED] = dump([to_list(runs, buckets=over) for runs in snapshot.repeated])
    return out


def _measured(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return what statistics need."""
    out: dict[str, Scalar] = {}
    if snapshot.components:
        out[s.COMPONENTS] = dump(dict(snapshot.components))
    if snapshot.failures:
        out[s.FAILURES] = dump(snapshot.failures)
    if snapshot.curve:
        out[s.CURVE] = dump(snapshot.curve)
    if snapshot.resources is not None:
        out[s.RESOURCES] = dump(snapshot.resources.to_dict())
    return out


def _wait(wait: Wait) -> dict[str, Scalar]:
    out: dict[str, Scalar] = {s.WAIT_REASON: wait.reason, s.WAIT_DURATION: seconds(wait.elapsed)}
    if wait.overdue_after is not None:
        out[s.WAIT_REMAINING] = seconds(wait.overdue_after - wait.elapsed)
    return out


def _branch(branch: Branch) -> dict[str, Any]:
    """Return a branch as a small dict; default values are omitted."""
    out: dict[str, Any] = {name: value for name in _BRANCH if (value := getattr(branch, name)) is not None}
    if branch.stall_after is not None:
        out["stall_after"] = figure(branch.stall_after)
    if branch.idle:
        out["idle"] = seconds(branch.idle)
    if branch.health is not Health.PROGRESSING:
        out["health"] = branch.health.value
    if branch.wait is not None:
        out["wait"] = _wait_of(branch.wait)
    if branch.loop is not None:
        out["loop"] = _loop(branch.loop)
    return out


def _wait_of(wait: Wait) -> list[Any]:
    return [wait.reason, seconds(wait.elapsed), None if wait.overdue_after is None else figure(wait.overdue_after)]


def _loop(loop: Loop) -> dict[str, Any]:
    out = {name: getattr(loop, name) for name in Loop.__dataclass_fields__}
    return {**out, "seconds": seconds(loop.seconds)}


def _span(span: SpanIds) -> dict[str, Scalar]:
    """Return what an observer needs of the span besides the ids of the log record."""
    out: dict[str, Scalar] = {s.SPAN_START_TIME: span.start_time, s.SPAN_KIND: span.kind}
    if span.parent_id is not None:
        out |= {s.SPAN_PARENT_ID: span.parent_id, s.SPAN_PARENT_REMOTE: span.parent_remote}
    return out


def stage_of(stage: StageSnapshot) -> dict[str, Any]:
    """Return a stage as a small dict; default values are omitted."""
    progress = stage.progress
    out: dict[str, Any] = {"path": stage.path, "status": stage.status.value}
    if stage.name != stage.path:
        out["name"] = stage.name
    for name in _STAGE:
        value = getattr(stage, name)
        if value is not None:
            out[name] = value
    out |= {name: rounded(value) for name, rounded in _STAGE_TIMES if (value := getattr(stage, name)) is not None}
    if stage.elapsed or _is_timed(stage.status, stage.started_at):
        out["elapsed"] = seconds(stage.elapsed)
    if stage.idle:
        out["idle"] = seconds(stage.idle)
    out |= {name: rounded(value) for _, name, rounded in _PROGRESS if (value := getattr(progress, name)) is not None}
    if "ratio" in out and out.get("ratio_raw") == out["ratio"]:
        del out["ratio_raw"]
    if progress.unit != "item":
        out["unit"] = progress.unit
    if progress.eta is not None:
        eta = progress.eta
        told = (eta.source, eta.runs) if eta.runs else (eta.source,) if eta.source != "rate" else ()
        out["eta"] = [*estimate(eta), *told]
    if stage.planned:
        out["planned"] = True
    if not stage.critical:
        out["critical"] = False
    if stage.wait is not None:
        out["wait"] = _wait_of(stage.wait)
    for name in ("depends_on", *_STAGE_MAPPINGS):
        value = getattr(stage, name)
        if value:
            out[name] = value
    return out


def from_attributes(
    attributes: Mapping[str, Any],
    timestamp: float,
    trace_id: str | None = None,
    span_id: str | None = None,
    sampled: bool = True,
    *,
    derives: bool = False,
) -> Snapshot:
    """Return the snapshot that an event carried; `timestamp` is that of the event, in seconds since 1970.

    What is invalid is ignored: an attribute, an item or a key of a JSON text, a stage without path or status. With
    `derives` a ratio that is missing follows from the counts, and how long a stage took is unknown if that is missing:
    an SDK of ours leaves out only what it does not know, and times of 0; others may leave out what can be computed.

    Raises:
        KeyError, ValueError: if id, name or status are missing or invalid.
    """
    attributes = typed(attributes)
    get = attributes.get
    wait = None
    if s.WAIT_REASON in attributes and (
        get(s.STATUS) != Status.RUNNING or get(s.OVERDUE)
    ):  # else the wait belongs to the event and is over
        elapsed, left = float(get(s.WAIT_DURATION, 0.0)), get(s.WAIT_REMAINING)
        wait = Wait(str(attributes[s.WAIT_REASON]), elapsed, None if left is None else left + elapsed)
    span = None
    if trace_id and span_id:
        span = SpanIds(
            trace_id,
            span_id,
            get(s.SPAN_PARENT_ID),
            bool(get(s.SPAN_PARENT_REMOTE, False)),
            sampled,
            int(get(s.SPAN_START_TIME, 0)),
            str(get(s.SPAN_KIND, "internal")),
        )
    said: dict[str, Any] = {name: attributes[key] for key, name in _FLAT if key in attributes}
    said |= {name: attributes[key] for key, name, _ in _TIMES if key in attributes}
    if s.ELAPSED not in attributes and s.START_TIME in attributes:
        said["elapsed"] = since(attributes[s.START_TIME], timestamp)
    said |= {name: _mapping(_loaded(attributes[key], dict, {})) for key, name in _JSON if key in attributes}
    eta = None
    if s.ETA in attributes:
        low, high, runs = attributes[s.ETA_LOW], attributes[s.ETA_HIGH], int(get(s.ETA_RUNS, 0))
        eta = Estimate(attributes[s.ETA], low, high, str(get(s.ETA_SOURCE, "rate")), max(0, runs))
    status = Status(attributes[s.STATUS])
    told: dict[str, Any] = {name: get(key) for key, name, _ in _PROGRESS}

    def listed(key: str) -> list[Any]:
        found: list[Any] = _loaded(get(key), list, [])
        return found

    return Snapshot(
        operation_id=str(attributes[s.OPERATION_ID]),
        name=str(attributes[s.OPERATION_NAME]),
        status=status,
        timestamp=timestamp,
        health=_HEALTHS.get(get(s.HEALTH), Health.UNKNOWN),
        progress=_progress(told, status, str(get(s.UNIT, "item")), eta, derives),
        stages=tuple(_read_stage(item, timestamp, derives, status) for item in listed(s.STAGES) if is_stage(item)),
        folded=_read_folded(listed(s.STAGES_FOLDED)),
        wait=wait,
        heartbeat_at=get(s.LAST_HEARTBEAT),
        loop=_checked_loop(_loaded(get(s.LOOP), dict, None)),
        overdue=bool(get(s.OVERDUE, False)),
        branches=_read_branches(listed(s.BRANCHES)),
        cancel_requested=bool(get(s.CANCEL_REQUESTED, False)),
        observed=bool(get(s.OBSERVED, False)),
        span=span,
        repeated=_read_repeated(listed(s.STAGES_REPEATED)),
        sequence=get(s.SEQUENCE, 0),
        components=_read_components(_loaded(get(s.COMPONENTS), dict, None)),
        failures=_read_failures(listed(s.FAILURES)),
        curve=_points(listed(s.CURVE)),
        resources=from_dict(_loaded(get(s.RESOURCES), dict, None)),
        **said,
    )


def _loaded(text: str | None, kind: type, otherwise: Any) -> Any:
    """Return what a JSON text says; `otherwise` if it is missing, can't be read, or says another kind of value."""
    try:
        found = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return found if isinstance(found, kind) else otherwise


def _read_repeated(items: list[Any]) -> tuple[StageRuns, ...]:
    """Read the statistics of repeated stages; invalid items are skipped."""
    found = []
    for item in items:
        try:
            found.append(from_list(item))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError):
            continue
    return tuple(found)


def _progress(told: dict[str, Any], status: Status, unit: str, eta: Estimate | None, derives: bool) -> Progress:
    """Return the progress from valid numbers; with `derives` a ratio that is missing follows from the counts."""
    raw = told["ratio"] if told["ratio_raw"] is None else told["ratio_raw"]
    if derives and raw is None:
        raw, told["ratio"] = ratios_of(told["completed"], told["total"], status)
    return Progress(**{**told, "ratio_raw": raw}, unit=unit, eta=eta)


def ratios_of(completed: float | None, total: float | None, status: Status) -> tuple[float | None, float | None]:
    """Return the raw ratio and the one to show that follow from counts of at least 0; both None if there is none."""
    raw = None if status is Status.PENDING else of_counts(completed, total)
    if raw is None:
        return None, None
    shown = shown_of_counts(raw, completed=status is Status.COMPLETED, over=status.final)
    return (None, None) if shown is None else (raw, shown)


def _read_folded(given: Any) -> tuple[tuple[str, int, float], ...]:
    """Read the number of folded stages by status; invalid items are skipped."""
    items = [item for item in given if isinstance(item, list) and len(item) == 3] if isinstance(given, list) else []
    return tuple((a, n, t) for a, n, t in items if isinstance(a, str) and is_whole(n) and is_seconds(t))


def _read_components(given: Any) -> tuple[tuple[str, Attributes], ...]:
    """Read outcomes by component; invalid items are skipped."""
    items = list(given.items())[: COMPONENTS + 1] if isinstance(given, dict) else []
    return tuple(
        (name, Attributes({key: n for key, n in counts.items() if is_whole(n)}))
        for name, counts in items
        if isinstance(counts, dict)
    )


def _pairs(given: Any, most: int) -> list[list[Any]]:
    items = given[:most] if isinstance(given, list) else []
    return [item for item in items if isinstance(item, list) and len(item) == 2]


def _read_failures(given: Any) -> tuple[tuple[str, int], ...]:
    return tuple((a, n) for a, n in _pairs(given, MESSAGES) if isinstance(a, str) and is_whole(n))


def read_curve(text: str) -> tuple[tuple[float, Number], ...]:
    """Read a curve; invalid points are skipped.

    Raises:
        ValueError: if it is not JSON.
    """
    return _points(json.loads(text))


def _points(given: Any) -> tuple[tuple[float, Number], ...]:
    return tuple((at, n) for at, n in _pairs(given, POINTS + 1) if is_seconds(at) and finite(n))


def _read_branches(given: Any) -> tuple[Branch, ...]:
    """Read the branches of an event; senders are untrusted, so invalid items are skipped."""
    items = given if isinstance(given, list) else []
    return tuple(_read_branch(item) for item in items[:BRANCHES] if isinstance(item, dict))


def _read_branch(item: Mapping[str, Any]) -> Branch:
    get = item.get
    said: dict[str, Any] = {name: text for name in _BRANCH if isinstance(text := get(name), str)}
    return Branch(
        idle=_seconds(get("idle")) or 0.0,
        stall_after=_seconds(get("stall_after")) or None,
        health=_read_health(get("health")),
        wait=_read_wait(get("wait")),
        loop=_checked_loop(get("loop")),
        **said,
    )


def _seconds(given: Any) -> float | None:
    """Return a valid time in seconds, or None."""
    return float(given) if is_seconds(given) else None


def _read_health(given: Any) -> Health:
    try:
        return Health(given)
    except ValueError:
        return Health.PROGRESSING


def _read_wait(given: Any) -> Wait | None:
    if not isinstance(given, list) or len(given) != 3 or not isinstance(given[0], str):
        return None
    return Wait(given[0], _seconds(given[1]) or 0.0, _seconds(given[2]))


def _checked_loop(given: Any) -> Loop | None:
    try:
        loop = _read_loop(given)
        if loop is None or not all(isinstance(text, str) for text in (loop.kind, *loop.keys)):
            return None
        return loop if all(finite(number) for number in (loop.repeats, loop.limit, loop.seconds)) else None
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def _read_loop(given: Mapping[str, Any] | None) -> Loop | None:
    if given is None:
        return None
    return Loop(
        given["kind"],
        tuple(given["keys"]),
        given["repeats"],
        given["limit"],
        given["seconds"],
        _mapping(given["spent"]),
    )


def _mapping(given: Mapping[str, Any]) -> Attributes:
    return Attributes({key: tuple(item) if isinstance(item, list) else item for key, item in given.items()})


def since(start: float, now: float) -> float:
    """The seconds from a start to the time of an event, both in seconds since 1970, in the bounds of a duration."""
    return min(max(0.0, seconds(now - start)), LONGEST)


def _is_timed(status: Status, started_at: object) -> bool:
    """Whether the elapsed time of a stage follows from its start, where nothing else is said."""
    return finite(started_at) and status in (Status.RUNNING, Status.WAITING)


def _ended_with(operation: Status, stage: Status) -> Status:
    """The status of a stage: one that is open at the end of its operation ended with it, as with our SDK."""
    if not operation.final or stage.final:
        return stage
    return Status.SKIPPED if stage is Status.PENDING else operation


def _read_stage(item: Mapping[str, Any], now: float, derives: bool, operation: Status) -> StageSnapshot:
    """Read a stage that names its path and status; its other keys are ignored where they are invalid."""
    known, path, said = valid_keys(item), str(item["path"]), Status(item["status"])
    get, status = known.get, _ended_with(operation, said)
    is_timed = "elapsed" not in known and _is_timed(said, get("started_at"))
    untimed = "elapsed" not in known and derives and not is_timed and status not in (Status.PENDING, Status.SKIPPED)
    is_same = status is said
    more: dict[str, Any] = {
        name: float(known[name]) for name in ("expected", "started_at", "stall_after", "idle") if name in known
    }
    more |= {name: known[name] for name in (*_STAGE, "cpu_seconds", "planned", "critical") if name in known}
    more |= {name: _mapping(known[name]) for name in _STAGE_MAPPINGS if name in known}
    return StageSnapshot(
        name=get("name", path),
        path=path,
        status=status,
        progress=_progress(
            {name: get(name) for _, name, _ in _PROGRESS},
            status,
            get("unit", "item"),
            Estimate(*known["eta"][:3], *(known["eta"][3:] or ("rate",))) if "eta" in known and is_same else None,
            derives,
        ),
        elapsed=since(known["started_at"], now) if is_timed else float(get("elapsed", 0.0)),
        depends_on=tuple(get("depends_on", ())),
        wait=Wait(*known["wait"]) if "wait" in known and is_same else None,
        untimed=untimed,
        **more,
    )
