"""The other progress bars, with their defaults, under a clock of ours."""

from __future__ import annotations

import io
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import progressbar
import progressbar.bar
import tqdm.std
from rich.console import Console
from rich.progress import Progress

from otel_progress.testing import FakeClock


class Bar(Protocol):
    """A progress bar of one run."""

    def advance(self, units: float) -> None:
        """Add completed units."""

    def retotal(self, total: float) -> None:
        """Set a new total."""

    def eta(self, now: float) -> float | None:
        """Return the seconds left that it shows now."""

    def close(self) -> None:
        """End it."""


class Tqdm:
    """`tqdm`: an exponential mean of the pace of its last updates."""

    def __init__(self, total: float | None, restored: float) -> None:
        self.bar: Any = tqdm.std.tqdm(total=total, initial=restored, file=io.StringIO(), ncols=80)

    def advance(self, units: float) -> None:
        self.bar.update(units)

    def retotal(self, total: float) -> None:
        self.bar.total = total

    def eta(self, now: float) -> float | None:
        """As if it were redrawn now; its monitor thread redraws what has been silent for `maxinterval`."""
        bar = self.bar
        if bar.miniters > 1 and now - bar.last_print_t >= bar.maxinterval:
            bar.miniters = 1
        shown = bar.format_dict
        rate = shown["rate"] or ((bar.n - bar.initial) / shown["elapsed"] if shown["elapsed"] else None)
        return (bar.total - bar.n) / rate if rate and bar.total else None

    def close(self) -> None:
        self.bar.close()


class Rich:
    """`rich.progress`: the pace of the last 30 s."""

    def __init__(self, total: float | None, restored: float) -> None:
        self.progress = Progress(console=Console(file=io.StringIO()), get_time=_now, auto_refresh=False)
        self.task = self.progress.add_task("work", total=total, completed=restored)  # type: ignore[arg-type]

    def advance(self, units: float) -> None:
        self.progress.advance(self.task, units)

    def retotal(self, total: float) -> None:
        self.progress.update(self.task, total=total)

    def eta(self, now: float) -> float | None:  # noqa: ARG002 - it reads the clock itself
        return self.progress.tasks[0].time_remaining

    def close(self) -> None:
        pass


class ProgressBar2:
    """`progressbar2`: its smoothed ETA, as it was last drawn."""

    def __init__(self, total: float | None, restored: float) -> None:
        length = progressbar.UnknownLength if total is None else total
        self.bar: Any = progressbar.ProgressBar(
            min_value=restored, max_value=length, fd=io.StringIO(), term_width=80, max_error=False
        )
        self.drawn: tuple[float, float] | None = None
        self.bar.start()
        for widget in self.bar.widgets:
            if isinstance(widget, progressbar.widgets.ETA):
                widget._calculate_eta = self._seen(widget._calculate_eta)  # type: ignore[method-assign]

    def _seen(self, calculate: Callable[..., float]) -> Callable[..., float]:
        def call(*args: Any, **named: Any) -> float:
            seconds = calculate(*args, **named)
            self.drawn = seconds, _now()
            return seconds

        return call

    def advance(self, units: float) -> None:
        self.bar.update(self.bar.value + units)

    def retotal(self, total: float) -> None:
        self.bar.max_value = total

    def eta(self, now: float) -> float | None:
        return max(0.0, self.drawn[0] - (now - self.drawn[1])) if self.drawn else None

    def close(self) -> None:
        self.bar.finish(dirty=True)


_clock: FakeClock = FakeClock()


def _now() -> float:
    return _clock.monotonic()


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _Datetime:
        return cls.fromtimestamp(_clock.time_ns() / 1e9, tz)


@contextmanager
def on(clock: FakeClock) -> Iterator[None]:
    """Let all bars read this clock."""
    global _clock
    before, _clock = _clock, clock
    real: Any = tqdm.std.time  # type: ignore[attr-defined]
    module: Any = progressbar.bar
    kept = module.time, module.timeit, module.datetime
    wall = lambda: clock.time_ns() / 1e9  # noqa: E731
    tqdm.std.time = clock.monotonic  # type: ignore[attr-defined]
    tqdm.std.tqdm.monitor_interval = 0
    module.time = types.SimpleNamespace(time=wall, mktime=time.mktime)
    module.timeit = types.SimpleNamespace(default_timer=clock.monotonic)
    module.datetime = _Datetime
    try:
        yield
    finally:
        _clock = before
        tqdm.std.time = real  # type: ignore[attr-defined]
        module.time, module.timeit, module.datetime = kept


PEERS: dict[str, Any] = {"tqdm": Tqdm, "rich": Rich, "progressbar2": ProgressBar2}
