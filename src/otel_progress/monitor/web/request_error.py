"""The error that a route raises for a request that it cannot serve."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class RequestError(Exception):
    """A request that cannot be served, with the HTTP status and what to do."""

    def __init__(self, status: int, reason: str) -> None:
        """With a status and a reason in words; the reason is sent as JSON."""
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def error_as_json(_: Request, error: Exception) -> Response:
    """Errors of the router, as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
