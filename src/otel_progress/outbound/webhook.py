"""A webhook: posts events of operations to one address, as signed JSON.

`kind_of` decides which events are delivered, `Deliveries` in which order and when, and `WebhookEndpoint` sends one
request. A receiver verifies the signature with `verify`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.model.status import Status
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.deliveries import PATIENT, Deliveries, Delivery
from otel_progress.outbound.webhook_endpoint import PostResult, WebhookEndpoint

log = logging.getLogger("otel_progress")

KINDS: Final = frozenset({"ended", "failed", "stalled", "recovered", "lost", "dead", "overdue", "slow"})
BODY_BYTES: Final = 256 * 1024
"""The largest body of a delivery."""
TIMEOUT: Final = 5.0
TIMEOUT_MOST: Final = 60.0
GIVE_UP: Final = 24 * 3600.0
"""The time after which a delivery is given up, in seconds."""
TOLERANCE: Final = 300.0
"""How far the timestamp of a signature may be off, in seconds."""
STAMP_CHARS: Final = 20
SIGNATURES: Final = 8
"""Signatures of a header that are checked."""


def kind_of(event: str, status: str | None = None) -> str | None:
    """The kind of delivery for an event, given the status of its operation; None for most events.

    An end has exactly one kind: `failed`, `lost`, or else `ended`.

    Example:
        >>> kind_of("progress.operation.ended", "failed")
        'failed'
    """
    if event == semconv.OPERATION_ENDED:
        return {Status.FAILED.value: "failed", Status.LOST.value: "lost"}.get(status or "", "ended")
    return _KINDS.get(event)


_KINDS: Final = {
    semconv.STALLED: "stalled",
    semconv.RECOVERED: "recovered",
    semconv.WAIT_OVERDUE: "overdue",
    semconv.SLOW: "slow",
}


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """Sign a body that is sent with this text in the timestamp header."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(
    secret: bytes,
    timestamp: str | None,
    body: bytes,
    signature: str | None,
    now: float,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether a delivery was signed with this secret, within the tolerance; never raises.

    A missing header may be passed as None. A header may hold several signatures, separated by commas; one valid
    signature is enough.

    Args:
        secret: the shared secret.
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


class Webhook:
    """Posts deliveries to one address, in a thread of its own, until `close()`.

    A delivery is JSON: `{"version": 1, "id", "kind", "time", "operation": {…}, "event": {…}}`. It is retried for up to
    a day if the receiver can't be reached or answers 408, 429 or 5xx, always with the same id, so a receiver may see an
    id twice. Any other answer except 2xx drops the delivery, which is counted, and logged once for each status.
    `Deliveries` describes the order. What still waits when the process ends is lost.
    """

    def __init__(
        self, url: str, secret: bytes | None = None, *, timeout: float = TIMEOUT, backoff: Backoff = PATIENT
    ) -> None:
        """Start the thread.

        Args:
            url: where deliveries are posted.
            secret: signs each delivery; None leaves them unsigned.
            timeout: seconds for each try.
            backoff: the pauses between tries.

        Raises:
            InvalidArgument: if the address, secret or timeout is invalid.
        """
        if secret is not None and not secret:
            raise InvalidArgument("the secret of the webhook is empty; give some random characters, or none at all")
        if not 0 < timeout <= TIMEOUT_MOST:
            raise InvalidArgument(f"timeout must be above 0 and at most {TIMEOUT_MOST:g} seconds, not {timeout!r}")
        self.delivered = 0
        self._endpoint = WebhookEndpoint(url)
        self._secret = secret
        self._timeout = timeout
        self._backoff = backoff
        self._deliveries = Deliveries(backoff=backoff)
        self._reason = ""
        self._refusals: set[int] = set()
        self._away = self._stopped = False
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="otel-progress-webhook", daemon=True)
        self._thread.start()

    def put(self, kind: str, operation_id: str, row: Mapping[str, Any], event: Mapping[str, Any] | None = None) -> None:
        """Queue a delivery about an operation, with its row and maybe the event; never blocks.

        Raises:
            InvalidArgument: if there is no such kind.
        """
        if kind not in KINDS:
            raise InvalidArgument(f"kind must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
        id = uuid.uuid4().hex
        body = _body(id, kind, row, event)
        with self._ready:
            if body is None or self._stopped:
                self._deliveries.dropped[
                    "it came after the end" if self._stopped else "no JSON, or too much of it"
                ] += 1
                return
            self._deliveries.put(Delivery(id, kind, operation_id, body, clock.monotonic() + GIVE_UP))
            self._ready.notify_all()

    def close(self, timeout: float) -> None:
        """Try to send what waits within the timeout (seconds), and stop; may be called twice."""
        deadline = clock.monotonic() + timeout
        with self._ready:
            self._last_chance = deadline
            self._deliveries.hurry(clock.monotonic())
            self._ready.notify_all()
            while len(self._deliveries) and (left := deadline - clock.monotonic()) > 0:
                self._ready.wait(left)
            self._stopped = True
            self._deliveries.clear()
            self._ready.notify_all()
        self._thread.join(max(0.0, deadline - clock.monotonic()))

    def losses(self) -> list[str]:
        """Say what was not delivered; a line for each reason."""
        with self._ready:
            return [
                f"{count} webhook deliveries to {self._endpoint.shown} were lost: {reason}"
                + (f" ({self._reason})" if self._reason else "")
                for reason, count in sorted(self._deliveries.dropped.items())
            ]

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            stamp = str(int(clock.unix()))
            with self._ready:
                last = self._last_chance
            seconds = self._timeout if last is None else min(self._timeout, max(0.05, last - clock.monotonic()))
            result = self._endpoint.post(delivery.body, self._headers(delivery, stamp), seconds)
            with self._ready:
                self._settle(result)
                self._ready.notify_all()

    def _next(self) -> Delivery | None:
        """Wait until a delivery may be sent; None at the end."""
        with self._ready:
            while not self._stopped:
                now = clock.monotonic()
                delivery = self._deliveries.take(now)
                if delivery is not None:
                    return delivery
                self._ready.wait(self._deliveries.wait(now))
            return None

    def _headers(self, delivery: Delivery, stamp: str) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "otel-progress",
            "Otel-Progress-Event": delivery.kind,
            "Otel-Progress-Delivery": delivery.id,
            "Otel-Progress-Timestamp": stamp,
        }
        if self._secret is not None:
            headers["Otel-Progress-Signature"] = sign(self._secret, stamp, delivery.body)
        return headers

    def _settle(self, result: PostResult) -> None:
        """Settle the delivery in flight by its result."""
        now, where = clock.monotonic(), self._endpoint.shown
        if result.retry:
            self._reason = result.reason
            self._deliveries.again(now, result.after)
            if self._last_chance is not None:
                self._deliveries.hurry(now + self._backoff.first)
            elif not self._away:
                log.warning("the webhook at %s does not take deliveries (%s); they wait", where, result.reason)
            self._away = True
            return
        if result.arrived:
            self.delivered += 1
            self._deliveries.done()
        else:
            self._reason = result.reason
            self._deliveries.refused()
            self._log_refusal(result)
        if self._away:
            self._away = False
            log.info("the webhook at %s answers again", where)

    def _log_refusal(self, result: PostResult) -> None:
        if result.status not in self._refusals:
            self._refusals.add(result.status)
            log.warning(
                "the webhook at %s refused a delivery (%s), which is dropped, as all will be that it refuses so; %s",
                self._endpoint.shown,
                result.reason,
                "give the address that it points to" if 300 <= result.status < 400 else "look into the receiver's log",
            )


def _body(id: str, kind: str, row: Mapping[str, Any], event: Mapping[str, Any] | None) -> bytes | None:
    """The JSON of a delivery, without the event if it would be too large; None if it still is, or is no JSON."""
    said: dict[str, Any] = {"version": 1, "id": id, "kind": kind, "time": round(clock.unix(), 3), "operation": row}
    try:
        body = _json(said if event is None else {**said, "event": event})
        if len(body) > BODY_BYTES:
            body = _json(said)
    except Exception:
        return None
    return body if len(body) <= BODY_BYTES else None


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=str).encode()
