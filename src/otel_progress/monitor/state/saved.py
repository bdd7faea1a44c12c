"""The rows of the store, as plain values; `store.py` writes and reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class StoredOperation(NamedTuple):
    """The state of one operation, from its newest event.

    Attributes:
        operation_id: its id.
        name: its name.
        status: the value of its `Status`.
        health: the value of its `Health`.
        parent_id: its parent operation.
        agent: its agent.
        owner: its owner, for tokens that are limited to one.
        started_at: when its newest attempt began, in Unix seconds.
        timestamp: when its newest event happened, in Unix seconds.
        attempt: the number of its newest attempt, as the monitor counts.
        sequence: the number of its newest event in the attempt.
        instance: the process that sent it.
        revision: rises with each change, also over restarts.
        text: the text that a search looks at, in lower case.
        raw: the newest event as an OTLP log record in protobuf.
        presumed: whether its end is inferred, not proven.
        dead: whether its process was reported dead.
        rolled: the shown ratio, if it is rolled up from children; as JSON text.
        is_foreign: whether no SDK of ours sent the newest event; then a missing ratio follows from the counts.
        waiting: the newest delta that waits for its keyframe, if there is one; then `raw` is older.
        keyframe: the event on which the newest one builds, if it does not carry the whole state; as it is read, since
            it is written apart.
        aside: whether it has not ended, but was put aside: it is stored among those that ended, until it is heard of.
    """

    operation_id: str
    name: str
    status: str
    health: str
    parent_id: str | None
    agent: str | None
    owner: str | None
    started_at: float | None
    timestamp: float
    attempt: int
    sequence: int
    instance: str
    revision: int
    text: str
    raw: bytes
    presumed: bool = False
    dead: bool = False
    rolled: str | None = None
    is_foreign: bool = False
    waiting: bytes | None = None
    keyframe: bytes | None = None
    aside: bool = False


class HistoryEvent(NamedTuple):
    """One event in the history of an operation.

    Attributes:
        operation_id: its operation.
        started_at: when its attempt began, in Unix seconds; 0.0 before the start.
        attempt: the number of the attempt.
        sequence: the number of the event in the attempt; below 0 for an inferred one, so that it never replaces a
            reported one.
        timestamp: when it happened, in Unix seconds.
        event: its name.
        stage: the path of its stage.
        text: the event in words.
        status: of a note, or of what ended.
        agent: the agent that reported it.
        ratio: the ratio at that time.
        attributes: its other attributes, as JSON text.
    """

    operation_id: str
    started_at: float
    attempt: int
    sequence: int
    timestamp: float
    event: str
    stage: str | None = None
    text: str = ""
    status: str | None = None
    agent: str | None = None
    ratio: float | None = None
    attributes: str | None = None


class StoredProcess(NamedTuple):
    """One process that was heard of.

    Attributes:
        instance: its key, as in `Process`.
        resource: its resource attributes, as JSON text.
        heard_at: when it was last heard of, in Unix seconds.
        interval: the longest silence that it promises, in seconds; None if it promises none.
        seen: the process as the monitor saw it alive, as JSON text; None if it did not.
    """

    instance: str
    resource: str
    heard_at: float
    interval: float | None = None
    seen: str | None = None


class Mute(NamedTuple):
    """A muted operation.

    Attributes:
        operation_id: its id.
        attempt: the attempt that was muted, as the monitor counts.
        who: the person who muted it.
        reason: why.
        since: when it was muted, in Unix seconds.
        until: when it is heard again, in Unix seconds; None means when the attempt ends.
    """

    operation_id: str
    attempt: int
    who: str | None
    reason: str | None
    since: float
    until: float | None = None


class Query(NamedTuple):
    """A filter for ended operations; fields that are not given match everything.

    Attributes:
        statuses: one of these; none given means all.
        name: exactly this name.
        search: its text contains this, ignoring case.
        since: its newest event happened at this time or later, in Unix seconds.
        until: its newest event happened before this time, in Unix seconds.
        parent: a child of this operation.
        owner: belongs to this owner.
    """

    statuses: tuple[str, ...] = ()
    name: str | None = None
    search: str | None = None
    since: float | None = None
    until: float | None = None
    parent: str | None = None
    owner: str | None = None


@dataclass
class Batch:
    """What is written in one transaction.

    Attributes:
        operations: the new state of each that changed.
        events: additions to the history, of operations that are stored or in this batch.
        processes: the processes that changed.
        outgoing: requests to forward: signal and body.
        sent: the ids of requests that were forwarded.
        mutes: operations that were muted, or unmuted (None).
        removed: the ids of operations that are removed with their history, before anything else is written.
        restarted: operations whose one attempt began earlier or later than was known, with that time.
        keyframes: events on which later ones build, by operation; None where none does any more.
    """

    operations: list[StoredOperation] = field(default_factory=list)
    events: list[HistoryEvent] = field(default_factory=list)
    processes: list[StoredProcess] = field(default_factory=list)
    outgoing: list[tuple[str, bytes]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    mutes: dict[str, Mute | None] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    restarted: dict[str, float] = field(default_factory=dict)
    keyframes: dict[str, bytes | None] = field(default_factory=dict)
