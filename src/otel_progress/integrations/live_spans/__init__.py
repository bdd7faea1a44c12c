"""Open spans of any instrumentation, live: the topmost one of a process is an operation, those below it are stages.

Nothing is sent twice: the program exports its spans as ever, and events about them bear their ids.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_progress.integrations.live_spans.processor import LiveSpans

__all__ = ["LIBRARY", "MODULES", "TESTED", "install", "uninstall"]

LIBRARY = "opentelemetry-sdk"
TESTED = ("1.35", "2")
MODULES = ("opentelemetry.sdk.trace",)

_lock = threading.Lock()
_spans: LiveSpans | None = None
"""Added to each provider once, for good."""
_made: Callable[..., None] | None = None
"""`TracerProvider.__init__`, as it was, while this is on."""


def install() -> None:
    """See the spans of all tracer providers, those that exist and those to come; once is enough."""
    global _spans, _made
    from opentelemetry.sdk.trace import TracerProvider

    from otel_progress.integrations.live_spans.processor import LiveSpans
    from otel_progress.telemetry import adoption

    with _lock:
        if _made is not None:
            return
        if _spans is None:
            _spans = LiveSpans()
        spans, made = _spans, TracerProvider.__init__
        spans.broken = False

        def begin(self: Any, *args: Any, **options: Any) -> None:
            made(self, *args, **options)
            _add(self, spans)

        begin.__wrapped__ = made  # type: ignore[attr-defined]
        TracerProvider.__init__ = begin  # type: ignore[method-assign]
        _made = made
        for provider in _providers(TracerProvider):
            _add(provider, spans)
    adoption.watch(spans)


def uninstall() -> None:
    """See no more spans; operations made of them end as interrupted."""
    global _made
    from opentelemetry.sdk.trace import TracerProvider

    from otel_progress.telemetry import adoption

    with _lock:
        made, _made = _made, None
        if made is None or _spans is None:
            return
        if getattr(TracerProvider.__init__, "__wrapped__", None) is made:
            TracerProvider.__init__ = made  # type: ignore[method-assign, assignment]
    adoption.watch(None)
    _spans.close()


def _add(provider: Any, spans: LiveSpans) -> None:
    """Have a provider tell of its spans, once; a sampler that drops them counts for tracers that exist already.

    Only the SDK's part of it is touched: the constructor of a subclass may not have ended.
    """
    from opentelemetry.sdk.trace import TracerProvider

    from otel_progress.integrations.live_spans.sampler import Recording
    from otel_progress.telemetry import adoption

    try:
        built = vars(provider)
        if adoption.sees_unsampled() and not isinstance(built["sampler"], Recording):
            built["sampler"] = Recording(built["sampler"])
        known = getattr(built.get("_active_span_processor"), "_span_processors", ())
        if spans not in known:
            TracerProvider.add_span_processor(provider, spans)
    except Exception:
        adoption.tell_once("a tracer provider takes no further processor; its spans are not shown")


def _providers(kind: type) -> list[Any]:
    """The providers that exist already, private ones included: each object refers to its class."""
    return [one for one in gc.get_referrers(kind, *kind.__subclasses__()) if isinstance(one, kind)]
