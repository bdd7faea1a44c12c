"""The function that decides what of a text may leave: which one is named, and what follows if it fails."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import TypeAlias

from otel_progress.model.origin import of_the_job
from otel_progress.model.secrets import MASK, mask_secrets

Redact: TypeAlias = Callable[[str, str], str]
"""Gets what a text is (`message`, `stack`, … or the key of an attribute) and the text; returns what may leave of it."""


def keep_all(what: str, text: str) -> str:  # noqa: ARG001
    """The text as it is: no redaction."""
    return text


def by_name(named: str) -> Redact:
    """The redaction that `OTEL_PROGRESS_REDACT` names: `secrets`, `off`, or `module:function`.

    Raises:
        ValueError: where there is none of that name; the message says why.
    """
    known = {"secrets": mask_secrets, "off": keep_all}.get(named.lower())
    if known is not None:
        return known
    module, colon, name = named.partition(":")
    if not colon:
        raise ValueError("it must be 'secrets', 'off', or 'module:function'")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"{name} of {module} can't be called")
    called: Redact = found
    return called


def guarded(redact: Redact, told: Callable[[str], None] = lambda _: None) -> Redact:
    """The same redaction; where it fails, or returns no text, all is masked, so that a bug in it leaks nothing.

    `told` gets what went wrong, in words.
    """
    inside = threading.local()

    def masked(what: str, text: str) -> str:
        if getattr(inside, "on", False):  # the hook itself says something
            return mask_secrets(what, text)
        inside.on = True
        try:
            found = redact(what, text)
        except BaseException as error:
            if of_the_job(error):
                raise
            told(f"the redaction hook raised {type(error).__name__}; the text is masked")
            return MASK
        finally:
            inside.on = False
        if type(found) is str:
            return found
        told(f"the redaction hook returned a {type(found).__name__}, not a text; the text is masked")
        return MASK

    return masked
