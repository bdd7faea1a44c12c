"""Tells the checkpoint store how processes died: it frees what they held, and counts what they had in hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_progress.durable.holder import this_process
from otel_progress.durable.kept import GONE
from otel_progress.durable.store import find_store, standing
from otel_progress.durable.told import told_stores
from otel_progress.errors import ProgressError
from otel_progress.model.status import Status
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

    def tell(
        self, pid: int, exit: Exit, losses: Collection[Loss], remarks: Remarks, say: Callable[[str], None]
    ) -> None:
        """Tell each store how its processes died; one that can't be used is no reason to stop.

        Args:
            pid: the process of the command, of which we know the end even if we heard of no operation in it.
            exit: how it ended.
            losses: the operations that we heard of, of its descendants as well.
            remarks: adds to the feeds of these.
            say: prints a line.
        """
        if exit.code == 0 and not losses:
            return
        named = self._named if "://" in self._named or not self._named else f"sqlite:///{os.path.abspath(self._named)}"
        for where in dict.fromkeys((named, *told_stores(self._file))):
            if where:
                _tell(where, (pid, exit), {one.snapshot.operation_id: one for one in losses}, remarks, say)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            os.unlink(self._file)


def _tell(
    where: str, end: tuple[int, Exit], losses: Mapping[str, Loss], remarks: Remarks, say: Callable[[str], None]
) -> None:
    here = this_process()
    try:
        store = find_store(where)
        if store is None:
            return
        for stored in store.operations():
            loss = losses.get(stored.id)
            ours = replace(stored.holder, pid=here.pid, ticks=here.ticks).is_same(here) and stored.holder.pid == end[0]
            if standing(stored) != Status.LOST.value or (loss is None and not ours):
                continue
            before = {(one.scope, one.key) for one in store.suspects(stored.id) if one.aside}
            store.died(stored.id, stored.attempt, _how(end[1] if loss is None else loss.exit))
            for one in store.suspects(stored.id):
                if one.aside and (one.scope, one.key) not in before:
                    text = f"{one.key[:KEY]}, as it was in hand at {one.deaths} deaths; later attempts skip it"
                    say(f"set aside in {stored.id}: {text}")
                    if loss is not None:
                        remarks.add(loss.snapshot, f"set aside: {text}", "warning")
    except ProgressError as error:
        say(f"a checkpoint store was not told how the process ended: {error}")


def _how(exit: Exit) -> str:
    if exit.signal is not None:
        return f"{exit.signal}{', out of memory' if exit.out_of_memory else ''}"
    return GONE if exit.code is None else f"exit code {exit.code}"
