"""Which installed packages are the user's: those that use this library.

A job is often deployed as a wheel; its code then lies where libraries do.
"""

from __future__ import annotations

import os
import re
import sys
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any, Final

from otel_progress.live.diagnosis.reading import field, module_of

PACKAGES: Final = re.compile(r".*[/\\](?:site|dist)-packages[/\\]", re.DOTALL)
"""The folder of installed packages, at the beginning of a path."""
MODULES: Final = 10_000
"""Modules that are looked at."""
NAMES: Final = 500
"""Names of a module that are looked at."""

using: set[str] = set()
"""The installed packages and modules that are known to use this library."""
_looked: set[str] = set()


def find() -> bool:
    """Look at the modules that were imported since the last time; whether more packages are found to use us."""
    before = len(using)
    for name, module in islice(tuple(sys.modules.items()), MODULES):
        if name in _looked or type(module) is not ModuleType:
            continue
        _looked.add(name)
        names = field(module, "__dict__")
        path = names.get("__file__") if type(names) is dict else None
        package = package_of(path) if type(path) is str else None
        if package is None or package in using or package == "otel_progress":
            continue
        if any(map(_is_ours, islice(tuple(names.values()), NAMES))):
            using.add(package)
    return len(using) > before


def package_of(path: str) -> str | None:
    """The installed package or module to which a file belongs; None of other files."""
    found = PACKAGES.match(path)
    return None if found is None else re.split(r"[/\\.]", path[found.end() :], maxsplit=1)[0]


def is_script(path: str) -> bool:
    """Whether a file is a command that an installed package brought."""
    folder, name = os.path.split(path)
    return "." not in name and folder == os.path.dirname(sys.executable)


def _is_ours(thing: Any) -> bool:
    """Whether a global variable of a module is of this library."""
    kind = type(thing)
    if kind is ModuleType:
        name = field(thing, "__name__")
    elif kind is FunctionType:
        name = thing.__module__
    else:
        name = module_of(thing if kind is type else kind)
    return type(name) is str and name.partition(".")[0] == "otel_progress"
