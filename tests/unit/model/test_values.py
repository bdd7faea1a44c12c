"""Values from a job: whatever they are, they harm neither the job nor other signals, and what is lost is counted."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import InvalidArgument, semconv
from otel_progress.model import values
from otel_progress.model.values import INT_MAX, INT_MIN, Drops
from otel_progress.model.wire import to_attributes
from otel_progress.testing import Capture, capture

INF, NAN = float("inf"), float("nan")


class Silent:
    """Its `str` and `repr` raise."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Lying:
    """Its `str` returns something other than a string."""

    def __str__(self) -> Any:
        return 5


class Vector:
    """Like a numpy array: adds to anything, and has no truth value."""

    def __add__(self, other: Any) -> Vector:
        return self

    __radd__ = __add__

    def __eq__(self, other: object) -> Any:
        return self

    def __ne__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    found: Any = "core"
    for _ in range(depth):
        found = [found]
    return found


def endless() -> Any:
    """Return a list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


GARBAGE: dict[str, Any] = {
    "nan": NAN,
    "inf": INF,
    "-inf": -INF,
    "huge": 10**400,
    "-huge": -(10**400),
    "64 bits": 2**63,
    "bytes": b"\xff\x00abc",
    "bytearray": bytearray(b"\xff"),
    "non-ascii": "Größe 進捗 🚀",
    "surrogate": "\ud800 alone",
    "nul": "a\x00b",
    "long": "x" * 1_000_000,
    "long bytes": b"x" * 1_000_000,
    "deep": nested(100_000),
    "endless": endless(),
    "silent": Silent(),
    "lying": Lying(),
    "list of anything": [1, "a", None, NAN, Silent(), b"\xff"],
    "long list": list(range(10_000)),
    "endless range": range(10**15),
    "set": {1, 2},
    "dict": {"a": {"b": NAN}},
    "none": None,
    "decimal": Decimal("1.5"),
    "fraction": Fraction(1, 3),
    "complex": 1j,
    "class": Silent,
    "function": nested,
    "vector": Vector(),
    "lock": object(),
}
NUMBERS = {"decimal": 1.5, "fraction": 1 / 3, "none": None}


@pytest.fixture(params=GARBAGE)
def garbage(request: pytest.FixtureRequest) -> Any:
    """Each kind of garbage."""
    return GARBAGE[request.param]


CALLS: dict[str, Callable[[Any], object]] = {
    "advance": lambda g: progress.advance(g),
    "completed": lambda g: progress.update(completed=g),
    "total": lambda g: progress.update(total=g),
    "ratio": lambda g: progress.update(ratio=g),
    "message": lambda g: progress.update(message=g),
    "set": lambda g: progress.set(a=g, b=1),
    "result": lambda g: progress.result(a=g),
    "heartbeat": lambda g: progress.heartbeat(a=g),
    "note": lambda g: progress.note(g, status=g, a=g),
    "record": lambda g: progress.record(g, item=g, component=g),
    "failed": lambda g: progress.record("failed", item=g, component=g),
    "input_tokens": lambda g: progress.usage(input_tokens=g),
    "cost": lambda g: progress.usage(cost=g, currency=g),
    "waiting": lambda g: progress.waiting(g, overdue_after=g).__enter__(),
    "cancel": lambda g: progress.request_cancel(g),
    "track unit": lambda g: list(progress.track([1], unit=g)),
    "stage name": lambda g: progress.stage(str, g) if g is str else progress.current(required=True).stage(g).start(),
    "stage options": lambda g: progress.stage(
        "s", weight=g, total=g, unit=g, description=g, message=g, expected=g, stall_after=g, attributes={"a": g}
    ).start(),
    "depends_on": lambda g: progress.stage("s", depends_on=[g]).start(),
    "fail": lambda g: progress.stage("s").start().fail(g),
    "operation": lambda g: (
        progress.operation("o", id=g, total=g, unit=g, description=g, agent=g, attributes={"a": g}).start().complete()
    ),
}


OPTIONS = {"stage options", "depends_on", "operation"}


@pytest.mark.parametrize("call", CALLS)
def test_garbage_harms_nothing(call: str, garbage: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a call is given, it returns; snapshots, events, spans and series stay right, and can be sent.

    Options of a new operation or stage may be rejected with InvalidArgument; wrong calls of a running job cause warnings.
    """
    with capture(run_series_after=0.0, metric_interval=1.0) as captured:
        with progress.operation("work", total=10) as op, progress.stage("step"):
            with suppress(InvalidArgument) if call in OPTIONS else nullcontext():
                CALLS[call](garbage)
            captured.advance(1)
            progress.update(message="after")
            json.dumps(op.snapshot().to_dict(), allow_nan=False)
            for value in to_attributes(op.snapshot()).values():
                if isinstance(value, str):
                    value.encode()
                else:
                    assert math.isfinite(value)
                    assert isinstance(value, float) or INT_MIN <= value <= INT_MAX
            op.summary()
        captured.advance(1)
        assert captured.ended("work").status.value == "completed"
        assert "work" in {span.name for span in captured.spans}
        sent = [log.attributes for log in captured.logs if log.event_name == semconv.OPERATION_ENDED]
        assert "work" in {attributes[semconv.OPERATION_NAME] for attributes in sent}
        assert "work" in {point.attributes[semconv.OPERATION_NAME] for point in captured.series}
        for span in captured.spans:
            for value in (span.attributes or {}).values():
                assert not isinstance(value, int) or INT_MIN <= value <= INT_MAX
    for record in caplog.records:
        assert record.exc_info is None
        assert " is ignored: " in record.message or "advance() takes numbers" in record.message


@pytest.mark.parametrize("bad", [NAN, INF, "text", [], None, 1j, Vector()], ids=lambda bad: type(bad).__name__)
def test_a_bad_advance_loses_nothing_that_was_counted(bad: Any, progress_capture: Capture) -> None:
    """After an advance by something that is no number, the count goes on from what was seen of it before."""
    with progress.operation("work", stall_after=5) as op:
        op.advance(5)
        progress_capture.advance(1)
        op.advance(bad)
        progress_capture.advance(1)
        assert op.snapshot().progress.completed == 5
        assert progress_capture.drops[semconv.DROP_VALUE] >= 1
        op.advance(2)
        progress_capture.look()
        assert op.snapshot().progress.completed == 7
        assert op.snapshot().idle == 0
        progress_capture.advance(5)
        assert op.snapshot().health.value == "silent"


@pytest.mark.parametrize(
    ("value", "known"), [(Decimal("2.5"), 2.5), (Fraction(1, 2), 0.5), (True, 1), (2**63 - 2, INT_MAX - 1)]
)
def test_numbers_of_every_kind_count(value: Any, known: float, progress_capture: Capture) -> None:
    """Decimals, fractions and large numbers count."""
    with progress.operation("work") as op:
        op.advance(value)
        assert op.snapshot().progress.completed == known


def test_lengths_beyond_64_bits(progress_capture: Capture) -> None:
    """Totals that add up to more than 64 bits are cut to that."""

    class Vast:
        def __len__(self) -> int:
            return INT_MAX

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    with progress.operation("work") as op:
        for _ in range(2):
            for _ in progress.track(Vast()):
                pass
        assert op.snapshot().progress.total == INT_MAX


def test_tokens_beyond_64_bits(progress_capture: Capture) -> None:
    """Tokens that add up to more than 64 bits are cut to that."""
    with progress.operation("work") as op:
        for _ in range(3):
            progress.usage(input_tokens=INT_MAX)
        assert op.snapshot().usage == {"input_tokens": INT_MAX}


# -- limits

LIMITS: dict[str, tuple[Callable[[], object], Callable[[Any], object], object, str]] = {
    "message": (
        lambda: progress.update(message="x" * 1_000_000),
        lambda s: len(s.message),
        values.MESSAGE_LENGTH,
        semconv.DROP_TEXT,
    ),
    "note": (lambda: progress.note("x" * 1_000_000), lambda s: len(s.notes[0].text), 1024, semconv.DROP_TEXT),
    "attribute": (lambda: progress.set(a="x" * 9999), lambda s: len(s.attributes["a"]), 1024, semconv.DROP_TEXT),
    "key": (
        lambda: progress.set(**{"k" * 9999: 1}),
        lambda s: len(next(iter(s.attributes))),
        values.NAME_LENGTH,
        semconv.DROP_TEXT,
    ),
    "10,000 attributes": (
        lambda: progress.set(**{f"k{n}": n for n in range(10_000)}),
        lambda s: len(s.attributes),
        values.ATTRIBUTE_COUNT,
        semconv.DROP_ATTRIBUTE,
    ),
    "10,000 results": (
        lambda: progress.result(**{f"k{n}": n for n in range(10_000)}),
        lambda s: len(s.result),
        values.ATTRIBUTE_COUNT,
        semconv.DROP_ATTRIBUTE,
    ),
    "10,000 outcomes": (
        lambda: [progress.record(f"o{n}") for n in range(10_000)],
        lambda s: len(s.outcomes),
        values.ATTRIBUTE_COUNT,
        semconv.DROP_ATTRIBUTE,
    ),
    "10,000 currencies": (
        lambda: [progress.usage(cost=1, currency=f"c{n}") for n in range(10_000)],
        lambda s: len(s.usage),
        values.ATTRIBUTE_COUNT,
        semconv.DROP_ATTRIBUTE,
    ),
    "10,000 elements": (
        lambda: progress.set(a=list(range(10_000))),
        lambda s: len(s.attributes["a"]),
        values.SEQUENCE_LENGTH,
        semconv.DROP_ATTRIBUTE,
    ),
    "10,000 units": (
        lambda: [list(progress.track([1], unit=f"u{n}")) for n in range(10_000)],
        lambda s: len(s.counters) <= values.ATTRIBUTE_COUNT + 16,
        True,
        "",
    ),
    "10,000 notes": (lambda: [progress.note(f"n{n}") for n in range(10_000)], lambda s: len(s.notes), 20, ""),
}


@pytest.mark.parametrize("name", LIMITS)
def test_everything_has_a_limit_and_what_it_drops_is_counted(name: str, progress_capture: Capture) -> None:
    """Texts, attributes, outcomes, units and notes have limits; what a limit drops is counted."""
    call, measure, limit, reason = LIMITS[name]
    with progress.operation("work") as op:
        call()
        assert measure(op.snapshot()) == limit
        assert not reason or progress_capture.drops.get(reason, 0) >= 1


def test_what_is_cut_says_so(progress_capture: Capture) -> None:
    """A text that was cut ends with an ellipsis."""
    with progress.operation("n" * 500) as op:
        assert len(op.name) == 200
        assert op.name.endswith("n…")


# -- the functions


@settings(max_examples=200, deadline=None)
@given(st.floats() | st.integers() | st.text() | st.binary() | st.none())
def test_number_is_finite_or_counted(value: Any) -> None:
    """A number is a finite float or a 64-bit int; everything else is `otherwise`, and every change is counted."""
    drops = Drops()
    found = values.number(value, drops, otherwise=-7)
    assert found is not None
    assert math.isfinite(found)
    assert INT_MIN <= found <= INT_MAX or isinstance(found, float)
    if isinstance(value, (int, float)) and found != value:
        assert drops == {semconv.DROP_VALUE: 1}


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=30), st.integers(2, 20))
def test_text_is_valid_and_short(given_text: str, limit: int) -> None:
    """A text is valid Unicode within its limit; a good one stays as it is."""
    drops = Drops()
    found = values.text(given_text, drops, limit)
    assert len(found) <= limit
    found.encode("utf-8")
    if len(given_text) <= limit and not any("\ud800" <= char <= "\udfff" for char in given_text):
        assert (found, drops) == (given_text, {})


@pytest.mark.parametrize(
    ("given_value", "known"),
    [
        (0.0, 0.0),
        (0, 0),
        (True, True),
        (NAN, "nan"),
        (-INF, "-inf"),
        (b"caf\xc3\xa9", "café"),
        ((), ()),
        ([1, 2], (1, 2)),
        ([0.0, 1.5], (0.0, 1.5)),
        ([1, 2.5], (1.0, 2.5)),
        ([1, True], ("1", "True")),
        (["a", 1], ("a", "1")),
        (frozenset({3}), (3,)),
        ({"a": 1}, '{"a": 1}'),
        (range(3), (0, 1, 2)),
        (range(10**15), tuple(range(values.SEQUENCE_LENGTH))),
    ],
)
def test_a_value_becomes_what_otlp_can_carry(given_value: object, known: object) -> None:
    """Scalars stay, of their own type; sequences become tuples of one type; the rest becomes text."""
    found = values.value(given_value, Drops())
    assert (found, type(found)) == (known, type(known))
    if isinstance(found, tuple):
        assert len({type(item) for item in found}) <= 1


def test_attributes_that_break_while_they_are_read() -> None:
    """A mapping that breaks when it is read is left out, and counted."""

    class Broken(dict[str, object]):
        def items(self) -> Any:
            raise RuntimeError("no items")

    drops = Drops()
    assert values.attributes(Broken(a=1), drops, {"b": 2}) == {"b": 2}
    assert drops == {semconv.DROP_ATTRIBUTE: 1}


def test_a_new_value_takes_the_place_of_the_old_even_when_full() -> None:
    """A key that is there already is never dropped; a None leaves the old value."""
    drops = Drops()
    full = values.attributes({f"k{n}": n for n in range(64)}, drops)
    again = values.attributes({"k0": "new", "k1": None, "k99": 1}, drops, full)
    assert (again["k0"], again["k1"], len(again), drops) == ("new", 1, 64, {semconv.DROP_ATTRIBUTE: 1})


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5), st.recursive(st.none() | st.floats() | st.text() | st.binary(), st.lists), max_size=5
    )
)
def test_any_attributes_can_be_sent(attributes: dict[str, Any]) -> None:
    """Any attributes at all make events and spans that can be sent."""
    with capture() as captured:
        with progress.operation("work", attributes=attributes) as op:
            op.note("x", **attributes) if all(
                k.isidentifier() and k not in {"text", "status"} for k in attributes
            ) else None
        captured.advance(1)
        (ended,) = [log for log in captured.logs if log.event_name == semconv.OPERATION_ENDED]
        assert ended.attributes[semconv.STATUS] == "completed"


def test_a_slow_number_holds_up_nobody_else(progress_capture: Capture) -> None:
    """A number whose conversion runs code of the user is converted outside our lock, and once."""
    from otel_progress.live.registry import registry

    held: list[bool] = []

    class Slow:
        def __radd__(self, other: object) -> Slow:
            return self

        def __float__(self) -> float:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return 7.0

    def look() -> None:
        free = registry.lock.acquire(timeout=5)
        held.append(not free)
        if free:
            registry.lock.release()

    with progress.operation("work") as op:
        op.advance(Slow())  # type: ignore[arg-type]
        assert op.snapshot().progress.completed == 7
        assert op.snapshot().progress.completed == 7
    assert held == [False]


def test_nested_values_are_json(progress_capture: Capture) -> None:
    """Dicts and nested lists given to note, set, result or as a message become JSON, not Python reprs."""
    with progress.operation("agent", attributes={"limits": {"pages": None}}) as op:
        progress.set(call={"tool": "search", "found": [1, 2.5, True, None, "é"]}, flat=["a", "b"])
        progress.note({"step": 1}, parts=[{"n": 1}, {"n": 2}])
        progress.update(message=["a", {"b": False}])
        progress.result(table=((1, 2), (3, 4)))
        seen = op.snapshot()
    assert seen.attributes == {
        "limits": '{"pages": null}',
        "call": '{"tool": "search", "found": [1, 2.5, true, null, "é"]}',
        "flat": ("a", "b"),
    }
    assert (seen.notes[0].text, seen.notes[0].attributes) == ('{"step": 1}', {"parts": '[{"n": 1}, {"n": 2}]'})
    assert seen.message == '["a", {"b": false}]'
    assert seen.result == {"table": "[[1, 2], [3, 4]]"}


def test_nested_values_are_bounded() -> None:
    """Values that are too deep, too many or refer to themselves are cut, marked and counted; NaN and infinity become text."""
    drops = Drops()
    itself: dict[str, Any] = {"a": NAN, "b": Silent(), 5: 2**70}
    itself["again"] = itself
    text = values.value(itself, drops, 100_000)
    assert isinstance(text, str)
    found = json.loads(text)
    assert (found["a"], found["5"]) == ("nan", INT_MAX)
    assert text.count("again") == values.NESTED_DEPTH
    many = json.loads(str(values.value({"rows": [[n] for n in range(100_000)]}, drops, 100_000)))
    assert len(many["rows"]) < values.NESTED_COUNT
    assert many["rows"][-1] == "…"
    assert drops[semconv.DROP_ATTRIBUTE] >= 2
