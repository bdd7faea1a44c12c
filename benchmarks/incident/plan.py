"""What the drill plays, and what it expects: pure values, in seconds.

A *stage* of the drill has a Collector, a Prometheus, an Alertmanager and a webhook of its own. There are two, which
play at the same time: an outage of 6 minutes hides everything else, and what it leaves shows only minutes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from grafana.generator.queries import VERDICTS

Place = Literal["main", "outage"]

JUDGED: Final = 45.0
"""From a limit that the process itself judges (stuck, overdue, looping) to the webhook."""
WATCHED_KILL: Final = 60.0
UNWATCHED_KILL: Final = 300.0
FURTHER: Final = 90.0
"""How much later an alert may come if another run of the same kind of work has had it before: `group_interval`."""
RESOLVED: Final = 40.0 + FURTHER
"""From a recovery to its message: export, scrape, evaluation, and `group_interval`."""
DEPLOYED: Final = 20
OUTAGE: Final = 360.0
SILENT_RESTART: Final = 5.0


@dataclass(frozen=True)
class Step:
    """Something that the drill does, `at` seconds after all programs of the first steps (at 0) are ready."""

    at: float
    action: Literal["start", "order", "kill", "deploy", "down", "up", "panels"]
    run: str = ""
    kind: str = ""
    order: str = ""
    watched: bool = False


@dataclass(frozen=True)
class Message:
    """An alert that the webhook must be sent: which, about what, and how many seconds after which moment.

    Attributes:
        cause: the name of the moment, as `RUN.MOMENT`.
        says: regular expressions; each must match some annotation.
        links: annotations that must hold an absolute URL.
    """

    alert: str
    run: str
    cause: str
    within: float
    status: Literal["firing", "resolved"] = "firing"
    severity: str = "critical"
    says: tuple[str, ...] = ()
    links: tuple[str, ...] = ("runbook", "dashboard", "trace", "logs")
    optional: bool = False
    """Whether it may be left out."""


@dataclass(frozen=True)
class Panel:
    """A value that a panel, or a store behind it, must show.

    Attributes:
        at: seconds after the start of the drill.
        where: `dashboard: panel`, with the letter of a query after a slash if only one of them is meant; or `logs`,
            `logs 5 min` (what the last 6 minutes hold), or `trace`.
        labels: a row must have these; a value that begins with `~` is a regular expression.
    """

    at: float
    where: str
    run: str
    labels: tuple[tuple[str, str], ...] = ()
    low: float = 0.0
    high: float = float("inf")
    absent: bool = False
    """Whether no row may have these labels."""


@dataclass(frozen=True)
class Scenario:
    """A part of the drill."""

    name: str
    about: str
    place: Place
    steps: tuple[Step, ...]
    messages: tuple[Message, ...] = ()
    panels: tuple[Panel, ...] = ()
    until: float = 0.0
    """Seconds that it must last, so that what is wrong has the time to show."""


VERDICT: Final = "operation: In short/A"
TROUBLE: Final = "now: Somebody should look at these/A"
ALERTS: Final = "now: Alerts that fire"
FIRES: Final = "~Operation.+"
DURATION: Final = r"\d+ ?(min|m|s)"


def verdict(at: float, run: str, *words: str) -> tuple[Panel, ...]:
    """The verdict of one operation: one of these words."""
    numbers = sorted(VERDICTS[word] for word in words)
    return (Panel(at, VERDICT, run, (), numbers[0], numbers[-1]),)


def trouble(at: float, run: str, word: str, **labels: str) -> tuple[Panel, ...]:
    """What a run in trouble shows on the dashboards: its row, its verdict, its alert."""
    name = ("progress_operation_id", run)
    more = ((f"progress_{key}", value) for key, value in labels.items())
    number = VERDICTS[word]
    return (
        Panel(at, TROUBLE, run, (name, *more), number, number),
        *verdict(at, run, word),
        Panel(at, ALERTS, run, (name, ("alertname", FIRES))),
    )


def ended(at: float, run: str) -> tuple[Panel, ...]:
    """What a run that ended shows: its end, and no row among those in trouble."""
    name = (("progress_operation_id", run),)
    return (
        *verdict(at, run, "ended"),
        Panel(at, TROUBLE, run, name, absent=True),
        Panel(at, ALERTS, run, name, absent=True),
    )


HANG: Final = "~.*jobs.py:.* in hang_here"
IN_TOOL: Final = "~.*jobs.py:.* in hang_in_tool"
LATE: Final = 300.0
"""When the panels are read again: after the restart, while all alerts should still fire."""

SCENARIOS: Final = (
    Scenario(
        "stuck",
        "one run hangs for good, one goes on after a while",
        "main",
        (
            Step(0, "start", "stuck-1", "stuck"),
            Step(0, "start", "stuck-2", "stuck"),
            Step(110, "order", "stuck-2", order="move"),
        ),
        (
            Message(
                "OperationStuck", "stuck-1", "stuck-1.limit", JUDGED, says=("fetch", "hang_here", "limit is 20 ?s")
            ),
            Message(
                "OperationStuck",
                "stuck-2",
                "stuck-2.limit",
                JUDGED + FURTHER,
                says=("fetch", "hang_here", "limit is 20 ?s"),
            ),
            Message(
                "OperationStuck", "stuck-2", "stuck-2.recovery", RESOLVED, "resolved", says=("^recovered$",), links=()
            ),
        ),
        (
            *trouble(95, "stuck-1", "silent", stage_name="fetch", stuck_at=HANG),
            *trouble(LATE + 90, "stuck-1", "silent", stage_name="fetch", stuck_at=HANG),
            Panel(95, "operation: Idle, and its limit", "stuck-1", (), 20, 20),
            Panel(95, "operation: Idle, and its limit", "stuck-1", (), 40, 200),
            Panel(95, "operation: Done, and how fast", "stuck-1", (), 10, 40),
            Panel(
                95,
                "operation: Stages, waits and stalls",
                "stuck-1",
                (("progress_stage_name", "fetch"),),
                VERDICTS["silent"],
            ),
            Panel(
                95, "logs", "stuck-1", (("event_name", "progress.stalled"), ("progress.stack", "~(?s).*hang_here.*"))
            ),
            Panel(LATE + 90, "logs 5 min", "stuck-1", (("progress.stack", "~(?s).*hang_here.*"),)),
            *verdict(200, "stuck-2", "progressing"),
            Panel(200, TROUBLE, "stuck-2", (("progress_operation_id", "stuck-2"),), absent=True),
        ),
        until=360,
    ),
    Scenario(
        "parallel",
        "one of three parallel tools hangs, the others go on",
        "main",
        (Step(0, "start", "parallel-1", "parallel"),),
        (Message("OperationStuck", "parallel-1", "parallel-1.limit", JUDGED, says=("browse", "hang_in_tool")),),
        (
            *trouble(95, "parallel-1", "silent", stage_name="browse", stuck_at=IN_TOOL),
            Panel(95, "logs", "parallel-1", (("event_name", "progress.stalled"), ("progress.stage.name", "browse"))),
        ),
        until=130,
    ),
    Scenario(
        "looping",
        "an agent repeats two steps, and pays for each",
        "main",
        (Step(0, "start", "looping-1", "looping"),),
        (
            Message(
                "OperationLooping",
                "looping-1",
                "looping-1.limit",
                JUDGED,
                says=("read → search|search → read", r"\b\d+ times", r"0\.\d+|\d+\.\d+"),
            ),
        ),
        (
            *trouble(95, "looping-1", "looping"),
            Panel(95, "logs", "looping-1", (("progress.health", "looping"),)),
        ),
        until=130,
    ),
    Scenario(
        "overdue",
        "a declared wait is longer than its limit",
        "main",
        (Step(0, "start", "overdue-1", "overdue"),),
        (
            Message(
                "OperationOverdueWait",
                "overdue-1",
                "overdue-1.limit",
                JUDGED,
                severity="warning|critical",
                says=(r"limit of 20 s \(", r"overdue (by [1-9]|now)"),
            ),
        ),
        (
            *trouble(95, "overdue-1", "overdue"),
            Panel(95, "logs", "overdue-1", (("event_name", "progress.wait.overdue"),)),
        ),
        until=130,
    ),
    Scenario(
        "killed",
        "SIGKILL: a run that `otel-progress run` watches, and one that nobody watches",
        "main",
        (
            Step(0, "start", "watched-1", "steady", watched=True),
            Step(0, "start", "unwatched-1", "steady"),
            Step(25, "kill", "watched-1"),
            Step(25, "kill", "unwatched-1"),
        ),
        (
            Message("OperationLost", "watched-1", "watched-1.cause", WATCHED_KILL, says=("killed by SIGKILL",)),
            Message("OperationLost", "unwatched-1", "unwatched-1.cause", UNWATCHED_KILL + FURTHER, says=("load",)),
        ),
        (
            *trouble(100, "watched-1", "killed"),
            *trouble(390, "watched-1", "killed"),
            *trouble(390, "unwatched-1", "dead"),
            Panel(100, "logs", "watched-1", (("event_name", "progress.operation.ended"), ("progress.status", "lost"))),
            Panel(100, "trace", "watched-1", (("name", "steady"),)),
            Panel(100, "trace", "unwatched-1", (("name", "read"),)),
        ),
        until=400,
    ),
    Scenario(
        "memory",
        "a watched run is killed because memory runs out (needs `--memory-group`)",
        "main",
        (Step(0, "start", "memory-1", "greedy", watched=True),),
        (Message("OperationLost", "memory-1", "memory-1.cause", WATCHED_KILL + 30, says=("out of memory",)),),
        trouble(100, "memory-1", "killed"),
        until=130,
    ),
    Scenario(
        "restart",
        "the Collector restarts within 5 s while all these alerts fire",
        "main",
        (Step(310, "down"), Step(310 + SILENT_RESTART, "up")),
        until=430,
    ),
    Scenario(
        "deploy",
        f"{DEPLOYED} processes end by SIGTERM, and {DEPLOYED} new ones start",
        "main",
        (
            *(Step(0, "start", f"deploy-old-{number}", "deployed") for number in range(DEPLOYED)),
            Step(50, "deploy"),
        ),
        (),
        (
            *ended(420, "deploy-old-0"),
            *ended(420, f"deploy-old-{DEPLOYED - 1}"),
            *verdict(420, "deploy-new-0", "progressing"),
        ),
        until=430,
    ),
    Scenario(
        "outage",
        "no Collector for 6 minutes; meanwhile runs end under `otel-progress run`, in a worker, and in a bare process",
        "outage",
        (
            Step(0, "start", "out-watched", "steady", watched=True),
            Step(0, "start", "out-worker", "worker"),
            Step(0, "start", "out-bare", "steady"),
            Step(0, "start", "out-runs", "steady"),
            Step(0, "start", "out-killed", "steady", watched=True),
            Step(30, "down"),
            Step(90, "order", "out-watched", order="end"),
            Step(100, "order", "out-worker", order="end-first"),
            Step(110, "order", "out-bare", order="end"),
            Step(120, "kill", "out-killed"),
            Step(30 + OUTAGE, "up"),
            Step(30 + OUTAGE + 10, "start", "out-next", "steady", watched=True),  # sends what the others had to keep
        ),
        (
            Message("PipelineDown", "", "down", 120, links=("runbook",)),
            Message("PipelineDown", "", "up", 150, "resolved", links=()),
            Message(
                "OperationLost",
                "out-bare",
                "up",
                480,
                severity="warning",
                says=("silence began in an outage",),
            ),
            Message("OperationLost", "out-killed", "up", 120, says=("killed by SIGKILL",)),
        ),
        (
            *(
                found
                for run in ("out-watched", *(f"out-worker-{number}" for number in range(3)))
                for found in ended(30 + OUTAGE + 90, run)
            ),
            *verdict(30 + OUTAGE + 90, "out-runs", "progressing"),
            *verdict(30 + OUTAGE + 90, "out-worker-5", "progressing"),
            Panel(30 + OUTAGE + 90, "logs", "out-watched", (("event_name", "progress.operation.ended"),)),
            Panel(30 + OUTAGE + 90, "logs", "out-worker-0", (("event_name", "progress.operation.ended"),)),
        ),
        until=30 + OUTAGE + 420,
    ),
    Scenario(
        "healthy",
        "bursts, a long declared wait, slow branches, short operations, cycles with progress",
        "main",
        (Step(0, "start", "healthy", "healthy"),),
        (),
        (
            *verdict(95, "healthy-bursts", "progressing"),
            *verdict(95, "healthy-waits", "waiting"),
            *verdict(95, "healthy-branches", "progressing"),
            *verdict(95, "healthy-cycles", "progressing"),
        ),
        until=130,
    ),
    Scenario(
        "healthy-outage",
        "the same healthy work through the outage",
        "outage",
        (Step(0, "start", "healthy-out", "healthy"),),
        until=130,
    ),
)
"""All parts, in the order of the report."""


def choose(names: list[str]) -> list[Scenario]:
    """Return the named scenarios, or all; the healthy work runs beside each.

    Raises:
        ValueError: If a name is unknown.
    """
    known = {it.name: it for it in SCENARIOS}
    # `lost` is what the alert is called.
    wanted = [{"lost": "killed"}.get(name, name) for name in names]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no such scenario: {', '.join(unknown)}; there are {', '.join(known)}")
    places = {known[name].place for name in wanted}
    beside = {"main": "healthy", "outage": "healthy-outage"}
    wanted += [beside[place] for place in places]
    return [it for it in SCENARIOS if not names or it.name in wanted]


def length(scenarios: list[Scenario]) -> float:
    """Return the seconds that they last."""
    ends = [it.until for it in scenarios]
    ends += [step.at for it in scenarios for step in it.steps]
    ends += [panel.at for it in scenarios for panel in it.panels]
    return max(ends)
