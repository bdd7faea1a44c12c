"""The options and the help text that `watch`, `list`, `show` and `cancel` share."""

from __future__ import annotations

import argparse
from typing import Final

from otel_progress.cli.parsing import describe

DEFAULT_URL: Final = "http://127.0.0.1:4318"
"""The monitor that is asked unless another one is named."""
LIST_MOST: Final = 10_000
"""The most operations or events that a command may ask for."""
ID_HELP: Final = "its id, the beginning of it, or its name"
_EXIT_CODES: Final = """
exit codes:
  0 success (one operation: it completed, or it     1 the operation failed, was lost, cancelled or
    is shown while it runs)                           interrupted
  2 the command line is invalid                     3 no monitor answers, or it denies access
  4 there is no such operation, or no longer        130 Ctrl+C"""


def common_options(parser: argparse.ArgumentParser, about: str, example: str, exit_codes: str = _EXIT_CODES) -> None:
    """Declare how to reach the monitor, and describe the command together with its exit codes."""
    describe(parser, about, f"{example}\n{exit_codes}")
    parser.add_argument(
        "--url", metavar="URL", help=f"the monitor (default: OTEL_PROGRESS_MONITOR, else {DEFAULT_URL})"
    )
    parser.add_argument("--token-file", metavar="FILE", help="file with its token (default: OTEL_PROGRESS_TOKEN)")
