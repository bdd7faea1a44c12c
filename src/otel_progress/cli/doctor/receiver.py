"""What a monitor at the endpoint says of the requests that it got: too large ones, and mistakes of senders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_progress.cli.doctor.configuration import shown
from otel_progress.cli.doctor.findings import Problem, problem
from otel_progress.settings import Endpoint

SECONDS: Final = 1.5
BYTES: Final = 65_536
_PATH: Final = "/v1/logs"


def complaints(endpoint: Endpoint) -> Iterator[Problem]:
    """What is wrong with what others send there; nothing if the endpoint is no monitor, or tells this token nothing."""
    about = _health(endpoint)
    if about.get("product") != "otel-progress":
        return
    intake, mistakes = about.get("intake"), about.get("mistakes")
    large = intake.get("too_large") if isinstance(intake, dict) else None
    if isinstance(large, int) and large > 0:
        yield problem("batch_items", f"{shown(endpoint.url)} refused {large} requests, as they were too large")
    if isinstance(mistakes, dict):
        yield problem("sender_mistakes", f"{shown(endpoint.url)} ignores what it can't use: {mistakes.get('newest')}")


def _health(endpoint: Endpoint) -> Mapping[str, Any]:
    from otel_progress.outbound.session import Session

    if endpoint.protocol == "grpc" or not endpoint.url.endswith(_PATH):
        return {}
    url = f"{endpoint.url.removesuffix(_PATH)}/health"
    try:
        with Session() as session:
            reply = session.ask("GET", url, SECONDS, BYTES, headers=dict(endpoint.headers), verify=endpoint.certificate)
        found = json.loads(reply.body) if reply.status == 200 else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
