"""`otel-progress run -f` in a real pseudo-terminal, with real commands and the real monitor."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.terminal.real import Monitor
from tests.terminal.screens import ROOT, Terminal, command, environment, wait_until

from otel_progress import procfs

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")

BEGIN = """
import os, signal, sys, time
import otel_progress as progress
from pathlib import Path

progress.configure(service_name="job")
def until(name):
    while not Path(os.environ["FOLDER"], name).exists():
        progress.raise_if_cancelled()
        time.sleep(0.02)
"""
WORKS = """
sys.stdout.write(f"the job sees a terminal: {sys.stdout.isatty()} {sys.stderr.isatty()}\\n")
with progress.operation("survey", id="survey-1", stall_after=300):
    with progress.stage("load", total=2, unit="file") as load:
        load.advance(2)
        print("\\x1b[32mloaded\\x1b[0m all of it")
    with progress.stage("parse", total=100, unit="file") as parse:
        with progress.operation("worker", id="worker-1"):
            parse.advance(25)
            until("half")
            parse.advance(25)
            until("all")
            parse.advance(50)
print("the job is done")
sys.exit(3)
"""
DEAF = """
print("begins")
with progress.operation("survey", id="survey-1", stall_after=300):
    with progress.stage("parse", total=100, unit="file") as parse:
        parse.advance(25)
        while True:
            time.sleep(0.05)
"""
ALONE = """
import time
try:
    print("begins", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
    raise SystemExit(7)
"""


class Place:
    """A folder of a test, and the port on which its monitor is to be."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    @property
    def env(self) -> dict[str, str]:
        return {
            "XDG_STATE_HOME": str(self.folder),
            "FOLDER": str(self.folder),
            "OTEL_PROGRESS_MONITOR": self.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "PYTHONUNBUFFERED": "1",
        }

    def allow(self, name: str) -> None:
        (self.folder / name).touch()

    def follow(self, source: str, *options: str, **more: Any) -> Terminal:
        env = {**self.env, **more.pop("env", {})}
        return Terminal("run", "-f", *options, "--", sys.executable, "-c", source, env=env, **more)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where no monitor runs yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Place(tmp_path, f"http://127.0.0.1:{port}")


def asked(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return json.load(answer)


def last(text: str, part: str) -> str:
    return [line for line in text.splitlines() if part in line][-1]


# -- what is shown


def test_tree_below_what_the_command_writes(place: Place) -> None:
    """Its operations are drawn below its own lines, which stay whole; at the end stands the state of every stage."""
    with place.follow(BEGIN + WORKS) as terminal:
        text = terminal.see("survey-1", "✓ load", "25/100 files", "worker-1", "2 running", place.url, "Ctrl+C cancels")
        rows = text.splitlines()
        assert "a monitor runs as long as the command" in rows[0]
        assert rows[1:3] == ["the job sees a terminal: True True", "loaded all of it"]
        green = [terminal.screen.buffer[2][column].fg for column in range(8)]
        assert green == ["green"] * 6 + ["default"] * 2
        assert asked(place.url, "/operations/survey-1")["status"] == "running"
        place.allow("half")
        terminal.see("50/100 files")
        place.allow("all")
        assert terminal.exit_code(30) == 3
        end = terminal.text
    assert "the job is done" in end.splitlines()
    assert re.search(r"✓ survey-1 completed after [\d.]+ m?s", end)
    assert re.search(r"✓ load .* 2 files", end)
    assert re.search(r"✓ parse .* 100 files", end)
    assert "running" not in end
    assert end.count("survey-1") == 1
    assert terminal.cursor_visible


def test_line_without_an_end_stands_above_the_tree(place: Place) -> None:
    """A bar of the command's own is seen as it goes, in its place; it leaves what a terminal would keep of it."""
    source = """
print("before")
with progress.operation("survey", id="survey-1"):
    for step in (10, 20):
        sys.stdout.write(f"\\r\\x1b[31m{step}%\\x1b[0m of it")
        until(str(step))
    print("\\r100% of it")
print("after")
"""
    with place.follow(BEGIN + source) as terminal:
        rows = terminal.see("10% of it", "survey-1").splitlines()
        assert rows.index("10% of it") == rows.index("before") + 1
        assert "survey-1" in rows[rows.index("10% of it") + 1]
        place.allow("10")
        assert "10% of it" not in terminal.see("20% of it", "survey-1")
        place.allow("20")
        assert terminal.exit_code(30) == 0
        rows = terminal.text.splitlines()
    assert rows.index("before") < rows.index("100% of it")
    assert rows.count("100% of it") == 1
    assert "after" in rows
    assert "20% of it" not in terminal.text


def test_cursor_of_the_command_moves_as_without_us(place: Place) -> None:
    """A command that draws several lines anew finds them, although a tree stood below them."""
    source = """
with progress.operation("survey", id="survey-1"):
    print("top")
    for step in range(20):
        print(f"one {step}\\ntwo {step}")
        if step == 10:
            until("on")
        time.sleep(0.03)
        if step < 19:
            sys.stdout.write("\\x1b[2A")
"""
    with place.follow(BEGIN + source) as terminal:
        terminal.see("one 10", "two 10", "survey-1")
        place.allow("on")
        assert terminal.exit_code(30) == 0
        lines = [line for line in terminal.text.splitlines() if line.startswith(("top", "one", "two"))]
    assert lines == ["top", "one 19", "two 19"]


def test_bars_of_the_command_at_several_positions(place: Place) -> None:
    """Bars of tqdm in threads stand above the tree, each in its row; when one ends, the others go on in theirs."""
    source = """
from threading import Thread
from tqdm import tqdm
def until(name):
    while not Path(os.environ["FOLDER"], name).exists():
        time.sleep(0.02)
def shard(number):
    with tqdm(total=2, desc=f"shard {number}", position=number, leave=False, mininterval=0) as bar:
        until("half")
        bar.update()
        until(f"all {number}")
        bar.update()
print("before")
with progress.operation("survey", id="survey-1"):
    threads = [Thread(target=shard, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    threads[3].join()
    tqdm.write("written between")
    for thread in threads:
        thread.join()
    print("\\rall done")
"""
    with place.follow(BEGIN + source) as terminal:

        def rows(*of_it: str) -> list[str]:
            seen = terminal.until(lambda text: all(re.search(part, text) for part in (*of_it, "survey-1")), what=of_it)
            lines = seen.splitlines()
            return lines[lines.index("before") + 1 :]

        found = rows(*(rf"(?m)^shard {number}: +0%.*0/2" for number in range(4)))
        assert [row[:8] for row in found[:4]] == [f"shard {number}:" for number in range(4)]
        assert "survey-1" in found[4]
        place.allow("half")
        found = rows(*(rf"(?m)^shard {number}: +50%.*1/2" for number in range(4)))
        assert [row[:8] for row in found[:4]] == [f"shard {number}:" for number in range(4)]
        place.allow("all 3")
        found = rows(*(rf"(?m)^written between\n(?:.*\n)*shard {number}: +50%" for number in range(3)))
        assert [row[:8] for row in found[1:4]] == [f"shard {number}:" for number in range(3)]
        assert "shard 3" not in "".join(row[:8] for row in found)
        for number in range(3):
            place.allow(f"all {number}")
        assert terminal.exit_code(30) == 0
        lines = terminal.text.splitlines()
    assert {"before", "written between", "all done"} <= set(lines)
    assert not [line for line in lines if "shard" in line or "1/2" in line]


def test_what_is_typed_reaches_the_command(place: Place) -> None:
    """A prompt is seen and answered, a password is not shown, and the terminal is afterwards as it was."""
    source = """
import getpass
with progress.operation("survey", id="survey-1"):
    print("got", input("approve? "))
    print("secret of", len(getpass.getpass("password: ")))
    print("rest", repr(sys.stdin.read()))
"""
    with place.follow(BEGIN + source) as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.see("approve?", "survey-1")
        terminal.type("yex\x7fs")
        terminal.see("approve? yes")
        terminal.type("\r")
        terminal.see("got yes", "password:")
        terminal.type("hidden\r")
        assert "hidden" not in terminal.see("secret of 6")
        terminal.type("\x04")
        terminal.see("rest ''")
        assert terminal.exit_code(30) == 0
        after = termios.tcgetattr(terminal.master)
    assert after[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == termios.ECHO | termios.ICANON | termios.ISIG
    assert before[1] == after[1]


def test_size_is_passed_on(place: Place) -> None:
    """The command sees the size of our terminal, and hears that it changed."""
    source = """
sizes = []
def tell(*_): print("size", *os.get_terminal_size(1))
signal.signal(signal.SIGWINCH, tell)
tell()
with progress.operation("survey", id="survey-1"):
    until("on")
"""
    with place.follow(BEGIN + source) as terminal:
        terminal.see("size 100 30", "survey-1")
        terminal.resize(60, 20)
        terminal.signal(signal.SIGWINCH)
        terminal.see("size 60 20", "survey-1")
        place.allow("on")
        assert terminal.exit_code(30) == 0


def test_flood_is_passed_on(place: Place) -> None:
    """Many lines cost little more than to write them, and none is lost at the end."""
    source = """
line = "x" * 79 + "\\n"
with progress.operation("survey", id="survey-1"):
    for _ in range(4_000):
        sys.stdout.write(line)
print("the last line")
"""
    with place.follow(BEGIN + source, env={"PYTHONUNBUFFERED": ""}) as terminal:
        terminal.see("the last line", timeout=60)
        assert terminal.exit_code(30) == 0
        assert b"completed after" in terminal.raw  # told as it is heard: perhaps before the last of the flood is shown
        count = terminal.raw.count(b"x" * 79)
    assert count == 4_000


def test_slow_terminal_loses_nothing(place: Place) -> None:
    """A terminal that needs many seconds for the output shows all of it, after the command has ended, too."""
    source = """
with progress.operation("survey", id="survey-1"):
    print("the first line", flush=True)
    until("on")
    for _ in range(10):
        for _ in range(40):
            sys.stdout.write("x" * 79 + "\\n")
        sys.stdout.flush()
        time.sleep(0.1)
print("the last line")
"""
    with place.follow(BEGIN + source, env={"PYTHONUNBUFFERED": ""}) as terminal:
        terminal.see("the first line", "survey-1")
        terminal.slow = True
        place.allow("on")
        terminal.see("the last line", timeout=60)
        assert terminal.exit_code(30) == 0
        assert terminal.raw.count(b"x" * 79) == 400


def test_redirected_output_is_the_commands_alone(place: Place) -> None:
    """`run -f -- job > file`: nothing of ours is in the file, and the tree is seen all the same."""
    run = " ".join(map(shlex.quote, command("run", "-f", "--", sys.executable, "-c", BEGIN + WORKS)))
    out = place.folder / "out.txt"
    with Terminal(program=["sh", "-c", f"exec {run} > {out}"], env=place.env) as terminal:
        terminal.see("survey-1", "25/100 files")
        place.allow("half")
        place.allow("all")
        assert terminal.exit_code(30) == 3
        assert "✓ survey-1 completed" in terminal.text
    assert out.read_text() == "the job sees a terminal: False True\n\x1b[32mloaded\x1b[0m all of it\nthe job is done\n"


def test_plain_lines_where_there_is_no_terminal(place: Place) -> None:
    """In a pipe it is lines on stderr, stdout and stdin are the command's, and the exit code, too."""
    place.allow("half")
    place.allow("all")
    given = command("run", "-f", "--", sys.executable, "-c", BEGIN + WORKS + "")
    done = subprocess.run(
        given, env=environment(**place.env), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert done.stdout == "the job sees a terminal: False False\n\x1b[32mloaded\x1b[0m all of it\nthe job is done\n"
    assert re.search(r"✓ survey-1 completed after [\d.]+ m?s", done.stderr)
    assert re.search(r"✓ parse .* 100 files", done.stderr)
    assert "\x1b" not in done.stderr


def test_terminal_that_can_not_be_redrawn(place: Place) -> None:
    """On a dumb terminal it is lines, too; the command has a terminal all the same."""
    place.allow("half")
    place.allow("all")
    with place.follow(BEGIN + WORKS, env={"TERM": "dumb"}) as terminal:
        assert terminal.exit_code(30) == 3
        assert "the job sees a terminal: True True" in terminal.text.splitlines()
        assert "✓ survey-1 completed after" in terminal.text
        assert b"\x1b[2K" not in terminal.raw


def test_line_that_has_no_end_on_a_dumb_terminal(place: Place) -> None:
    """A line of ours does not land in the middle of one that the command has not finished."""
    source = """
with progress.operation("survey", id="survey-1", stall_after=300):
    print("thinking ...", end="", flush=True)
    until("all")
    print(" done")
    print("no end", end="")
"""
    with place.follow(BEGIN + source, env={"TERM": "dumb"}) as terminal:
        terminal.see("thinking ...", "survey-1: running")
        place.allow("all")
        assert terminal.exit_code(30) == 0
        rows = terminal.text.splitlines()
        assert {"thinking ...", " done", "no end"} <= set(rows)
        assert any(row.startswith("✓ survey-1 completed") for row in rows)


def test_tail_of_stderr_does_not_tear_the_tree(place: Place) -> None:
    """What comes by the pipe of `--stderr-tail` stands above the tree as well."""
    source = """
with progress.operation("survey", id="survey-1"):
    until("on")
    print("one\\ntwo", file=sys.stderr)
    until("all")
"""
    with place.follow(BEGIN + source, "--stderr-tail", "5") as terminal:
        terminal.see("survey-1", "1 running")
        place.allow("on")
        rows = terminal.see("two", "survey-1").splitlines()
        assert rows[rows.index("one") + 1] == "two"
        assert "survey-1" in rows[rows.index("two") + 1]
        place.allow("all")
        assert terminal.exit_code(30) == 0


# -- Ctrl+C


def test_ctrl_c_cancels_the_operation(place: Place) -> None:
    """Ctrl+C asks the operation to stop: it ends as cancelled, its stages too, and the exit code is the command's."""
    with place.follow(BEGIN + WORKS) as terminal:
        terminal.see("25/100 files", "worker-1")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 1
        assert "⊘ survey-1 cancelled after" in terminal.text
        assert re.search(r"✓ load .* 2 files", terminal.text)
        assert re.search(r"⊘ parse .* 25/100 files", terminal.text)
        assert "OperationCancelled" in terminal.text
        assert "lost" not in terminal.text


def test_ctrl_c_stops_a_loop_over_track(place: Place) -> None:
    """Code that never asks, but loops over `track`, stops at its next item and cleans up."""
    source = """
print("begins")
try:
    with progress.operation("survey", id="survey-1", stall_after=300):
        for number in progress.track(range(100_000), unit="file"):
            time.sleep(0.02)
finally:
    print("cleaned up")
"""
    with place.follow(BEGIN + source) as terminal:
        terminal.see("survey-1", " files", "1 running")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 1
        assert "cleaned up" in terminal.text
        assert "⊘ survey-1 cancelled after" in terminal.text


def test_second_ctrl_c_interrupts(place: Place) -> None:
    """Who does not obey gets SIGINT with the second Ctrl+C: `KeyboardInterrupt` is raised, and `finally` runs."""
    source = BEGIN + "try:\n" + "".join(f"    {line}\n" for line in DEAF.splitlines()) + "finally:\n    print('clean')"
    with place.follow(source) as terminal:
        terminal.see("25/100 files")
        terminal.type("\x03")
        terminal.see("asked survey-1 to stop: received; press Ctrl+C again to interrupt, a third time to kill")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 130
        text = terminal.text
    assert "clean" in text.splitlines()
    assert "KeyboardInterrupt" in text
    assert "survey-1 interrupted after" in text


def test_third_ctrl_c_kills(place: Place) -> None:
    """Who survives SIGINT too is killed by the third Ctrl+C, and closed as lost with all that was known."""
    source = BEGIN + DEAF.replace("with progress", "signal.signal(2, lambda *_: print('no'))\nwith progress", 1)
    with place.follow(source) as terminal:
        terminal.see("25/100 files")
        terminal.type("\x03")
        terminal.see("asked survey-1 to stop: received")
        terminal.type("\x03")
        terminal.see("no", "interrupted the command; press Ctrl+C again to kill")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 137
        text = terminal.text
    assert "✗ survey-1 lost after" in text
    assert re.search(r"✗ parse .* 25/100 files", text)
    assert "its process was killed by SIGKILL" in text


def test_each_operation_can_be_cancelled(place: Place) -> None:
    """Where the first has stopped and the command goes on with another, Ctrl+C is for that one."""
    source = """
for number in (1, 2):
    try:
        with progress.operation("part", id=f"part-{number}"):
            until("never")
    except progress.OperationCancelled:
        print("stopped", number)
"""
    with place.follow(BEGIN + source) as terminal:
        for number in (1, 2):
            terminal.see(f"part-{number}", "Ctrl+C cancels")
            terminal.type("\x03")
            terminal.see(f"stopped {number}", f"⊘ part-{number} cancelled after")
        assert terminal.exit_code(30) == 0


def test_ctrl_c_without_an_operation_interrupts(place: Place) -> None:
    """Where nothing can be cancelled the command gets SIGINT, as without us."""
    with place.follow(ALONE) as terminal:
        terminal.see("begins", "the command has started, no operation yet", "Ctrl+C interrupts")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 7
        assert "interrupted" in terminal.text.splitlines()
        assert "no operation was reported" in terminal.text


def test_what_is_known_while_no_operation_runs(place: Place) -> None:
    """Before the first operation, after the last one, and after the command, each is said as it is."""
    source = """
until("begin")
with progress.operation("survey", id="survey-1"):
    until("end")
until("leave")
"""
    with place.follow(BEGIN + source) as terminal:
        terminal.see("the command has started, no operation yet")
        place.allow("begin")
        terminal.see("survey-1", "1 running")
        place.allow("end")
        terminal.see("1 operation ended, none runs now", "Ctrl+C interrupts")
        place.allow("leave")
        assert terminal.exit_code(30) == 0


def test_ctrl_c_interrupts_who_can_not_be_asked(place: Place) -> None:
    """Where the operation has no control channel the command gets SIGINT, and that is said."""
    source = BEGIN + DEAF.replace("with progress", "signal.signal(2, lambda *_: until('on'))\nwith progress", 1)
    with place.follow(source, env={"OTEL_PROGRESS_CONTROL": "false"}) as terminal:
        terminal.see("25/100 files")
        terminal.type("\x03")
        terminal.see("asked survey-1 to stop: can't be reached; interrupted the command; press Ctrl+C again")
        terminal.type("\x03")
        terminal.see("press Ctrl+C again to kill")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 137


def test_ctrl_c_is_as_without_us_where_only_integrations_see(place: Place) -> None:
    """A program without a line of ours gets `KeyboardInterrupt` with the first Ctrl+C, and is not said to have obeyed."""
    source = """
import time
from tqdm import tqdm
try:
    for number in tqdm(range(100_000)):
        try:
            time.sleep(0.02)
        except Exception as error:
            print("retried after", error)
except KeyboardInterrupt:
    print("saved all")
"""
    with place.follow(source) as terminal:
        terminal.see("/100000", "1 running", "Ctrl+C interrupts (KeyboardInterrupt)")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 0
        assert "saved all" in terminal.text
        assert "retried" not in terminal.text
        assert "obeyed" not in terminal.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)])
def test_other_signals_are_passed_on(place: Place, number: signal.Signals, code: int) -> None:
    """A signal that is sent to us reaches the command, and what it left open is told."""
    source = BEGIN + DEAF.replace("print", "for number in (1, 3, 15): signal.signal(number, signal.SIG_DFL)\nprint", 1)
    with place.follow(source) as terminal:
        terminal.see("25/100 files")
        terminal.signal(number)
        assert terminal.exit_code(30) == code
        assert "survey-1" in terminal.text


READS = """
import sys
from otel_progress.cli.run.pty import PseudoTerminal
terminal = PseudoTerminal([0, 1, 2], lambda data: None)
terminal.take_keys()
print("asks", flush=True)
terminal._read_keys()
print("has", terminal._typed, terminal._deaf, flush=True)
terminal.give_back()
"""


def test_keys_that_were_taken_back_hold_nobody() -> None:
    """A key that stands for a signal empties the queue of the terminal: a read that finds nothing returns at once."""
    with Terminal(program=[sys.executable, "-c", READS]) as terminal:
        terminal.see("has b'' False")
        assert terminal.exit_code(10) == 0


def test_ctrl_z_stops_both(place: Place) -> None:
    """Ctrl+Z gives the terminal back to the shell with the command stopped; `fg` goes on with both."""
    run = " ".join(map(shlex.quote, command("run", "-f", "--", sys.executable, "-c", BEGIN + WORKS)))
    script = place.folder / "job.sh"
    script.write_text(f"exec {run}\n")
    env = {**place.env, "PS1": "shell> ", "HISTFILE": ""}
    with Terminal(program=["bash", "--norc", "--noprofile", "-i"], env=env) as terminal:
        terminal.see("shell>")
        terminal.type(f"sh {script}\n")
        terminal.see("survey-1", "25/100 files", "2 running")
        pid = asked(place.url, "/operations/survey-1")["pid"]
        terminal.type("\x1a")
        terminal.see("Stopped")
        wait_until(lambda: procfs.look(pid).state == "T")
        terminal.type("echo back $((40 + 2))\n")
        assert "2 running" not in terminal.see("back 42")
        place.allow("half")
        terminal.type("fg\n")
        terminal.see("50/100 files", "2 running")
        place.allow("all")
        terminal.until(lambda text: "✓ survey-1 completed" in text and text.endswith("shell>"))
        terminal.type("echo code $?\n")
        terminal.see("code 3")
        terminal.type("exit\n")
        terminal.exit_code(20)


def test_from_the_background_to_the_front(place: Place) -> None:
    """In the background nothing is drawn and no key is taken; `fg` shows the tree, and the prompt is answered."""
    source = """
with progress.operation("survey", id="survey-1"):
    print("got", input("approve? "))
"""
    run = " ".join(map(shlex.quote, command("run", "-f", "--", sys.executable, "-c", BEGIN + source)))
    script = place.folder / "job.sh"
    script.write_text(f"exec {run}\n")
    env = {**place.env, "PS1": "shell> ", "HISTFILE": ""}
    with Terminal(program=["bash", "--norc", "--noprofile", "-i"], env=env) as terminal:
        terminal.see("shell>")
        terminal.type(f"sh {script} &\n")
        terminal.see("approve?")
        wait_until(lambda: asked(place.url, "/operations")["total"] == 1)
        assert b"operation runs" not in terminal.raw
        assert b"1 running" not in terminal.raw
        terminal.type("fg\n")
        terminal.see("survey-1", "1 running")
        wait_until(lambda: not termios.tcgetattr(terminal.master)[3] & termios.ICANON)
        terminal.type("yes\r")
        terminal.see("got yes", "✓ survey-1 completed")
        terminal.until(lambda text: text.endswith("shell>"))
        terminal.type("exit\n")
        terminal.exit_code(20)


# -- the monitor


def test_monitor_that_is_killed_and_comes_back(real: Monitor, tmp_path: Path) -> None:
    """The command goes on without it; when it is back it knows all, and so does the summary."""
    place = Place(tmp_path, real.url)
    with place.follow(BEGIN + WORKS) as terminal:
        assert "a monitor runs" not in terminal.see("25/100 files", "worker-1", real.url)
        real.kill()
        terminal.see("connection lost, retrying", "the command goes on", "survey-1")
        place.allow("half")
        real.start()
        assert "connection lost" not in terminal.see("50/100 files", "Ctrl+C cancels", timeout=30)
        terminal.until(lambda text: "connection lost" not in text, what="the connection")
        place.allow("all")
        assert terminal.exit_code(30) == 3
        assert "✓ survey-1 completed after" in terminal.text
        assert terminal.text.count("✓ survey-1") == 1
    wait_until(lambda: asked(real.url, "/operations/survey-1")["status"] == "completed")


def test_monitor_of_another_command_has_a_successor(place: Place) -> None:
    """When the command ends whose monitor two `run -f` share, the other one goes on with a monitor that knows all."""
    source = """
with progress.operation(os.environ["WHICH"], id=os.environ["WHICH"]):
    until(os.environ["WHICH"])
    with progress.stage("rest", total=2, unit="file") as rest:
        rest.advance()
        until("all")
"""
    with place.follow(BEGIN + source, env={"WHICH": "first"}) as first:
        first.see("first", "1 running")
        with place.follow(BEGIN + source, env={"WHICH": "second"}) as second:
            second.see("second", "1 running")
            assert "a monitor runs" not in second.text
            place.allow("all")
            place.allow("first")
            assert first.exit_code(30) == 0
            second.see("a monitor runs as long as the command", "1 running", timeout=30)
            assert "connection lost" not in second.until(lambda text: "connection lost" not in text)
            assert asked(place.url, "/operations/second")["status"] == "running"
            assert asked(place.url, "/operations/first")["status"] == "completed"
            (place.folder / "all").unlink()
            place.allow("second")
            second.see("rest", "1/2 files")
            second.type("\x03")
            assert second.exit_code(30) != 0
            assert "second cancelled after" in second.text


def test_no_successor_for_a_monitor_that_stays(real: Monitor, tmp_path: Path) -> None:
    """The port of a monitor that was started by itself is left alone while it is away: it is about to come back."""
    place = Place(tmp_path, real.url)
    with place.follow(BEGIN + DEAF) as terminal:
        terminal.see("survey-1", "1 running")
        real.kill()
        terminal.see("connection lost, retrying in 2 s", timeout=30)
        real.start()
        terminal.see("1 running", real.url, timeout=30)
        assert "a monitor runs" not in terminal.text
        terminal.signal(signal.SIGTERM)
        terminal.exit_code(30)


def test_summary_needs_no_monitor(real: Monitor, tmp_path: Path) -> None:
    """Where the monitor is gone for good the end is told from what we heard, with every stage."""
    place = Place(tmp_path, real.url)
    with place.follow(BEGIN + WORKS) as terminal:
        terminal.see("25/100 files", "worker-1")
        real.kill()
        terminal.see("connection lost, retrying")
        place.allow("half")
        place.allow("all")
        assert terminal.exit_code(30) == 3
        text = terminal.text
    assert "✓ survey-1 completed after" in text
    assert re.search(r"✓ parse .* 100 files", text)
    assert "could not be passed on" in text


def test_end_of_an_id_that_ran_before_is_shown_once(real: Monitor, tmp_path: Path) -> None:
    """The monitor counts the runs of an id over all commands, the command begins with 1; its end is shown once."""
    place = Place(tmp_path, real.url)
    place.allow("half")
    place.allow("all")
    for attempt in (1, 2):
        with place.follow(BEGIN + WORKS) as terminal:
            assert terminal.exit_code(30) == 3
            assert terminal.text.count("✓ survey-1 completed after") == 1
            assert re.search(r"✓ parse .* 100 files", terminal.text)
        assert asked(real.url, "/operations/survey-1")["attempt"] == attempt


def test_operations_of_others_are_not_shown(real: Monitor, tmp_path: Path) -> None:
    """A monitor may know of much; what is shown are the operations of this command."""
    place = Place(tmp_path, real.url)
    source = BEGIN + DEAF.replace("survey", "other")
    env = environment(**place.env)
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.DEVNULL, env=env, cwd=ROOT) as other:
        try:
            wait_until(lambda: asked(real.url, "/operations")["total"] == 1)
            with place.follow(BEGIN + WORKS) as terminal:
                assert "other" not in terminal.see("survey-1", "2 running")
                place.allow("half")
                place.allow("all")
                assert terminal.exit_code(30) == 3
                assert "other-1" not in terminal.history
        finally:
            other.kill()


def test_monitor_with_a_token(place: Place) -> None:
    """A monitor that needs a token gets it with what is sent, followed and cancelled."""
    with place.follow(BEGIN + WORKS, env={"OTEL_PROGRESS_TOKEN": "a-token-of-this-test"}) as terminal:
        terminal.see("25/100 files", "worker-1")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(place.url, "/operations")
        terminal.type("\x03")
        assert terminal.exit_code(30) == 1
        assert "⊘ survey-1 cancelled after" in terminal.text


def test_telemetry_goes_to_both(real: Monitor, place: Place) -> None:
    """What is configured gets all as without `-f`, and the monitor that shows it, too; each of them once."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": real.url.replace("127.0.0.1", "localhost")}
    with place.follow(BEGIN + WORKS, env=env) as terminal:
        terminal.see("25/100 files")
        for url in (place.url, real.url):
            wait_until(lambda url=url: asked(url, "/operations")["total"] == 2)
        place.allow("half")
        place.allow("all")
        assert terminal.exit_code(30) == 3
    found = asked(real.url, "/operations/survey-1/events")["events"]
    assert [one["event"] for one in found].count("progress.operation.ended") == 1


def test_file_of_another_monitor_is_left_alone(real: Monitor, place: Place) -> None:
    """Where the file is held by a monitor elsewhere, one without a file of its own is started, and that is said."""
    folder = place.folder / "otel-progress"
    folder.mkdir()
    other = Monitor.__new__(Monitor)
    other.folder, other.port = folder, 0
    (folder / "m.db").symlink_to(folder / "monitor.db")
    other.start()
    try:
        with place.follow(BEGIN + WORKS) as terminal:
            terminal.see("is not kept", "25/100 files")
            place.allow("half")
            place.allow("all")
            assert terminal.exit_code(30) == 3
    finally:
        other.kill()


# -- what can't be


def test_command_that_is_not_there(place: Place) -> None:
    """127 and 126 as without `-f`, and the terminal is as it was."""
    with Terminal("run", "-f", "--", "no-such-command-here", env=place.env) as terminal:
        assert terminal.exit_code(30) == 127
        assert "no-such-command-here: command not found" in terminal.text
        assert termios.tcgetattr(terminal.master)[3] & termios.ECHO


def test_monitor_that_is_named_but_is_not_there(place: Place) -> None:
    """Where no monitor answers at the address that was named, that is said, and nothing runs."""
    env = {**place.env, "OTEL_PROGRESS_MONITOR": "http://no-such-host.invalid:1"}
    with Terminal("run", "-f", "--", "echo", "runs", env=env) as terminal:
        assert terminal.exit_code(60) == 125
        assert "no monitor answers at" in terminal.text
        assert "runs" not in terminal.text.splitlines()


@pytest.mark.parametrize("spelling", ["-f", "--follow", "--monitor"])
def test_three_spellings(place: Place, spelling: str) -> None:
    """One switch, three spellings."""
    done = subprocess.run(
        command("run", spelling, "--", "true"),
        env=environment(**place.env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "no operation was reported" in done.stderr) == (0, True)
