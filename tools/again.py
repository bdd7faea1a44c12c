"""Rerun the few tests that just failed, one by one. A test that passes now is flaky, and is listed.

On a busy machine one test in some thousands may fail for lack of time, and there are more than ten thousand. A test
that fails twice fails the build, and so do more than `MOST` failures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
MOST = 12
"""The highest number of failed tests that is rerun."""


def main() -> int:
    """Rerun the failed tests; return an exit code."""
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} failed tests are recorded; only one to {MOST} are rerun:", *failed, sep="\n  ")
        return 1
    code = subprocess.call([sys.executable, "-m", "pytest", *failed], cwd=ROOT)
    if code == 0:
        print("flaky, failed once and passed when rerun:", *failed, sep="\n  ")
    return code


if __name__ == "__main__":
    sys.exit(main())
