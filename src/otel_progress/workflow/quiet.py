"""Keeps stamina's log of our own retries off stderr where nobody set up logging: the feed tells of them in full."""

from __future__ import annotations

import logging
from typing import Final

STEP: Final = "step "
"""How the names of retries begin that are steps."""
_logger: Final = logging.getLogger("stamina")


class _Filter(logging.Filter):
    """Drops records of steps that Python would print bare, as no handler is there for them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes."""
        name = getattr(record, "stamina.callable", "")
        return not (isinstance(name, str) and name.startswith(STEP)) or _logger.hasHandlers()


_filter: Final = _Filter()


def install() -> None:
    """Filter stamina's log; a second time changes nothing."""
    _logger.addFilter(_filter)
