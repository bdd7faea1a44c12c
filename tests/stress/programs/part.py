"""A part of another process's work, which passed its operation on in the environment, or in headers on our input."""

import json
import sys

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

progress.configure()
carrier = json.loads(sys.stdin.readline()) if "headers" in sys.argv else None
with progress.operation("part", id="part", parent=progress.extract(carrier)):
    print("parent", progress.current().parent_id)
