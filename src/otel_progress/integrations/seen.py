"""What a specific integration shows already, so that live spans do not show it a second time."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress import Operation, Stage

scopes: Final[set[str]] = set()
"""The instrumentation scopes of spans that tell of the same work as an integration that is on."""
whole: Final[weakref.WeakSet[Operation | Stage]] = weakref.WeakSet()
"""The handles of model calls: spans inside them are the same call, or its HTTP request, and its tokens are counted."""
