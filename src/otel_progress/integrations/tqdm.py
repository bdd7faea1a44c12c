"""tqdm: each bar that lasts is a stage, or an operation where none runs.

A loop over a bar is counted by a lane below it, as the bar's own `n` is old while a loop slows down; bars that are
moved by `update()` are read. What Gradio or a subclass puts around tqdm's methods stays.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, GeneratorType
from typing import Any, Final

from otel_progress.integrations.naming import named
from otel_progress.integrations.switch import Patch, Switch
from otel_progress.live.late import Late, is_all

LIBRARY: Final = "tqdm"
TESTED: Final = ("4.60", "5")
MODULES: Final = ("tqdm.std",)
OURS: Final = "_otel_progress"
"""The attribute of a bar that has what we know of it."""
UNITS: Final = {"it": None, "B": "By", "b": "bit"}
"""Units of tqdm in UCUM; `it` says nothing."""
_switch = Switch("tqdm")
_patch: Final = Patch()


def install() -> None:
    """Patch the class of all bars.

    Raises:
        AttributeError: if it has no such methods.
    """
    makers = {"__init__": _init, "__iter__": _iter, "__exit__": _exit, "__del__": _del, "update": _update}
    bars = sys.modules["tqdm.std"].tqdm
    _patch.put(bars, {**makers, "close": _close})
    if "iterable" not in vars(bars):
        bars.iterable = _Iterable()
    _switch.on = True


def uninstall() -> None:
    """Restore the class; a method that somebody patched after us keeps ours below, which does nothing."""
    _switch.on = False
    _patch.restore()
    bars = sys.modules["tqdm.std"].tqdm
    if isinstance(vars(bars).get("iterable"), _Iterable):
        del bars.iterable


class Bar(Late):
    """What we know of a bar."""

    __slots__ = (
        *("_bar", "_desc", "_manual", "_name", "_names_total", "_scale", "_start", "_unit"),
        *("begins", "dropped", "is_asynchronous"),
    )

    def __init__(self, bar: Any, given: dict[str, Any], frame: FrameType) -> None:
        """Of a bar that was just made with these options, called from this frame."""
        super().__init__()
        self._bar = weakref.ref(bar)
        scale = given.get("unit_scale")
        self._scale: float = scale if isinstance(scale, (int, float)) and not isinstance(scale, bool) else 1
        unit = given.get("unit") or "it"
        self._unit = UNITS.get(unit, unit.strip() or None)
        self._start: float = given.get("initial") or 0
        self._names_total = given.get("total") is not None
        self._desc = given.get("desc") or ""
        self._name = named(str(self._desc), frame)
        self._manual: float = 0
        self.begins: CodeType | None = None
        """The code of a generator of it that has not begun."""
        self.dropped = False
        self.is_asynchronous: bool | None = None
        """Whether `async for` moves it; None before it moved."""

    def name(self) -> str:
        """Its first description without numbers, else the function that made it."""
        return self._name

    def unit(self) -> str | None:
        """Its unit."""
        return self._unit

    def initial(self) -> float:
        """Where it began."""
        return self._start * self._scale

    def size(self, _: Iterable[Any]) -> int | None:
        """The items of its loop, as the bar asked for them: a `__len__` of the program is called once."""
        bar = self._bar()
        total: Any = None if bar is None else vars(bar).get("total")
        if not isinstance(total, (int, float)) or not math.isfinite(total):
            return None
        return int(total - self._start if self._names_total else total)

    def count(self, n: Any) -> None:
        """Count what a bar that is switched off does not; what is no number is nobody's business there."""
        try:
            self._manual += float(n)
        except (TypeError, ValueError):
            pass

    def read(self) -> tuple[float | None, float | None, str | None]:
        """Its count (unless its loop is counted), total and words."""
        bar = self._bar()
        if bar is None:
            return self._read
        about = vars(bar)  # a subclass may answer to any name
        total = about.get("total")
        done: Any = None
        if self.lane is None or self._scale != 1:
            done = self._start + self.lane.completed if self.lane is not None else bar.n + self._manual
            done *= self._scale
        desc, postfix = about.get("desc") or self._desc, about.get("postfix")
        words = ", ".join(str(each).strip().removesuffix(":") for each in (desc, postfix) if each)
        return done, None if total is None else total * self._scale, words or None

    def over(self) -> str | None:
        """Its loop is over, or the bar is gone."""
        return super().over() or ("completed" if self.lane is None and self._bar() is None else None)


class _Source:
    """What the generator of a loop gets as the iterable of its bar."""

    __slots__ = ("_iterable", "_known")

    def __init__(self, iterable: Any, known: Bar) -> None:
        self._iterable, self._known = iterable, known

    def __iter__(self) -> Iterator[Any]:
        return _counted(self._iterable, self._known)


class _Iterable:
    """The attribute `iterable` of a bar: as without us, but for the generator that begins to loop over it."""

    def __get__(self, bar: Any, kind: Any = None) -> Any:
        if bar is None:
            raise AttributeError("iterable")
        try:
            found = vars(bar)["iterable"]
        except KeyError:
            raise AttributeError(f"{type(bar).__name__!r} object has no attribute 'iterable'") from None
        known: Bar | None = vars(bar).get(OURS)
        if known is None or known.begins is None or sys._getframe(1).f_code is not known.begins:
            return found
        known.begins = None
        return _Source(found, known)

    def __set__(self, bar: Any, value: Any) -> None:
        vars(bar)["iterable"] = value

    def __delete__(self, bar: Any) -> None:
        if vars(bar).pop("iterable", self) is self:
            raise AttributeError("iterable")


def _counted(iterable: Any, known: Bar) -> Iterator[Any]:
    try:
        if _switch.on and hasattr(iterable, "__iter__"):
            return known.loop(iterable, None)
    except BaseException:
        _switch.failed()
    return iter(iterable)


def _init(plain: Any) -> Any:
    names = ("iterable", "desc", "total")

    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807
        plain(self, *args, **options)
        if _switch.on and OURS not in vars(self):
            try:
                given = {**dict(zip(names, args)), **options}
                bar = Bar(self, given | _known(self), sys._getframe(1))
                vars(self)[OURS] = bar
                bar.begin()
            except BaseException:
                _switch.failed()

    return __init__


def _known(bar: Any) -> dict[str, Any]:
    """What the bar says of itself; one that is switched off says nothing."""
    found = {name: vars(bar).get(name) for name in ("unit", "unit_scale", "initial", "desc")}
    return {name: value for name, value in found.items() if value is not None}


def _iter(plain: Any) -> Any:
    def __iter__(self: Any) -> Any:  # noqa: N807
        known: Bar | None = vars(self).get(OURS)
        if known is None or not _switch.on or known.lane is not None:
            return plain(self)
        found = plain(self)
        if type(found) is GeneratorType:  # which has not begun
            known.begins = found.gi_code
            return found
        return found if found is self else _counted(found, known)  # Gradio's own iterator

    return __iter__


def _update(plain: Any) -> Any:
    def update(self: Any, n: Any = 1) -> Any:
        known: Bar | None = vars(self).get(OURS)
        if known is not None and known.lane is None and known.ended is None:
            known.moved()
            if known.is_asynchronous is None:
                known.is_asynchronous = sys._getframe(1).f_code.co_name == "__anext__"
            if self.disable:
                known.count(n)
        return plain(self, n)

    return update


def _close(plain: Any) -> Any:
    def close(self: Any) -> Any:
        found = plain(self)
        known: Bar | None = vars(self).get(OURS)
        if known is not None and known.ended is None:
            try:
                if known.lane is None or known.lane.ended:
                    known.end(_why(known, sys._getframe(1).f_code), later=known.dropped)
                # else the ticker hears that the loop is over: this may run in a finalizer
            except BaseException:
                _switch.failed()
        return found

    return close


def _why(known: Bar, caller: CodeType) -> str | BaseException:
    """Why a bar ends that is closed by this code: an `async for` ends it itself, if it is not left before."""
    if caller.co_name == "__anext__":
        error = sys.exc_info()[1]
        return "completed" if error is None or isinstance(error, (StopIteration, StopAsyncIteration)) else error
    if not (known.dropped and known.is_asynchronous):
        return "completed"
    done, total, _ = known.seen()
    return "completed" if is_all(done, total) else "left"


def _exit(plain: Any) -> Any:
    def __exit__(self: Any, kind: Any, error: Any, trace: Any) -> Any:  # noqa: N807
        known: Bar | None = vars(self).get(OURS)
        if known is not None and isinstance(error, BaseException) and known.ended is None:
            known.ended = error
            known.end()
        return plain(self, kind, error, trace)

    return __exit__


def _del(plain: Any) -> Any:
    def __del__(self: Any) -> None:  # noqa: N807
        known: Bar | None = vars(self).get(OURS)
        if known is not None:
            known.dropped = True
        plain(self)

    return __del__
