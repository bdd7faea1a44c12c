"""Tells `otel-progress run` which stores its program uses, so that it can tell them how a process died.

`run` names a private file in the environment, and each process adds the addresses of its stores, one a line. An address
may have a password, so it is not sent with telemetry.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from otel_progress.settings import stores_file

MOST: Final = 65_536
"""The most bytes of the file that are read."""
_told: Final[set[tuple[str, str]]] = set()


def tell_runner(where: Any, store: Any) -> None:
    """Add the address of a store that this process has opened; one that has none is left out."""
    file = stores_file()
    if file is None:
        return
    path = getattr(store, "path", None)
    address = where if isinstance(where, str) and "://" in where else None
    if isinstance(path, os.PathLike):
        address = f"sqlite:///{os.fspath(path)}"
    if address is None or (file, address) in _told:
        return
    _told.add((file, address))
    try:
        number = os.open(file, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        try:
            os.write(number, f"{json.dumps(address)}\n".encode())
        finally:
            os.close(number)
    except OSError:
        pass  # that `run` is gone


def told_stores(file: str) -> list[str]:
    """The addresses that processes added, each once; what is no address is left out."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            text = lines.read(MOST)
    except OSError:
        return []
    found: dict[str, None] = {}
    for line in text.splitlines():
        try:
            address = json.loads(line)
        except ValueError:
            continue
        if isinstance(address, str):
            found[address] = None
    return list(found)
