"""The emitters of `examples/other-languages`: the files that each is made of, and how they become a program."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Sequence[str], Path, dict[str, str], str], None]
    """Runs a build command: its arguments, its folder, its environment, and what is built."""

FOLDER = Path(__file__).parents[2] / "examples" / "other-languages"
TYPESCRIPT = "emitter-typescript"
GO = "emitter-go"
FILES = {
    TYPESCRIPT: ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "emitter.ts", "demo.ts"),
    GO: ("go.mod", "go.sum", "emitter.go", "main.go"),
}
OLDEST_GO = (1, 26)
"""The `go` line of its go.mod."""


def sources(name: str) -> list[Path]:
    """Return the files of an emitter."""
    return [FOLDER / name.partition("-")[2] / file for file in FILES[name]]


def digest(name: str) -> str:
    """Return what changes with each of its files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources(name))).hexdigest()[:12]


def _copy(name: str, folder: Path) -> Path:
    made = folder / "copy"
    made.mkdir()
    for file in sources(name):
        shutil.copy(file, made)
    return made


def make_typescript(npm: list[str], node: str, run: Run, folder: Path) -> Path:
    """Install the packages, compile, and return a folder with the program in it."""
    made = _copy(TYPESCRIPT, folder)
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run(command, made, dict(os.environ), "npm ci")
    run([node, "node_modules/typescript/bin/tsc"], made, dict(os.environ), "tsc")
    program = made / TYPESCRIPT
    program.write_text(f'#!/bin/sh\nexec "{node}" "${{0%/*}}/build/demo.js" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return made


def make_go(go: Path, run: Run, folder: Path) -> Path:
    """Compile, and return the program."""
    made = _copy(GO, folder)
    env = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"}
    run([str(go), "build", "-trimpath", "-buildvcs=false", f"-o={folder / GO}", "."], made, env, "the emitter in Go")
    return folder / GO
