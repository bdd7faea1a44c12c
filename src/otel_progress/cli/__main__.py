"""`python -m otel_progress.cli`, the same as `otel-progress`."""

import sys

from otel_progress.cli import main

sys.exit(main())
