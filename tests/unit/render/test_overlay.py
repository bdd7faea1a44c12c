"""What a command writes above our lines: where it ends, how it looks, and which colours hold after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_progress.render import command_output
from otel_progress.render.overlay import PlainOverlay


@pytest.mark.parametrize(
    ("data", "whole", "rest"),
    [
        (b"one\ntwo", b"one\n", b"two"),
        (b"one\r\n", b"one\r\n", b""),
        (b"10%\r20%", b"", b"\r20%"),
        (b"10%\r", b"", b"10%\r"),
        (b"\x1b[1Aup\rnew", b"", b"\x1b[1Aup\rnew"),
        (b"x" * (command_output.PENDING + 1), b"x" * (command_output.PENDING + 1) + b"\r\n", b""),
    ],
)
def test_lines_of_a_command_are_told_from_what_has_no_end(data: bytes, whole: bytes, rest: bytes) -> None:
    """What has no end is kept, short: what was written over is gone, unless the cursor left the line."""
    assert command_output.split(data) == (whole, rest)


@pytest.mark.parametrize(
    ("pending", "seen"),
    [
        (b"\r\x1b[2K 20%", " 20%"),
        (b"ab\b \bc", "ac"),
        (b"long\rno", "nong"),
        (b"long\rno\x1b[K", "no"),
        (b"a\x1b[3Cb\x1b[1Gx", "x   b"),
        (b"first\x1b[Asecond", "first"),
        (b"\r\x1b[2K\x1b[1A\x1b[2Kline", "line"),
        (b"\x1b]0;title\x07text\x00\x1b[?25l", "text"),
        (b"\x1b[1A\x1b[2K\r", ""),
        ("wide é 日".encode(), "wide é 日"),
    ],
)
def test_line_without_an_end_as_it_looks(pending: bytes, seen: str) -> None:
    """What is shown of it is what a terminal would show, whatever moves the cursor."""
    assert re.sub("\x1b\\[[0-9;]*m", "", command_output.shown(pending)) == seen


def test_colours_of_a_command_go_on_after_the_tree() -> None:
    """Colours that hold at the end of what was written are known; what puts them back ends them."""
    assert command_output.colours_after(b"", b"\x1b[1m\x1b[31mred") == b"\x1b[1m\x1b[31m"
    assert command_output.colours_after(b"\x1b[1m", b"x\x1b[0my") == b""
    assert command_output.colours_after(b"\x1b[1m", b"x\x1b[m\x1b[32my") == b"\x1b[32m"
    assert len(command_output.colours_after(b"", b"\x1b[31m" * 10_000)) < 1_000


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"working ...", "working ...\nours\n"),
        (b"10%\r20%\r", "10%\r20%\r\nours\n"),
        (b"a whole line\n", "a whole line\nours\n"),
        (b"\x1b[0m", "\x1b[0mours\n"),
        (b"", "ours\n"),
    ],
)
def test_line_of_ours_begins_on_its_own(tmp_path: Path, written: bytes, shown: str) -> None:
    """On a terminal that can't be redrawn, a line that the command has not finished is ended before ours."""
    with (tmp_path / "out").open("w", newline="") as file:
        screen = PlainOverlay(file)
        screen.pass_on(written)
        screen.print([(("ours", ""),)])
        assert (tmp_path / "out").read_bytes().decode() == shown


def test_last_line_of_the_command_is_ended(tmp_path: Path) -> None:
    """What is told after the command begins on a line of its own, and no empty one comes before it."""
    with (tmp_path / "out").open("w", newline="") as file:
        screen = PlainOverlay(file)
        screen.pass_on(b"the end")
        screen.take_down()
        screen.take_down()
        screen.print([(("ours", ""),)])
        assert (tmp_path / "out").read_bytes() == b"the end\nours\n"
