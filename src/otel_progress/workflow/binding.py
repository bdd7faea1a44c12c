"""Which arguments a step's function gets: decided once, when the workflow is made, so that mistakes show there."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from otel_progress.errors import InvalidArgument
from otel_progress.workflow.step import RESERVED, name_of

TASK, CONTEXT, CALLBACK = RESERVED
CLOSE: Final = 0.75
"""How alike two names are of which one may be a mistyped other (`difflib`)."""


class Argument(NamedTuple):
    """A keyword argument: its name, its source, and whether it may be left out."""

    name: str
    source: str
    optional: bool


@dataclass(frozen=True)
class Call:
    """A function, and where each of its arguments comes from: `task`, `context`, `progress_callback`, or a step."""

    fn: Callable[..., Any]
    positional: tuple[str, ...] = ()
    keywords: tuple[Argument, ...] = ()

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Call it; a result that is missing, as its step failed, is None or the parameter's own default."""
        given = {one.name: values.get(one.source) for one in self.keywords if one.source in values or not one.optional}
        return self.fn(*(values.get(source) for source in self.positional), **given)


def bind(what: str, fn: Callable[..., Any], before: Collection[str], others: Collection[str]) -> Call:
    """Find the arguments of a function.

    Args:
        what: Whose function it is, for errors.
        fn: The function.
        before: The names of the steps that are over when it runs.
        others: The names of all other steps.

    Raises:
        InvalidArgument: If it has a parameter that nothing is known for.
    """
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some that are written in C
        return Call(fn, (TASK,))
    steps = {_identifier(name): name for name in before}
    named = {one.name for one in parameters}
    free = [source for source in (TASK, CONTEXT) if source not in named]
    positional: list[str] = []
    keywords: list[Argument] = []
    for position, one in enumerate(parameters):
        if one.kind is one.VAR_KEYWORD:
            continue
        if one.kind is one.VAR_POSITIONAL:
            if not keywords:
                positional += free
            continue
        source = one.name if one.name in RESERVED else steps.get(one.name)
        if source is None:
            if one.default is not one.empty:
                continue
            source = _unnamed(what, fn, one, position, free, steps, others)
        if one.kind is one.POSITIONAL_ONLY:
            positional.append(source)
        else:
            keywords.append(Argument(one.name, source, one.default is not one.empty))
    return Call(fn, tuple(positional), tuple(keywords))


def _unnamed(
    what: str,
    fn: Callable[..., Any],
    one: inspect.Parameter,
    position: int,
    free: list[str],
    steps: Mapping[str, str],
    others: Collection[str],
) -> str:
    """The source of a parameter that is named after nothing: the task comes first, then the context."""
    about = f"the parameter {one.name!r} of {name_of(fn)}() in {what}"
    later = {_identifier(name): name for name in others}
    if one.name in later:
        raise InvalidArgument(f"{about} is a step that need not be over then; add after=[{later[one.name]!r}]")
    near = difflib.get_close_matches(one.name, [*steps, *RESERVED], 1, CLOSE)
    if near:
        raise InvalidArgument(f"{about} is unknown; did you mean {near[0]!r}?")
    if one.kind is not one.KEYWORD_ONLY and free and (free[0] == TASK or position == 1):
        return free.pop(0)
    known = ", ".join((*RESERVED, *steps))
    raise InvalidArgument(f"{about} gets no value; a step can ask for {known}, or give the parameter a default")


def _identifier(name: str) -> str:
    """The name of a step as a parameter can have it."""
    return re.sub(r"\W", "_", name)
