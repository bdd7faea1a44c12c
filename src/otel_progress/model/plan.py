"""Plans: the stages of an operation that are known before they run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otel_progress.errors import InvalidArgument
from otel_progress.model.values import NAME_LENGTH, Drops, names, positive, shown, size, text

_drops = Drops()
"""Drops of plans; a plan is made once, so they are not reported."""


@dataclass(frozen=True)
class StagePlan:
    """A planned stage.

    Args:
        name: the name that `stage(name)` will use.
        weight: its share of the whole, in any unit; at least 0.
        expected: its expected duration, in seconds.
        description: what it does, in words.
        total: its number of units, if known in advance.
        unit: what is counted, in UCUM or a plain word (`file`, `By`).
        critical: shown only; it does not change the outcome.
        depends_on: names of stages that it needs; those that need nothing of each other may run side by side.

    Raises:
        InvalidArgument: if the name is empty, the weight or total is negative, or `expected` is not above 0.

    Example:
        `operation("training", plan=[StagePlan("load", weight=1), StagePlan("train", weight=9, unit="epoch")])`
    """

    name: str
    weight: float = 1.0
    expected: float | None = None
    description: str | None = None
    total: float | None = None
    unit: str | None = None
    critical: bool = True
    depends_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject invalid values at once, where they are given."""
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument(f"a stage's name must be a non-empty string, not {self.name!r}")
        keep = object.__setattr__
        keep(self, "weight", size(f"the weight of {self.name!r}", self.weight))
        keep(self, "total", size(f"the total of {self.name!r}", self.total))
        keep(self, "expected", positive(f"expected of {self.name!r}", self.expected))
        if self.weight is None:
            raise InvalidArgument(f"the weight of {self.name!r} must be a number of at least 0, not None")
        keep(self, "name", text(self.name, _drops, NAME_LENGTH))
        keep(self, "unit", self.unit and text(self.unit, _drops, NAME_LENGTH))
        keep(self, "description", self.description and text(self.description, _drops))
        keep(self, "depends_on", names(f"depends_on of {self.name!r}", self.depends_on, _drops))


@dataclass(frozen=True)
class Plan:
    """The planned stages in order, and how they make up the percentage.

    `starts` is None if the weights decide. Else it holds the ratio at which each stage starts, and `interpolate` says
    whether the ratio of a stage moves the total between its start and the next.
    """

    stages: tuple[StagePlan, ...]
    starts: tuple[float, ...] | None = None
    interpolate: bool = True

    @property
    def is_parallel(self) -> bool:
        """Whether a stage names what it needs, so that others may run beside it."""
        return any(stage.depends_on for stage in self.stages)

    def index(self, name: str) -> int | None:
        """Return the index of the stage of this name, or None."""
        for position, stage in enumerate(self.stages):
            if stage.name == name:
                return position
        return None


def longest_path(plan: Plan, rest: Mapping[str, float]) -> frozenset[str]:
    """Return the stages on the longest path through what is left; `rest` has the seconds of each unfinished stage.

    Only what a stage needs comes before it. Names that the plan does not have, and circles, are ignored.
    """
    known = {stage.name: stage.depends_on for stage in plan.stages}
    found: dict[str, tuple[float, frozenset[str]]] = {}

    def path(name: str, around: frozenset[str]) -> tuple[float, frozenset[str]]:
        if name not in found:
            before = [path(one, around | {name}) for one in known.get(name, ()) if one in known and one not in around]
            seconds, names = max(before, key=lambda one: one[0], default=(0.0, frozenset()))
            found[name] = seconds + rest.get(name, 0.0), names | {name}
        return found[name]

    return max((path(name, frozenset((name,))) for name in rest), key=lambda one: one[0], default=(0.0, frozenset()))[1]


def make_plan(given: Plan | Iterable[StagePlan | str] | None) -> Plan | None:
    """Convert the `plan` option to a `Plan`; plain names become stages of weight 1."""
    if given is None or isinstance(given, Plan):
        return given
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise InvalidArgument(f"a plan is a list of StagePlan or names, or phases({{...}}), not {given!r}")
    stages = tuple(StagePlan(item) if isinstance(item, str) else item for item in given)
    for stage in stages:
        if not isinstance(stage, StagePlan):
            raise InvalidArgument(f"a plan is a list of StagePlan or names, or phases({{...}}); it has {stage!r}")
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise InvalidArgument(f"a plan names each stage once; it has {names}")
    return Plan(stages) if stages else None


def phases(starts: Mapping[str, float], *, interpolate: bool = True) -> Plan:
    """Make a plan from the percentages (0 to 100) at which phases start.

    Args:
        starts: name to percentage, rising, as in `{"load": 0, "train": 20, "assess": 90}`.
        interpolate: whether the percentage moves inside a phase with the progress of that phase.

    Raises:
        InvalidArgument: if the percentages do not rise, are not between 0 and 100, or look like ratios.

    Example:
        `operation("training", plan=phases({"load": 0, "train": 20, "assess": 90}))`
    """
    if not isinstance(starts, Mapping):
        raise InvalidArgument(f"phases() takes a dict of names and percentages, not {shown(starts)}")
    values = list(starts.values())
    if not values:
        raise InvalidArgument("phases() needs at least one phase, as in phases({'load': 0, 'train': 20})")
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 <= v < 100 for v in values):
        raise InvalidArgument(f"phases start at percentages from 0 to below 100, not {values}")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise InvalidArgument(f"each phase must start at a higher percentage than the one before, not {values}")
    if 0 < values[-1] < 1:
        raise InvalidArgument(
            f"phases start at percentages from 0 to 100, but {values} look like ratios; multiply them by 100"
        )
    ends = [*values[1:], 100]
    stages = tuple(StagePlan(name, weight=end - start) for (name, start), end in zip(starts.items(), ends))
    return Plan(stages, tuple(v / 100 for v in values), interpolate)
