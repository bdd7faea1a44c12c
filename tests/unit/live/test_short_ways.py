"""The short ways that most looks of the ticker take say what the long ones say."""

from __future__ import annotations

import random

import pytest

import otel_progress as progress
from otel_progress import clock
from otel_progress.live.branches import find_wait, live_branches
from otel_progress.live.counting import own_progress
from otel_progress.live.engine import branch_verdicts
from otel_progress.live.engine import progress as far
from otel_progress.live.survey import Survey
from otel_progress.model.health import judge, plainly_moves
from otel_progress.model.status import Health
from otel_progress.testing import Capture


class Job:
    """An operation that does things at random: stages, counts, waits, children, loops."""

    def __init__(self, seed: int, captured: Capture) -> None:
        self.random = random.Random(seed)
        self.captured = captured
        limit = {"stall_after": self.random.choice([5.0, 40.0])} if seed % 3 else {}
        total = self.random.choice([None, 100])
        self.operation = progress.operation("job", total=total, slow_after=self.random.choice([None, 60]), **limit)
        self.operation.start()
        self.stages: list[progress.Stage] = []
        self.waits: list[progress.Waiting] = []
        self.children: list[progress.Operation] = []

    def act(self) -> None:
        """Do one thing."""
        here = self.random.choice([self.operation, *self.stages])
        what = self.random.randrange(10)
        if what <= 1 and len(self.stages) < 5:
            self.stages.append(here.stage("part", total=self.random.choice([None, None, 10])).start())
        elif what == 2 and self.stages:
            self.stages.pop(self.random.randrange(len(self.stages))).complete()
        elif what == 3 and len(self.waits) < 3:
            self.waits.append(here.waiting("somebody", overdue_after=self.random.choice([None, 3])))
            self.waits[-1].__enter__()
        elif what == 4 and self.waits:
            self.waits.pop().__exit__(None, None, None)
        elif what == 5 and len(self.children) < 2:
            self.children.append(progress.operation("child", parent=here, stall_after=4).start())
        elif what == 6 and self.children:
            self.children.pop().complete()
        elif what == 7:
            here.update(ratio=self.random.random())
        else:
            here.advance(self.random.choice([1, 2, 0.5]))
        self.captured.advance(self.random.choice([0.1, 1, 7]))

    def end(self) -> None:
        """End all of it."""
        while self.waits:
            self.waits.pop().__exit__(None, None, None)
        for child in self.children:
            child.complete()
        self.operation.complete()


@pytest.mark.parametrize("seed", range(12))
def test_the_short_ways_find_what_the_long_ones_find(seed: int, progress_capture: Capture) -> None:
    """One branch that plainly moves is what a look at all branches finds; and so are waits and counts."""
    job = Job(seed, progress_capture)
    operation = job.operation
    for _ in range(60):
        job.act()
        now = clock.monotonic()
        snapshot = operation.snapshot()
        verdict = judge(snapshot, snapshot.timestamp)
        assert snapshot.health is verdict.health
        if plainly_moves(snapshot):
            assert verdict.health is Health.PROGRESSING
            assert not verdict.overdue
        calm = branch_verdicts._calm(operation, now)
        if calm is not None:
            (found,) = branch_verdicts.examine(operation, now)
            assert found.live == calm
            assert found.verdict.health is Health.PROGRESSING
            assert found.branch.idle == calm.idle(now)
        waits = [
            live.waits(now) if live.child is None or live.wait else find_wait(live.child, now)
            for live in live_branches(operation)
        ]
        assert (find_wait(operation, now) is not None) is all(wait is not None for wait in waits)
        for node in (operation, *job.stages):
            if far._is_alone(node):
                found_by = Survey(operation).of(node)
                reached = own_progress(node)[0]
                assert reached == (found_by.reached if far.by_count(node, found_by) else reached)
    job.end()
