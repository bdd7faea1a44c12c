"""One run of a workflow: which steps start, what follows when one fails, and how a run is stopped."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from otel_progress.errors import OperationCancelled
from otel_progress.workflow.attempts import Attempts
from otel_progress.workflow.binding import CONTEXT, TASK
from otel_progress.workflow.graph import Results

if TYPE_CHECKING:
    from otel_progress import Operation, Stage
    from otel_progress.workflow.graph import Graph
    from otel_progress.workflow.step import Step

RESULT: Final = "result"
"""The key of a step's result in a checkpoint."""
LOOK_EVERY: Final = 0.2
"""Seconds between two looks whether the run was asked to stop."""
LEFT: Final = "its task was cancelled"
"""The reason of a cancel that came as the cancellation of a task."""


class Run:
    """One run of a workflow. All of it happens in one event loop.

    Attributes:
        operation: the operation, which the caller has started and will end.
        results: what the steps returned so far.
    """

    def __init__(self, graph: Graph, operation: Operation, above: Operation | None, task: Any, *, once: bool) -> None:
        """Nothing has started.

        Args:
            graph: the steps.
            operation: the operation.
            above: the operation around it.
            task: what the steps get.
            once: whether steps that an earlier attempt completed are left out.
        """
        self.operation = operation
        self._above = above
        self.results = Results()
        self._graph = graph
        self._task = task
        self._once = once
        self._sorter = graph.sorter()
        self._running: dict[str, None] = {}
        self._ran: set[str] = set()
        self._over = False
        self._error: BaseException | None = None
        self._group: anyio.abc.TaskGroup

    async def execute(self, leave: Callable[[], None] | None = None) -> Results:
        """Run all steps.

        Args:
            leave: called after the run was asked to stop, before that is raised; it may raise something else.

        Raises:
            OperationCancelled: If it was asked to stop.
            BaseException: What a critical step raised.
        """
        try:
            async with anyio.create_task_group() as self._group:
                self._start_ready()
                await self._watch()
        except anyio.get_cancelled_exc_class():
            self._say_what_was_done()
            raise
        if self._error is not None:
            raise self._error
        if self._not_begun() or self._running:
            said = self._say_what_was_done()
            if leave is not None:
                leave()
            raise self._cancelled(said)
        return self.results

    # -- steps

    def _start_ready(self) -> None:
        """Start the steps for which nothing has to be waited any more."""
        for name in self._sorter.get_ready():
            self._group.start_soon(self._step, self._graph.steps[name], name=f"step {name}")
        if not self._sorter.is_active():
            self._end()

    async def _step(self, step: Step) -> None:
        """Run a step, and start what waited for it."""
        self._running[step.name] = None
        try:
            await self._stage(step)
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() > -math.inf and not self.operation.cancel_requested():
                self.operation.request_cancel(f"step {step.name!r} cancelled itself")
            raise
        except BaseException as error:
            if isinstance(error, OperationCancelled) and self.operation.cancel_requested():
                self._end()
                return
            if step.critical or not isinstance(error, Exception):
                self._stop(step, error)
                return
            self.results.failed[step.name] = error
            self.operation.note(f"goes on without {step.name}, which is not critical", "warning")
        del self._running[step.name]
        self._sorter.done(step.name)
        self._start_ready()

    async def _stage(self, step: Step) -> None:
        """Run a step as a stage of the operation."""
        graph = self._graph
        values = {
            TASK: self._task,
            CONTEXT: {name: self._handed(name) for name in graph.before[step.name] if name in self.results},
        }
        values.update(values[CONTEXT])
        stage = self.operation.stage(step.name, **step.stage_options(once=self._once))
        attempts = Attempts(step, stage, graph.calls[step.name], graph.fallbacks.get(step.name))
        with stage:
            kept = stage.restored if self._once else None
            if kept is not None and RESULT in kept and not self._is_outdated(step, stage):
                self.results[step.name] = kept[RESULT]
                return
            try:
                result = await attempts.run(values)
                session = self.operation._session
                if session is not None:  # not stage.result(), which would show it
                    session.result(stage, {RESULT: result})
                self.results[step.name] = result
                self._ran.add(step.name)
            except Exception as error:
                if step.critical and not isinstance(error, OperationCancelled):
                    self._tell_skipped(stage)
                raise

    def _handed(self, name: str) -> Any:
        """A result as a step gets it: what the step changes in it would be missing after a resume."""
        result = self.results[name]
        return copy.deepcopy(result) if self._once else result

    def _is_outdated(self, step: Step, stage: Stage) -> bool:
        """Whether a result of an earlier attempt was made without that of a step which failed then, and says so."""
        new = [name for name in self._graph.before[step.name] if name in self._ran]
        if new:
            stage.note(f"runs again, as there was no result of {', '.join(new)} before", "warning")
            stage.update(message="runs again")
        return bool(new)

    # -- the end

    def _end(self) -> None:
        """Cancel what runs in the event loop, the watch at least."""
        self._over = True
        self._group.cancel_scope.cancel()

    def _stop(self, step: Step, error: BaseException) -> None:
        """Stop all that runs, as a critical step failed."""
        if self._error is None:
            self._error = error
        if not self.operation.cancel_requested():
            self.operation.request_cancel(f"step {step.name!r} failed")  # for those in threads
        self._end()

    def _not_begun(self) -> list[str]:
        over = {*self.results, *self.results.failed, *self._running}
        return [name for name in self._graph.steps if name not in over]

    def _tell_skipped(self, stage: Stage) -> None:
        """Show at a failed stage what does not run because of it."""
        stopped = [name for name in self._running if name != stage.name]
        for word, names in (("skipped", self._not_begun()), ("stopped", stopped)):
            if names:
                stage.set(**{word: ", ".join(names)})
                stage.note(f"{word} as {stage.name} failed: {', '.join(names)}", "warning")

    def _say_what_was_done(self) -> str:
        """Show what a run that is stopped had done."""
        parts = {
            "done": list(self.results),
            "failed": list(self.results.failed),
            "stopped": list(self._running),
            "not begun": self._not_begun(),
        }
        said = "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names)
        self.operation.note(f"cancelled; {said}", "warning")
        return said

    def _cancelled(self, said: str) -> OperationCancelled:
        try:
            self.operation.raise_if_cancelled()
        except OperationCancelled as error:
            return OperationCancelled(f"{error}; {said}")
        return OperationCancelled(f"{self.operation.name!r} was stopped; {said}")

    async def _watch(self) -> None:
        """Stop the run once it is asked to, or its task is cancelled: threads notice nothing of that by themselves."""
        try:
            while not self.operation.cancel_requested():
                if self._above is not None and self._above.cancel_requested():
                    self.operation.request_cancel(f"{self._above.name!r}, which it is part of, stops")
                    break
                await anyio.sleep(LOOK_EVERY)
        except anyio.get_cancelled_exc_class():
            if not self._over and not self.operation.cancel_requested():
                self.operation.request_cancel(LEFT)
            raise
        self._end()
