"""`otel-progress assets`: copies documentation, dashboards, alert rules and Collector configurations to a folder."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

PARTS: Final = (
    "collector-config",
    "compose",
    "compose.yaml",
    "docs",
    "grafana/README.md",
    "grafana/alerts",
    "grafana/dashboards",
    "grafana/loopback.env",
    "grafana/provisioning",
)
"""What is copied: from the root of a checkout, or from `assets/` of an installed package."""
RULES: Final = "grafana/alerts/rules.yaml"
RUNBOOK_UNSET: Final = "https://runbook.invalid"
"""The placeholder for the runbook's address in the `runbook_url` of each alert."""
_FAILED: Final = 1
_ABOUT: Final = """\
Copy what comes with the package into a folder: the documentation (docs/), Grafana dashboards and provisioning, alert
rules, Collector configurations, and compose.yaml. If one of the files exists, nothing is copied, unless --force is
given."""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `assets`."""
    parser.description = _ABOUT
    parser.add_argument("folder", type=Path, metavar="DIR", help="the target; created if it is missing")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--runbook",
        type=_address,
        metavar="URL",
        help="the address of your copy of docs/runbook.md, for the runbook_url of each alert",
    )


def main(arguments: argparse.Namespace) -> int:
    """Copy the files; returns the exit code."""
    source, target = root(), arguments.folder
    if source is None:
        return _fail("this installation has no assets: install the package from a wheel, or run it in a checkout")
    wanted = {file.relative_to(source): file for file in _files(source)}
    there = [target / name for name in wanted if (target / name).exists()]
    if there and not arguments.force:
        return _fail(f"{there[0]} exists: name another folder, or overwrite it with --force")
    try:
        for name, file in wanted.items():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if arguments.runbook:
            _set_runbook(target / RULES, arguments.runbook)
    except OSError as error:
        return _fail(f"{error.filename or target}: {error.strerror or error}")
    sys.stdout.write(f"{len(wanted)} files are in {target}; start with {target / 'docs' / 'guide.md'}\n")
    if not arguments.runbook:
        sys.stdout.write(f"The alerts' runbook_url is a placeholder, {RUNBOOK_UNSET}: --runbook URL sets it.\n")
    return 0


def root() -> Path | None:
    """The folder that holds all parts, of the installed package or of the checkout; None if there is neither."""
    package = Path(__file__).parents[1]
    found = (package / "assets", package.parents[1])
    return next((folder for folder in found if all((folder / part).exists() for part in PARTS)), None)


def _files(source: Path) -> list[Path]:
    parts = [source / part for part in PARTS]
    inside = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
    return [*inside, *(part for part in parts if part.is_file())]


def _set_runbook(rules: Path, url: str) -> None:
    text = rules.read_text(encoding="utf-8")
    rules.write_text(text.replace(RUNBOOK_UNSET, url), encoding="utf-8")


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or "#" in text:
        raise argparse.ArgumentTypeError(f"must begin with http:// or https:// and have no #, not {text!r}")
    return text


def _fail(reason: str) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return _FAILED
