"""Cost of checkpoints: an item of `track(key=...)`, a checkpoint, a mark, and the same 10,000 steps by others.

python -m benchmarks.durable            prints a table in about a minute; peers that are not installed are left out

The peers are joblib.Memory, DBOS on SQLite and LangGraph's SQLite checkpointer: `pip install joblib dbos
langgraph-checkpoint-sqlite langgraph`. They do other things as well; what is compared is the cost of a step whose
result a killed process finds again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import otel_progress as progress

STEPS = 10_000
AGAIN = 5
"""Runs of each measurement; the quickest counts, as the machine may do other things."""
Row = tuple[str, float, int]


def quickest(run: Callable[[Path], float], again: int = AGAIN) -> tuple[float, int]:
    """Return the microseconds of a step in the quickest run, and the bytes of its files."""
    found = []
    for _ in range(again):
        with tempfile.TemporaryDirectory() as folder:
            seconds = run(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            found.append((seconds / STEPS * 1e6, size))
    return min(found)


def loop(**options: Any) -> Callable[[Path], float]:
    """Measure a loop over 10,000 items that does nothing."""
    items = [f"item-{number:06d}" for number in range(STEPS)]

    def run(folder: Path) -> float:
        with progress.operation("cost", id="cost", resume=folder / "work.db"):
            began = time.perf_counter()
            for _ in progress.track(items, **options):
                pass
            return time.perf_counter() - began

    return run


def calls(call: Callable[[progress.Operation, int], object]) -> Callable[[Path], float]:
    """Measure a call on a resumable operation."""

    def run(folder: Path) -> float:
        with progress.operation("cost", id="cost", resume=folder / "work.db") as op:
            began = time.perf_counter()
            for number in range(STEPS):
                call(op, number)
            return time.perf_counter() - began

    return run


def joblib_memory(folder: Path) -> float:
    """Measure joblib.Memory: one cached call for each step."""
    import joblib

    cached = joblib.Memory(folder, verbose=0).cache(_step)
    began = time.perf_counter()
    for number in range(STEPS):
        cached(number)
    return time.perf_counter() - began


def _step(number: int) -> int:
    return number


def dbos_steps(folder: Path) -> float:
    """Measure DBOS on SQLite: one workflow with a step for each."""
    from dbos import DBOS

    DBOS(config={"name": "cost", "system_database_url": f"sqlite:///{folder}/dbos.db", "log_level": "ERROR"})

    @DBOS.step()
    def step(number: int) -> int:
        return number

    @DBOS.workflow()
    def whole() -> None:
        for number in range(STEPS):
            step(number)

    DBOS.launch()
    began = time.perf_counter()
    whole()
    seconds = time.perf_counter() - began
    DBOS.destroy()
    return seconds


def langgraph_steps(folder: Path) -> float:
    """Measure LangGraph's SQLite checkpointer: a graph with one node that goes round."""
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        number: int

    graph = StateGraph(State)
    graph.add_node("step", lambda state: {"number": state["number"] + 1})
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["number"] >= STEPS else "step")
    with SqliteSaver.from_conn_string(str(folder / "graph.db")) as saver:
        app = graph.compile(checkpointer=saver)
        began = time.perf_counter()
        app.invoke({"number": 0}, {"configurable": {"thread_id": "1"}, "recursion_limit": STEPS + 10})
        return time.perf_counter() - began


def rows() -> list[Row]:
    """Return all that can be measured here: name, microseconds of a step, bytes of the files."""
    found: list[Row] = [
        ("`track(items, mark=False)`, which takes all", *quickest(loop(mark=False))),
        ("`track(items, key=...)`", *quickest(loop(key=lambda item: item))),
        ("`track(items, mark=True)`, by position", *quickest(loop(mark=True))),
        ("`done(key)`", *quickest(calls(lambda op, number: op.done(number)))),
        (
            "`checkpoint(offset=..., best=...)`",
            *quickest(calls(lambda op, number: op.checkpoint(offset=number, best=1))),
        ),
    ]
    for name, peer in (
        ("joblib.Memory", joblib_memory),
        ("DBOS step (SQLite)", dbos_steps),
        ("LangGraph step (SQLite)", langgraph_steps),
    ):
        try:
            found.append((name, *quickest(peer, 1)))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def main() -> None:
    """Print the table."""
    print(f"{STEPS:,} steps; load {os.getloadavg()[0]:.1f}\n\n| step | µs | size of the files |\n|---|---|---|")
    for name, micros, size in rows():
        print(f"| {name} | {micros:,.2f} | {size / 1024:,.0f} KiB |")


if __name__ == "__main__":
    main()
