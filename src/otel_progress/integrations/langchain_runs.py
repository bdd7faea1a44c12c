"""The runs of LangChain that are open, and the operation or stage that each of them is.

Runs come as events with an id and that of the run around them. They may come in any thread: nothing here goes by the
thread or task, but for which handle is current in the code of a node or tool.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Iterator
from typing import Any, Final

from otel_progress import Operation, Stage, current, operation, semconv, stage
from otel_progress.integrations import seen
from otel_progress.integrations.switch import call_of, captured, observed
from otel_progress.integrations.usual_limits import MODEL, NODE, STREAM, TOOL
from otel_progress.integrations.usual_limits import limit as limited

PAUSED: Final = 1_000
"""Graphs that wait for an answer, at most; the oldest is given up."""
OPEN: Final = 100_000
"""Runs that are open at a time, at most; others are not seen."""
HIDDEN: Final = "langsmith:hidden"
"""LangGraph's tag for what it runs for itself."""
LEAVES: Final = "GraphBubbleUp"
"""The class of LangGraph's exceptions that are no errors: a question, or a command to the graph around."""
ASKS: Final = "GraphInterrupt"
"""The class of those that ask a person; LangGraph tells its own callbacks, but not those that every run inherits."""
HUMAN: Final = "human"
TOKEN: Final = "token"


class Run:
    """A run that has not ended; one that is not shown has no handle."""

    __slots__ = (
        "asked",
        "asks",
        "found",
        "handle",
        "id",
        "inputs",
        "metadata",
        "name",
        "namespace",
        "open",
        "parent",
        "seen",
        "stream",
        "task",
        "used",
        "worked",
    )

    def __init__(self, name: str, about: dict[str, Any], parent: Run | None) -> None:
        """Of what LangChain tells about it."""
        self.id = about["run_id"]
        self.name = name
        self.metadata: dict[str, Any] = about.get("metadata") or {}
        self.namespace = self.metadata.get("langgraph_checkpoint_ns")
        self.parent = parent
        self.handle: Operation | Stage | None = None
        self.used: Any = None
        self.task: Any = None
        self.open: dict[Any, Run] = {}
        self.inputs: Any = None
        self.stream: Stage | None = None
        self.worked = False
        self.asks = False
        self.asked: str | None = None
        self.seen: tuple[Any, set[str]] = (None, set())

    @property
    def root(self) -> Run:
        """The run that is part of no other."""
        root = self
        while root.parent is not None:
            root = root.parent
        return root

    def around(self) -> Iterator[Run]:
        """The runs around it, from the inside out."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent


class Runs:
    """All open runs, by their ids."""

    def __init__(self) -> None:
        """None is open."""
        self._open: dict[Any, Run] = {}
        self._paused: dict[tuple[str, str], tuple[Run, Any]] = {}

    def clear(self) -> None:
        """Forget all, and end what was seen of them."""
        runs = [*self._open.values(), *(run for run, _ in self._paused.values())]
        self._open.clear()
        self._paused.clear()
        for run in runs:
            if run.parent is None and run.handle is not None:
                run.handle.cancel("the integration was switched off")

    # -- what LangChain tells

    def chain_started(self, inputs: Any, about: dict[str, Any]) -> None:
        """A graph, a node, or any other chain starts."""
        run = self._add(str(about.get("name") or "chain"), about)
        if run is None:
            return
        if run.parent is None:
            if "ls_integration" in run.metadata:  # a graph of LangGraph; other chains show once they work
                self._graph_started(run, inputs)
        elif _is_node(run, about.get("tags") or ()):
            run.inputs = inputs
            self._show(run, run.name, NODE)
            self._enter(run)

    def tool_started(self, name: str, inputs: Any, about: dict[str, Any]) -> None:
        """A tool or a retriever starts."""
        run = self._add(name, about)
        if run is None:
            return
        self._works(run)
        kept = captured(inputs)
        self._show(run, name, TOOL, None if kept is None else {semconv.TOOL_ARGUMENTS[0]: kept})
        run.asked = _brief.repr(inputs)
        self._enter(run)

    def model_started(self, name: str, about: dict[str, Any]) -> None:
        """A model is called."""
        run = self._add(name, about)
        if run is None:
            return
        self._works(run)
        model = run.metadata.get("ls_model_name")
        self._show(run, f"chat {model}" if model else name, MODEL)
        if run.handle is not None:
            run.handle.start()
            seen.whole.add(run.handle)
            self._use(run)
            run.handle.update(message="no token yet")

    def token(self, key: Any) -> None:
        """A model streams a token, or a chunk of a few."""
        run = self._open.get(key)
        if run is None or run.handle is None:
            return
        run.handle.raise_if_cancelled()
        if run.stream is None:
            run.handle.update(message="streaming")
            run.stream = observed(stage("stream", parent=run.handle, unit=TOKEN, **limited(STREAM))).start()
        run.stream.advance()

    def model_ended(self, key: Any, response: Any) -> None:
        """A model has answered."""
        run = self._open.get(key)
        if run is not None and run.handle is not None:
            run.handle.usage(**_usage(response))
        self.ended(key)

    def retried(self, key: Any, state: Any) -> None:
        """What failed is tried again, after a pause."""
        run = self._open.get(key)
        if run is not None and run.handle is not None:
            run.handle.note(f"try {state.attempt_number} failed", "warning")

    def ended(self, key: Any, error: BaseException | None = None, result: Any = None) -> None:
        """A run is over, with those inside it that were not told to be.

        A tool that gives the same again and again for the same input is a loop, and so is a node.
        """
        run = self._open.pop(key, None)
        if run is None:
            return
        if run.parent is not None:
            run.parent.open.pop(key, None)
        for left in tuple(run.open.values()):  # a tool whose task was cancelled says nothing
            self.ended(left.id, error or asyncio.CancelledError("left unfinished"))
        handle = run.handle
        if handle is None:
            return
        kinds = () if error is None else tuple(kind.__name__ for kind in type(error).__mro__)
        if ASKS in kinds:
            run.root.asks = True
        if LEAVES in kinds:
            error = None
        if run.stream is not None:
            _end(run.stream, error)
        if run.asked is not None:
            result = getattr(result, "content", result) if error is None else f"{type(error).__name__}: {error}"
            call = call_of(run.name, run.asked, result)
            if call is not None:
                handle.step(call)
        elif run.inputs is not None and not run.worked and error is None:
            self._repeat(run, handle, result)
        if run.used is not None:
            run.used.__exit__(None, None, None)
        if run.asks and run.parent is None and error is None:
            self._pause(run, handle)
        else:
            _end(handle, error)

    # -- a person is asked

    def _pause(self, run: Run, handle: Operation | Stage) -> None:
        """Keep the operation of a graph open until the same thread goes on, in this process."""
        wait = handle.waiting(HUMAN)
        wait.__enter__()
        self._paused[_thread(run)] = run, wait
        if len(self._paused) > PAUSED:
            oldest, _ = self._paused.pop(next(iter(self._paused)))
            if oldest.handle is not None:
                oldest.handle.cancel("nobody answered, and many newer graphs wait")

    def _graph_started(self, run: Run, inputs: Any) -> None:
        answers = inputs is None or getattr(inputs, "resume", None) is not None
        paused = self._paused.pop(_thread(run), None)
        if paused is not None and (before := paused[0]).handle is not None:
            paused[1].__exit__(None, None, None)
            if answers:
                run.handle = before.handle
            else:
                before.handle.cancel("got new input in place of an answer")
        resumed = answers and run.handle is None
        self._operate(run)
        self._use(run)
        if resumed and run.handle is not None:
            run.handle.note("resumed from a checkpoint", "ok")

    # -- from runs to handles

    def _add(self, name: str, about: dict[str, Any]) -> Run | None:
        """Keep a run; None if it is known, as by two handlers, or one too many."""
        key = about["run_id"]
        if key in self._open or len(self._open) >= OPEN:
            return None
        parent = self._open.get(about.get("parent_run_id"))
        run = self._open[key] = Run(name, about, parent)
        if parent is not None:
            parent.open[key] = run
        return run

    def _operate(self, root: Run) -> Operation | Stage:
        """Return the handle of a run that is part of no other, and start its operation if it has none."""
        if root.handle is None:
            thread, agent = root.metadata.get("thread_id"), root.metadata.get("lc_agent_name")
            attributes = {} if thread is None else {semconv.CONVERSATIONS[0]: thread}
            root.handle = observed(operation(root.name, agent=agent, attributes=attributes)).start()
        return root.handle

    def _show(self, run: Run, name: str, limit: float, attributes: dict[str, Any] | None = None) -> None:
        """Give a run its handle, not started: a stage of what runs around it.

        Raises:
            OperationCancelled: if the operation was asked to stop.
        """
        above = next((each.handle for each in run.around() if each.handle is not None), None)
        if above is None and run.parent is not None:
            above = self._operate(run.root)
        above = above or current()
        if above is None:
            run.handle = observed(operation(name, attributes=attributes, **limited(limit)))
            return
        above.raise_if_cancelled()
        run.handle = observed(stage(name, parent=above, attributes=attributes, **limited(limit)))

    def _enter(self, run: Run) -> None:
        """Start a handle, and make it current in the code of the run.

        LangChain tells the end of asynchronous runs in a task of its own, where a span that is current in the task of
        the run can't be detached. So the span is current only in a task that was made for the run.
        """
        handle = run.handle
        if handle is None:
            return
        run.task = _task()
        if run.task is None or (run.parent is not None and all(each.task is not run.task for each in run.around())):
            handle.__enter__()
        else:
            handle.start()
            self._use(run)

    def _use(self, run: Run) -> None:
        run.task = _task()
        if run.handle is not None:
            run.used = run.handle.use(span=False)
            run.used.__enter__()

    def _works(self, run: Run) -> None:
        """Tell the runs around a tool or a model call that they are more than a node."""
        for each in run.around():
            each.worked = True

    def _repeat(self, run: Run, handle: Operation | Stage, result: Any) -> None:
        """Report a node as a step: one that makes the same of the same state again and again is in a loop.

        In a graph with tools or models these are the steps.
        """
        root, number = run.root, run.metadata.get("langgraph_step")
        key = None if root.worked else call_of(run.name, _brief.repr(run.inputs), result)
        if key is None:
            return
        if root.seen[0] != number:
            root.seen = number, set()
        if key not in root.seen[1]:  # many that run side by side are one step
            root.seen[1].add(key)
            handle.step(key)


class _Brief(reprlib.Repr):
    """A text for an input of any size; of long lists it has the end, where they grow."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 5, 40, 20, 20
        self.maxstring = self.maxother = 1_000

    def repr_list(self, x: list[Any], level: int) -> str:
        return f"{len(x)}{super().repr_list(x[-self.maxlist :], level)}"


_brief: Final = _Brief()


def _is_node(run: Run, tags: Any) -> bool:
    """Whether a chain is a node of a graph, and not a part of one."""
    return (
        run.metadata.get("langgraph_node") == run.name
        and run.parent is not None
        and run.namespace != run.parent.namespace
        and HIDDEN not in tags
    )


def _thread(run: Run) -> tuple[str, str]:
    return run.name, str(run.metadata.get("thread_id"))


def _end(handle: Operation | Stage, error: BaseException | None) -> None:
    """End a handle, and leave it where it was made current here."""
    if isinstance(error, asyncio.CancelledError) and not isinstance(next(iter(error.args), ""), str):
        error = asyncio.CancelledError()  # LangGraph gives an object as the reason
    handle.__exit__(None if error is None else type(error), error, None)


def _task() -> Any:
    """The asyncio task that runs here, or None."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _usage(response: Any) -> dict[str, Any]:
    """The tokens that an answer names."""
    found = {"input_tokens": 0, "output_tokens": 0}
    for several in response.generations:
        for each in several:
            told = getattr(getattr(each, "message", None), "usage_metadata", None) or {}
            for key in found:
                found[key] += told.get(key) or 0
    if not any(found.values()):
        told = (response.llm_output or {}).get("token_usage") or {}
        found = {"input_tokens": told.get("prompt_tokens") or 0, "output_tokens": told.get("completion_tokens") or 0}
    return {key: amount for key, amount in found.items() if amount}
