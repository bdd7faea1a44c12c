"""Listening sockets, and the error message for a port that is already in use."""

from __future__ import annotations

import socket
import sys

from otel_progress import procfs
from otel_progress.errors import InvalidArgument


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidArgument: if the port cannot be bound; the message names the process that holds it, and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    if sys.platform != "win32":
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except socket.gaierror:
        found.close()
        raise InvalidArgument(f"--host {host!r} is not an address of this machine") from None
    except (OSError, OverflowError) as error:
        found.close()
        why = error.strerror if isinstance(error, OSError) else "not a valid port"
        raise InvalidArgument(held(port, why or str(error))) from None
    return found


def held(port: int, why: str) -> str:
    """The error message for a port that cannot be bound: who holds it, and what to do."""
    holder = procfs.listener(port)
    if holder is None:
        return f"port {port} cannot be bound ({why}); choose another one with --port"
    return (
        f"port {port} is held by {holder.name} (pid {holder.pid}); either stop it and forward to it from here with "
        f"--forward, or listen elsewhere, for example with --port {port + 100}, and have it or your programs send there"
    )
