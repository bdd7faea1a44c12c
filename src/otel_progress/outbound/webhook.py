"""A webhook: posts changes of operations to one address, as signed JSON or as a message of a chat.

`delivery_kinds` decides which changes are delivered, `payloads` in which form, `Deliveries` in which order and when,
and `WebhookEndpoint` sends one request. `signatures` says how a receiver verifies it.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.outbound import addresses as reach
from otel_progress.outbound import payloads
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.dead_letters import DeadLetter, DeadLetters
from otel_progress.outbound.deliveries import PATIENT, Deliveries, Delivery
from otel_progress.outbound.delivery_kinds import KINDS, chosen, kind_of
from otel_progress.outbound.payloads import BODY_BYTES
from otel_progress.outbound.signatures import key_of, sign, standard, verify
from otel_progress.outbound.webhook_endpoint import ALLOW, PostResult, WebhookEndpoint

__all__ = ["BODY_BYTES", "Webhook", "WebhookOptions", "headers", "kind_of", "sign", "verify"]

log = logging.getLogger("otel_progress")

TIMEOUT: Final = 5.0
TIMEOUT_MOST: Final = 60.0
GIVE_UP: Final = 24 * 3600.0
"""The time after which a delivery is given up, in seconds."""
VARIABLE: Final = "OTEL_PROGRESS_WEBHOOK_"
"""The variables of a webhook: `…URL`, `…SECRET`, `…FORMAT`, `…EVENTS`, `…DEAD_LETTERS`, `…ADDRESSES`."""


@dataclass(frozen=True)
class WebhookOptions:
    """What a webhook posts, and where.

    Attributes:
        url: where deliveries are posted; it may hold a secret, and is never shown.
        secret: signs each delivery: `whsec_` and base64, or any text; None leaves them unsigned.
        format: `generic`, `slack`, `teams` or `discord`.
        events: the kinds that are delivered; None for ends and trouble, `all` for each change and update.
        dead_letters: the file that keeps what was given up or refused.
        addresses: which addresses may be reached: `public`, `private` or `any`.
    """

    url: str = field(repr=False)
    secret: str | bytes | None = field(default=None, repr=False)
    format: str = "generic"
    events: str | Iterable[str] | None = None
    dead_letters: str | os.PathLike[str] | None = None
    addresses: str = "private"

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            InvalidArgument: if an option is invalid.
        """
        object.__setattr__(self, "events", chosen(self.events))
        payloads.checked(self.format)
        key_of(self.secret)
        WebhookEndpoint(self.url, reach.checked(self.addresses))
        if self.dead_letters is not None:
            DeadLetters(self.dead_letters)

    @classmethod
    def read(cls, environ: Mapping[str, str], **given: Any) -> WebhookOptions:
        """From the variables; what is given (and not None) takes precedence.

        Raises:
            InvalidArgument: if an option is invalid, or there is no URL.
        """
        found: dict[str, Any] = {name: environ.get(VARIABLE + name.upper()) for name in cls.__dataclass_fields__}
        if found["secret"] == "":
            raise InvalidArgument(f"{VARIABLE}SECRET is empty: set the key to sign with, or unset it")
        found |= {name: value for name, value in given.items() if value is not None}
        if not found["url"]:
            raise InvalidArgument(f"set {VARIABLE}URL to the address that the webhook posts to")
        return cls(**{name: value for name, value in found.items() if value})


class Webhook:
    """Posts deliveries to one address, in a thread of its own, until `close()`.

    A delivery is retried for up to a day if the receiver can't be reached or answers 408, 429 or 5xx, always with the
    same id, so a receiver may see an id twice. Any other answer except 2xx drops the delivery, which is counted, and
    logged once for each status. `Deliveries` describes the order. What is dropped, and what still waits at the end,
    goes to the dead letters, if there is a file for them.
    """

    def __init__(self, options: WebhookOptions, *, timeout: float = TIMEOUT, backoff: Backoff = PATIENT) -> None:
        """Start the thread.

        Args:
            options: what is posted, and where.
            timeout: seconds for each try.
            backoff: the pauses between tries.

        Raises:
            InvalidArgument: if the timeout is invalid.
        """
        if not 0 < timeout <= TIMEOUT_MOST:
            raise InvalidArgument(f"timeout must be above 0 and at most {TIMEOUT_MOST:g} seconds, not {timeout!r}")
        self.delivered = 0
        self.kinds: Final = chosen(options.events)
        self._format = options.format
        self._key = key_of(options.secret)
        self._endpoint = WebhookEndpoint(options.url, options.addresses)
        self._letters = None if options.dead_letters is None else DeadLetters(options.dead_letters)
        self._timeout = timeout
        self._backoff = backoff
        self._deliveries = Deliveries(backoff=backoff, keep_lost=self._letters is not None)
        self._reason = ""
        self._refusals: set[int] = set()
        self._away = self._stopped = False
        self._last_chance: float | None = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="otel-progress-webhook", daemon=True)
        self._thread.start()

    def put(self, kind: str, operation_id: str, row: Mapping[str, Any], event: Mapping[str, Any] | None = None) -> None:
        """Queue a delivery about an operation, if its kind was chosen; never blocks.

        Args:
            kind: what happened.
            operation_id: the operation.
            row: its row, as the API has it.
            event: the event, if there is one.

        Raises:
            InvalidArgument: if there is no such kind.
        """
        if kind not in KINDS:
            raise InvalidArgument(f"kind must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
        if kind not in self.kinds:
            return
        id = uuid.uuid4().hex
        body = payloads.body(self._format, payloads.Change(id, kind, round(clock.unix(), 3), row, event))
        with self._ready:
            if body is None:
                self._deliveries.dropped["no JSON, or too much of it"] += 1
                return
            delivery = Delivery(id, kind, operation_id, body, clock.monotonic() + GIVE_UP)
            if not self._stopped:
                self._deliveries.put(delivery)
                self._ready.notify_all()
                return
            self._deliveries.lose(delivery, "it came after the end")
        self._bury()

    def flush(self, timeout: float) -> bool:
        """Try to send what waits within the timeout (seconds); returns whether nothing is left.

        Each is tried at once, whatever pause was asked for before; a pause that the receiver asks for now is kept.
        """
        deadline = clock.monotonic() + timeout
        with self._ready:
            self._last_chance = deadline
            self._deliveries.hurry(clock.monotonic())
            self._ready.notify_all()
            while (left := deadline - (now := clock.monotonic())) > 0:
                pause = self._deliveries.wait(now)
                if pause is None or pause >= left:  # nothing waits, or the receiver asked for more time than there is
                    break
                self._ready.wait(left)
            self._last_chance = None
            return not len(self._deliveries)

    def close(self, timeout: float) -> None:
        """Try to send what waits within the timeout (seconds), and stop; may be called twice."""
        deadline = clock.monotonic() + timeout
        self.flush(timeout)
        with self._ready:
            self._stopped = True
            self._deliveries.clear()
            self._ready.notify_all()
        self._bury()
        self._thread.join(max(0.0, deadline - clock.monotonic()))

    @property
    def lost(self) -> int:
        """How many deliveries were dropped."""
        with self._ready:
            return sum(self._deliveries.dropped.values())

    def losses(self) -> list[str]:
        """Say what was not delivered; a line for each reason."""
        kept = "" if self._letters is None else f"; see {self._letters.path}"
        with self._ready:
            return [
                f"{count} webhook {'delivery' if count == 1 else 'deliveries'} to {self._endpoint.shown} "
                f"{'was' if count == 1 else 'were'} lost: {reason}"
                + (f" ({self._reason})" if self._reason else "")
                + kept
                for reason, count in sorted(self._deliveries.dropped.items())
            ]

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            with self._ready:
                last = self._last_chance
            seconds = self._timeout if last is None else min(self._timeout, max(0.05, last - clock.monotonic()))
            sent = headers(delivery.id, delivery.kind, delivery.body, self._key, clock.unix())
            result = self._endpoint.post(delivery.body, sent, seconds)
            with self._ready:
                self._settle(result)
                self._ready.notify_all()
            self._bury()

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

    def _bury(self) -> None:
        """Write what was dropped to the dead letters; not called with the lock, as a disk may be slow."""
        if self._letters is not None:
            with self._ready:
                lost = self._deliveries.take_lost()
                why = self._reason
            self._letters.add(
                DeadLetter(f"{reason} ({why})" if why else reason, one.id, one.kind, one.operation_id, one.body)
                for one, reason in lost
            )

    def _settle(self, result: PostResult) -> None:
        """Settle the delivery in flight by its result."""
        now, where = clock.monotonic(), self._endpoint.shown
        if result.retry:
            self._reason = result.reason
            self._deliveries.again(now, result.after)
            if self._last_chance is not None and not result.after:
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
        if self._away and result.status:
            self._away = False
            log.info("the webhook at %s answers now", where)

    def _log_refusal(self, result: PostResult) -> None:
        if result.status not in self._refusals:
            self._refusals.add(result.status)
            log.warning(
                "the webhook at %s refused a delivery (%s), which is dropped, as all will be that it refuses so; %s",
                self._endpoint.shown,
                result.reason,
                _advice(result),
            )


def _advice(result: PostResult) -> str:
    if result.forbidden:
        return ALLOW
    return "give the address that it points to" if 300 <= result.status < 400 else "look into the receiver's log"


def headers(id: str, kind: str, body: bytes, key: bytes | None, now: float) -> dict[str, str]:
    """The headers of a delivery; `webhook-…` are those of Standard Webhooks, the next version sends no others."""
    stamp = str(int(now))
    found = {
        "Content-Type": "application/json",
        "User-Agent": "otel-progress",
        "webhook-id": id,
        "webhook-timestamp": stamp,
        "Otel-Progress-Event": kind,
        "Otel-Progress-Delivery": id,
        "Otel-Progress-Timestamp": stamp,
    }
    if key is not None:
        found["webhook-signature"] = standard(key, id, stamp, body)
        found["Otel-Progress-Signature"] = sign(key, stamp, body)
    return found
