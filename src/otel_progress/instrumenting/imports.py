"""Tells when a module was imported: a finder that asks the other ones, and changes nothing that a program can see.

It imports nothing of this package, as it also runs in programs that never import it (`start/sitecustomize.py`).
"""

from __future__ import annotations

import sys
from threading import get_ident

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "celery": ("celery.app.base",),
    "futures": (
        "concurrent.futures.thread",
        "concurrent.futures.process",
        "multiprocessing.pool",
        "joblib.externals.loky.process_executor",
        "loky.process_executor",
    ),
    "langchain": ("langchain_core.tracers.context",),
    "live_spans": ("opentelemetry.sdk.trace",),
    "mcp": ("mcp.server.lowlevel.server", "mcp.client.session"),
    "openai_agents": ("agents",),
    "rich": ("rich.progress",),
    "tenacity": ("tenacity",),
    "tqdm": ("tqdm.std",),
}
"""Our own integrations: the name of each, and the modules after whose import it is installed (its `MODULES`)."""
PASSIVE: tuple[str, ...] = ("futures", "tenacity")
"""Integrations that do nothing unless an operation runs: the import of their library alone starts nothing of ours."""


class Watch:
    """A finder that calls functions right after modules of given names were imported, each time."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.calls: dict[str, tuple[Callable[[], None], ...]] = {}
        self._asking: set[tuple[int, str]] = set()

    def on(self, name: str, call: Callable[[], None]) -> None:
        """Call this after each import of the module of this name; it must not raise."""
        self.calls[name] = (*self.calls.get(name, ()), call)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def off(self, call: Callable[[], None]) -> None:
        """Call it no more."""
        for name, calls in list(self.calls.items()):
            left = tuple(each for each in calls if each != call)
            if left:
                self.calls[name] = left
            else:
                del self.calls[name]
        if not self.calls and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a watched module as the other finders give it, told of its execution; else None."""
        key = get_ident(), name
        if name not in self.calls or key in self._asking:
            return None
        self._asking.add(key)
        try:
            for finder in list(sys.meta_path):
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None if find is None else find(name, path, target)
                if spec is not None:
                    self._listen(name, spec.loader)
                    return spec
        finally:
            self._asking.discard(key)
        return None

    def _listen(self, name: str, loader: Any) -> None:
        """Hear of the execution of the module."""
        own: dict[str, Any] | None = getattr(loader, "__dict__", None)
        if own is None or not hasattr(loader, "exec_module") or isinstance(loader, type):
            return  # classes load what is built in
        told = own.get("exec_module")
        if isinstance(told, _Told):
            told.names.add(name)
            return
        try:
            loader.exec_module = _Told(loader, name, self)
        except AttributeError:
            pass


class _Told:
    """Stands for `exec_module` of a loader until the module is executed; a loader of a zip file loads several."""

    def __init__(self, loader: Any, name: str, watch: Watch) -> None:
        """For the module of this name."""
        self.names = {name}
        self._own = vars(loader)
        self._before = self._own.get("exec_module")
        self._execute = loader.exec_module
        self._watch = watch

    def __call__(self, module: ModuleType) -> None:
        """Execute a module, and tell that if it is one of those that are watched."""
        name = module.__name__
        if name not in self.names:
            self._execute(module)
            return
        self.names.discard(name)
        if not self.names and self._own.get("exec_module") is self:
            del self._own["exec_module"]
            if self._before is not None:
                self._own["exec_module"] = self._before
        self._execute(module)
        if name in sys.modules:  # else it is a copy that somebody made
            for call in self._watch.calls.get(name, ()):
                call()


watch = Watch()
"""The finder of this process; it stands in `sys.meta_path` while anything is watched."""
