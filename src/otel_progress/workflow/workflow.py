"""Workflows: what is checked when one is made, and how it is run, watched and cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from otel_progress.api import current, operation
from otel_progress.durable.fingerprint import of_call
from otel_progress.errors import InvalidArgument, InvalidState
from otel_progress.model.plan import Plan
from otel_progress.model.units import duration
from otel_progress.model.values import shown
from otel_progress.workflow.graph import Results, make_graph
from otel_progress.workflow.needed import needed
from otel_progress.workflow.step import Step

if TYPE_CHECKING:
    from otel_progress import Operation, Snapshot
    from otel_progress.workflow.execution import Run

KEPT: Final = 100
"""Final snapshots of ended runs that a workflow keeps for `get_progress`."""
_OURS: Final = ("name", "id", "plan")
"""Options of an operation that the workflow sets itself."""


class Workflow:
    """Steps that depend on each other; each run is an operation, each step a stage of it.

    Args:
        name: The name of the operations.
        stages: The steps, in any order.
        checkpoint: Where the results of finished steps are kept, as JSON: a path, `sqlite:///…`, `redis://…`, a store,
            or True for that of `configure(checkpoints=…)`. A later run of the same id goes on after them.
        options: Options of the operations, such as `agent`, `stall_after` or `attributes`.

    Raises:
        InvalidArgument: If there are no steps, two have one name, one is after a step that does not exist or after
            itself, or a function asks for an argument that nobody provides.
        MissingDependency: If the extra is not installed.

    Example: `Workflow("report", stages=[Step("read", read), Step("write", write, after=["read"])]).run("q3.csv")`
    """

    def __init__(self, name: str, stages: Iterable[Step], *, checkpoint: Any = None, **options: Any) -> None:
        """Check the steps, so that a mistake shows before anything runs."""
        needed()
        self.name = name
        self._graph = make_graph(stages)
        for option in _OURS:
            if option in options:
                raise InvalidArgument(f"a workflow sets the option {option!r} of its operations itself")
        self._options = options
        self.plan = Plan(tuple(step.planned() for step in self._graph.steps.values()))
        self._checkpoint = checkpoint
        operation(name, plan=self.plan, **options)  # wrong options show here
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, Operation] = {}
        self._callbacks: list[Callable[..., object]] = []

    def __str__(self) -> str:
        """Its plan, one step a line."""
        return "\n".join([self.name, *(f"  {_line(step)}" for step in self._graph.steps.values())])

    # -- running

    def run(self, task: Any = None, *, id: str | None = None) -> Results:
        """Run it here, until it is over.

        In the main thread Ctrl+C and SIGTERM stop it as a cancel does. Then KeyboardInterrupt is raised, or after
        SIGTERM SystemExit with code 143.

        Args:
            task: What the steps get as `task`.
            id: The id of the operation; a generated one by default. With `checkpoint` the same one in each attempt.

        Raises:
            InvalidState: If an event loop runs in this thread; use `arun` there.
            DuplicateOperation: If a run of this id is alive.
            OperationHeld: If it is alive in another process, with `checkpoint`.
            CheckpointMismatch: If an earlier attempt had another task or other steps; see `resume_mismatch`.
            OperationCancelled: If it was cancelled; the message says what was done.
            Exception: That of the critical step that failed, unchanged.
        """
        import anyio

        from otel_progress.workflow.execution import Run
        from otel_progress.workflow.signals import Signals

        if _loop_runs():
            raise InvalidState(f"an event loop runs here; use 'await workflow.arun(...)' for workflow {self.name!r}")
        above, one = current(), self._operation(task, id)
        with Signals(one) as signals, one:
            run = Run(self._graph, one, above, task, once=self._checkpoint is not None)
            with self._watching(run):
                results: Results = anyio.run(run.execute, signals.leave)
        return results

    async def arun(self, task: Any = None, *, id: str | None = None) -> Results:
        """Run it in this event loop (asyncio or trio); see `run`. Signals are left to the application."""
        from otel_progress.workflow.execution import Run

        above, one = current(), self._operation(task, id)
        async with one:
            run = Run(self._graph, one, above, task, once=self._checkpoint is not None)
            with self._watching(run):
                return await run.execute()

    def _operation(self, task: Any, id: str | None) -> Operation:
        options = self._options
        if self._checkpoint is not None:
            shape = {name: list(step.after) for name, step in self._graph.steps.items()}
            known = {"fingerprint": of_call(Workflow, (self.name,), {"task": task, "steps": shape})}
            options = {"resume": self._checkpoint, **known, **options}
        return operation(self.name, id=id, plan=self.plan, **options)

    def _watching(self, run: Run) -> ExitStack:
        """Let a run be found by its id, call the callbacks for it, and keep its final snapshot."""
        stack = ExitStack()
        id = run.operation.id
        with self._lock:
            self._runs[id] = run
            stack.callback(self._over, id, run)
            for callback in self._callbacks:
                run.operation.add_listener(callback)
        return stack

    def _over(self, id: str, run: Run) -> None:
        with self._lock:
            if self._runs.get(id) is run:
                del self._runs[id]
            self._ended.pop(id, None)
            self._ended[id] = run.operation
            while len(self._ended) > KEPT:
                del self._ended[next(iter(self._ended))]

    # -- from outside

    def get_progress(self, id: str) -> Snapshot | None:
        """Return everything that is known now of a run of this workflow, or None if none has this id.

        The last 100 runs that ended are kept.
        """
        with self._lock:
            run = self._runs.get(id)
            one = self._ended.get(id) if run is None else run.operation
        return None if one is None else one.snapshot()

    def cancel(self, id: str, reason: str | None = None) -> bool:
        """Stop a run of this workflow, from any thread; returns whether it was running.

        Coroutines are cancelled at their next await. A function in a thread goes on until it calls
        `raise_if_cancelled()`; a run waits a second for it, then reports that it still runs.
        """
        with self._lock:
            run = self._runs.get(id)
        if run is None:
            return False
        run.operation.request_cancel(reason)
        return True

    def add_callback(self, callback: Callable[..., object]) -> Callable[[], None]:
        """Call `callback` at every change of every run that starts from now on, as `Operation.add_listener` does.

        Args:
            callback: It gets a snapshot; if its signature requires two arguments, it gets the event as the second. A
                coroutine function runs on the event loop of `arun`.

        Returns:
            A function that removes the callback.
        """
        if not callable(callback):
            raise InvalidArgument(f"a callback must be a function, not {shown(callback)}")
        with self._lock:
            self._callbacks.append(callback)

        def remove() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return remove


def _loop_runs() -> bool:
    """Whether an event loop runs in this thread."""
    import anyio

    try:
        anyio.get_current_task()
    except RuntimeError:
        return False
    return True


def _line(step: Step) -> str:
    """A step in a few words."""
    words = [f"after {', '.join(step.after)}"] if step.after else []
    words += [f"{step.retries} {'retry' if step.retries == 1 else 'retries'}"] if step.retries else []
    words += [f"timeout {duration(step.timeout)}"] if step.timeout else []
    words += [f"expected {duration(step.expected)}"] if step.expected else []
    words += [f"weight {step.weight:g}"] if step.weight != 1 else []
    words += [] if step.critical else ["not critical"]
    words += ["with a fallback"] if step.fallback is not None else []
    return f"{step.name}: {'; '.join(words)}" if words else step.name
