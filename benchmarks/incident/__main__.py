"""A drill of a real incident, with the shipped configurations on real programs; about 14 minutes.

python -m benchmarks.incident                       everything; saved in docs/accuracy.md
python -m benchmarks.incident --only stuck,lost     these scenarios, and healthy work beside them; saves nothing
python -m benchmarks.incident --route scrape        Prometheus scrapes instead of receiving OTLP; saves nothing
python -m benchmarks.incident --json report.json    the report as JSON, too

It needs what `make stack` installs. It prints each message that a webhook received, its delay, its texts and links, and
the values that panels show; each line is marked. It ends with 1 if something is missing, late, incomplete or false.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.__main__ import machine
from benchmarks.harness import ROOT
from benchmarks.incident import report
from benchmarks.incident.match import Line, changes, compare, without_news
from benchmarks.incident.place import Missing, Place
from benchmarks.incident.plan import SCENARIOS, Panel, Scenario, Step, choose, length
from benchmarks.incident.values import Value, read

PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- incident: begin -->", "<!-- incident: end -->"
START_GAP = 0.2
"""Seconds between two starts, so that no program is slow because all others start, too."""
EVERY = 30.0
"""Seconds between two lines of progress without a terminal."""


class Stopped(Exception):
    """The drill was interrupted."""


class Drill:
    """The scenarios of one place, played in their time."""

    def __init__(self, place: Place, scenarios: Sequence[Scenario], group: Path | None) -> None:
        self.place, self.scenarios, self.group = place, scenarios, group
        self.values: list[Value] = []
        self.began = 0.0
        self.now_playing = "starting the programs"
        self.failed: BaseException | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        """Play everything; an error is kept, so that the report says it."""
        try:
            with self.place.running():
                self._play()
        except BaseException as error:
            self.failed = error

    def _play(self) -> None:
        todo: list[tuple[float, str, Step | Panel]] = []
        for it in self.scenarios:
            todo += [(step.at, it.name, step) for step in it.steps]
            todo += [(panel.at, it.name, panel) for panel in it.panels]
        todo.sort(key=lambda entry: entry[0])
        for at, _, one in todo:
            if at == 0 and isinstance(one, Step):
                self._act(one)
                time.sleep(START_GAP)
        self.place.wait_until_ready()
        self.began = time.time()
        for at, name, one in [entry for entry in todo if entry[0] > 0]:
            self._sleep_until(at)
            self.now_playing = (
                f"{name}: {one.where} of {one.run}" if isinstance(one, Panel) else f"{name}: {one.action} {one.run}"
            )
            if isinstance(one, Panel):
                self.values.append(read(self.place, name, one))
            else:
                self._act(one)
        self.now_playing = "listening for what should not come"
        self._sleep_until(length(list(self.scenarios)))

    def _sleep_until(self, at: float) -> None:
        if self.stopped.wait(max(0.0, self.began + at - time.time())):
            raise Stopped

    def _act(self, step: Step) -> None:
        place = self.place
        if step.action == "start":
            group = self.group if step.kind == "greedy" else None
            place.start(step.kind, step.run, watched=step.watched, group=group)
        elif step.action == "order":
            place.runs[step.run].tell(step.order)
        elif step.action == "kill":
            place.kill(step.run)
        else:
            {"deploy": place.deploy, "down": place.down, "up": place.up}[step.action]()

    def lines(self) -> list[Line]:
        """Return what the webhook received beside what was expected."""
        wanted = [(it.name, message) for it in self.scenarios for message in it.messages]
        received = self.place.webhook.messages
        return compare(wanted, self.place.moments, changes(received)) + without_news(received)


def show(drills: Sequence[Drill], whole: float) -> None:
    """Show how far it is until all drills are over; on a terminal each line replaces the previous one."""
    threads = [threading.Thread(target=drill.run) for drill in drills]
    for thread in threads:
        thread.start()
    try:
        _watch(drills, threads, whole)
    finally:
        for drill in drills:
            drill.stopped.set()
        for thread in threads:
            thread.join()
    for drill in drills:
        if drill.failed is not None:
            raise drill.failed


def _watch(drills: Sequence[Drill], threads: Sequence[threading.Thread], whole: float) -> None:
    terminal = sys.stderr.isatty()
    last = 0.0
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        if not terminal and time.monotonic() - last < EVERY:
            continue
        last = time.monotonic()
        elapsed = max((time.time() - it.began if it.began else 0.0) for it in drills)
        heard = sum(len(it.place.webhook.messages) for it in drills)
        what = "; ".join(f"{it.place.name}: {it.now_playing}" for it in drills)
        text = f"{elapsed:4.0f} of {whole:.0f} s, {heard} messages; {what}"
        print(f"\r{text[:118]:<118}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
    if terminal:
        print(file=sys.stderr)


def keep(text: str) -> None:
    """Replace the text between the marks of the page."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def play(
    scenarios: list[Scenario], folder: Path, *, scrape: bool, group: Path | None
) -> tuple[list[Line], list[Value]]:
    """Play the scenarios, each in its place."""
    drills = [
        Drill(Place(name, folder / name, scrape=scrape), mine, group)
        for name in ("main", "outage")
        if (mine := [it for it in scenarios if it.place == name])
    ]
    for drill in drills:
        drill.place.folder.mkdir(parents=True, exist_ok=True)
    show(drills, length(scenarios))
    return [line for it in drills for line in it.lines()], [value for it in drills for value in it.values]


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.incident",
        description=(__doc__ or "").splitlines()[0],
        epilog="scenarios: " + "; ".join(f"{it.name} ({it.about})" for it in SCENARIOS),
    )
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="only these scenarios, separated by commas; saves nothing"
    )
    parser.add_argument("--route", choices=("otlp", "scrape"), default="otlp", help="how metrics reach Prometheus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON, too")
    parser.add_argument(
        "--memory-group",
        type=Path,
        metavar="DIR",
        help="a control group with a memory limit, for the scenario `memory`",
    )
    parser.add_argument("--keep-files", type=Path, metavar="DIR", help="keep the programs' files and logs there")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that no process is left
    try:
        scenarios = choose([it for it in given.only.split(",") if it])
    except ValueError as error:
        sys.exit(str(error))
    left_out = []
    if given.memory_group is None and any(it.name == "memory" for it in scenarios):
        scenarios = [it for it in scenarios if it.name != "memory"]
        left_out.append("memory, which needs `--memory-group`")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = given.keep_files or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="incident-")))
        try:
            lines, values = play(scenarios, folder, scrape=given.route == "scrape", group=given.memory_group)
        except Missing as error:
            sys.exit(str(error))
    for line in lines:
        print(report.told(line), *report.details(line), sep="\n")
    print()
    for value in values:
        print(report.shown(value))
    for text in left_out:
        print(f"not played: {text}")
    wrong = report.wrong(lines, values)
    print(f"\n{len(lines)} messages, {len(values)} values, {wrong} not as expected")
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_json(lines, values, left_out), indent=2) + "\n")
    if not given.only and given.route == "otlp":
        today = dt.datetime.now(dt.timezone.utc).date()
        about = f"`python -m benchmarks.incident` on {today}, {(time.monotonic() - began) / 60:.0f} minutes: "
        about += f"{len(lines)} messages and {len(values)} values, {wrong} not as expected. {machine()}"
        keep(f"{about}\n\n{report.markdown(scenarios, lines, values, left_out)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
