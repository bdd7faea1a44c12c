"""Whether an address is this machine's own."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address: `localhost`, or a loopback IP address.

    Other names are none, whatever they resolve to: who decides about them may answer otherwise the next time.

    Example:
        `is_loopback("127.0.0.1") and is_loopback("[::1]") and not is_loopback("example.com")`
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
