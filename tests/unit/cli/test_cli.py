"""The command line, the environment of a watched command, and what is read of processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server

import pytest

from otel_progress import cli, instrumenting, procfs, settings
from otel_progress.cli import main
from otel_progress.cli.monitor import state_folder
from otel_progress.cli.query import view_model
from otel_progress.cli.run import environment, monitor_host, py_spy
from otel_progress.cli.run.environment import endpoints, mute, redirected
from otel_progress.cli.run.supervisor import say
from otel_progress.version import VERSION

OURS = "http://127.0.0.1:1"
START = os.path.join(os.path.dirname(instrumenting.__file__), "start")


@contextmanager
def listening() -> Iterator[str]:
    """A port on which something listens."""
    with create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


# -- the command line


@pytest.mark.parametrize(
    ("given", "ours", "command"),
    [
        (["run", "--", "a", "-b"], ["run"], ["a", "-b"]),
        (["run", "--verbose", "--stderr-tail", "3", "--", "a"], ["run", "--verbose", "--stderr-tail", "3"], ["a"]),
        (["run", "--", "a", "--", "b"], ["run"], ["a", "--", "b"]),
        (["run", "-f", "--", "a", "-f"], ["run", "-f"], ["a", "-f"]),
        (["run", "a", "-b"], ["run", "a", "-b"], []),
        (["run", "git", "checkout", "--", "b"], ["run", "git", "checkout", "--", "b"], []),
    ],
)
def test_command_is_told_from_our_options(given: list[str], ours: list[str], command: list[str]) -> None:
    """All behind the first `--` is the command; without it the command begins with the first plain word."""
    assert cli._split(given) == (ours, command)


@pytest.mark.parametrize("given", [["run"], ["run", "--"], ["run", "--stderr-tail", "x", "--", "a"], ["fly"]])
def test_wrong_use_is_told(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid command line ends with 2 and says why."""
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert "usage: otel-progress" in capsys.readouterr().err


def test_without_a_command_it_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    """A short guide, whose commands exist and whose lines fit; the exit code is that of a wrong command line."""
    assert main([]) == 2
    said = capsys.readouterr().err
    named = re.findall(r"otel-progress ([a-z]+)", said)
    assert set(named) - {"shows"} <= set(cli.COMMANDS)
    assert {"run", "monitor", "watch", "doctor", "completion"} <= set(named)
    assert max(map(len, said.splitlines())) <= 120


def test_the_module_is_the_command() -> None:
    """`python -m otel_progress` does what `otel-progress` does."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_progress", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"otel-progress {VERSION}\n"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """`run --help` shows what to type."""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    assert "otel-progress run -- python train.py" in capsys.readouterr().out


def test_missing_extra_is_named() -> None:
    """Without the packages of the extra the error names the command that installs them."""
    script = (
        "import sys; sys.modules['starlette'] = None\n"
        "from otel_progress.cli import main\n"
        "sys.exit(main(['run', '--', 'true']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 125
    assert 'pip install "otel-progress[monitor]"' in done.stderr


def test_missing_packages_of_follow_are_named() -> None:
    """`-f` names the extras that it needs, before anything runs."""
    script = (
        "import sys; sys.modules['rich'] = None\n"
        "from otel_progress.cli import main\n"
        "sys.exit(main(['run', '-f', '--', 'echo', 'runs']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert 'pip install "otel-progress[monitor,console]"' in done.stderr


def test_end_that_comes_twice_is_told_once() -> None:
    """After a gap the same end may come by two ways; another end of it, or one of a new attempt, is told."""
    seen = view_model.ViewModel(draws=True)
    row = {"id": "survey-1", "name": "survey", "status": "lost", "ended": True, "elapsed": 1.0}
    told = []
    for change in (row, row, {**row, "status": "completed"}, {**row, "status": "completed", "started_at": 9.0}):
        seen.changed([change])
        told.append(len(seen.news()))
    assert told == [1, 0, 1, 1]


def test_place_of_a_followed_command(tmp_path: Path) -> None:
    """Where no monitor runs one is started where it is looked for; what leads to it needs no second sending."""
    with listening() as free:
        pass
    environ = {
        "OTEL_PROGRESS_MONITOR": free,
        "XDG_STATE_HOME": str(tmp_path),
        "OTEL_PROGRESS_TOKEN": "t0ken-of-this-test",
    }
    said: list[str] = []
    host = monitor_host.MonitorHost(environ, said.append)
    try:
        assert host.url == free
        assert "its page is" in said[0]
        assert host.headers == {"Otel-Progress-Control": f"{free}/control"}
        assert host.endpoints["logs"].headers == (("authorization", "Bearer t0ken-of-this-test"),)
        here, port = free.replace("127.0.0.1", "localhost"), int(free.rpartition(":")[2])
        ways = {"logs": f"{here}/v1/logs", "traces": f"localhost:{port}", "metrics": f"http://localhost:{port + 1}"}
        assert list(host.others({key: settings.Endpoint("grpc", url) for key, url in ways.items()})) == ["metrics"]
        again = monitor_host.MonitorHost(environ, said.append)  # it finds the first one
        again.close()
        assert len(said) == 1
    finally:
        host.close()
    assert (tmp_path / "otel-progress" / "monitor.db").exists()
    assert not environment.listens(free)


def test_what_is_told_can_not_change_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a name or a message are not passed on."""
    say("lost: \x1b[2Jname\rx\nline 2")
    assert capsys.readouterr().err == "otel-progress: lost:  [2Jname x\n    line 2\n"


# -- the environment


def test_command_sends_to_us_whatever_was_configured() -> None:
    """Every variable that names another endpoint, or how to reach it, is gone; the rest stays."""
    before = {
        "HOME": "/root",
        "OTEL_SERVICE_NAME": "job",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://far:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "authorization=secret",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip",
        "OTEL_TRACES_EXPORTER": "console,otlp_proto_grpc",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    after = redirected(before, OURS)
    assert after == {
        "HOME": "/root",
        "OTEL_SERVICE_NAME": "job",
        "OTEL_EXPORTER_OTLP_ENDPOINT": OURS,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "console,otlp_proto_http",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_PROGRESS_CONFIGURE": "true",
        "OTEL_PROGRESS_HEARTBEAT": "5",
        "OTEL_PROGRESS_INSTRUMENT": "auto",
        "OTEL_PROGRESS_RUN": OURS,
        "PYTHONPATH": START,
    }
    assert redirected({"OTEL_PROGRESS_CONFIGURE": "false"}, OURS)["OTEL_PROGRESS_CONFIGURE"] == "false"
    for endpoint in settings.read(environ=after).endpoints.values():
        assert (endpoint.protocol, endpoint.headers) == ("http/protobuf", ())
        assert endpoint.url.startswith(OURS)


def test_integrations_start_below_unless_they_are_switched_off() -> None:
    """Each Python below looks for libraries, once; the path of the user stays."""
    after = redirected({"PYTHONPATH": os.pathsep.join(("one", START, "two"))}, OURS)
    assert after["PYTHONPATH"] == os.pathsep.join((START, "one", "two"))
    here = redirected({"PYTHONPATH": os.pathsep}, OURS)  # an empty entry is the working directory
    assert here["PYTHONPATH"].split(os.pathsep) == [START, "", ""]
    assert redirected(after, OURS) == after
    off = redirected({"PYTHONPATH": "one", "OTEL_PROGRESS_INSTRUMENT": "none"}, OURS)
    assert (off["PYTHONPATH"], off["OTEL_PROGRESS_INSTRUMENT"]) == ("one", "none")


def test_proxy_is_not_asked_for_us() -> None:
    """Where a proxy is set, what goes to us does not go through it."""
    after = redirected({"http_proxy": "http://proxy", "no_proxy": "intern"}, OURS)
    assert (after["no_proxy"], after["NO_PROXY"]) == ("intern,127.0.0.1", "127.0.0.1")
    assert "no_proxy" not in redirected({}, OURS)


def test_telemetry_goes_on_to_where_it_went() -> None:
    """Each signal keeps its own endpoint, protocol and headers."""
    found, guessed = endpoints(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://far:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces/in",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_HEADERS": "key=1",
        }
    )
    assert not guessed
    assert (found["logs"].protocol, found["logs"].url) == ("grpc", "http://far:4317")
    assert (found["traces"].protocol, found["traces"].url) == ("http/protobuf", "https://traces/in")
    assert found["metrics"].headers == (("key", "1"),)


def test_default_endpoint_counts_only_where_something_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint the default one is a guess, made only where something listens."""
    with listening() as endpoint:
        monkeypatch.setitem(settings.DEFAULT_ENDPOINTS, "http/protobuf", endpoint)
        found, guessed = endpoints({})
        assert (sorted(found), guessed) == (["logs", "metrics", "traces"], True)
        one, guessed = endpoints({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://far/v1/logs"})
        assert (one["logs"].url, guessed) == ("http://far/v1/logs", True)
    assert endpoints({}) == ({}, False)


def test_reason_why_nothing_is_heard() -> None:
    """What keeps a command's events from us is known."""
    assert mute({}) == ""
    assert "OTEL_SDK_DISABLED" in mute({"OTEL_SDK_DISABLED": "true"})
    assert "OTEL_LOGS_EXPORTER" in mute({"OTEL_LOGS_EXPORTER": "console"})
    assert environment.SIGNALS == ("logs", "metrics", "traces")


# -- processes


linux = pytest.mark.skipif(not procfs.PROC.joinpath("self").exists(), reason="needs /proc")


@linux
def test_process_is_known_by_pid_and_start() -> None:
    """A process that lives is seen with its start; when it is dead it is not, even before its parent asked."""
    psutil = pytest.importorskip("psutil")
    with subprocess.Popen(["sleep", "60"]) as child:
        seen = procfs.look(child.pid)
        assert seen is not None
        assert procfs.created(seen) == pytest.approx(psutil.Process(child.pid).create_time(), abs=1.0)
        again = procfs.look(child.pid)
        assert again is not None
        assert (again.pid, again.ticks) == (seen.pid, seen.ticks)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert procfs.look(child.pid) is None
    assert procfs.look(child.pid) is None


@linux
def test_a_thread_that_works_is_seen_behind_a_first_one_that_waits() -> None:
    """As where C code of one thread keeps all others waiting."""
    program = "import threading\ndef work():\n  while True: pass\n"
    program += (
        "thread = threading.Thread(target=work, daemon=True)\nthread.start()\nprint(1, flush=True)\nthread.join()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while not procfs.has_running_thread(child.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert procfs.has_running_thread(child.pid)
        child.kill()
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        deadline = time.monotonic() + 60
        while procfs.has_running_thread(sleeper.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not procfs.has_running_thread(sleeper.pid)
        sleeper.kill()


def test_nothing_is_known_where_there_is_no_proc(tmp_path: Path) -> None:
    """On a system without /proc all answers are that nothing is known."""
    assert procfs.look(1, tmp_path) is None
    assert procfs.created(procfs.ProcessStat(1, 1, "S"), tmp_path) is None
    assert procfs.waits_in(1, tmp_path) == ""
    assert not procfs.has_running_thread(1, tmp_path)
    assert procfs.memory_kills(tmp_path, tmp_path) is None


def test_name_of_a_process_may_be_anything(tmp_path: Path) -> None:
    """A program may call itself `) R 1`; the fields are counted behind the last bracket."""
    folder = tmp_path / "5"
    folder.mkdir()
    fields = ["T", *["0"] * 18, "777", "0"]
    folder.joinpath("stat").write_text(f"5 (a) R 1 () {' '.join(fields)}\n")
    assert procfs.look(5, tmp_path) == procfs.ProcessStat(5, 777, "T")
    folder.joinpath("stat").write_text("5 (a")
    assert procfs.look(5, tmp_path) is None


def test_process_lives_while_any_thread_does(tmp_path: Path) -> None:
    """Where the first thread is dead and another lives, so does the process."""
    folder = tmp_path / "5"
    (folder / "task" / "5").mkdir(parents=True)
    folder.joinpath("stat").write_text(f"5 (a) {' '.join(['Z', *['0'] * 18, '777'])}\n")
    assert procfs.look(5, tmp_path) is None
    (folder / "task" / "6").mkdir()
    assert procfs.look(5, tmp_path) is not None


def test_creation_in_iso_8601() -> None:
    """The creation time reads back as it was; what is no time is none."""
    assert procfs.iso(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert procfs.from_iso("2023-11-14T22:13:20.250Z") == 1_700_000_000.25
    assert procfs.from_iso("2023-11-14T23:13:20.250+01:00") == 1_700_000_000.25
    assert procfs.from_iso("2023-11-14T22:13:20.25Z") == procfs.from_iso("2023-11-14T22:13:20.250000999Z")
    assert procfs.from_iso("2023-11-14T22:13:20Z") == 1_700_000_000
    assert procfs.from_iso("2023-99-14T22:13:20Z") is None
    assert (procfs.from_iso("yesterday"), procfs.from_iso("2023-11-14T22:13:20")) == (None, None)


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/a/b\n", "a/b/memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("0::/a\n", "memory.events", "oom_kill 2\n"),
        ("4:memory:/x\n0::/\n", "memory/x/memory.oom_control", "under_oom 0\noom_kill 2\n"),
        ("4:cpu,memory:/x\n", "memory/memory.oom_control", "oom_kill 2\n"),
    ],
)
def test_kills_for_want_of_memory_are_counted(tmp_path: Path, groups: str, file: str, text: str) -> None:
    """Both versions of control groups are read, by their path, or at the root inside a container."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(groups)
    host = tmp_path / "groups" / file
    host.parent.mkdir(parents=True)
    assert procfs.memory_kills(tmp_path, tmp_path / "groups") is None
    host.write_text(text)
    assert procfs.memory_kills(tmp_path, tmp_path / "groups") == 2


# -- the stack from outside


def script(folder: Path, text: str) -> str:
    """A program in place of py-spy."""
    file = folder / "py-spy"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_stack_is_bounded_in_lines_and_time(tmp_path: Path) -> None:
    """Many lines are cut, a program that hangs is given up, and a refusal is told."""
    long = py_spy.dump(1, script(tmp_path, "seq 500")).splitlines()
    assert (len(long), long[-1]) == (py_spy.LINES + 1, "…")
    assert "no right" in py_spy.dump(1, script(tmp_path, "echo no right >&2; exit 1"))
    assert "TimeoutExpired" in py_spy.dump(1, script(tmp_path, "exec sleep 60"), 0.05)
    assert "otel-progress[stacks]" in py_spy.dump(1, None)


@linux
def test_stack_of_a_real_process(tmp_path: Path) -> None:
    """py-spy names the function in which another process is."""
    if py_spy.find() is None:
        pytest.skip("py-spy is not installed")
    code = "import sys, time\ndef wait_here():\n    print('x', flush=True)\n    time.sleep(60)\nwait_here()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        said = py_spy.dump(child.pid, py_spy.find())
        child.kill()
    if "could not read" in said:
        pytest.skip(said)
    assert "wait_here" in said


def test_who_listens_on_a_port_is_named() -> None:
    """The process that holds a port is known by its pid and its name; of a free port nobody is told."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        first.close()  # its number goes to the folder that is listed, and is closed again when the links are read
        found = procfs.listener(port)
    assert found is not None
    assert (found.pid, bool(found.name)) == (os.getpid(), True)
    assert procfs.listener(port) is None


@linux
def test_connection_is_found_by_its_process_and_port() -> None:
    """A connection belongs to the process that opened it, by its port there, until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            port = client.getsockname()[1]
            assert procfs.has_connection(os.getpid(), port)
            assert not procfs.has_connection(os.getppid(), port)
            assert not procfs.has_connection(os.getpid(), server.getsockname()[1])
        assert not procfs.has_connection(os.getpid(), port)


def test_list_tells_what_the_stage_had_of_one_that_ended() -> None:
    """A lost operation that counted nothing itself shows 12 of 20 in its last stage, and no 0%."""
    from otel_progress.cli.query.cells import counted, percent
    from otel_progress.cli.query.rows import snapshot_of

    stage = {"completed": 12, "total": 20, "unit": "row", "ratio": 0.6}
    row = {"id": "a", "name": "n", "status": "lost", "ended": True, "progress": {}, "stage_progress": stage}
    assert counted(snapshot_of(row), row).startswith("12/20")
    assert percent(snapshot_of(row)) == ""
    own = {**row, "progress": {"completed": 3, "total": 4, "unit": "file", "ratio": 0.75}}
    assert counted(snapshot_of(own), own).startswith("3/4")


def test_list_tells_how_long_what_ended_took() -> None:
    """The time of a running operation is a clock; of an ended one it is its duration."""
    from otel_progress.cli.query.cells import spent
    from otel_progress.cli.query.rows import snapshot_of

    known = {"id": "a", "name": "n", "status": "completed", "ended": True}
    assert [spent(snapshot_of({**known, "elapsed": one})) for one in (0.425, 9.5, 59.97)] == [
        "425 ms",
        "9.5 s",
        "1 min",
    ]
    assert spent(snapshot_of({"id": "a", "name": "n", "status": "running", "elapsed": 9.5})) == "0:09"


def test_list_is_cut_on_a_terminal_alone() -> None:
    """What it is doing is whole in a pipe; the line of code comes first, so that it is there where it is cut."""
    from otel_progress.cli.query.cells import doing
    from otel_progress.cli.query.list import Column, table
    from otel_progress.cli.query.rows import snapshot_of

    verdict = {"health": "stuck", "reason": "no progress for 34 s, stall_after is 4 s, learned from 41 runs" + 40 * "."}
    row = {"id": "a", "name": "n", "status": "running", "idle": 34.0, "stuck_at": "tool.py:6 in f", "verdict": verdict}
    told = doing(snapshot_of(row))
    assert told[0].startswith("at tool.py:6 in f: no progress for 34 s")
    columns = [Column("ID", [("a", "")], 1), Column("DOING", [told], 7)]
    assert table(columns, None)[1][-1] == told
    assert sum(len(text) for text, _ in table(columns, 60)[1]) == 59


def test_a_user_without_a_home_has_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither HOME nor an entry in the list of users: a container with another user, a minimal init."""

    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    assert state_folder({}).parent == Path(tempfile.gettempdir())
    assert state_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/otel-progress")
