"""What is hidden from a token that sees only one owner: names and ids of others' operations, above and below."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import Any, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.health import Verdict
from otel_progress.model.snapshot import Branch, Snapshot
from otel_progress.model.status import Health, word
from otel_progress.model.timeline import attributes_of
from otel_progress.monitor.state.child_processes import Judgement
from otel_progress.monitor.state.saved import HistoryEvent
from otel_progress.monitor.state.verdicts import BEFORE
from otel_progress.monitor.web.visibility import Visibility

OTHERS: Final = "of another owner"
_CLOCKS: Final = frozenset({"as_of", "timestamp", "elapsed", "idle", "revision"})
_NUMBERS: Final = re.compile(r"[0-9.]+")
REVISIONS: Final = 20_000
"""The most operations whose shown revision is remembered."""
CHILD: Final = "it waits for a child"
"""The text that replaces what is known of a hidden child."""
_CHILD: Final = re.compile(r"(^|[\s,])(?:its )?child .*", re.DOTALL)
"""How this library's evidence names a child."""
_JUDGED: Final = frozenset({s.STALLED, s.RECOVERED, s.WAIT_OVERDUE, s.SLOW, s.UPDATED, s.HEARTBEAT})
"""Events whose text contains evidence."""
_FRAMES: Final = frozenset({s.STACK, s.STUCK_AT, s.LOOP})
_dump = json.JSONEncoder(ensure_ascii=False).encode


def snapshot(whole: Snapshot, sight: Visibility) -> Snapshot:
    """The snapshot without what it says about hidden operations."""
    if whole.parent_id is not None and not sight.sees(whole.parent_id):
        whole = replace(whole, parent_id=None)
    branches = tuple(branch(each, sight) for each in whole.branches)
    hidden = branches != whole.branches
    whole = replace(whole, branches=branches) if hidden else whole
    if not (hidden or whole.stack or whole.wait or whole.loop or _names_child(whole.health_reason)):
        return whole
    below = sight.below(whole.operation_id)
    if below and not hidden:
        return whole
    if _names_child(whole.health_reason):
        whole = replace(whole, health_reason=f"a child is {word(whole.health)}", stuck_at=None, stack=None, loop=None)
    return _without_others(whole) if hidden or below is not None else whole


def _without_others(whole: Snapshot) -> Snapshot:
    """Without a stack and a wait that may be those of a child; its own are in its stages as well."""
    own = {stage.wait.reason for stage in whole.stages if stage.wait is not None}
    wait = whole.wait
    if wait is not None and wait.reason not in own:
        wait = replace(wait, reason=CHILD)
    return replace(whole, stack=None, loop=None, wait=wait)


def branch(whole: Branch, sight: Visibility) -> Branch:
    """A branch without what it says about its child, if that, or one below it, is hidden."""
    if whole.child is None or sight.sees_all(whole.child):
        return whole
    wait = whole.wait and replace(whole.wait, reason=CHILD)
    said = replace(whole, reason=f"is {word(whole.health)}", stuck_at=None, loop=None, wait=wait)
    return said if sight.sees(whole.child) else replace(said, child=OTHERS, child_name=OTHERS)


def verdict(whole: Verdict, seen: Snapshot, sight: Visibility) -> Verdict:
    """A verdict on the whole snapshot without the child on which it rests, if that is hidden."""
    decided = next((each for each in seen.branches if each.label == whole.branch), None)
    if decided is not None and decided.child is not None and not sight.sees_all(decided.child):
        label = branch(decided, sight).label
        whole = replace(whole, branch=label, detail=f"a child is {word(whole.health)}", seen=None)
    elif whole.clock == "child" and whole.branch is None and not _rests_on_seen(whole, sight):
        whole = replace(whole, detail=f"a child is {word(whole.health)}", seen=None)
    if isinstance(whole, Judgement) and whole.child is not None and not sight.sees_all(whole.child):
        child = whole.child if sight.sees(whole.child) else None
        whole = replace(whole, child=child, detail=f"a child in another process is {word(whole.health)}", seen=None)
    if whole.health is Health.UNKNOWN and _names_child(whole.detail) and not sight.below(seen.operation_id):
        known, _, _ = (whole.detail or "").partition(BEFORE)
        whole = replace(whole, detail=f"{known}{BEFORE}{CHILD}")
    return whole


def event(whole: HistoryEvent, sight: Visibility) -> HistoryEvent:
    """An event without what it says about a child that may be hidden."""
    own = attributes_of(whole)
    labels, reason = own.get(s.STUCK_BRANCHES), own.get(s.HEALTH_REASON)
    told = [reason, *(labels if isinstance(labels, list) else []), whole.text if whole.event in _JUDGED else None]
    named = any(map(_names_child, told))
    below = sight.below(whole.operation_id) if named or s.STACK in own else True
    if below or (below is None and not named):
        return whole
    if not named:
        return whole._replace(attributes=_dump({key: value for key, value in own.items() if key != s.STACK}))
    kept = {key: value for key, value in own.items() if key not in _FRAMES}
    if reason is not None:
        kept[s.HEALTH_REASON] = CHILD
    if isinstance(labels, list):
        kept[s.STUCK_BRANCHES] = [_masked(str(label)) for label in labels]
    return whole._replace(text=_text(whole, reason), attributes=_dump(kept))


def _text(whole: HistoryEvent, reason: object) -> str:
    """The text of an event without the evidence of a child."""
    if whole.event in _JUDGED:
        where = f" in {whole.stage}" if whole.stage else ""
        return f"{whole.event.rpartition('.')[2]}{where}: {CHILD}"
    return whole.text.replace(reason, CHILD) if isinstance(reason, str) and reason else whole.text


def _masked(label: str) -> str:
    return _CHILD.sub(lambda found: f"{found[1]}child {OTHERS}", label)


def _names_child(text: object) -> bool:
    return isinstance(text, str) and _CHILD.search(text) is not None


def _rests_on_seen(whole: Verdict, sight: Visibility) -> bool:
    return isinstance(whole, Judgement) and whole.child is not None and sight.sees_all(whole.child)


class Revisions:
    """Revisions that reveal nothing about others: one rises exactly when what is shown of its operation changes.

    They start with the time, so that they rise even if they were forgotten, or the monitor restarted.
    """

    def __init__(self) -> None:
        """None shown yet."""
        self._shown: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()

    def of(self, operation_id: str, revision: int, row: dict[str, Any]) -> int:
        """The public revision for a revision of an operation with this row."""
        content = hash(repr(_content(row)))
        with self._lock:
            known, before, shown = self._shown.pop(operation_id, (-1, None, 0))
            if content != before:
                if revision < known:  # computed from an older state
                    self._shown[operation_id] = known, before or 0, shown
                    return shown - 1
                shown = max(shown + 1, clock.time_ns() // 1_000_000)
            self._shown[operation_id] = max(known, revision), content, shown
            if len(self._shown) > REVISIONS:
                del self._shown[next(iter(self._shown))]
            return shown


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what changes with time."""
    out = {key: value for key, value in row.items() if key not in _CLOCKS}
    for key in ("progress", "stage_progress"):
        if isinstance(part := out.get(key), dict):
            out[key] = {name: value for name, value in part.items() if name != "eta"}
    if isinstance(wait := out.get("wait"), dict):
        out["wait"] = {name: value for name, value in wait.items() if name != "elapsed"}
    if isinstance(said := out.get("verdict"), dict) and isinstance(reason := said.get("reason"), str):
        out["verdict"] = {**said, "reason": _NUMBERS.sub("", reason)}
    return out
