"""Row of memory: bytes of a live operation besides its span, by tracemalloc and by resident set size."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc

from benchmarks.harness import ROOT, Row, clean_environment, full_or_short, sink, tell

LIVE = full_or_short(10_000, 500)
SETTLE = full_or_short(12.0, 1.5)


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spans() -> list[object]:
    """Hold as many live spans as operations, with the same attributes."""
    from opentelemetry import trace

    from otel_progress import semconv

    tracer = trace.get_tracer("raw")
    return [
        tracer.start_span(
            "survey",
            attributes={
                semconv.OPERATION_ID: f"0123456789abcdef-{number:x}",
                semconv.OPERATION_NAME: "survey",
                semconv.OPERATION_ATTEMPT: 1,
            },
        )
        for number in range(LIVE)
    ]


def operations() -> list[object]:
    """Hold live operations that move, until the ticker has its state for each."""
    import otel_progress as progress

    live = [progress.operation("survey", total=100).start() for _ in range(LIVE)]
    until = time.monotonic() + SETTLE
    while time.monotonic() < until:
        for operation in live:
            operation.advance()
        time.sleep(0.5)
    return live


def child(what: str, endpoint: str, traced: bool) -> None:
    """Print the bytes per operation."""
    import otel_progress as progress

    progress.configure("memory", endpoint=endpoint)
    with progress.operation("first"):  # imports, threads, connections
        time.sleep(1.5)
    make = {"spans": spans, "operations": operations}[what]
    gc.collect()
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident()
    kept = make()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else resident()
    print(json.dumps((after - before) / len(kept)), flush=True)
    os._exit(0)


def measure(what: str, endpoint: str, how: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "child", what, endpoint, how]
    command += ["--short"] if "--short" in sys.argv else []
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(json.loads(done.stdout))


def main() -> None:
    with sink() as endpoint:
        size = {
            (what, how): measure(what, endpoint, how) for what in ("spans", "operations") for how in ("traced", "rss")
        }
    beside = {how: size["operations", how] - size["spans", how] for how in ("traced", "rss")}
    tell(
        Row(
            f"memory of a live operation ({LIVE:,} that advance)",
            f"{beside['traced'] / 1000:.2f} kB by tracemalloc, "
            f"{beside['rss'] / 1000:.2f} kB resident, without its span",
            "2 kB without its span",
            f"its span {size['spans', 'traced'] / 1000:.2f} kB by tracemalloc, "
            f"{size['spans', 'rss'] / 1000:.2f} kB resident",
            beside["traced"] <= 2000,
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4] == "traced")
    else:
        main()
