"""Which addresses a webhook may reach: checked when it connects, on the address that the name resolved to.

A name may resolve to another address each time (DNS rebinding), so a check of the name proves nothing. Cloud metadata
services hand out credentials to whoever can make a server send a request, so no webhook reaches them.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Literal, get_args

from otel_progress.errors import InvalidArgument
from otel_progress.outbound.loopback import is_loopback

Addresses = Literal["public", "private", "any"]
"""What a webhook may reach.

- `public`: public addresses alone, for URLs that come from other people.
- `private`: also those of private networks, and of this machine if the URL itself says so: by `localhost`, by the name
  of this host, or by the IP address.
- `any`: no check.
"""
OWN: Final = "an address of this machine, though the URL names another"
_METADATA: Final = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Metadata services that are not link-local: Alibaba Cloud, Azure, Oracle Cloud, AWS and Google Cloud over IPv6."""
_NAT64: Final = ip_network("64:ff9b::/96")


class ForbiddenAddress(OSError):
    """The receiver's name resolved to an address that the webhook must not reach."""


def checked(addresses: str) -> str:
    """The option, if it is one of `Addresses`.

    Raises:
        InvalidArgument: if it is not.
    """
    if addresses not in get_args(Addresses):
        raise InvalidArgument(f"addresses must be {', '.join(get_args(Addresses))}, not {addresses!r}")
    return addresses


def objection(address: str, host: str, addresses: str) -> str | None:
    """Why an address must not be reached; None if it may be.

    Args:
        address: the IP address that a name resolved to.
        host: the host of the URL.
        addresses: one of `Addresses`.

    Example:
        >>> objection("169.254.169.254", "example.org", "private")
        'a link-local address'
    """
    if addresses == "any":
        return None
    found = _meant(ip_address(address.partition("%")[0]))
    if found.is_link_local:
        return "a link-local address"
    if found in _METADATA:
        return "a metadata service"
    if found.is_unspecified or found.is_multicast:
        return "no address of a host"
    if addresses == "public":
        return None if found.is_global else "no public address"
    if found.is_loopback and not is_loopback(host):
        return OWN
    return None


def objection_to_literal(host: str, addresses: str) -> str | None:
    """Why the host of a URL must not be reached, if it is an IP address; a name is checked when it is resolved."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return objection(host, host, addresses)


def is_own(family: int, where: Any) -> bool:
    """Whether an address is one of this machine: its source would be the address itself. Nothing is sent.

    Args:
        family: the address family.
        where: the address, as `getaddrinfo` returns it.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(where)
            return bool(ip_address(probe.getsockname()[0]) == ip_address(where[0]))
    except (OSError, ValueError):  # no route there
        return False


def _may_be_own(host: str, addresses: str) -> bool:
    """Whether the URL says itself that it means this machine."""
    if addresses != "private":
        return addresses == "any"
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return is_loopback(host) or host.lower() == socket.gethostname().lower()
    return True


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 address that stands for it, else the address itself."""
    if isinstance(address, IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inside is None and address in _NAT64:
            inside = IPv4Address(int(address) & 0xFFFFFFFF)
        return inside or address
    return address


def connect(host: str, port: int, timeout: float | None, addresses: str) -> socket.socket:
    """Connect to the first address of a host that may be reached and answers.

    Raises:
        ForbiddenAddress: if the host has none that may be reached.
        OSError: if none answers.
    """
    told: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        why = objection(str(where[0]), host, addresses)
        if why is None and not _may_be_own(host, addresses) and is_own(family, where):
            why = OWN
        if why is not None:
            told = ForbiddenAddress(f"the host resolves to {where[0]}, {why}")
            continue
        try:
            return _opened(socket.socket(family, kind, protocol), where, timeout)
        except OSError as error:
            told = error
    raise told


def _opened(sock: socket.socket, where: Any, timeout: float | None) -> socket.socket:
    try:
        sock.settimeout(timeout)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock
