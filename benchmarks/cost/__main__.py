"""What operations cost at the receiver: events, spans, series and bytes of an operation-hour, and an example bill.

python -m benchmarks.cost              all cases, and the table in docs/cost.md
python -m benchmarks.cost --short      the same in seconds, of the first minutes; nothing is saved
python -m benchmarks.cost --price-logs 0.10 --price-series 300

The SDK's own code sends to a counter, by a clock that is moved: the figures are counts, and depend on no machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from benchmarks.cost.peers import PEERS
from benchmarks.harness import ROOT, SHORT, clean_environment
from otel_progress.model.units import duration
from otel_progress.rehearsal import Work
from otel_progress.telemetry.tally import Tally

# Put in your own prices, or give them as options. They are examples of 2026-11-29 in dollars, of the kind that hosted
# services list: uncompressed bytes that come in, and series that exist in an hour.
PRICES = {
    "logs": (0.50, "a GB of log events"),
    "spans": (0.50, "a GB of spans"),
    "series": (6.50, "a thousand series a month"),
    "points": (0.0, "a million points, where they are what is charged"),
}

PAGE = ROOT / "docs" / "cost.md"
BEGIN, END = "<!-- cost: begin -->", "<!-- cost: end -->"
HOUR, MONTH = 3600, 730
STAGES = (1, 10, 60)
LENGTHS = (60, HOUR, 24 * HOUR)
AT_ONCE = (1, 100)
PLAYED = {HOUR: 5, 24 * HOUR: 2}
"""Operations that are played of a hundred that run for an hour or a day, by their length: each further one sends the
same again. Of those that run for a minute, all are played for a quarter of an hour."""
BESIDE = """\
The same work by others' means, one operation in a process: records (log events and spans), their bytes, the bytes
after gzip, and a thousand operation-hours in dollars, for ours with its metrics:"""
SHORTEST = 900
TIMEOUT = 3000
SHORT_SECONDS = 120
"""The bars of the wire: what they are about, in kB of log events."""
BARS = {"first": 400, "further": 200, "day": 5_000}


@dataclass(frozen=True)
class Case:
    """A kind of work: how many stages an operation has, how long it takes, and how many run at once."""

    stages: int
    seconds: int
    at_once: int
    peer: str = ""

    @property
    def played(self) -> Work:
        """What is played of it."""
        lasts = max(self.seconds, HOUR if self.at_once == 1 else SHORTEST)
        at_once = min(self.at_once, PLAYED.get(self.seconds, self.at_once))
        if SHORT:
            length = min(self.seconds, SHORT_SECONDS)
            return Work(self.stages, length, min(2, at_once), length)
        return Work(self.stages, self.seconds, at_once, lasts)

    @property
    def hours(self) -> float:
        """Operation-hours that the figures are of."""
        return self.at_once * self.played.lasts / HOUR


Found = dict[str, Tally]


def play(case: Case) -> Found | None:
    """Play a case in a process of its own; None if that failed or took too long."""
    work = case.played
    numbers = [str(number) for number in (work.stages, work.seconds, work.lasts)]
    if case.peer:
        command = ["benchmarks.cost.peers", case.peer, *numbers]
    else:
        options = zip(("--stages", "--seconds", "--lasts"), numbers)
        command = [
            "otel_progress.rehearsal",
            "--at-once",
            str(work.at_once),
            *(word for two in options for word in two),
        ]
    # A batch of spans is to wait for our clock, not for that of the machine.
    environ = {**clean_environment(), "OTEL_BSP_SCHEDULE_DELAY": "1000000000"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        print(f"{case}: {error}", file=sys.stderr, flush=True)
        return None
    print(f"{case}: done", file=sys.stderr, flush=True)
    return {signal: Tally(**tally) for signal, tally in json.loads(done.stdout.splitlines()[-1]).items()}


def whole(case: Case, results: dict[Case, Found | None]) -> Found | None:
    """What all operations of a case send, where only some were played: those, and each further one the same again."""
    found, one = results[case], results[replace(case, at_once=1)]
    played = case.played.at_once
    if found is None or played == case.at_once:
        return found
    if one is None or played < 2:
        return None
    times = (case.at_once - played) / (played - 1)
    return {signal: tally.plus(tally.plus(one[signal], -1), times) for signal, tally in found.items()}


def dollars(found: Found, hours: float, prices: dict[str, float]) -> float:
    """What a thousand operation-hours cost."""
    logs, spans, metrics = (found.get(signal, Tally()) for signal in ("logs", "traces", "metrics"))
    cost = (logs.size * prices["logs"] + spans.size * prices["spans"]) / 1e9
    cost += metrics.series * prices["series"] / 1000 / MONTH + metrics.items * prices["points"] / 1e6
    return 1000 * cost / hours


def number(value: float) -> str:
    """Three digits that count, with the thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def row(case: Case, found: Found | None, prices: dict[str, float]) -> str:
    """A row of our table: all figures are those of one operation for an hour."""
    many = f"{case.at_once}{f' ({case.played.at_once} played)' if case.played.at_once < case.at_once else ''}"
    cells = [f"{duration(case.seconds)}, {case.stages}", many]
    if found is None:
        return f"| {' | '.join([*cells, 'not played', *[''] * 10])} |"
    logs, spans, metrics = found["logs"], found["traces"], found["metrics"]
    requests = logs.requests + spans.requests + metrics.requests
    values: list[float] = [logs.items, logs.size / 1000, logs.zipped / 1000, spans.items, spans.size / 1000]
    values += [metrics.series, metrics.items, metrics.size / 1000, metrics.zipped / 1000, requests]
    cells += [number(value / case.hours) for value in values]
    return f"| {' | '.join([*cells, f'{dollars(found, case.hours, prices):.2f}'])} |"


def ours(results: dict[Case, Found | None], prices: dict[str, float]) -> list[str]:
    """The table of what we send."""
    head = (
        "| length, stages | at once | log events | kB | gzip | spans | kB "
        "| series | points | kB | gzip | requests | $ |"
    )
    return [
        head,
        "|---|" + "--:|" * 12,
        *(row(case, found, prices) for case, found in results.items() if not case.peer),
    ]


def total(found: Found | None, case: Case, prices: dict[str, float]) -> str:
    """Records, bytes and price of an operation-hour in one cell."""
    if found is None:
        return "not played"
    told = [tally for signal, tally in found.items() if signal != "metrics"]
    items, size, zipped = (sum(getattr(one, name) for one in told) for name in ("items", "size", "zipped"))
    parts = [number(items / case.hours), f"{number(size / 1000 / case.hours)} kB"]
    parts += [f"{number(zipped / 1000 / case.hours)} kB", f"${dollars(found, case.hours, prices):.2f}"]
    return ", ".join(parts)


def beside(results: dict[Case, Found | None], prices: dict[str, float]) -> list[str]:
    """The table of the same work told by others' means."""
    names = ("otel-progress", *PEERS.values())
    lines = [f"| length, stages | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for length in LENGTHS:
        for stages in STAGES:
            cells = []
            for peer in ("", *PEERS):
                case = Case(stages, length, 1, peer)
                cells.append(total(results[case], case, prices))
            lines.append(f"| {duration(length)}, {stages} | {' | '.join(cells)} |")
    return lines


def bars(results: dict[Case, Found | None]) -> list[str]:
    """The bars of the wire."""
    one, many, day = (results[case] for case in (Case(10, HOUR, 1), Case(10, HOUR, 100), Case(10, 24 * HOUR, 1)))
    rows: list[tuple[str, float | None, int]] = []
    if one is not None:
        rows.append(
            ("10 stages, 1 h, moving each second, with the heartbeats of its process", one["logs"].size, BARS["first"])
        )
        if many is not None:
            case = Case(10, HOUR, 100)
            more = (many["logs"].size - one["logs"].size) / (case.at_once - 1)
            rows.append(("a further operation in that process", more, BARS["further"]))
    if day is not None:
        rows.append(("10 stages, 24 h, moving each second", day["logs"].size, BARS["day"]))
    lines = ["| log events of one operation | kB | bar | met |", "|---|--:|--:|---|"]
    return lines + [
        f"| {what} | {number(size / 1000)} | {bar:,} | {'yes' if size <= 1000 * bar else '**no**'} |"
        for what, size, bar in rows
        if size is not None
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description="Count what operations send.")
    parser.add_argument("--short", action="store_true", help="only the first minutes; nothing is saved")
    parser.add_argument("--no-save", action="store_true", help="print the tables only")
    for name, (price, what) in PRICES.items():
        parser.add_argument(
            f"--price-{name}", type=float, default=price, metavar="$", help=f"{what} (default: {price})"
        )
    given = parser.parse_args()
    prices = {name: getattr(given, f"price_{name}") for name in PRICES}
    cases = [Case(stages, length, many) for length in LENGTHS for stages in STAGES for many in AT_ONCE]
    cases += [Case(stages, length, 1, peer) for peer in PEERS for length in LENGTHS for stages in STAGES]
    # The longest first.
    queue = sorted(cases, key=lambda case: -case.hours * (1 + case.stages / 10) * (not case.peer))
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        found = dict(zip(queue, pool.map(play, queue)))
    results = {case: whole(case, found) for case in cases}
    asked = "; ".join(f"${prices[name]:.2f} {what}" for name, (_, what) in PRICES.items() if prices[name])
    text = "\n".join(
        [
            f"Counted on {datetime.now(timezone.utc):%Y-%m-%d}. Example prices: {asked}.",
            "",
            *bars(results),
            "",
            "One operation for an hour; `$` is a thousand of them:",
            "",
            *ours(results, prices),
            "",
            BESIDE,
            "",
            *beside(results, prices),
        ]
    )
    print(text)
    if not SHORT and not given.no_save:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
