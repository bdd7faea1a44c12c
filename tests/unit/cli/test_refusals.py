"""What the command line refuses, and in which words."""

from __future__ import annotations

import pytest

from otel_progress.cli import Command, main


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--bogus"], "there is no option '--bogus'"),
        (["list", "abc"], "unexpected argument 'abc'"),
        (["monitor", "--port", "4700", "--grpc-port", "4700"], "HTTP and gRPC need a port each"),
        (["monitor", "--trace-url", "http://a"], "--trace-url must contain {trace_id}"),
        (["monitor", "--webhook", "ftp://a"], "the address of the webhook must look like"),
        (["monitor", "--webhook", "http://169.254.169.254/"], "the address of the webhook is a link-local address"),
        (["monitor", "--webhook", "http://a", "--webhook-format", "irc"], "format must be generic, slack, teams"),
        (["monitor", "--webhook", "http://a", "--webhook-events", "never"], 'events must be "all" or some of'),
        (["monitor", "--webhook", "http://a", "--webhook-addresses", "x"], "addresses must be public, private, any"),
        (["monitor", "--webhook-dead-letters", "x"], "--webhook-dead-letters needs --webhook URL"),
    ],
)
def test_a_refusal_names_what_is_wrong(given: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid command line ends with 2, and a text that names the fault."""
    try:
        code = main(given)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert text in capsys.readouterr().err


def test_ctrl_c_during_the_start_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is not imported yet: nothing was begun, and the exit code says what happened."""

    def load(_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Command, "load", load)
    assert main(["list"]) == 130
