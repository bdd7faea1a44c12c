"""Call everything in finalizers and during interpreter shutdown; print what raised.

python -m benchmarks.attacks.programs.gone collected|exit|teardown bare|watched
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import logging
import os
import sys
import traceback
from typing import Any

FAILED: list[str] = []
SECONDS = 60


def tried(name: str, use: Any, failed: list[str] = FAILED, text: Any = traceback.format_exc) -> None:
    try:
        use(name)
    except BaseException as error:
        failed.append(f"{name}: {text()}" if text is not None else f"{name}: {error!r}")


def told(failed: list[str] = FAILED, write: Any = os.write, leave: Any = os._exit) -> None:
    write(1, "".join(failed[:3]).encode() + f"{len(failed)} broken\n".encode())
    leave(bool(failed))


def last(every: Any) -> None:
    """Call everything but `configure`, which may no longer start a thread."""
    for name in every.names():
        tried(name, every.use)


class Finalized:
    """Calls the next function when it is collected."""

    turn = 0
    every: Any = None

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        names = [name for name in self.every.names() if name not in ("configure", "shutdown")]
        Finalized.turn += 1
        tried(names[Finalized.turn % len(names)], self.every.use)


class Kept:
    """Calls everything when the interpreter discards its modules."""

    def __init__(self, every: Any) -> None:
        self.uses = [(name, every.use) for name in every.names() if name not in ("configure", "shutdown")]
        self.told, self.tried = told, tried

    def __del__(self) -> None:
        for name, use in self.uses:
            self.tried(name, use)
        self.told()


def collected(every: Any) -> None:
    Finalized.every = every
    gc.set_threshold(5, 2, 2)
    for name in every.names():
        for _ in range(5):
            garbage = [Finalized() for _ in range(3)]
            del garbage
            tried(name, every.use)
    gc.collect()
    told()


def main(way: str, watched: str) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    logging.disable(logging.CRITICAL)
    if way == "exit":
        atexit.register(told)  # these run after all that is registered later
        atexit.register(lambda: last(sys.modules["benchmarks.attacks.programs.every"]))
    import otel_progress as progress
    from benchmarks.attacks.programs import every

    if watched == "watched":
        progress.configure("attacked", endpoint="http://127.0.0.1:9", interval=0.05)
    for name in every.names():
        if name != "shutdown":
            every.use(name)
    if watched == "watched":
        progress.configure("attacked", endpoint="http://127.0.0.1:9", interval=0.05)
    if way == "collected":
        collected(every)
    if way == "teardown":
        globals()["kept"] = Kept(every)


if __name__ == "__main__":
    main(*sys.argv[1:])
