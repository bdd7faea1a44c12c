"""Whether a port speaks TLS."""

from __future__ import annotations

import socket
import ssl


def speaks_tls(host: str, port: int, timeout: float) -> bool:
    """Whether a handshake succeeds, or is refused by a TLS alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout) as raw, context.wrap_socket(raw):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False
