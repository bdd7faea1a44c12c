"""The parts of `otel-progress watch`: server-sent events, the feed, what a watcher knows."""

from __future__ import annotations

import json
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import clock, semconv
from otel_progress.cli.query.client import Client, is_loopback
from otel_progress.cli.query.list import write_list
from otel_progress.cli.query.rows import NamedBranch, label_of, labels_of, shown, snapshot_of
from otel_progress.cli.query.show import sections
from otel_progress.cli.query.sse import Frame, Parser, TooLong
from otel_progress.cli.query.subscription import Item
from otel_progress.cli.query.view_model import LINES, ViewModel, event_line, stamp
from otel_progress.cli.query.watch_view import WatchView, fitted
from otel_progress.cli.run.live_view import FollowedViewModel, LiveView, OwnOperations
from otel_progress.model.snapshot import Branch, Progress, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.monitor.web.detail_json import branch_json
from otel_progress.render import words as words_of_handlers
from otel_progress.render.plain import progressed
from otel_progress.render.tree import TreeLayout, TreeNode, TreeOptions, rows_of
from otel_progress.render.words import Line
from otel_progress.testing import Capture

STREAM = (
    "\ufeffid: e-1\nevent: hello\ndata: {}\n\n"
    ": beat\n\n"
    "id: e-2\r\nevent: changes\r\ndata: a\r\ndata:  b\r\n\r\n"
    "event: nothing\n\n"
    "retry: 10\rdata: ä€𝄞\rdata\r\r"
    "id: e\0vil\ndata:x\n\n"
    "id\nevent: changes\ndata: :y\n\n"
    "id: e-9\ndata: cut off"
).encode()
FRAMES = [
    Frame("hello", "{}", "e-1"),
    Frame("changes", "a\n b", "e-2"),
    Frame("message", "ä€𝄞\n", "e-2"),
    Frame("message", "x", "e-2"),
    Frame("changes", ":y", ""),
]


@given(st.lists(st.integers(0, len(STREAM))))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    """The same bytes in any pieces are the same events, whatever ends their lines; what has no end is none."""
    parser, found = Parser(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in pairwise(places):
        found.extend(parser.feed(STREAM[begin:end]))
    assert found == FRAMES


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_read(pieces: list[bytes]) -> None:
    """No bytes break the parser."""
    parser = Parser("before")
    for piece in pieces:
        for frame in parser.feed(piece):
            assert frame.event


@pytest.mark.parametrize("endless", [b"x" * 50, b"data: xxxxxxxxx\n" * 6])
def test_an_event_has_a_limit(endless: bytes) -> None:
    """A line or an event without an end is given up, not kept."""
    parser = Parser(limit=40)
    with pytest.raises(TooLong):
        list(parser.feed(endless))


def test_loopback_is_this_machine() -> None:
    """Only for this machine's own names a proxy is left out."""
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "a.localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "localhost.example", "example", "127.0.0.1.example", "")))


# -- from rows to snapshots


ROW = {
    "id": "survey-1",
    "name": "survey",
    "status": "running",
    "timestamp": 100.0,
    "elapsed": 10.0,
    "idle": 2.0,
    "progress": {"ratio": 0.5, "eta": {"seconds": 14.0, "low": 11.0, "high": 19.0, "source": "rate"}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DETAIL = [
    "id",
    "name",
    "status",
    "verdict",
    "reason",
    "attempt",
    "parent_id",
    "agent",
    "started_at",
    "timestamp",
    "elapsed",
    "idle",
    "stage",
    "progress",
    "wait",
    "stuck_at",
    "cancel",
    "cost",
    "tokens",
    "usage",
    "result",
    "outcomes",
    "counters",
    "limits",
    "stages",
    "folded",
    "stack",
    "description",
    "attributes",
]


class Listed:
    """A monitor that answers with these rows."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def check(self) -> None:
        pass

    def operations(self, **query: object) -> dict[str, object]:
        return {"operations": self.rows}


def entry_of(own: Snapshot) -> object:
    """What `run -f` knows of an operation that was just heard."""
    return SimpleNamespace(open=True, snapshot=own, heard_at=clock.monotonic())


def test_clocks_go_on() -> None:
    """Between two rows elapsed and idle grow and the ETA shrinks; while it waits, idle stands still."""
    later = snapshot_of(ROW, 5.0)
    assert (later.elapsed, later.idle) == (15.0, 7.0)
    assert (later.progress.eta.eta, later.progress.eta.low, later.progress.eta.high) == (9.0, 6.0, 14.0)
    late = snapshot_of(ROW, 12.0).progress.eta
    assert (late.eta, late.low, late.high) == (7.0, 5.5, 12.0), "no further, as no progress was heard of"
    assert snapshot_of(ROW, 50.0).progress.eta is None, "its time is over, and it was not heard of since"
    waits = snapshot_of({**ROW, "wait": {"reason": "x", "elapsed": 1.0}}, 5.0)
    assert (waits.idle, waits.wait.elapsed) == (2.0, 6.0)
    assert waits.progress.eta.eta == 14.0, "a declared wait pauses the estimate"


def test_followed_operation_shows_the_higher_ratio() -> None:
    """`run -f` shows its own events with the monitor's percentage, which continues from that of the children."""

    class Heard:
        def same_run(self, told: Snapshot) -> object:
            progress = Progress(1, 12, "chunk", 1 / 12, 1 / 12)
            return entry_of(Snapshot(told.operation_id, "survey", Status.RUNNING, 100.0, progress=progress))

    board = FollowedViewModel(Heard(), draws=True)
    board.changed([ROW])
    found = board.branches(clock.monotonic(), 5)[0][0].snapshot.progress
    assert (found.completed, found.total, found.ratio) == (1, 12, 0.5)


def test_wait_and_run_have_their_own_age() -> None:
    """`show` heads a waiting operation with the time that it has waited, and then with the age of the run."""
    now = clock.unix()
    row = {**ROW, "timestamp": now, "status": "waiting", "elapsed": 121.2, "verdict": {"health": "waiting"}}
    head = next(iter(sections({**row, "wait": {"reason": "a limit", "elapsed": 10.2}}, [], 80, [])))[0]
    assert "".join(word for word, _ in head).endswith("waiting for 10 s, running for 2 min 1 s")
    head = next(iter(sections({**row, "status": "running", "verdict": {}}, [], 80, [])))[0]
    assert "".join(word for word, _ in head).endswith("running for 2 min 1 s")


@pytest.mark.parametrize("change", [{"status": "completed"}, {"status": "lost", "ended": True}])
def test_what_is_over_stands(change: dict[str, object]) -> None:
    """The clocks of what ended do not go on."""
    assert snapshot_of({**ROW, **change}, 5.0).elapsed == 10.0


def test_no_estimate_of_what_is_stuck() -> None:
    """What is stuck, loops, or is not heard of has no ETA."""
    assert snapshot_of({**ROW, "verdict": {"health": "silent", "reason": "x"}}, 1.0).progress.eta is None
    assert snapshot_of({**ROW, "verdict": {"health": "slow", "reason": "x"}}, 1.0).progress.eta is not None


@pytest.mark.parametrize(
    ("verdict", "health", "reason"),
    [
        ({"health": "progressing", "reason": "all well"}, Health.PROGRESSING, None),
        ({"health": "waiting", "reason": "waits", "overdue": False}, Health.WAITING, None),
        ({"health": "waiting", "reason": "too long", "overdue": True}, Health.WAITING, "too long"),
        ({"health": "dead"}, Health.DEAD, "dead"),
        ({"health": "unheard of"}, Health.PROGRESSING, None),
        (None, Health.PROGRESSING, None),
    ],
)
def test_only_trouble_has_a_reason(verdict: object, health: Health, reason: str | None) -> None:
    """A verdict that nobody needs to look at draws no badge."""
    found = snapshot_of({**ROW, "verdict": verdict})
    assert (found.health, found.health_reason) == (health, reason)


@given(st.dictionaries(st.sampled_from(DETAIL), JSON), st.floats(0, 1e6))
def test_any_json_is_a_snapshot(row: dict[str, object], later: float) -> None:
    """Whatever a field holds, a snapshot comes out, and none of its texts has control characters."""
    found = snapshot_of(row, later)
    texts = (found.name, found.operation_id, found.reason or "", found.message or "", found.health_reason or "")
    assert all(text.isprintable() for text in texts)
    assert isinstance(found.status, Status)


def test_labels() -> None:
    """The id is shown once; of one that nobody gave a child shows the number alone."""
    made_up = {"name": "survey", "id": "0123456789abcdef-7"}
    assert label_of(ROW) == "survey-1"
    assert label_of({"name": "survey", "id": "x"}) == "survey x"
    assert label_of(made_up) == "survey 0123456789abcdef-7"
    assert label_of(made_up, child=True) == "survey #7"


def test_siblings_are_told_apart() -> None:
    """By an attribute in which those of one name differ, else by their description, else by their id."""
    rows = [
        {"id": f"{number}", "name": "look", "attributes": {"model": "m", "city": {"name": city}}}
        for number, city in enumerate(("Bonn", "Mainz"))
    ]
    assert labels_of(rows) == ['look (city={"name": "Bonn"})', 'look (city={"name": "Mainz"})']
    told = [{"id": str(number), "name": "tell", "description": f"part {number}"} for number in range(2)]
    assert labels_of(told) == ["tell (part 0)", "tell (part 1)"]
    alike = [{"id": f"0123456789abcdef-{number}", "name": "x", "attributes": {"a": 1}} for number in range(2)]
    assert labels_of([*alike, {"id": "y-1", "name": "y"}]) == ["x #0", "x #1", "y-1"]
    elsewhere = [{"id": f"{number}123456789abcdef-1", "name": "x"} for number in range(2)]
    assert labels_of(elsewhere) == ["x …89abcdef-1", "x …89abcdef-1"]


def test_one_clock_in_one_format() -> None:
    """A badge and its evidence have the clock that runs on, in the format of all others."""
    waits = {"reason": "ada", "elapsed": 36.0, "overdue_after": 6.0}
    verdict = {"health": "waiting", "overdue": True, "reason": "waiting for 36 s, overdue_after is 6 s"}
    late = snapshot_of({**ROW, "status": "waiting", "wait": waits, "verdict": verdict}, 5.0)
    assert late.health_reason == "waits for 41 s of 6 s: ada"
    lines = words(TreeLayout().lines(rows_of([TreeNode(0, "a", late)], TreeOptions(0, 3)), 100, 20))
    assert sum("41 s" in line for line in lines) == 1
    verdict = {"health": "silent", "branch": "b", "reason": "b: no progress for 34 s, stall_after is 30 s"}
    assert snapshot_of({**ROW, "idle": 34.0, "verdict": verdict}, 5.0).health_reason == (
        "b: no progress for 39 s, stall_after is 30 s"
    )
    verdict = {"health": "dead", "reason": "its process was not heard of for 20 s, 15 s are allowed"}
    assert "not heard of for 23 s, 15 s are" in str(snapshot_of({**ROW, "verdict": verdict}, 3.0).health_reason)


def test_branches_in_trouble_are_named() -> None:
    """The worst line of work stands in the badge, others in trouble below it, and those that go on are named."""
    branches = [
        {"label": "search", "path": "search", "health": "silent", "idle": 34.0, "stall_after": 4.0},
        {
            "label": "ask",
            "path": "ask",
            "health": "waiting",
            "wait": {"reason": "ada", "elapsed": 9, "overdue_after": 6},
        },
        {"label": "weather", "path": "weather", "health": "progressing", "idle": 0.1, "stall_after": 4.0},
    ]
    verdict = {"health": "silent", "branch": "search", "reason": "search: no progress for 34 s, stall_after is 4 s"}
    found = snapshot_of({**ROW, "idle": 34.0, "verdict": verdict, "branches": branches})
    lines = TreeLayout().lines(rows_of([TreeNode(0, "a", found)], TreeOptions(0, 3)), 100, 20)
    text = "\n".join("".join(part for part, _ in line) for line in lines)
    assert "STUCK  search: no progress for 34 s, stall_after is 4 s" in text
    assert "OVERDUE ask  waits for 9 s of 6 s: ada" in text
    assert "1 beside it in no trouble: weather" in text
    assert words_of_handlers.trouble(snapshot_of({**ROW, "verdict": {"health": "dead", "frozen": True}})) == (
        "FROZEN",
        "red",
    )


def test_line_of_work_has_the_name_that_the_monitor_gives() -> None:
    """What the API says of a line of work is read back whole: its stage, its thread, its child have one name."""
    given = (
        Branch("k", idle=5.0, stall_after=4.0, health=Health.SILENT, stuck_at="a.py:6 in f"),
        Branch("k", lane="worker-1"),
        Branch(child="sub-1", child_name="sub"),
    )
    rests_on = (None, "far-1", None)
    found = snapshot_of({**ROW, "branches": [branch_json(*both) for both in zip(given, rests_on)]}).branches
    assert [one.label for one in found] == ["k", "k in worker-1", "child sub"]
    assert [one.child for one in found] == [None, "far-1", "sub-1"]
    assert found[0] == NamedBranch(**{**vars(given[0]), "name": "k"})


def test_nested_values_are_json() -> None:
    """What is nested is shown as JSON, not as Python writes it."""
    found = snapshot_of({**ROW, "attributes": {"a": {"b": [1, None]}, "c": [{"d": "ü"}], "e": True}})
    assert {key: shown(value) for key, value in found.attributes.items()} == {
        "a": '{"b": [1, null]}',
        "c": '[{"d": "ü"}]',
        "e": "true",
    }


def test_loss_that_is_not_proven_is_called_presumed() -> None:
    """A reader sees which loss the next event undoes."""
    lost = {**ROW, "status": "lost", "ended": True, "reason": "its process is gone"}
    assert snapshot_of(lost).reason == "its process is gone"
    assert snapshot_of({**lost, "presumed": True}).reason == "presumed, its process is gone"


# -- what a watcher knows


def words(lines: list[Line]) -> list[str]:
    """The lines without the time of day."""
    return ["".join(text for text, style in line if style != "dim" or ":" not in text) for line in lines]


def row(key: str = "a", status: str = "running", revision: int = 1, **more: object) -> dict[str, object]:
    ended = {"ended": True} if Status(status).final else {}
    return {"id": key, "name": key, "status": status, "revision": revision, "elapsed": 1.0, **ended, **more}


def test_what_is_counted_is_what_is_marked(progress_capture: Capture) -> None:
    """In trouble are those with a badge of trouble, slow and overdue too; unknown is counted by itself."""
    verdicts = {
        "a": {"health": "silent"},
        "b": {"health": "slow"},
        "c": {"health": "waiting", "overdue": True},
        "d": {"health": "dead"},
        "e": {"health": "unknown"},
        "f": {"health": "waiting"},
        "g": {"health": "progressing"},
    }
    board = ViewModel(draws=True)
    board.changed([row(key, verdict=verdict) for key, verdict in verdicts.items()])
    marked = {branch.label for branch in board.branches(0.0, 10)[0] if words_of_handlers.trouble(branch.snapshot)}
    assert marked == {"a", "b", "c", "d", "e"}
    assert (board.running, board.troubled, board.unknown) == (7, 4, 1)
    assert "".join(text for text, _ in board.state()) == "7 running · 4 in trouble · 1 unknown"


def test_older_rows_change_nothing(progress_capture: Capture) -> None:
    """Of two rows of an id the one with the higher revision holds, whichever comes last."""
    board = ViewModel(draws=True)
    board.changed([row(revision=5, progress={"ratio": 0.5})])
    board.changed([row(revision=4, progress={"ratio": 0.1})])
    assert board.branches(0.0, 10)[0][0].snapshot.progress.ratio == 0.5


def test_an_end_is_told_once(progress_capture: Capture) -> None:
    """Each end is told, also of what began and ended between two frames; ended children of a row are told once."""
    board = ViewModel(draws=True)
    board.changed([row("a"), row("b", "completed")])
    board.changed([row("c", "failed", parent_id="a", reason="x"), row("a", revision=2)])
    board.changed([row("c", "failed", parent_id="a", reason="x"), row("a", revision=3)])
    assert words(board.news()) == ["✓ b completed after 1 s"]
    branch = board.branches(0.0, 10)[0][0]
    assert [label for label, _ in branch.over] == ["c"]


def test_children_of_one_name_are_told_apart(progress_capture: Capture) -> None:
    """By an attribute in which they differ; else by number in the parent's process, and by the id's end elsewhere."""
    parent = row("0123456789abcdef-1", name="job", pid=1)
    said = {"name": "part", "parent_id": parent["id"]}
    board = ViewModel(draws=False)
    board.changed([parent, *(row(f"{n}123456789abcdee-1", labels={"chunk": n}, **said) for n in range(2))])
    board.changed([row(f"{n}123456789abcdee-1", "completed", 2, labels={"chunk": n}, **said) for n in range(2)])
    told = [line.partition(": ")[0] for line in words(board.news())]
    assert told == ["job 0123456789abcdef-1", *["part (chunk=0)", "part (chunk=1)"] * 2]
    board = ViewModel(draws=False)
    board.changed([parent, *(row(f"0123456789abcdef-{pid + 1}", pid=pid, **said) for pid in (1, 2))])
    assert [line.partition(": ")[0] for line in words(board.news())][1:] == ["part #2", "part …89abcdef-3"]


def test_failed_children_stay_in_sight(progress_capture: Capture) -> None:
    """Children that did not complete are not folded into those that did; beyond a number they are counted apart."""
    board = ViewModel(draws=True)
    board.changed([row("a")])
    states = ["lost", "failed", "lost", "lost", *70 * ["completed"]]
    board.changed([row(f"n{number}", status, parent_id="a") for number, status in enumerate(states)])
    rows = rows_of(board.branches(0.0, 10)[0], TreeOptions(0, 3))
    assert [one.name or "".join(text for text, _ in one.free or ()) for one in rows] == (
        ["a", "✓ 57 more completed", "✗ 1 more lost", "n1", "n2", "n3", "n71", "n72", "n73"]
    )


def test_frozen_is_one_word(progress_capture: Capture) -> None:
    """The tree of `run -f` has the badge of the list, though its stages come from the process itself."""
    own = snapshot_of(row(stages=[{"name": "load", "path": "load", "status": "running"}]))
    told = snapshot_of(row(verdict={"health": "dead", "frozen": True, "reason": "its process is stopped"}))

    class Heard:
        def same_run(self, told: Snapshot) -> object:
            return entry_of(own)

    board = FollowedViewModel(cast("OwnOperations", Heard()), draws=True)
    whole = board._whole(told)
    assert ((words_of_handlers.trouble(whole) or ("",))[0], len(whole.stages)) == ("FROZEN", 1)


def test_no_end_is_left_out_but_counted(progress_capture: Capture) -> None:
    """Of very many endings those that completed become a number; what failed always comes through."""
    board = ViewModel(draws=True)
    board.changed([row(f"n{number}", "completed") for number in range(3 * LINES)])
    board.changed([row(f"f{number}", "failed") for number in range(3)])
    news = words(board.news())
    assert len(news) == LINES + 4
    assert news[-1] == f"+ {2 * LINES} more that ended or changed"
    assert sum("failed" in line for line in news) == 3
    assert board.news() == []


def test_what_is_missing_after_a_gap(progress_capture: Capture) -> None:
    """A list that is loaded anew names those that ran before and do no longer."""
    board = ViewModel(draws=True)
    board.loaded([row("a"), row("b")])
    assert board.loaded([row("b", revision=2), row("c")]) == ["a"]


def test_the_clock_of_the_monitor_is_used(progress_capture: Capture) -> None:
    """How old a row is follows from the monitor's clock, then from our own monotonic one."""
    from otel_progress import clock

    board = ViewModel(draws=True)
    board.server_time(clock.unix() + 1000.0)
    board.changed([row(as_of=clock.unix() + 990.0, elapsed=5.0)])
    progress_capture.clock.sleep(3)
    assert board.branches(clock.monotonic(), 10)[0][0].snapshot.elapsed == pytest.approx(18.0)


@pytest.mark.parametrize("wrong", [-120.0, 120.0])
def test_wrong_clock_of_an_emitter_changes_no_duration(progress_capture: Capture, wrong: float) -> None:
    """`watch`, `list` and `show` add to a duration only what passed since the monitor made the row."""
    now = clock.unix()
    given = row(timestamp=now + wrong, started_at=now + wrong - 5.0, as_of=now - 1.0, elapsed=5.0, idle=2.0)
    board = ViewModel(draws=True)
    board.changed([given])
    assert board.branches(clock.monotonic(), 10)[0][0].snapshot.elapsed == pytest.approx(5.0), "nothing is known yet"
    board.server_time(now)
    board.changed([{**given, "revision": 2}])
    progress_capture.clock.sleep(3)
    assert board.branches(clock.monotonic(), 10)[0][0].snapshot.elapsed == pytest.approx(9.0)
    out = StringIO()
    write_list(cast("Client", Listed([given])), {}, 10, out)
    assert " 0:05 " in out.getvalue()
    assert out.getvalue().rstrip().endswith("5 s ago")
    head, facts = ["\n".join(words(part)) for part in sections(given, [], 80, [])][:2]
    assert "running for 5 s" in head
    assert "(5 s ago)" in facts


def test_wrong_clock_of_a_followed_command_changes_no_duration(progress_capture: Capture) -> None:
    """`run -f` adds to its own snapshot what passed since it was received."""
    own = Snapshot("a", "a", Status.RUNNING, clock.unix() - 120.0, elapsed=5.0, started_at=1.0)

    class Heard:
        def same_run(self, told: Snapshot) -> object:
            return entry_of(own)

    board = FollowedViewModel(cast("OwnOperations", Heard()), draws=True)
    whole = board._whole(snapshot_of(row()))
    assert whole.elapsed == pytest.approx(5.0)


@pytest.mark.parametrize(("health", "grown"), [("dead", 0), ("unknown", 0), ("stuck", 60), ("progressing", 60)])
def test_clocks_end_with_the_last_sign_of_life(health: str, grown: int) -> None:
    """Of what is dead or unknown the times are those of its last sign of life; others go on."""
    stage = {"path": "s", "status": "running", "started_at": 1.0, "elapsed": 4.0}
    given = {**ROW, "elapsed": 5.0, "idle": 3.0, "stages": [stage], "verdict": {"health": health, "reason": "x"}}
    found = snapshot_of(given, 60.0)
    assert (found.elapsed, found.idle, found.stages[0].elapsed) == (5 + grown, 3 + grown, 4 + grown)


def test_what_is_stuck_has_a_sign_and_no_pace() -> None:
    """An operation that is stuck, and the stage in which it is, have a `!` and no rate, whatever their idle time."""
    counted = {"completed": 3, "total": 9, "rate": 2.0}
    stage = {"path": "s", "status": "running", "started_at": 1.0, "elapsed": 4.0, "progress": counted}
    given = {**ROW, "idle": 0.0, "stage": "s", "stages": [stage], "progress": counted}
    for health, signs, pace in (("looping", "!!", False), ("progressing", "⠋⠋", True)):
        found = snapshot_of({**given, "verdict": {"health": health, "reason": "the same again and again"}})
        rows = [row for row in rows_of([TreeNode(0, "a", found)], TreeOptions(0, 3)) if row.free is None]
        assert "".join(row.icon for row in rows) == signs
        assert all(bool(row.rate) is pace for row in rows)
        assert ("/s" in progressed(found)) is pace


def test_evidence_of_a_child_has_its_own_clock() -> None:
    """Where a child in another process is the cause, its time is told, not that of the operation that waits for it."""
    reason = "waits for child sub/1 in another process, which is stuck (no progress for 34 s, stall_after is 4 s)"
    verdict = {"health": "stuck", "reason": reason, "child": "1"}
    told = snapshot_of({**ROW, "idle": 300.0, "verdict": verdict}, 5.0).health_reason
    assert told == reason.replace("34 s", "39 s")


def test_name_that_is_also_the_agent_is_told_once() -> None:
    """Where the operation has the name of its agent, an event begins with it once."""
    event = {"event": "progress.stage.started", "text": "a: stage work started", "agent": "a"}
    assert "".join(text for text, _ in event_line(event)) == "a: stage work started"
    note = {"event": "progress.note", "text": "a: asks", "agent": "a", "attributes": {"progress.note.text": "asks"}}
    assert "".join(text for text, _ in event_line(note)) == "a: asks"
    assert "".join(text for text, _ in event_line({**event, "agent": "b"})) == "b: a: stage work started"


def test_nothing_is_said_before_the_list_is_there() -> None:
    """That nothing runs is said once the monitor told it, not before."""
    seen = WatchView(Client("http://127.0.0.1:1"), StringIO())
    assert seen._foot() == []
    seen._take(Item("loaded", []))
    assert "nothing runs yet" in seen._foot()[0][0][0]


@pytest.mark.parametrize(
    ("width", "shown"),
    [(32, "2 running \u00b7 URL \u00b7 Ctrl+C leaves"), (31, "2 running \u00b7 Ctrl+C leaves"), (20, "Ctrl+C leaves")],
)
def test_what_a_key_does_is_shown_at_each_width(width: int, shown: str) -> None:
    """Where the line at the foot does not fit, the address goes first, then the counts."""
    parts: list[Line] = [(("2 running", "bold"),), (("URL", "dim"),), (("Ctrl+C leaves", "dim"),)]
    assert "".join(words for words, _ in fitted(parts, width)) == shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_the_next_ctrl_c_does_is_never_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run -f` shows all that Ctrl+C did and does: on one line, or on more."""
    monkeypatch.setenv("COLUMNS", str(width))
    said = "asked survey-1 to stop: received; press Ctrl+C again to interrupt, a third time to kill"
    watcher: Any = SimpleNamespace(operations=list, ledger=SimpleNamespace(operations={}))
    view = LiveView(Client("http://127.0.0.1:1"), StringIO(), watcher)
    view.asked = lambda: said
    lines = ["".join(words for words, _ in line) for line in view._foot()]
    assert " ".join(lines) == said
    assert len(lines) == (1 if width > len(said) else 2)
    assert all(len(line) < width for line in lines)


def test_trouble_fits_first(progress_capture: Capture) -> None:
    """Of more than fit, those in trouble are shown, in their place."""
    board = ViewModel(draws=True)
    rows = [row(f"n{number}", started_at=float(number)) for number in range(20)]
    rows[15]["verdict"] = {"health": "silent", "reason": "x"}
    board.changed(rows)
    branches, more = board.branches(0.0, 3)
    assert [branch.label for branch in branches] == ["n0", "n1", "n15"]
    assert (more, board.running, board.troubled) == (17, 20, 1)


def test_parents_in_a_circle(progress_capture: Capture) -> None:
    """Operations that name each other as parent break nothing."""
    board = ViewModel(draws=True)
    board.changed([row("a", parent_id="b"), row("b", parent_id="a"), row("c", parent_id="c"), row("d")])
    branches, more = board.branches(0.0, 10)
    assert more + len(branches) == 4


def test_events_are_told_once(progress_capture: Capture) -> None:
    """An event that comes again, as after a lost connection, is not told again; a tree shows notes alone."""
    for draws, told in ((False, ["a: began", "x"]), (True, ["x"])):
        board = ViewModel(draws=draws, root="a")
        first = {"id": 1, "event": semconv.STAGE_STARTED, "text": "a: began"}
        note = {"id": 2, "event": semconv.NOTE, "text": "a: x", "attributes": {semconv.NOTE_TEXT: "x"}}
        board.events([first, note, {"id": 3, "event": semconv.UPDATED, "text": "no"}])
        board.events(json.loads(json.dumps([first, note])))
        assert words(board.news()) == told


def test_the_summary_comes_last(progress_capture: Capture) -> None:
    """What is heard of the only operation after its end is told before its summary."""
    board = ViewModel(draws=False, root="a")
    board.detail(row("a", stages=[]))
    board.detail(row("a", "completed", revision=2, stages=[]))
    board.events([{"id": 1, "event": semconv.STAGE_ENDED, "text": "a: load completed"}])
    assert words(board.news()) == ["a: running", "a: load completed"]
    assert words(board.summary) == ["✓ a completed after 1 s"]
    assert board.ended is not None


def test_a_row_tells_its_stage(progress_capture: Capture) -> None:
    """Of a row the stage, how far that is, and what it does are one line; nothing is said twice."""
    stage = {"completed": 61, "total": 100, "unit": "file"}
    told = snapshot_of({**ROW, "stage": "parse", "stage_progress": stage, "progress": {"current_step": "a.py"}}).message
    assert told == "parse 61/100 files · a.py"
    assert snapshot_of({**ROW, "stage": "parse", "progress": {"current_step": "parse"}}).message == "parse"


def test_what_is_unknown_is_no_news(progress_capture: Capture) -> None:
    """While the monitor is blind the last verdict stands: neither the blindness nor its end is told."""
    silent = {"health": "silent", "reason": "no progress"}
    turns = (silent, {"health": "unknown", "reason": "just started"}, silent, {"health": "progressing"})
    board = ViewModel(draws=True)
    for revision, verdict in enumerate(turns):
        board.changed([row(revision=revision, verdict=verdict)])
    assert words(board.news()) == ["a: STUCK no progress", "a: in order again"]


def test_another_line_that_is_stuck_is_told(progress_capture: Capture) -> None:
    """A stall is told once for each place that is stuck, not once for each row."""
    board = ViewModel(draws=True)
    for revision, at in enumerate(("a.py:1 in f", "a.py:1 in f", "b.py:2 in g")):
        board.changed([row(revision=revision, verdict={"health": "silent", "reason": "no progress"}, stuck_at=at)])
    assert words(board.news()) == ["a: STUCK no progress, at a.py:1 in f", "a: STUCK no progress, at b.py:2 in g"]


@pytest.mark.parametrize(("later", "dated"), [(0.5, 100.0), (18.0, 118.0)])
def test_a_verdict_has_the_time_at_which_it_was_found(later: float, dated: float, progress_capture: Capture) -> None:
    """The newest event of a process that is dead is from when it was well."""
    board = ViewModel(draws=False)
    board.changed([row(verdict={"health": "dead", "reason": "not heard of"}, timestamp=100.0, as_of=100.0 + later)])
    line = next(line for line in board.news() if any("DEAD" in part for part, _ in line))
    assert line[0][0].strip() == stamp(dated)


def test_a_wait_that_is_overdue_is_a_line(progress_capture: Capture) -> None:
    """Plain lines of `watch ID` say that a wait is overdue while it goes on, and later that it is over."""
    with progress.operation("import"), progress.stage("ask") as ask:
        with ask.waiting("ada", overdue_after=10):
            progress_capture.advance(12)
            board = ViewModel(draws=False)
            board.events(history(progress_capture))
            overdue = "import: a wait is overdue: waiting for 10 s, overdue_after is 10 s"
            assert lines(board) == ["import: waits for ada", overdue]
        progress_capture.advance(1)
        board.events(history(progress_capture))
        assert lines(board) == ["import: waited 12 s for ada, overdue by 2 s"]


def history(captured: Capture) -> list[dict[str, object]]:
    """The history of waits as the monitor answers it: the text of an event is the body of its log."""
    wanted = {semconv.WAIT_STARTED, semconv.WAIT_OVERDUE, semconv.WAIT_ENDED}
    return [
        {"id": number, "event": log.event_name, "timestamp": 0.0, "text": log.body, "attributes": dict(log.attributes)}
        for number, log in enumerate(captured.logs, 1)
        if log.event_name in wanted
    ]


def lines(board: ViewModel) -> list[str]:
    """The new lines, without their time."""
    return ["".join(text for text, _ in line[1:]).strip() for line in board.news()]


def test_show_tells_what_to_do() -> None:
    """`show` says the hint of a failure below its reason."""
    row = {**ROW, "status": "failed", "reason": "OSError: full", "hint": "free 2 GB in /data"}
    told = ["".join(word for word, _ in line).strip() for lines in sections(row, [], 120, []) for line in lines]
    assert told[told.index("OSError: full") + 1] == "hint: free 2 GB in /data"


def test_show_tells_attempts_and_the_command() -> None:
    """`show` lists the attempts of an id, the newest first, and the command that starts it again, or resumes it."""
    now = clock.unix()
    attempts = [
        {
            "attempt": 1,
            "started_at": now - 609,
            "ended_at": now - 400,
            "status": "lost",
            "ratio": 0.1,
            "signal": "SIGKILL",
        },
        {"attempt": 2, "started_at": now - 390},
        {"attempt": 3, "started_at": now - 60, "ended_at": now - 8, "status": "failed", "reason": "ValueError: 7"},
    ]
    command = {"args": ["job"], "line": "cd /srv && job --token '[redacted]'", "masked": True}
    row = {
        **ROW,
        "status": "failed",
        "attempts": attempts,
        "command": command,
        "checkpoint_at": now - 240,
        "host": "box",
    }
    told = ["".join(word for word, _ in line) for lines in sections(row, [], 120, []) for line in lines]
    at = told.index("attempts")
    assert told[at + 1].endswith("✗ attempt 3  failed after 52 s: ValueError: 7")
    assert told[at + 2].endswith("? attempt 2  no end was reported")
    assert told[at + 3].endswith("✗ attempt 1  lost after 3 min 29 s at 10%: killed by SIGKILL")
    at = told.index("resume it")
    assert told[at + 1] == "  cd /srv && job --token '[redacted]'"
    assert told[at + 2] == "  on box; last checkpoint 4 min ago; secrets are masked: fill them in"
    assert "resume it" not in str(list(sections({**row, "status": "completed"}, [], 120, [])))


def test_mistakes_of_the_sender_are_shown() -> None:
    """Who sends what can't be used sees it where the operation is looked at."""
    row = {"id": "a", "name": "work", "status": "running", "sender_mistakes": ["progress.total must be a number"]}
    told = ["".join(word for word, _ in line).strip() for lines in sections(row, [], 120, []) for line in lines]
    assert told[told.index("its program sends what the monitor cannot use") + 1] == "progress.total must be a number"
    told = [
        "".join(word for word, _ in line).strip()
        for lines in sections(row | {"sender_mistakes": None}, [], 120, [])
        for line in lines
    ]
    assert "its program sends what the monitor cannot use" not in told


def test_start_in_the_future_is_no_age() -> None:
    """An operation that ended did not start 0 s ago: the clock of its process is ahead, as the warning says."""
    row = {"id": "a", "name": "work", "status": "completed", "started_at": clock.unix() + 3600, "warning": "its clock"}
    told = ["".join(word for word, _ in line).strip() for lines in sections(row, [], 120, []) for line in lines]
    (started,) = (line for line in told if line.startswith("started"))
    assert started.endswith("by the clock of its process")
    assert "ago" not in started
    assert "its clock" in told
