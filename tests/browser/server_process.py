"""A server in a process of its own, at a port of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from urllib.error import URLError
from urllib.request import urlopen


class ServerProcess:
    """The base of servers that tests start, end and start again in the same folder."""

    def __init__(self, folder):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            self.port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder

    def launch(self, command, ready, seconds, **options):
        """Start a command, and wait until it answers at the path `ready`."""
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
        deadline = time.monotonic() + seconds
        while True:
            try:
                urlopen(f"{self.url}{ready}", timeout=2).close()
                return self
            except (URLError, OSError):
                assert self.process.poll() is None, self.process.stderr.read().decode()
                assert time.monotonic() < deadline
                time.sleep(0.05)
