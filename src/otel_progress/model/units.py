"""Durations, counts, sizes, rates and units as people read them.

The page's `words.js` says them in the same way; `tests/words.json` holds the cases that both must pass.

In a sentence a duration is spelled out, `3 min 12 s`, whether it ticks or not. Only the columns of figures on the
terminal (elapsed time) are `3:12`, which keeps its width. Evidence on the wire is in seconds, `for 192 s,
stall_after is 45.5 s`, so that a reader can let it tick; every reader shows it through `spelled`.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.model.values import Number

BYTES: Final = frozenset({"By", "B"})
"""The units that are bytes: UCUM's, and the one that people write."""
_MEASURES: Final = frozenset({"min", "mol", "rad", "deg", "cal", "bar", "sec"})
_IRREGULAR: Final = {"child": "children", "person": "people"}
_ONE: Final = 59.5 / 60
"""A rate from this on is one a unit of time: the smaller unit would say `60/min`."""
_LARGER: Final = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))


def duration(seconds: float) -> str:
    """A duration in a sentence: `420 ms`, `2.4 s`, `45 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`."""
    if 0 < seconds < 0.9995:
        thousandths = seconds * 1000
        return f"{thousandths:.2g} ms" if thousandths < 9.95 else f"{thousandths:.0f} ms"
    tenths = int(max(0.0, seconds) * 10 + 0.5)
    if tenths < 600:
        return f"{tenths / 10:g} s"
    whole = int(seconds + 0.5)
    unit, size, smaller, part = next(larger for larger in _LARGER if whole >= larger[1])
    rest = whole % size // part
    return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")


def lasting(seconds: float) -> str:
    """A duration that still grows, in a sentence: in whole seconds."""
    return duration(math.floor(max(0.0, seconds)))


def in_seconds(seconds: float) -> str:
    """A limit in evidence on the wire: `45.5 s`, `1800 s`, `20 ms`; with at most one decimal."""
    return duration(seconds) if seconds < 59.95 else f"{seconds:.1f}".removesuffix(".0") + " s"


def spelled(evidence: str, ticked: float = 0.0, least: float = 0.0) -> str:
    """Evidence from the wire with its durations spelled out: `for 3 min 12 s, stall_after is 45.5 s`.

    Its first `for` is advanced by `ticked` seconds, and is at least `least`.
    """

    def tick(found: re.Match[str]) -> str:
        return f"for {lasting(max(least, int(found[1]) + ticked))}"

    return _SPELLED.sub(_spell, _CLOCK.sub(tick, evidence, count=1))


_CLOCK: Final = re.compile(r"\bfor (\d+) s\b")
_SPELLED: Final = re.compile(r"\b(for |is |until |ended |progress |, )(\d+(?:\.\d)?) s\b")
"""A duration in evidence, behind the words that lead to one: names in the evidence stay as they are."""


def _spell(found: re.Match[str]) -> str:
    return found[1] + duration(float(found[2]))


ALMOST_DONE: Final = "almost done"
_LAST: Final = (3.0, 7.5)
"""The most seconds that are left, and the upper bound of them, of what is almost done."""
BEYOND: Final = "beyond its total"
ALL_COUNTED: Final = "all counted"
_ROUNDING: Final = 1e-9
"""The part by which a sum of fractions may exceed a total."""
_STEPS: Final = (
    *((30, 5), (60, 10), (180, 30), (600, 60), (3_600, 300)),
    *((10_800, 1_800), (129_600, 3_600), (345_600, 43_200)),
    *((1_728_000, 86_400), (8_640_000, 864_000), (63_072_000, 4_320_000), (630_720_000, 31_536_000)),
)
"""Up to how many seconds a forecast is rounded to which step."""
_WIDE: Final = 1.5
"""An interval is said from this ratio of its bounds on."""
_SHAKEN: Final = [(scale, wide) for wide in (1.35, 1.75) for scale in (0.92, 1.0, 1.08)]
"""Nearby estimates and limits; while one of them has the text shown before, that text stays."""
_AGES: Final = 100 * 31_536_000.0
"""A hundred years: beyond them, only that is said."""


def left(eta: float, low: float | None = None, high: float | None = None, before: str = "") -> str:
    """How much time is left, rounded as roughly as it is known: `about 4 min`, `2 to 5 min`, `up to 5 min`.

    The last seconds are `almost done`, if the upper bound agrees.

    Args:
        eta: the seconds that are left.
        low: the lower bound of its interval.
        high: the upper bound of its interval.
        before: the text shown before; it stays until the estimate has clearly left it. Without it the text depends on
            the numbers alone.
    """
    low, high = eta if low is None else low, eta if high is None else high
    if not all(map(math.isfinite, (eta, low, high))):
        return ""
    said = _left(eta, low, high, _WIDE)
    if before and before != said and any(_left(eta * k, low * k, high * k, wide) == before for k, wide in _SHAKEN):
        return before
    return said


def remaining(text: str, *, waits: bool = False, source: str | None = None) -> str:
    """A text of `left` as a statement: `about 4 min left`, `almost done`; every view has its words from here.

    Args:
        text: what `left` returned.
        waits: whether it is in a declared wait, in which the estimate stands still: `then about 4 min`.
        source: where the estimate comes from; one from `children` goes on in a wait, as it waits for them.
    """
    if not text:
        return ""
    if waits and source != "children":
        return f"then {text}"
    return text if text == ALMOST_DONE else f"{text} left"


def unforeseen(completed: float | None, total: float | None, state: str = "", *, had: bool = False) -> str:
    """Why there is no estimate: `no estimate yet`, `all counted`, `beyond its total`; empty without a total.

    After the first unit there may have been one, so it says `no estimate` from then on. `all counted` says that all
    units are done and the work goes on.

    Args:
        completed: units that are done.
        total: units in all.
        state: the word for a state in which nothing moves.
        had: whether an estimate was shown before.
    """
    if not total:
        return ""
    if completed is not None and completed >= total:
        return BEYOND if is_beyond(completed, total) else ALL_COUNTED
    if state:
        return f"no estimate while {state}"
    return "no estimate" if completed or had else "no estimate yet"


def is_beyond(completed: float | None, total: float | None) -> bool:
    """Whether more units were counted than there should be in all."""
    return bool(total) and completed is not None and completed > (total or 0) * (1 + _ROUNDING)


def _left(eta: float, low: float, high: float, wide: float) -> str:
    if eta < _LAST[0] and high < _LAST[1]:
        return ALMOST_DONE
    (from_, unit), (to, larger) = _rounded(low), _rounded(high)
    if high >= _AGES:
        return f"over {from_} {unit}"
    if high <= wide * low or (from_, unit) == (to, larger):
        return "about {} {}".format(*_rounded(eta))
    if low < 2.5 or low < high / 10:
        return f"up to {to} {larger}"
    return f"{from_} to {to} {larger}" if unit == larger else f"{from_} {unit} to {to} {larger}"


def _rounded(seconds: float) -> tuple[str, str]:
    """A number and its unit: `4`, `min`."""
    step = next((step for most, step in _STEPS if seconds < most), 315_360_000)
    value = max(step, math.floor(min(seconds, _AGES) / step + 0.5) * step)
    size, unit = next((size, unit) for least, size, unit in _UNITS if value >= least)
    return count(value / size), unit


_UNITS: Final = (
    (63_072_000, 31_536_000, "y"),
    (129_600, 86_400, "d"),
    (3_600, 3_600, "h"),
    (60, 60, "min"),
    (0, 1, "s"),
)


def percent(ratio: float) -> str:
    """A whole percentage, rounded down, so that 100% means done: `91%`."""
    return f"{int(min(99.5, ratio * 100 + 1e-6)) if ratio < 1 else 100}%"


def part(ratio: float) -> str:
    """A rate or a share in percent, rounded to the nearest: `17%`; a part is never rounded to nothing or to all."""
    if 0 < ratio < 0.005:
        return "under 1%"
    if 0.995 <= ratio < 1:
        return "over 99%"
    return f"{math.floor(ratio * 100 + 0.5)}%"


def stopwatch(seconds: float) -> str:
    """A duration in a column of figures: `0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def count(value: float) -> str:
    """A number with grouped digits, three of them if it is small: `1,102`, `12.3`, `0.5`."""
    if isinstance(value, int) or value.is_integer() or abs(value) >= 999.5:
        return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"
    return f"{value:.3g}"


def money(value: float, currency: str) -> str:
    """An amount of money: `12,345.67 USD`, `0.50 EUR`, `0.002355 USD`, `6,173 JPY`.

    It has two decimals from 1 up (none in a currency without them), and four significant digits below, at least two
    decimals.
    """
    apart = abs(value)
    least = 0 if currency in _WHOLE else 2
    if not math.isfinite(value):
        return f"{value} {currency}"
    if apart >= 1 or apart < _SMALLEST:
        scale = 10**least
        apart = math.floor(apart * scale + 0.5) / scale if apart < _EXACT else apart
        said = f"{apart:,.{least}f}"
    else:
        said = f"{apart:.{3 - math.floor(math.log10(apart))}f}"
        whole, _, decimals = said.partition(".")
        said = f"{whole}.{decimals.rstrip('0'):<02}" if decimals.strip("0") or least else whole
    return f"{'-' if value < 0 else ''}{said} {currency}"


_SMALLEST: Final = 1e-12
"""An amount below this is rounding alone."""
_EXACT: Final = 1e13
_WHOLE: Final = frozenset(
    [
        *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"),
        *("PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"),
    ]
)
"""Currencies without decimals (ISO 4217)."""


def size(value: float) -> str:
    """Bytes, with one decimal from 1 kB: `999 B`, `3.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def amount(value: float, unit: str = "") -> str:
    """A count, or a size if the unit is bytes."""
    return size(value) if unit in BYTES else count(value)


def rate(per_second: float | None, unit: str = "") -> str:
    """`143/s`, or `8.4/min` and `3.6/h` if it is slow; empty if there is none."""
    if not per_second:
        return ""
    per, seconds = next(((per, n) for per, n in (("s", 1), ("min", 60)) if per_second * n >= _ONE), ("h", 3600))
    value = per_second * seconds
    return f"{size(value) if unit in BYTES else f'{value:,.0f}' if value >= 10 else f'{value:.1f}'}/{per}"


def plural(unit: str, count: float = 2) -> str:
    """Return the plural of a unit (`files` for `file`) unless the count is 1; units of measurement stay unchanged."""
    plain = len(unit) > 2 and unit.isascii() and unit.isalpha() and unit.islower() and unit not in _MEASURES
    if unit in _IRREGULAR:
        return unit if count == 1 else _IRREGULAR[unit]
    if not plain or count == 1 or (unit.endswith("s") and unit[-2] != "s"):
        return unit
    if unit.endswith("y") and unit[-2] not in "aeiou":
        return f"{unit[:-1]}ies"
    return unit + ("es" if unit.endswith(("ch", "sh", "ss", "x")) and unit != "epoch" else "s")


def units(completed: Number, total: Number | None, unit: str) -> str:
    """How much is done, in a sentence: `3 of 10 files`, `1.2 kB of 3.0 MB`."""
    whole = "" if total is None else f" of {amount(total, unit)}"
    named = "" if unit in BYTES else f" {plural(unit, completed if total is None else total)}"
    return f"{amount(completed, unit)}{whole}{named}"
