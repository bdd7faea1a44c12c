"""The module `examples/alerting/demo.py`, which is in no package: `demo.faster` divides all times of rules."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[2] / "examples" / "alerting" / "demo.py"
_spec = importlib.util.spec_from_file_location("demo", _PATH)
assert _spec is not None
assert _spec.loader is not None
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)
