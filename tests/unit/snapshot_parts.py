"""Strategies for random snapshots, with numbers as exact as they are on the wire."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from otel_progress import Health, Progress, Snapshot, StageSnapshot, Status
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import SpanIds, Wait
from otel_progress.model.stage_runs import StageRuns
from otel_progress.model.values import INT_MAX, INT_MIN, Attributes

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
# What is exact on the wire: to the millisecond, and six digits; of rates and estimates four.
FLOAT = st.integers(0, 999_999).map(lambda n: n / 1000)
ROUGH = st.integers(0, 9_999).map(lambda n: n / 1000)
LIMIT = FLOAT.filter(bool)
NUMBER = st.integers(0, INT_MAX) | FLOAT
SCALAR = TEXT | st.booleans() | st.integers(INT_MIN, INT_MAX) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = SCALAR | st.lists(TEXT, max_size=3).map(tuple) | st.lists(st.integers(-5, 5), max_size=3).map(tuple)
ATTRIBUTES = st.dictionaries(NAME, VALUE, max_size=3).map(Attributes)
COUNTS = st.dictionaries(NAME, NUMBER, max_size=3).map(Attributes)
ESTIMATE = st.builds(Estimate, ROUGH, ROUGH, ROUGH, st.sampled_from(["rate", "plan"]))
RATIO = st.none() | st.integers(0, 10**6).map(lambda n: n / 10**6)
PROGRESS = st.builds(
    Progress, st.none() | NUMBER, st.none() | NUMBER, NAME, RATIO, RATIO, st.none() | ROUGH, st.none() | ESTIMATE
).map(lambda one: replace(one, ratio_raw=one.ratio) if one.ratio_raw is None else one)
# A limit is sent as what is left of it, so exact numbers come back exact.
WAIT = st.builds(Wait, TEXT, st.integers(0, 1000).map(float), st.none() | st.integers(1, 1000).map(float))
MILLI = st.integers(0, 10**9).map(lambda n: n / 1000)
STAGE = st.builds(
    StageSnapshot,
    name=NAME,
    path=NAME,
    status=st.sampled_from(Status),
    progress=PROGRESS,
    planned=st.booleans(),
    weight=st.none() | FLOAT,
    expected=st.none() | LIMIT,
    started_at=st.none() | FLOAT,
    elapsed=MILLI,
    idle=MILLI,
    stall_after=st.none() | LIMIT,
    description=st.none() | TEXT,
    message=st.none() | TEXT,
    reason=st.none() | TEXT,
    critical=st.booleans(),
    depends_on=st.lists(NAME, max_size=2).map(tuple),
    wait=st.none() | WAIT,
    outcomes=COUNTS,
    counters=COUNTS,
    attributes=ATTRIBUTES,
    span_id=st.none() | st.just("ab" * 8),
)


def closed(snapshot: Snapshot) -> Snapshot:
    """The same operation; if it ended, none of its stages is open."""
    if not snapshot.status.final:
        return snapshot
    ended = [stage if stage.status.final else replace(stage, status=snapshot.status) for stage in snapshot.stages]
    return replace(snapshot, stages=tuple(ended))


RUNS = st.builds(
    StageRuns,
    NAME,
    st.dictionaries(st.sampled_from([s.value for s in Status]), st.integers(1, 999), min_size=1).map(Attributes),
    *[FLOAT] * 5,
    st.integers(0, 999),
)
SPAN = st.builds(
    SpanIds,
    st.just("cd" * 16),
    st.just("ab" * 8),
    st.none() | st.just("ef" * 8),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**62),
    st.sampled_from(["internal", "server"]),
).map(lambda ids: ids if ids.parent_id else replace(ids, parent_remote=False))
SNAPSHOT = st.builds(
    Snapshot,
    operation_id=NAME,
    name=NAME,
    status=st.sampled_from(Status),
    timestamp=FLOAT,
    attempt=st.integers(1, 10**6),
    parent_id=st.none() | NAME,
    sequence=st.integers(0, 10**9),
    health=st.sampled_from(Health),
    health_reason=st.none() | TEXT,
    reason=st.none() | TEXT,
    hint=st.none() | TEXT,
    started_at=st.none() | FLOAT,
    elapsed=FLOAT,
    idle=FLOAT,
    stall_after=st.none() | LIMIT,
    slow_after=st.none() | LIMIT,
    start_within=st.none() | LIMIT,
    stage=st.none() | TEXT,
    message=st.none() | TEXT,
    description=st.none() | TEXT,
    agent=st.none() | TEXT,
    progress=PROGRESS,
    stages=st.lists(STAGE, max_size=2).map(tuple),
    folded=st.lists(st.tuples(st.sampled_from([s.value for s in Status]), st.integers(1, 99), MILLI), max_size=2).map(
        tuple
    ),
    repeated=st.lists(RUNS, max_size=2).map(tuple),
    wait=st.none() | WAIT,
    outcomes=COUNTS,
    counters=COUNTS,
    usage=COUNTS,
    result=ATTRIBUTES,
    attributes=ATTRIBUTES,
    heartbeat_at=st.none() | FLOAT,
    cancel_requested=st.booleans(),
    span=st.none() | SPAN,
).map(lambda s: closed(replace(s, status=Status.WAITING) if s.wait else s))
