"""How an operation is taken from its store: the lease, and whether what was saved is of this code and arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress import clock
from otel_progress.durable.holder import this_process
from otel_progress.durable.kept import (
    Acquired,
    Claim,
    StoredOperation,
)
from otel_progress.durable.saving import END_SECONDS, POLL, pause
from otel_progress.durable.session import Session
from otel_progress.durable.store import CheckpointStore, open_store
from otel_progress.durable.told import tell_runner
from otel_progress.durable.writer import writer_of
from otel_progress.errors import (
    CheckpointMismatch,
    InvalidArgument,
    OperationHeld,
)
from otel_progress.live import hooks
from otel_progress.live.guard import say
from otel_progress.model.origin import of_the_job
from otel_progress.model.secrets import mask_secrets
from otel_progress.settings import read

if TYPE_CHECKING:
    from otel_progress.live.records import Resume
    from otel_progress.live.state import OperationState


def open_session(operation: OperationState, wait: float) -> Session | None:
    """Take the operation of a handle that is about to start; None if it goes on without a store.

    Args:
        operation: the handle.
        wait: seconds to wait for its lease.

    Raises:
        CheckpointError: if the store can't be used and is required.
        CheckpointMismatch: if what was saved belongs to other code or other arguments.
        OperationHeld: if another process holds the operation.
    """
    options: Resume = operation._opts.resume  # type: ignore[assignment]
    where = (hooks.checkpoints or read().checkpoints) if options.store is True else options.store
    if where is None:
        raise InvalidArgument("resume=True needs a store: configure(checkpoints='work.db'), or resume='work.db'")
    try:
        store = open_store(where)
        tell_runner(where, store)
        return _opened(operation, options, store, wait)
    except (InvalidArgument, CheckpointMismatch, OperationHeld):
        raise
    except Exception as error:
        if options.required or of_the_job(error):
            raise
        say("operation %r goes on without checkpoints: %s", operation.name, error)
        return None


def _opened(operation: OperationState, options: Resume, store: CheckpointStore, wait: float) -> Session:
    fingerprint = operation._fingerprint or options.fingerprint
    before = store.operation(operation.id)
    fresh = before is not None and _differs(before, fingerprint, options.mismatch)
    claim = Claim(operation.id, operation.name, this_process(), fingerprint, fresh)
    writer_of(store).settle(operation.id, END_SECONDS)
    session = Session(operation, store, _acquired(store, claim, wait), options.required)
    if fresh:
        session.before = None
    return session


def _differs(before: StoredOperation, fingerprint: str | None, policy: str) -> bool:
    """Whether what was saved is to be forgotten, as it belongs to other code or arguments."""
    if before.fingerprint is None or fingerprint is None or before.fingerprint == fingerprint or policy == "keep":
        return False
    if policy == "restart":
        return True
    raise CheckpointMismatch(
        f"the checkpoint of operation {before.id!r} belongs to {mask_secrets('command', before.fingerprint)}, and this "
        f"is {mask_secrets('command', fingerprint)}: use another id, or say how to go on: resume_mismatch='restart' "
        "forgets what was saved, 'keep' uses it all the same; fingerprint='v1' names the work in place of its arguments"
    )


def _acquired(store: CheckpointStore, claim: Claim, wait: float) -> Acquired:
    deadline = clock.monotonic() + wait
    while True:
        try:
            return store.acquire(claim)
        except OperationHeld:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise
        pause(min(POLL, left))
