"""Work without a block for `with`: it starts in one callback and ends in another.

The code starts, uses and ends a handle itself. `use()` makes it current for library code.
"""

from __future__ import annotations

import argparse
import hashlib
import sched

import otel_progress as progress
from otel_progress.handlers.console import Console

CHUNK = bytes(range(256)) * 4096


class Download:
    """A transfer with the callbacks of a framework: `opened`, `received` (many times), `closed`."""

    def __init__(self, name: str, size: int) -> None:
        self.operation = progress.operation("download", total=size, unit="By", stall_after=5, attributes={"file": name})
        self.stage = self.operation.stage("receive")
        self.digest = hashlib.sha256()

    def opened(self) -> None:
        self.operation.start()
        self.stage.start()

    def received(self, data: bytes) -> None:
        self.operation.advance(len(data))
        self.digest.update(data)

    def closed(self, error: Exception | None) -> None:
        if error is not None:
            self.stage.fail(error)
            self.operation.fail(error)
            return
        self.stage.complete()
        with self.operation.use(), progress.stage("verify"):
            verify(self.digest.hexdigest())
        self.operation.complete()


def verify(digest: str) -> None:
    """Stand for library code that has no handle and uses what is current."""
    progress.update(message=f"compares {digest[:12]}")
    progress.result(digest=digest[:12])


def main() -> None:
    chunks = 40
    good, bad = Download("good.iso", chunks * len(CHUNK)), Download("bad.iso", chunks * len(CHUNK))
    loop = sched.scheduler()
    for download in (good, bad):
        loop.enter(0, 1, download.opened)
    for number in range(chunks):
        loop.enter(0.05 * number, 2, good.received, (CHUNK,))
        if number < chunks // 2:
            loop.enter(0.05 * number, 2, bad.received, (CHUNK,))
    loop.enter(0.05 * chunks / 2, 3, bad.closed, (ConnectionError("the other side hung up"),))
    loop.enter(0.05 * chunks, 3, good.closed, (None,))
    with Console():
        loop.run()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
