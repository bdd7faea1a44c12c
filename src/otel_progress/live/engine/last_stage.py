"""The ETA of what has running stages: it ends with the last one of them, or later."""

from __future__ import annotations

from dataclasses import replace

from otel_progress.model.snapshot import Progress, StageSnapshot


def until_all_end(whole: Progress, stages: tuple[StageSnapshot, ...]) -> tuple[Progress, tuple[StageSnapshot, ...]]:
    """Return the progress of an operation, and its stages: none of them ends before a critical stage inside it.

    What has done all its units has no estimate of its own; then that of the stage is shown.
    """
    places: dict[str, list[int]] = {}
    for place, stage in enumerate(stages):
        if stage.started_at is not None and stage.critical and not stage.status.final:
            places.setdefault(stage.path, []).append(place)
    later: dict[int, Progress] = {}
    for path, same in places.items():
        for place in same:
            inner = stages[place].progress
            above = path.rpartition("/")[0]
            while above:
                around = places.get(above, ())
                if len(around) == 1:  # of several with this path nobody knows which one it is in
                    outer = later.get(around[0], stages[around[0]].progress)
                    found = _later(outer, inner)
                    if found is not outer:
                        later[around[0]] = found
                above = above.rpartition("/")[0]
            whole = _later(whole, inner)
    if not later:
        return whole, stages
    return whole, tuple(
        replace(stage, progress=later[place]) if place in later else stage for place, stage in enumerate(stages)
    )


def _later(whole: Progress, part: Progress) -> Progress:
    own, inner = whole.eta, part.eta
    if inner is None:
        return whole
    if own is None:
        is_done = bool(whole.total) and (whole.completed or 0) >= (whole.total or 0)
        return replace(whole, eta=inner) if is_done else whole
    found = own.at_least(inner)
    return whole if found is own else replace(whole, eta=found)
