"""Run scripts in Streamlit's own test client, step by step; answer with what the page shows after each step."""

import json
import sys
import time
from pathlib import Path

from streamlit.testing.v1 import AppTest


def shown(app, began):
    """What the page shows."""
    return {
        "took": time.monotonic() - began,
        "errors": [one.message for one in app.exception],
        "html": [one.proto.body for one in app.get("html")],
        "bars": [one.proto.value for one in app.get("progress")],
        "metrics": {metric.label: metric.value for metric in app.metric},
        "texts": [one.value for one in app.text],
    }


def run(script, steps):
    """Run one script: a number is a pause, `run` a run."""
    app = AppTest.from_string(script, default_timeout=60)
    pages = []
    for step in steps:
        began = time.monotonic()
        if step == "run":
            app.run()
            pages.append(shown(app, began))
        else:
            time.sleep(step)
    return pages


answer = {name: run(script, steps) for name, (script, steps) in json.load(sys.stdin).items()}
Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")
