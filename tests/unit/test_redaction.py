"""What looks like a secret is masked before it is kept, and a hook of the user's decides what leaves."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.live import redaction
from otel_progress.live.engine.capture import capture_stage
from otel_progress.model.secrets import MASK, by_name, mask_secrets
from otel_progress.testing import Capture

SECRET = "hunter2"
TOKENS = (
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11AAAAA_bbbbbbbbbbbb",
    "glpat-" + "x" * 20,
    "xoxb-" + "1234567890-abcdef",
    "sk-proj-" + "abcdefghijklmnop",
    "sk_live_" + "abcdefghijklmnop",
    "AIza" + "B" * 35,
    "hf_" + "c" * 34,
    "pypi-" + "AgEIcHlwaS5vcmc" * 3,
    "SG." + "d" * 22 + "." + "e" * 43,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def_ghi",
    "123456789:" + "F" * 35,
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Each test ends with the default hook."""
    yield
    redaction.use(None)


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}",
        f"PASSWORD: '{SECRET} with spaces' and more",
        f'{{"password": "{SECRET}", "user": "bob"}}',
        f'{{\\"api_key\\": \\"{SECRET}\\"}}',
        f"{{'token': b'{SECRET}'}}",
        f'password="{SECRET}\'s"',
        f"apiKey: {SECRET}, next",
        f"client_secret => {SECRET}",
        f"export AWS_SECRET_ACCESS_KEY={SECRET}",
        f"Authorization: Bearer {SECRET}.abc",
        f"curl -H 'Authorization: Basic {SECRET}' https://host",
        f"curl -u bob:{SECRET} https://host",
        f"X-API-Key: {SECRET}",
        f"Cookie: session={SECRET}; theme={SECRET}",
        f"postgres://bob:{SECRET}@db:5432/prod",
        f"https://host/path?token={SECRET}&page=2",
        f"https://bucket/x?X-Amz-Signature={SECRET}",
        f"python job.py --api-key {SECRET} --workers 3",
        f"python job.py --db-password={SECRET}",
        f"['python', '--token', '{SECRET}']",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n(cut)",
        f"{SECRET}==\n-----END PRIVATE KEY-----\nand then",
        f"connect(password='{SECRET}",
    ],
)
def test_a_secret_is_known_by_its_place(text: str) -> None:
    """A value behind a word that means a secret is masked, in any notation, and what is masked stays as it is."""
    found = mask_secrets("message", text)
    assert SECRET not in found
    assert MASK in found
    assert mask_secrets("message", found) == found


@pytest.mark.parametrize("token", TOKENS)
def test_a_secret_is_known_by_its_form(token: str) -> None:
    """Keys of well-known services are masked wherever they stand."""
    assert mask_secrets("note", f"used {token}, then went on") == f"used {MASK}, then went on"
    assert mask_secrets("anything", f'{{"x": ["{token}"]}}') == f'{{"x": ["{MASK}"]}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "item 12 of 50",
        "max_tokens=512, tokens: 12, token = 17",
        "secretary: Bob, tokenizer=bert",
        "keyword=search, key: value",
        "parse/library/file.py:120 in main",
        "https://host/path?page=2&sort=name",
        "git clone ssh://git@host/repository.git",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "sha256:deadbeefdeadbeefdeadbeefdeadbeef",
        "disk-0123456789abcdef0123, task-0123456789abcdef0123",
        "waits for authorization: Alice, token: refreshing. basic understanding",
        "the bearer announces it",
        "the bearer of news waits for the token bucket",
        'File "x.py", line 3, in y\n    raise ValueError(x)',
        "password",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Amounts, ids, hashes, paths and plain words are left alone."""
    assert mask_secrets("message", text) == text


@pytest.mark.parametrize(
    ("key", "value", "masked"),
    [
        ("password", "x", True),
        ("db.password", "x", True),
        ("OPENAI_API_KEY", "x", True),
        ("accessToken", "x", True),
        ("http.request.header.authorization", "x", True),
        ("secret", "1234", True),
        ("token", "1234", False),
        ("tokens", "many", False),
        ("key", "value", False),
        ("author", "Bob", False),
        ("password", "", False),
    ],
)
def test_an_attribute_is_known_by_its_key(key: str, value: str, masked: bool) -> None:
    """The value of an attribute that is named a secret is masked whole; a number is one only behind a password."""
    assert mask_secrets(key, value) == (MASK if masked else value)


@given(st.text(), st.text(alphabet=" =:-\"'\\/@?&.eyJsk_password[]\n", max_size=400))
def test_any_text_is_taken(what: str, text: str) -> None:
    """No text makes the mask fail, and what it made is not masked twice."""
    once = mask_secrets(what, text)
    assert mask_secrets("message", mask_secrets("message", text)) == mask_secrets("message", text)
    assert isinstance(once, str)


def test_all_that_is_said_is_masked(progress_capture: Capture) -> None:
    """No way to say something leaves a secret in a snapshot, an event or a note."""
    said = f"login password={SECRET}"
    plan = [progress.StagePlan("work", description=said)]
    with progress.operation("job", attributes={"api_key": SECRET}, description=said, plan=plan) as operation:
        progress.update(message=said)
        progress.set(token=SECRET, line=["--token", SECRET], deep={"headers": {"cookie": SECRET}}, pin_secret=1234)
        progress.note(said, authorization=SECRET)
        progress.heartbeat(secret=SECRET)
        progress.record("failed", item=said, component=said)
        progress.result(password=SECRET, url=f"https://u:{SECRET}@host")
        with progress.stage("work", description=said, message=said, attributes={"dsn": SECRET}) as stage:
            with progress.waiting(said):
                progress_capture.advance(2)
            stage.complete(said)
        with pytest.raises(ValueError, match=SECRET), progress.stage("bad"):
            raise ValueError(said)
        for _ in operation.track([1], desc=said):
            progress_capture.advance(2)
        operation.request_cancel(said)
        seen = capture_stage(stage, 0.0)
        operation.fail(said)
    told = [
        json.dumps([dict(event.attributes), event.snapshot.to_dict()], default=str) for event in progress_capture.events
    ]
    assert len(told) > 5
    for text in (*told, repr(seen), repr(operation.snapshot())):
        assert SECRET not in text
        assert "1234" not in text


def test_steps_that_differ_by_a_secret_are_no_loop(progress_capture: Capture) -> None:
    """Steps are compared as they are, and shown redacted."""
    with progress.operation("job", loop_after=3) as operation:
        for number in range(8):
            progress.step(f"fetch ?token=abc{number}x")
            progress_capture.advance(1)
        assert operation.snapshot().loop is None
        for _ in range(8):
            progress.step(f"fetch ?token={SECRET}")
            progress_capture.advance(1)
        loop = operation.snapshot().loop
    assert loop is not None
    assert loop.keys == (f"fetch ?token={MASK}",)


def test_a_secret_that_a_limit_cuts_is_masked(progress_capture: Capture) -> None:
    """What is cut off a long text doesn't hide that its end is a secret."""
    with progress.operation("job") as operation:
        progress.update(message="x" * 1004 + " sk-abcdefghijklmnopqrstuvw")
        message = operation.snapshot().message
    assert message is not None
    assert "sk-" not in message


def test_a_hook_decides(progress_capture: Capture) -> None:
    """The hook gets what a text is and the text; what it returns is what leaves, and nothing else is masked."""
    seen: list[tuple[str, str]] = []

    def hook(what: str, text: str) -> str:
        seen.append((what, text))
        return text.replace("ACME", "a customer")

    redaction.use(hook)
    with progress.operation("job", attributes={"customer": "ACME", "n": 3}) as operation:
        progress.update(message="ACME password=x")
        snapshot = operation.snapshot()
    assert snapshot.message == "a customer password=x"
    assert dict(snapshot.attributes) == {"customer": "a customer", "n": 3}
    assert {("message", "ACME password=x"), ("customer", "ACME"), ("n", "3")} <= set(seen)


def test_a_hook_holds_for_what_was_decorated_before(progress_capture: Capture) -> None:
    """Options of decorators, which run at import, are redacted when a call starts."""

    @progress.operation("job", attributes={"customer": "ACME"}, description="for ACME")
    def job() -> progress.Snapshot:
        operation = progress.current(required=True)
        return operation.snapshot()

    redaction.use(lambda what, text: text.replace("ACME", "a customer"))
    seen = job()
    assert seen.attributes["customer"] == "a customer"
    assert seen.description == "for a customer"


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["x"]])
def test_a_hook_that_fails_leaks_nothing(
    wrong: Any, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the hook raises, or returns what is no text, all of the text is masked, and the job goes on."""

    def hook(what: str, text: str) -> Any:
        if wrong is None:
            raise RuntimeError(text)
        return wrong

    redaction.use(hook)
    with progress.operation("job") as operation:
        progress.update(message=SECRET)
        assert operation.snapshot().message == MASK
    assert redaction.drops[s.DROP_VALUE] > 0


def test_a_time_limit_inside_the_hook_reaches_the_job(progress_capture: Capture) -> None:
    """What a signal handler raises while a text is redacted is the job's, whatever the hook does."""

    class TimeLimit(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        redaction.use(lambda what, text: signal.raise_signal(signal.SIGUSR1) or text)
        with pytest.raises(TimeLimit), progress.operation("job"):
            progress.update(message="x")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_hook_that_exits_is_contained(progress_capture: Capture) -> None:
    """A hook that raises SystemExit ends no job."""
    redaction.use(lambda what, text: sys.exit(text))
    with progress.operation("job") as operation:
        progress.update(message="x")
        assert operation.snapshot().message == MASK


def test_a_hook_that_says_something(progress_capture: Capture) -> None:
    """What a hook says by this SDK is masked by the default, and calls no hook again."""
    calls: list[str] = []

    def hook(what: str, text: str) -> str:
        calls.append(text)
        progress.note("seen", key=text)
        return text

    redaction.use(hook)
    with progress.operation("job"):
        progress.note("hello", a="x")
    assert len(calls) < 10


def test_a_hook_stays_where_a_library_configures_again() -> None:
    """A second configure() without a hook keeps the first one's; shutdown() ends it."""

    def hook(what: str, text: str) -> str:
        return "hidden"

    redaction.use(redaction.chosen(hook, "secrets"))
    assert redaction.chosen(None, "off") is hook
    redaction.use(None)
    assert redaction.chosen(None, "off")("message", "x") == "x"


@pytest.mark.parametrize("wrong", [3, "no such", "json:no_such", object(), lambda text: text])
def test_a_hook_must_be_a_function(wrong: Any) -> None:
    """What is no function of two texts, nor names one, is refused by configure()."""
    with pytest.raises(InvalidArgument, match="redact"):
        progress.configure(redact=wrong)


def test_a_hook_by_name() -> None:
    """OTEL_PROGRESS_REDACT names the default, none, or a function."""
    assert by_name("secrets") is mask_secrets
    assert by_name("OFF")("message", "password=x") == "password=x"
    assert by_name("otel_progress.model.secrets:mask_secrets") is mask_secrets


@pytest.mark.parametrize("named", ["none", "no_such_module:f", "json:no_such_function", "json:__doc__", ":", "a:"])
def test_a_wrong_name_masks_secrets(named: str, caplog: pytest.LogCaptureFixture) -> None:
    """A typo in the environment is told, and opens no leak."""
    with caplog.at_level(logging.WARNING):
        assert redaction.chosen(None, named) is mask_secrets
    assert "OTEL_PROGRESS_REDACT" in caplog.text
