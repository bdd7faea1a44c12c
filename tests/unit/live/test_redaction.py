"""What looks like a secret is masked before it is kept, and a hook of the user's decides what leaves."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import timeit
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
from otel_progress.model.redact import by_name
from otel_progress.model.secrets import MASK, mask_secrets
from otel_progress.testing import Capture

SECRET = "hunter2"
DIGITS = "123456789012"
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
    "xoxc-1234567890-abcdef",
    "xwfp-1234567890-abcdef",
    "ya29.c." + "b0Aa" * 8,
    "1//0" + "gAbc1" * 6,
    "doo_v1_" + "a1" * 32,
    "dor_v1_" + "a1" * 32,
    "dckr_oat_" + "a1B2" * 7,
    "glsoat-" + "a1" * 10,
    "GR1348941" + "a1B2" * 5,
    "hvr." + "a1B2" * 7,
    "ABIAIOSFODNN7EXAMPLE",
    "ls__" + "a1" * 12,
    "sess-" + "a1B2" * 8,
    "shptka_" + "a1" * 16,
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0lt",
)

PIECES = (
    *("password", "token", "authorization", "Cookie", "cookies", "auth", "pwd", "pass", "api_key", "basic ", "bearer "),
    *("Bot ", "x-api-key", "curl ", "-u ", "--token", "--", " ", "\n", ":", "=", "==", ":=", ": ", ", ", ",", ";", "&"),
    *("'", '"', '\\"', "\\", "(", ")", "[", "]", "{", "}", "a", "b1", SECRET, "12", "://", "u:", "@", "/", "?", "#"),
    *("?key=", MASK, "<", ">", "\x1b[31m", ": str = ", '"""', "true", "é", *TOKENS[:3], TOKENS[-1]),
    *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
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


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"Authorization: {s} {SECRET}"
            for s in ["Bot", "ApiKey", "Splunk", "GenieKey", "SSWS", "Key", "OAuth", "DeepL-Auth-Key", "Api-Key"]
        ),
        f"Authorization: Token token={SECRET}",
        f'Authorization: Digest username="bob", response="{SECRET}"',
        f"curl -H 'Authorization: Bot {SECRET}' https://host",
        f'{{"Authorization": "ApiKey {SECRET}"}}',
        f'{{"password": "ab\\"{SECRET}"}}',
        f'{{\\"password\\": \\"{SECRET}\\"}}',
        f'{{\\\\"password\\\\": \\\\"{SECRET}\\\\"}}',
        f'{{"password": {{"value": "{SECRET}"}}}}',
        f"{{'password': ['{SECRET}']}}",
        f"PWD={{{SECRET};x}}",
        f"PWD={{x;{SECRET}}}",
        f"password=({SECRET}",
        f"password=SecretStr('{SECRET}')",
        f"password=a,{SECRET}",
        f"password=a;{SECRET}",
        f"password=a&{SECRET}",
        f'Cookie: a="x"; sessionid={SECRET}',
        f"cookies={{'sid': '{SECRET}'}}",
        f"postgres://u:p@{SECRET}@h/db",
        f"postgres://u:p/{SECRET}@h/db",
        f"postgres://u:{'x1' * 900}{SECRET}@h",
        f'password: str = "{SECRET}"',
        f"password == '{SECRET}'",
        f'password := "{SECRET}"',
        f'password = """{SECRET}"""',
        f"if password != '{SECRET}':",
        f"<password>{SECRET}</password>",
        f"DB_PASS={SECRET}",
        f"job --pass {SECRET}",
        f"job --pass={SECRET}",
        f"password1={SECRET}",
        f"password_prod={SECRET}",
        f"secrets={SECRET}",
        f"api_keys=['{SECRET}']",
        f"passwords: {SECRET}",
        f"secret-id: {SECRET}",
        f"session_key={SECRET}",
        f"auth=('u','{SECRET}')",
        f'["Authorization", "ApiKey {SECRET}"]',
        f"curl --user me:{SECRET} x",
        f"curl -ume:{SECRET} x",
        f"['curl', '-u', 'me:{SECRET}']",
        f"curl -su me:{SECRET} x",
        f"password\x1b[0m=\x1b[31m{SECRET}\x1b[0m",
        f"\x1b[36mpassword\x1b[0m: {SECRET}",
        f'os.environ["DB_PASSWORD"] = "{SECRET}"',
        f"HTTPBasicAuth auth=HTTPBasicAuth('u', '{SECRET}')",
        *(f"{n}={DIGITS}" for n in ["api_key", "access_key", "private_key", "signature"]),
        f"Authorization: {DIGITS}",
        f"token={DIGITS}",
        f'"api_key": {DIGITS}',
        f"令牌password={SECRET}",
    ],
)
def test_a_secret_is_known_in_the_notations_of_programs(text: str) -> None:
    """Headers of any scheme, nested and escaped values, source lines, logins and coloured output hide no secret."""
    found = mask_secrets("message", text)
    assert SECRET not in found
    assert DIGITS not in found
    assert MASK in found
    assert mask_secrets("message", found) == found


@pytest.mark.parametrize("before", ["\\n", "\\t", "%20", "%3D", "\\u003d", "\\x20", "\x1b[31m", "x=", "令牌"])
@pytest.mark.parametrize("token", TOKENS)
def test_a_form_is_known_behind_an_escape(before: str, token: str) -> None:
    """The escapes of repr, JSON, URLs and terminals are no part of a key."""
    assert token not in mask_secrets("message", before + token)


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.slack.com/triggers/T1/",
        "https://discord.com/api/v10/webhooks/1/",
        "https://discord.com/api/webhooks/1/",
    ],
)
def test_the_address_of_a_webhook_is_a_secret(address: str) -> None:
    """Who knows the address of a webhook can post to it."""
    assert SECRET not in mask_secrets("message", address + SECRET)


@pytest.mark.parametrize(
    "text",
    [
        '{"password": 12, "x": 1}',
        '{"password": {"value": "S"}, "a": [1]}',
        '{"password": ["a]b", "c"], "a": 1}',
        '{"password": "ab\\"S", "x": 2}',
        '{"a": "{\\"password\\": \\"S\\"}"}',
        '{"a": "{\\"password\\": 5, \\"b\\": 1}"}',
        '{"password": null, "x": [1]}',
        '{"token": "a1b2c3", "cookies": {"a": "b"}, "auth": ["u", "p"]}',
        '{"a": "Authorization: Bot hunter2", "b": 1}',
        '{"a": "Authorization: Digest u=\\"x\\", response=\\"hunter2\\"", "b": 1}',
        '{"headers": [["Authorization", "ApiKey hunter2"]]}',
        '{"c": "Cookie: a=1; b=2", "d": 3}',
        '{"m": "password=hunter2", "n": 1}',
        '{"m": "password=(a", "n": 1}',
    ],
)
def test_json_stays_json(text: str) -> None:
    """A mask takes the quotes of the value, else those of its name."""
    found = mask_secrets("message", text)
    assert MASK in found
    assert json.loads(found).keys() == json.loads(text).keys()


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
        "token: pre-trained",
        "unexpected token: '}'",
        "next token='the'",
        "token: 3/5",
        "token: step-12",
        "basic block_0003",
        "signature: int32[4]",
        "pwd=/srv/data",
        "PWD=/srv/data",
        "credentials: missing_file.json",
        "docker run -u 1000:1000 image",
        "chown -u ann:staff x",
        "rsync -u host:/p x",
        "http://host:8080?email=a@b",
        "http://host:8080/x@y",
        "image://reg:5000@sha256:abc",
        "http://h/?code=500",
        "http://h/?key=foo&page=2",
        "--max-token 5k",
        "sk-learn-intersphinx-mapping",
        "pypi-simple-index-mirror-europe-west-1a",
        "tests pass: 3 of 4",
        "first_pass=3, second pass: ok",
        "compass=north",
        "tokens=['the', 'cat']",
        "cookies: 12 found",
        "cookie policy: none",
        "author: Bob",
        "secretary: Bob",
        "unexpected token='}'",
        "signature=(int, str)",
        "auth: ok",
        "token: <eos>",
        "authorization: required for Alice",
        "token bucket: empty",
        "pass=2/3",
        "curl x; docker run -u 10:10 i",
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
        ("db_pass", SECRET, True),
        ("password2", SECRET, True),
        ("tokens", SECRET, True),
        ("tokens", "12", False),
        ("cookies", SECRET, True),
        ("auth", SECRET, True),
        ("conn_str", SECRET, True),
        ("session_key", SECRET, True),
        ("first_pass", "3", False),
        ("passed", "x1", False),
        ("token", DIGITS, True),
        ("api_key", DIGITS, True),
        ("pwd", "/srv/x", False),
        ("author", "x", False),
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


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_what_is_masked_stays_as_it_is(text: str) -> None:
    """No mix of notations makes the mask of a mask differ."""
    once = mask_secrets("message", text)
    assert mask_secrets("message", once) == once


@pytest.mark.parametrize(
    "part",
    [
        "-eyJ",
        "://a",
        "://a:",
        "--",
        "--a",
        "cookie: ",
        "signature=(a ",
        "password=[redacted]",
        "token: [a",
        "sk-",
        "curl -u a",
        '\\\\"',
    ],
)
def test_the_time_grows_with_the_text(part: str) -> None:
    """No repetition makes the time grow with the square of the length: eight times the text takes no 40 times as long."""
    long = (f"token cookie -u @ :// {part}" + part * 16384)[:16384]
    short, whole = (
        min(timeit.repeat(lambda text=text: mask_secrets("message", text), timer=time.thread_time, number=1, repeat=5))  # type: ignore[misc]
        for text in (long[:2048], long)
    )
    assert whole < 40 * short + 0.005


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
