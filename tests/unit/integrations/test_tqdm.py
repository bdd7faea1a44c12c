"""Programs with bars of tqdm, written by people who never heard of otel-progress, are seen with no line changed."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import decimal
import inspect
import io
import pickle
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tqdm.asyncio
import tqdm.std
from bar_parts import move_and_hang
from tqdm.contrib.concurrent import process_map, thread_map

import otel_progress as progress
from otel_progress import semconv
from otel_progress.instrumenting import chosen
from otel_progress.integrations import tqdm as integration
from otel_progress.live import hooks
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.testing import Capture, capture

bar = partial(tqdm.std.tqdm, file=io.StringIO())


@pytest.fixture(autouse=True)
def seen() -> Iterator[Capture]:
    """Capture all signals, with the integration on."""
    with capture() as found:
        chosen.start("tqdm")
        yield found
        chosen.stop()


def started(seen: Capture) -> list[str]:
    return [event.snapshot.name for event in seen.of(semconv.OPERATION_STARTED)]


def ended(seen: Capture, name: str) -> Snapshot:
    seen.advance(1)
    return seen.ended(name)


def counts(found: Any) -> tuple[Any, Any, Any]:
    return found.progress.completed, found.progress.total, found.progress.unit


@pytest.mark.parametrize("disable", [False, True])
def test_the_program_is_asked_for_a_length_as_often_as_by_tqdm(disable: bool, seen: Capture) -> None:
    """A `__len__` may be slow, or count its calls."""
    asked: list[int] = []

    class Rows(list[int]):
        def __len__(self) -> int:
            asked.append(1)
            return super().__len__()

    def calls() -> int:
        asked.clear()
        rows = iter(bar(Rows([1, 2, 3]), desc="rows", disable=disable))
        assert [next(rows) for _ in range(3)] == [1, 2, 3]
        assert next(rows, None) is None
        return len(asked)

    with_us = calls()
    chosen.stop()
    assert with_us == calls()


def failing() -> Iterator[int]:
    yield 1
    raise ValueError("in the iterable")


@pytest.mark.parametrize("rows", [[1, 2], failing()])
def test_an_error_of_a_loop_has_no_line_of_ours(rows: Any, seen: Capture) -> None:
    """The traceback is that of the program and of tqdm, whether the body of the loop raises or its iterable."""
    with pytest.raises(ValueError, match="in the") as caught:
        for row in bar(rows):
            if row == 2:
                raise ValueError("in the body")
    files = [entry.filename for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert not [one for one in files if one.startswith(str(Path(progress.__file__).parent))]


def test_a_loop_is_an_operation(seen: Capture) -> None:
    """It is counted item by item, its name has no numbers, and its description is the message."""
    for i in bar(range(10), desc="Epoch 2/3"):
        seen.advance(0.5)
        if i == 8:
            assert counts(progress.operations()[0].snapshot()) == (8, 10, "item")
    found = ended(seen, "Epoch")
    assert (found.status, counts(found), found.message) == (Status.COMPLETED, (10, 10, "item"), "Epoch 2/3")
    assert found.elapsed == pytest.approx(5, abs=0.5)


def test_a_bar_without_a_description_has_the_name_of_its_function(seen: Capture) -> None:
    """Names are labels of metrics, so they come from the code."""
    for _ in bar(range(4)):
        seen.advance(0.5)
    assert started(seen) == ["test_a_bar_without_a_description_has_the_name_of_its_function"]


def test_short_bars_are_not_shown(seen: Capture) -> None:
    """A thousand bars of a moment are no news."""
    for _ in range(1000):
        for _ in bar(range(3)):
            pass
    seen.advance(3)
    assert seen.events == []


def test_inside_an_operation_a_bar_is_a_stage(seen: Capture) -> None:
    """Also below a stage that the program opened inside the loop of another bar."""
    with progress.operation("job"):
        for _ in bar(range(2), desc="outer"):
            with progress.stage("mine"):
                for _ in bar(range(4), desc="inner", leave=False):
                    seen.advance(0.5)
    paths = {stage.path for event in seen.events for stage in event.snapshot.stages}
    assert paths == {"outer", "mine", "mine/inner"}
    assert started(seen) == ["job"]


def test_a_bar_inside_a_bar_is_its_stage(seen: Capture) -> None:
    """As with `trange` in `trange`."""
    for _ in tqdm.std.trange(3, desc="epoch", file=io.StringIO()):
        for _ in tqdm.std.trange(4, desc="batch", leave=False, file=io.StringIO()):
            seen.advance(0.5)
    found = ended(seen, "epoch")
    assert started(seen) == ["epoch"]
    assert counts(found) == (3, 3, "item")
    assert {(stage.name, stage.status) for stage in found.stages} == {("batch", Status.COMPLETED)}


def test_a_download_counts_bytes_from_where_it_was(seen: Capture) -> None:
    """As huggingface_hub does: a bar moved by hand, that begins in the middle."""
    with bar(total=1000, initial=400, unit="B", unit_scale=True, desc="model.safetensors") as download:
        for _ in range(6):
            seen.advance(0.5)
            download.update(100)
    found = ended(seen, "model.safetensors")
    assert counts(found) == (1000, 1000, "By")
    assert found.progress.restored == 400


def test_a_total_can_change(seen: Capture) -> None:
    """It is read like the count."""
    with bar(total=10, desc="pages") as pages:
        seen.advance(1.5)
        pages.total = 20
        pages.update(5)
        seen.advance(1.5)
        assert counts(progress.operations()[0].snapshot()) == (5, 20, "item")
        pages.reset(total=7)
        seen.advance(1.5)
        assert progress.operations()[0].snapshot().progress.total == 7
    assert ended(seen, "pages").status is Status.COMPLETED


@pytest.mark.parametrize("unit_scale", [10, 0.5])
def test_a_scaled_bar_counts_what_it_shows(seen: Capture, unit_scale: float) -> None:
    """A number as `unit_scale` multiplies count and total."""
    for _ in bar(range(10), desc="frames", unit_scale=unit_scale):
        seen.advance(0.5)
    assert counts(ended(seen, "frames"))[:2] == (10 * unit_scale, 10 * unit_scale)


def test_bars_that_are_switched_off_are_seen(seen: Capture) -> None:
    """`disable=True` hides a bar from the terminal; its own count stands still."""
    for _ in bar(range(6), desc="quiet loop", disable=True):
        seen.advance(0.5)
    assert counts(ended(seen, "quiet loop")) == (6, 6, "item")
    with bar(total=6, desc="quiet bar", unit="B", disable=True) as quiet:
        for _ in range(6):
            seen.advance(0.5)
            quiet.update()
    assert (counts(quiet_found := ended(seen, "quiet bar")), quiet_found.status) == ((6, 6, "By"), Status.COMPLETED)
    assert quiet.n == 0


def test_what_the_bar_says_is_the_message(seen: Capture) -> None:
    """Descriptions and postfixes that change, and `tqdm.write`, which moves nothing."""
    shown = bar(range(4), desc="fit")
    for i in shown:
        seen.advance(0.75)
        shown.set_description(f"fit {i}")
        shown.set_postfix(loss=i)
        tqdm.std.tqdm.write("a line", file=io.StringIO())
    found = ended(seen, "fit")
    assert found.message == "fit 3, loss=3"


def test_a_loop_over_what_has_no_length(seen: Capture) -> None:
    """A generator is counted, and has a total at its end alone."""
    for i in bar((i for i in range(5)), desc="lines"):
        seen.advance(0.5)
        if i == 4:
            assert counts(progress.operations()[0].snapshot()) == (4, None, "item")
    assert ended(seen, "lines").progress.completed == 5


def test_a_loop_over_an_iterable_like_a_data_loader(seen: Capture) -> None:
    """It has a length and makes an iterator; the bar hands out its attributes as ever."""

    class Loader:
        batch_size = 32

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[int]:
            return iter(range(4))

    loader = Loader()
    shown = bar(loader, desc="train")
    iterator = iter(shown)
    assert (len(shown), inspect.isgenerator(iterator)) == (4, True)
    for _ in iterator:
        assert shown.iterable is loader
        seen.advance(0.5)
    assert counts(ended(seen, "train")) == (4, 4, "item")


def test_a_loop_that_is_left_early(seen: Capture) -> None:
    """`break` is told apart from an end, and a loop beside a shorter one is none."""
    for i in bar(range(10), desc="search"):
        seen.advance(0.5)
        if i == 5:
            break
    found = ended(seen, "search")
    assert (found.status, found.reason) == (Status.CANCELLED, "left early, after 5")
    for _ in zip("abcd", bar(range(4), desc="pairs")):
        seen.advance(0.5)
    assert ended(seen, "pairs").status is Status.COMPLETED


def test_a_bar_in_a_generator_that_is_dropped(seen: Capture) -> None:
    """Nobody closes it; it ends when it is collected."""

    def lines() -> Iterator[int]:
        yield from bar(range(10), desc="lines")

    some = lines()
    for _ in range(5):
        next(some)
        seen.advance(0.5)
    assert [one.name for one in progress.operations()] == ["lines"]
    del some
    assert ended(seen, "lines").status is Status.CANCELLED


def test_an_exception_is_the_jobs(seen: Capture) -> None:
    """It passes unchanged; a bar in `with` has failed by it."""
    with pytest.raises(KeyError, match="mine"), bar(total=3, desc="rows") as rows:
        seen.advance(1.5)
        rows.update()
        raise KeyError("mine")
    found = ended(seen, "rows")
    assert (found.status, found.reason) == (Status.FAILED, "KeyError: 'mine'")
    with pytest.raises(KeyError, match="mine"):
        for _ in bar(range(5), desc="items"):
            seen.advance(0.75)
            if progress.operations():
                raise KeyError("mine")
    assert ended(seen, "items").status is Status.CANCELLED


def test_a_manual_bar_that_nobody_closes(seen: Capture) -> None:
    """It ends when it is collected, with its last count."""
    left = bar(total=5, desc="left")
    seen.advance(1.5)
    left.update(3)
    del left
    assert counts(ended(seen, "left")) == (3, 5, "item")


def test_async_loops(seen: Capture) -> None:
    """`async for`, and tasks as they are completed."""

    async def items() -> Any:
        for i in range(4):
            yield i

    async def work(seconds: float) -> float:
        await asyncio.sleep(0)
        return seconds

    async def main() -> None:
        async for _ in tqdm.asyncio.tqdm(items(), total=4, desc="stream", file=io.StringIO()):
            seen.advance(0.5)
        for task in tqdm.asyncio.tqdm.as_completed([work(i) for i in range(4)], desc="tasks", file=io.StringIO()):
            await task
            seen.advance(0.5)

    asyncio.run(main())
    assert counts(ended(seen, "stream")) == (4, 4, "item")
    assert counts(ended(seen, "tasks")) == (4, 4, "item")


@pytest.mark.parametrize(
    ("last", "status", "why"),
    [
        ("break", Status.CANCELLED, "left early"),
        ("body", Status.CANCELLED, "left"),
        ("source", Status.FAILED, "KeyError"),
    ],
)
def test_an_async_loop_that_does_not_end_by_itself_has_not_completed(
    seen: Capture, last: str, status: Status, why: str
) -> None:
    """As a loop with `for`: left by `break` or by an error in its body, or failed with its source."""

    async def items() -> Any:
        for i in range(9):
            if last == "source" and i == 5:
                raise KeyError("row")
            yield i

    async def main() -> None:
        async for i in tqdm.asyncio.tqdm(items(), total=9, desc="stream", file=io.StringIO()):
            seen.advance(0.5)
            if last == "break" and i == 5:
                break
            if last == "body" and i == 5:
                raise ValueError

    with contextlib.suppress(ValueError, KeyError):
        asyncio.run(main())
    seen.advance(1)
    found = ended(seen, "stream")
    assert (found.status, why in (found.reason or "")) == (status, True), found


def test_bars_in_threads_are_apart(seen: Capture) -> None:
    """Each thread has its own bar, which is no part of that of another one."""
    began, go_on = threading.Barrier(4), threading.Event()

    def work(number: int) -> None:
        for i in bar(range(3), desc=f"worker {number}", position=number):
            if i == 1:
                began.wait(30)
                go_on.wait(30)

    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            pool.submit(work, number)
        began.wait(30)
        seen.advance(2)
        assert [one.name for one in progress.operations()] == ["worker"] * 3
        assert {counts(one.snapshot()) for one in progress.operations()} == {(1, 3, "item")}
        go_on.set()
    seen.advance(1)
    assert [event.snapshot.status for event in seen.of(semconv.OPERATION_ENDED)] == [Status.COMPLETED] * 3


def test_pools_with_a_bar(seen: Capture) -> None:
    """`thread_map` and `process_map` count what came back."""
    began, gate = threading.Event(), threading.Event()

    def work(i: int) -> int:
        if i == 2:
            began.set()
            gate.wait(30)
        return i

    done: list[list[int]] = []
    options = {"desc": "map", "max_workers": 2, "file": io.StringIO()}
    mapped = threading.Thread(target=lambda: done.append(thread_map(work, range(4), **options)))
    mapped.start()
    assert began.wait(30)
    seen.advance(2)
    gate.set()
    mapped.join(30)
    assert counts(ended(seen, "map")) == (4, 4, "item")
    assert done == [[0, 1, 2, 3]]
    assert process_map(abs, [-1, 2], max_workers=1, file=io.StringIO()) == [1, 2]


def test_a_loop_that_hangs_is_stuck_at_its_line(seen: Capture) -> None:
    """The line that is told is one of the body of the loop, not of tqdm."""
    with progress.operation("job", stall_after=10):
        for i in bar(range(30), desc="files"):
            if i == 20:
                seen.advance(30)
            seen.advance(0.1)
    stalled = seen.of(semconv.STALLED)
    assert [event.snapshot.stages[0].path for event in stalled] == ["files"]
    assert "test_tqdm.py" in str(stalled[0].snapshot.stuck_at)
    assert "test_a_loop_that_hangs_is_stuck_at_its_line" in str(stalled[0].snapshot.stuck_at)


def test_a_request_to_cancel_stops_the_loop(seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loop over `track` does, it raises at its next item, if the program called `configure`."""
    monkeypatch.setattr(hooks, "configured", True)
    taken = 0
    with pytest.raises(progress.OperationCancelled):
        for _ in bar(range(50), desc="long"):
            taken += 1
            seen.advance(0.75)
            for one in progress.operations():
                one.request_cancel("enough")
    assert taken < 5
    assert ended(seen, "long").status is Status.CANCELLED


def test_gradios_patch_composes(seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It replaces methods with ones that call those that it found, before or after us, and may iterate itself."""
    found = tqdm.std.tqdm.__init__

    def init(
        self: Any, iterable: Any = None, desc: Any = None, total: Any = None, unit: str = "steps", **more: Any
    ) -> None:
        found(self, iterable, desc, total, unit=unit, **more)

    monkeypatch.setattr(tqdm.std.tqdm, "__init__", init)
    for _ in bar(range(4), "steps of theirs"):
        seen.advance(0.5)
    assert counts(ended(seen, "steps of theirs")) == (4, 4, "steps")
    monkeypatch.setattr(tqdm.std.tqdm, "__iter__", lambda self: iter(["theirs"]))
    assert list(bar(range(4))) == ["theirs"]


def test_the_class_looks_as_before_and_is_restored() -> None:
    """Signatures and names stay; what is taken out is gone."""
    ours = dict(vars(tqdm.std.tqdm))
    signature = inspect.signature(tqdm.std.tqdm.__init__)
    chosen.stop()
    assert inspect.signature(tqdm.std.tqdm.__init__) == signature
    plain = dict(vars(tqdm.std.tqdm))
    assert {name for name in plain if plain[name] is not ours[name]} == {
        *("__init__", "__iter__", "__exit__", "__del__", "update", "close"),
    }
    for name in ("__iter__", "update", "close"):
        assert (ours[name].__name__, ours[name].__doc__) == (plain[name].__name__, plain[name].__doc__)
    assert list(bar(range(3))) == [0, 1, 2]


def test_errors_are_those_of_tqdm(seen: Capture) -> None:
    """What can't be iterated, or is an unknown option, is refused as ever."""
    with pytest.raises(TypeError, match="'NoneType' object is not iterable"):
        list(bar(None))
    with pytest.raises(KeyError, match="Unknown argument"):
        bar(range(3), no_such=1)


def test_an_error_of_ours_leaves_the_loop_alone(
    seen: Capture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The integration is off, with one warning."""

    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(integration, "named", broken)
    for _ in range(3):
        assert list(bar(range(3))) == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records] == ["integration tqdm failed and is off; the job goes on"]


def test_a_bar_that_another_thread_moves_is_stuck_at_the_line_of_that_thread(seen: Capture) -> None:
    """The thread that moved it last works on it, not the one that made it."""
    with progress.operation("job", stall_after=10):
        one = bar(total=20, desc="files")
        move_and_hang(seen, lambda: [one.update() for _ in range(5)])
        one.close()
    stalled = seen.of(semconv.STALLED)[0].snapshot
    assert (stalled.stages[0].path, counts(stalled.stages[0])) == ("files", (5, 20, "item"))
    assert "work_that_hangs" in str(stalled.stuck_at)


def test_an_open_loop_leaves_the_bar_as_it_is(seen: Capture) -> None:
    """Length, reversal and the iterable itself are those of tqdm alone, before the first item and after it."""
    items = [1, 2, 3]
    one = bar(items)
    loop = iter(one)
    assert one.iterable is items
    assert next(loop) == 1
    assert one.iterable is items
    assert vars(one)["iterable"] is items
    assert len(one) == 3
    assert len(list(reversed(one))) == 3
    assert list(loop) == [2, 3]
    del one.iterable
    assert not hasattr(one, "iterable")


def test_what_a_bar_did_before_it_was_shown_is_no_gap(seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bar of a process waits until that is configured; it moved all the time, and its pace and limit say so."""
    gate, wants = threading.Event(), threading.Event()

    def first() -> None:
        wants.set()
        gate.wait(60)
        hooks.on_first = None

    monkeypatch.setattr(hooks, "on_first", first)
    for number in bar(range(100), desc="files"):
        seen.advance(0.1)
        if number == 50:
            assert wants.wait(60)
            assert not progress.operations()
            gate.set()
            while hooks.on_first is not None:
                threading.Event().wait(0.01)
        if number == 60:
            [one] = progress.operations()
            assert one.snapshot().progress.completed == 60
    found = ended(seen, "files")
    assert found.progress.rate == pytest.approx(10, rel=0.1)
    assert one._gaps is None


def test_a_bar_that_is_switched_off_takes_what_tqdm_takes() -> None:
    """What is no number is ignored there; the bar can be copied and pickled, and a subclass may answer to any name."""
    for n in (decimal.Decimal(1), None, "x", [1]):
        assert tqdm.tqdm(total=10, disable=True).update(n) is None
    assert list(pickle.loads(pickle.dumps(tqdm.tqdm([1, 2], disable=True)))) == [1, 2]
    assert list(copy.deepcopy(tqdm.tqdm([1, 2], disable=True))) == [1, 2]

    class Anything(tqdm.tqdm):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    assert list(Anything(range(3), disable=True)) == [0, 1, 2]
    assert integration._switch.on


@pytest.mark.parametrize("before", [0.5, 3.0])
def test_a_machine_that_was_asleep(seen: Capture, before: float) -> None:
    """An hour in which the whole process stood still is no stall, also of a bar that was not shown by then."""
    hooks.stall_after = 10.0
    for number in tqdm.std.tqdm(range(5), desc="load", disable=True):
        seen.advance(before)
        if number == 1:
            seen.clock.sleep(3600)
        seen.advance(1)
    seen.advance(1)
    assert seen.of(semconv.STALLED) == []
    assert seen.ended("load").status is Status.COMPLETED


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_wall_clock_that_is_set(seen: Capture, jump: float) -> None:
    """Durations are those of the monotonic clock, also of a bar that was not shown by then."""
    for number in tqdm.std.tqdm(range(5), desc="load", disable=True):
        seen.advance(0.5)
        if number == 0:
            seen.clock.jump(jump)
        seen.advance(0.5)
    seen.advance(1)
    assert seen.ended("load").elapsed == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("disable", [False, True])
def test_a_loop_that_ends_before_it_is_shown_keeps_its_count(disable: bool, seen: Capture) -> None:
    """It lasted, and was over before the first look after that; by then the bar itself is gone."""
    for _ in bar(range(11), desc="short", disable=disable):
        seen.clock.sleep(0.1)
    assert counts(ended(seen, "short")) == (11, 11, "item")


def test_a_total_that_changes_in_the_loop_leaves_the_count_to_the_loop(seen: Capture) -> None:
    """The bar says how many there are, its loop how many were taken."""
    rows = bar(range(20), desc="rows", total=10)
    for number, _ in enumerate(rows):
        seen.advance(0.5)
        if number == 5:
            rows.total = 20
    assert [event.snapshot.progress.completed for event in seen.of(semconv.UPDATED)][-1] > 15
    assert counts(ended(seen, "rows")) == (20, 20, "item")
