"""What the monitor keeps on disk, as plain values; `store.py` writes and reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class StoredOperation(NamedTuple):
    """The state of one operation, as its newest event had it.

    Attributes:
        operation_id: which.
        name: what it is called.
        status: the value of its `Status`.
        health: the value of its `Health`.
        parent_id: the operation that it is part of.
        agent: the agent that it belongs to.
        owner: whom it belongs to, for tokens that are limited to one owner.
        started_at: when its newest attempt began, in Unix seconds.
        timestamp: when the newest event was said, in Unix seconds.
        attempt: the number of its newest attempt, as the monitor counts.
        sequence: the number of the newest event in it.
        instance: the process that said it.
        revision: rises with each change; never starts anew.
        text: what a search looks at, in lower case.
        raw: the newest event as an OTLP log record in protobuf.
        presumed: its end is inferred, not proven.
        dead: it was told that its process is dead.
        rolled: how far it was shown, where that is rolled up from its children; as JSON text.
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


class HistoryEvent(NamedTuple):
    """One event of an operation, for its history.

    Attributes:
        operation_id: whose.
        started_at: when its attempt began, in Unix seconds; 0.0 before that.
        attempt: the number of the attempt.
        sequence: the number of the event in it; below 0 for one that was inferred, so that it never stands in the
            way of a real one.
        timestamp: when it was said, in Unix seconds.
        event: its name.
        stage: the path of the stage that it is about.
        text: what it says, in words.
        status: of a note, or of what ended.
        agent: the agent that said it.
        ratio: how much was done.
        attributes: what else it said, as JSON text.
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
        instance: its `service.instance.id`.
        resource: what it says of itself, as JSON text.
        heard_at: when it was last heard of, in Unix seconds.
        interval: seconds from one of its heartbeats to the next; None where it did not say.
    """

    instance: str
    resource: str
    heard_at: float
    interval: float | None = None


class Query(NamedTuple):
    """Which operations that are over are meant; what is not given does not matter.

    Attributes:
        statuses: any of these; none given means all.
        name: exactly this name.
        search: its text holds this, in upper or lower case.
        since: its newest event was not before, in Unix seconds.
        until: its newest event was before, in Unix seconds.
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
        events: what is added to the history, of operations that are stored or in this batch.
        processes: what was heard of processes.
        outgoing: requests that wait to be passed on: their signal, and their body.
        sent: the ids of outgoing requests that wait no more.
    """

    operations: list[StoredOperation] = field(default_factory=list)
    events: list[HistoryEvent] = field(default_factory=list)
    processes: list[StoredProcess] = field(default_factory=list)
    outgoing: list[tuple[str, bytes]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
