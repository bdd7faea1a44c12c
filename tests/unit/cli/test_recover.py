"""`otel-progress recover`: what it lists, and what it starts."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_progress import clock
from otel_progress.cli import main
from otel_progress.cli.query.client import Client, ConnectionLost
from otel_progress.cli.query.exit_codes import NO_MONITOR, NOT_FOUND, CommandError
from otel_progress.cli.recover import command, lines
from otel_progress.cli.recover.recoverable import of_store
from otel_progress.durable.holder import this_process
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import Batch, Claim, Lease, Summary
from otel_progress.render.words import joined

HERE = this_process()
COMMAND = (sys.executable, "job.py")


class Told(Client):
    """A monitor that knows these operations; without any, none answers."""

    def __init__(self, *details: Mapping[str, Any]) -> None:
        super().__init__()
        object.__setattr__(self, "details", {str(one["id"]): dict(one) for one in details})

    def check(self) -> None:
        if not self.details:
            raise CommandError("no monitor answers", NO_MONITOR)

    def operations(self, *, limit: int = 100, **query: str | None) -> dict[str, Any]:
        statuses = str(query["status"]).split(",")
        return {"operations": [one for one in self.details.values() if one["status"] in statuses]}

    def operation(self, key: str) -> dict[str, Any]:
        if key not in self.details:
            raise CommandError("no operation", NOT_FOUND)
        return self.details[key]

    details: dict[str, dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "work.db")


def begin(store: SqliteStore, key: str, folder: Path | str = "", **more: Any) -> Lease:
    """An attempt whose process is gone, unless its end is written."""
    about = {"ticks": 1, "command": COMMAND, "cwd": str(folder or store.path.parent), **more}
    lease = store.acquire(Claim(key, "job", replace(HERE, **about))).lease
    store.write(lease, Batch(done={"": ["x"]}, summary=Summary(130, 1351, "item", "load", "reading part 2")))
    return lease


def end(store: SqliteStore, key: str, status: str, reason: str | None = None) -> None:
    store.write(begin(store, key), Batch(ended=(status, reason)))


def found(store: SqliteStore | None, client: Client, *given: str) -> dict[str, Any]:
    return {one.id: one for one in command.find(store, client, given, 20)[0]}


def told(key: str, status: str, started_at: float, **more: Any) -> dict[str, Any]:
    row = {"id": key, "name": "job", "status": status, "started_at": started_at, "timestamp": started_at + 9}
    return {**row, "attempt": 1, "progress": {}, **more}


# -- what is listed


def test_what_did_not_come_to_its_end_is_listed(store: SqliteStore) -> None:
    """A process that is gone, an interruption and a failure are listed; what completed, was cancelled or runs is not."""
    begin(store, "gone")
    begin(store, "alive", ticks=HERE.ticks)
    for status in ("interrupted", "failed", "completed", "cancelled"):
        end(store, status, status, "ValueError: 7")
    assert {key: one.status for key, one in found(store, Told()).items()} == {
        "gone": "lost",
        "interrupted": "interrupted",
        "failed": "failed",
    }
    assert found(store, Told())["failed"].reason == "ValueError: 7"


def test_statuses_are_counted_where_there_are_several(store: SqliteStore) -> None:
    """Lost and interrupted ones are told apart in a last line, as other commands list them apart."""
    for key, status in (("a", "lost"), ("b", "interrupted"), ("c", "lost")):
        end(store, key, status)
    said = [joined(line) for line in lines.listed(list(of_store(store)), 0, "work.db", None, 0.0)]
    assert "2 lost, 1 interrupted" in said
    lost = [one for one in of_store(store) if one.status == "lost"]
    assert not any("2 lost" in joined(line) for line in lines.listed(lost, 0, "work.db", None, 0.0))


def test_each_tells_how_far_it_was_and_how_it_began(
    store: SqliteStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The list has the last counts, the checkpoint and the command, and keys that ended the process."""
    folder = tmp_path / "the jobs"
    for _ in range(2):
        store.write(begin(store, "ingest-7", folder), Batch(hands={"": ["doc-37"]}))
    store.died("ingest-7", 2, "SIGSEGV")
    assert main(["recover", "--store", str(store.path), "--url", "http://127.0.0.1:9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✗ ingest-7  job  lost ")
    assert lines[0].endswith(" ago, attempt 2: SIGSEGV")
    assert lines[1] == "    130 of 1,351 items, 9%, in load: reading part 2"
    assert lines[2].startswith("    last checkpoint ")
    assert lines[3] == "    set aside, as they ended the process: doc-37 (2 times)"
    assert lines[4] == f"    cd '{folder}' && {sys.executable} job.py"
    assert "only the store" in lines[6]


def test_completed_without_items_is_listed(store: SqliteStore) -> None:
    """What was set aside stays in the list, although the rest completed."""
    begin(store, "a")
    store.set_aside("a", "", "doc-37")
    end(store, "a", "completed")
    (one,) = found(store, Told()).values()
    assert (one.status, one.suspects[0].key) == ("completed", "doc-37")
    shown = [text for line in lines.listed([one], 0, "work.db", None, one.ended_at) for text, _ in line]
    assert "  completed without 1 item" in shown
    assert "    129 of 1,351 items, 9%, in load: reading part 2" in shown
    assert command.why_not(store, one) is not None
    assert command.why_not(store, one, retries=True) is None


def test_monitor_adds_what_only_it_knows(store: SqliteStore) -> None:
    """How the process died and where it was stuck come from the monitor, what was saved from the store."""
    begin(store, "a")
    began = store.operations()[0].started_at
    (one,) = found(store, Told(told("a", "lost", began + 0.5, reason="killed", stuck_at="parse.py:88"))).values()
    assert (one.reason, one.stuck_at, one.command, one.progress.completed) == ("killed", "parse.py:88", COMMAND, 130)


def test_what_the_store_does_not_have_says_so(store: SqliteStore) -> None:
    """The monitor knows operations of all stores and of none, and `--run` starts none of them."""
    begin(store, "a")
    both = found(store, Told(told("b", "lost", 5.0), told("a", "lost", store.operations()[0].started_at)))
    said = "\n".join("".join(text for text, _ in line) for line in lines.listed([*both.values()], 0, "x.db", None, 9.0))
    mine, other = sorted(said.split("\n\n")[:2], key=lambda part: " b " in part)
    assert "not in this store" in other
    assert "not in this store" not in mine
    alone = lines.listed([both["b"]], 0, "", None, 9.0)
    assert "not in this store" not in "".join(text for line in alone for text, _ in line)


@pytest.mark.parametrize(("completed", "expected"), [(100, 130), (131, 131)])
def test_the_later_count_is_shown(store: SqliteStore, completed: int, expected: int) -> None:
    """The monitor hears each second or less often, the store each quarter of one."""
    begin(store, "a")
    began = store.operations()[0].started_at
    far = {"completed": completed, "total": 1351, "unit": "item"}
    (one,) = found(store, Told(told("a", "lost", began, progress=far))).values()
    assert one.progress.completed == expected


def test_line_that_can_not_be_shown_says_so(store: SqliteStore) -> None:
    """A line break in an argument would be another one when the line is copied."""
    for key, text in (("a", "print(1)\nprint(2)"), ("b", "print(1)")):
        begin(store, key, command=(sys.executable, "-c", text))
    shown = {one.id: lines.listed([one], 0, "", None, 9.0) for one in found(store, Told()).values()}
    said = {key: "not to be copied" in str(parts) for key, parts in shown.items()}
    assert said == {"a": True, "b": False}


@pytest.mark.parametrize("status", ["running", "completed", "failed"])
def test_newer_attempt_that_the_monitor_knows_is_nothing_to_recover(store: SqliteStore, status: str) -> None:
    """If the id ran again without the store, it is not lost any more."""
    begin(store, "a")
    client = Told(told("a", status, clock.unix() + 60))
    assert found(store, client) == {}
    with pytest.raises(CommandError, match="runs again"):
        found(store, client, "a")


def test_monitor_alone_is_enough_to_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a store the monitor's lost operations are listed, children not beside their parents, but never started."""
    about = {"args": ["python3", "job.py"], "folder": "/srv", "line": "x"}
    client = Told(
        told("a", "lost", 5.0, command=about),
        told("b", "lost", 6.0, parent_id="a"),
        told("c", "interrupted", 7.0, parent_id="z"),
        told("d", "failed", 8.0),
    )
    rows = found(None, client)
    assert list(rows) == ["c", "a"]
    assert rows["a"].line == "cd /srv && python3 job.py"
    assert command.start(None, [rows["a"]], {}, ask=None) == command.NOT_STARTED
    assert "anybody who may send to it could have written its command" in capsys.readouterr().err


def test_nothing_to_ask_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No store and no monitor: 3. A store that does not exist: 2, and it is not created."""
    assert main(["recover", "--url", "http://127.0.0.1:9"]) == 3
    assert "name a checkpoint store with --store or OTEL_PROGRESS_CHECKPOINTS" in capsys.readouterr().err
    assert main(["recover", "--store", str(tmp_path / "typo.db")]) == 2
    assert not (tmp_path / "typo.db").exists()


def test_broken_connection_is_no_monitor(store: SqliteStore) -> None:
    """A monitor that breaks off leaves the store's list."""

    class Broken(Told):
        def check(self) -> None:
            raise ConnectionLost("reset")

    begin(store, "a")
    assert list(found(store, Broken())) == ["a"]


def test_list_as_json(store: SqliteStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has all of it; the variable names the store."""
    begin(store, "a")
    monkeypatch.setenv("OTEL_PROGRESS_CHECKPOINTS", str(store.path))
    assert main(["recover", "--json", "--url", "http://127.0.0.1:9"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["operations"]
    assert (one["id"], one["status"], one["completed"], one["total"]) == ("a", "lost", 130, 1351)
    assert (one["command"], one["in_store"]) == (list(COMMAND), True)


def test_secrets_are_not_printed(store: SqliteStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The store keeps the command as it was, so that it can be started; what is printed has no secrets."""
    begin(store, "a", command=("job", "--token", "hunter2xyz"))
    for more in ((), ("--json",)):
        assert main(["recover", "--store", str(store.path), "--url", "http://127.0.0.1:9", *more]) == 0
        out = capsys.readouterr().out
        assert "hunter2xyz" not in out
        assert "[redacted]" in out
    (one,) = found(store, Told()).values()
    assert one.command == ("job", "--token", "hunter2xyz")
    assert command.why_not(store, one) is None


def test_ids_choose(store: SqliteStore) -> None:
    """An id, its beginning or a name chooses; what is unknown or ambiguous is an error."""
    for key in ("ingest-7", "ingest-70", "report-1"):
        begin(store, key)
    assert list(found(store, Told(), "ingest-7")) == ["ingest-7"]
    assert list(found(store, Told(), "rep")) == ["report-1"]
    assert len(found(store, Told(), "job")) == 3
    with pytest.raises(CommandError, match="give more of the id"):
        found(store, Told(), "ingest")
    with pytest.raises(CommandError, match="not known as interrupted or lost"):
        found(store, Told(), "other")


# -- what is started


@pytest.fixture
def ran(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """The commands that were started, with their folders; each begins the next attempts, and ends with 0."""
    from otel_progress.cli.run import supervisor

    started: list[tuple[list[str], str]] = []

    def run(given: list[str], environ: Mapping[str, str]) -> int:
        started.append((given, os.getcwd()))
        for one in store.operations():
            if not one.id.startswith("dated"):
                begin(store, one.id)
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    return started


def test_command_starts_in_its_folder_once(store: SqliteStore, ran: list[Any], tmp_path: Path) -> None:
    """Operations of one process share a command, which is started once, in the folder where it was."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    before = os.getcwd()
    for key in ("a", "b"):
        begin(store, key, folder)
    assert command.start(store, list(found(store, Told()).values()), {}, ask=None) == 0
    assert ran == [(list(COMMAND), str(folder))]
    assert os.getcwd() == before


def test_a_command_that_begins_another_id(
    store: SqliteStore, ran: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A success that did not continue what was to be recovered is no success."""
    begin(store, "a")
    begin(store, "dated-2026-11-28")
    assert command.start(store, list(found(store, Told()).values()), {}, ask=None) == command.NOT_STARTED
    said = capsys.readouterr().err
    assert "dated-2026-11-28 was not continued: the command began no operation of this id" in said
    assert "a was not continued" not in said


def test_what_was_started_meanwhile_is_left_alone(store: SqliteStore, ran: list[Any]) -> None:
    """Between the list and the answer somebody else may have started it."""
    begin(store, "a")
    listed = list(found(store, Told()).values())
    begin(store, "a", ticks=HERE.ticks)
    assert command.start(store, listed, {}, ask=None) == 0
    assert ran == []


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"command": ()}, "its command is unknown"),
        ({"host": "box2"}, "it ran on box2: start it there"),
        ({"command": ("job", "…")}, "too long"),
        ({"command": ("job", "--token", "[redacted]")}, "masked secrets"),
        ({"cwd": "/no/such/folder"}, "its folder /no/such/folder does not exist"),
    ],
)
def test_what_can_not_be_started_is_told(
    store: SqliteStore, ran: list[Any], capsys: pytest.CaptureFixture[str], more: dict[str, Any], why: str
) -> None:
    """A command that would not do the same is not started."""
    begin(store, "a", **more)
    listed = list(found(store, Told()).values())
    if listed:
        assert command.start(store, listed, {}, ask=None) == command.NOT_STARTED
        assert why in capsys.readouterr().err
    assert ran == []


def test_it_asks_first(store: SqliteStore, ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--yes` nothing starts before the answer, and without a terminal nothing starts at all."""
    begin(store, "a")
    listed = list(found(store, Told()).values())
    assert command.start(store, listed, {}, ask=lambda *_: False) == command.NOT_STARTED
    assert ran == []
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["recover", "--store", str(store.path), "--url", "http://127.0.0.1:9", "--run"]) == 2
    assert main(["recover", "--store", str(store.path), "--url", "http://127.0.0.1:9", "--run", "--yes"]) == 0
    assert len(ran) == 1


def test_what_was_set_aside_is_tried_again_when_asked(store: SqliteStore, ran: list[Any]) -> None:
    """`--retry-set-aside` forgets the deaths before the command starts."""
    begin(store, "a")
    store.set_aside("a", "", "doc-37")
    listed = list(found(store, Told()).values())
    assert command.start(store, listed, {}, ask=None) == 0
    assert len(store.suspects("a")) == 1
    listed = list(found(store, Told()).values())
    assert command.start(store, listed, {}, ask=None, retries=True) == 0
    assert store.suspects("a") == []
