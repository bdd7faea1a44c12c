"""A job that hangs: the fifth page never arrives.

python examples/alerting/stuck.py
"""

import threading
import time

import otel_progress as progress

answer = threading.Event()


def fetch(page: int) -> None:
    """Fetch a page. The fifth request is never answered."""
    if page < 5:
        time.sleep(0.5)
        return
    answer.wait()


@progress.operation("import", stall_after=5)
def work() -> None:
    """Fetch all pages."""
    with progress.stage("fetch", total=10, unit="page") as stage:
        for page in range(1, 11):
            fetch(page)
            stage.advance()


if __name__ == "__main__":
    progress.configure()
    work()
