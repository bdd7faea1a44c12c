"""The counts of a handle itself: from `advance`, `update`, `record` and its `track` loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, semconv
from otel_progress.live import misuse
from otel_progress.live.guard import drops
from otel_progress.model import values

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState
    from otel_progress.model.values import Number

AT_ONCE: Final = 1.0
"""Seconds from the start in which a first `update(completed=)` of several units names those of an earlier run."""
_ABOUT_ONE: Final = 1.001
"""A ratio up to here is 1 with a rounding error; a larger one is a percentage, or a mistake."""
_NO_COUNTS: Final[Mapping[str, Number]] = {}


def plain_advanced(node: HandleState) -> Number:
    """The sum of `advance`, as a finite number; after the end, the sum at the end."""
    raw, final, sound = node._advanced, node._final_advanced, node._valid_count
    if final is not None:
        if raw is not final:
            misuse.advanced_late(node)
        raw = final
    if type(raw) is int:
        if raw > values.INT_MAX:
            drops.add(semconv.DROP_VALUE)
            raw = _replace(node, values.INT_MAX)
        node._valid_count = raw
        return raw  # type: ignore[no-any-return]
    if raw is node._valid_raw:
        return sound  # type: ignore[no-any-return]
    known = values.number(raw, drops)
    if getattr(raw, "itemsize", 8) < 8:
        _narrow(node, raw)
    if known is None:
        known = _replace(node, sound)  # the value before an invalid one came
    node._valid_count, node._valid_raw = known, raw
    return known


def _replace(node: HandleState, known: Number) -> Number:
    """Replace the sum of `advance` by a valid one."""
    node._advanced = known
    if node._final_advanced is not None:
        node._final_advanced = known
    return known


def _narrow(node: HandleState, raw: object) -> None:
    """Warn once that sums of this type of number overflow."""
    misuse.warn_of(
        "narrow",
        f"{node.operation.name}/{node._path or ''}",
        "%s %r counts in %s, whose sums lose what does not fit; call advance(int(n)) or advance(float(n))",
        node._kind,
        node.name,
        type(raw).__name__,
    )


def add(node: HandleState, n: object) -> None:
    """Add a number that is large, or of another type (a Decimal to a float); refuse anything else."""
    known = values.count(n, drops)
    if known is None:
        misuse.refused("advance", "n", n)
        return
    if known >= values.INT_MAX:
        misuse.refused("advance", "n", n, "below 2**63")
        return
    if misuse.too_late(node, "advance"):
        return
    try:
        node._advanced += known
    except TypeError:  # a Decimal and a float
        node._advanced = plain_advanced(node) + known


def set_completed(node: HandleState, completed: object) -> Number | None:
    """Set completed units; only a count above the highest so far is progress.

    Returns:
        A count below the highest so far, as that is work done again; else None.
    """
    done = misuse.accepted("update", "completed", completed)
    if done is None:
        return None
    highest = max(node._highest, counted(node))
    if not highest and done > 1 and not life(node) and clock.monotonic() - (node._started or 0.0) <= AT_ONCE:
        restore(node, done)
        if node._lanes is not None:  # it counts the items of a loop that runs already
            node._counts_itself = node._completed_set = True
        return None
    node._base = done - plain_advanced(node)
    node._ratio = None
    node._counts_itself = node._completed_set = True
    node._uncounted += done > highest
    node._highest = max(done, highest)
    return done if done < highest else None


def restore(node: HandleState, done: Number) -> None:
    """Take units as completed by an earlier run: they are neither progress nor pace.

    Whatever counts from now on adds to them: `advance`, `record`, `track` loops, or what runs inside.
    """
    node._base, node._ratio = done - plain_advanced(node), None
    node._counts_itself = False  # a loop may count the rest
    node._highest = node._named_before = done
    node._restored = max(done, node._restored)


def restore_more(node: HandleState, units: Number) -> None:
    """Take more units as completed by an earlier run, beside what was counted since."""
    node._base += units
    node._named_before += units
    node._highest += units
    node._restored += units
    if node._pace is not None:
        node._pace.restore(units)


def count_anew(node: HandleState) -> None:
    """Forget what `advance` counted: a loop over the same units counts them."""
    node._advanced = node._base = node._valid_count = 0
    node._valid_raw = None
    node._highest = node._named_before = node._restored = 0
    node._pace = None


def set_ratio(node: HandleState, ratio: object) -> None:
    """Set the ratio; only one above the highest so far is progress."""
    part = misuse.accepted("update", "ratio", ratio)
    if part is None:
        return
    if part > _ABOUT_ONE:
        misuse.refused("update", "ratio", ratio, "a number from 0 to 1")
        return
    node._counts_itself, node._ratio = True, min(1.0, float(part))
    if node._ratio > node._highest_ratio:
        node._uncounted += 1
        node._highest_ratio = node._ratio


def begin_in(node: HandleState, outer: HandleState) -> None:
    """Remember what the handle around it had counted, and what had ended in it, at its start."""
    node._outer_at_start = outer._advanced, outer._base, 0 if outer._nested is None else outer._nested.ended


def ahead_of_loops(node: HandleState) -> Number:
    """Units of an earlier run that come on top of those its `track` loops began with: those are counted once."""
    return max(0, node._named_before - node._initial)


def counted(node: HandleState) -> Number:
    """Its own count, from 0 to the largest 64-bit integer."""
    return max(0, min(node._base + plain_advanced(node), values.INT_MAX))


def has_counted(node: HandleState) -> bool:
    """Whether it counted units itself: by `advance`, `update(completed=)` or `record`."""
    return node._completed_set or bool(plain_advanced(node)) or bool(node._recorded)


def _lane_counts(node: HandleState) -> dict[str | None, tuple[Number, Number | None]]:
    """Completed and total of its lanes, by unit; nested ones under None."""
    counts: dict[str | None, tuple[Number, Number | None]] = {}
    if node._extras is not None:
        counts.update(node._extras.sums)
    for lane in list(node._lanes or ()):
        key = None if lane.nested else lane.unit or node._unit
        done, total = counts.get(key, (0, 0))
        size = lane.total
        counts[key] = (done + lane.completed, None if total is None or size is None else total + size)
    return counts


def own_progress(node: HandleState) -> tuple[Number | None, Number | None, Mapping[str, Number]]:
    """What it counted itself: completed (None if nothing), total, and the counts in other units.

    Units that an earlier run completed are part of it.
    """
    total, more, before = node._total, node._extras, node._named_before
    done: Number | None = None
    others = _NO_COUNTS if more is None or not more.units else dict(more.units)
    if node._lanes is not None:
        lanes = _lane_counts(node)
        in_unit = lanes.pop(node._unit, None)
        lanes.pop(None, None)
        if lanes:
            others = dict(others)
            for unit, (amount, _) in lanes.items():
                others[unit] = others.get(unit, 0) + amount  # type: ignore[index, arg-type]
        if in_unit is not None and not node._counts_itself:
            more_before = ahead_of_loops(node)
            done, in_all = in_unit[0] + more_before, in_unit[1]
            total = total if total is not None or in_all is None else in_all + more_before
    if node._completed_set or plain_advanced(node):
        return counted(node), node._total, others
    if done is None and node._recorded and node._ratio is None and node._lanes is None:
        done = before + node._recorded
    elif done is None and node._counts_itself and node._ratio is None and node._lanes is not None:
        done = before  # it named a total, so its loops do not count
    elif done is None and before and node._ratio is None:
        done = before
    return done, total, others


def only_records(node: HandleState) -> bool:
    """Whether its records are all that it counted itself."""
    if not node._recorded or node._ratio is not None or node._lanes is not None:
        return False
    return not node._completed_set and not plain_advanced(node)


def counts_records(node: HandleState) -> bool:
    """Whether its records are all that it counts, in no unit of its own."""
    return only_records(node) and not node._unit_named


def only_restored(node: HandleState) -> bool:
    """Whether all that it counted was completed by an earlier run; what runs inside may count the rest."""
    if not node._named_before or node._counts_itself or node._ratio is not None or node._recorded:
        return False
    return node._lanes is None and not plain_advanced(node)


def life(node: HandleState) -> Any:
    """A value that changes with each unit that it completes, in any unit."""
    advanced = node._advanced
    units = (advanced if type(advanced) is int else plain_advanced(node)) + node._uncounted
    if node._lanes:
        units += sum(lane.completed for lane in list(node._lanes))
    more = node._extras
    if more is not None:
        units += node._recorded
        if more.sums:
            units += sum(done for done, _ in more.sums.values())
        if more.units:
            units += sum(tuple(more.units.values()))
    return units
