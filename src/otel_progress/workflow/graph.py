"""The steps of a workflow, checked: who waits for whom, and what each one's function gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from otel_progress.errors import InvalidArgument
from otel_progress.model.values import shown
from otel_progress.workflow.binding import Call, bind
from otel_progress.workflow.step import Step, callable_of


class Results(dict[str, Any]):
    """The results of the steps that completed, by name.

    Attributes:
        failed: the exceptions of the steps that failed although they were not critical, by name.
    """

    def __init__(self) -> None:
        """No step is over yet."""
        super().__init__()
        self.failed: dict[str, BaseException] = {}


@dataclass(frozen=True)
class Graph:
    """The steps of a workflow.

    Attributes:
        steps: by name, in an order in which they could run one after the other.
        before: for each step the names of all that are over when it starts.
        calls: what is called for each step.
        fallbacks: what is called if it failed, for the steps that have such a function.
    """

    steps: Mapping[str, Step]
    before: Mapping[str, tuple[str, ...]]
    calls: Mapping[str, Call]
    fallbacks: Mapping[str, Call]

    def sorter(self) -> TopologicalSorter[str]:
        """What may start when, for one run."""
        found = TopologicalSorter({name: step.after for name, step in self.steps.items()})
        found.prepare()
        return found


def make_graph(stages: object) -> Graph:
    """Check the steps of a workflow.

    Raises:
        InvalidArgument: If there are none, two have one name, one is after a step that does not exist, they wait for
            each other, or a function asks for an argument that nobody provides.
    """
    steps = _steps(stages)
    before = _before(steps)
    calls, fallbacks = _calls(steps, before)
    return Graph(steps, before, calls, fallbacks)


def _steps(given: object) -> dict[str, Step]:
    """The steps by name, in an order in which they could run one after the other."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise InvalidArgument(f"stages must be a list of Step(...), not {shown(given)}")
    steps: dict[str, Step] = {}
    for step in given:
        if not isinstance(step, Step):
            raise InvalidArgument(f"stages must be a list of Step(...); it has {shown(step)}")
        if step.name in steps:
            raise InvalidArgument(f"two steps have the name {step.name!r}; each result needs a name of its own")
        steps[step.name] = step
    if not steps:
        raise InvalidArgument("a workflow needs at least one step")
    for step in steps.values():
        for before in step.after:
            if before not in steps:
                raise InvalidArgument(
                    f"step {step.name!r} is after {before!r}, which is no step; there are {', '.join(steps)}"
                )
    try:
        order = tuple(TopologicalSorter({name: step.after for name, step in steps.items()}).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise InvalidArgument(f"steps wait for each other in a circle: {circle}") from None
    return {name: steps[name] for name in order}


def _before(steps: Mapping[str, Step]) -> dict[str, tuple[str, ...]]:
    """For each step all that are over when it starts."""
    before: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():  # those before it come first
        known: dict[str, None] = {}
        for other in step.after:
            known.update(dict.fromkeys((*before[other], other)))
        before[name] = tuple(known)
    return before


def _calls(steps: Mapping[str, Step], before: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, Call], dict[str, Call]]:
    """What is called for each step, and for its fallback."""
    calls: dict[str, Call] = {}
    fallbacks: dict[str, Call] = {}
    for name, step in steps.items():
        others = steps.keys() - {name, *before[name]}
        calls[name] = bind(f"step {name!r}", callable_of(f"step {name!r}", step.run), before[name], others)
        if step.fallback is not None:
            what = f"the fallback of step {name!r}"
            fallbacks[name] = bind(what, callable_of(what, step.fallback), before[name], others)
    return calls, fallbacks
