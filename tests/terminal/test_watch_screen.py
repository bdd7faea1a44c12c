"""`otel-progress watch` in a real pseudo-terminal: what its user sees, and what is left of it."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.terminal.screens import ROOT, Terminal, command, environment, wait_until
from tests.terminal.stub import Stub

from otel_progress.cli.query.client import Client
from otel_progress.cli.query.subscription import BACKOFF, Disconnected, Subscription


def progress(completed: int, total: int, **more: Any) -> dict[str, Any]:
    ratio = completed / total
    return {"percentage": 100 * ratio, "ratio": ratio, "completed": completed, "total": total, "unit": "file", **more}


def begin(monitor: Stub, key: str = "survey-1", **more: Any) -> dict[str, Any]:
    name = key.partition("-")[0]
    given = {"name": name, "status": "running", "started_at": time.time() - 10, "elapsed": 10.0, "idle": 0.1, **more}
    return monitor.say(id=key, **given)


def end(monitor: Stub, key: str = "survey-1", status: str = "completed", **more: Any) -> None:
    monitor.say(id=key, status=status, ended=True, **more)


def line_of(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


def watch(monitor: Stub, *given: str, **more: Any) -> Terminal:
    return Terminal("watch", *given, "--url", monitor.url, **more)


# -- all that runs


def test_tree_of_parents_and_children(monitor: Stub) -> None:
    """A child stands indented below its parent, both with a bar; what changes is drawn in its place."""
    begin(monitor, progress=progress(25, 100, rate=5.0, current_step="reading a.py"), stage="parse")
    begin(monitor, "worker-1", parent_id="survey-1", progress=progress(3, 4))
    with watch(monitor) as terminal:
        text = terminal.see("survey-1", "worker-1", "25%", "25/100 files", "parse · reading a.py", "75%", "2 running")
        rows = text.splitlines()
        parent = next(at for at, row in enumerate(rows) if "survey-1" in row)
        child = next(at for at, row in enumerate(rows) if "worker-1" in row)
        assert child > parent
        assert rows[child].startswith("    ")
        assert "━" in rows[parent]
        assert "━" in rows[child]
        begin(monitor, progress=progress(50, 100, current_step="reading b.py"), stage="parse")
        assert "25%" not in terminal.see("50%", "reading b.py")


def test_what_ended_stays_above_the_tree(monitor: Stub) -> None:
    """An end goes to the scroll-back as a summary, once; the others go on below it."""
    begin(monitor)
    begin(monitor, "load-1")
    with watch(monitor) as terminal:
        terminal.see("2 running")
        end(monitor, "load-1", "failed", reason="ValueError: bad row", progress=progress(40, 100))
        text = terminal.see("load-1 failed after", "ValueError: bad row", "1 running")
        assert text.count("load-1") == 1
        assert text.index("load-1 failed") < text.index("survey-1")
        end(monitor, "quick-1", name="quick", elapsed=1.0)
        assert terminal.see("✓ quick-1 completed after 1 s").count("quick-1") == 1


def test_an_ended_child_stays_in_the_tree(monitor: Stub) -> None:
    """A child that completed is told in the tree of its parent, one that failed above it, too."""
    begin(monitor)
    begin(monitor, "worker-1", parent_id="survey-1")
    begin(monitor, "worker-2", parent_id="survey-1")
    with watch(monitor) as terminal:
        terminal.see("3 running")
        end(monitor, "worker-1", elapsed=3.0)
        end(monitor, "worker-2", "failed", elapsed=4.0, reason="OSError: disk")
        text = terminal.see("✓ worker-1", "✗ worker-2", "worker-2: failed after 4 s: OSError: disk")
        assert "worker-1: completed" not in text


def test_trouble_is_told_with_its_evidence(monitor: Stub) -> None:
    """What is stuck has a badge, its reason and its place in the tree; the turn to it and back stays as a line."""
    begin(monitor)
    with watch(monitor) as terminal:
        terminal.see("1 running")
        verdict = {"health": "silent", "reason": "no progress for 34 s, stall_after is 30 s", "overdue": False}
        begin(monitor, verdict=verdict, stuck_at="agent.py:42 in fetch")
        text = terminal.see("survey-1: STUCK no progress for ", "  at agent.py:42 in fetch", "1 in trouble")
        assert text.count("no progress for ") == 2
        begin(monitor, verdict={"health": "progressing"}, stuck_at=None)
        assert terminal.see("survey-1: in order again").count("no progress for ") == 1


def test_nothing_runs(monitor: Stub) -> None:
    """Without any operation it says how to send one, and shows the first that comes."""
    with watch(monitor) as terminal:
        terminal.see("nothing runs yet", f"OTEL_EXPORTER_OTLP_ENDPOINT={monitor.url}")
        begin(monitor)
        assert "nothing runs" not in terminal.see("survey-1", "1 running")


def test_many_operations_fit_the_screen(monitor: Stub) -> None:
    """Of more than fit, trouble is shown, and of the rest the number."""
    for number in range(500):
        begin(monitor, f"job-{number}")
    verdict = {"health": "silent", "reason": "no progress for 34 s", "overdue": False}
    begin(monitor, "job-400", verdict=verdict)
    with watch(monitor, lines=20) as terminal:
        text = terminal.see("500 running", "job-400", "STUCK", " more")
        assert len(text.splitlines()) <= 20
        more = int(re.search(r"\+ ([\d,]+) more", text)[1].replace(",", ""))
        assert more + sum(row.lstrip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏⠿! ").startswith("job-") for row in text.splitlines()) == 500


def test_text_can_not_steer_the_terminal(monitor: Stub) -> None:
    """Control characters of telemetry never reach the terminal; markup is text."""
    evil = "\x1b[2J\x1b]0;owned\x07[red]x[/red]\u202e"
    begin(monitor, name="survey" + evil, progress={"current_step": "a" + evil}, wait={"reason": evil, "elapsed": 1.0})
    begin(monitor, "s" + evil, name="s")
    with watch(monitor) as terminal:
        terminal.see("2 running", "[red]x[/red]")
        end(monitor, "s" + evil, "failed", reason="b" + evil)
        terminal.see("1 running", "failed after")
        assert b"\x1b[2J" not in terminal.raw
        assert b"\x1b]0" not in terminal.raw
        assert "\u202e".encode() not in terminal.raw


# -- the connection


def test_connection_lost_and_back(monitor: Stub) -> None:
    """A lost connection is told with the time of the next try; what happened meanwhile is caught up, once."""
    begin(monitor)
    begin(monitor, "load-1")
    with watch(monitor) as terminal:
        terminal.see("2 running")
        monitor.wait_for_stream()
        monitor.down()
        terminal.see("connection lost, retrying in 1 s", "survey-1", "refused")
        end(monitor, "load-1", elapsed=12.0)
        begin(monitor, progress=progress(80, 100))
        monitor.up()
        text = terminal.see("load-1 completed after 12 s", "80%", "1 running")
        assert "connection lost" not in text
        assert terminal.history.count("load-1") == 1
    assert monitor.headers[-1].get("last-event-id", "").startswith("e1-")


def test_clocks_stand_while_nothing_is_heard(monitor: Stub) -> None:
    """While the connection is lost nothing seems to go on, as nobody knows whether it does."""
    begin(monitor, elapsed=100.0)
    with watch(monitor) as terminal:
        terminal.see("1 running", "1:4")
        monitor.down()
        early = terminal.until(lambda text: bool(re.search(r"retrying in [12] s", text)) and "survey-1" in text)
        late = terminal.until(lambda text: bool(re.search(r"retrying in [345] s", text)) and "survey-1" in text)
        assert line_of(early, "survey-1") == line_of(late, "survey-1")


def test_monitor_started_anew(monitor: Stub) -> None:
    """When the monitor knows nothing of our position, all is loaded anew; what ended meanwhile is told, or is gone."""
    for key in ("survey-1", "load-1", "lost-1"):
        begin(monitor, key)
    with watch(monitor) as terminal:
        terminal.see("3 running")
        monitor.down()
        end(monitor, "load-1", "failed", reason="ValueError: bad row")
        del monitor.details["lost-1"]
        begin(monitor, progress=progress(90, 100))
        monitor.restart("e2")
        monitor.up()
        text = terminal.see("load-1 failed after", "lost-1 is gone", "90%", "1 running")
        assert text.count("survey-1") == 1


def test_overloaded_monitor_is_asked_again(monitor: Stub) -> None:
    """An error of the server is no end: it is tried again, and goes on."""
    begin(monitor)
    with watch(monitor) as terminal:
        terminal.see("1 running")
        monitor.wait_for_stream()
        monitor.status = 503
        monitor.drop()
        terminal.see("connection lost, retrying", "busy")
        monitor.status = None
        begin(monitor, progress=progress(90, 100))
        assert "connection lost" not in terminal.see("90%", "1 running")


# -- one operation


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("lost", 1), ("cancelled", 1)])
def test_one_operation_to_its_end(monitor: Stub, status: str, code: int) -> None:
    """With an id it shows all stages, ends with the operation, and the exit code tells how that ended."""
    stages = [
        {"name": "load", "path": "load", "status": "completed", "planned": True, "started_at": 1.0, "elapsed": 2.0},
        {
            "name": "parse",
            "path": "parse",
            "status": "running",
            "started_at": 3.0,
            "elapsed": 2.0,
            "progress": progress(1, 2),
        },
        {"name": "report", "path": "report", "status": "pending", "planned": True},
    ]
    child = {"id": "worker-1", "name": "worker", "status": "running", "parent_id": "survey-1", "revision": 1}
    begin(monitor, stages=stages, stage="parse", children_rows=[child])
    with watch(monitor, "survey-1") as terminal:
        terminal.see("✓ load", "parse", "50%", "· report", "    ", "worker-1")
        monitor.wait_for_stream()
        monitor.note("survey-1", "survey: found 12 files", attributes={"progress.note.text": "found 12 files"})
        terminal.see("found 12 files")
        end(monitor, status=status, stages=stages[:1], reason="ValueError: x" if status == "failed" else None)
        assert terminal.exit_code() == code
        assert f"survey-1 {status} after 10 s" in terminal.text
        assert "✓ load       2 s" in terminal.text
        assert terminal.cursor_visible


def test_one_that_ended_already(monitor: Stub) -> None:
    """Its summary is shown, and the command ends at once."""
    end(monitor, name="survey", elapsed=3.0)
    with watch(monitor, "survey") as terminal:
        assert terminal.exit_code() == 0
        assert "✓ survey-1 completed after 3 s" in terminal.text


def test_unknown_id(monitor: Stub) -> None:
    """An id that is not there is told, and the command ends with 4."""
    with watch(monitor, "nobody") as terminal:
        assert terminal.exit_code() == 4
        assert "no operation 'nobody' at http://127.0.0.1" in terminal.text


@pytest.mark.parametrize("away", [False, True])
def test_operation_that_is_gone(monitor: Stub, away: bool) -> None:
    """When the monitor no longer keeps it, the command ends with 4 and says so; also after a lost connection."""
    begin(monitor)
    with watch(monitor, "survey-1") as terminal:
        terminal.see("survey-1")
        monitor.wait_for_stream()
        if away:
            monitor.down()
            terminal.see("connection lost")
            monitor.details.clear()
            monitor.up()
        else:
            monitor.forget("survey-1")
        assert terminal.exit_code() == 4
        assert "survey-1 is gone: the monitor no longer keeps it" in terminal.text
        assert terminal.cursor_visible


# -- its end, its size


def test_ctrl_c_once(monitor: Stub) -> None:
    """One Ctrl+C ends it with 130, takes the tree away and leaves the cursor as it was; nothing is cancelled."""
    begin(monitor)
    with watch(monitor) as terminal:
        terminal.see("1 running")
        terminal.type("\x03")
        assert terminal.exit_code(3) == 130
        assert "survey-1" not in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.cursor_visible
    assert not [path for method, path in monitor.asked if method == "DELETE"]


def test_ctrl_c_while_the_connection_is_lost(monitor: Stub) -> None:
    """A wait for the next try holds nothing up; of one operation it says that it goes on."""
    begin(monitor)
    with watch(monitor, "survey-1") as terminal:
        terminal.see("survey-1")
        monitor.wait_for_stream()
        monitor.down()
        terminal.until(lambda text: bool(re.search(r"retrying in [2345] s", text)))
        terminal.type("\x03")
        assert terminal.exit_code(3) == 130
        assert "survey-1 goes on" in terminal.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_the_terminal_as_it_was(monitor: Stub, number: signal.Signals) -> None:
    """SIGTERM and SIGHUP end it with 128 + n, without the tree."""
    begin(monitor)
    with watch(monitor) as terminal:
        terminal.see("1 running")
        terminal.signal(number)
        assert terminal.exit_code(3) == 128 + number
        assert "survey-1" not in terminal.text
        assert terminal.cursor_visible


def test_a_kill_leaves_the_cursor(monitor: Stub) -> None:
    """The cursor is never hidden, so SIGKILL leaves it, too."""
    begin(monitor)
    with watch(monitor) as terminal:
        terminal.see("1 running")
        terminal.signal(signal.SIGKILL)
        terminal.exit_code()
        assert terminal.cursor_visible


def test_new_size(monitor: Stub) -> None:
    """After a new size each line fits, the tree stands there once, and wide columns come back."""
    begin(monitor, progress=progress(25, 100, rate=5.0))
    begin(monitor, "load-1", progress=progress(1, 4))
    with watch(monitor) as terminal:
        terminal.see("5.0/s", "2 running")
        terminal.resize(40, 12)
        text = terminal.until(lambda text: "5.0/s" not in text and "25%" in text and "2 running" in text)
        assert text.count("survey-1") == text.count("load-1") == text.count("2 running") == 1
        terminal.resize(110, 20)
        assert terminal.see("5.0/s", "25/100 files").count("survey-1") == 1


def test_a_narrower_terminal_that_breaks_lines(monitor: Stub) -> None:
    """What a terminal broke into two rows when it got narrower is taken away as a whole."""
    from otel_progress.render.screen import Screen

    class Out:
        encoding = "utf-8"

        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return True

    out = Out()
    screen = Screen(out, draws=True)  # type: ignore[arg-type]
    screen.rich.size = (80, 20)
    screen.put_up()
    screen.draw([(("x" * 70, ""),), (("y" * 30, ""),)])
    screen.rich.size = (40, 20)
    out.text = ""
    screen.draw([(("z", ""),)])
    assert out.text.count("\x1b[1A") == 2


# -- without a terminal


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no command behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def start(monitor: Stub, *given: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command("watch", *given, "--url", monitor.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    STARTED.append(process)
    return process


def test_plain_lines_where_there_is_no_terminal(monitor: Stub) -> None:
    """In a pipe each change of state is a line, without control codes; a lost connection is a line, too."""
    stages = [{"name": "load", "path": "load", "status": "completed", "started_at": 1.0, "elapsed": 2.0}]
    begin(monitor, progress=progress(25, 100), stages=stages)
    process = start(monitor, "survey-1")
    monitor.wait_for_stream()
    monitor.note("survey-1", "survey: load completed after 2 s", event="progress.stage.ended", stage="load")
    verdict = {"health": "silent", "reason": "no progress for 34 s", "overdue": False}
    begin(monitor, verdict=verdict)
    monitor.down()
    monitor.up()
    wait_until(lambda: monitor.streams == 2)
    end(monitor)
    told, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in told.splitlines()]
    assert "\x1b" not in told
    for line in (
        "survey-1: running",
        "survey: load completed after 2 s",
        "survey-1: STUCK no progress for 34 s",
        "connection lost, retrying in 1 s (the monitor closed the connection)",
        "connected again",
        "✓ survey-1 completed after 10 s  25/100 files",
    ):
        assert line in lines
    assert lines.index("survey-1: running") < lines.index("connected again")


def test_json_is_an_object_a_line(monitor: Stub) -> None:
    """`--json` writes rows as they change, each once, to the end of the operation that was named."""
    begin(monitor)
    process = start(monitor, "survey-1", "--json")
    monitor.wait_for_stream()
    begin(monitor, progress=progress(50, 100))
    monitor.note("survey-1", "survey: found \x1b[2J 12")
    monitor.drop()
    end(monitor, "survey-1", "failed")
    told, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (1, "")
    found = [json.loads(line) for line in told.splitlines()]
    revisions = [one["revision"] for one in found if "event" not in one]
    assert revisions == sorted(set(revisions))
    assert [one["text"] for one in found if "event" in one] == ["survey: found \x1b[2J 12"]
    assert found[-1]["status"] == "failed"
    assert "\x1b" not in told


def test_json_to_a_reader_that_left(monitor: Stub) -> None:
    """When nobody reads any more it ends by itself, without a word, even where nothing happens."""
    begin(monitor)
    process = start(monitor, "--json")
    assert '"survey-1"' in process.stdout.readline()
    process.stdout.close()
    assert process.wait(5) == 141
    assert process.stderr.read() == ""


def test_plain_lines_to_a_reader_that_left(monitor: Stub) -> None:
    """It ends by itself, too, while nothing runs that could be told."""
    process = start(monitor)
    monitor.wait_for_stream()
    process.stdout.close()
    assert process.wait(5) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize("size", [3_000, 200_000])
def test_ctrl_c_with_a_reader_that_does_not_read(monitor: Stub, size: int) -> None:
    """A full pipe holds up nothing, whatever still waits to be written: one SIGINT is enough."""
    begin(monitor, description="x" * size)
    process = start(monitor, "survey-1", "--json")
    wait_until(lambda: len(monitor.asked) >= 2)
    waiting = bytearray(4)

    def full() -> bool:
        begin(monitor)
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)
        return int.from_bytes(waiting, sys.byteorder) >= min(65_536, 15 * size)

    wait_until(full)
    for _ in range(10):
        begin(monitor)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_pauses_grow_and_begin_anew(monitor: Stub) -> None:
    """Each try in vain makes the next pause longer, up to 5 s; after one that succeeded they begin anew."""
    begin(monitor)
    feed = Subscription(Client(monitor.url)).start()

    def next_down() -> Disconnected:
        while True:
            for item in feed.take(10):
                if item.kind == "down":
                    return item.data

    monitor.wait_for_stream()
    monitor.down()
    assert [next_down().pause for _ in range(3)] == [0.5, 1.0, 2.0]
    monitor.up()
    monitor.wait_for_stream()
    begin(monitor)
    wait_until(lambda: any(item.kind == "changes" for item in feed.take(1)))
    monitor.drop()
    assert next_down().pause == 0.5
    assert BACKOFF.longest == 5.0
    feed.stop()
