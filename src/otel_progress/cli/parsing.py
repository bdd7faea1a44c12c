"""Parsing of the command line: checked values, and a suggestion for a mistyped word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

CLOSE: Final = 0.6
"""The similarity, from 0 to 1, from which on one word is suggested for another."""


_MAIN_OPTIONS: Final = frozenset({"-h", "--help", "--version"})
"""The options that stand without a command."""


def guess(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'watch'?`, or an empty text if no known word is similar."""
    words = list(known)
    found = difflib.get_close_matches(given.lower(), words, 1, CLOSE)
    begins = [word for word in words if len(given) > 1 and word.startswith(given.lower())]
    alike = begins if len(begins) == 1 else found
    return f"; did you mean {alike[0]!r}?" if alike else ""


def describe(parser: argparse.ArgumentParser, about: str, example: str) -> None:
    """Set the text above and below the options; its line breaks are kept."""
    parser.description, parser.epilog = about, example
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


OFFERED: Final = "offered"
"""The attribute of an option with the values that shells complete, where others are allowed, too, or lists of them."""


def offer(option: argparse.Action, values: Iterable[str]) -> None:
    """Have shells complete these values of an option."""
    setattr(option, OFFERED, tuple(values))


def first_word(given: Sequence[str]) -> str | None:
    """The first argument that is not an option: the command."""
    return next((word for word in given if not word.startswith("-")), None)


def parse(
    parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser], given: Sequence[str]
) -> Any:
    """Parse a command line; exits with 2 and a suggestion if a command or an option does not exist."""
    first = first_word(given)
    if first is not None and first not in commands:
        parser.error(f"there is no command {first!r}{guess(first, commands)} (there are {', '.join(commands)})")
    if first is None:
        unknown = next((word for word in given if word not in _MAIN_OPTIONS), None)
        if unknown is not None and not _MAIN_OPTIONS.intersection(given):
            parser.error(f"there is no option {unknown!r}{guess(unknown, _MAIN_OPTIONS)}")
    options, extra = parser.parse_known_args(given)
    if extra:
        _refuse(commands[options.command_name], extra)
    return options


def _refuse(parser: argparse.ArgumentParser, extra: Sequence[str]) -> NoReturn:
    option = next((word for word in extra if word.startswith("-")), None)
    if option is None:
        parser.error(f"unexpected argument {extra[0]!r}")
    name = option.partition("=")[0]
    lines = re.findall(r"^  (-\S.*?)(?:  |$)", parser.format_help(), re.MULTILINE)
    known = re.findall(r"(?<!\S)-[\w-]+", " ".join(lines))
    parser.error(f"there is no option {name!r}{guess(name, known)}")


def whole(low: int, high: int, what: str = "") -> Callable[[str], int]:
    """Make a check for whole numbers in a range."""

    def check(text: str) -> int:
        sign, digits = text[:1] == "-", text.removeprefix("-")
        number = int(digits) * (-1 if sign else 1) if digits.isdecimal() and len(digits) < 16 else low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}{what}, not {text!r}")
        return number

    return check


def between(low: float, high: float, unit: str = "seconds") -> Callable[[str], float]:
    """Make a check for numbers in a range, both ends included."""

    def check(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:,.12g} to {high:,.12g} {unit}, not {text!r}")
        return number

    return check


def words(known: Sequence[str], synonyms: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Make a check for a comma-separated list of known words; a synonym becomes the word that it stands for."""

    def check(text: str) -> str:
        meant = [
            (synonyms or {}).get(word, word) for word in (part.strip().lower() for part in text.split(",")) if word
        ]
        shown = {value: key for key, value in (synonyms or {}).items()}
        for word in meant:
            if word not in known:
                names = [shown.get(one, one) for one in known]
                raise argparse.ArgumentTypeError(
                    f"there is no {word!r}{guess(word, names)} (there are {', '.join(names)})"
                )
        if not meant:
            raise argparse.ArgumentTypeError("names none; leave it out to see all")
        return ",".join(meant)

    return check
