"""A real redis-server for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .ports import free_ports

PASSWORD = "s3cr3t/w@rd"
QUOTED = "s3cr3t%2Fw%40rd"


class Server:
    """A redis-server with a directory and a port of its own, which keeps everything that it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.guard, (self.port,) = free_ports(1)
        self.url = f"redis://:{QUOTED}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **options: str) -> None:
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": ""}
        given |= {"appendonly": "yes", "appendfsync": "always", "requirepass": PASSWORD, "unixsocket": "redis.sock"}
        given |= options
        command = ["redis-server", *(part for key, value in given.items() for part in (f"--{key}", value))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self("PING"))
        except Exception:
            return False

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, password=PASSWORD, protocol=2)

    def __call__(self, *command: object) -> Any:
        client = self.client()
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def redis_server(folder: Path) -> Iterator[Server]:
    """A server that is not started; it is killed at the end. Skip without redis-server, but fail in CI."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no redis-server: sh tools/install.sh redis-server")
        pytest.skip("no redis-server: sh tools/install.sh redis-server")
    made = Server(folder)
    yield made
    made.kill()
    made.guard.close()
