"""Every attack on the promises fails."""

from __future__ import annotations

import pytest
from benchmarks.attacks import Attack, known


@pytest.mark.parametrize("one", known(), ids=lambda one: f"{one.room}: {one.name}")
def test_the_promise_holds(one: Attack) -> None:
    """The attack breaks no promise."""
    one.run()
