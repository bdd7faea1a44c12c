"""The monitor of a followed command: one that runs already, else one in a thread of this process."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from otel_progress import clock, procfs
from otel_progress.cli.monitor import TOKEN, default_db
from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse, client_of, is_loopback
from otel_progress.cli.query.exit_codes import CommandError
from otel_progress.cli.run.environment import listens
from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.monitor import auth
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.state.store import StoreError
from otel_progress.semconv import CONTROL_HEADER
from otel_progress.settings import SIGNALS, Endpoint

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 8.0
LET_GO_SECONDS: Final = 10.0
"""Seconds that a monitor which ends may hold its file after its port."""
AGAIN_SECONDS: Final = 0.25
NAMED: Final = "OTEL_PROGRESS_MONITOR"
CONTROL: Final = "OTEL_PROGRESS_CONTROL"
Say = Callable[[str], None]


class MonitorThread:
    """A monitor in its own thread, from `start()` to `stop()`."""

    def __init__(self, monitor: Monitor) -> None:
        """Create it for a monitor that holds its port and its file."""
        self.monitor = monitor
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="otel-progress-monitor", daemon=True)

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ProgressError: if it does not.
        """
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._error is not None:
            raise ProgressError(f"the monitor could not be started ({self._error or 'it takes too long'})")

    def stop(self) -> None:
        """Stop it; what it accepted is stored."""
        if self._thread.is_alive():
            self.monitor.stop()
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            try:
                import uvloop
            except ImportError:
                asyncio.run(self.monitor.serve(self._ready.set))
            else:
                uvloop.run(self.monitor.serve(self._ready.set))
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()


class MonitorHost:
    """The monitor that `run -f` uses; it is stopped at the end if it is ours.

    One that ends with the command of another `run -f` has a successor here, at the same address and with the same file.
    """

    def __init__(self, environ: Mapping[str, str], say: Say) -> None:
        """Find the monitor, or start one.

        Raises:
            ProgressError: if the named one can't be used; the text says what to do.
        """
        self.say = say
        self._environ = environ
        self._hosted: MonitorThread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closing = threading.Event()
        self._successor: threading.Thread | None = None
        self._temporary = False
        self.client = client_of(argparse.Namespace(url=None, token_file=None), environ)
        try:
            why = self._why_not()
            if why is not None:
                self._host(why)
            self._pid: int | None = None
            self._learn()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address of the monitor."""
        return self.client.url

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the responses of our intake, so that the command's processes fetch commands from that monitor."""
        return {CONTROL_HEADER: f"{self.url}/control"} if is_loopback(_host_of(self.url)) else {}

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """The endpoints that send telemetry to the monitor."""
        token = self.client.token
        headers = (("authorization", f"Bearer {token}"),) if token else ()
        return {signal: Endpoint("http/protobuf", f"{self.url}/v1/{signal}", headers) for signal in SIGNALS}

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Add what the command's processes need to fetch commands: the token, and the permission."""
        token = self.client.token
        asked = {CONTROL: self.url} if self.headers and not given.get(CONTROL) else {}
        known = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token}"} if token else {}
        return {**given, **asked, **known}

    def others(self, ways: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
        """The endpoints that are not this monitor."""
        return {signal: way for signal, way in ways.items() if not self._is_here(way.url)}

    def lost(self) -> None:
        """The monitor no longer answers: if it ended with the command of another `run -f`, one of ours succeeds it.

        That is done in a thread; called again meanwhile, this does nothing.
        """
        busy = self._successor is not None and self._successor.is_alive()
        if self._temporary and self._hosted is None and not busy and not self._closing.is_set():
            self._successor = threading.Thread(target=self._succeed, name="otel-progress-successor", daemon=True)
            self._successor.start()

    def close(self) -> None:
        """Stop the monitor if it is ours; its state is kept."""
        self._closing.set()
        if self._successor is not None:
            self._successor.join(START_SECONDS)
        if self._hosted is not None:
            self._hosted.stop()
        if self._folder is not None:
            self._folder.cleanup()

    # -- a monitor that runs already

    def _why_not(self) -> str | None:
        """Why the monitor can't be used; None if it can."""
        try:
            self.client.check()
            self.client.operations(limit=1)
        except (CommandError, ConnectionLost, ErrorResponse) as error:
            return str(error)
        return None

    def _learn(self) -> bool:
        """Ask the monitor who it is; whether it answers."""
        try:
            told = self.client.ask("/health")
        except (CommandError, ConnectionLost, ErrorResponse):
            return False
        pid = told.get("pid")
        self._pid = pid if isinstance(pid, int) else None
        self._temporary = told.get("temporary") is True
        return True

    def _is_here(self, url: str) -> bool:
        """Whether a URL is this monitor: by its address, or because the same process listens there."""
        there, here = _address(url), _address(self.url)
        if there == here:
            return True
        if self._pid is None or there[0] != "" or here[0] != "":
            return False
        holder = procfs.listener(there[1])
        return holder is not None and holder.pid == self._pid

    # -- one of ours

    def _host(self, why: str) -> None:
        named = bool(self._environ.get(NAMED))
        local, taken = is_loopback(_host_of(self.url)), listens(self.url)
        if named and (taken or not local):
            raise ProgressError(f"{why}; or unset {NAMED}: then one is started here")
        if taken:
            self.say(f"{why.partition(': ')[0]}; another one is started")
        monitor = self._made(0 if taken else _address(self.url)[1])
        if monitor is None:
            return
        self._start(monitor)
        self.client = Client(monitor.url, self.client.token)

    def _start(self, monitor: Monitor) -> None:
        self._hosted = MonitorThread(monitor)
        self._hosted.start()
        link = monitor.auth.link() if monitor.auth.needs_token else ""
        self.say(f"a monitor runs as long as the command; its page is {monitor.url}{link}")

    def _succeed(self) -> None:
        """Start a monitor where the last one was, unless somebody is quicker."""
        deadline = clock.monotonic() + LET_GO_SECONDS
        while not self._closing.is_set():
            last = clock.monotonic() >= deadline
            try:
                if not listens(self.url):
                    self._start(self._with_file(_address(self.url)[1], elsewhere=last))
                    return
                if self._learn():
                    return  # another command's monitor, or one that stays
            except (StoreError, InvalidArgument):
                pass  # the last one still has its file, or the next one its port
            except ProgressError as error:
                self.say(str(error))
                return
            if last:
                return
            self._closing.wait(AGAIN_SECONDS)

    def _made(self, port: int) -> Monitor | None:
        """A monitor, on another port where somebody was quicker; None where that one is a monitor."""
        try:
            return self._with_file(port)
        except InvalidArgument:
            if not port:
                raise
        return None if self._why_not() is None else self._with_file(0)

    def _with_file(self, port: int, *, elsewhere: bool = True) -> Monitor:
        """A monitor with the file that all monitors of this user share, or with one of its own if `elsewhere`.

        Raises:
            InvalidArgument: if the port is in use.
            StoreError: if another monitor has the file, and it may be no other one.
        """
        tokens = {}
        if self._environ.get(TOKEN):
            tokens[auth.checked(self._environ[TOKEN], TOKEN)] = auth.ANYBODY
        try:
            return self._made_of(default_db(self._environ), port, tokens)
        except StoreError as error:
            if not elsewhere:
                raise
            self.say(f"{error}; the history of this run is not kept")
        self._folder = tempfile.TemporaryDirectory(prefix="otel-progress-")
        path = Path(self._folder.name) / "monitor.db"
        return self._made_of(path, port, tokens)

    def _made_of(self, path: Path, port: int, tokens: Mapping[str, auth.Identity]) -> Monitor:
        options = Options(path, port=port, grpc_port=None, tokens=tokens, temporary=True)
        return Monitor(options, self._tell)

    def _tell(self, line: str) -> None:
        self.say(line)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    except ValueError:
        return ""


def _address(url: str) -> tuple[str, int]:
    """Host and port; the host is empty for all names of this machine."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = _host_of(url).lower()
    try:
        port = parts.port
    except ValueError:
        port = None
    return "" if is_loopback(host) else host, port or (443 if parts.scheme == "https" else 80)
