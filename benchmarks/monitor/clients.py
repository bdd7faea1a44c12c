"""Many readers of one stream in one process.

python -m benchmarks.monitor.clients HOST COUNT

It prints `ready` when all are connected, reads until its standard input ends, and writes its results as a pickle to the
file that the last line of the input names. Frames are the same for all readers, so each is stored once, and for each
reader only the times.
"""

from __future__ import annotations

import array
import pickle
import selectors
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

RECEIVE: Final = 1 << 20
TOGETHER: Final = 50
"""Connections that are opened at once."""


class Client:
    """One reader: the frames that it received, and when."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.places = array.array("q")
        self.times = array.array("d")
        self.resets = self.lost = self.torn = 0
        self._last = b""
        self._rest = b""

    def connect(self) -> socket.socket:
        """Connect, or reconnect after the last frame."""
        address, _, port = self._host.rpartition(":")
        self._rest = b""
        after = b"Last-Event-ID: " + self._last + b"\r\n" if self._last else b""
        stream = socket.create_connection((address, int(port)), 30)
        stream.sendall(b"GET /stream HTTP/1.1\r\nHost: " + self._host.encode() + b"\r\n" + after + b"\r\n")
        stream.setblocking(False)
        return stream

    def take(self, data: bytes, now: float, frames: dict[int, bytes]) -> None:
        """Handle received bytes."""
        *whole, self._rest = (self._rest + data if self._rest else data).split(b"\n\n")
        for frame in whole:
            at = frame.find(b"id: ", 0, 400)
            end = frame.find(b"\n", at)
            if at < 0 or end < 0:
                continue  # the sign of life
            event = frame[end + 8 : end + 14]
            if event == b"reset\n":
                self.resets += 1
            elif event == b"change":
                self._last = frame[at + 4 : end]
                place = int(self._last.rpartition(b"-")[2])
                self.places.append(place)
                self.times.append(now)
                known = frames.get(place)
                if known is None:
                    frames[place] = frame[at:]
                elif len(known) != len(frame) - at:
                    self.torn += 1


def main() -> None:
    """Read until the input ends."""
    host, count = sys.argv[1], int(sys.argv[2])
    clients = [Client(host) for _ in range(count)]
    frames: dict[int, bytes] = {}
    selector = selectors.DefaultSelector()
    for number, client in enumerate(clients):
        selector.register(client.connect(), selectors.EVENT_READ, client)
        if number % TOGETHER == TOGETHER - 1:
            time.sleep(0.05)
    told: list[str] = []
    waiter = threading.Thread(target=lambda: told.append(sys.stdin.readline().strip()), daemon=True)
    waiter.start()
    print("ready", flush=True)
    while not told:
        for key, _ in selector.select(0.2):
            stream, client = key.fileobj, key.data
            assert isinstance(stream, socket.socket)
            try:
                data = stream.recv(RECEIVE)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                client.take(data, time.monotonic(), frames)
            else:
                client.lost += 1
                selector.unregister(stream)
                stream.close()
                selector.register(client.connect(), selectors.EVENT_READ, client)
    seen = [(one.places.tolist(), one.times.tolist(), one.resets, one.lost, one.torn) for one in clients]
    Path(told[0]).write_bytes(pickle.dumps((frames, seen, time.process_time())))
    print("written", flush=True)


if __name__ == "__main__":
    main()
