"""Snapshot: everything known about one operation at one moment. Event: a change, with the snapshot after it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model.fields import (
    Branch,
    Progress,
    SnapshotFields,
    SpanIds,
    StageSnapshot,
)
from otel_progress.model.reported import Note, Wait
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes, finite, no_attributes

__all__ = ["Branch", "Event", "Note", "Progress", "Snapshot", "SpanIds", "StageSnapshot", "Wait"]

ROUNDED: Final = 0.0011
"""Seconds by which the duration of a stage in a snapshot may differ from the exact one."""


@dataclass(frozen=True)
class Snapshot(SnapshotFields):
    """Everything known about one operation at one moment.

    Times are in seconds; `started_at` and `timestamp` since 1970. `elapsed` and `idle` come from the
    monotonic clock. `stages` holds at most 64 stages: those that are stuck, loop or wait for too long, then the running
    ones, then the newest, failed ones first; `folded` has the count and total seconds of the others by status.
    `repeated` has the count and durations of each stage that ended more than once, whether or not `stages` lists its
    runs.

    `stall_after` and `slow_after` are the limits in effect; their source says where a limit comes from, unless the
    user set it. While the operation is silent or looping, `stuck_at` is the line of the user's code, and `stack` the
    call stack.

    `hint` says what to do about a failure, where the code said it: `fail(hint=...)`, or a note of the exception.

    `branches` holds at most 16 concurrent lines of work, the worst first; it is empty if there is only one. While a
    branch is in trouble, `stage`, `idle`, `stall_after`, `wait` and `stuck_at` are those of the worst branch.
    `overdue` is true if a declared wait is past its own limit.

    `update_pause` says for how many seconds after this moment an event that tells nothing but new counts may wait
    before it is sent; None if it does not wait. `observed` is true if only an integration sees the operation, so that
    its program takes no requests to stop.

    `components` has records by component and outcome, `failures` the messages of failed records with their number,
    `curve` completed units over time (seconds since the start, units), `resources` what its process used meanwhile,
    `child_outcomes` how many child operations of this process ended `ok` and `failed`. Events carry the
    curve only now and then, and at the end.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot in plain JSON types, under the same keys as the API of the monitor.

        Besides the fields of the snapshot it has `percentage`, `current_step`, `eta` (`seconds`, `low`, `high`,
        `source`), `verdict` (`health`, `reason` and the evidence; None once it is over), `current_stage`,
        `total_stages`, `stages_completed`, `failed_stage`, `stage_history`, `average_stage_duration`, `elapsed_time`,
        `estimated_completion`, `updated_at`; see `docs/guide.md`. The keys `progress_percentage`, `metadata`,
        `timestamp`, `health`, `health_reason` and `progress.eta.eta` are deprecated; the next version removes them.
        """
        from otel_progress.model.json_keys import of_snapshot

        return of_snapshot(self)


@dataclass(frozen=True)
class Event:
    """Something that happened to an operation, with the snapshot right after it.

    `name` is one of `semconv.EVENTS`; handlers with `items = True` get those of `semconv.ITEM_EVENTS` as well.
    `timestamp` is in nanoseconds since 1970. `sequence` rises with each event of an operation that may leave the
    process. Events that happened close together share a snapshot, which is as new as the last of them.
    """

    name: str
    timestamp: int
    snapshot: Snapshot
    sequence: int = 0
    stage: str | None = None
    attributes: Attributes = field(default_factory=no_attributes)

    @property
    def about(self) -> StageSnapshot | None:
        """The stage of this event; None if neither the event nor the snapshot says how it stands.

        If the path ran several times, it is the run that started or ended with the event, else the newest. The end of
        a stage says itself how long this run took and how it ended, so it is never that of a neighbour.
        """
        found = [stage for stage in self.snapshot.stages if stage.path == self.stage]
        if self.name == semconv.STAGE_ENDED:
            return self._ended_run(found)
        started = self.name == semconv.STAGE_STARTED
        when = self.timestamp / 1e9
        return min(
            reversed(found), key=lambda stage: abs(when - (stage.started_at or 0.0)) if started else 0.0, default=None
        )

    def _ended_run(self, found: list[StageSnapshot]) -> StageSnapshot | None:
        when, took = self.timestamp / 1e9, _seconds(self.attributes.get(semconv.STAGE_ELAPSED))

        def apart(stage: StageSnapshot) -> float:
            return abs(when - (stage.started_at or 0.0) - stage.elapsed)

        if took is None:  # of another SDK, or of an earlier version
            one = min(reversed(found), key=apart, default=None)
            if one is None or not one.untimed or one.started_at is None:
                return one
            return replace(one, elapsed=max(0.0, when - one.started_at), untimed=False)
        said = self.attributes.get(semconv.STAGE_STATUS)
        status = next((one for one in Status if one.value == said and one.final), Status.COMPLETED)
        same = [one for one in found if one.status is status and abs(one.elapsed - took) <= ROUNDED]
        if same:
            return replace(min(reversed(same), key=apart), elapsed=took)
        path = self.stage or ""
        return StageSnapshot(path.rpartition("/")[2], path, status, started_at=when - took, elapsed=took)


def _seconds(given: object) -> float | None:
    """A valid duration, or None: senders are untrusted."""
    return float(given) if isinstance(given, (int, float)) and finite(given) and given >= 0 else None
