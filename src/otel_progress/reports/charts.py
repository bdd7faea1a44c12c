"""Geometry of the charts: where bars and lines are, in coordinates that are stretched to the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from otel_progress.model.status import Status
from otel_progress.model.units import BYTES, amount, duration, percent, plural, rate
from otel_progress.render.words import clean
from otel_progress.reports.comparison import RunRow, median
from otel_progress.reports.document import WIDTH, Bar, Columns, Curve, Gantt, Lane
from otel_progress.reports.run import Pause, Run, moment

LANES: Final = 64
"""Lines of a Gantt chart."""
COLUMNS: Final = 90
"""Upright bars of a chart; more runs share them."""
THIN: Final = 2.0
"""Width of the thinnest bar, so that a stage of a few ms is seen."""
TICKS: Final = 4
POINTS: Final = 3
"""Points from which on a curve is drawn."""
TONES: Final = {
    Status.COMPLETED: "good",
    Status.FAILED: "bad",
    Status.LOST: "bad",
    Status.CANCELLED: "warn",
    Status.INTERRUPTED: "warn",
    Status.SKIPPED: "off",
}
LEGEND: Final = {
    "good": "completed",
    "bad": "failed or lost",
    "warn": "cancelled or interrupted",
    "open": "no end yet",
    "wait": "declared wait",
    "stall": "stuck",
}


def tone_of(status: Status) -> str:
    """The tone of a status."""
    return TONES.get(status, "open")


def ticks(seconds: float) -> tuple[str, ...]:
    """Labels of a time axis, from 0 to the end."""
    return tuple("0" if not part else duration(seconds * part / TICKS) for part in range(TICKS + 1))


def gantt(run: Run) -> Gantt | None:
    """Stages over time with their waits and stalls; None if there is nothing to draw."""
    one, whole = run.snapshot, run.snapshot.elapsed
    if whole <= 0:
        return None
    paths: dict[str, list[Bar]] = {}
    spent: dict[str, float] = {}
    for stage in one.stages:
        if stage.started_at is None or stage.untimed:
            continue
        about = f"{clean(stage.path)}: {stage.status.value}, {duration(stage.elapsed)}"
        bar = _bar(stage.started_at - run.began, stage.elapsed, whole, tone_of(stage.status), about)
        paths.setdefault(stage.path, []).append(bar)
        spent[stage.path] = spent.get(stage.path, 0.0) + stage.elapsed
    for pause in run.pauses:
        paths.setdefault(pause.stage or "", []).append(_pause(pause, run, whole))
    if not paths:
        return None
    order = sorted(paths, key=lambda path: (path != "", min(bar.x for bar in paths[path]), path))
    known = set(order)
    lanes = [
        Lane(
            _label(path, known) or clean(one.name),
            _depth(path, known),
            tuple(_merged(paths[path])),
            duration(spent[path]) if path in spent else "",
        )
        for path in order[:LANES]
    ]
    used = {bar.tone for lane in lanes for bar in lane.bars}
    legend = tuple((tone, words) for tone, words in LEGEND.items() if tone in used)
    hidden = len(order) - LANES
    return Gantt(tuple(lanes), ticks(whole), legend, f"+ {hidden:,} more stages" if hidden > 0 else "")


def _pause(pause: Pause, run: Run, whole: float) -> Bar:
    seconds = pause.seconds(run.as_of)
    tone, word = ("wait", "waited") if pause.kind == "wait" else ("stall", "stuck")
    place = f", at {clean(pause.stuck_at)}" if pause.stuck_at else ""
    return _bar(
        pause.begin - run.began, seconds, whole, tone, f"{word} for {duration(seconds)}: {clean(pause.reason)}{place}"
    )


def _bar(begin: float, seconds: float, whole: float, tone: str, title: str) -> Bar:
    x = min(WIDTH - THIN, max(0.0, begin / whole * WIDTH))
    width = min(WIDTH - x, max(THIN, seconds / whole * WIDTH))
    return Bar(round(x, 1), round(width, 1), tone, title)


def _merged(bars: list[Bar]) -> list[Bar]:
    """Bars in the order in which they are drawn: waits and stalls on top."""
    return sorted(bars, key=lambda bar: (bar.tone in ("wait", "stall"), bar.x))


def _depth(path: str, known: set[str]) -> int:
    parts = path.split("/")
    return sum("/".join(parts[:at]) in known for at in range(1, len(parts)))


def _label(path: str, known: set[str]) -> str:
    """The name of a stage below its parents that are shown."""
    parts = path.split("/")
    above = max((at for at in range(1, len(parts)) if "/".join(parts[:at]) in known), default=0)
    return clean("/".join(parts[above:]))


def curves(run: Run) -> list[Curve]:
    """Completed units over time, and their rate; without these the ratio; empty with fewer than three points."""
    return _counted(run) or _ratio(run)


def _ratio(run: Run) -> list[Curve]:
    points, whole = run.ratios, run.snapshot.elapsed
    if len(points) < POINTS or whole <= 0 or len({ratio for _, ratio in points}) == 1:
        return []
    line = " ".join(f"{_x(at, whole)},{_y(ratio, 1.0)}" for at, ratio in points)
    return [Curve("progress", (line,), percent(1.0), ticks(whole))]


def _counted(run: Run) -> list[Curve]:
    one = run.snapshot
    later = [point for point in one.curve if point[0] > 0]
    restored = one.progress.restored or 0  # of an earlier attempt: they were there at the start
    points = [(0.0, min(restored, later[0][1]) if later else 0), *later]
    if one.curve and one.curve[0][0] <= 0:
        points[0] = (0.0, one.curve[0][1])
    whole = max(one.elapsed, points[-1][0])
    if len(points) < POINTS or whole <= 0:
        return []
    most = max(value for _, value in points)
    steps = [(a[0], b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairwise(points) if b[0] > a[0]]
    if len(steps) > 1 and steps[-1][1] - steps[-1][0] < whole / WIDTH * 10:
        del steps[-1]  # the moment between the last unit and the end is no rate
    fastest = max((speed for _, _, speed in steps), default=0.0)
    if most <= 0 or fastest <= 0:
        return []
    unit = one.progress.unit
    named = plural(clean(unit)) if unit not in ("1", *BYTES) else "bytes" if unit in BYTES else "units"
    done = " ".join(f"{_x(at, whole)},{_y(value, most)}" for at, value in points)
    speeds = [_step(begin, end, speed, whole, fastest) for begin, end, speed in steps]
    return [
        Curve(f"completed {named}", (done,), amount(most, unit), ticks(whole)),
        Curve("rate", tuple(_joined(speeds)), rate(fastest, unit), ticks(whole)),
    ]


def _step(begin: float, end: float, speed: float, whole: float, fastest: float) -> str:
    """A level piece of the rate; none where the count fell, as units were not undone at a rate."""
    y = _y(speed, fastest)
    return "" if speed < 0 else f"{_x(begin, whole)},{y} {_x(end, whole)},{y}"


def _joined(pieces: Sequence[str]) -> list[str]:
    """Pieces that follow each other as one line; a gap begins a new one."""
    lines = [""]
    for piece in pieces:
        if piece:
            lines[-1] = f"{lines[-1]} {piece}".strip()
        elif lines[-1]:
            lines.append("")
    return [line for line in lines if line]


def _x(seconds: float, whole: float) -> float:
    return round(min(1.0, max(0.0, seconds / whole)) * WIDTH, 1)


def _y(value: float, most: float) -> float:
    return round(100 - min(1.0, max(0.0, value / most)) * 100, 1)


def durations(rows: Sequence[RunRow]) -> Columns | None:
    """The duration of each run, in order; beyond 90 runs each bar stands for a few, and is as long as their median."""
    shown = [row for row in rows if row.ended]
    if len(shown) < 2:
        return None
    size = -(-len(shown) // COLUMNS)
    groups = [shown[at : at + size] for at in range(0, len(shown), size)]
    heights = [median([row.duration for row in group]) or 0.0 for group in groups]
    most = max(heights)
    if most <= 0:
        return None
    wide = WIDTH / len(groups)
    bars = []
    for at, (group, height) in enumerate(zip(groups, heights)):
        x, width = round((at + 0.1) * wide, 1), round(0.8 * wide, 1)
        bars.append((Bar(x, width, _worst(group), _about(group, height)), _y(height, most)))
    middle = median([row.duration for row in shown])
    dates = (moment(shown[0].started_at)[:16], moment(shown[-1].started_at)[:16])
    used = {bar.tone for bar, _ in bars}
    legend = tuple((tone, words) for tone, words in LEGEND.items() if tone in used)
    what = "duration of each run" if size == 1 else f"median duration of each {size:,} runs"
    line = None if middle is None else _y(middle, most)
    return Columns(what, tuple(bars), duration(most), dates, line, legend)


def _worst(group: Sequence[RunRow]) -> str:
    tones = {tone_of(row.status) for row in group}
    return next((tone for tone in ("bad", "warn", "good") if tone in tones), "off")


def _about(group: Sequence[RunRow], seconds: float) -> str:
    if len(group) == 1:
        row = group[0]
        return f"{clean(row.operation_id)}, {moment(row.started_at)}: {row.status.value} after {duration(seconds)}"
    failed = sum(row.bad for row in group)
    return f"{len(group)} runs from {moment(group[0].started_at)}: median {duration(seconds)}, {failed} failed or lost"
