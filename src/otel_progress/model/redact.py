"""Redaction hooks: look one up by name, and guard against its failure. The default is `secrets.mask_secrets`."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import TypeAlias

from otel_progress.model.origin import of_the_job
from otel_progress.model.secrets import MASK, mask_secrets

Redact: TypeAlias = Callable[[str, str], str]
"""Called with the kind of text (`message`, `stack`, … or an attribute key) and the text; returns what may leave."""


def keep_all(what: str, text: str) -> str:  # noqa: ARG001
    """Return the text unchanged: no redaction."""
    return text


def by_name(named: str) -> Redact:
    """Return the redaction that `OTEL_PROGRESS_REDACT` names: `secrets`, `off`, or `module:function`.

    Raises:
        ValueError: if there is none of that name; the message says why.
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


def guarded(redact: Redact, on_error: Callable[[str], None] = lambda _: None) -> Redact:
    """Wrap a redaction: if it raises or returns no string, the whole text is masked, so that a bug leaks nothing.

    `on_error` is called with a message about what went wrong.
    """
    inside = threading.local()

    def masked(what: str, text: str) -> str:
        if getattr(inside, "on", False):  # the hook itself reports something
            return mask_secrets(what, text)
        inside.on = True
        try:
            found = redact(what, text)
        except BaseException as error:
            if of_the_job(error):
                raise
            on_error(f"the redaction hook raised {type(error).__name__}; the text is masked")
            return MASK
        finally:
            inside.on = False
        if type(found) is str:
            return found
        on_error(f"the redaction hook returned a {type(found).__name__}, not a string; the text is masked")
        return MASK

    return masked
