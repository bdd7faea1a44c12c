"""Keyframes and deltas: an event that says only what differs from an earlier one, and how a reader makes it whole.

A keyframe is an event that carries the whole state. A delta names a keyframe by its sequence and carries what differs
from it, so that the keyframe and the newest delta are the state, whatever was lost between them.

The stages of a delta are a JSON list in their order. Where a stage is as it was in the keyframe, a pair
`[first, last]` stands for the keyframe's stages at these positions, from 0; `[0, -1]` for none of them. A pair
`[place, {…}]` is the keyframe's stage at that place with these fields, without those that are null. A list without any
pair comes from a simple sender: each of its stages replaces the keyframe's with the same span id, else with the same
path, or is new.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.status import Status
from otel_progress.model.values import Value
from otel_progress.model.wire import STATE, dump

FEW: Final = 8
"""Changed stages that a delta holds, even if they are more than half of all."""
_SHORT: Final = 40
"""Characters of a text up to which a keyframe is remembered by the text itself; of a longer one the hash is enough."""
_KINDS: Final = 1_024
"""Sets of attribute names that operations share; beyond it all are forgotten."""
ALWAYS: Final = (
    s.OPERATION_ID,
    s.OPERATION_NAME,
    s.OPERATION_ATTEMPT,
    s.START_TIME,
    s.STATUS,
    s.HEALTH,
    s.STAGE_CURRENT,
    s.MESSAGE,
)
"""What every delta carries, where it is known, but for the first attempt: a reader without the keyframe, and a table
made from the newest log record in a store, say which operation it is, and how it does.
"""
SLOW: Final = frozenset({s.RESOURCES, s.STALL_AFTER_SOURCE})
"""What a delta leaves as it was in the keyframe, as it changes all the time and nothing is decided by it."""
_SLOW_OF_STAGE: Final = frozenset({"cpu_seconds", "peak_memory"})
"""The same of a stage that goes on; of one that the keyframe does not have, nothing is said until its end."""
_FINAL: Final = frozenset(status.value for status in Status if status.final)
_MISSING: Final = object()
_NONE: Final = "[0,-1]"
"""A pair for no stage: it says that the list is complete, although no stage is as it was."""
_names: Final[dict[tuple[str, ...], tuple[str, ...]]] = {}


class StageText:
    """A stage as events tell it.

    Attributes:
        text: its JSON.
        mark: a hash of that.
        key: its path and when it started, which tell it from all others; None once it ended.
    """

    __slots__ = ("_fields", "key", "mark", "text")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """From its fields of JSON types."""
        self.text = dump(fields)
        self.mark = hash(self.text)
        ended = fields["status"] in _FINAL
        self.key = None if ended else _key(fields)
        self._fields = None if ended else fields

    def fields(self) -> Mapping[str, Any]:
        """Its fields; those of an ended stage are read from the text, as they are seldom wanted."""
        found: Mapping[str, Any] = json.loads(self.text) if self._fields is None else self._fields
        return found


def _key(fields: Mapping[str, Any]) -> tuple[str, float | None]:
    return fields["path"], fields.get("started_at")


class Keyframe:
    """What a sender remembers of a keyframe, to see what differs from it later: about 1 kB.

    Attributes:
        sequence: the number of its event.
        detail: how much of the snapshot it left out, as its sender counts.
    """

    __slots__ = ("_marks", "_names", "_open", "_stages", "detail", "sequence")

    def __init__(
        self, sequence: int, attributes: Mapping[str, Value], stages: Sequence[StageText], detail: int = 0
    ) -> None:
        """From the attributes of its state, and its stages."""
        self.sequence = sequence
        self.detail = detail
        names = tuple(attributes)
        if len(_names) >= _KINDS:
            _names.clear()
        self._names = _names.setdefault(names, names)
        self._marks = tuple(map(_mark, attributes.values()))
        self._stages = array("q", [stage.mark for stage in stages])
        self._open = {stage.key: (place, stage.text) for place, stage in enumerate(stages) if stage.key is not None}

    def difference(self, attributes: Mapping[str, Value], stages: Sequence[StageText]) -> dict[str, Value] | None:
        """Return the attributes of a delta, or None if a keyframe says it better, as too many stages changed.

        Of attributes in `SLOW`, and of a learned limit, it says only that they came or went; resources come with the
        next keyframe.
        """
        out: dict[str, Value] = {s.KEYFRAME: self.sequence}
        known = dict(zip(self._names, self._marks))
        for name in ALWAYS:
            if name in attributes and (name != s.OPERATION_ATTEMPT or attributes[name] != 1):
                out[name] = attributes[name]
        learned = s.STALL_AFTER_SOURCE in attributes and s.STALL_AFTER_SOURCE in known
        slow = SLOW | {s.STALL_AFTER} if learned else SLOW
        for name, value in attributes.items():
            before = known.pop(name, _MISSING)
            if name not in STATE or (before != _mark(value) and (before is _MISSING or name not in slow)):
                out[name] = value
        out.pop(s.RESOURCES, None)
        gone = [name for name in known if name in STATE]
        if stages:
            told, count = self._changed(stages)
            if count > FEW and 2 * count > len(stages):
                return None
            if told is not None:
                out[s.STAGES] = told
        elif self._stages:
            gone.append(s.STAGES)
        if gone:
            out[s.UNSET] = tuple(gone)
        return out

    def _changed(self, stages: Sequence[StageText]) -> tuple[str | None, int]:
        """Return the list of stages, None if it is that of the keyframe, and how many of them changed."""
        places = {mark: place for place, mark in enumerate(self._stages)}
        items: list[str] = []
        first = last = -1
        count = whole = 0
        for stage in stages:
            place = places.get(stage.mark)
            if place is not None and first >= 0 and place == last + 1:
                last = place
                continue
            if first >= 0:
                items.append(f"[{first},{last}]")
                first = -1
            if place is None:
                fields = stage.fields()
                known = self._known(fields)
                if known is not None:
                    items.append(f"[{known[0]},{dump(_patch(json.loads(known[1]), fields))}]")
                else:
                    items.append(stage.text if stage.key is None else dump(_begun(fields)))
                whole, count = whole + (known is None), count + 1
            else:
                first = last = place
        if first >= 0:
            items.append(f"[{first},{last}]")
        if items == [f"[0,{len(self._stages) - 1}]"]:
            return None, 0
        if whole == len(items) and self._stages:
            items.insert(0, _NONE)
        return f"[{','.join(items)}]", count

    def _known(self, stage: Mapping[str, Any]) -> tuple[int, str] | None:
        """Where this stage was in the keyframe, while it ran or was planned, and how."""
        return self._open.get(_key(stage)) or self._open.get((stage["path"], None))


def _begun(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a running stage that the keyframe does not have, without what changes all the time."""
    if stage.keys().isdisjoint(_SLOW_OF_STAGE):
        return stage
    return {name: value for name, value in stage.items() if name not in _SLOW_OF_STAGE}


def _patch(before: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a stage has now and did not have, and those that it has no more, as None."""
    out = {name: value for name, value in stage.items() if before.get(name, _MISSING) != value}
    if "status" not in out:
        for name in _SLOW_OF_STAGE & before.keys():
            out.pop(name, None)
    return out | dict.fromkeys(before.keys() - stage.keys())


def _mark(value: Value) -> Value:
    return hash(value) if type(value) is str and len(value) > _SHORT else value


def merge(keyframe: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a delta as if it carried the whole state, or what it says itself without a keyframe.

    Raises:
        ValueError, RecursionError: if stages of one of them are no JSON.
    """
    given = delta.get(s.UNSET)
    gone = {name for name in given if isinstance(name, str)} if isinstance(given, (list, tuple)) else set()
    out = {name: value for name, value in keyframe.items() if name in STATE and name not in gone}
    before, after = out.get(s.STAGES), delta.get(s.STAGES)
    out.update(delta)
    out.pop(s.UNSET, None)
    if isinstance(after, str):
        known = json.loads(before) if isinstance(before, str) else []
        out[s.STAGES] = dump(merge_stages(known, json.loads(after)))
    return out


def merge_stages(before: Any, given: Any) -> list[Any]:
    """Return the stages of a delta as a list without pairs; senders are untrusted, so what means nothing is skipped."""
    known = before if isinstance(before, list) else []
    items = given if isinstance(given, list) else []
    if not any(isinstance(item, list) for item in items):
        return _replaced(known, items)
    found: list[Any] = []
    most = len(known) + len(items)
    for item in items:
        if isinstance(item, dict):
            found.append(item)
        elif isinstance(item, list) and len(item) == 2 and type(item[0]) is int:
            found += _meant(known, *item)
        if len(found) > most:
            break
    return found[:most]


def _meant(known: list[Any], place: int, given: Any) -> list[Any]:
    """Return the stages that a pair stands for."""
    if type(given) is int:
        return known[max(0, place) : max(0, given + 1)]
    if not isinstance(given, dict) or not 0 <= place < len(known) or not isinstance(known[place], dict):
        return []
    return [{name: value for name, value in {**known[place], **given}.items() if value is not None}]


def _replaced(known: list[Any], items: list[Any]) -> list[Any]:
    found = list(known)
    by_span = {stage["span_id"]: place for place, stage in enumerate(known) if _has(stage, "span_id")}
    by_path = {stage["path"]: place for place, stage in enumerate(known) if _has(stage, "path")}
    for item in items:
        place = by_span.get(item["span_id"]) if _has(item, "span_id") else None
        if place is None and _has(item, "path"):
            place = by_path.get(item["path"])
        if place is None:
            found.append(item)
        else:
            found[place] = item
    return found


def _has(stage: Any, name: str) -> bool:
    return isinstance(stage, dict) and isinstance(stage.get(name), str)
