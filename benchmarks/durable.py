"""Cost of checkpoints: an item of `track(key=...)`, a checkpoint, a mark, and the same 10,000 steps by others.

python -m benchmarks.durable            prints a table in some minutes; peers that are not installed are left out

The peers are joblib.Memory, DBOS on SQLite and LangGraph's SQLite checkpointer: `pip install joblib dbos
langgraph-checkpoint-sqlite langgraph`. They do other things as well; what is compared is the cost of a step whose
result a killed process finds again.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import otel_progress as progress
from otel_progress.durable.store import open_store

STEPS = 10_000
OPERATIONS = 500
AGAIN = 12
"""Rounds of the own measurements; the quickest counts, as the machine may do other things."""
OURS = "`track(items, key=...)`"
"""What others are compared with, in the rounds right before and after them."""
Run = Callable[[Path], float]
"""Returns the seconds of a step."""


@dataclass
class Row:
    """A measurement: microseconds of a step in each run, bytes of its files, and how it compares with `OURS`."""

    micros: list[float] = field(default_factory=list)
    size: int = 0
    ratios: list[float] = field(default_factory=list)

    def measure(self, run: Run) -> None:
        """Measure once more, in a folder of its own."""
        with tempfile.TemporaryDirectory() as folder:
            self.micros.append(run(Path(folder)) * 1e6)
            if (file := Path(folder, "work.db")).exists():
                open_store(file).close()  # the size is that of a file at rest
            self.size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def loop(**options: Any) -> Run:
    """Measure a loop over 10,000 items that does nothing."""
    items = [f"item-{number:06d}" for number in range(STEPS)]

    def run(folder: Path) -> float:
        with progress.operation("cost", id="cost", resume=folder / "work.db"):
            began = time.perf_counter()
            for _ in progress.track(items, **options):
                pass
            return (time.perf_counter() - began) / STEPS

    return run


def calls(call: Callable[[progress.Operation, int], object]) -> Run:
    """Measure a call on a resumable operation."""

    def run(folder: Path) -> float:
        with progress.operation("cost", id="cost", resume=folder / "work.db") as op:
            began = time.perf_counter()
            for number in range(STEPS):
                call(op, number)
            return (time.perf_counter() - began) / STEPS

    return run


def operations(folder: Path) -> float:
    """Measure operations that start, mark five items and end, one after the other: small jobs of a worker."""
    began = time.perf_counter()
    for number in range(OPERATIONS):
        with progress.operation("cost", id=f"cost-{number}", resume=folder / "work.db"):
            for _ in progress.track(range(5), key=int):
                pass
    return (time.perf_counter() - began) / OPERATIONS


def joblib_memory(folder: Path) -> float:
    """Measure joblib.Memory: one cached call for each step."""
    import joblib

    cached = joblib.Memory(folder, verbose=0).cache(_step)
    began = time.perf_counter()
    for number in range(STEPS):
        cached(number)
    return (time.perf_counter() - began) / STEPS


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
    return seconds / STEPS


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
        return (time.perf_counter() - began) / STEPS


OWN: dict[str, Run] = {
    "`track(items, mark=False)`, which takes all": loop(mark=False),
    OURS: loop(key=lambda item: item),
    "`track(items, mark=True)`, by position": loop(mark=True),
    "`done(key)`": calls(lambda op, number: op.done(number)),
    "`checkpoint(offset=..., best=...)`": calls(lambda op, number: op.checkpoint(offset=number, best=1)),
    "an operation with five items, from start to end": operations,
}
PEERS: dict[str, Run] = {
    "joblib.Memory, a cached call": joblib_memory,
    "LangGraph with its SQLite checkpointer, a node": langgraph_steps,
    "DBOS on SQLite, a step": dbos_steps,
}


def rows() -> dict[str, Row]:
    """Return all that can be measured here; peers run between the rounds of our own."""
    found = {name: Row() for name in (*OWN, *PEERS)}
    waiting = list(PEERS)
    for turn in range(AGAIN):
        for name, run in OWN.items():
            found[name].measure(run)
        for name in OWN:
            found[name].ratios.append(found[name].micros[-1] / found[OURS].micros[-1])
        if turn and turn <= len(PEERS):  # its round is over: compare with both sides
            _compare(found[list(PEERS)[turn - 1]], found[OURS])
        if waiting:
            name = waiting.pop(0)
            try:
                found[name].measure(PEERS[name])
            except ImportError as error:
                print(f"{name} is left out: {error}")
    return found


def _compare(peer: Row, ours: Row) -> None:
    """Note how a peer compares with our rounds before and after it."""
    if peer.micros:
        peer.ratios.append(peer.micros[-1] / statistics.mean(ours.micros[-2:]))


def main() -> None:
    """Print the table."""
    print(f"{STEPS:,} steps; load {os.getloadavg()[0]:.1f}\n")
    print("| step | µs | times `track(key=...)` | size of the files |\n|---|---|---|---|")
    for name, row in rows().items():
        if row.micros:
            ratio = statistics.median(row.ratios)
            print(f"| {name} | {min(row.micros):,.2f} | {ratio:,.2f} | {row.size / 1024:,.0f} KiB |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
