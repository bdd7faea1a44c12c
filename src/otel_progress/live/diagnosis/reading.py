"""Reading objects of other code without running that code."""

from __future__ import annotations

import sys
from typing import Any


def field(thing: Any, name: str) -> Any:
    """An attribute of a task, future or thread, bypassing attribute hooks of a subclass; None without it."""
    try:
        return object.__getattribute__(thing, name)
    except Exception:
        return None


def module_of(kind: type) -> str:
    """The module of a class, bypassing attribute hooks of its metaclass."""
    try:
        name = type.__getattribute__(kind, "__module__")
    except Exception:
        return ""
    return name if type(name) is str else ""


def types_of(module: str, *names: str) -> tuple[type, ...]:
    """These classes, if their module was imported."""
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def is_task(thing: Any) -> bool:
    """Whether it is an asyncio task."""
    return issubclass(type(thing), types_of("asyncio.tasks", "Task", "_PyTask"))
