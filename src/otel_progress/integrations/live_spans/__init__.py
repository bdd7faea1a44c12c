"""Open spans of any instrumentation, live: the topmost one of a process is an operation, those below it are stages.

Nothing is sent twice: the program exports its spans as ever, and events about them bear their ids.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

from otel_progress.integrations.live_spans.processor import LiveSpans
from otel_progress.integrations.live_spans.sampler import Recording
from otel_progress.telemetry import adoption

LIBRARY = "opentelemetry-sdk"
TESTED = ("1.30", "2")
MODULES = ("opentelemetry.sdk.trace",)

_lock = threading.Lock()
_spans: LiveSpans | None = None
_made: Any = None
"""`TracerProvider.__init__`, as it was."""


def install() -> None:
    """See the spans of all tracer providers, those that exist and those to come; once is enough."""
    global _spans, _made
    from opentelemetry.sdk.trace import TracerProvider

    with _lock:
        if _spans is not None:
            return
        spans, made = LiveSpans(), TracerProvider.__init__

        def begin(self: Any, *args: Any, **options: Any) -> None:
            made(self, *args, **options)
            _add(self, spans)

        begin.__wrapped__ = made  # type: ignore[attr-defined]
        TracerProvider.__init__ = begin  # type: ignore[method-assign]
        _spans, _made = spans, made
        for provider in _providers(TracerProvider):
            _add(provider, spans)
    adoption.watch(spans)


def uninstall() -> None:
    """See no more spans; operations made of them end as interrupted."""
    global _spans
    from opentelemetry.sdk.trace import TracerProvider

    with _lock:
        spans, _spans = _spans, None
        if spans is None:
            return
        if getattr(TracerProvider.__init__, "__wrapped__", None) is _made:
            TracerProvider.__init__ = _made  # type: ignore[method-assign, assignment]
    adoption.watch(None)
    spans.close()


def _add(provider: Any, spans: LiveSpans) -> None:
    """Have a provider tell of its spans, once; a sampler that drops them counts for tracers that exist already."""
    if adoption.sees_unsampled() and not isinstance(provider.sampler, Recording):
        provider.sampler = Recording(provider.sampler)
    known = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    if spans not in known:
        provider.add_span_processor(spans)


def _providers(kind: type) -> list[Any]:
    """The providers that exist already, private ones included: each object refers to its class."""
    return [one for one in gc.get_referrers(kind, *kind.__subclasses__()) if isinstance(one, kind)]


__all__ = ["LIBRARY", "MODULES", "TESTED", "install", "uninstall"]
