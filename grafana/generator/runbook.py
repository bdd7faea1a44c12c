"""The runbook as a dashboard: the alert's link fills in the run, so each query in the text is ready to be asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from grafana.generator import links
from grafana.generator.common import ALERTED, GAP_VARIABLE, HEARD_VARIABLE, KNOWN_VARIABLE, PLACE_VARIABLES
from grafana.generator.now import alerts_table
from grafana.generator.operation import short
from grafana.generator.parts import SOURCES, Dashboard, text, type_in
from grafana.generator.queries import ID, Row

FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
head, *entries = FILE.read_text(encoding="utf-8").split("\n## ")
SHORT: Final = {
    "OperationStuck": "alive, but no progress for longer than its limit",
    "OperationLost": "not heard from, or its process is gone",
    "OperationLooping": "busy with the same steps, without progress",
    "OperationSlow": "takes longer than its limit",
    "OperationOverdueWait": "waits longer than its limit",
    "OperationNotStarted": "was made, but has not started",
    "StuckByName": "stuck, and has no series of its own",
    "ReporterLost": "a process with work is not heard from",
    "PipelineDown": "no Collector works, so nothing is known",
    "ErrorRate": "too many runs of a kind fail",
    "OperationMissing": "a listed job has not started in time",
    "OperationFailed": "a run of a listed job failed",
    "Watchdog": "always fires; its absence is the alarm",
}
"""Each alert in a few words, for the title of its row."""
RUN_VARIABLES: Final = (
    type_in("name", "Kind of work", "The name of the operation.", "NAME"),
    type_in("id", "Operation", "The id of the operation.", "ID"),
    type_in("job", "Service", "The job in Prometheus, a regular expression.", ".*"),
    type_in("service", "Service in Loki", "The service without its namespace, a regular expression.", ".+"),
    type_in("instance", "Instance", "The process (`service.instance.id`), a regular expression.", ".*"),
)
"""What an alert's link fills in. The defaults stand in the text until it does."""


def filled(content: str) -> str:
    """Return Markdown whose queries name the variables instead of the words that a person would replace."""
    content = re.sub(r"\[(\w+)\]\(#\w+\)", r"*\1*", content)  # an anchor leads nowhere on a dashboard
    content = re.sub(r'(=~?|~)\s*"(JOB|SERVICE|INSTANCE)"', lambda it: f'=~"${{{it[2].lower()}:raw}}"', content)
    return re.sub(r'"(NAME|ID)"', lambda it: f'"${{{it[1].lower()}:raw}}"', content)


fires = alerts_table(
    "What fires for it",
    "From Prometheus: the alerts that fire for this run, its kind of work or its process, and those of the pipeline.",
    (24, 5),
    f'{ALERTED}, {ID}=~"$id|"',
    Row({"alertname": "OperationStuck", ID: "stuck-1", "severity": "critical"}, 1.7e12),
    id="stuck-1",
)

RUNBOOK = Dashboard(
    links.RUNBOOK,
    "Runbook",
    "For each alert: what it means, how to look, what to do. Generated from docs/runbook.md. The link of an alert "
    "fills in the run; the queries in the text then name it.",
    (*PLACE_VARIABLES, *RUN_VARIABLES, HEARD_VARIABLE, GAP_VARIABLE, KNOWN_VARIABLE, *SOURCES),
    {
        "": (fires, short),
        **{
            f"{title}: {SHORT[title]}": (text(title, filled(content.strip()), (24, 16)),)
            for title, _, content in (entry.partition("\n") for entry in entries)
        },
    },
    since="now-6h",
    refresh="1m",
    collapsed=frozenset(f"{title}: {words}" for title, words in SHORT.items()),
)
