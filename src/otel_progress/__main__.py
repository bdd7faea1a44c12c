"""`python -m otel_progress`, the same as `otel-progress`."""

import sys

from otel_progress.cli import main

if __name__ == "__main__":
    sys.exit(main())
