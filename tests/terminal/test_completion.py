"""Completion by the real shells, of the script that `otel-progress completion` prints."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from otel_progress.cli import COMMANDS
from otel_progress.cli.completion import script

ASK_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_otel_progress
printf '%s\\n' "${COMPREPLY[@]}"
"""


def needs(shell: str) -> pytest.MarkDecorator:
    """Skip where the shell is not installed."""
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def saved(shell: str, folder: Path) -> str:
    """Write the script of a shell to a file."""
    path = folder / f"completion.{shell}"
    path.write_text(script(shell, COMMANDS), encoding="utf-8")
    return str(path)


def by_bash(folder: Path, *words: str) -> set[str]:
    """Return what bash offers for the last word."""
    command = ["bash", "-c", ASK_BASH, "bash", saved("bash", folder), "otel-progress", *words]
    return set(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=60).stdout.split()
    )


def by_fish(folder: Path, *words: str) -> set[str]:
    """Return what fish offers for the last word."""
    line = " ".join(["otel-progress", *words])
    command = ["fish", "--no-config", "-c", f'source "$argv[1]"; complete -C "{line}"', saved("fish", folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=60)
    return {one.partition("\t")[0] for one in done.stdout.splitlines()}


def by_zsh(folder: Path, *words: str) -> set[str]:
    """Return what zsh puts in the place of the last word when Tab is pressed."""
    ours, theirs = os.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=folder,
        env={**os.environ, "PS1": "", "TERM": "dumb", "HOME": str(folder), "ZDOTDIR": str(folder)},
    )
    os.close(theirs)
    start = f'autoload -U compinit; compinit -u -D; source {saved("zsh", folder)}; otel-progress() print -r -- "<$@>"'
    try:
        os.write(ours, f"{start}; echo re''ady\n".encode())
        _read(ours, "ready")
        os.write(ours, f"{' '.join(['otel-progress', *words])}\t\n".encode())
        return set(_read(ours, ">\r").rpartition("<")[2].partition(">")[0].split()[len(words) - 1 :])
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def _read(terminal: int, until: str) -> str:
    said = ""
    while until not in said:
        assert select.select([terminal], [], [], 60)[0], said
        said += os.read(terminal, 4096).decode(errors="replace")
    return said


ASK = [
    pytest.param(by_bash, marks=needs("bash"), id="bash"),
    pytest.param(by_fish, marks=needs("fish"), id="fish"),
    pytest.param(by_zsh, marks=needs("zsh"), id="zsh"),
]


@pytest.mark.parametrize("ask", ASK)
def test_commands_options_and_values(ask: object, tmp_path: Path) -> None:
    """A command, an option of it, a value of that and of an argument, and a file are completed."""
    assert callable(ask)
    (tmp_path / "state.db").touch()
    assert ask(tmp_path, "wat") == {"watch"}
    assert ask(tmp_path, "monitor", "--webhook-f") == {"--webhook-format"}
    assert ask(tmp_path, "report", "--format", "mark") == {"markdown"}
    assert ask(tmp_path, "list", "--verdict", "stu") == {"stuck"}
    assert ask(tmp_path, "monitor", "--webhook-format", "sl") == {"slack"}
    assert ask(tmp_path, "hooks", "clau") == {"claude-code"}
    assert ask(tmp_path, "monitor", "--db", "sta") == {"state.db"}


@pytest.mark.parametrize("ask", ASK)
def test_the_command_of_run(ask: object, tmp_path: Path) -> None:
    """After `run --` the command and its files are completed, and none of our options."""
    assert callable(ask)
    (tmp_path / "only-here-job").touch()
    assert "mkfifo" in ask(tmp_path, "run", "--", "mkfif")
    assert ask(tmp_path, "run", "--", "cat", "only-he") == {"only-here-job"}


@needs("bash")
def test_all_commands_and_options_are_offered(tmp_path: Path) -> None:
    """What the parsers know is offered, whatever is added to them."""
    assert by_bash(tmp_path, "") == {*COMMANDS, "--help", "--version"}
    assert {"--restart", "--follow", "-f", "--stderr-tail", "--verbose"} <= by_bash(tmp_path, "run", "-")
    assert by_bash(tmp_path, "report", "--format", "=", "cs") == {"csv"}
