"""The OpenAPI 3.1 document of the monitor: each route with its parameters and all its responses."""

from __future__ import annotations

from typing import Final

from otel_progress import semconv as s
from otel_progress.model.states import WORDS
from otel_progress.monitor.web.openapi_schemas import STATUSES, schemas
from otel_progress.monitor.web.openapi_terms import (
    ERRORS,
    JSON,
    Json,
    body,
    boolean,
    header,
    integer,
    list_of,
    number,
    object_of,
    operation_id,
    or_null,
    query,
    ref,
    response,
    responses,
    route,
    text,
    words,
)

PROTOBUF: Final = "application/x-protobuf"
EVENT_STREAM: Final = "text/event-stream"
LIMIT: Final = 100
LIMIT_MOST: Final = 10_000
EVENTS: Final = 200
REPORTS: Final = ("html", "markdown", "csv", "json", "text")
"""The formats of a report."""
EVENTS_MOST: Final = 1_000
NUMBER_MOST: Final = 2**62
WAIT: Final = 5.0
WAIT_MOST: Final = 60.0
TIME_MOST: Final = 1e15

_ABOUT: Final = """The API of the monitor. Times are Unix seconds; unknown fields are left out.

If the monitor has tokens, each request carries one as `Authorization: Bearer TOKEN`; a browser has a session instead.
Without tokens the monitor serves its own machine only. An unknown query parameter is answered with 400, and the text
names the nearest known one; OTLP routes, login links and the page ignore parameters. `GET /stream` and
`GET /operations/{id}/stream` are also served as WebSockets: each message is `{"id": …, "event": …, "data": …}`."""


def document(version: str) -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "otel-progress monitor", "version": version, "description": _ABOUT},
        "security": [{"token": []}, {"session": []}, {}],
        "paths": {**_reading(), **_streams(), **_programs(), **_page()},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "otel-progress-PORT"},
            },
            "schemas": schemas(),
        },
    }


def _reading() -> Json:
    event_id = integer(minimum=0, maximum=NUMBER_MOST)
    after = query("after", "Only events with a higher id, the oldest first.", event_id)
    before = query("before", "Only events with a lower id, the newest ones.", event_id)
    moment = number(minimum=-TIME_MOST, maximum=TIME_MOST)
    wait = number(minimum=0, maximum=WAIT_MOST, default=WAIT)
    described = response("OpenAPI 3.1.", {"type": "object"})
    return {
        "/health": {
            "get": route(
                "Whether the monitor is well.",
                responses({200: response("The monitor answers.", ref("Health"))}, 400),
                free=True,
            ),
        },
        "/api": {"get": route("This document.", responses({200: described}, 400), free=True)},
        "/operations": {
            "get": route(
                "List operations: in trouble, then running, then ended, each the newest first.",
                responses({200: response("One page.", ref("Page"))}, 400, 401),
                words("status", "One or more of these.", STATUSES),
                words(
                    "verdict",
                    "One or more of these; ended operations have none. `silent` means `stuck`, `dead` includes "
                    "`frozen`, and `trouble` stands for all verdicts that need attention.",
                    WORDS,
                ),
                query("name", "Exactly this name.", text()),
                query("search", "Its id, name, agent, service or host contains this, ignoring case.", text()),
                query("since", "Its newest event happened at this time or later.", moment),
                query("until", "Its newest event happened before this time.", moment),
                query("parent", "Only children of this operation.", text()),
                query("limit", "The size of the page.", integer(minimum=0, maximum=LIMIT_MOST, default=LIMIT)),
                query("cursor", "`next` of the previous page.", text()),
            ),
        },
        "/operations/{id}": {
            "get": route(
                "Everything known about one operation.",
                responses({200: response("The operation.", ref("Detail"))}, 400, 401, 404),
                operation_id(),
            ),
            "delete": route(
                "Ask an operation to stop; needs the right to control.",
                {
                    **responses(
                        {
                            200: response("The operation ended.", ref("Cancel")),
                            202: response(
                                "Its process received the request, and the operation has not ended yet.", ref("Cancel")
                            ),
                            504: response(ERRORS[504], ref("Cancel")),
                        },
                        *(400, 401, 404, 409),
                    )
                },
                operation_id(),
                query(
                    "attempt",
                    "Only this attempt; if another one runs, the response is 409 and names it.",
                    integer(minimum=0, maximum=NUMBER_MOST),
                ),
                query("wait", "Seconds to wait for its end.", wait),
                query("reason", "The reason, for its process and its history.", text()),
            ),
        },
        "/operations/{id}/mute": {
            "post": route(
                "Keep webhooks silent about an operation and everything below it; needs the right to control.",
                responses(
                    {200: response("It is muted.", object_of(("muted",), muted=ref("Mute")))},
                    *(400, 401, 404, 408, 409, 413, 503),
                ),
                operation_id(),
                requestBody={"required": False, "content": {JSON: {"schema": ref("AskedMute")}}},
            ),
            "delete": route(
                "Let webhooks speak of it again; if it is in trouble, they do at once. Needs the right to control.",
                responses({204: response("It is not muted any more.")}, 400, 401, 404, 409, 503),
                operation_id(),
            ),
        },
        "/operations/{id}/events": {
            "get": route(
                "The history of one operation, oldest first; a page may be shorter than requested if events are large.",
                responses({200: response("One page.", ref("Events"))}, 400, 401, 404),
                operation_id(),
                after,
                before,
                query("limit", "The size of the page.", integer(minimum=0, maximum=EVENTS_MOST, default=EVENTS)),
                words("event", "Only events with these names.", s.EVENTS),
            ),
        },
        "/operations/{id}/report": {
            "get": route(
                "The report of one operation, as a file to save; HTML needs Jinja2 where the monitor runs.",
                responses({200: _report()}, 400, 401, 404, 501),
                operation_id(),
                query("format", "The format of the file.", text(enum=list(REPORTS), default="html")),
            ),
        },
    }


def _report() -> Json:
    kinds = ("text/html", "text/markdown", "text/csv", JSON, "text/plain")
    said = response("The report.", Content_Disposition="The name of the file.")
    return {**said, "content": {kind: {"schema": {"type": "object"} if kind == JSON else text()} for kind in kinds}}


def _streams() -> Json:
    after = query("after", "The id of the last event received, for clients that cannot send a header.", text())
    last = header("Last-Event-ID", "The id of the last event received; later ones are sent again.")

    def stream(about: str, frames: str, *more: Json, wrong: tuple[int, ...] = ()) -> Json:
        said = response(frames, text(), EVENT_STREAM, X_Accel_Buffering="no")
        good = {200: said, **({204: response("It has ended, and the reader has received everything.")} if more else {})}
        return {"get": route(about, responses(good, 400, 401, 503, *wrong), *more, after, last)}

    every = "Each event has an id, a name and one line of JSON. The first is `hello`; a comment follows every 10 s. "
    return {
        "/stream": stream(
            "Changes of all operations, as server-sent events or over a WebSocket.",
            f"{every}Then `changes` ({{rows, removed}}), or `reset`: changes may be missing, so reload the list.",
        ),
        "/operations/{id}/stream": stream(
            "Changes of one operation, as server-sent events or over a WebSocket.",
            f"{every}Then `operation` (Detail), `events` ({{events}}), or `reset`. The last is `ended` ({{id, status, "
            "attempt}}).",
            operation_id(),
            wrong=(404,),
        ),
    }


def _programs() -> Json:
    """The routes for instrumented processes: OTLP, the control channel, and hooks."""
    routes: Json = {}
    for signal in ("logs", "traces", "metrics"):
        wrong = {
            str(status): {
                "description": ERRORS[status],
                "content": {
                    JSON: {"schema": {"anyOf": [ref("OtlpError"), ref("Error")]}},
                    PROTOBUF: {"schema": text("A google.rpc.Status.", format="binary")},
                },
            }
            for status in (400, 401, 403, 408, 413, 415, 421, 429, 503)
        }
        told = {s.CONTROL_HEADER: "The path of the control channel."} if signal == "logs" else {}
        good = {
            "description": "The request is stored; `partialSuccess` reports what was rejected.",
            "content": {
                JSON: {"schema": object_of((), partialSuccess={"type": "object"})},
                PROTOBUF: {"schema": text(f"The response of the OTLP {signal} service.", format="binary")},
            },
            "headers": {name: {"description": about, "schema": {"type": "string"}} for name, about in told.items()},
        }
        taken = {PROTOBUF: {"schema": text(format="binary")}, JSON: {"schema": {"type": "object"}}}
        about = f"OTLP over HTTP: {signal}. Needs the right to send; browsers are refused."
        routes[f"/v1/{signal}"] = {
            "post": route(about, {"200": good, **wrong}, requestBody={"required": False, "content": taken})
        }
    answers = responses({200: response("The commands.", ref("Commands"))}, 400, 401, 408, 413, 503)
    routes["/control"] = {
        "post": route(
            "The control channel: a process polls for its commands, and waits until there are some.",
            answers,
            requestBody=body(ref("Asked")),
        )
    }
    routes["/watching"] = {
        "post": route(
            "A screen shows these operations: while many run, only those on a screen are followed each second.",
            responses({200: response("For how long that counts.", object_of(("for",), **{"for": number()}))}, 400, 401),
            requestBody=body(object_of(("ids",), ids=list_of(text()))),
        )
    }
    routes["/hooks/claude-code"] = {
        "post": route(
            "A hook of Claude Code, as its HTTP hooks send it; needs the right to send. The answer decides nothing.",
            responses({200: response("The event is taken.", {"type": "object"})}, 400, 401, 408, 413, 415, 429, 503),
            requestBody=body({"type": "object"}),
        )
    }
    return routes


def _page() -> Json:
    who = object_of(
        ("rights", "needs_token"),
        rights=list_of(text(enum=["control", "read"])),
        owner=or_null(text("Only the operations of this owner.")),
        needs_token=boolean(),
    )
    opened = response("The session is open.", object_of(("rights",), rights=list_of(text())), Set_Cookie="The session.")
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ticket = {"name": "ticket", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/session": {
            "get": route(
                "The rights of this client.", responses({200: response("Its rights.", who)}, 400, 401), free=True
            ),
            "post": route(
                "Open a session, for a browser.",
                responses({200: opened}, 400, 401, 408, 413, 415),
                free=True,
                requestBody=body(object_of(("token",), token=text(maxLength=1_000))),
            ),
            "delete": route("End the session.", responses({204: response("The session has ended.")}, 400), free=True),
        },
        "/login/{ticket}": {
            "get": route(
                "Open a session by a link that works once.",
                responses({303: response("Redirect to the page.", Location="The page.")}),
                ticket,
                free=True,
            )
        },
        "/": {"get": route("The page.", responses({200: response("The page.", text(), "text/html")}), free=True)},
        "/static/{name}": {
            "get": route(
                "The files of the page.",
                responses({200: {"description": "The file."}, 404: {"description": "The file does not exist."}}),
                name,
                free=True,
            )
        },
    }
