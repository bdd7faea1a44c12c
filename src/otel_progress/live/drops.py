"""What the limits of this process dropped, by reason; a metric and the process's heartbeat show it."""

from __future__ import annotations

from otel_progress.model.values import Drops

drops = Drops()
