"""Integrations that `configure(instrument=...)` or `OTEL_PROGRESS_INSTRUMENT` chose: found by name, put in and out."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otel_progress import forks
from otel_progress.errors import InvalidArgument
from otel_progress.instrumenting.imports import BUILT_IN, watch
from otel_progress.live.guard import say
from otel_progress.live.preload import nearest
from otel_progress.model.origin import of_the_job

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "otel_progress.integrations"
"""The group of entry points by which integrations are found."""
AUTO: Final = "auto"
NONE: Final = "none"

_on: dict[str, Chosen] = {}
_is_chosen = False
_lock = threading.RLock()


class Chosen:
    """An integration that is on: installed right after the import of its library, or at once if that was before."""

    def __init__(self, name: str, integration: Any = None) -> None:
        """Of one of ours the module is imported when its library is; another's is given."""
        self.name = name
        self._module = integration
        self._modules: tuple[str, ...] = BUILT_IN[name] if integration is None else tuple(integration.MODULES)
        self._told = False

    def start(self, named: bool) -> None:
        """Install it now or when its library is imported; warn if a library that was named is missing."""
        for module in self._modules:
            watch.on(module, self.install)
        if not self._modules or any(module in sys.modules for module in self._modules):
            self.install()
        elif named and not any(_is_there(module.partition(".")[0]) for module in self._modules):
            self._tell("%s is not installed; %s is tested", self._integration().LIBRARY, self._tested())

    def stop(self) -> None:
        """Take it out."""
        watch.off(self.install)
        if self._module is not None:
            try:
                self._module.uninstall()
            except Exception as error:
                self._tell("it can't be taken out: %s", error)

    def install(self) -> None:
        """Install it; a library of a version that was never tried is told once, and one that it doesn't fit, too."""
        version = ""
        try:
            version = _version(self._integration().LIBRARY)
            self._integration().install()
        except BaseException as error:
            if of_the_job(error):
                raise
            self._tell(
                "it is off: %s %s does not fit, %s is tested: %s", self._library(), version, self._tested(), error
            )
            return
        since, below = self._module.TESTED
        if version and not _numbers(since) <= _numbers(version) < _numbers(below):
            self._tell("%s %s may be seen in part, %s is tested", self._library(), version, self._tested())

    def _integration(self) -> Any:
        if self._module is None:
            self._module = import_module(f"otel_progress.integrations.{self.name}")
        return self._module

    def _library(self) -> str:
        return getattr(self._module, "LIBRARY", None) or self.name

    def _tested(self) -> str:
        since, below = getattr(self._module, "TESTED", ("?", "?"))
        return f"{since} to below {below}"

    def _tell(self, text: str, *args: object) -> None:
        if not self._told:
            self._told = True
            say(f"integration {self.name}: {text}", *args)


def start(given: object) -> None:
    """Put on these integrations, in the place of those that were on.

    Neither case nor spaces around a name matter.

    Raises:
        InvalidArgument: if it is neither a name, `auto`, `none`, nor a list of names, or if one is unknown; then
            nothing is changed.
    """
    global _is_chosen
    if isinstance(given, str):
        given = given.split(",")
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidArgument(f'instrument must be "auto", "none" or a list, such as ["tqdm"], not {given!r}')
    names = [str(one).strip().lower() for one in given]
    chosen = {one.name: one for name in names for one in _named(name)}
    with _lock:
        _is_chosen = True
        _replace(chosen, set(names))


def start_named(names: Iterable[str]) -> None:
    """Put on the integrations that the environment names, once, unless others were chosen; an unknown one is logged."""
    global _is_chosen
    with _lock:
        if _is_chosen:
            return
        _is_chosen = True
        chosen: dict[str, Chosen] = {}
        for name in names:
            try:
                chosen.update({one.name: one for one in _named(name)})
            except Exception as error:
                say("OTEL_PROGRESS_INSTRUMENT: %s", error)
        _replace(chosen, set(names))


def stop() -> None:
    """Take all of them out, until the next call of `start` or `start_named`; may be called twice."""
    global _is_chosen
    with _lock:
        _is_chosen = False
        _replace({}, set())


def _replace(chosen: dict[str, Chosen], named: set[str]) -> None:
    for name in [name for name in _on if name not in chosen]:
        _on.pop(name).stop()
    for name, one in chosen.items():
        if name not in _on:
            _on[name] = one
            one.start(name in named)


def _named(name: str) -> Iterator[Chosen]:
    """The integrations that a word stands for: those of all packages for `auto`, none for `none`.

    Raises:
        InvalidArgument: if it is unknown.
    """
    if name in BUILT_IN:
        yield Chosen(name)
    elif name == AUTO:
        yield from map(Chosen, BUILT_IN)
        yield from filter(None, map(_loaded, _registered().values()))
    elif name not in ("", NONE):
        others = _registered()
        if name not in others:
            known = sorted({*BUILT_IN, *others})
            hint = f" (did you mean {near!r}?)" if (near := nearest(name, known)) else ""
            raise InvalidArgument(f"there is no integration {name!r}{hint}; there are: {', '.join(known)}")
        loaded = _loaded(others[name])
        if loaded is not None:
            yield loaded


def _registered() -> dict[str, EntryPoint]:
    """The entry points of other packages by name, in small letters."""
    from importlib.metadata import entry_points

    return {name: one for one in entry_points(group=GROUP) if (name := one.name.lower()) not in BUILT_IN}


def _loaded(entry: EntryPoint) -> Chosen | None:
    """The integration of another package; one that can't be imported is told and left out."""
    try:
        return Chosen(entry.name.lower(), entry.load())
    except Exception as error:
        say("integration %s of another package is off: %s can't be used: %s", entry.name, entry.value, error)
        return None


def _is_there(package: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _version(library: str) -> str:
    """The version of an installed distribution; empty if nobody knows, as that of a copy in another package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library) if library else ""
    except PackageNotFoundError:
        return ""


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, by which versions are compared."""
    found = re.match(r"\d+(\.\d+)*", version)
    return [] if found is None else [int(each) for each in found.group().split(".")]


def _after_fork_in_child() -> None:
    """What is on stays on; the lock may be held by a thread that is gone."""
    global _lock
    _lock = threading.RLock()


forks.in_child.append(_after_fork_in_child)
