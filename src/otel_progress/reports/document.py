"""A report as values: sections of facts, tables and charts, which every format writes in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Union

WIDTH: Final = 1000
"""Width of the coordinates of charts; they are stretched to the width of the page."""
ROWS: Final = 100
"""The most rows of a table, unless it says otherwise."""


class Tile(NamedTuple):
    """A figure at the top: what it is, the figure, a remark, and the tone (`good`, `bad`, `warn` or none)."""

    name: str
    value: str
    remark: str = ""
    tone: str = ""


class Column(NamedTuple):
    """A column of a table; `right` for figures."""

    name: str
    right: bool = False


class Cell(NamedTuple):
    """A cell with a tone."""

    text: str
    tone: str = ""


class Facts(NamedTuple):
    """Names with their values."""

    rows: tuple[tuple[str, str], ...]


class Table(NamedTuple):
    """Rows below a heading; `more` says what is not listed."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: str = ""


class Code(NamedTuple):
    """Lines of code, such as a call stack."""

    text: str


class Remark(NamedTuple):
    """A sentence."""

    text: str
    tone: str = ""


class Bar(NamedTuple):
    """A part of a lane, in the coordinates of the chart; `title` says what it is."""

    x: float
    width: float
    tone: str
    title: str


class Lane(NamedTuple):
    """One line of a Gantt chart: its label, how deep it is nested, its bars, and a note behind it."""

    label: str
    depth: int
    bars: tuple[Bar, ...]
    note: str


class Gantt(NamedTuple):
    """Stages over time, with the labels of the time axis; `legend` has tones and their words."""

    lanes: tuple[Lane, ...]
    ticks: tuple[str, ...]
    legend: tuple[tuple[str, str], ...]
    more: str = ""
    kind: str = "gantt"


class Curve(NamedTuple):
    """A line over time: pieces of points `x,y`, the largest value, and the labels of the time axis."""

    title: str
    pieces: tuple[str, ...]
    most: str
    ticks: tuple[str, ...]
    kind: str = "curve"


class Columns(NamedTuple):
    """Upright bars, one for each run or group of runs, with a line at the median (0 to 100 from the top)."""

    title: str
    bars: tuple[tuple[Bar, float], ...]
    most: str
    ticks: tuple[str, ...]
    median: float | None = None
    legend: tuple[tuple[str, str], ...] = ()
    kind: str = "columns"


Block = Union[Facts, Table, Code, Remark, Gantt, Curve, Columns]


class Section(NamedTuple):
    """A heading with what is below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: the name of the operation.
        subtitle: its id, or how many runs.
        state: a word for how it stands.
        tone: the tone of that word.
        remarks: what readers must know first: that it still runs, why it failed, what is not known.
        tiles: the figures at the top.
        sections: the rest.
        colophon: where the numbers come from, and when.
    """

    title: str
    subtitle: str
    state: str
    tone: str
    remarks: tuple[Remark, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    colophon: str


def table(columns: str, rows: list[tuple[object, ...]], more: str = "") -> Table:
    """Make a table; a name of `columns` that begins with `>` is a column of figures."""
    heads = tuple(Column(name.lstrip(">"), name.startswith(">")) for name in columns.split("|"))
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row) for row in rows)
    used = [at for at, _ in enumerate(heads) if any(row[at].text for row in cells)]
    return Table(tuple(heads[at] for at in used), tuple(tuple(row[at] for at in used) for row in cells), more)


def sections(*given: tuple[str, list[Block | None]]) -> tuple[Section, ...]:
    """Make sections, without empty blocks and without those that have none left."""
    made = (Section(title, tuple(block for block in blocks if block is not None)) for title, blocks in given)
    return tuple(one for one in made if one.blocks)
