"""Sessions of Claude Code as operations, from the events that its hooks post, in any order.

A session is an operation, and each turn an attempt at it: from the first event after a prompt until `Stop`. Tools are
stages, sub-agents child operations. Nothing proves that a session lives between two hooks, so the monitor judges it as
any other program that does not judge itself: by its limits, each of which names its source.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.redact import Redact, guarded
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.hooks.agent import Agent, ToolCall, span_of
from otel_progress.monitor.hooks.payload import TEXT, HookEvent
from otel_progress.monitor.hooks.tool_limits import ToolLimits
from otel_progress.outbound import otlp
from otel_progress.version import VERSION

NAME: Final = "claude-code"
"""The name of the operations of main agents, of the service, and of the instrumentation scope."""
AGENTS: Final = 2_000
"""The most agents that are remembered; what is known of others comes from the store."""
PERMISSION: Final = "permission"
ANSWER: Final = "an answer"
PROMPT: Final = "a prompt"
"""Reasons of waits for a human."""
ASKING: Final = frozenset({"AskUserQuestion", "ExitPlanMode"})
"""Tools that wait for a human by themselves."""
NOT_ALLOWED: Final = "not allowed, as the session went on without it"
_ENDS: Final = {
    "PostToolUse": Status.COMPLETED,
    "PostToolUseFailure": Status.FAILED,
    "PermissionDenied": Status.CANCELLED,
}
_OVER: Final = frozenset({"Stop", "StopFailure", "SubagentStop", "SessionEnd"})
_PASSIVE: Final = frozenset({"SessionStart", "Setup", "Notification", *_OVER})
"""Events that do not say that an agent works."""
_RESOURCE: Final = {s.SERVICE_NAME: NAME, s.JUDGED_BY: "monitor"}


class ClaudeCode:
    """All sessions; it belongs to one event loop."""

    def __init__(self, redact: Redact = mask_secrets, *, keep_inputs: bool = False, agents: int = AGENTS) -> None:
        """None yet.

        Args:
            redact: each text that is kept passes through it.
            keep_inputs: whether the inputs of tools are shown; else only a hash of each is looked at.
            agents: how many agents are remembered.
        """
        self._redact = guarded(redact)
        self._keep_inputs = keep_inputs
        self._most = agents
        self._agents: OrderedDict[str, Agent] = OrderedDict()
        self._limits = ToolLimits()
        self._calls = 0

    def is_known(self, operation_id: str) -> bool:
        """Whether an agent is remembered."""
        return operation_id in self._agents

    def recall(self, known: Snapshot) -> None:
        """Remember an agent that was known before the monitor started."""
        if not self.is_known(known.operation_id):
            self._add(Agent(known.operation_id, known.name, known.parent_id)).resume(known)

    def request(self, event: HookEvent, at: int, owner: str | None = None) -> bytes:
        """Take an event; returns what it changed as an OTLP logs request, which may be empty.

        Args:
            event: the event.
            at: when it arrived, in ns since 1970.
            owner: the owner of the token by which it came in.
        """
        return b"".join(self._changes(event, at, owner))

    def _changes(self, event: HookEvent, at: int, owner: str | None) -> Iterator[bytes]:
        if event.name == "SessionEnd":
            for child in self._children(event.session):
                if child.runs:
                    child.end(Status.INTERRUPTED, at, _session_end(event))
                    yield self._report(child, at, (s.OPERATION_ENDED, None))
                del self._agents[child.operation_id]
        agent = self._agent(event)
        if agent is None:
            return
        agent.attributes |= {key: value for key, value in (("owner", owner), ("cwd", self._folder(event))) if value}
        before = agent.snapshot(at) if agent.runs else None
        for said in self._apply(agent, event, at):
            yield self._report(agent, at, said)
        if not agent.attempt:
            return
        waited = None if before is None or before.attempt != agent.attempt else before.wait
        waits = agent.snapshot(at).wait if agent.runs else None
        if waited is not None and waits is None and agent.runs:
            own = {s.WAIT_REASON: waited.reason, s.WAIT_DURATION: waited.elapsed}
            yield self._report(agent, at, (s.WAIT_ENDED, None), own)
        elif waits is not None and waited is None:
            yield self._report(agent, at, (s.WAIT_STARTED, None))

    def _apply(self, agent: Agent, event: HookEvent, at: int) -> Iterator[tuple[str, ToolCall | None]]:
        """Apply an event to its agent; yields the names of our events, each with its call."""
        if event.name in _OVER:
            yield from self._end(agent, event, at)
            return
        if event.name in _ENDS:
            yield from self._end_call(agent, event, at)
            return
        if event.name == "SubagentStart" and agent.early:
            agent.early = False  # it ended before its start was heard
            return
        if event.name == "UserPromptSubmit" and agent.waits is not None and agent.waits[0] == PROMPT and agent.runs:
            agent.end(Status.CANCELLED, at, "interrupted by the user")
            yield s.OPERATION_ENDED, None
        if event.name == "PreToolUse" and self._find(agent, event) is not None:
            yield _same(agent), None  # it is said again, or its end was heard before
            return
        starts = event.name not in _PASSIVE and not agent.runs
        if starts:
            agent.begin(at)
            yield s.OPERATION_STARTED, None
        elif event.name not in _PASSIVE:
            agent.waits = None
        if event.name == "PreToolUse":
            yield from self._begin_call(agent, event, at)
        elif event.name == "PermissionRequest":
            self._wait(agent, event, PERMISSION, at)
        elif event.name == "Notification":
            self._notice(agent, event, at)
        elif agent.runs and not starts:
            yield s.HEARTBEAT, None

    def _begin_call(self, agent: Agent, event: HookEvent, at: int) -> Iterator[tuple[str, ToolCall | None]]:
        for other in agent.running:
            if other.waits is not None and other.waits[0] == PERMISSION:
                other.end(Status.CANCELLED, at, NOT_ALLOWED, is_guess=True)
                yield s.STAGE_ENDED, other
        call = self._call(event, at)
        if event.tool in ASKING:
            call.waits = ANSWER, at
        agent.add(call)
        agent.step(call, at)
        yield s.STAGE_STARTED, call

    def _call(self, event: HookEvent, at: int) -> ToolCall:
        self._calls += 1
        key = event.tool_use or f"{at} {self._calls}"
        call = ToolCall(event.tool, span_of(event.session, key), at, self._limits.of(event.tool, event.timeout))
        call.input_hash = event.input_hash
        if self._keep_inputs and event.input_text:
            call.message = self._redact("tool_input", event.input_text)[:TEXT]
        return call

    def _end_call(self, agent: Agent, event: HookEvent, at: int) -> Iterator[tuple[str, ToolCall | None]]:
        call = self._find(agent, event)
        if call is None and not agent.runs and not agent.attempt:
            agent.begin(at)  # the monitor heard nothing of this turn
            yield s.OPERATION_STARTED, None
        if call is None:
            call = self._call(event, at - round((event.duration or 0.0) * 1e9))
            agent.add(call)
        elif call.ended is not None and not call.is_guess:
            yield _same(agent), None
            return
        status = Status.CANCELLED if event.interrupted else _ENDS[event.name]
        took = event.duration
        if took is None and call.waits is None and not call.is_guess:
            took = (at - call.started) / 1e9
        if status is Status.COMPLETED and took is not None and event.tool not in ASKING:
            self._limits.ended(event.tool, took)
        failed = status is not Status.COMPLETED
        call.end(status, at, self._short(event.text) or "failed" if failed else None)
        if agent.runs:
            agent.waits = None
            yield s.STAGE_ENDED, call
        else:
            yield _same(agent), None

    def _end(self, agent: Agent, event: HookEvent, at: int) -> Iterator[tuple[str, ToolCall | None]]:
        if event.name == "SubagentStop" and not agent.attempt:
            agent.begin(at)
            agent.early = True
            yield s.OPERATION_STARTED, None
        if not agent.attempt:
            return
        if agent.runs and event.name == "SessionEnd":
            agent.end(Status.INTERRUPTED, at, _session_end(event))
        elif agent.runs and event.name == "StopFailure":
            agent.end(Status.FAILED, at, self._short(event.text) or "the model gave no answer")
        elif agent.runs:
            agent.end(Status.COMPLETED, at)
        yield s.OPERATION_ENDED, None

    def _notice(self, agent: Agent, event: HookEvent, at: int) -> None:
        """Claude Code asks for attention; older versions say why in words alone."""
        text = event.text.lower()
        if event.kind == "permission_prompt" or (not event.kind and "permission" in text):
            if all(call.waits is None for call in agent.running):
                self._wait(agent, event, PERMISSION, at)
        elif event.kind == "elicitation_dialog":
            self._wait(agent, event, ANSWER, at)
        elif agent.runs and (event.kind == "idle_prompt" or (not event.kind and "waiting for your input" in text)):
            agent.waits = agent.waits or (PROMPT, at)

    def _wait(self, agent: Agent, event: HookEvent, reason: str, at: int) -> None:
        """A human is asked: the call that fits best waits, or else the agent."""
        running = [call for call in agent.running if call.waits is None]
        same = [call for call in running if call.name == event.tool]
        fits = (
            [call for call in same if call.input_hash == event.input_hash]
            or same
            or [call for call in running if call.name in event.text]
            or running
        )
        if fits:
            fits[-1].waits = reason, at
        elif agent.runs:
            agent.waits = agent.waits or (reason, at)

    def _find(self, agent: Agent, event: HookEvent) -> ToolCall | None:
        """The call of an event; without an id the newest running one of the same tool and input, for its end."""
        if event.tool_use is not None:
            return agent.calls.get(span_of(event.session, event.tool_use))
        if event.name == "PreToolUse":
            return None
        fits = [call for call in agent.running if (call.name, call.input_hash) == (event.tool, event.input_hash)]
        return fits[0] if fits else None

    # -- agents

    def _agent(self, event: HookEvent) -> Agent | None:
        """The agent of an event; None if a sub-agent ended that nobody can name."""
        if event.agent is not None:
            key = child_id(event.session, event.agent)
            found = self._agents.get(key) or self._add(Agent(key, "sub-agent", event.session))
            if event.agent_type:
                found.name = event.agent_type
            return found
        if event.name in ("SubagentStart", "SubagentStop"):
            running = [child for child in self._children(event.session) if child.runs]
            return running[0] if event.name == "SubagentStop" and len(running) == 1 else None
        return self._agents.get(event.session) or self._add(Agent(event.session, NAME))

    def _children(self, session: str) -> list[Agent]:
        return [agent for agent in self._agents.values() if agent.parent_id == session]

    def _add(self, agent: Agent) -> Agent:
        while len(self._agents) >= self._most:
            ended = next((key for key, one in self._agents.items() if not one.runs), None)
            del self._agents[ended or next(iter(self._agents))]
        self._agents[agent.operation_id] = agent
        return agent

    # -- texts and bytes

    def _short(self, text: str) -> str:
        return self._redact("reason", text)[:TEXT] if text else ""

    def _folder(self, event: HookEvent) -> str | None:
        return None if event.folder is None else self._redact("cwd", event.folder)

    def _report(
        self, agent: Agent, at: int, said: tuple[str, ToolCall | None], own: dict[str, Any] | None = None
    ) -> bytes:
        """An event of an agent as part of a request."""
        name, call = said
        agent.sequence = max(agent.sequence + 1, at // 1_000_000)
        snapshot = agent.snapshot(at)
        about = {**wire.to_attributes(snapshot), **(own or {})}
        for key in (s.IDLE,) if snapshot.loop is not None else (s.IDLE, s.HEALTH):
            del about[key]  # the monitor judges
        if call is not None:
            about |= {s.STAGE_PATH: call.name, s.STAGE_NAME: call.name}
            if call.ended is not None:
                about |= {s.STAGE_STATUS: call.status.value, s.STAGE_ELAPSED: (call.ended - call.started) / 1e9}
        severity = otlp.ERROR if name == s.OPERATION_ENDED and agent.status is Status.FAILED else otlp.INFO
        words = sentence(Event(name, at, snapshot, stage=None if call is None else call.name))
        record = otlp.log_record(name, at, at, severity, words, otlp.attributes(6, about), None, None, False)
        resource = otlp.resource({**_RESOURCE, s.SERVICE_INSTANCE_ID: f"{NAME}/{agent.operation_id}"})
        return otlp.envelope(resource, otlp.scope(f"{NAME}-hooks", VERSION), [record])


def child_id(session: str, agent: str) -> str:
    """The id of the operation of a sub-agent."""
    return f"{session}:{agent}"


def _same(agent: Agent) -> str:
    """The event that says again what is known."""
    return s.UPDATED if agent.runs else s.OPERATION_ENDED


def _session_end(event: HookEvent) -> str:
    return "the session ended" + (f" ({event.text[:TEXT]})" if event.text else "")
