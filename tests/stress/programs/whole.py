"""Runs a part of its work in another program, which gets the operation in the environment or in headers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

progress.configure()
part = [sys.executable, str(Path(__file__).with_name("part.py"))]
with progress.operation("whole", id="whole"), progress.stage("elsewhere"):
    if sys.argv[1] == "environment":
        subprocess.run(part, env=progress.inject(dict(os.environ), environ=True), check=True)
    else:
        subprocess.run([*part, "headers"], input=json.dumps(progress.inject()) + "\n", text=True, check=True)
print("done")
