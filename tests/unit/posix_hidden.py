"""Runs a program as on a system without POSIX: `python posix_hidden.py FILE` or `-m MODULE`, then its arguments.

The standard library is imported first, as it chose its ways by what this system has. Then the modules, functions and
constants that Windows lacks are gone, and `/proc` with them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.thread
import getpass
import http.server
import io
import logging.handlers
import multiprocessing.util
import os
import runpy
import select
import shutil
import signal
import socketserver
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from typing import Any

MODULES = (
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
    "uvloop",
)
OF_OS = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "WNOHANG", "chown", "chroot", "fchmod"),
    *("fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp"),
    *("getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown", "mkfifo", "mknod", "nice", "openpty"),
    *("pipe2", "posix_spawn", "posix_spawnp", "pread", "pwrite", "register_at_fork", "sched_getaffinity", "sendfile"),
    *("set_blocking", "setpgid", "setsid", "statvfs", "sysconf", "tcgetpgrp", "tcsetpgrp", "uname", "wait", "waitid"),
)
OF_SIGNAL = (
    *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGPROF", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
    *("SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer"),
    *("siginterrupt", "sigpending", "sigtimedwait", "sigwait", "sigwaitinfo"),
)
OF_SELECT = ("epoll", "poll")
USED = (
    asyncio, concurrent.futures, getpass, http.server, io, logging.handlers, multiprocessing.util, shutil,
    socketserver, sqlite3, ssl, subprocess, tempfile, urllib.request, uuid,
)  # fmt: skip


def hide() -> None:
    """Hide what only POSIX has."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL), (select, OF_SELECT)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)

    read_link = os.readlink

    def readlink(path: Any, **options: Any) -> Any:
        _refuse(path)
        return read_link(path, **options)

    os.readlink = readlink
    sys.addaudithook(lambda event, args: _refuse(args[0]) if event in ("open", "os.listdir", "os.scandir") else None)


def _refuse(path: object) -> None:
    if isinstance(path, (str, bytes, os.PathLike)) and os.fspath(path)[:5] in ("/proc", b"/proc"):
        raise FileNotFoundError(path)


if __name__ == "__main__":
    sys.argv[:] = sys.argv[1:]
    hide()
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
