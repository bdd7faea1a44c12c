"""What is left out of an operation for those who see only their own: names and ids of others above and below it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from otel_progress import clock
from otel_progress.model.health import Verdict
from otel_progress.model.snapshot import Branch, Snapshot
from otel_progress.model.status import word
from otel_progress.monitor.below import Judgement

OTHERS: Final = "of another owner"
_CLOCKS: Final = frozenset({"timestamp", "elapsed", "idle", "revision"})
_NUMBERS: Final = re.compile(r"[0-9.]+")
REVISIONS: Final = 20_000
"""Operations of which the revision that was shown is remembered."""
Sees = Callable[[str], bool]
"""Whether an operation, by its id, is there and may be seen."""


def snapshot(whole: Snapshot, sees: Sees) -> Snapshot:
    """The snapshot without what it says of operations that may not be seen."""
    if whole.parent_id is not None and not sees(whole.parent_id):
        whole = replace(whole, parent_id=None)
    branches = tuple(branch(each, sees) for each in whole.branches)
    return whole if branches == whole.branches else replace(whole, branches=branches)


def branch(whole: Branch, sees: Sees) -> Branch:
    """A branch without the child that it waits for, where that may not be seen."""
    if whole.child is None or sees(whole.child):
        return whole
    return replace(whole, child=OTHERS, child_name=OTHERS, reason=f"is {word(whole.health)}")


def verdict(whole: Verdict, seen: Snapshot, sees: Sees) -> Verdict:
    """A verdict on this whole snapshot without the child that it rests on, where that may not be seen."""
    decided = next((each for each in seen.branches if each.label == whole.branch), None)
    if decided is not None and decided.child is not None and not sees(decided.child):
        whole = replace(whole, branch=branch(decided, sees).label, detail=f"a child is {word(whole.health)}")
    elif whole.clock == "child" and whole.branch is None and not _rests_on_seen(whole, sees):
        whole = replace(whole, detail=f"a child is {word(whole.health)}")
    if isinstance(whole, Judgement) and whole.child is not None and not sees(whole.child):
        whole = replace(whole, child=None, detail=f"a child in another process is {word(whole.health)}")
    return whole


def _rests_on_seen(whole: Verdict, sees: Sees) -> bool:
    return isinstance(whole, Judgement) and whole.child is not None and sees(whole.child)


class Revisions:
    """Revisions that tell nothing of others: one rises when what is shown of its operation changes, and only then.

    It begins with the time, so that it rises also when it was forgotten, or the monitor started anew.
    """

    def __init__(self) -> None:
        """None shown yet."""
        self._shown: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def of(self, operation_id: str, revision: int, row: dict[str, Any]) -> int:
        """What stands for a revision of an operation, whose row is this."""
        content = hash(repr(_content(row)))
        with self._lock:
            known, before, shown = self._shown.pop(operation_id, (-1, None, 0))
            if content != before:
                if revision < known:  # made of what is older by now
                    self._shown[operation_id] = known, before or 0, shown
                    return shown - 1
                shown = max(shown + 1, clock.time_ns() // 1_000_000)
            self._shown[operation_id] = max(known, revision), content, shown
            if len(self._shown) > REVISIONS:
                del self._shown[next(iter(self._shown))]
            return shown


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what goes on by itself."""
    out = {key: value for key, value in row.items() if key not in _CLOCKS}
    for key in ("progress", "stage_progress"):
        if isinstance(part := out.get(key), dict):
            out[key] = {name: value for name, value in part.items() if name != "eta"}
    if isinstance(wait := out.get("wait"), dict):
        out["wait"] = {name: value for name, value in wait.items() if name != "elapsed"}
    if isinstance(said := out.get("verdict"), dict) and isinstance(reason := said.get("reason"), str):
        out["verdict"] = {**said, "reason": _NUMBERS.sub("", reason)}
    return out
