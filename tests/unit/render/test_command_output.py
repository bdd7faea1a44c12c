"""A command that moves the cursor up below our lines: what is seen of it is what a terminal without us shows."""

from __future__ import annotations

from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

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
