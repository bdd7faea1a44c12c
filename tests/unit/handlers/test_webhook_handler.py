"""The webhook of a process: what it posts, that it is what the monitor posts, and that no receiver harms the job."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts
from webhook_receiver import Hook

import otel_progress as progress
from otel_progress import semconv as s
from otel_progress.handlers import chosen
from otel_progress.handlers.archive import archive
from otel_progress.handlers.operation_row import OperationRows, event_json
from otel_progress.handlers.webhook import WebhookHandler
from otel_progress.live.engine import runtime
from otel_progress.model.snapshot import Event, Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.monitor.outlets.dispatch import Outlets
from otel_progress.outbound.webhook import WebhookOptions
from otel_progress.testing import Capture

AT = 1_700_000_000.0


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver."""
    made = Hook()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chosen, "_is_chosen", False)
    yield
    chosen.stop()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kinds(hook: Hook) -> list[str]:
    return [post.said["kind"] for post in hook.posts]


# -- what is posted


def test_ends_are_posted_and_updates_are_not(hook: Hook) -> None:
    """By default only ends and trouble; the row, the sentence and the process are there."""
    with WebhookHandler(hook.url), pytest.raises(ValueError, match="no"), progress.operation("job", id="j", total=4):
        with progress.stage("load"):
            progress.advance(2)
        raise ValueError("no")
    (post,) = hook.posts
    said = post.said
    assert said["kind"] == "failed"
    assert (said["operation"]["id"], said["operation"]["reason"]) == ("j", "ValueError: no")
    assert said["operation"]["progress"]["completed"] == 2
    assert said["operation"]["pid"] == os.getpid()
    assert said["operation"]["host"] == socket.gethostname()
    assert said["event"]["text"].startswith("job failed after")


def test_all_includes_each_change(hook: Hook) -> None:
    """`all` has starts, stages, notes and waits in order; a chosen list has these alone."""
    with WebhookHandler(hook.url, events="all"), progress.operation("job"):
        with progress.stage("load"):
            progress.note("hello")
        with progress.waiting("you"):
            pass
    found = [kind for kind in kinds(hook) if kind != "updated"]
    assert found == ["started", "stage_started", "stage_ended", "note", "wait_started", "wait_ended", "ended"] or (
        sorted(found)
        == sorted(["started", "stage_started", "stage_ended", "note", "wait_started", "wait_ended", "ended"])
    )
    assert (found[0], found[-1]) == ("started", "ended")
    hook.posts.clear()
    with WebhookHandler(hook.url, events=["started"]), progress.operation("job"):
        pass
    assert kinds(hook) == ["started"]


def test_chat_messages_have_the_same_words(hook: Hook) -> None:
    """A message says what the log says."""
    with WebhookHandler(hook.url, format="slack"), progress.operation("nightly <!channel>"):
        pass
    (post,) = hook.posts
    assert post.said["text"].startswith("nightly &lt;!channel&gt; completed after")


def test_two_receivers_get_what_each_chose(hook: Hook) -> None:
    """Failures to the chat, everything to a program."""
    other = Hook()
    try:
        with WebhookHandler(hook.url, events="failed"), WebhookHandler(other.url, events="all"):
            with progress.operation("good"):
                pass
            progress.operation("bad").start().fail("no")
        assert [post.said["operation"]["name"] for post in hook.posts] == ["bad"]
        assert {"started", "ended", "failed"} <= set(kinds(other))
    finally:
        other.stop()


def test_a_parent_sums_up_its_children(hook: Hook) -> None:
    """The row of an operation has the cost of all below it, as in the monitor."""
    with WebhookHandler(hook.url), progress.operation("crew") as crew:
        for name in ("one", "two"):
            with progress.operation(name) as child:
                child.usage(cost=1.5, currency="USD")
    last = hook.posts[-1].said["operation"]
    assert last["id"] == crew.id
    assert (last["cost"], last["children"]) == ({"USD": 3.0}, 2)


def test_children_whose_events_were_not_chosen_count_too(hook: Hook) -> None:
    """What is posted about the parent is complete, whatever is posted about the children."""
    with WebhookHandler(hook.url, events="note"), progress.operation("crew") as crew:
        with progress.operation("one") as child:
            child.usage(cost=1.5, currency="USD")
        crew.note("done")
    (post,) = hook.posts
    assert post.said["operation"]["cost"] == {"USD": 1.5}


def test_the_end_of_an_overdue_wait_is_a_recovery(hook: Hook, progress_capture: Capture) -> None:
    """Whoever was called about a wait hears that it is over; if the operation ends in it, its end says so."""
    with WebhookHandler(hook.url), progress.operation("job"):
        with progress.waiting("you", overdue_after=1):
            progress_capture.advance(3)
        progress_capture.advance(3)
        with progress.waiting("quick", overdue_after=10):
            progress_capture.advance(1)
    assert kinds(hook) == ["overdue", "recovered", "ended"]


SNAPSHOTS = {
    s.STALLED: {
        "health": Health.SILENT,
        "idle": 90.0,
        "stall_after": 45.0,
        "health_reason": "no progress for 90 s, stall_after is 45 s",
        "stuck_at": "a.py:1 in f",
        "stage": "load",
        "progress": Progress(2, 4, "file", 0.5),
    },
    s.WAIT_OVERDUE: {"status": Status.WAITING, "wait": Wait("you", 9.0, 5.0), "overdue": True, "stage": "load"},
    s.OPERATION_ENDED: {"status": Status.FAILED, "reason": "no", "progress": Progress(2, 4, "file", 0.5)},
    s.OPERATION_STARTED: {"message": "hello"},
    s.UPDATED: {
        "progress": Progress(2, 4, "file", 0.5, rate=1.0),
        "stage": "load",
        "stages": (StageSnapshot("load", "load", Status.RUNNING, progress=Progress(1, 2)),),
    },
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_monitor_posts_the_same(hook: Hook, monitor: Parts, name: str) -> None:
    """The JSON of a process and that of a monitor differ only in what each knows of time and process."""
    given: dict[str, Any] = {"started_at": AT, "elapsed": 100.0, "sequence": 3, **SNAPSHOTS[name]}
    status = given.pop("status", Status.RUNNING)
    snapshot = Snapshot("a", "work", status, AT + 100, **given)
    outlets = Outlets(monitor.core, monitor.views, None, WebhookOptions(hook.url, events="all"), "origin")
    monitor.core.listen(outlets)
    monitor.say(snapshot, event=name)
    outlets.stop(5.0)
    theirs = hook.posts[0].said
    event = Event(name, round((AT + 100) * 1e9), snapshot, 3)
    ours = json.loads(json.dumps({"operation": OperationRows().row(event), "event": event_json(event)}))
    for one in (theirs["operation"], ours["operation"]):
        for key in ("service", "host", "pid", "revision", "trouble", "warning"):  # here its clock is ahead
            one.pop(key, None)
    assert ours["operation"] == theirs["operation"]
    assert ours["event"].keys() == theirs["event"].keys()
    assert {key: ours["event"][key] for key in ("event", "timestamp")} == {
        key: theirs["event"][key] for key in ("event", "timestamp")
    }


# -- receivers that do wrong, and ends of the process


def test_a_hanging_receiver_holds_up_nobody(tmp_path: Path) -> None:
    """The job and its end go on; what could not be sent is kept."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = tmp_path / "dead.jsonl"
        begun = time.monotonic()
        with WebhookHandler(f"http://127.0.0.1:{silent.getsockname()[1]}/", dead_letters=file):
            for number in range(20):
                with progress.operation("job", id=f"j{number}"):
                    pass
            assert time.monotonic() - begun < 2
        assert time.monotonic() - begun < 10
    ids = {json.loads(line)["operation_id"] for line in file.read_text().splitlines()}
    assert ids == {f"j{number}" for number in range(20)}


def test_a_receiver_that_comes_later_gets_all() -> None:
    """What ended while it was away arrives, each end once and in order."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        handler = WebhookHandler(f"http://127.0.0.1:{port}/hook").start()
        for _ in range(3):
            progress.operation("job", id="same").start().fail("no")
        until(lambda: handler._webhook is not None and handler._webhook._away)
    hook = Hook(port)
    try:
        handler.stop()
        assert [post.said["operation"]["attempt"] for post in hook.posts] == [1, 2, 3]
    finally:
        hook.stop()


def test_stopped_and_started_again(hook: Hook) -> None:
    """Between the two nothing is posted."""
    assert runtime.ticker.ask(runtime.ticker.round, 10)  # what earlier tests left is told before
    handler = WebhookHandler(hook.url)
    for name in ("one", None, "three"):
        if name is not None:
            handler.start()
        with progress.operation(name or "two"):
            pass
        assert runtime.ticker.ask(runtime.ticker.round, 10)
        handler.stop()
    assert [post.said["operation"]["name"] for post in hook.posts] == ["one", "three"]


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OTEL_SDK_DISABLED": "true", **environ},
    )


def test_a_short_script_posts_its_failure(hook: Hook, tmp_path: Path) -> None:
    """Chosen by the environment alone, in a script that fails at once; the message leaves before the process ends."""
    done = run(
        "import otel_progress as p\nwith p.operation('nightly'): raise SystemExit('disk is full')",
        OTEL_PROGRESS_HANDLERS="webhook",
        OTEL_PROGRESS_WEBHOOK_URL=hook.url,
        OTEL_PROGRESS_WEBHOOK_FORMAT="discord",
        OTEL_PROGRESS_WEBHOOK_EVENTS="failed,ended",
        OTEL_PROGRESS_WEBHOOK_SECRET="whsec_aGVsbG8=",
    )
    assert done.returncode == 1
    (post,) = hook.posts
    assert "nightly" in post.said["embeds"][0]["description"]
    assert "webhook-signature" in post.headers


def test_the_end_of_a_process_keeps_what_a_hanging_receiver_did_not_take(tmp_path: Path) -> None:
    """The process ends within two seconds, and the end of its operation is in the file."""
    file = tmp_path / "dead.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(
            """
            import time, otel_progress as p
            with p.operation('nightly', id='n1'): pass
            print(time.time())
            """,
            OTEL_PROGRESS_HANDLERS="webhook",
            OTEL_PROGRESS_WEBHOOK_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/",
            OTEL_PROGRESS_WEBHOOK_DEAD_LETTERS=str(file),
        )
        assert time.time() - float(done.stdout) < 8
    assert [json.loads(line)["operation_id"] for line in file.read_text().splitlines()] == ["n1"]
    assert "1 webhook delivery to" in done.stderr


def test_forked_children_post_nothing_of_their_parent(hook: Hook) -> None:
    """A pool of forked workers posts each end once, from the parent; a child with a handler of its own posts its own."""
    done = run(
        f"""
        import os, otel_progress as p
        from otel_progress.handlers.webhook import WebhookHandler
        with WebhookHandler({hook.url!r}):
            with p.operation('parent'):
                pid = os.fork()
                if not pid:
                    with WebhookHandler({hook.url!r}), p.operation('child'): pass
                    os._exit(0)
                os.waitpid(pid, 0)
        """
    )
    assert done.returncode == 0, done.stderr
    assert sorted(post.said["operation"]["name"] for post in hook.posts) == ["child", "parent"]


def test_tasks_and_spawned_processes_post_their_ends(hook: Hook, tmp_path: Path) -> None:
    """50 tasks at once and a spawned process, chosen by the environment: each end arrives once, and is archived."""
    script = tmp_path / "many.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, multiprocessing
            import otel_progress as p

            def work(name):
                with p.operation("job", id=name):
                    pass

            async def one(number):
                with p.operation("task", id=f"task {number}"):
                    await asyncio.sleep(0.01)

            async def many():
                await asyncio.gather(*map(one, range(50)))

            if __name__ == "__main__":
                child = multiprocessing.get_context("spawn").Process(target=work, args=("spawned",))
                child.start()
                asyncio.run(many())
                child.join()
            """
        )
    )
    done = run(
        f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')",
        OTEL_PROGRESS_HANDLERS="webhook,archive",
        OTEL_PROGRESS_WEBHOOK_URL=hook.url,
        OTEL_PROGRESS_ARCHIVE_URL=f"sqlite:///{tmp_path}/runs.db",
    )
    assert done.returncode == 0, done.stderr
    wanted = sorted(["spawned", *(f"task {number}" for number in range(50))])
    assert sorted(post.said["operation"]["id"] for post in hook.posts) == wanted
    assert sorted(archive(f"sqlite:///{tmp_path}/runs.db").ids()) == wanted


def test_a_flood_is_bounded(hook: Hook) -> None:
    """Thousands of runs with a receiver that does nothing: memory is bounded, and what is dropped is counted."""
    may = threading.Event()
    hook.answer = lambda _: (200 if may.wait(30) else 500, {})
    handler = WebhookHandler(hook.url, events="all").start()
    for number in range(1_500):
        progress.operation("job", id=str(number)).start().complete()
    handler._exit(5.0)
    webhook = handler._webhook
    assert webhook is not None
    assert len(webhook._deliveries) <= 1_001
    may.set()
    handler.stop()


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "set OTEL_PROGRESS_WEBHOOK_URL"),
        ({"URL": "ftp://x"}, "the address of the webhook must look like"),
        ({"URL": "http://x", "FORMAT": "irc"}, "format must be"),
        ({"URL": "http://x", "EVENTS": "never"}, "events must be"),
        ({"URL": "http://x", "SECRET": ""}, "OTEL_PROGRESS_WEBHOOK_SECRET is empty"),
        ({"URL": "http://x", "ADDRESSES": "all"}, "addresses must be"),
    ],
)
def test_a_wrong_variable_says_what_to_do(environ: dict[str, str], says: str) -> None:
    """The message names the variable or the option."""
    with pytest.raises(progress.InvalidArgument, match=says):
        WebhookHandler.from_environment({f"OTEL_PROGRESS_WEBHOOK_{key}": value for key, value in environ.items()})
