"""Loopback ports for servers of a test, reserved while the test lasts."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the ephemeral port range, and above the ports of the Collectors of other tests. The caller holds the first
# port of each block, so that no other test, in this process or another, takes the rest.
_BLOCK = 6
_BLOCKS = range(16_000, 20_000 - _BLOCK, _BLOCK)


def free_ports(count: int) -> tuple[socket.socket, list[int]]:
    """Return a socket to hold as long as the ports are in use, and up to five ports.

    Raises:
        OSError: If none are left.
    """
    # Not the shared generator: test runners seed it, so parallel workers would try the same blocks.
    for block in random.SystemRandom().sample(_BLOCKS, k=len(_BLOCKS)):
        ports = [block + offset for offset in range(1, count + 1)]
        with contextlib.ExitStack() as probes:
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", block))
                for port in ports:
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                guard.close()
            else:
                return guard, ports
    raise OSError("there are no free ports")
