"""Run programs under the fake clock, and answer what was seen of them: python worker.py PROGRAMS."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

from otel_progress import operations
from otel_progress.live import hooks
from otel_progress.testing import Capture, capture

SECONDS = 60.0
"""After which a program that is neither over nor where it should be is given up."""


class Warnings(logging.Handler):
    """Keeps what otel-progress logs: none of it belongs to a healthy program."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage() + (f" ({record.exc_info[1]!r})" if record.exc_info else ""))


def main(name: str) -> None:
    programs = importlib.import_module(name)
    integration = importlib.import_module(f"otel_progress.integrations.{programs.INTEGRATION}")
    for line in sys.stdin:
        program, until, advance, cancel, also, limit, given = json.loads(line)
        programs.begin()
        told = Warnings()
        logging.getLogger("otel_progress").addHandler(told)
        with capture() as captured:
            others = [importlib.import_module(f"otel_progress.integrations.{name}") for name in also.split()]
            hooks.stall_after, hooks.configured = limit, cancel == "configured"
            for each in (integration, *others):
                each.install()
            answer = run(getattr(programs, program), given, until, advance, cancel, captured, programs)
            for each in (integration, *others):
                each.uninstall()
        logging.getLogger("otel_progress").removeHandler(told)
        print("ANSWER", json.dumps({**answer, "warnings": told.texts}, default=repr), flush=True)


def run(
    program: Any,
    given: dict[str, Any],
    until: str,
    advance: float,
    cancel: str,
    captured: Capture,
    programs: Any,
) -> dict[str, Any]:
    said: dict[str, Any] = {"result": None, "error": None}

    def go() -> None:
        try:
            said["result"] = program(**given)
        except BaseException as error:
            said["error"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    end = time.monotonic() + SECONDS
    while thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
        if until and programs.here.is_set() and (until == "*" or until in running()):
            break
    captured.advance(advance)
    if cancel:
        stop(operations()[0])
    seen = [] if cancel else [one.snapshot() for one in operations()]
    if cancel == "configured" and "async" in until:
        thread.join(SECONDS)
    programs.let_go()
    thread.join(SECONDS)
    gc.collect()
    captured.look()
    ended = [event.snapshot for event in captured.events if event.name == "progress.operation.ended"]
    known = {one.operation_id for one in seen}
    all_seen = [*(one for one in ended if one.operation_id not in known), *seen]
    return {
        **said,
        "operations": [one.to_dict() for one in all_seen],
        "events": [[event.name, event.snapshot.name, event.stage or ""] for event in captured.events],
    }


def stop(operation: Any) -> None:
    """Cancel an operation as a monitor does."""
    from otel_progress.live.engine.commands import obey

    obey({"kind": "cancel", "operation_id": operation.id, "reason": "not needed"})


def running() -> set[str]:
    paths = set()
    for one in operations():
        snapshot = one.snapshot()
        paths.add(snapshot.name)
        paths.update(stage.path for stage in snapshot.stages if stage.status == "running")
    return paths


sys.path.insert(0, str(Path(__file__).parent))
if __name__ == "__main__":
    main(sys.argv[1])
