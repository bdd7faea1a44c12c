"""Retries by stamina in a loop over tqdm; nothing here knows of otel-progress.

otel-progress run -f -- python examples/integrations/retries.py
"""

import time

import stamina
from tqdm import tqdm

tries = {}


@stamina.retry(on=ConnectionError, attempts=3, wait_initial=0.5, wait_jitter=0)
def fetch(number):
    tries[number] = tries.get(number, 0) + 1
    if number % 10 == 7 and tries[number] < 3:
        raise ConnectionError("refused")
    time.sleep(0.05)


def main():
    for number in tqdm(range(30), desc="pages"):
        fetch(number)


if __name__ == "__main__":
    main()
