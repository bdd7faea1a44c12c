"""A Celery worker, and a program that sends it a chain, a group, and a task that succeeds at the second attempt.

Nothing here knows of otel-progress:

    otel-progress run -f -- python examples/integrations/celery_tasks.py

Needs `pip install celery`. The broker and the results are files in a folder of its own, so it runs anywhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, group

folder = Path(os.environ.get("FOLDER", "."))
app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{folder}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    },
    broker_connection_retry_on_startup=True,
)


@app.task
def fetch(page: int) -> int:
    time.sleep(0.2)
    return page


@app.task
def double(page: int) -> int:
    time.sleep(0.2)
    return 2 * page


@app.task(bind=True, max_retries=2)
def unsure(self: Any) -> str:
    if not self.request.retries:
        raise self.retry(countdown=0.5)
    return "at the second attempt"


def main() -> None:
    """Send tasks to a worker of our own, and wait for them."""
    with tempfile.TemporaryDirectory() as made:
        for name in ("queue", "control", "results"):
            (Path(made) / name).mkdir()
        command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--concurrency", "2"]
        command += ["--loglevel", "error", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        place, environment = Path(__file__).parent, {**os.environ, "FOLDER": made}
        worker = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL)
        try:
            sent = subprocess.run([sys.executable, __file__, "send"], env=environment, check=False)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
    sys.exit(sent.returncode)


def send() -> None:
    chained, parallel, retried = chain(fetch.s(1), double.s())(), group(fetch.s(2), fetch.s(3))(), unsure.delay()
    print("chain", chained.get(timeout=60))
    print("group", parallel.get(timeout=60))
    print("retry", retried.get(timeout=60))


if __name__ == "__main__":
    send() if sys.argv[1:] == ["send"] else main()
