"""Posts what happened to operations to one address, as signed JSON; whoever says it never waits.

`kind_of` tells what is worth a delivery, `Deliveries` decides what goes when (no thread, no clock, no network), and
`Webhook` sends. A receiver checks the signature by `verify`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import random
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.model.status import Status
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.deadline import HEAD_BYTES, Plain, Tls, seconds_of, within

log = logging.getLogger("otel_progress")

KINDS: Final = frozenset({"ended", "failed", "stalled", "recovered", "lost", "dead", "overdue", "slow"})
WAITING: Final = 1000
"""Deliveries that may wait."""
BYTES: Final = 32 * 1024 * 1024
"""The most that they hold together."""
ANSWER_BYTES: Final = 2 * HEAD_BYTES
BODY_BYTES: Final = 256 * 1024
"""The most that one of them holds."""
TIMEOUT: Final = 5.0
TIMEOUT_MOST: Final = 60.0
PATIENT: Final = Backoff(first=0.5, longest=60.0, longest_asked=600.0, jitter=random.random)
"""The pauses between tries of a delivery."""
GIVE_UP: Final = 24 * 3600.0
"""After so many seconds a delivery is given up."""
TOLERANCE: Final = 300.0
"""How old a signature may be, in seconds, and how far ahead."""
STAMP_CHARS: Final = 20
SIGNATURES: Final = 8
"""The most signatures in a header that are looked at."""


def kind_of(event: str, status: str | None = None) -> str | None:
    """The kind of delivery that an event calls for, given its operation's status; None for most events.

    An end calls for exactly one: `failed`, `lost`, or else `ended`.
    """
    if event == semconv.OPERATION_ENDED:
        return {Status.FAILED.value: "failed", Status.LOST.value: "lost"}.get(status or "", "ended")
    return _KINDS.get(event)


_KINDS: Final = {
    semconv.STALLED: "stalled",
    semconv.RECOVERED: "recovered",
    semconv.OVERDUE: "overdue",
    semconv.SLOW: "slow",
}


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The signature of a body that is sent at a time (the text of the header with the timestamp)."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(
    secret: bytes,
    timestamp: str | None,
    body: bytes,
    signature: str | None,
    now: float,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether a delivery was signed with this secret, and not longer ago than the tolerance; it never raises.

    A header that is missing may be given as None. Several signatures may stand in one, parted by commas; one that is
    right is enough.

    Args:
        secret: what both sides know.
        timestamp: the header `Otel-Progress-Timestamp`.
        body: the body as it came, before anything parses it.
        signature: the header `Otel-Progress-Signature`.
        now: Unix seconds.
        tolerance: how many seconds the timestamp may be off, either way.
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


# -- what goes when


@dataclass
class Delivery:
    """One thing to post; `until` is when it is given up, by the monotonic clock."""

    id: str
    kind: str
    operation_id: str
    body: bytes
    until: float
    tries: int = 0
    not_before: float = 0.0


class Deliveries:
    """What waits, bounded; what a bound drops is counted by its reason.

    Those of one operation go in their order. A delivery that failed waits for its own time, longer each time, and
    with it only what its operation said after it; so one that the receiver chokes on holds nobody else up. After a
    failure nothing at all goes for a while, which grows with the failures in a row, so a receiver that is down is not
    knocked at once for each delivery.
    """

    def __init__(self, *, most: int = WAITING, most_bytes: int = BYTES, backoff: Backoff = PATIENT) -> None:
        """With limits, and the pauses between tries."""
        self.dropped: Counter[str] = Counter()
        self._most = most
        self._most_bytes = most_bytes
        self._backoff = backoff
        self._waiting: dict[str, Delivery] = {}
        self._bytes = 0
        self._failures = 0
        self._quiet_until = 0.0
        self._sending: Delivery | None = None

    def __len__(self) -> int:
        """How many wait, with the one on its way."""
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """After all others of its operation; where there is no room, the oldest goes, but not the one on its way."""
        self._waiting[delivery.id] = delivery
        self._bytes += len(delivery.body)
        while len(self._waiting) > self._most or self._bytes > self._most_bytes:
            oldest = next((one for one in self._waiting.values() if one is not self._sending), None)
            if oldest is None:
                return
            self._remove(oldest, "too many waited")

    def take(self, now: float) -> Delivery | None:
        """The next one that may go now; it is on its way until `done`, `refused` or `again` is called."""
        for one in [one for one in self._waiting.values() if one.until <= now]:
            self._remove(one, "given up after a day of trying")
        if now >= self._quiet_until:
            self._sending = next((one for one in self._heads() if one.not_before <= now), None)
        return self._sending

    def wait(self, now: float) -> float | None:
        """In how many seconds one may go; None: not before another is put."""
        if not self._waiting:
            return None
        return max(0.0, max(self._quiet_until, min(one.not_before for one in self._heads())) - now)

    def done(self) -> None:
        """It arrived."""
        self._over(None)

    def refused(self) -> None:
        """It was refused for good."""
        self._over("refused")

    def again(self, now: float, after: float | None = None) -> None:
        """It failed, and may go again: after a pause, and not before the seconds that the receiver asked for."""
        one, self._sending = self._sending, None
        self._failures += 1
        asked = self._backoff.bounded(after)
        self._quiet_until = now + max(asked, self._backoff.pause(self._failures))
        if one is not None:
            one.tries += 1
            one.not_before = now + max(asked, self._backoff.pause(one.tries))

    def hurry(self, now: float) -> None:
        """Forget all pauses: the end is near."""
        self._failures = 0
        self._quiet_until = min(self._quiet_until, now)
        for one in self._waiting.values():
            one.tries, one.not_before = 0, min(one.not_before, now)

    def clear(self) -> None:
        """Nothing goes any more."""
        for one in list(self._waiting.values()):
            self._remove(one, "not sent at the end")

    def _heads(self) -> Iterator[Delivery]:
        """The oldest of each operation."""
        seen: set[str] = set()
        for one in self._waiting.values():
            if one.operation_id not in seen:
                seen.add(one.operation_id)
                yield one

    def _over(self, reason: str | None) -> None:
        one, self._sending = self._sending, None
        self._failures, self._quiet_until = 0, 0.0
        if one is not None and one.id in self._waiting:
            self._remove(one, reason)

    def _remove(self, one: Delivery, reason: str | None) -> None:
        del self._waiting[one.id]
        self._bytes -= len(one.body)
        if reason is not None:
            self.dropped[reason] += 1


# -- the receiver


class Answer(NamedTuple):
    """What became of a try: the HTTP status (0: no answer), the seconds it asked to wait, and words."""

    status: int
    after: float | None = None
    reason: str = ""

    @property
    def arrived(self) -> bool:
        """Whether the receiver has it."""
        return 200 <= self.status < 300

    @property
    def retry(self) -> bool:
        """Whether another try may help."""
        return self.status in (0, 408, 429) or self.status >= 500


class Receiver:
    """Where deliveries go: http or https, with a name and password for Basic in the address, if there are any.

    Redirects are not followed, certificates of https are checked against those that the system trusts, and no proxy
    is used. A try has one deadline, as `deadline` says.
    """

    def __init__(self, url: str) -> None:
        """Nothing is opened.

        Raises:
            InvalidArgument: where the address can't be meant; the text does not show it, as it may hold a secret.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = all(33 <= ord(character) != 127 for character in url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise InvalidArgument(
                "the address of the webhook must look like https://example.org/hook; "
                "it is not shown here, as it may hold a secret"
            )
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._tls else 80)
        self._target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~+!$,;'@()*")
        self._headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.shown: Final = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        """The address without name, password, path and query: any of them may be a secret."""

    def post(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Send it; it never raises."""
        try:
            with within(timeout, ANSWER_BYTES), closing(self._connection(timeout)) as connection:
                connection.request("POST", self._target, body, {**headers, **self._headers, "Connection": "close"})
                with connection.getresponse() as response:
                    after = seconds_of(response.headers.get("Retry-After", ""), clock.unix())
                    return Answer(response.status, after, f"HTTP {response.status}")
        except Exception as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Answer(0, None, f"{type(error).__name__}: {words}"[:200])

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            return Tls(self._host, self._port, timeout=timeout, context=self._tls)
        return Plain(self._host, self._port, timeout=timeout)


# -- the two together


class Webhook:
    """Posts deliveries to one address, from a thread of its own, until `close()`.

    A delivery is JSON: `{"version": 1, "id", "kind", "time", "operation": {…}, "event": {…}}`. It is tried for up to a
    day where the receiver can't be reached or answers 408, 429 or 5xx, with the same id each time: a receiver may see
    an id twice. Any other answer but 2xx drops it; that is counted, and told once for each status. What is sent, and
    in which order, is as `Deliveries` says. What waits when the process ends is lost.
    """

    def __init__(
        self, url: str, secret: bytes | None = None, *, timeout: float = TIMEOUT, backoff: Backoff = PATIENT
    ) -> None:
        """To this address, signed with this secret, each try within so many seconds; it begins at once.

        Raises:
            InvalidArgument: for an address, secret or timeout that can't be meant.
        """
        if secret is not None and not secret:
            raise InvalidArgument("the secret of the webhook is empty; give some random characters, or none at all")
        if not 0 < timeout <= TIMEOUT_MOST:
            raise InvalidArgument(f"timeout must be above 0 and at most {TIMEOUT_MOST:g} seconds, not {timeout!r}")
        self.delivered = 0
        self._receiver = Receiver(url)
        self._secret = secret
        self._timeout = timeout
        self._backoff = backoff
        self._deliveries = Deliveries(backoff=backoff)
        self._reason = ""
        self._told: set[int] = set()
        self._away = self._stopped = False
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="otel-progress-webhook", daemon=True)
        self._thread.start()

    def put(self, kind: str, operation_id: str, row: Mapping[str, Any], event: Mapping[str, Any] | None = None) -> None:
        """Post that this happened to an operation, with its row and maybe the event; it never waits.

        Raises:
            InvalidArgument: for a kind that there is not.
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
        """Try what waits, within so many seconds, and stop; it may be called twice."""
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
        """What was not delivered, in words; a line for each reason."""
        with self._ready:
            return [
                f"{count} webhook deliveries to {self._receiver.shown} were lost: {reason}"
                + (f" ({self._reason})" if self._reason else "")
                for reason, count in sorted(self._deliveries.dropped.items())
            ]

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            stamp = str(int(clock.unix()))
            with self._ready:
                last = self._last_chance
            seconds = self._timeout if last is None else min(self._timeout, max(0.05, last - clock.monotonic()))
            answer = self._receiver.post(delivery.body, self._headers(delivery, stamp), seconds)
            with self._ready:
                self._settle(answer)
                self._ready.notify_all()

    def _next(self) -> Delivery | None:
        """Wait until one may go; None at the end."""
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

    def _settle(self, answer: Answer) -> None:
        """Decide by the answer what becomes of the one on its way."""
        now, where = clock.monotonic(), self._receiver.shown
        if answer.retry:
            self._reason = answer.reason
            self._deliveries.again(now, answer.after)
            if self._last_chance is not None:
                self._deliveries.hurry(now + self._backoff.first)
            elif not self._away:
                log.warning("the webhook at %s does not take deliveries (%s); they wait", where, answer.reason)
            self._away = True
            return
        if answer.arrived:
            self.delivered += 1
            self._deliveries.done()
        else:
            self._reason = answer.reason
            self._deliveries.refused()
            self._tell_refusal(answer)
        if self._away:
            self._away = False
            log.info("the webhook at %s answers again", where)

    def _tell_refusal(self, answer: Answer) -> None:
        if answer.status not in self._told:
            self._told.add(answer.status)
            log.warning(
                "the webhook at %s refused a delivery (%s), which is dropped, as all will be that it refuses so; %s",
                self._receiver.shown,
                answer.reason,
                "give the address that it points to" if 300 <= answer.status < 400 else "look into the receiver's log",
            )


def _body(id: str, kind: str, row: Mapping[str, Any], event: Mapping[str, Any] | None) -> bytes | None:
    """The JSON of a delivery, without the event where it would be too large; None where it can't be."""
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
