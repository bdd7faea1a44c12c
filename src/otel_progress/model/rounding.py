"""How exact numbers are on the wire: as much as they mean, since further digits cost bytes and say nothing."""

from __future__ import annotations

from otel_progress.model.estimate import Estimate
from otel_progress.model.values import Number


def seconds(measured: float) -> float:
    """A measured duration, to the millisecond."""
    return round(measured, 3)


def moment(unix: float) -> float:
    """A time since 1970, to the microsecond."""
    return round(unix, 6)


def figure(number: Number) -> Number:
    """A limit, to six significant digits; an integer stays as it is."""
    return float(f"{number:.6g}") if isinstance(number, float) else number


def pace(rate: Number) -> Number:
    """A rate, to four significant digits; an integer stays as it is."""
    return float(f"{rate:.4g}") if isinstance(rate, float) else rate


def share(ratio: float) -> float:
    """A ratio, to the millionth; it is 1 only where it was."""
    rounded = round(ratio, 6)
    return 0.999999 if rounded >= 1 > ratio else rounded


def estimate(eta: Estimate) -> tuple[float, float, float]:
    """An estimate and its bounds, to four significant digits, and the millisecond at the most."""
    return _four(eta.eta), _four(eta.low), _four(eta.high)


def _four(number: float) -> float:
    return round(float(f"{number:.4g}"), 3)
