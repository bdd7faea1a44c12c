"""Arize Phoenix for comparison, installed into its own environment in the user's cache folder."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.monitor.load import PATIENCE, Server, fetch, serving

PACKAGE: Final = "arize-phoenix"
INSTALLING: Final = 1200.0


class Unavailable(Exception):
    """Phoenix is not available here; the text says why."""


def home() -> Path:
    """Return the folder of the installation."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "otel-progress" / "benchmarks" / "phoenix"


def install() -> Path:
    """Return the Python that has it; install the newest version first if there is none.

    Raises:
        Unavailable: if that fails.
    """
    folder = home()
    python = folder / "bin" / "python"
    if not (folder / "bin" / "phoenix").exists():
        steps = ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "-q", PACKAGE])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALLING, check=False)
            if done.returncode:
                raise Unavailable(f"it can't be installed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    return python


class Phoenix(Server):
    """A Phoenix server with its own database."""

    def __init__(self, folder: Path) -> None:
        """Start it on free ports."""
        python = install()
        ask = f"import importlib.metadata as m; print(m.version({PACKAGE!r}))"
        self.version = subprocess.run(
            [str(python), "-c", ask], capture_output=True, text=True, check=True
        ).stdout.strip()
        self.folder = folder / "phoenix"
        self.folder.mkdir()
        port, grpc = _free(), _free()
        self.host = f"127.0.0.1:{port}"
        env = {
            "PHOENIX_WORKING_DIR": str(self.folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(grpc),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        super().__init__([str(python), "-m", "phoenix.server.main", "serve"], folder / "phoenix.log", serving(), env)

    def __enter__(self) -> Phoenix:
        end = time.monotonic() + 3 * PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                fetch(self.host, "/healthz")
            except ValueError:
                return self  # it answers, not with JSON
            except OSError:
                time.sleep(0.2)
            else:
                return self
        self.__exit__()
        raise Unavailable(str(self.failed("it did not start")))

    def stored(self) -> int:
        """Return the number of spans in its file."""
        path = self.folder / "phoenix.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            return int(db.execute("SELECT count(*) FROM spans").fetchone()[0])


def _free() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
