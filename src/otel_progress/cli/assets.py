"""`otel-progress assets`: copies documentation, dashboards, alert rules and Collector configurations to a folder."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
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
LINKS: Final = "grafana/alerts/links.yaml"
UNSET: Final = {name: f"https://{name}.invalid" for name in ("runbook", "grafana", "alertmanager")}
"""The placeholders for the addresses in `LINKS`."""
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
    for name, what in (
        ("runbook", "your copy of docs/runbook.md"),
        ("grafana", "Grafana"),
        ("alertmanager", "Alertmanager"),
    ):
        parser.add_argument(
            f"--{name}", type=_address, metavar="URL", help=f"the address of {what}, for the links in each alert"
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
        given = {name: url for name in UNSET if (url := getattr(arguments, name))}
        _set_addresses(target / LINKS, given)
    except OSError as error:
        return _fail(f"{error.filename or target}: {error.strerror or error}")
    sys.stdout.write(f"{len(wanted)} files are in {target}; start with {target / 'docs' / 'guide.md'}\n")
    if missing := [f"--{name} URL" for name in UNSET if name not in given]:
        sys.stdout.write(
            f"Addresses in the links of alerts are placeholders: set them in {target / LINKS}, or name another folder "
            f"and {', '.join(missing)}\n"
        )
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


def _set_addresses(links: Path, given: Mapping[str, str]) -> None:
    text = links.read_text(encoding="utf-8")
    for name, url in given.items():
        text = text.replace(UNSET[name], url.rstrip("/"))
    links.write_text(text, encoding="utf-8")


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or "#" in text:
        raise argparse.ArgumentTypeError(f"must begin with http:// or https:// and have no #, not {text!r}")
    return text


def _fail(reason: str) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return _FAILED
