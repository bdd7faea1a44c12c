"""Resumable operations: states, results, mismatches, leases, and stores that fail."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from otel_progress import (
    CheckpointError,
    CheckpointMismatch,
    DuplicateOperation,
    InvalidArgument,
    InvalidState,
    LeaseLost,
    Operation,
    OperationCancelled,
    OperationHeld,
    operation,
    semconv,
    stage,
    track,
    waiting,
)
from otel_progress.durable import opening, saving
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import Batch, CheckpointStore, Claim, Keys, open_store
from otel_progress.testing import Capture

AFAR = Holder("elsewhere", "", "", 4711, 0)


class Broken(Exception):
    """What the job raises here."""


class Failing(SqliteStore):
    """A store whose writes fail while `why` is set."""

    why: CheckpointError | None = None

    def write(self, lease: Any, batch: Batch) -> None:
        if self.why is not None:
            raise self.why
        super().write(lease, batch)


@pytest.fixture
def path(tmp_path: Path, progress_capture: Capture) -> str:
    """Return the path of a store, under a clock that stands still."""
    return str(tmp_path / "work.db")


def attempt(store: object, **options: object) -> Operation:
    return operation("job", id="job-1", resume=store, **options)  # type: ignore[call-overload, no-any-return]


# -- states


def test_the_last_state_is_restored(path: str) -> None:
    """A first attempt has none; a later one has the last that was given, also if it completed."""
    for number in range(3):
        with attempt(path) as op:
            assert op.restored == (None if not number else {"offset": number - 1, "parts": [1, {"a": None}]})
            for offset in range(number + 1):
                op.checkpoint(offset=offset, parts=[1, {"a": None}])
            assert op.restored == (None if not number else {"offset": number - 1, "parts": [1, {"a": None}]})


def test_a_state_is_that_of_the_call(path: str) -> None:
    """What the job changes after the call does not change what is saved."""
    rows = [1]
    with attempt(path) as op:
        op.checkpoint(rows=rows)
        rows.append(2)
    with attempt(path) as op:
        assert op.restored == {"rows": [1]}


def test_a_store_may_have_a_codec(tmp_path: Path, progress_capture: Capture) -> None:
    """What is not JSON is kept by functions of the user; errors are those of JSON."""
    store = SqliteStore(
        tmp_path / "work.db",
        encode=lambda value: json.dumps(value, default=str),
        decode=lambda text: {key: Path(value) for key, value in json.loads(text).items()},
    )
    for number in range(2):
        with attempt(store) as op:
            assert op.restored == (None if not number else {"at": Path("/srv")})
            op.checkpoint(at=Path("/srv"))


def test_stages_have_states_of_their_own(path: str) -> None:
    """A state belongs to its stage, by path."""
    for number in range(2):
        with attempt(path), stage("outer"), stage("inner") as inner:
            assert inner.restored == (None if not number else {"at": 0})
            inner.checkpoint(at=number)
            raise_if = number
        assert raise_if == number


@pytest.mark.parametrize("bad", [object(), {1, 2}, b"x", float("nan"), Path("x")])
def test_a_state_that_is_not_json_is_refused(path: str, bad: object) -> None:
    """The error comes at the call, and names JSON."""
    with attempt(path) as op, pytest.raises(CheckpointError, match="must be JSON"):
        op.checkpoint(value=bad)


def test_a_state_that_refers_to_itself_is_refused(path: str) -> None:
    """It can't be JSON."""
    loop: list[object] = []
    loop.append(loop)
    with attempt(path) as op, pytest.raises(CheckpointError, match="must be JSON"):
        op.checkpoint(value=loop)


def test_a_state_has_at_most_a_mebibyte(path: str) -> None:
    """One byte more is refused, and the state before stays."""
    room = 1024 * 1024 - len('{"value":""}')
    with attempt(path) as op:
        op.checkpoint(value="x" * room)
        with pytest.raises(CheckpointError, match="at most 1,048,576"):
            op.checkpoint(value="x" * (room + 1))
    with attempt(path) as op:
        assert op.restored == {"value": "x" * room}


def test_a_state_is_written_at_the_end_of_a_stage_and_in_a_wait(path: str, progress_capture: Capture) -> None:
    """What comes next may take long, so the writer is asked to write at once."""
    asked: list[str] = []
    with attempt(path) as op:
        op._session._writer.kick = lambda: asked.append("now")
        with stage("read") as read:
            read.checkpoint(at=1)
        assert asked == ["now"]
        with waiting("a human"):
            assert asked == ["now"] * 2


def test_without_a_store_nothing_is_saved_and_that_is_said(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """The job goes on, and the log names the option."""
    with operation("job") as op:
        op.checkpoint(at=1)
        op.done("x")
        assert not op.is_done("x")
        assert op.restored is None
    assert "checkpoint()" in caplog.text
    assert "resume='work.db'" in caplog.text


# -- stages and functions that run once


def test_a_stage_that_runs_once_is_left_out(path: str) -> None:
    """Its result is restored; a stage that failed runs again; without a result it is an empty one."""
    ran: list[str] = []
    for number in range(3):
        with pytest.raises(Broken) if number < 2 else contextlib.nullcontext(), attempt(path):
            with stage("fetch", once=True) as fetch:
                if fetch.restored is None:
                    ran.append("fetch")
                    fetch.result(rows=3, names=["a"])
                else:
                    assert fetch.restored == {"rows": 3, "names": ["a"]}
            with stage("check", once=True) as check:
                if check.restored is None:
                    ran.append("check")
                else:
                    assert check.restored == {}
            with stage("load", once=True) as load:
                assert load.restored is None
                ran.append("load")
                if number < 2:
                    raise Broken
    assert ran == ["fetch", "check", "load", "load", "load"]


@pytest.mark.parametrize("more", [{}, {"names": ["a"]}])
def test_a_result_that_is_saved_before_its_stage_ends(more: dict[str, Any], path: str) -> None:
    """It stays, and results that come later are added to it."""
    with attempt(path) as job, stage("fetch", once=True) as fetch:
        assert fetch.restored is None
        fetch.result(rows=3)
        job._session._settle()  # type: ignore[union-attr] # the writer's own thread may be that quick
        if more:
            fetch.result(**more)
    with attempt(path), stage("fetch", once=True) as fetch:
        assert fetch.restored == {"rows": 3, **more}


def test_a_stage_that_runs_once_keeps_its_result_alone(path: str) -> None:
    """A state beside it could be mistaken for the result."""
    with attempt(path), stage("fetch", once=True) as fetch, pytest.raises(InvalidState, match="keeps its result alone"):
        fetch.checkpoint(at=1)


def test_a_function_that_runs_once_gives_back_its_value(path: str) -> None:
    """It is called once for each set of arguments, within an attempt and across attempts."""
    calls: list[object] = []

    @stage("fetch", once=True)
    def fetch(page: int, size: int = 10) -> dict[str, int]:
        calls.append(page)
        return {"page": page}

    @stage("load", once=True)
    async def load(page: int) -> None:
        calls.append(f"load {page}")

    async def run() -> None:
        async with attempt(path):
            assert [fetch(1), fetch(2), fetch(page=1, size=10)] == [{"page": 1}, {"page": 2}, {"page": 1}]
            await asyncio.gather(load(1), load(2))

    asyncio.run(run())
    asyncio.run(run())
    assert calls == [1, 2, "load 1", "load 2"]


def test_a_function_that_runs_once_has_arguments_that_can_be_recognised(path: str) -> None:
    """Two objects could not be told apart by a later attempt; a value must be JSON."""

    @stage("fetch", once=True)
    def fetch(source: object) -> object:
        return source

    with attempt(path):
        with pytest.raises(InvalidArgument, match="recognised by its arguments"):
            fetch(object())
        with pytest.raises(CheckpointError, match="must be JSON"):
            fetch(Path("x"))


def test_methods_run_once(path: str) -> None:
    """The object itself is no argument."""

    class Job:
        calls = 0

        @stage("fetch", once=True)
        def fetch(self, page: int) -> int:
            self.calls += 1
            return page

    for _ in range(2):
        job = Job()
        with attempt(path):
            assert [job.fetch(5), job.fetch(5)] == [5, 5]
    assert job.calls == 0


def test_a_generator_can_not_be_resumed() -> None:
    """What it was doing is lost with its process, and that is said when it is decorated."""
    with pytest.raises(InvalidArgument, match="can't be resumed"):

        @stage("numbers", once=True)
        def numbers() -> Iterator[int]:
            yield 1

    with pytest.raises(InvalidArgument, match="can't be resumed"):

        @operation("numbers", id="n", resume="work.db")
        def more() -> Iterator[int]:
            yield 1


# -- what it belongs to


def test_another_fingerprint_is_refused(path: str) -> None:
    """The error names both, and the two ways to go on."""
    with attempt(path, fingerprint="v1") as op:
        op.checkpoint(at=1)
    with pytest.raises(CheckpointMismatch, match=r"belongs to v1, and this is v2.*'restart'.*'keep'"):
        attempt(path, fingerprint="v2").start()
    with attempt(path, fingerprint="v2", resume_mismatch="keep") as op:
        assert op.restored == {"at": 1}
    with attempt(path, fingerprint="v3", resume_mismatch="restart") as op:
        assert op.restored is None
        assert op.attempt == 3


def test_a_decorated_function_is_known_by_its_arguments(path: str) -> None:
    """Equal calls go on; other arguments are refused; of an object only the type counts."""
    seen: list[int] = []

    @operation("ingest", id="ingest", resume=path)
    def ingest(folder: str, limit: int = 10, client: object = None) -> None:
        current = list(track(range(3), key=lambda number: number))
        seen.extend(current)

    ingest("data", client=object())
    ingest(folder="data", limit=10, client=object())
    assert seen == [0, 1, 2]
    with pytest.raises(CheckpointMismatch, match='folder="other"'):
        ingest("other")


def test_a_mismatch_shows_no_secrets(path: str) -> None:
    """Neither the error nor the store has them; another secret is another call all the same."""

    @operation("pull", id="pull", resume=path)
    def pull(password: str, url: str) -> None:
        """Do nothing."""

    pull("hunter2", "redis://u:supersecret@h")
    pull("hunter2", "redis://u:supersecret@h")
    for other in (("hunter3", "redis://u:supersecret@h"), ("hunter2", "redis://u:othersecret@h")):
        with pytest.raises(CheckpointMismatch) as told:
            pull(*other)
        found = open_store(path).operation("pull")
        assert found is not None
        for secret in ("hunter", "secret@"):
            assert secret not in f"{told.value}{found.fingerprint}"
    with attempt(path, fingerprint="postgres://u:hunter2@h/db"):
        pass
    with pytest.raises(CheckpointMismatch) as told:
        attempt(path, fingerprint="v2").start()
    assert "hunter" not in str(told.value)


def test_a_method_is_known_by_its_object(path: str) -> None:
    """Its plain attributes count, as arguments do; of others the type, also if they lead back to it."""

    class Site:
        def __init__(self, url: str) -> None:
            self.url = url
            self.client = object()
            self.pages = {("a", 1): self}
            self.site = self

        @operation("crawl", id="crawl", resume=path)
        def crawl(self, limit: int = 10) -> list[int]:
            return list(track(range(2), key=str))

    class Mirror(Site):
        """Another class with the same method."""

    assert Site("a").crawl() == [0, 1]
    assert Site("a").crawl(limit=10) == []
    with pytest.raises(CheckpointMismatch, match=r'crawl\(self=Site\(url="a",.*limit=10.*Site\(url="b"'):
        Site("b").crawl()
    with pytest.raises(CheckpointMismatch, match=r"self=Mirror\(url"):
        Mirror("a").crawl()


@dataclass
class Copy:
    """A dataclass with a resumable method."""

    url: str
    path: str = field(repr=False)

    def run(self) -> list[int]:
        """Do the work."""
        return operation("copy", id="copy", resume=self.path)(self._run)()

    def _run(self) -> list[int]:
        return list(track(range(2), key=str))


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("__weakref__", "rows", "unset", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.rows = list(range(2000))

    def run(self, path: str) -> list[int]:
        """Do the work."""
        return list(track(range(2), key=str))


def test_an_object_is_known_by_fields_and_slots(path: str) -> None:
    """However a class keeps its attributes; a partial has its arguments."""
    assert Copy("a", path).run() == [0, 1]
    assert Copy("a", path).run() == []
    with pytest.raises(CheckpointMismatch, match='url="b"'):
        Copy("b", path).run()
    slotted = operation("slotted", id="slotted", resume=path)
    assert slotted(Slotted("a").run)(path) == [0, 1]
    again = Slotted("a")
    kept = weakref.ref(again)
    again.rows[0] = 5
    assert slotted(again.run)(path) == []
    assert kept() is again
    with pytest.raises(CheckpointMismatch, match='url="b"'):
        slotted(Slotted("b").run)(path)

    def copy(folder: str, limit: int) -> list[int]:
        return list(track(range(limit), key=str))

    part = operation("part", id="part", resume=path)
    assert part(functools.partial(copy, "a", limit=2))() == [0, 1]
    assert part(functools.partial(copy, "a"))(limit=2) == []
    with pytest.raises(CheckpointMismatch, match='folder="b"'):
        part(functools.partial(copy, "b", limit=2))()


# -- options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resume": "work.db"}, "resume needs id="),
        ({"id": "a", "resume": "work.db", "resume_mismatch": "ask"}, "'raise', 'restart' or 'keep'"),
        ({"id": "a", "resume": "work.db", "fingerprint": 5}, "fingerprint is a text"),
        ({"id": "a", "resume": "work.db", "wait_for_lease": -1}, "wait_for_lease"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], says: str) -> None:
    """When the operation is made, not when it starts."""
    with pytest.raises(InvalidArgument, match=says):
        operation("job", **options)


CONFIGURED = """
import sys
from otel_progress import InvalidArgument, configure, operation, shutdown

def refused():
    try:
        operation("job", id="job-1", resume=True).start()
    except InvalidArgument as error:
        return "configure" in str(error)

assert refused()
configure(endpoint="http://127.0.0.1:9", checkpoints=sys.argv[1], control=False)
with operation("job", id="job-1", resume=True) as op:
    assert op._session is not None
with operation("job", id="job-1") as plain:
    assert plain._session is None
    assert plain.attempt == 2
shutdown()
assert refused()
"""


def test_true_means_the_store_of_configure(path: str) -> None:
    """`configure(checkpoints=...)` names it once for all; shutdown() forgets it; an id alone does not resume."""
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_id_that_runs_here_is_a_duplicate(path: str) -> None:
    """The error is that of any operation whose id is in use."""
    with attempt(path), pytest.raises(DuplicateOperation):
        attempt(path).start()


# -- leases


def held(path: str) -> Any:
    """A lease of another machine."""
    return open_store(path).acquire(Claim("job-1", "job", AFAR)).lease


def test_an_operation_that_is_held_does_not_start(path: str) -> None:
    """The block is never entered."""
    held(path)
    with pytest.raises(OperationHeld, match="process 4711 on elsewhere"), attempt(path):
        raise AssertionError


def test_who_waits_gets_the_lease(path: str, progress_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_for_lease` tries again until the other's is over, and gives up after its seconds."""
    monkeypatch.setattr(opening, "pause", progress_capture.clock.sleep)
    held(path)
    with pytest.raises(OperationHeld):
        attempt(path, wait_for_lease=20).start()
    with attempt(path, wait_for_lease=20) as op:
        assert op.attempt == 2


def test_waiting_for_a_lease_does_not_stop_the_event_loop(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks go on, and one of them may be what frees it."""
    from otel_progress.live import operation as life

    monkeypatch.setattr(life, "LEASE_POLL", 0.0)
    lease = held(path)

    async def free() -> None:
        open_store(path).write(lease, Batch(ended=("completed", None)))

    async def run() -> int:
        other = asyncio.ensure_future(free())
        async with attempt(path, wait_for_lease=60) as op:
            await other
            return op.attempt

    assert asyncio.run(run()) == 2


def test_a_lease_is_renewed_while_the_job_sleeps(path: str, progress_capture: Capture) -> None:
    """The writer's thread renews it, without anything to save."""
    with attempt(path) as op:
        for _ in range(12):
            progress_capture.clock.sleep(10)
            op._session._writer.flush(1)
        with pytest.raises(OperationHeld):
            held(path)


def test_who_lost_the_lease_is_told(path: str, progress_capture: Capture) -> None:
    """The next call raises, the operation is asked to stop, and nothing more is written."""
    with pytest.raises(LeaseLost, match="taken over"), attempt(path) as op:
        op.checkpoint(at=1)
        op._session._writer.flush(1)
        progress_capture.clock.sleep(31)
        held(path)
        op._session._writer.flush(1)
        assert op.cancel_requested()
        with pytest.raises(OperationCancelled):
            op.raise_if_cancelled()
        with pytest.raises(LeaseLost):
            op.done("x")
        list(track([1, 2], key=lambda number: number))
    assert open_store(path).state("job-1", "", "state") == '{"at":1}'
    assert open_store(path).operation("job-1").status == "running"  # type: ignore[union-attr]


# -- stores that fail


def test_a_store_that_can_not_be_opened_is_told_at_the_start(tmp_path: Path, progress_capture: Capture) -> None:
    """Before any work is done."""
    with pytest.raises(CheckpointError, match="can't be opened"), attempt(str(tmp_path / "no" / "work.db")):
        raise AssertionError


def test_an_error_of_another_s_store_is_told_as_ours(tmp_path: Path, progress_capture: Capture) -> None:
    """Whatever a store raises, the job gets a CheckpointError, at its start and later."""

    class Odd(SqliteStore):
        broken = True

        def operation(self, id: str) -> Any:
            if self.broken:
                raise KeyError(id)
            return super().operation(id)

        def write(self, lease: Any, batch: Batch) -> None:
            raise KeyError("write")

    store = Odd(tmp_path / "work.db")
    with pytest.raises(CheckpointError, match="KeyError"):
        attempt(store).start()
    store.broken = False
    with pytest.raises(CheckpointError, match="KeyError"), attempt(store) as op:
        op.done("x")


def test_a_job_may_go_on_without_a_store(
    tmp_path: Path, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """With `required=False` it does all the work, saves nothing, and says so once."""
    with attempt(str(tmp_path / "no" / "work.db"), required=False) as op:
        assert op.restored is None
        assert list(track([1, 2], key=lambda number: number)) == [1, 2]
        op.checkpoint(at=1)
        op.done("x")
    assert caplog.text.count("goes on without checkpoints") == 1
    assert "saves nothing" not in caplog.text


def test_a_store_that_fails_stops_the_job_at_the_next_call(tmp_path: Path, progress_capture: Capture) -> None:
    """Work that can't be saved is not done; what was saved before stays, and the job's own exception passes."""
    store = Failing(tmp_path / "work.db")
    with pytest.raises(CheckpointError, match="disk is full"), attempt(store) as op:
        for number in track(range(100), key=lambda number: number):
            if number == 5:
                op._session._writer.flush(1)
                op.checkpoint(at=5)
                store.why = CheckpointError("the disk is full")
                op._session._writer.flush(1)
                op.checkpoint(at=6)
    store.why = None
    with attempt(store):
        assert next(iter(track(range(100), key=lambda number: number))) == 5


def test_a_store_that_recovers_gets_all(
    tmp_path: Path, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost while a store that is not required fails: it is written with the next round that works."""
    store = Failing(tmp_path / "work.db")
    with attempt(store, required=False) as op:
        store.why = CheckpointError("the disk is full")
        for number in track(range(10), key=lambda number: number):
            op.checkpoint(at=number)
            op._session._writer.flush(1)
        store.why = None
    assert caplog.text.count("can't save its checkpoints") == 1
    assert len(store.keys("job-1", "").done) == 10
    assert json.loads(store.state("job-1", "", "state") or "") == {"at": 9}


def test_a_passing_error_is_told_when_it_lasts(tmp_path: Path, progress_capture: Capture) -> None:
    """A server that is restarted within 15 s stops no job, and nothing is lost; one that stays away does."""
    store = Failing(tmp_path / "work.db")
    away = CheckpointError("the server is away")
    away.passing = True
    with pytest.raises(CheckpointError, match="is away"), attempt(store) as op:
        for seconds in (0, 14.9):
            store.why = away
            op.checkpoint(at=seconds)
            op._session._writer.flush(1)
            progress_capture.clock.sleep(seconds)
            op._session._writer.flush(1)
            op.done("x" if seconds else "0")
            store.why = None
            op._session._writer.flush(1)
        store.why = away
        op.done("y")
        op._session._writer.flush(1)
        progress_capture.clock.sleep(15)
        op._session._writer.flush(1)
        store.why = None
        op.done("z")
    assert store.keys("job-1", "").done == {"0", "x", "y"}


def test_after_a_death_the_key_in_hand_is_written_first(path: str) -> None:
    """So an item that kills the process at once, again and again, is known by its key."""
    store = open_store(path)
    held(path)
    store.died("job-1", 1, "SIGKILL")
    with pytest.raises(LeaseLost), attempt(path):  # its end can't be saved, as it is dead
        for number in track(range(5), key=int):
            store.died("job-1", 2, "SIGKILL") if number == 3 else None
            if number == 3:
                break
    assert [(one.key, one.deaths) for one in store.suspects("job-1")] == [("3", 1)]
    store.set_aside("job-1", "", "3")
    with attempt(path) as op:
        assert list(track(range(5), key=int)) == [4]
        found = op.snapshot()
    assert [note.text for note in found.notes][1:] == ["set aside, as it ended the process: 3"]
    assert found.outcomes == {"set aside": 1}


class Away(SqliteStore):
    """A store that can't be read so many times."""

    times = 0

    def keys(self, id: str, scope: str) -> Keys:
        self.times -= 1
        if self.times >= 0:
            why = CheckpointError("the server is being started")
            why.passing = True
            raise why
        return super().keys(id, scope)


@pytest.mark.parametrize(("times", "passes"), [(59, True), (99, False)])
def test_a_read_waits_for_a_store_that_is_away(
    tmp_path: Path, progress_capture: Capture, monkeypatch: pytest.MonkeyPatch, times: int, passes: bool
) -> None:
    """For 15 s, as a write does; then the job is told."""
    monkeypatch.setattr(saving, "pause", progress_capture.clock.sleep)
    store = Away(tmp_path / "work.db")
    with attempt(store):
        store.times = times
        with contextlib.nullcontext() if passes else pytest.raises(CheckpointError, match="being started"):
            with stage("read"):
                assert list(track([1, 2], key=int)) == [1, 2]


def test_the_last_marks_must_be_saved(tmp_path: Path, progress_capture: Capture) -> None:
    """An operation whose last marks could not be saved raises at its end; an exception of the job passes instead."""
    store = Failing(tmp_path / "work.db")
    with pytest.raises(CheckpointError, match="disk is full"), attempt(store) as op:
        op.done("x")
        store.why = CheckpointError("the disk is full")
    store.why = None
    assert (op.status, op.snapshot().reason) == ("failed", "CheckpointError: the disk is full")
    with pytest.raises(Broken), attempt(store) as op:
        op.done("y")
        store.why = CheckpointError("the disk is full")
        raise Broken


def test_an_operation_that_lost_its_lease_has_not_completed(path: str, progress_capture: Capture) -> None:
    """Also if all was saved before: what a later holder does is not this one's."""
    with pytest.raises(LeaseLost), attempt(path) as op:
        op.done("x")
        op._session._writer.flush(1)
        progress_capture.advance(1)
        open_store(path).died("job-1", 1, "SIGKILL")
    assert op.status == "failed"
    assert "LeaseLost" in (op.snapshot().reason or "")
    progress_capture.advance(1)
    assert [event.snapshot.status for event in progress_capture.of(semconv.OPERATION_ENDED)] == ["failed"]


def test_an_operation_runs_until_it_is_saved(tmp_path: Path, progress_capture: Capture) -> None:
    """It is not shown as completed while the store is tried."""
    seen = []

    class Slow(SqliteStore):
        def write(self, lease: Any, batch: Batch) -> None:
            seen.append((bool(batch.done), op.status))
            super().write(lease, batch)

    with attempt(Slow(tmp_path / "work.db")) as op:
        op.done("x")
    assert seen == [(True, "running"), (False, "completed")]


@pytest.mark.parametrize("begin", ["the end of a stage", "a wait"])
def test_what_the_operation_saves_is_written_with_a_stage(path: str, begin: str) -> None:
    """Not after the next quarter of a second: at the end of a stage, and when a wait begins."""
    with attempt(path) as op:
        writer = op._session._writer
        with stage("load") if begin != "a wait" else contextlib.nullcontext():
            op.checkpoint(at=1)
            op.done("x")
            asked = writer._asked
        with waiting("a human") if begin == "a wait" else contextlib.nullcontext():
            assert writer._asked > asked
            writer.flush(1)
        asked = writer._asked
        for item in track("abc", key=str):
            with stage(f"part {item}"):
                """Nothing of its own: a write for each would cost more than the work."""
        assert writer._asked <= asked + 1


def test_what_interrupts_the_last_write_ends_the_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C while a store is waited for: the operation does not go on, and the exception passes."""
    store = Failing(tmp_path / "work.db")

    def interrupted(seconds: float) -> None:
        store.why = None
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(saving, "pause", interrupted)
    with pytest.raises(KeyboardInterrupt), attempt(store) as op:
        op.done("x")
        store.why = CheckpointError("the server is away")
        store.why.passing = True
    assert op.status == "interrupted"
    op._session._writer.flush(1)
    found = store.operation("job-1")
    assert found is not None
    assert (found.status, store.keys("job-1", "").done) == (op.status, {"x"})


def test_any_object_with_the_protocol_is_a_store(tmp_path: Path) -> None:
    """The protocol is what matters, not the class."""
    assert isinstance(SqliteStore(tmp_path / "work.db"), CheckpointStore)
    assert not isinstance(object(), CheckpointStore)


# -- after the end


def test_what_was_kept_can_be_read_after_the_end(path: str) -> None:
    """Nothing is saved any more, and an error says so; who only reads needs none."""
    with attempt(path) as op, stage("load", once=True) as load:
        op.checkpoint(at=1)
        op.done("x")
        load.result(rows=5)
    with attempt(path) as op, stage("load", once=True) as load:
        """Its state is read below, for the first time."""
    assert (op.restored, op.is_done("x"), op.is_done("y")) == ({"at": 1}, True, False)
    assert load.restored == {"rows": 5}
    for late in (lambda: op.done("z"), lambda: op.checkpoint(at=2)):
        with pytest.raises(CheckpointError, match="has ended"):
            late()
    with attempt(path) as op:
        assert (op.restored, op.is_done("z")) == ({"at": 1}, False)


def test_a_loop_that_is_left_open_ends_with_its_operation(path: str) -> None:
    """It gives no item that would not be marked."""

    def items() -> Iterator[int]:
        yield from (number for number in track(range(5), key=str) if number >= 0)

    def by_hand() -> Iterator[int]:
        for number in track(range(5), key=str):
            yield number + 0

    with attempt(path):
        rest = by_hand()
        assert [next(rest), next(rest)] == [0, 1]
    with pytest.raises(CheckpointError, match="has ended"):
        next(rest)
    assert list(rest) == []
    with attempt(path):
        rest = items()
        assert next(rest) == 1


def test_a_loop_that_is_refused_adds_no_items(path: str) -> None:
    """The total is that of the loop that runs."""
    with attempt(path) as op:
        for number in track(range(5), key=str):
            if number == 1:
                break
        with pytest.raises(InvalidState, match="has keys already"):
            iter(track(range(5), key=str))
        assert op.snapshot().progress.total == 5


@pytest.mark.parametrize("options", [{"key": str}, {"mark": True}, {"key": str, "mark": False}])
def test_what_is_done_is_said_once(path: str, options: dict[str, Any]) -> None:
    """`initial=` beside the store would count the same items twice."""
    with attempt(path), pytest.raises(InvalidArgument, match="initial="):
        track(range(5), initial=5, **options)


def test_a_duplicate_is_told_what_it_can_do(path: str) -> None:
    """Leaving the id out is no way for an operation that is resumed by it."""
    with attempt(path), pytest.raises(DuplicateOperation, match="or use another id"):
        attempt(path).start()


# -- what is told


def test_the_feed_says_where_it_goes_on(path: str, progress_capture: Capture) -> None:
    """A first attempt says nothing; a later one says how far the one before was, and how it ended."""
    with pytest.raises(Broken), attempt(path) as op:
        for number in track(range(1351), key=lambda number: number):
            if number == 130:
                raise Broken("no more")
    assert [note.text for note in op.snapshot().notes] == []
    progress_capture.clock.sleep(239)
    progress_capture.advance(1)
    progress_capture.events.clear()
    with attempt(path) as op:
        progress_capture.advance(1)
        op._session._writer.flush(1)
        progress_capture.advance(1)
    assert progress_capture.names()[:2] == [semconv.OPERATION_STARTED, semconv.NOTE]
    assert [note.text for note in op.snapshot().notes] == [
        "resumed at 130 of 1,351 items (attempt 2, after it failed 4 min ago)"
    ]


def test_the_feed_says_what_killed_the_attempt_before(path: str, progress_capture: Capture) -> None:
    """If a watcher saw it; otherwise that its process died."""
    store = open_store(path)
    held(path)
    store.died("job-1", 1, "SIGKILL")
    progress_capture.clock.sleep(5)
    with attempt(path) as op:
        pass
    assert op.snapshot().notes[0].text == "resumed (attempt 2, after SIGKILL 5 s ago)"


@pytest.mark.parametrize(
    ("how", "said"), [("SIGSEGV", "SIGSEGV"), ("its process is gone", "its process died")], ids=["seen", "unseen"]
)
def test_the_feed_reads_as_a_sentence(path: str, progress_capture: Capture, how: str, said: str) -> None:
    """Also after a death of which nobody saw the reason."""
    held(path)
    open_store(path).died("job-1", 1, how)
    with attempt(path) as op:
        pass
    assert op.snapshot().notes[0].text == f"resumed (attempt 2, after {said} 0 s ago)"


def test_a_process_that_replaces_its_program_goes_on_at_once(path: str, progress_capture: Capture) -> None:
    """`exec` keeps the pid, so the lease is its own; nothing is said to have died or expired."""
    open_store(path).acquire(Claim("job-1", "job", this_process()))
    with attempt(path) as op:
        pass
    assert op.snapshot().notes[0].text == "resumed (attempt 2, after this process left it 0 s ago)"


def test_the_span_links_to_the_attempt_before(path: str, progress_capture: Capture) -> None:
    """The traces of attempts form a chain."""
    for _ in range(2):
        with attempt(path):
            pass
    first, second = [span for span in progress_capture.spans if span.name == "job"]
    assert not first.links
    assert second.links[0].context.span_id == first.context.span_id
    assert second.links[0].context.trace_id == first.context.trace_id


def test_an_event_says_that_work_was_saved(path: str, progress_capture: Capture) -> None:
    """With the number of keys that were marked."""
    with attempt(path) as op:
        list(track(range(5), key=lambda number: number))
        op._session._writer.flush(1)
        progress_capture.advance(1)
    events = progress_capture.of(semconv.CHECKPOINT)
    assert [event.attributes[semconv.CHECKPOINT_KEYS] for event in events] == [5]


def test_the_store_knows_how_far_it_is(path: str, progress_capture: Capture) -> None:
    """Each second: counts, stage, command line and folder, for those who recover it."""
    with attempt(path, total=10, unit="page"), stage("read") as read:
        read.update(completed=4, total=10, message="page 4")
        read.checkpoint(at=4)
        progress_capture.clock.sleep(2)
        read._op._session._writer.flush(1)  # type: ignore[union-attr]
        found = open_store(path).operation("job-1")
        assert found is not None
        assert found.summary.stage == "read"
        assert (found.status, found.holder.pid, found.holder.cwd) == ("running", os.getpid(), os.getcwd())
        assert found.checkpoint_at is not None


def test_an_operation_that_does_not_start_holds_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log has no trace of it, and the id is free."""
    with caplog.at_level(logging.WARNING):
        op = attempt(path)
        del op
    assert caplog.text == ""
    with attempt(path) as again:
        assert again.attempt == 1


def test_an_operation_that_is_dropped_frees_its_lease(path: str, progress_capture: Capture) -> None:
    """What the job forgot to end ends as interrupted, with all that was marked."""
    op = attempt(path).start()
    op.done("x")
    del op
    gc.collect()
    progress_capture.advance(1)
    found = open_store(path).operation("job-1")
    assert found is not None
    assert (found.status, found.reason) == ("interrupted", "dropped without an end")
    with attempt(path) as again:
        assert again.is_done("x")
