"""Variables that several dashboards share."""

from __future__ import annotations

from typing import Final

from grafana.generator.parts import choose, choose_time
from grafana.generator.queries import ID, NAME, label, series
from otel_progress import semconv as s

ACTIVE: Final = series(s.ACTIVE)
JOB_VARIABLE: Final = choose("job", "Service", f"label_values({ACTIVE}, job)", "The job in Prometheus: `service.name`.")
SERVICE_VARIABLE: Final = choose(
    "service",
    "Service in Loki",
    f'label_values({ACTIVE}{{job=~"$job"}}, job)',
    "The service in Loki, without `service.namespace`.",
    everything=None,
    regex="/^(?:.*\\/)?(?<value>[^\\/]+)$/",
    hide=2,
)
NAME_VARIABLE: Final = choose(
    "name", "Kind of work", f'label_values({ACTIVE}{{job=~"$job"}}, {NAME})', "The name of the operation."
)
ID_VARIABLE: Final = choose(
    "id",
    "Operation",
    f'label_values({series(s.RUN_ACTIVE)}{{job=~"$job", {NAME}=~"$name"}}, {ID})',
    "The id of the operation. Type in an id that has ended or had no run series.",
    several=False,
)
CURRENCY_VARIABLE: Final = choose(
    "currency",
    "Currency",
    f"label_values({series(s.COST, '_total')}, {label(s.CURRENCY)})",
    "The currency of costs.",
    several=False,
)
GAP_VARIABLE: Final = choose_time(
    "gap",
    "Heard within",
    "The maximum gap between two samples: at least three export intervals. The alerts use 3m.",
    "3m",
    "5m",
    "10m",
)
KNOWN_VARIABLE: Final = choose_time(
    "known", "Known for", "How long a run that is not heard from stays known. The alerts use 6h.", "6h", "1h", "1d"
)
WINDOW_VARIABLE: Final = choose_time(
    "window", "Over", "The window of counts and quantiles.", "1h", "5m", "15m", "6h", "1d", "7d"
)

WORK: Final = (JOB_VARIABLE, SERVICE_VARIABLE, NAME_VARIABLE)
