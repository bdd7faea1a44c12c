"""The plan of a run, drawn from a seed: which programs run, how often, and how."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.faults import deaths, hangs, healthy, outages, parallel, side_by_side, tasks, turns, waits
from benchmarks.faults.job import Job

Program = Callable[[Job], None]


@dataclass(frozen=True)
class Kind:
    """A program, how often it runs with one seed, and how often in short mode.

    Attributes:
        busy: whether it keeps a CPU busy; only one such program runs at a time.
        watched: whether it may run under `otel-progress run`.
        group: all of a group start together and share a Collector, which has an outage.
    """

    program: Program
    times: int = 4
    short: int = 0
    busy: bool = False
    watched: bool = False
    group: str = ""

    @property
    def name(self) -> str:
        """`hangs.deadlock`."""
        return f"{self.program.__module__.rpartition('.')[2]}.{self.program.__name__}"


KINDS: Final = tuple(
    {
        "silent": [
            Kind(hangs.deadlock, 8, 1),
            Kind(hangs.endless_loop, 5, 1, busy=True),
            Kind(hangs.sleeping_io, 7, 1),
            Kind(hangs.child_that_hangs, 3),
            Kind(hangs.empty_queue, 4),
            Kind(hangs.stuck_stage, 4),
            Kind(hangs.stuck_worker, 5),
            Kind(hangs.long_pause, 5),
            Kind(hangs.stuck_twice, 4),
            Kind(hangs.never_began, 4),
            Kind(hangs.heartbeats_only, 4),
            Kind(tasks.lost_await, 8, 1),
            Kind(tasks.silent_peer, 4),
            Kind(tasks.blocked_loop, 5, 1),
            Kind(tasks.two_locks, 4),
        ],
        "side by side": [
            Kind(parallel.one_of_gather, 4, 1),
            Kind(parallel.one_of_a_task_group, 4),
            Kind(parallel.one_of_as_completed, 4),
            Kind(parallel.tracked_generator, 4),
            Kind(parallel.one_of_anyio, 3),
            Kind(parallel.one_of_trio, 3),
            Kind(parallel.one_of_eight, 4, 1),
            Kind(parallel.one_loop_of_four, 4, 1),
            Kind(parallel.worker_behind_join, 4),
            Kind(parallel.lock_held_beside, 4),
            Kind(parallel.command_beside, 3),
            Kind(parallel.silent_socket_beside, 3),
            Kind(parallel.pause_of_one, 4),
            Kind(parallel.wait_beside_a_hang, 4, 1),
            Kind(parallel.overdue_beside, 4, 1),
            Kind(parallel.loop_beside, 4),
            Kind(parallel.back_and_forth, 4),
            Kind(parallel.stuck_child, 4, 1),
            Kind(parallel.hang_beside_a_child, 4),
            Kind(parallel.two_operations, 4),
        ],
        "healthy, side by side": [
            Kind(side_by_side.long_items, 4, 1),
            Kind(side_by_side.producers_and_consumers, 4),
            Kind(side_by_side.parent_of_children, 4, 1),
            Kind(side_by_side.parent_of_tasks, 4),
            Kind(side_by_side.one_that_may_idle, 4),
            Kind(side_by_side.back_off_of_one, 4),
            Kind(side_by_side.garbage, 2, busy=True),
            Kind(side_by_side.consumer_at_work, 3),
            Kind(side_by_side.loops_with_stages, 4, 1),
            Kind(side_by_side.batches_in_a_pool, 4),
            Kind(side_by_side.unequal_parts, 4),
            Kind(side_by_side.waits_for_its_workers, 4),
        ],
        "looping": [
            Kind(turns.retry_loop, 10, 1),
            Kind(turns.tool_cycle, 10, 1),
            Kind(turns.failing_stage, 6),
            Kind(turns.stage_cycle, 5),
            Kind(turns.spender, 4),
            Kind(turns.loop_that_ends, 4),
            Kind(turns.turns_after_one_hang, 3, 1),
            Kind(turns.polls_for_each_unit, 2),
        ],
        "dead": [
            Kind(deaths.killed, 12, 2, watched=True),
            Kind(deaths.killed_many, 3),
            Kind(deaths.left, 10, 1, watched=True),
            Kind(deaths.terminated, 4, watched=True),
            Kind(deaths.out_of_memory, 4, 1),
            Kind(deaths.out_of_memory_abort, 4, watched=True),
            Kind(deaths.stopped, 6, 1, watched=True),
            Kind(deaths.stopped_and_continued, 4, watched=True),
            Kind(deaths.slept, 4),
            Kind(deaths.frozen, 4, 1, busy=True, watched=True),
        ],
        "other": [
            Kind(waits.wait_in_time, 6, 1),
            Kind(waits.wait_overdue, 6, 1),
            Kind(waits.back_off, 4),
            Kind(waits.slow, 5, 1),
            Kind(waits.slow_by_plan, 4),
            Kind(waits.not_started, 4),
        ],
        "healthy": [
            Kind(healthy.plain, 7),
            Kind(healthy.slow_but_moving, 8, 1),
            Kind(healthy.bursts, 6, 1),
            Kind(healthy.huge_totals, 4, 1),
            Kind(healthy.one_in_a_huge_total, 3),
            Kind(healthy.tiny_stages, 4, 1),
            Kind(healthy.threads, 4),
            Kind(healthy.pool, 6),
            Kind(healthy.coroutines, 4),
            Kind(healthy.generator, 4),
            Kind(healthy.children, 4, 1),
            Kind(healthy.retries_that_succeed, 4),
            Kind(healthy.same_steps_for_each_item, 4),
            Kind(healthy.stages_for_each_item, 4),
            Kind(healthy.model_that_answers, 4),
            Kind(healthy.work_that_beats, 4),
            Kind(healthy.busy, 2, busy=True),
            Kind(healthy.without_limits, 5, 1),
            Kind(healthy.patient, 3),
            Kind(healthy.without_units, 3),
            Kind(healthy.crowd, 1, 1),
        ],
        "outage": [
            Kind(outages.moving, 5, 2, group="outage"),
            Kind(outages.stuck, 4, 1, group="outage"),
            Kind(outages.killed, 4, 1, group="outage"),
            Kind(outages.ending, 3, group="outage"),
        ],
    }.items()
)
WITNESS: Final = Kind(healthy.witness)
PROGRAMS: Final = {kind.name: kind.program for kind in (WITNESS, *(kind for _, kinds in KINDS for kind in kinds))}


@dataclass(frozen=True)
class Case:
    """One process to run."""

    number: int
    kind: Kind
    family: str
    seed: int
    watched: bool

    @property
    def name(self) -> str:
        """A name that is unique in a run; the ids of its operations begin with it."""
        return f"{self.number}-{self.kind.name}"


def draw(seed: int, *, short: bool, only: Sequence[str] = ()) -> list[Case]:
    """Return the cases of a run in order, or those whose name contains a text; groups stay together."""
    chance = random.Random(seed)
    drawn = [
        (kind, family, number)
        for family, kinds in KINDS
        for kind in kinds
        if not only or any(text in kind.name for text in only)
        for number in range(kind.short if short else kind.times)
    ]
    chance.shuffle(drawn)
    grouped = [item for item in drawn if item[0].group]
    alone = [item for item in drawn if not item[0].group]
    middle = len(alone) // 3
    ordered = [*alone[:middle], *grouped, *alone[middle:]]
    ordered.sort(key=lambda item: item[0].program is not healthy.patient)  # the longest first
    return [
        Case(number, kind, family, chance.getrandbits(32), kind.watched and count % 2 == 0)
        for number, (kind, family, count) in enumerate(ordered)
    ]
