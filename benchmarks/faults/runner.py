"""Runs the cases of a seed, as many at once as the machine bears, each until all conclusions are in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.faults.load import CALM, Load
from benchmarks.faults.observer import Observer
from benchmarks.faults.plan import WITNESS, Case, draw
from benchmarks.harness import ROOT, clean_environment

BEAT: Final = 1.0
"""Seconds between two heartbeats of a process."""
AT_ONCE: Final = 12
"""Highest number of concurrent processes, without those of a group."""
CROWDED: Final = 4
"""The same while the machine is busy."""
PATIENCE: Final = 10.0
"""Seconds after which a verdict that is due counts as missed."""
SETTLE: Final = 1.5
"""Seconds of observation after the last verdict, to see whether it stays."""
LONGEST: Final = 180.0
OUTAGE: Final = 6.0


@dataclass(frozen=True)
class Phase:
    """The truth about an operation from a time on; see `Job.say`."""

    want: str
    at: float
    after: float = 0.0
    mark: str = ""
    branch: str = ""
    last: bool = False
    outside: bool = False
    frozen: bool = False


@dataclass
class Run:
    """The outcome of a case."""

    case: Case
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    closed_at: float = 0.0
    said: str = ""
    """Its stderr."""
    silent_at: float | None = None
    """When `otel-progress run` reported that it is silent."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None


class Runner:
    """Runs all cases of one seed."""

    def __init__(
        self, seed: int, *, short: bool, load: Load, tell: Callable[[str], None], only: Sequence[str] = ()
    ) -> None:
        self.seed, self.short, self.only = seed, short, only
        self.runs: list[Run] = []
        self.observers = {"": Observer(), "outage": Observer()}
        self._load, self._tell = load, tell
        self._busy = asyncio.Semaphore(1)
        self._running = 0

    async def run(self) -> None:
        """Run them all."""
        cases = draw(self.seed, short=self.short, only=self.only)
        for observer in self.observers.values():
            observer.start()
        try:
            witness = asyncio.create_task(self._witness())
            group = [case for case in cases if case.kind.group]
            tasks: list[asyncio.Task[None]] = []
            for case in cases:
                if case.kind.group:
                    if case is group[0]:
                        tasks.append(asyncio.create_task(self._group(group)))
                    continue
                await self._room()
                self._running += 1
                run = Run(case)
                tasks.append(asyncio.create_task(self._one(run)))
                while not run.ready.is_set() and not tasks[-1].done() and not case.kind.busy:
                    await asyncio.sleep(0.05)
            await asyncio.gather(*tasks)
            witness.cancel()
        finally:
            for observer in self.observers.values():
                observer.stop()

    async def _room(self) -> None:
        """Wait until another one may start."""
        waited = time.monotonic()
        while True:
            calm = self._load.lately() <= CALM or time.monotonic() - waited > 5
            if self._running < (AT_ONCE if calm else CROWDED):
                return
            await asyncio.sleep(0.1)

    async def _one(self, run: Run) -> None:
        try:
            if run.case.kind.busy:
                async with self._busy:
                    await self._attend(run)
            else:
                await self._attend(run)
        finally:
            self._running -= 1
        self._progress()

    def _progress(self) -> None:
        operations = sum(len(run.phases) for run in self.runs)
        late = self._load.lately()
        self._tell(f"seed {self.seed}: {len(self.runs)} processes, {operations} operations; {late * 1000:.0f} ms late")

    # -- one case

    async def _attend(self, run: Run) -> None:
        observer = self.observers[run.case.kind.group]
        await self._start(run, observer)
        process = run.process
        assert process is not None
        readers = [asyncio.create_task(self._read(run)), asyncio.create_task(self._read_errors(run))]
        end = time.monotonic() + LONGEST
        try:
            while not self._is_over(run, observer) and time.monotonic() < end:
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLE)
        finally:
            run.closed_at = time.time()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.gather(*readers)
            self.runs.append(run)

    async def _start(self, run: Run, observer: Observer) -> None:
        case = run.case
        words = [case.name, case.kind.name, str(case.seed)]
        words += [word for word, said in (("short", self.short), ("watched", case.watched)) if said]
        command = [sys.executable, "-m", "benchmarks.faults", *words]
        env = {
            **clean_environment(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": observer.endpoint,
            "OTEL_PROGRESS_HEARTBEAT": str(BEAT),
            "OTEL_METRICS_EXPORTER": "none",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        if case.watched:
            command = [sys.executable, "-m", "otel_progress.cli", "run", "--", *command]
        else:
            env["OTEL_TRACES_EXPORTER"] = "none"
        pipe = asyncio.subprocess.PIPE
        run.process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )

    async def _read(self, run: Run) -> None:
        assert run.process is not None
        assert run.process.stdout is not None
        async for line in run.process.stdout:
            said: dict[str, Any] = json.loads(line)
            run.ready.set()
            if "resume" in said:
                asyncio.get_running_loop().call_later(said["resume"], self._resume, run)
            elif "op" in said:
                run.phases.setdefault(said.pop("op"), []).append(Phase(**said))

    async def _read_errors(self, run: Run) -> None:
        assert run.process is not None
        assert run.process.stderr is not None
        async for line in run.process.stderr:
            text = line.decode("utf-8", "replace")
            if run.silent_at is None and ": nothing was heard of pid" in text:
                run.silent_at = time.time()
            run.said += text

    def _resume(self, run: Run) -> None:
        """Continue a stopped process; the watcher of a watched one was never stopped."""
        assert run.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGCONT)

    def _is_over(self, run: Run, observer: Observer) -> bool:
        """Whether all due conclusions are in, or can no longer come."""
        assert run.process is not None
        if run.process.returncode is not None and not run.phases:
            return True
        return bool(run.phases) and all(
            phases[-1].last and self._is_concluded(run, observer, operation, phases[-1])
            for operation, phases in run.phases.items()
        )

    def _is_concluded(self, run: Run, observer: Observer, operation: str, phase: Phase) -> bool:
        patience = PATIENCE + (2 * OUTAGE if run.case.kind.group else 0)
        if time.time() > phase.at + phase.after + patience:
            return True
        seen = observer.of(operation)
        ways = [seen.outside] if phase.outside else [seen.inside, seen.outside]
        if not all(told and told[-1].at >= phase.at and told[-1].label == phase.want for told in ways):
            return False
        if run.case.watched and phase.want == "lost":
            return "lost" in seen.spans
        if not (run.case.watched and phase.frozen):
            return True
        return run.silent_at is not None and (not phase.mark or "Thread " in run.said)

    # -- groups, and those that are always there

    async def _group(self, cases: list[Case]) -> None:
        """Start the group; then its Collector has an outage."""
        runs = [Run(case) for case in cases]
        tasks = []
        for run in runs:
            tasks.append(asyncio.create_task(self._attend(run)))
            while not run.ready.is_set() and not tasks[-1].done():
                await asyncio.sleep(0.05)
        await asyncio.sleep(2.5)
        observer = self.observers["outage"]
        observer.away = True
        await asyncio.sleep(0.5)
        for run in runs:
            assert run.process is not None
            assert run.process.stdin is not None
            run.process.stdin.write(f"{OUTAGE}\n".encode())
            with contextlib.suppress(OSError):
                await run.process.stdin.drain()
        await asyncio.sleep(OUTAGE)
        observer.away = False
        await asyncio.gather(*tasks)
        self._progress()

    async def _witness(self) -> None:
        """Run a process that is always healthy: an observer that hears nobody can't tell death from deafness."""
        case = Case(-1, WITNESS, "healthy", 0, watched=False)
        run = Run(case)
        await self._start(run, self.observers[""])
        assert run.process is not None
        try:
            await run.process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            await run.process.wait()
