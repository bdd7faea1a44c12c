"""Signatures of webhook deliveries: Standard Webhooks, and the older one that is sent beside it for one more version.

The specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from otel_progress.errors import InvalidArgument

PREFIX: Final = "whsec_"
"""How a secret of Standard Webhooks begins; base64 of the key follows."""
TOLERANCE: Final = 300.0
"""How far the timestamp of a signature may be off, in seconds."""
STAMP_CHARS: Final = 20
SIGNATURES: Final = 8
"""Signatures of a header that are checked."""


def key_of(secret: str | bytes | None) -> bytes | None:
    """The key of a secret: base64 after `whsec_`, else the secret itself; None if nothing is to be signed.

    Raises:
        InvalidArgument: if it is empty, or has no base64 after `whsec_`; the message does not show it.
    """
    if secret is None:
        return None
    if not isinstance(secret, (str, bytes)):
        raise InvalidArgument(f"the secret of the webhook must be a text or bytes, not {type(secret).__name__}")
    if isinstance(secret, str) and secret.startswith(PREFIX):
        text = secret.removeprefix(PREFIX).strip()
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument(f"the secret of the webhook begins with {PREFIX}, but no base64 follows") from None
    else:
        key = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
    if not key:
        raise InvalidArgument("the secret of the webhook is empty; give some random characters, or none at all")
    return key


def standard(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    """The header `webhook-signature` of a delivery."""
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The older header `Otel-Progress-Signature`, which the next version no longer sends."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(
    secret: bytes,
    timestamp: str | None,
    body: bytes,
    signature: str | None,
    now: float,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether a delivery has a valid older signature, within the tolerance; never raises.

    A missing header may be passed as None. A header may hold several signatures, separated by commas; one valid
    signature is enough. Receivers should verify `webhook-signature` instead, by any library for Standard Webhooks.

    Args:
        secret: the key.
        timestamp: the header `Otel-Progress-Timestamp`.
        body: the body as received, before any parsing.
        signature: the header `Otel-Progress-Signature`.
        now: Unix seconds.
        tolerance: how far the timestamp may be off, in seconds.
    """
    if timestamp is None or signature is None:
        return False
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= STAMP_CHARS):
        return False
    if not abs(now - int(timestamp)) <= tolerance:
        return False
    right = sign(secret, timestamp, body).encode()
    given = [one.strip().encode("utf-8", "replace") for one in signature.split(",", SIGNATURES)[:SIGNATURES]]
    return any(hmac.compare_digest(right, one) for one in given)
