"""What became of an OTLP request, and what the log says of a signal whose requests fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from otel_progress.outbound import trouble
from otel_progress.outbound.trouble import Trouble

ASK_AGAIN: Final = 60.0
"""Seconds between two requests of a signal of which the receiver keeps nothing: they find out whether that is so."""


@dataclass(frozen=True)
class Answer:
    """The outcome of a request.

    Attributes:
        delivered: the receiver accepted the request.
        retry: the request may be sent again.
        after: the pause that the receiver asked for, in seconds.
        rejected: items that the receiver rejected although it accepted the request.
        unclear: no answer came, or that of a gateway, so the receiver may have the request all the same.
        about_data: the request was refused for its content, so no retry can succeed.
        too_large: the request was refused for its size; its parts may be accepted.
        reason: what the receiver answered, or why there is no answer; empty after a success.
        trouble: the same for people, with the cure.
        control: the control channel that the receiver offers.
        discards: the receiver keeps nothing of this signal.
    """

    delivered: bool
    retry: bool = False
    after: float | None = None
    rejected: int = 0
    unclear: bool = False
    about_data: bool = False
    too_large: bool = False
    reason: str = ""
    trouble: Trouble | None = None
    control: str | None = None
    discards: bool = False


class SignalStatus:
    """Whether the requests of one signal are delivered; a change is logged once."""

    def __init__(self, name: str, reporter: trouble.Reporter | None = None) -> None:
        """Start without trouble; `name` is the signal as people read it, `reporter` by default that of the process."""
        self._name = name
        self._reporter = reporter
        self.trouble: Trouble | None = None
        """Why the last request was not delivered."""

    def update(self, answer: Answer) -> None:
        """Take the outcome of the last request into account."""
        before, reporter = self.trouble, self._reporter or trouble.reporter
        if answer.delivered:
            self.trouble = None
        else:
            text = f"{self._name} can't be delivered ({answer.reason})"
            self.trouble = answer.trouble or Trouble("the receiver", text, text, self._name)
            reporter.begin(self.trouble)
        if before is not None and before != self.trouble:
            reporter.over(before, replaced=not answer.delivered)
