"""The control channel of the monitor behind `run`, passed on to the command's processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from otel_progress.cli.query.client import is_loopback
from otel_progress.semconv import CONTROL_HEADER
from otel_progress.settings import Endpoint

CONTROL: Final = "OTEL_PROGRESS_CONTROL"
HEADERS: Final = "OTEL_EXPORTER_OTLP_LOGS_HEADERS"
GRPC_PORT: Final = 4317
HTTP_PORT: Final = 4318
"""The port of the control channel of a monitor that receives OTLP over gRPC on its standard port."""


class ControlOffer:
    """What the receiver of log events offers, for the responses of our intake, while it is on this machine.

    The command's processes decide whether to follow it, by the address that `environment` names. A monitor on another
    machine is not passed on: its commands need credentials, which would then leave the endpoint that they are for.
    """

    def __init__(self, endpoint: Endpoint | None) -> None:
        """Of the endpoint of log events; without one there is no offer."""
        self._endpoint = endpoint
        self._address = None if endpoint is None else _address(endpoint)
        self.headers: dict[str, str] = {}
        """Headers for the responses of our intake; empty until the receiver offers a channel."""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Add what the command's processes need to follow the offer: the permission, and the headers of log events."""
        if self._address is None or self._endpoint is None:
            return dict(given)
        asked = {} if given.get(CONTROL) else {CONTROL: self._address}
        sent = ",".join(f"{quote(name)}={quote(value)}" for name, value in self._endpoint.headers)
        return {**given, **asked, **({HEADERS: sent} if sent else {})}

    def offered(self, offer: str) -> None:
        """Take an offer of the receiver: a path, or a URL on this machine at the expected port."""
        if self._address is None:
            return
        try:
            parts, ours = urlsplit(offer), urlsplit(self._address)
            whole = parts.scheme == ours.scheme and is_loopback(parts.hostname or "") and parts.port == ours.port
        except ValueError:
            return
        if (whole or not (parts.scheme or parts.netloc)) and parts.path.startswith("/"):
            self.headers[CONTROL_HEADER] = f"{self._address}{parts.path}"


def _address(endpoint: Endpoint) -> str | None:
    """The address at which a receiver on this machine has its control channel; None for one elsewhere."""
    try:
        parts = urlsplit(endpoint.url)
        port = parts.port
    except ValueError:
        return None
    if not is_loopback(parts.hostname or "") or endpoint.client_certificate or "@" in parts.netloc:
        return None
    if endpoint.protocol == "grpc" and port == GRPC_PORT:
        port = HTTP_PORT
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}" if port else f"{parts.scheme}://{host}"
