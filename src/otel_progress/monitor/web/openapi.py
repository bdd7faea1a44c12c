"""The description of the API, as OpenAPI 3.1: each route with what it takes and all that it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.status import Health, Status, word
from otel_progress.monitor.state.conditions import STATES, TROUBLE, WORDS

Json = dict[str, Any]

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
EVENT_STREAM: Final = "text/event-stream"
LIMIT: Final = 100
LIMIT_MOST: Final = 10_000
EVENTS: Final = 200
EVENTS_MOST: Final = 1_000
NUMBER_MOST: Final = 2**62
WAIT: Final = 5.0
WAIT_MOST: Final = 60.0
TIME_MOST: Final = 1e15

_STATUSES: Final = [status.value for status in Status if status is not Status.SKIPPED]
_HEALTHS: Final = [health.value for health in Health]
_WRONG: Final = {
    400: "A parameter or a body that can't be meant.",
    401: "A token is needed, or this one is not known.",
    403: "This token lacks the right, or the request comes from a page of somebody else.",
    404: "There is no such operation, or none that this token may see.",
    408: "The body took too long to come in.",
    409: "It is over already, another attempt runs, its process can't be reached, or it refused.",
    413: "The body is too large.",
    415: "The content type is not one that is taken.",
    429: "Too much waits to be stored; `Retry-After` says when to come again.",
    503: "Overloaded, ending, or unable to store; come again.",
    504: "Its process did not answer.",
}
_ABOUT: Final = """What runs, as a program sees it. Times are Unix seconds; what is not known is left out.

With tokens, each request bears one, as `Authorization: Bearer TOKEN`; a browser has a session instead. Without tokens
the monitor serves its own machine alone. A query parameter that a route does not take is answered 400, and the text
names the nearest one that it takes; OTLP routes, login links and the page ignore parameters.
`GET /stream` and `GET /operations/{id}/stream` are WebSockets, too: each
message is `{"id": …, "event": …, "data": …}`."""


def document(version: str) -> Json:
    """The whole of it."""
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
            "schemas": _schemas(),
        },
    }


# -- small words


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Iterable[str] = (), /, **properties: Any) -> Json:
    needed = list(required)
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _map(of: Json) -> Json:
    return {"type": "object", "additionalProperties": of}


def _text(about: str = "", **more: Any) -> Json:
    return {"type": "string", **({"description": about} if about else {}), **more}


def _number(about: str = "", **more: Any) -> Json:
    return {"type": "number", **({"description": about} if about else {}), **more}


def _whole(about: str = "", **more: Any) -> Json:
    return {"type": "integer", **({"description": about} if about else {}), **more}


def _flag(about: str = "") -> Json:
    return {"type": "boolean", **({"description": about} if about else {})}


def _ratio() -> Json:
    return _number("From 0 to 1.")


def _seconds(about: str = "") -> Json:
    return _number(about or "Seconds.")


def _time(about: str = "") -> Json:
    return _number(about or "Unix seconds.")


def _query(name: str, about: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": about, "schema": schema}


def _words(name: str, about: str, known: Iterable[str]) -> Json:
    schema = {"type": "array", "items": {"type": "string", "enum": sorted(known)}}
    return {**_query(name, about, schema), "style": "form", "explode": False}


def _header(name: str, about: str) -> Json:
    return {"name": name, "in": "header", "description": about, "schema": {"type": "string", "pattern": "^[!-~]*$"}}


def _id() -> Json:
    about = "The id of an operation, percent-encoded as one segment, its slashes, too."
    return {"name": "id", "in": "path", "required": True, "description": about, "schema": {"type": "string"}}


def _body(schema: Json, kind: str = JSON) -> Json:
    return {"required": True, "content": {kind: {"schema": schema}}}


def _says(about: str, schema: Json | None = None, kind: str = JSON, **headers: str) -> Json:
    said: Json = {"description": about}
    if schema is not None:
        said["content"] = {kind: {"schema": schema}}
    if headers:
        names = {name.replace("_", "-"): told for name, told in headers.items()}
        said["headers"] = {name: {"description": told, "schema": {"type": "string"}} for name, told in names.items()}
    return said


def _answers(good: Mapping[int, Json], *wrong: int) -> Json:
    """All answers of a route: those it is for, and what may be wrong with a request."""
    found = {str(status): said for status, said in good.items()}
    found |= {str(status): _says(_WRONG[status], _ref("Error")) for status in (*wrong, 403)}
    return dict(sorted(found.items()))


def _route(about: str, answers: Json, *parameters: Json, free: bool = False, **more: Any) -> Json:
    out: Json = {"summary": about, "responses": answers, **more}
    if parameters:
        out["parameters"] = list(parameters)
    if free:
        out["security"] = []
    return out


# -- the routes


def _reading() -> Json:
    number = _whole(minimum=0, maximum=NUMBER_MOST)
    after = _query("after", "Only events with a higher id, from the oldest on.", number)
    before = _query("before", "Only events with a lower id, the newest of them.", number)
    seconds = _number(minimum=-TIME_MOST, maximum=TIME_MOST)
    wait = _number(minimum=0, maximum=WAIT_MOST, default=WAIT)
    described = _says("OpenAPI 3.1.", {"type": "object"})
    return {
        "/health": {
            "get": _route("Whether it lives.", _answers({200: _says("It does.", _ref("Health"))}, 400), free=True),
        },
        "/api": {"get": _route("This description.", _answers({200: described}, 400), free=True)},
        "/operations": {
            "get": _route(
                "Operations: those in trouble, then those that run, newest first, then those that ended, newest first.",
                _answers({200: _says("A page of them.", _ref("Page"))}, 400, 401),
                _words("status", "Any of these.", _STATUSES),
                _words(
                    "verdict",
                    "Any of these; what ended has none. `silent` means `stuck`, `dead` finds `frozen`, too, and "
                    "`trouble` stands for all that a list marks.",
                    WORDS,
                ),
                _query("name", "Exactly this name.", _text()),
                _query("search", "Its id, name, agent, service or host holds this, in upper or lower case.", _text()),
                _query("since", "Its newest event was not before.", seconds),
                _query("until", "Its newest event was before.", seconds),
                _query("parent", "A child of this operation.", _text()),
                _query("limit", "At most so many.", _whole(minimum=0, maximum=LIMIT_MOST, default=LIMIT)),
                _query("cursor", "Where to go on: `next` of the page before.", _text()),
            ),
        },
        "/operations/{id}": {
            "get": _route(
                "All there is of one operation.", _answers({200: _says("It.", _ref("Detail"))}, 400, 401, 404), _id()
            ),
            "delete": _route(
                "Ask an operation to stop; it needs the right to control.",
                {
                    **_answers(
                        {
                            200: _says("It ended.", _ref("Cancel")),
                            202: _says("Its process took it, and it has not ended yet.", _ref("Cancel")),
                            504: _says(_WRONG[504], _ref("Cancel")),
                        },
                        *(400, 401, 404, 409),
                    )
                },
                _id(),
                _query(
                    "attempt",
                    "Only this attempt; where another one runs, the answer is 409 and names it.",
                    _whole(minimum=0, maximum=NUMBER_MOST),
                ),
                _query("wait", "So many seconds its end is waited for.", wait),
                _query("reason", "Why, for its process and its history.", _text()),
            ),
        },
        "/operations/{id}/events": {
            "get": _route(
                "The history of one operation, oldest first; a page may be shorter than asked where events are large.",
                _answers({200: _says("A page of it.", _ref("Events"))}, 400, 401, 404),
                _id(),
                after,
                before,
                _query("limit", "At most so many.", _whole(minimum=0, maximum=EVENTS_MOST, default=EVENTS)),
                _words("event", "Only events of these names.", s.EVENTS),
            ),
        },
    }


def _streams() -> Json:
    after = _query("after", "The id of the last event that was seen, where a header can't be sent.", _text())
    last = _header("Last-Event-ID", "The id of the last event that was seen: what came after is sent again.")

    def stream(about: str, frames: str, *more: Json, wrong: tuple[int, ...] = ()) -> Json:
        said = _says(frames, _text(), EVENT_STREAM, X_Accel_Buffering="no")
        good = {200: said, **({204: _says("It has ended, and all of it was seen.")} if more else {})}
        return {"get": _route(about, _answers(good, 400, 401, 503, *wrong), *more, after, last)}

    every = "Each event has an id, a name, and one line of JSON. First comes `hello`, each 10 s a comment. "
    return {
        "/stream": stream(
            "What changes, as server-sent events or by a WebSocket.",
            f"{every}Then `changes` ({{rows, removed}}), or `reset`: what was missed is not known; load the list anew.",
        ),
        "/operations/{id}/stream": stream(
            "One operation, whenever it changes, as server-sent events or by a WebSocket.",
            f"{every}Then `operation` (Detail), `events` ({{events}}), or `reset`. The last is `ended` ({{id, status, "
            "attempt}}), with which the stream ends.",
            _id(),
            wrong=(404,),
        ),
    }


def _programs() -> Json:
    """What programs send: OTLP, and the control channel."""
    routes: Json = {}
    for signal in ("logs", "traces", "metrics"):
        wrong = {
            str(status): {
                "description": _WRONG[status],
                "content": {
                    JSON: {"schema": {"anyOf": [_ref("OtlpError"), _ref("Error")]}},
                    PROTOBUF: {"schema": _text("A google.rpc.Status.", format="binary")},
                },
            }
            for status in (400, 401, 403, 408, 413, 415, 429, 503)
        }
        told = {"Otel-Progress-Control": "Where the control channel is."} if signal == "logs" else {}
        good = {
            "description": "It is stored; `partialSuccess` tells what was not.",
            "content": {
                JSON: {"schema": _object((), partialSuccess={"type": "object"})},
                PROTOBUF: {"schema": _text(f"The response of the OTLP {signal} service.", format="binary")},
            },
            "headers": {name: {"description": about, "schema": {"type": "string"}} for name, about in told.items()},
        }
        taken = {PROTOBUF: {"schema": _text(format="binary")}, JSON: {"schema": {"type": "object"}}}
        about = f"OTLP over HTTP: {signal}. It needs the right to send; browsers may not."
        routes[f"/v1/{signal}"] = {
            "post": _route(about, {"200": good, **wrong}, requestBody={"required": False, "content": taken})
        }
    answers = _answers({200: _says("What it is to do.", _ref("Commands"))}, 400, 401, 408, 413, 503)
    routes["/control"] = {
        "post": _route(
            "The control channel: a process asks for its commands, and is held until there are some.",
            answers,
            requestBody=_body(_ref("Asked")),
        )
    }
    return routes


def _page() -> Json:
    who = _object(
        ("rights", "needs_token"),
        rights=_list(_text(enum=["control", "read"])),
        owner=_or_null(_text("Only the operations of this owner.")),
        needs_token=_flag(),
    )
    opened = _says("It is open.", _object(("rights",), rights=_list(_text())), Set_Cookie="The session.")
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ticket = {"name": "ticket", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/session": {
            "get": _route("Who one is.", _answers({200: _says("This one.", who)}, 400, 401), free=True),
            "post": _route(
                "Open a session, for a browser.",
                _answers({200: opened}, 400, 401, 408, 413, 415),
                free=True,
                requestBody=_body(_object(("token",), token=_text(maxLength=1_000))),
            ),
            "delete": _route("End the session.", _answers({204: _says("It is over.")}, 400), free=True),
        },
        "/login/{ticket}": {
            "get": _route(
                "A link that opens a session, once.",
                _answers({303: _says("On to the page.", Location="The page.")}),
                ticket,
                free=True,
            )
        },
        "/": {"get": _route("The page.", _answers({200: _says("It.", _text(), "text/html")}), free=True)},
        "/static/{name}": {
            "get": _route(
                "What the page consists of.",
                _answers({200: {"description": "The file."}, 404: {"description": "There is no such file."}}),
                name,
                free=True,
            )
        },
    }


# -- what is said


def _schemas() -> Json:
    return {
        "Error": _object(("error",), error=_text("What is wrong, and what to do.")),
        "OtlpError": _object(("message",), message=_text("What is wrong.")),
        "Health": _object(
            ("status", "product", "version", "pid"),
            status=_text(enum=["ok", "degraded"]),
            product=_text(const="otel-progress"),
            version=_text(),
            pid=_whole(),
            operations=_object(
                ("running", "trouble", "stored"),
                running=_whole(),
                trouble=_whole("Those that run and need a look."),
                stored=_whole("Those that ended."),
            ),
            records=_object((), taken=_whole(), refused=_whole()),
            readers=_whole("How many read streams."),
            denied=_whole("Requests whose token was none of the monitor's."),
            unshown=_whole("Operations that lists leave out, as what was said of them can't be shown."),
            intake=_object(
                ("waiting", "no_room", "client_gone", "too_large", "records", "too_slow"),
                waiting=_whole("Requests that wait to be taken."),
                no_room=_whole("Requests refused because too much waited."),
                client_gone=_whole("Requests dropped because their client had gone before they were taken."),
                too_large=_whole("Requests refused because they held too much."),
                records=_whole("Records and spans not taken because they held too much."),
                too_slow=_whole("Bodies and calls given up because they came in slowly while many others did."),
            ),
            redis=_object(
                ("published", "dropped", "taken", "skipped", "lost", "lag"),
                published=_whole("Entries that Redis took."),
                dropped=_whole("Entries that were not written."),
                taken=_whole("Entries of other monitors that were taken."),
                skipped=_whole("Entries of other monitors that could not be read."),
                lost=_whole("Entries that were trimmed away before they were read."),
                lag=_or_null(_whole("Entries that are not read yet.")),
                skipped_why=_text("Why the last skipped entry could not be read."),
                trouble=_text("Why Redis can't be used."),
            ),
            trouble=_text("Why nothing can be stored, what is wrong with the file, or why Redis can't be used."),
            loading=_ref("Loading"),
            integrity=_object(
                ("status",),
                status=_text(
                    "What the last look at all pages of the file found.", enum=["not looked at yet", "ok", "damaged"]
                ),
                checked_at=_number("When that was, in Unix seconds."),
                seconds=_number("How long it took."),
            ),
        ),
        # After a start, until all that ran before is there; the counts are for those who see all operations.
        "Loading": _object(
            (),
            loaded=_whole("So many are there.", minimum=0),
            of=_whole("So many ran before.", minimum=0),
        ),
        "Page": _object(
            ("operations", "next", "total", "counts", "trouble", "position"),
            operations=_list(_ref("Row")),
            next=_or_null(_text("The cursor of the next page.")),
            total=_whole(minimum=0),
            counts=_map(_whole("How many of all that are meant are in this state.", minimum=0)),
            trouble=_whole(f"How many of them a list marks: {', '.join(sorted(TROUBLE))}.", minimum=0),
            position=_text("From where the stream goes on.", pattern="^[0-9a-f]+-[0-9]+$"),
            unshown=_whole("Operations of this page that are left out, as what was said of them can't be shown."),
            loading=_ref("Loading"),
        ),
        "Row": _object(("id", "name", "status", "attempt", "timestamp", "revision"), **_row()),
        "Child": _object(
            ("id", "name", "status", "attempt", "timestamp", "revision"),
            **_row(),
            description=_text(),
            attributes=_map({}),
        ),
        "Detail": _object(("id", "name", "status", "attempt", "timestamp", "revision"), **{**_row(), **_more()}),
        "Verdict": _verdict(),
        "Eta": _eta(),
        "Progress": _progress(),
        "Stage": _stage(),
        "Wait": _object((), reason=_text(), elapsed=_seconds(), overdue_after=_seconds()),
        "Events": _object(
            ("events", "next"),
            events=_list(_ref("Event")),
            next=_or_null(_whole("`after`, or `before`, of the next page.")),
        ),
        "Event": _event(),
        "Cancel": _object(
            ("state",), state=_text(enum=["obeyed", "received", "timed out"]), detail=_text("How, in words.")
        ),
        "Asked": _asked(),
        "Commands": _object(
            ("commands",),
            commands=_list(
                _object(
                    ("id", "kind", "operation_id", "reason"),
                    id=_text(),
                    kind=_text("What to do: stop it, or only log the reason as a warning.", enum=["cancel", "warn"]),
                    operation_id=_text(),
                    attempt=_whole(),
                    reason=_text(),
                )
            ),
        ),
    }


def _row() -> Json:
    return {
        "id": _text(),
        "name": _text(),
        "status": _text(enum=_STATUSES),
        "state": _text("One word for how it is: its verdict, or the status of one that is over.", enum=list(STATES)),
        "trouble": _flag("Only where a list marks it as trouble."),
        **_brief(),
        "reason": _text("Of a final status."),
        "attempt": _whole("As the monitor counts, over all processes."),
        "also_running": {**_list(_run()), "description": "Older runs of the same id that live beside this one."},
        "warning": _text("That two processes run this id."),
        "parent_id": _text(),
        "agent": _text(),
        "service": _text(),
        "host": _text(),
        "pid": _whole(),
        "started_at": _time(),
        "timestamp": _time(
            "The moment that `elapsed`, `idle` and `wait` are of: that of the answer, by its clock, while "
            "its process is heard; else that of its last sign of life. Of one that is over, its end."
        ),
        "said_at": _time("When its newest event was said."),
        "elapsed": _seconds("At `timestamp`."),
        "idle": _seconds("At `timestamp`."),
        "stage": _text("The path of the innermost running stage."),
        "progress": _ref("Progress"),
        "stage_progress": _ref("Progress"),
        "wait": _ref("Wait"),
        "stuck_at": _text(),
        "cancel": _text("Somebody asked it to stop.", const="requested"),
        "cost": _map(_number("With that of its children, by currency.")),
        "tokens": _map(_number("With those of its children, by direction.")),
        "children": _whole(minimum=0),
        "ended": _flag("Only when it is over."),
        "source": _text("Known from spans alone.", const="spans"),
        "revision": _whole("Of two rows of an id the higher one holds."),
    }


def _run() -> Json:
    return _object(
        ("attempt", "instance"),
        attempt=_whole(),
        started_at=_time(),
        instance=_text(),
        pid=_whole(),
        host=_text(),
    )


def _branch() -> Json:
    texts = ("label", "path", "lane", "child", "reason", "stuck_at")
    return _object(
        ("label", "health"),
        health=_text(enum=sorted({word(health) for health in Health})),
        idle=_seconds(),
        stall_after=_seconds(),
        wait=_ref("Wait"),
        **{name: _text() for name in texts},
    )


def _brief() -> Json:
    """What `Snapshot.to_dict()` calls the same."""
    return {
        "operation_id": _text("The same as `id`."),
        "percentage": _or_null(_number("From 0 to 100, with that of its children.")),
        "current_step": _or_null(_text("The message, else the stage that runs.")),
        "eta": _or_null(_ref("Eta")),
        "verdict": _or_null(_ref("Verdict")),
    }


def _stages_and_history() -> Json:
    """What `Snapshot.to_dict()` calls the same, of a detail."""
    ended = _object(
        ("stage", "status", "duration"),
        stage=_text("Its path."),
        status=_text(enum=_STATUSES),
        started_at=_time(),
        duration=_seconds(),
        message=_or_null(_text()),
        reason=_or_null(_text()),
    )
    runs = _object(
        ("path", "name", "count", "counts", "seconds", "median", "p90", "p95", "longest", "folded"),
        path=_text(),
        name=_text(),
        count=_whole("How many runs ended."),
        counts=_map(_whole()),
        folded=_whole("How many of them are not among the stages."),
        **{name: _seconds() for name in ("seconds", "median", "p90", "p95", "longest")},
    )
    return {
        "current_stage": _or_null(_whole("The place of the stage that runs, from 0 on.")),
        "total_stages": _or_null(_whole("Outermost stages, by name.")),
        "stages_completed": _or_null(_whole()),
        "failed_stage": _or_null(_text("The path of the stage that failed last.")),
        "stage_history": _list(ended),
        "average_stage_duration": _or_null(_seconds()),
        "elapsed_time": _seconds(),
        "estimated_completion": _or_null(_text("A time, in ISO 8601.")),
        "updated_at": _time(),
        "repeated": _list(runs),
    }


def _more() -> Json:
    """What a detail has beside what is in a row."""
    timeline = _object(
        ("kind", "from", "to"),
        kind=_text(enum=["wait", "stall"]),
        stage=_or_null(_text()),
        to=_or_null(_time()),
        reason=_or_null(_text()),
        stuck_at=_text(),
        **{"from": _time()},
    )
    limits = ("stall_after", "slow_after", "start_within")
    sources = ("stall_after_source", "slow_after_source")
    anything: Json = {}
    return {
        **_stages_and_history(),
        "description": _text(),
        "attributes": _map(anything),
        "result": _map(anything),
        "outcomes": _map(_number()),
        "counters": _map(_number()),
        "usage": _map(_number("Its own, raw.")),
        "limits": _object((), **{name: _seconds() for name in limits}, **{name: _text() for name in sources}),
        "stages": _list(_ref("Stage")),
        "folded": {**_list(_list(anything)), "description": "Older stages: status, how many, seconds."},
        "timeline": _list(timeline),
        "children_rows": _list(_ref("Child")),
        "ancestors": _list(_object(("id",), id=_text(), name=_text())),
        "stack": _text(),
        "branches": {**_list(_branch()), "description": "What runs side by side in it, the worst first."},
        "loop": _object((), kind=_text(), keys=_list(_text()), repeats=_whole()),
        "notes_url": _text("Where its history is."),
        "trace": _object(
            ("trace_id", "span_id", "sampled", "url"),
            trace_id=_text(),
            span_id=_text(),
            sampled=_flag(),
            url=_or_null(_text()),
        ),
        "process": _object(
            ("instance", "heard_ago", "resource"),
            instance=_text(),
            pid=_whole(),
            host=_text(),
            service=_text(),
            heard_ago=_seconds(),
            heartbeat=_seconds("From one to the next."),
            resource=_map(anything),
        ),
        "control": _flag("Whether its process can be told to stop."),
    }


def _verdict() -> Json:
    texts = ("reason", "limit", "clock", "source", "seen")
    return _object(
        ("health",),
        health=_text(enum=sorted({word(health) for health in Health})),
        overdue=_flag(),
        frozen=_flag("Its process is dead, and proven to be stopped."),
        child=_text("The id of the child operation in another process that decides."),
        branch=_text("Which of several branches decides."),
        seconds=_seconds(),
        allowed=_seconds(),
        **{name: _text() for name in texts},
    )


def _eta() -> Json:
    return _object((), seconds=_seconds(), low=_seconds(), high=_seconds(), source=_text())


def _progress() -> Json:
    return _object(
        (),
        percentage=_number(),
        current_step=_text(),
        ratio=_ratio(),
        completed=_number(),
        total=_number(),
        unit=_text(),
        rate=_number("Units a second."),
        eta=_ref("Eta"),
        rolled_up=_flag("Made from its children."),
    )


def _stage() -> Json:
    anything: Json = {}
    numbers = ("weight", "expected", "started_at", "elapsed", "idle")
    return _object(
        ("name", "path", "status", "progress"),
        name=_text(),
        path=_text(),
        status=_text(enum=[status.value for status in Status]),
        planned=_flag(),
        progress=_ref("Progress"),
        message=_text(),
        reason=_text(),
        description=_text(),
        wait=_ref("Wait"),
        critical=_flag(),
        depends_on=_list(_text()),
        attributes=_map(anything),
        outcomes=_map(_number()),
        counters=_map(_number()),
        **{name: _number() for name in numbers},
    )


def _event() -> Json:
    return _object(
        ("id", "timestamp", "event", "text", "operation_id", "attempt", "sequence"),
        id=_whole(),
        timestamp=_time(),
        event=_text(),
        text=_text(),
        operation_id=_text(),
        attempt=_whole(),
        sequence=_whole(),
        stage=_text(),
        agent=_text(),
        status=_text(),
        ratio=_ratio(),
        attributes=_map({}),
    )


def _asked() -> Json:
    answer = _object(
        ("command", "state"),
        command=_text(minLength=1, maxLength=200),
        state=_text(enum=["received", "refused", "unknown"]),
        detail=_text(),
    )
    return _object(
        ("instance",),
        instance=_text("Its `service.instance.id`.", minLength=1, maxLength=200),
        pid={"type": ["integer", "null"], "minimum": 0, "maximum": 2**32},
        answers={**_list(answer), "maxItems": 1_000},
        wait=_number("So many seconds it is held where there is nothing to say; 60 at the most.", minimum=0),
    )
