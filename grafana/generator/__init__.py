"""Generates grafana/dashboards/*.json: run `python -m grafana.generator` in the root of the repository.

Each panel stands here with its queries, and each query with what it returns in the situation that the tests make
(`tests/stack/dashboard_program.py`).
"""

from grafana.generator.kinds import KINDS
from grafana.generator.now import NOW
from grafana.generator.operation import ONE_OPERATION
from grafana.generator.pipeline import PIPELINE
from grafana.generator.runbook import RUNBOOK

DASHBOARDS = (NOW, ONE_OPERATION, KINDS, PIPELINE, RUNBOOK)
