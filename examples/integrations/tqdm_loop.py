"""A loop with a bar, as anybody writes it; nothing here knows of otel-progress.

    otel-progress run -f -- python examples/integrations/tqdm_loop.py

With `--hang` the fifth file never ends: the line in `parse` is named, once a limit is known. Each run below
`OTEL_PROGRESS_HISTORY=history.json` teaches it.
"""

import sys
import time

from tqdm import tqdm


def parse(number):
    hangs = "--hang" in sys.argv and number == 5
    time.sleep(3600 if hangs else 0.05)


def main():
    for _ in tqdm(range(2), desc="pass"):
        for number in tqdm(range(30), desc="files", leave=False):
            parse(number)


if __name__ == "__main__":
    main()
