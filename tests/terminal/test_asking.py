"""`otel-progress list`, `show` and `cancel`, how they find the monitor, and their exit codes."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
from tests.terminal.screens import ROOT, Terminal, command, environment
from tests.terminal.stub import Stub

import otel_progress
from otel_progress.cli import main

STUCK = {
    "health": "silent",
    "reason": "no progress for 34 s, stall_after is 30 s",
    "overdue": False,
    "limit": "stall_after",
    "allowed": 30.0,
    "source": "learned from 41 runs",
    "seen": "parse, 12 of 50 file",
}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_PROGRESS_MONITOR", "OTEL_PROGRESS_TOKEN", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.fixture
def stuck(monitor: Stub) -> Stub:
    now = time.time()
    monitor.say(
        id="survey-1",
        name="survey",
        status="running",
        started_at=now - 61,
        elapsed=60.0,
        idle=34.0,
        verdict=STUCK,
        stage="parse",
        progress={"ratio": 0.24, "completed": 12, "total": 50, "unit": "file", "current_step": "reading a.py"},
        stages=[{"name": "parse", "path": "parse", "status": "running", "started_at": now - 60, "elapsed": 59.0}],
        stuck_at="agent.py:42 in fetch",
        stack="agent.py:10 in main\nagent.py:42 in fetch\x1b[2J",
        cost={"USD": 0.12},
        tokens={"input": 1200, "output": 310},
        children=1,
        children_rows=[
            {"id": "worker-1", "name": "worker", "status": "failed", "ended": True, "reason": "OSError: disk"}
        ],
        timeline=[{"kind": "stall", "stage": "parse", "from": now - 10, "to": now - 5, "reason": "no progress"}],
        trace={"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7", "sampled": True, "url": "https://t/1"},
        attributes={"owner": "ada"},
        result={},
    )
    monitor.note("survey-1", "survey: parse began", event="progress.stage.started")
    return monitor


def ask(capsys: pytest.CaptureFixture[str], *given: str) -> tuple[int, str, str]:
    code = main(given)
    told = capsys.readouterr()
    return code, told.out, told.err


# -- where the monitor is


def test_no_monitor(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Where nobody listens it says how to start one, and ends with 3."""
    monitor.down()
    for name in ("list", "watch"):
        code, _, error = ask(capsys, name, "--url", monitor.url)
        assert code == 3
        assert (
            f"no monitor answers at {monitor.url} (connection refused): start one with `otel-progress monitor`" in error
        )


@pytest.mark.parametrize("product", ["", "another"])
def test_something_else_answers(capsys: pytest.CaptureFixture[str], monitor: Stub, product: str) -> None:
    """What answers and is no monitor is told from one."""
    monitor.product = product
    code, _, error = ask(capsys, "show", "x", "--url", monitor.url)
    assert code == 3
    assert f"what answers at {monitor.url} is no monitor (an OpenTelemetry Collector, maybe)" in error


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str]]]:
    """Answers all with a redirect, and keeps what it was sent."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_redirects_are_not_followed(
    capsys: pytest.CaptureFixture[str], stranger: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect could carry the token elsewhere: it is no monitor."""
    url, heard = stranger
    monkeypatch.setenv("OTEL_PROGRESS_TOKEN", "secret")
    code, _, error = ask(capsys, "list", "--url", url)
    assert (code, len(heard)) == (3, 1)
    assert "is no monitor" in error


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:4318", "must begin with http:// or https://"),
        ("monitor", "must begin with http:// or https://"),
        ("ftp://host:1", "must begin with http:// or https://"),
        ("http://host:4318/v1/logs", "must end after the port: http://host:4318"),
        ("http://host:4318?x=1", "must end after the port"),
        ("http://host:99999", "no valid host and port"),
        ("http://", "no valid host and port"),
        ("http://a b", "no valid host and port"),
        ("http://me:secret@host", "must not hold a password"),
    ],
)
def test_wrong_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """An invalid address is an error that says what is valid, wherever it was given."""
    code, _, error = ask(capsys, "list", "--url", url)
    assert (code, said in error, "--url" in error) == (2, True, True)
    assert "secret" not in error
    monkeypatch.setenv("OTEL_PROGRESS_MONITOR", url)
    code, _, error = ask(capsys, "list")
    assert (code, "OTEL_PROGRESS_MONITOR" in error) == (2, True)


def test_https_where_plain_http_is_spoken(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """It says what is spoken there, and what to write."""
    url = monitor.url.replace("http:", "https:")
    for given in (("list",), ("watch",), ("show", "x")):
        code, _, error = ask(capsys, *given, "--url", url)
        assert code == 3
        assert f"speaks plain HTTP, not TLS: use {monitor.url}" in error


def test_http_where_tls_is_spoken(capsys: pytest.CaptureFixture[str]) -> None:
    """The other way round as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def refuse() -> None:
            for _ in range(2):
                connection = plain.accept()[0]
                with connection, suppress(OSError, ssl.SSLError):
                    context.wrap_socket(connection, server_side=True).close()

        thread = Thread(target=refuse)
        thread.start()
        code, _, error = ask(capsys, "list", "--url", f"http://127.0.0.1:{port}")
        thread.join()
    assert (code, f"speaks TLS: use https://127.0.0.1:{port}" in error) == (3, True)


def test_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stuck: Stub, tmp_path: Path
) -> None:
    """The token comes from a file or the environment; without it the answer says how to give it."""
    stuck.token = "open sesame".replace(" ", "-")
    monkeypatch.setenv("OTEL_PROGRESS_MONITOR", stuck.url)
    code, _, error = ask(capsys, "list")
    assert code == 3
    assert f"{stuck.url} wants a token: give its token with --token-file FILE or OTEL_PROGRESS_TOKEN" in error
    monkeypatch.setenv("OTEL_PROGRESS_TOKEN", "wrong")
    code, _, error = ask(capsys, "watch")
    assert (code, "does not take this token" in error, "wrong" in error) == (3, True, False)
    (tmp_path / "token").write_text("# ours\n\nopen-sesame rights=read\nother\n")
    code, told, _ = ask(capsys, "list", "--token-file", str(tmp_path / "token"))
    assert (code, "survey-1" in told) == (0, True)
    monkeypatch.setenv("OTEL_PROGRESS_TOKEN", "open-sesame")
    assert ask(capsys, "list")[0] == 0


@pytest.mark.parametrize("content", [None, "", "# none\n", "ä"])
def test_token_file_that_holds_none(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | None) -> None:
    """A token file that is missing, empty or broken is told before anything is asked."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    code, _, error = ask(capsys, "list", "--token-file", str(tmp_path / "token"))
    assert code == 2
    assert "token" in error


# -- list


def test_list(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """A line for each in the order of the monitor, with its id in full, state, progress and what it does."""
    stuck.say(
        id="a-very-long-id-that-somebody-gave-0123456789", name="load", status="completed", ended=True, elapsed=3.0
    )
    code, told, _ = ask(capsys, "list", "--url", stuck.url)
    assert code == 0
    head, first, second = told.splitlines()
    assert head.split() == ["ID", "NAME", "STATE", "DONE", "TIME", "STARTED", "DOING"]
    for part in ("! ", "survey-1", "STUCK", "24%", "12/50 files", "no progress for 34 s"):
        assert part in first
    assert "✓  a-very-long-id-that-somebody-gave-0123456789" in second
    assert all(line == line.rstrip() for line in (first, second))


def test_list_on_a_narrow_terminal(stuck: Stub) -> None:
    """Where not all columns fit, id and state are the last to go, and no line breaks."""
    with Terminal("list", "--url", stuck.url, columns=40) as terminal:
        assert terminal.exit_code() == 0
        assert len(terminal.text.splitlines()) == 2
        assert "survey-1" in terminal.text
        assert "STUCK" in terminal.text


def test_list_asks_what_was_asked_for(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """Filters go to the monitor as they are; no match is not the same as no operation."""
    given = ("--status", "failed,lost", "--verdict", "dead", "--name", "a b", "--search", "x&y", "--limit", "7")
    code, told, _ = ask(capsys, "list", "--url", stuck.url, *given)
    assert (code, "nothing matches" in told) == (0, True)
    assert stuck.asked[-1][1] == "/operations?status=failed%2Clost&verdict=dead&name=a+b&search=x%26y&limit=7"


def test_list_of_nothing(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """A monitor that heard of nothing yet says how to send."""
    code, told, _ = ask(capsys, "list", "--url", monitor.url)
    assert (code, f"OTEL_EXPORTER_OTLP_ENDPOINT={monitor.url} OTEL_PROGRESS_CONFIGURE=true python" in told) == (0, True)


def test_list_as_json(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """`--json` is the monitor's own answer."""
    code, told, _ = ask(capsys, "list", "--json", "--url", stuck.url)
    assert (code, json.loads(told)["operations"][0]["id"]) == (0, "survey-1")


# -- show


def test_show(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """Everything is there: the verdict with its evidence, the stack, stages, children, stalls, cost, events, trace."""
    code, told, _ = ask(capsys, "show", "survey-1", "--url", stuck.url)
    assert code == 0
    for part in (
        "! survey-1  STUCK",
        "no progress for 34 s, stall_after is 30 s",
        "limit: stall_after of 30 s, learned from 41 runs",
        "last seen: parse, 12 of 50 file",
        "at agent.py:42 in fetch",
        "0af7651916cd43dd8448eb211c80319c",
        "https://t/1",
        "24%",
        "1,200 input tokens",
        "0.12 USD",
        "✗ worker-1  failed",
        "OSError: disk",
        "stall in parse for 5 s: no progress",
        "owner  ada",
        "  agent.py:10 in main\n  agent.py:42 in fetch",
        "survey: parse began",
    ):
        assert part in told
    assert "\x1b" not in told


@pytest.mark.parametrize("status", ["failed", "lost", "cancelled", "interrupted", "completed", "running"])
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_show_exits_as_its_help_says(
    capsys: pytest.CaptureFixture[str], monitor: Stub, status: str, more: tuple[str, ...]
) -> None:
    """1 where the operation is over and did not complete, else 0."""
    monitor.say(id="a", name="a", status=status)
    code, _, _ = ask(capsys, "show", "a", *more, "--url", monitor.url)
    assert code == (0 if status in ("completed", "running") else 1)


@pytest.mark.parametrize("events", ["20", "0"])
def test_show_how_the_process_of_a_lost_operation_ended(
    capsys: pytest.CaptureFixture[str], monitor: Stub, events: str
) -> None:
    """Exit code or signal and the stderr tail are shown, whether or not events are."""
    monitor.say(id="a", name="a", status="lost", attempt=2)
    said = {"progress.exit.signal": "SIGKILL", "progress.exit.out_of_memory": False}
    tail = {"progress.exit.stderr": "disk\x1b[2J gone\nbye"}
    monitor.note("a", "a lost", "progress.operation.ended", attempt=1, attributes={"progress.exit.code": 77})
    monitor.note("a", "a lost", "progress.operation.ended", attempt=2, attributes={**said, **tail})
    code, told, _ = ask(capsys, "show", "a", "--events", events, "--url", monitor.url)
    assert code == 1
    for part in ("how its process ended", "signal  SIGKILL", "    disk [2J gone\n    bye"):
        assert part in told
    assert "\x1b" not in told
    assert "77" not in told
    assert "out of memory" not in told


def test_show_lines_of_work_and_repeated_stages(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Lines of work are told with how each is; the runs of a stage are one line with quantiles; values are JSON."""
    now = time.time()
    runs = [{"path": "fetch", "status": "completed", "started_at": now - 9, "elapsed": 0.5} for _ in range(30)]
    runs.append({"path": "fetch", "status": "failed", "started_at": now - 9, "elapsed": 0.5, "reason": "HTTP 500"})
    monitor.say(
        id="agent-1",
        name="agent",
        status="running",
        idle=34.0,
        stages=[*runs, {"path": "search", "status": "running", "started_at": now - 40, "elapsed": 40.0}],
        verdict={"health": "silent", "branch": "search", "reason": "search: no progress for 34 s, stall_after is 4 s"},
        branches=[
            {"label": "search", "path": "search", "health": "silent", "idle": 34.0, "stall_after": 4.0},
            {"label": "child look", "child": "c-2", "health": "progressing"},
        ],
        children_rows=[
            {"id": f"c-{number}", "name": "look", "status": "running", "attributes": {"city": city}}
            for number, city in enumerate(("Bonn", "Mainz", "Trier"))
        ],
        attributes={"config": {"depth": [1, 2]}},
        repeated=[
            {"path": "fetch", "counts": {"completed": 30, "failed": 1}, "seconds": 15.5, "median": 0.5, "p95": 0.5}
        ],
    )
    monitor.note("agent-1", "agent: asks", attributes={"progress.note.text": "asks", "city": "Bonn"})
    code, told, _ = ask(capsys, "show", "agent-1", "--url", monitor.url)
    assert code == 0
    for part in (
        "search: no progress for 34 s, stall_after is 4 s",
        "stuck        no progress for 34 s of 4 s",
        "⠿ child look  progressing",
        "fetch ",
        "HTTP 500",
        '{"depth": [1, 2]}',
        "asks  city=Bonn",
    ):
        assert part in told
    assert told.count("✓ fetch") == 1


def test_show_one_in_no_trouble(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Of an operation in no trouble no limit is told, unlike of one that is stuck."""
    verdict = {"limit": "stall_after", "allowed": 3.0, "reason": "no progress for 0 s, stall_after is 3 s"}
    for health in ("progressing", "stuck"):
        monitor.say(id="a", name="a", status="running", verdict={**verdict, "health": health})
        _, told, _ = ask(capsys, "show", "a", "--url", monitor.url)
        assert ("no progress" in told, "limit" in told) == (health == "stuck", health == "stuck")


def test_show_one_that_was_stuck_when_it_was_lost(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Of a job that was killed while it was stuck, the line is told as that where it was."""
    monitor.say(id="a", name="a", status="lost", ended=True, reason="its process is gone", stuck_at="a.py:1 in f")
    _, told, _ = ask(capsys, "show", "a", "--url", monitor.url)
    assert "was stuck at a.py:1 in f" in told


def test_show_children_of_an_earlier_attempt(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """A child that began before this attempt did is said to be of an earlier one."""
    children = [
        {"id": key, "name": key, "status": "completed", "ended": True, "started_at": began}
        for key, began in (("old", 5.0), ("new", 99.5))
    ]
    monitor.say(id="a", name="a", status="running", attempt=2, started_at=100.0, children_rows=children)
    _, told, _ = ask(capsys, "show", "a", "--url", monitor.url)
    assert ["earlier attempt" in line for line in told.splitlines() if line[4:7] in ("old", "new")] == [True, False]


def test_show_what_ended(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Of what is over, why it ended so, and each stage with its share of the time."""
    stages = [{"name": "load", "path": "load", "status": "failed", "started_at": 1.0, "elapsed": 5.0, "reason": "E: x"}]
    more = {"ended": True, "elapsed": 10.0, "reason": "ValueError: x", "result": {"rows": 7}, "attempt": 2}
    monitor.say(id="a", name="a", status="failed", stages=stages, **more)
    monitor.note("a", "a: goes on", event="progress.updated")
    monitor.note("a", "a: noted")
    _, told, _ = ask(capsys, "show", "a", "--url", monitor.url)
    assert ("a: noted" in told, "goes on" in told) == (True, False)
    for part in ("✗ a  failed after 10 s, attempt 2", "ValueError: x", "✗ load", "50%", "E: x", "rows 7"):
        assert part in told


def test_show_as_json(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """`--json` is the monitor's answer with the events."""
    code, told, _ = ask(capsys, "show", "survey-1", "--json", "--events", "1", "--url", stuck.url)
    found = json.loads(told)
    assert (code, found["stuck_at"], found["events"][0]["text"]) == (0, "agent.py:42 in fetch", "survey: parse began")


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [[]], {"a": {"b": 1}}, float("inf"), -1, True, "\x1b[2J"])
def test_odd_values_break_nothing(capsys: pytest.CaptureFixture[str], monitor: Stub, value: object) -> None:
    """Whatever stands in a field, of the wrong type or out of range, what can be read is shown."""
    fields = (
        "timestamp name status verdict reason attempt parent_id agent started_at elapsed idle stage progress wait stuck_at "
        "cancel cost tokens children source description attributes result outcomes counters limits stages folded timeline "
        "children_rows ancestors stack loop usage trace process"
    )
    monitor.say(id="odd", **dict.fromkeys(fields.split(), value))
    inner = {"name": value, "path": value, "status": value, "progress": value, "from": 1.0, "to": value, "kind": value}
    eta = {"ratio": value, "completed": value, "total": value, "unit": value, "rate": value, "eta": {"seconds": value}}
    monitor.say(id="odd-2", name="x", status="running", stages=[inner], timeline=[inner], progress=eta, elapsed=1.0)
    monitor.say(id="odd-3", name="x", status="failed", ended=True, stages=[inner], loop={"keys": value}, progress=eta)
    for key in ("odd", "odd-2", "odd-3"):
        code, told, error = ask(capsys, "show", key, "--url", monitor.url)
        assert (code, error) == (int(key == "odd-3"), "")
        assert key in told
        assert "\x1b" not in told
    assert ask(capsys, "list", "--url", monitor.url)[0] == 0


# -- which one


@pytest.mark.parametrize("key", ["a/b c", "..", "ä?#%2F", "x" * 150])
def test_ids_of_any_kind(capsys: pytest.CaptureFixture[str], monitor: Stub, key: str) -> None:
    """An id is one segment of the path, whatever it holds."""
    monitor.say(id=key, name="job", status="running")
    code, told, _ = ask(capsys, "show", key, "--url", monitor.url)
    assert (code, key in told) == (0, True)


def test_prefix(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """A prefix of one id, or the name of the only one that runs, will do; else it says which it may be."""
    monitor.say(id="abc-1", name="survey", status="running")
    monitor.say(id="abd-1", name="load", status="running")
    monitor.say(id="abd-10", name="load", status="completed", ended=True)
    monitor.say(id="xyz-load", name="other", status="running")
    for given, found in (("abc", "abc-1"), ("survey", "abc-1"), ("load", "abd-1"), ("abd-1", "abd-1")):
        code, told, _ = ask(capsys, "show", given, "--json", "--url", monitor.url)
        assert (code, json.loads(told)["id"]) == (0, found)
    code, _, error = ask(capsys, "show", "ab", "--url", monitor.url)
    assert (code, "'ab' may be abc-1, abd-1, abd-10: give more of the id" in error) == (2, True)
    code, _, error = ask(capsys, "cancel", "nothing", "--url", monitor.url)
    assert (code, "no operation 'nothing'" in error) == (4, True)


def test_name_of_one_that_ended(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """Of a name of which none runs it is the one that ended last, also where all ids begin with the name."""
    for number in (1, 3, 2):
        monitor.say(id=f"survey-{number}", name="survey", status="completed", ended=True, timestamp=1e9 + number)
    code, told, _ = ask(capsys, "show", "survey", "--json", "--url", monitor.url)
    assert (code, json.loads(told)["id"]) == (0, "survey-3")
    monitor.say(id="survey-4", name="survey", status="running")
    code, told, _ = ask(capsys, "show", "survey", "--json", "--url", monitor.url)
    assert (code, json.loads(told)["id"]) == (0, "survey-4")
    monitor.say(id="survey-5", name="survey", status="running")
    assert ask(capsys, "show", "survey", "--url", monitor.url)[0] == 2


# -- cancel


@pytest.mark.parametrize(
    ("status", "answer", "given", "code", "said"),
    [
        (200, {"state": "obeyed"}, (), 0, "survey-1 has stopped"),
        (200, {"state": "obeyed", "detail": "it ended as cancelled"}, (), 0, "survey-1 has stopped"),
        (200, {"state": "obeyed", "detail": "it ended as completed"}, (), 0, "survey-1 ended as completed"),
        (202, {"state": "received"}, (), 1, "was asked to stop and has not ended within 5 s"),
        (202, {"state": "received"}, ("--wait", "0"), 0, "was asked to stop and has not ended yet"),
        (504, {"state": "timed out"}, (), 1, "the process of survey-1 did not answer"),
        (409, {"error": "no control channel {to it}"}, (), 1, "can't be asked to stop: no control channel {to it}"),
    ],
)
def test_cancel(
    capsys: pytest.CaptureFixture[str],
    stuck: Stub,
    status: int,
    answer: dict[str, str],
    given: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    """Each answer is told in words, and only a stop, or one not waited for, is a success."""
    stuck.cancels["survey-1"] = (status, answer)
    found, told, _ = ask(capsys, "cancel", "survey", "--yes", "--reason", "a b", *given, "--url", stuck.url)
    assert (found, said in told) == (code, True)
    wait = given[1] if given else "5"
    assert stuck.asked[-1] == ("DELETE", f"/operations/survey-1?wait={wait}&reason=a+b")


def test_cancel_of_what_is_over(capsys: pytest.CaptureFixture[str], monitor: Stub) -> None:
    """What ended is not asked to."""
    monitor.say(id="a", name="a", status="completed", ended=True)
    code, told, _ = ask(capsys, "cancel", "a", "--yes", "--url", monitor.url)
    assert (code, told) == (1, "a is over already: completed\n")
    assert all(method == "GET" for method, _ in monitor.asked)


@pytest.mark.parametrize(("answer", "code", "asked"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_cancel_asks_before(stuck: Stub, answer: str, code: int, asked: int) -> None:
    """On a terminal it tells what will be cancelled, and only `y` does it."""
    with Terminal("cancel", "survey", "--url", stuck.url) as terminal:
        terminal.see("cancel survey-1 and what it started (1) (STUCK for 1 m", "24%)? [y/N]")
        terminal.type(answer + "\n")
        assert terminal.exit_code() == code
        assert ("has stopped" in terminal.text) == bool(asked)
        assert ("it goes on" in terminal.text) == (not asked)
    assert sum(method == "DELETE" for method, _ in stuck.asked) == asked


def test_ctrl_c_at_the_question(stuck: Stub) -> None:
    """Ctrl+C at the question cancels nothing."""
    with Terminal("cancel", "survey", "--url", stuck.url) as terminal:
        terminal.see("[y/N]")
        terminal.type("\x03")
        assert terminal.exit_code() == 130
        assert "Traceback" not in terminal.text
    assert all(method == "GET" for method, _ in stuck.asked)


# -- the command line


WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None; from otel_progress.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("name", ["watch", "list", "show"])
def test_without_rich(stuck: Stub, name: str) -> None:
    """Without Rich it says what to install; with --json it is not needed."""
    given = [sys.executable, "-c", WITHOUT_RICH, name, *(["survey-1"] if name != "list" else []), "--url", stuck.url]
    done = subprocess.run(given, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert (done.returncode, 'pip install "otel-progress[console]"' in done.stderr) == (2, True)
    stuck.say(id="survey-1", status="completed", ended=True)
    done = subprocess.run([*given, "--json"], capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert (done.returncode, done.stderr, "survey-1" in done.stdout) == (0, "", True)


def test_cancel_needs_no_rich(stuck: Stub) -> None:
    """`cancel` works without any extra."""
    given = [sys.executable, "-c", WITHOUT_RICH, "cancel", "survey-1", "--yes", "--url", stuck.url]
    done = subprocess.run(given, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "survey-1 has stopped\n")


@pytest.mark.parametrize("given", [("cancel", "ä", "--yes"), ("list",), ("show", "ä")])
def test_an_output_without_these_letters(monitor: Stub, given: tuple[str, ...]) -> None:
    """What the output can't encode is replaced, and breaks nothing."""
    monitor.say(id="ä", name="job", status="running", progress={"current_step": "→ é"})
    env = environment(PYTHONIOENCODING="ascii")
    given = (*command(*given), "--url", monitor.url)
    done = subprocess.run(given, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr, "?" in done.stdout) == (0, "", True)


def test_a_closed_pipe_is_no_error(stuck: Stub) -> None:
    """`list | head` ends without a word."""
    process = subprocess.Popen(
        command("show", "survey-1", "--url", stuck.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
        cwd=ROOT,
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait(10)) == ("", 141)
    process.stderr.close()


@pytest.mark.parametrize("name", ["watch", "list", "show", "cancel"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command has an example and the exit codes."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    told = capsys.readouterr().out
    assert (ended.value.code, f"otel-progress {name}" in told, "exit codes:" in told) == (0, True, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["show"], "required: ID"),
        (["show", "a", "b"], "unexpected argument 'b'"),
        (["cancel", "a", "--wait", "-1"], "from 0 to 3,600 seconds"),
        (["cancel", "a", "--wait", "nan"], "from 0 to 3,600 seconds"),
        (["list", "--limit", "x"], "a whole number from 1 to 10000, not 'x'"),
        (["list", "--limit", "0"], "a whole number from 1 to 10000, not '0'"),
        (["list", "--status", "runing"], "there is no 'runing'; did you mean 'running'?"),
        (["list", "--verdict", "stuk"], "did you mean 'stuck'?"),
        (["list", "--verdict", ","], "names none"),
        (["list", "--jsno"], "there is no option '--jsno'; did you mean '--json'?"),
        (["wacth"], "there is no command 'wacth'; did you mean 'watch'?"),
        (["fly"], "there is no command 'fly' (there are"),
        (["run", "--stderr-tail", "-3", "--", "a"], "from 0 to 1000, not '-3'"),
        (["monitor", "--interval", "x"], "from 0.02 to 10 seconds, not 'x'"),
        (["monitor", "--keep-mb", "0"], "from 1 to"),
        (["monitor", "--port", "http"], "from 0 to 65535, not 'http'"),
        (["doctor", "--timeout", "0"], "from 1 to 600 seconds, not '0'"),
    ],
)
def test_wrong_use(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid command line ends with 2 and says what is valid."""
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_wrong_value_of_the_monitor(capsys: pytest.CaptureFixture[str]) -> None:
    """So do values that are only looked at when the monitor is made."""
    assert main(["monitor", "--trace-url", "http://traces"]) == 2
    assert "--trace-url must contain {trace_id}" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the package, also as `python -m otel_progress`."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"otel-progress {otel_progress.__version__}\n")
    done = subprocess.run(
        [sys.executable, "-m", "otel_progress", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"otel-progress {otel_progress.__version__}\n"


def test_stuck_is_the_word_for_silent(capsys: pytest.CaptureFixture[str], stuck: Stub) -> None:
    """`--verdict stuck` asks for what the wire calls silent, and that word is taken as well."""
    for word in ("stuck", "silent"):
        ask(capsys, "list", "--verdict", f"{word},dead", "--url", stuck.url)
        assert "verdict=silent%2Cdead" in stuck.asked[-1][1]
