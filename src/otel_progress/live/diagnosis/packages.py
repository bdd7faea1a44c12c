"""The installed packages that are the user's code: those that use this library.

A job is often deployed as a wheel, so that its code is installed beside the libraries.
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
"""A path up to the folder of installed packages."""
MODULES: Final = 10_000
"""Modules that are examined."""
NAMES: Final = 500
"""Names of a module that are examined."""

using: set[str] = set()
"""The installed packages and modules known to use this library."""
_looked: set[str] = set()


def find() -> bool:
    """Examine the modules imported since the last call; returns whether more packages are found."""
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
    """The installed package or module of a file; None for other files."""
    found = PACKAGES.match(path)
    return None if found is None else re.split(r"[/\\.]", path[found.end() :], maxsplit=1)[0]


def is_script(path: str) -> bool:
    """Whether a file is a command of an installed package."""
    folder, name = os.path.split(path)
    return "." not in name and folder == os.path.dirname(sys.executable)


def _is_ours(thing: Any) -> bool:
    """Whether a global variable of a module comes from this library."""
    kind = type(thing)
    if kind is ModuleType:
        name = field(thing, "__name__")
    elif kind is FunctionType:
        name = thing.__module__
    else:
        name = module_of(thing if kind is type else kind)
    return type(name) is str and name.partition(".")[0] == "otel_progress"
