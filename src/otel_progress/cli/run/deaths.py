"""Tells the checkpoint store how processes died: it frees what they held, and counts what they had in hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from otel_progress.durable.kept import GONE
from otel_progress.durable.store import find_store, standing
from otel_progress.durable.told import told_stores
from otel_progress.errors import ProgressError
from otel_progress.model.status import Status
from otel_progress.outbound.queue import without_credentials
from otel_progress.settings import CHECKPOINTS, STORES

if TYPE_CHECKING:
    from otel_progress.cli.run.remarks import Remarks
    from otel_progress.monitor.state.watcher import Loss
    from otel_progress.outbound.certificate import Exit

KEY: Final = 200
"""The most characters of a key in a message."""


class Stores:
    """The stores of a command: the one that the environment names, and those that its processes told us."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Make the file in which they do; without one, only the environment counts."""
        self._named = environ.get(CHECKPOINTS, "").strip()
        self._file = ""
        try:
            number, self._file = tempfile.mkstemp(prefix="otel-progress-stores-")
            os.close(number)
        except OSError:
            pass

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The environment of the command."""
        return {**given, **({STORES: self._file} if self._file else {})}

    def tell(self, losses: Collection[Loss], remarks: Remarks, say: Callable[[str], None]) -> None:
        """Tell each store how its processes died; one that can't be used is no reason to stop."""
        found = [self._named, *(told_stores(self._file) if losses else ())]
        if self._named and "://" not in self._named:
            found[0] = f"sqlite:///{os.path.abspath(self._named)}"
        for where in dict.fromkeys(found):
            if where and losses:
                _tell(where, losses, remarks, say)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            os.unlink(self._file)


def _tell(where: str, losses: Iterable[Loss], remarks: Remarks, say: Callable[[str], None]) -> None:
    try:
        store = find_store(where)
        if store is None:
            return
        for loss in losses:
            stored = store.operation(loss.snapshot.operation_id)
            if stored is None or standing(stored) != Status.LOST.value:
                continue
            before = {(one.scope, one.key) for one in store.suspects(stored.id) if one.aside}
            store.died(stored.id, stored.attempt, _how(loss.exit))
            for one in store.suspects(stored.id):
                if one.aside and (one.scope, one.key) not in before:
                    text = f"{one.key[:KEY]}, as it was in hand at {one.deaths} deaths; later attempts skip it"
                    say(f"set aside in {stored.id}: {text}")
                    remarks.add(loss.snapshot, f"set aside: {text}", "warning")
    except ProgressError as error:
        say(f"the checkpoint store {without_credentials(where)} was not told: {error}")


def _how(exit: Exit) -> str:
    if exit.signal is not None:
        return f"{exit.signal}{', out of memory' if exit.out_of_memory else ''}"
    return GONE if exit.code is None else f"exit code {exit.code}"
