"""Calls to make when the process forks: each module registers its own, and `live.engine.runtime` makes them."""

from __future__ import annotations

from collections.abc import Callable

before: list[Callable[[], None]] = []
"""Called in the forking thread before the fork; together they may take 50 ms."""
after: list[Callable[[], None]] = []
"""Called in that thread after the fork."""
in_child: list[Callable[[], None]] = []
"""Called in the forked child, before any code of the user."""
