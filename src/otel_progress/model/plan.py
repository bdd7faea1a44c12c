"""What is known of an operation's stages before they run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otel_progress.errors import InvalidArgument
from otel_progress.model.values import NAME_LENGTH, Drops, names, positive, shown, size, text

_drops = Drops()
"""What the limits cut from plans; a plan is made once, so nobody counts it."""


@dataclass(frozen=True)
class StagePlan:
    """A stage that is meant to run.

    Args:
        name: what `stage(name)` will say.
        weight: its share of the whole, in any unit; at least 0.
        expected: how long it is expected to take, in seconds.
        description: what it does, in words.
        total: how many units it has, if that is known already.
        unit: what is counted, in UCUM or a plain word (`file`, `By`).
        critical: shown; changes no outcome.
        depends_on: names of stages that it needs; shown.

    Raises:
        InvalidArgument: for an empty name, a weight or total below 0, or an expected time not above 0.
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
        """Tell a plan that can't be meant at once."""
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument(f"a stage's name must be a text that is not empty, not {self.name!r}")
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
    """Stages in their order, and how they make up a percentage.

    `starts` is None where weights decide. Else it holds the ratio at which each stage starts, and
    `interpolate` says whether a stage's own ratio moves the whole between its start and the next.
    """

    stages: tuple[StagePlan, ...]
    starts: tuple[float, ...] | None = None
    interpolate: bool = True

    def index(self, name: str) -> int | None:
        """Where the stage of this name stands, or None."""
        for position, stage in enumerate(self.stages):
            if stage.name == name:
                return position
        return None


def make_plan(given: Plan | Iterable[StagePlan | str] | None) -> Plan | None:
    """The plan that was meant; names alone are stages of weight 1."""
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
    """A plan from the percentages (0 to 100) at which phases start.

    Args:
        starts: name to percentage, rising, as in `{"load": 0, "train": 20, "assess": 90}`.
        interpolate: whether the percentage moves inside a phase, as far as the phase tells its own progress.

    Raises:
        InvalidArgument: where the percentages don't rise, leave 0 to 100, or are parts of 1.
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
            f"phases start at percentages from 0 to 100, but {values} look like parts of 1: times 100?"
        )
    ends = [*values[1:], 100]
    stages = tuple(StagePlan(name, weight=end - start) for (name, start), end in zip(starts.items(), ends))
    return Plan(stages, tuple(v / 100 for v in values), interpolate)
