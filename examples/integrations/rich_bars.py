"""Tasks of rich, as anybody writes them; nothing here knows of otel-progress.

otel-progress run -f -- python examples/integrations/rich_bars.py
"""

import time

from rich.progress import Progress, track


def download(progress, task):
    for _ in range(20):
        time.sleep(0.05)
        progress.advance(task, 50)


def main():
    with Progress() as progress:
        tasks = [progress.add_task(f"[cyan]part {number}", total=1000) for number in range(2)]
        for task in tasks:
            download(progress, task)
    for _ in track(range(40), description="unpack"):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
