"""Which process sent a request, by its resource: one instance id may belong to several, and what each promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from otel_progress import procfs
from otel_progress import semconv as s

OF_REQUESTS: Final = frozenset({s.SCHEMA, s.HEARTBEAT_INTERVAL})
"""What a resource says of the request, not of the process."""
CREATED_WITHIN: Final = 1.0
"""Seconds by which two readings of a creation time may differ, as the wall clock may have been set."""
_SHARED: Final = "\u00a0(pid "
"""In the key of a process whose instance id belongs to another one, too: between the id and the pid."""


def instance_of(resource: Mapping[str, Any]) -> str:
    """The instance id of a process, or else what identifies it otherwise; see also `Ledger.instance_of`."""
    given = resource.get(s.SERVICE_INSTANCE_ID)
    if isinstance(given, str) and given:
        return given
    return "/".join(str(resource.get(key, "")) for key in (s.HOST_NAME, s.PROCESS_PID, s.PROCESS_CREATED))


def keys_of(resource: Mapping[str, Any]) -> tuple[str, str | None]:
    """The keys that a process may have: its instance id, and one that also says which process it is, if it does."""
    first, pid = instance_of(resource), resource.get(s.PROCESS_PID)
    if not isinstance(pid, int) or s.SERVICE_INSTANCE_ID not in resource:
        return first, None
    created = resource.get(s.PROCESS_CREATED)
    return first, f"{first}{_SHARED}{pid}{f', {created}' if isinstance(created, str) else ''})"


def declared_instance(key: str) -> str:
    """The instance id that the process with this key sends."""
    return key.rpartition(_SHARED)[0] or key


def is_another(pid: int | None, created: str | None, resource: Mapping[str, Any]) -> bool:
    """Whether a resource is that of another process than a known one, although both have one instance id.

    Args:
        pid: the process id of the known one.
        created: when the known one was created, in ISO 8601.
        resource: the resource.
    """
    if pid is None:
        return False
    if resource.get(s.PROCESS_PID) != pid:
        return True
    given = resource.get(s.PROCESS_CREATED)
    if given == created or created is None or not isinstance(given, str):
        return False
    one, two = procfs.from_iso(given), procfs.from_iso(created)
    return one is not None and two is not None and abs(one - two) > CREATED_WITHIN


def promised_interval(resource: Mapping[str, Any]) -> float | None:
    """The longest silence that the resource of a process promises, in seconds."""
    found = resource.get(s.HEARTBEAT_INTERVAL)
    return float(found) if is_interval(found) else None


def is_interval(given: object) -> TypeGuard[float]:
    """Whether this is a number of seconds that can be promised."""
    return type(given) in (int, float) and 0 < given < float("inf")  # type: ignore[operator]
