"""Jaeger for comparison: the one that `make stack` builds, with local disk."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.stack import build, stores

from benchmarks.monitor.load import PATIENCE, Server, fetch, serving


class Unavailable(Exception):
    """Jaeger is not available here; the text says why."""


class Jaeger(Server):
    """A Jaeger with its own disk, which acknowledges what it has stored, as the monitor does."""

    version = build.PARTS["jaeger"].version

    def __init__(self, folder: Path) -> None:
        """Start it on free ports.

        Raises:
            Unavailable: if it is not built.
        """
        binary = build.binary("jaeger")
        if binary is None:
            raise Unavailable("`make stack` builds it")
        self._given = stores.Jaeger(binary, folder / "jaeger")
        self._given.data.mkdir(parents=True)
        self.host = urlsplit(self._given.otlp_endpoint).netloc
        env = {**self._given.env(), "GOMAXPROCS": str(len(serving()) or 1)}
        super().__init__([*self._given.command()], folder / "jaeger.log", serving(), env)

    def __enter__(self) -> Jaeger:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                fetch(urlsplit(self._given.endpoint).netloc, self._given.ready_path)
            except (OSError, ValueError):
                time.sleep(0.2)
            else:
                return self
        self.__exit__()
        raise self.failed("Jaeger did not start")
