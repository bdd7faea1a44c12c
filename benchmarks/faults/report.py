"""The findings as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from benchmarks.faults.load import CALM
from benchmarks.faults.score import Delay, Score, labels

TICK: Final = 1.0
"""One tick, in seconds."""
EXPORT: Final = 1.0
"""One export interval of log events, in seconds."""
BARS: Final = {
    ("inside", "silent"): 1.0,
    ("outside", "silent"): 1.0,
    ("outside", "dead"): 1.0,
    ("inside", "looping"): 0.95,
    ("outside", "looping"): 0.95,
}
"""The lowest recall that is accepted."""


def confusion(found: Score, view: str) -> str:
    """Return the confusion matrix: truth by conclusion."""
    names = list(labels(found, view))
    lines = ["| intended \\ concluded | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for want in names:
        row = [found.confusion[view, want, concluded] for concluded in names]
        if any(row):
            lines.append(f"| {want} | " + " | ".join(str(count or "") for count in row) + " |")
    return "\n".join(lines)


def recalls(found: Score) -> str:
    """Return the recall of each verdict, with its bar if it has one."""
    lines = ["| verdict | seen from | found | recall | bar | met |", "|---|---|---:|---:|---:|---|"]
    for view in ("inside", "outside"):
        for want in labels(found, view):
            right, all_ = found.recall(view, want)
            if all_:
                bar = BARS.get((view, want))
                met = "" if bar is None else "yes" if right / all_ >= bar else "**no**"
                least = "" if bar is None else f"{bar:.0%}"
                lines.append(f"| {want} | {view} | {right} of {all_} | {right / all_:.1%} | {least} | {met} |")
    return "\n".join(lines)


def delays(found: Score) -> str:
    """Return the delays after the limit by verdict and view, with bars for silent, looping and dead."""
    head = "| verdict | seen from | count | median | p95 | max | bar | met | while the machine was idle |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|---|---|"]
    groups = sorted({(delay.view, delay.want) for delay in found.delays})
    for view, want in groups:
        those = [delay for delay in found.delays if (delay.view, delay.want) == (view, want)]
        calm = [delay for delay in those if delay.lag <= CALM]
        bar = TICK if view == "inside" else 2 * EXPORT
        most = max(delay.seconds for delay in those)
        met = "yes" if most <= bar else "**no**"
        lines.append(
            f"| {want} | {view} | {len(those)} | {_spread(those)} | {bar:g} s | {met} | "
            f"{f'{len(calm)}, max {max(delay.seconds for delay in calm):.2f} s' if calm else 'never'} |"
        )
    return "\n".join(lines)


def _spread(those: Sequence[Delay]) -> str:
    ordered = sorted(delay.seconds for delay in those)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.2f} s | {high:.2f} s | {ordered[-1]:.2f} s"


def evidence(found: Score) -> str:
    """Return each wrong verdict with its evidence; lines, certificates, programs that broke."""
    alarms = [wrong for wrong in found.wrong if wrong.false_alarm]
    lines = found.right_lines + len(found.wrong_lines)
    branches = found.right_branches + len(found.wrong_branches)
    out = [
        f"- Wrong verdicts: {len(found.wrong)}; false alarms among them: {len(alarms)}.",
        f"- Right line of code: {found.right_lines} of {lines}.",
        f"- Right one of several branches: {found.right_branches} of {branches}.",
        f"- `run` reported *silent (frozen)*, and made no death certificate: {_count(found.silent_by_run)}.",
        f"- Right line in the call stack that `run` printed for a frozen process: {_count(found.lines_by_run)}.",
        f"- Death certificates of killed processes that arrived: {_count(found.certificates)}.",
    ]
    out += [
        f"- {'False alarm' if wrong.false_alarm else 'Wrong'}, {wrong.view}: {wrong.operation} was {wrong.want}, "
        f"concluded {wrong.concluded} ({wrong.evidence})"
        for wrong in found.wrong
    ]
    out += [
        f"- Late by {delay.seconds:.2f} s, {delay.view}: {delay.operation} was {delay.want}"
        for delay in found.delays
        if delay.seconds > (TICK if delay.view == "inside" else 2 * EXPORT)
    ]
    out += [f"- Wrong line: {text}" for text in found.wrong_lines]
    out += [f"- Wrong branch: {text}" for text in found.wrong_branches]
    out += [
        f"- Wrong, by `run`: {text}"
        for right, text in (*found.silent_by_run, *found.lines_by_run, *found.certificates)
        if not right
    ]
    out += [f"- Broken: {text}" for text in found.broken]
    return "\n".join(line.replace("\n", " / ") for line in out)


def _count(those: Sequence[tuple[bool, str]]) -> str:
    return f"{sum(right for right, _ in those)} of {len(those)}"
