"""`run` passes on the control channel of a monitor on this machine."""

from __future__ import annotations

import pytest

from otel_progress.cli.run.control_offer import CONTROL, HEADERS, ControlOffer
from otel_progress.semconv import CONTROL_HEADER
from otel_progress.settings import Endpoint


@pytest.mark.parametrize(
    ("protocol", "url", "offer", "found"),
    [
        ("http/protobuf", "http://localhost:4318/v1/logs", "/control", "http://localhost:4318/control"),
        ("grpc", "http://localhost:4317", "http://127.0.0.1:4318/control", "http://localhost:4318/control"),
        ("grpc", "http://127.0.0.1:4700", "http://127.0.0.1:4318/control", None),
        ("http/protobuf", "http://127.0.0.1:4318/v1/logs", "http://evil.example:4318/control", None),
        ("http/protobuf", "http://127.0.0.1:4318/v1/logs", "//evil.example/control", None),
        ("http/protobuf", "http://collector:4318/v1/logs", "/control", None),
    ],
)
def test_only_an_offer_of_this_machine_is_passed_on(protocol: str, url: str, offer: str, found: str | None) -> None:
    """The offer is passed on at the address that the command's processes may follow."""
    control = ControlOffer(Endpoint(protocol, url))
    assert control.headers == {}
    control.offered(offer)
    assert control.headers == ({} if found is None else {CONTROL_HEADER: found})


def test_the_command_may_follow_it() -> None:
    """The command gets the address and the headers of the endpoint, unless the user decided otherwise."""
    control = ControlOffer(Endpoint("http/protobuf", "http://127.0.0.1:4318/v1/logs", (("authorization", "Bearer x"),)))
    assert control.environment({}) == {CONTROL: "http://127.0.0.1:4318", HEADERS: "authorization=Bearer%20x"}
    assert control.environment({CONTROL: "false"})[CONTROL] == "false"
    assert ControlOffer(Endpoint("http/protobuf", "http://collector:4318/v1/logs")).environment({}) == {}
