"""Resumable operations whose process is killed, forked, or fights with others for the lease.

`python -m tests.stress.test_resume 200 2000` kills a batch of 2,000 items 200 times, in one process and in a pool; with
`redis` as a third argument the store is a real Redis, which is killed and started again all the time.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from tests.stack.redis_server import Server

from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import CheckpointStore, open_store, standing
from otel_progress.errors import CheckpointError

from .program import PROGRAMS, environment

T = TypeVar("T")
STAGES = ("fetch", "parse", "check", "load")


@dataclass
class Batch:
    """A batch that is killed again and again, and what was seen of it.

    Attributes:
        kills: how often it was killed.
        marked_again: items that were done again although they were marked; there must be none.
        attempts: how often it was started.
        refused: how often it could not start, as the store was away.
        aside: items that were set aside, as they were alone in hand at three kills; they are released at the end.
    """

    folder: Path
    items: int
    mode: str
    seconds: float
    kills: int = 0
    attempts: int = 0
    refused: int = 0
    aside: int = 0
    marked_again: list[str] = field(default_factory=list)
    url: str | None = None

    @property
    def store(self) -> str:
        return self.url or str(self.folder / "work.db")

    @property
    def results(self) -> Path:
        return self.folder / "results.txt"

    def lines(self) -> list[str]:
        """All that was done, in order; what a kill cut off was not done."""
        text = self.results.read_text() if self.results.exists() else ""
        return [line for line in text.splitlines() if len(line.split()) == 3]

    def ask(self, question: Callable[[CheckpointStore], T]) -> T:
        """Ask the store, as soon as it answers."""
        while True:
            try:
                with contextlib.closing(open_store(self.store)) as store:
                    return question(store)
            except CheckpointError:  # Redis is being started
                if self.url is None:
                    raise
                time.sleep(0.1)

    def marks(self) -> set[str]:
        """What the store has as done."""
        return self.ask(lambda store: {f"{name} {key}" for name in STAGES for key in store.keys("batch-1", name).done})

    def attempt(self, after: float | None, from_start: bool) -> bool:
        """Start it, and kill it after so many seconds; returns whether it completed."""
        marked, before = self.marks(), len(self.lines())
        self.attempts += 1
        command = [sys.executable, str(PROGRAMS / "resumed.py"), str(self.store), str(self.results)]
        process = subprocess.Popen(
            [*command, str(self.items), self.mode, str(self.seconds)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        if from_start and process.stdout.readline().split()[:1] != ["begins"]:
            after = None  # it ends by itself
            self.refused += 1
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            self.kills += 1
        if after is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers of its pool as well
        said = process.stdout.read()
        process.wait()
        process.stdout.close()
        done = [" ".join(line.split()[:2]) for line in self.lines()[before:]]
        self.marked_again += [one for one in done if one in marked]
        return "completed" in said


def killed(
    folder: Path, kills: int, items: int, mode: str, seconds: float, url: str | None = None, seed: int = 14
) -> Batch:
    """Kill a batch at seeded random moments, then let it complete."""
    moments = random.Random(seed)
    batch = Batch(folder, items, mode, seconds, url=url)
    while batch.kills < kills:
        from_start = moments.random() < 0.8
        if batch.attempt(moments.uniform(0.0, 1.0), from_start):
            break
    complete(batch)
    batch.aside = batch.ask(lambda store: sum(one.aside for one in store.suspects("batch-1")))
    if batch.aside:
        batch.ask(lambda store: store.release("batch-1"))
        complete(batch)
    return batch


def complete(batch: Batch) -> None:
    """Let it run to its end, as often as it takes while the store is away."""
    most = batch.attempts + 100
    while not batch.attempt(None, False):
        assert batch.attempts < most


def verify(batch: Batch) -> Counter[str]:
    """Check that all was done, nothing after its mark, and nothing else; returns how often each item was done."""
    done = Counter(batch.lines())
    expected = {
        f"{name} item-{number:05d} {sum(map(ord, f'{name}item-{number:05d}')) % 97}"
        for name in STAGES
        for number in range(batch.items)
    }
    assert set(done) == expected, f"missing: {sorted(expected - set(done))}"
    assert batch.marked_again == []
    assert len(batch.marks()) == len(expected)
    if batch.url is not None:
        return done
    db = sqlite3.connect(batch.store)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    return done


@pytest.mark.parametrize("mode", ["one", "pool"])
def test_a_killed_batch_goes_on(tmp_path: Path, mode: str) -> None:
    """Killed at random moments, it completes: no item is lost, and none is done again after its mark."""
    verify(killed(tmp_path, 3, 60, mode, 0.004))


def test_a_killed_batch_goes_on_while_its_redis_is_killed_too(tmp_path: Path) -> None:
    """The same with a store that goes away in between: what it acknowledged is kept, and it is waited for."""
    with Outages(Server(tmp_path), (1.0, 3.0)) as outages:
        verify(killed(tmp_path, 1, 40, "one", 0.01, outages.url))
        assert outages.count


def test_only_one_of_many_processes_holds_an_operation(tmp_path: Path) -> None:
    """Processes that start at once: one works, the others are told who does, and its results are whole."""
    code = (
        "import sys, os, time\n"
        "import otel_progress as p\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with p.operation('job', id='job-1', resume=sys.argv[1]) as op:\n"
        "        for n in p.track(range(20), key=int):\n"
        "            time.sleep(0.05)\n"
        "        print('worked', op.attempt)\n"
        "except p.OperationHeld as error:\n"
        "    print('held', error)\n"
    )
    fight = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "work.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for _ in range(4)
    ]
    for one in fight:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate()[0] for one in fight]
    # Who was late finds the operation completed, and has nothing left to do.
    assert any(text.startswith("worked 1") for text in said)
    assert all(text.startswith(("worked", "held")) for text in said)
    store = SqliteStore(tmp_path / "work.db")
    found = store.operation("job-1")
    assert found is not None
    assert found.attempt == sum(text.startswith("worked") for text in said)
    assert len(store.keys("job-1", "").done) == 20


def test_a_fork_writes_nothing_of_its_parent(tmp_path: Path) -> None:
    """The child can't mark for its parent, may run operations of its own in the same store, and the parent goes on."""
    code = (
        "import os, sys\n"
        "import otel_progress as p\n"
        "with p.operation('job', id='parent', resume=sys.argv[1]) as op:\n"
        "    op.done('before')\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            op.done('in the child')\n"
        "        except p.CheckpointError as error:\n"
        "            print('refused', flush=True)\n"
        "        with p.operation('job', id='child', resume=sys.argv[1]) as mine:\n"
        "            mine.done('x')\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    op.done('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "work.db")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "refused\n")
    store = SqliteStore(tmp_path / "work.db")
    assert store.keys("parent", "").done == {"before", "after"}
    assert store.keys("child", "").done == {"x"}
    assert {one.id: one.status for one in store.operations()} == {"parent": "completed", "child": "completed"}


@pytest.mark.parametrize("handled", [True, False])
def test_an_end_by_signal_or_exit_is_saved(tmp_path: Path, handled: bool) -> None:
    """At SIGTERM with `handle_sigterm`, and at an exit with an open operation, the last marks and the end are saved."""
    code = (
        "import signal, sys, time\n"
        "import otel_progress as p\n"
        "if sys.argv[2] == 'True':\n"
        "    p.configure(checkpoints=sys.argv[1], handle_sigterm=True)\n"
        "op = p.operation('job', id='job-1', resume=sys.argv[1]).start()\n"
        "op.done('x')\n"
        "op.checkpoint(at=5)\n"
        "if sys.argv[2] == 'True':\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "work.db"), str(handled)],
        timeout=60,
        env=environment(),
        check=False,
    )
    assert done.returncode == (-signal.SIGTERM if handled else 0)
    if not handled:
        assert [path.name for path in tmp_path.iterdir()] == ["work.db"]
    store = SqliteStore(tmp_path / "work.db")
    found = store.operation("job-1")
    assert found is not None
    assert standing(found) == "interrupted"
    assert store.keys("job-1", "").done == {"x"}
    assert store.state("job-1", "", "state") == '{"at":5}'


def test_what_is_marked_is_saved_within_a_quarter_of_a_second(tmp_path: Path) -> None:
    """A process that is killed a second after a mark has lost nothing of it; the key in hand is a suspect."""
    code = (
        "import sys, time\n"
        "import otel_progress as p\n"
        "with p.operation('job', id='job-1', resume=sys.argv[1]) as op:\n"
        "    for n in op.track(range(5), key=int):\n"
        "        if n == 3:\n"
        "            print('hangs', flush=True)\n"
        "            time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "work.db")], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hangs\n"
    store = SqliteStore(tmp_path / "work.db")
    deadline = time.monotonic() + 20
    while len(store.keys("job-1", "").done) < 3 and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    process.kill()
    process.wait()
    process.stdout.close()
    assert store.keys("job-1", "").done == {"0", "1", "2"}
    store.died("job-1", 1, "SIGKILL")
    assert [(one.key, one.deaths) for one in store.suspects("job-1")] == [("3", 1)]


class Outages:
    """Kills a Redis at seeded random moments and starts it again, until it is left in peace.

    Attributes:
        count: how often it was killed.
    """

    def __init__(self, server: Server, every: tuple[float, float] = (2.0, 8.0), seed: int = 14) -> None:
        self.count, self._every = 0, every
        self.url = server.url
        self._server, self._random = server, random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Outages:
        self._server.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._server.kill()
        self._server.guard.close()

    def _work(self) -> None:
        while not self._over.wait(self._random.uniform(*self._every)):
            self._server.kill()
            self.count += 1
            self._over.wait(self._random.uniform(0.0, 1.5))
            self._server.start()


def main(kills: int, items: int, store: str) -> None:
    """Print what a batch in one process and one in a pool went through."""
    for mode, seconds in (("one", 0.012), ("pool", 0.05)):
        with tempfile.TemporaryDirectory() as where, contextlib.ExitStack() as stack:
            began, outages = time.monotonic(), None
            if store == "redis":
                outages = stack.enter_context(Outages(Server(Path(where))))
            batch = killed(Path(where), kills, items, mode, seconds, None if outages is None else outages.url)
            done = verify(batch)
            print(
                f"{mode}: {batch.kills} kills in {batch.attempts} attempts and {time.monotonic() - began:.0f} s"
                + ("" if outages is None else f", {outages.count} kills of the server ({batch.refused} starts refused)")
                + f": {batch.aside} items set aside and released; {len(done):,} items done, {sum(done.values()) - len(done):,} of them again as they were in hand "
                "or not yet marked, none after its mark, none lost",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "sqlite")
