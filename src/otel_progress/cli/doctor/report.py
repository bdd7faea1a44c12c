"""The report of `doctor`: text line by line, or JSON at the end."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Final, TextIO

from otel_progress.cli.doctor.findings import Level, ReportLine, problem
from otel_progress.model.units import duration

SIGNS: Final = {Level.OK: "✓", Level.NOTE: "-", Level.WARNING: "!", Level.ERROR: "✗"}
PLAIN_SIGNS: Final = {Level.OK: "ok", Level.NOTE: "-", Level.WARNING: "!", Level.ERROR: "x"}
COLOURS: Final = {Level.OK: "32", Level.NOTE: "2", Level.WARNING: "33", Level.ERROR: "31"}
CLOCK: Final = "clock"
SKEW_SECONDS: Final = 10.0
HIDDEN: Final = "***"
SECRET: Final = 4
"""Parts of a secret shorter than this are not hidden: they are ordinary words."""


class Report:
    """Takes lines, hides secrets in them, and prints them."""

    def __init__(self, out: TextIO, secrets: Iterable[str] = (), *, as_json: bool = False) -> None:
        """Print to this stream; colours and waiting messages are for terminals only."""
        self.lines: list[ReportLine] = []
        self._out = out
        self._json = as_json
        self._secrets = sorted(_parts(secrets), key=len, reverse=True)
        self._tty = out.isatty() and not as_json
        self._signs = SIGNS if _can_show(out, "".join(SIGNS.values())) else PLAIN_SIGNS
        self._step = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong so far."""
        return not any(line.level is Level.ERROR for line in self.lines)

    def add(self, line: ReportLine) -> None:
        """Add a line and print it."""
        line = ReportLine(
            line.step,
            line.level,
            self.clean(line.text),
            line.code,
            self.clean(line.fix),
            line.signals,
            None if line.seconds is None else round(line.seconds, 3),
        )
        self.lines.append(line)
        if self._json:
            return
        self.waiting("")
        if line.step != self._step:
            self._step = line.step
            self._write(f"{line.step}\n")
        who = f"{', '.join(line.signals)}: " if line.signals else ""
        self._write(f"  {self._sign(line.level)} {who}{line.text}\n")
        if line.fix:
            self._write(f"      fix: {line.fix}\n")

    def waiting(self, what: str) -> None:
        """Show what is being waited for; only on a terminal, on a line that is overwritten."""
        if self._tty:
            self._write(f"\r\x1b[2K{f'  … {what}' if what else ''}")

    def end(self, **about: object) -> None:
        """Print the conclusion; `about` is added to the JSON."""
        errors = sum(line.level is Level.ERROR for line in self.lines)
        warnings = sum(line.level is Level.WARNING for line in self.lines)
        if self._json:
            lines = [
                {key: value for key, value in vars(line).items() if value not in ("", (), None)} for line in self.lines
            ]
            self._write(json.dumps({"ok": self.ok, **about, "lines": lines}, ensure_ascii=True, indent=2) + "\n")
            return
        self.waiting("")
        wrong = f"{errors} {'thing is' if errors == 1 else 'things are'} wrong" if errors else "nothing is wrong"
        look = f", {warnings} to look at" if warnings else ""
        self._write(f"{wrong}{look}\n")

    def clean(self, text: str) -> str:
        """The text without secrets and control characters."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

    def _sign(self, level: Level) -> str:
        sign = self._signs[level]
        return f"\x1b[{COLOURS[level]}m{sign}\x1b[0m" if self._tty else sign

    def _write(self, text: str) -> None:
        try:
            encoding = self._out.encoding or "utf-8"
            self._out.write(text.encode(encoding, "replace").decode(encoding))
            self._out.flush()
        except (OSError, ValueError):
            pass


def _parts(secrets: Iterable[str]) -> set[str]:
    """Each secret, and its parts: a token may follow a scheme."""
    return {part for secret in secrets for part in (secret, *re.split(r"\s+|%20", secret)) if len(part) >= SECRET}


def _can_show(out: TextIO, text: str) -> bool:
    try:
        text.encode(out.encoding or sys.getdefaultencoding())
    except (UnicodeError, LookupError):
        return False
    return True


def tell_clock(report: Report, whose: str, ahead: float) -> None:
    """Report whether another clock, which is ahead of ours by `ahead` seconds, agrees with it."""
    if abs(ahead) > SKEW_SECONDS:
        text = f"the clock of {whose} is {duration(round(abs(ahead)))} {'ahead of' if ahead > 0 else 'behind'} ours"
        report.add(problem("clock_skew", text).line(CLOCK))
    else:
        report.add(ReportLine(CLOCK, Level.OK, f"the clock of {whose} agrees with ours (to a second or two)"))
