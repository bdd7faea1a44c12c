"""What a store keeps: operations, leases, keys, and what is written in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from otel_progress.errors import LeaseLost, OperationHeld
from otel_progress.model.units import duration

if TYPE_CHECKING:
    from otel_progress.durable.holder import Holder

T = TypeVar("T")
LEASE: Final = 30.0
"""Seconds from the last renewal of a lease until another process may take it."""
RENEW: Final = 10.0
"""Seconds between two renewals while nothing is saved."""
KEEP_DAYS: Final = 30.0
"""Days after its last sign of life for which an operation is kept."""
PAUSE: Final = 0.25
"""How much of that time a pause counts at most in which nothing was written: it may be a jump of the clock."""
POISON: Final = 2
"""Deaths after which a key is set aside, if it was the only one that was in hand each time."""
BROKEN: Final = frozenset({"BrokenExecutor", "TerminatedWorkerError", "WorkerLostError"})
"""Errors of pools that lost a process: of concurrent.futures, loky and billiard."""
WORKER_LOST: Final = "a worker of its pool died"
"""How the store tells such a death."""
STOPPED: Final = frozenset({"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"})
"""Deaths that no key is blamed for: somebody stopped the process."""
RUNNING: Final = "running"
"""The status of an operation whose process did not say how it ended."""
GONE: Final = "its process is gone"
"""How a process died of which nobody saw the end."""
LOST: Final = "lost"
"""The status of an operation whose process is gone without a word."""
STATE: Final = "state"
RESULT: Final = "result"
ORDER: Final = "order"
Kind = Literal["state", "result", "order"]
"""What a text of a scope is: the state of `checkpoint`, the result of a stage, or how far a loop by position is."""


@dataclass(frozen=True)
class Lease:
    """The right of one attempt to write.

    Attributes:
        id: the id of the operation.
        attempt: the number of the attempt.
        fence: rises each time somebody takes the operation; a write with an older one is refused.
    """

    id: str
    attempt: int
    fence: int


@dataclass(frozen=True)
class Claim:
    """Who asks for an operation.

    Attributes:
        id: the id of the operation.
        name: its name.
        holder: the process that asks.
        fingerprint: what its code and arguments are known by, if anything.
        fresh: whether to forget what earlier attempts saved.
    """

    id: str
    name: str
    holder: Holder
    fingerprint: str | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Summary:
    """How far an operation was when the store last heard of it."""

    completed: float | None = None
    total: float | None = None
    unit: str | None = None
    stage: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class StoredOperation:
    """An operation as the store knows it.

    Attributes:
        id: its id.
        name: its name.
        attempt: the number of the newest attempt; the fields below are about that one.
        status: `running` while its process did not say how it ended, else the status that it ended with.
        reason: why it ended: the exception, or how the process died, such as `SIGKILL`.
        holder: its process.
        fingerprint: what its code and arguments are known by.
        started_at: when it started (s, Unix).
        ended_at: when it ended (s, Unix), if it did.
        seen_at: when the store last heard of it (s, Unix).
        lease_until: when its lease is over (s, Unix); 0 if nobody holds it.
        lease_mono: the same by the monotonic clock of the machine, if the store serves one machine alone.
        fence: the fencing number of the newest lease.
        summary: how far it was.
        checkpoint_at: when something was last saved (s, Unix).
        trace_id: the trace of its span, if it had one.
        span_id: its span.
    """

    id: str
    name: str
    attempt: int
    status: str
    reason: str | None
    holder: Holder
    fingerprint: str | None
    started_at: float
    ended_at: float | None
    seen_at: float
    lease_until: float
    lease_mono: float | None
    fence: int
    summary: Summary = Summary()
    checkpoint_at: float | None = None
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True)
class Acquired:
    """A lease that was taken, and what was there before; None if nothing was."""

    lease: Lease
    before: StoredOperation | None


@dataclass(frozen=True)
class Keys:
    """The keys of a scope.

    Attributes:
        done: those that are done.
        failed: those that were tried and failed.
        aside: those that are set aside, as they ended the process again and again.
        suspects: those that were in hand when a process died, and are neither done nor set aside since.
    """

    done: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    aside: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Suspect:
    """A key that was in hand when a process died: where, how often, and whether it is set aside."""

    scope: str
    key: str
    deaths: int
    aside: bool


@dataclass
class Batch:
    """What is written in one transaction.

    Attributes:
        done: keys that are done, by scope.
        failed: keys that failed, by scope.
        states: texts to keep, by scope and kind.
        hands: the keys in hand, by scope; they replace those of before.
        closed: scopes whose content is no longer needed, with all scopes inside them.
        summary: how far the operation is.
        span: trace id and span id.
        ended: status and reason, which frees the lease.
        died: how a process of a pool died that ended it: that counts as a death of what was in hand.
    """

    done: dict[str, Sequence[str]] = field(default_factory=dict)
    failed: dict[str, Sequence[str]] = field(default_factory=dict)
    states: dict[tuple[str, Kind], str] = field(default_factory=dict)
    hands: dict[str, Sequence[str]] = field(default_factory=dict)
    closed: Sequence[str] = ()
    summary: Summary | None = None
    span: tuple[str, str] | None = None
    ended: tuple[str, str | None] | None = None
    died: str | None = None

    @property
    def saves(self) -> bool:
        """Whether it holds work of the job, not only a sign of life."""
        return bool(self.done or self.failed or self.states)


def is_blamed(before: StoredOperation, here: Holder) -> bool:
    """Whether the keys in hand may have ended the process of an attempt: not if its machine was started again."""
    there = before.holder
    return there.host != here.host or not there.boot or not here.boot or there.boot == here.boot


def poisonous(in_hand: Iterable[tuple[str, str, int]], how: str | None) -> list[tuple[str, str]]:
    """The keys to set aside after a death, as scopes and keys.

    A key ended the process if it was in hand at two deaths, and no other was as often. Of several that were in hand
    each time, as in a pool, nobody knows which one it was, so none is set aside: the next attempt hands them out apart
    from each other. A loop around another one only has in hand what the inner one has.

    Anybody may send SIGKILL: a scheduler, an operator. So a key is set aside after such a death, or one that nobody
    saw, only if it was alone in hand, and for the third time: what waits in a pool is not to blame.

    Args:
        in_hand: the scope, the key, and the number of deaths, this one included, of each key that was in hand.
        how: how the process died; None if nobody saw it.
    """
    given = list(in_hand)
    paths = tuple(path for path, _, _ in given)
    inner = [one for one in given if not any(path.startswith(f"{one[0]}[{json.dumps(one[1])}]/") for path in paths)]
    most = max((deaths for _, _, deaths in inner), default=0)
    worst = [(path, key) for path, key, deaths in inner if deaths == most]
    if how in (None, GONE, "SIGKILL"):
        return worst if len(inner) == 1 and most > POISON else []
    return worst if len(worst) == 1 and most >= POISON else []


def is_worker_lost(error: BaseException | None) -> bool:
    """Whether a pool raised this because one of its processes died."""
    return any(kind.__name__ in BROKEN for kind in type(error).__mro__)


def held(found: StoredOperation, here: Holder, now: float, mono: float) -> bool:
    """Whether a process holds an operation, as one process sees it at a Unix and a monotonic time (s)."""
    if found.status != RUNNING or not found.lease_until or found.holder.is_gone(here):
        return False
    # A jump of the wall clock ends no lease of this machine.
    if here.boot and found.holder.boot == here.boot and found.lease_mono is not None:
        return mono < found.lease_mono
    return now < found.lease_until


def too_old(rows: Iterable[tuple[float, T]], now: float, keep: float) -> Iterator[T]:
    """What was not heard of for `keep` seconds, as the store saw them pass.

    The clock of the process that asks may be wrong by weeks, and so may that of one that wrote before. So an age is the
    sum of the pauses between the signs of life in the store, from now back, and each of them counts for at most
    `PAUSE * keep`. A clock that is ahead, or was behind, adds one such pause to the age of all operations.

    Args:
        rows: when each was last heard of (s, Unix), the newest first, and what it is.
        now: the time (s, Unix).
        keep: seconds to keep.
    """
    age = 0.0
    for seen_at, row in rows:
        if seen_at < now:  # else it was noted by a clock that is ahead of this one
            age += min(now - seen_at, PAUSE * keep)
            now = seen_at
        if age > keep:
            yield row


def lost(lease: Lease, gone_from: str | None = None) -> LeaseLost:
    """The error for an attempt whose lease is another's.

    Args:
        lease: the lease.
        gone_from: the store, if it does not know the operation any more.
    """
    why = "was taken over by another process" if gone_from is None else f"was deleted from {gone_from}"
    return LeaseLost(
        f"operation {lease.id!r} {why}, so attempt {lease.attempt} can't save anything any more: stop this process"
    )


def refused(found: StoredOperation, now: float) -> OperationHeld:
    """The error for an operation that another process holds."""
    since = duration(max(0.0, now - found.started_at))
    left = duration(max(0.0, found.lease_until - now))
    return OperationHeld(
        f"operation {found.id!r} is held by {found.holder}, for {since} so far (attempt {found.attempt}); its lease "
        f"expires in {left} unless it is renewed. Stop that process, wait with wait_for_lease=60, or use another id"
    )
