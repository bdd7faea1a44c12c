"""The certificates that the page of the Collector makes, as a strict client sees them."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from stack.needed import installed

PAGE = Path(__file__).parents[2] / "collector-config" / "README.md"


def test_a_strict_client_accepts_them(tmp_path: Path) -> None:
    """Python 3.13 and later want all that RFC 5280 does."""
    installed("openssl")
    commands = re.search(r"```sh\n(mkdir -p tls\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert commands is not None
    subprocess.run(["sh", "-ec", commands[1]], cwd=tmp_path, check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "tls/server.crt", tmp_path / "tls/server.key")
    strict = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.crt"))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with serving.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall(b"in")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with strict.wrap_socket(ours, server_hostname="localhost") as connection:
        assert connection.recv(2) == b"in"
    thread.join()
