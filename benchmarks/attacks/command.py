"""Attacks: the command with unusual arguments and streams."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.terminal.screens import Terminal, environment

from benchmarks.attacks import Broke, attack, attacks, hold

IN_TIME = 60.0
STREAMS = {"stdin": (0,), "stdout": (1,), "stderr": (2,), "all three": (0, 1, 2)}
CLOSE = """
import os, sys
for number in map(int, sys.argv[1].split(",")):
    os.close(number)
os.execv(sys.argv[2], sys.argv[2:])
"""
CATCHES = """
import os, signal, threading
came = os.open(os.environ["FOLDER"] + "/came", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
signal.signal(signal.SIGQUIT, lambda *_: os.write(came, b"x"))
def drain():
    while os.read(0, 4096):
        pass
threading.Thread(target=drain, daemon=True).start()
print("begins", flush=True)
while True:
    signal.pause()
"""


class Workspace:
    """A folder for a command and its monitor, and a free port."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    @property
    def env(self) -> dict[str, str]:
        return environment(FOLDER=str(self.folder), XDG_STATE_HOME=str(self.folder), OTEL_PROGRESS_MONITOR=self.url)

    def started(self, *given: str, closed: tuple[int, ...] = (), **more: Any) -> subprocess.Popen[str]:
        """Start our command with these streams closed."""
        ours = [sys.executable, "-m", "otel_progress.cli", *given]
        if closed:
            ours = [sys.executable, "-c", CLOSE, ",".join(map(str, closed)), *ours]
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen(ours, env=self.env, text=True, **more)

    def run(self, *given: str, closed: tuple[int, ...] = ()) -> tuple[int, str, str]:
        """Return the exit code and the output."""
        with self.started(*given, closed=closed) as process:
            try:
                out, errors = process.communicate(timeout=IN_TIME)
            finally:
                process.kill()
            return process.returncode, out, errors


@contextlib.contextmanager
def placed() -> Iterator[Workspace]:
    with tempfile.TemporaryDirectory() as folder:
        yield Workspace(folder)


def until(true: Callable[[], Any], what: str, seconds: float = IN_TIME) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        hold(time.monotonic() < deadline, what)
        time.sleep(0.01)
    return found


@attacks("command", "run {options} with {streams} closed", options=["", "-f"], streams=STREAMS)
def closed(options: str, streams: str) -> None:
    """The command runs with its streams unchanged, and its exit code passes; our own output reaches no other file."""
    with placed() as place:
        script = (
            "import os, sys, time\n"
            "open_ = [n for n in (0, 1, 2) if os.path.exists(f'/proc/self/fd/{n}')]\n"
            f"ours = [os.readlink(f'/proc/{{os.getppid()}}/fd/{{n}}') for n in {STREAMS[streams]}]\n"
            "open(os.environ['FOLDER'] + '/ran', 'w').write(f'{open_} {ours}')\n"
            "sys.exit(7)"
        )
        given = ("run", *options.split(), "--", sys.executable, "-c", script)
        code, _, errors = place.run(*given, closed=STREAMS[streams])
        hold(code == 7, f"the exit code is the command's: {code} {errors}")
        found = (place.folder / "ran").read_text()
        left = [number for number in (0, 1, 2) if number not in STREAMS[streams]]
        null = ["/dev/null"] * len(STREAMS[streams])
        hold(found == f"{left} {null}", f"closed for the command, and no file of ours: {found}")


@attacks("command", "{which} with {streams} closed", which=["list", "watch", "doctor", "show x"], streams=STREAMS)
def asking(which: str, streams: str) -> None:
    """Each subcommand ends by itself, without a traceback."""
    with placed() as place:
        code, out, errors = place.run(*which.split(), closed=STREAMS[streams])
        hold(0 < code < 10, f"it says by its exit code that there is no monitor: {code}")
        hold("Traceback" not in out + errors, errors)


@attack("command", "a monitor with all its streams closed")
def monitor() -> None:
    with placed() as place:
        port = place.url.rpartition(":")[2]
        given = ("monitor", "--port", port, "--grpc-port", "none", "--db", str(place.folder / "m.db"))
        with place.started(*given, closed=(0, 1, 2)) as process:
            try:
                until(lambda: place.run("list")[0] == 0, "it serves")
                ours = {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
                hold(ours == {"/dev/null"}, f"no socket and no database is a standard stream: {ours}")
            finally:
                process.terminate()
                process.wait(IN_TIME)


def _file(folder: Path, content: bytes, mode: int = 0o755) -> str:
    path = folder / "file"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


ODD: dict[str, tuple[int, Callable[[Path], list[str]]]] = {
    "no name": (127, lambda _: [""]),
    "no such name": (127, lambda _: ["no-such-command"]),
    "no such path": (127, lambda _: ["/nowhere/command"]),
    "a name of control characters": (127, lambda _: ["\x1b[31m\n\r\x07"]),
    "a name that is no text": (127, lambda _: ["\udcff\udcfe"]),
    "a directory": (126, lambda folder: [str(folder)]),
    "a path through a file": (126, lambda folder: [_file(folder, b"") + "/x"]),
    "a file without the right to run": (126, lambda folder: [_file(folder, b"exit 3", 0o644)]),
    "a name that is too long": (126, lambda _: ["n" * 5_000]),
    "a script without a first line": (3, lambda folder: [_file(folder, b"exit $1\n"), "3"]),
    "a script of nothing": (0, lambda folder: [_file(folder, b"")]),
    "a script whose interpreter is not there": (126, lambda folder: [_file(folder, b"#!/nowhere/sh\nexit 3\n")]),
    "a program of another machine": (126, lambda folder: [_file(folder, b"\x7fELF" + b"x" * 100)]),
    "a file of zeros": (126, lambda folder: [_file(folder, bytes(200))]),
}


@attacks("command", "run {options}: {what}", options=["", "-f"], what=ODD)
def odd(options: str, what: str) -> None:
    """The exit code is that of a shell, and one line gives the reason."""
    code, made = ODD[what]
    with placed() as place:
        given = made(place.folder)
        found, _, errors = place.run("run", *options.split(), "--", *given)
        hold(found == code, f"{found} {errors}")
        said = [
            line for line in errors.splitlines() if "a monitor runs as long" not in line and "was reported" not in line
        ]
        hold(len(said) == (code in (126, 127)), f"one line: {said}")
        hold(all(letter.isprintable() for line in said for letter in line), f"that can be shown: {said}")
        hold(len(errors) < 1_000, "and is short")


@attack("command", "run: an argument list that is too long by our own environment")
def too_long() -> None:
    with placed() as place:
        free = os.sysconf("SC_ARG_MAX") - sum(len(key) + len(value) + 10 for key, value in place.env.items())
        each = "x" * 100_000
        for less in range(0, 8_192, 512):
            rest = free - 4_096 + less
            many = [each] * (rest // (len(each) + 9))
            try:
                code, _, errors = place.run("run", "--", "true", *many, "y" * max(1, rest - sum(map(len, many))))
            except OSError:
                return  # the system does not even let us begin
            hold(code in (0, 126), f"{code} {errors[-300:]}")
            hold("Traceback" not in errors, errors[-300:])


@attack("command", "run: in a folder that is gone")
def no_folder() -> None:
    with placed() as place:
        gone = place.folder / "gone"
        for options in ((), ("-f",)):
            gone.mkdir()
            script = (
                f"rmdir {gone}; exec {sys.executable} -m otel_progress.cli run {' '.join(options)} -- sh -c 'exit 7'"
            )
            with subprocess.Popen(["sh", "-c", script], cwd=gone, env=place.env, stderr=subprocess.PIPE) as process:
                errors = process.communicate(timeout=IN_TIME)[1]
            hold(process.returncode == 7, f"{process.returncode} {errors!r}")


# -- signals


def interactive() -> None:
    """Set signals as in an interactive shell; a background program has two of them ignored."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@attack("command", "run -f: SIGQUIT typed right behind other keys, many times", long=True)
def typed() -> None:
    """A signal key discards the keys typed before it; the thread that reads keys must not block, nor hold a lock."""
    rng = random.Random(1)
    interactive()
    given = ("run", "-f", "--", sys.executable, "-c", CATCHES)
    with placed() as place, Terminal(*given, env=place.env) as terminal:
        terminal.see("begins", timeout=IN_TIME)
        came = place.folder / "came"
        for number in range(3_000):
            terminal.type("\r")
            pause = time.perf_counter() + rng.random() * 0.0002
            while time.perf_counter() < pause:
                pass
            terminal.type("\x1c")
            until(lambda: came.stat().st_size, f"signal {number} reaches the command", 20)
            os.truncate(came, 0)
        terminal.signal(signal.SIGTERM)
        hold(terminal.exit_code(30) == 143, "and another one ends it")


@attacks("command", "run -f: a storm of signals, then {last}", last=["SIGQUIT", "SIGTERM", "SIGHUP"])
def storm(last: str) -> None:
    """It stops and continues, follows window sizes, and ends with the command."""
    rng = random.Random(last)
    interactive()
    number = signal.Signals[last]
    script = f"import signal, time; signal.signal({int(number)}, signal.SIG_DFL); print('begins'); time.sleep(600)"
    with placed() as place, Terminal("run", "-f", "--", sys.executable, "-uc", script, env=place.env) as terminal:
        terminal.see("begins", timeout=IN_TIME)
        for one in rng.choices([signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP], k=20):
            if one == signal.SIGWINCH:
                terminal.resize(rng.randint(20, 120), rng.randint(5, 40))
            terminal.signal(one)
            time.sleep(rng.random() * 0.02)
            terminal.signal(signal.SIGCONT)
        terminal.signal(number)
        deadline = time.monotonic() + 30
        while terminal.process.poll() is None:
            if time.monotonic() > deadline:
                raise Broke(f"it does not end at {last}")
            terminal.signal(signal.SIGCONT)
            time.sleep(0.05)
        hold(terminal.exit_code(5) == 128 + number, f"the code is the command's: {terminal.process.returncode}")


@attack("command", "run -f into a reader that leaves")
def broken_pipe() -> None:
    with placed() as place:
        script = "import sys\nfor n in range(10**6): print(n)\n"
        with place.started("run", "-f", "--", sys.executable, "-c", script) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            errors = process.stderr.read()
            code = process.wait(IN_TIME)
            hold(code == 1 and "BrokenPipeError" in errors, f"the command hears of it, as without us: {code}")
            hold("otel_progress" not in errors.replace("otel_progress.configure()", ""), "and nothing of ours fails")
