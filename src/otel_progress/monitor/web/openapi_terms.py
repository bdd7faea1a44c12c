"""Building blocks of the OpenAPI document: schemas, parameters, responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = dict[str, Any]

JSON: Final = "application/json"
ERRORS: Final = {
    400: "A parameter or the body is invalid.",
    401: "A token is needed, or this one is unknown.",
    403: "The token lacks the right, or the request comes from a foreign web page.",
    404: "The operation does not exist, or the token may not see it.",
    408: "The body took too long to arrive.",
    409: "The operation has ended, another attempt runs, or its process is unreachable or refused.",
    413: "The body is too large.",
    415: "The content type is not supported.",
    421: "The `Host` of the request is none of the monitor's names; `--allowed-host` allows one.",
    429: "Too many requests are waiting to be stored; `Retry-After` says when to retry.",
    501: "A package that this needs is not installed where the monitor runs.",
    503: "Overloaded, shutting down, or unable to store; retry.",
    504: "The process did not answer.",
}


def ref(name: str) -> Json:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Iterable[str] = (), /, **properties: Any) -> Json:
    """An object with these properties."""
    needed = list(required)
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}


def list_of(of: Json) -> Json:
    """A list."""
    return {"type": "array", "items": of}


def or_null(schema: Json) -> Json:
    """A value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def map_of(of: Json) -> Json:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": of}


def text(about: str = "", **more: Any) -> Json:
    """A string."""
    return {"type": "string", **({"description": about} if about else {}), **more}


def number(about: str = "", **more: Any) -> Json:
    """A number."""
    return {"type": "number", **({"description": about} if about else {}), **more}


def integer(about: str = "", **more: Any) -> Json:
    """A whole number."""
    return {"type": "integer", **({"description": about} if about else {}), **more}


def boolean(about: str = "") -> Json:
    """True or false."""
    return {"type": "boolean", **({"description": about} if about else {})}


def ratio() -> Json:
    """A number from 0 to 1."""
    return number("From 0 to 1.")


def seconds(about: str = "") -> Json:
    """A duration."""
    return number(about or "Seconds.")


def time(about: str = "") -> Json:
    """A point in time."""
    return number(about or "Unix seconds.")


def query(name: str, about: str, schema: Json) -> Json:
    """A query parameter."""
    return {"name": name, "in": "query", "description": about, "schema": schema}


def words(name: str, about: str, known: Iterable[str]) -> Json:
    """A query parameter of words from a fixed set, separated by commas."""
    schema = {"type": "array", "items": {"type": "string", "enum": sorted(known)}}
    return {**query(name, about, schema), "style": "form", "explode": False}


def header(name: str, about: str) -> Json:
    """A request header."""
    return {"name": name, "in": "header", "description": about, "schema": {"type": "string", "pattern": "^[!-~]*$"}}


def operation_id() -> Json:
    """The path parameter of an operation."""
    about = "The id of an operation, percent-encoded as one path segment, slashes included."
    return {"name": "id", "in": "path", "required": True, "description": about, "schema": {"type": "string"}}


def body(schema: Json, kind: str = JSON) -> Json:
    """A request body."""
    return {"required": True, "content": {kind: {"schema": schema}}}


def response(about: str, schema: Json | None = None, kind: str = JSON, **headers: str) -> Json:
    """A response."""
    said: Json = {"description": about}
    if schema is not None:
        said["content"] = {kind: {"schema": schema}}
    if headers:
        names = {name.replace("_", "-"): told for name, told in headers.items()}
        said["headers"] = {name: {"description": told, "schema": {"type": "string"}} for name, told in names.items()}
    return said


def responses(good: Mapping[int, Json], *wrong: int) -> Json:
    """All responses of a route: the good ones, and what can be wrong with a request."""
    found = {str(status): said for status, said in good.items()}
    found |= {str(status): response(ERRORS[status], ref("Error")) for status in (*wrong, 403, 421)}
    return dict(sorted(found.items()))


def route(about: str, answers: Json, *parameters: Json, free: bool = False, **more: Any) -> Json:
    """An operation of a path; `free` ones need no token."""
    out: Json = {"summary": about, "responses": answers, **more}
    if parameters:
        out["parameters"] = list(parameters)
    if free:
        out["security"] = []
    return out
