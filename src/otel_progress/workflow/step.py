"""A step of a workflow: what it runs, after which others, and what happens if it fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_progress.errors import InvalidArgument
from otel_progress.model.plan import StagePlan
from otel_progress.model.values import NAME_LENGTH, positive, shown, size

if TYPE_CHECKING:
    from otel_progress.live.stage import StageGiven

RESERVED: Final = ("task", "context", "progress_callback")
"""Names of parameters, so no step can have them."""
RETRIES_MOST: Final = 1000
INHERITED: Final[Any] = object()
"""The default of `stall_after`: the limit is that of the operation, or learned."""

RetryOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


@dataclass(frozen=True)
class Step:
    """A step of a workflow.

    Args:
        name: The name, and that of its stage and of its result. It is a metric label, so use few values.
        run: A function, a coroutine function, another callable, or an agent with `execute(task, context, ...)`. A
            synchronous one runs in a thread. It gets what its parameters ask for: `task` (or the first parameter of
            another name), `context` (a dict of the results so far; or the second parameter of another name),
            `progress_callback`, and the result of each step before it under that step's name.
        after: The names of the steps that must be over before it starts.
        retries: How often it is tried again after an exception or a timeout.
        retry_on: Which exceptions are worth another try: a class, several, or a function that decides. All by default.
        backoff: Seconds of the first pause between two tries; each further one is twice as long, up to 60 times the
            first. `Retry-After` of an HTTP answer takes precedence.
        timeout: Seconds that one try may take.
        critical: Whether its failure stops the workflow. Else the others go on, and get None for its result.
        fallback: A function that is called as `run` is, once all tries failed; its result counts instead.
        weight: Its share of the whole.
        expected: Its expected duration in seconds; learned from earlier runs by default.
        stall_after: Seconds without progress after which it counts as stuck; None means no limit.
        description: What it does, in words.

    Raises:
        InvalidArgument: If an option is invalid; the message says what is allowed.

    Example: `Step("search", searcher, after=["plan"], retries=3, timeout=60)`
    """

    name: str
    run: Any
    after: Iterable[str] = field(default=(), kw_only=True)
    retries: int = field(default=0, kw_only=True)
    retry_on: RetryOn = field(default=Exception, kw_only=True)
    backoff: float = field(default=1.0, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    critical: bool = field(default=True, kw_only=True)
    fallback: Any = field(default=None, kw_only=True)
    weight: float = field(default=1.0, kw_only=True)
    expected: float | None = field(default=None, kw_only=True)
    stall_after: float | None = field(default=INHERITED, kw_only=True)
    description: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Reject invalid values where they are given."""
        keep = object.__setattr__
        _check_name(self.name)
        what = f"step {self.name!r}"
        keep(self, "after", _names(what, self.after))
        if self.name in self.after:
            raise InvalidArgument(f"{what} can't be after itself")
        if type(self.retries) is not int or not 0 <= self.retries <= RETRIES_MOST:
            raise InvalidArgument(
                f"retries of {what} must be a whole number from 0 to {RETRIES_MOST}, not {shown(self.retries)}"
            )
        check_errors(f"retry_on of {what}", self.retry_on)
        keep(self, "backoff", size(f"backoff of {what}", self.backoff) or 0.0)
        keep(self, "timeout", positive(f"timeout of {what}", self.timeout))
        if type(self.critical) is not bool:
            raise InvalidArgument(f"critical of {what} must be True or False, not {shown(self.critical)}")
        if self.stall_after is not INHERITED:
            positive(f"stall_after of {what}", self.stall_after)
        callable_of(what, self.run)
        if self.fallback is not None:
            callable_of(f"the fallback of {what}", self.fallback)
        self.planned()

    def stage_options(self, *, once: bool) -> StageGiven:
        """The options of its stage; the plan has the others."""
        options: StageGiven = {"critical": self.critical, "depends_on": tuple(self.after), "once": once}
        if self.stall_after is not INHERITED:
            options["stall_after"] = self.stall_after
        return options

    def planned(self) -> StagePlan:
        """The step as a planned stage."""
        return StagePlan(
            self.name,
            weight=self.weight,
            expected=self.expected,
            description=self.description,
            critical=self.critical,
            depends_on=tuple(self.after),
        )


def callable_of(what: str, given: Any) -> Callable[..., Any]:
    """What is called: the object itself, or its `execute` method.

    Raises:
        InvalidArgument: If there is nothing to call, or calling it would not run it.
    """
    execute = getattr(given, "execute", None)
    if isinstance(given, type) and callable(execute):
        raise InvalidArgument(f"{what} is given the class {given.__name__}; give it an instance: {given.__name__}()")
    fn = execute if callable(execute) else given
    if inspect.isawaitable(given):
        _close(given)
        raise InvalidArgument(f"{what} is given a coroutine that was called already; give it the function itself")
    if not callable(fn):
        raise InvalidArgument(f"{what} needs a function, or an agent with execute(task, context), not {shown(given)}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidArgument(f"{what} is a generator function, which runs only as far as it is read; return a list")
    return fn  # type: ignore[no-any-return]


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))


def name_of(fn: Any) -> str:
    """The name of a function or an agent, for people."""
    return str(getattr(fn, "__qualname__", None) or type(fn).__name__)


def _close(given: Any) -> None:
    """Close a coroutine that will not run, so that Python does not warn about it."""
    close = getattr(given, "close", None)
    if callable(close):
        close()


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise InvalidArgument(
            f"a step's name must be a printable text of 1 to {NAME_LENGTH} characters, not {shown(name)}"
        )
    if name in RESERVED:
        raise InvalidArgument(f"a step can't be named {name!r}: steps get {', '.join(RESERVED)} under these names")


def _names(what: str, given: object) -> tuple[str, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        hint = f"; write after=[{given!r}]" if isinstance(given, str) else ""
        raise InvalidArgument(f"after of {what} must be a list of names of steps, not {shown(given)}{hint}")
    found = tuple(dict.fromkeys(one.name if isinstance(one, Step) else one for one in given))
    for one in found:
        if not isinstance(one, str):
            raise InvalidArgument(f"after of {what} must be a list of names of steps; it has {shown(one)}")
    return found


def check_errors(what: str, given: object) -> None:
    """Check an option that says which exceptions count.

    Raises:
        InvalidArgument: If it is no class of exceptions, no tuple of them, and no function.
    """
    if given == ():
        raise InvalidArgument(f"{what} names no exception, so nothing would count; leave it out for all of them")
    for kind in given if isinstance(given, tuple) else (given,):
        if isinstance(kind, type):
            if not issubclass(kind, Exception):
                raise InvalidArgument(f"{what} must name kinds of Exception, not {kind.__name__}")
        elif isinstance(given, tuple) or not callable(kind):
            raise InvalidArgument(
                f"{what} must be an exception class, a tuple of them, or a function, not {shown(given)}"
            )


def is_one_of(error: Exception, which: RetryOn) -> bool:
    """Whether an exception counts."""
    return isinstance(error, which) if isinstance(which, (type, tuple)) else bool(which(error))
