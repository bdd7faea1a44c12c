"""A FastAPI application that starts jobs and shows each user the progress of their own.

Run it, and open http://127.0.0.1:8000:

    pip install "otel-progress[web]" fastapi "uvicorn[standard]"
    uvicorn --app-dir examples/fastapi_app app:api

Log in with any name, start a job, close the page and open it again, and log in under another name elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

import otel_progress as progress
from otel_progress import web

HERE = Path(__file__).parent
FILES = {"page.js": "text/javascript", "page.css": "text/css"}
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"
COOKIE = "example-session"
ROW_SECONDS = float(os.environ.get("ROW_SECONDS", "0.03"))
sessions: dict[str, str] = {}
"""The user of each session. A real application keeps them in its database, and asks for a password."""
running: set[asyncio.Task[None]] = set()


def user_of(connection: HTTPConnection) -> str | None:
    """The user who is logged in; nobody else sees their operations."""
    return sessions.get(connection.cookies.get(COOKIE, ""))


api = FastAPI(lifespan=web.lifespan)
api.mount("/progress", web.app(authorize=user_of))


class Login(BaseModel):
    user: str = Field(min_length=1, max_length=50)


class Job(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    hangs: bool = False


@api.post("/login")
def login(given: Login, response: Response) -> dict[str, str]:
    session = secrets.token_urlsafe(32)
    sessions[session] = given.user
    response.set_cookie(COOKIE, session, httponly=True, samesite="lax")
    return {"user": given.user}


@api.get("/user")
def user(request: Request) -> dict[str, str | None]:
    return {"user": user_of(request)}


@api.post("/jobs", status_code=202)
async def start(job: Job, request: Request) -> dict[str, str]:
    owner = user_of(request)
    if owner is None:
        raise HTTPException(401, "log in first")
    key = f"import-{secrets.token_hex(4)}"
    task = asyncio.create_task(work(key, job, owner))
    running.add(task)
    task.add_done_callback(running.discard)
    return {"id": key}


async def work(key: str, job: Job, owner: str) -> None:
    """The job itself; nothing in it knows of the page."""
    try:
        async with progress.operation(
            job.title, id=key, attributes={"owner": owner}, plan=["read", "check"], stall_after=3
        ) as operation:
            for name in ("read", "check"):
                async with progress.stage(name, total=200, unit="row"):
                    for number in range(200):
                        progress.advance()
                        if job.hangs and name == "check" and number == 40:
                            await asyncio.sleep(3600)
                        await asyncio.sleep(ROW_SECONDS)
            operation.complete("200 rows imported")
    except progress.OperationCancelled:
        pass


@api.get("/")
def page() -> FileResponse:
    return FileResponse(HERE / "page.html", headers={"content-security-policy": CSP})


@api.get("/files/{name}")
def file(name: str) -> Any:
    if name not in FILES:
        raise HTTPException(404)
    return FileResponse(HERE / name, media_type=FILES[name])
