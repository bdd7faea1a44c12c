"""Made-up operations of every kind for the page."""

from __future__ import annotations

import time
from typing import Any

from tests.browser.stub import World

STACK = """Thread "survey-worker" (most recent call last):
  File "/srv/demo/survey.py", line 88, in main
    survey(root)
  File "/srv/demo/survey.py", line 61, in survey
    entry = fetch(url)
  File "/srv/demo/agent.py", line 42, in fetch
    answer = session.get(url)
  File "/usr/lib/python3.11/http/client.py", line 1378, in getresponse
    response.begin()
  File "/usr/lib/python3.11/ssl.py", line 1166, in read
    return self._sslobj.read(len, buffer)"""
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG = "an endless sentence about nothing at all that goes on " * 20
RTL = "مسح الملفات العربية"


def progress(completed: float, total: float | None, unit: str = "file", step: str = "", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"completed": completed, "unit": unit, **more}
    if total:
        found |= {"total": total, "ratio": completed / total, "percentage": round(100 * completed / total, 1)}
    if step:
        found["current_step"] = step
    return found


def stage(
    path: str, status: str, started: float | None = None, elapsed: float | None = None, **more: Any
) -> dict[str, Any]:
    found = {
        "name": path.rsplit("/", 1)[-1],
        "path": path,
        "status": status,
        "started_at": started,
        "elapsed": elapsed,
        **more,
    }
    return {key: value for key, value in found.items() if value is not None}


def process(pid: int, heard: float = 1.2) -> dict[str, Any]:
    resource = {"service.name": "demo", "host.name": "atlas", "telemetry.sdk.language": "python", "process.pid": pid}
    return {
        "instance": f"i-{pid}",
        "pid": pid,
        "host": "atlas",
        "service": "demo",
        "heard_ago": heard,
        "heartbeat": 5.0,
        "resource": resource,
    }


def base(ident: str, name: str, started: float, now: float, **more: Any) -> dict[str, Any]:
    pid = 4000 + sum(map(ord, ident)) % 900
    return {
        "id": ident,
        "name": name,
        "status": "running",
        "attempt": 1,
        "service": "demo",
        "host": "atlas",
        "pid": pid,
        "process": process(pid),
        "started_at": started,
        "timestamp": now,
        "elapsed": now - started,
        "idle": 0.4,
        "verdict": {
            "health": "progressing",
            "reason": "advanced 0.4 s ago",
            "overdue": False,
            "seen": "advanced 0.4 s ago",
        },
        "control": True,
        "children": 0,
        **more,
    }


def fill(world: World, now: float | None = None) -> World:
    """One operation of every kind."""
    now = now or time.time()
    trace = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "sampled": True}
    t = now - 96
    world.put(
        base(
            "survey-1", "survey", t, now,
            agent="surveyor", children=3, stage="parse/library",
            description="Reads every file of the standard library and says what it found.",
            progress=progress(452, 1000, step="reading asyncio/base_events.py", rate=38.1, rolled_up=True, eta={"seconds": 14.0, "low": 11.0, "high": 19.0, "source": "rate"}),
            cost={"USD": 0.1234}, tokens={"input": 12_400, "output": 3_110},
            usage={"input_tokens": 12400, "output_tokens": 3110, "cost.USD": 0.1234},
            attributes={"root": "/usr/lib/python3.11", "depth": 4, "owner": "ada", "dry_run": False},
            outcomes={"ok": 431, "skipped": 19, "error": 2}, counters={"line": 182_344, "By": 7_340_032},
            limits={"stall_after": 30.0, "stall_after_source": "given", "slow_after": 300.0, "slow_after_source": "learned from 41 runs"},
            trace={**trace, "url": "https://tempo.example/trace/4bf92f3577b34da6a3ce929d0e0e4736"},
            stages=[
                stage("find", "completed", t, 8.2, progress=progress(1000, 1000), message="1,000 files"),
                stage("approve", "completed", t + 8.2, 14.0, description="Somebody looks at the list."),
                stage("parse", "running", t + 22.5, 73.5, progress=progress(452, 1000, rate=38.1, step="reading asyncio/base_events.py"), critical=True, depends_on=["find"]),
                stage("parse/tests", "completed", t + 22.6, 31.0, progress=progress(311, 311), outcomes={"ok": 311}),
                stage("parse/library", "running", t + 53.6, 42.4, progress=progress(141, 500, rate=3.3, step="reading asyncio/base_events.py")),
                stage("parse/vendored", "running", t + 60, 36, progress=progress(8231, None, "token"), message="tokens of what was vendored"),
                stage("summarise", "pending", planned=True, weight=2.0, expected=20.0),
                stage("upload", "pending", planned=True, critical=False),
            ],
            folded=[["completed", 120, 33.5]],
            timeline=[
                {"kind": "wait", "stage": "approve", "from": t + 9, "to": t + 21.5, "reason": "approval"},
                {"kind": "stall", "stage": "parse/tests", "from": t + 34, "to": t + 44, "reason": "no progress for 10 s"},
                {"kind": "wait", "stage": "parse/library", "from": t + 66, "to": t + 72, "reason": "rate limit"},
            ],
        )
    )  # fmt: skip
    for number, (status, done, agent) in enumerate(
        [("completed", 500, "reader"), ("running", 320, "reader"), ("running", 71, "critic")], 1
    ):
        ended = status == "completed"
        world.put(
            base(
                f"survey-1/part-{number}", "survey.part", t + 24 + number * 6, now - (30 if ended else 0),
                status=status, parent_id="survey-1", agent=agent, stage="" if ended else "parse",
                progress=progress(done, 500, step="" if ended else "hashing", rate=9.0, **({} if ended else {"eta": {"seconds": 40.0, "low": 30, "high": 55, "source": "rate"}})),
                stages=[stage("parse", status, t + 25 + number * 6, 40.0, progress=progress(done, 500))],
                trace=trace, cost={"USD": 0.02}, tokens={"input": 900, "output": 120},
            )
        )  # fmt: skip
    t = now - 140
    world.put(
        base(
            "crawl-7f3a", "crawl", t, now, idle=34.0, agent="fetcher", stage="fetch/pages", stuck_at="agent.py:42 in fetch", stack=STACK,
            verdict={
                "health": "silent", "reason": "no progress for 34 s, stall_after is 30 s", "overdue": False, "limit": "stall_after", "seconds": 34.0,
                "allowed": 30.0, "clock": "idle", "source": "learned from 41 runs", "seen": "fetch/pages, 12 of 50 pages",
            },
            limits={"stall_after": 30.0, "stall_after_source": "learned from 41 runs", "slow_after": 600.0, "slow_after_source": "given"},
            progress=progress(12, 50, "page", "https://example.org/library/12", rate=0.3),
            stages=[
                stage("login", "completed", t, 3.0), stage("fetch", "running", t + 3, 137.0, idle=34.0),
                stage("fetch/index", "completed", t + 3, 20.0, progress=progress(1, 1, "page")),
                stage("fetch/pages", "running", t + 23, 117.0, idle=34.0, progress=progress(12, 50, "page", "https://example.org/library/12")),
                stage("store", "pending", planned=True),
            ],
            timeline=[{"kind": "stall", "stage": "fetch/pages", "from": now - 34, "to": None, "reason": "no progress"}],
            trace=trace, cost={"USD": 1.9}, tokens={"input": 48_000, "output": 9_000},
        )
    )  # fmt: skip
    t = now - 60
    world.put(
        base(
            "agent-loop-2", "research", t, now, idle=2.0, agent="researcher", stage="think",
            verdict={"health": "looping", "reason": "the same 2 tool calls came 14 times in a row", "overdue": False, "limit": "loop", "seen": "search, open"},
            loop={"kind": "tool calls", "keys": ["search(\"otel progress\")", "open(result 1)"], "repeats": 14},
            progress=progress(28, None, "call"), stages=[stage("think", "running", t, 60.0, progress=progress(28, None, "call"))],
            cost={"USD": 0.87, "EUR": 0.1}, tokens={"input": 88_100, "output": 12_030},
        )
    )  # fmt: skip
    t = now - 400
    world.put(
        base(
            "train-12", "train", t, now - 31, idle=18.0, stage="epoch 3", attempt=2,
            verdict={"health": "dead", "reason": "its process is unheard of for 31 s; it beats every 5 s", "overdue": False, "limit": "heartbeat", "seconds": 31.0, "allowed": 15.0, "clock": "heard"},
            progress=progress(3, 10, "epoch", "loss 0.31"), control=False,
            stages=[stage("load", "completed", t, 31.0), stage("epoch 3", "running", t + 200, 169.0, progress=progress(3, 10, "epoch"))],
        )
        | {"process": process(4711, 31.0)}
    )  # fmt: skip
    t = now - 190
    world.put(
        base(
            "deploy-9", "deploy", t, now, status="waiting", idle=75.0, agent="releaser", stage="approve",
            wait={"reason": "approval", "elapsed": 75.0, "overdue_after": 60.0},
            verdict={"health": "waiting", "reason": "waits for approval for 75 s, of at most 60 s", "overdue": True, "limit": "overdue_after", "seconds": 75.0, "allowed": 60.0, "clock": "wait"},
            progress=progress(2, 5, "step"), stages=[stage("build", "completed", t, 110.0), stage("approve", "waiting", t + 115, 75.0, wait={"reason": "approval", "elapsed": 75.0, "overdue_after": 60.0}), stage("roll out", "pending", planned=True)],
            timeline=[{"kind": "wait", "stage": "approve", "from": now - 75, "to": None, "reason": "approval"}],
        )
    )  # fmt: skip
    world.put(
        base(
            "review-3", "review", now - 20, now, status="waiting", agent="reviewer", stage="ask",
            wait={"reason": "human", "elapsed": 3.0, "overdue_after": 600.0}, progress=progress(1, 4, "file"),
            verdict={"health": "waiting", "reason": "waits for a human for 3 s, of at most 600 s", "overdue": False},
            stages=[stage("ask", "waiting", now - 20, 20.0, wait={"reason": "human", "elapsed": 3.0})],
        )
    )  # fmt: skip
    world.put(
        base(
            "etl-2024-11", "etl", now - 4000, now, stage="load",
            verdict={"health": "slow", "reason": "runs for 1 h 6 min, slow_after is 30 min", "overdue": False, "limit": "slow_after", "seconds": 4000.0, "allowed": 1800.0, "clock": "elapsed", "source": "given"},
            progress=progress(7_812_331, 9_000_000, "row", rate=1953.0, eta={"seconds": 608.0, "low": 540.0, "high": 700.0, "source": "rate"}),
            stages=[stage("load", "running", now - 4000, 4000.0, progress=progress(7_812_331, 9_000_000, "row"))],
        )
    )  # fmt: skip
    world.put(
        base(
            "import-55",
            "import",
            now - 70,
            now - 8,
            verdict={
                "health": "unknown",
                "reason": "the monitor has not heard this process since its own start, 8 s ago",
                "overdue": False,
            },
            progress=progress(10, 40),
        )
    )
    world.put(
        base(
            "http-GET",
            "GET /reports",
            now - 12,
            now,
            source="spans",
            service="shop",
            verdict={"health": "progressing", "reason": "its last span ended 0.4 s ago", "overdue": False},
            control=False,
            agent=None,
        )
        | {"progress": None}
    )
    world.put(
        base(
            "backup-1",
            "backup",
            now - 5,
            now,
            status="pending",
            elapsed=None,
            verdict={"health": "waiting", "reason": "not started yet", "overdue": False},
        )
    )
    world.put(
        base(
            "نص/😀", f"{RTL} {NASTY}", now - 30, now, agent=NASTY, stage=NASTY, description=NASTY + LONG,
            progress=progress(1, 3, "😀", f"👩‍🚀 {NASTY} {LONG}"), attributes={NASTY: NASTY, "url": "javascript:alert(3)", "home": "https://example.org/x?a=b", "long": LONG},
            result={"said": NASTY}, stages=[stage(NASTY + RTL, "running", now - 30, 30.0, message=NASTY)],
            trace={"trace_id": "ab" * 16, "span_id": "cd" * 8, "sampled": True, "url": "javascript:alert(4)"},
        )
    )  # fmt: skip
    finished = [
        ("report-8", "report", "completed", None, 100.0), ("report-7", "report", "failed", "ValueError: no such column 'prise'; did you mean 'price'?", 61.0),
        ("crawl-1a2b", "crawl", "cancelled", "cancelled by the monitor: not needed any more", 24.0), ("train-11", "train", "lost", "its process was killed (SIGKILL, out of memory)", 33.0),
        ("import-54", "import", "interrupted", "SIGTERM", 80.0), ("survey-0", "survey", "completed", None, 100.0), ("etl-2024-10", "etl", "completed", None, 100.0),
    ]  # fmt: skip
    for number, (ident, name, status, reason, percent) in enumerate(finished):
        start = now - 900 * (number + 1)
        world.put(
            base(
                ident, name, start, start + 240 + 37 * number, status=status, reason=reason, progress=progress(percent, 100),
                stages=[stage("read", "completed", start, 60.0, progress=progress(100, 100)), stage("write", status, start + 60, 180.0, reason=reason, progress=progress(percent, 100))],
                result={"rows": 1200, "file": "report.csv"} if status == "completed" else None,
            )
        )  # fmt: skip
    feed(world, now)
    return world


def feed(world: World, now: float) -> None:
    """Return the events so far."""

    def say(ident: str, ago: float, event: str, text: str, **more: Any) -> None:
        world.say(ident, event, text, timestamp=now - ago, **more)

    say("survey-1", 96, "progress.operation.started", "survey", agent="surveyor")
    say("survey-1", 95.8, "progress.stage.started", "find", stage="find", agent="surveyor")
    say("survey-1", 91, "progress.note", "looks below /usr/lib/python3.11", stage="find", agent="surveyor")
    say("survey-1", 87.8, "progress.stage.ended", "find", stage="find", status="completed", agent="surveyor")
    say(
        "survey-1",
        87,
        "progress.wait.started",
        "approval",
        stage="approve",
        agent="surveyor",
        attributes={"progress.wait.reason": "approval"},
    )
    say(
        "survey-1",
        74.5,
        "progress.wait.ended",
        "approval",
        stage="approve",
        agent="surveyor",
        attributes={"progress.wait.reason": "approval", "progress.wait.duration": 12.5},
    )
    say("survey-1", 73, "progress.stage.started", "parse/tests", stage="parse/tests", agent="surveyor")
    say(
        "survey-1",
        62,
        "progress.stalled",
        "no progress for 10 s",
        stage="parse/tests",
        agent="surveyor",
        attributes={"progress.health.reason": "no progress for 10 s, stall_after is 10 s"},
    )
    say(
        "survey-1",
        52,
        "progress.recovered",
        "",
        stage="parse/tests",
        agent="surveyor",
        attributes={"progress.stall.duration": 10.0},
    )
    say(
        "survey-1",
        50,
        "progress.note",
        "2 files can't be read: permission denied",
        stage="parse/tests",
        agent="reader",
        status="warning",
    )
    say("survey-1", 42, "progress.stage.ended", "parse/tests", stage="parse/tests", status="completed", agent="reader")
    say("survey-1", 41, "progress.stage.started", "parse/library", stage="parse/library", agent="reader")
    say("survey-1", 12, "progress.note", "asks the critic about asyncio", stage="parse/library", agent="critic")
    say(
        "survey-1",
        9,
        "progress.note",
        "tool failed once: timeout after 5 s",
        stage="parse/library",
        agent="critic",
        status="error",
    )
    say("survey-1", 4, "progress.updated", "45%", stage="parse/library", agent="reader", ratio=0.45)
    say("survey-1", 2, "progress.note", "452 of 1,000 files read", stage="parse/library", agent="surveyor", status="ok")
    say("crawl-7f3a", 140, "progress.operation.started", "crawl", agent="fetcher")
    say("crawl-7f3a", 117, "progress.stage.started", "fetch/pages", stage="fetch/pages", agent="fetcher")
    say("crawl-7f3a", 60, "progress.note", "12 pages so far", stage="fetch/pages", agent="fetcher")
    say(
        "crawl-7f3a",
        4,
        "progress.stalled",
        "no progress for 30 s",
        stage="fetch/pages",
        agent="fetcher",
        attributes={"progress.health.reason": "no progress for 30 s, stall_after is 30 s", "progress.stack": STACK},
    )
    say("نص/😀", 3, "progress.note", NASTY + LONG, agent=NASTY)
    say(
        "report-7",
        700,
        "progress.operation.ended",
        "report",
        status="failed",
        attributes={"progress.status.reason": "ValueError"},
    )


def many(world: World, count: int, now: float | None = None, ended: bool = False) -> World:
    """Return any number of small operations."""
    now = now or time.time()
    for number in range(count):
        started = now - 60 - number * 0.01
        world.put(
            base(
                f"batch-{number:05}", f"batch.{number % 7}", started, now, stage="load", agent=f"worker-{number % 5}", status="completed" if ended else "running",
                progress=progress(number % 100, 100, "row", "loading", rate=3.0, eta={"seconds": 40.0, "low": 30.0, "high": 60.0, "source": "rate"}),
            )
        )  # fmt: skip
    return world


def animate(world: World) -> None:
    """Advance the running operations until the process ends."""
    while True:
        time.sleep(0.5)
        now = time.time()
        for operation in list(world.operations.values()):
            verdict = operation.get("verdict") or {}
            if (
                operation["status"] != "running"
                or verdict.get("health") not in {"progressing", "slow"}
                or not operation.get("progress")
            ):
                continue
            if operation["name"].startswith("batch") and int(operation["id"][-2:]) != int(now * 2) % 100:
                continue
            before = operation["progress"]
            done = before["completed"] + max(1, round(before.get("rate", 1) / 2))
            if before.get("total") and done >= before["total"]:
                done = 0
            after = {**before, "completed": done}
            if before.get("total"):
                after |= {"ratio": done / before["total"], "percentage": round(100 * done / before["total"], 1)}
            elapsed = now - operation["started_at"]
            world.put(operation["id"], progress=after, timestamp=now, elapsed=elapsed)
