"""The tries of one step: in a task or a thread, within a timeout, again after a pause, and then the fallback."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import stamina

from otel_progress.errors import OperationCancelled
from otel_progress.model.units import duration
from otel_progress.model.values import shown
from otel_progress.workflow import quiet
from otel_progress.workflow.binding import CALLBACK, Call
from otel_progress.workflow.callback import ProgressCallback
from otel_progress.workflow.retry_after import retry_after
from otel_progress.workflow.step import is_async, is_one_of, name_of

if TYPE_CHECKING:
    from otel_progress import Stage
    from otel_progress.workflow.step import Step

GRACE: Final = 1.0
"""Seconds that a function in a thread has to notice that its run is asked to stop."""
LOOK_EVERY: Final = 0.02
"""Seconds between two looks whether it did."""
PAUSE_MOST: Final = 60
"""The longest pause between two tries, in first pauses."""


class Attempts:
    """The tries of a step, all in one stage."""

    def __init__(self, step: Step, stage: Stage, call: Call, fallback: Call | None) -> None:
        """No try was made yet."""
        self._step = step
        self._stage = stage
        self._call = call
        self._fallback = fallback

    async def run(self, values: Mapping[str, Any]) -> Any:
        """Return the result of the first try that succeeds, else of the fallback.

        Raises:
            Exception: What the last try, or the fallback, raised.
        """
        values = {**values, CALLBACK: ProgressCallback(self._stage)}
        try:
            return await self._try(values)
        except OperationCancelled:
            raise
        except Exception as error:
            if self._fallback is None:
                raise
            name = name_of(self._fallback.fn)
            self._stage.note(f"falls back to {name} after {words(error)}", "warning")
            self._stage.set(fallback=name)
            return await self._once(self._fallback, values)

    async def _try(self, values: Mapping[str, Any]) -> Any:
        step = self._step
        if step.retries == 0:
            return await self._once(self._call, values)
        quiet.install()
        context = stamina.retry_context(
            on=_pause,
            attempts=step.retries + 1,
            timeout=None,
            wait_initial=step.backoff,
            wait_max=step.backoff * PAUSE_MOST,
            wait_jitter=step.backoff,
        )
        tries = context.with_name(f"{quiet.STEP}{step.name}", (), {}).__aiter__()
        pause: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        while True:
            with pause:
                attempt = await tries.__anext__()  # it sleeps here, and raises after the last try
            try:
                return await self._once(self._call, values)
            except OperationCancelled:
                raise
            except Exception as error:
                if attempt.num > step.retries or not is_one_of(error, step.retry_on):
                    raise
                self._stage.note(f"try {attempt.num} of {step.retries + 1} failed: {words(error)}", "warning")
                pause = self._stage.waiting(f"try {attempt.num + 1} of {step.retries + 1} {_when(error, attempt)}")
                with attempt:
                    raise

    async def _once(self, call: Call, values: Mapping[str, Any]) -> Any:
        """Make one try; what it resumes goes on where the one before left it."""
        session = self._stage.operation._session
        if session is not None:
            session.tries_again(self._stage)
        with anyio.move_on_after(self._step.timeout) as scope:
            found = call(values) if is_async(call.fn) else await self._in_thread(call, values, scope)
            if inspect.isawaitable(found):
                found = await found
            if scope.cancel_called and not self._stage.cancel_requested():
                name = name_of(call.fn)
                self._stage.note(
                    f"{name} went on after its timeout of {duration(self._step.timeout or 0.0)}", "warning"
                )
            return found
        raise TimeoutError(f"step {self._step.name!r} took longer than {duration(self._step.timeout or 0.0)}")

    async def _in_thread(self, call: Call, values: Mapping[str, Any], scope: anyio.CancelScope) -> Any:
        """Call a function in a thread, in the context of the stage; a cancel leaves the thread behind."""
        began, over = threading.Event(), threading.Event()

        def work() -> Any:
            began.set()
            try:
                return call(values)
            finally:
                over.set()

        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        except anyio.get_cancelled_exc_class():
            if not scope.cancel_called:  # the whole run stops
                await _grace(over)
            if began.is_set() and not over.is_set():
                self._stage.note(f"{name_of(call.fn)} still runs: Python can't stop a thread", "warning")
            raise


def words(error: BaseException) -> str:
    """An exception as a text."""
    try:
        said = str(error)
    except Exception:
        said = shown(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _pause(error: Exception) -> bool | float:
    """Tell stamina how long to wait: what the server asks for, else its own back-off."""
    asked = retry_after(error)
    return True if asked is None else asked


def _when(error: Exception, attempt: stamina.Attempt) -> str:
    """When the next try comes, in words."""
    asked = retry_after(error)
    if asked is not None:
        return f"after {duration(asked)}, as the server asks"
    return f"after about {duration(attempt.next_wait)}"


async def _grace(over: threading.Event) -> None:
    """Wait a moment for a thread."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(GRACE):
        while not over.is_set():  # noqa: ASYNC110 - the thread's function knows no event loop
            await anyio.sleep(LOOK_EVERY)
