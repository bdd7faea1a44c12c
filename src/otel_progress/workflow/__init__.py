"""Workflows: steps that depend on each other, run side by side where they may, and shown while they run.

Needs the extra: `pip install otel-progress[workflow]`.

```python
from otel_progress.workflow import Step, Workflow

research = Workflow("research", stages=[
    Step("plan", planner),
    Step("search", searcher, after=["plan"], retries=3, timeout=60, critical=False),
    Step("write", writer, after=["search"]),
])
results = research.run("the history of tea")
```
"""

from __future__ import annotations

from otel_progress.workflow.graph import Results
from otel_progress.workflow.limit import AdaptiveLimit, adaptive
from otel_progress.workflow.step import Step
from otel_progress.workflow.workflow import Workflow

__all__ = ["AdaptiveLimit", "Results", "Step", "Workflow", "adaptive"]
