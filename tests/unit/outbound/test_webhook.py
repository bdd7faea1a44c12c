"""Webhooks: what is worth telling arrives once, signed, in order; what can't arrive holds up nobody and is counted."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import math
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import trustme
from webhook_receiver import Hook, Post

from otel_progress import semconv
from otel_progress.errors import InvalidArgument
from otel_progress.outbound import delivery_kinds, webhook
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.deadline import seconds_of
from otel_progress.outbound.deliveries import PATIENT, Deliveries, Delivery
from otel_progress.outbound.webhook import Webhook, WebhookOptions, kind_of, sign, verify
from otel_progress.outbound.webhook_endpoint import PostResult, WebhookEndpoint

SECRET = b"it is not known"
ROW = {"id": "survey-1", "name": "survey", "status": "failed"}


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver."""
    made = Hook()
    yield made
    made.stop()


def patient(chance: float) -> Backoff:
    """The pauses of a webhook, without chance."""
    return replace(PATIENT, jitter=lambda: chance)


QUICK = Backoff(first=0.01, longest=0.05, longest_asked=600.0, jitter=random.random)
Make = Callable[..., Webhook]


def started(*args: Any, **kwargs: Any) -> Webhook:
    """A webhook with these options, and with a timeout and pauses of its own if they are given."""
    own = {name: kwargs.pop(name) for name in ("timeout", "backoff") if name in kwargs}
    return Webhook(WebhookOptions(*args, **kwargs), **own)


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes webhooks, and ends them."""
    made: list[Webhook] = []

    def make(*args: Any, **kwargs: Any) -> Webhook:
        made.append(started(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close(0)
        one._thread.join(20)
        assert not one._thread.is_alive()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- what is sent


def test_delivery_arrives_signed(hook: Hook, make: Make) -> None:
    """A delivery is JSON with its kind, id, row and event; its signature is an HMAC over timestamp and body."""
    made = make(hook.url, SECRET)
    before = time.time()
    made.put("failed", "survey-1", ROW, {"event": "progress.operation.ended"})
    (post,) = hook.wait(1)
    said = post.said
    assert {**said, "time": 0, "id": ""} == {
        "version": 1,
        "id": "",
        "kind": "failed",
        "time": 0,
        "operation": ROW,
        "event": {"event": "progress.operation.ended"},
    }
    assert before - 1 <= said["time"] <= time.time() + 1
    assert post.delivery == said["id"]
    assert post.path == "/hook"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["user-agent"] == "otel-progress"
    assert post.headers["otel-progress-event"] == "failed"
    stamp, signature = post.headers["otel-progress-timestamp"], post.headers["otel-progress-signature"]
    right = hmac.new(SECRET, stamp.encode() + b"." + post.body, hashlib.sha256).hexdigest()
    assert signature == f"v1={right}"
    assert verify(SECRET, stamp, post.body, signature, time.time())
    until(lambda: made.delivered == 1)
    assert made.losses() == []


@pytest.mark.parametrize(
    "secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_aGVsbG8", b"any bytes", "any text"]
)
def test_standard_webhooks_verify_it(hook: Hook, make: Make, secret: str | bytes) -> None:
    """A library for Standard Webhooks accepts the delivery, and nothing that was changed."""
    make(hook.url, secret).put("failed", "a", {**ROW, "name": "ü\ud800"})
    (post,) = hook.wait(1)
    given = secret.encode() if isinstance(secret, str) and not secret.startswith("whsec_") else secret
    receiver = standardwebhooks.Webhook(given)
    assert receiver.verify(post.body, post.headers)["operation"]["name"] == "ü?"
    assert post.headers["webhook-id"] == post.delivery
    for changed in (
        {"webhook-id": "other"},
        {"webhook-timestamp": str(int(post.headers["webhook-timestamp"]) - 1)},
        {"webhook-signature": "v1,AAAA"},
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            receiver.verify(post.body, {**post.headers, **changed})
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.verify(post.body + b" ", post.headers)


@pytest.mark.parametrize("secret", ["", b"", "whsec_", "whsec_!", "whsec_ü", 3])
def test_a_secret_that_cannot_be_meant_is_refused_unshown(secret: Any) -> None:
    """It would sign nothing, or not what the receiver expects."""
    with pytest.raises(InvalidArgument, match="the secret of the webhook") as raised:
        WebhookOptions("https://example.org/hook", secret)
    assert "ü" not in str(raised.value)


def test_options_do_not_show_secrets() -> None:
    """The text of the options may be logged."""
    assert "s3cr3t" not in repr(WebhookOptions("https://example.org/s3cr3t", "s3cr3t"))


def test_only_chosen_kinds_are_posted(hook: Hook, make: Make) -> None:
    """By default ends and trouble; a list chooses; `all` includes updates."""
    made = make(hook.url, events="failed, note")
    for kind in ("ended", "note", "updated", "failed"):
        made.put(kind, "a", ROW)
    assert [post.said["kind"] for post in hook.wait(2)] == ["note", "failed"]
    assert make(hook.url).kinds == delivery_kinds.ALERTS
    assert make(hook.url, events="all").kinds == delivery_kinds.KINDS
    for wrong in ("", "end", ["ended", "nothing"], [], 3, "all,ended"):
        with pytest.raises(InvalidArgument, match="events must be"):
            WebhookOptions(hook.url, events=wrong)  # type: ignore[arg-type]


def test_what_did_not_arrive_is_a_dead_letter(hook: Hook, make: Make, tmp_path: Path) -> None:
    """What was refused, what waits at the end, and what comes after it are kept, with the reason, for no other user."""
    file = tmp_path / "dead.jsonl"
    hook.answer = lambda post: (410 if post.said["kind"] == "failed" else 503, {})
    made = make(hook.url, dead_letters=file, backoff=QUICK)
    made.put("failed", "a", ROW)
    made.put("ended", "b", ROW)
    hook.wait(2)
    made.close(0.1)
    assert len(file.read_text().splitlines()) == 2
    made.put("lost", "c", ROW)
    letters = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(one["operation_id"], one["kind"]) for one in letters] == [("a", "failed"), ("b", "ended"), ("c", "lost")]
    assert letters[0]["reason"] == "refused (HTTP 410)"
    assert letters[1]["reason"] == "not sent at the end (HTTP 503)"
    assert json.loads(letters[1]["body"])["id"] == letters[1]["id"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert all(line.endswith(f"; see {file}") for line in made.losses())


def test_a_hanging_receiver_does_not_keep_the_letters_from_their_file(make: Make, tmp_path: Path) -> None:
    """What waits is written by whoever closes the webhook, while its thread still hangs in a request."""
    file = tmp_path / "dead.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = make(f"http://127.0.0.1:{silent.getsockname()[1]}/", dead_letters=file, timeout=1)
        made.put("ended", "a", ROW)
        connection, _ = silent.accept()
        with connection:
            made.close(0)
            assert [json.loads(line)["operation_id"] for line in file.read_text().splitlines()] == ["a"]


def test_flush_sends_and_goes_on(hook: Hook, make: Make) -> None:
    """`flush` ends pauses, waits in vain for a receiver that is away, and the webhook goes on afterwards."""
    answers = iter([(503, {"Retry-After": "500"})])
    hook.answer = lambda post: next(answers, (200, {}))
    made = make(hook.url)
    made.put("ended", "a", ROW)
    until(lambda: made._away)
    assert made.flush(20)
    made.put("ended", "b", ROW)
    hook.wait(3)
    until(lambda: made.delivered == 2)
    hook.answer = lambda post: (503, {})
    made.put("ended", "c", ROW)
    assert not made.flush(0.1)
    assert made.losses() == []


def test_without_a_secret_nothing_is_signed(hook: Hook, make: Make) -> None:
    """Without a secret a delivery has a timestamp, but no signature."""
    make(hook.url).put("ended", "a", ROW)
    (post,) = hook.wait(1)
    assert "otel-progress-signature" not in post.headers
    assert "webhook-signature" not in post.headers
    assert "otel-progress-timestamp" in post.headers
    assert "event" not in post.said


def test_signature_holds_for_this_body_time_and_secret_alone() -> None:
    """Any other body, time, secret or an old signature fails; one right of several is enough; no input raises."""
    good = sign(SECRET, "1000", b"{}")
    assert verify(SECRET, "1000", b"{}", good, 1000.0)
    assert verify(SECRET, "1000", b"{}", good, 1300.0)
    assert verify(SECRET, "1000", b"{}", good, 700.0)
    assert verify(SECRET, "1000", b"{}", f"v1=00, {good}", 1000.0)
    assert verify(SECRET, "1000", b"{}", good, 1500.0, tolerance=500)
    assert not verify(SECRET, "1000", b"{}", good, 1300.5)
    assert not verify(SECRET, "1000", b"{}", good, 699.5)
    assert not verify(SECRET, "1000", b"{}", good, math.nan)
    assert not verify(SECRET, "1001", b"{}", good, 1000.0)
    assert not verify(SECRET, "1000", b"{ }", good, 1000.0)
    assert not verify(b"other", "1000", b"{}", good, 1000.0)
    for stamp, signature in [
        ("", good),
        ("-1000", good),
        ("1e3", good),
        ("\u0661000", good),
        ("9" * 10_000, good),
        ("1000", ""),
        ("1000", "v1=é"),
        ("1000", "\ud800"),
        ("1000", good[:-1]),
        ("1000", good.removeprefix("v1=")),
        ("1000", "v1=00," * 8 + good),
        (None, good),
        ("1000", None),
    ]:
        assert not verify(SECRET, stamp, b"{}", signature, 1000.0)


@pytest.mark.parametrize(
    ("event", "status", "kind"),
    [
        (semconv.OPERATION_ENDED, "completed", "ended"),
        (semconv.OPERATION_ENDED, "cancelled", "ended"),
        (semconv.OPERATION_ENDED, "interrupted", "ended"),
        (semconv.OPERATION_ENDED, None, "ended"),
        (semconv.OPERATION_ENDED, "failed", "failed"),
        (semconv.OPERATION_ENDED, "lost", "lost"),
        (semconv.STALLED, "running", "stalled"),
        (semconv.RECOVERED, "running", "recovered"),
        (semconv.UPDATED, "running", None),
        (semconv.STAGE_ENDED, "failed", None),
    ],
)
def test_an_end_is_told_once_by_its_kind(event: str, status: str | None, kind: str | None) -> None:
    """A failed or lost operation has only that kind, not `ended`; most events have none."""
    assert kind_of(event, status) == kind


def test_what_does_not_fit_is_left_out_or_counted(hook: Hook, make: Make) -> None:
    """A huge event is left out, a row that is huge or no JSON is dropped and counted; a kind that there is not raises."""
    made = make(hook.url)
    made.put("ended", "a", {"message": "x" * webhook.BODY_BYTES})
    made.put("ended", "a", {"ratio": math.nan})
    made.put("ended", "a", {("no", "key"): 1})
    made.put("ended", "a", ROW, {"text": "x" * webhook.BODY_BYTES})
    (post,) = hook.wait(1)
    assert post.said["operation"] == ROW
    assert "event" not in post.said
    assert made.losses() == [
        f"3 webhook deliveries to http://127.0.0.1:{hook.port} were lost: no JSON, or too much of it"
    ]
    with pytest.raises(InvalidArgument, match="kind must be one of checkpoint, dead, ended, failed, lost, note"):
        made.put("done", "a", ROW)


# -- retry


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_the_same_delivery_comes_again(hook: Hook, make: Make, caplog: pytest.LogCaptureFixture, status: int) -> None:
    """A temporary refusal is retried with the same id and body, and logged once."""
    caplog.set_level(logging.INFO, "otel_progress")
    answers = iter([status, status, 200])
    hook.answer = lambda post: (next(answers), {})
    made = make(hook.url, SECRET, backoff=QUICK)
    made.put("failed", "survey-1", ROW)
    posts = hook.wait(3)
    until(lambda: made.delivered == 1)
    assert len({post.delivery for post in posts}) == 1
    assert len({post.body for post in posts}) == 1
    assert all(
        verify(
            SECRET,
            post.headers["otel-progress-timestamp"],
            post.body,
            post.headers["otel-progress-signature"],
            time.time(),
        )
        for post in posts
    )
    assert made.losses() == []
    until(lambda: len(caplog.messages) == 2)
    assert caplog.messages == [
        f"the webhook at http://127.0.0.1:{hook.port} does not take deliveries (HTTP {status}); they wait",
        f"the webhook at http://127.0.0.1:{hook.port} answers now",
    ]


def test_retry_after_is_heard_at_the_end(hook: Hook, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The end tries once more, and takes no for an answer: it neither asks again nor waits for nothing."""
    hook.answer = lambda _: (503, {"Retry-After": "600"})
    made = make(hook.url, backoff=QUICK)
    for number in range(3):
        made.put("failed", f"survey-{number}", ROW)
    until(lambda: caplog.messages)
    before = time.monotonic()
    made.close(20)
    assert time.monotonic() - before < 10
    assert len(hook.posts) == 2
    assert made.lost == 3


def test_a_short_pause_is_waited_for_at_the_end(hook: Hook, make: Make) -> None:
    """There is time for what the receiver asks for."""
    answers = iter([(503, {"Retry-After": "1"}), (200, {})])
    hook.answer = lambda _: next(answers)
    made = make(hook.url, backoff=QUICK)
    made.put("failed", "survey-1", ROW)
    made.close(20)
    assert made.lost == 0


@pytest.mark.parametrize("status", [b"\x1b[31mRED\x1b]0;owned\x07", "\u202e\x9b31m".encode() + b"x" * 30_000])
def test_a_bad_status_line_is_logged_safely(
    make: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path, status: bytes
) -> None:
    """One line of at most 200 printable characters, in the log and in the dead letters."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        file = tmp_path / "dead.jsonl"
        made = make(f"http://127.0.0.1:{server.getsockname()[1]}/", backoff=QUICK, dead_letters=file)
        made.put("failed", "survey-1", ROW)
        until(lambda: caplog.messages)
        made.close(0.1)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert made.losses()[0].startswith("1 webhook delivery to http://127.0.0.1:")
    assert " was lost: not sent at the end (BadStatusLine: " in made.losses()[0]
    for text in (*caplog.messages, *made.losses(), json.loads(file.read_text())["reason"]):
        assert text.isprintable()
        assert len(text) < 400


def test_an_address_that_is_refused_is_no_answer(
    hook: Hook, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only who answered is said to answer."""
    caplog.set_level(logging.INFO)
    results = iter([PostResult(0, None, "refused"), PostResult(0, None, "a metadata service", forbidden=True)])
    made = make(hook.url, backoff=QUICK)
    monkeypatch.setattr(made._endpoint, "post", lambda *_: next(results))
    made.put("failed", "survey-1", ROW)
    until(lambda: made.lost)
    made.flush(0)
    assert not [text for text in caplog.messages if "answers" in text]


def test_retry_after_is_heard(hook: Hook, make: Make) -> None:
    """A receiver that asks for a pause of a second gets it."""
    answers = iter([(429, {"Retry-After": "1"}), (200, {})])
    times: list[float] = []

    def answer(_: Post) -> tuple[int, dict[str, str]]:
        times.append(time.monotonic())
        return next(answers)

    hook.answer = answer
    make(hook.url, backoff=QUICK).put("ended", "a", ROW)
    hook.wait(2)
    until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 413])
def test_a_final_refusal_drops_it_and_is_told_once(
    hook: Hook, make: Make, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A final refusal or a redirect is not retried, counts as lost, and is logged once; the next delivery is sent."""
    hook.answer = lambda post: (200 if post.said["kind"] == "lost" else status, {"Location": "/elsewhere"})
    made = make(hook.url)
    for kind in ("ended", "failed", "lost"):
        made.put(kind, "a", ROW)
    posts = hook.wait(3)
    until(lambda: made.delivered == 1)
    assert [post.said["kind"] for post in posts] == ["ended", "failed", "lost"]
    assert made.losses() == [f"2 webhook deliveries to http://127.0.0.1:{hook.port} were lost: refused (HTTP {status})"]
    assert len(caplog.messages) == 1
    assert ("give the address that it points to" in caplog.text) == (status < 400)


def test_what_the_receiver_chokes_on_holds_nobody_else_up(hook: Hook, make: Make) -> None:
    """While one delivery fails again and again those of other operations arrive, and those of its own wait behind it."""
    healed = threading.Event()
    hook.answer = lambda post: (200 if post.said["operation"]["id"] != "bad" or healed.is_set() else 500, {})
    made = make(hook.url, backoff=QUICK)
    made.put("stalled", "bad", {"id": "bad"})
    made.put("recovered", "bad", {"id": "bad"})
    for number in range(5):
        made.put("ended", f"good {number}", {"id": f"good {number}"})
    until(lambda: made.delivered == 5)
    assert {post.said["kind"] for post in hook.posts if post.said["operation"]["id"] == "bad"} == {"stalled"}
    healed.set()
    until(lambda: made.delivered == 7)
    assert hook.posts[-1].said["kind"] == "recovered"
    assert made.losses() == []


def test_a_receiver_that_was_away_gets_all(make: Make) -> None:
    """Deliveries of an outage arrive after it, in order."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        made = make(f"http://127.0.0.1:{port}/hook", backoff=QUICK)
        for kind in ("stalled", "recovered", "ended"):
            made.put(kind, "a", ROW)
        until(lambda: made._away)
    hook = Hook(port)
    try:
        hook.wait(3)
        assert [post.said["kind"] for post in hook.posts] == ["stalled", "recovered", "ended"]
        until(lambda: made.delivered == 3)
    finally:
        hook.stop()


def test_a_slow_receiver_is_cut_off(make: Make) -> None:
    """A receiver that dribbles its answer, a byte long before any pause is too long, gets no more than the time of a try."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = make(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3, backoff=QUICK)
        made.put("ended", "a", ROW)
        connection, _ = server.accept()
        with connection:
            begun = time.monotonic()
            with pytest.raises(OSError):  # it hangs up
                while time.monotonic() < begun + 20:
                    connection.sendall(b"H")
                    time.sleep(0.02)
            assert 0.2 < time.monotonic() - begun < 5
    until(lambda: made._away)


# -- the queue, in a time of its own


def delivery(id: str, operation: str = "", until: float = 1e9, size: int = 1, kind: str = "ended") -> Delivery:
    return Delivery(id, kind, operation or id, b"x" * size, until)


def taken(deliveries: Deliveries, now: float) -> str | None:
    one = deliveries.take(now)
    return None if one is None else one.id


def test_pauses_double_up_to_a_minute() -> None:
    """Pauses are from half a second to one that doubles with each failure, 60 s at the most."""
    for chance, pauses in [(0.0, [0.5] * 10), (1.0, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60])]:
        deliveries = Deliveries(backoff=patient(chance))
        deliveries.put(delivery("a"))
        now = 100.0
        for pause in pauses:
            assert taken(deliveries, now) == "a"
            deliveries.again(now)
            assert deliveries.wait(now) == pytest.approx(pause)
            assert taken(deliveries, now + pause - 0.01) is None
            now += pause
        for _ in range(2000):
            assert taken(deliveries, now) == "a"
            deliveries.again(now)
            now += 60


def test_a_pause_that_was_asked_for_holds_for_all_and_has_a_limit() -> None:
    """Retry-After holds everything back, ten minutes at the most; an answer ends the pause of failures."""
    deliveries = Deliveries(backoff=patient(0.0))
    deliveries.put(delivery("a"))
    deliveries.put(delivery("b"))
    assert taken(deliveries, 0.0) == "a"
    deliveries.again(0.0, 30.0)
    assert taken(deliveries, 29.9) is None
    assert deliveries.wait(29.0) == pytest.approx(1.0)
    assert taken(deliveries, 30.0) == "a"
    deliveries.again(30.0, 1e9)
    assert deliveries.wait(30.0) == 600.0
    assert taken(deliveries, 630.0) == "a"
    deliveries.done()
    assert taken(deliveries, 630.0) == "b"
    deliveries.done()
    assert deliveries.wait(630.0) is None
    assert len(deliveries) == 0


def test_an_answer_makes_pauses_short_again() -> None:
    """After a success, the pause of the next failure is short again."""
    deliveries = Deliveries(backoff=patient(1.0))
    deliveries.put(delivery("a"))
    for now in range(0, 600, 60):
        assert taken(deliveries, now) == "a"
        deliveries.again(now)
    for id in "bcd":
        deliveries.put(delivery(id))
    assert taken(deliveries, 600.0) == "a"
    deliveries.done()
    assert taken(deliveries, 600.0) == "b"
    deliveries.again(600.0)
    assert taken(deliveries, 600.9) is None
    assert taken(deliveries, 601.0) == "b"
    deliveries.done()
    assert taken(deliveries, 601.0) == "c"

    assert taken(deliveries, 601.0) == "c"


def test_a_receiver_that_is_down_is_not_knocked_at_for_each() -> None:
    """With many deliveries waiting, tries become as rare as with one: the pause grows with the failures in a row."""
    deliveries = Deliveries(backoff=patient(1.0))
    for number in range(500):
        deliveries.put(delivery(str(number)))
    now, tries = 0.0, 0
    while now < 3600:
        assert deliveries.take(now) is not None
        deliveries.again(now)
        tries += 1
        wait = deliveries.wait(now)
        assert wait is not None
        now += wait
    assert tries < 80


def test_a_delivery_is_given_up_after_its_time() -> None:
    """One that could not be delivered in time is dropped and counted; what came later stays."""
    deliveries = Deliveries()
    deliveries.put(delivery("a", until=10.0))
    deliveries.put(delivery("b", until=20.0))
    assert taken(deliveries, 10.0) == "b"
    assert deliveries.dropped == {"given up after a day of trying": 1}


def test_the_oldest_make_room_but_not_the_one_on_its_way() -> None:
    """Both limits drop and count the oldest deliveries, except the one in flight."""
    deliveries = Deliveries(most=3, most_bytes=100)
    for id in "abc":
        deliveries.put(delivery(id))
    assert taken(deliveries, 0.0) == "a"
    deliveries.put(delivery("d"))
    deliveries.put(delivery("e", size=99))
    assert deliveries.dropped == {"too many waited": 3}
    deliveries.done()
    assert taken(deliveries, 0.0) == "e"
    deliveries.refused()
    assert deliveries.dropped == {"too many waited": 3, "refused": 1}
    deliveries.put(delivery("f", size=101))
    assert len(deliveries) == 0


def test_an_update_gives_way_to_what_is_newer() -> None:
    """A plain update that waits is replaced by any later delivery of its operation; one in flight is not."""
    deliveries = Deliveries()
    deliveries.put(delivery("a1", "a", kind="updated"))
    assert taken(deliveries, 0.0) == "a1"
    deliveries.put(delivery("a2", "a", kind="updated"))
    deliveries.put(delivery("b1", "b", kind="updated"))
    deliveries.put(delivery("a3", "a", kind="updated"))
    deliveries.put(delivery("b2", "b", kind="failed"))
    found = []
    while (id := taken(deliveries, 0.0)) is not None:
        found.append(id)
        deliveries.done()
    assert found == ["a1", "a3", "b2"]
    assert not deliveries.dropped


def test_news_make_room_for_alerts() -> None:
    """Without room, what alerts nobody is dropped first, however new it is; updates are no dead letters."""
    deliveries = Deliveries(most=3, keep_lost=True)
    for id, kind in [("a", "failed"), ("b", "note"), ("c", "updated"), ("d", "ended"), ("e", "ended")]:
        deliveries.put(delivery(id, kind=kind))
    assert [one.id for one in deliveries._waiting.values()] == ["a", "d", "e"]
    assert deliveries.dropped == {"too many waited": 2}
    assert [(one.id, why) for one, why in deliveries.take_lost()] == [("b", "too many waited")]
    assert deliveries.take_lost() == []


def test_dropped_deliveries_are_kept_within_a_limit() -> None:
    """A flood that nobody takes away fills no memory; each drop is counted."""
    deliveries = Deliveries(most=2, most_bytes=100, keep_lost=True)
    for number in range(1_000):
        deliveries.put(delivery(str(number), size=10))
    assert deliveries.dropped == {"too many waited": 998}
    assert len(deliveries.take_lost()) == 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("9" * 400, 9_999_999_999.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    """Seconds and dates are read; anything else is ignored."""
    assert seconds_of(text, 1000.0) == seconds


def test_who_puts_never_waits(hook: Hook, make: Make) -> None:
    """While the receiver hangs the newest 1,000 wait, with the one on its way; the rest is counted."""
    may = threading.Event()

    def answer(_: Post) -> tuple[int, dict[str, str]]:
        assert may.wait(20)
        return 200, {}

    hook.answer = answer
    made = make(hook.url, timeout=30)
    made.put("ended", "first", {"id": "first"})
    hook.wait(1)
    for number in range(1500):
        made.put("ended", str(number), {"id": str(number)})
    assert made.losses() == [f"501 webhook deliveries to http://127.0.0.1:{hook.port} were lost: too many waited"]
    may.set()
    hook.wait(3)
    assert [post.said["operation"]["id"] for post in hook.posts[:3]] == ["first", "501", "502"]


# -- the end


def test_close_tries_what_waits(hook: Hook, make: Make) -> None:
    """`close` sends what waits at once, despite a requested pause; later deliveries are refused."""
    answers = iter([(503, {"Retry-After": "500"})])
    hook.answer = lambda post: next(answers, (200, {}))
    made = make(hook.url)
    made.put("stalled", "a", ROW)
    made.put("recovered", "a", ROW)
    until(lambda: made._away)
    made.close(20)
    made.close(20)
    assert made.delivered == 2
    assert made.losses() == []
    made.put("ended", "a", ROW)
    assert made.losses()[0].endswith("it came after the end (HTTP 503)")


def test_close_does_not_wait_longer_than_it_was_told(make: Make) -> None:
    """A silent receiver delays the end only for the given time; the loss is counted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = make(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=1)
        made.put("ended", "a", ROW)
        made.put("ended", "b", ROW)
        connection, _ = server.accept()
        with connection:
            begun = time.monotonic()
            made.close(0.2)
            assert time.monotonic() - begun < 0.9
        assert "2 webhook deliveries" in made.losses()[0]
        assert "not sent at the end" in made.losses()[0]


# -- the address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "ftp://secret.example",
        "https://",
        "https://secret:pass:word@x:port/",
        "https://x/a b?secret",
        "http://[::1",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_unshown(url: str) -> None:
    """A bad address is an error at the start, which shows nothing of it: it may hold a secret."""
    with pytest.raises(InvalidArgument, match=r"must look like https://example\.org/hook") as raised:
        started(url)
    assert "secret" not in str(raised.value).replace("may hold a secret", "")


def test_a_secret_or_timeout_that_cannot_be_meant_is_refused(hook: Hook) -> None:
    """An empty secret would sign nothing; a timeout is above 0."""
    with pytest.raises(InvalidArgument, match="secret of the webhook is empty"):
        started(hook.url, b"")
    for timeout in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidArgument, match="timeout must be above 0"):
            started(hook.url, timeout=timeout)


def test_secrets_of_the_address_are_used_and_not_shown(
    hook: Hook, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Name and password become Basic, path and query are sent; messages show none of them."""
    hook.answer = lambda post: (400, {})
    made = make(f"http://us%40er:pass%2Fword@127.0.0.1:{hook.port}/T0K3N/ü?key=V4LUE")
    made.put("ended", "a", ROW)
    (post,) = hook.wait(1)
    assert post.headers["authorization"] == "Basic dXNAZXI6cGFzcy93b3Jk"
    assert post.path == "/T0K3N/%C3%BC?key=V4LUE"
    until(lambda: caplog.messages and made.losses())
    for secret in ("us@er", "us%40er", "pass", "T0K3N", "V4LUE"):
        assert secret not in caplog.text + "".join(made.losses())


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that the system does not trust gets nothing; one that it trusts does."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    hook = Hook(tls=tls)
    try:
        url = f"https://localhost:{hook.port}/hook"
        answer = WebhookEndpoint(url).post(b"{}", {}, 5.0)
        assert answer.status == 0
        assert answer.retry
        assert "CERTIFICATE_VERIFY_FAILED" in answer.reason
        assert hook.posts == []
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert WebhookEndpoint(url).post(b"{}", {}, 5.0).arrived
        assert not WebhookEndpoint(f"https://127.0.0.1:{hook.port}/").post(b"{}", {}, 5.0).arrived
    finally:
        hook.stop()


def test_a_handshake_that_never_ends_is_cut_off() -> None:
    """The timeout of a try includes the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        answer = WebhookEndpoint(f"https://127.0.0.1:{server.getsockname()[1]}/").post(b"{}", {}, 0.3)
        assert answer.retry
        assert time.monotonic() - begun < 5
