"""Messages by Apprise, to a real receiver: what arrives, that it mentions nobody, and what happens if it fails."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator

import pytest
from webhook_receiver import Hook

import otel_progress as progress
from otel_progress.handlers import apprise
from otel_progress.handlers.apprise import AppriseHandler
from otel_progress.live.engine import runtime

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Apprise's imports


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver of Apprise's JSON."""
    made = Hook()
    yield made
    made.stop()


def test_ends_arrive_as_messages(hook: Hook) -> None:
    """The sentence is the title, the facts are the body, how bad it is is the type; updates are not sent."""
    with AppriseHandler(f"json://127.0.0.1:{hook.port}/"):
        with progress.operation("nightly", total=2):
            progress.advance(2)
        progress.operation("weekly @everyone <!channel>").start().fail("no")
    first, second = (post.said for post in hook.posts)
    assert first["title"].startswith("nightly completed after")
    assert "progress: 100%, 2 of 2 items" in first["message"]
    assert (first["type"], second["type"]) == ("success", "failure")
    assert "@everyone" not in second["title"]
    assert "<!channel>" not in second["title"]


def test_chosen_kinds_alone(hook: Hook) -> None:
    """As for webhooks."""
    with AppriseHandler([f"json://127.0.0.1:{hook.port}/"], events="failed"):
        with progress.operation("good"):
            pass
        progress.operation("bad").start().fail("no")
    assert [post.said["title"].split()[0] for post in hook.posts] == ["bad"]


def test_a_failure_is_tried_again_then_counted(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three tries; the next message is sent as usual."""
    monkeypatch.setattr(apprise, "PAUSE", 0.01)
    answers = iter([500, 500, 200, 500, 500, 500])
    hook.answer = lambda _: (next(answers, 200), {})
    gc.collect()  # what an earlier test abandoned ends now
    assert runtime.ticker.ask(runtime.ticker.round, 10)
    handler = AppriseHandler(f"json://127.0.0.1:{hook.port}/")
    with caplog.at_level(logging.WARNING, "otel_progress"), handler:
        for name in ("one", "two", "three"):
            progress.operation(name).start().fail("no")
            assert runtime.ticker.ask(runtime.ticker.round, 10)
            handler._exit(10)
    assert [post.said["title"].split()[0] for post in hook.posts] == ["one"] * 3 + ["two"] * 3 + ["three"]
    assert len([text for text in caplog.messages if "AppriseHandler failed in handle()" in text]) == 1


def test_urls_that_cannot_be_meant_are_refused_unshown() -> None:
    """A URL holds secrets."""
    for wrong in ("nonsense s3cr3t", ["json://x/", "s3cr3t://x"], [3], []):
        with pytest.raises(progress.InvalidArgument, match="Apprise") as raised:
            AppriseHandler(wrong)  # type: ignore[arg-type]
        assert "s3cr3t" not in str(raised.value)
    with pytest.raises(progress.InvalidArgument, match="set OTEL_PROGRESS_APPRISE_URLS"):
        AppriseHandler.from_environment({})
    with pytest.raises(progress.InvalidArgument, match="events must be"):
        AppriseHandler.from_environment(
            {"OTEL_PROGRESS_APPRISE_URLS": "json://x/ json://y/", "OTEL_PROGRESS_APPRISE_EVENTS": "never"}
        )


def test_without_apprise_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(progress.MissingDependency, match=r"otel-progress\[apprise\]"):
        AppriseHandler("json://x/")
