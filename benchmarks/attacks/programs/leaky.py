"""Reports the secret in $TOLD through every call of the API; argv[1] is how the program ends.

The secret has a context or a format that marks it as one; argv[1] is `ends` or `hangs`, and argv[2], if given, an
outlet of the process (`console`, `jsonlines`), or `hook`: a redaction that fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import otel_progress as progress
from otel_progress.handlers.console import Console
from otel_progress.handlers.jsonlines import JsonLines

secret, ends, extra = os.environ["TOLD"], sys.argv[1], (sys.argv[2:] or [""])[0]
said = f"login with password={secret} and go on"


@progress.operation(
    "decorated", attributes={"db.password": secret, "dsn": f"postgres://bob:{secret}@db/x"}, description=said
)
def decorated() -> None:
    progress.update(message=said)


def fails() -> None:
    password = secret
    raise ValueError(f"password={password} was refused")


def all_of_it() -> None:
    progress.update(message=said)
    progress.set(
        api_key=secret,
        headers={"Authorization": f"Bearer {secret}"},
        line=["--token", secret],
        deep=[{"secret": secret}],
    )
    progress.note(said, status="warning", authorization=f"Basic {secret}")
    progress.heartbeat(cookie=secret)
    progress.record("failed", item=f"https://user:{secret}@host/x?token={secret}", component=said)
    progress.result(access_token=secret, url=f"https://host/?sig={secret}")
    for _ in range(12):
        progress.step(f"fetch --api-key {secret}")
    with progress.waiting(said):
        time.sleep(0.3)
    for _ in progress.track(range(3), desc=said):
        pass
    with progress.stage("stage", description=said, message=said, attributes={"client_secret": secret}):
        time.sleep(0.3)
    for end in (lambda stage: stage.fail(said), lambda stage: stage.cancel(said), lambda stage: stage.complete(said)):
        stage = progress.stage("told").start()
        end(stage)
    try:
        with progress.stage("raises"):
            fails()
    except ValueError:
        pass


plan = [progress.StagePlan("stage", description=said), "told", "raises"]
with progress.operation("early", attributes={"password": secret}, description=said) as early:
    early.request_cancel(said)
outlet: Any = {"console": Console, "jsonlines": lambda: JsonLines(sys.stdout)}.get(extra, contextlib.nullcontext)()
calls: list[str] = []


def failing(what: str, text: str) -> Any:
    """Alternately raise, and return something other than a text."""
    calls.append(what)
    if len(calls) % 2:
        raise RuntimeError(text)
    return calls


outlet.__enter__()
given: dict[str, Any] = {"redact": failing} if extra == "hook" else {}
progress.configure(**given, resource={"process.command_args": ["job", "--password", secret], "secret": secret})
decorated()
print(f"starting with token={secret}", file=sys.stderr)
with progress.operation(
    "leaky", plan=plan, stall_after=1.0, attributes={"password": secret}, description=said
) as operation:
    all_of_it()
    print("told", flush=True)
    if ends == "hangs":
        print(f"hangs, password: {secret}", file=sys.stderr, flush=True)
        time.sleep(600) if "password=" + secret else None  # stuck at this line
    time.sleep(1.5)
    operation.request_cancel(said)
    fails()
