"""A command that moves the cursor up below our lines: what is seen of it is what a terminal without us shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from otel_progress.render import command_output
from otel_progress.render.overlay import Overlay

COLUMNS, LINES = 40, 20
TREE = [[(("TREE", "bold"),)], [(("TREE", "bold"),), (("more of it", ""),), (("and more", ""),)]]
Sign = tuple[str, str, bool]


class Seen:
    """A terminal, and all that was ever on it."""

    def __init__(self) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, LINES, history=5_000)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.ByteStream(self.screen)

    def feed(self, data: bytes) -> None:
        self.stream.feed(data)

    @property
    def rows(self) -> list[list[Sign]]:
        """The rows until our own, or until the last one with text."""
        lines = [*self.screen.history.top, *(self.screen.buffer[row] for row in range(LINES))]
        rows = [[(line[at].data, line[at].fg, line[at].bold) for at in range(COLUMNS)] for line in lines]
        texts = ["".join(sign for sign, _, _ in row) for row in rows]
        ours = next((number for number, text in enumerate(texts) if text.startswith("TREE")), len(rows))
        while ours and not texts[ours - 1].strip():
            ours -= 1
        return [[sign if sign[0] != " " else (" ", "", False) for sign in row] for row in rows[:ours]]

    @property
    def text(self) -> list[str]:
        return ["".join(sign for sign, _, _ in row).rstrip() for row in self.rows]


class Followed:
    """A command's output on two terminals: on one below us, on the other alone."""

    def __init__(self, folder: Path, *, live: bool = True) -> None:
        self.file = (folder / "out").open("w+b", buffering=0)
        self.out = (folder / "out").open("a", encoding="utf-8")
        self.overlay = Overlay(self.out)
        self.overlay.rich.size = (COLUMNS, LINES)  # type: ignore[assignment]
        self.ours, self.bare = Seen(), Seen()
        self.trees = 0
        if live:
            self.draw()

    def draw(self) -> None:
        self.trees += 1
        self.overlay.put_up()
        self.overlay.draw(TREE[self.trees % 2])
        self.look()

    def write(self, data: bytes) -> None:
        self.bare.feed(data)
        self.overlay.pass_on(data)
        self.look()

    def look(self) -> None:
        self.ours.feed(self.file.read())

    def end(self) -> None:
        self.overlay.take_down()
        self.look()

    def close(self) -> None:
        self.file.close()
        self.out.close()

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_alike(self) -> None:
        assert self.ours.text == self.bare.text
        assert self.ours.rows == self.bare.rows


class Bars:
    """Writes what tqdm does for bars at several positions, each movement by itself."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.parts: list[bytes] = []

    def say(self, text: str) -> None:
        self.parts.append(text.encode())

    def at(self, position: int, text: str) -> None:
        self.say("\n" * position)
        self.say(f"\r{text}")
        self.say("\x1b[A" * position)

    def spaces(self, position: int) -> str:
        """Enough to write over what stands there."""
        return " " * cell_len(self.texts.get(position, ""))

    def show(self, position: int, text: str) -> None:
        self.at(position, text + self.spaces(position))
        self.texts[position] = text

    def clear(self, position: int) -> None:
        self.at(position, self.spaces(position) + "\r")

    def close(self, position: int) -> None:
        self.clear(position)
        self.texts.pop(position, None)

    def leave(self, position: int) -> None:
        self.clear(position)
        self.at(0, self.texts.pop(position, "") + self.spaces(0))
        self.say("\n")

    def write(self, text: str) -> None:
        for position in self.texts:
            self.clear(position)
        self.say(f"{text}\n")
        for position, shown in self.texts.items():
            self.at(position, shown)


positions = st.integers(0, 4)
texts = st.text("ab█ é", min_size=1, max_size=15).map(lambda text: f"|{text}|")
acts = st.one_of(
    st.tuples(st.just("show"), positions, texts),
    st.tuples(st.just("close"), positions),
    st.tuples(st.just("leave"), positions),
    st.tuples(st.just("write"), texts),
    st.tuples(st.just("say"), st.sampled_from(["\x1b[31m", "\x1b[0m", "plain\n", "\x1b[1mbold\x1b[0m\n"])),
)


@given(acts=st.lists(acts, max_size=40), draws=st.sets(st.integers(0, 200)), more=st.data())
@settings(deadline=None)
def test_bars_at_several_positions(
    acts: list[tuple[object, ...]], draws: set[int], more: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the output is cut, and whenever the tree is redrawn, the rows above it are those without us."""
    bars = Bars()
    for name, *words in acts:
        getattr(bars, str(name))(*words)
    data = b"".join(bars.parts)
    cuts = sorted(more.draw(st.sets(st.integers(0, len(data)))))
    with Followed(tmp_path_factory.mktemp("terminal"), live=more.draw(st.booleans())) as both:
        for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(data)], strict=True)):
            both.write(data[begin:end])
            if number in draws:
                both.draw()
        both.draw()
        both.is_alike()
        both.end()
        both.is_alike()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Followed]:
    with Followed(tmp_path) as followed:
        yield followed


def test_lines_of_ours_are_never_written_over(both: Followed) -> None:
    """A command that moves up past a line of ours leaves it: what it writes again stands below."""
    both.write(b"one\ntwo\n")
    both.overlay.print([(("ours", ""),)])
    both.write(b"three\n\x1b[3A\x1b[2KONE\n\x1b[2KTWO\n\x1b[2KTHREE\n")
    assert both.ours.text == ["one", "two", "ours", "ONE", "TWO", "THREE"]
    both.end()
    assert both.ours.text == ["one", "two", "ours", "ONE", "TWO", "THREE"]


def test_rows_that_are_not_written_again_stay(both: Followed) -> None:
    """A command may move up to one row only; the rows between are those that were settled before, in their colours."""
    both.write(b"\x1b[31mone\x1b[0m\ntwo\nthree\n")
    both.write(b"\x1b[2A\r\x1b[2KTWO\r\x1b[2B")
    both.is_alike()
    both.write(b"\x1b[3A\x1b[32mO")
    both.is_alike()
    both.write(b"\x1b[3Bfour\n")
    both.is_alike()


@pytest.mark.parametrize("clear", [b"\x1b[2J\x1b[H", b"\x1b[H\x1b[3J\x1b[2J", b"\x1b[1;1H\x1b[J"])
def test_sequence_that_is_not_known_goes_to_the_terminal(both: Followed, clear: bytes) -> None:
    """A command that clears the screen does so, also after it drew several rows; what comes then is right again."""
    both.write(b"one\ntwo\n\x1b[2Aup\n\n")
    both.write(clear + b"new\n")
    both.write(b"rows\nmore\n\x1b[2AROWS\n")
    both.draw()
    assert both.ours.text[-3:] == ["new", "ROWS", "more"]


def test_flood_leaves_the_block(both: Followed) -> None:
    """After many lines without a movement up the output is passed on as it is, byte by byte."""
    both.write(b"one\ntwo\n\x1b[2AONE\n\n")
    both.write(b"".join(b"line %d\n" % number for number in range(command_output.QUIET + 5)) + b"half")
    strange = b" a line\x1b]8;;http://x\x07link\x1b]8;;\x07\n"
    both.write(strange)
    both.is_alike()
    both.write(b"plain" + strange)
    both.is_alike()
    with (Path(both.out.name)).open("rb") as file:
        assert b"plain" + strange in file.read()


def test_cursor_is_where_the_command_left_it(both: Followed) -> None:
    """When nothing is drawn any more, a command that goes on writes where it would; lines of ours come below it."""
    both.write(b"\n\n\rthird\x1b[A\x1b[A\rfirst")
    both.end()
    both.write(b" goes on")
    both.is_alike()
    both.overlay.print([(("ours", ""),)])
    both.look()
    assert both.ours.text == ["first goes on", "", "third", "ours"]


def test_block_is_cut_where_the_terminal_is_small(both: Followed) -> None:
    """Of more rows than have room the last ones are shown; all of them are there at the end."""
    rows = b"".join(b"row %d\n" % number for number in range(LINES - 2))
    both.write(rows + b"\x1b[%dA" % (LINES - 2) + rows)
    assert both.ours.text[-1] == f"row {LINES - 3}"
    assert both.overlay.room >= LINES // 2
    both.end()
    assert both.ours.text[-(LINES - 2) :] == both.bare.text


def test_narrower_terminal(both: Followed) -> None:
    """Rows that were drawn on a wider terminal are cut, and leave nothing behind."""
    both.write(b"\n\rtwo " + b"=" * 30 + b"\x1b[A\rone " + b"=" * 30)
    both.overlay.rich.size = (20, LINES)  # type: ignore[assignment]
    both.draw()
    both.write(b"\n\rTWO\x1b[A\rONE")
    both.draw()
    assert [row[:3] for row in both.ours.text[-2:]] == ["ONE", "TWO"]
