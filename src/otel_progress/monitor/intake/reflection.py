"""gRPC's server reflection, version 1 and its alpha: tools such as grpcurl learn OTLP's services and messages here.

The protocol has few messages, so they are read and written by hand, and nothing has to be installed. Only OTLP is
described.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import Any, Final

from otel_progress import clock
from otel_progress.monitor.intake.messages import REQUESTS
from otel_progress.outbound.otlp import chunk

SERVICES: Final = frozenset({"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"})
METHOD: Final = "ServerReflectionInfo"
SECONDS: Final = 60.0
"""Seconds after which a call ends; a client that asks on calls again."""
LENGTH: Final = 1_024
"""The most bytes of a request, which is little more than a name."""
HOST: Final = 1
FILE_BY_NAME: Final = 3
FILE_OF_SYMBOL: Final = 4
EXTENSION: Final = 5
"""A message, which asks for an extension; OTLP has none."""
LIST: Final = 7
NOT_FOUND: Final = 5
UNIMPLEMENTED: Final = 12


def handler(method: str, grpc: Any, described: tuple[str, ...]) -> Any:
    """The handler of a method; None if there is no such method.

    Args:
        method: its name.
        grpc: the module.
        described: the names of the services that are listed.
    """

    async def info(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        until = clock.monotonic() + SECONDS
        while True:
            try:
                request = await asyncio.wait_for(requests.__anext__(), max(0.0, until - clock.monotonic()))
            except (StopAsyncIteration, asyncio.TimeoutError):
                return
            yield respond(request, described)

    return grpc.stream_stream_rpc_method_handler(info) if method == METHOD else None


def respond(request: bytes, described: Iterable[str]) -> bytes:
    """The response to a request, both as protobuf; it names an error if nothing can be answered."""
    if len(request) > LENGTH:
        return _error(UNIMPLEMENTED, "the request is too long")
    try:
        kind, name = _asked(request)
    except (IndexError, ValueError):
        return _error(UNIMPLEMENTED, "only services, files and symbols are described")
    if kind == LIST:
        answer = chunk(6, b"".join(chunk(1, chunk(1, service.encode())) for service in described))
    elif kind not in (FILE_BY_NAME, FILE_OF_SYMBOL):
        answer = _error(UNIMPLEMENTED, "only services, files and symbols are described")
    else:
        found = _file(name) if kind == FILE_BY_NAME else _file_of(name)
        answer = _error(NOT_FOUND, f"there is no {name}") if found is None else chunk(4, _described(found))
    return chunk(2, request) + answer


def _asked(request: bytes) -> tuple[int, str]:
    """What is asked for: the number of the last field beside the host, and its text.

    Raises:
        IndexError, ValueError: if it is not a request of texts.
    """
    found, at = (0, ""), 0
    while at < len(request):
        tag, size = request[at], request[at + 1]
        at += 2
        if size > 0x7F:
            size, at = size & 0x7F | request[at] << 7, at + 1
        field, text = tag >> 3, request[at : at + size].decode()
        if tag & 7 != 2 or not 0 < field < 16 or field == EXTENSION or at + size > len(request):
            raise ValueError("no text")
        if field != HOST:
            found = (field, text)
        at += size
    return found


def _with_needed(file: Any) -> dict[str, Any]:
    """A file and those that it needs, by name, each behind those that it needs itself."""
    found: dict[str, Any] = {}
    for needed in file.dependencies:
        found |= _with_needed(needed)
    return {**found, file.name: file}


@cache
def _files() -> dict[str, Any]:
    """The descriptors of OTLP's files, by name."""
    return {name: file for one in REQUESTS.values() for name, file in _with_needed(one.DESCRIPTOR.file).items()}


def _file(name: str) -> Any:
    return _files().get(name)


def _file_of(symbol: str) -> Any:
    """The file that defines a service, a method, a message or a field of OTLP; None if there is none."""
    pool, (service, _, method) = REQUESTS["logs"].DESCRIPTOR.file.pool, symbol.rpartition(".")
    for file in _files().values():
        known = file.services_by_name.get(service.removeprefix(f"{file.package}."))
        if known is not None and method in known.methods_by_name:
            return file
    try:
        return _file(pool.FindFileContainingSymbol(symbol).name)
    except KeyError:
        return None


def _described(file: Any) -> bytes:
    """A file and those that it needs, as a response has them: the file itself first."""
    return b"".join(chunk(1, one.serialized_pb) for one in reversed(_with_needed(file).values()))


def _error(code: int, text: str) -> bytes:
    return chunk(7, bytes((0x08, code)) + chunk(2, text.encode()))
