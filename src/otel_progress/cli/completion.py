"""The command `completion`: shell completion for bash, zsh and fish, made from the parsers of the other commands."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_progress.cli.parsing import OFFERED, describe

SHELLS: Final = ("bash", "zsh", "fish")
NAME: Final = "otel-progress"
_FILES: Final = ("FILE", "PATH", "DIR", "DB")
"""Parts of the metavar of an argument that names a file."""
_ABOUT: Final = "Print the completion of commands, options and their values for a shell."
_EXAMPLE: Final = f"""\
install:
  bash   mkdir -p ~/.local/share/bash-completion/completions
         otel-progress completion bash > ~/.local/share/bash-completion/completions/otel-progress
  zsh    otel-progress completion zsh > "${{fpath[1]}}/_{NAME}"
  fish   otel-progress completion fish > ~/.config/fish/completions/{NAME}.fish"""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        names: such as `-f` and `--follow`.
        help: what it does, in a line.
        takes_value: whether a value follows.
        values: the values that are allowed, if these are few.
        is_file: whether the value names a file.
    """

    names: tuple[str, ...]
    help: str
    takes_value: bool = False
    values: tuple[str, ...] = ()
    is_file: bool = False


@dataclass(frozen=True)
class Command:
    """A command: its line of help, its options, and its first argument that is no option."""

    name: str
    help: str
    options: tuple[Option, ...]
    values: tuple[str, ...] = ()
    is_file: bool = False
    starts_another: bool = False


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `completion`."""
    describe(parser, _ABOUT, _EXAMPLE)
    parser.add_argument("shell", choices=SHELLS, help="the shell that completes")


def main(arguments: argparse.Namespace) -> int:
    """Print the script; returns the exit code."""
    from otel_progress.cli import COMMANDS

    sys.stdout.write(script(arguments.shell, COMMANDS))
    return 0


def script(shell: str, commands: Mapping[str, Any]) -> str:
    """The completion script for a shell."""
    found = [_command(name, one) for name, one in commands.items()]
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def _command(name: str, command: Any) -> Command:
    parser = argparse.ArgumentParser(name)
    command.load().options(parser)
    actions = vars(parser)["_actions"]
    free = next((one for one in actions if not one.option_strings), None)
    return Command(
        name,
        command.help,
        tuple(_option(one) for one in actions if one.option_strings and one.help != argparse.SUPPRESS),
        () if free is None else _values(free),
        free is not None and _is_file(free),
        free is not None and free.nargs == argparse.REMAINDER,
    )


def _option(action: argparse.Action) -> Option:
    text = " ".join((action.help or "").replace("%%", "%").split())
    return Option(
        tuple(action.option_strings),
        text.partition(";")[0].partition(" (")[0],
        action.nargs != 0,
        _values(action),
        _is_file(action),
    )


def _values(action: argparse.Action) -> tuple[str, ...]:
    values = getattr(action, OFFERED, ()) if action.choices is None else action.choices
    return tuple(map(str, values))


def _is_file(action: argparse.Action) -> bool:
    named = action.metavar if isinstance(action.metavar, str) else action.dest
    return any(part in named.upper() for part in _FILES)


# -- bash


def _bash(commands: list[Command]) -> str:
    values = []
    for command in commands:
        for option in command.options:
            if option.takes_value:
                cases = "|".join(f'"{command.name} {name}"' for name in option.names)
                values.append(f"        {cases}) {_reply(option.values, option.is_file)} return ;;")
    words = []
    for command in commands:
        names = [name for option in command.options for name in option.names]
        reply = _reply((*names, *command.values), files=command.is_file)
        words.append(f"        {command.name}) {reply} ;;")
    starts = "|".join(command.name for command in commands if command.starts_another)
    first = _reply((*(command.name for command in commands), "--help", "--version"), files=False)
    return f"""\
# Completion of {NAME} for bash, made by `{NAME} completion bash`.
_otel_progress() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} at
    COMPREPLY=()
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    if ((COMP_CWORD == 1)); then
        {first}
        return
    fi
    case $command in
        {starts})
            for ((at = 2; at < COMP_CWORD; at++)); do
                if [[ ${{COMP_WORDS[at]}} == -- ]]; then
                    if ((at == COMP_CWORD - 1)); then COMPREPLY=($(compgen -c -- "$cur")); fi
                    COMPREPLY+=($(compgen -f -- "$cur"))
                    return
                fi
            done ;;
    esac
    case "$command $prev" in
{chr(10).join(values)}
    esac
    case $command in
{chr(10).join(words)}
    esac
}}
complete -o filenames -F _otel_progress {NAME}
"""


def _reply(words: tuple[str, ...], files: bool) -> str:
    """The lines of bash that set the answer: words, files, or both."""
    parts = []
    if words:
        parts.append(f'COMPREPLY+=($(compgen -W {shlex.quote(" ".join(words))} -- "$cur"));')
    if files:
        parts.append('COMPREPLY+=($(compgen -f -- "$cur"));')
    return " ".join(parts) or ":;"


# -- zsh

_ZSH_STARTS: Final = (
    "local at=${words[(i)--]}; if ((at < CURRENT)); then shift $at words; ((CURRENT -= at)); _normal; return; fi"
)
"""Completes what follows `--` as a command of its own."""


def _zsh(commands: list[Command]) -> str:
    named = "\n".join(f"        {shlex.quote(f'{one.name}:{one.help}')}" for one in commands)
    cases = "\n".join(_zsh_case(command) for command in commands)
    return f"""\
#compdef {NAME}
# Completion of {NAME} for zsh, made by `{NAME} completion zsh`.
_otel_progress() {{
    local -a known=(
{named}
    )
    if ((CURRENT == 2)); then
        _describe command known
        _arguments '--help[show the commands]' '--version[show the version]'
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
{cases}
    esac
}}
if [[ $funcstack[1] == _otel-progress ]]; then _otel_progress "$@"; else compdef _otel_progress {NAME}; fi
"""


def _zsh_case(command: Command) -> str:
    specs = []
    for option in command.options:
        text = _zsh_text(option.help)
        value = ""
        if option.takes_value:
            action = f"({' '.join(option.values)})" if option.values else "_files" if option.is_file else " "
            value = f":value:{action}"
        specs += [shlex.quote(f"{name}[{text}]{value}") for name in option.names]
    if command.values:
        specs.append(shlex.quote(f"1:value:({' '.join(command.values)})"))
    elif command.is_file:
        specs.append("'*:file:_files'")
    lines = " \\\n                ".join(["_arguments -S", *specs])
    start = f"\n            {_ZSH_STARTS}" if command.starts_another else ""
    return f"        {command.name}){start}\n            {lines} ;;"


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


# -- fish


def _fish(commands: list[Command]) -> str:
    lines = [
        f"# Completion of {NAME} for fish, made by `{NAME} completion fish`.",
        "function __otel_progress_in",
        "    set -l words (commandline -opc)",
        "    test (count $words) -ge 2; and test $words[2] = $argv[1]; and not contains -- -- $words",
        "end",
        "function __otel_progress_starts",
        "    set -l words (commandline -opc)",
        f"    test (count $words) -ge 2; and contains -- $words[2] {_starters(commands)}; and contains -- -- $words",
        "end",
        f"complete -c {NAME} -f",
        f"complete -c {NAME} -n __fish_use_subcommand -l version -d 'show the version'",
        f"complete -c {NAME} -n __fish_use_subcommand -l help -d 'show the commands'",
        f"complete -c {NAME} -n __otel_progress_starts -F -a '(__fish_complete_command)'",
    ]
    for command in commands:
        lines.append(f"complete -c {NAME} -n __fish_use_subcommand -a {command.name} -d {_fish_text(command.help)}")
        here = f"complete -c {NAME} -n '__otel_progress_in {command.name}'"
        if command.values:
            lines.append(f"{here} -a {_fish_text(' '.join(command.values))}")
        if command.is_file:
            lines.append(f"{here} -F")
        for option in command.options:
            names = " ".join(f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.names)
            value = ""
            if option.values:
                value = f" -x -a {_fish_text(' '.join(option.values))}"
            elif option.takes_value:
                value = " -r -F" if option.is_file else " -x"
            lines.append(f"{here} {names}{value} -d {_fish_text(option.help)}")
    return "\n".join(lines) + "\n"


def _starters(commands: list[Command]) -> str:
    return " ".join(command.name for command in commands if command.starts_another)


def _fish_text(text: str) -> str:
    kept = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{kept}'"
