"""A program with spans and no line of ours, whose work is held where a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_progress import semconv
from otel_progress.integrations import live_spans
from otel_progress.testing import Capture, capture

AGENT = {"gen_ai.operation.name": "invoke_agent"}
TOOL = {"gen_ai.operation.name": "execute_tool"}
MODEL = {"gen_ai.operation.name": "chat"}


class Program:
    """A tracer of the program, what it exports, and what is captured of it."""

    def __init__(self, captured: Capture) -> None:
        self.captured = captured
        self.exported = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exported))
        self.tracer = self.provider.get_tracer("program")
        self.span = self.tracer.start_as_current_span
        self.advance = captured.advance

    def running(self) -> list[str]:
        """The operations that run, and their running stages by path."""
        found = []
        for snapshot in self.snapshots():
            found.append(snapshot.name)
            found += [stage.path for stage in snapshot.stages if not stage.status.final]
        return found

    def snapshots(self) -> list[Any]:
        """The operations that run, as they are now."""
        from otel_progress.live.registry import registry

        return [one.snapshot() for one in registry.operations() if not one._status.final]

    def stalls(self) -> list[tuple[tuple[str, ...], str]]:
        """The branches that were reported as stuck, each with its line of code."""
        return [
            (event.attributes.get(semconv.STUCK_BRANCHES, ()), event.attributes.get(semconv.STUCK_AT, ""))
            for event in self.captured.of(semconv.STALLED)
        ]


@contextmanager
def program(**settings: Any) -> Iterator[Program]:
    """A program whose spans are seen; nothing of it is left afterwards."""
    with capture(**settings) as captured:
        live_spans.install()
        try:
            yield Program(captured)
        finally:
            live_spans.uninstall()


@contextmanager
def beside(work: Callable[..., object], *args: Any) -> Iterator[threading.Event]:
    """Run work in a thread: it gets an event to wait for, after it said that it got there."""
    go_on = threading.Event()
    there = threading.Event()

    class Hold:
        def __call__(self) -> None:
            there.set()
            go_on.wait()

    thread = threading.Thread(target=work, args=(Hold(), *args), name="work", daemon=True)
    thread.start()
    assert there.wait(30)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join(30)
