"""How to begin, as `otel-progress` says it without a command, and how to report to a monitor."""

from __future__ import annotations

from typing import Final

TEXT: Final = """\
otel-progress shows long-running work while it runs: how far it is, how long it takes, whether it is stuck, and where.

  Say in a program what runs:
      from otel_progress import operation, track

      @operation("nightly-import")
      def main():
          for row in track(rows):
              ...

  Run it, and see it below its own output and in a browser:
      otel-progress run -f -- python job.py

  See all that runs on this machine:
      otel-progress monitor         a page for everything; programs report to it
      otel-progress watch           the same in the terminal; also list, show, cancel

  If nothing arrives:               otel-progress doctor
  All commands and options:         otel-progress --help, otel-progress COMMAND --help
  Documentation and dashboards:     otel-progress assets DIR
  Completion by the Tab key:        otel-progress completion bash|zsh|fish
"""


def sending(url: str) -> str:
    """The command by which a program reports to a monitor at this address."""
    return f"OTEL_EXPORTER_OTLP_ENDPOINT={url} OTEL_PROGRESS_CONFIGURE=true python job.py"
