"""`watch`, `list`, `show` and `cancel`: the commands that ask a monitor; their options, and how they end."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from otel_progress.cli.parsing import between, whole, words
from otel_progress.errors import MissingDependency
from otel_progress.model.status import Status

COMMANDS: Final = ("watch", "list", "show", "cancel")
ENDINGS: Final = ("SIGTERM", "SIGHUP")
DEFAULT: Final = "http://127.0.0.1:4318"
WAIT_MOST: Final = 3600.0
LIST_MOST: Final = 10_000
STATUSES: Final = tuple(status.value for status in Status if status is not Status.SKIPPED)
VERDICTS: Final = (
    "silent",
    "looping",
    "frozen",
    "dead",
    "overdue",
    "slow",
    "unknown",
    "waiting",
    "pending",
    "progressing",
    "trouble",
)
STUCK: Final = {"stuck": "silent"}
"""What people say, and what the wire says."""
_CODES: Final = """
exit codes:
  0 it was told (of one operation: it completed,   1 it failed, was lost, cancelled or interrupted
    or is shown while it runs)
  2 the command line can't be meant                3 no monitor answers, or it lets nobody in
  4 no such operation, or none any more            130 Ctrl+C"""
_WATCH: Final = """\
Show what runs as a live tree, or one operation until it ends. What ended stays above the tree as a summary. A lost
connection comes back by itself, and nothing is missed. Where the output is no terminal it is plain lines."""
_WATCH_EXAMPLE: Final = """\
example:
  otel-progress watch
  otel-progress watch survey-1 && echo completed
  otel-progress watch --json | jq -r .id"""
_LIST: Final = "List operations: in trouble first, then those that run, then those that ended, the newest first."
_LIST_EXAMPLE: Final = """\
example:
  otel-progress list --status running,waiting
  otel-progress list --verdict stuck,dead --json"""
_SHOW: Final = """\
Show all that is known of one operation: its verdict with the evidence, where it is stuck, its stages and children,
waits and stalls, cost, the last events, its trace, and of a lost one how its process ended."""
_SHOW_EXAMPLE: Final = """\
example:
  otel-progress show survey-1
  otel-progress show survey-1 --events 100"""
_CANCEL: Final = """\
Ask an operation to stop, and tell what became of it: it has stopped, its process took the request, or its process
can't be reached. On a terminal it asks before. It exits with 0 where the operation has stopped within the wait."""
_CANCEL_EXAMPLE: Final = """\
example:
  otel-progress cancel survey-1 --reason "wrong input"
  otel-progress cancel survey-1 --yes --wait 30"""


class Ended(BaseException):
    """A signal that ends the command."""

    def __init__(self, number: int) -> None:
        """With its number."""
        super().__init__(number)
        self.number = number


def add_to(commands: Any) -> None:
    """Add these commands to the parser of all."""
    watch = _command(commands, "watch", "show live what runs", _WATCH, _WATCH_EXAMPLE, _watch)
    watch.add_argument(
        "id", nargs="?", metavar="ID", help="only this one, until it ends: its id, the beginning of it, or its name"
    )
    watch.add_argument("--all", action="store_true", help="tell of what ended before and of completed children, too")
    watch.add_argument("--json", action="store_true", help="write a JSON object a line")
    listed = _command(commands, "list", "list operations", _LIST, _LIST_EXAMPLE, _list)
    listed.add_argument("--status", type=words(STATUSES), metavar="A,B", help=f"only with these: {', '.join(STATUSES)}")
    verdicts = ", ".join(("stuck", *VERDICTS[1:-1]))
    about = f"only with these: {verdicts}; `trouble` is all that is marked"
    listed.add_argument("--verdict", type=words(VERDICTS, STUCK), metavar="A,B", help=about)
    listed.add_argument("--name", metavar="NAME", help="only of this name")
    listed.add_argument("--search", metavar="TEXT", help="only where this stands in the id or the name")
    listed.add_argument(
        "--limit",
        type=whole(1, LIST_MOST),
        default=100,
        metavar="N",
        help="at most N, from 1 to 10000 (default: %(default)s)",
    )
    listed.add_argument("--json", action="store_true", help="write the answer of the monitor")
    show = _command(commands, "show", "show all of one operation", _SHOW, _SHOW_EXAMPLE, _show)
    show.add_argument("id", metavar="ID", help="its id, the beginning of it, or its name")
    show.add_argument(
        "--events",
        type=whole(0, LIST_MOST),
        default=20,
        metavar="N",
        help="the last N events (default: %(default)s; 0: none)",
    )
    show.add_argument("--json", action="store_true", help="write it as JSON")
    cancel = _command(commands, "cancel", "ask an operation to stop", _CANCEL, _CANCEL_EXAMPLE, _cancel)
    cancel.add_argument("id", metavar="ID", help="its id, the beginning of it, or its name")
    cancel.add_argument("--reason", metavar="TEXT", help="why; its process is told")
    cancel.add_argument(
        "--wait", type=between(0, WAIT_MOST), default=5.0, metavar="S", help="for its end (default: %(default)g)"
    )
    cancel.add_argument("--yes", action="store_true", help="do not ask")
    cancel.add_argument("--json", action="store_true", help="write the answer as JSON")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what a command says; returns its exit code, however it ends."""
    from otel_progress.cli.query.client import Answered, Lost, client_of
    from otel_progress.cli.query.exit_codes import INTERRUPTED, NO_MONITOR, Told

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        with _ended_by_signals():
            code = int(options.call(client_of(options, environ), options))
            sys.stdout.flush()
            return code
    except Told as error:
        return _fail(str(error), error.code)
    except MissingDependency as error:
        return _fail(str(error), 2)
    except Lost as error:
        return _fail(f"the monitor does not answer: {error}", NO_MONITOR)
    except Answered as error:
        return _fail(f"the monitor answers: {error}", 1)
    except BrokenPipeError:
        _unread()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        _unread()
        return INTERRUPTED
    except Ended as error:
        _unread()
        return 128 + error.number


# -- the commands


def _watch(client: Any, options: argparse.Namespace) -> int:
    _rich(options)
    from otel_progress.cli.query.watch import watch

    return watch(client, options.id, sys.stdout, as_json=options.json, everything=options.all)


def _list(client: Any, options: argparse.Namespace) -> int:
    _rich(options)
    from otel_progress.cli.query.list_ import list_

    query = {name: getattr(options, name) for name in ("status", "verdict", "name", "search")}
    return list_(client, query, options.limit, sys.stdout, as_json=options.json)


def _show(client: Any, options: argparse.Namespace) -> int:
    _rich(options)
    from otel_progress.cli.query.show import show

    return show(client, options.id, sys.stdout, events=options.events, as_json=options.json)


def _cancel(client: Any, options: argparse.Namespace) -> int:
    from otel_progress.cli.query.cancel import cancel

    ask = None if options.yes else sys.stdin
    given = {"reason": options.reason, "wait": options.wait, "as_json": options.json}
    return cancel(client, options.id, sys.stdout, ask, **given)


def _rich(options: argparse.Namespace) -> None:
    if not options.json and importlib.util.find_spec("rich") is None:
        raise MissingDependency(f'{options.doing} needs Rich: pip install "otel-progress[console]", or use --json')


# -- how they end


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals that would kill it at once let it give the terminal back; the second one of each kills."""
    before: dict[int, Any] = {}

    def end(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise Ended(number)

    def interrupt(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen: dict[int, Callable[[int, Any], NoReturn]] = {signal.SIGINT: interrupt}
    chosen.update({getattr(signal, name): end for name in ENDINGS if hasattr(signal, name)})
    try:
        for number, handler in chosen.items():
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unread() -> None:
    """Nobody reads any more, or the reader may be stuck: what Python would write at its exit goes nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _fail(reason: str, code: int) -> int:
    sys.stderr.write(f"otel-progress: {reason}\n")
    return code


# -- options


def _command(
    commands: Any, name: str, short: str, about: str, example: str, call: Callable[[Any, argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=about,
        epilog=example + "\n" + _CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", metavar="URL", help=f"the monitor (default: OTEL_PROGRESS_MONITOR, else {DEFAULT})")
    parser.add_argument("--token-file", metavar="FILE", help="file with its token (default: OTEL_PROGRESS_TOKEN)")
    parser.set_defaults(call=call)
    return parser
