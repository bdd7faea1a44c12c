"""Row of the import: CPU time of whole processes, minus that of an empty one."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile

from benchmarks.harness import Cost, Row, clean_environment, full_or_short, tell

PROGRAMS = {
    "nothing": "pass",
    "API": "import opentelemetry.trace, opentelemetry.metrics, opentelemetry.context, "
    "opentelemetry.propagate, opentelemetry.baggage",
    "ours": "import otel_progress",
    "rich": "import rich.progress",
    "tqdm": "import tqdm",
    "logfire": "import logfire",
}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(rounds: int, bytecode: str) -> dict[str, Cost]:
    """Measure with bytecode from a folder that the first round fills, as for an installed package."""
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            before = cpu()
            subprocess.run([sys.executable, "-c", program], check=True, env=environment)
            if number:
                taken[name].append(cpu() - before)
    return {name: Cost(min(seconds), statistics.median(seconds)) for name, seconds in taken.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(full_or_short(20, 2), folder)
    nothing = costs.pop("nothing")
    net = {name: cost.over(nothing) for name, cost in costs.items()}
    mine, api = net.pop("ours"), net.pop("API")
    others = ", ".join(f"{name} {cost.least * 1e3:.0f} ms" for name, cost in net.items())
    ratio = mine.least / api.least
    tell(
        Row(
            "`import otel_progress`",
            f"{mine.least * 1e3:.0f} ms = {mine.ratio(api)} x the OTel API",
            "1.2 x importing the OTel API",
            f"API {api.least * 1e3:.0f} ms, {others}",
            ratio <= 1.2,
        )
    )
