"""The words, signs and styles that the terminal uses for snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress.model import units
from otel_progress.model.feed import RUNNING
from otel_progress.model.fields import StageSnapshot
from otel_progress.model.health import judge_branch
from otel_progress.model.status import Health, Status, word
from otel_progress.model.summary import pairs, path_of
from otel_progress.model.units import amount, duration, lasting, left, money, plural, spelled, unforeseen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_progress.model.estimate import Estimate
    from otel_progress.model.snapshot import Branch, Progress, Snapshot, Wait
    from otel_progress.model.stage_runs import StageRuns

Span = tuple[str, str]
"""A text and its style."""
Line = tuple[Span, ...]

MOVING: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STILL: Final = "⠿"
TROUBLE: Final = "!"
UNKNOWN: Final = "?"
DOT: Final = " · "
DASH: Final = "\u2013"
ICONS: Final = {
    Status.PENDING: "·",
    Status.WAITING: "‖",
    Status.COMPLETED: "✓",
    Status.FAILED: "✗",
    Status.LOST: "✗",
    Status.CANCELLED: "⊘",
    Status.INTERRUPTED: "■",
    Status.SKIPPED: DASH,
}
STYLES: Final = {
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.LOST: "bold red",
    Status.INTERRUPTED: "yellow",
    Status.CANCELLED: "yellow",
}
OUTCOMES: Final = {
    "failed": "red",
    "error": "red",
    "warning": "yellow",
    "skipped": "yellow",
    "ok": "green",
    "completed": "green",
}
ASCII: Final = str.maketrans("✓✗⊘■‖\u2013·…━╾─▪⠿" + MOVING, "+x/#=-.~=>-#*" + "|/-\\|/-\\|/")
"""ASCII replacements for the signs, for encodings without them."""

NOTED: Final = {
    "failed": "✗",
    "error": "✗",
    "warning": "!",
    "ok": "✓",
    "completed": "✓",
    **dict.fromkeys(RUNNING, "…"),
}
"""The sign of a note by its status."""

SOURCES: Final = {"rate": "pace now", "plan": "planned", "children": "from its children"}
"""Where an estimate comes from, in words."""
TEXTS: Final = 1_000
"""The most texts of estimates that a live view remembers."""
IDLE_FROM: Final = 3.0
"""Idle seconds from which on idle time is shown, at the earliest."""
IDLE_PART: Final = 0.25
"""Part of the limit from which on idle time is shown: below it, a slow unit is nothing to tell."""
IDLE_ALWAYS: Final = 30.0
"""Idle seconds from which on idle time is shown, whatever the limit."""


def trouble(snapshot: Snapshot) -> Span | None:
    """The badge and colour of an operation in trouble, such as `STUCK`; else None."""
    if snapshot.health_reason is None or snapshot.status.final:
        return None
    if snapshot.health is Health.DEAD and getattr(snapshot, "frozen", False):
        return "FROZEN", "red"
    badge = "OVERDUE" if snapshot.health is Health.WAITING else word(snapshot.health).upper()
    return badge, "yellow" if snapshot.health in (Health.SLOW, Health.WAITING, Health.UNKNOWN) else "red"


class BranchLine(NamedTuple):
    """One of several branches: its label, its state with a colour, and the evidence."""

    label: str
    state: str
    style: str
    words: str
    troubled: bool


def strand(branch: Branch) -> BranchLine:
    """The line of a branch."""
    verdict = judge_branch(branch)
    state = "overdue" if verdict.overdue else word(verdict.health)
    mild = verdict.overdue or verdict.health in (Health.SLOW, Health.UNKNOWN)
    style = ("yellow" if mild else "red") if verdict.troubled else "yellow" if branch.wait else "dim"
    return BranchLine(clean(branch.label), state, style, clean(_evidence(branch, verdict.health)), verdict.troubled)


def _evidence(branch: Branch, health: Health) -> str:
    limit = f" of {duration(branch.stall_after)}" if branch.stall_after is not None else ""
    if branch.wait is not None and health is Health.WAITING:
        return waiting(branch.wait)
    if branch.child is not None:
        return spelled(branch.reason or "")
    if branch.loop is not None and health is Health.LOOPING:
        return spelled(branch.loop.reason)
    if health is Health.SILENT:
        return f"no progress for {lasting(branch.idle)}{limit}"
    return f"idle {lasting(branch.idle)}{limit}" if tells(branch.idle, branch.stall_after) else ""


def waiting(wait: Wait) -> str:
    """`waits for 36 s of 6 s: approval`; in its first second `waits up to 6 s: approval`, or `waits: approval`."""
    at_most = None if wait.overdue_after is None else duration(wait.overdue_after)
    if wait.elapsed < 1.0:
        return f"waits{'' if at_most is None else f' up to {at_most}'}: {clean(wait.reason)}"
    limit = "" if at_most is None else f" of {at_most}"
    return f"waits for {lasting(wait.elapsed)}{limit}: {clean(wait.reason)}"


def clean(words: object) -> str:
    """The text on one line, without control characters or signs that change its direction."""
    text = str(words)
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def is_untimed(node: Snapshot | StageSnapshot) -> bool:
    """Whether nobody knows how long it took."""
    return isinstance(node, StageSnapshot) and node.untimed


def joined(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line)


def counted(progress: Progress) -> str:
    """`1,102/1,812 files`; without a unit `3/10`, `10 items`, or `10 done` for the unit `1`."""
    if progress.completed is None:
        return ""
    done, of, named = progress.completed, progress.total, progress.unit
    text = amount(done, named)
    if of and of != done:
        text += f"/{amount(of, named)}"
        unit = "" if named in ("item", "1") else plural(clean(named), of)
    else:
        unit = "done" if named == "1" else plural(clean(named), done)
    return text if named in units.BYTES or not unit else f"{text} {unit}"


class Calm:
    """The texts that a live view shows, so that an estimate at the border of two roundings keeps its text."""

    def __init__(self) -> None:
        """Start with no text."""
        self._shown: dict[tuple[str, str], str] = {}

    def say(self, key: tuple[str, str], eta: Estimate) -> str:
        """The text of an estimate, by operation id and stage path."""
        if len(self._shown) > TEXTS:
            self._shown.clear()
        text = self._shown[key] = left(eta.eta, eta.low, eta.high, self._shown.get(key, ""))
        return text

    def has_said(self, key: tuple[str, str]) -> bool:
        """Whether an estimate was shown before."""
        return key in self._shown


def remaining(
    progress: Progress, calm: Calm | None = None, key: tuple[str, str] = ("", ""), *, waits: bool = False
) -> str:
    """`about 4 min left`, `2 to 5 min left`, `almost done`, or what `unforeseen` says: `no estimate yet`.

    Args:
        progress: of what runs.
        calm: the texts of a live view; without it the text depends on the progress alone.
        key: operation id and stage path, for `calm`.
        waits: whether it is in a declared wait, in which the estimate stands still: `then about 4 min`; one from its
            children does not, as it waits for them.
    """
    eta = progress.eta
    if eta is None:
        return unforeseen(progress.completed, progress.total, had=calm is not None and calm.has_said(key))
    text = left(eta.eta, eta.low, eta.high) if calm is None else calm.say(key, eta)
    return units.remaining(text, waits=waits, source=eta.source)


def source(eta: Estimate) -> str:
    """Where an estimate comes from: `from 12 earlier runs`, `pace now`, `planned`."""
    if eta.source == "history":
        return f"from {eta.runs:,} earlier {plural('run', eta.runs)}" if eta.runs else "from earlier runs"
    return SOURCES.get(eta.source, eta.source)


def tells(idle: float, limit: float | None) -> bool:
    """Whether it is idle for long enough to be shown: a quarter of its limit, from 3 to 30 s."""
    return idle >= min(IDLE_ALWAYS, max(IDLE_FROM, IDLE_PART * (IDLE_ALWAYS if limit is None else limit)))


def idling(idle: float, limit: float | None) -> Span | None:
    """`idle 12 s of 30 s`, coloured as it approaches the limit; None while that tells nothing."""
    if not tells(idle, limit):
        return None
    if limit is None:
        return f"idle {lasting(idle)}", "dim"
    part = idle / limit
    return f"idle {lasting(idle)} of {duration(limit)}", "red" if part >= 0.8 else "yellow" if part >= 0.5 else "dim"


def tally(snapshot: Snapshot) -> Line:
    """Outcomes, other counters, tokens and cost: `1,099 ok · 3 failed · 20,400 input tokens`."""
    spans = [(f"{amount(n)} {clean(key)}", OUTCOMES.get(key, "dim")) for key, n in _numbers(snapshot.outcomes)]
    for key, n in _numbers(snapshot.counters):
        spans.append((amount(n, key) + ("" if key in units.BYTES else f" {plural(clean(key), n)}"), "dim"))
    for key, n in _numbers(snapshot.usage):
        what, _, currency = key.partition(".")
        words = money(n, currency) if what == "cost" else f"{amount(n)} {key.replace('_', ' ')}"
        spans.append((clean(words), "dim"))
    return tuple(part for span in spans for part in ((DOT, "dim"), span))[1:]


def repeated(runs: StageRuns) -> Line:
    """`fetch x 400  median 212 ms  p95 900 ms  3 failed`."""
    bad = [(status, count) for status, count in runs.counts.items() if status != Status.COMPLETED]
    ended = tuple((f"  {count:,} {status}", STYLES.get(Status(status), "")) for status, count in bad)
    spread = f"  median {duration(runs.median)}  p95 {duration(runs.p95)}"
    return ((f"{clean(path_of(runs))} x {runs.count:,}", ""), (spread, "dim"), *ended)


def said(values: Mapping[str, object]) -> str:
    """Attributes on one line: `root=/usr, depth=3`."""
    return clean(pairs(values))


def noted(status: str | None, text: object, attributes: Mapping[str, object]) -> Line:
    """A note with its sign or status, its text, and its attributes."""
    sign = NOTED.get(status or "")
    words = clean(text)
    mark = "" if sign is None else f"{sign} "
    if sign is None and status and not words.startswith(status):
        words += f" [{clean(status)}]"
    about = said(attributes)
    return ((mark + words, OUTCOMES.get(status or "", "")), (f"  {about}" if about else "", "dim"))


def _numbers(values: Mapping[str, object]) -> list[tuple[str, float]]:
    return [(key, value) for key, value in values.items() if isinstance(value, (int, float))]
