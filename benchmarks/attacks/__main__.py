"""Run all attacks, and print how many held.

python -m benchmarks.attacks           all of them, some minutes
python -m benchmarks.attacks --short   the quick ones
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from benchmarks.attacks import ROOMS, Attack, known

WIDE = 118
"""Characters of the line that names the current attack."""


def tried(one: Attack) -> str:
    """Run an attack; return what broke, or an empty text."""
    try:
        one.run()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename.rpartition('/')[2]}:{where.lineno})"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="only those that take seconds")
    parser.add_argument("--only", metavar="TEXT", default="", help="only those whose room or name holds this text")
    parser.add_argument("--list", action="store_true", help="print what there is, and try nothing")
    given = parser.parse_args()
    chosen = [one for one in known() if given.only in f"{one.room}: {one.name}" and not (given.short and one.long)]
    if given.list:
        print("\n".join(f"{one.room}: {one.name}" for one in chosen))
        return
    broken: list[str] = []
    counts = {room: [0, 0] for room in ROOMS}
    for number, one in enumerate(chosen, 1):
        print(
            f"{number} of {len(chosen)}  {one.room}: {one.name}"[:118].ljust(118), end="\r", file=sys.stderr, flush=True
        )
        began = time.monotonic()
        why = tried(one)
        counts[one.room][0] += 1
        counts[one.room][1] += not why
        if why:
            broken.append(f"{one.room}: {one.name} (after {time.monotonic() - began:.1f} s)\n    {why}")
    print(" " * WIDE, end="\r", file=sys.stderr, flush=True)
    print("| what is attacked | tried | held |\n|---|---:|---:|")
    for room, (some, held) in counts.items():
        if some:
            print(f"| {ROOMS[room]} | {some} | {held} |")
    print(f"| all | {len(chosen)} | {len(chosen) - len(broken)} |")
    if broken:
        sys.exit("\nnot held:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
