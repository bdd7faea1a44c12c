"""One agent of a session as an operation: its turns are attempts, its tools are stages. Times are in ns since 1970."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from otel_progress.model.loop import Loop, Steps
from otel_progress.model.snapshot import Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.hooks.tool_limits import AGENT_LIMIT, ToolLimit

STAGES: Final = 64
"""The most tools of a turn that are listed one by one."""
LOOP_AFTER: Final = 10
"""Repeats of a call, or of a cycle of calls, with the same input that make a loop."""

NO_END: Final = "no end was reported"


@dataclass
class ToolCall:
    """A call of a tool.

    Attributes:
        name: the name of the tool.
        span: identifies the call, also after a restart of the monitor.
        waits: what it waits for, and since when.
        is_guess: whether its end was concluded, so that the reported one replaces it.
    """

    name: str
    span: str
    started: int
    limit: ToolLimit
    ended: int | None = None
    status: Status = Status.RUNNING
    reason: str | None = None
    message: str | None = None
    input_hash: str = ""
    waits: tuple[str, int] | None = None
    is_guess: bool = False

    def end(self, status: Status, at: int, reason: str | None = None, *, is_guess: bool = False) -> None:
        """It is over."""
        self.ended, self.status, self.reason, self.waits = max(at, self.started), status, reason, None
        self.is_guess = is_guess


@dataclass
class Agent:
    """An agent: the main one of a session, or a sub-agent. Unless it `runs`, it waits for what comes next."""

    operation_id: str
    name: str
    parent_id: str | None = None
    attempt: int = 0
    started: int = 0
    status: Status = Status.COMPLETED
    reason: str | None = None
    sequence: int = 0
    ended: int = 0
    early: bool = False
    waits: tuple[str, int] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    folded: Counter[str] = field(default_factory=Counter)
    folded_seconds: Counter[str] = field(default_factory=Counter)
    steps: Steps = field(default_factory=Steps)
    looped_since: int | None = None

    @property
    def runs(self) -> bool:
        """Whether a turn is going on."""
        return not self.status.final

    @property
    def running(self) -> list[ToolCall]:
        """The calls that are not over, in the order of their starts."""
        return [call for call in self.calls.values() if call.ended is None]

    def begin(self, at: int) -> None:
        """Start a turn: another attempt at the same operation."""
        self.attempt, self.started, self.status, self.reason = self.attempt + 1, at, Status.RUNNING, None
        self.waits, self.steps, self.looped_since, self.early = None, Steps(), None, False
        self.calls, self.folded, self.folded_seconds = {}, Counter(), Counter()

    def end(self, status: Status, at: int, reason: str | None = None) -> None:
        """End the turn; calls whose end was not reported end with it."""
        for call in self.running:
            call.end(Status.CANCELLED, at, NO_END, is_guess=True)
        self.status, self.reason, self.ended, self.waits, self.looped_since = status, reason, at, None, None

    def add(self, call: ToolCall) -> None:
        """Add a call; beyond `STAGES` the oldest that is over is folded."""
        self.calls[call.span] = call
        if len(self.calls) <= STAGES:
            return
        oldest = next((one for one in self.calls.values() if one.ended is not None), None)
        if oldest is None:
            oldest = next(iter(self.calls.values()))
            oldest.end(Status.CANCELLED, call.started, NO_END, is_guess=True)
        del self.calls[oldest.span]
        self.folded[oldest.status.value] += 1
        self.folded_seconds[oldest.status.value] += (oldest.ended or 0) - oldest.started

    def step(self, call: ToolCall, at: int) -> None:
        """Remember what was called with which input: the same again and again is a loop."""
        self.steps.add(f"{call.name} {call.input_hash}".strip())
        if self.steps.found(LOOP_AFTER) is None:
            self.looped_since = None
        elif self.looped_since is None:
            self.looped_since = at

    def snapshot(self, at: int) -> Snapshot:
        """All that is known of it."""
        final, running = self.status.final, self.running
        moment = self.ended if final else at
        wait = None if final else self._wait(running, at)
        current = self._current(running) if not final else None
        loop = None if final else self._loop(at)
        limit = AGENT_LIMIT if current is None else current.limit
        return Snapshot(
            self.operation_id,
            self.name,
            self.status if final or wait is None else Status.WAITING,
            moment / 1e9,
            attempt=self.attempt,
            parent_id=self.parent_id,
            sequence=self.sequence,
            health=Health.LOOPING if loop is not None else Health.PROGRESSING,
            reason=self.reason,
            started_at=self.started / 1e9,
            elapsed=max(0, moment - self.started) / 1e9,
            stall_after=None if final else limit.seconds,
            stall_after_source=None if final else limit.source,
            stage=None if current is None else current.name,
            message=None if current is None else current.message or current.name,
            agent=self.name,
            wait=wait,
            loop=loop,
            stages=tuple(_stage(call, at) for call in self.calls.values()),
            folded=tuple((name, count, self.folded_seconds[name] / 1e9) for name, count in self.folded.items()),
            attributes=Attributes(self.attributes),
        )

    def _wait(self, running: list[ToolCall], at: int) -> Wait | None:
        """The wait of the agent: all that runs waits."""
        waits = [call.waits for call in running]
        if running and all(waits):
            reason, since = next(each for each in waits if each is not None)
        elif self.waits is not None and not running:
            reason, since = self.waits
        else:
            return None
        return Wait(reason, max(0, at - since) / 1e9)

    def _current(self, running: list[ToolCall]) -> ToolCall | None:
        """The call that is first to break its limit, of those that do not wait."""
        busy = [call for call in running if call.waits is None] or running
        return min(busy, key=lambda call: call.started / 1e9 + call.limit.seconds, default=None)

    def _loop(self, at: int) -> Loop | None:
        found = self.steps.found(LOOP_AFTER)
        if found is None or self.looped_since is None:
            return None
        return Loop("step", *found, LOOP_AFTER, max(0, at - self.looped_since) / 1e9)

    def resume(self, known: Snapshot) -> None:
        """Go on from what was known before the monitor started."""
        self.attempt, self.status, self.reason, self.sequence = (
            known.attempt,
            known.status,
            known.reason,
            known.sequence,
        )
        self.started, self.ended = round((known.started_at or known.timestamp) * 1e9), round(known.timestamp * 1e9)
        self.attributes = {key: value for key, value in known.attributes.items() if isinstance(value, str)}
        if self.status is Status.WAITING:
            self.status = Status.RUNNING
        if known.wait is not None:
            self.waits = known.wait.reason, self.ended - round(known.wait.elapsed * 1e9)
        for number, stage in enumerate(known.stages):
            began = round((stage.started_at or 0.0) * 1e9)
            limit = ToolLimit(stage.stall_after or AGENT_LIMIT.seconds, known.stall_after_source or AGENT_LIMIT.source)
            call = ToolCall(stage.name, stage.span_id or f"earlier {number}", began, limit, message=stage.message)
            if stage.status.final:
                call.end(stage.status, began + round(stage.elapsed * 1e9), stage.reason)
            elif self.waits is not None:
                call.waits = self.waits
            self.calls[call.span] = call
        for name, count, seconds in known.folded:
            self.folded[name], self.folded_seconds[name] = count, round(seconds * 1e9)


def span_of(session: str, tool_use: str) -> str:
    """An id for a call, in the form of a span id."""
    return hashlib.sha256(f"{session} {tool_use}".encode()).hexdigest()[:16]


def _stage(call: ToolCall, at: int) -> StageSnapshot:
    over = call.ended is not None
    return StageSnapshot(
        call.name,
        call.name,
        call.status if over or call.waits is None else Status.WAITING,
        started_at=call.started / 1e9,
        elapsed=max(0, (at if call.ended is None else call.ended) - call.started) / 1e9,
        stall_after=None if over else call.limit.seconds,
        message=call.message,
        reason=call.reason,
        wait=None if call.waits is None else Wait(call.waits[0], max(0, at - call.waits[1]) / 1e9),
        span_id=call.span,
    )
