"""`otel-progress recover`: lists what was interrupted or lost, and starts it again."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.cli.parsing import whole
from otel_progress.cli.query.client import Client, ConnectionLost, ErrorResponse
from otel_progress.cli.query.execution import execute, require_rich
from otel_progress.cli.query.exit_codes import NO_MONITOR, NOT_FOUND, OK, USAGE, CommandError
from otel_progress.cli.query.options import common_options
from otel_progress.cli.recover import lines
from otel_progress.cli.recover.recoverable import Recoverable, chosen, of_monitor, of_store, opened, with_monitor
from otel_progress.cli.run.command import unavailable
from otel_progress.durable.kept import RUNNING
from otel_progress.durable.store import standing
from otel_progress.errors import ProgressError
from otel_progress.model.command_line import is_cut, shell_line, without_secrets
from otel_progress.model.secrets import MASK, mask_secrets
from otel_progress.model.status import Status
from otel_progress.render.screen import Screen
from otel_progress.settings import CHECKPOINTS, environment

if TYPE_CHECKING:
    from otel_progress.durable.store import CheckpointStore

NOT_STARTED: Final = 5
"""The exit code if something that was asked for could not be started."""
STOPPED: Final = (130, 143)
"""Exit codes of a command that was stopped by hand: nothing more is started after it."""
_ABOUT: Final = """\
List what was interrupted or lost: how it ended, how far it was, where it was stuck, when it saved its last checkpoint,
and the command that started it. It asks the checkpoint store, and the monitor if one answers. Operations that failed
are listed if the store has a checkpoint of them.
--run starts the command again, in its folder and with the environment of this shell, under `otel-progress run`. Only
a command from the store is started: what a monitor was told could be anybody's command."""
_EXAMPLE: Final = """\
example:
  otel-progress recover --store work.db
  otel-progress recover --store work.db --run ingest-7"""
_EXIT_CODES: Final = """
exit codes:
  0 success; with --run, the commands succeeded     5 with --run: something was not started
  2 the command line is invalid                     3 no store is named, and no monitor answers
  4 what was named is not interrupted or lost       others: of the first command that failed"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `recover`."""
    common_options(parser, _ABOUT, _EXAMPLE, _EXIT_CODES)
    add = parser.add_argument
    add("id", nargs="*", metavar="ID", help="only these: ids, beginnings of ids, or names")
    add("--store", metavar="PATH|URL", help=f"the checkpoint store (default: {CHECKPOINTS})")
    add("--run", action="store_true", help="start them again, one after the other")
    add("--yes", action="store_true", help="with --run: do not ask")
    add("--retry-set-aside", action="store_true", help="with --run: try again the keys that were set aside")
    add("--limit", type=whole(1, 200), default=20, metavar="N", help="at most N operations (default: %(default)s)")
    add("--json", action="store_true", help="write JSON")


def main(arguments: argparse.Namespace) -> int:
    """List or start what can be recovered; returns the exit code."""
    return execute(arguments, _main)


def _main(client: Client, arguments: argparse.Namespace) -> int:
    require_rich(arguments)
    if arguments.run and arguments.json:
        raise CommandError("--run starts commands and --json lists: use one of them", USAGE)
    environ = environment()
    try:
        where = arguments.store or environ.get(CHECKPOINTS, "").strip()
        store = opened(where) if where else None
        found, more, why = find(store, client, arguments.id, arguments.limit)
        if store is None and why is not None:
            raise CommandError(f"{why}; name a checkpoint store with --store or {CHECKPOINTS}", NO_MONITOR)
        if arguments.json:
            sys.stdout.write(json.dumps({"operations": [one.to_json() for one in found], "more": more}) + "\n")
            return OK
        screen = Screen(sys.stdout, draws=False)
        screen.print(lines.listed(found, more, where, why, clock.unix()))
        if not arguments.run or not found:
            return OK
        ask = None if arguments.yes else _asked
        return start(store, found, environ, ask=ask, retries=arguments.retry_set_aside)
    except ProgressError as error:
        if isinstance(error, CommandError):
            raise
        raise CommandError(str(error), USAGE) from error


def find(
    store: CheckpointStore | None, client: Client, given: Sequence[str], limit: int
) -> tuple[list[Recoverable], int, str | None]:
    """What can be recovered, how many more there are, and why no monitor was asked."""
    found = {one.id: one for one in (of_store(store) if store is not None else ())}
    why: str | None = None
    try:
        client.check()
        for one in of_monitor(client):
            found.setdefault(one.id, one)
    except (CommandError, ConnectionLost, ErrorResponse) as error:
        why = str(error)
    ordered = sorted(found.values(), key=lambda one: -one.ended_at)
    kept: list[Recoverable] = []
    picked = chosen(ordered, given)
    for at, one in enumerate(picked):
        if len(kept) >= limit:
            return kept, len(picked) - at, why
        whole_of_it = one if why is not None else with_monitor(client, one)
        if whole_of_it is not None:
            kept.append(whole_of_it)
    if given and not kept:
        raise CommandError(f"{', '.join(given)} runs again, or came to its end", NOT_FOUND)
    return kept, 0, why


# -- starting


def start(
    store: CheckpointStore | None,
    found: Sequence[Recoverable],
    environ: Mapping[str, str],
    *,
    ask: Callable[[str, IO[str]], bool] | None,
    retries: bool = False,
) -> int:
    """Start the commands of what was found, each once, one after the other.

    Args:
        store: where they come from.
        found: what is to be started.
        environ: the environment for the commands.
        ask: asks whether to go on; None to go on.
        retries: whether to try again what was set aside.

    Returns:
        The first exit code that is not 0, or `NOT_STARTED` if something was left out, or was not continued.
    """
    lacking = unavailable()
    if lacking:
        raise CommandError(lacking, NOT_STARTED)
    code = OK
    commands: dict[tuple[tuple[str, ...], str], list[Recoverable]] = {}
    for one in found:
        against = why_not(store, one, retries=retries)
        if against is None:
            commands.setdefault((one.command, one.folder), []).append(one)
        else:
            sys.stderr.write(f"otel-progress: {lines.plain(one.id)} is not started: {against}\n")
            code = NOT_STARTED
    if not commands:
        return code
    count = f"{len(commands)} {'command' if len(commands) == 1 else 'commands'}"
    if ask is not None and not ask(f"start {count}?", sys.stderr):
        return code or NOT_STARTED
    for (command, folder), members in commands.items():
        if store is not None:
            if all(_is_over(store, one) for one in members):
                continue
            for one in members if retries else ():
                store.release(one.id)
        ended = _run(command, folder, environ)
        code = code or ended
        if ended in STOPPED:
            break
        code = code or _went_on(store, members)
    return code


def why_not(store: CheckpointStore | None, one: Recoverable, *, retries: bool = False) -> str | None:
    """Why the command of an operation is not started; None if it may be."""
    if store is None or one.holder is None:
        return "only the monitor knows it, and anybody who may send to it could have written its command; copy the line"
    from otel_progress.durable.holder import this_process

    if one.status == Status.COMPLETED.value and not retries:
        return "it completed; --retry-set-aside tries again what was set aside"
    if not one.command:
        return "its command is unknown"
    if one.host != this_process().host:
        return f"it ran on {one.host}: start it there"
    if is_cut(one.command):
        return "its command was too long to be kept"
    if any(MASK in argument for argument in one.command):
        return "its command contains masked secrets; copy the line, and fill them in"
    if not os.path.isdir(one.folder):
        return f"its folder {lines.plain(one.folder) or '(unknown)'} does not exist"
    return None


def _is_over(store: CheckpointStore, one: Recoverable) -> bool:
    """Whether a command that was started before, or somebody else, has begun a newer attempt since."""
    stored = store.operation(one.id)
    return stored is not None and (stored.attempt > one.attempt or standing(stored) == RUNNING)


def _went_on(store: CheckpointStore | None, members: Sequence[Recoverable]) -> int:
    """Say which operations a command did not continue, as it made other ids, and return the exit code for that."""
    left = [one.id for one in members if store is not None and not _is_over(store, one)]
    for id in left:
        sys.stderr.write(
            f"otel-progress: {lines.plain(id)} was not continued: the command began no operation of this id, as one "
            "does whose id has the date in it, or whose code came from stdin; start it with that id yourself\n"
        )
    return NOT_STARTED if left else OK


def _run(command: Sequence[str], folder: str, environ: Mapping[str, str]) -> int:
    from otel_progress.cli.run.supervisor import run, say

    say(f"starts {lines.plain(shell_line(without_secrets(command, mask_secrets), folder))}")
    before = os.getcwd()
    os.chdir(folder)
    try:
        return run(list(command), {**environ, "PWD": folder})
    finally:
        os.chdir(before)


def _asked(question: str, out: IO[str]) -> bool:
    """Ask at the terminal.

    Raises:
        CommandError: if there is none.
    """
    if not sys.stdin.isatty():
        raise CommandError("--run asks before it starts anything, and stdin is no terminal: add --yes", USAGE)
    out.write(f"otel-progress: {question} [y/N] ")
    out.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
