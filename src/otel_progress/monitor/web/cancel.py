"""The monitor's end of the control channel: commands on their way to processes, and their outcomes.

A process polls for its commands. A command is delivered until the process answers, so one whose answer was lost is
delivered again (the process obeys it once). All of this lives on the event loop of the server.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import clock
from otel_progress.errors import ProgressError
from otel_progress.model.values import MESSAGE_LENGTH
from otel_progress.monitor.state.process_keys import declared_instance

WAIT_MOST: Final = 60.0
"""Seconds that a poll is held, and that a caller may wait for an end, at most."""
PRESENT: Final = 60.0
"""Seconds after its last poll for which a process counts as connected, and for which a command waits for it."""
ANSWER_LEAST: Final = 2.0
"""Seconds that a process has to accept a command, however short the caller wants to wait."""
INSTANCES: Final = 10_000
PROCESSES: Final = 100
"""The most processes that share one instance id; normally there is one."""
COMMANDS: Final = 1_000
"""The most commands that wait for one instance."""
AT_ONCE: Final = 50
"""The most commands in one response."""
TRIES: Final = 5
"""How often a command is delivered to a process that polls on without answering it."""
REQUESTED: Final = 100_000
"""The most operations that are remembered as asked to cancel."""
BODY_BYTES: Final = 1024 * 1024
ANSWERS: Final = 1_000
KEY_LENGTH: Final = 200
PID_MOST: Final = 2**32
STATES: Final = frozenset({"received", "refused", "unknown"})

CANCEL: Final = "cancel"
CANCEL_OWNED: Final = "cancel-owned"
"""A command for an owner: the process spares operations of others. A process that does not know it refuses it."""
WARN: Final = "warn"
"""A command that only makes the process log the reason as a warning."""
OBEYED: Final = "obeyed"
RECEIVED: Final = "received"
TIMED_OUT: Final = "timed out"
UNKNOWN_KIND: Final = "this version knows no such command"
"""The answer of a process to an unknown kind of command."""
TOO_OLD: Final = (
    "its process runs a version of otel-progress that cannot spare the operations of others; update it there, or "
    "cancel with a token without an owner"
)
UNREACHABLE: Final = "unreachable"
REFUSED: Final = "refused"


class TooMany(ProgressError):
    """More processes poll for commands than can be held; respond with 503."""


class CommandAnswer(NamedTuple):
    """What a process reports about a command: `received`, `refused` or `unknown`."""

    command: str
    state: str
    detail: str = ""


class Wishing(Protocol):
    """Knows what else to ask processes for."""

    def due(self, instance: str, pid: int | None) -> list[dict[str, Any]]:
        """What to ask a process for now; it counts as asked."""


class Asked(NamedTuple):
    """A poll of a process for its commands."""

    instance: str
    pid: int | None
    answers: tuple[CommandAnswer, ...]
    wait: float
    wishes: bool = False
    """Whether it grants wishes (`wishes.py`); an older version counts them as broken commands."""


class Outcome(NamedTuple):
    """The outcome of a cancel request.

    Attributes:
        state: `obeyed` (the operation ended), `received` (its process received it, and it continues), `timed out` (its
            process did not answer), `unreachable` (its process has no control channel), or `refused` (by its process).
        detail: why, in words.
    """

    state: str
    detail: str = ""


def answers_of(body: bytes) -> Asked:
    """Parse the body of a poll.

    Raises:
        ValueError: if it is invalid; the text says why.
    """
    if len(body) > BODY_BYTES:
        raise ValueError(f"the body is larger than {BODY_BYTES} bytes")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(given, dict):
        raise ValueError("the body must be a JSON object")
    pid, answers, wait = given.get("pid"), _list_of(given, "answers"), given.get("wait", 0)
    if pid is not None and (type(pid) is not int or not 0 <= pid <= PID_MOST):
        raise ValueError("pid must be a process id")
    if not isinstance(answers, list) or len(answers) > ANSWERS:
        raise ValueError(f"answers must be a list of at most {ANSWERS}")
    if type(wait) not in (int, float) or not 0 <= wait < math.inf:
        raise ValueError("wait must be a number of seconds")
    does = _list_of(given, "does")
    if not isinstance(does, list):
        raise ValueError("does must be a list")
    instance = _key("instance", given.get("instance"))
    return Asked(instance, pid, tuple(map(_answer, answers)), min(wait, WAIT_MOST), "live" in does)


def _list_of(given: dict[str, Any], key: str) -> Any:
    """The list of that name; null is an empty one in some languages."""
    found = given.get(key)
    return [] if found is None else found


def _answer(given: Any) -> CommandAnswer:
    if not isinstance(given, dict):
        raise ValueError("an answer must be an object")
    state, detail = given.get("state"), given.get("detail", "")
    if not isinstance(state, str) or state not in STATES:
        raise ValueError(f"the state of an answer must be one of {', '.join(sorted(STATES))}")
    if not isinstance(detail, str):
        raise ValueError("the detail of an answer must be a string")
    return CommandAnswer(_key("command", given.get("command")), state, _line(detail))


def _key(what: str, given: object) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= KEY_LENGTH:
        raise ValueError(f"{what} must be a string of 1 to {KEY_LENGTH} characters")
    return given


def _line(text: str) -> str:
    """The text on one line, cut, without unprintable characters."""
    line = " ".join(text[: 2 * MESSAGE_LENGTH].split())[:MESSAGE_LENGTH]
    return "".join(c if c.isprintable() else "?" for c in line)


@dataclass(eq=False)
class _Command:
    """A command on its way to a process."""

    id: str
    operation_id: str
    attempt: int | None
    reason: str
    instance: str
    owner: str | None = None
    """The owner on whose behalf it is sent, if the caller is limited to one."""
    kind: str = CANCEL
    given: dict[int | None, int] = field(default_factory=dict)
    """How often it was delivered to each process."""
    denied: set[int | None] = field(default_factory=set)
    """Processes that do not know the operation."""
    outcome: Outcome | None = None
    """Its outcome, once that is known."""
    timer: asyncio.TimerHandle | None = None

    def as_json(self) -> dict[str, Any]:
        """The command as the process receives it."""
        kind = self.kind if self.owner is None else CANCEL_OWNED
        about: dict[str, Any] = {"id": self.id, "kind": kind, "operation_id": self.operation_id, "reason": self.reason}
        if self.owner is not None:
            about["owner"] = self.owner
        return about if self.attempt is None else {**about, "attempt": self.attempt}


@dataclass(eq=False)
class _CancelRequest:
    """A requested cancel: the newest command for it, and those who wait for the outcome."""

    command: _Command
    instance: str
    ended: str | None = None
    """The status with which the operation ended."""
    watchers: set[asyncio.Future[None]] = field(default_factory=set)

    def tell(self) -> None:
        """Wake up those who wait."""
        for watcher in self.watchers:
            if not watcher.done():
                watcher.set_result(None)


@dataclass(eq=False)
class _Instance:
    """The processes that share one instance id, and the commands for them."""

    heard: dict[int | None, float] = field(default_factory=dict)
    polls: dict[int | None, asyncio.Future[bool]] = field(default_factory=dict)
    waiting: dict[str, _Command] = field(default_factory=dict)
    granting: set[int | None] = field(default_factory=set)
    """Processes whose newest poll says that they grant wishes."""

    def due(self, pid: int | None) -> list[_Command]:
        """The commands to deliver to this process."""
        commands = self.waiting.values()
        return [c for c in commands if pid not in c.denied and c.given.get(pid, 0) < TRIES][:AT_ONCE]

    def present(self, now: float) -> list[int | None]:
        """The processes that polled recently, or are polling now."""
        return [pid for pid, at in self.heard.items() if pid in self.polls or now - at <= PRESENT]


class Control:
    """Delivers commands to the processes that poll for them."""

    def __init__(self) -> None:
        """No process has polled yet."""
        self._instances: dict[str, _Instance] = {}
        self._wishes: dict[tuple[str, str], _CancelRequest] = {}
        """By operation and process, as an id may run in two."""
        self._closed = False
        self.wishes: Wishing | None = None
        """What processes are asked for besides."""
        self.counts = dict.fromkeys((OBEYED, RECEIVED, TIMED_OUT, UNREACHABLE, REFUSED), 0)
        """The number of cancel requests by outcome."""

    # -- for processes

    async def poll(
        self,
        instance: str,
        pid: int | None,
        answers: Sequence[CommandAnswer] = (),
        wait: float = 0.0,
        *,
        wishes: bool = False,
    ) -> list[dict[str, Any]]:
        """Take a process's answers, and hold its poll up to `wait` seconds for commands; an older one returns empty.

        With `wishes`, the process may get wishes, too.

        Raises:
            TooMany: if there is no room for another process.
        """
        known = self._meet(instance, pid)
        for answer in answers:
            self._take(known, pid, answer)
        older = known.polls.pop(pid, None)
        if older is not None and not older.done():
            older.set_result(False)
        (known.granting.add if wishes else known.granting.discard)(pid)
        wished = self._wished(instance, pid, known)
        quiet = not wished and not known.due(pid)
        if wait > 0 and quiet and not self._closed and not await self._hold(known, pid, wait):
            return []
        commands = known.due(pid)
        for command in commands:
            command.given[pid] = command.given.get(pid, 0) + 1
        return [command.as_json() for command in commands] + (wished or self._wished(instance, pid, known))

    def _wished(self, instance: str, pid: int | None, known: _Instance) -> list[dict[str, Any]]:
        """What to ask a process for now, if it grants wishes."""
        if self.wishes is None or self._closed or pid not in known.granting:
            return []
        return self.wishes.due(instance, pid)

    def wake(self, instances: Iterable[str] | None, wanted: Callable[[str, int | None], bool]) -> None:
        """Answer the polls of processes that grant wishes and of which something is wanted, among these or all."""
        for instance in self._instances if instances is None else instances:
            known = self._instances.get(instance, _Instance())
            for pid, poll in known.polls.items():
                if pid in known.granting and not poll.done() and wanted(instance, pid):
                    poll.set_result(True)

    def connected(self, instance: str) -> bool:
        """Whether a process of this instance is polling, or did so within the last minute."""
        known = self._instances.get(declared_instance(instance))
        return known is not None and bool(known.present(clock.monotonic()))

    def _meet(self, instance: str, pid: int | None) -> _Instance:
        known = self._instances.pop(instance, None)
        if known is None:
            if len(self._instances) >= INSTANCES:
                self._make_room()
            known = _Instance()
        self._instances[instance] = known  # last: the one that was heard most recently
        known.heard[pid] = clock.monotonic()
        if len(known.heard) > PROCESSES:
            oldest = min(known.heard, key=known.heard.__getitem__)
            del known.heard[oldest]
            known.granting.discard(oldest)
        return known

    def _make_room(self) -> None:
        """Forget the process that was not heard for longest, of those that are not polling and have no commands."""
        for name, known in self._instances.items():
            if not known.polls and not known.waiting:
                del self._instances[name]
                return
        raise TooMany(f"{INSTANCES} processes are connected already; try again later")

    async def _hold(self, known: _Instance, pid: int | None, wait: float) -> bool:
        """Wait for commands; whether this is still the newest poll of its process."""
        poll: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        known.polls[pid] = poll
        try:
            await asyncio.wait({poll}, timeout=min(wait, WAIT_MOST))
        finally:
            if known.polls.get(pid) is poll:
                del known.polls[pid]
        known.heard[pid] = clock.monotonic()
        return not poll.done() or poll.result()

    def _take(self, known: _Instance, pid: int | None, answer: CommandAnswer) -> None:
        """Take an answer; one to a command that is not waiting is ignored."""
        command = known.waiting.get(answer.command)
        if command is None:
            return
        if answer.state == "unknown":
            command.denied.add(pid)
            if any(other not in command.denied for other in known.present(clock.monotonic())):
                return  # another process of this instance may know it
            outcome = Outcome(REFUSED, answer.detail or "its process knows no such operation")
        elif command.owner is not None and answer.detail == UNKNOWN_KIND:
            outcome = Outcome(REFUSED, TOO_OLD)
        else:
            outcome = Outcome(RECEIVED if answer.state == "received" else REFUSED, answer.detail)
        self._settle(known, command, outcome)

    # -- for callers

    async def cancel(
        self,
        operation_id: str,
        attempt: int | None,
        instance: str,
        reason: str | None = None,
        wait: float = 5.0,
        owner: str | None = None,
    ) -> Outcome:
        """Ask an operation to stop, and wait up to `wait` seconds for its end; an owner spares operations of others.

        The process has at least two seconds to answer. While a request is on its way, another one joins it. A process
        that is away for a moment gets the command if it comes back within a minute, even after the caller timed out.
        """
        instance = declared_instance(instance)
        known = self._instances.get(instance)
        if known is None or self._closed or not self.connected(instance):
            return self._count(Outcome(UNREACHABLE, "its process has no control channel to this monitor"))
        wish = self._wishes.get((operation_id, instance))
        joins = wish is not None and wish.command.attempt == attempt
        reaches = joins and wish is not None and wish.command.owner == owner
        if wish is None or not reaches or wish.command.outcome is not None:
            if len(known.waiting) >= COMMANDS:
                return self._count(Outcome(REFUSED, f"{COMMANDS} requests are waiting for its process already"))
            command = _Command(secrets.token_hex(8), operation_id, attempt, _line(reason or ""), instance, owner)
            wish = self._wish(command, instance, wish if joins else None)
            self._send(known, command)
        return self._count(await self._watch(wish, max(0.0, min(wait, WAIT_MOST))))

    def warn(self, operation_id: str, instance: str, text: str) -> bool:
        """Make a process log a warning about an operation; whether it has a control channel to this monitor."""
        instance = declared_instance(instance)
        known = self._instances.get(instance)
        if known is None or self._closed or not self.connected(instance) or len(known.waiting) >= COMMANDS:
            return False
        self._send(known, _Command(secrets.token_hex(8), operation_id, None, _line(text), instance, kind=WARN))
        return True

    def ended(self, operation_id: str, status: str, attempt: int | None = None, instance: str | None = None) -> None:
        """An operation ended; to be called for each end.

        An end in another process belongs to another run of the id; without an instance, any process is meant.
        """
        keys = [(operation_id, instance)] if instance is not None else list(self._wishes)
        for key in keys:
            if key[0] == operation_id:
                self._end(key, status, attempt)

    def _end(self, key: tuple[str, str], status: str, attempt: int | None) -> None:
        wish = self._wishes.get(key)
        if wish is None or (attempt is not None and attempt < (wish.command.attempt or 0)):
            return
        wish.ended = status
        known = self._instances.get(wish.instance)
        if known is not None:
            self._settle(known, wish.command, Outcome(OBEYED, f"it ended as {status}"))
        self._wishes.pop(key, None)
        wish.tell()

    def requested(self, operation_id: str) -> bool:
        """Whether an operation was asked to cancel and continues, and its process did not refuse."""
        return any(key[0] == operation_id for key in self._wishes)

    def close(self) -> None:
        """Release all who wait; from now on nothing can be reached. May be called twice."""
        self._closed = True
        for known in self._instances.values():
            for poll in known.polls.values():
                if not poll.done():
                    poll.set_result(False)
            for command in list(known.waiting.values()):
                self._settle(known, command, Outcome(UNREACHABLE, "the monitor ends"))
        for wish in self._wishes.values():
            wish.tell()

    def _wish(self, command: _Command, instance: str, before: _CancelRequest | None) -> _CancelRequest:
        """Remember a requested cancel; those who wait for the same one keep waiting."""
        wish = before or _CancelRequest(command, instance)
        wish.command = command
        key = (command.operation_id, instance)
        self._wishes.pop(key, None)
        self._wishes[key] = wish
        if len(self._wishes) > REQUESTED:
            del self._wishes[next(iter(self._wishes))]
        return wish

    def _send(self, known: _Instance, command: _Command) -> None:
        """Deliver a command to the processes that are polling, or to those that will within a minute."""
        known.waiting[command.id] = command
        gone = Outcome(TIMED_OUT, "its process did not answer")
        command.timer = asyncio.get_running_loop().call_later(PRESENT, self._settle, known, command, gone)
        for poll in known.polls.values():
            if not poll.done():
                poll.set_result(True)

    def _settle(self, known: _Instance, command: _Command, outcome: Outcome) -> None:
        """Record the outcome of a command."""
        known.waiting.pop(command.id, None)
        if command.timer is not None:
            command.timer.cancel()
        command.outcome = outcome
        key = (command.operation_id, command.instance)
        wish = self._wishes.get(key)
        if wish is None:
            return
        if wish.command is command and outcome.state != RECEIVED:
            del self._wishes[key]
        wish.tell()

    async def _watch(self, wish: _CancelRequest, wait: float) -> Outcome:
        """Wait up to `wait` seconds for the outcome of the newest command."""
        command, began = wish.command, clock.monotonic()
        while True:
            if wish.ended is not None:
                return Outcome(OBEYED, f"it ended as {wish.ended}")
            outcome = command.outcome
            if outcome is not None and (outcome.state != RECEIVED or self._closed):
                return outcome
            left = (wait if outcome is not None else max(wait, ANSWER_LEAST)) - (clock.monotonic() - began)
            if left <= 0:
                return outcome or Outcome(TIMED_OUT, "its process did not answer; it may still do so within a minute")
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            wish.watchers.add(watcher)
            try:
                await asyncio.wait({watcher}, timeout=left)
            finally:
                wish.watchers.discard(watcher)

    def _count(self, outcome: Outcome) -> Outcome:
        self.counts[outcome.state] += 1
        return outcome
