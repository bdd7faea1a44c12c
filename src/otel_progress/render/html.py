"""Rows of the tree and lines as escaped HTML, with inline styles that suit light and dark pages.

The words are those of the terminal: what `tree.rows_of` and `plain` made. The result is a fragment without scripts,
links or style sheets, so that it works where only sanitized HTML is shown, such as a saved notebook.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_progress.render.tree import TreeRow
    from otel_progress.render.words import Line

COLOURS: Final = {
    "red": "#d9363c",
    "yellow": "#9a6f00",
    "green": "#26883f",
    "cyan": "#0d7f9b",
    "magenta": "#a450c2",
}
"""The colours of the terminal's styles, with a contrast of 4.5 to white and of 3.7 to the ground of dark pages."""
TRACK: Final = "rgba(128,128,128,.25)"
"""The colour of the part of a bar that is still empty."""
CELL: Final = "padding:1px 12px 1px 0;border:0;text-align:{};white-space:nowrap"
FONT: Final = "font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
NAME: Final = 60
"""Characters of a name before it is wrapped."""


def panel(parts: Iterable[str]) -> str:
    """Fragments below each other in one box that scrolls sideways where it is too wide."""
    return f'<div style="{FONT};color:inherit;overflow-x:auto;max-width:100%">{"".join(parts)}</div>'


def tree(rows: Sequence[TreeRow], more: int = 0) -> str:
    """A table of rows: icon and name, bar, percentage, counts, rate, ETA, elapsed time; empty without rows.

    Args:
        rows: of `rows_of`.
        more: operations that are not shown, which are counted on the last line.
    """
    body = [_row(row) for row in rows]
    if more:
        body.append(_across(0, ((f"+ {more:,} more", "dim"),)))
    style = "border-collapse:collapse;border:0;margin:2px 0;color:inherit;font:inherit"
    return f'<table style="{style}"><tbody>{"".join(body)}</tbody></table>' if body else ""


def lines(told: Iterable[Line]) -> str:
    """Lines of text, which keep their spaces; empty without lines."""
    body = "".join(f"<div>{spans(line) or '&nbsp;'}</div>" for line in told)
    return f'<div style="white-space:pre;margin:2px 0">{body}</div>' if body else ""


def spans(line: Line) -> str:
    """The texts of a line with their styles."""
    return "".join(_span(text, style) for text, style in line if text)


def text(value: object) -> str:
    """A text as HTML: characters that have a meaning there are escaped."""
    return escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def css(style: str) -> str:
    """A style of the terminal, such as `bold red` or `bold white on red`, as CSS."""
    ink, _, ground = style.partition(" on ")
    found = []
    for word in ink.split():
        if word == "bold":
            found.append("font-weight:700")
        elif word in {"dim", "bright_black"}:
            found.append("opacity:.7")
        elif word == "white":
            found.append("color:#fff")
        elif word in COLOURS:
            found.append(f"color:{COLOURS[word]}")
    if ground in COLOURS:
        found.append(f"background:{COLOURS[ground]};border-radius:3px")
    return ";".join(found)


def bar(ratio: float, style: str = "cyan", width: str = "14em") -> str:
    """A bar that is filled up to `ratio`, from 0 to 1."""
    filled = f"{100 * min(1.0, max(0.0, ratio)):.4g}%"
    colour = next((COLOURS[word] for word in style.split() if word in COLOURS), COLOURS["cyan"])
    inner = f'<div style="width:{filled};height:8px;border-radius:4px;background:{colour}"></div>'
    return f'<div style="width:{width};height:8px;border-radius:4px;background:{TRACK}">{inner}</div>'


def _row(row: TreeRow) -> str:
    if row.free is not None:
        return _across(row.depth, row.free)
    faint = "dim" if row.style == "dim" else ""
    strong = faint or ("bold" if row.depth == 0 else "")
    wide = "nowrap" if len(row.name) <= NAME else "normal;word-break:break-word;min-width:20em"
    name = f"{_span(row.icon + ' ', row.style)}{_span(row.name, strong)}"
    left = CELL.format("left").replace("nowrap", wide)
    cells = [
        f'<td style="{left};padding-left:{1.2 * row.depth:.4g}em">{name}</td>',
        f'<td style="{CELL.format("left")}">{"" if row.ratio is None else bar(row.ratio, row.style)}</td>',
    ]
    columns = (
        (row.percent, strong),
        (row.amount, faint),
        (row.rate, "dim"),
        (row.eta, "magenta"),
        (row.elapsed, "dim"),
    )
    cells += [f'<td style="{CELL.format("right")}">{_span(value, style)}</td>' for value, style in columns]
    return f'<tr style="background:transparent">{"".join(cells)}</tr>'


def _across(depth: int, line: Line) -> str:
    style = f"{CELL.format('left').replace('nowrap', 'pre-wrap')};padding-left:{1.2 * depth + 1.2:.4g}em"
    return f'<tr style="background:transparent"><td colspan="7" style="{style}">{spans(line)}</td></tr>'


def _span(words: str, style: str) -> str:
    shown = text(words)
    return f'<span style="{css(style)}">{shown}</span>' if shown and css(style) else shown
