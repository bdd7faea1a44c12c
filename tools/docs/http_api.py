"""The reference of the monitor's HTTP API, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tools.docs.command_line import cell

from otel_progress.monitor.web.openapi import document

Json = dict[str, Any]
_ABOUT: Final = """\
# HTTP API

The routes of `otel-progress monitor`, from the OpenAPI document that it serves at `/api`. [The monitor's
API](../monitor-api.md) explains rows, streams, tokens and rights.

| route | what it does |
|---|---|
"""


def page() -> str:
    """Return the page: each route with its parameters and answers, and each object."""
    whole = document("")
    routes = list(_routes(whole))
    rows = "".join(f"| [`{name}`](#{_slug(name)}) | {cell(about['summary'])} |\n" for name, about in routes)
    objects = whole["components"]["schemas"]
    return "\n".join(
        (
            f"{_ABOUT}{rows}",
            *(_route(name, about) for name, about in routes),
            "## Objects\n",
            *(_object(name, schema) for name, schema in objects.items()),
        )
    )


def _routes(whole: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in whole["paths"].items():
        for method, about in methods.items():
            yield f"{method.upper()} {path}", about


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return "".join(it for it in heading.lower().replace(" ", "-") if it.isalnum() or it in "-_")


def _route(name: str, about: Json) -> str:
    parts = [f"## {name}", about["summary"], about.get("description", "")]
    parameters = "".join(
        f"| `{it['name']}` | {it['in']} | {_type(it['schema'])} | {cell(it.get('description', ''))} |\n"
        for it in about.get("parameters", ())
    )
    if parameters:
        parts.append(f"| parameter | in | type | meaning |\n|---|---|---|---|\n{parameters}".rstrip())
    if "requestBody" in about:
        parts.append(f"Body: {_body(about['requestBody'])}.")
    answers = "".join(
        f"| {code} | {cell(it.get('description', ''))} | {_body(it)} |\n" for code, it in about["responses"].items()
    )
    parts.append(f"| status | meaning | body |\n|---|---|---|\n{answers}".rstrip())
    return "\n\n".join(filter(None, parts)) + "\n"


def _body(about: Json) -> str:
    return ", ".join(
        f"`{kind}` {_type(it.get('schema', {}))}".rstrip() for kind, it in about.get("content", {}).items()
    )


def _object(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"| `{key}` | {_type(it)}{'' if key in required else ', optional'} | {cell(it.get('description', ''))} |\n"
        for key, it in schema.get("properties", {}).items()
    )
    table = f"| key | type | meaning |\n|---|---|---|\n{rows}".rstrip() if rows else ""
    return "\n\n".join(filter(None, (f"### {name}", schema.get("description", ""), table))) + "\n"


def _type(schema: Json) -> str:
    """Return a schema in words; objects with a name are linked."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{it}`" for it in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(it) for it in schema[key])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
