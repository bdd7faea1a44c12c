"""The same agent in this process, and as Celery tasks in worker processes, below one operation.

Needs `redis-server`, and `pip install "celery[redis]" "otel-progress[workflow]"`. It starts a broker and two workers of
its own, and ends them. See all of it with

    otel-progress run -f -- python examples/celery_agents.py

With --kill a worker is killed in the middle; its task goes to another one, which goes on at the page where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

import otel_progress as progress
from otel_progress.workflow import Step, Workflow

PAGES = 60

app = Celery("celery_agents", broker=os.environ.get("BROKER"), backend=os.environ.get("BROKER"))
app.conf.update(
    task_acks_late=True,  # a task is done when it is done, not when it was taken
    task_reject_on_worker_lost=True,  # a killed worker gives it back
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


class Researcher:
    """An agent: it knows neither Celery nor workflows."""

    def execute(self, task: str, context: dict[str, Any], progress_callback: Callable[..., Any]) -> str:
        for page in range(context.get("page", 0), PAGES):
            progress_callback(100 * page / PAGES, f"page {page + 1} about {task}")
            time.sleep(0.02)
        return f"{PAGES} pages about {task}"


@worker_process_init.connect
def configure(**_: Any) -> None:
    """Let each worker process send; the task's operation hangs below the caller's."""
    progress.configure("agents")


@app.task(bind=True)
def research(self: Any, query: str, caller: dict[str, str]) -> str:
    with progress.operation(
        "agent",
        id=f"agent-{self.request.id}",  # the same in each attempt
        parent=progress.extract(caller),
        resume=os.environ["STORE"],
    ) as operation:
        begun = operation.restored or {}
        operation.result(first_page=begun.get("page", 0))

        def report(percent: float, message: str) -> None:
            operation.update(ratio=percent / 100, message=message)
            operation.checkpoint(page=round(percent / 100 * PAGES))
            if percent > 30 and "MARK" in os.environ and not Path(os.environ["MARK"]).exists():
                Path(os.environ["MARK"]).write_text(str(os.getpid()))

        return Researcher().execute(query, begun, report)


def in_celery(query: str) -> Callable[[], str]:
    """A step that lets a worker do the work, and waits for it."""

    def step() -> str:
        sent = research.delay(query, progress.inject())
        with progress.waiting("a worker", overdue_after=60):
            return str(sent.get(timeout=60))

    return step


def main(kill: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, broker(folder) as url:
        mark = Path(folder) / "begun"
        app.conf.update(broker_url=url, result_backend=url)
        environment = {**os.environ, "BROKER": url, "STORE": str(Path(folder) / "work.db")}
        with workers({**environment, "MARK": str(mark)} if kill else environment):
            progress.configure("caller")
            stages = [
                Step("here", Researcher()),
                Step("tea", in_celery("tea"), after=["here"]),
                Step("coffee", in_celery("coffee"), after=["here"]),
                Step("write", lambda tea, coffee: f"{tea}, {coffee}", after=["tea", "coffee"]),
            ]
            if kill:
                stages.append(Step("accident", lambda: os.kill(int(read(mark)), signal.SIGKILL), after=["here"]))
            print(Workflow("research", stages=stages).run("water")["write"])
            progress.shutdown()


def read(mark: Path) -> str:
    """Wait for a worker that is in the middle; returns its process id."""
    while not mark.exists() or not (found := mark.read_text()):
        time.sleep(0.03)
    time.sleep(0.5)  # its checkpoint is saved by now
    return found


@contextlib.contextmanager
def broker(folder: str) -> Iterator[str]:
    """A Redis of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)):
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.03)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def workers(environment: dict[str, str]) -> Iterator[None]:
    """A Celery worker with two processes."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_agents",
        "worker",
        "--concurrency",
        "2",
        "--loglevel",
        "error",
    ]
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    place = Path(__file__).parent
    worker = subprocess.Popen([*command, *options], cwd=place, env=environment, stdout=subprocess.DEVNULL)
    with ended(worker, signal.SIGQUIT):  # no task is left to wait for
        yield


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes], by: int = signal.SIGTERM) -> Iterator[None]:
    """End a process at the end of the block."""
    try:
        yield
    finally:
        process.send_signal(by)
        process.wait(20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle")
    main(parser.parse_args().kill)
