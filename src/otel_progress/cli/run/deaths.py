"""Tells the checkpoint store how processes died: it frees what they held, and counts what they had in hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from otel_progress.durable.kept import GONE
from otel_progress.durable.store import find_store, standing
from otel_progress.errors import ProgressError
from otel_progress.model.status import Status
from otel_progress.settings import CHECKPOINTS

if TYPE_CHECKING:
    from otel_progress.cli.run.remarks import Remarks
    from otel_progress.monitor.state.watcher import Loss
    from otel_progress.outbound.certificate import Exit

KEY: Final = 200
"""The most characters of a key in a message."""


def tell_store(
    losses: Iterable[Loss], environ: Mapping[str, str], remarks: Remarks, say: Callable[[str], None]
) -> None:
    """Tell the store that the environment names, if any; a store that can't be used is no reason to stop."""
    where = environ.get(CHECKPOINTS, "").strip()
    if not where or not losses:
        return
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
        say(f"the checkpoint store {where} was not told: {error}")


def _how(exit: Exit) -> str:
    if exit.signal is not None:
        return f"{exit.signal}{', out of memory' if exit.out_of_memory else ''}"
    return GONE if exit.code is None else f"exit code {exit.code}"
